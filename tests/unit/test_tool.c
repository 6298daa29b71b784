#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "relay/admin/json.h"
#include "relay/tool/client.h"
#include "relay/tool/format.h"
#include "relay/tool/http.h"
#include "relay/tool/page.h"
#include "relay/tool/page_devices.h"

#define NOW 1714979289 /* 2024-05-06T07:08:09Z */

/* ---- words and numbers ----------------------------------------------------------------------- */

static void sizes_are_said_as_people_say_them(void **state)
{
    static const struct {
        double octets;
        const char *text;
    } rows[] = {
        {0, "0 B"},       {812, "812 B"},        {1023, "1023 B"},  {1024, "1 KB"},
        {1536, "1.5 KB"}, {1048576 - 1, "1 MB"}, {5242880, "5 MB"}, {104857600, "100 MB"},
        {3e9, "2.8 GB"},  {7e15, "6366 TB"},
    };
    char text[FORMAT_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        format_size(rows[i].octets, text);
        assert_string_equal(text, rows[i].text);
    }
}

static void spans_have_at_most_two_units(void **state)
{
    static const struct {
        double seconds;
        const char *text;
    } rows[] = {
        {-3, "0 s"},   {0.4, "0 s"},        {12, "12 s"},   {59.6, "1 min"},    {200, "3 min 20 s"},
        {3600, "1 h"}, {7500, "2 h 5 min"}, {86400, "1 d"}, {97200, "1 d 3 h"}, {3641, "1 h"},
    };
    char text[FORMAT_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        format_span(rows[i].seconds, text);
        assert_string_equal(text, rows[i].text);
    }
}

static void counts_are_grouped(void **state)
{
    char text[FORMAT_TEXT];

    (void)state;
    format_count(999, text);
    assert_string_equal(text, "999");
    format_count(1234567, text);
    assert_string_equal(text, "1,234,567");
    format_count(0, text);
    assert_string_equal(text, "0");
}

static void the_date_is_left_out_today(void **state)
{
    char text[FORMAT_TEXT];

    (void)state;
    format_time("2024-05-06T05:12:00Z", NOW, text);
    assert_string_equal(text, "05:12");
    format_time("2024-05-03T05:12:00Z", NOW, text);
    assert_string_equal(text, "3 May 05:12");
    format_time("2023-12-31T05:12:00Z", NOW, text);
    assert_string_equal(text, "31 Dec 2023 05:12");
    format_time("", NOW, text);
    assert_string_equal(text, "");
}

static void text_from_the_network_cannot_drive_the_terminal(void **state)
{
    static const struct {
        const char *name, *in, *out;
    } rows[] = {
        {"escape sequence", "a\x1b[2Jb", "a?[2Jb"},
        {"line end", "a\r\nb", "a??b"},
        {"C1 control in UTF-8",
         "a\xc2\x9b"
         "2J",
         "a?2J"},
        {"right-to-left override",
         "a\xe2\x80\xae"
         "gpj",
         "a?gpj"},
        {"isolate", "\xe2\x81\xa6x", "?x"},
        {"raw C1 octet",
         "\x9b"
         "2J",
         "?2J"},
        {"ordinary letters", "B\xc3\xbcro \xe2\x82\xac", "B\xc3\xbcro \xe2\x82\xac"},
    };
    char text[64];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        format_clean(rows[i].in, text, sizeof(text));
        if (strcmp(text, rows[i].out) != 0)
            fail_msg("%s: \"%s\"", rows[i].name, text);
    }
}

static void text_is_cut_between_characters(void **state)
{
    char text[32];
    char tight[8];

    (void)state;
    format_fit("0123456789", 10, text, sizeof(text));
    assert_string_equal(text, "0123456789");
    format_fit("0123456789", 9, text, sizeof(text));
    assert_string_equal(text, "012345...");
    format_fit("\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4", 4, text, sizeof(text));
    assert_string_equal(text, "\xc3\xa4...");
    format_clean("\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4", tight, sizeof(tight));
    assert_string_equal(tight, "\xc3\xa4\xc3\xa4...");
}

/* What a function writes, as text. */
struct paper {
    FILE *file;
    char *text;
    size_t len;
};

static void paper_open(struct paper *p)
{
    p->file = open_memstream(&p->text, &p->len);
    assert_non_null(p->file);
}

static const char *paper_read(struct paper *p)
{
    assert_int_equal(fclose(p->file), 0);
    return p->text;
}

static void columns_align_and_lines_do_not_end_in_blanks(void **state)
{
    static const char *const titles[] = {"ID", ">SIZE", "TO", NULL};
    struct format_table t;
    struct format_row *row;
    struct paper p;

    (void)state;
    paper_open(&p);
    format_table_init(&t, titles);
    row = format_table_row(&t);
    strcpy(row->cells[0], "4f2a");
    strcpy(row->cells[1], "1 KB");
    strcpy(row->cells[2], "b\xc3\xbcro");
    strcpy(row->note, "450 later");
    row = format_table_row(&t);
    strcpy(row->cells[1], "100 MB");
    strcpy(row->cells[2], "x");
    format_table_write(&t, p.file);
    format_table_done(&t);
    assert_string_equal(paper_read(&p), "ID      SIZE  TO\n"
                                        "4f2a    1 KB  b\xc3\xbcro\n"
                                        "    450 later\n"
                                        "      100 MB  x\n");
    free(p.text);
}

static void long_text_wraps_under_its_label(void **state)
{
    struct paper p;
    char *second;

    (void)state;
    paper_open(&p);
    format_wrap(p.file, "Why: ",
                "one two three four five six seven eight nine ten eleven twelve "
                "thirteen fourteen fifteen");
    (void)paper_read(&p);
    second = strchr(p.text, '\n');
    assert_non_null(second);
    assert_true((size_t)(second - p.text) <= FORMAT_WIDTH);
    assert_int_equal(strncmp(p.text, "Why: one two ", 13), 0);
    assert_int_equal(strncmp(second + 1, "     ", 5), 0);
    assert_true(second[6] != ' ');
    free(p.text);
}

/* ---- pages ----------------------------------------------------------------------------------- */

static const char *first_line(struct paper *p)
{
    p->text[strcspn(p->text, "\n")] = '\0';
    return p->text;
}

static char *status_page(const char *json, struct paper *p)
{
    cJSON *status = cJSON_Parse(json);

    assert_non_null(status);
    paper_open(p);
    page_status(p->file, status, NOW);
    (void)paper_read(p);
    cJSON_Delete(status);
    return p->text;
}

static void a_working_relay_is_said_to_work_in_the_first_line(void **state)
{
    struct paper p;

    (void)state;
    status_page("{\"state\": \"ok\", \"delivered\": 120, \"started\": \"2024-05-06T05:12:00Z\","
                "\"queue\": {\"queued\": 2, \"uncertain\": 1}, \"problems\": []}",
                &p);
    assert_string_equal(first_line(&p),
                        "Outtray is working: 3 waiting, 120 delivered since 05:12.");
    free(p.text);
}

static void problems_come_first_and_with_their_remedy(void **state)
{
    struct paper p;
    char *text;

    (void)state;
    text = status_page("{\"state\": \"attention\", \"queue\": {}, \"problems\": [{\"what\": "
                       "\"1 message is held: 4f2a\", \"remedy\": \"Look at it.\"}]}",
                       &p);
    assert_true(strstr(text, "Outtray needs attention:\n"
                             "  1. 1 message is held: 4f2a\n"
                             "     -> Look at it.\n\n") == text);
    free(p.text);
}

static void a_mailbox_that_has_to_wait_is_named_at_once(void **state)
{
    struct paper p;

    (void)state;
    status_page("{\"state\": \"ok\", \"started\": \"2024-05-06T05:12:00Z\", \"queue\": "
                "{\"queued\": 9}, \"mailboxes\": [{\"name\": \"idle\", \"state\": \"waiting\"}, "
                "{\"name\": \"office\", \"state\": \"waiting\", \"waited_for\": true}]}",
                &p);
    assert_string_equal(first_line(&p), "Outtray works, but has to wait for mailbox office: 9 "
                                        "waiting, 0 delivered since 05:12.");
    free(p.text);
}

static void a_mailbox_that_no_mail_waits_for_is_not_blamed(void **state)
{
    struct paper p;

    (void)state;
    status_page("{\"state\": \"ok\", \"started\": \"2024-05-06T05:12:00Z\", \"queue\": "
                "{\"uncertain\": 1}, \"mailboxes\": [{\"name\": \"office\", \"state\": "
                "\"waiting\", \"waited_for\": false}]}",
                &p);
    assert_string_equal(first_line(&p), "Outtray is working: 1 waiting, 0 delivered since 05:12.");
    free(p.text);
}

static void a_minute_without_a_limit_is_left_out_and_a_guess_is_called_one(void **state)
{
    struct paper p;
    char *text;

    (void)state;
    text = status_page("{\"state\": \"ok\", \"mailboxes\": [{\"name\": \"office\", \"state\": "
                       "\"ready\", \"sent_this_minute\": 8, \"minute_max\": 0, "
                       "\"recipients_today\": 101, \"day_max\": 10000, \"budget_why\": "
                       "\"counted upwards\"}]}",
                       &p);
    assert_null(strstr(text, "this minute"));
    assert_non_null(strstr(text, "101 of 10,000 recipients in 24 h\n        counted upwards\n"));
    free(p.text);
}

static void the_last_line_of_a_list_says_how_many_there_are(void **state)
{
    static const char page[] =
        "{\"total\": 2, \"messages\": ["
        "{\"id\": \"0a01\", \"state\": \"held\", \"size\": 1048576, \"age\": 90, \"due_in\": null,"
        " \"device\": \"printer\", \"sender\": \"\", \"recipient_count\": 3,"
        " \"recipients\": [{\"path\": \"a@b.example\"}], \"last_reply\": \"550 no\"},"
        "{\"id\": \"0a02\", \"state\": \"queued\", \"in_flight\": true, \"size\": 1048576,"
        " \"sender\": \"s@x.example\", \"recipient_count\": 1, \"due_in\": null}]}";
    struct page_list list;
    cJSON *json = cJSON_Parse(page);
    struct paper p;

    (void)state;
    paper_open(&p);
    page_list_init(&list);
    page_list_rows(&list, p.file, json);
    page_list_end(&list, p.file, 2);
    (void)paper_read(&p);
    cJSON_Delete(json);
    assert_non_null(strstr(p.text, "a@b.example (+2)"));
    assert_non_null(strstr(p.text, "  <>  "));
    assert_non_null(strstr(p.text, "\n    550 no\n"));
    assert_non_null(strstr(p.text, "0a02  sending           -"));
    assert_non_null(strstr(p.text, "2 messages, 2 MB.\n1 of them held"));
    free(p.text);
}

static char *list_page(const char *json, struct paper *p)
{
    cJSON *page = cJSON_Parse(json);
    struct page_list list;

    assert_non_null(page);
    paper_open(p);
    page_list_init(&list);
    page_list_rows(&list, p->file, page);
    page_list_end(&list, p->file, (uint64_t)list.shown);
    (void)paper_read(p);
    cJSON_Delete(page);
    return p->text;
}

static void what_messages_wait_for_is_said_once_in_a_row(void **state)
{
#define WAITS                                                                                      \
    "\"state\": \"queued\", \"due_in\": 90, \"waits_for\": \"mailbox office\", "                   \
    "\"waits_why\": \"the limit of 30 messages a minute\""
    struct paper p;
    char *text;
    char *note;

    (void)state;
    text = list_page("{\"messages\": [{\"id\": \"0a01\", " WAITS "}, {\"id\": \"0a02\", " WAITS
                     "}, {\"id\": \"0a03\", \"last_reply\": \"450 later\", " WAITS "}]}",
                     &p);
    note = strstr(text, "\n    waits for mailbox office: the limit of 30 messages a minute\n0a02 ");
    assert_non_null(note);
    assert_null(strstr(note + 6, "waits for"));
    assert_non_null(strstr(text, "1 min 30 s"));
    assert_non_null(strstr(text, "\n    450 later\n"));
    free(p.text);
#undef WAITS
}

static char *message_page(const char *json, struct paper *p)
{
    cJSON *message = cJSON_Parse(json);

    assert_non_null(message);
    paper_open(p);
    page_message(p->file, message, NOW);
    (void)paper_read(p);
    cJSON_Delete(message);
    return p->text;
}

static void a_message_says_why_a_recipient_failed_and_what_to_do(void **state)
{
    struct paper p;
    char *text;

    (void)state;
    text = message_page("{\"id\": \"0a01\", \"state\": \"dead\", \"due_in\": null, \"subject\": "
                        "\"=?UTF-8?Q?B=C3=BCro?=\", \"recipients\": [{\"path\": \"a@b.example\", "
                        "\"state\": \"failed\", \"reply\": \"550 5.1.1 nobody\", \"reason\": "
                        "\"There is no such recipient.\", \"who\": \"whoever sent it\", "
                        "\"remedy\": \"Correct the address.\"}]}",
                        &p);
    assert_non_null(strstr(text, "Subject     B\xc3\xbcro\n"));
    assert_non_null(strstr(text, "To          a@b.example: failed\n"
                                 "                550 5.1.1 nobody\n"
                                 "              = There is no such recipient.\n"
                                 "             -> whoever sent it: Correct the address.\n"));
    free(p.text);
}

static void a_message_says_what_it_waits_for(void **state)
{
    struct paper p;
    char *text;

    (void)state;
    text = message_page("{\"id\": \"0a01\", \"state\": \"queued\", \"due_in\": 90, \"waits_for\": "
                        "\"mailbox office\", \"waits_why\": \"It does not answer.\"}",
                        &p);
    assert_non_null(strstr(text, "Next try    in 1 min 30 s\n"
                                 "Waits for   mailbox office: It does not answer.\n"));
    free(p.text);
}

static void units_follow_their_numbers(void **state)
{
    struct paper p;
    char *text;

    (void)state;
    text = status_page("{\"state\": \"ok\", \"mailboxes\": [{\"name\": \"office\", \"state\": "
                       "\"ready\", \"connections\": 1, \"connections_max\": 3, "
                       "\"sent_this_minute\": 1, \"minute_max\": 1, \"recipients_today\": 1, "
                       "\"day_max\": 1}]}",
                       &p);
    assert_non_null(strstr(text, "        1 of 3 connections, 1 of 1 message this minute, "
                                 "1 of 1 recipient in 24 h\n"));
    free(p.text);
}

static void a_forecast_is_shown_where_there_is_one(void **state)
{
    struct paper p;
    char *text;

    (void)state;
    text =
        status_page("{\"state\": \"ok\", \"mailboxes\": [{\"name\": \"office\", \"state\": "
                    "\"ready\", \"dry_in\": 7200, \"empty_in\": 700, \"connections_allowed\": 1, "
                    "\"connections_why\": \"the upstream has refused more\"}]}",
                    &p);
    assert_non_null(strstr(text, "        1 allowed now: the upstream has refused more\n"));
    assert_non_null(strstr(text, "        at this pace the day's recipients last until "));
    assert_non_null(strstr(text, "        the queue will be empty in about 12 minutes, at the "
                                 "earliest\n"));
    free(p.text);
    text = status_page("{\"state\": \"ok\", \"mailboxes\": [{\"name\": \"office\", \"state\": "
                       "\"ready\", \"dry_in\": null, \"empty_in\": 0, \"connections_why\": \"\"}]}",
                       &p);
    assert_null(strstr(text, "pace"));
    assert_null(strstr(text, "empty in"));
    assert_null(strstr(text, "allowed"));
    free(p.text);
}

static struct tool json_tool(FILE *out, FILE *err)
{
    return (struct tool){.json = true, .out = out, .err = err};
}

static void errors_are_json_for_programs_and_words_for_people(void **state)
{
    struct paper out;
    struct paper words;
    struct tool t;
    struct error err = ERROR_INIT;
    cJSON *json;

    (void)state;
    paper_open(&out);
    paper_open(&words);
    t = json_tool(out.file, words.file);
    error_set(&err, ERROR_MISSING, "there is no message 4711");
    assert_int_equal(tool_fail(&t, &err), EX_NOINPUT);
    assert_string_equal(paper_read(&words), "outtray: there is no message 4711\n");
    json = cJSON_Parse(paper_read(&out));
    assert_string_equal(json_get_text(json_get(json, "error"), "kind"), "missing");
    assert_string_equal(json_get_text(json_get(json, "error"), "text"), "there is no message 4711");
    cJSON_Delete(json);
    free(out.text);
    free(words.text);
    paper_open(&out);
    t.json = false;
    t.out = out.file;
    tool_error_json(&t, ERROR_MISSING, "nothing");
    assert_string_equal(paper_read(&out), "");
    free(out.text);
}

static void an_empty_list_is_said_to_be_empty(void **state)
{
    struct page_list list;
    struct paper p;

    (void)state;
    paper_open(&p);
    page_list_init(&list);
    page_list_end(&list, p.file, 0);
    assert_string_equal(paper_read(&p), "The queue is empty.\n");
    free(p.text);
}

/* ---- devices --------------------------------------------------------------------------------- */

#define DEVICES                                                                                    \
    "[{\"name\": \"10.0.0.9\", \"address\": \"10.0.0.9\", \"state\": \"ok\", \"messages\": 1200, " \
    "\"last_mail_age\": 97200}, "                                                                  \
    "{\"name\": \"alarm\", \"address\": \"\", \"state\": \"never\", \"last_mail_age\": null}, "    \
    "{\"name\": \"copier\", \"address\": \"10.0.0.7\", \"state\": \"quiet\", \"attention\": "      \
    "true, "                                                                                       \
    "\"last_mail_age\": 777600, \"usual_silence\": 259200, \"messages\": 7}, "                     \
    "{\"name\": \"fax\", \"address\": \"fd00:1111:2222:3333:4444:5555:6666:7777\", "               \
    "\"state\": \"trouble\", \"attention\": true, \"error\": \"535 \\u001b[2Jno\", "               \
    "\"error_age\": 90, "                                                                          \
    "\"last_mail_age\": null}, "                                                                   \
    "{\"name\": \"ups\", \"address\": \"10.0.0.8\", \"state\": \"test\", \"last_mail_age\": "      \
    "null}]"

static void devices_that_need_attention_stand_first(void **state)
{
    cJSON *devices = cJSON_Parse(DEVICES);
    struct paper p;

    (void)state;
    assert_non_null(devices);
    paper_open(&p);
    page_devices(p.file, devices);
    assert_string_equal(
        paper_read(&p),
        "NAME      ADDRESS                              LAST MAIL  MESSAGES  STATE\n"
        "copier    10.0.0.7                               9 d ago         7  quiet\n"
        "    its longest usual silence is 3 d\n"
        "fax       fd00:1111:2222:3333:4444:5555:66...          -         0  "
        "trouble\n"
        "    1 min ago: 535 ?[2Jno\n"
        "10.0.0.9                                         1 d ago     1,200  ok\n"
        "alarm     -                                            -         0  never "
        "seen\n"
        "ups       10.0.0.8                                     -         0  test "
        "only\n"
        "5 devices, 2 of them need attention: \"outtray device NAME\" tells more.\n");
    cJSON_Delete(devices);
    free(p.text);
}

static void a_list_of_devices_fits_a_terminal(void **state)
{
    cJSON *devices =
        cJSON_Parse("[{\"name\": \"a-long-name-of-a-device-here\", \"address\": "
                    "\"192.168.100.200\", \"state\": "
                    "\"never\", \"last_mail_age\": 3540, \"messages\": 1234567}, {\"name\": \"b\", "
                    "\"address\": "
                    "\"fd00:1111:2222:3333:4444:5555:6666:7777\", \"state\": \"ok\"}]");
    struct paper p;
    const char *at;

    (void)state;
    paper_open(&p);
    page_devices(p.file, devices);
    for (at = paper_read(&p); *at != '\0'; at += strcspn(at, "\n") + 1)
        if (strcspn(at, "\n") > 80)
            fail_msg("%s", p.text);
    assert_non_null(strstr(p.text, "192.168.100.200"));
    cJSON_Delete(devices);
    free(p.text);
    devices = cJSON_CreateArray();
    paper_open(&p);
    page_devices(p.file, devices);
    assert_string_equal(paper_read(&p), "No device has been seen yet.\n");
    cJSON_Delete(devices);
    free(p.text);
}

static char *device_page(const char *json, struct paper *p)
{
    cJSON *device = cJSON_Parse(json);

    assert_non_null(device);
    paper_open(p);
    page_device(p->file, device, NOW);
    (void)paper_read(p);
    cJSON_Delete(device);
    return p->text;
}

static void a_device_is_told_in_plain_words(void **state)
{
    struct paper p;
    char *text = device_page(
        "{\"name\": \"copier\", \"state\": \"quiet\", \"quiet\": true, \"configured\": true, "
        "\"address\": \"10.0.0.7\", \"helo\": \"MFP\\u001b[2J\", \"tls\": \"\", "
        "\"first_seen\": \"2024-05-03T05:12:00Z\", \"last_seen\": \"2024-05-06T05:12:00Z\", "
        "\"last_seen_age\": 7200, \"last_mail_age\": 777600, \"usual_silence\": 259200, "
        "\"messages\": 1, \"octets\": 2048, \"refused\": 1, \"sessions\": 3, \"probes\": 2, "
        "\"error\": \"550 5.7.1 no\", \"error_at\": \"2024-05-06T05:12:00Z\", \"error_age\": 7200, "
        "\"rules\": {\"allowed\": true, \"lane\": \"urgent\", \"route\": \"default\", "
        "\"max_size\": 0, "
        "\"max_recipients\": 1, \"max_sessions\": 10, \"max_messages_per_minute\": 0, "
        "\"recipient_domains\": [\"a.example\", \".b.example\"], \"addresses\": [\"10.0.0.7\"]}, "
        "\"quirks\": [{\"name\": \"no_date\", \"words\": \"no Date\", \"remedy\": \"Set the "
        "clock.\", "
        "\"newest\": true}, {\"name\": \"no_helo\", \"words\": \"no HELO\", \"remedy\": \"\"}]}",
        &p);

    (void)state;
    assert_string_equal(
        text, "Device      copier\n"
              "State       it has gone quiet, for longer than its own habit explains\n"
              "Address     10.0.0.7\n"
              "HELO        MFP?[2J\n"
              "TLS         none, it speaks in the clear\n"
              "First seen  3 May 05:12\n"
              "Last seen   05:12, 2 h ago\n"
              "Messages    1, together 2 KB; 1 message or recipient refused\n"
              "Sessions    3, 2 of them connection tests\n"
              "Silence     gone quiet: nothing for 9 d, and 3 d is usual at most\n"
              "Last error  05:12, 2 h ago: 550 5.7.1 no\n"
              "Rules       [device copier], address 10.0.0.7; what it leaves out is as in\n"
              "            [devices]\n"
              "Way         urgent lane of route default\n"
              "Limits      messages as large as the mailbox takes with 1 recipient, 10\n"
              "            sessions at once, any number of messages a minute\n"
              "Only to     a.example, .b.example\n"
              "Quirk       no_date: no Date\n"
              "             -> Set the clock.\n"
              "Quirk       no_helo: no HELO (not in its newest mail)\n");
    free(p.text);
}

static void a_device_that_was_never_seen_shows_what_will_apply(void **state)
{
    struct paper p;
    char *text = device_page("{\"name\": \"alarm\", \"state\": \"never\", \"configured\": true, "
                             "\"first_seen\": null, \"rules\": {\"allowed\": true, \"lane\": "
                             "\"urgent\", \"route\": \"default\", \"max_size\": 5242880}}",
                             &p);

    (void)state;
    assert_non_null(strstr(text, "it is in the configuration, but was never seen\n"));
    assert_non_null(strstr(text, "Limits      messages of at most 5 MB with "));
    assert_null(strstr(text, "Messages"));
    assert_null(strstr(text, "TLS"));
    free(p.text);
    text = device_page("{\"name\": \"10.0.0.9\", \"state\": \"test\", \"messages\": 0, \"quirks\": "
                       "[{\"name\": \"no_helo\", \"words\": \"no HELO\", \"remedy\": \"\"}]}",
                       &p);
    assert_non_null(strstr(text, "Quirk       no_helo: no HELO\n"));
    free(p.text);
    text = device_page("{\"name\": \"10.0.0.9\", \"state\": \"ok\", \"rules\": {\"allowed\": "
                       "false}}",
                       &p);
    assert_non_null(strstr(text, "Rules       [devices]; it has no [device] section of its own\n"
                                 "            its address is not allowed any more"));
    free(p.text);
}

static char *transcripts_page(const char *json, struct paper *p)
{
    cJSON *answer = cJSON_Parse(json);

    assert_non_null(answer);
    paper_open(p);
    page_transcripts(p->file, answer, NOW);
    (void)paper_read(p);
    cJSON_Delete(answer);
    return p->text;
}

static void the_newest_transcript_stands_last_and_cannot_drive_the_terminal(void **state)
{
    struct paper p;
    char *text = transcripts_page(
        "{\"name\": \"copier\", \"transcripts\": ["
        "{\"ended\": \"2024-05-06T05:12:00Z\", \"age\": 7200, \"text\": \" 0.001 << 220 a\\n\\n "
        "0.2 "
        ">> \\u001b]0;x\\u0007\\u009b2J\"}, "
        "{\"ended\": \"2024-05-03T05:12:00Z\", \"age\": 260000, \"text\": \" 0.001 -- old\\n\"}]}",
        &p);

    (void)state;
    assert_string_equal(text, "Session that ended 3 May 05:12, 3 d ago:\n"
                              " 0.001 -- old\n"
                              "\n"
                              "Session that ended 05:12, 2 h ago:\n"
                              " 0.001 << 220 a\n"
                              "\n"
                              " 0.2 >> ?]0;x??2J\n");
    free(p.text);
    text = transcripts_page("{\"name\": \"copier\", \"transcripts\": []}", &p);
    assert_string_equal(text, "No transcript is kept of device copier\n");
    free(p.text);
}

/* ---- the HTTP client, against a server that says what it is told ------------------------------
 */

struct server {
    char dir[64];
    char socket[96];
    int fd;
    pthread_t thread;
    const char *answer;
    bool linger; /* keeps the connection open instead of closing it */
    char request[512];
};

static void *serve(void *arg)
{
    struct server *s = arg;
    int fd = accept(s->fd, NULL, NULL);
    ssize_t n = recv(fd, s->request, sizeof(s->request) - 1, 0);

    if (n > 0)
        s->request[n] = '\0';
    (void)send(fd, s->answer, strlen(s->answer), MSG_NOSIGNAL);
    /* Until the client has gone. */
    if (s->linger)
        (void)recv(fd, &(char){0}, 1, 0);
    close(fd);
    return NULL;
}

static void server_start(struct server *s, const char *answer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    *s = (struct server){.answer = answer};
    snprintf(s->dir, sizeof(s->dir), "/tmp/test_tool.XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->socket, sizeof(s->socket), "%s/s", s->dir);
    memcpy(address.sun_path, s->socket, strlen(s->socket) + 1);
    s->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(s->fd, 1), 0);
}

static void server_run(struct server *s)
{
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(struct server *s)
{
    pthread_join(s->thread, NULL);
    close(s->fd);
    unlink(s->socket);
    rmdir(s->dir);
}

static void an_answer_is_its_status_and_exactly_its_length(void **state)
{
    struct server s;
    struct http_request request = {.socket = s.socket, .method = "GET", .path = "/v1/status"};
    struct http_answer answer;
    struct error err = ERROR_INIT;

    (void)state;
    server_start(&s, "HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\nhello and more");
    server_run(&s);
    assert_true(http_ask(&request, &answer, &err));
    server_stop(&s);
    assert_int_equal(answer.status, 404);
    assert_int_equal(answer.length, 5);
    assert_int_equal(answer.body.len, 5);
    assert_memory_equal(answer.body.data, "hello", 5);
    assert_int_equal(strncmp(s.request, "GET /v1/status HTTP/1.1\r\n", 25), 0);
    http_answer_done(&answer);
}

static void answers_that_are_not_whole_or_not_http_are_errors(void **state)
{
    static const struct {
        const char *name, *answer;
    } rows[] = {
        {"cut short", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"},
        {"no answer", ""},
        {"head cut short", "HTTP/1.1 200 OK\r\nContent-"},
        {"no length", "HTTP/1.1 200 OK\r\n\r\nhello"},
        {"length is no number", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello"},
        {"length with a tail", "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello"},
        {"another protocol", "220 mail.example ESMTP\r\n\r\n"},
        {"no status", "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct http_request request = {.socket = s.socket, .method = "GET", .path = "/"};
        struct http_answer answer;
        struct error err = ERROR_INIT;

        server_start(&s, rows[i].answer);
        server_run(&s);
        if (http_ask(&request, &answer, &err) || err.kind != ERROR_DAMAGED)
            fail_msg("%s: %s", rows[i].name, err.text);
        server_stop(&s);
        http_answer_done(&answer);
    }
}

static void a_daemon_that_does_not_answer_is_not_waited_for_for_ever(void **state)
{
    struct server s;
    struct http_request request = {
        .socket = s.socket, .method = "GET", .path = "/", .timeout_ms = 50};
    struct http_answer answer;
    struct error err = ERROR_INIT;

    (void)state;
    server_start(&s, "HTTP/1.1 200 OK\r\n");
    s.linger = true;
    server_run(&s);
    assert_false(http_ask(&request, &answer, &err));
    assert_int_equal(err.kind, ERROR_BUSY);
    server_stop(&s);
    http_answer_done(&answer);
}

static void a_refusal_keeps_the_words_and_the_kind_of_the_daemon(void **state)
{
    struct server s;
    struct error err = ERROR_INIT;

    (void)state;
    server_start(&s, "HTTP/1.1 409 Conflict\r\nContent-Length: 59\r\n\r\n"
                     "{\"error\": {\"kind\": \"busy\", \"text\": \"it is being sent now\"}}");
    server_run(&s);
    assert_null(client_ask(s.socket, "POST", "/", &err));
    server_stop(&s);
    assert_int_equal(err.kind, ERROR_BUSY);
    assert_string_equal(err.text, "it is being sent now");
}

static void a_socket_nobody_listens_on_means_that_the_daemon_is_down(void **state)
{
    struct server s;

    (void)state;
    server_start(&s, "");
    close(s.fd);
    assert_int_equal(client_probe(s.socket), CLIENT_DOWN);
    unlink(s.socket);
    assert_int_equal(client_probe(s.socket), CLIENT_DOWN);
    rmdir(s.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_said_as_people_say_them),
        cmocka_unit_test(spans_have_at_most_two_units),
        cmocka_unit_test(counts_are_grouped),
        cmocka_unit_test(the_date_is_left_out_today),
        cmocka_unit_test(text_from_the_network_cannot_drive_the_terminal),
        cmocka_unit_test(text_is_cut_between_characters),
        cmocka_unit_test(columns_align_and_lines_do_not_end_in_blanks),
        cmocka_unit_test(long_text_wraps_under_its_label),
        cmocka_unit_test(a_working_relay_is_said_to_work_in_the_first_line),
        cmocka_unit_test(problems_come_first_and_with_their_remedy),
        cmocka_unit_test(a_mailbox_that_has_to_wait_is_named_at_once),
        cmocka_unit_test(a_mailbox_that_no_mail_waits_for_is_not_blamed),
        cmocka_unit_test(a_minute_without_a_limit_is_left_out_and_a_guess_is_called_one),
        cmocka_unit_test(the_last_line_of_a_list_says_how_many_there_are),
        cmocka_unit_test(what_messages_wait_for_is_said_once_in_a_row),
        cmocka_unit_test(a_message_says_why_a_recipient_failed_and_what_to_do),
        cmocka_unit_test(a_message_says_what_it_waits_for),
        cmocka_unit_test(units_follow_their_numbers),
        cmocka_unit_test(a_forecast_is_shown_where_there_is_one),
        cmocka_unit_test(errors_are_json_for_programs_and_words_for_people),
        cmocka_unit_test(an_empty_list_is_said_to_be_empty),
        cmocka_unit_test(devices_that_need_attention_stand_first),
        cmocka_unit_test(a_list_of_devices_fits_a_terminal),
        cmocka_unit_test(a_device_is_told_in_plain_words),
        cmocka_unit_test(a_device_that_was_never_seen_shows_what_will_apply),
        cmocka_unit_test(the_newest_transcript_stands_last_and_cannot_drive_the_terminal),
        cmocka_unit_test(an_answer_is_its_status_and_exactly_its_length),
        cmocka_unit_test(answers_that_are_not_whole_or_not_http_are_errors),
        cmocka_unit_test(a_daemon_that_does_not_answer_is_not_waited_for_for_ever),
        cmocka_unit_test(a_refusal_keeps_the_words_and_the_kind_of_the_daemon),
        cmocka_unit_test(a_socket_nobody_listens_on_means_that_the_daemon_is_down),
    };

    setenv("TZ", "UTC", 1);
    tzset();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
