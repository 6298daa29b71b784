#include "relay/smtp/reply.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CODE_LEN 3

static const char *const failure_names[LOCAL_COUNT] = {
    [LOCAL_NONE] = "none",       [LOCAL_LOOKUP] = "lookup",
    [LOCAL_CONNECT] = "connect", [LOCAL_CERTIFICATE] = "certificate",
    [LOCAL_TLS] = "tls",         [LOCAL_TIMEOUT] = "timeout",
    [LOCAL_LOST] = "lost",       [LOCAL_PROTOCOL] = "protocol",
    [LOCAL_SECRET] = "secret",   [LOCAL_SPOOL] = "spool",
    [LOCAL_CONTENT] = "content", [LOCAL_ADDRESS] = "address",
};

const char *local_failure_name(enum local_failure failure)
{
    if ((size_t)failure >= LOCAL_COUNT)
        return "unknown";
    return failure_names[failure];
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* Only ASCII is shown: what is cut or badly encoded must not break a log line or a JSON text. */
static uint8_t printable(uint8_t c)
{
    if (c == '\t')
        return ' ';
    return c >= 0x20 && c < 0x7f ? c : '?';
}

static void make_printable(uint8_t *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        text[i] = printable(text[i]);
}

void reply_local(struct reply *out, enum local_failure failure, const char *fmt, ...)
{
    char text[REPLY_TEXT_MAX];
    va_list args;

    va_start(args, fmt);
    if (vsnprintf(text, sizeof(text), fmt, args) < 0)
        text[0] = '\0';
    va_end(args);
    memset(out, 0, sizeof(*out));
    out->local = failure;
    memcpy(out->text, text, strlen(text));
    make_printable((uint8_t *)out->text, strlen(text));
}

/* Up to three digits; false when there is none. */
static bool number(const char **at, uint16_t *out)
{
    unsigned value = 0;
    int digits = 0;

    while (digits < 3 && is_digit((uint8_t) * *at)) {
        value = value * 10 + (unsigned)(**at - '0');
        (*at)++;
        digits++;
    }
    *out = (uint16_t)value;
    return digits > 0;
}

/* Reads "5.7.139 " in front of text and returns what follows; text itself when there is no code.
 * The class need not agree with the reply code: real servers disagree with themselves. */
static const char *enhanced(const char *text, struct reply *r)
{
    const char *at = text;
    uint16_t n[3];

    if (*at != '2' && *at != '4' && *at != '5')
        return text;
    for (int i = 0; i < 3; i++) {
        if (i > 0 && *at++ != '.')
            return text;
        if (!number(&at, &n[i]))
            return text;
    }
    if (n[0] > 5 || (*at != ' ' && *at != '\0'))
        return text;
    memcpy(r->enhanced, n, sizeof(n));
    r->has_enhanced = true;
    return *at == ' ' ? at + 1 : at;
}

static void add_text(struct reply *r, const char *text)
{
    size_t used = strlen(r->text);
    size_t room = sizeof(r->text) - 1 - used;
    size_t len;

    if (*text == '\0')
        return;
    if (used > 0 && room > 0) {
        r->text[used++] = ' ';
        room--;
    }
    len = strnlen(text, room);
    memcpy(r->text + used, text, len);
    r->text[used + len] = '\0';
}

/* The last line decides where lines disagree, as in Postfix. */
static void build(struct reply_parser *p, struct reply *out)
{
    char *line = (char *)p->lines.data;
    char *end = line + p->lines.len;

    memset(out, 0, sizeof(*out));
    out->code = p->code;
    while (line < end) {
        char *stop = memchr(line, '\n', (size_t)(end - line));

        *stop = '\0';
        add_text(out, enhanced(line, out));
        *stop = '\n';
        line = stop + 1;
    }
}

void reply_parser_init(struct reply_parser *p)
{
    memset(p, 0, sizeof(*p));
    bytes_init(&p->lines, REPLY_MAX);
    bytes_init(&p->line, REPLY_LINE_MAX);
}

void reply_parser_done(struct reply_parser *p)
{
    bytes_done(&p->lines);
    bytes_done(&p->line);
}

static void begin(struct reply_parser *p)
{
    bytes_clear(&p->lines);
    bytes_clear(&p->line);
    p->octets = 0;
    p->code = 0;
    p->finished = false;
}

static enum reply_progress bad(struct reply_parser *p, struct reply *out, const char *what)
{
    p->finished = true;
    reply_local(out, LOCAL_PROTOCOL, "%s", what);
    return REPLY_BAD;
}

static enum reply_progress bad_line(struct reply_parser *p, struct reply *out)
{
    char shown[80];
    size_t len = p->line.len < sizeof(shown) - 1 ? p->line.len : sizeof(shown) - 1;

    if (len > 0)
        memcpy(shown, p->line.data, len);
    make_printable((uint8_t *)shown, len);
    shown[len] = '\0';
    p->finished = true;
    reply_local(out, LOCAL_PROTOCOL, "the server sent a line that is no SMTP reply: \"%s\"", shown);
    return REPLY_BAD;
}

static void cut_line_end(struct bytes *line)
{
    line->len--;
    if (line->len > 0 && line->data[line->len - 1] == '\r')
        line->len--;
}

/* "250", "250 text" or "250-text". */
static bool is_reply_line(const uint8_t *line, size_t len)
{
    if (len < CODE_LEN || line[0] < '2' || line[0] > '5' || !is_digit(line[1]) ||
        !is_digit(line[2]))
        return false;
    return len == CODE_LEN || line[CODE_LEN] == ' ' || line[CODE_LEN] == '-';
}

/* p->line holds a whole line with its end. */
static enum reply_progress take_line(struct reply_parser *p, struct reply *out)
{
    uint8_t *line = p->line.data;
    bool more;

    cut_line_end(&p->line);
    if (!is_reply_line(line, p->line.len))
        return bad_line(p, out);
    p->code = (unsigned)(line[0] - '0') * 100 + (unsigned)(line[1] - '0') * 10 +
              (unsigned)(line[2] - '0');
    more = p->line.len > CODE_LEN && line[CODE_LEN] == '-';
    if (p->line.len > CODE_LEN + 1) {
        make_printable(line + CODE_LEN + 1, p->line.len - CODE_LEN - 1);
        bytes_append(&p->lines, line + CODE_LEN + 1, p->line.len - CODE_LEN - 1);
    }
    bytes_byte(&p->lines, '\n');
    bytes_clear(&p->line);
    if (p->lines.failed)
        return bad(p, out, "no memory for a reply of the server");
    if (more)
        return REPLY_MORE;
    p->finished = true;
    build(p, out);
    return REPLY_DONE;
}

/* Moves octets to p->line, up to and with a line end. */
static bool take_octets(struct reply_parser *p, const uint8_t *data, size_t len, size_t *out_used)
{
    const uint8_t *end = memchr(data, '\n', len);
    size_t n = end != NULL ? (size_t)(end - data) + 1 : len;

    *out_used = n;
    p->octets += n;
    return p->octets <= REPLY_MAX && bytes_append(&p->line, data, n);
}

enum reply_progress reply_feed(struct reply_parser *p, const uint8_t *data, size_t len,
                               size_t *out_used, struct reply *out_reply)
{
    enum reply_progress progress = REPLY_MORE;
    size_t used = 0;

    if (p->finished && len > 0)
        begin(p);
    while (used < len && progress == REPLY_MORE) {
        size_t n;

        if (!take_octets(p, data + used, len - used, &n))
            progress = bad(p, out_reply,
                           p->octets > REPLY_MAX ? "a reply of the server is longer than 64 KB"
                                                 : "a line of the server is longer than 8 KB");
        else if (p->line.data[p->line.len - 1] == '\n')
            progress = take_line(p, out_reply);
        used += n;
    }
    *out_used = used;
    return progress;
}

size_t reply_line_count(const struct reply_parser *p)
{
    size_t count = 0;

    for (size_t i = 0; i < p->lines.len; i++)
        count += p->lines.data[i] == '\n';
    return count;
}

void reply_line(const struct reply_parser *p, size_t i, char *out, size_t size)
{
    const uint8_t *at = p->lines.data;
    size_t left = p->lines.len;

    while (left > 0) {
        const uint8_t *end = memchr(at, '\n', left);
        size_t len = (size_t)(end - at);

        if (i == 0) {
            snprintf(out, size, "%.*s", (int)len, (const char *)at);
            return;
        }
        i--;
        left -= len + 1;
        at = end + 1;
    }
    if (size > 0)
        out[0] = '\0';
}

bool reply_from_text(struct reply *out, const char *text)
{
    static const uint8_t line_end[] = {'\r', '\n'};
    struct reply_parser p;
    struct reply r;
    size_t used = 0;
    size_t used_end = 0;
    bool ok;

    reply_parser_init(&p);
    ok = reply_feed(&p, (const uint8_t *)text, strlen(text), &used, &r) == REPLY_MORE &&
         reply_feed(&p, line_end, sizeof(line_end), &used_end, &r) == REPLY_DONE;
    reply_parser_done(&p);
    if (ok)
        *out = r;
    return ok;
}

bool reply_is_positive(const struct reply *r)
{
    return r->code / 100 == 2;
}

bool reply_is_temporary(const struct reply *r)
{
    return r->code / 100 == 4;
}

bool reply_is_permanent(const struct reply *r)
{
    return r->code / 100 == 5;
}

bool reply_has_enhanced(const struct reply *r, unsigned class_, unsigned subject, unsigned detail)
{
    return r->has_enhanced && r->enhanced[0] == class_ && r->enhanced[1] == subject &&
           r->enhanced[2] == detail;
}

void reply_format(const struct reply *r, char *out, size_t size)
{
    const char *space = r->text[0] != '\0' ? " " : "";

    if (r->code == 0)
        snprintf(out, size, "(%s)%s%s", local_failure_name(r->local), space, r->text);
    else if (r->has_enhanced)
        snprintf(out, size, "%u %u.%u.%u%s%s", r->code, r->enhanced[0], r->enhanced[1],
                 r->enhanced[2], space, r->text);
    else
        snprintf(out, size, "%u%s%s", r->code, space, r->text);
}
