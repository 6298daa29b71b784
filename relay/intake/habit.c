#include "relay/intake/habit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HABIT_VERSION "1"
#define HEX_DIGITS    16 /* of the longest number */

static size_t class_of(uint64_t gap_ms)
{
    size_t class = 0;
    while (class + 1 < HABIT_CLASSES && gap_ms >> (class + 1) >= HABIT_GAP_MIN_MS)
        class ++;
    return class;
}

static void begin(struct habit *h, uint64_t wall_ms)
{
    *h = (struct habit){.first_ms = wall_ms, .last_ms = wall_ms, .counted_ms = wall_ms, .mails = 1};
}

static void set_back(struct habit *h, uint64_t wall_ms)
{
    if (h->first_ms > wall_ms)
        h->first_ms = wall_ms;
    h->last_ms = h->counted_ms = wall_ms;
    h->mails++;
}

void habit_mail(struct habit *h, uint64_t wall_ms)
{
    if (h->mails == 0 || (wall_ms > h->last_ms && wall_ms - h->last_ms > HABIT_WINDOW_MS)) {
        begin(h, wall_ms);
        return;
    }
    if (wall_ms < h->last_ms) {
        set_back(h, wall_ms);
        return;
    }
    uint64_t gap = wall_ms - h->last_ms;
    h->last_ms = wall_ms;
    if (wall_ms - h->counted_ms < HABIT_GAP_MIN_MS)
        return;
    struct habit_gap *of_class = h->gaps[class_of(gap)];
    of_class[1] = of_class[0];
    of_class[0] = (struct habit_gap){.ended_ms = wall_ms,
                                     .gap_ms = gap > HABIT_GAP_MIN_MS ? gap : HABIT_GAP_MIN_MS};
    h->counted_ms = wall_ms;
    h->mails++;
}

static bool counts(const struct habit *h, const struct habit_gap *g)
{
    return g->ended_ms != 0 && g->ended_ms <= h->last_ms &&
           h->last_ms - g->ended_ms <= HABIT_WINDOW_MS;
}

/* The two longest gaps that count, 0 where there is none. */
static void find_longest(const struct habit *h, uint64_t out_longest[2])
{
    out_longest[0] = out_longest[1] = 0;
    for (size_t i = 0; i < (size_t)HABIT_CLASSES * 2; i++) {
        const struct habit_gap *g = &h->gaps[i / 2][i % 2];
        if (!counts(h, g) || g->gap_ms <= out_longest[1])
            continue;
        out_longest[1] = g->gap_ms < out_longest[0] ? g->gap_ms : out_longest[0];
        if (g->gap_ms > out_longest[0])
            out_longest[0] = g->gap_ms;
    }
}

uint64_t habit_usual_ms(const struct habit *h)
{
    if (h->mails < HABIT_MAILS_MIN || h->last_ms - h->first_ms < HABIT_LEARN_MS)
        return 0;
    uint64_t longest[2];
    uint64_t looked_at = h->last_ms - h->first_ms;
    if (looked_at > HABIT_WINDOW_MS)
        looked_at = HABIT_WINDOW_MS;
    find_longest(h, longest);
    return longest[0] > looked_at / 2 || longest[1] == 0 ? longest[0] : longest[1];
}

bool habit_is_quiet(const struct habit *h, uint64_t wall_ms)
{
    uint64_t usual = habit_usual_ms(h);
    uint64_t limit = usual * 2 > HABIT_QUIET_MIN_MS ? usual * 2 : HABIT_QUIET_MIN_MS;
    return usual > 0 && wall_ms > h->last_ms && wall_ms - h->last_ms > limit;
}

/* ---- as text --------------------------------------------------------------------------------- */

/* "1 FIRST LAST COUNTED MAILS", then "CLASS ENDED GAP ENDED GAP" of each class that has any; all in
 * hexadecimal. */
void habit_encode(const struct habit *h, char out[HABIT_TEXT_MAX])
{
    int n =
        snprintf(out, HABIT_TEXT_MAX, HABIT_VERSION " %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64,
                 h->first_ms, h->last_ms, h->counted_ms, h->mails);
    for (size_t i = 0; i < HABIT_CLASSES; i++) {
        const struct habit_gap *g = h->gaps[i];
        if (g[0].ended_ms != 0)
            n += snprintf(out + n, (size_t)(HABIT_TEXT_MAX - n),
                          " %zx %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64, i, g[0].ended_ms,
                          g[0].gap_ms, g[1].ended_ms, g[1].gap_ms);
    }
}
_Static_assert(sizeof HABIT_VERSION + (size_t)4 * (HEX_DIGITS + 1) +
                       (size_t)HABIT_CLASSES * (3 + (size_t)4 * (HEX_DIGITS + 1)) <=
                   HABIT_TEXT_MAX,
               "any habit fits");

/* Takes " NUMBER" off the text. */
static bool take(const char **text, uint64_t *out)
{
    char digits[HEX_DIGITS + 1];
    size_t n;
    if (**text != ' ')
        return false;
    n = strspn(*text + 1, "0123456789abcdef");
    if (n == 0 || n > HEX_DIGITS)
        return false;
    memcpy(digits, *text + 1, n);
    digits[n] = '\0';
    *out = strtoull(digits, NULL, 16);
    *text += 1 + n;
    return true;
}

static bool take_class(const char **text, struct habit *h)
{
    uint64_t class;
    if (!take(text, &class) || class >= HABIT_CLASSES)
        return false;
    struct habit_gap *g = h->gaps[class];
    return take(text, &g[0].ended_ms) && take(text, &g[0].gap_ms) && take(text, &g[1].ended_ms) &&
           take(text, &g[1].gap_ms);
}

/* What habit_mail() can have made. */
static bool is_possible(const struct habit *h)
{
    for (size_t i = 0; i < (size_t)HABIT_CLASSES * 2; i++) {
        if (h->gaps[i / 2][i % 2].gap_ms > HABIT_WINDOW_MS)
            return false;
    }
    return h->first_ms <= h->last_ms && h->counted_ms <= h->last_ms;
}

bool habit_decode(struct habit *h, const char *text)
{
    *h = (struct habit){0};
    bool ok = strncmp(text, HABIT_VERSION, strlen(HABIT_VERSION)) == 0;
    text += ok ? strlen(HABIT_VERSION) : 0;
    ok = ok && take(&text, &h->first_ms) && take(&text, &h->last_ms) &&
         take(&text, &h->counted_ms) && take(&text, &h->mails);
    while (ok && *text != '\0')
        ok = take_class(&text, h);
    ok = ok && is_possible(h);
    if (!ok)
        *h = (struct habit){0};
    return ok;
}
