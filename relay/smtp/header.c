#include "relay/smtp/header.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define FIELDS_FIRST 16

static const struct {
    const char *text;
    enum header_name name;
} names[] = {
    {"Received", HEADER_RECEIVED},
    {"Date", HEADER_DATE},
    {"Message-ID", HEADER_MESSAGE_ID},
    {"From", HEADER_FROM},
    {"Sender", HEADER_SENDER},
    {"Reply-To", HEADER_REPLY_TO},
    {"To", HEADER_TO},
    {"Cc", HEADER_CC},
    {"Bcc", HEADER_BCC},
    {"Resent-Bcc", HEADER_BCC},
    {"Subject", HEADER_SUBJECT},
    {"Content-Type", HEADER_CONTENT_TYPE},
    {"Content-Transfer-Encoding", HEADER_CONTENT_TRANSFER_ENCODING},
    {"Resent-From", HEADER_ADDRESSES},
    {"Resent-Sender", HEADER_ADDRESSES},
    {"Resent-To", HEADER_ADDRESSES},
    {"Resent-Cc", HEADER_ADDRESSES},
    {"Errors-To", HEADER_ADDRESSES},
    {"Disposition-Notification-To", HEADER_ADDRESSES},
    {"Return-Receipt-To", HEADER_ADDRESSES},
    {"Content-Disposition", HEADER_PARAMETERS},
    {"Return-Path", HEADER_STRUCTURED},
    {"MIME-Version", HEADER_STRUCTURED},
    {"In-Reply-To", HEADER_STRUCTURED},
    {"References", HEADER_STRUCTURED},
    {"Resent-Date", HEADER_STRUCTURED},
    {"Resent-Message-ID", HEADER_STRUCTURED},
    {"Content-ID", HEADER_STRUCTURED},
    {"DKIM-Signature", HEADER_STRUCTURED},
    {"Authentication-Results", HEADER_STRUCTURED},
    {"Auto-Submitted", HEADER_STRUCTURED},
    {"X-Mailer", HEADER_TEXT},
    {"User-Agent", HEADER_TEXT},
    {"X-Priority", HEADER_TEXT},
    {"Importance", HEADER_TEXT},
};

void header_init(struct header *h)
{
    *h = (struct header){.state = HEADER_MORE};
    bytes_init(&h->text, HEADER_MAX + HEADER_CHUNK_MAX);
    bytes_init(&h->added, HEADER_MAX);
    bytes_init(&h->replaced, HEADER_REPLACED_MAX);
}

void header_done(struct header *h)
{
    bytes_done(&h->text);
    bytes_done(&h->added);
    bytes_done(&h->replaced);
    free(h->fields);
    h->fields = NULL;
    h->field_count = h->field_room = 0;
}

static bool is_noted(const struct header *h, const char *repair)
{
    size_t len = strlen(repair);

    for (const char *p = h->repairs; (p = strstr(p, repair)) != NULL; p += len) {
        if ((p == h->repairs || p[-1] == ',') && (p[len] == '\0' || p[len] == ','))
            return true;
    }
    return false;
}

void header_note(struct header *h, const char *repair)
{
    size_t used = strlen(h->repairs);
    size_t need = strlen(repair) + (used > 0 ? 1 : 0);

    if (!is_noted(h, repair) && need < sizeof(h->repairs) - used)
        snprintf(h->repairs + used, sizeof(h->repairs) - used, "%s%s", used > 0 ? "," : "", repair);
}

/* ---- lines ----------------------------------------------------------------------------------- */

enum line_kind {
    LINE_UNKNOWN,
    LINE_EMPTY,
    LINE_FIELD,
    LINE_BAD_FIELD, /* its name holds control characters */
    LINE_CONTINUATION,
    LINE_BODY
};

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static bool is_name_char(uint8_t c)
{
    return c < 0x80 && c != ':' && c != '\r' && c != '\n' && !is_space(c);
}

static bool has_controls(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i] < ' ' || p[i] == 0x7f)
            return true;
    }
    return false;
}

/* What a line is, as soon as its beginning tells; whole says that all of it is there. */
static enum line_kind kind_of(const uint8_t *p, size_t len, bool whole, size_t *out_name_len)
{
    size_t name = 0;
    size_t colon;

    if (len == 0 || (p[0] == '\r' && len == 1))
        return LINE_UNKNOWN;
    if (p[0] == '\r')
        return LINE_EMPTY;
    if (is_space(p[0]))
        return LINE_CONTINUATION;
    while (name < len && is_name_char(p[name]))
        name++;
    for (colon = name; colon < len && is_space(p[colon]); colon++)
        ;
    if (name > HEADER_NAME_MAX)
        return LINE_BODY;
    if (colon == len)
        return whole ? LINE_BODY : LINE_UNKNOWN;
    if (name == 0 || p[colon] != ':')
        return LINE_BODY;
    *out_name_len = name;
    return has_controls(p, name) ? LINE_BAD_FIELD : LINE_FIELD;
}

/* "From scanner@office.example Fri Jul  4 10:00:00 2025", with or without ">". */
static bool is_mbox_line(const uint8_t *p, size_t len)
{
    static const char days[] = "Mon Tue Wed Thu Fri Sat Sun ";
    const uint8_t *end = p + len;

    if (len > 0 && *p == '>')
        p++;
    if (end - p < 5 || memcmp(p, "From ", 5) != 0)
        return false;
    for (p += 5; p<end && * p> ' '; p++)
        ;
    for (; p < end && *p == ' '; p++)
        ;
    for (const char *day = days; *day != '\0' && end - p > 4; day += 4) {
        if (p[-1] == ' ' && memcmp(p, day, 4) == 0)
            return true;
    }
    return false;
}

static enum header_name name_of(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < COUNT(names); i++) {
        if (strlen(names[i].text) == len && strncasecmp(names[i].text, (const char *)p, len) == 0)
            return names[i].name;
    }
    return HEADER_OTHER;
}

static bool fields_grow(struct header *h)
{
    size_t room = h->field_room > 0 ? h->field_room * 2 : FIELDS_FIRST;
    struct header_field *more;

    if (h->field_count < h->field_room)
        return true;
    more = realloc(h->fields, room * sizeof(*more));
    if (more == NULL)
        return false;
    h->fields = more;
    h->field_room = room;
    return true;
}

static void give_up(struct header *h)
{
    h->state = HEADER_TOO_LARGE;
    header_note(h, "header_too_large");
}

static void end_header(struct header *h, size_t body)
{
    h->body = body;
    h->state = HEADER_DONE;
    if (body > HEADER_MAX)
        give_up(h);
}

/* The header ends without an empty line; or there is none at all, and then the first of the empty
 * lines before this one was its end. */
static void begin_body(struct header *h)
{
    size_t first = h->scanned > h->mbox ? h->mbox + 2 : h->mbox;

    header_note(h, h->field_count == 0 ? "no_header" : "no_empty_line");
    end_header(h, h->field_count == 0 ? first : h->scanned);
}

static void add_field(struct header *h, size_t at, size_t len, size_t name_len)
{
    enum header_name name = name_of(h->text.data + at, name_len);

    if (h->field_count == 0 && at > h->mbox) {
        if (name == HEADER_OTHER) {
            begin_body(h);
            return;
        }
        header_note(h, "leading_empty_lines");
    }
    if (h->field_count == 0)
        h->start = at;
    if (h->field_count == HEADER_FIELDS_MAX) {
        give_up(h);
        return;
    }
    if (!fields_grow(h)) {
        h->state = HEADER_NO_MEMORY;
        return;
    }
    h->fields[h->field_count++] = (struct header_field){.offset = (uint32_t)at,
                                                        .len = (uint32_t)len,
                                                        .name_len = (uint16_t)name_len,
                                                        .name = (uint8_t)name};
    h->count[name]++;
    h->end = at + len;
}

/* Text hardly ever holds control characters, but the first line may be a printer's language. */
static void take_bad_field(struct header *h, size_t at, size_t len, size_t name_len)
{
    if (h->field_count == 0) {
        begin_body(h);
        return;
    }
    add_field(h, at, len, name_len);
    if (h->state == HEADER_MORE) {
        header_note(h, "bad_field_name");
        h->fields[h->field_count - 1].action = HEADER_DROP;
    }
}

/* A line that is no field. */
static void take_text(struct header *h, size_t at, size_t len)
{
    if (at > 0 || h->text.data[len - 1] != '\n' || !is_mbox_line(h->text.data, len)) {
        begin_body(h);
        return;
    }
    header_note(h, "mbox_line");
    h->mbox = len;
}

static void take_line(struct header *h, enum line_kind kind, size_t at, size_t len, size_t name_len)
{
    switch (kind) {
    case LINE_EMPTY:
        if (h->field_count > 0)
            end_header(h, at + len);
        break;
    case LINE_FIELD:
        add_field(h, at, len, name_len);
        break;
    case LINE_CONTINUATION:
        if (h->field_count > 0) {
            h->fields[h->field_count - 1].len += (uint32_t)len;
            h->end += len;
            break;
        }
        begin_body(h);
        break;
    case LINE_BAD_FIELD:
        take_bad_field(h, at, len, name_len);
        break;
    case LINE_BODY:
        take_text(h, at, len);
        break;
    case LINE_UNKNOWN:
        break;
    }
}

/* True as long as the first line, which is not whole, may turn out to be one. */
static bool may_be_mbox_line(const struct header *h, const uint8_t *p, size_t len)
{
    size_t quoted = len > 0 && *p == '>' ? 1 : 0;
    size_t known = len - quoted < 5 ? len - quoted : 5;

    return h->scanned == 0 && len <= HEADER_NAME_MAX && memcmp(p + quoted, "From ", known) == 0;
}

/* Takes the whole lines, and the beginning of another when it cannot be a field. */
static void scan(struct header *h)
{
    while (h->state == HEADER_MORE && h->scanned < h->text.len) {
        const uint8_t *p = h->text.data + h->scanned;
        size_t left = h->text.len - h->scanned;
        const uint8_t *lf = memchr(h->text.data + h->searched, '\n', h->text.len - h->searched);
        size_t len = lf != NULL ? (size_t)(lf - p) + 1 : left;
        size_t name_len = 0;
        enum line_kind kind = kind_of(p, len, lf != NULL, &name_len);

        h->searched = h->scanned + len;
        if (lf == NULL && (kind != LINE_BODY || may_be_mbox_line(h, p, len)))
            return;
        take_line(h, kind, h->scanned, len, name_len);
        h->scanned += len;
    }
}

enum header_state header_feed(struct header *h, const uint8_t *data, size_t len)
{
    assert(h->state == HEADER_MORE && len <= HEADER_CHUNK_MAX);
    if (!bytes_append(&h->text, data, len)) {
        h->state = HEADER_NO_MEMORY;
        return h->state;
    }
    scan(h);
    if (h->state == HEADER_MORE && h->text.len > HEADER_MAX)
        give_up(h);
    return h->state;
}

enum header_state header_finish(struct header *h)
{
    if (h->state != HEADER_MORE)
        return h->state;
    if (h->field_count == 0)
        begin_body(h);
    else
        end_header(h, h->scanned);
    return h->state;
}

/* ---- values ---------------------------------------------------------------------------------- */

uint32_t header_count(const struct header *h, enum header_name name)
{
    return h->count[name];
}

struct header_field *header_find(const struct header *h, enum header_name name)
{
    for (size_t i = 0; i < h->field_count; i++) {
        if (h->fields[i].name == name && h->fields[i].action != HEADER_DROP)
            return &h->fields[i];
    }
    return NULL;
}

const char *header_value(const struct header *h, const struct header_field *f, size_t *out_len)
{
    bool is_new = f->action == HEADER_REPLACE;
    const char *p =
        (const char *)(is_new ? h->replaced.data + f->new_offset : h->text.data + f->offset);
    size_t len = is_new ? f->new_len : f->len;
    const char *colon = len > 0 ? memchr(p, ':', len) : NULL;

    if (colon == NULL) {
        *out_len = 0;
        return "";
    }
    *out_len = len - (size_t)(colon + 1 - p);
    return colon + 1;
}

/* Octets of the character at p: 1 for ASCII, 0 for what is not UTF-8 (surrogates and overlong forms
 * are left to the reader: this is for display). */
static size_t character(const uint8_t *p, size_t len)
{
    size_t need = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    if (p[0] > 0xf4 || need > len)
        return 0;
    for (size_t i = 1; i < need; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return need;
}

/* One character for display at out, from at most len octets; their number. */
static size_t show(const uint8_t *p, size_t len, char *out)
{
    size_t n = character(p, len);

    if (n > 1) {
        memcpy(out, p, n);
        return n;
    }
    *out = (char)*p;
    if (*p == '\t')
        *out = ' ';
    else if (n == 0 || *p < ' ' || *p == 0x7f)
        *out = '?';
    return 1;
}

static void field_text(const struct header *h, const struct header_field *f, char *out, size_t size)
{
    const uint8_t *end = f != NULL ? h->text.data + f->offset + f->len : NULL;
    const uint8_t *colon = f != NULL ? memchr(h->text.data + f->offset, ':', f->len) : NULL;
    const uint8_t *p = colon != NULL ? colon + 1 : end;
    size_t n = 0;
    char shown[4];

    while (p < end) {
        size_t len = show(p, (size_t)(end - p), shown);
        bool fold = *p == '\r' || *p == '\n';

        p += len;
        if (fold || (n == 0 && shown[0] == ' '))
            continue;
        if (n + len >= size)
            break;
        memcpy(out + n, shown, len);
        n += len;
    }
    for (; n > 0 && out[n - 1] == ' '; n--)
        ;
    out[n] = '\0';
}

void header_text(const struct header *h, enum header_name name, char *out, size_t size)
{
    field_text(h, header_find(h, name), out, size);
}

void header_text_named(const struct header *h, const char *name, char *out, size_t size)
{
    const struct header_field *found = NULL;
    size_t len = strlen(name);

    for (size_t i = 0; found == NULL && i < h->field_count; i++) {
        const struct header_field *f = &h->fields[i];
        if (f->action != HEADER_DROP && f->name_len == len &&
            strncasecmp((const char *)h->text.data + f->offset, name, len) == 0)
            found = f;
    }
    field_text(h, found, out, size);
}

/* ---- actions --------------------------------------------------------------------------------- */

void header_drop(struct header *h, enum header_name name)
{
    for (size_t i = 0; i < h->field_count; i++) {
        if (h->fields[i].name == name)
            h->fields[i].action = HEADER_DROP;
    }
}

bool header_add(struct header *h, const char *text)
{
    return bytes_printf(&h->added, "%s\r\n", text);
}

bool header_replace(struct header *h, struct header_field *f, const void *text, size_t len)
{
    size_t at = h->replaced.len;

    if (!bytes_append(&h->replaced, text, len))
        return false;
    f->action = HEADER_REPLACE;
    f->new_offset = (uint32_t)at;
    f->new_len = (uint32_t)len;
    return true;
}

/* ---- the stored form ------------------------------------------------------------------------- */

/* Fields that stay, in runs: without an action it is a single append. */
static bool write_fields(const struct header *h, struct bytes *out)
{
    size_t from = h->start;

    for (size_t i = 0; i < h->field_count; i++) {
        const struct header_field *f = &h->fields[i];

        if (f->action == HEADER_KEEP)
            continue;
        if (!bytes_append(out, h->text.data + from, f->offset - from))
            return false;
        if (f->action == HEADER_REPLACE &&
            !bytes_append(out, h->replaced.data + f->new_offset, f->new_len))
            return false;
        from = f->offset + f->len;
    }
    return h->end <= from || bytes_append(out, h->text.data + from, h->end - from);
}

bool header_write(const struct header *h, const struct bytes *trace, struct bytes *out,
                  uint32_t *out_header_size)
{
    size_t before = out->len;

    assert(h->state == HEADER_DONE || h->state == HEADER_TOO_LARGE);
    if (!bytes_append(out, trace->data, trace->len))
        return false;
    if (h->state == HEADER_TOO_LARGE) {
        *out_header_size = 0;
        return bytes_append(out, h->text.data, h->text.len);
    }
    if (!write_fields(h, out) || !bytes_append(out, h->added.data, h->added.len) ||
        !bytes_text(out, "\r\n"))
        return false;
    *out_header_size = (uint32_t)(out->len - before);
    return true;
}

const uint8_t *header_rest(const struct header *h, size_t *out_len)
{
    bool has_rest = h->state == HEADER_DONE && h->text.len > h->body;

    *out_len = has_rest ? h->text.len - h->body : 0;
    return has_rest ? h->text.data + h->body : (const uint8_t *)"";
}
