/* What dialogues (tests/dialogs/) cannot say: effects, answers that are due, phases, limits. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/intake/server_fsm.h"
#include "tests/unit/session_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define TO_DATA    "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
#define OK_TO_DATA "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"

static void begin(struct session_driver *d)
{
    struct server_settings settings = driver_settings();

    driver_init(d, &settings);
    assert_string_equal(driver_heard(d), "220 relay.example ESMTP Outtray\r\n");
}

static void the_commit_and_nothing_else_sends_the_250(void **state)
{
    struct session_driver d;

    (void)state;
    begin(&d);
    d.by_hand = true;
    driver_text(&d, TO_DATA "Subject: x\r\n\r\ny\r\n.\r\nNOOP\r\n");
    assert_string_equal(driver_heard(&d), OK_TO_DATA);
    assert_true(server_fsm_is_waiting(d.fsm));
    assert_string_equal(bytes_string(&d.input), "NOOP\r\n"); /* stays with the caller */
    driver_text(&d, "NOOP\r\n");
    assert_string_equal(driver_heard(&d), "");
    assert_int_equal(d.commits, 0);
    driver_committed(&d);
    assert_string_equal(driver_heard(&d), "250 2.0.0 Ok: queued as 4f2a\r\n"
                                          "250 2.0.0 Ok\r\n250 2.0.0 Ok\r\n");
    driver_done(&d);
}

static void nothing_is_consumed_while_an_answer_is_due(void **state)
{
    static const char text[] = TO_DATA "x";
    struct server_settings settings = driver_settings();
    struct server_fsm *f = server_fsm_new(&settings);
    struct server_effect effect;
    size_t at = 0;
    size_t used;

    (void)state;
    server_fsm_start(f, &effect);
    do {
        server_fsm_step(f, (const uint8_t *)text + at, strlen(text) - at, 0, &used, &effect);
        at += used;
    } while (effect.kind == SERVER_REPLY);
    assert_int_equal(effect.kind, SERVER_OPEN);
    assert_int_equal(at, strlen(TO_DATA));
    assert_true(server_fsm_is_waiting(f));
    server_fsm_step(f, (const uint8_t *)"x", 1, 0, &used, &effect);
    assert_int_equal(effect.kind, SERVER_NOTHING);
    assert_int_equal(used, 0);
    server_fsm_opened(f, 1, NULL, &effect);
    assert_int_equal(effect.kind, SERVER_REPLY);
    assert_memory_equal(effect.text, "354 ", 4);
    assert_false(server_fsm_is_waiting(f));
    server_fsm_free(f);
}

/* The caller may pause behind any effect, and is called again only when input is left. */
static void what_is_due_leaves_an_octet_of_the_input(void **state)
{
    static const char filler[] = "X-Filler: 0123456789012345678901234567890123456789\r\n";
    struct session_driver d;
    struct bytes mail;
    size_t sent = 0;

    (void)state;
    begin(&d);
    bytes_init(&mail, 1 << 20);
    for (size_t i = 0; i < 4000; i++)
        assert_true(bytes_append(&mail, filler, sizeof(filler) - 1));
    assert_true(bytes_text(&mail, "\r\nbody\r\n.\r\n"));
    driver_text(&d, TO_DATA);
    (void)driver_heard(&d);
    /* The driver asserts that an input used up has no effect behind it. */
    for (size_t step = 1; sent < mail.len; step = step * 3 % 65521) {
        size_t n = step < mail.len - sent ? step : mail.len - sent;

        driver_feed(&d, mail.data + sent, n);
        sent += n;
    }
    assert_string_equal(driver_heard(&d), "250 2.0.0 Ok: queued as 4f2a\r\n");
    assert_true(d.stores > 10);
    assert_memory_equal(d.content.data + d.content.len - 8, "\r\nbody\r\n", 8);
    bytes_done(&mail);
    driver_done(&d);
}

static void a_large_mail_is_stored_octet_for_octet(void **state)
{
    static const size_t pieces[] = {1448, 16384, 65536, 1000003};
    enum { SIZE = 3 << 20 };
    char *body = malloc(SIZE);

    (void)state;
    assert_non_null(body);
    for (size_t i = 0; i < SIZE; i += 64) {
        for (size_t k = 0; k < 62; k++)
            body[i + k] = (char)('A' + (i / 64 * 7 + k) % 26);
        body[i + 62] = '\r';
        body[i + 63] = '\n';
    }
    for (size_t i = 0; i < COUNT(pieces); i++) {
        struct session_driver d;

        begin(&d);
        driver_text(&d, TO_DATA "Subject: scan\r\n\r\n");
        for (size_t at = 0; at < SIZE; at += pieces[i])
            driver_feed(&d, body + at, pieces[i] < SIZE - at ? pieces[i] : SIZE - at);
        driver_text(&d, ".\r\n");
        assert_int_equal(d.commits, 1);
        assert_true(d.content.len > SIZE);
        assert_memory_equal(d.content.data + d.content.len - SIZE, body, SIZE);
        assert_int_equal(server_fsm_envelope(d.fsm)->size, d.content.len);
        assert_int_equal(server_fsm_envelope(d.fsm)->header_size, d.content.len - SIZE);
        driver_done(&d);
    }
    free(body);
}

static void the_envelope_is_whole_at_the_commit_and_stays(void **state)
{
    struct session_driver d;
    struct envelope *e;

    (void)state;
    begin(&d);
    d.by_hand = true;
    driver_text(&d, "EHLO printer\r\n" TO_DATA
                    "Message-ID: (old) <1@x> \r\nSubject:\r\n long  one \r\n\r\n.\r\n");
    e = server_fsm_envelope(d.fsm);
    assert_string_equal(e->reverse_path, "a@b.example");
    assert_int_equal(e->recipient_count, 1);
    assert_string_equal(e->recipients[0].forward_path, "c@d.example");
    assert_string_equal(e->device, "copier");
    assert_string_equal(e->client, "192.168.1.21");
    assert_string_equal(e->listener, "lan");
    assert_string_equal(e->helo, "printer");
    assert_string_equal(e->message_id, "<1@x>");
    assert_string_equal(e->subject, "long  one");
    assert_string_equal(e->repairs, "no_date,no_from,no_to");
    assert_true(e->arrived_ms == DRIVER_WALL_MS);
    assert_int_equal(e->size, d.content.len);
    assert_true(envelope_set(&e->route, "default")); /* the caller's part */
    driver_committed(&d);
    assert_string_equal(server_fsm_envelope(d.fsm)->reverse_path, "a@b.example");
    driver_text(&d, "RSET\r\n");
    assert_int_equal(server_fsm_envelope(d.fsm)->recipient_count, 0);
    driver_text(&d, "MAIL FROM:<>\r\n");
    assert_string_equal(server_fsm_envelope(d.fsm)->route, "");
    driver_done(&d);
}

static void a_subject_is_cut_for_people(void **state)
{
    struct session_driver d;
    char text[700] = "Subject: ";

    (void)state;
    begin(&d);
    memset(text + 9, 's', 500);
    snprintf(text + 509, sizeof(text) - 509, "\r\n\r\n.\r\n");
    driver_text(&d, TO_DATA);
    driver_text(&d, text);
    assert_int_equal(strlen(server_fsm_envelope(d.fsm)->subject), SERVER_SUBJECT_MAX);
    strcpy(text + 509, "\r\n"); /* the mail has all of it */
    assert_non_null(strstr(bytes_string(&d.content), text));
    driver_done(&d);
}

static void a_header_too_large_passes_and_is_marked(void **state)
{
    static const char filler[] = "X-Filler: 0123456789012345678901234567890123456789\r\n";
    struct session_driver d;

    (void)state;
    begin(&d);
    driver_text(&d, TO_DATA "Subject: x\r\n");
    for (size_t i = 0; i < 6000; i++)
        driver_text(&d, filler);
    driver_text(&d, "\r\nbody\r\n.\r\n");
    assert_int_equal(d.commits, 1);
    assert_int_equal(server_fsm_envelope(d.fsm)->header_size, 0);
    assert_string_equal(server_fsm_envelope(d.fsm)->repairs, "header_too_large");
    assert_string_equal(server_fsm_envelope(d.fsm)->subject, "x");
    assert_null(strstr(bytes_string(&d.content), "Message-ID:"));
    assert_memory_equal(d.content.data, "Received: ", 10);
    driver_done(&d);
}

/* All of it has to be held until it is known to be body. */
static void many_empty_lines_before_text_are_body(void **state)
{
    enum { LINES = 50000 };
    struct session_driver d;

    (void)state;
    begin(&d);
    driver_text(&d, TO_DATA);
    for (size_t i = 0; i < LINES; i++)
        driver_text(&d, "\r\n");
    driver_text(&d, "Paper jam\r\n.\r\n");
    assert_int_equal(d.commits, 1);
    assert_int_equal(d.content.len - server_fsm_envelope(d.fsm)->header_size,
                     (LINES - 1) * 2 + strlen("Paper jam\r\n"));
    assert_memory_equal(server_fsm_envelope(d.fsm)->repairs, "no_header,", 10);
    driver_done(&d);
}

static void raw_binary_data_is_given_up_wherever_it_comes(void **state)
{
    static const char begins[] = TO_DATA "Content-Type: image/tiff\r\n\r\n";
    char *text = malloc(100000);

    (void)state;
    assert_non_null(text);
    memset(text, 'x', 100000);
    for (size_t at = 0; at < 100000; at += 9999) {
        struct session_driver d;

        begin(&d);
        driver_text(&d, begins);
        (void)driver_heard(&d);
        driver_feed(&d, text, at);
        driver_feed(&d, "", 1);
        driver_feed(&d, text, 100000 - at);
        assert_int_equal(d.discards, 1);
        driver_text(&d, "\r\n.\r\n");
        assert_memory_equal(driver_heard(&d), "554 5.6.1 ", 10);
        assert_int_equal(d.commits, 0);
        assert_true(server_fsm_is_idle(d.fsm));
        driver_done(&d);
    }
    free(text);
}

static void phases_and_predicates_follow_the_session(void **state)
{
    static const struct {
        const char *send;
        const char *phase;
        bool idle;
        bool in_mail_data;
        bool waiting;
    } rows[] = {
        {"", "waiting for a command", true, false, false},
        {"EHLO x\r\n", "waiting for a command", true, false, false},
        {"MAIL FROM:<a@b.example>\r\n", "waiting for a recipient", false, false, false},
        {"RCPT TO:<c@d.example>\r\n", "waiting for a recipient or DATA", false, false, false},
        {"DATA\r\n", "receiving mail data", false, false, false},
        {"S", "receiving mail data", false, true, false},
        {"ubject: x\r\n\r\n.\r\n", "making the message durable", false, true, true},
    };
    struct session_driver d;

    (void)state;
    begin(&d);
    d.by_hand = true;
    for (size_t i = 0; i < COUNT(rows); i++) {
        driver_text(&d, rows[i].send);
        assert_string_equal(server_fsm_phase(d.fsm), rows[i].phase);
        assert_int_equal(server_fsm_is_idle(d.fsm), rows[i].idle);
        assert_int_equal(server_fsm_in_mail_data(d.fsm), rows[i].in_mail_data);
        assert_int_equal(server_fsm_is_waiting(d.fsm), rows[i].waiting);
    }
    driver_committed(&d);
    assert_true(server_fsm_is_idle(d.fsm));
    assert_false(server_fsm_in_mail_data(d.fsm));
    driver_text(&d, "QUIT\r\n");
    assert_true(d.closed);
    assert_string_equal(server_fsm_phase(d.fsm), "quit");
    driver_done(&d);
}

static void a_shut_session_says_why_and_does_no_more(void **state)
{
    static const char *const before[] = {"", "MAIL FROM:<a@b.example>\r\n", TO_DATA,
                                         TO_DATA "Subject: x\r\n\r\nhalf",
                                         TO_DATA "Subject: x\r\n\r\n.\r\n"};

    (void)state;
    for (size_t i = 0; i < COUNT(before); i++) {
        struct session_driver d;
        struct server_effect effect;
        size_t used;

        begin(&d);
        d.by_hand = true;
        driver_text(&d, before[i]);
        server_fsm_shut(d.fsm, "4.3.2", "No input for 5 minutes", &effect);
        assert_int_equal(effect.kind, SERVER_CLOSE);
        assert_int_equal(effect.text_len,
                         strlen("421 4.3.2 relay.example No input for 5 minutes\r\n"));
        assert_memory_equal(effect.text, "421 4.3.2 relay.example No input for 5 minutes\r\n",
                            effect.text_len);
        assert_string_equal(server_fsm_phase(d.fsm), "No input for 5 minutes");
        assert_false(server_fsm_is_waiting(d.fsm));
        assert_false(server_fsm_in_mail_data(d.fsm));
        server_fsm_step(d.fsm, (const uint8_t *)"NOOP\r\n", 6, 0, &used, &effect);
        assert_int_equal(effect.kind, SERVER_NOTHING);
        assert_int_equal(used, 6);
        server_fsm_committed(d.fsm, 1, NULL, &effect); /* comes late: nobody hears it */
        assert_int_equal(effect.kind, SERVER_NOTHING);
        server_fsm_shut(d.fsm, "4.3.2", "again", &effect);
        assert_int_equal(effect.kind, SERVER_NOTHING);
        driver_done(&d);
    }
}

static void a_store_that_failed_is_refused_at_the_end_only(void **state)
{
    struct session_driver d;
    struct error err = ERROR_INIT;

    (void)state;
    begin(&d);
    driver_text(&d, TO_DATA "Subject: x\r\n\r\nhalf");
    (void)driver_heard(&d);
    error_set(&err, ERROR_SHARE, "the waiting mail of printer has reached its share");
    server_fsm_store_failed(d.fsm, &err);
    d.message_open = false;
    assert_true(server_fsm_in_mail_data(d.fsm));
    assert_string_equal(server_fsm_phase(d.fsm), "receiving mail data that will be refused");
    driver_text(&d, " and half\r\n");
    assert_string_equal(driver_heard(&d), "");
    driver_text(&d, ".\r\nNOOP\r\n");
    assert_string_equal(driver_heard(&d), "452 4.3.1 Too much mail of this device waits at the "
                                          "relay (max_spool); send later\r\n250 2.0.0 Ok\r\n");
    assert_int_equal(d.discards, 0); /* the caller has aborted it */
    assert_int_equal(d.commits, 0);
    driver_done(&d);
}

static void a_fragment_is_noted_where_split_mail_is_joined(void **state)
{
    static const struct {
        const char *type;
        bool join;
        bool noted;
    } rows[] = {
        {"message/partial;\r\n id=\"x@y\"; number=2;\r\n total=3", true, true},
        {"message/partial;\r\n id=\"x@y\"; number=2;\r\n total=3", false, false},
        {"message/partial; number=2; total=3", true, false},
        {"text/plain", true, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct server_settings settings = driver_settings();
        struct session_driver d;
        char text[256];
        const char *e;

        settings.join_split = rows[i].join;
        driver_init(&d, &settings);
        snprintf(text, sizeof(text), TO_DATA "Content-Type: %s\r\n\r\nx\r\n.\r\n", rows[i].type);
        driver_text(&d, text);
        e = bytes_string(&d.envelope);
        assert_int_equal(d.commits, 1);
        assert_int_equal(strstr(e, "\npartial-number: 2\n") != NULL, rows[i].noted);
        assert_int_equal(strstr(e, "\npartial-total: 3\n") != NULL, rows[i].noted);
        assert_int_equal(strstr(e, "\npartial-id: x@y\n") != NULL, rows[i].noted);
        driver_text(&d, TO_DATA "Subject: the next\r\n\r\nx\r\n.\r\n");
        assert_null(strstr(bytes_string(&d.envelope), "partial"));
        driver_done(&d);
    }
}

static void what_was_announced_is_known_in_its_transaction(void **state)
{
    struct session_driver d;

    (void)state;
    begin(&d);
    assert_int_equal(server_fsm_announced(d.fsm), 0);
    driver_text(&d, "MAIL FROM:<a@b.example> SIZE=12345\r\n");
    assert_int_equal(server_fsm_announced(d.fsm), 12345);
    driver_text(&d, "RSET\r\nMAIL FROM:<a@b.example>\r\n");
    assert_int_equal(server_fsm_announced(d.fsm), 0);
    driver_done(&d);
}

static void mail_over_the_limit_is_given_up_at_once(void **state)
{
    struct server_settings settings = driver_settings();
    struct session_driver d;
    char kilo[1024];

    (void)state;
    memset(kilo, 'x', sizeof(kilo));
    settings.max_size = 100 * sizeof(kilo);
    driver_init(&d, &settings);
    driver_text(&d, TO_DATA "Subject: x\r\n\r\n");
    (void)driver_heard(&d);
    for (size_t i = 0; i < 99; i++)
        driver_feed(&d, kilo, sizeof(kilo));
    assert_int_equal(d.discards, 0);
    driver_feed(&d, kilo, sizeof(kilo));
    assert_int_equal(d.discards, 1);
    assert_string_equal(driver_heard(&d), "");
    for (size_t i = 0; i < 900; i++)
        driver_feed(&d, kilo, sizeof(kilo));
    driver_text(&d, "\r\n.\r\n");
    assert_memory_equal(driver_heard(&d), "552 5.3.4 Message too large: the limit is 100 KB;", 48);
    driver_done(&d);
}

static void mail_of_exactly_the_limit_passes(void **state)
{
    struct server_settings settings = driver_settings();
    static const char text[] = "Subject: x\r\n\r\n0123456789\r\n";

    (void)state;
    for (size_t less = 0; less < 2; less++) {
        struct session_driver d;

        settings.max_size = strlen(text) - less;
        driver_init(&d, &settings);
        driver_text(&d, TO_DATA);
        driver_text(&d, text);
        driver_text(&d, ".\r\n");
        assert_int_equal(d.commits, less == 0 ? 1 : 0);
        driver_done(&d);
    }
}

static void without_a_limit_any_size_is_taken(void **state)
{
    struct server_settings settings = driver_settings();
    struct session_driver d;

    (void)state;
    settings.max_size = 0;
    driver_init(&d, &settings);
    driver_text(&d, "EHLO x\r\nMAIL FROM:<a@b.example> SIZE=99999999999\r\n");
    assert_non_null(strstr(driver_heard(&d), "250-SIZE 0\r\n"));
    assert_string_equal(server_fsm_phase(d.fsm), "waiting for a recipient");
    driver_done(&d);
}

static void refused_mail_data_that_never_ends_ends_the_session(void **state)
{
    enum { MEGA = 1 << 20 };
    struct server_settings settings = driver_settings();
    struct session_driver d;
    char *mega = malloc(MEGA);
    size_t sent = 0;

    (void)state;
    assert_non_null(mega);
    memset(mega, 'x', MEGA);
    memset(mega, '\r', MEGA / 16); /* consumed without any output */
    settings.max_size = 10;
    driver_init(&d, &settings);
    driver_text(&d, TO_DATA "0123456789012345678901234567890123456789\r\n");
    (void)driver_heard(&d);
    assert_int_equal(d.discards, 1);
    for (; !d.closed && sent < 2 * SERVER_SWALLOW_MAX; sent += MEGA)
        driver_feed(&d, mega, MEGA);
    assert_true(d.closed);
    assert_in_range(sent, SERVER_SWALLOW_MAX, SERVER_SWALLOW_MAX + 2 * MEGA);
    assert_memory_equal(driver_heard(&d), "552 5.3.4 ", 10);
    assert_string_equal(server_fsm_phase(d.fsm), "refused mail data did not end");
    free(mega);
    driver_done(&d);
}

static void bad_commands_are_forgiven_by_a_mail(void **state)
{
    struct session_driver d;

    (void)state;
    begin(&d);
    for (size_t i = 0; i < SERVER_BAD_COMMANDS_MAX; i++)
        driver_text(&d, "BAD\r\n");
    driver_text(&d, TO_DATA ".\r\n");
    assert_int_equal(d.commits, 1);
    for (size_t i = 0; i < SERVER_BAD_COMMANDS_MAX; i++)
        driver_text(&d, "BAD\r\n");
    assert_false(d.closed);
    driver_text(&d, "BAD\r\n");
    assert_true(d.closed);
    assert_string_equal(server_fsm_phase(d.fsm), "too many bad commands");
    driver_done(&d);
}

static void refused_recipients_are_no_bad_commands(void **state)
{
    struct session_driver d;

    (void)state;
    begin(&d);
    driver_text(&d, "MAIL FROM:<a@b.example>\r\n");
    for (size_t i = 0; i < 50; i++)
        driver_text(&d, "RCPT TO:<nobody>\r\n");
    assert_false(d.closed);
    driver_text(&d, "RCPT TO:<c@d.example>\r\n");
    assert_string_equal(server_fsm_phase(d.fsm), "waiting for a recipient or DATA");
    driver_done(&d);
}

static void a_name_of_any_length_is_kept_to_255(void **state)
{
    struct session_driver d;
    char line[2000] = "HELO ";

    (void)state;
    begin(&d);
    memset(line + 5, 'h', 1500);
    strcpy(line + 1505, "\r\n");
    driver_text(&d, line);
    driver_text(&d, TO_DATA ".\r\n");
    assert_int_equal(strlen(server_fsm_envelope(d.fsm)->helo), SERVER_HELO_MAX);
    assert_memory_equal(d.content.data, "Received: from [192.168.1.21] (", 31);
    driver_done(&d);
}

static void local_time_is_shown_where_it_is_known(void **state)
{
    struct server_settings settings = driver_settings();
    struct session_driver d;

    (void)state;
    settings.utc_offset_minutes = -210;
    driver_init(&d, &settings);
    driver_text(&d, TO_DATA ".\r\n");
    assert_non_null(strstr(bytes_string(&d.content), "\tFri, 4 Jul 2025 06:30:00 -0330\r\n"));
    assert_non_null(
        strstr(bytes_string(&d.content), "\r\nDate: Fri, 4 Jul 2025 06:30:00 -0330\r\n"));
    driver_done(&d);
}

static void as_many_recipients_as_an_envelope_holds(void **state)
{
    struct server_settings settings = driver_settings();
    struct session_driver d;

    (void)state;
    settings.max_recipients = 100000;
    driver_init(&d, &settings);
    driver_text(&d, "MAIL FROM:<a@b.example>\r\n");
    (void)driver_heard(&d);
    for (unsigned i = 0; i <= ENVELOPE_RECIPIENTS_MAX; i++) {
        char line[64];

        snprintf(line, sizeof(line), "RCPT TO:<user%u@d.example>\r\n", i);
        driver_text(&d, line);
        assert_memory_equal(driver_heard(&d),
                            i < ENVELOPE_RECIPIENTS_MAX ? "250 2.1.5 " : "452 4.5.3 ", 10);
    }
    driver_done(&d);
}

/* Every way a peer may cut and garble a session: no assertion of the driver may fail. */
static void random_octets_break_nothing(void **state)
{
    static const char *const pieces[] = {"MAIL FROM:<a@b.example>\r\n",
                                         "RCPT TO:<c@d.example>\r\n",
                                         "DATA\r\n",
                                         "\r\n",
                                         ".\r\n",
                                         "\r",
                                         "\n",
                                         ".",
                                         "Received: x\r\n",
                                         "Subject: y\r\n",
                                         "RSET\r\n",
                                         "EHLO x\r\n",
                                         "text",
                                         "\r\n.\r\n",
                                         "\xff",
                                         " ",
                                         "BDAT 1\r\n",
                                         "BDAT 20\r\n",
                                         "BDAT 0\r\n",
                                         "BDAT 3 LAST\r\n",
                                         "BDAT 0 LAST\r\n",
                                         "AUTH LOGIN\r\n",
                                         "*\r\n",
                                         "x:"};
    struct server_settings settings = driver_settings();
    uint32_t seed = 1;
    unsigned commits = 0;

    (void)state;
    settings.max_size = 200;
    for (size_t round = 0; round < 3000; round++) {
        struct session_driver d;

        driver_init(&d, &settings);
        driver_text(&d, TO_DATA);
        for (size_t i = 0; i < 40 && !d.closed; i++) {
            seed = seed * 1664525 + 1013904223;
            if ((seed >> 8) % 97 == 0)
                error_set(&d.store_fault, ERROR_IO, "write");
            driver_text(&d, pieces[(seed >> 16) % COUNT(pieces)]);
        }
        commits += d.commits;
        driver_done(&d);
    }
    assert_true(commits > 50);
}

/* ---- signing in ------------------------------------------------------------------------------ */

/* Feeds a line to a machine whose shell is this test. */
static void send_line(struct server_fsm *f, const char *line, struct server_effect *out)
{
    size_t used;

    server_fsm_step(f, (const uint8_t *)line, strlen(line), 0, &used, out);
    assert_int_equal(used, strlen(line));
}

static struct server_fsm *fsm_with(enum config_login auth)
{
    struct server_settings settings = driver_settings();
    struct server_fsm *f;

    settings.auth = auth;
    f = server_fsm_new(&settings);
    assert_non_null(f);
    return f;
}

static void a_login_is_handed_out_decoded_and_then_forgotten(void **state)
{
    static const char said[] = "\0camera\0secret";
    struct server_fsm *f = fsm_with(CONFIG_LOGIN_OPTIONAL);
    struct server_effect effect;

    (void)state;
    send_line(f, "auth plain AGNhbWVyYQBzZWNyZXQ=\r\n", &effect);
    assert_int_equal(effect.kind, SERVER_AUTH);
    assert_string_equal(effect.text, "PLAIN");
    assert_int_equal(effect.data_len, sizeof(said) - 1);
    assert_memory_equal(effect.data, said, sizeof(said) - 1);
    assert_true(server_fsm_is_waiting(f));
    assert_true(server_fsm_is_idle(f));
    assert_string_equal(server_fsm_phase(f), "checking a login");
    server_fsm_checked(f, SERVER_CHECK_WRONG, NULL, &effect);
    assert_int_equal(effect.kind, SERVER_REPLY);
    assert_memory_equal(effect.text, "535 5.7.8 ", 10);
    server_fsm_checked(f, SERVER_CHECK_VERIFIED, NULL, &effect); /* nobody asked */
    assert_int_equal(effect.kind, SERVER_NOTHING);
    server_fsm_free(f);
}

static void nothing_said_and_an_empty_answer_are_two_things(void **state)
{
    struct server_fsm *f = fsm_with(CONFIG_LOGIN_OPTIONAL);
    struct server_effect effect;

    (void)state;
    send_line(f, "AUTH LOGIN\r\n", &effect);
    assert_int_equal(effect.kind, SERVER_AUTH);
    assert_null(effect.data);
    server_fsm_challenge(f, "Username:", 9, &effect);
    assert_memory_equal(effect.text, "334 VXNlcm5hbWU6\r\n", effect.text_len);
    assert_false(server_fsm_is_waiting(f));
    assert_string_equal(server_fsm_phase(f), "waiting for the rest of a login");
    send_line(f, "\r\n", &effect);
    assert_int_equal(effect.kind, SERVER_AUTH);
    assert_null(effect.text);
    assert_non_null(effect.data);
    assert_int_equal(effect.data_len, 0);
    server_fsm_checked(f, SERVER_CHECK_UNAVAILABLE, NULL, &effect);
    send_line(f, "AUTH LOGIN =\r\n", &effect);
    assert_string_equal(effect.text, "LOGIN");
    assert_non_null(effect.data);
    assert_int_equal(effect.data_len, 0);
    server_fsm_free(f);
}

static void a_check_that_comes_too_late_changes_nothing(void **state)
{
    const struct server_identity who = {.device = "d", .login = "l"};
    struct server_fsm *f = fsm_with(CONFIG_LOGIN_REQUIRED);
    struct server_effect effect;

    (void)state;
    send_line(f, "AUTH PLAIN =\r\n", &effect);
    assert_int_equal(effect.kind, SERVER_AUTH);
    server_fsm_shut(f, "4.3.2", "stopping", &effect);
    assert_int_equal(effect.kind, SERVER_CLOSE);
    server_fsm_checked(f, SERVER_CHECK_VERIFIED, &who, &effect);
    assert_int_equal(effect.kind, SERVER_NOTHING);
    server_fsm_challenge(f, "x", 1, &effect);
    assert_int_equal(effect.kind, SERVER_NOTHING);
    server_fsm_free(f);
}

static void a_login_changes_the_limits_to_those_of_its_device(void **state)
{
    struct server_settings settings = driver_settings();
    struct session_driver d;

    (void)state;
    settings.auth = CONFIG_LOGIN_REQUIRED;
    driver_init(&d, &settings);
    (void)driver_heard(&d);
    driver_text(&d, "AUTH PLAIN AGNhbWVyYQBrN21weDN3OXFk\r\n");
    assert_string_equal(driver_heard(&d), "235 2.7.0 Authentication successful\r\n");
    driver_text(&d, "MAIL FROM:<a@b.example> SIZE=1048577\r\n");
    assert_memory_equal(driver_heard(&d), "552 5.3.4 ", 10);
    driver_text(&d, "MAIL FROM:<a@b.example> SIZE=1048576 MT-PRIORITY=-1\r\n");
    assert_true(server_fsm_has_lane(d.fsm));
    assert_int_equal(server_fsm_envelope(d.fsm)->lane, LANE_BULK);
    driver_text(&d, "RCPT TO:<a@b.example>\r\nRCPT TO:<b@b.example>\r\n");
    (void)driver_heard(&d);
    driver_text(&d, "RCPT TO:<c@b.example>\r\n");
    assert_memory_equal(driver_heard(&d), "452 4.5.3 Too many recipients: 2 ", 33);
    driver_text(&d, "MAIL FROM:<a@b.example>\r\n");
    assert_false(server_fsm_has_lane(d.fsm));
    driver_done(&d);
}

/* ---- chunks and silence ---------------------------------------------------------------------- */

static void chunks_are_mail_data_until_their_answer(void **state)
{
    struct session_driver d;

    (void)state;
    begin(&d);
    d.by_hand = true;
    driver_text(&d, "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 4\r\nS");
    assert_true(server_fsm_in_mail_data(d.fsm));
    assert_string_equal(server_fsm_phase(d.fsm), "receiving mail data");
    driver_text(&d, ": x");
    assert_true(server_fsm_in_mail_data(d.fsm));
    assert_false(server_fsm_is_idle(d.fsm));
    assert_string_equal(server_fsm_phase(d.fsm), "waiting for the next chunk of mail data");
    driver_text(&d, "BDAT 0 LAST\r\nNOOP\r\n");
    assert_true(server_fsm_is_waiting(d.fsm));
    (void)driver_heard(&d);
    driver_committed(&d);
    assert_string_equal(driver_heard(&d), "250 2.0.0 Ok: queued as 4f2a\r\n250 2.0.0 Ok\r\n");
    driver_done(&d);
}

/* Input that is used up must not hide an effect: the caller may pause behind any of them. */
static void a_large_mail_in_chunks_is_stored_octet_for_octet(void **state)
{
    static const char line[] = "0123456789012345678901234567890123456789012345678901234567890\r\n";
    struct session_driver d;
    struct bytes mail;
    struct bytes wire;

    (void)state;
    for (size_t chunk = 1; chunk < 200000; chunk = chunk * 7 + 1) {
        begin(&d);
        bytes_init(&mail, 4 << 20);
        bytes_init(&wire, 64 << 20);
        assert_true(bytes_text(&mail, "Subject: x\r\nDate: Fri, 4 Jul 2025 10:00:00 +0000\r\n"
                                      "From: a@b.example\r\nTo: c@d.example\r\n"
                                      "Message-ID: <a@b>\r\n\r\n"));
        while (mail.len < (chunk < 100 ? 5000 : 300000))
            assert_true(bytes_text(&mail, line));
        for (size_t at = 0; at < mail.len; at += chunk) {
            size_t n = mail.len - at < chunk ? mail.len - at : chunk;

            assert_true(
                bytes_printf(&wire, "BDAT %zu%s\r\n", n, at + n == mail.len ? " LAST" : ""));
            assert_true(bytes_append(&wire, mail.data + at, n));
        }
        driver_text(&d, "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n");
        driver_feed(&d, wire.data, wire.len);
        assert_int_equal(d.commits, 1);
        assert_true(d.content.len > mail.len);
        assert_memory_equal(d.content.data + d.content.len - mail.len, mail.data, mail.len);
        bytes_done(&mail);
        bytes_done(&wire);
        driver_done(&d);
    }
}

static void silence_is_of_interest_only_behind_lf_dot_lf(void **state)
{
    struct session_driver d;
    struct server_effect effect;

    (void)state;
    begin(&d);
    assert_false(server_fsm_awaits_silence(d.fsm));
    driver_text(&d, TO_DATA);
    assert_false(server_fsm_awaits_silence(d.fsm));
    driver_text(&d, "Subject: x\n\ny\n.");
    assert_false(server_fsm_awaits_silence(d.fsm));
    driver_text(&d, "\n");
    assert_true(server_fsm_awaits_silence(d.fsm));
    server_fsm_silence(d.fsm, SERVER_LF_DOT_LF_MS - 1, 0, &effect);
    assert_int_equal(effect.kind, SERVER_NOTHING);
    driver_text(&d, "z");
    assert_false(server_fsm_awaits_silence(d.fsm));
    server_fsm_silence(d.fsm, SERVER_LF_DOT_LF_MS, 0, &effect);
    assert_int_equal(effect.kind, SERVER_NOTHING);
    driver_text(&d, "\n.\n");
    (void)driver_heard(&d);
    d.by_hand = true;
    driver_silence(&d, SERVER_LF_DOT_LF_MS);
    assert_true(server_fsm_is_waiting(d.fsm));
    driver_committed(&d);
    assert_string_equal(driver_heard(&d), "250 2.0.0 Ok: queued as 4f2a\r\n");
    assert_true(d.closed);
    assert_string_equal(server_fsm_phase(d.fsm), "LF . LF and silence");
    assert_memory_equal(d.content.data + d.content.len - 10, "\ny\r\n.\r\nz\r\n", 10);
    driver_done(&d);
}

static void what_a_device_does_otherwise_is_noted(void **state)
{
#define HELO "HELO x\r\n"
    static const struct {
        const char *session;
        const char *names;
    } rows[] = {
        {"", ""},
        {"QUIT\r\n", ""},
        {"EHLO printer.example\r\nMAIL FROM:<a@b.example> SIZE=99\r\nRCPT TO:<c@d.example>\r\n",
         ""},
        {"HELO NPI65E56\r\n" TO_DATA "x\r\n.\r\n" TO_DATA "x\r\n.\r\n", ""},
        {"HELO [192.168.1.21]\r\nHELO [IPv6:fd00::1]\r\n", ""},
        {"HELO x\n", "bare_lf_commands"},
        {"HELO x\r\r\n", ""},
        {"HELO\r\n", "helo_empty"},
        {"HELO my_printer\r\n", "helo_odd"},
        {"HELO 192.168.1.21\r\n", "helo_odd"},
        {"HELO printer.example.\r\n", "helo_odd"},
        {"HELO in the hall\r\n", "helo_odd"},
        {"MAIL FROM:<a@b.example>\r\n", "no_helo"},
        {HELO "MAIL FROM:<a@b.example>\r\nMAIL FROM:<a@b.example>\r\n", "second_mail"},
        {HELO "MAIL FROM:<a@b.example>\r\nRSET\r\nMAIL FROM:<a@b.example>\r\n", ""},
        {HELO "MAIL FROM:a@b.example\r\n", "no_brackets"},
        {HELO "MAIL FROM:<a@b.example>\r\nRCPT TO:c@d.example\r\n", "no_brackets"},
        {HELO "MAIL FROM: <a@b.example>\r\n", "space_in_path"},
        {HELO "MAIL FROM: a@b.example\r\n", "no_brackets,space_in_path"},
        {HELO "MAIL FROM:<a@b.example>\r\nRCPT TO: <c@d.example>\r\n", "space_in_path"},
        {HELO "MAIL FROM:<a@b.example> XVENDOR=1\r\n", "unknown_parameter"},
        {HELO "MAIL FROM:<a@b.example> AUTH=<> BODY=8BITMIME\r\n", ""},
        {HELO "MAIL FROM:<>\r\nRCPT TO:<c@d.example> NOTIFY=SOON\r\n", "unknown_parameter"},
        {"\r\n" HELO, "empty_lines"},
        {"XYZZY\r\n", "unknown_command"},
        {"EXPN staff\r\nHELP\r\n", ""},
        {HELO TO_DATA "EHLO\r\n\r\nXYZZY\r\n.\r\n", ""},
        {HELO "MAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<c@D.example>\r\n",
         "duplicate_recipient"},
        {"AUTH PLAIN Y2FtZXJh\r\n", "login_ignored"},
        {"AUTH PLAIN AGNhbWVyYQBrN21weDN3OXFk\r\n", ""},
        {"AUTH LOGIN\r\n*\r\n", ""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct session_driver d;
        char names[QUIRKS_TEXT_MAX];

        begin(&d);
        driver_text(&d, rows[i].session);
        quirks_names(server_fsm_quirks(d.fsm), names);
        if (strcmp(names, rows[i].names) != 0)
            fail_msg("\"%s\": %s, not %s", rows[i].session, names, rows[i].names);
        driver_done(&d);
    }
}

static void a_size_that_is_far_too_small_is_noted(void **state)
{
    static const struct {
        const char *mail;
        size_t octets;
        bool wrong;
    } rows[] = {{"MAIL FROM:<>\r\n", 100000, false},
                {"MAIL FROM:<> SIZE=100\r\n", 1000, false},
                {"MAIL FROM:<> SIZE=0\r\n", 5000, true},
                {"MAIL FROM:<> SIZE=60000\r\n", 100000, false},
                {"MAIL FROM:<> SIZE=40000\r\n", 100000, true},
                {"MAIL FROM:<> SIZE=200000\r\n", 1000, false}};

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct session_driver d;

        begin(&d);
        driver_text(&d, rows[i].mail);
        driver_text(&d, "RCPT TO:<c@d.example>\r\nDATA\r\n\r\n");
        for (size_t n = 0; n < rows[i].octets; n += 10)
            driver_text(&d, "12345678\r\n");
        driver_text(&d, ".\r\n");
        assert_int_equal(d.commits, 1);
        assert_int_equal(server_fsm_quirks(d.fsm) >> QUIRK_SIZE_WRONG & 1, rows[i].wrong);
        driver_done(&d);
    }
}

static void quirks_outlive_tls_and_transactions(void **state)
{
    struct server_settings settings = driver_settings();
    struct session_driver d;

    (void)state;
    settings.tls = SERVER_TLS_OFFERED;
    driver_init(&d, &settings);
    driver_text(&d, "HELO\r\nSTARTTLS\r\n");
    driver_secured(&d);
    assert_string_equal(server_fsm_helo(d.fsm), "");
    driver_text(&d, "EHLO x\r\nRSET\r\n");
    assert_true(server_fsm_quirks(d.fsm) == QUIRK_BIT(QUIRK_HELO_EMPTY));
    assert_string_equal(server_fsm_helo(d.fsm), "x");
    driver_done(&d);
}

static void a_name_behind_a_failed_login_is_not_told(void **state)
{
    static const struct {
        const char *said;
        const char *helo;
    } rows[] = {
        {"EHLO x\r\nAUTH LOGIN\r\n*\r\n", "x"},
        {"EHLO x\r\nAUTH LOGIN\r\n*\r\nEHLO c2VjcmV0\r\n", ""},
        {"EHLO x\r\nAUTH CRAM-MD5\r\nHELO c2VjcmV0\r\n", ""},
        {"EHLO x\r\n" TO_DATA "Subject: x\r\n\r\ny\r\n.\r\nEHLO y\r\n", "y"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct session_driver d;

        begin(&d);
        driver_text(&d, rows[i].said);
        assert_string_equal(server_fsm_helo(d.fsm), rows[i].helo);
        driver_done(&d);
    }
}

/* Commands and mail data are told apart to the octet, whatever the pieces. */
static void what_was_read_is_told_as_commands_and_mail_data(void **state)
{
    static const char text[] =
        "EHLO x\r\n" TO_DATA "Subject: x\r\n\r\ny\r\n.\r\n"
        "MAIL FROM:<a@b.example>\r\nBDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nQUIT\r\n"
        "NOOP\r\nQUIT\r\n";
    static const char commands[] =
        "EHLO x\r\n" TO_DATA "MAIL FROM:<a@b.example>\r\nBDAT 6\r\nBDAT 6 LAST\r\n"
        "NOOP\r\nQUIT\r\n";

    (void)state;
    for (size_t piece = 1; piece <= strlen(text); piece++) {
        struct server_settings settings = driver_settings();
        struct server_fsm *f = server_fsm_new(&settings);
        struct server_effect e;
        struct bytes heard;
        size_t mail = 0;
        size_t at = 0;

        bytes_init(&heard, sizeof(text));
        server_fsm_start(f, &e);
        while (at < strlen(text) && e.kind != SERVER_CLOSE) {
            size_t left = strlen(text) - at;
            size_t used;
            struct server_heard h;

            server_fsm_step(f, (const uint8_t *)text + at, piece < left ? piece : left, 0, &used,
                            &e);
            h = server_fsm_heard(f);
            assert_true(bytes_append(&heard, h.commands, h.commands_len));
            mail += h.mail_len;
            at += used;
            if (e.kind == SERVER_OPEN)
                server_fsm_opened(f, 1, NULL, &e);
            else if (e.kind == SERVER_COMMIT)
                server_fsm_committed(f, 1, NULL, &e);
        }
        assert_string_equal(bytes_string(&heard), commands);
        assert_int_equal(mail, strlen(text) - strlen(commands));
        bytes_done(&heard);
        server_fsm_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_device_does_otherwise_is_noted),
        cmocka_unit_test(a_size_that_is_far_too_small_is_noted),
        cmocka_unit_test(quirks_outlive_tls_and_transactions),
        cmocka_unit_test(a_name_behind_a_failed_login_is_not_told),
        cmocka_unit_test(what_was_read_is_told_as_commands_and_mail_data),
        cmocka_unit_test(the_commit_and_nothing_else_sends_the_250),
        cmocka_unit_test(nothing_is_consumed_while_an_answer_is_due),
        cmocka_unit_test(what_is_due_leaves_an_octet_of_the_input),
        cmocka_unit_test(a_large_mail_is_stored_octet_for_octet),
        cmocka_unit_test(the_envelope_is_whole_at_the_commit_and_stays),
        cmocka_unit_test(a_subject_is_cut_for_people),
        cmocka_unit_test(a_header_too_large_passes_and_is_marked),
        cmocka_unit_test(many_empty_lines_before_text_are_body),
        cmocka_unit_test(raw_binary_data_is_given_up_wherever_it_comes),
        cmocka_unit_test(phases_and_predicates_follow_the_session),
        cmocka_unit_test(a_shut_session_says_why_and_does_no_more),
        cmocka_unit_test(a_store_that_failed_is_refused_at_the_end_only),
        cmocka_unit_test(a_fragment_is_noted_where_split_mail_is_joined),
        cmocka_unit_test(what_was_announced_is_known_in_its_transaction),
        cmocka_unit_test(mail_over_the_limit_is_given_up_at_once),
        cmocka_unit_test(mail_of_exactly_the_limit_passes),
        cmocka_unit_test(without_a_limit_any_size_is_taken),
        cmocka_unit_test(refused_mail_data_that_never_ends_ends_the_session),
        cmocka_unit_test(bad_commands_are_forgiven_by_a_mail),
        cmocka_unit_test(refused_recipients_are_no_bad_commands),
        cmocka_unit_test(a_name_of_any_length_is_kept_to_255),
        cmocka_unit_test(local_time_is_shown_where_it_is_known),
        cmocka_unit_test(as_many_recipients_as_an_envelope_holds),
        cmocka_unit_test(random_octets_break_nothing),
        cmocka_unit_test(a_login_is_handed_out_decoded_and_then_forgotten),
        cmocka_unit_test(nothing_said_and_an_empty_answer_are_two_things),
        cmocka_unit_test(a_check_that_comes_too_late_changes_nothing),
        cmocka_unit_test(a_login_changes_the_limits_to_those_of_its_device),
        cmocka_unit_test(chunks_are_mail_data_until_their_answer),
        cmocka_unit_test(a_large_mail_in_chunks_is_stored_octet_for_octet),
        cmocka_unit_test(silence_is_of_interest_only_behind_lf_dot_lf),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
