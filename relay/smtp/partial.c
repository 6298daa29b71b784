#include "relay/smtp/partial.h"

#include <string.h>
#include <strings.h>

#define TEXT_MAX 256 /* of a parameter's name or value, with NUL */

_Static_assert(PARTIAL_ID_MAX + 1 <= TEXT_MAX, "an id is read whole");

struct cursor {
    const char *p;
    const char *end;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_at(const struct cursor *c, char wanted)
{
    return c->p < c->end && *c->p == wanted;
}

static bool take(struct cursor *c, char wanted)
{
    bool found = is_at(c, wanted);

    c->p += found;
    return found;
}

/* Comments nest (RFC 5322 3.2.2). */
static void skip_comment(struct cursor *c)
{
    unsigned depth = 0;

    for (; c->p < c->end; c->p++) {
        if (*c->p == '\\' && c->p + 1 < c->end)
            c->p++;
        else if (*c->p == '(')
            depth++;
        else if (*c->p == ')' && --depth == 0) {
            c->p++;
            return;
        }
    }
}

static void skip_blanks(struct cursor *c)
{
    while (c->p < c->end && (is_blank(*c->p) || *c->p == '(')) {
        if (*c->p == '(')
            skip_comment(c);
        else
            c->p++;
    }
}

/* Up to a blank or one of the octets in `ends`. False when it does not fit. */
static bool read_bare(struct cursor *c, const char *ends, char out[TEXT_MAX])
{
    size_t n = 0;

    while (c->p < c->end && !is_blank(*c->p) && strchr(ends, *c->p) == NULL) {
        if (n == TEXT_MAX - 1)
            return false;
        out[n++] = *c->p++;
    }
    out[n] = '\0';
    return n > 0;
}

static bool read_quoted(struct cursor *c, char out[TEXT_MAX])
{
    size_t n = 0;

    while (c->p < c->end && *c->p != '"') {
        if (*c->p == '\r' || *c->p == '\n') { /* of a fold */
            c->p++;
            continue;
        }
        if (*c->p == '\\' && c->p + 1 < c->end)
            c->p++;
        if (n == TEXT_MAX - 1)
            return false;
        out[n++] = *c->p++;
    }
    out[n] = '\0';
    return take(c, '"') && n > 0;
}

/* Devices write more in a bare value than a token has: it ends at a blank or ";". */
static bool read_value(struct cursor *c, char out[TEXT_MAX])
{
    skip_blanks(c);
    return take(c, '"') ? read_quoted(c, out) : read_bare(c, ";", out);
}

static bool read_number(const char *text, uint32_t *out)
{
    uint32_t value = 0;

    for (const char *p = text; *p != '\0'; p++) {
        if (*p < '0' || *p > '9')
            return false;
        value = value * 10 + (uint32_t)(*p - '0');
        if (value > PARTIAL_NUMBER_MAX)
            return false;
    }
    *out = value;
    return value > 0;
}

static bool is_printable(const char *text)
{
    for (const char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e)
            return false;
    }
    return true;
}

static bool set_id(struct partial *p, const char *text)
{
    if (!is_printable(text))
        return false;
    memcpy(p->id, text, strlen(text) + 1);
    return true;
}

/* Of a parameter that stands twice the first one counts. */
static bool set_parameter(struct partial *p, const char *name, const char *value)
{
    if (strcasecmp(name, "id") == 0)
        return p->id[0] != '\0' || set_id(p, value);
    if (strcasecmp(name, "number") == 0)
        return p->number != 0 || read_number(value, &p->number);
    if (strcasecmp(name, "total") == 0)
        return p->total != 0 || read_number(value, &p->total);
    return true;
}

static bool read_parameter(struct cursor *c, struct partial *p)
{
    char name[TEXT_MAX];
    char value[TEXT_MAX];

    skip_blanks(c);
    if (c->p == c->end || is_at(c, ';'))
        return true;
    if (!read_bare(c, "=;(", name))
        return false;
    skip_blanks(c);
    return take(c, '=') && read_value(c, value) && set_parameter(p, name, value);
}

static bool is_partial(struct cursor *c)
{
    char text[TEXT_MAX];

    skip_blanks(c);
    if (!read_bare(c, "/;(", text) || strcasecmp(text, "message") != 0)
        return false;
    skip_blanks(c);
    if (!take(c, '/'))
        return false;
    skip_blanks(c);
    return read_bare(c, ";(", text) && strcasecmp(text, "partial") == 0;
}

bool partial_read(const char *value, size_t len, struct partial *out)
{
    struct cursor c = {value, value + len};
    struct partial p = {.id = ""};

    if (!is_partial(&c))
        return false;
    skip_blanks(&c);
    while (take(&c, ';')) {
        if (!read_parameter(&c, &p))
            return false;
        skip_blanks(&c);
    }
    if (p.id[0] == '\0' || p.number == 0 || (p.total != 0 && p.number > p.total))
        return false;
    *out = p;
    return true;
}

/* RFC 2046 5.2.2 allows 7bit alone. */
static bool is_encoded(const struct header *h)
{
    char text[32];

    header_text(h, HEADER_CONTENT_TRANSFER_ENCODING, text, sizeof(text));
    return text[0] != '\0' && strcasecmp(text, "7bit") != 0 && strcasecmp(text, "8bit") != 0 &&
           strcasecmp(text, "binary") != 0;
}

bool partial_of(const struct header *h, struct partial *out)
{
    const struct header_field *type = header_find(h, HEADER_CONTENT_TYPE);
    size_t len;
    const char *value;

    if (h->state != HEADER_DONE || type == NULL)
        return false;
    value = header_value(h, type, &len);
    return partial_read(value, len, out) && !is_encoded(h);
}

/* ---- the header of the whole ----------------------------------------------------------------- */

static const char *text_of(const struct header *h, const struct header_field *f)
{
    return (const char *)h->text.data + f->offset;
}

static bool is_named(const struct header *h, const struct header_field *f, const char *name)
{
    return strlen(name) == f->name_len && strncasecmp(text_of(h, f), name, f->name_len) == 0;
}

/* Describes what is inside, so that the inner header's counts. */
static bool is_of_content(const struct header *h, const struct header_field *f)
{
    static const char *const names[] = {"Subject", "Message-ID", "Encrypted", "MIME-Version"};
    static const char content[] = "Content-";

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (is_named(h, f, names[i]))
            return true;
    }
    return f->name_len >= sizeof(content) - 1 &&
           strncasecmp(text_of(h, f), content, sizeof(content) - 1) == 0;
}

static bool has(const struct header *h, const char *name)
{
    for (size_t i = 0; i < h->field_count; i++) {
        if (is_named(h, &h->fields[i], name))
            return true;
    }
    return false;
}

static bool is_kept(const struct header *outer, const struct header_field *f,
                    const struct header *inner)
{
    if (is_named(outer, f, "Subject"))
        return !has(inner, "Subject");
    if (is_named(outer, f, "MIME-Version"))
        return !has(inner, "MIME-Version");
    return !is_of_content(outer, f);
}

bool partial_join(const struct header *outer, const struct header *inner, struct bytes *out)
{
    for (size_t i = 0; i < outer->field_count; i++) {
        const struct header_field *f = &outer->fields[i];

        if (is_kept(outer, f, inner))
            (void)bytes_append(out, text_of(outer, f), f->len);
    }
    for (size_t i = 0; i < inner->field_count; i++) {
        const struct header_field *f = &inner->fields[i];

        if (is_of_content(inner, f) && f->action != HEADER_DROP)
            (void)bytes_append(out, text_of(inner, f), f->len);
    }
    (void)bytes_append(out, "\r\n", 2);
    return !out->failed;
}
