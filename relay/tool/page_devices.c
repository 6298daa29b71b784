#include "relay/tool/page_devices.h"

#include <string.h>

#include "relay/admin/json.h"
#include "relay/tool/format.h"

#define NAME_WIDTH    39 /* an IPv6 address in full */
#define BOTH_WIDTH    43 /* of name and address: with the rest of the table 80 */
#define ADDRESS_WIDTH 15 /* at least */
#define NOTE_WIDTH    74
#define PAGE_TEXT_MAX 1024

struct state_words {
    const char *state, *word, *words;
};

static const struct state_words *words_of(const cJSON *device)
{
    static const struct state_words rows[] = {
        {"ok", "ok", "ok"},
        {"trouble", "trouble", "trouble: its last error is newer than its last mail"},
        {"quiet", "quiet", "it has gone quiet, for longer than its own habit explains"},
        {"test", "test only", "it has connected, but never with mail: connection tests"},
        {"never", "never seen", "it is in the configuration, but was never seen"},
    };
    static const struct state_words unknown = {"", "?", "?"};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].state, json_get_text(device, "state")) == 0)
            return &rows[i];
    return &unknown;
}

static const char *plural(double n)
{
    return n == 1 ? "" : "s";
}

/* ---- the list -------------------------------------------------------------------------------- */

/* "3 d ago": the larger unit is enough for a table. */
static void ago_text(const cJSON *o, const char *key, char out[FORMAT_TEXT])
{
    char span[FORMAT_TEXT];
    char *rest;

    if (json_get_null(o, key)) {
        snprintf(out, FORMAT_TEXT, "-");
        return;
    }
    format_span(json_get_number(o, key), span);
    rest = strchr(span, ' ');
    rest = rest != NULL ? strchr(rest + 1, ' ') : NULL;
    if (rest != NULL)
        *rest = '\0';
    snprintf(out, FORMAT_TEXT, "%.50s ago", span);
}

static void fill_note(struct format_row *row, const cJSON *d)
{
    char text[PAGE_TEXT_MAX];
    char span[FORMAT_TEXT];

    if (strcmp(json_get_text(d, "state"), "trouble") == 0) {
        ago_text(d, "error_age", span);
        snprintf(text, sizeof(text), "%s: %s", span, json_get_text(d, "error"));
    } else if (strcmp(json_get_text(d, "state"), "quiet") == 0) {
        format_span(json_get_number(d, "usual_silence"), span);
        snprintf(text, sizeof(text), "its longest usual silence is %s", span);
    } else {
        return;
    }
    format_fit(text, NOTE_WIDTH, row->note, sizeof(row->note));
}

static void fill_row(struct format_row *row, const cJSON *d, size_t address_width)
{
    const char *name = json_get_text(d, "name");
    const char *address = json_get_text(d, "address");

    format_fit(name, NAME_WIDTH, row->cells[0], FORMAT_CELL);
    if (strcmp(name, address) != 0)
        format_fit(address[0] != '\0' ? address : "-", address_width, row->cells[1], FORMAT_CELL);
    ago_text(d, "last_mail_age", row->cells[2]);
    format_count(json_get_number(d, "messages"), row->cells[3]);
    snprintf(row->cells[4], FORMAT_CELL, "%s", words_of(d)->word);
    fill_note(row, d);
}

/* What the longest name leaves of the line. */
static size_t address_width(const cJSON *devices)
{
    size_t longest = 0;

    for (const cJSON *d = devices->child; d != NULL; d = d->next) {
        size_t width = format_width(json_get_text(d, "name"));

        if (width > longest)
            longest = width;
    }
    return longest + ADDRESS_WIDTH < BOTH_WIDTH ? BOTH_WIDTH - longest : ADDRESS_WIDTH;
}

static size_t add_rows(struct format_table *table, const cJSON *devices, bool attention)
{
    size_t width = address_width(devices);
    size_t n = 0;

    for (const cJSON *d = devices->child; d != NULL; d = d->next) {
        struct format_row *row;

        if (json_get_flag(d, "attention") != attention)
            continue;
        row = format_table_row(table);
        if (row == NULL)
            break;
        fill_row(row, d, width);
        n++;
    }
    return n;
}

void page_devices(FILE *out, const cJSON *devices)
{
    static const char *const titles[] = {"NAME",      "ADDRESS", ">LAST MAIL",
                                         ">MESSAGES", "STATE",   NULL};
    struct format_table table;
    size_t pressing;
    size_t all;

    if (devices->child == NULL) {
        fputs("No device has been seen yet.\n", out);
        return;
    }
    format_table_init(&table, titles);
    pressing = add_rows(&table, devices, true);
    all = pressing + add_rows(&table, devices, false);
    format_table_write(&table, out);
    format_table_done(&table);
    fprintf(out, "%zu device%s", all, plural((double)all));
    if (pressing > 0)
        fprintf(out, ", %zu of them need%s attention: \"outtray device NAME\" tells more", pressing,
                pressing == 1 ? "s" : "");
    fputs(".\n", out);
}

/* ---- one device ------------------------------------------------------------------------------ */

/* "3 May 08:12, 2 h 5 min ago" */
static void when_text(const cJSON *o, const char *key, const char *age_key, int64_t now,
                      char out[FORMAT_TEXT * 2 + 8])
{
    char at[FORMAT_TEXT];
    char age[FORMAT_TEXT];

    out[0] = '\0';
    format_time(json_get_text(o, key), now, at);
    format_span(json_get_number(o, age_key), age);
    if (at[0] != '\0')
        snprintf(out, FORMAT_TEXT * 2 + 8, "%s, %s ago", at, age);
}

static void print_when(FILE *out, const char *label, const cJSON *d, const char *key,
                       const char *age_key, int64_t now)
{
    char text[FORMAT_TEXT * 2 + 8];

    when_text(d, key, age_key, now, text);
    format_line(out, label, text);
}

static void print_times(FILE *out, const cJSON *d, int64_t now)
{
    char first[FORMAT_TEXT];

    format_time(json_get_text(d, "first_seen"), now, first);
    format_line(out, "First seen", first);
    print_when(out, "Last seen", d, "last_seen", "last_seen_age", now);
    print_when(out, "Last mail", d, "last_mail", "last_mail_age", now);
}

static void print_counts(FILE *out, const cJSON *d)
{
    char count[FORMAT_TEXT];
    char size[FORMAT_TEXT];
    char refused[FORMAT_TEXT];
    char text[FORMAT_TEXT * 6];

    format_count(json_get_number(d, "messages"), count);
    format_size(json_get_number(d, "octets"), size);
    format_count(json_get_number(d, "refused"), refused);
    snprintf(text, sizeof(text), "%s, together %s; %s message%s or recipient%s refused", count,
             size, refused, plural(json_get_number(d, "refused")),
             plural(json_get_number(d, "refused")));
    format_line(out, "Messages", text);
    format_count(json_get_number(d, "sessions"), count);
    format_count(json_get_number(d, "probes"), refused);
    snprintf(text, sizeof(text), "%s, %s of them connection tests", count, refused);
    format_line(out, "Sessions", text);
}

static void print_habit(FILE *out, const cJSON *d)
{
    char usual[FORMAT_TEXT];
    char silent[FORMAT_TEXT];
    char text[FORMAT_TEXT * 4];

    format_span(json_get_number(d, "usual_silence"), usual);
    format_span(json_get_number(d, "last_mail_age"), silent);
    if (json_get_null(d, "usual_silence"))
        snprintf(text, sizeof(text), "not known yet; that takes some weeks of mail");
    else if (json_get_flag(d, "quiet"))
        snprintf(text, sizeof(text), "gone quiet: nothing for %s, and %s is usual at most", silent,
                 usual);
    else
        snprintf(text, sizeof(text), "%s is usual at most", usual);
    format_line(out, "Silence", text);
}

static void print_error(FILE *out, const cJSON *d, int64_t now)
{
    char when[FORMAT_TEXT * 2 + 8];
    char text[PAGE_TEXT_MAX];

    if (json_get_text(d, "error")[0] == '\0')
        return;
    when_text(d, "error_at", "error_age", now, when);
    snprintf(text, sizeof(text), "%s: %s", when, json_get_text(d, "error"));
    format_line(out, "Last error", text);
}

static void print_identity(FILE *out, const cJSON *d)
{
    bool met = json_get_number(d, "sessions") > 0;

    format_line(out, "Address", json_get_text(d, "address"));
    format_line(out, "HELO", json_get_text(d, "helo"));
    if (met)
        format_line(out, "TLS",
                    json_get_text(d, "tls")[0] != '\0' ? json_get_text(d, "tls")
                                                       : "none, it speaks in the clear");
}

/* Texts of a list, comma-separated, as far as they fit. */
static void join(const cJSON *o, const char *key, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (const cJSON *i = json_first(o, key); i != NULL && used < size; i = i->next) {
        const char *text = cJSON_GetStringValue(i);
        int n = snprintf(out + used, size - used, "%s%s", used > 0 ? ", " : "",
                         text != NULL ? text : "");

        used += n > 0 ? (size_t)n : 0;
    }
}

static void print_section(FILE *out, const cJSON *d, const cJSON *rules)
{
    char list[PAGE_TEXT_MAX / 2];
    char text[PAGE_TEXT_MAX];

    join(rules, "addresses", list, sizeof(list));
    if (json_get_flag(d, "configured"))
        snprintf(text, sizeof(text), "[device %s]%s%s; what it leaves out is as in [devices]",
                 json_get_text(d, "name"), list[0] != '\0' ? ", address " : "", list);
    else
        snprintf(text, sizeof(text), "[devices]; it has no [device] section of its own");
    format_line(out, "Rules", text);
    if (!json_get_flag(rules, "allowed"))
        format_line(out, "", "its address is not allowed any more: it is turned away");
}

/* "any number of", where there is no limit */
static void limit_text(const cJSON *rules, const char *key, char out[FORMAT_TEXT])
{
    double limit = json_get_number(rules, key);

    if (limit > 0)
        format_count(limit, out);
    else
        snprintf(out, FORMAT_TEXT, "any number of");
}

static void print_limits(FILE *out, const cJSON *rules)
{
    double octets = json_get_number(rules, "max_size");
    char size[FORMAT_TEXT];
    char recipients[FORMAT_TEXT];
    char sessions[FORMAT_TEXT];
    char minute[FORMAT_TEXT];
    char text[PAGE_TEXT_MAX];

    format_size(octets, size);
    limit_text(rules, "max_recipients", recipients);
    limit_text(rules, "max_sessions", sessions);
    limit_text(rules, "max_messages_per_minute", minute);
    snprintf(text, sizeof(text),
             "messages %s%s with %s recipient%s, %s session%s at once, %s message%s a minute",
             octets > 0 ? "of at most " : "as large as the mailbox takes", octets > 0 ? size : "",
             recipients, plural(json_get_number(rules, "max_recipients")), sessions,
             plural(json_get_number(rules, "max_sessions")), minute,
             plural(json_get_number(rules, "max_messages_per_minute")));
    format_line(out, "Limits", text);
}

static void print_rules(FILE *out, const cJSON *d)
{
    const cJSON *rules = json_get(d, "rules");
    char text[PAGE_TEXT_MAX];

    print_section(out, d, rules);
    snprintf(text, sizeof(text), "%s lane of route %s", json_get_text(rules, "lane"),
             json_get_text(rules, "route"));
    format_line(out, "Way", text);
    print_limits(out, rules);
    join(rules, "recipient_domains", text, sizeof(text));
    format_line(out, "Only to", text);
    if (json_get_flag(rules, "legacy_tls"))
        format_line(out, "Old TLS", "served: it is listed in legacy_tls");
    if (json_get_text(rules, "auth")[0] != '\0') {
        snprintf(text, sizeof(text), "auth = %s, as %s", json_get_text(rules, "auth"),
                 json_get_text(rules, "login"));
        format_line(out, "Sign-in", text);
    }
}

static void print_quirks(FILE *out, const cJSON *d)
{
    bool had_mail = json_get_number(d, "messages") > 0;

    for (const cJSON *q = json_first(d, "quirks"); q != NULL; q = q->next) {
        char text[PAGE_TEXT_MAX];

        snprintf(text, sizeof(text), "%s: %s%s", json_get_text(q, "name"),
                 json_get_text(q, "words"),
                 json_get_flag(q, "newest") || !had_mail ? "" : " (not in its newest mail)");
        format_line(out, "Quirk", text);
        if (json_get_text(q, "remedy")[0] != '\0')
            format_wrap(out, "             -> ", json_get_text(q, "remedy"));
    }
}

void page_device(FILE *out, const cJSON *d, int64_t now)
{
    format_line(out, "Device", json_get_text(d, "name"));
    format_line(out, "State", words_of(d)->words);
    print_identity(out, d);
    if (!json_get_null(d, "first_seen")) {
        print_times(out, d, now);
        print_counts(out, d);
        print_habit(out, d);
    }
    print_error(out, d, now);
    print_rules(out, d);
    print_quirks(out, d);
}

/* ---- transcripts ----------------------------------------------------------------------------- */

static void print_lines(FILE *out, const char *text)
{
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        char line[PAGE_TEXT_MAX];
        char clean[PAGE_TEXT_MAX];

        snprintf(line, sizeof(line), "%.*s", (int)(len < sizeof(line) ? len : sizeof(line) - 1),
                 text);
        format_clean(line, clean, sizeof(clean));
        fprintf(out, "%s\n", clean);
        text += len + (text[len] == '\n');
    }
}

static void print_transcript(FILE *out, const cJSON *transcript, int64_t now)
{
    char when[FORMAT_TEXT * 2 + 8];

    when_text(transcript, "ended", "age", now, when);
    fprintf(out, "Session that ended %s:\n", when);
    print_lines(out, json_get_text(transcript, "text"));
}

void page_transcripts(FILE *out, const cJSON *answer, int64_t now)
{
    const cJSON *list = json_get(answer, "transcripts");
    int n = cJSON_GetArraySize(list);

    if (n == 0)
        format_wrap(out, "No transcript is kept of device ", json_get_text(answer, "name"));
    while (n-- > 0) {
        print_transcript(out, cJSON_GetArrayItem(list, n), now);
        if (n > 0)
            fputc('\n', out);
    }
}
