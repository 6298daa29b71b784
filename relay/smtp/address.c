#include "relay/smtp/address.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

/* Room for an IPv6 address as text, with a NUL. */
#define LITERAL_TEXT_MAX 64

struct slice {
    const char *p;
    size_t len;
};

/* The path under construction. */
struct builder {
    char text[ADDRESS_PATH_MAX];
    size_t len;
    bool full;
};

static void add(struct builder *b, const char *p, size_t len)
{
    if (len >= sizeof(b->text) - b->len) {
        b->full = true;
        return;
    }
    memcpy(b->text + b->len, p, len);
    b->len += len;
}

/* ---- characters ------------------------------------------------------------------------------ */

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
    return is_digit(c) || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_high(char c)
{
    return (unsigned char)c > 0x7f;
}

static bool is_control(char c)
{
    return (unsigned char)c < 0x20 || c == 0x7f;
}

/* RFC 5322 3.2.3, with RFC 6532 3.2. */
static bool is_atext(char c)
{
    return is_alnum(c) || is_high(c) || (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

static struct slice trim(struct slice s)
{
    for (; s.len > 0 && is_space(s.p[0]); s.p++, s.len--)
        ;
    for (; s.len > 0 && is_space(s.p[s.len - 1]); s.len--)
        ;
    return s;
}

/* Octets in one UTF-8 character at p; 0 when it is none (RFC 3629 4). */
static size_t utf8_length(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t need = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;

    if (p[0] < 0xc2 || p[0] > 0xf4 || need > len)
        return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    for (size_t i = 1; i < need; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return need;
}

static const char *check_octets(struct slice s, bool *out_utf8)
{
    size_t n;

    for (size_t i = 0; i < s.len; i += n) {
        n = 1;
        if (is_control(s.p[i]))
            return "it holds a control character";
        if (!is_high(s.p[i]))
            continue;
        *out_utf8 = true;
        n = utf8_length(s.p + i, s.len - i);
        if (n == 0)
            return "it holds an octet that is neither ASCII nor UTF-8";
    }
    return NULL;
}

/* ---- where the path is ----------------------------------------------------------------------- */

/* Index behind the quoted string that begins at i; len when it does not end. */
static size_t skip_quoted(struct slice s, size_t i)
{
    for (i++; i < s.len && s.p[i] != '"'; i++) {
        if (s.p[i] == '\\')
            i++;
    }
    return i < s.len ? i + 1 : s.len;
}

/* Index of the first octet out of `set` outside quoted strings, from i; len when there is none. */
static size_t find(struct slice s, size_t i, const char *set)
{
    while (i < s.len && (s.p[i] == '\0' || strchr(set, s.p[i]) == NULL))
        i = s.p[i] == '"' ? skip_quoted(s, i) : i + 1;
    return i < s.len ? i : s.len;
}

/* Index behind the bracket that closes the one at i, or 0 when none does. */
static size_t skip_brackets(struct slice s, size_t i)
{
    size_t depth = 0;

    for (; i < s.len; i++) {
        i = find(s, i, "<>");
        if (i == s.len)
            break;
        depth += s.p[i] == '<' ? 1 : (size_t)-1;
        if (depth == 0)
            return i + 1;
    }
    return 0;
}

size_t address_span(const char *text, size_t len)
{
    struct slice s = {text, len};
    size_t start = 0;
    size_t open;
    size_t close;

    for (; start < len && is_space(text[start]); start++)
        ;
    open = find(s, start, "<");
    close = open < len ? skip_brackets(s, open) : 0;
    if (close > 0)
        return close;
    return find(s, open < len ? find(s, open, "@") : start, " \t");
}

/* The innermost of <Name <user@host>>; the whole when there are no brackets. */
static bool strip_brackets(struct slice *s)
{
    size_t close;

    for (;;) {
        size_t open = find(*s, 0, "<>");

        if (open == s->len)
            return true;
        if (s->p[open] == '>')
            return false;
        close = skip_brackets(*s, open);
        if (close == 0) /* "<user@host": served */
            close = s->len + 1;
        *s = trim((struct slice){s->p + open + 1, close - open - 2});
    }
}

/* @one,@two:user@host: RFC 5321 appendix C says to ignore the route. */
static void drop_route(struct slice *s)
{
    size_t colon;

    if (s->len == 0 || s->p[0] != '@')
        return;
    colon = find(*s, 0, ":");
    if (colon < s->len)
        *s = trim((struct slice){s->p + colon + 1, s->len - colon - 1});
}

static void strip_apostrophes(struct slice *s)
{
    if (s->len >= 2 && s->p[0] == '\'' && s->p[s->len - 1] == '\'')
        *s = trim((struct slice){s->p + 1, s->len - 2});
}

/* ---- the local part -------------------------------------------------------------------------- */

/* Takes the backslashes and quotes away. */
static const char *unquote(struct slice s, char *out, size_t *out_len)
{
    size_t n = 0;

    if (skip_quoted(s, 0) != s.len || s.len < 2 || s.p[s.len - 1] != '"')
        return "the quotes in its local part do not match";
    for (size_t i = 1; i + 1 < s.len; i++) {
        if (s.p[i] == '\\')
            i++;
        if (i + 1 >= s.len)
            return "the quotes in its local part do not match";
        if (n == ADDRESS_LOCAL_MAX)
            return "its local part is longer than 64 octets";
        out[n++] = s.p[i];
    }
    *out_len = n;
    return NULL;
}

static const char *check_unquoted(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (is_space(s.p[i]))
            return "there is a space inside it";
        if (!is_atext(s.p[i]) && s.p[i] != '.')
            return "its local part holds a character that must be quoted";
    }
    return NULL;
}

/* Dots at an end or in a row are met in the wild, and need quotes; so do apostrophes around it all,
 * which would be taken for a device's. */
static bool is_dot_string(struct slice s)
{
    if (s.len >= 2 && s.p[0] == '\'' && s.p[s.len - 1] == '\'')
        return false;
    for (size_t i = 0; i < s.len; i++) {
        bool lone_dot = s.p[i] == '.' && (i == 0 || i + 1 == s.len || s.p[i - 1] == '.');

        if (lone_dot || (s.p[i] != '.' && !is_atext(s.p[i])))
            return false;
    }
    return s.len > 0;
}

static void add_local(struct builder *b, struct slice s)
{
    if (is_dot_string(s)) {
        add(b, s.p, s.len);
        return;
    }
    add(b, "\"", 1);
    for (size_t i = 0; i < s.len; i++) {
        if (s.p[i] == '"' || s.p[i] == '\\')
            add(b, "\\", 1);
        add(b, s.p + i, 1);
    }
    add(b, "\"", 1);
}

static const char *parse_local(struct slice s, struct builder *b)
{
    char text[ADDRESS_LOCAL_MAX];
    const char *problem;
    size_t from;

    if (s.len == 0)
        return "nothing stands before its @";
    if (s.p[0] == '"') {
        struct slice bare = {text, 0};

        problem = unquote(s, text, &bare.len);
        if (problem != NULL)
            return problem;
        s = bare;
    } else {
        problem = check_unquoted(s);
        if (problem != NULL)
            return problem;
    }
    from = b->len;
    add_local(b, s);
    return b->full || b->len - from > ADDRESS_LOCAL_MAX ? "its local part is longer than 64 octets"
                                                        : NULL;
}

/* ---- the domain ------------------------------------------------------------------------------ */

static bool is_label_char(char c)
{
    return is_alnum(c) || c == '-' || c == '_' || is_high(c);
}

static const char *check_labels(struct slice s)
{
    size_t label = 0;

    for (size_t i = 0; i < s.len; i++) {
        if (s.p[i] == '.' && label == 0)
            return "its domain has an empty part";
        label = s.p[i] == '.' ? 0 : label + 1;
        if (label > ADDRESS_LABEL_MAX)
            return "a part of its domain is longer than 63 octets";
        if (s.p[i] != '.' && !is_label_char(s.p[i]))
            return "its domain holds a character that no domain has";
    }
    return label == 0 ? "its domain has an empty part" : NULL;
}

static bool is_ipv4(struct slice s)
{
    char text[LITERAL_TEXT_MAX];
    struct in_addr address;

    if (s.len >= sizeof(text))
        return false;
    memcpy(text, s.p, s.len);
    text[s.len] = '\0';
    return inet_pton(AF_INET, text, &address) == 1;
}

/* [1.2.3.4], [IPv6:...], and [...] with an IPv6 address that lacks its tag. */
static const char *parse_literal(struct slice s, struct builder *b)
{
    char text[LITERAL_TEXT_MAX];
    struct in6_addr address;
    struct slice in = {s.p + 1, s.len - 1};

    if (in.len == 0 || in.p[in.len - 1] != ']')
        return "its address literal lacks the closing bracket";
    in.len--;
    if (is_ipv4(in)) {
        add(b, s.p, s.len);
        return NULL;
    }
    if (in.len > 5 && strncasecmp(in.p, "IPv6:", 5) == 0)
        in = (struct slice){in.p + 5, in.len - 5};
    if (in.len >= sizeof(text))
        return "its address literal is no IP address";
    memcpy(text, in.p, in.len);
    text[in.len] = '\0';
    if (inet_pton(AF_INET6, text, &address) != 1)
        return "its address literal is no IP address";
    add(b, "[IPv6:", 6);
    add(b, in.p, in.len);
    add(b, "]", 1);
    return NULL;
}

static const char *parse_domain(struct slice s, enum address_use use, struct builder *b)
{
    const char *problem;

    if (s.len > ADDRESS_DOMAIN_MAX)
        return "its domain is longer than 255 octets";
    if (s.p[0] == '[')
        return parse_literal(s, b);
    if (s.len > 1 && s.p[s.len - 1] == '.')
        s.len--;
    problem = check_labels(s);
    if (problem != NULL)
        return problem;
    if (use == ADDRESS_FORWARD_PATH && is_ipv4(s))
        return "an IP address as domain needs [brackets]";
    add(b, s.p, s.len);
    return NULL;
}

bool address_is_domain(const char *text, size_t len)
{
    struct slice s = {text, len};
    struct builder b = {.len = 0};

    if (len == 0 || len > ADDRESS_DOMAIN_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (is_high(text[i]))
            return false;
    }
    return (text[0] == '[' ? parse_literal(s, &b) : check_labels(s)) == NULL;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static const char *parse_without_domain(struct slice s, enum address_use use, struct builder *b,
                                        struct address *out)
{
    static const char postmaster[] = "postmaster";
    bool is_postmaster =
        s.len == sizeof(postmaster) - 1 && strncasecmp(s.p, postmaster, s.len) == 0;
    const char *problem;

    if (use == ADDRESS_FORWARD_PATH && !is_postmaster)
        return "it has no domain: user@example.com is needed";
    strip_apostrophes(&s); /* 'scanner'@ */
    problem = parse_local(s, b);
    out->domain = b->len;
    return problem;
}

static const char *parse_mailbox(struct slice s, enum address_use use, struct builder *b,
                                 struct address *out)
{
    size_t at = find(s, 0, "@");
    struct slice local = trim((struct slice){s.p, at});
    struct slice domain = {s.p + at, s.len - at};
    const char *problem;

    if (at < s.len)
        domain = trim((struct slice){s.p + at + 1, s.len - at - 1});
    if (domain.len == 0)
        return parse_without_domain(local, use, b, out);
    if (find(domain, 0, "@") < domain.len)
        return "it has more than one @";
    problem = parse_local(local, b);
    if (problem != NULL)
        return problem;
    add(b, "@", 1);
    out->domain = b->len;
    return parse_domain(domain, use, b);
}

static const char *parse(struct slice s, enum address_use use, struct builder *b,
                         struct address *out)
{
    bool had_brackets = find(s, 0, "<") < s.len;
    const char *problem = check_octets(s, &out->utf8);

    if (problem != NULL)
        return problem;
    if (!strip_brackets(&s))
        return "its angle brackets do not match";
    strip_apostrophes(&s);
    drop_route(&s);
    if (s.len > 0)
        return parse_mailbox(s, use, b, out);
    if (use == ADDRESS_FORWARD_PATH)
        return "it is empty";
    return had_brackets ? NULL : "it is empty; <> would be the null reverse-path";
}

bool address_parse(const char *text, size_t len, enum address_use use, struct address *out_address,
                   const char **out_problem)
{
    struct address a = {.domain = 0};
    struct builder b = {.len = 0};
    const char *problem = parse(trim((struct slice){text, len}), use, &b, &a);

    if (problem == NULL && (b.full || b.len > ADDRESS_PATH_MAX - 2))
        problem = "it is longer than 256 octets";
    if (problem != NULL) {
        *out_problem = problem;
        return false;
    }
    memcpy(a.path, b.text, b.len);
    *out_address = a;
    return true;
}

bool address_is_listed(const char *entry, const char *address)
{
    const char *at = strrchr(address, '@');
    size_t len;
    size_t tail = strlen(entry);

    if (strchr(entry, '@') != NULL)
        return strcasecmp(entry, address) == 0;
    if (at == NULL)
        return false;
    len = strlen(at + 1);
    if (entry[0] != '.')
        return strcasecmp(at + 1, entry) == 0;
    return len > tail && strcasecmp(at + 1 + len - tail, entry) == 0;
}
