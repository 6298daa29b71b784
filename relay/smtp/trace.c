#include "relay/smtp/trace.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "relay/smtp/address.h"

#define MINUTES_PER_DAY 1440
#define SECONDS_PER_DAY 86400
#define DAYS_PER_ERA    146097 /* 400 years of the Gregorian calendar */

/* Years beyond 9999 are a broken clock; four digits are all that RFC 5322 readers expect. */
#define LAST_SECOND UINT64_C(253402300799)

struct civil {
    unsigned year;
    unsigned month; /* 1..12 */
    unsigned day;
};

/* Days since 1970-01-01 to a date: years that begin in March, so that the leap day comes last.
 * gmtime() would need a time_t that is large enough. */
static struct civil civil_of(uint64_t days)
{
    uint64_t z = days + 719468; /* since 0000-03-01 */
    uint64_t era = z / DAYS_PER_ERA;
    unsigned doe = (unsigned)(z % DAYS_PER_ERA);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;
    unsigned month = mp < 10 ? mp + 3 : mp - 9;

    return (struct civil){.year = (unsigned)(era * 400) + yoe + (month <= 2 ? 1 : 0),
                          .month = month,
                          .day = doy - (153 * mp + 2) / 5 + 1};
}

void trace_date(uint64_t wall_ms, int utc_offset_minutes, char out[TRACE_DATE_MAX])
{
    static const char days[] = "ThuFriSatSunMonTueWed";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int offset = utc_offset_minutes;
    uint64_t seconds = wall_ms / 1000;
    unsigned minutes;
    struct civil date;

    if (offset <= -MINUTES_PER_DAY || offset >= MINUTES_PER_DAY || seconds < SECONDS_PER_DAY ||
        seconds > LAST_SECOND - SECONDS_PER_DAY)
        offset = 0;
    if (seconds > LAST_SECOND)
        seconds = LAST_SECOND;
    seconds = (uint64_t)((int64_t)seconds + (int64_t)offset * 60);
    minutes = (unsigned)(offset < 0 ? -offset : offset);
    date = civil_of(seconds / SECONDS_PER_DAY);
    snprintf(out, TRACE_DATE_MAX, "%.3s, %u %.3s %04u %02u:%02u:%02u %c%02u%02u",
             days + seconds / SECONDS_PER_DAY % 7 * 3, date.day,
             months + (size_t)(date.month - 1) * 3, date.year % 10000,
             (unsigned)(seconds / 3600 % 24), (unsigned)(seconds / 60 % 60),
             (unsigned)(seconds % 60), offset < 0 ? '-' : '+', minutes / 60 % 100, minutes % 60);
}

void trace_id(uint64_t id, char out[TRACE_ID_MAX])
{
    snprintf(out, TRACE_ID_MAX, "%04" PRIx64, id);
}

void trace_message_id(uint64_t id, uint64_t wall_ms, const char *hostname,
                      char out[TRACE_MESSAGE_ID_MAX])
{
    char text[TRACE_ID_MAX];

    trace_id(id, text);
    snprintf(out, TRACE_MESSAGE_ID_MAX, "<%s.%" PRIu64 "@%.*s>", text, wall_ms, ADDRESS_DOMAIN_MAX,
             hostname);
}

static bool comment_tls(const char *text, struct bytes *out)
{
    size_t version = strcspn(text, " ");
    const char *suite = text + version + strspn(text + version, " ");

    return bytes_printf(out, "(using %.*s with cipher %s)\r\n\t", (int)version, text, suite);
}

bool trace_received(const struct trace *t, struct bytes *out)
{
    const char *helo = address_is_domain(t->helo, strlen(t->helo)) ? t->helo : t->client;
    char date[TRACE_DATE_MAX];
    char id[TRACE_ID_MAX];

    trace_date(t->wall_ms, t->utc_offset_minutes, date);
    trace_id(t->id, id);
    if (!bytes_printf(out, "Received: from %s (%s)\r\n\t", helo, t->client))
        return false;
    if (t->tls != NULL && t->tls[0] != '\0' && !comment_tls(t->tls, out))
        return false;
    if (!bytes_printf(out, "by %s with %s id %s", t->hostname, t->protocol, id))
        return false;
    if (t->recipient != NULL && !bytes_printf(out, "\r\n\tfor <%s>", t->recipient))
        return false;
    return bytes_printf(out, ";\r\n\t%s\r\n", date);
}
