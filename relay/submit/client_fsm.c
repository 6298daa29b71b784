#include "relay/submit/client_fsm.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/smtp/base64.h"
#include "relay/smtp/ehlo.h"
#include "relay/smtp/maildata.h"
#include "relay/submit/flight.h"

/* One reply or event causes at most three, and the end one more for each flight. */
#define CLIENT_EFFECTS_MAX  (4 + CLIENT_FLIGHTS_MAX)
#define CLIENT_INPUT_MAX    ((size_t)256 * 1024) /* read but not yet looked at */
#define CLIENT_OUTPUT_MAX   ((size_t)256 * 1024) /* CLIENT_BODY_MAX grows by stuffing */
#define CLIENT_IN_FLIGHT    100                  /* commands without a reply yet, with PIPELINING */
#define CLIENT_COMMAND_MAX  512 /* AUTH with an initial response, RFC 4954 section 4 */
#define CLIENT_RESPONSE_MAX ((size_t)16 * 1024) /* a SASL response, before base64 */
#define CLIENT_SASL_STEPS   10                  /* challenges in one sign-in */

#define SECONDS(n) ((uint64_t)(n)*1000)
#define MINUTES(n) SECONDS((n)*60)

struct client_fsm {
    char *helo;
    char *mechanisms;
    bool needs_auth;
    bool held;
    bool holds; /* the sign-in, until it is released */
    bool secure;

    enum client_stage stage;
    bool ended;
    bool ready_due; /* CLIENT_READY, once all input has been looked at */
    bool stale;     /* input came before the command to which it would now be taken as the reply */
    bool ending_due;
    bool gone;     /* nothing can be sent any more */
    bool sasl_due; /* the shell owes a response */
    bool body_ended;
    bool no_chunking;
    uint32_t in_flight; /* flights that may be under way */
    bool lacks_bdat;
    bool bdat_worked;   /* on this connection */
    bool orderly;       /* the peer has closed, as against a reset or a timeout */
    uint8_t last_octet; /* of a chunk, until the mark is durable */
    bool needs_rset;    /* the server may still think that a transaction is open */
    bool refusing;      /* what was refused had its chunk in flight: nothing more leaves */
    size_t awaited;     /* replies due */
    uint64_t replies;   /* read */

    struct client_effect effects[CLIENT_EFFECTS_MAX];
    size_t effect_first;
    size_t effect_count;

    struct bytes in;
    size_t in_used;
    struct bytes out;
    size_t out_sent; /* octets of out that the last CLIENT_SEND lent */
    bool out_secret;
    struct reply_parser parser;
    struct reply reply;        /* the last one read */
    struct reply last_refusal; /* of a recipient */
    struct reply ending;       /* why the session is to end, once all input has been looked at */
    struct reply own;          /* why a transaction ended of which nothing was sent */

    struct ehlo facts; /* forgotten whole with each EHLO */
    char mechanism[32];
    size_t sasl_steps;
    struct bytes response; /* to the SASL challenge, in base64 */
    bool response_due;     /* it waits for the first 334 */
    bool response_sent;    /* with AUTH */
    uint8_t challenge[BASE64_ROOM(REPLY_LINE_MAX)];
    struct flights flights;
    struct maildata_encoder encoder;
    struct bytes chunk; /* gathered for one flight */
};

/* ---- stages ---------------------------------------------------------------------------------- */

static void on_banner(struct client_fsm *f);
static void on_ehlo(struct client_fsm *f);
static void on_starttls(struct client_fsm *f);
static void on_auth(struct client_fsm *f);
static void on_mail(struct client_fsm *f);
static void on_rcpt(struct client_fsm *f);
static void on_data(struct client_fsm *f);
static void on_final_dot(struct client_fsm *f);
static void on_quit(struct client_fsm *f);

/* A stage without on_reply awaits none. */
struct stage_row {
    const char *name;
    uint64_t timeout;
    const char *phrase;
    void (*on_reply)(struct client_fsm *f);
};

static const struct stage_row stages[STAGE_COUNT] = {
    [STAGE_CONNECT] = {"connect", SECONDS(30), "connecting", NULL},
    [STAGE_BANNER] = {"banner", MINUTES(5), "waiting for the banner", on_banner},
    [STAGE_EHLO] = {"ehlo", MINUTES(5), "waiting for the reply to EHLO", on_ehlo},
    [STAGE_STARTTLS] = {"starttls", MINUTES(2), "waiting for the reply to STARTTLS", on_starttls},
    [STAGE_TLS] = {"tls", MINUTES(1), "negotiating TLS", NULL},
    [STAGE_AUTH] = {"auth", MINUTES(3), "signing in", on_auth},
    [STAGE_IDLE] = {"idle", 0, "idle", NULL},
    [STAGE_MAIL] = {"mail", MINUTES(5), "waiting for the reply to MAIL", on_mail},
    [STAGE_RCPT] = {"rcpt", MINUTES(5), "waiting for the reply to RCPT", on_rcpt},
    [STAGE_DATA] = {"data", MINUTES(2), "waiting for the reply to DATA", on_data},
    [STAGE_BODY] = {"body", MINUTES(3), "sending mail data", NULL},
    [STAGE_FINAL_DOT] = {"final-dot", MINUTES(10), "waiting for the reply to the mail data",
                         on_final_dot},
    [STAGE_QUIT] = {"quit", SECONDS(10), "waiting for the reply to QUIT", on_quit},
};

const char *client_stage_name(enum client_stage stage)
{
    return (size_t)stage < STAGE_COUNT ? stages[stage].name : "unknown";
}

const char *client_stage_phrase(enum client_stage stage)
{
    return (size_t)stage < STAGE_COUNT ? stages[stage].phrase : "unknown";
}

uint64_t client_stage_timeout(enum client_stage stage)
{
    return (size_t)stage < STAGE_COUNT ? stages[stage].timeout : 0;
}

/* The one place where the stage changes. */
static void enter(struct client_fsm *f, enum client_stage stage)
{
    f->stage = stage;
    f->ready_due = stage == STAGE_IDLE && f->flights.count == 0;
    if (stage == STAGE_EHLO)
        f->facts = (struct ehlo){0};
    if (stage == STAGE_BODY) {
        f->body_ended = false;
        maildata_encoder_init(&f->encoder);
    }
}

/* ---- effects --------------------------------------------------------------------------------- */

static struct client_effect *push(struct client_fsm *f, enum client_effect_kind kind)
{
    struct client_effect *e;

    assert(f->effect_count < CLIENT_EFFECTS_MAX);
    e = &f->effects[(f->effect_first + f->effect_count++) % CLIENT_EFFECTS_MAX];
    *e = (struct client_effect){.kind = kind, .stage = f->stage};
    return e;
}

static struct client_effect *push_reply(struct client_fsm *f, enum client_effect_kind kind,
                                        enum client_stage stage, const struct reply *reply)
{
    struct client_effect *e = push(f, kind);

    e->stage = stage;
    e->reply = reply;
    return e;
}

static void result(struct client_fsm *f, struct flight *t, enum client_stage stage,
                   const struct reply *reply)
{
    t->open = false;
    push_reply(f, CLIENT_RESULT, stage, reply)->owner = t->tx.owner;
}

/* Where the end of the session leaves a transaction. A failure of ours, or silence, while a whole
 * message is in flight: it may have been taken, whatever reply was awaited, unless the server went
 * away before it looked at any of it. What it says at its end is the reply to one of them, and it
 * has not looked at those behind. */
static enum client_stage stage_of_end(const struct client_fsm *f, const struct flight *t,
                                      enum client_stage stage, const struct reply *reply)
{
    if (t->gathering)
        return STAGE_IDLE;
    if (!t->flown)
        return stage;
    if (reply->local == LOCAL_NONE)
        return t->mail_heard ? stage : STAGE_IDLE;
    return f->orderly && reply->local == LOCAL_LOST && !t->mail_heard ? STAGE_IDLE
                                                                      : STAGE_FINAL_DOT;
}

/* The one way out of a session. */
static void end(struct client_fsm *f, enum client_stage stage, const struct reply *reply)
{
    const struct flight *oldest = flights_oldest(&f->flights);
    enum client_stage last = stage;

    if (f->ended)
        return;
    if (oldest != NULL && oldest->open)
        last = stage_of_end(f, oldest, stage, reply);
    for (size_t i = 0; i < f->flights.count; i++) {
        struct flight *t = flights_at(&f->flights, i);

        if (t->open)
            result(f, t, stage_of_end(f, t, stage, reply), reply);
    }
    push_reply(f, CLIENT_FAILED, last, reply);
    f->ended = true;
    f->ready_due = false;
}

/* Ends the session with f->reply, which the stage cannot go on with. A success where none can be is
 * no reply that a verdict could be looked up by. */
static void end_by_reply(struct client_fsm *f)
{
    if (!reply_is_temporary(&f->reply) && !reply_is_permanent(&f->reply)) {
        char shown[200];

        reply_format(&f->reply, shown, sizeof(shown));
        reply_local(&f->reply, LOCAL_PROTOCOL, "unexpected reply while %s: %s",
                    client_stage_phrase(f->stage), shown);
    }
    end(f, f->stage, &f->reply);
}

static void end_by_us(struct client_fsm *f, enum local_failure failure, const char *why)
{
    reply_local(&f->reply, failure, "%s", why);
    end(f, f->stage, &f->reply);
}

/* Ends the session when what has been received is used up: a reply that came in time still counts.
 */
static void end_soon(struct client_fsm *f, enum local_failure failure, const char *why)
{
    if (f->ended || f->ending_due)
        return;
    reply_local(&f->ending, failure, "%s", why);
    f->ending_due = true;
}

static bool can_go_on(const struct client_fsm *f)
{
    return !f->ended && !f->ending_due;
}

/* ---- output ---------------------------------------------------------------------------------- */

static void discard_output(struct client_fsm *f)
{
    if (f->out_secret)
        explicit_bzero(f->out.data, f->out.len);
    f->out_secret = false;
    f->out_sent = 0;
    bytes_clear(&f->out);
}

/* Takes back what the last effect lent; every call of the machine begins with it. CLIENT_SEND lends
 * all there is, and nothing can have been added since. */
static void retire(struct client_fsm *f)
{
    if (f->out_sent > 0)
        discard_output(f);
}

/* What has been composed may be cut in the middle, so none of it may leave. */
static void out_of_memory(struct client_fsm *f)
{
    f->gone = true;
    end_soon(f, LOCAL_LOST, "no memory for what is to be sent");
}

static void check_output(struct client_fsm *f)
{
    if (f->out.failed)
        out_of_memory(f);
}

static void say(struct client_fsm *f, const char *command)
{
    bytes_text(&f->out, command);
    bytes_text(&f->out, "\r\n");
    check_output(f);
}

static bool has_unread(const struct client_fsm *f)
{
    return f->in_used < f->in.len || (f->parser.octets > 0 && !f->parser.finished);
}

/* A command that may not be pipelined: nothing received so far can be its reply. */
static void ask(struct client_fsm *f, const char *command)
{
    f->stale = has_unread(f);
    say(f, command);
    f->awaited++;
}

static void ask_ehlo(struct client_fsm *f)
{
    char command[CLIENT_COMMAND_MAX];

    snprintf(command, sizeof(command), "EHLO %.*s", CLIENT_COMMAND_MAX - 10, f->helo);
    ask(f, command);
    enter(f, STAGE_EHLO);
}

/* Ends a transaction of which nothing was sent, and nothing else. */
static void give_back(struct client_fsm *f, enum local_failure failure, const char *why)
{
    struct flight *t = flights_newest(&f->flights);

    reply_local(&f->own, failure, "%s", why);
    result(f, t, STAGE_IDLE, &f->own);
    flights_drop_newest(&f->flights);
    bytes_done(&f->chunk);
    if (f->flights.count == 0)
        enter(f, STAGE_IDLE);
}

/* The chunk of a transaction that was refused: what the server made of it cannot be told. The reply
 * may just have been another one's result. What was gathered has no part in it. */
static void end_refused(struct client_fsm *f)
{
    enum client_stage stage = f->stage;

    say(f, "QUIT");
    if (f->flights.count > 0)
        give_back(f, LOCAL_LOST, "the connection was closed before it was sent");
    reply_local(&f->ending, LOCAL_PROTOCOL, "%s",
                "a chunk was in flight when its transaction was refused");
    end(f, stage, &f->ending);
}

static void end_politely(struct client_fsm *f)
{
    if (f->reply.code != 421)
        say(f, "QUIT");
    end_by_reply(f);
}

/* ---- from the banner to AUTH ----------------------------------------------------------------- */

static void on_banner(struct client_fsm *f)
{
    if (f->reply.code == 220)
        ask_ehlo(f);
    else
        end_politely(f);
}

static void refuse_mechanisms(struct client_fsm *f)
{
    say(f, "QUIT");
    enter(f, STAGE_AUTH);
    if (f->facts.auth[0] == '\0')
        reply_local(&f->reply, LOCAL_PROTOCOL, "the server offers no sign-in; %s is needed",
                    f->mechanisms);
    else
        reply_local(&f->reply, LOCAL_PROTOCOL,
                    "the server offers %s for signing in, but this mailbox can use %s only",
                    f->facts.auth, f->mechanisms);
    end(f, STAGE_AUTH, &f->reply);
}

static void begin_auth(struct client_fsm *f)
{
    if (!ehlo_choose_mechanism(&f->facts, f->mechanisms, f->mechanism, sizeof(f->mechanism))) {
        refuse_mechanisms(f);
        return;
    }
    enter(f, STAGE_AUTH);
    f->sasl_due = true;
    f->sasl_steps = 0;
    push(f, CLIENT_SASL_START)->text = f->mechanism;
}

static void begin_tls(struct client_fsm *f)
{
    if (f->facts.starttls) {
        ask(f, "STARTTLS");
        enter(f, STAGE_STARTTLS);
        return;
    }
    say(f, "QUIT");
    enter(f, STAGE_STARTTLS);
    end_by_us(f, LOCAL_TLS,
              "the server does not offer STARTTLS; nothing is sent without encryption");
}

static void sign_in(struct client_fsm *f)
{
    f->holds = f->held;
    if (f->held)
        return;
    if (f->needs_auth)
        begin_auth(f);
    else
        enter(f, STAGE_IDLE);
}

static void on_ehlo(struct client_fsm *f)
{
    if (f->reply.code != 250) {
        end_politely(f);
        return;
    }
    ehlo_learn(&f->facts, &f->parser);
    if (!f->secure)
        begin_tls(f);
    else
        sign_in(f);
}

void client_fsm_release(struct client_fsm *f)
{
    retire(f);
    f->held = false;
    if (f->holds && can_go_on(f))
        sign_in(f);
}

/* What stands behind the reply was not protected by TLS, though it would be read as if it were
 * (CVE-2011-0411). */
static void on_starttls(struct client_fsm *f)
{
    if (f->reply.code != 220) {
        end_politely(f);
    } else if (has_unread(f)) {
        end_by_us(f, LOCAL_TLS,
                  "the server sent more in clear behind its reply to STARTTLS; somebody may be "
                  "tampering with the connection");
    } else {
        enter(f, STAGE_TLS);
        push(f, CLIENT_START_TLS);
    }
}

/* ---- AUTH ------------------------------------------------------------------------------------ */

/* The room is taken first, so that no copy of the secret is left behind by growing. */
static void ask_secretly(struct client_fsm *f, const char *prefix, const void *text, size_t len)
{
    f->stale = has_unread(f);
    f->out_secret = true;
    if (bytes_reserve(&f->out, strlen(prefix) + len + 2) != NULL) {
        bytes_text(&f->out, prefix);
        bytes_append(&f->out, text, len);
        bytes_text(&f->out, "\r\n");
    }
    if (f->out.failed)
        out_of_memory(f);
    f->awaited++;
}

static void forget_response(struct client_fsm *f)
{
    if (f->response.data != NULL)
        explicit_bzero(f->response.data, f->response.cap);
    bytes_done(&f->response);
    f->response_due = false;
    f->response_sent = false;
}

/* Encodes into f->response. */
static bool encode_response(struct client_fsm *f, const void *response, size_t len)
{
    uint8_t *room;

    forget_response(f);
    room = bytes_reserve(&f->response, BASE64_LENGTH(len));
    if (room == NULL)
        return false;
    base64_encode(response, len, (char *)room);
    f->response.len = BASE64_LENGTH(len);
    return true;
}

static void ask_auth(struct client_fsm *f, bool has_response)
{
    char command[sizeof("AUTH  ") + sizeof(f->mechanism)];

    snprintf(command, sizeof(command), "AUTH %s", f->mechanism);
    if (!has_response) {
        ask(f, command);
    } else if (strlen(command) + 1 + f->response.len + 2 > CLIENT_COMMAND_MAX) {
        ask(f, command);
        f->response_due = true;
    } else {
        bool empty = f->response.len == 0;

        snprintf(command, sizeof(command), "AUTH %s ", f->mechanism);
        ask_secretly(f, command, empty ? "=" : (const char *)f->response.data,
                     empty ? 1 : f->response.len);
        f->response_sent = true;
    }
}

void client_fsm_sasl(struct client_fsm *f, const void *response, size_t len)
{
    retire(f);
    if (f->ended || f->ending_due || !f->sasl_due)
        return;
    f->sasl_due = false;
    if (!encode_response(f, response != NULL ? response : "", response != NULL ? len : 0)) {
        end_soon(f, LOCAL_SECRET, "what is to be sent for signing in is too long");
        return;
    }
    if (f->sasl_steps == 0)
        ask_auth(f, response != NULL);
    else
        ask_secretly(f, "", f->response.data, f->response.len);
    if (!f->response_due && !f->response_sent)
        forget_response(f);
}

void client_fsm_sasl_failed(struct client_fsm *f, const char *why)
{
    retire(f);
    if (f->ended || f->ending_due || !f->sasl_due)
        return;
    f->sasl_due = false;
    say(f, f->sasl_steps == 0 ? "QUIT" : "*");
    end_soon(f, LOCAL_SECRET, why);
}

/* The parser's line, not the reply's text, which is cut earlier. */
static void pass_challenge(struct client_fsm *f)
{
    char line[REPLY_LINE_MAX];
    struct client_effect *e;
    size_t len;
    size_t octets;

    reply_line(&f->parser, 0, line, sizeof(line));
    len = strlen(line);
    while (len > 0 && line[len - 1] == ' ')
        len--;
    if (!base64_decode(line, len, f->challenge, &octets)) {
        say(f, "*");
        end_by_us(f, LOCAL_PROTOCOL, "the server's question while signing in is not base64");
        return;
    }
    f->sasl_due = true;
    e = push(f, CLIENT_SASL_STEP);
    e->data = f->challenge;
    e->len = octets;
}

static void on_challenge(struct client_fsm *f)
{
    if (f->response_sent)
        forget_response(f);
    if (++f->sasl_steps > CLIENT_SASL_STEPS) {
        say(f, "*");
        end_by_us(f, LOCAL_PROTOCOL, "the server does not stop asking while signing in");
    } else if (f->response_due) {
        ask_secretly(f, "", f->response.data, f->response.len);
        forget_response(f);
    } else {
        pass_challenge(f);
    }
}

/* LOGIN has no standard, and a server may not know that a response can come with it. That is about
 * the command's form, not about who signs in. */
static bool refuses_form(const struct client_fsm *f)
{
    return f->response_sent && strcmp(f->mechanism, "LOGIN") == 0 &&
           (f->reply.code == 500 || f->reply.code == 501) &&
           !(f->reply.has_enhanced && f->reply.enhanced[1] == 7);
}

static void ask_auth_again(struct client_fsm *f)
{
    f->response_sent = false;
    f->response_due = true;
    ask(f, "AUTH LOGIN");
}

/* A mechanism that is announced and not implemented says nothing about who signs in, and counts
 * towards no lockout. False when no other one is left. */
static bool try_another(struct client_fsm *f)
{
    char next[sizeof(f->mechanism)];

    if (f->reply.code != 502)
        return false;
    ehlo_forget_mechanism(&f->facts, f->mechanism);
    if (!ehlo_choose_mechanism(&f->facts, f->mechanisms, next, sizeof(next)))
        return false;
    forget_response(f);
    begin_auth(f);
    return true;
}

static void on_auth(struct client_fsm *f)
{
    if (refuses_form(f)) {
        ask_auth_again(f);
        return;
    }
    if (try_another(f))
        return;
    if (f->reply.code == 334) {
        on_challenge(f);
        return;
    }
    forget_response(f);
    if (f->reply.code == 235)
        enter(f, STAGE_IDLE);
    else
        end_politely(f);
}

/* ---- commands of a transaction --------------------------------------------------------------- */

static void say_bdat(struct client_fsm *f, const struct flight *t)
{
    flight_say_bdat(t, &f->out);
    check_output(f);
}

static bool say_data(struct client_fsm *f, struct flight *t)
{
    if (t->chunked && t->heard < t->asked)
        return false; /* their replies first */
    t->next = NEXT_NONE;
    if (t->heard == t->asked && t->accepted == 0)
        return false;
    if (t->chunked) {
        say_bdat(f, t);
        enter(f, STAGE_BODY);
        push(f, CLIENT_BODY)->owner = t->tx.owner;
        return false; /* its reply is due when all of it is sent */
    }
    say(f, "DATA");
    t->data_sent = true;
    if (t->heard == t->asked)
        enter(f, STAGE_DATA);
    return true;
}

/* False when the flight has no command left. */
static bool say_next(struct client_fsm *f, struct flight *t)
{
    switch (t->next) {
    case NEXT_RSET:
        say(f, "RSET");
        f->needs_rset = false;
        t->rset_due = true;
        t->next = NEXT_MAIL;
        return true;
    case NEXT_MAIL:
        flight_say_mail(t, &f->facts, &f->out);
        check_output(f);
        t->next = NEXT_RCPT;
        return true;
    case NEXT_RCPT:
        flight_say_rcpt(t, &f->facts, &f->out);
        check_output(f);
        return true;
    case NEXT_DATA:
        return say_data(f, t);
    case NEXT_NONE:
        break;
    }
    return false;
}

/* The oldest is over, up to its last reply. */
static void land(struct client_fsm *f)
{
    const struct flight *next;

    flights_drop_oldest(&f->flights);
    next = flights_oldest(&f->flights);
    if (next != NULL && next->flown)
        enter(f, STAGE_MAIL);
    else if (f->refusing)
        end_refused(f);
    else
        enter(f, STAGE_IDLE);
}

/* Sends what may be sent now, and ends the transaction when that is nothing and nothing is due. */
static void pump(struct client_fsm *f)
{
    struct flight *t = flights_oldest(&f->flights);
    size_t most = f->facts.pipelining ? CLIENT_IN_FLIGHT : 1;

    if (t == NULL || t->gathering || t->flown)
        return;
    while (f->awaited < most && say_next(f, t))
        f->awaited++;
    if (f->stage != STAGE_RCPT || f->awaited > 0 || t->next != NEXT_NONE)
        return;
    if (t->open) {
        result(f, t, STAGE_RCPT, &f->last_refusal);
        f->needs_rset = true;
    }
    land(f);
}

/* ---- in one flight --------------------------------------------------------------------------- */

/* Nothing may be in doubt but the outcome itself: the server has shown that it knows BDAT, and no
 * RSET is needed that it could refuse. */
static bool flies(const struct client_fsm *f)
{
    return f->facts.pipelining && f->facts.chunking && f->bdat_worked && !f->needs_rset &&
           !f->refusing;
}

static bool may_fly(const struct client_fsm *f, const struct client_transaction *tx)
{
    return flies(f) && tx->warm && tx->size > 0 && tx->size <= CLIENT_FLIGHT_MAX &&
           f->awaited + envelope_count(tx->envelope, RECIPIENT_PENDING) + 2 <= CLIENT_IN_FLIGHT;
}

/* The mark comes before the first octet. */
static void send_flight(struct client_fsm *f, struct flight *t)
{
    t->gathering = false;
    t->flown = true;
    while (t->next != NEXT_DATA && say_next(f, t))
        f->awaited++;
    t->next = NEXT_NONE;
    say_bdat(f, t);
    f->awaited++;
    bytes_append(&f->out, f->chunk.data, f->chunk.len);
    check_output(f);
    bytes_done(&f->chunk);
    if (f->flights.count == 1)
        enter(f, STAGE_MAIL);
}

/* A chunk was refused while this one gathered: RSET alone comes first, when all others are over. */
static void reset_before(struct client_fsm *f, struct flight *t)
{
    if (f->flights.count > 1)
        return;
    f->needs_rset = false;
    t->rset_due = true;
    ask(f, "RSET");
    enter(f, STAGE_MAIL);
}

/* Sends what was gathered, when it may leave. */
static void depart(struct client_fsm *f)
{
    struct flight *t = flights_newest(&f->flights);

    if (t == NULL || !t->cleared || t->flown || t->rset_due || f->refusing || f->ended ||
        f->ending_due)
        return;
    if (f->awaited == 0 && has_unread(f))
        end_soon(f, LOCAL_LOST, "the server had begun to end the session");
    else if (f->needs_rset)
        reset_before(f, t);
    else
        send_flight(f, t);
}

bool client_fsm_may_begin(struct client_fsm *f, const struct client_transaction *tx)
{
    const struct flight *newest = flights_newest(&f->flights);

    if (!can_go_on(f))
        return false;
    if (newest == NULL)
        return f->stage == STAGE_IDLE;
    return newest->flown && f->flights.count < f->in_flight && may_fly(f, tx);
}

bool client_fsm_has_room(struct client_fsm *f)
{
    const struct flight *newest = flights_newest(&f->flights);
    bool whole = newest == NULL ? f->stage == STAGE_IDLE : newest->flown || newest->gathering;

    return can_go_on(f) && whole && flies(f) && f->flights.count < f->in_flight;
}

size_t client_fsm_under_way(const struct client_fsm *f)
{
    return f->flights.count;
}

bool client_fsm_gathers(struct client_fsm *f)
{
    const struct flight *newest = flights_newest(&f->flights);

    return newest != NULL && newest->gathering;
}

/* ---- a transaction: MAIL, RCPT, DATA --------------------------------------------------------- */

void client_fsm_begin(struct client_fsm *f, const struct client_transaction *tx)
{
    size_t first = flight_pending(tx->envelope, 0);
    bool alone = f->flights.count == 0;
    struct flight *t;

    retire(f);
    assert(client_fsm_may_begin(f, tx));
    assert(first < tx->envelope->recipient_count);
    f->ready_due = false;
    t = flights_add(&f->flights, &(struct flight){.tx = *tx,
                                                  .open = true,
                                                  .chunked = f->facts.chunking && !f->no_chunking &&
                                                             tx->size > 0,
                                                  .gathering = may_fly(f, tx),
                                                  .next = f->needs_rset ? NEXT_RSET : NEXT_MAIL,
                                                  .ask = first,
                                                  .hear = first});
    if (alone && has_unread(f)) {
        end_soon(f, LOCAL_LOST, "the server had begun to end the session");
        return;
    }
    if (t->gathering) {
        f->body_ended = false;
        push(f, CLIENT_BODY)->owner = t->tx.owner;
        return;
    }
    enter(f, STAGE_MAIL);
    pump(f);
}

/* The reply to RSET, which comes before that to MAIL. */
static void on_rset(struct client_fsm *f, struct flight *t)
{
    if (!reply_is_positive(&f->reply)) {
        end(f, STAGE_IDLE, &f->reply);
        return;
    }
    t->rset_due = false;
    if (t->gathering)
        enter(f, STAGE_IDLE);
}

/* A server that refuses RSET would refuse MAIL next, and the message has no part in it. */
static void on_mail(struct client_fsm *f)
{
    struct flight *t = flights_oldest(&f->flights);

    if (t->rset_due) {
        on_rset(f, t);
        return;
    }
    t->mail_heard = true;
    if (reply_is_positive(&f->reply)) {
        enter(f, STAGE_RCPT);
    } else if (f->reply.code / 100 == 3) {
        end_by_reply(f);
    } else {
        result(f, t, STAGE_MAIL, &f->reply);
        t->refused = true;
        t->next = NEXT_NONE;
        f->refusing = t->flown;
        enter(f, STAGE_RCPT);
    }
}

static void hear_recipient(struct client_fsm *f)
{
    struct flight *t = flights_oldest(&f->flights);
    struct client_effect *e;

    if (f->reply.code / 100 == 3) {
        end_by_reply(f);
        return;
    }
    e = push_reply(f, CLIENT_RECIPIENT, STAGE_RCPT, &f->reply);
    e->index = t->hear;
    e->owner = t->tx.owner;
    t->hear = flight_pending(t->tx.envelope, t->hear + 1);
    if (reply_is_positive(&f->reply))
        t->accepted++;
    else
        f->last_refusal = f->reply;
}

static void on_rcpt(struct client_fsm *f)
{
    struct flight *t = flights_oldest(&f->flights);

    t->heard++;
    if (!t->refused)
        hear_recipient(f);
    if (t->heard == t->asked && t->data_sent)
        enter(f, STAGE_DATA);
    if (t->heard < t->asked || !t->flown || f->ended)
        return;
    if (t->open && t->accepted == 0) {
        result(f, t, STAGE_RCPT, &f->last_refusal);
        f->refusing = true;
    }
    enter(f, STAGE_FINAL_DOT);
}

/* 354, though there is nobody to send to: RFC 2920 section 3.1. */
static void say_lone_dot(struct client_fsm *f)
{
    struct flight *t = flights_oldest(&f->flights);

    t->lone_dot = true;
    say(f, ".");
    f->awaited++;
    if (t->open)
        result(f, t, STAGE_RCPT, &f->last_refusal);
}

static void on_data(struct client_fsm *f)
{
    struct flight *t = flights_oldest(&f->flights);
    bool go_on = f->reply.code / 100 == 3;

    if (t->lone_dot && !go_on) {
        land(f);
    } else if (t->lone_dot || reply_is_positive(&f->reply)) {
        end_by_reply(f);
    } else if (go_on && t->accepted > 0) {
        enter(f, STAGE_BODY);
        push(f, CLIENT_BODY)->owner = t->tx.owner;
    } else if (go_on) {
        say_lone_dot(f);
    } else {
        if (t->open) {
            /* When nobody was accepted, this refusal only follows from theirs. */
            if (t->accepted > 0)
                result(f, t, STAGE_DATA, &f->reply);
            else
                result(f, t, STAGE_RCPT, &f->last_refusal);
            f->needs_rset = true;
        }
        land(f);
    }
}

/* ---- mail data ------------------------------------------------------------------------------- */

/* The transaction that takes mail data, or waits for its mark; NULL: none does. */
static struct flight *with_body(struct client_fsm *f)
{
    struct flight *t = flights_newest(&f->flights);
    bool takes = t != NULL && (f->stage == STAGE_BODY || t->gathering);

    return takes && !t->cleared && can_go_on(f) ? t : NULL;
}

static struct flight *takes_body(struct client_fsm *f)
{
    return f->body_ended ? NULL : with_body(f);
}

/* Before the end of mail data is sent nothing is accepted: a session in the middle of it is
 * dropped. */
static void fail_body(struct client_fsm *f, const struct flight *t, enum local_failure failure,
                      const char *why)
{
    if (t->gathering)
        give_back(f, failure, why);
    else
        end_soon(f, failure, why);
}

/* All but the last octet, which waits for the mark. */
static bool put_chunk(struct client_fsm *f, struct flight *t, const uint8_t *data, size_t len)
{
    t->given += len;
    if (t->given < t->tx.size)
        return bytes_append(&f->out, data, len);
    f->last_octet = data[len - 1];
    return bytes_append(&f->out, data, len - 1);
}

static bool put_body(struct client_fsm *f, struct flight *t, const uint8_t *data, size_t len)
{
    if (!t->chunked)
        return maildata_encode(&f->encoder, data, len, &f->out);
    if (!t->gathering)
        return put_chunk(f, t, data, len);
    t->given += len;
    return bytes_append(&f->chunk, data, len);
}

void client_fsm_body(struct client_fsm *f, const uint8_t *data, size_t len)
{
    struct flight *t = takes_body(f);

    retire(f);
    if (t == NULL || len == 0)
        return;
    if (t->chunked && len > t->tx.size - t->given)
        fail_body(f, t, LOCAL_SPOOL, "the message is longer than its size says");
    else if (put_body(f, t, data, len))
        return;
    else if (t->gathering)
        give_back(f, LOCAL_SPOOL, "no memory for the message");
    else
        out_of_memory(f);
}

void client_fsm_body_end(struct client_fsm *f)
{
    struct flight *t = takes_body(f);

    retire(f);
    if (t == NULL)
        return;
    if (t->chunked && t->given != t->tx.size) {
        fail_body(f, t, LOCAL_SPOOL, "the message is shorter than its size says");
        return;
    }
    f->body_ended = true;
    push(f, CLIENT_DOUBT)->owner = t->tx.owner;
}

void client_fsm_body_failed(struct client_fsm *f, enum local_failure failure, const char *why)
{
    struct flight *t = takes_body(f);

    retire(f);
    if (t != NULL)
        fail_body(f, t, failure, why);
}

static void await_verdict(struct client_fsm *f)
{
    f->awaited++;
    enter(f, STAGE_FINAL_DOT);
}

static bool put_end(struct client_fsm *f, const struct flight *t)
{
    return t->chunked ? bytes_byte(&f->out, f->last_octet) : maildata_end(&f->encoder, &f->out);
}

void client_fsm_doubted(struct client_fsm *f, bool ok)
{
    struct flight *t = with_body(f);

    retire(f);
    if (t == NULL || !f->body_ended)
        return;
    if (!ok) {
        fail_body(f, t, LOCAL_SPOOL, "the in-doubt mark could not be made durable");
    } else if (t->gathering) {
        t->cleared = true;
        depart(f);
    } else if (has_unread(f)) {
        end_soon(f, LOCAL_PROTOCOL, "the server began to answer before the end of mail data");
    } else if (!put_end(f, t)) {
        out_of_memory(f);
    } else {
        await_verdict(f);
    }
}

/* Though it announces it. What it took for commands instead is not known: never again on this
 * connection. */
static void give_up_bdat(struct client_fsm *f)
{
    f->lacks_bdat = true;
    reply_local(&f->ending, LOCAL_LOST, "the server announces CHUNKING but refuses BDAT with %u",
                f->reply.code);
    end(f, STAGE_IDLE, &f->ending);
}

/* A refusal of the command, as against one of the message: codes alone do not tell them apart. */
static bool is_unknown_command(const struct reply *r)
{
    bool by_code = r->code == 500 || r->code == 501 || r->code == 502 || r->code == 504;

    return by_code && (!r->has_enhanced || r->enhanced[1] == 5 || r->enhanced[1] == 3);
}

/* What the server made of a refused transaction's chunk cannot be told: it may have read it for
 * commands. Or, behind a refused chunk, it may have kept that transaction open. Then what answers
 * the next one answers something else. */
static bool is_out_of_step(const struct client_fsm *f, const struct flight *t)
{
    if (t == NULL || !t->flown || !t->open)
        return false;
    if (f->stage == STAGE_MAIL && f->reply.code == 503)
        return f->refusing || f->needs_rset;
    return f->refusing && is_unknown_command(&f->reply);
}

static void end_out_of_step(struct client_fsm *f)
{
    reply_local(&f->ending, LOCAL_PROTOCOL,
                "behind a message that was refused the server is out of step: it answers %u while "
                "%s",
                f->reply.code, client_stage_phrase(f->stage));
    end(f, f->stage, &f->ending);
}

static void on_final_dot(struct client_fsm *f)
{
    struct flight *t = flights_oldest(&f->flights);

    if (f->reply.code / 100 == 3) {
        end_by_reply(f);
        return;
    }
    if (!t->open) {
        land(f);
        return;
    }
    if (t->chunked && !f->bdat_worked && is_unknown_command(&f->reply)) {
        give_up_bdat(f);
        return;
    }
    f->bdat_worked |= t->chunked && reply_is_positive(&f->reply);
    f->needs_rset = t->chunked && !reply_is_positive(&f->reply);
    result(f, t, STAGE_FINAL_DOT, &f->reply);
    land(f);
}

/* ---- the end of a session -------------------------------------------------------------------- */

void client_fsm_quit(struct client_fsm *f)
{
    retire(f);
    if (f->stage != STAGE_IDLE || f->flights.count > 0 || !can_go_on(f))
        return;
    ask(f, "QUIT");
    enter(f, STAGE_QUIT);
}

static void on_quit(struct client_fsm *f)
{
    end(f, STAGE_QUIT, &f->reply);
}

void client_fsm_lost(struct client_fsm *f, enum local_failure failure, const char *why)
{
    retire(f);
    f->gone = true;
    end_soon(f, failure, why);
}

void client_fsm_closed(struct client_fsm *f, const char *why)
{
    f->orderly = true;
    client_fsm_lost(f, LOCAL_LOST, why);
}

/* ---- input ----------------------------------------------------------------------------------- */

static void use_reply(struct client_fsm *f)
{
    enum client_stage stage = f->stage;

    f->replies++;
    if (f->awaited == 0 || f->stale) {
        end_by_reply(f);
        return;
    }
    f->awaited--;
    if (is_out_of_step(f, flights_oldest(&f->flights))) {
        end_out_of_step(f);
        return;
    }
    stages[stage].on_reply(f);
    if (f->reply.code == 421)
        end(f, stage, &f->reply);
    if (f->ended)
        return;
    pump(f);
    depart(f);
}

static void read_reply(struct client_fsm *f)
{
    enum reply_progress progress;
    size_t used = 0;

    progress =
        reply_feed(&f->parser, f->in.data + f->in_used, f->in.len - f->in_used, &used, &f->reply);
    f->in_used += used;
    if (f->in_used == f->in.len) {
        bytes_clear(&f->in);
        f->in_used = 0;
    }
    if (progress == REPLY_DONE)
        use_reply(f);
    else if (progress == REPLY_BAD)
        end(f, f->stage, &f->reply);
}

void client_fsm_input(struct client_fsm *f, const uint8_t *data, size_t len)
{
    retire(f);
    if (f->ended || len == 0)
        return;
    if (f->stage == STAGE_TLS) {
        end_soon(f, LOCAL_TLS, "the server sent more in clear behind its reply to STARTTLS");
        return;
    }
    bytes_consume(&f->in, f->in_used);
    f->in_used = 0;
    if (!bytes_append(&f->in, data, len))
        end_soon(f, LOCAL_PROTOCOL, "the server sends more than it was asked for");
}

void client_fsm_connected(struct client_fsm *f)
{
    retire(f);
    if (f->stage != STAGE_CONNECT || f->ended)
        return;
    f->awaited = 1;
    enter(f, STAGE_BANNER);
}

void client_fsm_secure(struct client_fsm *f)
{
    retire(f);
    if (f->stage != STAGE_TLS || f->ended || f->ending_due)
        return;
    f->secure = true;
    ask_ehlo(f);
}

/* ---- the machine as a whole ------------------------------------------------------------------ */

/* An idle connection keeps no buffers. */
static void trim(struct client_fsm *f)
{
    bytes_done(&f->in);
    bytes_done(&f->out);
    bytes_done(&f->chunk);
    if (!has_unread(f))
        reply_parser_done(&f->parser);
}

static void take_ready(struct client_fsm *f, struct client_effect *out)
{
    f->ready_due = false;
    trim(f);
    *out = (struct client_effect){.kind = CLIENT_READY, .stage = f->stage};
}

static void take_output(struct client_fsm *f, struct client_effect *out)
{
    f->out_sent = f->out.len;
    *out = (struct client_effect){
        .kind = CLIENT_SEND, .data = f->out.data, .len = f->out.len, .stage = f->stage};
}

static void take_effect(struct client_fsm *f, struct client_effect *out)
{
    *out = f->effects[f->effect_first];
    f->effect_first = (f->effect_first + 1) % CLIENT_EFFECTS_MAX;
    f->effect_count--;
}

/* Moves on until there is something to do for the shell, or nothing to go on with. */
static void work(struct client_fsm *f)
{
    while (f->effect_count == 0 && f->out.len == 0 && !f->ended) {
        if (f->in_used < f->in.len)
            read_reply(f);
        else if (f->ending_due)
            end(f, f->stage, &f->ending);
        else
            return;
        if (f->gone)
            discard_output(f);
    }
}

void client_fsm_next(struct client_fsm *f, struct client_effect *out)
{
    retire(f);
    if (f->gone)
        discard_output(f);
    work(f);
    if (f->out.len > 0)
        take_output(f, out);
    else if (f->effect_count > 0)
        take_effect(f, out);
    else if (f->ready_due)
        take_ready(f, out);
    else
        *out = (struct client_effect){.kind = CLIENT_NOTHING, .stage = f->stage};
}

struct client_fsm *client_fsm_new(const struct client_settings *settings)
{
    struct client_fsm *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return NULL;
    f->helo = strdup(settings->helo);
    f->mechanisms = strdup(settings->mechanisms != NULL ? settings->mechanisms : "");
    f->needs_auth = settings->needs_auth;
    f->held = settings->held;
    f->secure = settings->implicit_tls;
    f->no_chunking = settings->no_chunking;
    f->in_flight = settings->in_flight > 1 ? settings->in_flight : 1;
    if (f->in_flight > CLIENT_FLIGHTS_MAX)
        f->in_flight = CLIENT_FLIGHTS_MAX;
    bytes_init(&f->chunk, CLIENT_FLIGHT_MAX);
    bytes_init(&f->in, CLIENT_INPUT_MAX);
    bytes_init(&f->out, CLIENT_OUTPUT_MAX);
    bytes_init(&f->response, BASE64_LENGTH(CLIENT_RESPONSE_MAX));
    reply_parser_init(&f->parser);
    if (f->helo == NULL || f->mechanisms == NULL) {
        client_fsm_free(f);
        return NULL;
    }
    return f;
}

void client_fsm_free(struct client_fsm *f)
{
    if (f == NULL)
        return;
    forget_response(f);
    discard_output(f);
    bytes_done(&f->out);
    bytes_done(&f->chunk);
    bytes_done(&f->in);
    reply_parser_done(&f->parser);
    free(f->mechanisms);
    free(f->helo);
    free(f);
}

enum client_stage client_fsm_stage(const struct client_fsm *f)
{
    return f->stage;
}

uint64_t client_fsm_replies(const struct client_fsm *f)
{
    return f->replies;
}

uint64_t client_fsm_size_limit(const struct client_fsm *f)
{
    return f->facts.size;
}

bool client_fsm_has_8bitmime(const struct client_fsm *f)
{
    return f->facts.eight_bit_mime;
}

bool client_fsm_has_smtputf8(const struct client_fsm *f)
{
    return f->facts.smtputf8;
}

bool client_fsm_has_dsn(const struct client_fsm *f)
{
    return f->facts.dsn;
}

bool client_fsm_lacks_bdat(const struct client_fsm *f)
{
    return f->lacks_bdat;
}

const char *client_fsm_greeting(const struct client_fsm *f)
{
    return f->facts.greeting;
}
