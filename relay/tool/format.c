#include "relay/tool/format.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "queue/queue.h"
#include "relay/admin/json.h"

#define NOTE_INDENT 4

_Static_assert(FORMAT_TEXT >= QUEUE_SIZE_TEXT, "room for a size");

void format_size(double octets, char out[FORMAT_TEXT])
{
    queue_size_text(octets > 0 ? (uint64_t)octets : 0, out);
}

void format_span(double seconds, char out[FORMAT_TEXT])
{
    static const struct {
        double below;
        uint64_t large, small; /* in seconds */
        const char *large_unit, *small_unit;
    } forms[] = {
        {3600, 60, 1, "min", "s"},
        {86400, 3600, 60, "h", "min"},
        {1e18, 86400, 3600, "d", "h"},
    };
    uint64_t s = seconds > 0 ? (uint64_t)(seconds + 0.5) : 0;
    size_t i = 0;

    if (s < 60) {
        snprintf(out, FORMAT_TEXT, "%" PRIu64 " s", s);
        return;
    }
    while ((double)s >= forms[i].below && i + 1 < sizeof(forms) / sizeof(forms[0]))
        i++;
    if (s % forms[i].large < forms[i].small)
        snprintf(out, FORMAT_TEXT, "%" PRIu64 " %s", s / forms[i].large, forms[i].large_unit);
    else
        snprintf(out, FORMAT_TEXT, "%" PRIu64 " %s %" PRIu64 " %s", s / forms[i].large,
                 forms[i].large_unit, s % forms[i].large / forms[i].small, forms[i].small_unit);
}

void format_count(double count, char out[FORMAT_TEXT])
{
    char digits[FORMAT_TEXT / 2];
    size_t len = (size_t)snprintf(digits, sizeof(digits), "%.0f", count);
    size_t n = 0;

    for (size_t i = 0; i < len && i < sizeof(digits) - 1; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            out[n++] = ',';
        out[n++] = digits[i];
    }
    out[n] = '\0';
}

void format_time(const char *iso, int64_t now, char out[FORMAT_TEXT])
{
    struct tm utc = {.tm_sec = 0};
    struct tm local;
    struct tm today;
    time_t then;
    time_t current = (time_t)now;

    out[0] = '\0';
    if (strptime(iso, "%Y-%m-%dT%H:%M:%SZ", &utc) == NULL)
        return;
    then = timegm(&utc);
    if (localtime_r(&then, &local) == NULL || localtime_r(&current, &today) == NULL)
        return;
    if (local.tm_year == today.tm_year && local.tm_yday == today.tm_yday)
        strftime(out, FORMAT_TEXT, "%H:%M", &local);
    else if (local.tm_year != today.tm_year)
        strftime(out, FORMAT_TEXT, "%e %b %Y %H:%M", &local);
    else
        strftime(out, FORMAT_TEXT, "%e %b %H:%M", &local);
    if (out[0] == ' ')
        memmove(out, out + 1, strlen(out));
}

/* ---- text from the network ------------------------------------------------------------------- */

static bool between(const unsigned char *p, const char *low, const char *high)
{
    return memcmp(p, low, 3) >= 0 && memcmp(p, high, 3) <= 0;
}

/* Control characters of ASCII and of Latin-1, and marks of direction. */
static bool is_harmful(const char *p, size_t len)
{
    const unsigned char *u = (const unsigned char *)p;

    if (len == 1)
        return u[0] < 0x20 || u[0] == 0x7f;
    if (len == 2)
        return u[0] == 0xc2 && u[1] < 0xa0;
    return len == 3 && (between(u, "\xe2\x80\x8e", "\xe2\x80\x8f") || /* U+200E, U+200F */
                        between(u, "\xe2\x80\xa8", "\xe2\x80\xae") || /* U+2028 .. U+202E */
                        between(u, "\xe2\x81\xa6", "\xe2\x81\xa9"));  /* U+2066 .. U+2069 */
}

/* The next character of text, or '?' for what should not be shown; returns its length in text. */
static size_t next_character(const char *text, const char **out_shown, size_t *out_len)
{
    size_t step = json_utf8_length(text, strlen(text));

    if (step == 0 || is_harmful(text, step)) {
        *out_shown = "?";
        *out_len = 1;
        return step > 0 ? step : 1;
    }
    *out_shown = text;
    *out_len = step;
    return step;
}

void format_fit(const char *text, size_t width, char *out, size_t size)
{
    static const char dots[] = "...";
    size_t used = 0;
    size_t columns = 0;
    size_t cut = 0; /* where the dots go, if they must */

    while (*text != '\0') {
        const char *shown;
        size_t len;
        size_t step = next_character(text, &shown, &len);

        if (columns >= width || used + len >= size) {
            memcpy(out + cut, dots, sizeof(dots));
            return;
        }
        memcpy(out + used, shown, len);
        used += len;
        columns++;
        if (columns + 3 <= width && used + sizeof(dots) <= size)
            cut = used;
        text += step;
    }
    out[used] = '\0';
}

void format_clean(const char *text, char *out, size_t size)
{
    format_fit(text, SIZE_MAX - 3, out, size);
}

size_t format_width(const char *text)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void write_clean(FILE *out, const char *text, size_t len)
{
    while (len > 0) {
        const char *shown;
        size_t shown_len;
        size_t step = next_character(text, &shown, &shown_len);

        fwrite(shown, 1, shown_len, out);
        text += step;
        len -= step < len ? step : len;
    }
}

void format_wrap(FILE *out, const char *first, const char *text)
{
    size_t indent = format_width(first);
    size_t column = indent;

    fputs(first, out);
    for (text += strspn(text, " "); *text != '\0'; text += strspn(text, " ")) {
        size_t len = strcspn(text, " ");

        if (column > indent && column + 1 + len > FORMAT_WIDTH) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        write_clean(out, text, len);
        column += len;
        text += len;
    }
    fputc('\n', out);
}

void format_line(FILE *out, const char *label, const char *text)
{
    char first[FORMAT_TEXT];

    if (text[0] == '\0')
        return;
    snprintf(first, sizeof(first), "%-12s", label);
    format_wrap(out, first, text);
}

/* ---- tables ---------------------------------------------------------------------------------- */

static const char *title_of(const struct format_table *t, size_t column)
{
    const char *title = t->titles[column];

    return title[0] == '>' ? title + 1 : title;
}

void format_table_init(struct format_table *t, const char *const *titles)
{
    *t = (struct format_table){.titles = titles};
    for (size_t i = 0; titles[i] != NULL; i++)
        t->widths[i] = format_width(title_of(t, i));
}

struct format_row *format_table_row(struct format_table *t)
{
    if (t->count == t->cap) {
        size_t cap = t->cap > 0 ? t->cap * 2 : 16;
        struct format_row *rows = realloc(t->rows, cap * sizeof(*rows));

        if (rows == NULL)
            return NULL;
        t->rows = rows;
        t->cap = cap;
    }
    memset(&t->rows[t->count], 0, sizeof(t->rows[0]));
    return &t->rows[t->count++];
}

static void measure(struct format_table *t)
{
    for (size_t r = 0; r < t->count; r++)
        for (size_t c = 0; t->titles[c] != NULL; c++) {
            size_t width = format_width(t->rows[r].cells[c]);

            if (width > t->widths[c])
                t->widths[c] = width;
        }
}

/* The last column is not filled up, so that no line ends in blanks. */
static void write_cell(const struct format_table *t, size_t column, const char *text, FILE *out)
{
    bool last = t->titles[column + 1] == NULL;
    int fill = (int)(t->widths[column] - format_width(text));

    if (t->titles[column][0] == '>')
        fprintf(out, "%*s%s", fill, "", text);
    else
        fprintf(out, "%s%*s", text, last ? 0 : fill, "");
    fputs(last ? "\n" : "  ", out);
}

void format_table_write(struct format_table *t, FILE *out)
{
    measure(t);
    for (size_t c = 0; !t->titled && t->titles[c] != NULL; c++)
        write_cell(t, c, title_of(t, c), out);
    t->titled = true;
    for (size_t r = 0; r < t->count; r++) {
        for (size_t c = 0; t->titles[c] != NULL; c++)
            write_cell(t, c, t->rows[r].cells[c], out);
        if (t->rows[r].note[0] != '\0')
            fprintf(out, "%*s%s\n", NOTE_INDENT, "", t->rows[r].note);
    }
    t->count = 0;
}

void format_table_done(struct format_table *t)
{
    free(t->rows);
    t->rows = NULL;
    t->count = t->cap = 0;
}
