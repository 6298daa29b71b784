/*
 * A whole session with a server that says anything. The input's first octet is the settings; then
 * octets below 8 are what happens on our side (enum happening), and everything else is what the
 * server says up to the next of them.
 *
 * Nothing but EHLO and STARTTLS leaves in clear; the end of data leaves only after the in-doubt
 * mark; a success counts only behind it; each transaction has one result.
 */
#include "tests/fuzz/fuzz.h"

#include "relay/submit/client_fsm.h"

#define SENT_MAX ((size_t)16 << 20)

enum happening {
    GOES_ON = 0,   /* what the machine last asked for is done */
    FAILS = 1,     /* it cannot be done */
    ARRIVES = 2,   /* only ends a piece of what the server says */
    LOST = 3,      /* the connection */
    TIMEOUT = 4,   /* of ours */
    QUITS = 5,     /* instead of another transaction */
    MORE_BODY = 6, /* mail data that ends within a line */
    DOTS = 7       /* mail data that must be stuffed */
};

struct shell {
    struct client_fsm *fsm;
    struct envelope *envelope; /* of the transaction; NULL: none */
    struct client_transaction tx;
    enum client_effect_kind due; /* what waits for our answer */
    struct bytes sent;           /* mail data on the wire since CLIENT_BODY */
    bool secure;
    bool in_body;
    bool doubted;
    bool failed;
    bool answered[3]; /* recipients */
    size_t refused;
    size_t accepted;
    size_t octets; /* received */
    size_t effects;
    size_t events;
};

static void begin(struct shell *s)
{
    static const char *const recipients[] = {"a@b.example", "\"o d d\"@b.example", "c@d.example"};

    s->envelope = malloc(sizeof(*s->envelope));
    FUZZ_CHECK(s->envelope != NULL);
    envelope_init(s->envelope);
    for (size_t i = 0; i < 3; i++)
        FUZZ_CHECK(envelope_add_recipient(s->envelope, recipients[i]));
    s->envelope->recipients[1].state = RECIPIENT_DELIVERED;
    memset(s->answered, 0, sizeof(s->answered));
    s->accepted = s->refused = 0;
    s->in_body = s->doubted = false;
    s->tx = (struct client_transaction){.reverse_path = "x@y.example", .envelope = s->envelope};
    client_fsm_begin(s->fsm, &s->tx);
}

/* What was borrowed is gone with the result: another look at it would be seen. */
static void end_transaction(struct shell *s)
{
    if (s->envelope != NULL)
        envelope_done(s->envelope);
    free(s->envelope);
    s->envelope = NULL;
    s->in_body = false;
}

/* ---- effects --------------------------------------------------------------------------------- */

static bool begins_with(const struct client_effect *e, const char *text)
{
    return e->len >= strlen(text) && memcmp(e->data, text, strlen(text)) == 0;
}

/* Lines that say nothing of ours. */
static bool is_fit_for_clear(const struct client_effect *e)
{
    return (begins_with(e, "EHLO ") || begins_with(e, "STARTTLS\r\n") ||
            begins_with(e, "QUIT\r\n")) &&
           memchr(e->data, '\n', e->len) == e->data + e->len - 1;
}

static void on_send(struct shell *s, const struct client_effect *e)
{
    FUZZ_CHECK(e->len > 0);
    FUZZ_CHECK(s->secure || is_fit_for_clear(e));
    if (begins_with(e, ".\r\n") && !s->in_body)
        FUZZ_CHECK(s->accepted == 0);
    if (!s->in_body)
        return;
    FUZZ_CHECK(bytes_append(&s->sent, e->data, e->len));
    if (!s->doubted)
        FUZZ_CHECK(memmem(s->sent.data, s->sent.len, "\r\n.\r\n", 5) == NULL);
}

static void on_recipient(struct shell *s, const struct client_effect *e)
{
    FUZZ_CHECK(s->envelope != NULL && e->index < 3 && e->stage == STAGE_RCPT);
    FUZZ_CHECK(s->envelope->recipients[e->index].state == RECIPIENT_PENDING);
    FUZZ_CHECK(!s->answered[e->index] && e->reply->code != 0);
    s->answered[e->index] = true;
    if (reply_is_positive(e->reply))
        s->accepted++;
    else
        s->refused++;
}

static void on_result(struct shell *s, const struct client_effect *e)
{
    FUZZ_CHECK(s->envelope != NULL && e->reply != NULL && e->stage < STAGE_COUNT);
    FUZZ_CHECK(e->reply->code != 0 || e->reply->local != LOCAL_NONE);
    FUZZ_CHECK(e->reply->code / 100 != 3 || e->stage == STAGE_IDLE); /* to RSET */
    if (reply_is_positive(e->reply)) {
        FUZZ_CHECK(e->stage == STAGE_FINAL_DOT && s->in_body && s->doubted && s->accepted > 0);
        FUZZ_CHECK(s->sent.len >= 5);
        FUZZ_CHECK(memcmp(s->sent.data + s->sent.len - 5, "\r\n.\r\n", 5) == 0);
    }
    FUZZ_CHECK((e->stage == STAGE_FINAL_DOT) == (s->in_body && s->doubted));
    end_transaction(s);
}

static void on_body(struct shell *s)
{
    FUZZ_CHECK(s->envelope != NULL && s->accepted > 0 && s->secure);
    s->in_body = true;
    bytes_clear(&s->sent);
    FUZZ_CHECK(bytes_text(&s->sent, "\r\n")); /* behind DATA */
}

static void perform(struct shell *s, const struct client_effect *e)
{
    FUZZ_CHECK(!s->failed);
    switch (e->kind) {
    case CLIENT_SEND:
        on_send(s, e);
        return;
    case CLIENT_RECIPIENT:
        on_recipient(s, e);
        return;
    case CLIENT_RESULT:
        on_result(s, e);
        s->due = CLIENT_NOTHING;
        return;
    case CLIENT_FAILED:
        FUZZ_CHECK(s->envelope == NULL && e->reply != NULL && e->stage < STAGE_COUNT);
        s->failed = true;
        return;
    case CLIENT_BODY:
        on_body(s);
        break;
    case CLIENT_START_TLS:
        FUZZ_CHECK(!s->secure);
        break;
    case CLIENT_SASL_START:
    case CLIENT_SASL_STEP:
        FUZZ_CHECK(s->secure && s->envelope == NULL);
        break;
    case CLIENT_READY:
        FUZZ_CHECK(s->secure && s->envelope == NULL);
        break;
    case CLIENT_DOUBT:
        FUZZ_CHECK(s->in_body && !s->doubted);
        break;
    case CLIENT_NOTHING:
        break;
    }
    s->due = e->kind;
}

/* A reply costs the server four octets and causes a few effects; so does each event of ours. */
static void drain(struct shell *s)
{
    struct client_effect e;

    for (client_fsm_next(s->fsm, &e); e.kind != CLIENT_NOTHING; client_fsm_next(s->fsm, &e)) {
        FUZZ_CHECK(++s->effects <= 8 * (s->events + 1) + 2 * s->octets);
        perform(s, &e);
    }
}

/* ---- events ---------------------------------------------------------------------------------- */

static void answer(struct shell *s, bool ok)
{
    enum client_effect_kind due = s->due;

    s->due = CLIENT_NOTHING;
    if (s->failed)
        return;
    if (due == CLIENT_START_TLS && ok) {
        s->secure = true;
        client_fsm_secure(s->fsm);
    } else if (due == CLIENT_START_TLS) {
        client_fsm_lost(s->fsm, LOCAL_CERTIFICATE, "the certificate is not valid");
    } else if ((due == CLIENT_SASL_START || due == CLIENT_SASL_STEP) && ok) {
        client_fsm_sasl(s->fsm, "secret", 6);
    } else if (due == CLIENT_SASL_START || due == CLIENT_SASL_STEP) {
        client_fsm_sasl_failed(s->fsm, "no password");
    } else if (due == CLIENT_READY) {
        begin(s);
    } else if (due == CLIENT_BODY && ok) {
        client_fsm_body_end(s->fsm);
    } else if (due == CLIENT_BODY) {
        client_fsm_body_failed(s->fsm, LOCAL_SPOOL, "damaged");
    } else if (due == CLIENT_DOUBT) {
        s->doubted = ok;
        client_fsm_doubted(s->fsm, ok);
        s->doubted = ok && client_fsm_stage(s->fsm) == STAGE_FINAL_DOT;
    }
}

static void give_body(struct shell *s, const char *text)
{
    if (s->due == CLIENT_BODY)
        client_fsm_body(s->fsm, (const uint8_t *)text, strlen(text));
}

static void happen(struct shell *s, enum happening what)
{
    switch (what) {
    case GOES_ON:
    case FAILS:
        answer(s, what == GOES_ON);
        break;
    case ARRIVES:
        break;
    case LOST:
        client_fsm_lost(s->fsm, LOCAL_LOST, "the connection ended");
        break;
    case TIMEOUT:
        client_fsm_lost(s->fsm, LOCAL_TIMEOUT, "no answer");
        break;
    case QUITS:
        if (s->due != CLIENT_READY)
            break;
        s->due = CLIENT_NOTHING;
        client_fsm_quit(s->fsm);
        break;
    case MORE_BODY:
        give_body(s, "\r\nmail data\r\n.");
        break;
    case DOTS:
        give_body(s, ".\r\n.\r\n..\r\n.\r\n");
        break;
    }
}

static size_t speech_length(const struct fuzz_input *in)
{
    size_t n = 0;

    while (n < in->left && in->p[n] > DOTS)
        n++;
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint8_t flags = fuzz_u8(&in);
    struct client_settings settings = {.helo = "relay.example",
                                       .implicit_tls = (flags & 1) != 0,
                                       .needs_auth = (flags & 2) != 0,
                                       .mechanisms = "XOAUTH2 LOGIN"};
    struct shell s = {.fsm = client_fsm_new(&settings), .secure = settings.implicit_tls};

    FUZZ_CHECK(s.fsm != NULL);
    bytes_init(&s.sent, SENT_MAX);
    client_fsm_connected(s.fsm);
    drain(&s);
    while (in.left > 0) {
        size_t n;
        uint8_t *speech = fuzz_take(&in, speech_length(&in), &n);

        client_fsm_input(s.fsm, speech, n);
        free(speech);
        s.octets += n;
        s.events++;
        drain(&s);
        if (in.left > 0)
            happen(&s, (enum happening)fuzz_u8(&in));
        drain(&s);
    }
    client_fsm_lost(s.fsm, LOCAL_LOST, "the connection ended");
    s.events++;
    drain(&s);
    FUZZ_CHECK(s.failed && s.envelope == NULL);
    client_fsm_free(s.fsm);
    bytes_done(&s.sent);
    return 0;
}
