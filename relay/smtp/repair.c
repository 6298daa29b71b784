#include "relay/smtp/repair.h"

#include <stdio.h>
#include <string.h>

#include "relay/smtp/address.h"
#include "relay/smtp/address_list.h"
#include "relay/smtp/date.h"
#include "relay/smtp/words.h"

#define ORIGINAL    "X-Original-"
#define ADDRESS_MAX (2 * ADDRESS_PATH_MAX)

enum syntax { SYNTAX_TEXT, SYNTAX_ADDRESSES, SYNTAX_PARAMETERS, SYNTAX_STRUCTURED };

/* What more than one field of a name is. */
enum several { SEVERAL_ALLOWED, SEVERAL_RENAMED, SEVERAL_JOINED };

static const struct {
    enum syntax syntax;
    enum several several;
    const char *bad; /* the repair's name: its addresses are looked at, and it must not be empty */
} kinds[HEADER_NAME_COUNT] = {
    [HEADER_OTHER] = {.syntax = SYNTAX_TEXT},
    [HEADER_RECEIVED] = {.syntax = SYNTAX_STRUCTURED},
    [HEADER_DATE] = {.syntax = SYNTAX_STRUCTURED, .several = SEVERAL_RENAMED},
    [HEADER_MESSAGE_ID] = {.syntax = SYNTAX_STRUCTURED, .several = SEVERAL_RENAMED},
    [HEADER_FROM] = {SYNTAX_ADDRESSES, SEVERAL_RENAMED, "bad_from"},
    [HEADER_SENDER] = {SYNTAX_ADDRESSES, SEVERAL_RENAMED, "bad_sender"},
    [HEADER_REPLY_TO] = {SYNTAX_ADDRESSES, SEVERAL_RENAMED, "bad_reply_to"},
    [HEADER_TO] = {SYNTAX_ADDRESSES, SEVERAL_JOINED, "bad_to"},
    [HEADER_CC] = {SYNTAX_ADDRESSES, SEVERAL_JOINED, "bad_cc"},
    [HEADER_BCC] = {.syntax = SYNTAX_ADDRESSES},
    [HEADER_SUBJECT] = {.syntax = SYNTAX_TEXT, .several = SEVERAL_RENAMED},
    [HEADER_CONTENT_TYPE] = {.syntax = SYNTAX_PARAMETERS, .several = SEVERAL_RENAMED},
    [HEADER_CONTENT_TRANSFER_ENCODING] = {.syntax = SYNTAX_STRUCTURED, .several = SEVERAL_RENAMED},
    [HEADER_ADDRESSES] = {.syntax = SYNTAX_ADDRESSES},
    [HEADER_PARAMETERS] = {.syntax = SYNTAX_PARAMETERS},
    [HEADER_STRUCTURED] = {.syntax = SYNTAX_STRUCTURED},
    [HEADER_TEXT] = {.syntax = SYNTAX_TEXT},
};

struct repair {
    struct header *h;
    const struct repair_facts *facts;
    const char *charset;
    struct bytes value;  /* of the field at hand: without folds and control characters */
    struct bytes field;  /* what takes its place */
    struct bytes folded; /* ... without long lines */
};

/* ---- octets ---------------------------------------------------------------------------------- */

struct dirt {
    bool controls;
    bool high;
    bool long_line;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_control(char c)
{
    return ((unsigned char)c < ' ' && !is_blank(c)) || c == 0x7f;
}

static struct dirt look(const char *p, size_t len)
{
    struct dirt dirt = {.controls = false};
    size_t line = 0;

    for (size_t i = 0; i < len; i++) {
        dirt.controls |= is_control(p[i]);
        dirt.high |= (unsigned char)p[i] > 0x7f;
        line = p[i] == '\n' ? 0 : line + 1;
        dirt.long_line |= line > WORDS_LINE_MAX + (p[i] == '\r' ? 1 : 0);
    }
    return dirt;
}

/* The field as it will be stored, so far. */
static const char *current(const struct header *h, const struct header_field *f, size_t *out_len)
{
    if (f->action == HEADER_REPLACE) {
        *out_len = f->new_len;
        return (const char *)h->replaced.data + f->new_offset;
    }
    *out_len = f->len;
    return (const char *)h->text.data + f->offset;
}

/* The value without folds, control characters and spaces around it. */
static bool read_value(struct repair *r, const struct header_field *f)
{
    size_t len;
    const char *p = header_value(r->h, f, &len);

    bytes_clear(&r->value);
    for (; len > 0 && is_blank(p[len - 1]); len--)
        ;
    for (; len > 0 && is_blank(*p); p++, len--)
        ;
    for (size_t i = 0; i < len; i++) {
        if (p[i] != '\r' && p[i] != '\n' && !is_control(p[i]) &&
            !bytes_byte(&r->value, (uint8_t)p[i]))
            return false;
    }
    return true;
}

static const char *value_of(const struct repair *r)
{
    return r->value.len > 0 ? (const char *)r->value.data : "";
}

/* ---- replacements ---------------------------------------------------------------------------- */

static bool begin_field(struct repair *r, const struct header_field *f, struct words *out_words)
{
    *out_words = (struct words){.out = &r->field, .charset = r->charset};
    bytes_clear(&r->field);
    return words_raw(out_words, (const char *)r->h->text.data + f->offset, f->name_len) &&
           words_raw(out_words, ":", 1);
}

/* r->field takes the place of f. */
static bool put_field(struct repair *r, struct header_field *f)
{
    bytes_clear(&r->folded);
    return words_fold(&r->folded, (const char *)r->field.data, r->field.len) &&
           header_replace(r->h, f, r->folded.data, r->folded.len);
}

static bool end_field(struct repair *r, struct header_field *f)
{
    return bytes_text(&r->field, "\r\n") && put_field(r, f);
}

/* Appends the field's own octets but for control characters, and "?" for what may not stay. */
static bool append_stripped(struct repair *r, const struct header_field *f, bool high)
{
    size_t len;
    const char *p = current(r->h, f, &len);

    for (size_t i = 0; i < len; i++) {
        bool is_bad = high && (unsigned char)p[i] > 0x7f;

        if (!is_control(p[i]) && !bytes_byte(&r->field, is_bad ? '?' : (uint8_t)p[i]))
            return false;
    }
    return true;
}

static bool strip(struct repair *r, struct header_field *f, bool high)
{
    bytes_clear(&r->field);
    return append_stripped(r, f, high) && put_field(r, f);
}

/* Gives way to `instead` (a field without CR LF, or ""), and stays under another name. */
static bool keep_original(struct repair *r, struct header_field *f, const char *instead)
{
    bytes_clear(&r->field);
    if (*instead != '\0' && (!bytes_text(&r->field, instead) || !bytes_text(&r->field, "\r\n")))
        return false;
    if (!bytes_text(&r->field, ORIGINAL) || !append_stripped(r, f, !r->facts->smtputf8))
        return false;
    if (r->field.data[r->field.len - 1] != '\n' && !bytes_text(&r->field, "\r\n"))
        return false;
    f->name = HEADER_OTHER;
    return put_field(r, f);
}

static bool write_text(struct repair *r, struct header_field *f)
{
    struct words w;

    return begin_field(r, f, &w) && words_text(&w, value_of(r), r->value.len) && end_field(r, f);
}

/* ---- parameters ------------------------------------------------------------------------------ */

/* Up to the next ";" outside quotes. */
static size_t parameter_length(const char *p, size_t len)
{
    bool inside = false;
    size_t i;

    for (i = 0; i < len && (inside || p[i] != ';'); i++) {
        if (inside && p[i] == '\\')
            i++;
        else if (p[i] == '"')
            inside = !inside;
    }
    return i < len ? i : len;
}

/* With the ";" before it. One whose name is not ASCII, or that has none, is left out. */
static bool write_parameter(struct words *w, const char *p, size_t len)
{
    char value[WORDS_LINE_MAX];
    bool is_ascii = words_is_ascii(p, len);
    const char *equals;
    size_t n = 0;

    for (; len > 0 && is_blank(*p); p++, len--)
        ;
    for (; len > 0 && is_blank(p[len - 1]); len--)
        ;
    equals = len > 0 ? memchr(p, '=', len) : NULL;
    if (!is_ascii && (equals == NULL || !words_is_ascii(p, (size_t)(equals - p))))
        return true;
    if (!words_raw(w, ";", 1) || !words_space(w, len))
        return false;
    if (is_ascii)
        return words_raw(w, p, len);
    for (const char *c = equals + 1; c < p + len && n < sizeof(value); c++) {
        if (*c != '"' && (*c != '\\' || ++c < p + len))
            value[n++] = *c;
    }
    return words_parameter(w, p, (size_t)(equals - p), value, n);
}

/* name="Büro.pdf" */
static bool write_parameters(struct repair *r, struct header_field *f)
{
    const char *p = value_of(r);
    size_t left = r->value.len;
    size_t n = parameter_length(p, left);
    struct words w;

    if (!words_is_ascii(p, n))
        return strip(r, f, true);
    if (!begin_field(r, f, &w) || !words_space(&w, n) || !words_raw(&w, p, n))
        return false;
    for (p += n, left -= n; left > 0; p += n, left -= n) {
        p++;
        left--;
        n = parameter_length(p, left);
        if (!write_parameter(&w, p, n))
            return false;
    }
    return end_field(r, f);
}

/* ---- addresses ------------------------------------------------------------------------------- */

/* What a message without a From comes from. */
static void own_address(const struct repair_facts *facts, char out[ADDRESS_MAX])
{
    char local[ADDRESS_LOCAL_MAX + 1];
    size_t n = 0;

    if (facts->reverse_path[0] != '\0' &&
        (facts->smtputf8 || words_is_ascii(facts->reverse_path, strlen(facts->reverse_path)))) {
        const char *at = strrchr(facts->reverse_path, '@');
        bool has_domain = at != NULL && at[strlen(at) - 1] != '"';

        snprintf(out, ADDRESS_MAX, "%s%s%s", facts->reverse_path, has_domain ? "" : "@",
                 has_domain ? "" : facts->hostname);
        return;
    }
    for (const char *p = facts->device; *p != '\0' && n < ADDRESS_LOCAL_MAX; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || *p == '_' ||
                     (*p == '.' && n > 0 && local[n - 1] != '.' && p[1] != '\0');

        local[n++] = plain ? *p : '-';
    }
    local[n] = '\0';
    snprintf(out, ADDRESS_MAX, "%s@%s", n > 0 ? local : "device", facts->hostname);
}

static bool write_addresses(struct repair *r, struct header_field *f)
{
    char own[ADDRESS_MAX];
    struct address_list_use use = {.hostname = r->facts->hostname, .utf8 = r->facts->smtputf8};
    bool must_have = f->name == HEADER_SENDER || f->name == HEADER_REPLY_TO;
    struct words w;
    size_t count;

    own_address(r->facts, own);
    if (f->name == HEADER_FROM)
        use.fallback = own;
    if (!begin_field(r, f, &w) || !address_list_write(&w, value_of(r), r->value.len, &use, &count))
        return false;
    if (must_have && count == 0)
        return keep_original(r, f, "");
    if (r->field.len > f->name_len + 1u)
        return end_field(r, f);
    f->action = HEADER_DROP; /* nothing but commas */
    return true;
}

/* ---- fields ---------------------------------------------------------------------------------- */

/* Writes the field in its syntax; high: in octets above 127 that may not stay. */
static bool write_field(struct repair *r, struct header_field *f, struct dirt dirt, bool high)
{
    switch (kinds[f->name].syntax) {
    case SYNTAX_ADDRESSES:
        if (high)
            return write_addresses(r, f);
        break;
    case SYNTAX_PARAMETERS:
        if (high)
            return write_parameters(r, f);
        break;
    case SYNTAX_TEXT:
        if (high || (dirt.long_line && f->name != HEADER_OTHER))
            return write_text(r, f);
        break;
    case SYNTAX_STRUCTURED:
        break;
    }
    return strip(r, f, high);
}

static void note_dirt(struct header *h, struct dirt dirt, bool high)
{
    if (dirt.controls)
        header_note(h, "control_characters");
    if (high)
        header_note(h, "raw_8bit_header");
    if (dirt.long_line)
        header_note(h, "long_header_line");
}

static bool repair_addresses(struct repair *r, struct header_field *f, struct dirt dirt, bool high)
{
    bool is_missing = r->value.len == 0;

    if (is_missing)
        f->action = HEADER_DROP;
    if (is_missing && (f->name == HEADER_FROM || f->name == HEADER_TO))
        return true; /* supplied later */
    header_note(r->h, kinds[f->name].bad);
    note_dirt(r->h, dirt, high);
    return is_missing || write_addresses(r, f);
}

/* A field that may not be empty, and has addresses that must be right. */
static bool is_checked(const struct header_field *f)
{
    return kinds[f->name].bad != NULL;
}

static bool repair_field(struct repair *r, struct header_field *f)
{
    size_t len;
    const char *p = current(r->h, f, &len);
    struct dirt dirt = look(p, len);
    bool is_dirty = dirt.controls || dirt.high || dirt.long_line;
    bool high;

    if (!is_dirty && !is_checked(f))
        return true;
    if (!read_value(r, f))
        return false;
    high = dirt.high && !(r->facts->smtputf8 && words_is_utf8(value_of(r), r->value.len));
    if (is_checked(f) && !address_list_is_valid(value_of(r), r->value.len, true))
        return repair_addresses(r, f, dirt, high);
    if (!is_dirty || (!dirt.controls && !dirt.long_line && !high))
        return true;
    note_dirt(r->h, dirt, high);
    return write_field(r, f, dirt, high);
}

/* ---- the header ------------------------------------------------------------------------------ */

static bool is_empty(const struct header *h, const struct header_field *f)
{
    size_t len;
    const char *p = header_value(h, f, &len);

    for (size_t i = 0; i < len; i++) {
        if (!is_blank(p[i]) && !is_control(p[i]))
            return false;
    }
    return true;
}

/* The first field of that name that says something; empty ones are left out. */
static struct header_field *find_value(struct header *h, enum header_name name)
{
    struct header_field *f;

    while ((f = header_find(h, name)) != NULL && is_empty(h, f))
        f->action = HEADER_DROP;
    return f;
}

static bool supply(struct repair *r, const char *field, const char *value, const char *repair)
{
    header_note(r->h, repair);
    return bytes_printf(&r->h->added, "%s: %s\r\n", field, value);
}

/* <...> of printable octets, comments around it aside. */
static bool has_message_id(const char *p, size_t len)
{
    const char *open = len > 0 ? memchr(p, '<', len) : NULL;
    const char *close = open != NULL ? memchr(open, '>', len - (size_t)(open - p)) : NULL;

    if (close == NULL || close == open + 1)
        return false;
    for (const char *c = open; c < close; c++) {
        if (*c <= ' ' || *c > '~')
            return false;
    }
    return true;
}

static bool repair_message_id(struct repair *r)
{
    struct header_field *f = find_value(r->h, HEADER_MESSAGE_ID);
    char instead[WORDS_LINE_MAX];

    if (f == NULL)
        return supply(r, "Message-ID", r->facts->message_id, "no_message_id");
    if (!read_value(r, f))
        return false;
    if (has_message_id(value_of(r), r->value.len))
        return true;
    header_note(r->h, "bad_message_id");
    snprintf(instead, sizeof(instead), "Message-ID: %s", r->facts->message_id);
    return keep_original(r, f, instead);
}

static bool repair_date(struct repair *r)
{
    struct header_field *f = find_value(r->h, HEADER_DATE);
    char instead[WORDS_LINE_MAX];

    if (f == NULL)
        return supply(r, "Date", r->facts->date, "no_date");
    if (!read_value(r, f))
        return false;
    if (date_is_readable(value_of(r), r->value.len))
        return true;
    header_note(r->h, "bad_date");
    snprintf(instead, sizeof(instead), "Date: %s", r->facts->date);
    return keep_original(r, f, instead);
}

static bool repair_from(struct repair *r)
{
    char own[ADDRESS_MAX];

    if (find_value(r->h, HEADER_FROM) != NULL)
        return true;
    own_address(r->facts, own);
    return supply(r, "From", own, "no_from");
}

static bool repair_to(struct repair *r)
{
    bool has_to = find_value(r->h, HEADER_TO) != NULL;

    if (has_to || find_value(r->h, HEADER_CC) != NULL)
        return true;
    return supply(r, "To", "undisclosed-recipients:;", "no_to");
}

static void drop_bcc(struct header *h)
{
    if (header_find(h, HEADER_BCC) == NULL)
        return;
    header_note(h, "bcc");
    header_drop(h, HEADER_BCC);
}

static bool is_another(const struct header *h, const struct header_field *f, enum header_name name)
{
    return f->name == name && f->action != HEADER_DROP && !is_empty(h, f);
}

/* The values of the further fields go behind the first one's. */
static bool join(struct repair *r, struct header_field *first)
{
    const struct header_field *end = r->h->fields + r->h->field_count;
    size_t len;
    const char *p = current(r->h, first, &len);

    for (; len > 0 && is_blank(p[len - 1]); len--)
        ;
    bytes_clear(&r->field);
    if (!bytes_append(&r->field, p, len))
        return false;
    for (struct header_field *f = first + 1; f < end; f++) {
        if (!is_another(r->h, f, first->name))
            continue;
        p = header_value(r->h, f, &len);
        for (; len > 0 && is_blank(p[len - 1]); len--)
            ;
        for (; len > 0 && is_blank(*p); p++, len--)
            ;
        f->action = HEADER_DROP;
        if (!bytes_text(&r->field, ",\r\n ") || !bytes_append(&r->field, p, len))
            return false;
    }
    return end_field(r, first);
}

/* The further ones get another name. */
static bool rename_others(struct repair *r, struct header_field *first)
{
    const struct header_field *end = r->h->fields + r->h->field_count;
    enum header_name name = first->name;

    for (struct header_field *f = first + 1; f < end; f++) {
        if (is_another(r->h, f, name) && !keep_original(r, f, ""))
            return false;
    }
    return true;
}

static bool repair_duplicates(struct repair *r)
{
    const struct header_field *first[HEADER_NAME_COUNT] = {NULL};

    for (size_t i = 0; i < r->h->field_count; i++) {
        struct header_field *f = &r->h->fields[i];
        const struct header_field **seen = &first[f->name];

        if (kinds[f->name].several == SEVERAL_ALLOWED || !is_another(r->h, f, f->name))
            continue;
        if (*seen == NULL) {
            *seen = f;
            continue;
        }
        header_note(r->h, "duplicate_fields");
        f = r->h->fields + (*seen - r->h->fields);
        if (kinds[f->name].several == SEVERAL_JOINED ? !join(r, f) : !rename_others(r, f))
            return false;
    }
    return true;
}

static bool repair(struct repair *r)
{
    drop_bcc(r->h);
    for (size_t i = 0; i < r->h->field_count; i++) {
        if (r->h->fields[i].action == HEADER_KEEP && !repair_field(r, &r->h->fields[i]))
            return false;
    }
    return repair_duplicates(r) && repair_message_id(r) && repair_date(r) && repair_from(r) &&
           repair_to(r);
}

bool repair_header(struct header *h, const struct repair_facts *facts)
{
    struct repair r = {.h = h, .facts = facts, .charset = facts->charset};
    bool ok;

    if (h->state != HEADER_DONE)
        return true;
    if (!words_is_charset(r.charset))
        r.charset = WORDS_CHARSET_DEFAULT;
    bytes_init(&r.value, HEADER_MAX);
    bytes_init(&r.field, HEADER_REPLACED_MAX);
    bytes_init(&r.folded, HEADER_REPLACED_MAX);
    ok = repair(&r);
    bytes_done(&r.value);
    bytes_done(&r.field);
    bytes_done(&r.folded);
    return ok;
}
