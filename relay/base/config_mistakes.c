#include "relay/base/config_mistakes.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "relay/base/config.h"

#define WORD_MAX 64 /* longer words are never near to anything */

struct config_mistake {
    unsigned line;
    size_t order; /* keeps mistakes of one line in the order in which they were found */
    char text[CONFIG_MISTAKE_TEXT_MAX];
};

void config_mistakes_init(struct config_mistakes *m)
{
    *m = (struct config_mistakes){NULL, 0, 0};
}

void config_mistakes_done(struct config_mistakes *m)
{
    free(m->list);
    config_mistakes_init(m);
}

void config_mistakes_add(struct config_mistakes *m, unsigned line, const char *fmt, ...)
{
    struct config_mistake *list;
    va_list args;

    m->count++;
    if (m->kept == CONFIG_MISTAKES_MAX)
        return;
    list = realloc(m->list, (m->kept + 1) * sizeof *list);
    if (list == NULL)
        return;
    m->list = list;
    list[m->kept].line = line;
    list[m->kept].order = m->kept;
    va_start(args, fmt);
    (void)vsnprintf(list[m->kept].text, sizeof list->text, fmt, args);
    va_end(args);
    m->kept++;
}

bool config_mistakes_any(const struct config_mistakes *m)
{
    return m->count > 0;
}

static int by_line(const void *one, const void *other)
{
    const struct config_mistake *a = one;
    const struct config_mistake *b = other;

    if (a->line != b->line) {
        if (a->line == 0 || b->line == 0)
            return a->line == 0 ? 1 : -1;
        return a->line < b->line ? -1 : 1;
    }
    return a->order < b->order ? -1 : 1;
}

void config_mistakes_write(struct config_mistakes *m, const char *file, FILE *out)
{
    if (m->kept > 0)
        qsort(m->list, m->kept, sizeof *m->list, by_line);
    for (size_t i = 0; i < m->kept; i++) {
        if (m->list[i].line == 0)
            (void)fprintf(out, "%s: %s\n", file, m->list[i].text);
        else
            (void)fprintf(out, "%s:%u: %s\n", file, m->list[i].line, m->list[i].text);
    }
    if (m->count > m->kept)
        (void)fprintf(out, "%s: and %zu more\n", file, m->count - m->kept);
}

static int folded(char c)
{
    if (c == '-')
        return '_';
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

static unsigned least(unsigned a, unsigned b, unsigned c)
{
    unsigned ab = a < b ? a : b;

    return ab < c ? ab : c;
}

/* Optimal string alignment: insert, delete, replace, or swap two neighbours. */
static unsigned distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned d[3][WORD_MAX + 1];

    for (size_t j = 0; j <= b_len; j++)
        d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= a_len; i++) {
        unsigned *row = d[i % 3];
        const unsigned *above = d[(i - 1) % 3];
        const unsigned *above2 = d[(i + 1) % 3];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            bool same = folded(a[i - 1]) == folded(b[j - 1]);

            row[j] = least(row[j - 1] + 1, above[j] + 1, above[j - 1] + (same ? 0 : 1));
            if (i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) &&
                folded(a[i - 2]) == folded(b[j - 1]))
                row[j] = least(row[j], row[j], above2[j - 2] + 1);
        }
    }
    return d[a_len % 3][b_len];
}

const char *config_mistakes_nearest(const char *word, const char *const *words, size_t count)
{
    size_t len = strlen(word);
    unsigned best = (unsigned)(len / 3 + 1); /* one in a short word, more in a long one */
    const char *nearest = NULL;

    if (len == 0 || len > WORD_MAX)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t other = strlen(words[i]);
        unsigned d = other <= WORD_MAX ? distance(word, len, words[i], other) : WORD_MAX;

        if (d < best || (d == best && nearest == NULL && d < len && d < other)) {
            best = d;
            nearest = words[i];
        }
    }
    return nearest;
}
