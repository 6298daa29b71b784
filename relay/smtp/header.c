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
    {"Subject", HEADER_SUBJECT},
    {"To", HEADER_KNOWN},
    {"Cc", HEADER_KNOWN},
    {"Bcc", HEADER_KNOWN},
    {"Sender", HEADER_KNOWN},
    {"Reply-To", HEADER_KNOWN},
    {"Return-Path", HEADER_KNOWN},
    {"MIME-Version", HEADER_KNOWN},
    {"Content-Type", HEADER_KNOWN},
    {"Content-Transfer-Encoding", HEADER_KNOWN},
    {"X-Mailer", HEADER_KNOWN},
    {"X-Priority", HEADER_KNOWN},
    {"Importance", HEADER_KNOWN},
};

void header_init(struct header *h)
{
    *h = (struct header){.state = HEADER_MORE};
    bytes_init(&h->text, HEADER_MAX + HEADER_CHUNK_MAX);
    bytes_init(&h->added, HEADER_MAX);
}

void header_done(struct header *h)
{
    bytes_done(&h->text);
    bytes_done(&h->added);
    free(h->fields);
    h->fields = NULL;
    h->field_count = h->field_room = 0;
}

void header_note(struct header *h, const char *repair)
{
    size_t used = strlen(h->repairs);
    size_t need = strlen(repair) + (used > 0 ? 1 : 0);

    if (need < sizeof(h->repairs) - used)
        snprintf(h->repairs + used, sizeof(h->repairs) - used, "%s%s", used > 0 ? "," : "", repair);
}

/* ---- lines ----------------------------------------------------------------------------------- */

enum line_kind { LINE_UNKNOWN, LINE_EMPTY, LINE_FIELD, LINE_CONTINUATION, LINE_BODY };

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t';
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
    while (name < len && p[name] > ' ' && p[name] < 0x7f && p[name] != ':')
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
    return LINE_FIELD;
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

static void add_field(struct header *h, size_t at, size_t len, size_t name_len)
{
    enum header_name name = name_of(h->text.data + at, name_len);

    if (h->field_count == 0 && at > 0) {
        if (name == HEADER_OTHER) {
            header_note(h, "no_header");
            end_header(h, 2); /* the first empty line ends an empty header */
            return;
        }
        header_note(h, "leading_empty_lines");
        h->start = at;
    }
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

/* The header ends without an empty line; or there is none at all, and then the first of the empty
 * lines before this one was its end. */
static void begin_body(struct header *h)
{
    header_note(h, h->field_count == 0 ? "no_header" : "no_empty_line");
    end_header(h, h->field_count == 0 && h->scanned > 0 ? 2 : h->scanned);
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
    case LINE_BODY:
        begin_body(h);
        break;
    case LINE_UNKNOWN:
        break;
    }
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
        if (lf == NULL && kind != LINE_BODY)
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

static const struct header_field *find_field(const struct header *h, enum header_name name)
{
    for (size_t i = 0; i < h->field_count; i++) {
        if (h->fields[i].name == name)
            return &h->fields[i];
    }
    return NULL;
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

void header_text(const struct header *h, enum header_name name, char *out, size_t size)
{
    const struct header_field *f = find_field(h, name);
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

static bool supply(struct header *h, enum header_name name, const char *field, const char *value,
                   const char *repair)
{
    char text[4];

    header_text(h, name, text, sizeof(text));
    if (text[0] != '\0')
        return true;
    header_drop(h, name);
    header_note(h, repair);
    return bytes_printf(&h->added, "%s: %s\r\n", field, value);
}

bool header_repair(struct header *h, const char *date, const char *message_id)
{
    if (h->state != HEADER_DONE)
        return true;
    return supply(h, HEADER_MESSAGE_ID, "Message-ID", message_id, "no_message_id") &&
           supply(h, HEADER_DATE, "Date", date, "no_date");
}

/* ---- the stored form ------------------------------------------------------------------------- */

/* Fields that stay, in runs: without a dropped one it is a single append. */
static bool write_fields(const struct header *h, struct bytes *out)
{
    size_t from = h->start;

    for (size_t i = 0; i < h->field_count; i++) {
        const struct header_field *f = &h->fields[i];

        if (f->action != HEADER_DROP)
            continue;
        if (!bytes_append(out, h->text.data + from, f->offset - from))
            return false;
        from = f->offset + f->len;
    }
    return h->end <= from || bytes_append(out, h->text.data + from, h->end - from);
}

bool header_write(const struct header *h, const struct bytes *trace, struct bytes *out,
                  uint32_t *out_header_size)
{
    size_t before = out->len;
    size_t size;

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
    size = out->len - before;
    if (h->text.len > h->body && !bytes_append(out, h->text.data + h->body, h->text.len - h->body))
        return false;
    *out_header_size = (uint32_t)size;
    return true;
}
