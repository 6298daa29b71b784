#include "relay/smtp/sevenbit.h"

#include <string.h>
#include <strings.h>

#include "relay/smtp/base64.h"
#include "relay/smtp/words.h"

#define QUOTED_LINE 75 /* before the "=" of a soft line break */
#define WORD_OCTETS 42 /* of text in an encoded word, which takes at most 75 characters */

enum place { IN_HEADER, IN_BODY };

enum content {
    CONTENT_UNTOUCHED, /* may not be changed */
    CONTENT_AROUND,    /* between parts, where nothing is said */
    CONTENT_QUOTE,     /* becomes quoted-printable */
    CONTENT_BASE64,    /* becomes base64 */
    CONTENT_QUOTED,    /* is it already */
    CONTENT_BASED
};

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static bool is_high(uint8_t c)
{
    return c >= 0x80;
}

static bool has_high(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (is_high(p[i]))
            return true;
    return false;
}

static bool has_line_end(const uint8_t *p, size_t len)
{
    return len > 0 && p[len - 1] == '\n';
}

static size_t without_line_end(const uint8_t *p, size_t len)
{
    while (len > 0 && (p[len - 1] == '\n' || p[len - 1] == '\r'))
        len--;
    return len;
}

/* ---- quoted-printable ------------------------------------------------------------------------ */

static void soft_break(struct sevenbit *s, struct bytes *out)
{
    bytes_text(out, "=\r\n");
    s->column = 0;
}

static void quote_octet(struct sevenbit *s, uint8_t c, struct bytes *out)
{
    bool plain = (c >= 0x20 && c < 0x7f && c != '=') || c == '\t';
    size_t width = plain ? 1 : 3;

    if (s->column + width > QUOTED_LINE)
        soft_break(s, out);
    if (plain)
        bytes_byte(out, c);
    else
        bytes_printf(out, "=%02X", c);
    s->column += width;
    s->last = c;
}

/* A space at the end of a line would be taken for padding of the transport's. */
static void quote_line(struct sevenbit *s, const uint8_t *p, size_t len, struct bytes *out)
{
    size_t text = without_line_end(p, len);

    for (size_t i = 0; i < text; i++)
        quote_octet(s, p[i], out);
    if (!has_line_end(p, len))
        return;
    if (s->column > 0 && is_blank(s->last))
        soft_break(s, out);
    bytes_text(out, "\r\n");
    s->column = 0;
    s->last = 0;
}

/* ---- base64 ---------------------------------------------------------------------------------- */

static void put_group(struct sevenbit *s, struct bytes *out)
{
    uint8_t *to = bytes_reserve(out, BASE64_LENGTH(SEVENBIT_BASE64));

    if (s->waiting == 0 || to == NULL)
        return;
    base64_encode(s->group, s->waiting, (char *)to);
    out->len += BASE64_LENGTH(s->waiting);
    bytes_text(out, "\r\n");
    s->waiting = 0;
}

static void put_octet(struct sevenbit *s, uint8_t c, struct bytes *out)
{
    s->group[s->waiting++] = c;
    if (s->waiting == SEVENBIT_BASE64)
        put_group(s, out);
}

/* The end of the last line before a boundary belongs to that, so it waits for what follows. */
static void encode_line(struct sevenbit *s, const uint8_t *p, size_t len, struct bytes *out)
{
    size_t text = without_line_end(p, len);

    if (s->has_line_end) {
        put_octet(s, '\r', out);
        put_octet(s, '\n', out);
    }
    for (size_t i = 0; i < text; i++)
        put_octet(s, p[i], out);
    s->has_line_end = has_line_end(p, len);
}

/* ---- other data ------------------------------------------------------------------------------ */

static void put_around(const uint8_t *p, size_t len, struct bytes *out)
{
    for (size_t i = 0; i < len; i++)
        bytes_byte(out, is_high(p[i]) ? '?' : p[i]);
}

static void put_quoted(const uint8_t *p, size_t len, struct bytes *out)
{
    for (size_t i = 0; i < len; i++) {
        if (is_high(p[i]))
            bytes_printf(out, "=%02X", p[i]);
        else
            bytes_byte(out, p[i]);
    }
}

static void put_based(const uint8_t *p, size_t len, struct bytes *out)
{
    for (size_t i = 0; i < len; i++)
        if (!is_high(p[i]))
            bytes_byte(out, p[i]);
}

static void put_untouched(struct sevenbit *s, const uint8_t *p, size_t len, struct bytes *out)
{
    if (has_high(p, len))
        s->trouble = "an 8-bit part is signed or otherwise must not be changed";
    else
        bytes_append(out, p, len);
}

static void put_body(struct sevenbit *s, const uint8_t *p, size_t len, struct bytes *out)
{
    switch ((enum content)s->content) {
    case CONTENT_UNTOUCHED:
        put_untouched(s, p, len, out);
        break;
    case CONTENT_AROUND:
        put_around(p, len, out);
        break;
    case CONTENT_QUOTE:
        quote_line(s, p, len, out);
        break;
    case CONTENT_BASE64:
        encode_line(s, p, len, out);
        break;
    case CONTENT_QUOTED:
        put_quoted(p, len, out);
        break;
    case CONTENT_BASED:
        put_based(p, len, out);
        break;
    }
}

/* The part at hand has ended. A message's own last line end is data. */
static void end_part(struct sevenbit *s, bool is_last, struct bytes *out)
{
    if (s->content == CONTENT_BASE64) {
        if (is_last && s->has_line_end) {
            put_octet(s, '\r', out);
            put_octet(s, '\n', out);
        }
        put_group(s, out);
    }
    s->has_line_end = false;
    s->column = 0;
    s->last = 0;
}

/* ---- headers --------------------------------------------------------------------------------- */

static bool is_word_end(uint8_t c)
{
    return c <= ' ' || strchr("\"<>(),;=", c) != NULL;
}

static void put_encoded_word(const uint8_t *p, size_t len, const char *charset, struct bytes *out)
{
    char text[BASE64_LENGTH(WORD_OCTETS) + 1];

    base64_encode(p, len, text);
    text[BASE64_LENGTH(len)] = '\0';
    bytes_printf(out, "=?%s?B?%s?=", charset, text);
}

/* No character of UTF-8 is cut. */
static size_t piece_of(const uint8_t *p, size_t len)
{
    size_t n = len < WORD_OCTETS ? len : WORD_OCTETS;

    while (n < len && n > WORD_OCTETS - 4 && (p[n] & 0xc0) == 0x80)
        n--;
    return n;
}

static void put_word(const uint8_t *p, size_t len, struct bytes *out)
{
    const char *charset = words_is_utf8((const char *)p, len) ? "utf-8" : WORDS_CHARSET_DEFAULT;

    if (!has_high(p, len)) {
        bytes_append(out, p, len);
        return;
    }
    for (size_t n = 0; len > 0; p += n, len -= n) {
        n = piece_of(p, len);
        put_encoded_word(p, n, charset, out);
        if (n < len)
            bytes_text(out, "\r\n ");
    }
}

static void put_field(const uint8_t *p, size_t len, struct bytes *out)
{
    size_t begin = 0;

    if (!has_high(p, len)) {
        bytes_append(out, p, len);
        return;
    }
    for (size_t i = 0; i < len; i++) {
        if (!is_word_end(p[i]))
            continue;
        put_word(p + begin, i - begin, out);
        bytes_byte(out, p[i]);
        begin = i + 1;
    }
    put_word(p + begin, len - begin, out);
}

static size_t add(char *to, size_t have, const uint8_t *p, size_t len)
{
    size_t room = MIME_FIELD_MAX - have;
    size_t n = len < room ? len : room;

    memcpy(to + have, p, n);
    return have + n;
}

static bool is_field(const uint8_t *p, size_t len, const char *name)
{
    const uint8_t *colon = memchr(p, ':', len);
    size_t n = colon != NULL ? (size_t)(colon - p) : 0;

    while (n > 0 && is_blank(p[n - 1]))
        n--;
    return n == strlen(name) && strncasecmp((const char *)p, name, n) == 0;
}

/* What says how the part is encoded is kept back, for only the whole header tells what will be. */
static void take_field(struct sevenbit *s, const uint8_t *p, size_t len, bool begins,
                       struct bytes *out)
{
    if (begins && !is_blank(p[0])) {
        s->in_encoding = is_field(p, len, "Content-Transfer-Encoding");
        s->in_type = is_field(p, len, "Content-Type");
        s->has_version |= s->is_top && is_field(p, len, "MIME-Version");
    }
    if (s->in_encoding) {
        s->encoding_len = add(s->encoding, s->encoding_len, p, len);
        return;
    }
    if (s->in_type)
        s->type_len = add(s->type, s->type_len, p, len);
    put_field(p, len, out);
}

static const char *value_of(const char *field, size_t len, size_t *out_len)
{
    const char *colon = memchr(field, ':', len);

    *out_len = colon != NULL ? len - (size_t)(colon + 1 - field) : 0;
    return colon != NULL ? colon + 1 : field;
}

static void read_kind_of_message(struct sevenbit *s, const char *value, size_t len)
{
    size_t i = 0;
    bool is_rfc822;

    while (i < len && strchr(" \t\r\n", value[i]) != NULL && value[i] != '\0')
        i++;
    if (len - i < strlen("message/") || strncasecmp(value + i, "message/", strlen("message/")) != 0)
        return;
    i += strlen("message/");
    is_rfc822 =
        len - i >= strlen("rfc822") && strncasecmp(value + i, "rfc822", strlen("rfc822")) == 0;
    s->is_message = is_rfc822;
    s->is_other_message = !is_rfc822;
}

static bool is_multipart(const struct sevenbit *s)
{
    return s->entity.boundary_len > 0 &&
           (s->entity.type == MIME_MULTIPART || s->entity.type == MIME_DIGEST ||
            s->entity.type == MIME_SIGNED);
}

static bool is_signed(const struct sevenbit *s)
{
    return s->depth > 0 && s->open[s->depth - 1].type == MIME_SIGNED;
}

static enum content content_of(const struct sevenbit *s)
{
    if (s->entity.type == MIME_PARTIAL || s->is_other_message || s->is_message)
        return CONTENT_UNTOUCHED;
    if (s->entity.encoding != MIME_IDENTITY)
        return s->entity.encoding == MIME_BASE64 ? CONTENT_BASED : CONTENT_QUOTED;
    return s->entity.type == MIME_OTHER ? CONTENT_BASE64 : CONTENT_QUOTE;
}

static void begin_header(struct sevenbit *s, bool in_digest)
{
    s->entity =
        (struct mime_entity){.type = in_digest ? MIME_OTHER : MIME_TEXT, .encoding = MIME_IDENTITY};
    s->is_message = in_digest;
    s->is_other_message = false;
    s->in_encoding = false;
    s->in_type = false;
    s->type_len = 0;
    s->encoding_len = 0;
    s->place = is_signed(s) ? IN_BODY : IN_HEADER;
    s->content = CONTENT_UNTOUCHED;
}

static void open_multipart(struct sevenbit *s)
{
    struct mime_multipart *m = &s->open[s->depth];

    s->content = CONTENT_UNTOUCHED;
    if (s->depth == MIME_DEPTH_MAX)
        return;
    s->depth++;
    m->type = s->entity.type;
    m->len = s->entity.boundary_len;
    memcpy(m->boundary, s->entity.boundary, s->entity.boundary_len);
    if (m->type != MIME_SIGNED)
        s->content = CONTENT_AROUND;
}

static void read_header(struct sevenbit *s)
{
    size_t len;
    const char *value = value_of(s->type, s->type_len, &len);

    if (s->type_len > 0) {
        s->is_message = false;
        s->entity.type = MIME_TEXT;
        mime_read_type(&s->entity, value, len);
        read_kind_of_message(s, value, len);
    }
    value = value_of(s->encoding, s->encoding_len, &len);
    if (s->encoding_len > 0)
        mime_read_encoding(&s->entity, value, len);
}

/* What its encoding will be, or NULL where it stays. Not to be said of what cannot be changed. */
static const char *new_encoding(const struct sevenbit *s)
{
    bool composite = is_multipart(s) || s->is_message;

    if (composite && s->entity.encoding == MIME_IDENTITY)
        return s->entity.type == MIME_SIGNED || s->encoding_len == 0 ? NULL : "7bit";
    if (composite)
        return NULL;
    switch (content_of(s)) {
    case CONTENT_QUOTE:
        return "quoted-printable";
    case CONTENT_BASE64:
        return "base64";
    default:
        return NULL;
    }
}

/* Without them the encoding means nothing. RFC 1428 3 has the charset. */
static void put_mime_fields(const struct sevenbit *s, struct bytes *out)
{
    if (!s->has_version)
        bytes_text(out, "MIME-Version: 1.0\r\n");
    if (s->type_len == 0)
        bytes_text(out, "Content-Type: text/plain; charset=unknown-8bit\r\n");
}

static void end_header(struct sevenbit *s, struct bytes *out)
{
    const char *encoding;

    read_header(s);
    encoding = new_encoding(s);
    if (s->is_top && encoding != NULL)
        put_mime_fields(s, out);
    s->is_top = false;
    if (encoding != NULL)
        bytes_printf(out, "Content-Transfer-Encoding: %s\r\n", encoding);
    else
        put_field((const uint8_t *)s->encoding, s->encoding_len, out);
    s->place = IN_BODY;
    if (is_multipart(s))
        open_multipart(s);
    else
        s->content = content_of(s);
    s->column = 0;
}

/* ---- lines ----------------------------------------------------------------------------------- */

/* A line "--boundary" or "--boundary--" of an open multipart; inner ones without end are closed. */
static bool take_boundary(struct sevenbit *s, const uint8_t *p, size_t len, struct bytes *out)
{
    size_t n = without_line_end(p, len);

    while (n > 2 && is_blank(p[n - 1]))
        n--;
    for (size_t i = s->depth; i > 0; i--) {
        const struct mime_multipart *m = &s->open[i - 1];
        size_t rest = n - 2 - m->len;

        if (n - 2 < m->len || memcmp(p + 2, m->boundary, m->len) != 0)
            continue;
        if (rest != 0 && !(rest == 2 && p[n - 1] == '-' && p[n - 2] == '-'))
            continue;
        end_part(s, false, out);
        s->depth = rest == 0 ? i : i - 1;
        bytes_append(out, p, len);
        if (rest == 0) {
            begin_header(s, s->open[i - 1].type == MIME_DIGEST);
        } else {
            s->place = IN_BODY;
            s->content = is_signed(s) ? CONTENT_UNTOUCHED : CONTENT_AROUND;
        }
        return true;
    }
    return false;
}

static bool is_header_line(const uint8_t *p, size_t len)
{
    return is_blank(p[0]) || (p[0] != '\r' && memchr(p, ':', len) != NULL);
}

/* The empty line, or the first line of a body that lacks it. */
static void leave_header(struct sevenbit *s, const uint8_t *p, size_t len, struct bytes *out)
{
    bool empty = without_line_end(p, len) == 0;

    end_header(s, out);
    bytes_text(out, "\r\n");
    if (s->is_message && s->entity.encoding == MIME_IDENTITY)
        begin_header(s, false);
    if (!empty)
        put_body(s, p, len, out);
}

/* A whole line, or a piece of one that is too long. */
static void take_piece(struct sevenbit *s, const uint8_t *p, size_t len, struct bytes *out)
{
    bool begins = !s->continued;
    bool dashed = begins && len > 2 && p[0] == '-' && p[1] == '-' && has_line_end(p, len);

    s->continued = !has_line_end(p, len);
    if (dashed && take_boundary(s, p, len, out))
        return;
    if (s->place == IN_BODY)
        put_body(s, p, len, out);
    else if (begins && !is_header_line(p, len))
        leave_header(s, p, len, out);
    else
        take_field(s, p, len, begins, out);
}

/* ---- the face -------------------------------------------------------------------------------- */

void sevenbit_begin(struct sevenbit *s)
{
    memset(s, 0, sizeof(*s));
    begin_header(s, false);
    s->is_top = true;
}

static void take_held(struct sevenbit *s, struct bytes *out)
{
    size_t len = s->held;

    s->held = 0;
    if (len > 0)
        take_piece(s, s->line, len, out);
}

bool sevenbit_filter(struct sevenbit *s, const uint8_t *data, size_t len, struct bytes *out)
{
    while (len > 0 && s->trouble == NULL) {
        size_t room = sizeof(s->line) - s->held;
        size_t most = len < room ? len : room;
        const uint8_t *lf = memchr(data, '\n', most);
        size_t n = lf != NULL ? (size_t)(lf - data) + 1 : most;

        memcpy(s->line + s->held, data, n);
        s->held += n;
        data += n;
        len -= n;
        if (lf != NULL || s->held == sizeof(s->line))
            take_held(s, out);
    }
    return s->trouble == NULL && !out->failed;
}

bool sevenbit_finish(struct sevenbit *s, struct bytes *out)
{
    if (s->trouble == NULL)
        take_held(s, out);
    if (s->trouble == NULL && s->place == IN_HEADER)
        end_header(s, out);
    else if (s->trouble == NULL)
        end_part(s, true, out);
    return s->trouble == NULL && !out->failed;
}
