#include "queue/envelope.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define ENVELOPE_MAGIC "outtray-envelope"
#define OUTCOMES_MAGIC "outtray-outcomes"
#define TEXT_VERSION   1

static const char nothing[] = ""; /* what every absent text points to; never freed, never written */

static const char *const lane_names[] = {
    [LANE_URGENT] = "urgent",
    [LANE_NORMAL] = "normal",
    [LANE_BULK] = "bulk",
};

static const char *const body_names[] = {
    [ENVELOPE_BODY_7BIT] = "7bit",
    [ENVELOPE_BODY_8BITMIME] = "8bitmime",
};

static const char *const state_names[] = {
    [RECIPIENT_PENDING] = "pending",
    [RECIPIENT_DELIVERED] = "delivered",
    [RECIPIENT_FAILED] = "failed",
};

_Static_assert(COUNT(lane_names) == LANE_COUNT, "every lane has a name");
_Static_assert(COUNT(state_names) == RECIPIENT_FAILED + 1, "every state has a name");

/* ---- the lines of the text form ------------------------------------------------------------- */

enum field_type {
    FIELD_TEXT, /* left out when empty */
    FIELD_PATH, /* written also when empty: the null reverse-path means something */
    FIELD_U64,
    FIELD_U32,
    FIELD_SOME64, /* left out when 0, as the next */
    FIELD_SOME32,
    FIELD_LANE,
    FIELD_BODY,
    FIELD_FLAG
};

struct field {
    const char *key;
    enum field_type type;
    size_t offset;
};

#define FIELD(key, type, member)                                                                   \
    {                                                                                              \
        key, type, offsetof(struct envelope, member)                                               \
    }

static const struct field fields[] = {
    FIELD("reverse-path", FIELD_PATH, reverse_path),
    FIELD("device", FIELD_TEXT, device),
    FIELD("client", FIELD_TEXT, client),
    FIELD("helo", FIELD_TEXT, helo),
    FIELD("login", FIELD_TEXT, login),
    FIELD("listener", FIELD_TEXT, listener),
    FIELD("route", FIELD_TEXT, route),
    FIELD("lane", FIELD_LANE, lane),
    FIELD("message-id", FIELD_TEXT, message_id),
    FIELD("subject", FIELD_TEXT, subject),
    FIELD("envid", FIELD_TEXT, envid),
    FIELD("ret", FIELD_TEXT, ret),
    FIELD("repairs", FIELD_TEXT, repairs),
    FIELD("body", FIELD_BODY, body),
    FIELD("smtputf8", FIELD_FLAG, smtputf8),
    FIELD("arrived", FIELD_U64, arrived_ms),
    FIELD("size", FIELD_U64, size),
    FIELD("header-size", FIELD_U32, header_size),
    FIELD("partial-id", FIELD_TEXT, partial_id),
    FIELD("partial-number", FIELD_SOME32, partial_number),
    FIELD("partial-total", FIELD_SOME32, partial_total),
    FIELD("partial-group", FIELD_SOME64, partial_group),
    FIELD("partial-kin", FIELD_SOME64, partial_kin),
    FIELD("partial-wait", FIELD_SOME64, partial_wait_ms),
    FIELD("joined", FIELD_SOME32, joined),
};

/* Lines that belong to the nearest "recipient" line above them. */
static const struct field recipient_fields[] = {
    {"notify", FIELD_TEXT, offsetof(struct recipient, notify)},
    {"orcpt", FIELD_TEXT, offsetof(struct recipient, orcpt)},
};

/* ---- values ---------------------------------------------------------------------------------- */

static char *absent(void)
{
    return (char *)nothing;
}

static void drop(char **field)
{
    if (*field != nothing)
        free(*field);
    *field = absent();
}

static bool is_control(unsigned char c)
{
    return c < 0x20 || c == 0x7f;
}

bool envelope_set_n(char **field, const char *text, size_t len)
{
    char *copy;

    if (len == 0) {
        drop(field);
        return true;
    }
    copy = malloc(len + 1);
    if (copy == NULL)
        return false;
    memcpy(copy, text, len);
    for (size_t i = 0; i < len; i++) {
        if (is_control((unsigned char)copy[i]))
            copy[i] = '?';
    }
    copy[len] = '\0';
    drop(field);
    *field = copy;
    return true;
}

bool envelope_set(char **field, const char *text)
{
    return envelope_set_n(field, text, text != NULL ? strlen(text) : 0);
}

/* The place of the i-th field's text; NULL when it is no text. */
static char **text_at(const struct envelope *e, size_t i)
{
    if (fields[i].type != FIELD_TEXT && fields[i].type != FIELD_PATH)
        return NULL;
    return (char **)(void *)((char *)e + fields[i].offset);
}

static void forget_texts(struct envelope *e)
{
    for (size_t i = 0; i < COUNT(fields); i++) {
        if (text_at(e, i) != NULL)
            *text_at(e, i) = absent();
    }
}

void envelope_init(struct envelope *e)
{
    *e = (struct envelope){.lane = LANE_NORMAL, .body = ENVELOPE_BODY_7BIT};
    forget_texts(e);
}

static void recipient_init(struct recipient *r)
{
    *r = (struct recipient){.forward_path = absent(),
                            .notify = absent(),
                            .orcpt = absent(),
                            .state = RECIPIENT_PENDING,
                            .reply = absent()};
}

static void recipient_done(struct recipient *r)
{
    drop(&r->forward_path);
    drop(&r->notify);
    drop(&r->orcpt);
    drop(&r->reply);
}

void envelope_done(struct envelope *e)
{
    for (size_t i = 0; i < COUNT(fields); i++) {
        if (text_at(e, i) != NULL)
            drop(text_at(e, i));
    }
    for (size_t i = 0; i < e->recipient_count; i++)
        recipient_done(&e->recipients[i]);
    free(e->recipients);
    envelope_init(e);
}

/* ---- recipients ------------------------------------------------------------------------------ */

/* The capacity is the next power of two, so it needs no field of its own. */
static bool recipients_grow(struct envelope *e)
{
    size_t count = e->recipient_count;
    struct recipient *more;

    if ((count & (count - 1)) != 0)
        return true;
    more = realloc(e->recipients, (count > 0 ? count * 2 : 1) * sizeof(*more));
    if (more == NULL)
        return false;
    e->recipients = more;
    return true;
}

static bool add_recipient(struct envelope *e, const char *path, size_t len)
{
    struct recipient *r;

    if (e->recipient_count >= ENVELOPE_RECIPIENTS_MAX || !recipients_grow(e))
        return false;
    r = &e->recipients[e->recipient_count];
    recipient_init(r);
    if (!envelope_set_n(&r->forward_path, path, len))
        return false;
    e->recipient_count++;
    return true;
}

bool envelope_add_recipient(struct envelope *e, const char *forward_path)
{
    return add_recipient(e, forward_path, strlen(forward_path));
}

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

/* Only the domain ignores case (RFC 5321 2.4). */
static bool same_path(const char *a, const char *b)
{
    const char *at = strrchr(a, '@');
    size_t local = at != NULL ? (size_t)(at - a) : strlen(a);

    if (strncmp(a, b, local) != 0)
        return false;
    for (a += local, b += local; *a != '\0' && lower(*a) == lower(*b); a++, b++)
        ;
    return *a == '\0' && *b == '\0';
}

bool envelope_has_recipient(const struct envelope *e, const char *forward_path)
{
    for (size_t i = 0; i < e->recipient_count; i++) {
        if (same_path(e->recipients[i].forward_path, forward_path))
            return true;
    }
    return false;
}

static bool copy_recipient(struct envelope *e, const struct recipient *from)
{
    struct recipient *r;

    if (!envelope_add_recipient(e, from->forward_path))
        return false;
    r = &e->recipients[e->recipient_count - 1];
    r->state = from->state;
    return envelope_set(&r->notify, from->notify) && envelope_set(&r->orcpt, from->orcpt) &&
           envelope_set(&r->reply, from->reply);
}

/* Takes over the values; texts and recipients are then copied one by one. */
static bool copy_texts(struct envelope *e, const struct envelope *from)
{
    for (size_t i = 0; i < COUNT(fields); i++) {
        if (text_at(e, i) != NULL && !envelope_set(text_at(e, i), *text_at(from, i)))
            return false;
    }
    return true;
}

bool envelope_copy(struct envelope *e, const struct envelope *from)
{
    envelope_done(e);
    *e = *from;
    e->recipients = NULL;
    e->recipient_count = 0;
    forget_texts(e);
    if (!copy_texts(e, from))
        return false;
    for (size_t i = 0; i < from->recipient_count; i++) {
        if (!copy_recipient(e, &from->recipients[i]))
            return false;
    }
    return true;
}

size_t envelope_count(const struct envelope *e, enum recipient_state state)
{
    size_t count = 0;

    for (size_t i = 0; i < e->recipient_count; i++)
        count += e->recipients[i].state == state;
    return count;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void put_line(struct bytes *out, const char *key, const char *value)
{
    bytes_text(out, key);
    bytes_text(out, ": ");
    bytes_text(out, value);
    bytes_byte(out, '\n');
}

static void put_number(struct bytes *out, const char *key, uint64_t value)
{
    bytes_printf(out, "%s: %" PRIu64 "\n", key, value);
}

static void put_field(struct bytes *out, const struct field *f, const void *object)
{
    const void *at = (const char *)object + f->offset;

    switch (f->type) {
    case FIELD_TEXT:
        if (**(char *const *)at != '\0')
            put_line(out, f->key, *(char *const *)at);
        break;
    case FIELD_PATH:
        put_line(out, f->key, *(char *const *)at);
        break;
    case FIELD_U64:
        put_number(out, f->key, *(const uint64_t *)at);
        break;
    case FIELD_U32:
        put_number(out, f->key, *(const uint32_t *)at);
        break;
    case FIELD_SOME64:
        if (*(const uint64_t *)at != 0)
            put_number(out, f->key, *(const uint64_t *)at);
        break;
    case FIELD_SOME32:
        if (*(const uint32_t *)at != 0)
            put_number(out, f->key, *(const uint32_t *)at);
        break;
    case FIELD_LANE:
        put_line(out, f->key, lane_name(*(const enum lane *)at));
        break;
    case FIELD_BODY:
        put_line(out, f->key, body_names[*(const enum envelope_body *)at]);
        break;
    case FIELD_FLAG:
        put_line(out, f->key, *(const bool *)at ? "yes" : "no");
        break;
    }
}

bool envelope_encode(const struct envelope *e, struct bytes *out)
{
    size_t start = out->len;

    put_number(out, ENVELOPE_MAGIC, TEXT_VERSION);
    for (size_t i = 0; i < COUNT(fields); i++)
        put_field(out, &fields[i], e);
    for (size_t i = 0; i < e->recipient_count; i++) {
        put_line(out, "recipient", e->recipients[i].forward_path);
        for (size_t j = 0; j < COUNT(recipient_fields); j++)
            put_field(out, &recipient_fields[j], &e->recipients[i]);
    }
    return !out->failed && out->len - start <= ENVELOPE_TEXT_MAX;
}

/* As much of a reply as is kept, cut between two UTF-8 characters. */
static size_t reply_length(const char *reply)
{
    size_t len = strnlen(reply, ENVELOPE_REPLY_MAX + 1);

    if (len <= ENVELOPE_REPLY_MAX)
        return len;
    for (len = ENVELOPE_REPLY_MAX; len > 0 && ((unsigned char)reply[len] & 0xc0) == 0x80;)
        len--;
    return len;
}

bool envelope_encode_outcomes(const struct envelope *e, struct bytes *out)
{
    put_number(out, OUTCOMES_MAGIC, TEXT_VERSION);
    for (size_t i = 0; i < e->recipient_count; i++) {
        const struct recipient *r = &e->recipients[i];

        bytes_text(out, recipient_state_name(r->state));
        bytes_text(out, ": ");
        bytes_append(out, r->reply, reply_length(r->reply));
        bytes_byte(out, '\n');
    }
    return !out->failed;
}

/* ---- reading --------------------------------------------------------------------------------- */

struct line {
    const char *key;
    size_t key_len;
    const char *value;
    size_t value_len;
};

/* Walks the lines of a text. A last line without its line end is a cut text, hence no line. */
struct lines {
    const char *p;
    size_t left;
    size_t number;
};

static bool read_line(struct lines *in, struct line *out_line, struct error *err)
{
    const char *end = in->left > 0 ? memchr(in->p, '\n', in->left) : NULL;
    const char *colon;
    size_t len;

    in->number++;
    if (end == NULL) {
        error_set(err, ERROR_DAMAGED, "line %zu is cut short", in->number);
        return false;
    }
    len = (size_t)(end - in->p);
    colon = memchr(in->p, ':', len);
    if (colon == NULL) {
        error_set(err, ERROR_DAMAGED, "line %zu has no key", in->number);
        return false;
    }
    out_line->key = in->p;
    out_line->key_len = (size_t)(colon - in->p);
    out_line->value = colon + 1;
    out_line->value_len = len - out_line->key_len - 1;
    if (out_line->value_len > 0 && *out_line->value == ' ') {
        out_line->value++;
        out_line->value_len--;
    }
    in->p = end + 1;
    in->left -= len + 1;
    return true;
}

static bool is_text(const char *p, size_t len, const char *text)
{
    return strlen(text) == len && memcmp(p, text, len) == 0;
}

static bool get_number(const struct line *line, uint64_t max, uint64_t *out_value)
{
    uint64_t value = 0;

    if (line->value_len == 0)
        return false;
    for (size_t i = 0; i < line->value_len; i++) {
        unsigned digit = (unsigned)(unsigned char)line->value[i] - '0';

        if (digit > 9 || value > (max - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out_value = value;
    return true;
}

/* The index of the value in a table of names; `other` for a name of a newer program. */
static size_t get_name(const struct line *line, const char *const *names, size_t count,
                       size_t other)
{
    for (size_t i = 0; i < count; i++) {
        if (is_text(line->value, line->value_len, names[i]))
            return i;
    }
    return other;
}

/* A full memory must not look like a damaged text: the one passes, the other is for a person. */
static bool no_memory(struct error *err)
{
    return error_set(err, ERROR_NO_ROOM, "out of memory");
}

static bool get_field(const struct field *f, void *object, const struct line *line,
                      struct error *err)
{
    void *at = (char *)object + f->offset;
    uint64_t number = 0;

    switch (f->type) {
    case FIELD_TEXT:
    case FIELD_PATH:
        return envelope_set_n(at, line->value, line->value_len) || no_memory(err);
    case FIELD_U64:
    case FIELD_SOME64:
        if (!get_number(line, UINT64_MAX, at))
            break;
        return true;
    case FIELD_U32:
    case FIELD_SOME32:
        if (!get_number(line, UINT32_MAX, &number))
            break;
        *(uint32_t *)at = (uint32_t)number;
        return true;
    case FIELD_LANE:
        *(enum lane *)at = (enum lane)get_name(line, lane_names, LANE_COUNT, LANE_NORMAL);
        return true;
    case FIELD_BODY:
        *(enum envelope_body *)at = (enum envelope_body)get_name(
            line, body_names, COUNT(body_names), ENVELOPE_BODY_8BITMIME);
        return true;
    case FIELD_FLAG:
        *(bool *)at = is_text(line->value, line->value_len, "yes");
        return true;
    }
    return error_set(err, ERROR_DAMAGED, "%s is not a number", f->key);
}

static const struct field *find_field(const struct field *table, size_t count,
                                      const struct line *line)
{
    for (size_t i = 0; i < count; i++) {
        if (is_text(line->key, line->key_len, table[i].key))
            return &table[i];
    }
    return NULL;
}

static bool take_line(struct envelope *e, const struct line *line, struct error *err)
{
    const struct field *f = find_field(fields, COUNT(fields), line);

    if (f != NULL)
        return get_field(f, e, line, err);
    if (is_text(line->key, line->key_len, "recipient")) {
        if (e->recipient_count >= ENVELOPE_RECIPIENTS_MAX)
            return error_set(err, ERROR_DAMAGED, "too many recipients");
        return add_recipient(e, line->value, line->value_len) || no_memory(err);
    }
    f = find_field(recipient_fields, COUNT(recipient_fields), line);
    if (f == NULL)
        return true;
    if (e->recipient_count == 0)
        return error_set(err, ERROR_DAMAGED, "%s comes before any recipient", f->key);
    return get_field(f, &e->recipients[e->recipient_count - 1], line, err);
}

static bool read_magic(struct lines *in, const char *magic, struct error *err)
{
    struct line line;
    uint64_t version;

    if (!read_line(in, &line, err))
        return false;
    if (!is_text(line.key, line.key_len, magic) || !get_number(&line, UINT64_MAX, &version))
        return error_set(err, ERROR_DAMAGED, "it does not begin with \"%s\"", magic);
    if (version != TEXT_VERSION)
        return error_set(err, ERROR_INVALID, "version %" PRIu64 " is newer than this program",
                         version);
    return true;
}

static bool read_envelope(struct envelope *e, struct lines *in, struct error *err)
{
    struct line line;

    if (!read_magic(in, ENVELOPE_MAGIC, err))
        return false;
    while (in->left > 0) {
        if (!read_line(in, &line, err))
            return false;
        if (!take_line(e, &line, err))
            return error_wrap(err, "line %zu", in->number);
    }
    return true;
}

bool envelope_decode(struct envelope *e, const void *text, size_t len, struct error *err)
{
    struct lines in = {.p = text, .left = len};
    struct envelope fresh;

    envelope_init(&fresh);
    if (len > ENVELOPE_TEXT_MAX) {
        error_set(err, ERROR_DAMAGED, "%zu octets are more than an envelope has", len);
        return error_wrap(err, "envelope");
    }
    if (!read_envelope(&fresh, &in, err)) {
        envelope_done(&fresh);
        return error_wrap(err, "envelope");
    }
    envelope_done(e);
    *e = fresh;
    return true;
}

static bool get_state(const struct line *line, enum recipient_state *out_state)
{
    for (size_t i = 0; i < COUNT(state_names); i++) {
        if (is_text(line->key, line->key_len, state_names[i])) {
            *out_state = (enum recipient_state)i;
            return true;
        }
    }
    return false;
}

/* With e NULL it only counts. */
static bool walk_outcomes(struct envelope *e, struct lines in, size_t *out_count, struct error *err)
{
    struct line line;
    enum recipient_state state;
    size_t count = 0;

    if (!read_magic(&in, OUTCOMES_MAGIC, err))
        return false;
    while (in.left > 0) {
        if (!read_line(&in, &line, err))
            return false;
        if (!get_state(&line, &state))
            continue;
        if (e != NULL) {
            if (!envelope_set_n(&e->recipients[count].reply, line.value, line.value_len))
                return no_memory(err);
            e->recipients[count].state = state;
        }
        count++;
    }
    *out_count = count;
    return true;
}

bool envelope_apply_outcomes(struct envelope *e, const void *text, size_t len, struct error *err)
{
    struct lines in = {.p = text, .left = len};
    size_t count;

    if (!walk_outcomes(NULL, in, &count, err))
        return error_wrap(err, "outcomes");
    if (count != e->recipient_count)
        return error_set(err, ERROR_DAMAGED, "outcomes: %zu of them for %zu recipients", count,
                         e->recipient_count);
    if (!walk_outcomes(e, in, &count, err))
        return error_wrap(err, "outcomes");
    return true;
}

const char *lane_name(enum lane lane)
{
    return (size_t)lane < COUNT(lane_names) ? lane_names[lane] : "unknown";
}

const char *recipient_state_name(enum recipient_state state)
{
    return (size_t)state < COUNT(state_names) ? state_names[state] : "unknown";
}
