#include "relay/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define CUT_MARK     "..."
#define CUT_RESERVED 4 /* the mark and a closing quote */
#define TIME_MAX     40
#define ESCAPE_MAX   4 /* of one octet: \x1b */

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const int syslog_levels[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

/* The one process-wide thing besides the stop flag: where lines go. */
static struct {
    enum log_level level;
    enum log_target target;
    bool timestamps;
} sink = {LOG_LEVEL_INFO, LOG_TARGET_STDERR, false};

/* A line that is being written; it stays within size whatever is put. */
struct line {
    char *p;
    size_t len;
    size_t size;
    bool quoted; /* inside quotes now */
    bool cut;
};

void log_setup(enum log_level level, enum log_target target, bool timestamps)
{
    sink.level = level;
    sink.target = target;
    sink.timestamps = timestamps;
    if (target == LOG_TARGET_SYSLOG)
        openlog("outtrayd", LOG_PID | LOG_NDELAY, LOG_MAIL);
}

bool log_enabled(enum log_level level)
{
    return level <= sink.level;
}

bool log_level_parse(const char *text, enum log_level *out_level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof *level_names; i++)
        if (strcmp(text, level_names[i]) == 0) {
            *out_level = (enum log_level)i;
            return true;
        }
    return false;
}

static bool fits(const struct line *l, size_t len)
{
    return l->len + len + CUT_RESERVED < l->size;
}

/* Puts a piece whole or not at all, so that neither an escape nor a character is ever split. */
static void put(struct line *l, const char *piece, size_t len)
{
    if (l->cut)
        return;
    if (fits(l, len)) {
        memcpy(l->p + l->len, piece, len);
        l->len += len;
        return;
    }
    l->cut = true;
    if (l->len + CUT_RESERVED < l->size) {
        memcpy(l->p + l->len, CUT_MARK, sizeof CUT_MARK - 1);
        l->len += sizeof CUT_MARK - 1;
        if (l->quoted)
            l->p[l->len++] = '"';
    }
}

static void put_text(struct line *l, const char *text)
{
    put(l, text, strlen(text));
}

/* The length of the valid UTF-8 character of several octets at p, 0 when there is none. */
static size_t utf8_length(const unsigned char *p)
{
    static const struct {
        unsigned char mask, lead;
        size_t len;
        unsigned long min;
    } forms[] = {{0xe0, 0xc0, 2, 0x80}, {0xf0, 0xe0, 3, 0x800}, {0xf8, 0xf0, 4, 0x10000}};

    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        unsigned long code = p[0] & (unsigned char)~forms[f].mask;

        if ((p[0] & forms[f].mask) != forms[f].lead)
            continue;
        for (size_t i = 1; i < forms[f].len; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (p[i] & 0x3f);
        }
        if (code < forms[f].min || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return 0;
        return forms[f].len;
    }
    return 0;
}

/* C1 controls, line and paragraph separators and text-direction marks could make a line look
 * like another one; they are escaped although they are valid. */
static bool is_deceptive(const unsigned char *p, size_t len)
{
    if (len == 2)
        return p[0] == 0xc2 && p[1] < 0xa0;
    if (len != 3 || p[0] != 0xe2)
        return false;
    return (p[1] == 0x80 && ((p[2] >= 0x8e && p[2] <= 0x8f) || (p[2] >= 0xa8 && p[2] <= 0xae))) ||
           (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9);
}

static size_t octet_text(unsigned char c, char out[ESCAPE_MAX + 1])
{
    static const char plain[] = "\n\r\t\"\\";
    static const char names[] = "nrt\"\\";
    const char *found = c != '\0' ? strchr(plain, c) : NULL;

    if (found != NULL)
        return (size_t)snprintf(out, ESCAPE_MAX + 1, "\\%c", names[found - plain]);
    if (c >= 0x20 && c < 0x7f)
        return (size_t)snprintf(out, ESCAPE_MAX + 1, "%c", c);
    return (size_t)snprintf(out, ESCAPE_MAX + 1, "\\x%02x", c);
}

static bool is_plain(const char *text)
{
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (c <= 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '=')
            return false;
    }
    return true;
}

/* How much of a text, from its beginning, stands for itself. */
static size_t run_of_ascii(const unsigned char *p)
{
    size_t n = 0;

    while (p[n] >= 0x20 && p[n] < 0x7f && p[n] != '"' && p[n] != '\\')
        n++;
    return n;
}

static void put_escaped(struct line *l, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    char escape[ESCAPE_MAX + 1];

    while (*p != '\0' && !l->cut) {
        size_t run = run_of_ascii(p);
        size_t len = run > 0 && fits(l, run) ? run : utf8_length(p);

        if (len > 0 && (len == run || !is_deceptive(p, len))) {
            put(l, (const char *)p, len);
            p += len;
        } else {
            put(l, escape, octet_text(*p, escape));
            p++;
        }
    }
}

static void put_value(struct line *l, const char *before, const char *text, const char *after)
{
    bool quote = !is_plain(text) && !(*text == '\0' && *before != '\0');

    if (quote) {
        put_text(l, "\"");
        l->quoted = !l->cut;
    }
    put_text(l, before);
    put_escaped(l, text);
    put_text(l, after);
    if (quote) {
        put_text(l, "\"");
        l->quoted = false;
    }
}

static bool is_left_out(const struct log_field *f)
{
    switch (f->type) {
    case LOG_TYPE_STR:
        return f->text == NULL || *f->text == '\0';
    case LOG_TYPE_PATH:
        return f->text == NULL;
    case LOG_TYPE_ID:
        return f->number == 0;
    default:
        return false;
    }
}

static void put_field(struct line *l, const struct log_field *f)
{
    char number[32];

    if (is_left_out(f))
        return;
    put_text(l, " ");
    put_text(l, f->key);
    put_text(l, "=");
    if (f->type == LOG_TYPE_STR) {
        put_value(l, "", f->text, "");
        return;
    }
    if (f->type == LOG_TYPE_PATH) {
        put_value(l, "<", f->text, ">");
        return;
    }
    if (f->type == LOG_TYPE_ID)
        (void)snprintf(number, sizeof number, "%04llx", (unsigned long long)f->number);
    else if (f->type == LOG_TYPE_MS)
        (void)snprintf(number, sizeof number, "%llu.%03u", (unsigned long long)(f->number / 1000),
                       (unsigned)(f->number % 1000));
    else
        (void)snprintf(number, sizeof number, "%llu", (unsigned long long)f->number);
    put_text(l, number);
}

static void put_fields(struct line *l, const struct log_field *fields, bool ids)
{
    for (; fields->type != LOG_TYPE_END; fields++)
        if ((fields->type == LOG_TYPE_ID) == ids)
            put_field(l, fields);
}

size_t log_format(enum log_level level, const char *event, const struct log_field *fields,
                  char *out, size_t size)
{
    struct line l = {.p = out, .size = size};

    if (size == 0)
        return 0;
    put_text(&l, "level=");
    put_text(&l, level_names[level]);
    put_text(&l, " event=");
    put_value(&l, "", event, "");
    put_fields(&l, fields, true);
    put_fields(&l, fields, false);
    out[l.len] = '\0';
    return l.len;
}

static size_t format_time(char out[TIME_MAX])
{
    struct timespec now = {0, 0};
    struct tm tm;
    size_t len;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (gmtime_r(&now.tv_sec, &tm) == NULL)
        return 0;
    len = strftime(out, TIME_MAX, "time=%Y-%m-%dT%H:%M:%S", &tm);
    len += (size_t)snprintf(out + len, TIME_MAX - len, ".%03uZ ",
                            (unsigned)(now.tv_nsec / 1000000 % 1000));
    return len;
}

/* A log that cannot be written must not stop mail, so errors end here. */
static void write_all(const char *p, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        p += n;
        len -= (size_t)n;
    }
}

void log_fields(enum log_level level, const char *event, const struct log_field *fields)
{
    char text[LOG_LINE_MAX + 1];
    size_t len = 0;

    if (!log_enabled(level))
        return;
    if (sink.target == LOG_TARGET_STDERR && sink.timestamps)
        len = format_time(text);
    len += log_format(level, event, fields, text + len, LOG_LINE_MAX - len);
    if (sink.target == LOG_TARGET_SYSLOG) {
        syslog(syslog_levels[level], "%s", text);
        return;
    }
    text[len++] = '\n';
    write_all(text, len);
}
