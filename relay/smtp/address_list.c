#include "relay/smtp/address_list.h"

#include <stdio.h>
#include <string.h>

#include "relay/smtp/address.h"

#define DISPLAY_NAME_MAX 512  /* octets kept of a display name that must be written anew */
#define ADDRESS_TEXT_MAX 1024 /* octets that could still be an address */
#define COMMENT_DEPTH    16

struct slice {
    const char *p;
    size_t len;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

static bool is_high(char c)
{
    return (unsigned char)c > 0x7f;
}

static struct slice trim(struct slice s)
{
    for (; s.len > 0 && is_space(s.p[0]); s.p++, s.len--)
        ;
    for (; s.len > 0 && is_space(s.p[s.len - 1]); s.len--)
        ;
    return s;
}

/* ---- the grammar ----------------------------------------------------------------------------- */

struct cursor {
    const char *p;
    const char *end;
    bool utf8;
};

/* RFC 5322 3.2.3, RFC 6532 3.2 */
static bool is_atext(char c, bool utf8)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           is_one_of(c, "!#$%&'*+-/=?^_`{|}~") || (utf8 && is_high(c));
}

static bool at(const struct cursor *c, char wanted)
{
    return c->p < c->end && *c->p == wanted;
}

/* Behind the comment at the cursor. False when it does not end, or nests too deeply. */
static bool skip_comment(struct cursor *c)
{
    size_t depth = 0;

    for (; c->p < c->end; c->p++) {
        if (*c->p == '\\' && c->p + 1 < c->end)
            c->p++;
        else if (*c->p == '(' && ++depth > COMMENT_DEPTH)
            return false;
        else if (*c->p == ')' && --depth == 0) {
            c->p++;
            return true;
        }
    }
    return false;
}

/* Spaces and comments. */
static bool skip_spaces(struct cursor *c)
{
    while (c->p < c->end) {
        if (is_space(*c->p))
            c->p++;
        else if (*c->p != '(')
            return true;
        else if (!skip_comment(c))
            return false;
    }
    return true;
}

static bool skip_quoted(struct cursor *c)
{
    for (c->p++; c->p < c->end && *c->p != '"'; c->p++) {
        if (*c->p == '\\')
            c->p++;
    }
    if (c->p >= c->end)
        return false;
    c->p++;
    return true;
}

static bool skip_atom(struct cursor *c)
{
    const char *start = c->p;

    while (c->p < c->end && is_atext(*c->p, c->utf8))
        c->p++;
    return c->p > start;
}

/* Words with spaces or dots between them; *out_local: they could be a local part. */
static bool skip_words(struct cursor *c, bool *out_local)
{
    bool dot = true;

    *out_local = true;
    while (c->p < c->end) {
        if (at(c, '.')) {
            *out_local &= !dot;
            dot = true;
            c->p++;
        } else if (at(c, '"') || is_atext(*c->p, c->utf8)) {
            *out_local &= dot;
            dot = false;
            if (at(c, '"') ? !skip_quoted(c) : !skip_atom(c))
                return false;
        } else {
            break;
        }
        if (!skip_spaces(c))
            return false;
    }
    *out_local &= !dot;
    return true;
}

static bool skip_domain(struct cursor *c)
{
    const char *start = c->p;
    bool high = false;

    if (at(c, '[')) {
        while (c->p < c->end && *c->p != ']')
            c->p++;
        c->p += c->p < c->end ? 1 : 0;
    }
    for (; c->p < c->end && (is_atext(*c->p, c->utf8) || *c->p == '.'); c->p++)
        high |= is_high(*c->p);
    return (high || address_is_domain(start, (size_t)(c->p - start))) && skip_spaces(c);
}

/* "@" and the domain. Spaces around "@" are obsolete, and in the wild they stand in names. */
static bool skip_at_domain(struct cursor *c)
{
    if (!at(c, '@') || is_one_of(c->p[-1], " \t)"))
        return false;
    c->p++;
    return skip_domain(c);
}

/* What stands in angle brackets; the cursor is behind "<". */
static bool skip_angle(struct cursor *c)
{
    bool local;

    if (!skip_spaces(c) || !skip_words(c, &local) || !local || !skip_at_domain(c) || !at(c, '>'))
        return false;
    c->p++;
    return skip_spaces(c);
}

static bool skip_mailbox(struct cursor *c, bool *out_group)
{
    const char *start = c->p;
    bool local;

    *out_group = false;
    if (!skip_words(c, &local))
        return false;
    if (at(c, '<')) {
        c->p++;
        return skip_angle(c);
    }
    if (at(c, ':') && c->p > start) {
        c->p++;
        *out_group = true;
        return skip_spaces(c);
    }
    return local && skip_at_domain(c);
}

bool address_list_is_valid(const char *text, size_t len, bool utf8)
{
    struct cursor c = {text, text + len, utf8};
    bool in_group = false;
    size_t count = 0;

    while (skip_spaces(&c) && c.p < c.end) {
        bool group = false;

        if (in_group && at(&c, ';')) {
            in_group = false;
            c.p++;
        } else if (!at(&c, ',')) {
            if (!skip_mailbox(&c, &group) || (group && in_group))
                return false;
            in_group |= group;
            count++;
        }
        if (!skip_spaces(&c))
            return false;
        if (c.p < c.end && !group && !at(&c, ',') && !(in_group && at(&c, ';')))
            return false;
        if (at(&c, ','))
            c.p++;
    }
    return c.p == c.end && count > 0 && !in_group;
}

/* Cuts what skip_mailbox() has passed, from start up to the cursor. */
static void cut_mailbox(const char *start, const struct cursor *c, struct address_list_item *out)
{
    struct cursor name = {start, c->p, c->utf8};
    struct slice address = {start, (size_t)(c->p - start)};
    bool local;

    *out = (struct address_list_item){.name = start};
    (void)skip_words(&name, &local);
    if (at(&name, '<')) {
        out->name_len = trim((struct slice){start, (size_t)(name.p - start)}).len;
        address.p = name.p + 1;
        name.p++;
        (void)skip_words(&name, &local);
        while (name.p < c->p && *name.p != '>')
            name.p++;
        address.len = (size_t)(name.p - address.p);
    } else { /* a comment may follow */
        while (name.p < c->p && !is_one_of(*name.p, " \t("))
            name.p++;
        address.len = (size_t)(name.p - address.p);
    }
    address = trim(address);
    out->address = address.p;
    out->address_len = address.len;
}

bool address_list_take(const char **text, size_t *len, struct address_list_item *out)
{
    struct cursor c = {*text, *text + *len, true};

    while (skip_spaces(&c) && c.p < c.end) {
        const char *start = c.p;
        bool group = false;

        if (at(&c, ',') || at(&c, ';')) {
            c.p++;
            continue;
        }
        if (!skip_mailbox(&c, &group))
            return false;
        if (group)
            continue;
        cut_mailbox(start, &c, out);
        *len = (size_t)(c.end - c.p);
        *text = c.p;
        return true;
    }
    return false;
}

/* ---- reading what is not valid --------------------------------------------------------------- */

struct list {
    struct words *w;
    const struct address_list_use *use;
    bool quotes; /* they match */
    size_t written;
    size_t count;
    char name[DISPLAY_NAME_MAX];
    size_t name_len;
};

static bool quotes_match(struct slice s)
{
    bool inside = false;

    for (size_t i = 0; i < s.len; i++) {
        if (s.p[i] == '\\' && inside)
            i++;
        else if (s.p[i] == '"')
            inside = !inside;
    }
    return !inside;
}

/* Index of the first octet out of set outside quotes; s.len when there is none. */
static size_t find(const struct list *l, struct slice s, const char *set)
{
    bool inside = false;

    for (size_t i = 0; i < s.len; i++) {
        if (l->quotes && inside && s.p[i] == '\\')
            i++;
        else if (l->quotes && s.p[i] == '"')
            inside = !inside;
        else if (!inside && is_one_of(s.p[i], set))
            return i;
    }
    return s.len;
}

static void add_octet(struct list *l, char c)
{
    bool is_second_space = is_space(c) && (l->name_len == 0 || is_space(l->name[l->name_len - 1]));

    if (l->name_len < sizeof(l->name) && !is_second_space)
        l->name[l->name_len++] = c;
}

/* Adds to the display name, without its quotes. */
static void add_name(struct list *l, struct slice s)
{
    add_octet(l, ' ');
    s = trim(s);
    for (size_t i = 0; i < s.len; i++) {
        if (s.p[i] == '\\' && i + 1 < s.len)
            add_octet(l, s.p[++i]);
        else if (s.p[i] != '"')
            add_octet(l, s.p[i]);
    }
}

/* A name that was cut must not end in half a character. */
static struct slice take_name(struct list *l)
{
    struct slice name = {l->name, l->name_len};

    if (name.len == sizeof(l->name)) {
        while (name.len > 0 && is_high(name.p[name.len - 1]))
            name.len--;
    }
    l->name_len = 0;
    name = trim(name);
    for (; name.len > 0 && (name.p[name.len - 1] == ',' || is_space(name.p[name.len - 1]));
         name.len--)
        ;
    return name;
}

/* The address as it is written. False when it is none. */
static bool read_address(const struct list *l, struct slice s, char out[ADDRESS_PATH_MAX * 2])
{
    struct address a;
    const char *problem;

    if (s.len > ADDRESS_TEXT_MAX ||
        !address_parse(s.p, s.len, ADDRESS_REVERSE_PATH, &a, &problem) || a.path[0] == '\0')
        return false;
    if (a.utf8 && !l->use->utf8)
        return false;
    snprintf(out, ADDRESS_PATH_MAX * 2, "%s%s%s", a.path, a.path[a.domain] == '\0' ? "@" : "",
             a.path[a.domain] == '\0' ? l->use->hostname : "");
    return true;
}

static bool separate(struct list *l)
{
    return l->written++ == 0 || words_raw(l->w, ",", 1);
}

static bool write_mailbox(struct list *l, const char *address)
{
    struct slice name = take_name(l);
    size_t len = strlen(address);

    l->count++;
    if (!separate(l))
        return false;
    if (name.len == 0)
        return words_space(l->w, len) && words_raw(l->w, address, len);
    return words_phrase(l->w, name.p, name.len) && words_space(l->w, len + 2) &&
           words_raw(l->w, "<", 1) && words_raw(l->w, address, len) && words_raw(l->w, ">", 1);
}

/* A name without an address. */
static bool write_name(struct list *l)
{
    struct slice name;

    if (l->use->fallback != NULL)
        return write_mailbox(l, l->use->fallback);
    name = take_name(l);
    return name.len == 0 ||
           (separate(l) && words_phrase(l->w, name.p, name.len) && words_raw(l->w, ":;", 2));
}

/* Name <address>. What stands behind the bracket says nothing. */
static bool write_bracketed(struct list *l, struct slice s, size_t open)
{
    struct slice in = {s.p + open + 1, s.len - open - 1};
    char address[ADDRESS_PATH_MAX * 2];
    size_t last = in.len;

    while (last > 0 && in.p[last - 1] != '>')
        last--;
    if (last > 0)
        in.len = last - 1;
    add_name(l, (struct slice){s.p, open});
    if (!read_address(l, trim(in), address))
        return write_name(l);
    return write_mailbox(l, address);
}

/* All of it, with spaces around the "@". */
static bool read_spaced(const struct list *l, struct slice s, char out[ADDRESS_PATH_MAX * 2])
{
    return memchr(s.p, '@', s.len) != NULL && read_address(l, s, out) && strchr(out, '.') != NULL;
}

/* The last word that is an address with a domain; the others, comments included, are its name. */
static bool find_bare(const struct list *l, struct slice s, struct slice *out,
                      char address[ADDRESS_PATH_MAX * 2])
{
    bool found = false;

    for (size_t i = 0; i < s.len;) {
        struct slice word = {s.p + i, find(l, (struct slice){s.p + i, s.len - i}, " \t")};
        struct slice inner = word;

        for (; inner.len > 0 && is_one_of(inner.p[0], "([<"); inner.p++, inner.len--)
            ;
        for (; inner.len > 0 && is_one_of(inner.p[inner.len - 1], ")]>.:"); inner.len--)
            ;
        if (memchr(inner.p, '@', inner.len) != NULL && read_address(l, inner, address)) {
            *out = word;
            found = true;
        }
        i += word.len + 1;
    }
    if (!found && s.len > 0 && read_spaced(l, s, address)) {
        *out = s;
        return true;
    }
    return found;
}

static void add_comment_or_name(struct list *l, struct slice s)
{
    s = trim(s);
    if (s.len >= 2 && s.p[0] == '(' && s.p[s.len - 1] == ')')
        s = (struct slice){s.p + 1, s.len - 2};
    if (s.len > 0)
        add_name(l, s);
}

/* A piece without brackets. */
static bool write_bare(struct list *l, struct slice s)
{
    char address[ADDRESS_PATH_MAX * 2];
    struct slice word;

    if (!find_bare(l, s, &word, address)) {
        if (s.len > 0) {
            add_name(l, s);
            add_octet(l, ',');
        }
        return true;
    }
    add_comment_or_name(l, (struct slice){s.p, (size_t)(word.p - s.p)});
    add_comment_or_name(
        l, (struct slice){word.p + word.len, (size_t)(s.p + s.len - word.p) - word.len});
    return write_mailbox(l, address);
}

/* One piece, from comma to comma. In front of a later bracket a comma belongs to the name, unless
 * the piece is an address by itself. */
static bool write_piece(struct list *l, struct slice piece, bool has_later)
{
    size_t open = find(l, piece, "<");

    if (open < piece.len)
        return write_bracketed(l, piece, open);
    if (has_later &&
        (l->name_len > 0 || !address_list_is_valid(piece.p, piece.len, l->use->utf8))) {
        if (piece.len > 0) {
            add_name(l, piece);
            add_octet(l, ',');
        }
        return true;
    }
    return write_bare(l, piece);
}

/* Where the piece ends. A comma in brackets, or between a bracket and its end, is none. */
static size_t piece_end(const struct list *l, struct slice s)
{
    size_t stop = find(l, s, ",;<");

    if (stop < s.len && s.p[stop] == '<') {
        size_t close = find(l, (struct slice){s.p + stop, s.len - stop}, ">") + stop;

        if (close == s.len)
            return s.len;
        stop = close + find(l, (struct slice){s.p + close, s.len - close}, ",;");
    }
    return stop;
}

/* The last bracket outside quotes, or NULL. */
static const char *last_bracket(const struct list *l, struct slice s)
{
    const char *last = NULL;

    while (s.len > 0) {
        size_t open = find(l, s, "<");

        if (open == s.len)
            break;
        last = s.p + open;
        s = (struct slice){last + 1, s.len - open - 1};
    }
    return last;
}

bool address_list_write(struct words *w, const char *text, size_t len,
                        const struct address_list_use *use, size_t *out_count)
{
    struct list l = {.w = w, .use = use, .quotes = quotes_match((struct slice){text, len})};
    struct slice rest = {text, len};
    const char *last = last_bracket(&l, rest);

    while (rest.len > 0) {
        size_t end = piece_end(&l, rest);
        struct slice piece = trim((struct slice){rest.p, end});
        size_t next = end < rest.len ? end + 1 : end;

        rest = (struct slice){rest.p + next, rest.len - next};
        if (!write_piece(&l, piece, last != NULL && last >= rest.p))
            return false;
    }
    if ((l.name_len > 0 || l.count == 0) && (l.count == 0 || use->fallback == NULL) &&
        !write_name(&l))
        return false;
    *out_count = l.count;
    return true;
}
