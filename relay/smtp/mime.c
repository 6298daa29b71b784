#include "relay/smtp/mime.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define QUOTED_LINE 75 /* of quoted-printable, before the "=" of a soft line break */

enum place { IN_HEADER, IN_BODY };

enum content {
    CONTENT_TEXT,
    CONTENT_BASE64,
    CONTENT_QUOTED,
    CONTENT_OTHER /* is not changed */
};

enum field { FIELD_OTHER, FIELD_TYPE, FIELD_ENCODING };

/* ---- values ---------------------------------------------------------------------------------- */

struct cursor {
    const char *p;
    const char *end;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Over spaces, folds and comments. */
static void skip_blanks(struct cursor *c)
{
    size_t depth = 0;

    for (; c->p < c->end; c->p++) {
        if (*c->p == '(')
            depth++;
        else if (*c->p == ')' && depth > 0)
            depth--;
        else if (*c->p == '\\' && depth > 0 && c->p + 1 < c->end)
            c->p++;
        else if (depth == 0 && !is_blank(*c->p))
            return;
    }
}

static bool is_token_char(char c)
{
    return c > ' ' && c < 0x7f && strchr("()<>@,;:\\\"/[]?=", c) == NULL;
}

static struct cursor token(struct cursor *c)
{
    struct cursor t;

    skip_blanks(c);
    t.p = c->p;
    while (c->p < c->end && is_token_char(*c->p))
        c->p++;
    t.end = c->p;
    skip_blanks(c);
    return t;
}

static bool is(struct cursor t, const char *word)
{
    size_t len = strlen(word);

    return (size_t)(t.end - t.p) == len && strncasecmp(t.p, word, len) == 0;
}

static bool take(struct cursor *c, char wanted)
{
    if (c->p == c->end || *c->p != wanted)
        return false;
    c->p++;
    return true;
}

/* A boundary in quotes, or up to the next ";": devices use more characters than a token has. */
static size_t read_boundary(struct cursor *c, char out[MIME_BOUNDARY_MAX])
{
    size_t n = 0;
    bool quoted;

    skip_blanks(c);
    quoted = take(c, '"');
    for (; c->p < c->end; c->p++) {
        if (quoted ? *c->p == '"' : *c->p == ';' || is_blank(*c->p))
            break;
        if (*c->p == '\r' || *c->p == '\n')
            continue;
        if (quoted && *c->p == '\\' && c->p + 1 < c->end)
            c->p++;
        if (n == MIME_BOUNDARY_MAX)
            return 0;
        out[n++] = *c->p;
    }
    for (; n > 0 && is_blank(out[n - 1]); n--)
        ;
    return n;
}

/* Behind the next ";" outside quotes. False when there is none. */
static bool next_parameter(struct cursor *c)
{
    bool inside = false;

    for (; c->p < c->end; c->p++) {
        if (inside && *c->p == '\\' && c->p + 1 < c->end)
            c->p++;
        else if (*c->p == '"')
            inside = !inside;
        else if (!inside && *c->p == ';') {
            c->p++;
            return true;
        }
    }
    return false;
}

static enum mime_type type_of(struct cursor type, struct cursor subtype)
{
    if (is(type, "text") || subtype.p == subtype.end)
        return MIME_TEXT; /* also what is no type at all (RFC 2045 5.2) */
    if (is(type, "multipart"))
        return is(subtype, "signed")   ? MIME_SIGNED
               : is(subtype, "digest") ? MIME_DIGEST
                                       : MIME_MULTIPART;
    return is(type, "message") && is(subtype, "partial") ? MIME_PARTIAL : MIME_OTHER;
}

static bool is_multipart(enum mime_type type)
{
    return type == MIME_MULTIPART || type == MIME_DIGEST || type == MIME_SIGNED;
}

void mime_read_type(struct mime_entity *e, const char *value, size_t len)
{
    struct cursor c = {value, value + len};
    struct cursor type = token(&c);
    struct cursor subtype = {c.p, c.p};

    if (take(&c, '/'))
        subtype = token(&c);
    e->type = type_of(type, subtype);
    while (is_multipart(e->type) && e->boundary_len == 0 && next_parameter(&c)) {
        if (is(token(&c), "boundary") && take(&c, '='))
            e->boundary_len = read_boundary(&c, e->boundary);
    }
}

void mime_read_encoding(struct mime_entity *e, const char *value, size_t len)
{
    struct cursor c = {value, value + len};
    struct cursor name;

    skip_blanks(&c);
    (void)take(&c, '"');
    name = token(&c);
    e->encoding = is(name, "base64")             ? MIME_BASE64
                  : is(name, "quoted-printable") ? MIME_QUOTED
                                                 : MIME_IDENTITY;
}

/* ---- parts ----------------------------------------------------------------------------------- */

/* Nothing in a part is changed whose multipart is signed, however it calls itself. */
static bool is_signed(const struct mime *m)
{
    return m->depth > 0 && m->open[m->depth - 1].type == MIME_SIGNED;
}

static void begin_part(struct mime *m)
{
    bool is_message = m->depth > 0 && m->open[m->depth - 1].type == MIME_DIGEST;

    m->entity.type = is_message ? MIME_OTHER : MIME_TEXT;
    m->entity.encoding = MIME_IDENTITY;
    m->entity.boundary_len = 0;
    m->field = FIELD_OTHER;
    m->value_len = 0;
    m->place = is_signed(m) ? IN_BODY : IN_HEADER;
    m->content = CONTENT_OTHER;
}

static enum content content_of(const struct mime_entity *e)
{
    if (e->type == MIME_PARTIAL)
        return CONTENT_OTHER;
    if (e->encoding != MIME_IDENTITY)
        return e->encoding == MIME_BASE64 ? CONTENT_BASE64 : CONTENT_QUOTED;
    return e->type == MIME_OTHER ? CONTENT_OTHER : CONTENT_TEXT;
}

static void open_multipart(struct mime *m)
{
    const struct mime_entity *e = &m->entity;
    struct mime_multipart *multipart = &m->open[m->depth];

    if (m->depth == MIME_DEPTH_MAX) {
        m->quirks.too_deep = true;
        m->content = CONTENT_OTHER;
        return;
    }
    m->depth++;
    multipart->type = e->type;
    multipart->len = e->boundary_len;
    memcpy(multipart->boundary, e->boundary, e->boundary_len);
    m->content = e->type == MIME_SIGNED ? CONTENT_OTHER : CONTENT_TEXT;
}

static void end_field(struct mime *m)
{
    if (m->field == FIELD_TYPE)
        mime_read_type(&m->entity, m->value, m->value_len);
    else if (m->field == FIELD_ENCODING)
        mime_read_encoding(&m->entity, m->value, m->value_len);
    m->field = FIELD_OTHER;
    m->value_len = 0;
}

static void begin_body(struct mime *m)
{
    end_field(m);
    m->place = IN_BODY;
    m->quirks.partial |= m->entity.type == MIME_PARTIAL;
    if (is_multipart(m->entity.type) && m->entity.boundary_len > 0)
        open_multipart(m);
    else
        m->content = content_of(&m->entity);
}

/* A line "--boundary" or "--boundary--" of any open multipart; inner ones without end are closed.
 */
static bool take_boundary(struct mime *m, const uint8_t *p, size_t len)
{
    for (; len > 2 && is_blank((char)p[len - 1]); len--)
        ;
    for (size_t i = m->depth; i > 0; i--) {
        const struct mime_multipart *multipart = &m->open[i - 1];
        size_t rest = len - 2 - multipart->len;

        if (len - 2 < multipart->len || memcmp(p + 2, multipart->boundary, multipart->len) != 0)
            continue;
        if (rest == 0) {
            m->depth = i;
            begin_part(m);
            return true;
        }
        if (rest == 2 && p[len - 1] == '-' && p[len - 2] == '-') {
            m->depth = i - 1;
            m->place = IN_BODY;
            m->content = is_signed(m) ? CONTENT_OTHER : CONTENT_TEXT;
            return true;
        }
    }
    return false;
}

/* ---- parts' headers -------------------------------------------------------------------------- */

static void add_value(struct mime *m, const uint8_t *p, size_t len)
{
    size_t room = sizeof(m->value) - m->value_len;

    if (m->field == FIELD_OTHER)
        return;
    if (len > room)
        len = room;
    memcpy(m->value + m->value_len, p, len);
    m->value_len += len;
}

static enum field field_of(const uint8_t *p, size_t len)
{
    static const struct {
        const char *name;
        enum field field;
    } fields[] = {{"Content-Type", FIELD_TYPE}, {"Content-Transfer-Encoding", FIELD_ENCODING}};

    while (len > 0 && is_blank((char)p[len - 1]))
        len--;
    for (size_t i = 0; i < COUNT(fields); i++) {
        if (is((struct cursor){(const char *)p, (const char *)p + len}, fields[i].name))
            return fields[i].field;
    }
    return FIELD_OTHER;
}

static bool is_field(const uint8_t *p, size_t len)
{
    return *p == ' ' || *p == '\t' || (*p != '\r' && memchr(p, ':', len) != NULL);
}

/* A line of a part's header, or as much of it as there is room for. */
static void take_field(struct mime *m, const uint8_t *p, size_t len)
{
    const uint8_t *colon = memchr(p, ':', len);

    if (*p == ' ' || *p == '\t') {
        add_value(m, p, len);
        return;
    }
    end_field(m);
    if (!is_field(p, len)) { /* the end, or a part that lacks it */
        begin_body(m);
        return;
    }
    m->field = field_of(p, (size_t)(colon - p));
    add_value(m, colon + 1, len - (size_t)(colon + 1 - p));
}

/* ---- lines ----------------------------------------------------------------------------------- */

static void emit(struct mime *m, const void *p, size_t len)
{
    memcpy(m->to, p, len);
    m->to += len;
}

/* A whole line, or the begin of one that is too long, before it goes out. */
static void look(struct mime *m, const uint8_t *p, size_t len)
{
    bool is_dashed = len >= 2 && p[0] == '-' && p[1] == '-';

    if (is_dashed && p[len - 1] == '\n' && take_boundary(m, p, len))
        return;
    if (m->place == IN_HEADER)
        take_field(m, p, len);
}

static void drop_held(struct mime *m, size_t len)
{
    memmove(m->line, m->line + len, m->held - len);
    m->held -= len;
}

/* Behind the last space; not where "--" would begin a line, which could be taken for a boundary. */
static size_t text_break(const struct mime *m)
{
    size_t n = m->held;

    for (size_t i = n - 1; i > 0; i--) {
        if (m->line[i - 1] == ' ' && m->line[i] != '-' && m->line[i] != ' ')
            return i;
    }
    for (n--; n > 1 && ((m->line[n] & 0xc0) == 0x80 || m->line[n] == '-') && n > m->held / 2; n--)
        ;
    return n;
}

static void break_text(struct mime *m)
{
    size_t n = text_break(m);

    m->quirks.long_text = true;
    emit(m, m->line, n);
    emit(m, "\r\n", 2);
    drop_held(m, n);
}

static void wrap_base64(struct mime *m)
{
    size_t n = 0;

    m->quirks.long_base64 = true;
    for (; m->held - n >= MIME_BASE64_LINE; n += MIME_BASE64_LINE) {
        emit(m, m->line + n, MIME_BASE64_LINE);
        emit(m, "\r\n", 2);
    }
    drop_held(m, n);
    m->limit = MIME_BASE64_LINE;
}

/* "=XX" stays in one piece. */
static void wrap_quoted(struct mime *m)
{
    size_t n = 0;

    m->quirks.long_quoted = true;
    while (m->held - n >= QUOTED_LINE) {
        const uint8_t *p = m->line + n;
        size_t len = p[QUOTED_LINE - 1] == '='   ? QUOTED_LINE - 1
                     : p[QUOTED_LINE - 2] == '=' ? QUOTED_LINE - 2
                                                 : QUOTED_LINE;

        emit(m, p, len);
        emit(m, "=\r\n", 3);
        n += len;
    }
    drop_held(m, n);
    m->limit = QUOTED_LINE;
}

/* Before a space, which then begins the continuation line; else with a space of ours. */
static void fold_field(struct mime *m)
{
    size_t n = m->held - 1;

    m->quirks.long_field = true;
    while (n > 1 && m->line[n] != ' ' && m->line[n] != '\t')
        n--;
    if (n <= 1)
        n = m->held - 1;
    take_field(m, m->line, n);
    emit(m, m->line, n);
    emit(m, "\r\n", 2);
    drop_held(m, n);
    if (m->line[0] != ' ' && m->line[0] != '\t') {
        memmove(m->line + 1, m->line, m->held);
        m->line[0] = ' ';
        m->held++;
    }
}

/* The line at hand goes beyond its limit: makes room. */
static void overflow(struct mime *m)
{
    static void (*const wrap[])(struct mime * m) = {[CONTENT_TEXT] = break_text,
                                                    [CONTENT_BASE64] = wrap_base64,
                                                    [CONTENT_QUOTED] = wrap_quoted};

    if (m->place == IN_HEADER && !m->continued && !is_field(m->line, m->held))
        begin_body(m); /* the part lacks the end of its header */
    if (m->place == IN_HEADER) {
        fold_field(m);
    } else if (m->content == CONTENT_OTHER) {
        m->quirks.long_other = true;
        emit(m, m->line, m->held);
        m->held = 0;
    } else {
        wrap[m->content](m);
    }
    m->continued = true;
}

static void end_line(struct mime *m)
{
    if (!m->continued)
        look(m, m->line, m->held);
    else if (m->place == IN_HEADER)
        take_field(m, m->line, m->held);
    emit(m, m->line, m->held);
    m->held = 0;
    m->continued = false;
    m->limit = MIME_LINE_MAX;
}

/* True when the NUL may be left out. */
static bool take_nul(struct mime *m)
{
    if (m->place == IN_BODY && m->content == CONTENT_OTHER) {
        m->binary = true;
        return false;
    }
    m->quirks.nul = true;
    return true;
}

static bool is_line_end(uint8_t c)
{
    return c == '\r' || c == '\n';
}

/* Holds octets of the line at hand, as far as they are alike. Returns how many. */
static size_t hold(struct mime *m, const uint8_t *data, size_t len)
{
    size_t n = 0;

    if (is_line_end(data[0])) {
        assert(m->held < sizeof(m->line)); /* CR LF, as the decoder writes it */
        m->line[m->held++] = data[0];
        if (data[0] == '\n')
            end_line(m);
        return 1;
    }
    if (data[0] == 0)
        return take_nul(m) ? 1 : len;
    if (m->held == m->limit)
        overflow(m);
    while (n < len && m->held < m->limit && data[n] != 0 && !is_line_end(data[n]))
        m->line[m->held++] = data[n++];
    return n;
}

/* ---- the face -------------------------------------------------------------------------------- */

void mime_begin(struct mime *m, const char *type, size_t type_len, const char *encoding,
                size_t encoding_len)
{
    memset(m, 0, sizeof(*m));
    m->limit = MIME_LINE_MAX;
    mime_read_type(&m->entity, type, type_len);
    mime_read_encoding(&m->entity, encoding, encoding_len);
    begin_body(m);
}

/* The usual case: octets of the line at data when all of it is there and not too long; else 0. */
static size_t whole_line(const uint8_t *data, size_t len)
{
    size_t most = len < MIME_LINE_MAX + 2 ? len : MIME_LINE_MAX + 2;
    const uint8_t *lf = memchr(data, '\n', most);

    return lf != NULL ? (size_t)(lf - data) + 1 : 0;
}

size_t mime_filter(struct mime *m, const uint8_t *data, size_t len, uint8_t *out)
{
    bool has_nul = len > 0 && memchr(data, 0, len) != NULL;

    m->to = out;
    while (len > 0 && !m->binary) {
        size_t n = m->held > 0 || m->continued || has_nul ? 0 : whole_line(data, len);

        if (n > 0) {
            look(m, data, n);
            emit(m, data, n);
        } else {
            n = hold(m, data, len);
        }
        data += n;
        len -= n;
    }
    return (size_t)(m->to - out);
}

size_t mime_finish(struct mime *m, uint8_t *out)
{
    m->to = out;
    if (m->held > 0 && !m->binary)
        emit(m, m->line, m->held);
    m->held = 0;
    return (size_t)(m->to - out);
}

bool mime_boundary_is_open(const struct mime *m)
{
    return m->depth > 0;
}
