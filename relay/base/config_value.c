#include "relay/base/config_value.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define MAIL_MAX    254 /* RFC 5321 4.5.3.1.3 less the angle brackets */
#define HOST_MAX    253
#define LOCAL_MAX   64
#define LABEL_MAX   63
#define DATE_LENGTH 10 /* 2027-06-30 */
#define DIGITS      "0123456789"
#define ITEM_MAX    (2 * NET_TEXT_MAX)
#define MISFIT_MAX  80
#define MISFITS_MAX 320 /* of a message: what is behind them must be read, too */

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {
    {"K", 1u << 10},   {"M", 1u << 20},   {"G", 1u << 30},   {"T", 1ull << 40},
    {"KB", 1u << 10},  {"MB", 1u << 20},  {"GB", 1u << 30},  {"TB", 1ull << 40},
    {"KiB", 1u << 10}, {"MiB", 1u << 20}, {"GiB", 1u << 30}, {"TiB", 1ull << 40},
    {"", 1},           {"B", 1},
};

static const struct unit time_units[] = {
    {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {"w", 604800000},
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool parse_with_unit(const char *text, const struct unit *units, size_t count,
                            uint64_t *out_value)
{
    size_t digits = strspn(text, DIGITS);
    const char *name = text + digits + strspn(text + digits, " \t");
    uint64_t value;

    if (digits == 0 || digits > 15)
        return false;
    value = strtoull(text, NULL, 10);
    for (size_t i = 0; i < count; i++) {
        if (strcasecmp(name, units[i].name) != 0)
            continue;
        if (value > UINT64_MAX / 2 / units[i].factor)
            return false;
        *out_value = value * units[i].factor;
        return true;
    }
    return false;
}

bool config_value_number(const char *text, uint64_t *out_value)
{
    static const struct unit none = {"", 1};

    return parse_with_unit(text, &none, 1, out_value);
}

bool config_value_size(const char *text, uint64_t *out_octets)
{
    return parse_with_unit(text, size_units, COUNT(size_units), out_octets);
}

bool config_value_time(const char *text, uint64_t *out_ms)
{
    if (strcmp(text, "0") == 0) { /* nothing needs no unit */
        *out_ms = 0;
        return true;
    }
    return parse_with_unit(text, time_units, COUNT(time_units), out_ms);
}

void config_value_size_text(uint64_t octets, char *out, size_t size)
{
    static const struct unit units[] = {
        {"TB", 1ull << 40}, {"GB", 1u << 30}, {"MB", 1u << 20}, {"KB", 1u << 10}};

    for (size_t i = 0; i < COUNT(units); i++)
        if (octets != 0 && octets % units[i].factor == 0) {
            (void)snprintf(out, size, "%" PRIu64 "%s", octets / units[i].factor, units[i].name);
            return;
        }
    (void)snprintf(out, size, "%" PRIu64, octets);
}

void config_value_time_text(uint64_t ms, char *out, size_t size)
{
    static const struct unit units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}};

    for (size_t i = 0; i < COUNT(units); i++)
        if (ms != 0 && ms % units[i].factor == 0) {
            (void)snprintf(out, size, "%" PRIu64 "%s", ms / units[i].factor, units[i].name);
            return;
        }
    (void)snprintf(out, size, "%" PRIu64 "s", ms / 1000);
}

static bool is_label(const char *p, size_t len)
{
    if (len == 0 || len > LABEL_MAX || p[0] == '-' || p[len - 1] == '-')
        return false;
    for (size_t i = 0; i < len; i++)
        if (!((p[i] >= 'a' && p[i] <= 'z') || (p[i] >= 'A' && p[i] <= 'Z') ||
              (p[i] >= '0' && p[i] <= '9') || p[i] == '-'))
            return false;
    return true;
}

static bool is_domain(const char *text)
{
    const char *last = strrchr(text, '.');

    if (strlen(text) > HOST_MAX)
        return false;
    last = last != NULL ? last + 1 : text;
    if (last[strspn(last, DIGITS)] == '\0') /* 192.168.1 or 10.0.0.256 was meant as an address */
        return false;
    for (;;) {
        size_t len = strcspn(text, ".");

        if (!is_label(text, len))
            return false;
        if (text[len] == '\0')
            return true;
        text += len + 1;
    }
}

bool config_value_is_host(const char *text)
{
    struct net_address a;

    return net_parse(text, &a) || is_domain(text);
}

bool config_value_is_mail(const char *text)
{
    const char *at = strrchr(text, '@');

    if (at == NULL || at == text || strlen(text) > MAIL_MAX)
        return false;
    for (const char *p = text; p < at; p++)
        if (*p <= ' ' || *p >= 0x7f || strchr("<>()[],;:\\\"@", *p))
            return false;
    return is_domain(at + 1);
}

bool config_value_item(const char **p, char *out, size_t size)
{
    size_t len;

    if (**p == '\0')
        return false;
    *p += strspn(*p, " \t");
    len = strcspn(*p, ",");
    out[0] = '\0';
    if (len < size) {
        memcpy(out, *p, len);
        while (len > 0 && (out[len - 1] == ' ' || out[len - 1] == '\t'))
            len--;
        out[len] = '\0';
    }
    *p += strcspn(*p, ",");
    if (**p == ',')
        (*p)++;
    return true;
}

static bool set_text(const struct config_row *row, const char *text, void *field, struct error *err)
{
    char *copy = strdup(text);

    (void)row;
    if (copy == NULL)
        return error_set(err, ERROR_NO_ROOM, "there is not enough memory");
    free(*(char **)field);
    *(char **)field = copy;
    return true;
}

static bool set_file(const struct config_row *row, const char *text, void *field, struct error *err)
{
    if (*text != '\0' && *text != '/')
        return error_set(err, ERROR_INVALID,
                         "this is not an absolute path; write one that starts "
                         "with /");
    return set_text(row, text, field, err);
}

static bool set_host(const struct config_row *row, const char *text, void *field, struct error *err)
{
    if (*text != '\0' && !config_value_is_host(text))
        return error_set(
            err, ERROR_INVALID,
            "this is neither a host name nor an IP address; write it without protocol, "
            "port or brackets, such as mail.example.com");
    return set_text(row, text, field, err);
}

static bool set_ip(const struct config_row *row, const char *text, void *field, struct error *err)
{
    struct net_address a;

    if (*text != '\0' && !net_parse(text, &a))
        return error_set(err, ERROR_INVALID,
                         "this is not an IP address; write one such as 192.168.1.10 or fd00::10");
    return set_text(row, text, field, err);
}

static bool set_mail(const struct config_row *row, const char *text, void *field, struct error *err)
{
    if (*text != '\0' && !config_value_is_mail(text))
        return error_set(err, ERROR_INVALID,
                         "this is not a mail address; write one such as scans@example.com");
    return set_text(row, text, field, err);
}

static bool set_number(const struct config_row *row, const char *text, void *field,
                       struct error *err)
{
    uint64_t value;

    if (!config_value_number(text, &value) || value < row->min || value > row->max)
        return error_set(err, ERROR_INVALID, "write a number from %" PRIu64 " to %" PRIu64,
                         row->min, row->max);
    *(uint32_t *)field = (uint32_t)value;
    return true;
}

static bool set_port(const struct config_row *row, const char *text, void *field, struct error *err)
{
    uint64_t value;

    if (!config_value_number(text, &value) || value < row->min || value > row->max)
        return error_set(err, ERROR_INVALID, "write a port from %" PRIu64 " to %" PRIu64, row->min,
                         row->max);
    *(uint16_t *)field = (uint16_t)value;
    return true;
}

static bool set_size(const struct config_row *row, const char *text, void *field, struct error *err)
{
    char min[32], max[32];
    uint64_t value;

    config_value_size_text(row->min, min, sizeof min);
    config_value_size_text(row->max, max, sizeof max);
    if (!config_value_size(text, &value))
        return error_set(err, ERROR_INVALID,
                         "this is not a size; write one such as 512K, 35MB or 1G");
    if (value < row->min || value > row->max)
        return error_set(err, ERROR_INVALID, "write a size from %s to %s", min, max);
    *(uint64_t *)field = value;
    return true;
}

static bool set_time(const struct config_row *row, const char *text, void *field, struct error *err)
{
    char min[32], max[32];
    uint64_t value;

    config_value_time_text(row->min, min, sizeof min);
    config_value_time_text(row->max, max, sizeof max);
    if (!config_value_time(text, &value))
        return error_set(
            err, ERROR_INVALID,
            "this is not a time; write a number with its unit, such as 30s, 5m, 2h or 5d");
    if (value < row->min || value > row->max)
        return error_set(err, ERROR_INVALID, "write a time from %s to %s", min, max);
    *(uint64_t *)field = value;
    return true;
}

/* The position of a word of this length in the row's choices. */
static bool find_choice(const struct config_row *row, const char *word, size_t len, unsigned *out)
{
    const char *p = row->choices;

    for (unsigned i = 0; *p != '\0'; i++) {
        size_t choice = strcspn(p, " ");

        if (choice == len && strncasecmp(p, word, len) == 0) {
            *out = i;
            return true;
        }
        p += choice + strspn(p + choice, " ");
    }
    return false;
}

/* The default of a row without one leaves the field alone: something else decides then. */
static bool set_choice(const struct config_row *row, const char *text, void *field,
                       struct error *err)
{
    unsigned choice;

    if (*text == '\0' && *row->fallback == '\0')
        return true;
    if (!find_choice(row, text, strlen(text), &choice))
        return error_set(err, ERROR_INVALID, "write one of: %s", row->choices);
    memcpy(field, &choice, sizeof choice); /* an enum of the same size */
    return true;
}

/* What of a list was not understood, in one text for all of it. */
struct misfits {
    char text[MISFITS_MAX]; /* "\"a\", \"b\"" */
    size_t len;
    size_t count;
};

static void misfits_add(struct misfits *m, const char *item, size_t len)
{
    bool fits;

    len = len < MISFIT_MAX ? len : MISFIT_MAX;
    fits = m->len + len + sizeof ", \"\"" < sizeof m->text;
    m->count++;
    if (fits)
        m->len += (size_t)snprintf(m->text + m->len, sizeof m->text - m->len, "%s\"%.*s\"",
                                   m->len > 0 ? ", " : "", (int)len, item);
}

/* True when there are none; `wanted` goes behind "is", or behind `are` when there are several. */
static bool misfits_none(const struct misfits *m, struct error *err, const char *are,
                         const char *wanted)
{
    return m->count == 0 ||
           error_set(err, ERROR_INVALID, "%s %s %s", m->text, m->count > 1 ? are : "is", wanted);
}

static bool set_words(const struct config_row *row, const char *text, void *field,
                      struct error *err)
{
    uint32_t words = 0;
    struct misfits misfits = {.count = 0};
    char wanted[MISFITS_MAX];

    if (*text == '\0' && *row->fallback == '\0' && !row->may_be_empty)
        return true; /* something else decides */
    for (text += strspn(text, ", \t"); *text != '\0'; text += strspn(text, ", \t")) {
        size_t len = strcspn(text, ", \t");
        unsigned choice;

        if (find_choice(row, text, len, &choice))
            words |= UINT32_C(1) << choice;
        else
            misfits_add(&misfits, text, len);
        text += len;
    }
    *(uint32_t *)field = words;
    (void)snprintf(wanted, sizeof wanted,
                   "none of them; write some of: %s, with spaces between them", row->choices);
    return misfits_none(&misfits, err, "are", wanted);
}

static bool set_addresses(const struct config_row *row, const char *text, void *field,
                          struct error *err)
{
    char item[ITEM_MAX];
    struct net_range range;
    struct misfits misfits = {.count = 0};

    (void)row;
    while (config_value_item(&text, item, sizeof item)) {
        if (!net_range_parse(item, &range))
            misfits_add(&misfits, item, strlen(item));
        else if (!net_ranges_add(field, &range))
            return error_set(err, ERROR_NO_ROOM, "there is not enough memory");
    }
    return misfits_none(&misfits, err, "are each",
                        "neither an address nor a range; write 192.168.1.20, 192.168.1.0/24 or "
                        "192.168.1.20-192.168.1.40, with commas between them");
}

/* "example.com" or ".example.com". */
static bool is_domain_item(const char *text)
{
    return is_domain(text[0] == '.' ? text + 1 : text);
}

static bool add_domain(struct config_domains *d, const char *text)
{
    char **list = realloc(d->list, (d->count + 1) * sizeof *list);

    if (list == NULL)
        return false;
    d->list = list;
    list[d->count] = strdup(text);
    if (list[d->count] == NULL)
        return false;
    d->count++;
    return true;
}

/* A list whose items the row's type takes; `wanted` says what they are. */
static bool set_names(bool (*is_good)(const char *), const char *text, const char *wanted,
                      void *field, struct error *err)
{
    struct config_domains *d = field;
    char item[HOST_MAX + LOCAL_MAX + 2];
    struct misfits misfits = {.count = 0};

    while (config_value_item(&text, item, sizeof item)) {
        if (!is_good(item)) {
            misfits_add(&misfits, item, strlen(item));
            continue;
        }
        if (d->count >= CONFIG_DOMAINS_MAX)
            return error_set(err, ERROR_LIMIT, "there are at most %d", CONFIG_DOMAINS_MAX);
        if (!add_domain(d, item))
            return error_set(err, ERROR_NO_ROOM, "there is not enough memory");
    }
    return misfits_none(&misfits, err, "are each", wanted);
}

static bool set_domains(const struct config_row *row, const char *text, void *field,
                        struct error *err)
{
    (void)row;
    return set_names(is_domain_item, text,
                     "not a domain; write example.com, or .example.com for all below it, with "
                     "commas between them",
                     field, err);
}

static bool is_sender_item(const char *text)
{
    return is_domain_item(text) || config_value_is_mail(text);
}

static bool set_senders(const struct config_row *row, const char *text, void *field,
                        struct error *err)
{
    (void)row;
    return set_names(is_sender_item, text,
                     "neither a mail address nor a domain; write alarm@example.com, example.com, "
                     "or .example.com for all below it, with commas between",
                     field, err);
}

static bool set_from(const struct config_row *row, const char *text, void *field, struct error *err)
{
    if (*text != '\0' && strcmp(text, "rewrite") != 0 && strcmp(text, "keep") != 0 &&
        !config_value_is_mail(text))
        return error_set(err, ERROR_INVALID,
                         "write rewrite, keep or a mail address such as scans@example.com");
    return set_text(row, text, field, err);
}

/* Behind "http://", which is for tests and agents on this machine only. */
static bool is_loopback_url(const char *text)
{
    static const char *const starts[] = {"http://localhost", "http://127.0.0.1", "http://[::1]"};

    for (size_t i = 0; i < COUNT(starts); i++) {
        size_t len = strlen(starts[i]);

        if (strncmp(text, starts[i], len) == 0 && strchr(":/", text[len]) != NULL)
            return true;
    }
    return false;
}

static bool is_url(const char *text)
{
    static const char start[] = "https://";
    size_t len = strlen(start);
    bool https = strncmp(text, start, len) == 0 && text[len] != '\0' && text[len] != '/';

    return (https || is_loopback_url(text)) && strpbrk(text, " \t\"<>\\") == NULL;
}

static bool set_url(const struct config_row *row, const char *text, void *field, struct error *err)
{
    if (*text != '\0' && !is_url(text))
        return error_set(err, ERROR_INVALID,
                         "this is no address; write one that starts with https://");
    return set_text(row, text, field, err);
}

static bool read_date(const char *text, struct tm *out)
{
    int len = 0;

    *out = (struct tm){.tm_isdst = 0};
    if (sscanf(text, "%4d-%2d-%2d%n", &out->tm_year, &out->tm_mon, &out->tm_mday, &len) != 3)
        return false;
    out->tm_year -= 1900;
    out->tm_mon -= 1;
    return len == DATE_LENGTH && text[len] == '\0';
}

static bool set_date(const struct config_row *row, const char *text, void *field, struct error *err)
{
    struct tm given;
    struct tm same;
    time_t seconds;

    (void)row;
    if (*text == '\0') {
        *(uint64_t *)field = 0;
        return true;
    }
    if (!read_date(text, &given))
        return error_set(err, ERROR_INVALID, "this is not a date; write one such as 2027-06-30");
    same = given;
    seconds = timegm(&same);
    if (seconds <= 0 || same.tm_mday != given.tm_mday || same.tm_mon != given.tm_mon)
        return error_set(err, ERROR_INVALID, "there is no such day; write one such as 2027-06-30");
    *(uint64_t *)field = (uint64_t)seconds * 1000;
    return true;
}

static bool (*const setters[])(const struct config_row *, const char *, void *, struct error *) = {
    [CONFIG_TEXT] = set_text,           [CONFIG_FILE] = set_file,
    [CONFIG_HOST] = set_host,           [CONFIG_IP] = set_ip,
    [CONFIG_MAIL] = set_mail,           [CONFIG_NUMBER] = set_number,
    [CONFIG_PORT] = set_port,           [CONFIG_SIZE] = set_size,
    [CONFIG_TIME] = set_time,           [CONFIG_CHOICE] = set_choice,
    [CONFIG_ADDRESSES] = set_addresses, [CONFIG_DOMAINS] = set_domains,
    [CONFIG_WORDS] = set_words,         [CONFIG_SENDERS] = set_senders,
    [CONFIG_FROM] = set_from,           [CONFIG_URL] = set_url,
    [CONFIG_DATE] = set_date,
};

bool config_value_set(const struct config_row *row, const char *text, void *field,
                      struct error *err)
{
    return setters[row->type](row, text, field, err);
}
