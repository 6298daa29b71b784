#include "relay/smtp/date.h"

#include <string.h>
#include <strings.h>

#define NAME_LEN   3
#define NO_NUMBER  (-1)
#define NUMBER_MAX 4 /* digits of any number in a date */

struct cursor {
    const char *p;
    const char *end;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* Over a comment, which may hold others. */
static void skip_comment(struct cursor *c)
{
    size_t depth = 0;

    do {
        if (*c->p == '\\' && c->p + 1 < c->end)
            c->p++;
        else if (*c->p == '(')
            depth++;
        else if (*c->p == ')')
            depth--;
        c->p++;
    } while (depth > 0 && c->p < c->end);
}

static void skip_spaces(struct cursor *c)
{
    while (c->p < c->end) {
        if (*c->p == '(')
            skip_comment(c);
        else if (strchr(" \t\r\n", *c->p) != NULL && *c->p != '\0')
            c->p++;
        else
            return;
    }
}

static bool take(struct cursor *c, char wanted)
{
    skip_spaces(c);
    if (c->p == c->end || *c->p != wanted)
        return false;
    c->p++;
    skip_spaces(c);
    return true;
}

/* A number of min to max digits, or NO_NUMBER. */
static int number(struct cursor *c, size_t min, size_t max)
{
    int value = 0;
    size_t digits = 0;

    for (; c->p < c->end && is_digit(*c->p) && digits < max; digits++)
        value = value * 10 + (*c->p++ - '0');
    return digits < min || (c->p < c->end && is_digit(*c->p)) ? NO_NUMBER : value;
}

/* Index of the three-letter name at the cursor, or NO_NUMBER. */
static int name(struct cursor *c, const char *names)
{
    if (c->end - c->p < NAME_LEN || (c->end - c->p > NAME_LEN && is_letter(c->p[NAME_LEN])))
        return NO_NUMBER;
    for (int i = 0; names[i] != '\0'; i += NAME_LEN) {
        if (strncasecmp(c->p, names + i, NAME_LEN) == 0) {
            c->p += NAME_LEN;
            return i / NAME_LEN;
        }
    }
    return NO_NUMBER;
}

static bool day_of_week(struct cursor *c)
{
    skip_spaces(c);
    if (c->p == c->end || !is_letter(*c->p))
        return true;
    return name(c, "MonTueWedThuFriSatSun") != NO_NUMBER && take(c, ',');
}

static bool date(struct cursor *c)
{
    static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int day = number(c, 1, 2);
    int month;

    skip_spaces(c);
    month = name(c, "JanFebMarAprMayJunJulAugSepOctNovDec");
    skip_spaces(c);
    return month != NO_NUMBER && day >= 1 && day <= days[month] &&
           number(c, 2, NUMBER_MAX) != NO_NUMBER;
}

static bool in_range(int value, int max)
{
    return value != NO_NUMBER && value <= max;
}

static bool time_of_day(struct cursor *c)
{
    skip_spaces(c);
    return in_range(number(c, 1, 2), 23) && take(c, ':') && in_range(number(c, 2, 2), 59) &&
           (!take(c, ':') || in_range(number(c, 2, 2), 60));
}

/* +0200, or a name: GMT, EST, a military letter. */
static bool zone(struct cursor *c)
{
    size_t letters = 0;
    int offset;

    skip_spaces(c);
    if (c->p < c->end && (*c->p == '+' || *c->p == '-')) {
        c->p++;
        offset = number(c, NUMBER_MAX, NUMBER_MAX);
        return offset != NO_NUMBER && offset % 100 <= 59;
    }
    for (; c->p < c->end && is_letter(*c->p); c->p++)
        letters++;
    return letters >= 1 && letters <= 5;
}

bool date_is_readable(const char *text, size_t len)
{
    struct cursor c = {text, text + len};

    if (!day_of_week(&c) || !date(&c) || !time_of_day(&c) || !zone(&c))
        return false;
    skip_spaces(&c);
    return c.p == c.end;
}
