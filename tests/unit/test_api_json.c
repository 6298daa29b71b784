#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include <stdlib.h>
#include <string.h>

#include "relay/admin/api_json.h"
#include "relay/admin/api_device_json.h"
#include "relay/admin/api_status.h"
#include "relay/admin/json.h"
#include "relay/version.h"

#define NOW_MS  5000000ull
#define WALL_MS 1714979289000ull /* 2024-05-06T07:08:09Z */

static const struct api_times times = {.now_ms = NOW_MS, .wall_ms = WALL_MS};

/* A route that takes mail now. */
static const struct api_wait ready = {.ready_ms = 0};

/* The shapes ask the dispatcher only for this name. */
const char *mailbox_state_name(enum mailbox_state state)
{
    static const char *const names[] = {"ready", "waiting", "paused"};

    return names[state];
}

/* ---- texts ----------------------------------------------------------------------------------- */

static void texts_that_are_not_utf8_become_valid(void **state)
{
    static const struct {
        const char *name, *in, *out;
    } rows[] = {
        {"plain", "abc", "abc"},
        {"two, three and four octets", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x93\xa0",
         "\xc3\xa4\xe2\x82\xac\xf0\x9f\x93\xa0"},
        {"Latin-1", "B\xfcro", "B\xef\xbf\xbdro"},
        {"cut short at the end", "a\xe2\x82", "a\xef\xbf\xbd\xef\xbf\xbd"},
        {"overlong slash", "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"surrogate", "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"beyond U+10FFFF", "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"empty", "", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cJSON *item = json_text(rows[i].in);

        assert_non_null(item);
        if (strcmp(item->valuestring, rows[i].out) != 0)
            fail_msg("%s: \"%s\"", rows[i].name, item->valuestring);
        cJSON_Delete(item);
    }
}

static void times_are_iso_8601_in_utc(void **state)
{
    char text[JSON_TIME_TEXT];

    (void)state;
    json_time_text(WALL_MS + 999, text);
    assert_string_equal(text, "2024-05-06T07:08:09Z");
}

static void getters_give_neutral_values_for_what_is_absent(void **state)
{
    cJSON *o = cJSON_Parse("{\"n\": 3, \"t\": \"x\", \"z\": null}");

    (void)state;
    assert_string_equal(json_get_text(o, "n"), "");
    assert_string_equal(json_get_text(o, "t"), "x");
    assert_true(json_get_number(o, "t") == 0);
    assert_true(json_get_number(o, "n") == 3);
    assert_true(json_get_null(o, "z"));
    assert_true(json_get_null(o, "nothing"));
    assert_false(json_get_null(o, "n"));
    assert_null(json_first(o, "n"));
    assert_string_equal(json_get_text(NULL, "n"), "");
    cJSON_Delete(o);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void fill(struct envelope *e)
{
    static const char *const paths[] = {"a@b.example", "c@d.example", "e@f.example", "g@h.example"};

    envelope_init(e);
    assert_true(envelope_set(&e->reverse_path, "scan@office.example"));
    assert_true(envelope_set(&e->device, "printer-1"));
    assert_true(envelope_set(&e->subject, "Scan \"7\""));
    assert_true(envelope_set(&e->message_id, "<1@relay.example>"));
    for (size_t i = 0; i < 4; i++)
        assert_true(envelope_add_recipient(e, paths[i]));
    e->recipients[0].state = RECIPIENT_DELIVERED;
    assert_true(envelope_set(&e->recipients[0].reply, "250 2.1.5 ok"));
    assert_true(envelope_set(&e->recipients[2].reply, "450 4.2.0 later"));
}

static const struct queue_info info = {
    .id = 0x4f2a,
    .state = QUEUE_UNCERTAIN,
    .lane = LANE_BULK,
    .attempts = 2,
    .recipients = 4,
    .size = 5242880,
    .arrived_ms = WALL_MS - 90500,
    .due_ms = NOW_MS + 12500,
    .tried_ms = 60000,
    .route = "default",
};

static void an_entry_has_what_a_list_shows(void **state)
{
    struct envelope e;
    cJSON *o;
    const cJSON *first;

    (void)state;
    fill(&e);
    o = api_json_entry(&info, &e, NULL, &times, &ready);
    assert_string_equal(json_get_text(o, "id"), "4f2a");
    assert_string_equal(json_get_text(o, "state"), "uncertain");
    assert_string_equal(json_get_text(o, "lane"), "bulk");
    assert_string_equal(json_get_text(o, "route"), "default");
    assert_string_equal(json_get_text(o, "device"), "printer-1");
    assert_string_equal(json_get_text(o, "sender"), "scan@office.example");
    assert_string_equal(json_get_text(o, "subject"), "Scan \"7\"");
    assert_string_equal(json_get_text(o, "arrived"), "2024-05-06T07:06:38Z");
    assert_true(json_get_number(o, "age") == 90.5);
    assert_true(json_get_number(o, "due_in") == 12.5);
    assert_true(json_get_number(o, "size") == 5242880);
    assert_true(json_get_number(o, "recipient_count") == 4);
    assert_int_equal(cJSON_GetArraySize(json_get(o, "recipients")), API_JSON_RECIPIENTS);
    first = json_first(o, "recipients");
    assert_string_equal(json_get_text(first, "path"), "a@b.example");
    assert_string_equal(json_get_text(first, "state"), "delivered");
    assert_null(json_get(o, "message_id"));
    cJSON_Delete(o);
    envelope_done(&e);
}

static void the_last_reply_is_of_somebody_who_still_waits(void **state)
{
    struct envelope e;
    cJSON *o;

    (void)state;
    fill(&e);
    o = api_json_entry(&info, &e, NULL, &times, &ready);
    assert_string_equal(json_get_text(o, "last_reply"), "450 4.2.0 later");
    cJSON_Delete(o);
    e.recipients[2].state = RECIPIENT_FAILED;
    assert_true(envelope_set(&e.recipients[2].reply, "550 5.1.1 nobody"));
    o = api_json_entry(&info, &e, NULL, &times, &ready);
    assert_string_equal(json_get_text(o, "last_reply"), "550 5.1.1 nobody");
    cJSON_Delete(o);
    envelope_done(&e);
}

static void a_message_has_every_recipient_with_its_reply(void **state)
{
    struct envelope e;
    cJSON *o;
    const cJSON *third;

    (void)state;
    fill(&e);
    o = api_json_message(&info, &e, &times, &ready);
    assert_int_equal(cJSON_GetArraySize(json_get(o, "recipients")), 4);
    third = cJSON_GetArrayItem(json_get(o, "recipients"), 2);
    assert_string_equal(json_get_text(third, "path"), "e@f.example");
    assert_string_equal(json_get_text(third, "state"), "pending");
    assert_string_equal(json_get_text(third, "reply"), "450 4.2.0 later");
    assert_string_equal(json_get_text(o, "message_id"), "<1@relay.example>");
    assert_string_equal(json_get_text(o, "body"), "7bit");
    assert_true(json_get_number(o, "tried") == 60);
    cJSON_Delete(o);
    envelope_done(&e);
}

static void what_never_comes_due_has_no_due_time_and_what_is_overdue_has_zero(void **state)
{
    struct queue_info held = info;
    cJSON *o;

    (void)state;
    held.due_ms = SCHEDULE_NEVER;
    o = api_json_entry(&held, NULL, NULL, &times, &ready);
    assert_true(cJSON_IsNull(json_get(o, "due_in")));
    cJSON_Delete(o);
    held.due_ms = 1;
    o = api_json_entry(&held, NULL, NULL, &times, &ready);
    assert_true(cJSON_IsNumber(json_get(o, "due_in")));
    assert_true(json_get_number(o, "due_in") == 0);
    cJSON_Delete(o);
}

static void what_waits_for_a_mailbox_says_when_and_why(void **state)
{
    static const struct {
        const char *name;
        uint64_t due_ms;
        struct mailbox_status first;
        uint64_t ready_ms;
        double due_in;
        const char *waits_for, *why;
    } rows[] = {
        {"the mailbox is free", NOW_MS, {.minute_max = 30, .sent_this_minute = 29}, 0, 0, "", ""},
        {"the mailbox backs off",
         NOW_MS - 5,
         {.state = MAILBOX_WAITING, .problem = "The server did not answer in time."},
         NOW_MS + 90000,
         90,
         "mailbox office",
         "The server did not answer in time."},
        {"the minute is used up",
         NOW_MS,
         {.minute_max = 30, .sent_this_minute = 30},
         NOW_MS + 12000,
         12,
         "mailbox office",
         "the limit of 30 messages a minute"},
        {"the only message of the minute was sent",
         NOW_MS,
         {.minute_max = 1, .sent_this_minute = 1},
         NOW_MS + 1000,
         1,
         "mailbox office",
         "the limit of 1 message a minute"},
        {"the day is used up",
         NOW_MS,
         {.minute_max = 30, .day_max = 10000, .recipients_today = 10000},
         NOW_MS + 3600000,
         3600,
         "mailbox office",
         "the limit of 10000 recipients in 24 h"},
        {"the message waits longer than the mailbox",
         NOW_MS + 600000,
         {.state = MAILBOX_WAITING, .problem = "x"},
         NOW_MS + 90000,
         600,
         "",
         ""},
        {"another message probes the mailbox",
         NOW_MS - 5,
         {.state = MAILBOX_PAUSED, .problem = "The password is wrong."},
         0,
         0,
         "mailbox office",
         "The password is wrong."},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct mailbox_status first = rows[i].first;
        struct queue_info due = info;
        struct api_wait wait;
        cJSON *o;

        first.name = "office";
        due.due_ms = rows[i].due_ms;
        api_json_wait(&first, rows[i].ready_ms, &wait);
        o = api_json_entry(&due, NULL, NULL, &times, &wait);
        if (json_get_number(o, "due_in") != rows[i].due_in ||
            strcmp(json_get_text(o, "waits_for"), rows[i].waits_for) != 0 ||
            strcmp(json_get_text(o, "waits_why"), rows[i].why) != 0)
            fail_msg("%s: in %f, %s: %s", rows[i].name, json_get_number(o, "due_in"),
                     json_get_text(o, "waits_for"), json_get_text(o, "waits_why"));
        cJSON_Delete(o);
    }
}

static void nothing_is_due_while_nobody_sends(void **state)
{
    struct queue_info due = info;
    cJSON *o;

    (void)state;
    due.due_ms = 1;
    o = api_json_entry(&due, NULL, NULL, &times, NULL);
    assert_true(cJSON_IsNull(json_get(o, "due_in")));
    cJSON_Delete(o);
}

static void a_recipient_that_failed_or_waits_says_why_and_what_to_do(void **state)
{
    static const struct {
        enum recipient_state state;
        const char *reply, *reason, *who, *remedy;
    } rows[] = {
        {RECIPIENT_FAILED, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found",
         "There is no such recipient.", "whoever sent it",
         "Correct the address in the device's address book."},
        {RECIPIENT_PENDING, "451 4.7.500 Server busy",
         "The service limits mail from this office's public address.",
         "the administrator of the mail service", "Wait; if it lasts"},
        {RECIPIENT_FAILED, "450 4.2.1 later",
         "It was tried for as long as give_up in [relay] says. The last time: The server",
         "whoever looks after this relay", "try it again with \"outtray requeue\""},
        {RECIPIENT_DELIVERED, "250 2.0.0 OK", "", "", ""},
        {RECIPIENT_PENDING, "(timeout) no answer to MAIL in 5 minutes", "", "", ""},
        {RECIPIENT_PENDING, "", "", "", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct envelope e;
        const cJSON *r;
        cJSON *o;

        fill(&e);
        e.recipients[0].state = rows[i].state;
        assert_true(envelope_set(&e.recipients[0].reply, rows[i].reply));
        o = api_json_message(&info, &e, &times, &ready);
        r = json_first(o, "recipients");
        if (strstr(json_get_text(r, "reason"), rows[i].reason) == NULL ||
            (json_get_text(r, "reason")[0] == '\0') != (rows[i].reason[0] == '\0') ||
            strcmp(json_get_text(r, "who"), rows[i].who) != 0 ||
            strstr(json_get_text(r, "remedy"), rows[i].remedy) == NULL)
            fail_msg("%s: %s %s: %s", rows[i].reply, json_get_text(r, "reason"),
                     json_get_text(r, "who"), json_get_text(r, "remedy"));
        cJSON_Delete(o);
        envelope_done(&e);
    }
}

static void an_entry_that_could_not_be_opened_says_why(void **state)
{
    struct error err = ERROR_INIT;
    cJSON *o;

    (void)state;
    error_set(&err, ERROR_DAMAGED, "the checksum is wrong");
    o = api_json_entry(&info, NULL, &err, &times, &ready);
    assert_string_equal(json_get_text(o, "problem"), "the checksum is wrong");
    assert_string_equal(json_get_text(o, "id"), "4f2a");
    cJSON_Delete(o);
}

static void a_page_names_the_next_only_when_there_is_more(void **state)
{
    cJSON *o = api_json_page(cJSON_CreateArray(), 7, 0x1234);

    (void)state;
    assert_string_equal(json_get_text(o, "next"), "1234");
    assert_true(json_get_number(o, "total") == 7);
    cJSON_Delete(o);
    o = api_json_page(cJSON_CreateArray(), 0, 0);
    assert_null(json_get(o, "next"));
    assert_true(cJSON_IsArray(json_get(o, "messages")));
    cJSON_Delete(o);
}

static void errors_have_a_kind_a_text_and_a_fitting_status(void **state)
{
    struct error err = ERROR_INIT;
    cJSON *o;

    (void)state;
    error_set(&err, ERROR_MISSING, "no such thing");
    o = api_json_error(&err);
    assert_string_equal(json_get_text(json_get(o, "error"), "kind"), "missing");
    assert_string_equal(json_get_text(json_get(o, "error"), "text"), "no such thing");
    cJSON_Delete(o);
    assert_int_equal(api_json_http_status(ERROR_MISSING), 404);
    assert_int_equal(api_json_http_status(ERROR_INVALID), 400);
    assert_int_equal(api_json_http_status(ERROR_BUSY), 409);
    assert_int_equal(api_json_http_status(ERROR_IO), 500);
}

/* ---- status ---------------------------------------------------------------------------------- */

static struct mailbox_status mailbox(void)
{
    return (struct mailbox_status){
        .name = "office",
        .address = "scan@office.example",
        .host = "smtp.office365.com",
        .port = 587,
        .state = MAILBOX_READY,
        .connections = 1,
        .connections_max = 3,
        .minute_max = 30,
        .day_max = 10000,
        .delivered = 120,
        .last_success_wall_ms = WALL_MS,
        .mechanism = "LOGIN",
        .problem = "",
        .remedy = "",
        .last_reply = "",
        .max_size = 36700160,
    };
}

static const struct intake_counts intake = {
    .sessions = 2, .sessions_ever = 140, .accepted = 130, .refused = 4, .strangers = 1};

static cJSON *status_of(const struct queue_counts *counts, const struct mailbox_status *m,
                        const struct queue_recovery *recovery, const char *refusing)
{
    struct api_status s = {.times = times,
                           .started_ms = NOW_MS - 7200000,
                           .started_wall_ms = WALL_MS - 7200000,
                           .pid = 77,
                           .counts = counts,
                           .recovery = recovery,
                           .intake = &intake,
                           .mailboxes = m,
                           .mailbox_count = 1,
                           .refusing = refusing,
                           .held = {0x10, 0x11},
                           .damaged = {0x1f},
                           .damaged_held = counts->damaged};
    cJSON *o = api_status_json(&s);

    assert_non_null(o);
    return o;
}

static const char *problem(const cJSON *status, int i)
{
    return json_get_text(cJSON_GetArrayItem(json_get(status, "problems"), i), "what");
}

static void a_relay_without_problems_is_ok(void **state)
{
    struct queue_counts counts = {.state = {3, 0, 0, 0}, .commits = 130};
    struct mailbox_status m = mailbox();
    cJSON *o = status_of(&counts, &m, NULL, "");
    const cJSON *box = json_first(o, "mailboxes");

    (void)state;
    assert_string_equal(json_get_text(o, "state"), "ok");
    assert_string_equal(json_get_text(o, "version"), OUTTRAY_VERSION);
    assert_int_equal(cJSON_GetArraySize(json_get(o, "problems")), 0);
    assert_true(json_get_number(o, "uptime") == 7200);
    assert_true(json_get_number(o, "delivered") == 120);
    assert_true(json_get_number(json_get(o, "queue"), "queued") == 3);
    assert_true(json_get_number(json_get(o, "intake"), "accepted") == 130);
    assert_true(json_get_null(o, "recovery"));
    assert_string_equal(json_get_text(box, "state"), "ready");
    assert_true(json_get_null(box, "next_try_in"));
    assert_true(json_get_number(box, "day_max") == 10000);
    cJSON_Delete(o);
}

static void problems_are_listed_the_most_pressing_first(void **state)
{
    struct queue_counts counts = {
        .state = {1, 0, 3, 1}, .damaged = 1, .failing = true, .failure = "write: I/O error"};
    struct queue_recovery recovery = {.damaged = 3};
    struct mailbox_status m = mailbox();
    cJSON *o;

    (void)state;
    m.state = MAILBOX_PAUSED;
    m.next_try_ms = NOW_MS + 60000;
    m.problem = "the password is wrong";
    m.remedy = "Set a new one.";
    o = status_of(&counts, &m, &recovery, "the spool cannot be written");
    assert_string_equal(json_get_text(o, "state"), "attention");
    assert_int_equal(cJSON_GetArraySize(json_get(o, "problems")), 6);
    assert_string_equal(problem(o, 0), "2 messages are held: 0010, 0011");
    assert_string_equal(problem(o, 1),
                        "mailbox office (scan@office.example) is paused: the password is wrong");
    assert_string_equal(problem(o, 2), "the spool cannot be written: write: I/O error");
    assert_string_equal(problem(o, 3), "1 message is damaged on the disk: 001f");
    assert_string_equal(problem(o, 4),
                        "damage was found in the spool at the last start (3 places)");
    assert_string_equal(problem(o, 5), "1 message could not be delivered");
    assert_true(json_get_number(json_first(o, "mailboxes"), "next_try_in") == 60);
    cJSON_Delete(o);
}

static void a_mailbox_that_only_waits_needs_nobody(void **state)
{
    struct queue_counts counts = {.state = {1, 0, 0, 0}};
    struct mailbox_status m = mailbox();
    cJSON *o;

    (void)state;
    m.state = MAILBOX_WAITING;
    m.next_try_ms = NOW_MS + 1500;
    o = status_of(&counts, &m, NULL, "");
    assert_string_equal(json_get_text(o, "state"), "ok");
    assert_true(json_get_number(json_first(o, "mailboxes"), "next_try_in") == 1.5);
    cJSON_Delete(o);
}

static void a_full_spool_is_a_problem_with_a_remedy(void **state)
{
    struct queue_counts counts = {.state = {0, 0, 0, 0}};
    struct mailbox_status m = mailbox();
    cJSON *o = status_of(&counts, &m, NULL, "the disk is full: free disk space");

    (void)state;
    assert_string_equal(problem(o, 0),
                        "new mail, unless it is urgent, is refused: the disk is full");
    assert_string_equal(json_get_text(json_first(o, "problems"), "remedy"),
                        "Devices are asked to try again later, nothing accepted is lost. What "
                        "helps: free disk space.");
    cJSON_Delete(o);
    counts.full_urgent = true;
    o = status_of(&counts, &m, NULL, "the disk is full: free disk space");
    assert_string_equal(problem(o, 0), "new mail is refused: the disk is full");
    cJSON_Delete(o);
}

static void a_read_only_disk_says_what_helps_and_what_a_stop_would_cost(void **state)
{
    struct queue_counts counts = {.failing = true,
                                  .failure_errnum = EROFS,
                                  .failure = "open spare.seg: Read-only file system",
                                  .unmarked = 2};
    struct mailbox_status m = mailbox();
    cJSON *o = status_of(&counts, &m, NULL, "");

    (void)state;
    assert_string_equal(problem(o, 0),
                        "the spool cannot be written: open spare.seg: Read-only file system");
    assert_string_equal(json_get_text(json_first(o, "problems"), "remedy"),
                        "Devices are asked to try again later, what was accepted is sent. Mount "
                        "its file system writable again (\"dmesg\" tells why it is not); outtrayd "
                        "goes on by itself. Do not stop outtrayd before that: it alone remembers "
                        "that 2 messages were sent meanwhile, and would send them again.");
    cJSON_Delete(o);
}

#define HOUR_MS UINT64_C(3600000)

static void a_damaged_message_is_told_of_once_with_what_can_be_done(void **state)
{
    struct queue_counts counts = {.state = {0, 0, 1, 0}, .damaged = 1};
    struct mailbox_status m = mailbox();
    cJSON *o = status_of(&counts, &m, NULL, "");
    const char *remedy = json_get_text(json_first(o, "problems"), "remedy");

    (void)state;
    assert_int_equal(cJSON_GetArraySize(json_get(o, "problems")), 1);
    assert_string_equal(problem(o, 0), "1 message is damaged on the disk: 001f");
    assert_non_null(strstr(remedy, "outtray export"));
    assert_non_null(strstr(remedy, "outtray delete"));
    assert_null(strstr(remedy, "retry"));
    cJSON_Delete(o);
}

static void a_device_whose_mail_finds_no_room_is_a_problem_with_numbers(void **state)
{
    struct queue_counts counts = {.living_bytes = 66 << 20};
    struct api_status s = {.times = times,
                           .counts = &counts,
                           .intake = &intake,
                           .refusing = "",
                           .no_room_count = 7,
                           .no_room = {{"copier",
                                        "the waiting mail has reached spool_max (80 MB): let mail "
                                        "leave, or raise spool_max in [relay]",
                                        12 * 60000, 60 << 20},
                                       {"fax", "no memory for mail data", 59000, 0}}};
    cJSON *o = api_status_json(&s);

    (void)state;
    assert_string_equal(json_get_text(o, "state"), "attention");
    assert_int_equal(cJSON_GetArraySize(json_get(o, "problems")), 6);
    assert_string_equal(problem(o, 0),
                        "mail of device copier was refused 12 minutes ago, and none was accepted "
                        "from it since: the waiting mail has reached spool_max (80 MB); 60 MB of "
                        "its mail waits here, 66 MB of all");
    assert_string_equal(json_get_text(json_first(o, "problems"), "remedy"),
                        "The device is asked to try again later, nothing accepted is lost. What "
                        "helps: let mail leave, or raise spool_max in [relay].");
    assert_string_equal(problem(o, 1),
                        "mail of device fax was refused less than a minute ago, and none was "
                        "accepted from it since: no memory for mail data; 0 B of its mail waits "
                        "here, 66 MB of all");
    assert_string_equal(problem(o, 5), "mail of 2 more devices was refused for lack of room");
    cJSON_Delete(o);
}

static void devices_that_have_gone_quiet_are_the_last_problem(void **state)
{
    struct queue_counts counts = {.state = {0, 0, 0, 1}};
    struct api_status s = {.times = times,
                           .counts = &counts,
                           .intake = &intake,
                           .refusing = "",
                           .devices = 12,
                           .quiet_count = 7,
                           .quiet = {{"copier", 9 * 24 * HOUR_MS, 3 * 24 * HOUR_MS},
                                     {"fd00::21", 47 * HOUR_MS, 90 * 60000},
                                     {"c", 3 * HOUR_MS, HOUR_MS},
                                     {"d", 3 * HOUR_MS, HOUR_MS},
                                     {"e", 3 * HOUR_MS, HOUR_MS}}};
    cJSON *o = api_status_json(&s);
    const cJSON *second;

    (void)state;
    assert_int_equal(cJSON_GetArraySize(json_get(o, "problems")), 7);
    assert_string_equal(problem(o, 0), "1 message could not be delivered");
    assert_string_equal(problem(o, 1), "device copier has sent nothing for 9 days; its longest "
                                       "usual silence is 3 days");
    assert_string_equal(problem(o, 2), "device fd00::21 has sent nothing for 47 hours; its longest "
                                       "usual silence is 90 minutes");
    assert_string_equal(problem(o, 6), "2 more devices have gone quiet");
    second = cJSON_GetArrayItem(json_get(o, "problems"), 1);
    assert_non_null(strstr(json_get_text(second, "remedy"), "\"outtray device copier --forget\""));
    assert_non_null(
        strstr(json_get_text(second->next, "remedy"), "\"outtray device fd00::21 --forget\""));
    assert_true(json_get_number(json_get(o, "devices"), "known") == 12);
    assert_true(json_get_number(json_get(o, "devices"), "quiet") == 7);
    cJSON_Delete(o);
}

/* ---- devices --------------------------------------------------------------------------------- */

static void a_device_is_in_the_first_state_that_holds(void **state)
{
    static const struct {
        const char *name;
        struct registry_device seen;
        const char *state;
        bool attention;
    } rows[] = {
        {"mail", {.messages = 1, .mail_ms = 5}, "ok", false},
        {"an error before the last mail",
         {.messages = 1, .mail_ms = 5, .error_ms = 4},
         "ok",
         false},
        {"an error since the last mail",
         {.messages = 1, .mail_ms = 5, .error_ms = 6},
         "trouble",
         true},
        {"an error and no mail ever", {.error_ms = 6}, "trouble", true},
        {"quiet", {.messages = 9, .mail_ms = 5, .is_quiet = true}, "quiet", true},
        {"an error explains the quiet",
         {.messages = 9, .mail_ms = 5, .error_ms = 6, .is_quiet = true},
         "trouble",
         true},
        {"only connections", {.sessions = 3, .probes = 3}, "test", false},
    };
    struct api_device never = {.name = "x"};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct api_device d = {.name = "x", .seen = &rows[i].seen};

        if (strcmp(api_device_state(&d), rows[i].state) != 0 ||
            api_device_needs_attention(&d) != rows[i].attention)
            fail_msg("%s: %s", rows[i].name, api_device_state(&d));
    }
    assert_string_equal(api_device_state(&never), "never");
    assert_false(api_device_needs_attention(&never));
}

static void an_entry_of_a_device_has_null_for_what_never_was(void **state)
{
    struct registry_device seen = {.address = "10.0.0.9",
                                   .first_ms = WALL_MS - 7200000,
                                   .last_ms = WALL_MS - 60000,
                                   .sessions = 4,
                                   .probes = 3,
                                   .error = "a\xff",
                                   .error_ms = WALL_MS - 60000,
                                   .quirks = 0x15};
    struct api_device d = {.name = "10.0.0.9", .seen = &seen};
    cJSON *o = api_device_entry(&d, &times);

    (void)state;
    assert_string_equal(json_get_text(o, "state"), "trouble");
    assert_true(json_get_number(o, "last_seen_age") == 60);
    assert_true(json_get_null(o, "last_mail"));
    assert_true(json_get_null(o, "last_mail_age"));
    assert_true(json_get_null(o, "usual_silence"));
    assert_true(json_get_number(o, "quirk_count") == 3);
    assert_string_equal(json_get_text(o, "error"), "a\xef\xbf\xbd");
    assert_true(json_get_number(o, "probes") == 3);
    cJSON_Delete(o);
    d.seen = NULL;
    o = api_device_entry(&d, &times);
    assert_string_equal(json_get_text(o, "state"), "never");
    assert_true(json_get_null(o, "first_seen"));
    assert_string_equal(json_get_text(o, "address"), "");
    cJSON_Delete(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_that_are_not_utf8_become_valid),
        cmocka_unit_test(times_are_iso_8601_in_utc),
        cmocka_unit_test(getters_give_neutral_values_for_what_is_absent),
        cmocka_unit_test(an_entry_has_what_a_list_shows),
        cmocka_unit_test(the_last_reply_is_of_somebody_who_still_waits),
        cmocka_unit_test(a_message_has_every_recipient_with_its_reply),
        cmocka_unit_test(what_never_comes_due_has_no_due_time_and_what_is_overdue_has_zero),
        cmocka_unit_test(what_waits_for_a_mailbox_says_when_and_why),
        cmocka_unit_test(nothing_is_due_while_nobody_sends),
        cmocka_unit_test(a_recipient_that_failed_or_waits_says_why_and_what_to_do),
        cmocka_unit_test(an_entry_that_could_not_be_opened_says_why),
        cmocka_unit_test(a_page_names_the_next_only_when_there_is_more),
        cmocka_unit_test(errors_have_a_kind_a_text_and_a_fitting_status),
        cmocka_unit_test(a_relay_without_problems_is_ok),
        cmocka_unit_test(problems_are_listed_the_most_pressing_first),
        cmocka_unit_test(a_mailbox_that_only_waits_needs_nobody),
        cmocka_unit_test(a_full_spool_is_a_problem_with_a_remedy),
        cmocka_unit_test(a_damaged_message_is_told_of_once_with_what_can_be_done),
        cmocka_unit_test(a_device_whose_mail_finds_no_room_is_a_problem_with_numbers),
        cmocka_unit_test(devices_that_have_gone_quiet_are_the_last_problem),
        cmocka_unit_test(a_device_is_in_the_first_state_that_holds),
        cmocka_unit_test(an_entry_of_a_device_has_null_for_what_never_was),
        cmocka_unit_test(a_read_only_disk_says_what_helps_and_what_a_stop_would_cost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
