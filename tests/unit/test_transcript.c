/* What people read of a session, and that no secret is in it. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/intake/transcript.h"
#include "relay/smtp/base64.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define PIECE        5 /* octets of a secret that say too much */

static void hear(struct transcript *t, const char *text, uint64_t now_ms)
{
    transcript_heard(t, text, strlen(text), now_ms);
}

static void say(struct transcript *t, const char *text, uint64_t now_ms)
{
    transcript_said(t, text, strlen(text), now_ms);
}

static void both_sides_and_notes_are_shown_with_their_times(void **state)
{
    struct transcript *t = transcript_new(1000);

    (void)state;
    assert_string_equal(transcript_text(t), "");
    transcript_note(t, "192.168.1.21 on listener office", 1000);
    say(t, "220 relay.example ESMTP\r\n", 1001);
    hear(t, "EHLO copier\r\n", 1012);
    say(t, "250-relay.example\r\n250 HELP\r\n", 1012);
    hear(t, "MAIL FROM:<a@b.example> SIZE=10\n", 61012);
    assert_string_equal(transcript_text(t), "    0.000 -- 192.168.1.21 on listener office\n"
                                            "    0.001 << 220 relay.example ESMTP\n"
                                            "    0.012 >> EHLO copier\n"
                                            "    0.012 << 250-relay.example\n"
                                            "    0.012 << 250 HELP\n"
                                            "   60.012 >> MAIL FROM:<a@b.example> SIZE=10\n");
    transcript_free(t);
}

static void mail_data_is_counted(void **state)
{
    struct transcript *t = transcript_new(0);

    (void)state;
    transcript_mail_data(t, 1000, 100);
    transcript_mail_data(t, 24, 2350);
    assert_string_equal(transcript_text(t), "    2.350 >> (1024 octets of mail data in 2.2 s)\n");
    transcript_mail_data(t, 1, 2400);
    say(t, "250 2.0.0 Ok: queued as 4f2a\r\n", 2401);
    transcript_mail_data(t, 5, 3000);
    transcript_note(t, "reset", 3001);
    assert_string_equal(transcript_text(t), "    2.400 >> (1025 octets of mail data in 2.3 s)\n"
                                            "    2.401 << 250 2.0.0 Ok: queued as 4f2a\n"
                                            "    3.000 >> (5 octets of mail data in 0.0 s)\n"
                                            "    3.001 -- reset\n");
    transcript_free(t);
}

/* What one line becomes, behind lines that may steer the masking. */
static void check_line(const char *before, const char *line, const char *want)
{
    struct transcript *t = transcript_new(0);
    const char *text;
    const char *last;

    while (*before != '\0') {
        size_t len = strcspn(before, "\n") + 1;

        if (before[0] == '<')
            transcript_said(t, before + 1, len - 1, 0);
        else
            transcript_heard(t, before, len, 0);
        before += len;
    }
    hear(t, line, 0);
    text = transcript_text(t);
    assert_true(text[0] != '\0' && text[strlen(text) - 1] == '\n');
    last = text + strlen(text) - 1;
    while (last > text && last[-1] != '\n')
        last--;
    if (strncmp(last + strlen("    0.000 >> "), want, strlen(want)) != 0 ||
        last[strlen("    0.000 >> ") + strlen(want)] != '\n')
        fail_msg("\"%s\" becomes \"%s\", not \"%s\"", line, last, want);
    transcript_free(t);
}

static void lines_are_masked_as_they_need_to_be(void **state)
{
#define FAILED "AUTH LOGIN\r\n<334 VXNl\r\nc2Nhbm5lcg==\r\n<535 5.7.8 no\r\n"
#define PASSED "AUTH LOGIN\r\n<334 VXNl\r\nc2Nhbm5lcg==\r\n<235 2.7.0 yes\r\n"
    static const struct {
        const char *before;
        const char *line;
        const char *want;
    } rows[] = {
        {"", "auth login\r\n", "auth LOGIN"},
        {"", "AUTH PLAIN AGEAYg==\r\n", "AUTH PLAIN (8 octets hidden)"},
        {"", "AUTH PLAIN A\n", "AUTH PLAIN (1 octet hidden)"},
        {"", "  AUTH\tPLAIN\tAGEAYg==\r\n", "AUTH PLAIN (8 octets hidden)"},
        {"", "AUTH AGEAYg==\r\n", "AUTH (8 octets hidden)"},
        {"", "AUTH\r\n", "AUTH"},
        {"", "AUTH=LOGIN AGEAYg==\r\n", "(19 octets hidden)"},
        {"", "XAUTH secret\r\n", "(12 octets hidden)"},
        {"AUTH LOGIN\r\n<334 VXNl\r\n", "c2Nhbm5lcg==\r\n", "(12 octets hidden)"},
        {"AUTH LOGIN\r\n<334 VXNl\r\n", "QUIT\r\n", "(4 octets hidden)"},
        {"AUTH LOGIN\r\n<334 VXNl\r\n", "*\r\n", "*"},
        {"AUTH LOGIN\r\n<334 VXNl\r\n", "\r\n", ""},
        {"AUTH LOGIN\r\nc2Nhbm5lcg==\r\n", "MAIL\r\n", "(4 octets hidden)"},
        {FAILED, "c2Nhbm5lcg==\r\n", "(12 octets hidden)"},
        {FAILED, "secret\r\n", "(6 octets hidden)"},
        {FAILED, "EHLO secret\r\n", "EHLO (6 octets hidden)"},
        {FAILED, "RSET secret\r\n", "RSET (6 octets hidden)"},
        {FAILED, "QUIT\r\n", "QUIT"},
        {FAILED, "MAIL FROM:<a@b.example>\r\n", "MAIL FROM:<a@b.example>"},
        {FAILED, "MAIL secret\r\n", "MAIL (6 octets hidden)"},
        {FAILED, "RCPT TO:<a@b.example>\r\n", "RCPT TO:<a@b.example>"},
        {FAILED, "BDAT 12 LAST\r\n", "BDAT 12 LAST"},
        {FAILED, "BDAT secret\r\n", "BDAT (6 octets hidden)"},
        {PASSED, "EHLO again\r\n", "EHLO again"},
        {PASSED, "NOOP secret\r\n", "NOOP (6 octets hidden)"},
        {PASSED, "c2Nhbm5lcg==\r\n", "(12 octets hidden)"},
        {"", "NOOP keep-alive\r\n", "NOOP keep-alive"},
        {"", "XCLIENT NAME=x\r\n", "XCLIENT (6 octets hidden)"},
        {"", "Subject: salaries\r\n", "(17 octets hidden)"},
        {"", "POST /login?p=secret HTTP/1.1\r\n", "POST (24 octets hidden)"},
        {"", "EHLO x\rAUTH PLAIN AGEAYg==\r\n", "EHLO x (20 octets hidden)"},
        {"EHLO x\rAUTH LOGIN\r\n", "AGEAYg==\r\n", "(8 octets hidden)"},
        {"", "EHLO AUTH LOGIN\r\n", "EHLO (10 octets hidden)"},
        {"", "HELO B\xfcro\r\n", "HELO B\\xFCro"},
        {"", "HELO printer\r\r\n", "HELO printer"},
        {"", "RSET", "RSET"},
        {"", "AUTH PLAIN AGE", "AUTH PLAIN (3 octets hidden)"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        char want[TRANSCRIPT_LINE_MAX];

        /* The verb is shown as it was said. */
        snprintf(want, sizeof(want), "%s", rows[i].want);
        if (strcmp(want, "auth LOGIN") == 0)
            snprintf(want, sizeof(want), "auth login");
        check_line(rows[i].before, rows[i].line, want);
    }
}

static void a_long_line_is_cut_and_counted(void **state)
{
    struct transcript *t = transcript_new(0);
    char line[3000];
    char want[300];

    (void)state;
    memset(line, 'x', sizeof(line));
    memcpy(line, "HELO ", 5);
    memcpy(line + 2000, "\r\n", 3);
    hear(t, line, 0);
    snprintf(want, sizeof(want), "    0.000 >> %.*s... (1840 more)\n", TRANSCRIPT_LINE_MAX, line);
    assert_string_equal(transcript_text(t), want);
    transcript_free(t);
}

static void the_first_half_and_the_newest_lines_are_kept(void **state)
{
    struct transcript *t = transcript_new(0);
    char line[64];
    const char *text;
    const char *note;
    size_t left_out;
    size_t lines = 0;

    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(line, sizeof(line), "NOOP number-%u\r\n", i);
        hear(t, line, i);
        assert_true(strlen(transcript_text(t)) < TRANSCRIPT_MAX);
    }
    text = transcript_text(t);
    assert_true(strlen(text) > TRANSCRIPT_MAX * 3 / 4);
    assert_non_null(strstr(text, "NOOP number-0\n"));
    assert_non_null(strstr(text, "NOOP number-80\n"));
    assert_null(strstr(text, "NOOP number-2500\n"));
    assert_non_null(strstr(text, "NOOP number-4950\n"));
    assert_non_null(strstr(text, "NOOP number-4999\n"));
    note = strstr(text, "-- (");
    assert_non_null(note);
    left_out = strtoul(note + 4, NULL, 10);
    for (const char *p = text; (p = strchr(p, '\n')) != NULL; p++)
        lines++;
    assert_int_equal(lines - 1 + left_out, 5000);
    transcript_free(t);
}

static void nothing_can_make_it_longer(void **state)
{
    char line[4000];

    (void)state;
    for (unsigned seed = 1; seed < 200; seed++) {
        struct transcript *t = transcript_new(0);
        uint32_t random = seed * 2654435761u;

        for (unsigned i = 0; i < 400; i++) {
            size_t len;

            random = random * 1664525u + 1013904223u;
            len = (random >> 16) % sizeof(line);
            for (size_t k = 0; k < len; k++)
                line[k] = (char)(random >> (k % 24));
            if (i % 3 == 0)
                transcript_said(t, line, len, UINT64_MAX / 2);
            else if (i % 3 == 1)
                transcript_heard(t, line, len, UINT64_MAX / 2);
            else
                transcript_mail_data(t, len, UINT64_MAX / 2);
            if (i % 16 == 0)
                assert_true(strlen(transcript_text(t)) < TRANSCRIPT_MAX);
        }
        assert_true(strlen(transcript_text(t)) < TRANSCRIPT_MAX);
        transcript_free(t);
    }
}

static void a_session_is_worth_keeping_once_something_was_heard(void **state)
{
    struct transcript *t = transcript_new(0);

    (void)state;
    say(t, "220 relay.example\r\n", 0);
    transcript_note(t, "x", 0);
    assert_false(transcript_is_worth_keeping(t));
    hear(t, "Q", 0);
    assert_true(transcript_is_worth_keeping(t));
    transcript_free(t);
}

static void without_memory_nothing_is_kept(void **state)
{
    (void)state;
    transcript_heard(NULL, "x", 1, 0);
    transcript_mail_data(NULL, 1, 0);
    transcript_said(NULL, "x", 1, 0);
    transcript_note(NULL, "x", 0);
    assert_string_equal(transcript_text(NULL), "");
    assert_false(transcript_is_worth_keeping(NULL));
    transcript_free(NULL);
}

/* ---- secrets --------------------------------------------------------------------------------- */

/* Nothing of these is in what follows but where the secret stands. */
static const char login[] = "Zq7#kw!Vx9";
static const char password[] = "J8%uG@4pYd";

static void encode(const char *text, size_t len, char *out)
{
    base64_encode(text, len, out);
    out[BASE64_LENGTH(len)] = '\0';
}

/* No piece of it, in any case: a reader would know the rest. */
static void check_absent(const char *name, const char *text, const char *secret, size_t len)
{
    for (size_t i = 0; i + PIECE <= len; i++) {
        if (memmem(text, strlen(text), secret + i, PIECE) != NULL)
            fail_msg("%s: \"%.*s\" is in the transcript:\n%s", name, PIECE, secret + i, text);
    }
}

/* %L %P: login and password in base64; %l %p: as they are; %B: PLAIN's message in base64. A line
 * that begins with '<' is said by the relay. */
static const struct {
    const char *name;
    const char *session;
} sessions[] = {
    {"initial response of PLAIN", "EHLO x\r\nAUTH PLAIN %B\r\n<235 2.7.0 Ok\r\nQUIT\r\n"},
    {"PLAIN in lower case, failed", "auth plain %B\r\n<535 5.7.8 no\r\nQUIT\r\n"},
    {"PLAIN with its question", "AUTH PLAIN\r\n<334 \r\n%B\r\n<235 2.7.0 Ok\r\n"},
    {"LOGIN", "AUTH LOGIN\r\n<334 VXNl\r\n%L\r\n<334 UGFz\r\n%P\r\n<235 2.7.0 Ok\r\nQUIT\r\n"},
    {"LOGIN with the name", "AUTH LOGIN %L\r\n<334 UGFz\r\n%P\r\n<535 5.7.8 no\r\n"},
    {"LOGIN ending in LF", "auth Login\n<334 VXNl\r\n%L\n<334 UGFz\r\n%P\n<235 2.7.0 Ok\r\n"},
    {"not base64", "AUTH LOGIN\r\n<334 VXNl\r\n%l\r\n<334 UGFz\r\n%p\r\n<235 2.7.0 Ok\r\n"},
    {"answers before the questions",
     "AUTH LOGIN\r\n%L\r\n%P\r\n<334 VXNl\r\n<334 UGFz\r\n<235 Ok\r\n"},
    {"answers that nobody waits for",
     "EHLO x\r\nAUTH LOGIN\r\n%L\r\n%P\r\n<250 relay\r\n<334 VXNl\r\n<334 UGFz\r\n<235 Ok\r\n"},
    {"PLAIN pipelined",
     "EHLO x\r\nAUTH PLAIN\r\n%B\r\nMAIL FROM:<a@b>\r\n<250 x\r\n<334 \r\n<235 Ok\r\n"},
    {"as commands after a failure",
     "AUTH LOGIN\r\n<334 VXNl\r\n%L\r\n<334 UGFz\r\n%P\r\n<535 5.7.8 no\r\n%L\r\n<500 no\r\n%P\r\n"
     "<500 no\r\n%p\r\n<500 no\r\nNOOP %p\r\n<250 Ok\r\nEHLO %l\r\n<250 Ok\r\nHELP %P\r\n<214 "
     "x\r\n"},
    {"as commands after a refused AUTH",
     "AUTH LOGIN\r\n<502 no\r\n%L\r\n<500 no\r\n%P\r\n<500 no\r\n"},
    {"as commands after an unknown mechanism",
     "AUTH CRAM-MD5\r\n<504 no\r\n%L\r\n<500 no\r\n%P\r\n<500 no\r\n"},
    {"as the mechanism", "AUTH %B\r\n<504 no\r\nAUTH %p\r\n<504 no\r\n"},
    {"AUTH before TLS", "AUTH LOGIN %L\r\n<530 5.7.0 no\r\n%P\r\n<500 no\r\n"},
    {"cancelled",
     "AUTH LOGIN\r\n<334 VXNl\r\n%L\r\n<334 UGFz\r\n*\r\n<501 5.7.0 no\r\n%P\r\n<500 no\r\n"},
    {"the old form", "AUTH=LOGIN %L\r\n<500 no\r\n%P\r\n<500 no\r\n"},
    {"blanks around it", "  \tAUTH \t PLAIN \t %B \t\r\n<235 Ok\r\n"},
    {"line ends of CR", "EHLO x\rAUTH LOGIN\r%L\r%P\r"},
    {"line ends of CR, with an LF at last", "EHLO x\rAUTH LOGIN\r%L\r%P\r\n<500 no\r\n%P\r\n"},
    {"a NUL before it", "\x01"
                        "AUTH PLAIN %B\r\n<500 no\r\n%P\r\n"},
    {"a browser", "GET / HTTP/1.1\r\n<554 no\r\nAuthorization: Basic %B\r\n"},
    {"a line without an end", "AUTH PLAIN %B"},
    {"an answer without an end", "AUTH LOGIN\r\n<334 VXNl\r\n%L\r\n<334 UGFz\r\n%P"},
    {"a command without an end", "AUTH LOGIN %L\r\n<535 5.7.8 no\r\n%P"},
    {"a note in the middle of a line", "AUTH LOGIN\r\n<334 VXNl\r\n%L"},
    {"XOAUTH2", "AUTH XOAUTH2 %B\r\n<504 no\r\n%B\r\n<500 no\r\n"},
};

static void expand(const char *format, char *out)
{
    char plain[64];
    size_t len = (size_t)snprintf(plain, sizeof(plain), "%c%s%c%s", '\0', login, '\0', password);

    for (; *format != '\0'; format++) {
        *out = '\0';
        if (*format != '%') {
            *out++ = *format;
            continue;
        }
        switch (*++format) {
        case 'L':
            encode(login, strlen(login), out);
            break;
        case 'P':
            encode(password, strlen(password), out);
            break;
        case 'B':
            encode(plain, len, out);
            break;
        case 'l':
            strcpy(out, login);
            break;
        default:
            strcpy(out, password);
            break;
        }
        out += strlen(out);
    }
    *out = '\0';
}

static void check_secrets(const char *name, struct transcript *t)
{
    char text[TRANSCRIPT_MAX];
    char plain[64];
    char encoded[128];
    size_t len = (size_t)snprintf(plain, sizeof(plain), "%c%s%c%s", '\0', login, '\0', password);

    snprintf(text, sizeof(text), "%s", transcript_text(t));
    check_absent(name, text, login, strlen(login));
    check_absent(name, text, password, strlen(password));
    encode(login, strlen(login), encoded);
    check_absent(name, text, encoded, strlen(encoded));
    encode(password, strlen(password), encoded);
    check_absent(name, text, encoded, strlen(encoded));
    encode(plain, len, encoded);
    check_absent(name, text, encoded, strlen(encoded));
}

/* The device's octets in pieces: two, cut anywhere, or one by one; notes may come between. */
static void run_session(const char *name, const char *session, size_t cut, bool octets)
{
    struct transcript *t = transcript_new(0);
    size_t at = 0;

    while (*session != '\0') {
        size_t len = strcspn(session, "\n");
        bool said = session[0] == '<';

        len += session[len] == '\n';
        if (said)
            transcript_said(t, session + 1, len - 1, 0);
        for (size_t i = 0; !said && i < len;) {
            size_t n = octets ? 1 : at < cut && cut - at < len - i ? cut - at : len - i;

            transcript_heard(t, session + i, n, 0);
            i += n;
            at += n;
            if (octets || at == cut) {
                transcript_note(t, "between", 0);
                check_secrets(name, t);
            }
        }
        session += len;
    }
    check_secrets(name, t);
    assert_null(strstr(transcript_text(t), "Basic"));
    transcript_free(t);
}

static void no_secret_is_ever_in_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sessions); i++) {
        char session[1024];

        expand(sessions[i].session, session);
        for (size_t cut = 0; cut <= strlen(session); cut++)
            run_session(sessions[i].name, session, cut, false);
        run_session(sessions[i].name, session, 0, true);
    }
}

/* Whatever arrived of it. */
static void no_secret_is_in_it_when_the_session_is_cut_off(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sessions); i++) {
        char session[1024];
        size_t len;

        expand(sessions[i].session, session);
        len = strlen(session);
        for (size_t end = 0; end < len; end++) {
            char cut[1024];

            snprintf(cut, sizeof(cut), "%.*s", (int)end, session);
            run_session(sessions[i].name, cut, 0, false);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_and_notes_are_shown_with_their_times),
        cmocka_unit_test(mail_data_is_counted),
        cmocka_unit_test(lines_are_masked_as_they_need_to_be),
        cmocka_unit_test(a_long_line_is_cut_and_counted),
        cmocka_unit_test(the_first_half_and_the_newest_lines_are_kept),
        cmocka_unit_test(nothing_can_make_it_longer),
        cmocka_unit_test(a_session_is_worth_keeping_once_something_was_heard),
        cmocka_unit_test(without_memory_nothing_is_kept),
        cmocka_unit_test(no_secret_is_ever_in_it),
        cmocka_unit_test(no_secret_is_in_it_when_the_session_is_cut_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
