#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/bytes.h"
#include "relay/smtp/base64.h"
#include "relay/smtp/maildata.h"
#include "relay/submit/client_fsm.h"

/*
 * Sessions are written down as dialogues and replayed. A line is one of
 *   S: text       the server sends text CR LF
 *   s: text       the same, but it arrives together with the next S: or s.
 *   s. text       the server sends text without a line end
 *   C: text       the machine sends text CR LF (C~ text: without a line end)
 *   > effect      the machine asks for this
 *   ! event       the shell reports this
 * What the machine does must be what the dialogue says, no more and no less. With several
 * transactions under way effects name theirs, counted from 1: "> result 2 final-dot: ...".
 */

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define SCRIPT_MAX   4096
#define LOG_MAX      (64 * 1024)
#define BORROWED_MAX 16 /* transactions in a dialogue that has several under way */

/* ---- a shell that writes down what it is told ------------------------------------------------ */

struct borrowed {
    struct envelope *envelope;
    struct client_transaction tx;
    char label[8]; /* "2 "; "" where only one is under way at a time */
};

struct shell {
    struct client_fsm *fsm;
    struct borrowed borrowed[BORROWED_MAX];
    size_t begun;
    struct bytes log;  /* lines that the dialogue has not confirmed yet */
    struct bytes sent; /* the last line sent, still without its end */
};

static void flush_sent(struct shell *sh)
{
    if (sh->sent.len > 0)
        bytes_printf(&sh->log, "C~ %s\n", bytes_string(&sh->sent));
    bytes_clear(&sh->sent);
}

static void log_sent(struct shell *sh, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        bytes_byte(&sh->sent, data[i]);
        if (sh->sent.len < 2 || memcmp(sh->sent.data + sh->sent.len - 2, "\r\n", 2) != 0)
            continue;
        sh->sent.len -= 2;
        bytes_printf(&sh->log, "C: %s\n", bytes_string(&sh->sent));
        bytes_clear(&sh->sent);
    }
}

static const char *label_of(const struct client_effect *e)
{
    return e->owner != NULL ? ((const struct borrowed *)e->owner)->label : "";
}

static void log_judged(struct shell *sh, const char *what, const struct client_effect *e)
{
    char reply[300];

    reply_format(e->reply, reply, sizeof(reply));
    bytes_printf(&sh->log, "> %s %s%s: %s\n", what, label_of(e), client_stage_name(e->stage),
                 reply);
}

static void drop_envelope(struct borrowed *b)
{
    if (b->envelope != NULL)
        envelope_done(b->envelope);
    free(b->envelope);
    b->envelope = NULL;
}

static void log_effect(struct shell *sh, const struct client_effect *e)
{
    static const char *const plain[] = {
        [CLIENT_START_TLS] = "start-tls",
        [CLIENT_READY] = "ready",
        [CLIENT_BODY] = "body",
        [CLIENT_DOUBT] = "doubt",
    };

    if (e->kind == CLIENT_SEND) {
        log_sent(sh, e->data, e->len);
        return;
    }
    flush_sent(sh);
    if (e->kind == CLIENT_SASL_START) {
        bytes_printf(&sh->log, "> sasl-start %s\n", e->text);
    } else if (e->kind == CLIENT_SASL_STEP) {
        bytes_printf(&sh->log, "> sasl-step %.*s\n", (int)e->len, (const char *)e->data);
    } else if (e->kind == CLIENT_RECIPIENT) {
        char reply[300];

        reply_format(e->reply, reply, sizeof(reply));
        assert_int_equal(e->stage, STAGE_RCPT);
        bytes_printf(&sh->log, "> recipient %s%zu: %s\n", label_of(e), e->index, reply);
    } else if (e->kind == CLIENT_RESULT) {
        log_judged(sh, "result", e);
        drop_envelope(e->owner); /* no longer borrowed: touching it would be found */
    } else if (e->kind == CLIENT_FAILED) {
        log_judged(sh, "failed", e);
    } else if (*label_of(e) != '\0') {
        bytes_printf(&sh->log, "> %s %c\n", plain[e->kind], *label_of(e));
    } else {
        bytes_printf(&sh->log, "> %s\n", plain[e->kind]);
    }
}

static void drain(struct shell *sh)
{
    struct client_effect e;

    for (client_fsm_next(sh->fsm, &e); e.kind != CLIENT_NOTHING; client_fsm_next(sh->fsm, &e))
        log_effect(sh, &e);
    flush_sent(sh);
}

/* ---- dialogues ------------------------------------------------------------------------------- */

struct dialogue {
    const char *name;
    const char *script;
    const char *recipients; /* separated by spaces; '-' before one that is not pending */
    const char *mechanisms;
    const char *reverse_path;
    bool implicit_tls;
    bool no_auth;
    bool held;
    bool eight_bit;
    bool dsn;  /* the device has asked for notifications */
    bool cold; /* the connection was idle for long */
    bool no_chunking;
    uint32_t in_flight;
    uint64_t size;
    bool together; /* octets that arrive in one read must stay together */
};

static void ask_for_notifications(struct envelope *e)
{
    assert_true(envelope_set(&e->ret, "HDRS") && envelope_set(&e->envid, "job+2B17"));
    assert_true(envelope_set(&e->recipients[0].notify, "SUCCESS,FAILURE"));
    assert_true(envelope_set(&e->recipients[0].orcpt, "rfc822;x@b.example"));
}

/* Size 0: that of the dialogue. */
static struct borrowed *fill_envelope(struct shell *sh, const struct dialogue *d, uint64_t size)
{
    const char *list = d->recipients != NULL ? d->recipients : "a@b.example";
    struct borrowed *b = &sh->borrowed[d->in_flight > 1 ? sh->begun++ : 0];
    char copy[SCRIPT_MAX];
    char *save = NULL;

    assert_true(sh->begun <= BORROWED_MAX);
    drop_envelope(b);
    if (d->in_flight > 1)
        snprintf(b->label, sizeof(b->label), "%zu ", sh->begun);
    b->envelope = malloc(sizeof(*b->envelope));
    assert_non_null(b->envelope);
    envelope_init(b->envelope);
    snprintf(copy, sizeof(copy), "%s", list);
    for (char *word = strtok_r(copy, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save)) {
        bool done = *word == '-';

        assert_true(envelope_add_recipient(b->envelope, word + done));
        if (done)
            b->envelope->recipients[b->envelope->recipient_count - 1].state = RECIPIENT_FAILED;
    }
    b->envelope->body = d->eight_bit ? ENVELOPE_BODY_8BITMIME : ENVELOPE_BODY_7BIT;
    if (d->dsn)
        ask_for_notifications(b->envelope);
    b->envelope->smtputf8 = true; /* says nothing about what the paths need */
    b->tx = (struct client_transaction){
        .reverse_path = d->reverse_path != NULL ? d->reverse_path : "scan@office.example",
        .envelope = b->envelope,
        .size = size != 0      ? size
                : d->size != 0 ? d->size
                               : 1234,
        .warm = !d->cold,
        .owner = b,
    };
    return b;
}

static void event_begin(struct shell *sh, const struct dialogue *d)
{
    struct borrowed *b = fill_envelope(sh, d, 0);

    assert_true(client_fsm_may_begin(sh->fsm, &b->tx));
    client_fsm_begin(sh->fsm, &b->tx);
}

/* Whether another one of that size may begin is looked at; it does not. */
static void event_may(struct shell *sh, const struct dialogue *d, const char *text)
{
    bool yes = strncmp(text, "yes", 3) == 0;
    const char *size = strchr(text, ' ');
    struct borrowed *b = fill_envelope(sh, d, size != NULL ? strtoull(size, NULL, 10) : 0);

    if (client_fsm_may_begin(sh->fsm, &b->tx) != yes)
        fail_msg("it is not so: may %s", text);
    drop_envelope(b);
    sh->begun--;
}

static void event_room(struct shell *sh, const char *text)
{
    if (client_fsm_has_room(sh->fsm) != (strcmp(text, "yes") == 0))
        fail_msg("it is not so: room %s", text);
}

/* "||" stands for CR LF in mail data. */
static size_t unfold(const char *text, char *out)
{
    size_t n = 0;

    for (; *text != '\0'; text++) {
        bool end = strncmp(text, "||", 2) == 0;

        memcpy(out + n, end ? "\r\n" : text, end ? 2 : 1);
        n += end ? 2 : 1;
        text += end;
    }
    return n;
}

static void event_sasl(struct shell *sh, const char *text)
{
    client_fsm_sasl(sh->fsm, strcmp(text, "none") == 0 ? NULL : text, strlen(text));
}

static void event_body(struct shell *sh, const char *text)
{
    char data[SCRIPT_MAX];

    client_fsm_body(sh->fsm, (const uint8_t *)data, unfold(text, data));
}

static void event_lost(struct shell *sh, const char *text)
{
    bool timeout = strncmp(text, "timeout", 7) == 0;

    client_fsm_lost(sh->fsm, timeout ? LOCAL_TIMEOUT : LOCAL_LOST, text);
}

static void event(struct shell *sh, const struct dialogue *d, char *line)
{
    char *text = line + strcspn(line, " ");

    if (*text != '\0')
        *text++ = '\0';
    if (strcmp(line, "connected") == 0)
        client_fsm_connected(sh->fsm);
    else if (strcmp(line, "secure") == 0)
        client_fsm_secure(sh->fsm);
    else if (strcmp(line, "sasl") == 0)
        event_sasl(sh, text);
    else if (strcmp(line, "sasl-failed") == 0)
        client_fsm_sasl_failed(sh->fsm, text);
    else if (strcmp(line, "begin") == 0)
        event_begin(sh, d);
    else if (strcmp(line, "may") == 0)
        event_may(sh, d, text);
    else if (strcmp(line, "release") == 0)
        client_fsm_release(sh->fsm);
    else if (strcmp(line, "room") == 0)
        event_room(sh, text);
    else if (strcmp(line, "body") == 0)
        event_body(sh, text);
    else if (strcmp(line, "body-end") == 0)
        client_fsm_body_end(sh->fsm);
    else if (strcmp(line, "body-failed") == 0)
        client_fsm_body_failed(sh->fsm, LOCAL_SPOOL, text);
    else if (strcmp(line, "doubted") == 0)
        client_fsm_doubted(sh->fsm, strcmp(text, "false") != 0);
    else if (strcmp(line, "quit") == 0)
        client_fsm_quit(sh->fsm);
    else if (strcmp(line, "lost") == 0)
        event_lost(sh, text);
    else if (strcmp(line, "closed") == 0)
        client_fsm_closed(sh->fsm, text);
    else
        fail_msg("no such event: %s", line);
}

static void server_says(struct shell *sh, struct bytes *held, bool split)
{
    for (size_t i = 0; split && i < held->len; i++) {
        client_fsm_input(sh->fsm, held->data + i, 1);
        drain(sh);
    }
    if (!split)
        client_fsm_input(sh->fsm, held->data, held->len);
    bytes_clear(held);
    drain(sh);
}

static void confirm(struct shell *sh, const char *line)
{
    const char *log = bytes_string(&sh->log);
    size_t len = strcspn(log, "\n");

    if (len != strlen(line) || memcmp(log, line, len) != 0)
        fail_msg("expected \"%s\", but the machine says:\n%s", line, log);
    bytes_consume(&sh->log, len + 1);
}

static void confirm_silence(struct shell *sh, const char *line)
{
    if (sh->log.len > 0)
        fail_msg("before \"%s\" the machine says:\n%s", line, bytes_string(&sh->log));
}

static void play_line(struct shell *sh, const struct dialogue *d, char *line, struct bytes *held,
                      bool split)
{
    if (line[0] == 'C' || line[0] == '>') {
        confirm(sh, line);
        return;
    }
    confirm_silence(sh, line);
    if (line[0] == '!') {
        event(sh, d, line + 2);
        drain(sh);
        return;
    }
    bytes_text(held, line + 3);
    if (line[1] == ':')
        bytes_text(held, "\r\n");
    if (line[0] == 'S' || line[1] == '.')
        server_says(sh, held, split && !d->together);
}

static void play(const struct dialogue *d, bool split)
{
    const struct client_settings settings = {
        .helo = "relay.example",
        .implicit_tls = d->implicit_tls,
        .needs_auth = !d->no_auth,
        .held = d->held,
        .no_chunking = d->no_chunking,
        .in_flight = d->in_flight,
        .mechanisms = d->mechanisms != NULL ? d->mechanisms : "LOGIN PLAIN",
    };
    struct shell sh = {.fsm = client_fsm_new(&settings)};
    char *script = strdup(d->script);
    char *save = NULL;
    struct bytes held;

    assert_non_null(sh.fsm);
    bytes_init(&sh.log, LOG_MAX);
    bytes_init(&sh.sent, LOG_MAX);
    bytes_init(&held, LOG_MAX);
    for (char *line = strtok_r(script, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save))
        play_line(&sh, d, line, &held, split);
    confirm_silence(&sh, "the end");
    client_fsm_free(sh.fsm);
    for (size_t i = 0; i < BORROWED_MAX; i++)
        drop_envelope(&sh.borrowed[i]);
    bytes_done(&sh.log);
    bytes_done(&sh.sent);
    bytes_done(&held);
    free(script);
}

/* Each twice: as written, and with every octet of the server in a read of its own. */
static void play_all(const struct dialogue *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        print_message("  %s\n", rows[i].name);
        play(&rows[i], false);
        play(&rows[i], true);
    }
}

/* ---- from the banner to AUTH ----------------------------------------------------------------- */

#define BANNER                                                                                     \
    "! connected\n"                                                                                \
    "S: 220 x.outlook.example Microsoft ESMTP MAIL Service ready\n"                                \
    "C: EHLO relay.example\n"

#define STARTTLS                                                                                   \
    BANNER "S: 250-x.outlook.example Hello [192.0.2.1]\n"                                          \
           "S: 250-SIZE 157286400\n"                                                               \
           "S: 250-PIPELINING\n"                                                                   \
           "S: 250 STARTTLS\n"                                                                     \
           "C: STARTTLS\n"                                                                         \
           "S: 220 2.0.0 SMTP server ready\n"                                                      \
           "> start-tls\n"

#define SECURE                                                                                     \
    STARTTLS "! secure\n"                                                                          \
             "C: EHLO relay.example\n"

#define OFFER(keywords)                                                                            \
    SECURE "S: 250-x.outlook.example Hello [192.0.2.1]\n" keywords "S: 250 ENHANCEDSTATUSCODES\n"

#define SIGNING_IN OFFER("S: 250-AUTH LOGIN XOAUTH2\n") "> sasl-start LOGIN\n"

#define LOGIN_DONE                                                                                 \
    "> sasl-start LOGIN\n"                                                                         \
    "! sasl none\n"                                                                                \
    "C: AUTH LOGIN\n"                                                                              \
    "S: 334 VXNlcm5hbWU6\n"                                                                        \
    "> sasl-step Username:\n"                                                                      \
    "! sasl scan@office.example\n"                                                                 \
    "C: c2NhbkBvZmZpY2UuZXhhbXBsZQ==\n"                                                            \
    "S: 334 UGFzc3dvcmQ6\n"                                                                        \
    "> sasl-step Password:\n"                                                                      \
    "! sasl secret\n"                                                                              \
    "C: c2VjcmV0\n"                                                                                \
    "S: 235 2.7.0 Authentication successful\n"                                                     \
    "> ready\n"

static const struct dialogue openings[] = {
    {.name = "as Microsoft does it", .script = OFFER("S: 250-AUTH LOGIN XOAUTH2\n") LOGIN_DONE},
    {.name = "banner and EHLO reply in several lines",
     .script = "! connected\n"
               "S: 220-welcome\n"
               "S: 220 to us\n"
               "C: EHLO relay.example\n"
               "s: 250-x\n"
               "S: 250 starttls\n"
               "C: STARTTLS\n"},
    {.name = "implicit TLS",
     .implicit_tls = true,
     .script = BANNER "S: 250-x\n"
                      "S: 250 AUTH PLAIN LOGIN\n" LOGIN_DONE},
    {.name = "no sign-in wanted", .no_auth = true, .script = OFFER("") "> ready\n"},
    {.name = "names in any case, and AUTH= of old servers",
     .script = OFFER("S: 250-auth=login\n") LOGIN_DONE},
    {.name = "ours, not the server's, order counts",
     .mechanisms = "LOGIN PLAIN",
     .script = OFFER("S: 250-AUTH PLAIN LOGIN CRAM-MD5\n") LOGIN_DONE},
    {.name = "the second of ours",
     .script = OFFER("S: 250-AUTH PLAINER PLAIN\n") "> sasl-start PLAIN\n"
                                                    "! sasl UP\n"
                                                    "C: AUTH PLAIN VVA=\n"
                                                    "S: 235 ok\n"
                                                    "> ready\n"},
    {.name = "one that is announced and not implemented: the next one",
     .mechanisms = "PLAIN LOGIN",
     .script = OFFER("S: 250-AUTH PLAIN LOGIN\n") "> sasl-start PLAIN\n"
                                                  "! sasl UP\n"
                                                  "C: AUTH PLAIN VVA=\n"
                                                  "S: 502 5.3.3 Command not implemented\n"
                                                  "> sasl-start LOGIN\n"
                                                  "! sasl scan\n"
                                                  "C: AUTH LOGIN c2Nhbg==\n"
                                                  "S: 334 UGFzc3dvcmQ6\n"
                                                  "> sasl-step Password:\n"
                                                  "! sasl secret\n"
                                                  "C: c2VjcmV0\n"
                                                  "S: 235 ok\n"
                                                  "> ready\n"},
    {.name = "none that is announced is implemented",
     .mechanisms = "PLAIN LOGIN",
     .script =
         OFFER("S: 250-AUTH PLAIN LOGIN\n") "> sasl-start PLAIN\n"
                                            "! sasl UP\n"
                                            "C: AUTH PLAIN VVA=\n"
                                            "S: 502 5.3.3 Command not implemented\n"
                                            "> sasl-start LOGIN\n"
                                            "! sasl scan\n"
                                            "C: AUTH LOGIN c2Nhbg==\n"
                                            "S: 502 5.3.3 Command not implemented\n"
                                            "C: QUIT\n"
                                            "> failed auth: 502 5.3.3 Command not implemented\n"},
    {.name = "LOGIN with the name at once",
     .script = SIGNING_IN "! sasl scan\n"
                          "C: AUTH LOGIN c2Nhbg==\n"
                          "S: 334 UGFzc3dvcmQ6\n"
                          "> sasl-step Password:\n"
                          "! sasl secret\n"
                          "C: c2VjcmV0\n"
                          "S: 235 ok\n"
                          "> ready\n"},
    {.name = "LOGIN to a server that wants to ask for the name",
     .script = SIGNING_IN "! sasl scan\n"
                          "C: AUTH LOGIN c2Nhbg==\n"
                          "S: 501 5.5.4 Syntax error\n"
                          "C: AUTH LOGIN\n"
                          "S: 334 VXNlcm5hbWU6\n"
                          "C: c2Nhbg==\n"
                          "S: 334 UGFzc3dvcmQ6\n"
                          "> sasl-step Password:\n"
                          "! sasl secret\n"
                          "C: c2VjcmV0\n"
                          "S: 235 ok\n"
                          "> ready\n"},
    {.name = "a refusal of LOGIN's form is tried around once",
     .script = SIGNING_IN "! sasl scan\n"
                          "C: AUTH LOGIN c2Nhbg==\n"
                          "S: 501 5.5.4 Syntax error\n"
                          "C: AUTH LOGIN\n"
                          "S: 501 5.5.4 Syntax error\n"
                          "C: QUIT\n"
                          "> failed auth: 501 5.5.4 Syntax error\n"},
    {.name = "a refusal of who signs in is not tried again",
     .script = SIGNING_IN "! sasl scan\n"
                          "C: AUTH LOGIN c2Nhbg==\n"
                          "S: 501 5.7.3 No\n"
                          "C: QUIT\n"
                          "> failed auth: 501 5.7.3 No\n"},
    {.name = "an empty initial response is =",
     .mechanisms = "EXTERNAL",
     .script = OFFER("S: 250-AUTH EXTERNAL\n") "> sasl-start EXTERNAL\n"
                                               "! sasl \n"
                                               "C: AUTH EXTERNAL =\n"
                                               "S: 235 ok\n"
                                               "> ready\n"},
    {.name = "an empty challenge, with and without a space, and an empty response",
     .script = SIGNING_IN "! sasl none\n"
                          "C: AUTH LOGIN\n"
                          "S: 334 \n"
                          "> sasl-step \n"
                          "! sasl x\n"
                          "C: eA==\n"
                          "S: 334\n"
                          "> sasl-step \n"
                          "! sasl \n"
                          "C: \n"
                          "S: 235 ok\n"
                          "> ready\n"},
    {.name = "held, and then released",
     .held = true,
     .script = OFFER("S: 250-AUTH LOGIN XOAUTH2\n") "! release\n" LOGIN_DONE "! release\n"},
    {.name = "released before it was ready",
     .held = true,
     .script = STARTTLS "! release\n"
                        "! secure\n"
                        "C: EHLO relay.example\n"
                        "S: 250-x\n"
                        "S: 250 AUTH LOGIN\n" LOGIN_DONE},
    {.name = "held by a server that does not wait",
     .held = true,
     .script = OFFER("S: 250-AUTH LOGIN XOAUTH2\n") "S: 421 4.4.1 Connection timed out\n"
                                                    "> failed ehlo: 421 4.4.1 Connection timed "
                                                    "out\n"
                                                    "! release\n"},
    {.name = "QUIT",
     .no_auth = true,
     .script = OFFER("") "> ready\n"
                         "! quit\n"
                         "C: QUIT\n"
                         "S: 221 2.0.0 bye\n"
                         "> failed quit: 221 2.0.0 bye\n"
                         "! lost closed\n"},
    {.name = "QUIT without an answer",
     .no_auth = true,
     .script = OFFER("") "> ready\n"
                         "! quit\n"
                         "C: QUIT\n"
                         "! lost closed\n"
                         "> failed quit: (lost) closed\n"},
};

static void the_session_is_opened_over_starttls_and_auth(void **state)
{
    (void)state;
    play_all(openings, COUNT(openings));
}

static const struct dialogue early_refusals[] = {
    {.name = "banner 554",
     .script = "! connected\n"
               "S: 554 5.7.1 no service\n"
               "C: QUIT\n"
               "> failed banner: 554 5.7.1 no service\n"
               "S: 221 bye\n"},
    {.name = "banner 421",
     .script = "! connected\n"
               "S: 421 4.3.2 Service not available\n"
               "> failed banner: 421 4.3.2 Service not available\n"},
    {.name = "banner 250",
     .script = "! connected\n"
               "S: 250 hello\n"
               "C: QUIT\n"
               "> failed banner: (protocol) unexpected reply while waiting for the banner: "
               "250 hello\n"},
    {.name = "another protocol",
     .script = "! connected\n"
               "S: * OK IMAP4rev1 ready\n"
               "> failed banner: (protocol) the server sent a line that is no SMTP reply: "
               "\"* OK IMAP4rev1 ready\"\n"},
    {.name = "EHLO 502: HELO is not tried",
     .script = BANNER "S: 502 5.5.1 what?\n"
                      "C: QUIT\n"
                      "> failed ehlo: 502 5.5.1 what?\n"},
    {.name = "STARTTLS 454",
     .script = BANNER "S: 250-x\n"
                      "S: 250 STARTTLS\n"
                      "C: STARTTLS\n"
                      "S: 454 4.7.0 TLS not available\n"
                      "C: QUIT\n"
                      "> failed starttls: 454 4.7.0 TLS not available\n"},
    {.name = "STARTTLS 250",
     .script = BANNER "S: 250-x\n"
                      "S: 250 STARTTLS\n"
                      "C: STARTTLS\n"
                      "S: 250 sure\n"
                      "C: QUIT\n"
                      "> failed starttls: (protocol) unexpected reply while waiting for the "
                      "reply to STARTTLS: 250 sure\n"},
    {.name = "second EHLO refused",
     .script = SECURE "S: 421 4.7.66 TLS 1.0 and 1.1 are not supported.\n"
                      "> failed ehlo: 421 4.7.66 TLS 1.0 and 1.1 are not supported.\n"},
    {.name = "password wrong",
     .script = SIGNING_IN "! sasl none\n"
                          "C: AUTH LOGIN\n"
                          "S: 334 VXNlcm5hbWU6\n"
                          "> sasl-step Username:\n"
                          "! sasl u\n"
                          "C: dQ==\n"
                          "S: 334 UGFzc3dvcmQ6\n"
                          "> sasl-step Password:\n"
                          "! sasl p\n"
                          "C: cA==\n"
                          "S: 535 5.7.3 Authentication unsuccessful [X.prod.example]\n"
                          "C: QUIT\n"
                          "> failed auth: 535 5.7.3 Authentication unsuccessful "
                          "[X.prod.example]\n"},
    {.name = "AUTH refused at once",
     .script = SIGNING_IN "! sasl none\n"
                          "C: AUTH LOGIN\n"
                          "S: 504 5.7.4 Unrecognized authentication type\n"
                          "C: QUIT\n"
                          "> failed auth: 504 5.7.4 Unrecognized authentication type\n"},
    {.name = "250 is no 235",
     .script = SIGNING_IN "! sasl none\n"
                          "C: AUTH LOGIN\n"
                          "S: 250 ok\n"
                          "C: QUIT\n"
                          "> failed auth: (protocol) unexpected reply while signing in: "
                          "250 ok\n"},
};

static void a_refusal_before_the_sign_in_ends_the_session_at_its_stage(void **state)
{
    (void)state;
    play_all(early_refusals, COUNT(early_refusals));
}

static const struct dialogue clear_texts[] = {
    {.name = "STARTTLS is not offered",
     .script = BANNER "S: 250-x\n"
                      "S: 250 AUTH LOGIN PLAIN\n"
                      "C: QUIT\n"
                      "> failed starttls: (tls) the server does not offer STARTTLS; nothing is "
                      "sent without encryption\n"},
    {.name = "nor without sign-in",
     .no_auth = true,
     .script = BANNER "S: 250 x\n"
                      "C: QUIT\n"
                      "> failed starttls: (tls) the server does not offer STARTTLS; nothing is "
                      "sent without encryption\n"},
    {.name = "what was announced in clear is forgotten",
     .script = BANNER "S: 250-x\n"
                      "S: 250-AUTH LOGIN\n"
                      "S: 250 STARTTLS\n"
                      "C: STARTTLS\n"
                      "S: 220 go\n"
                      "> start-tls\n"
                      "! secure\n"
                      "C: EHLO relay.example\n"
                      "S: 250 x\n"
                      "C: QUIT\n"
                      "> failed auth: (protocol) the server offers no sign-in; LOGIN PLAIN is "
                      "needed\n"},
    {.name = "a reply injected behind 220",
     .together = true,
     .script = BANNER "S: 250-x\n"
                      "S: 250 STARTTLS\n"
                      "C: STARTTLS\n"
                      "s: 220 go\n"
                      "S: 250-x\n"
                      "> failed starttls: (tls) the server sent more in clear behind its reply "
                      "to STARTTLS; somebody may be tampering with the connection\n"},
    {.name = "a single octet injected behind 220",
     .together = true,
     .script = BANNER "S: 250-x\n"
                      "S: 250 STARTTLS\n"
                      "C: STARTTLS\n"
                      "s: 220 go\n"
                      "s. 2\n"
                      "> failed starttls: (tls) the server sent more in clear behind its reply "
                      "to STARTTLS; somebody may be tampering with the connection\n"},
    {.name = "injected after 220, before TLS is up",
     .script = STARTTLS "s. 2\n"
                        "> failed tls: (tls) the server sent more in clear behind its reply "
                        "to STARTTLS\n"
                        "! secure\n"},
    {.name = "a reply to STARTTLS that came before it",
     .together = true,
     .script = BANNER "s: 250-x\n"
                      "s: 250 STARTTLS\n"
                      "S: 220 go\n"
                      "C: STARTTLS\n"
                      "> failed starttls: (protocol) unexpected reply while waiting for the "
                      "reply to STARTTLS: 220 go\n"},
};

static void nothing_is_sent_in_clear(void **state)
{
    (void)state;
    play_all(clear_texts, COUNT(clear_texts));
}

static const struct dialogue other_mechanisms[] = {
    {.name = "others only",
     .script = OFFER("S: 250-AUTH XOAUTH2 GSSAPI\n") "C: QUIT\n"
                                                     "> failed auth: (protocol) the server offers "
                                                     "XOAUTH2 GSSAPI for signing in, but this "
                                                     "mailbox can use LOGIN PLAIN only\n"},
    {.name = "a name that only begins like ours",
     .script =
         OFFER("S: 250-AUTH PLAIN-CLIENTTOKEN\n") "C: QUIT\n"
                                                  "> failed auth: (protocol) the server offers "
                                                  "PLAIN-CLIENTTOKEN for signing in, but "
                                                  "this mailbox can use LOGIN PLAIN only\n"},
    {.name = "none",
     .script = OFFER("") "C: QUIT\n"
                         "> failed auth: (protocol) the server offers no "
                         "sign-in; LOGIN PLAIN is needed\n"},
};

static void a_server_without_our_mechanisms_is_told_apart(void **state)
{
    (void)state;
    play_all(other_mechanisms, COUNT(other_mechanisms));
}

static const struct dialogue astray_sign_ins[] = {
    {.name = "our secret cannot be used",
     .script = SIGNING_IN "! sasl-failed no such file\n"
                          "C: QUIT\n"
                          "> failed auth: (secret) no such file\n"},
    {.name = "the mechanism gives up in the middle",
     .script = SIGNING_IN "! sasl none\n"
                          "C: AUTH LOGIN\n"
                          "S: 334 VXNlcm5hbWU6\n"
                          "> sasl-step Username:\n"
                          "! sasl-failed no memory\n"
                          "C: *\n"
                          "> failed auth: (secret) no memory\n"
                          "S: 535 cancelled\n"},
    {.name = "the challenge is not base64",
     .script = SIGNING_IN "! sasl none\n"
                          "C: AUTH LOGIN\n"
                          "S: 334 Username:\n"
                          "C: *\n"
                          "> failed auth: (protocol) the server's question while signing in is "
                          "not base64\n"},
    {.name = "an unasked reply while the response is worked out",
     .script = SIGNING_IN "S: 421 4.4.1 Connection timed out\n"
                          "> failed auth: 421 4.4.1 Connection timed out\n"
                          "! sasl none\n"},
    {.name = "235 before the password",
     .together = true,
     .script = OFFER("S: 250-AUTH LOGIN\n") "> sasl-start LOGIN\n"
                                            "! sasl none\n"
                                            "C: AUTH LOGIN\n"
                                            "s: 334 VXNlcm5hbWU6\n"
                                            "S: 235 fine\n"
                                            "> sasl-step Username:\n"
                                            "> failed auth: (protocol) unexpected reply while "
                                            "signing in: 235 fine\n"
                                            "! sasl u\n"},
    {.name = "lost",
     .script = SIGNING_IN "! sasl none\n"
                          "C: AUTH LOGIN\n"
                          "! lost timeout of mine\n"
                          "> failed auth: (timeout) timeout of mine\n"
                          "! sasl u\n"},
};

static void a_sign_in_that_goes_astray_ends_the_session(void **state)
{
    (void)state;
    play_all(astray_sign_ins, COUNT(astray_sign_ins));
}

static const struct dialogue early_losses[] = {
    {.name = "connect", .script = "! lost refused\n> failed connect: (lost) refused\n"},
    {.name = "banner",
     .script = "! connected\n! lost timeout\n> failed banner: (timeout) timeout\n"},
    {.name = "ehlo", .script = BANNER "! lost x\n> failed ehlo: (lost) x\n! lost y\n"},
    {.name = "tls", .script = STARTTLS "! lost x\n> failed tls: (lost) x\n! secure\n"},
    {.name = "in the middle of a reply",
     .script = BANNER "s. 250-x\n! lost x\n> failed ehlo: (lost) x\n"},
};

static void losses_before_the_sign_in_keep_their_stage(void **state)
{
    (void)state;
    play_all(early_losses, COUNT(early_losses));
}

/* ---- transactions ---------------------------------------------------------------------------- */

#define OPEN(keywords)                                                                             \
    "! connected\n"                                                                                \
    "S: 220 x\n"                                                                                   \
    "C: EHLO relay.example\n"                                                                      \
    "S: 250-x\n" keywords "S: 250 HELP\n"                                                          \
    "> ready\n"

#define PIPELINING OPEN("S: 250-PIPELINING\n")

#define FLIGHT_1                                                                                   \
    "! begin\n"                                                                                    \
    "C: MAIL FROM:<scan@office.example>\n"                                                         \
    "C: RCPT TO:<a@b.example>\n"                                                                   \
    "C: DATA\n"

#define FLIGHT_2                                                                                   \
    "! begin\n"                                                                                    \
    "C: MAIL FROM:<scan@office.example>\n"                                                         \
    "C: RCPT TO:<a@b.example>\n"                                                                   \
    "C: RCPT TO:<c@d.example>\n"                                                                   \
    "C: DATA\n"

#define IN_BODY                                                                                    \
    FLIGHT_1 "S: 250 2.1.0 Sender OK\n"                                                            \
             "S: 250 2.1.5 Recipient OK\n"                                                         \
             "> recipient 0: 250 2.1.5 Recipient OK\n"                                             \
             "S: 354 Start mail input\n"                                                           \
             "> body\n"

#define IN_DOUBT                                                                                   \
    IN_BODY "! body Subject: x||||text||\n"                                                        \
            "C: Subject: x\n"                                                                      \
            "C: \n"                                                                                \
            "C: text\n"                                                                            \
            "! body-end\n"                                                                         \
            "> doubt\n"

#define AT_FINAL_DOT IN_DOUBT "! doubted true\nC: .\n"

#define DELIVERED                                                                                  \
    AT_FINAL_DOT "S: 250 2.0.0 OK <id>\n"                                                          \
                 "> result final-dot: 250 2.0.0 OK <id>\n"

/* Rows of this part need neither STARTTLS nor AUTH. */
static void play_open(const struct dialogue *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct dialogue d = rows[i];

        d.implicit_tls = true;
        d.no_auth = true;
        print_message("  %s\n", d.name);
        play(&d, false);
        play(&d, true);
    }
}

static const struct dialogue flights[] = {
    {.name = "one recipient", .script = PIPELINING DELIVERED "> ready\n"},
    {.name = "one after the other",
     .script = PIPELINING DELIVERED "> ready\n" DELIVERED "> ready\n" DELIVERED "> ready\n"},
    {.name = "replies in one read",
     .recipients = "a@b.example c@d.example",
     .script = PIPELINING FLIGHT_2 "s: 250 ok\n"
                                   "s: 250-yes\n"
                                   "s: 250 yes\n"
                                   "s: 251 will forward\n"
                                   "S: 354 go\n"
                                   "> recipient 0: 250 yes yes\n"
                                   "> recipient 1: 251 will forward\n"
                                   "> body\n"},
    {.name = "recipients that are not pending are skipped",
     .recipients = "-w@b.example a@b.example -x@b.example -y@b.example c@d.example -z@b.example",
     .script = PIPELINING FLIGHT_2 "S: 250 ok\n"
                                   "S: 250 yes\n"
                                   "> recipient 1: 250 yes\n"
                                   "S: 250 yes\n"
                                   "> recipient 4: 250 yes\n"
                                   "S: 354 go\n"
                                   "> body\n"},
};

static void a_transaction_is_one_flight_with_pipelining(void **state)
{
    (void)state;
    play_open(flights, COUNT(flights));
}

static const struct dialogue slow_flights[] = {
    {.name = "two recipients, one refused",
     .recipients = "a@b.example c@d.example",
     .script = OPEN("") "! begin\n"
                        "C: MAIL FROM:<scan@office.example>\n"
                        "S: 250 ok\n"
                        "C: RCPT TO:<a@b.example>\n"
                        "S: 550 5.1.1 no\n"
                        "C: RCPT TO:<c@d.example>\n"
                        "> recipient 0: 550 5.1.1 no\n"
                        "S: 250 yes\n"
                        "C: DATA\n"
                        "> recipient 1: 250 yes\n"
                        "S: 354 go\n"
                        "> body\n"},
    {.name = "MAIL refused: nothing else is asked",
     .script = OPEN("") "! begin\n"
                        "C: MAIL FROM:<scan@office.example>\n"
                        "S: 550 5.7.60 SendAs\n"
                        "> result mail: 550 5.7.60 SendAs\n"
                        "> ready\n"
                        "! begin\n"
                        "C: MAIL FROM:<scan@office.example>\n"},
    {.name = "all recipients refused: no DATA, but RSET before the next",
     .recipients = "a@b.example c@d.example",
     .script = OPEN("") "! begin\n"
                        "C: MAIL FROM:<scan@office.example>\n"
                        "S: 250 ok\n"
                        "C: RCPT TO:<a@b.example>\n"
                        "S: 550 5.1.1 no\n"
                        "C: RCPT TO:<c@d.example>\n"
                        "> recipient 0: 550 5.1.1 no\n"
                        "S: 452 4.5.3 later\n"
                        "> recipient 1: 452 4.5.3 later\n"
                        "> result rcpt: 452 4.5.3 later\n"
                        "> ready\n"
                        "! begin\n"
                        "C: RSET\n"
                        "S: 250 reset\n"
                        "C: MAIL FROM:<scan@office.example>\n"
                        "S: 250 ok\n"
                        "C: RCPT TO:<a@b.example>\n"},
};

static void without_pipelining_every_command_waits(void **state)
{
    (void)state;
    play_open(slow_flights, COUNT(slow_flights));
}

static const struct dialogue parameters[] = {
    {.name = "all offered, 7 bit",
     .script =
         OPEN("S: 250-SIZE 35000000\nS: 250-8BITMIME\nS: 250-SMTPUTF8\n") "! begin\nC: MAIL "
                                                                          "FROM:<scan@office."
                                                                          "example> SIZE=1234\n"},
    {.name = "SIZE without a limit",
     .script = OPEN("S: 250-SIZE\n") "! begin\nC: MAIL FROM:<scan@office.example> SIZE=1234\n"},
    {.name = "8 bit, offered",
     .eight_bit = true,
     .script =
         OPEN("S: 250-8BITMIME\n") "! begin\nC: MAIL FROM:<scan@office.example> BODY=8BITMIME\n"},
    {.name = "8 bit, not offered",
     .eight_bit = true,
     .script = OPEN("") "! begin\nC: MAIL FROM:<scan@office.example>\n"},
    {.name = "a reverse-path that needs SMTPUTF8",
     .reverse_path = "b\xc3\xbcro@office.example",
     .script =
         OPEN("S: 250-SMTPUTF8\n") "! begin\nC: MAIL FROM:<b\xc3\xbcro@office.example> SMTPUTF8\n"},
    {.name = "a recipient that needs it",
     .recipients = "a@b.example \xc3\xbc@b.example",
     .script = OPEN("S: 250-SMTPUTF8\n") "! begin\nC: MAIL FROM:<scan@office.example> SMTPUTF8\n"},
    {.name = "one that needs it, but is done",
     .recipients = "a@b.example -\xc3\xbc@b.example",
     .script = OPEN("S: 250-SMTPUTF8\n") "! begin\nC: MAIL FROM:<scan@office.example>\n"},
    {.name = "needed, but not offered",
     .recipients = "\xc3\xbc@b.example",
     .script = OPEN("") "! begin\nC: MAIL FROM:<scan@office.example>\n"},
    {.name = "null reverse-path",
     .reverse_path = "",
     .script = OPEN("") "! begin\nC: MAIL FROM:<>\n"},
    {.name = "all at once",
     .reverse_path = "\xc3\xbc@office.example",
     .eight_bit = true,
     .script =
         OPEN("S: 250-SIZE 1\nS: 250-8BITMIME\nS: 250-SMTPUTF8\n") "! begin\nC: MAIL "
                                                                   "FROM:<\xc3\xbc@office."
                                                                   "example> SIZE=1234 "
                                                                   "BODY=8BITMIME SMTPUTF8\n"},
    {.name = "notifications, offered",
     .recipients = "a@b.example c@d.example",
     .dsn = true,
     .script = OPEN("S: 250-DSN\nS: 250-PIPELINING\n") "! begin\n"
                                                       "C: MAIL FROM:<scan@office.example> "
                                                       "RET=HDRS ENVID=job+2B17\n"
                                                       "C: RCPT TO:<a@b.example> "
                                                       "NOTIFY=SUCCESS,FAILURE "
                                                       "ORCPT=rfc822;x@b.example\n"
                                                       "C: RCPT TO:<c@d.example>\n"
                                                       "C: DATA\n"},
    {.name = "notifications, not offered",
     .recipients = "a@b.example",
     .dsn = true,
     .script = OPEN("S: 250-PIPELINING\n") "! begin\nC: MAIL FROM:<scan@office.example>\n"
                                           "C: RCPT TO:<a@b.example>\nC: DATA\n"},
    {.name = "no notifications, offered",
     .script = OPEN("S: 250-DSN\n") "! begin\nC: MAIL FROM:<scan@office.example>\n"},
    {.name = "a path can never become a second command",
     .reverse_path = "a\r@b\x7f",
     .script = OPEN("") "! begin\nC: MAIL FROM:<a?@b?>\n"},
};

static void mail_takes_only_parameters_that_are_offered_and_needed(void **state)
{
    (void)state;
    play_open(parameters, COUNT(parameters));
}

static const struct dialogue refused_recipients[] = {
    {.name = "4xx",
     .recipients = "a@b.example c@d.example",
     .script = PIPELINING FLIGHT_2 "S: 250 ok\n"
                                   "S: 450 4.2.1 busy\n"
                                   "> recipient 0: 450 4.2.1 busy\n"
                                   "S: 250 yes\n"
                                   "> recipient 1: 250 yes\n"
                                   "S: 354 go\n"
                                   "> body\n"
                                   "! body x||\n"
                                   "C: x\n"
                                   "! body-end\n"
                                   "> doubt\n"
                                   "! doubted true\n"
                                   "C: .\n"
                                   "S: 250 done\n"
                                   "> result final-dot: 250 done\n"
                                   "> ready\n"},
    {.name = "5xx",
     .recipients = "a@b.example c@d.example",
     .script = PIPELINING FLIGHT_2 "S: 250 ok\n"
                                   "S: 250 yes\n"
                                   "> recipient 0: 250 yes\n"
                                   "S: 550 5.1.10 no\n"
                                   "> recipient 1: 550 5.1.10 no\n"
                                   "S: 354 go\n"
                                   "> body\n"},
};

static void a_refusal_of_a_recipient_touches_only_that_recipient(void **state)
{
    (void)state;
    play_open(refused_recipients, COUNT(refused_recipients));
}

static const struct dialogue refused_mails[] = {
    {.name = "all refused",
     .recipients = "a@b.example c@d.example",
     .script = PIPELINING FLIGHT_2 "S: 550 5.7.60 SendAs\n"
                                   "> result mail: 550 5.7.60 SendAs\n"
                                   "S: 503 5.5.1 MAIL first\n"
                                   "S: 503 5.5.1 MAIL first\n"
                                   "S: 503 5.5.1 MAIL first\n"
                                   "> ready\n"
                                   "! begin\n"
                                   "C: MAIL FROM:<scan@office.example>\n"
                                   "C: RCPT TO:<a@b.example>\n"
                                   "C: RCPT TO:<c@d.example>\n"
                                   "C: DATA\n"},
    {.name = "354 all the same: only the dot",
     .script = PIPELINING FLIGHT_1 "S: 451 4.3.0 not now\n"
                                   "> result mail: 451 4.3.0 not now\n"
                                   "S: 250 yes\n"
                                   "S: 354 go\n"
                                   "C: .\n"
                                   "S: 554 5.5.1 no valid recipients\n"
                                   "> ready\n"},
    {.name = "354, and the dot is accepted: the result stands",
     .script = PIPELINING FLIGHT_1 "s: 451 4.3.0 not now\n"
                                   "s: 250 yes\n"
                                   "S: 354 go\n"
                                   "> result mail: 451 4.3.0 not now\n"
                                   "C: .\n"
                                   "S: 250 queued\n"
                                   "> ready\n",
     .together = true},
    {.name = "lost meanwhile",
     .script = PIPELINING FLIGHT_1 "S: 550 no\n"
                                   "> result mail: 550 no\n"
                                   "! lost closed\n"
                                   "> failed rcpt: (lost) closed\n"},
    {.name = "421 meanwhile",
     .script = PIPELINING FLIGHT_1 "S: 550 no\n"
                                   "> result mail: 550 no\n"
                                   "S: 421 bye\n"
                                   "> failed rcpt: 421 bye\n"},
    {.name = "354 to MAIL",
     .script = PIPELINING FLIGHT_1 "S: 354 go\n"
                                   "> result mail: (protocol) unexpected reply while waiting "
                                   "for the reply to MAIL: 354 go\n"
                                   "> failed mail: (protocol) unexpected reply while waiting "
                                   "for the reply to MAIL: 354 go\n"},
};

static void when_mail_is_refused_the_rest_of_the_flight_is_read_and_ignored(void **state)
{
    (void)state;
    play_open(refused_mails, COUNT(refused_mails));
}

static const struct dialogue nobody_left[] = {
    {.name = "DATA refused, as it should be",
     .script = PIPELINING FLIGHT_1 "S: 250 ok\n"
                                   "S: 550 5.1.1 no\n"
                                   "> recipient 0: 550 5.1.1 no\n"
                                   "S: 554 5.5.1 no valid recipients\n"
                                   "> result rcpt: 550 5.1.1 no\n"
                                   "> ready\n"
                                   "! begin\n"
                                   "C: RSET\n"
                                   "C: MAIL FROM:<scan@office.example>\n"
                                   "C: RCPT TO:<a@b.example>\n"
                                   "C: DATA\n"
                                   "S: 250 reset\n"
                                   "S: 250 ok\n"
                                   "S: 250 yes\n"
                                   "> recipient 0: 250 yes\n"
                                   "S: 354 go\n"
                                   "> body\n"},
    {.name = "354: only the dot, and no RSET after it",
     .recipients = "a@b.example c@d.example",
     .script = PIPELINING FLIGHT_2 "S: 250 ok\n"
                                   "S: 550 5.1.1 no\n"
                                   "> recipient 0: 550 5.1.1 no\n"
                                   "S: 450 4.2.1 busy\n"
                                   "> recipient 1: 450 4.2.1 busy\n"
                                   "S: 354 go\n"
                                   "C: .\n"
                                   "> result rcpt: 450 4.2.1 busy\n"
                                   "S: 554 5.5.1 no valid recipients\n"
                                   "> ready\n"
                                   "! begin\n"
                                   "C: MAIL FROM:<scan@office.example>\n"
                                   "C: RCPT TO:<a@b.example>\n"
                                   "C: RCPT TO:<c@d.example>\n"
                                   "C: DATA\n"},
    {.name = "lost after the lone dot: certain all the same",
     .script = PIPELINING FLIGHT_1 "S: 250 ok\n"
                                   "S: 550 5.1.1 no\n"
                                   "> recipient 0: 550 5.1.1 no\n"
                                   "S: 354 go\n"
                                   "C: .\n"
                                   "> result rcpt: 550 5.1.1 no\n"
                                   "! lost closed\n"
                                   "> failed data: (lost) closed\n"},
    {.name = "354 to the lone dot",
     .script = PIPELINING FLIGHT_1 "S: 250 ok\n"
                                   "S: 550 5.1.1 no\n"
                                   "> recipient 0: 550 5.1.1 no\n"
                                   "S: 354 go\n"
                                   "C: .\n"
                                   "> result rcpt: 550 5.1.1 no\n"
                                   "S: 354 more\n"
                                   "> failed data: (protocol) unexpected reply while waiting "
                                   "for the reply to DATA: 354 more\n"},
    {.name = "354 to RCPT",
     .script = PIPELINING FLIGHT_1 "S: 250 ok\n"
                                   "S: 354 go\n"
                                   "> result rcpt: (protocol) unexpected reply while waiting "
                                   "for the reply to RCPT: 354 go\n"
                                   "> failed rcpt: (protocol) unexpected reply while waiting "
                                   "for the reply to RCPT: 354 go\n"},
};

static void when_all_recipients_are_refused_no_mail_data_is_sent(void **state)
{
    (void)state;
    play_open(nobody_left, COUNT(nobody_left));
}

static const struct dialogue refused_data[] = {
    {.name = "and the session goes on",
     .script = PIPELINING FLIGHT_1 "S: 250 ok\n"
                                   "S: 250 yes\n"
                                   "> recipient 0: 250 yes\n"
                                   "S: 451 4.3.1 no room\n"
                                   "> result data: 451 4.3.1 no room\n"
                                   "> ready\n"
                                   "! begin\n"
                                   "C: RSET\n"
                                   "C: MAIL FROM:<scan@office.example>\n"
                                   "C: RCPT TO:<a@b.example>\n"
                                   "C: DATA\n"
                                   "S: 250 reset\n"
                                   "S: 451 4.3.1 still no room\n"
                                   "> result mail: 451 4.3.1 still no room\n"
                                   "S: 503 MAIL first\n"
                                   "S: 503 MAIL first\n"
                                   "> ready\n"
                                   "! begin\n"
                                   "C: MAIL FROM:<scan@office.example>\n"
                                   "C: RCPT TO:<a@b.example>\n"
                                   "C: DATA\n"},
    {.name = "250 to DATA",
     .script = PIPELINING FLIGHT_1 "S: 250 ok\n"
                                   "S: 250 yes\n"
                                   "> recipient 0: 250 yes\n"
                                   "S: 250 hm\n"
                                   "> result data: (protocol) unexpected reply while waiting "
                                   "for the reply to DATA: 250 hm\n"
                                   "> failed data: (protocol) unexpected reply while waiting "
                                   "for the reply to DATA: 250 hm\n"},
    {.name = "RSET refused: the message has no part in it",
     .script = PIPELINING FLIGHT_1 "S: 250 ok\n"
                                   "S: 250 yes\n"
                                   "> recipient 0: 250 yes\n"
                                   "S: 451 no\n"
                                   "> result data: 451 no\n"
                                   "> ready\n"
                                   "! begin\n"
                                   "C: RSET\n"
                                   "C: MAIL FROM:<scan@office.example>\n"
                                   "C: RCPT TO:<a@b.example>\n"
                                   "C: DATA\n"
                                   "S: 502 what?\n"
                                   "> result idle: 502 what?\n"
                                   "> failed idle: 502 what?\n"},
    {.name = "QUIT needs no RSET",
     .script = PIPELINING FLIGHT_1 "S: 250 ok\n"
                                   "S: 250 yes\n"
                                   "> recipient 0: 250 yes\n"
                                   "S: 451 no\n"
                                   "> result data: 451 no\n"
                                   "> ready\n"
                                   "! quit\n"
                                   "C: QUIT\n"},
};

static void when_data_is_refused_the_next_flight_begins_with_rset(void **state)
{
    (void)state;
    play_open(refused_data, COUNT(refused_data));
}

/* ---- mail data ------------------------------------------------------------------------------- */

static const struct dialogue bodies[] = {
    {.name = "dots, split over blocks",
     .script = PIPELINING IN_BODY "! body .||.\n"
                                  "C: ..\n"
                                  "C~ ..\n"
                                  "! body .x||\n"
                                  "C: .x\n"
                                  "! body a.b||\n"
                                  "C: a.b\n"
                                  "! body .\n"
                                  "C~ ..\n"
                                  "! body-end\n"
                                  "> doubt\n"
                                  "! doubted true\n"
                                  "C: \n"
                                  "C: .\n"
                                  "S: 250 ok\n"
                                  "> result final-dot: 250 ok\n"
                                  "> ready\n"},
    {.name = "nothing at all",
     .script = PIPELINING IN_BODY "! body-end\n"
                                  "> doubt\n"
                                  "! doubted true\n"
                                  "C: .\n"},
    {.name = "the mark comes once",
     .script = PIPELINING AT_FINAL_DOT "! doubted true\n"
                                       "! doubted false\n"
                                       "! body-end\n"
                                       "! body late||\n"
                                       "S: 250 ok\n"
                                       "> result final-dot: 250 ok\n"
                                       "> ready\n"},
    {.name = "no mark before the end",
     .script = PIPELINING IN_BODY "! doubted true\n"
                                  "! body x||\n"
                                  "C: x\n"
                                  "! doubted true\n"},
    {.name = "the mark cannot be made",
     .script = PIPELINING IN_DOUBT "! doubted false\n"
                                   "> result body: (spool) the in-doubt mark could not be made "
                                   "durable\n"
                                   "> failed body: (spool) the in-doubt mark could not be made "
                                   "durable\n"
                                   "! doubted true\n"},
    {.name = "the message cannot be read",
     .script = PIPELINING IN_BODY "! body x||\n"
                                  "C: x\n"
                                  "! body-failed damaged\n"
                                  "> result body: (spool) damaged\n"
                                  "> failed body: (spool) damaged\n"
                                  "! body-end\n"
                                  "! doubted true\n"},
};

static void mail_data_is_stuffed_and_its_end_waits_for_the_mark(void **state)
{
    (void)state;
    play_open(bodies, COUNT(bodies));
}

static const struct dialogue verdicts[] = {
    {.name = "accepted", .script = PIPELINING DELIVERED "> ready\n"},
    {.name = "too many connections",
     .script = PIPELINING AT_FINAL_DOT
     "S: 432 4.3.2 Concurrent connections limit exceeded.\n"
     "> result final-dot: 432 4.3.2 Concurrent connections limit exceeded.\n"
     "> ready\n" FLIGHT_1},
    {.name = "refused for good",
     .script = PIPELINING AT_FINAL_DOT "S: 554 5.2.252 SendAsDenied\n"
                                       "> result final-dot: 554 5.2.252 SendAsDenied\n"
                                       "> ready\n"},
    {.name = "421",
     .script = PIPELINING AT_FINAL_DOT "S: 421 4.3.2 shutting down\n"
                                       "> result final-dot: 421 4.3.2 shutting down\n"
                                       "> failed final-dot: 421 4.3.2 shutting down\n"},
    {.name = "a loss after it changes nothing",
     .script = PIPELINING DELIVERED "> ready\n"
                                    "! lost reset by peer\n"
                                    "> failed idle: (lost) reset by peer\n"},
    {.name = "unasked data after it changes nothing",
     .together = true,
     .script = PIPELINING AT_FINAL_DOT "s: 250 ok\n"
                                       "S: 550 I changed my mind\n"
                                       "> result final-dot: 250 ok\n"
                                       "> failed idle: 550 I changed my mind\n"},
    {.name = "nor does rubbish",
     .together = true,
     .script = PIPELINING AT_FINAL_DOT "s: 250 ok\n"
                                       "S: rubbish\n"
                                       "> result final-dot: 250 ok\n"
                                       "> failed idle: (protocol) the server sent a line that "
                                       "is no SMTP reply: \"rubbish\"\n"},
    {.name = "a failing QUIT changes nothing",
     .script = PIPELINING DELIVERED "> ready\n"
                                    "! quit\n"
                                    "C: QUIT\n"
                                    "S: 500 what?\n"
                                    "> failed quit: 500 what?\n"},
    {.name = "354 decides nothing",
     .script = PIPELINING AT_FINAL_DOT
     "S: 354 go on\n"
     "> result final-dot: (protocol) unexpected reply while waiting for the reply to the "
     "mail data: 354 go on\n"
     "> failed final-dot: (protocol) unexpected reply while waiting for the reply to the "
     "mail data: 354 go on\n"},
    {.name = "nor does rubbish instead of it",
     .script = PIPELINING AT_FINAL_DOT "S: rubbish\n"
                                       "> result final-dot: (protocol) the server sent a line "
                                       "that is no SMTP reply: \"rubbish\"\n"
                                       "> failed final-dot: (protocol) the server sent a line "
                                       "that is no SMTP reply: \"rubbish\"\n"},
};

static void the_reply_to_the_final_dot_decides(void **state)
{
    (void)state;
    play_open(verdicts, COUNT(verdicts));
}

static const struct dialogue losses[] = {
    {.name = "MAIL",
     .script = PIPELINING FLIGHT_1 "! lost x\n> result mail: (lost) x\n> failed mail: (lost) x\n"},
    {.name = "RCPT",
     .script = PIPELINING FLIGHT_1
     "S: 250 ok\n! lost x\n> result rcpt: (lost) x\n> failed rcpt: (lost) x\n"},
    {.name = "DATA",
     .script = PIPELINING FLIGHT_1 "S: 250 ok\nS: 250 ok\n> recipient 0: 250 ok\n! lost x\n"
                                   "> result data: (lost) x\n> failed data: (lost) x\n"},
    {.name = "mail data",
     .script = PIPELINING IN_BODY "! body x\nC~ x\n! lost x\n"
                                  "> result body: (lost) x\n> failed body: (lost) x\n"
                                  "! body y\n! body-end\n! doubted true\n"},
    {.name = "while the mark is made",
     .script = PIPELINING IN_DOUBT
     "! lost x\n> result body: (lost) x\n> failed body: (lost) x\n! doubted true\n"},
    {.name = "after the end",
     .script = PIPELINING AT_FINAL_DOT "! lost timeout\n> result final-dot: (timeout) timeout\n"
                                       "> failed final-dot: (timeout) timeout\n"},
    {.name = "in the middle of the reply",
     .script = PIPELINING AT_FINAL_DOT "s. 250 2.0.0 O\n"
                                       "! lost x\n> result final-dot: (lost) x\n"
                                       "> failed final-dot: (lost) x\n"},
};

static void a_loss_is_uncertain_only_after_the_end_of_mail_data(void **state)
{
    (void)state;
    play_open(losses, COUNT(losses));
}

static const struct dialogue early_replies[] = {
    {.name = "552 while sending",
     .script = PIPELINING IN_BODY "! body x\n"
                                  "C~ x\n"
                                  "S: 552 5.3.4 too large\n"
                                  "> result body: 552 5.3.4 too large\n"
                                  "> failed body: 552 5.3.4 too large\n"
                                  "! body y\n"
                                  "! body-end\n"
                                  "! doubted true\n"},
    {.name = "421 right behind 354",
     .together = true,
     .script = PIPELINING FLIGHT_1 "s: 250 ok\n"
                                   "s: 250 ok\n"
                                   "s: 354 go\n"
                                   "S: 421 or rather not\n"
                                   "> recipient 0: 250 ok\n"
                                   "> body\n"
                                   "> result body: 421 or rather not\n"
                                   "> failed body: 421 or rather not\n"},
    {.name = "while the mark is made",
     .script = PIPELINING IN_DOUBT "S: 451 4.7.0 tired\n"
                                   "> result body: 451 4.7.0 tired\n"
                                   "> failed body: 451 4.7.0 tired\n"
                                   "! doubted true\n"},
    {.name = "a success is none: nothing can have been accepted",
     .script = PIPELINING IN_DOUBT "S: 250 queued\n"
                                   "> result body: (protocol) unexpected reply while sending "
                                   "mail data: 250 queued\n"
                                   "> failed body: (protocol) unexpected reply while sending "
                                   "mail data: 250 queued\n"
                                   "! doubted true\n"},
    {.name = "half a reply when the mark is made",
     .script = PIPELINING IN_DOUBT "s. 250 que\n"
                                   "! doubted true\n"
                                   "> result body: (protocol) the server began to answer before "
                                   "the end of mail data\n"
                                   "> failed body: (protocol) the server began to answer before "
                                   "the end of mail data\n"},
};

static void a_refusal_in_the_middle_of_mail_data_is_its_reply(void **state)
{
    (void)state;
    play_open(early_replies, COUNT(early_replies));
}

/* ---- chunks ---------------------------------------------------------------------------------- */

#define CHUNKING OPEN("S: 250-PIPELINING\nS: 250-CHUNKING\n")

/* 18 octets, of which the last one waits for the mark. */
#define CHUNK "! body Subject: x||||text\n"

#define CHUNK_ASKED                                                                                \
    "! begin\n"                                                                                    \
    "C: MAIL FROM:<scan@office.example>\n"                                                         \
    "C: RCPT TO:<a@b.example>\n"

#define CHUNK_BEGUN                                                                                \
    CHUNK_ASKED "s: 250 ok\n"                                                                      \
                "S: 250 yes\n"                                                                     \
                "C: BDAT 18 LAST\n"                                                                \
                "> recipient 0: 250 yes\n"                                                         \
                "> body\n"

#define CHUNK_IN_DOUBT                                                                             \
    CHUNK_BEGUN CHUNK "C: Subject: x\n"                                                            \
                      "C: \n"                                                                      \
                      "C~ tex\n"                                                                   \
                      "! body-end\n"                                                               \
                      "> doubt\n"

#define CHUNK_SENT CHUNK_IN_DOUBT "! doubted true\nC~ t\n"

#define CHUNK_TAKEN                                                                                \
    CHUNK_SENT "S: 250 2.0.0 OK <id>\n"                                                            \
               "> result final-dot: 250 2.0.0 OK <id>\n"                                           \
               "> ready\n"

/* The second message of a warm connection: all of it at once, behind the mark. */
#define GATHERED                                                                                   \
    "! begin\n"                                                                                    \
    "> body\n" CHUNK "! body-end\n"                                                                \
    "> doubt\n"

#define FLOWN                                                                                      \
    GATHERED "! doubted true\n"                                                                    \
             "C: MAIL FROM:<scan@office.example>\n"                                                \
             "C: RCPT TO:<a@b.example>\n"                                                          \
             "C: BDAT 18 LAST\n"                                                                   \
             "C: Subject: x\n"                                                                     \
             "C: \n"                                                                               \
             "C~ text\n"

static const struct dialogue chunks[] = {
    {.name = "recipients first, then one chunk", .size = 18, .script = CHUNKING CHUNK_TAKEN},
    {.name = "a server that was found not to know BDAT",
     .no_chunking = true,
     .script = CHUNKING FLIGHT_1},
    {.name = "without pipelining",
     .size = 18,
     .script = OPEN("S: 250-CHUNKING\n") "! begin\n"
                                         "C: MAIL FROM:<scan@office.example>\n"
                                         "S: 250 ok\n"
                                         "C: RCPT TO:<a@b.example>\n"
                                         "S: 250 yes\n"
                                         "C: BDAT 18 LAST\n"
                                         "> recipient 0: 250 yes\n"
                                         "> body\n"},
    {.name = "a refused recipient costs no upload",
     .size = 18,
     .script = CHUNKING CHUNK_ASKED "s: 250 ok\n"
                                    "S: 550 5.1.1 no\n"
                                    "> recipient 0: 550 5.1.1 no\n"
                                    "> result rcpt: 550 5.1.1 no\n"
                                    "> ready\n"},
    {.name = "dots are not stuffed",
     .size = 5,
     .script = CHUNKING CHUNK_ASKED "s: 250 ok\n"
                                    "S: 250 yes\n"
                                    "C: BDAT 5 LAST\n"
                                    "> recipient 0: 250 yes\n"
                                    "> body\n"
                                    "! body .||.x\n"
                                    "C: .\n"
                                    "C~ .\n"
                                    "! body-end\n"
                                    "> doubt\n"
                                    "! doubted true\n"
                                    "C~ x\n"},
    {.name = "a refused chunk needs RSET",
     .size = 18,
     .script = CHUNKING CHUNK_SENT "S: 552 5.3.4 too large\n"
                                   "> result final-dot: 552 5.3.4 too large\n"
                                   "> ready\n"
                                   "! begin\n"
                                   "C: RSET\n"
                                   "C: MAIL FROM:<scan@office.example>\n"
                                   "C: RCPT TO:<a@b.example>\n"},
    {.name = "a loss before the last octet is certain",
     .size = 18,
     .script = CHUNKING CHUNK_IN_DOUBT "! lost reset\n"
                                       "> result body: (lost) reset\n"
                                       "> failed body: (lost) reset\n"},
    {.name = "a loss behind it is not, however orderly",
     .size = 18,
     .script = CHUNKING CHUNK_SENT "! closed closed by peer\n"
                                   "> result final-dot: (lost) closed by peer\n"
                                   "> failed final-dot: (lost) closed by peer\n"},
    {.name = "BDAT is not known after all",
     .size = 18,
     .script = CHUNKING CHUNK_SENT
     "S: 502 5.5.1 Command not implemented\n"
     "> result idle: (lost) the server announces CHUNKING but refuses BDAT with 502\n"
     "> failed idle: (lost) the server announces CHUNKING but refuses BDAT with 502\n"},
    {.name = "a refusal of the message has such codes as well",
     .size = 18,
     .script = CHUNKING CHUNK_SENT "S: 501 5.1.3 invalid recipient address\n"
                                   "> result final-dot: 501 5.1.3 invalid recipient address\n"
                                   "> ready\n"},
    {.name = "a message longer than it said",
     .size = 17,
     .script = CHUNKING CHUNK_ASKED "s: 250 ok\n"
                                    "S: 250 yes\n"
                                    "C: BDAT 17 LAST\n"
                                    "> recipient 0: 250 yes\n"
                                    "> body\n" CHUNK
                                    "> result body: (spool) the message is longer than its size "
                                    "says\n"
                                    "> failed body: (spool) the message is longer than its size "
                                    "says\n"},
    {.name = "a message shorter than it said",
     .size = 19,
     .script = CHUNKING CHUNK_ASKED "s: 250 ok\n"
                                    "S: 250 yes\n"
                                    "C: BDAT 19 LAST\n"
                                    "> recipient 0: 250 yes\n"
                                    "> body\n" CHUNK "C: Subject: x\n"
                                    "C: \n"
                                    "C~ text\n"
                                    "! body-end\n"
                                    "> result body: (spool) the message is shorter than its size "
                                    "says\n"
                                    "> failed body: (spool) the message is shorter than its size "
                                    "says\n"},
};

static void mail_data_is_one_chunk_where_the_server_takes_it(void **state)
{
    (void)state;
    play_open(chunks, COUNT(chunks));
}

static const struct dialogue whole_flights[] = {
    {.name = "the second message of a warm connection",
     .size = 18,
     .script = CHUNKING CHUNK_TAKEN FLOWN "s: 250 ok\n"
                                          "s: 250 yes\n"
                                          "S: 250 2.0.0 OK <id>\n"
                                          "> recipient 0: 250 yes\n"
                                          "> result final-dot: 250 2.0.0 OK <id>\n"
                                          "> ready\n" FLOWN},
    {.name = "a connection that was idle",
     .cold = true,
     .size = 18,
     .script = CHUNKING CHUNK_TAKEN CHUNK_TAKEN},
    {.name = "one recipient of two is refused",
     .size = 18,
     .recipients = "a@b.example c@d.example",
     .script = CHUNKING "! begin\n"
                        "C: MAIL FROM:<scan@office.example>\n"
                        "C: RCPT TO:<a@b.example>\n"
                        "C: RCPT TO:<c@d.example>\n"
                        "s: 250 ok\n"
                        "s: 250 yes\n"
                        "S: 250 yes\n"
                        "> recipient 0: 250 yes\n"
                        "C: BDAT 18 LAST\n"
                        "> recipient 1: 250 yes\n"
                        "> body\n" CHUNK "C: Subject: x\n"
                        "C: \n"
                        "C~ tex\n"
                        "! body-end\n"
                        "> doubt\n"
                        "! doubted true\n"
                        "C~ t\n"
                        "S: 250 ok\n"
                        "> result final-dot: 250 ok\n"
                        "> ready\n" GATHERED "! doubted true\n"
                        "C: MAIL FROM:<scan@office.example>\n"
                        "C: RCPT TO:<a@b.example>\n"
                        "C: RCPT TO:<c@d.example>\n"
                        "C: BDAT 18 LAST\n"
                        "C: Subject: x\n"
                        "C: \n"
                        "C~ text\n"
                        "s: 250 ok\n"
                        "s: 550 no\n"
                        "s: 250 yes\n"
                        "S: 250 2.0.0 OK <id>\n"
                        "> recipient 0: 550 no\n"
                        "> recipient 1: 250 yes\n"
                        "> result final-dot: 250 2.0.0 OK <id>\n"
                        "> ready\n"},
    {.name = "MAIL is refused: the connection is not used again",
     .size = 18,
     .script = CHUNKING CHUNK_TAKEN FLOWN
     "s: 550 5.7.60 no\n"
     "s: 503 5.5.2 MAIL first\n"
     "S: 503 5.5.2 MAIL first\n"
     "> result mail: 550 5.7.60 no\n"
     "C: QUIT\n"
     "> failed final-dot: (protocol) a chunk was in flight when its transaction was refused\n"},
    {.name = "every recipient is refused: the same",
     .size = 18,
     .script = CHUNKING CHUNK_TAKEN FLOWN
     "s: 250 ok\n"
     "s: 550 5.1.1 no\n"
     "S: 554 5.5.1 no valid recipients\n"
     "> recipient 0: 550 5.1.1 no\n"
     "> result rcpt: 550 5.1.1 no\n"
     "C: QUIT\n"
     "> failed final-dot: (protocol) a chunk was in flight when its transaction was refused\n"},
    {.name = "the server closes before it has looked at any of it",
     .size = 18,
     .script = CHUNKING CHUNK_TAKEN FLOWN "! closed closed by peer\n"
                                          "> result idle: (lost) closed by peer\n"
                                          "> failed idle: (lost) closed by peer\n"},
    {.name = "a reset tells nothing",
     .size = 18,
     .script = CHUNKING CHUNK_TAKEN FLOWN "! lost reset\n"
                                          "> result final-dot: (lost) reset\n"
                                          "> failed final-dot: (lost) reset\n"},
    {.name = "nor does a timeout",
     .size = 18,
     .script = CHUNKING CHUNK_TAKEN FLOWN "! lost timeout\n"
                                          "> result final-dot: (timeout) timeout\n"
                                          "> failed final-dot: (timeout) timeout\n"},
    {.name = "nor a close behind the reply to MAIL",
     .size = 18,
     .script = CHUNKING CHUNK_TAKEN FLOWN "S: 250 ok\n"
                                          "! closed closed by peer\n"
                                          "> result final-dot: (lost) closed by peer\n"
                                          "> failed final-dot: (lost) closed by peer\n"},
    {.name = "421 instead of the reply to MAIL",
     .size = 18,
     .script = CHUNKING CHUNK_TAKEN FLOWN "S: 421 4.4.2 idle for too long\n"
                                          "> result mail: 421 4.4.2 idle for too long\n"
                                          "> failed mail: 421 4.4.2 idle for too long\n"},
    {.name = "lost before the mark is made: nothing was sent",
     .size = 18,
     .script = CHUNKING CHUNK_TAKEN GATHERED "! lost reset\n"
                                             "> result idle: (lost) reset\n"
                                             "> failed idle: (lost) reset\n"
                                             "! doubted true\n"},
    {.name = "the mark cannot be made: nothing was sent",
     .size = 18,
     .script = CHUNKING CHUNK_TAKEN GATHERED
     "! doubted false\n"
     "> result idle: (spool) the in-doubt mark could not be made durable\n"
     "> ready\n" FLOWN},
    {.name = "it cannot be read: the same",
     .size = 18,
     .script = CHUNKING CHUNK_TAKEN "! begin\n"
                                    "> body\n"
                                    "! body Subject: x\n"
                                    "! body-failed damaged\n"
                                    "> result idle: (spool) damaged\n"
                                    "> ready\n" FLOWN},
    {.name = "it is shorter than it said: the same",
     .size = 19,
     .script = CHUNKING CHUNK_ASKED "s: 250 ok\n"
                                    "S: 250 yes\n"
                                    "C: BDAT 19 LAST\n"
                                    "> recipient 0: 250 yes\n"
                                    "> body\n"
                                    "! body Subject: x||||text.\n"
                                    "C: Subject: x\n"
                                    "C: \n"
                                    "C~ text\n"
                                    "! body-end\n"
                                    "> doubt\n"
                                    "! doubted true\n"
                                    "C~ .\n"
                                    "S: 250 ok\n"
                                    "> result final-dot: 250 ok\n"
                                    "> ready\n"
                                    "! begin\n"
                                    "> body\n" CHUNK "! body-end\n"
                                    "> result idle: (spool) the message is shorter than its size "
                                    "says\n"
                                    "> ready\n"},
    {.name = "behind a refused chunk RSET comes first, and no flight",
     .size = 18,
     .script = CHUNKING CHUNK_TAKEN FLOWN "s: 250 ok\n"
                                          "s: 250 yes\n"
                                          "S: 432 4.3.2 too many\n"
                                          "> recipient 0: 250 yes\n"
                                          "> result final-dot: 432 4.3.2 too many\n"
                                          "> ready\n"
                                          "! begin\n"
                                          "C: RSET\n"
                                          "C: MAIL FROM:<scan@office.example>\n"
                                          "C: RCPT TO:<a@b.example>\n"},
};

static void a_small_message_on_a_warm_connection_is_one_flight(void **state)
{
    (void)state;
    play_open(whole_flights, COUNT(whole_flights));
}

/* ---- several in flight ----------------------------------------------------------------------- */

/* The first message of the connection, and then those with this number. */
#define SHARED                                                                                     \
    CHUNKING "! begin\n"                                                                           \
             "C: MAIL FROM:<scan@office.example>\n"                                                \
             "C: RCPT TO:<a@b.example>\n"                                                          \
             "! room no\n"                                                                         \
             "! may no\n"                                                                          \
             "s: 250 ok\n"                                                                         \
             "S: 250 yes\n"                                                                        \
             "C: BDAT 18 LAST\n"                                                                   \
             "> recipient 1 0: 250 yes\n"                                                          \
             "> body 1\n" CHUNK "C: Subject: x\n"                                                  \
             "C: \n"                                                                               \
             "C~ tex\n"                                                                            \
             "! body-end\n"                                                                        \
             "> doubt 1\n"                                                                         \
             "! doubted true\n"                                                                    \
             "C~ t\n"                                                                              \
             "! room no\n"                                                                         \
             "S: 250 first\n"                                                                      \
             "> result 1 final-dot: 250 first\n"                                                   \
             "> ready\n"

#define GATHER(n)                                                                                  \
    "! begin\n"                                                                                    \
    "> body " n "\n" CHUNK "! body-end\n"                                                          \
    "> doubt " n "\n"

#define LEAVES                                                                                     \
    "C: MAIL FROM:<scan@office.example>\n"                                                         \
    "C: RCPT TO:<a@b.example>\n"                                                                   \
    "C: BDAT 18 LAST\n"                                                                            \
    "C: Subject: x\n"                                                                              \
    "C: \n"                                                                                        \
    "C~ text\n"

#define FLY(n) GATHER(n) "! doubted true\n" LEAVES

#define TAKEN(n)                                                                                   \
    "s: 250 ok\n"                                                                                  \
    "s: 250 yes\n"                                                                                 \
    "S: 250 taken " n "\n"                                                                         \
    "> recipient " n " 0: 250 yes\n"                                                               \
    "> result " n " final-dot: 250 taken " n "\n"

#define FLIGHT_ROW .in_flight = 4, .size = 18

static const struct dialogue several[] = {
    {.name = "four, and each has its replies",
     FLIGHT_ROW,
     .script = SHARED FLY("2") FLY("3") FLY("4")
         FLY("5") "! room no\n"
                  "! may no\n" TAKEN("2") "! room yes\n" FLY("6") TAKEN("3") TAKEN("4") TAKEN("5")
                      TAKEN("6") "> ready\n" FLY("7")},
    {.name = "two where two are allowed",
     .in_flight = 2,
     .size = 18,
     .script = SHARED FLY("2") "! room yes\n" FLY("3") "! room no\n"
                                                       "! may no\n" TAKEN("2") "! may yes\n"},
    {.name = "one gathers at a time, and there is room behind it",
     FLIGHT_ROW,
     .script = SHARED FLY("2") "! begin\n"
                               "> body 3\n"
                               "! may no\n"
                               "! room yes\n" TAKEN("2") CHUNK
     "! body-end\n"
     "> doubt 3\n"
     "! may no\n"
     "! doubted true\n" LEAVES "! may yes\n" TAKEN("3") "> ready\n"},
    {.name = "a large one waits",
     FLIGHT_ROW,
     .script = SHARED FLY("2") "! may no 65537\n"
                               "! may yes 65536\n" TAKEN("2") "> ready\n"
                                                              "! may yes 65537\n"},
    {.name = "a cold one waits",
     FLIGHT_ROW,
     .cold = true,
     .script = SHARED "! begin\n"
                      "C: MAIL FROM:<scan@office.example>\n"
                      "C: RCPT TO:<a@b.example>\n"
                      "! may no\n"
                      "! room no\n"},
    {.name = "one that cannot be read ends alone",
     FLIGHT_ROW,
     .script = SHARED FLY("2") "! begin\n"
                               "> body 3\n"
                               "! body Subject: x\n"
                               "! body-failed damaged\n"
                               "> result 3 idle: (spool) damaged\n" FLY("4") TAKEN("2")
                                   TAKEN("4") "> ready\n"},
    {.name = "one whose mark cannot be made ends alone",
     FLIGHT_ROW,
     .script = SHARED FLY("2")
         GATHER("3") "! doubted false\n"
                     "> result 3 idle: (spool) the in-doubt mark could not be made durable\n"
                     "! room yes\n" FLY("4") TAKEN("2") TAKEN("4") "> ready\n"},
    {.name = "a loss is uncertain for each that has left",
     FLIGHT_ROW,
     .script = SHARED FLY("2") FLY("3") GATHER("4") "S: 250 ok\n"
                                                    "! lost reset\n"
                                                    "> result 2 final-dot: (lost) reset\n"
                                                    "> result 3 final-dot: (lost) reset\n"
                                                    "> result 4 idle: (lost) reset\n"
                                                    "> failed final-dot: (lost) reset\n"
                                                    "! doubted true\n"
                                                    "! room no\n"},
    {.name = "silence too",
     FLIGHT_ROW,
     .script = SHARED FLY("2") FLY("3") TAKEN("2") "! lost timeout\n"
                                                   "> result 3 final-dot: (timeout) timeout\n"
                                                   "> failed final-dot: (timeout) timeout\n"},
    {.name = "of an orderly close only the one that was being answered is uncertain",
     FLIGHT_ROW,
     .script = SHARED FLY("2") FLY("3") FLY("4") TAKEN("2") "S: 250 ok\n"
                                                            "! closed bye\n"
                                                            "> result 3 final-dot: (lost) bye\n"
                                                            "> result 4 idle: (lost) bye\n"
                                                            "> failed final-dot: (lost) bye\n"},
    {.name = "between two it is none",
     FLIGHT_ROW,
     .script = SHARED FLY("2") FLY("3") FLY("4") TAKEN("2") "! closed bye\n"
                                                            "> result 3 idle: (lost) bye\n"
                                                            "> result 4 idle: (lost) bye\n"
                                                            "> failed idle: (lost) bye\n"},
    {.name = "421 is the reply to one, and those behind were not looked at",
     FLIGHT_ROW,
     .script = SHARED FLY("2") FLY("3") FLY("4") GATHER("5")
         TAKEN("2") "s: 250 ok\n"
                    "s: 250 yes\n"
                    "S: 421 4.3.2 bye\n"
                    "> recipient 3 0: 250 yes\n"
                    "> result 3 final-dot: 421 4.3.2 bye\n"
                    "> result 4 idle: 421 4.3.2 bye\n"
                    "> result 5 idle: 421 4.3.2 bye\n"
                    "> failed idle: 421 4.3.2 bye\n"},
    {.name = "421 to MAIL",
     FLIGHT_ROW,
     .script = SHARED FLY("2") FLY("3") "S: 421 4.3.2 bye\n"
                                        "> result 2 mail: 421 4.3.2 bye\n"
                                        "> result 3 idle: 421 4.3.2 bye\n"
                                        "> failed mail: 421 4.3.2 bye\n"},
    {.name = "behind a MAIL that was refused replies are believed, and nothing more leaves",
     FLIGHT_ROW,
     .script = SHARED FLY("2") FLY("3") FLY("4") GATHER(
         "5") "S: 550 5.7.60 no\n"
              "> result 2 mail: 550 5.7.60 no\n"
              "! doubted true\n"
              "! room no\n"
              "s: 503 5.5.2 MAIL first\n"
              "S: 503 5.5.2 MAIL first\n" TAKEN(
                  "3") "s: 250 ok\n"
                       "s: 250 yes\n"
                       "S: 250 taken\n"
                       "> recipient 4 0: 250 yes\n"
                       "C: QUIT\n"
                       "> result 4 final-dot: 250 taken\n"
                       "> result 5 idle: (lost) the connection was closed before it was sent\n"
                       "> failed final-dot: (protocol) a chunk was in flight when its transaction "
                       "was refused\n"},
    {.name = "behind refused recipients the same, also when the next is refused too",
     FLIGHT_ROW,
     .script = SHARED FLY("2")
         FLY("3") "s: 250 ok\n"
                  "s: 550 5.1.1 no\n"
                  "S: 554 5.5.1 no valid recipients\n"
                  "> recipient 2 0: 550 5.1.1 no\n"
                  "> result 2 rcpt: 550 5.1.1 no\n"
                  "s: 250 ok\n"
                  "s: 501 5.1.3 bad address\n"
                  "S: 554 5.5.1 no valid recipients\n"
                  "> recipient 3 0: 501 5.1.3 bad address\n"
                  "> result 3 rcpt: 501 5.1.3 bad address\n"
                  "C: QUIT\n"
                  "> failed final-dot: (protocol) a chunk was in flight when its transaction was "
                  "refused\n"},
    {.name = "a server that has read the chunk for commands",
     FLIGHT_ROW,
     .script = SHARED FLY("2") FLY("3") FLY("4")
         GATHER("5") "s: 550 5.7.60 no\n"
                     "s: 503 5.5.2 MAIL first\n"
                     "s: 503 5.5.2 MAIL first\n"
                     "S: 500 5.5.2 what?\n"
                     "> result 2 mail: 550 5.7.60 no\n"
                     "> result 3 final-dot: (protocol) behind a message that was refused the "
                     "server is out of "
                     "step: it answers 500 while waiting for the reply to MAIL\n"
                     "> result 4 final-dot: (protocol) behind a message that was refused the "
                     "server is out of "
                     "step: it answers 500 while waiting for the reply to MAIL\n"
                     "> result 5 idle: (protocol) behind a message that was refused the server is "
                     "out of step: "
                     "it answers 500 while waiting for the reply to MAIL\n"
                     "> failed final-dot: (protocol) behind a message that was refused the server "
                     "is out of "
                     "step: it answers 500 while waiting for the reply to MAIL\n"},
    {.name = "it closes as well, in an orderly way: that is no better",
     FLIGHT_ROW,
     .together = true,
     .script = SHARED FLY("2") FLY("3") "s: 550 5.7.60 no\n"
                                        "s: 503 5.5.2 MAIL first\n"
                                        "S: 503 5.5.2 MAIL first\n"
                                        "> result 2 mail: 550 5.7.60 no\n"
                                        "S: 502 5.5.1 what?\n"
                                        "> result 3 final-dot: (protocol) behind a message that "
                                        "was refused the server is out of "
                                        "step: it answers 502 while waiting for the reply to MAIL\n"
                                        "> failed final-dot: (protocol) behind a message that was "
                                        "refused the server is out of "
                                        "step: it answers 502 while waiting for the reply to MAIL\n"
                                        "! closed bye\n"},
    {.name = "a refused chunk: those behind it are believed, then RSET comes first",
     FLIGHT_ROW,
     .script = SHARED FLY("2") FLY("3") "s: 250 ok\n"
                                        "s: 250 yes\n"
                                        "S: 554 5.6.0 no\n"
                                        "> recipient 2 0: 250 yes\n"
                                        "> result 2 final-dot: 554 5.6.0 no\n"
                                        "! room no\n"
                                        "s: 250 ok\n"
                                        "s: 250 yes\n"
                                        "S: 554 5.6.0 no\n"
                                        "> recipient 3 0: 250 yes\n"
                                        "> result 3 final-dot: 554 5.6.0 no\n"
                                        "> ready\n"
                                        "! begin\n"
                                        "C: RSET\n"
                                        "C: MAIL FROM:<scan@office.example>\n"
                                        "C: RCPT TO:<a@b.example>\n"},
    {.name = "what gathers then waits for RSET",
     FLIGHT_ROW,
     .script = SHARED FLY("2") FLY("3") GATHER("4") "s: 250 ok\n"
                                                    "s: 250 yes\n"
                                                    "S: 554 5.6.0 no\n"
                                                    "> recipient 2 0: 250 yes\n"
                                                    "> result 2 final-dot: 554 5.6.0 no\n"
                                                    "! doubted true\n"
                                                    "s: 250 ok\n"
                                                    "s: 250 yes\n"
                                                    "S: 554 5.6.0 no\n"
                                                    "> recipient 3 0: 250 yes\n"
                                                    "C: RSET\n"
                                                    "> result 3 final-dot: 554 5.6.0 no\n"
                                                    "S: 250 reset\n" LEAVES TAKEN("4") "> ready\n"},
    {.name = "which is not needed when the next one was taken",
     FLIGHT_ROW,
     .script = SHARED FLY("2") FLY("3")
         GATHER("4") "s: 250 ok\n"
                     "s: 250 yes\n"
                     "S: 554 5.6.0 no\n"
                     "> recipient 2 0: 250 yes\n"
                     "> result 2 final-dot: 554 5.6.0 no\n"
                     "! doubted true\n"
                     "s: 250 ok\n"
                     "s: 250 yes\n"
                     "S: 250 ok\n"
                     "> recipient 3 0: 250 yes\n" LEAVES
                     "> result 3 final-dot: 250 ok\n" TAKEN("4") "> ready\n"},
    {.name = "a server that refuses that RSET has been sent nothing",
     FLIGHT_ROW,
     .script = SHARED FLY("2")
         GATHER("3") "! doubted true\n" LEAVES GATHER("4") "s: 250 ok\n"
                                                           "s: 250 yes\n"
                                                           "S: 554 5.6.0 no\n"
                                                           "> recipient 2 0: 250 yes\n"
                                                           "> result 2 final-dot: 554 5.6.0 no\n"
                                                           "! doubted true\n"
                                                           "s: 250 ok\n"
                                                           "s: 250 yes\n"
                                                           "S: 554 5.6.0 no\n"
                                                           "> recipient 3 0: 250 yes\n"
                                                           "C: RSET\n"
                                                           "> result 3 final-dot: 554 5.6.0 no\n"
                                                           "S: 500 5.5.1 what?\n"
                                                           "> result 4 idle: 500 5.5.1 what?\n"
                                                           "> failed idle: 500 5.5.1 what?\n"},
    {.name = "a server that keeps a refused transaction open",
     FLIGHT_ROW,
     .script =
         SHARED FLY("2") FLY("3") "s: 250 ok\n"
                                  "s: 250 yes\n"
                                  "S: 554 5.6.0 no\n"
                                  "> recipient 2 0: 250 yes\n"
                                  "> result 2 final-dot: 554 5.6.0 no\n"
                                  "S: 503 5.5.1 nested MAIL\n"
                                  "> result 3 final-dot: (protocol) behind a message that was "
                                  "refused the server is out of "
                                  "step: it answers 503 while waiting for the reply to MAIL\n"
                                  "> failed final-dot: (protocol) behind a message that was "
                                  "refused the server is out of "
                                  "step: it answers 503 while waiting for the reply to MAIL\n"},
    {.name = "354 where none can be",
     FLIGHT_ROW,
     .script = SHARED FLY("2") FLY("3") "S: 354 go on\n"
                                        "> result 2 final-dot: (protocol) unexpected reply while "
                                        "waiting for the reply to MAIL: "
                                        "354 go on\n"
                                        "> result 3 final-dot: (protocol) unexpected reply while "
                                        "waiting for the reply to MAIL: "
                                        "354 go on\n"
                                        "> failed final-dot: (protocol) unexpected reply while "
                                        "waiting for the reply to MAIL: "
                                        "354 go on\n"},
    {.name = "while something is under way or gathers there is no QUIT",
     FLIGHT_ROW,
     .script = SHARED "! begin\n"
                      "> body 2\n"
                      "! quit\n" CHUNK "! body-end\n"
                      "> doubt 2\n"
                      "! quit\n"
                      "! doubted true\n" LEAVES "! quit\n" TAKEN("2") "> ready\n"
                                                                      "! quit\n"
                                                                      "C: QUIT\n"},
};

static void small_messages_share_a_connection(void **state)
{
    (void)state;
    play_open(several, COUNT(several));
}

static const struct dialogue ends_by_421[] = {
    {.name = "MAIL: the reply of an idle timeout",
     .script = PIPELINING FLIGHT_1 "S: 421 4.4.1 Connection timed out\n"
                                   "> result mail: 421 4.4.1 Connection timed out\n"
                                   "> failed mail: 421 4.4.1 Connection timed out\n"},
    {.name = "RCPT: the recipient first, then the others",
     .recipients = "a@b.example c@d.example",
     .script = PIPELINING FLIGHT_2 "S: 250 ok\n"
                                   "S: 421 4.3.2 bye\n"
                                   "> recipient 0: 421 4.3.2 bye\n"
                                   "> result rcpt: 421 4.3.2 bye\n"
                                   "> failed rcpt: 421 4.3.2 bye\n"
                                   "S: 250 ok\n"},
    {.name = "the last RCPT, without pipelining",
     .script = OPEN("") "! begin\n"
                        "C: MAIL FROM:<scan@office.example>\n"
                        "S: 250 ok\n"
                        "C: RCPT TO:<a@b.example>\n"
                        "S: 421 4.3.2 bye\n"
                        "> recipient 0: 421 4.3.2 bye\n"
                        "> result rcpt: 421 4.3.2 bye\n"
                        "> failed rcpt: 421 4.3.2 bye\n"},
    {.name = "DATA",
     .script = PIPELINING FLIGHT_1 "S: 250 ok\n"
                                   "S: 250 ok\n"
                                   "> recipient 0: 250 ok\n"
                                   "S: 421 4.3.2 bye\n"
                                   "> result data: 421 4.3.2 bye\n"
                                   "> failed data: 421 4.3.2 bye\n"},
    {.name = "idle",
     .script = PIPELINING "S: 421 4.4.1 Connection timed out\n"
                          "> failed idle: 421 4.4.1 Connection timed out\n"
                          "! quit\n"},
};

static void a_421_ends_the_session_after_it_was_used(void **state)
{
    (void)state;
    play_open(ends_by_421, COUNT(ends_by_421));
}

static const struct dialogue unasked_replies[] = {
    {.name = "a success",
     .script = PIPELINING "S: 250 hello?\n"
                          "> failed idle: (protocol) unexpected reply while idle: 250 hello?\n"},
    {.name = "rubbish",
     .script = PIPELINING "S: hello?\n"
                          "> failed idle: (protocol) the server sent a line that is no SMTP "
                          "reply: \"hello?\"\n"},
    {.name = "behind the reply that made it idle",
     .together = true,
     .script = "! connected\n"
               "S: 220 x\n"
               "C: EHLO relay.example\n"
               "s: 250 x\n"
               "S: 421 bye\n"
               "> failed idle: 421 bye\n"},
    {.name = "half a reply is never taken as the one to MAIL",
     .script = PIPELINING "s. 421 4.4\n"
                          "! begin\n"
                          "> result idle: (lost) the server had begun to end the session\n"
                          "> failed idle: (lost) the server had begun to end the session\n"},
    {.name = "half a reply, and the rest",
     .script = PIPELINING "s. 421 4.4\n"
                          "S: .1 bye\n"
                          "> failed idle: 421 4.4.1 bye\n"},
};

static void what_nothing_asked_for_ends_an_idle_session(void **state)
{
    (void)state;
    play_open(unasked_replies, COUNT(unasked_replies));
}

/* ---- what dialogues cannot say --------------------------------------------------------------- */

static struct client_fsm *new_fsm(bool implicit_tls, bool needs_auth)
{
    const struct client_settings settings = {.helo = "relay.example",
                                             .implicit_tls = implicit_tls,
                                             .needs_auth = needs_auth,
                                             .mechanisms = "XOAUTH2 OAUTHBEARER PLAIN"};
    struct client_fsm *f = client_fsm_new(&settings);

    assert_non_null(f);
    return f;
}

static void input(struct client_fsm *f, const char *text)
{
    client_fsm_input(f, (const uint8_t *)text, strlen(text));
}

/* Collects what is sent up to the next effect of another kind, which is returned. */
static struct client_effect collect(struct client_fsm *f, struct bytes *sent)
{
    struct client_effect e;

    for (client_fsm_next(f, &e); e.kind == CLIENT_SEND; client_fsm_next(f, &e))
        if (sent != NULL)
            bytes_append(sent, e.data, e.len);
    return e;
}

static struct client_fsm *at_sasl_start(const char *auth)
{
    struct client_fsm *f = new_fsm(true, true);
    char reply[100];

    client_fsm_connected(f);
    input(f, "220 x\r\n");
    collect(f, NULL);
    snprintf(reply, sizeof(reply), "250-x\r\n250 AUTH %s\r\n", auth);
    input(f, reply);
    assert_int_equal(collect(f, NULL).kind, CLIENT_SASL_START);
    return f;
}

/* RFC 4954 section 4: the AUTH command is at most 512 octets with its end. */
static void a_long_initial_response_waits_for_334(void **state)
{
    struct bytes sent;

    (void)state;
    bytes_init(&sent, 64 * 1024);
    for (size_t len = 360; len <= 380; len++) {
        struct client_fsm *f = at_sasl_start("PLAIN");
        /* 500 octets of base64 make 513 */
        bool fits = strlen("AUTH PLAIN \r\n") + BASE64_LENGTH(len) <= 512;
        char response[400];
        char encoded[600];

        memset(response, 'r', len);
        base64_encode(response, len, encoded);
        encoded[BASE64_LENGTH(len)] = '\0';
        bytes_clear(&sent);
        client_fsm_sasl(f, response, len);
        assert_int_equal(collect(f, &sent).kind, CLIENT_NOTHING);
        if (!fits) {
            assert_string_equal(bytes_string(&sent), "AUTH PLAIN\r\n");
            bytes_clear(&sent);
            input(f, "334 \r\n");
            assert_int_equal(collect(f, &sent).kind, CLIENT_NOTHING);
        }
        assert_true(sent.len <= 512);
        assert_non_null(strstr(bytes_string(&sent), encoded));
        assert_int_equal(strncmp(bytes_string(&sent), "AUTH", 4) == 0, fits);
        input(f, "235 ok\r\n");
        assert_int_equal(collect(f, NULL).kind, CLIENT_READY);
        client_fsm_free(f);
    }
    bytes_done(&sent);
}

static void a_token_of_12_kilobytes_fits_and_one_of_a_megabyte_fails(void **state)
{
    static char response[1024 * 1024];
    struct client_fsm *f = at_sasl_start("XOAUTH2");
    struct client_effect e;
    struct bytes sent;

    (void)state;
    memset(response, 'r', sizeof(response));
    bytes_init(&sent, 64 * 1024);
    client_fsm_sasl(f, response, 12 * 1024 + 300);
    input(f, "334\r\n");
    assert_int_equal(collect(f, &sent).kind, CLIENT_NOTHING);
    assert_int_equal(sent.len, strlen("AUTH XOAUTH2\r\n") + BASE64_LENGTH(12 * 1024 + 300) + 2);
    client_fsm_free(f);
    f = at_sasl_start("XOAUTH2");
    client_fsm_sasl(f, response, sizeof(response));
    e = collect(f, NULL);
    assert_int_equal(e.kind, CLIENT_FAILED);
    assert_int_equal(e.stage, STAGE_AUTH);
    assert_int_equal(e.reply->local, LOCAL_SECRET);
    client_fsm_free(f);
    bytes_done(&sent);
}

/* Google: 334 with the reason in JSON, then the refusal. The answer to it is an empty line with
 * XOAUTH2, 0x01 with OAUTHBEARER. */
static void a_refusal_that_is_explained_first_is_heard_out(void **state)
{
    static const char json[] = "{\"status\":\"401\"}";
    static const struct {
        const char *mechanism;
        const char *answer;
        const char *line;
    } rows[] = {{"XOAUTH2", "", "\r\n"}, {"OAUTHBEARER", "\x01", "AQ==\r\n"}};
    struct bytes sent;
    char line[64] = "334 ";

    (void)state;
    bytes_init(&sent, 64 * 1024);
    base64_encode(json, sizeof(json) - 1, line + 4);
    memcpy(line + 4 + BASE64_LENGTH(sizeof(json) - 1), "\r\n", 3);
    for (size_t i = 0; i < 2 * 2; i++) {
        bool two_steps = i >= 2;
        struct client_fsm *f = at_sasl_start(rows[i % 2].mechanism);
        struct client_effect e;
        char response[600];

        memset(response, 'r', sizeof(response));
        client_fsm_sasl(f, response, two_steps ? sizeof(response) : 100);
        assert_int_equal(collect(f, NULL).kind, CLIENT_NOTHING);
        if (two_steps) {
            input(f, "334 \r\n");
            assert_int_equal(collect(f, NULL).kind, CLIENT_NOTHING);
        }
        input(f, line);
        e = collect(f, NULL);
        assert_int_equal(e.kind, CLIENT_SASL_STEP);
        assert_int_equal(e.len, sizeof(json) - 1);
        assert_memory_equal(e.data, json, e.len);
        bytes_clear(&sent);
        client_fsm_sasl(f, rows[i % 2].answer, strlen(rows[i % 2].answer));
        assert_int_equal(collect(f, &sent).kind, CLIENT_NOTHING);
        assert_string_equal(bytes_string(&sent), rows[i % 2].line);
        input(f, "535-5.7.8 Username and Password not accepted. Learn more at\r\n"
                 "535 5.7.8  https://support.google.com/mail/?p=BadCredentials\r\n");
        e = collect(f, NULL);
        assert_int_equal(e.kind, CLIENT_FAILED);
        assert_int_equal(e.stage, STAGE_AUTH);
        assert_int_equal(e.reply->code, 535);
        client_fsm_free(f);
    }
    bytes_done(&sent);
}

static void what_was_sent_of_a_secret_is_wiped(void **state)
{
    struct client_fsm *f = at_sasl_start("PLAIN");
    char encoded[BASE64_LENGTH(15)];
    struct client_effect e;
    const uint8_t *lent;
    size_t len;

    (void)state;
    base64_encode("\0login\0password", 15, encoded);
    client_fsm_sasl(f, "\0login\0password", 15);
    client_fsm_next(f, &e);
    assert_int_equal(e.kind, CLIENT_SEND);
    assert_non_null(memmem(e.data, e.len, encoded, sizeof(encoded)));
    lent = e.data;
    len = e.len;
    client_fsm_next(f, &e); /* keeps its buffer while a reply is due */
    assert_int_equal(e.kind, CLIENT_NOTHING);
    assert_null(memmem(lent, len, encoded, sizeof(encoded)));
    client_fsm_free(f);
}

static void endless_challenges_end_the_session(void **state)
{
    struct client_fsm *f = at_sasl_start("XOAUTH2");
    struct client_effect e;
    int steps = 0;

    (void)state;
    client_fsm_sasl(f, NULL, 0);
    for (;;) {
        collect(f, NULL);
        input(f, "334 eA==\r\n");
        e = collect(f, NULL);
        if (e.kind != CLIENT_SASL_STEP)
            break;
        assert_true(++steps < 100);
        client_fsm_sasl(f, "x", 1);
    }
    assert_int_equal(steps, 10);
    assert_int_equal(e.kind, CLIENT_FAILED);
    assert_int_equal(e.reply->local, LOCAL_PROTOCOL);
    client_fsm_free(f);
}

static void announcements_after_tls_can_be_asked_for(void **state)
{
    struct client_fsm *f = new_fsm(false, false);

    (void)state;
    client_fsm_connected(f);
    input(f, "220 x\r\n");
    collect(f, NULL);
    input(f, "250-clear\r\n250-SIZE 1\r\n250-8BITMIME\r\n250 STARTTLS\r\n");
    collect(f, NULL);
    assert_int_equal(client_fsm_size_limit(f), 1);
    input(f, "220 go\r\n");
    assert_int_equal(collect(f, NULL).kind, CLIENT_START_TLS);
    assert_int_equal(client_fsm_stage(f), STAGE_TLS);
    client_fsm_secure(f);
    assert_int_equal(client_fsm_size_limit(f), 0);
    assert_false(client_fsm_has_8bitmime(f));
    assert_string_equal(client_fsm_greeting(f), "");
    collect(f, NULL);
    input(f, "250-x.outlook.example Hello [192.0.2.1]\r\n250-size 157286400\r\n250 8bitmime\r\n");
    assert_int_equal(collect(f, NULL).kind, CLIENT_READY);
    assert_int_equal(client_fsm_size_limit(f), 157286400);
    assert_true(client_fsm_has_8bitmime(f));
    assert_string_equal(client_fsm_greeting(f), "x.outlook.example Hello [192.0.2.1]");
    client_fsm_free(f);
}

/* An idle machine; the caller frees both. */
static struct client_fsm *idle_fsm(const char *keyword)
{
    struct client_fsm *f = new_fsm(true, false);
    char reply[100];

    client_fsm_connected(f);
    snprintf(reply, sizeof(reply), "220 x\r\n");
    input(f, reply);
    collect(f, NULL);
    snprintf(reply, sizeof(reply), "250-x\r\n250 %s\r\n", keyword);
    input(f, reply);
    assert_int_equal(collect(f, NULL).kind, CLIENT_READY);
    return f;
}

static size_t count_lines(const struct bytes *b)
{
    size_t n = 0;

    for (size_t i = 0; i < b->len; i++)
        n += b->data[i] == '\n';
    return n;
}

static void fill_recipients(struct envelope *e, size_t count)
{
    envelope_init(e);
    for (size_t i = 0; i < count; i++) {
        char path[40];

        snprintf(path, sizeof(path), "r%zu@b.example", i);
        assert_true(envelope_add_recipient(e, path));
    }
}

/* So that neither the commands waiting in memory nor the server's replies grow with the envelope.
 */
static void at_most_100_commands_are_in_flight(void **state)
{
    struct client_fsm *f = idle_fsm("PIPELINING");
    struct client_transaction tx = {.reverse_path = "s@b.example"};
    struct envelope envelope;
    struct client_effect e;
    struct bytes sent;
    size_t replied = 0;

    (void)state;
    fill_recipients(&envelope, ENVELOPE_RECIPIENTS_MAX);
    tx.envelope = &envelope;
    bytes_init(&sent, 256 * 1024);
    client_fsm_begin(f, &tx);
    assert_int_equal(collect(f, &sent).kind, CLIENT_NOTHING);
    assert_int_equal(count_lines(&sent), 100);
    while (replied <= ENVELOPE_RECIPIENTS_MAX) {
        input(f, "250 ok\r\n");
        replied++;
        e = collect(f, &sent);
        if (replied > 1)
            assert_int_equal(e.index, replied - 2);
        collect(f, &sent);
        assert_true(count_lines(&sent) - replied <= 100);
    }
    assert_int_equal(count_lines(&sent), ENVELOPE_RECIPIENTS_MAX + 2);
    assert_non_null(strstr(bytes_string(&sent), "RCPT TO:<r999@b.example>\r\nDATA\r\n"));
    input(f, "354 go\r\n");
    assert_int_equal(collect(f, NULL).kind, CLIENT_BODY);
    client_fsm_free(f);
    envelope_done(&envelope);
    bytes_done(&sent);
}

static void when_mail_is_refused_no_further_recipient_is_asked(void **state)
{
    struct client_fsm *f = idle_fsm("PIPELINING");
    struct client_transaction tx = {.reverse_path = "s@b.example"};
    struct envelope envelope;
    struct bytes sent;

    (void)state;
    fill_recipients(&envelope, 300);
    tx.envelope = &envelope;
    bytes_init(&sent, 64 * 1024);
    client_fsm_begin(f, &tx);
    input(f, "550 no\r\n");
    assert_int_equal(collect(f, &sent).kind, CLIENT_RESULT);
    envelope_done(&envelope);
    for (int i = 0; i < 98; i++) {
        input(f, "503 no\r\n");
        assert_int_equal(collect(f, &sent).kind, CLIENT_NOTHING);
    }
    input(f, "503 no\r\n");
    assert_int_equal(collect(f, &sent).kind, CLIENT_READY);
    assert_int_equal(count_lines(&sent), 100);
    client_fsm_free(f);
    bytes_done(&sent);
}

static void replies_to_a_thousand_recipients_may_come_at_once(void **state)
{
    struct client_fsm *f = idle_fsm("PIPELINING");
    struct client_transaction tx = {.reverse_path = "s@b.example"};
    struct envelope envelope;
    struct client_effect e;
    size_t heard = 0;

    (void)state;
    fill_recipients(&envelope, ENVELOPE_RECIPIENTS_MAX);
    tx.envelope = &envelope;
    client_fsm_begin(f, &tx);
    for (size_t i = 0; i <= ENVELOPE_RECIPIENTS_MAX; i++)
        input(f, i % 3 == 2 ? "550 5.1.1 no\r\n" : "250 ok\r\n");
    for (e = collect(f, NULL); e.kind == CLIENT_RECIPIENT; e = collect(f, NULL)) {
        assert_int_equal(e.index, heard++);
        assert_int_equal(e.reply->code, heard % 3 == 2 ? 550 : 250);
    }
    assert_int_equal(e.kind, CLIENT_NOTHING);
    assert_int_equal(heard, ENVELOPE_RECIPIENTS_MAX);
    client_fsm_free(f);
    envelope_done(&envelope);
}

static void a_server_that_floods_us_is_dropped(void **state)
{
    static char noise[512 * 1024];
    struct client_fsm *f = new_fsm(true, false);
    struct client_effect e;

    (void)state;
    client_fsm_connected(f);
    memset(noise, '2', sizeof(noise));
    client_fsm_input(f, (const uint8_t *)noise, sizeof(noise));
    e = collect(f, NULL);
    assert_int_equal(e.kind, CLIENT_FAILED);
    assert_int_equal(e.reply->local, LOCAL_PROTOCOL);
    client_fsm_free(f);
}

static void a_reply_that_came_before_the_loss_still_counts(void **state)
{
    struct client_fsm *f = idle_fsm("PIPELINING");
    struct client_transaction tx = {.reverse_path = "s@b.example"};
    struct envelope envelope;
    struct client_effect e;

    (void)state;
    fill_recipients(&envelope, 1);
    tx.envelope = &envelope;
    client_fsm_begin(f, &tx);
    input(f, "250 ok\r\n250 ok\r\n354 go\r\n");
    assert_int_equal(collect(f, NULL).kind, CLIENT_RECIPIENT);
    assert_int_equal(collect(f, NULL).kind, CLIENT_BODY);
    client_fsm_body_end(f);
    assert_int_equal(collect(f, NULL).kind, CLIENT_DOUBT);
    client_fsm_doubted(f, true);
    collect(f, NULL);
    input(f, "250 2.0.0 queued\r\n");
    client_fsm_lost(f, LOCAL_LOST, "closed");
    e = collect(f, NULL);
    assert_int_equal(e.kind, CLIENT_RESULT);
    assert_int_equal(e.stage, STAGE_FINAL_DOT);
    assert_int_equal(e.reply->code, 250);
    e = collect(f, NULL);
    assert_int_equal(e.kind, CLIENT_FAILED);
    assert_int_equal(e.stage, STAGE_IDLE);
    client_fsm_free(f);
    envelope_done(&envelope);
}

/* The shell may learn of the loss and of the mark before it asks for the next effect. */
static void a_mark_that_comes_after_the_loss_sends_nothing(void **state)
{
    (void)state;
    for (int early_reply = 0; early_reply <= 1; early_reply++) {
        struct client_fsm *f = idle_fsm("PIPELINING");
        struct client_transaction tx = {.reverse_path = "s@b.example"};
        struct envelope envelope;
        struct client_effect e;

        fill_recipients(&envelope, 1);
        tx.envelope = &envelope;
        client_fsm_begin(f, &tx);
        input(f, "250 ok\r\n250 ok\r\n354 go\r\n");
        assert_int_equal(collect(f, NULL).kind, CLIENT_RECIPIENT);
        assert_int_equal(collect(f, NULL).kind, CLIENT_BODY);
        client_fsm_body_end(f);
        assert_int_equal(collect(f, NULL).kind, CLIENT_DOUBT);
        if (early_reply)
            input(f, "552 too large\r\n");
        else
            client_fsm_body_failed(f, LOCAL_SPOOL, "damaged"),
                client_fsm_lost(f, LOCAL_LOST, "closed");
        client_fsm_doubted(f, true);
        client_fsm_next(f, &e);
        assert_int_equal(e.kind, CLIENT_RESULT);
        assert_int_equal(e.stage, STAGE_BODY);
        assert_int_equal(e.reply->code, early_reply ? 552 : 0);
        assert_int_equal(e.reply->local, early_reply ? LOCAL_NONE : LOCAL_LOST);
        client_fsm_next(f, &e);
        assert_int_equal(e.kind, CLIENT_FAILED);
        client_fsm_next(f, &e);
        assert_int_equal(e.kind, CLIENT_NOTHING);
        client_fsm_free(f);
        envelope_done(&envelope);
    }
}

static void a_block_of_the_largest_size_made_of_dots_is_sent_whole(void **state)
{
    static uint8_t block[CLIENT_BODY_MAX];
    struct client_fsm *f = idle_fsm("PIPELINING");
    struct client_transaction tx = {.reverse_path = "s@b.example"};
    struct envelope envelope;
    struct bytes sent;

    (void)state;
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] = (uint8_t) ".\r\n"[i % 3];
    fill_recipients(&envelope, 1);
    tx.envelope = &envelope;
    bytes_init(&sent, 1024 * 1024);
    client_fsm_begin(f, &tx);
    input(f, "250 ok\r\n250 ok\r\n354 go\r\n");
    assert_int_equal(collect(f, NULL).kind, CLIENT_RECIPIENT);
    assert_int_equal(collect(f, NULL).kind, CLIENT_BODY);
    client_fsm_body(f, block, sizeof(block) / 3 * 3);
    assert_int_equal(collect(f, &sent).kind, CLIENT_NOTHING);
    assert_int_equal(sent.len, sizeof(block) / 3 * 4);
    client_fsm_free(f);
    envelope_done(&envelope);
    bytes_done(&sent);
}

struct stage_limit {
    enum client_stage stage;
    uint64_t minutes;
};

/* RFC 5321 4.5.3.2. */
static void timeouts_are_no_shorter_than_the_rfc_asks(void **state)
{
    static const struct stage_limit rows[] = {
        {STAGE_BANNER, 5}, {STAGE_MAIL, 5}, {STAGE_RCPT, 5},
        {STAGE_DATA, 2},   {STAGE_BODY, 3}, {STAGE_FINAL_DOT, 10},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_true(client_stage_timeout(rows[i].stage) >= rows[i].minutes * 60000);
    assert_int_equal(client_stage_timeout(STAGE_IDLE), 0);
    assert_int_equal(client_stage_timeout(STAGE_COUNT), 0);
}

static void every_stage_has_a_name_and_a_phrase_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < STAGE_COUNT; i++) {
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(client_stage_name((enum client_stage)i),
                                    client_stage_name((enum client_stage)j));
            assert_string_not_equal(client_stage_phrase((enum client_stage)i),
                                    client_stage_phrase((enum client_stage)j));
        }
    }
    assert_string_equal(client_stage_name(STAGE_COUNT), "unknown");
    assert_string_equal(client_stage_phrase(STAGE_COUNT), "unknown");
}

/* ---- a walk through everything that can happen ----------------------------------------------- */

#define WALKS 4000
#define STEPS 400

struct walk {
    struct client_fsm *fsm;
    uint64_t random;
    struct envelope *envelope; /* freed when it is no longer borrowed */
    struct client_transaction tx;
    struct maildata_decoder decoder;
    struct bytes lines; /* commands without a reply yet */
    bool secure;
    bool tls_due;
    bool sasl_due;
    bool ready;
    bool open;
    bool body;
    bool doubt;
    bool marked; /* doubted(true) was called in time */
    bool dot;    /* the end of mail data was sent */
    bool ended;
    size_t last_index;
    size_t *tally; /* by stage, of results */
};

static uint32_t dice(struct walk *w, uint32_t sides)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return (uint32_t)(w->random >> 20) % sides;
}

/* Mail data must not end before the mark, and ends once. */
static void walk_sent(struct walk *w, const struct client_effect *e)
{
    uint8_t out[512];
    size_t at = 0;

    if (!w->body) {
        assert_true(w->secure || memmem(e->data, e->len, "AUTH ", 5) == NULL);
        assert_true(w->secure || memmem(e->data, e->len, "MAIL ", 5) == NULL);
        bytes_append(&w->lines, e->data, e->len);
        return;
    }
    while (at < e->len) {
        size_t used = 0;
        size_t len = 0;
        bool end =
            maildata_decode(&w->decoder, e->data + at, e->len - at, &used, out, sizeof(out), &len);

        at += used;
        assert_true(used > 0);
        if (!end)
            continue;
        assert_true(w->marked);
        assert_false(w->dot);
        assert_int_equal(at, e->len);
        w->dot = true;
        bytes_text(&w->lines, ".\r\n");
    }
}

static void walk_result(struct walk *w, const struct client_effect *e)
{
    assert_true(w->open);
    if (reply_is_positive(e->reply)) {
        assert_int_equal(e->stage, STAGE_FINAL_DOT);
        assert_true(w->dot);
    }
    if (e->stage == STAGE_FINAL_DOT)
        assert_true(w->marked);
    w->tally[e->stage]++;
    w->open = false;
    w->body = false;
    w->doubt = false;
    envelope_done(w->envelope);
    free(w->envelope);
    w->envelope = NULL;
}

static void walk_recipient(struct walk *w, const struct client_effect *e)
{
    assert_true(w->open);
    assert_true(e->index < w->envelope->recipient_count);
    assert_int_equal(w->envelope->recipients[e->index].state, RECIPIENT_PENDING);
    assert_true(w->last_index == SIZE_MAX || e->index > w->last_index);
    w->last_index = e->index;
    if (!reply_is_positive(e->reply))
        w->envelope->recipients[e->index].state = RECIPIENT_FAILED;
}

static void walk_effect(struct walk *w, const struct client_effect *e)
{
    assert_false(w->ended);
    switch (e->kind) {
    case CLIENT_SEND:
        assert_true(e->len > 0);
        walk_sent(w, e);
        break;
    case CLIENT_START_TLS:
        w->tls_due = true;
        break;
    case CLIENT_SASL_START:
    case CLIENT_SASL_STEP:
        assert_true(w->secure);
        w->sasl_due = true;
        break;
    case CLIENT_READY:
        assert_false(w->open);
        w->ready = true;
        break;
    case CLIENT_BODY:
        assert_true(w->open);
        w->body = true;
        maildata_decoder_init(&w->decoder);
        break;
    case CLIENT_DOUBT:
        assert_true(w->body);
        w->doubt = true;
        break;
    case CLIENT_RECIPIENT:
        walk_recipient(w, e);
        break;
    case CLIENT_RESULT:
        walk_result(w, e);
        break;
    case CLIENT_FAILED:
        assert_false(w->open);
        w->ended = true;
        w->ready = false;
        break;
    case CLIENT_NOTHING:
        break;
    }
}

static void walk_drain(struct walk *w)
{
    struct client_effect e;

    for (client_fsm_next(w->fsm, &e); e.kind != CLIENT_NOTHING; client_fsm_next(w->fsm, &e))
        walk_effect(w, &e);
}

static void walk_input(struct walk *w, const char *text)
{
    size_t len = strlen(text);
    size_t at = dice(w, 3) == 0 ? dice(w, (uint32_t)len + 1) : 0;

    client_fsm_input(w->fsm, (const uint8_t *)text, at);
    if (dice(w, 2) == 0)
        walk_drain(w);
    client_fsm_input(w->fsm, (const uint8_t *)text + at, len - at);
}

struct answer {
    const char *command;
    const char *usual;
    const char *refusal;
};

/* The server: answers the oldest command, mostly as one would wish. */
static void walk_answer(struct walk *w)
{
    static const struct answer answers[] = {
        {"EHLO", "250-x\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n",
         "500 x\r\n"},
        {"STARTTLS", "220 go\r\n", "454 no\r\n"},
        {"AUTH", "334 eA==\r\n", "535 5.7.3 no\r\n"},
        {"MAIL", "250 ok\r\n", "550 no\r\n"},
        {"RCPT", "250 ok\r\n", "550 no\r\n"},
        {"DATA", "354 go\r\n", "554 no\r\n"},
        {".", "250 queued\r\n", "432 4.3.2 no\r\n"},
        {"RSET", "250 ok\r\n", "500 no\r\n"},
        {"QUIT", "221 bye\r\n", "500 no\r\n"},
    };
    const char *line = bytes_string(&w->lines);
    const char *end = strstr(line, "\r\n");
    const char *reply = "235 ok\r\n"; /* to a line of base64 */

    if (end == NULL)
        return;
    for (size_t i = 0; i < COUNT(answers); i++)
        if (strncmp(line, answers[i].command, strlen(answers[i].command)) == 0)
            reply = dice(w, 8) > 0 ? answers[i].usual : answers[i].refusal;
    bytes_consume(&w->lines, (size_t)(end + 2 - line));
    walk_input(w, reply);
}

static void walk_noise(struct walk *w)
{
    static const char *const noise[] = {
        "250 ok\r\n",   "421 bye\r\n", "2",     "354 go\r\n",
        "334 eA==\r\n", "235 ok\r\n",  "x\r\n", "552 no\r\n",
        "250-more\r\n", "220 go\r\n",  "\r\n",  "334 !\r\n",
    };

    walk_input(w, noise[dice(w, COUNT(noise))]);
}

static void walk_begin(struct walk *w)
{
    size_t count = 1 + dice(w, dice(w, 20) == 0 ? 250 : 5);

    w->envelope = malloc(sizeof(*w->envelope));
    assert_non_null(w->envelope);
    fill_recipients(w->envelope, count);
    for (size_t i = 1; i < count; i++)
        if (dice(w, 4) == 0)
            w->envelope->recipients[i].state = RECIPIENT_DELIVERED;
    w->tx = (struct client_transaction){
        .reverse_path = "s@b.example", .envelope = w->envelope, .size = dice(w, 100000)};
    w->ready = false;
    w->open = true;
    w->marked = false;
    w->dot = false;
    w->last_index = SIZE_MAX;
    client_fsm_begin(w->fsm, &w->tx);
}

static void walk_body(struct walk *w)
{
    static const char *const parts[] = {".",  "\r\n", "a",     "\r\n.\r\n", ".\r\n",
                                        "\r", "\n",   "\n.\n", "..",        "text\r\n"};
    const char *part = parts[dice(w, COUNT(parts))];

    client_fsm_body(w->fsm, (const uint8_t *)part, strlen(part));
}

static void walk_doubted(struct walk *w)
{
    bool ok = dice(w, 6) > 0;

    w->marked = w->marked || (w->doubt && ok);
    w->doubt = false;
    client_fsm_doubted(w->fsm, ok);
}

/* What a shell may do at any time, welcome or not. */
static void walk_whim(struct walk *w)
{
    switch (dice(w, 7)) {
    case 0:
        client_fsm_lost(w->fsm, LOCAL_TIMEOUT, "timeout");
        break;
    case 1:
        client_fsm_body_failed(w->fsm, LOCAL_SPOOL, "damaged");
        break;
    case 2:
        client_fsm_sasl_failed(w->fsm, "no secret");
        break;
    case 3:
        if (!w->ready)
            client_fsm_quit(w->fsm);
        break;
    case 4:
        if (!w->doubt)
            client_fsm_doubted(w->fsm, true);
        break;
    case 5:
        client_fsm_sasl(w->fsm, "x", 1);
        w->sasl_due = false;
        break;
    default:
        walk_noise(w);
        break;
    }
}

static void walk_what_is_due(struct walk *w)
{
    if (w->tls_due) {
        w->tls_due = false;
        w->secure = true;
        client_fsm_secure(w->fsm);
    } else if (w->sasl_due) {
        w->sasl_due = false;
        client_fsm_sasl(w->fsm, dice(w, 2) == 0 ? NULL : "secret", 6);
    } else if (w->ready && dice(w, 30) == 0) {
        w->ready = false;
        client_fsm_quit(w->fsm);
    } else if (w->ready) {
        walk_begin(w);
    } else if (w->doubt) {
        walk_doubted(w);
    } else if (w->body && !w->marked) {
        if (dice(w, 10) > 0)
            walk_body(w);
        else
            client_fsm_body_end(w->fsm);
    } else {
        walk_answer(w);
    }
}

static void walk_once(uint64_t seed, size_t *tally)
{
    struct walk w = {.random = seed * 0x9e3779b97f4a7c15ull + 1, .tally = tally};

    w.secure = dice(&w, 2) == 0;
    w.fsm = new_fsm(w.secure, dice(&w, 2) == 0);
    bytes_init(&w.lines, 1024 * 1024);
    client_fsm_connected(w.fsm);
    walk_input(&w, "220 x\r\n");
    for (int i = 0; i < STEPS; i++) {
        if (dice(&w, 60) == 0)
            walk_whim(&w);
        else
            walk_what_is_due(&w);
        walk_drain(&w);
    }
    client_fsm_lost(w.fsm, LOCAL_LOST, "the end");
    walk_drain(&w);
    assert_true(w.ended);
    assert_false(w.open);
    client_fsm_free(w.fsm);
    bytes_done(&w.lines);
}

static void no_walk_breaks_a_promise(void **state)
{
    size_t tally[STAGE_COUNT] = {0};

    (void)state;
    for (uint64_t seed = 1; seed <= WALKS; seed++)
        walk_once(seed, tally);
    for (int i = 0; i < STAGE_COUNT; i++)
        print_message("  results at %s: %zu\n", client_stage_name((enum client_stage)i), tally[i]);
    for (int i = STAGE_MAIL; i <= STAGE_FINAL_DOT; i++)
        assert_true(tally[i] > 50); /* or the walks have not been everywhere */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_session_is_opened_over_starttls_and_auth),
        cmocka_unit_test(a_refusal_before_the_sign_in_ends_the_session_at_its_stage),
        cmocka_unit_test(nothing_is_sent_in_clear),
        cmocka_unit_test(a_server_without_our_mechanisms_is_told_apart),
        cmocka_unit_test(a_sign_in_that_goes_astray_ends_the_session),
        cmocka_unit_test(losses_before_the_sign_in_keep_their_stage),
        cmocka_unit_test(a_transaction_is_one_flight_with_pipelining),
        cmocka_unit_test(without_pipelining_every_command_waits),
        cmocka_unit_test(mail_takes_only_parameters_that_are_offered_and_needed),
        cmocka_unit_test(a_refusal_of_a_recipient_touches_only_that_recipient),
        cmocka_unit_test(when_mail_is_refused_the_rest_of_the_flight_is_read_and_ignored),
        cmocka_unit_test(when_all_recipients_are_refused_no_mail_data_is_sent),
        cmocka_unit_test(when_data_is_refused_the_next_flight_begins_with_rset),
        cmocka_unit_test(mail_data_is_stuffed_and_its_end_waits_for_the_mark),
        cmocka_unit_test(the_reply_to_the_final_dot_decides),
        cmocka_unit_test(a_loss_is_uncertain_only_after_the_end_of_mail_data),
        cmocka_unit_test(a_refusal_in_the_middle_of_mail_data_is_its_reply),
        cmocka_unit_test(mail_data_is_one_chunk_where_the_server_takes_it),
        cmocka_unit_test(a_small_message_on_a_warm_connection_is_one_flight),
        cmocka_unit_test(small_messages_share_a_connection),
        cmocka_unit_test(a_421_ends_the_session_after_it_was_used),
        cmocka_unit_test(what_nothing_asked_for_ends_an_idle_session),
        cmocka_unit_test(a_long_initial_response_waits_for_334),
        cmocka_unit_test(a_refusal_that_is_explained_first_is_heard_out),
        cmocka_unit_test(a_token_of_12_kilobytes_fits_and_one_of_a_megabyte_fails),
        cmocka_unit_test(what_was_sent_of_a_secret_is_wiped),
        cmocka_unit_test(endless_challenges_end_the_session),
        cmocka_unit_test(announcements_after_tls_can_be_asked_for),
        cmocka_unit_test(at_most_100_commands_are_in_flight),
        cmocka_unit_test(when_mail_is_refused_no_further_recipient_is_asked),
        cmocka_unit_test(replies_to_a_thousand_recipients_may_come_at_once),
        cmocka_unit_test(a_server_that_floods_us_is_dropped),
        cmocka_unit_test(a_reply_that_came_before_the_loss_still_counts),
        cmocka_unit_test(a_mark_that_comes_after_the_loss_sends_nothing),
        cmocka_unit_test(a_block_of_the_largest_size_made_of_dots_is_sent_whole),
        cmocka_unit_test(timeouts_are_no_shorter_than_the_rfc_asks),
        cmocka_unit_test(every_stage_has_a_name_and_a_phrase_of_its_own),
        cmocka_unit_test(no_walk_breaks_a_promise),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
