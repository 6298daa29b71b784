#include "relay/tool/page.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "relay/admin/json.h"
#include "relay/smtp/encoded.h"

#define PATH_WIDTH   30
#define DEVICE_WIDTH 20

static const char *plural(double n)
{
    return n == 1 ? "" : "s";
}

/* ---- status ---------------------------------------------------------------------------------- */

/* Counted numbers, each as text of its own. */
struct counted {
    char text[FORMAT_TEXT];
};

static struct counted count_of(const cJSON *o, const char *key)
{
    struct counted c;

    format_count(json_get_number(o, key), c.text);
    return c;
}

static struct counted size_of(const cJSON *o, const char *key)
{
    struct counted c;

    format_size(json_get_number(o, key), c.text);
    return c;
}

static double waiting(const cJSON *queue)
{
    return json_get_number(queue, "queued") + json_get_number(queue, "uncertain");
}

/* The first mailbox that backs off and that mail waits for, or NULL. */
static const cJSON *waiting_mailbox(const cJSON *status)
{
    for (const cJSON *m = json_first(status, "mailboxes"); m != NULL; m = m->next)
        if (strcmp(json_get_text(m, "state"), "waiting") == 0 && json_get_flag(m, "waited_for"))
            return m;
    return NULL;
}

static void print_summary(FILE *out, const cJSON *status, int64_t now, bool attention)
{
    const cJSON *m = waiting_mailbox(status);
    char count[FORMAT_TEXT];
    char since[FORMAT_TEXT];

    format_count(waiting(json_get(status, "queue")), count);
    format_time(json_get_text(status, "started"), now, since);
    if (!attention && m != NULL)
        fprintf(out, "Outtray works, but has to wait for mailbox %s: ", json_get_text(m, "name"));
    else if (!attention)
        fputs("Outtray is working: ", out);
    fprintf(out, "%s waiting, %s delivered since %s.\n", count, count_of(status, "delivered").text,
            since);
}

static void print_problems(FILE *out, const cJSON *status)
{
    unsigned n = 0;

    fputs("Outtray needs attention:\n", out);
    for (const cJSON *problem = json_first(status, "problems"); problem != NULL;
         problem = problem->next) {
        char first[FORMAT_TEXT];

        snprintf(first, sizeof(first), "%3u. ", ++n);
        format_wrap(out, first, json_get_text(problem, "what"));
        if (json_get_text(problem, "remedy")[0] != '\0')
            format_wrap(out, "     -> ", json_get_text(problem, "remedy"));
    }
    fputc('\n', out);
}

static void print_queue(FILE *out, const cJSON *queue)
{
    char count[FORMAT_TEXT];

    format_count(waiting(queue), count);
    fprintf(out, "Queue   %s waiting, %s being sent", count, count_of(queue, "in_flight").text);
    if (json_get_number(queue, "uncertain") > 0)
        fprintf(out, ", %s uncertain", count_of(queue, "uncertain").text);
    if (json_get_number(queue, "held") > 0)
        fprintf(out, ", %s held", count_of(queue, "held").text);
    if (json_get_number(queue, "dead") > 0)
        fprintf(out, ", %s dead letter%s", count_of(queue, "dead").text,
                plural(json_get_number(queue, "dead")));
    fprintf(out, "\n        %s of mail; the spool takes %s, the disk has %s free\n",
            size_of(queue, "living_bytes").text, size_of(queue, "disk_bytes").text,
            size_of(queue, "free_bytes").text);
}

static void print_intake(FILE *out, const cJSON *intake)
{
    fprintf(out, "Intake  %s device%s connected, %s message%s accepted, %s refused",
            count_of(intake, "sessions").text, plural(json_get_number(intake, "sessions")),
            count_of(intake, "accepted").text, plural(json_get_number(intake, "accepted")),
            count_of(intake, "refused").text);
    if (json_get_number(intake, "strangers") > 0)
        fprintf(out, ", %s stranger%s turned away", count_of(intake, "strangers").text,
                plural(json_get_number(intake, "strangers")));
    fputc('\n', out);
}

static void print_devices(FILE *out, const cJSON *devices)
{
    if (json_get_number(devices, "known") <= 0)
        return;
    fprintf(out, "Devices %s known", count_of(devices, "known").text);
    if (json_get_number(devices, "quiet") > 0)
        fprintf(out, ", %s gone quiet", count_of(devices, "quiet").text);
    fputs("; \"outtray devices\" lists them\n", out);
}

/* "ready", "waiting, tried again in 2 min: the connection timed out" */
static void print_mailbox_state(FILE *out, const cJSON *m, const char *first, bool with_problem)
{
    const char *problem = with_problem ? json_get_text(m, "problem") : "";
    bool tried = !json_get_null(m, "next_try_in");
    char span[FORMAT_TEXT];
    char text[1024];

    format_span(json_get_number(m, "next_try_in"), span);
    snprintf(text, sizeof(text), "%s%s%s%s%s", json_get_text(m, "state"),
             tried ? ", tried again in " : "", tried ? span : "", problem[0] != '\0' ? ": " : "",
             problem);
    format_wrap(out, first, text);
}

/* "4 of 30 messages", or "1 message" where there is no limit. */
static struct counted used_of(const cJSON *m, const char *key, const char *max_key,
                              const char *unit)
{
    struct counted used = count_of(m, key);
    struct counted max = count_of(m, max_key);
    struct counted both;

    double last = json_get_number(m, max_key);

    if (last <= 0) {
        last = json_get_number(m, key);
        max.text[0] = '\0';
    }
    snprintf(both.text, sizeof(both.text), "%.20s%s%.20s %s%s", used.text,
             max.text[0] != '\0' ? " of " : "", max.text, unit, plural(last));
    return both;
}

static void print_mailbox_budget(FILE *out, const cJSON *m)
{
    fprintf(out, "        %s", used_of(m, "connections", "connections_max", "connection").text);
    if (json_get_number(m, "minute_max") > 0) /* else only those under way are counted */
        fprintf(out, ", %s this minute",
                used_of(m, "sent_this_minute", "minute_max", "message").text);
    fprintf(out, ", %s in 24 h\n", used_of(m, "recipients_today", "day_max", "recipient").text);
    if (json_get_text(m, "budget_why")[0] != '\0')
        fprintf(out, "        %s\n", json_get_text(m, "budget_why"));
    if (json_get_text(m, "connections_why")[0] != '\0')
        fprintf(out, "        %s allowed now: %s\n", count_of(m, "connections_allowed").text,
                json_get_text(m, "connections_why"));
}

/* As other times are shown, of a moment to come. */
static void clock_of(int64_t when, int64_t now, char out[FORMAT_TEXT])
{
    char iso[JSON_TIME_TEXT];

    json_time_text((uint64_t)when * 1000, iso);
    format_time(iso, now, out);
}

static void print_mailbox_forecast(FILE *out, const cJSON *m, int64_t now)
{
    double dry = json_get_number(m, "dry_in");
    double empty = json_get_number(m, "empty_in");
    char text[FORMAT_TEXT];

    if (!json_get_null(m, "dry_in") && dry > 0) {
        clock_of(now + (int64_t)dry, now, text);
        fprintf(out, "        at this pace the day's recipients last until %s\n", text);
    }
    if (!json_get_null(m, "empty_in") && empty >= 60)
        fprintf(out,
                "        the queue will be empty in about %" PRIu64 " minutes, at the earliest\n",
                ((uint64_t)empty + 59) / 60);
}

static void print_mailbox_record(FILE *out, const cJSON *m, int64_t now)
{
    char last[FORMAT_TEXT];

    format_time(json_get_text(m, "last_success"), now, last);
    fprintf(out, "        %s delivered", count_of(m, "delivered").text);
    if (last[0] != '\0')
        fprintf(out, ", last at %s", last);
    if (json_get_number(m, "failed") > 0)
        fprintf(out, "; %s attempt%s did not deliver", count_of(m, "failed").text,
                plural(json_get_number(m, "failed")));
    fputc('\n', out);
}

static void print_mailbox(FILE *out, const cJSON *m, int64_t now)
{
    bool paused = strcmp(json_get_text(m, "state"), "paused") == 0;

    fprintf(out, "\nMailbox %s: %s through %s:%.0f\n", json_get_text(m, "name"),
            json_get_text(m, "address"), json_get_text(m, "host"), json_get_number(m, "port"));
    /* What a paused one needs is at the top already. */
    print_mailbox_state(out, m, "        ", !paused);
    if (!paused && json_get_text(m, "remedy")[0] != '\0')
        format_wrap(out, "        -> ", json_get_text(m, "remedy"));
    if (json_get_text(m, "last_reply")[0] != '\0')
        format_wrap(out, "        last reply: ", json_get_text(m, "last_reply"));
    print_mailbox_budget(out, m);
    print_mailbox_forecast(out, m, now);
    print_mailbox_record(out, m, now);
}

void page_status(FILE *out, const cJSON *status, int64_t now)
{
    bool attention = strcmp(json_get_text(status, "state"), "ok") != 0;
    char up[FORMAT_TEXT];

    if (attention)
        print_problems(out, status);
    print_summary(out, status, now, attention);
    fputc('\n', out);
    print_queue(out, json_get(status, "queue"));
    print_intake(out, json_get(status, "intake"));
    print_devices(out, json_get(status, "devices"));
    for (const cJSON *mailbox = json_first(status, "mailboxes"); mailbox != NULL;
         mailbox = mailbox->next)
        print_mailbox(out, mailbox, now);
    format_span(json_get_number(status, "uptime"), up);
    fprintf(out, "\nouttrayd %s, process %.0f, up for %s\n", json_get_text(status, "version"),
            json_get_number(status, "pid"), up);
}

void page_unready(FILE *out, const cJSON *status)
{
    for (const cJSON *m = json_first(status, "mailboxes"); m != NULL; m = m->next) {
        char first[FORMAT_TEXT * 2];

        if (strcmp(json_get_text(m, "state"), "ready") == 0)
            continue;
        snprintf(first, sizeof(first), "Mailbox %s is ", json_get_text(m, "name"));
        print_mailbox_state(out, m, first, true);
        fprintf(out, "-> \"outtray resume %s\" tries it at once.\n", json_get_text(m, "name"));
    }
}

/* ---- one message ----------------------------------------------------------------------------- */

static const char *state_word(const cJSON *message)
{
    return json_get_flag(message, "in_flight") ? "sending" : json_get_text(message, "state");
}

/* "mailbox office: the limit of 30 messages a minute", or "" when it waits for nothing else. */
static void waits_text(const cJSON *m, char *out, size_t size)
{
    const char *why = json_get_text(m, "waits_why");

    snprintf(out, size, "%s%s%s", json_get_text(m, "waits_for"), why[0] != '\0' ? ": " : "", why);
}

static void print_times(FILE *out, const cJSON *m, int64_t now)
{
    char waits[1024];
    char at[FORMAT_TEXT];
    char age[FORMAT_TEXT];
    char text[FORMAT_TEXT * 4];

    format_time(json_get_text(m, "arrived"), now, at);
    format_span(json_get_number(m, "age"), age);
    snprintf(text, sizeof(text), "%s, %s ago", at, age);
    if (!json_get_null(m, "age"))
        format_line(out, "Arrived", text);
    snprintf(text, sizeof(text), "%.0f", json_get_number(m, "attempts"));
    format_line(out, "Attempts", text);
    if (json_get_number(m, "losses") > 0) {
        snprintf(text, sizeof(text), "was uncertain: how %.0f of them ended was never known",
                 json_get_number(m, "losses"));
        format_line(out, "", text);
    }
    if (json_get_null(m, "due_in"))
        return;
    format_span(json_get_number(m, "due_in"), age);
    snprintf(text, sizeof(text), "in %s", age);
    format_line(out, "Next try", json_get_number(m, "due_in") > 0 ? text : "now");
    waits_text(m, waits, sizeof(waits));
    format_line(out, "Waits for", waits);
}

static void print_origin(FILE *out, const cJSON *m)
{
    const char *client = json_get_text(m, "client");
    const char *device = json_get_text(m, "device");
    char text[512];

    snprintf(text, sizeof(text), "%s%s%s%s (HELO %s)", device, strcmp(device, client) ? " [" : "",
             strcmp(device, client) ? client : "", strcmp(device, client) ? "]" : "",
             json_get_text(m, "helo"));
    format_line(out, "Device", text);
    format_line(out, "Login", json_get_text(m, "login"));
    snprintf(text, sizeof(text), "%s lane of route %s", json_get_text(m, "lane"),
             json_get_text(m, "route"));
    format_line(out, "Way", text);
}

static void print_recipient(FILE *out, const cJSON *r)
{
    char text[1024];

    snprintf(text, sizeof(text), "%s: %s", json_get_text(r, "path"), json_get_text(r, "state"));
    format_line(out, "To", text);
    if (json_get_text(r, "reply")[0] != '\0')
        format_wrap(out, "                ", json_get_text(r, "reply"));
    if (json_get_text(r, "reason")[0] == '\0')
        return;
    format_wrap(out, "              = ", json_get_text(r, "reason"));
    snprintf(text, sizeof(text), "%s: %s", json_get_text(r, "who"), json_get_text(r, "remedy"));
    format_wrap(out, "             -> ", text);
}

/* What the state means, where it needs saying. */
static const char *state_note(const cJSON *m)
{
    static const struct {
        const char *state, *note;
    } notes[] = {
        {"uncertain", ": all of it was sent, but how that ended is not known; it waits and is sent "
                      "again, and may then arrive twice"},
        {"held", ": it waits for you; \"outtray retry\" sends it, \"outtray delete\" drops it"},
        {"dead", ": it will not be tried again; \"outtray requeue\" tries it all the same"},
    };

    if (json_get_flag(m, "in_flight"))
        return "";
    if (json_get_flag(m, "damaged"))
        return ": what is stored is damaged; \"outtray export\" saves what can be read";
    for (size_t i = 0; i < sizeof(notes) / sizeof(notes[0]); i++)
        if (strcmp(notes[i].state, json_get_text(m, "state")) == 0)
            return notes[i].note;
    return "";
}

void page_message(FILE *out, const cJSON *m, int64_t now)
{
    const char *sender = json_get_text(m, "sender");
    char subject[FORMAT_CELL * 4];
    char text[512];

    format_line(out, "Message", json_get_text(m, "id"));
    snprintf(text, sizeof(text), "%s%s", state_word(m), state_note(m));
    format_line(out, "State", text);
    encoded_decode(json_get_text(m, "subject"), subject, sizeof(subject));
    format_line(out, "Subject", subject);
    format_line(out, "From", sender[0] != '\0' ? sender : "<>");
    for (const cJSON *recipient = json_first(m, "recipients"); recipient != NULL;
         recipient = recipient->next)
        print_recipient(out, recipient);
    format_line(out, "Size", size_of(m, "size").text);
    print_times(out, m, now);
    print_origin(out, m);
    format_line(out, "Message-ID", json_get_text(m, "message_id"));
    format_line(out, "Repaired", json_get_text(m, "repairs"));
}

/* ---- the list -------------------------------------------------------------------------------- */

void page_list_init(struct page_list *l)
{
    static const char *const titles[] = {"ID",     "STATE", ">AGE", ">NEXT", ">SIZE",
                                         "DEVICE", "FROM",  "TO",   NULL};

    *l = (struct page_list){.shown = 0};
    _Static_assert(sizeof(titles) / sizeof(titles[0]) == FORMAT_COLUMNS + 1, "a cell per title");
    format_table_init(&l->table, titles);
}

static void next_text(const cJSON *m, char out[FORMAT_TEXT])
{
    if (json_get_null(m, "due_in"))
        snprintf(out, FORMAT_TEXT, "-");
    else if (json_get_number(m, "due_in") <= 0)
        snprintf(out, FORMAT_TEXT, "now");
    else
        format_span(json_get_number(m, "due_in"), out);
}

static void recipients_text(const cJSON *m, char out[FORMAT_CELL])
{
    const cJSON *first = cJSON_GetArrayItem(json_get(m, "recipients"), 0);
    double more = json_get_number(m, "recipient_count") - 1;
    size_t used;

    format_fit(json_get_text(first, "path"), PATH_WIDTH, out, FORMAT_CELL - FORMAT_TEXT);
    used = strlen(out);
    if (more > 0)
        snprintf(out + used, FORMAT_CELL - used, " (+%.0f)", more);
}

/* What the upstream said to it last, else what it waits for; the latter not once for each message
 * of a long queue. */
static void fill_note(struct page_list *l, struct format_row *row, const cJSON *m)
{
    const char *problem = json_get_text(m, "problem");
    const char *said = problem[0] != '\0' ? problem : json_get_text(m, "last_reply");
    char waits[sizeof(row->note)];
    char text[sizeof(row->note)];

    format_clean(said, row->note, sizeof(row->note));
    if (json_get_text(m, "waits_for")[0] == '\0')
        return;
    waits_text(m, waits, sizeof(waits) - sizeof("waits for "));
    snprintf(text, sizeof(text), "waits for %.*s", (int)(sizeof(text) - sizeof("waits for ")),
             waits);
    if (said[0] != '\0' || strcmp(text, l->waits) == 0)
        return;
    snprintf(l->waits, sizeof(l->waits), "%s", text);
    format_clean(text, row->note, sizeof(row->note));
}

static void fill_row(struct format_row *row, const cJSON *m)
{
    const char *sender = json_get_text(m, "sender");
    char text[FORMAT_TEXT];

    format_clean(json_get_text(m, "id"), row->cells[0], FORMAT_CELL);
    format_clean(json_get_flag(m, "damaged") ? "damaged" : state_word(m), row->cells[1],
                 FORMAT_CELL);
    if (json_get_null(m, "age"))
        strcpy(row->cells[2], "-");
    else
        format_span(json_get_number(m, "age"), row->cells[2]);
    next_text(m, row->cells[3]);
    format_size(json_get_number(m, "size"), text);
    format_clean(text, row->cells[4], FORMAT_CELL);
    format_fit(json_get_text(m, "device"), DEVICE_WIDTH, row->cells[5], FORMAT_CELL);
    format_fit(sender[0] != '\0' ? sender : "<>", PATH_WIDTH, row->cells[6], FORMAT_CELL);
    recipients_text(m, row->cells[7]);
}

void page_list_rows(struct page_list *l, FILE *out, const cJSON *page)
{
    for (const cJSON *m = json_first(page, "messages"); m != NULL; m = m->next) {
        struct format_row *row = format_table_row(&l->table);

        if (row == NULL)
            break;
        fill_row(row, m);
        fill_note(l, row, m);
        l->shown++;
        l->held += strcmp(json_get_text(m, "state"), "held") == 0 && !json_get_flag(m, "damaged");
        l->octets += json_get_number(m, "size");
    }
    if (l->table.count > 0)
        format_table_write(&l->table, out);
}

static void end_dead(const struct page_list *l, FILE *out, uint64_t total)
{
    if (l->shown == 0)
        fputs("There are no dead letters.\n", out);
    else if (l->shown < total)
        fprintf(out,
                "The first %" PRIu64 " of %" PRIu64 " dead letters; \"outtray dead --all\" shows "
                "every one.\n",
                l->shown, total);
    if (l->shown > 0)
        fputs("\"outtray show ID\" tells why, \"outtray requeue ID\" tries one again, \"outtray "
              "export ID\"\nsaves it.\n",
              out);
}

void page_list_end(struct page_list *l, FILE *out, uint64_t total)
{
    char size[FORMAT_TEXT];

    format_size(l->octets, size);
    if (l->dead)
        end_dead(l, out, total);
    else if (l->shown == 0)
        fputs("The queue is empty.\n", out);
    else if (l->shown < total)
        fprintf(out,
                "The first %" PRIu64 " of %" PRIu64 " messages; \"outtray queue --all\" shows "
                "every one.\n",
                l->shown, total);
    else
        fprintf(out, "%" PRIu64 " message%s, %s.\n", l->shown, plural((double)l->shown), size);
    if (l->held > 0)
        fprintf(out, "%" PRIu64 " of them held: \"outtray show ID\" tells why.\n", l->held);
    format_table_done(&l->table);
}
