#include "relay/base/config_check.h"

#include <iconv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "relay/base/config_signin.h"
#include "relay/base/config_value.h"

#define DEFAULT_ROUTE    "default"
#define DEFAULT_LISTENER "default"
#define OWN_NAME_MAX     256
#define PROXY_NONE       "none" /* not even the environment's */
#define CHARSET_MAX      40     /* octets of a character set's name */

/* A heading that was not understood is reported already; what is missing because of it is not. */
static bool is_rejected_name(const struct config_builder *b, const char *name)
{
    for (size_t i = 0; i < b->doc.count; i++)
        if (b->targets[i].kind == NULL && strcmp(b->doc.sections[i].name, name) == 0)
            return true;
    return false;
}

static bool any_rejected(const struct config_builder *b)
{
    for (size_t i = 0; i < b->doc.count; i++)
        if (b->targets[i].kind == NULL)
            return true;
    return false;
}

/* A list of names in a route: what they name, and where their numbers go. */
struct named {
    const char *key;
    const char *kind;
    size_t count; /* of that kind */
    const char *(*name)(const struct config *c, size_t i);
    uint32_t **list;
    size_t *list_count;
};

static const char *mailbox_name(const struct config *c, size_t i)
{
    return c->mailboxes[i].name;
}

static const char *listener_name(const struct config *c, size_t i)
{
    return c->listeners[i].name;
}

static bool find_named(const struct config *c, const struct named *n, const char *name,
                       uint32_t *out_index)
{
    for (size_t i = 0; i < n->count; i++)
        if (n->name(c, i) != NULL && strcmp(n->name(c, i), name) == 0) {
            *out_index = (uint32_t)i;
            return true;
        }
    return false;
}

static bool list_has(const struct named *n, uint32_t index)
{
    for (size_t i = 0; i < *n->list_count; i++)
        if ((*n->list)[i] == index)
            return true;
    return false;
}

static void report_unknown(struct config_builder *b, const struct named *n, unsigned line,
                           const char *name)
{
    const char *nearest = NULL;
    const char *word;

    for (size_t i = 0; i < n->count && nearest == NULL; i++) {
        word = n->name(b->c, i);
        nearest = word != NULL ? config_mistakes_nearest(name, &word, 1) : NULL;
    }
    if (nearest != NULL)
        config_mistakes_add(&b->m, line, "there is no [%s %s]; did you mean %s?", n->kind, name,
                            nearest);
    else
        config_mistakes_add(&b->m, line,
                            "there is no [%s %s]; add that section or take the name out", n->kind,
                            name);
}

static void add_named(struct config_builder *b, const struct named *n, unsigned line,
                      const char *name)
{
    uint32_t index;

    if (!config_build_is_name(name))
        config_mistakes_add(&b->m, line,
                            "%s: write names of [%s NAME] sections with commas between them",
                            n->key, n->kind);
    else if (!find_named(b->c, n, name, &index)) {
        if (!is_rejected_name(b, name))
            report_unknown(b, n, line, name);
    } else if (list_has(n, index))
        config_mistakes_add(&b->m, line, "%s: %s is named twice", n->key, name);
    else
        (*n->list)[(*n->list_count)++] = index;
}

static void read_named(struct config_builder *b, struct config_target *t, const struct named *n)
{
    char name[CONFIG_NAME_MAX + 1];

    *n->list = calloc(n->count + 1, sizeof **n->list);
    if (*n->list == NULL) {
        config_build_no_memory(b);
        return;
    }
    for (size_t i = 0; i < t->section->count; i++) {
        const struct config_entry *e = &t->section->entries[i];
        const char *p = e->value;

        if (strcmp(e->key, n->key) != 0)
            continue;
        while (config_value_item(&p, name, sizeof name))
            add_named(b, n, e->line, name);
    }
}

static void read_route(struct config_builder *b, struct config_target *t)
{
    struct config *c = b->c;
    struct config_route *r = t->fields;
    const struct named lists[] = {
        {"mailboxes", "mailbox", c->mailbox_count, mailbox_name, &r->mailboxes, &r->mailbox_count},
        {"backup", "mailbox", c->mailbox_count, mailbox_name, &r->backup, &r->backup_count},
        {"listeners", "listener", c->listener_count, listener_name, &r->listeners,
         &r->listener_count},
    };

    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        read_named(b, t, &lists[i]);
    for (size_t i = 0; i < r->backup_count; i++)
        if (list_has(&lists[0], r->backup[i]))
            config_mistakes_add(&b->m, config_build_line(t->section, "backup"),
                                "backup: %s is one of mailboxes already; take it out of one",
                                c->mailboxes[r->backup[i]].name);
}

static void swap_routes(struct config_route *a, struct config_route *b)
{
    struct config_route kept = *a;

    *a = *b;
    *b = kept;
}

/* The default route is the file's, or else one of all mailboxes; either way it comes first. */
static void place_default_route(struct config_builder *b)
{
    struct config *c = b->c;
    struct config_route *r;
    size_t at = 0;

    while (at < c->route_count &&
           (c->routes[at].name == NULL || strcmp(c->routes[at].name, DEFAULT_ROUTE) != 0))
        at++;
    if (at == c->route_count) {
        r = config_build_extra(b, "route", DEFAULT_ROUTE);
        r->mailboxes = calloc(c->mailbox_count + 1, sizeof *r->mailboxes);
        if (r->mailboxes == NULL) {
            config_build_no_memory(b);
            return;
        }
        for (size_t i = 0; i < c->mailbox_count; i++)
            r->mailboxes[r->mailbox_count++] = (uint32_t)i;
    }
    for (; at > 0; at--)
        swap_routes(&c->routes[at], &c->routes[at - 1]);
}

/* The first value of a key of a section without a name, as written. */
static bool is_given(const struct config_builder *b, const char *kind, const char *key)
{
    for (size_t i = 0; i < b->doc.count; i++)
        if (config_build_is(&b->targets[i], kind) &&
            config_build_value(b->targets[i].section, key) != NULL)
            return true;
    return false;
}

static bool is_unspecified(const struct net_address *a)
{
    static const uint8_t none[sizeof a->bytes];

    return memcmp(a->bytes, none, a->family == 4 ? 4 : sizeof none) == 0;
}

static bool is_public(const char *address)
{
    struct net_address a;

    return net_parse(address, &a) && !is_unspecified(&a) && !net_is_loopback(&a) &&
           !net_is_private(&a);
}

static bool is_anyone_listed(const struct config_builder *b)
{
    for (size_t i = 0; i < b->c->device_count; i++)
        if (b->c->devices[i].addresses.count > 0)
            return true;
    return is_given(b, "devices", "allow");
}

/* Whoever opens a port to the world says who may use it. */
static void check_public_listener(struct config_builder *b, const struct config_listener *l)
{
    if (is_public(l->address) && !is_anyone_listed(b))
        config_mistakes_add(
            &b->m, l->line,
            "[listener %s] is on %s, a public address, and nothing says who may connect there; "
            "write [devices] allow = with the addresses of your devices, or take address out",
            l->name, l->address);
}

static void check_pair(struct config_builder *b, const struct config_target *t,
                       const char *certificate, const char *private_key)
{
    if ((*certificate == '\0') == (*private_key == '\0'))
        return;
    config_mistakes_add(
        &b->m, config_build_line(t->section, *certificate != '\0' ? "certificate" : "private_key"),
        "certificate and private_key belong together; %s is missing",
        *certificate != '\0' ? "private_key" : "certificate");
}

static void check_certificates(struct config_builder *b)
{
    for (size_t i = 0; i < b->doc.count; i++) {
        const struct config_target *t = &b->targets[i];
        const struct config_listener *l = t->fields;

        if (config_build_is(t, "relay"))
            check_pair(b, t, b->c->certificate, b->c->private_key);
        if (config_build_is(t, "listener"))
            check_pair(b, t, l->certificate, l->private_key);
    }
}

static bool is_same_place(const char *one, const char *other)
{
    struct net_address a;
    struct net_address b;

    return strcmp(one, other) == 0 ||
           (net_parse(one, &a) && net_parse(other, &b) && net_equal(&a, &b));
}

/* "" is every address of both families, 0.0.0.0 and :: are those of one. */
static bool share_address(const char *one, const char *other)
{
    struct net_address a;
    struct net_address b;

    if (*one == '\0' || *other == '\0' || is_same_place(one, other))
        return true;
    return net_parse(one, &a) && net_parse(other, &b) && a.family == b.family &&
           (is_unspecified(&a) || is_unspecified(&b));
}

static void check_listeners(struct config_builder *b)
{
    struct config *c = b->c;

    for (size_t i = 0; i < c->listener_count; i++)
        for (size_t j = 0; j < i; j++) {
            const struct config_listener *one = &c->listeners[i];
            const struct config_listener *other = &c->listeners[j];

            if (one->port == other->port && share_address(one->address, other->address))
                config_mistakes_add(
                    &b->m, one->line,
                    is_same_place(one->address, other->address)
                        ? "[listener %s] has the address and port of [listener %s], at line "
                          "%u; change one of them"
                        : "[listener %s] has the port of [listener %s], at line %u, and one of "
                          "them is on every address; change one of the ports, or name an address "
                          "for each",
                    one->name, other->name, other->line);
        }
}

/* All ranges of all devices in one list, so that equal ones become neighbours. */
struct owned_range {
    struct net_range range;
    const struct config_device *owner;
};

static int by_range(const void *one, const void *other)
{
    const struct owned_range *a = one;
    const struct owned_range *b = other;
    int order = (int)a->range.first.family - (int)b->range.first.family;

    if (order == 0)
        order = memcmp(a->range.first.bytes, b->range.first.bytes, sizeof a->range.first.bytes);
    if (order == 0)
        order = memcmp(a->range.last.bytes, b->range.last.bytes, sizeof a->range.last.bytes);
    if (order == 0)
        order = a->owner->line < b->owner->line ? -1 : a->owner->line > b->owner->line;
    return order;
}

static void report_equal_ranges(struct config_builder *b, const struct owned_range *list,
                                size_t count)
{
    char text[NET_TEXT_MAX];

    for (size_t i = 1; i < count; i++) {
        const struct owned_range *a = &list[i - 1];
        const struct owned_range *z = &list[i];

        if (!net_equal(&a->range.first, &z->range.first) ||
            !net_equal(&a->range.last, &z->range.last))
            continue;
        net_text(&z->range.first, text);
        config_mistakes_add(
            &b->m, z->owner->line,
            "[device %s] has the same address or range (%s) as [device %s], at line %u; "
            "take one of them out",
            z->owner->name, text, a->owner->name, a->owner->line);
    }
}

static void check_equal_ranges(struct config_builder *b)
{
    const struct config *c = b->c;
    struct owned_range *list;
    size_t count = 0;

    for (size_t i = 0; i < c->device_count; i++)
        count += c->devices[i].addresses.count;
    if (count == 0)
        return;
    list = calloc(count, sizeof *list);
    if (list == NULL) {
        config_build_no_memory(b);
        return;
    }
    count = 0;
    for (size_t i = 0; i < c->device_count; i++)
        for (size_t j = 0; j < c->devices[i].addresses.count; j++)
            list[count++] = (struct owned_range){c->devices[i].addresses.list[j], &c->devices[i]};
    qsort(list, count, sizeof *list, by_range);
    report_equal_ranges(b, list, count);
    free(list);
}

static void check_device(struct config_builder *b, const struct config_target *t)
{
    const struct config_device *d = t->fields;
    const char *nearest = NULL;
    bool found = *d->route == '\0' || is_rejected_name(b, d->route);

    for (size_t i = 0; i < b->c->route_count && !found; i++) {
        const char *word = b->c->routes[i].name;

        found = strcmp(word, d->route) == 0;
        if (nearest == NULL)
            nearest = config_mistakes_nearest(d->route, &word, 1);
    }
    if (strcmp(d->name, CONFIG_OWN_DEVICE) == 0)
        config_mistakes_add(&b->m, t->section->line,
                            "[device %s]: that is what the relay calls itself; choose another name",
                            d->name);
    if (!found)
        config_mistakes_add(&b->m, config_build_line(t->section, "route"),
                            "there is no [route %.64s]%s%s%s", d->route,
                            nearest != NULL ? "; did you mean " : "; add that section",
                            nearest != NULL ? nearest : "", nearest != NULL ? "?" : "");
}

static void check_recognisable(struct config_builder *b, const struct config_target *t)
{
    const struct config_row *row = config_row_find("device", "address");

    if (config_build_value(t->section, "address") == NULL &&
        config_build_value(t->section, "login") == NULL)
        config_mistakes_add(&b->m, t->section->line,
                            "[device %s] needs address; write a line such as address = %s",
                            t->section->name, row->example);
}

/* What has no [device] goes by its address: the two would be taken for one. */
static void check_name_is_its_own(struct config_builder *b, const struct config_target *t)
{
    const struct config_device *d = t->fields;
    struct net_address address;

    if (net_parse(d->name, &address) && !net_ranges_have(&d->addresses, &address))
        config_mistakes_add(&b->m, t->section->line,
                            "[device %s] is named like an address that it does not have; choose "
                            "another name, or add it to address",
                            d->name);
}

#define INHERITED(member)                                                                          \
    {                                                                                              \
#member, offsetof(struct config_device, member), offsetof(struct config, member)           \
    }

/* All of four octets. */
static const struct {
    const char *key;
    size_t of_device;
    size_t of_all;
} inherited[] = {INHERITED(hide),       INHERITED(auth_equals),      INHERITED(lf_dot_lf),
                 INHERITED(join_split), INHERITED(report_to_sender), INHERITED(sent_twice)};

static void complete_device(struct config_builder *b, const struct config_target *t)
{
    struct config_device *d = t->fields;

    for (size_t i = 0; i < sizeof inherited / sizeof *inherited; i++)
        if (config_build_value(t->section, inherited[i].key) == NULL)
            memcpy((char *)d + inherited[i].of_device, (char *)b->c + inherited[i].of_all,
                   sizeof(uint32_t));
    d->has_auth = config_build_value(t->section, "auth") != NULL;
    d->has_lane = config_build_value(t->section, "lane") != NULL;
    if (*d->login == '\0')
        config_build_text(b, &d->login, d->name);
}

/* Of the devices whose login is not their name. */
static void check_login(struct config_builder *b, const struct config_target *t)
{
    const struct config_device *d = t->fields;

    for (size_t i = 0; i < b->c->device_count && config_build_value(t->section, "login"); i++) {
        const struct config_device *other = &b->c->devices[i];

        if (other != d && strcasecmp(other->login, d->login) == 0)
            config_mistakes_add(&b->m, config_build_line(t->section, "login"),
                                "login = %.64s is that of [device %s], at line %u; choose another",
                                d->login, other->name, other->line);
    }
}

static void check_host(struct config_builder *b, const struct config_target *t,
                       const struct config_mailbox *mb)
{
    const struct config_provider *p = config_find_provider(b->c, mb->provider);

    if (*mb->host != '\0' || p == NULL || config_build_value(t->section, "host") != NULL)
        return;
    config_mistakes_add(&b->m, t->section->line,
                        "[mailbox %s] needs host, because its provider is %s; write a line such as "
                        "host = %s",
                        mb->name, mb->provider,
                        *p->host_example != '\0' ? p->host_example : "mail.example.com");
}

static void check_mailbox(struct config_builder *b, const struct config_target *t)
{
    struct config_mailbox *mb = t->fields;

    check_host(b, t, mb);
    if (mb->urgent_reserve > 0 && mb->messages_per_minute > 0 &&
        mb->urgent_reserve >= mb->messages_per_minute)
        config_mistakes_add(
            &b->m, config_build_line(t->section, "urgent_reserve"),
            "urgent_reserve = %u leaves nothing of messages_per_minute = %u to other "
            "mail; write a smaller number",
            mb->urgent_reserve, mb->messages_per_minute);
    if (mb->urgent_connections >= mb->connections)
        config_mistakes_add(
            &b->m, config_build_line(t->section, "urgent_connections"),
            "urgent_connections = %u leaves none of connections = %u to other mail; "
            "write a smaller number",
            mb->urgent_connections, mb->connections);
    if (*mb->login == '\0')
        config_build_text(b, &mb->login, mb->address);
}

/* The line of a key of a section without a name; 0 when it is not given. */
static unsigned line_of(const struct config_builder *b, const char *kind, const char *key)
{
    for (size_t i = 0; i < b->doc.count; i++)
        if (config_build_is(&b->targets[i], kind) &&
            config_build_value(b->targets[i].section, key) != NULL)
            return config_build_line(b->targets[i].section, key);
    return 0;
}

static void check_socket(struct config_builder *b)
{
    if (strlen(b->c->socket) > CONFIG_SOCKET_MAX)
        config_mistakes_add(&b->m, line_of(b, "api", "socket"),
                            "[api] socket: a unix socket's path has at most %d characters",
                            CONFIG_SOCKET_MAX);
}

/* Those the library knows, and, where it was installed without its tables, the usual ones. */
static bool is_known_charset(const char *name)
{
    static const char *const families[] = {
        "us-ascii", "utf-8",  "iso-8859-", "windows-125", "koi8-", "shift_jis", "iso-2022-jp",
        "euc-",     "gb2312", "gbk",       "gb18030",     "big5",  "ibm",       "macintosh"};
    iconv_t known = iconv_open("UTF-8", name);

    if (known != (iconv_t)-1) { /* NOLINT(performance-no-int-to-ptr): so iconv_open() says it */
        (void)iconv_close(known);
        return true;
    }
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strncasecmp(name, families[i], strlen(families[i])) == 0)
            return true;
    return false;
}

/* It goes into every header that needs it. RFC 2978 2.3 */
static void check_charset(struct config_builder *b)
{
    unsigned line = line_of(b, "devices", "charset");
    size_t len = strlen(b->c->charset);
    size_t good = strspn(b->c->charset, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                        "0123456789!#$%&+-^_`{}~.:");

    if (len == 0 || len != good || len > CHARSET_MAX)
        config_mistakes_add(&b->m, line,
                            "[devices] charset: not the name of a character set; write for "
                            "example windows-1252");
    else if (!is_known_charset(b->c->charset))
        config_mistakes_add(&b->m, line,
                            "charset = %s: nobody knows such a character set; write for example "
                            "windows-1252, iso-8859-2, koi8-r or shift_jis",
                            b->c->charset);
}

/* "http://HOST:PORT", also with a login before the host: what else there is, libcurl would refuse
 * only when the first token is fetched. Without a port it takes 1080, which nobody means. */
static bool is_proxy(const char *text)
{
    static const char *const schemes[] = {"http://",    "https://",  "socks4://",
                                          "socks4a://", "socks5://", "socks5h://"};
    const char *scheme_end = strstr(text, "://");
    const char *at;
    char host[OWN_NAME_MAX];
    char port[OWN_NAME_MAX];
    uint64_t number;
    bool known = scheme_end == NULL;

    if (strcmp(text, PROXY_NONE) == 0)
        return true;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes && !known; i++)
        known = strncasecmp(text, schemes[i], strlen(schemes[i])) == 0;
    text = scheme_end != NULL ? scheme_end + 3 : text;
    at = strrchr(text, '@');
    text = at != NULL ? at + 1 : text;
    if (!known || (sscanf(text, "[%255[^]]]:%255[0-9]", host, port) != 2 &&
                   sscanf(text, "%255[^]/:[]:%255[0-9]", host, port) != 2))
        return false;
    return config_value_is_host(host) && config_value_number(port, &number) && number > 0 &&
           number <= UINT16_MAX;
}

static void check_proxy(struct config_builder *b)
{
    if (*b->c->proxy != '\0' && !is_proxy(b->c->proxy))
        config_mistakes_add(&b->m, line_of(b, "relay", "proxy"),
                            "proxy: write it as http://HOST:PORT, such as "
                            "http://proxy.example.com:3128");
}

/* The machine's own name may be anything; what is not part of a domain name becomes '-'. */
static void set_hostname(struct config_builder *b)
{
    char name[OWN_NAME_MAX] = "";

    if (*b->c->hostname != '\0')
        return;
    if (gethostname(name, sizeof name - 1) < 0 || name[0] == '\0')
        memcpy(name, "localhost", sizeof "localhost");
    for (char *p = name; *p != '\0'; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
              *p == '.'))
            *p = '-';
    config_build_text(b, &b->c->hostname, config_value_is_host(name) ? name : "localhost");
}

static void check_any_mailbox(struct config_builder *b)
{
    bool unreadable = b->doc.count == 0 && config_mistakes_any(&b->m);

    if (b->c->mailbox_count == 0 && !any_rejected(b) && !unreadable)
        config_mistakes_add(
            &b->m, 0,
            "there is no mailbox to send through; add a section [mailbox office] with "
            "address = scans@example.com, and with tenant, client_id and client_secret_file "
            "(OAuth) "
            "or password_file");
}

void config_check(struct config_builder *b)
{
    for (size_t i = 0; i < b->doc.count; i++)
        if (config_build_is(&b->targets[i], "route"))
            read_route(b, &b->targets[i]);
    place_default_route(b);
    if (b->c->listener_count == 0)
        (void)config_build_extra(b, "listener", DEFAULT_LISTENER);
    if (b->no_memory)
        return;
    for (size_t i = 0; i < b->doc.count; i++) {
        if (config_build_is(&b->targets[i], "device")) {
            check_device(b, &b->targets[i]);
            check_recognisable(b, &b->targets[i]);
            check_name_is_its_own(b, &b->targets[i]);
            complete_device(b, &b->targets[i]);
        }
        if (config_build_is(&b->targets[i], "mailbox"))
            check_mailbox(b, &b->targets[i]);
    }
    config_signin_check(b);
    for (size_t i = 0; i < b->c->listener_count; i++)
        check_public_listener(b, &b->c->listeners[i]);
    check_certificates(b);
    b->c->max_messages_given = is_given(b, "devices", "max_messages_per_minute");
    for (size_t i = 0; i < b->doc.count && !b->no_memory; i++)
        if (config_build_is(&b->targets[i], "device"))
            check_login(b, &b->targets[i]);
    check_listeners(b);
    check_equal_ranges(b);
    check_socket(b);
    check_charset(b);
    check_proxy(b);
    check_any_mailbox(b);
    set_hostname(b);
}
