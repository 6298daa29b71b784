#include "relay/base/config_build.h"

#include <stdlib.h>
#include <string.h>

#include "relay/base/config_value.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define WORDS_MAX    64 /* keys or kinds looked through for a suggestion */
#define HEADING_MAX  (CONFIG_NAME_MAX + 32)
#define LIST_MAX     128

static void heading(const struct config_section *s, char out[HEADING_MAX])
{
    (void)snprintf(out, HEADING_MAX, "[%.20s%s%.*s]", s->kind, *s->name != '\0' ? " " : "",
                   CONFIG_NAME_MAX, s->name);
}

void config_build_no_memory(struct config_builder *b)
{
    if (!b->no_memory)
        config_mistakes_add(&b->m, 0, "there is not enough memory to read it");
    b->no_memory = true;
}

bool config_build_is(const struct config_target *t, const char *kind)
{
    return t->kind != NULL && strcmp(t->kind->kind, kind) == 0;
}

/* ---- sections ---- */

static void report_unknown_kind(struct config_builder *b, const struct config_section *s)
{
    const char *words[WORDS_MAX];
    char text[HEADING_MAX];
    size_t count;
    const struct config_kind *kinds = config_kinds(&count);
    const struct config_kind *meant;
    const char *nearest;

    for (size_t i = 0; i < count; i++)
        words[i] = kinds[i].kind;
    heading(s, text);
    nearest = config_mistakes_nearest(s->kind, words, count);
    if (nearest == NULL) {
        config_mistakes_add(
            &b->m, s->line,
            "there is no section %s; there are [relay], [listener NAME], [devices], "
            "[device NAME], [mailbox NAME], [route NAME], [provider NAME], [notify NAME] and [api]",
            text);
        return;
    }
    meant = config_kind_find(nearest);
    config_mistakes_add(&b->m, s->line, "there is no section %s; did you mean [%s%s%.*s]?", text,
                        nearest, meant->named ? " " : "", CONFIG_NAME_MAX,
                        !meant->named      ? ""
                        : *s->name != '\0' ? s->name
                                           : meant->example);
}

bool config_build_is_name(const char *name)
{
    size_t len = strlen(name);

    return len > 0 && len <= CONFIG_NAME_MAX && name[0] != '.' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == len;
}

static bool check_name(struct config_builder *b, const struct config_section *s,
                       const struct config_kind *kind)
{
    if (!kind->named && *s->name != '\0') {
        config_mistakes_add(&b->m, s->line, "[%s] takes no name; write [%s]", kind->kind,
                            kind->kind);
        return false;
    }
    if (kind->named && *s->name == '\0') {
        config_mistakes_add(&b->m, s->line, "[%s] needs a name, such as [%s %s]", kind->kind,
                            kind->kind, kind->example);
        return false;
    }
    if (kind->named && !config_build_is_name(s->name)) {
        config_mistakes_add(
            &b->m, s->line,
            "a name is at most %d letters, digits, '-', '_' and '.', such as [%s %s]",
            CONFIG_NAME_MAX, kind->kind, kind->example);
        return false;
    }
    return true;
}

static const struct config_section *find_earlier(const struct config_builder *b, size_t index)
{
    const struct config_section *s = &b->doc.sections[index];

    for (size_t i = 0; i < index; i++) {
        const struct config_section *other = &b->doc.sections[i];

        if (b->targets[i].kind != NULL && strcmp(other->kind, s->kind) == 0 &&
            strcmp(other->name, s->name) == 0)
            return other;
    }
    return NULL;
}

static void check_section(struct config_builder *b, size_t index)
{
    const struct config_section *s = &b->doc.sections[index];
    const struct config_kind *kind = config_kind_find(s->kind);
    const struct config_section *earlier = find_earlier(b, index);
    char text[HEADING_MAX];

    b->targets[index] = (struct config_target){s, NULL, NULL};
    if (kind == NULL) {
        report_unknown_kind(b, s);
        return;
    }
    if (!check_name(b, s, kind))
        return;
    if (earlier != NULL) {
        heading(s, text);
        config_mistakes_add(&b->m, s->line, "%s is there already, at line %u; put the keys there",
                            text, earlier->line);
        return;
    }
    b->targets[index].kind = kind;
}

static size_t count_of(const struct config_builder *b, const char *kind)
{
    size_t count = 0;

    for (size_t i = 0; i < b->doc.count; i++)
        if (config_build_is(&b->targets[i], kind))
            count++;
    return count;
}

/* ---- the structs ---- */

/* Kinds whose sections are elements of an array of struct config. All these begin with their name.
 */
struct array {
    const char *kind;
    size_t list;
    size_t count;
    size_t element;
    size_t line;
};

#define ARRAY(kind_name, list_member, count_member, type)                                          \
    {                                                                                              \
        .kind = (kind_name), .list = offsetof(struct config, list_member),                         \
        .count = offsetof(struct config, count_member), .element = sizeof(struct type),            \
        .line = offsetof(struct type, line)                                                        \
    }

static const struct array arrays[] = {
    ARRAY("listener", listeners, listener_count, config_listener),
    ARRAY("device", devices, device_count, config_device),
    ARRAY("mailbox", mailboxes, mailbox_count, config_mailbox),
    ARRAY("route", routes, route_count, config_route),
    ARRAY("notify", notifies, notify_count, config_notify),
    ARRAY("provider", providers, provider_count, config_provider),
};

_Static_assert(offsetof(struct config_listener, name) == 0, "set_name() relies on it");
_Static_assert(offsetof(struct config_device, name) == 0, "set_name() relies on it");
_Static_assert(offsetof(struct config_mailbox, name) == 0, "set_name() relies on it");
_Static_assert(offsetof(struct config_route, name) == 0, "set_name() relies on it");
_Static_assert(offsetof(struct config_notify, name) == 0, "set_name() relies on it");
_Static_assert(offsetof(struct config_provider, name) == 0, "set_name() relies on it");

void config_build_text(struct config_builder *b, char **field, const char *text)
{
    char *copy = strdup(text);

    if (copy == NULL) {
        config_build_no_memory(b);
        return;
    }
    free(*field);
    *field = copy;
}

static void *member(void *fields, size_t offset)
{
    return (char *)fields + offset;
}

static const struct array *array_of(const char *kind)
{
    for (size_t i = 0; i < COUNT(arrays); i++)
        if (strcmp(arrays[i].kind, kind) == 0)
            return &arrays[i];
    return NULL;
}

/* Makes room for one element more than the file has: the listener or route that may be missing. The
 * presets are there already. */
static bool make_arrays(struct config_builder *b)
{
    for (size_t i = 0; i < COUNT(arrays); i++) {
        const struct array *a = &arrays[i];
        size_t have = *(size_t *)member(b->c, a->count);
        char *list = calloc(have + count_of(b, a->kind) + 1, a->element);
        char *old;

        if (list == NULL)
            return false;
        memcpy(&old, member(b->c, a->list), sizeof old);
        if (have > 0)
            memcpy(list, old, have * a->element);
        free(old);
        memcpy(member(b->c, a->list), &list, sizeof list);
    }
    return true;
}

static void *add_element(struct config_builder *b, const struct array *a, const char *name,
                         unsigned line)
{
    size_t *count = member(b->c, a->count);
    char *list;
    void *element;

    memcpy(&list, member(b->c, a->list), sizeof list);
    element = list + *count * a->element;
    ++*count;
    config_build_text(b, (char **)element, name);
    memcpy(member(element, a->line), &line, sizeof line);
    return element;
}

/* The element of that name, where a section may change what a preset says. */
static void *find_element(const struct config_builder *b, const struct array *a, const char *name)
{
    size_t count = *(size_t *)member(b->c, a->count);
    char *list;

    memcpy(&list, member(b->c, a->list), sizeof list);
    for (size_t i = 0; i < count; i++)
        if (strcmp(*(char **)(list + i * a->element), name) == 0)
            return list + i * a->element;
    return NULL;
}

static void *fields_of(struct config_builder *b, const struct config_target *t, bool *out_known)
{
    const struct array *a = array_of(t->kind->kind);
    void *known = NULL;

    if (a != NULL && config_build_is(t, "provider"))
        known = find_element(b, a, t->section->name);
    *out_known = known != NULL;
    if (known != NULL)
        return known;
    return a == NULL ? b->c : add_element(b, a, t->section->name, t->section->line);
}

/* ---- keys ---- */

static void set_defaults(struct config_builder *b, const char *kind, void *fields)
{
    size_t count;
    const struct config_row *rows = config_rows(&count);

    for (size_t i = 0; i < count; i++) {
        struct error err = ERROR_INIT;

        if (strcmp(rows[i].section, kind) != 0 || rows[i].type == CONFIG_NAMES)
            continue;
        if (!config_value_set(&rows[i], rows[i].fallback, member(fields, rows[i].field), &err))
            config_build_no_memory(b); /* the defaults themselves are tested */
    }
}

const char *config_build_value(const struct config_section *s, const char *key)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->entries[i].key, key) == 0)
            return s->entries[i].value;
    return NULL;
}

unsigned config_build_line(const struct config_section *s, const char *key)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->entries[i].key, key) == 0)
            return s->entries[i].line;
    return s->line;
}

static void report_unknown_provider(struct config_builder *b, const struct config_section *s,
                                    const char *name)
{
    const char *words[WORDS_MAX];
    size_t count = b->c->provider_count < WORDS_MAX ? b->c->provider_count : WORDS_MAX;
    const char *nearest;

    for (size_t i = 0; i < count; i++)
        words[i] = b->c->providers[i].name;
    nearest = config_mistakes_nearest(name, words, count);
    config_mistakes_add(&b->m, config_build_line(s, "provider"),
                        "provider = %.64s: there is no such one%s%s%s", name,
                        nearest != NULL ? "; did you mean " : "; write one of: ",
                        nearest != NULL ? nearest : config_row_find("mailbox", "provider")->choices,
                        nearest != NULL ? "?" : ", or a [provider NAME] of your own");
}

/* What the provider says counts before what the file says, and instead of the rows' defaults. */
static void set_provider_defaults(struct config_builder *b, const struct config_section *s,
                                  struct config_mailbox *mb)
{
    const char *name = config_build_value(s, "provider");
    const struct config_provider *p =
        config_find_provider(b->c, name != NULL ? name : mb->provider);

    if (p == NULL) {
        report_unknown_provider(b, s, name != NULL ? name : mb->provider);
        return;
    }
    config_build_text(b, &mb->host, p->host);
    config_build_text(b, &mb->login, p->login);
    config_build_text(b, &mb->tenant, p->tenant);
    config_build_text(b, &mb->token_url, p->token_url);
    config_build_text(b, &mb->device_url, p->device_url);
    config_build_text(b, &mb->authorize_url, p->authorize_url);
    mb->port = p->port;
    mb->tls = p->tls;
    mb->mechanisms = p->mechanisms;
    mb->passwords_end_ms = p->passwords_end_ms;
    mb->connections = p->connections;
    mb->in_flight = p->in_flight;
    mb->messages_per_minute = p->messages_per_minute;
    mb->recipients_per_day = p->recipients_per_day;
    mb->recipients_per_message = p->recipients_per_message;
    mb->max_size = p->max_size;
    mb->idle_ms = p->idle_ms;
    mb->session_ms = p->session_ms;
}

/* Keys that people write and that we can answer better than with the nearest one. */
static const struct {
    const char *section;
    const char *key;
    const char *answer;
} answers[] = {
    {"mailbox", "password",
     "the password does not belong in this file, which is copied, shown and mailed around; write "
     "it "
     "to a file of its own (root:outtray, mode 640) and name that with password_file"},
    {"mailbox", "secret",
     "write the secret to a file of its own and name that with client_secret_file"},
    {"mailbox", "client_secret",
     "write the secret to a file of its own and name that with client_secret_file"},
    {"mailbox", "tenant_id", "the key is tenant"},
    {"mailbox", "application_id", "the key is client_id"},
    {"mailbox", "app_id", "the key is client_id"},
    {"mailbox", "certificate", "the key is certificate_file"},
    {"mailbox", "username", "the key is login, or only address when both are the same"},
    {"mailbox", "user", "the key is login, or only address when both are the same"},
    {"mailbox", "server", "the key is host"},
    {"device", "ip", "the key is address"},
    {"device", "mailbox", "a device names a route, and a [route NAME] names mailboxes"},
};

static const char *nearest_key(const char *kind, const char *key)
{
    const char *words[WORDS_MAX];
    size_t count;
    size_t n = 0;
    const struct config_row *rows = config_rows(&count);

    for (size_t i = 0; i < count && n < WORDS_MAX; i++)
        if (strcmp(rows[i].section, kind) == 0)
            words[n++] = rows[i].key;
    return config_mistakes_nearest(key, words, n);
}

/* "[mailbox NAME] or [listener NAME]", or "". */
static void sections_with(const char *key, char out[LIST_MAX])
{
    size_t count;
    const struct config_row *rows = config_rows(&count);
    size_t len = 0;

    out[0] = '\0';
    for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].key, key) == 0)
            len += (size_t)snprintf(out + len, LIST_MAX - len, "%s[%s%s]", len > 0 ? " or " : "",
                                    rows[i].section,
                                    config_kind_find(rows[i].section)->named ? " NAME" : "");
}

static void report_unknown_key(struct config_builder *b, const struct config_target *t,
                               const struct config_entry *e)
{
    char elsewhere[LIST_MAX];
    const char *nearest = nearest_key(t->kind->kind, e->key);
    char text[HEADING_MAX];

    heading(t->section, text);
    sections_with(e->key, elsewhere);
    for (size_t i = 0; i < COUNT(answers); i++)
        if (strcmp(answers[i].section, t->kind->kind) == 0 && strcmp(answers[i].key, e->key) == 0) {
            config_mistakes_add(&b->m, e->line, "there is no key %s in %s: %s", e->key, text,
                                answers[i].answer);
            return;
        }
    if (elsewhere[0] != '\0')
        config_mistakes_add(&b->m, e->line, "there is no key %s in %s; it belongs in %s", e->key,
                            text, elsewhere);
    else if (nearest != NULL)
        config_mistakes_add(&b->m, e->line, "there is no key %.64s in %s; did you mean %s?", e->key,
                            text, nearest);
    else
        config_mistakes_add(&b->m, e->line, "there is no key %.64s in %s; see outtray.conf(5)",
                            e->key, text);
}

static bool holds_comment(const char *value)
{
    for (const char *p = strchr(value, '#'); p != NULL; p = strchr(p + 1, '#'))
        if (p > value && (p[-1] == ' ' || p[-1] == '\t'))
            return true;
    return false;
}

static bool is_first(const struct config_section *s, const struct config_entry *e)
{
    return config_build_value(s, e->key) == e->value;
}

/* False, with the mistake reported, when the entry is not to be read. */
static bool check_entry(struct config_builder *b, const struct config_section *s,
                        const struct config_row *row, const struct config_entry *e)
{
    if (!config_row_is_list(row) && !is_first(s, e)) {
        config_mistakes_add(&b->m, e->line, "%s is there already, at line %u; take one of them out",
                            e->key, config_build_line(s, e->key));
        return false;
    }
    if (holds_comment(e->value)) {
        config_mistakes_add(&b->m, e->line,
                            "%s: a comment behind a value starts with ; and not with #", e->key);
        return false;
    }
    if (*e->value == '\0' && !row->may_be_empty) {
        config_mistakes_add(&b->m, e->line, "%s has no value; write one or take the line out",
                            e->key);
        return false;
    }
    return true;
}

static void set_entry(struct config_builder *b, const struct config_target *t,
                      const struct config_entry *e)
{
    const struct config_row *row = config_row_find(t->kind->kind, e->key);
    struct error err = ERROR_INIT;
    void *field;

    if (row == NULL) {
        report_unknown_key(b, t, e);
        return;
    }
    if (!check_entry(b, t->section, row, e) || row->type == CONFIG_NAMES)
        return;
    field = member(t->fields, row->field);
    if (row->type == CONFIG_ADDRESSES && is_first(t->section, e))
        net_ranges_done(field); /* the file's list replaces the default one */
    if (!config_value_set(row, e->value, field, &err))
        config_mistakes_add(&b->m, e->line, "%s = %.64s: %s", e->key, e->value, err.text);
}

static void check_required(struct config_builder *b, const struct config_target *t)
{
    size_t count;
    const struct config_row *rows = config_rows(&count);
    char text[HEADING_MAX];

    heading(t->section, text);
    for (size_t i = 0; i < count; i++)
        if (rows[i].required && strcmp(rows[i].section, t->kind->kind) == 0 &&
            config_build_value(t->section, rows[i].key) == NULL)
            config_mistakes_add(&b->m, t->section->line,
                                "%s needs %s; write a line such as %s = %s", text, rows[i].key,
                                rows[i].key, rows[i].example);
}

static void read_target(struct config_builder *b, struct config_target *t)
{
    bool known;

    t->fields = fields_of(b, t, &known);
    if (array_of(t->kind->kind) != NULL && !known)
        set_defaults(b, t->kind->kind, t->fields);
    if (b->no_memory)
        return;
    if (config_build_is(t, "mailbox"))
        set_provider_defaults(b, t->section, t->fields);
    for (size_t i = 0; i < t->section->count; i++)
        set_entry(b, t, &t->section->entries[i]);
    check_required(b, t);
}

static bool begin_targets(struct config_builder *b)
{
    b->targets = calloc(b->doc.count + 1, sizeof *b->targets);
    if (b->targets == NULL) {
        config_build_no_memory(b);
        return false;
    }
    for (size_t i = 0; i < b->doc.count; i++)
        check_section(b, i);
    if (!make_arrays(b))
        config_build_no_memory(b);
    return !b->no_memory;
}

/* Providers go first, because mailboxes take their defaults from them. */
static void read_targets(struct config_builder *b, bool providers)
{
    for (size_t i = 0; i < b->doc.count && !b->no_memory; i++)
        if (b->targets[i].kind != NULL && config_build_is(&b->targets[i], "provider") == providers)
            read_target(b, &b->targets[i]);
}

void config_build_presets(struct config_builder *b)
{
    if (!begin_targets(b))
        return;
    for (size_t i = 0; i < b->doc.count; i++)
        if (b->targets[i].kind != NULL && !config_build_is(&b->targets[i], "provider"))
            config_mistakes_add(&b->m, b->doc.sections[i].line,
                                "only [provider NAME] sections belong in this file");
    read_targets(b, true);
}

void config_build(struct config_builder *b)
{
    if (!begin_targets(b))
        return;
    set_defaults(b, "relay", b->c);
    set_defaults(b, "devices", b->c);
    set_defaults(b, "api", b->c);
    read_targets(b, true);
    read_targets(b, false);
}

void *config_build_extra(struct config_builder *b, const char *kind, const char *name)
{
    void *fields = add_element(b, array_of(kind), name, 0);

    set_defaults(b, kind, fields);
    return fields;
}
