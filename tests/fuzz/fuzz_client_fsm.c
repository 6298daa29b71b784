/*
 * A whole session with a server that says anything. The input's first octet is the settings; then
 * octets below 8 are what happens on our side (enum happening), and everything else is what the
 * server says up to the next of them.
 *
 * Nothing but EHLO and STARTTLS leaves in clear; the end of data leaves only after the in-doubt
 * mark; a success counts only behind it; each transaction has one result, of several in flight the
 * oldest first, and none beyond those that were allowed.
 */
#include "tests/fuzz/fuzz.h"

#include "relay/submit/client_fsm.h"

#define SENT_MAX ((size_t)16 << 20)

static const char more_body[] = "\r\nmail data\r\n.";

enum happening {
    GOES_ON = 0,   /* what the machine last asked for is done */
    FAILS = 1,     /* it cannot be done */
    ARRIVES = 2,   /* only ends a piece of what the server says */
    LOST = 3,      /* the connection */
    TIMEOUT = 4,   /* of ours */
    QUITS = 5,     /* instead of another transaction; or begins one beside those under way */
    MORE_BODY = 6, /* mail data that ends within a line */
    DOTS = 7       /* mail data that must be stuffed */
};

/* A transaction under way. */
struct carried {
    struct envelope *envelope; /* NULL: none */
    struct client_transaction tx;
    uint64_t number;
    bool in_body;
    bool doubted;
    bool answered[3]; /* recipients */
    size_t accepted;
};

struct shell {
    struct client_fsm *fsm;
    struct carried carried[CLIENT_FLIGHTS_MAX];
    struct carried *newest;
    uint64_t begun;
    uint64_t ended;   /* number of the last one that ended after it had left */
    size_t under_way; /* without a result */
    size_t most;
    uint64_t size;               /* of their mail data; 0: not known */
    enum client_effect_kind due; /* what waits for our answer */
    struct bytes sent;           /* mail data on the wire since CLIENT_BODY */
    bool secure;
    bool failed;
    size_t octets; /* received */
    size_t effects;
    size_t events;
};

static struct carried *free_one(struct shell *s)
{
    for (size_t i = 0; i < CLIENT_FLIGHTS_MAX; i++) {
        if (s->carried[i].envelope == NULL)
            return &s->carried[i];
    }
    return NULL;
}

/* What was borrowed is gone with the result: another look at it would be seen. */
static void end_transaction(struct carried *t)
{
    envelope_done(t->envelope);
    free(t->envelope);
    t->envelope = NULL;
    t->in_body = false;
}

/* When it may. */
static void begin(struct shell *s)
{
    static const char *const recipients[] = {"a@b.example", "\"o d d\"@b.example", "c@d.example"};
    struct carried *t = free_one(s);

    if (t == NULL)
        return;
    *t = (struct carried){.envelope = malloc(sizeof(*t->envelope))};
    FUZZ_CHECK(t->envelope != NULL);
    envelope_init(t->envelope);
    for (size_t i = 0; i < 3; i++)
        FUZZ_CHECK(envelope_add_recipient(t->envelope, recipients[i]));
    t->envelope->recipients[1].state = RECIPIENT_DELIVERED;
    t->tx = (struct client_transaction){.reverse_path = "x@y.example",
                                        .envelope = t->envelope,
                                        .size = s->size,
                                        .warm = true,
                                        .owner = t};
    if (!client_fsm_may_begin(s->fsm, &t->tx)) {
        end_transaction(t);
        return;
    }
    t->number = ++s->begun;
    s->newest = t;
    s->under_way++;
    FUZZ_CHECK(s->under_way <= s->most);
    client_fsm_begin(s->fsm, &t->tx);
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
    const struct carried *t = s->newest;

    FUZZ_CHECK(e->len > 0);
    FUZZ_CHECK(s->secure || is_fit_for_clear(e));
    if (t == NULL || s->size > 0)
        return;
    if (begins_with(e, ".\r\n") && !t->in_body)
        FUZZ_CHECK(t->accepted == 0);
    if (!t->in_body)
        return;
    FUZZ_CHECK(bytes_append(&s->sent, e->data, e->len));
    if (!t->doubted)
        FUZZ_CHECK(memmem(s->sent.data, s->sent.len, "\r\n.\r\n", 5) == NULL);
}

static void on_recipient(struct carried *t, const struct client_effect *e)
{
    FUZZ_CHECK(t->envelope != NULL && e->index < 3 && e->stage == STAGE_RCPT);
    FUZZ_CHECK(t->envelope->recipients[e->index].state == RECIPIENT_PENDING);
    FUZZ_CHECK(!t->answered[e->index] && e->reply->code != 0);
    t->answered[e->index] = true;
    t->accepted += reply_is_positive(e->reply);
}

/* Mail data that was sent whole, behind DATA. */
static void check_stuffed(const struct shell *s)
{
    FUZZ_CHECK(s->sent.len >= 5);
    FUZZ_CHECK(memcmp(s->sent.data + s->sent.len - 5, "\r\n.\r\n", 5) == 0);
}

static void on_result(struct shell *s, struct carried *t, const struct client_effect *e)
{
    FUZZ_CHECK(t->envelope != NULL && e->reply != NULL && e->stage < STAGE_COUNT);
    FUZZ_CHECK(e->reply->code != 0 || e->reply->local != LOCAL_NONE);
    FUZZ_CHECK(e->reply->code / 100 != 3 || e->stage == STAGE_IDLE); /* to RSET */
    if (reply_is_positive(e->reply)) {
        FUZZ_CHECK(e->stage == STAGE_FINAL_DOT && t->in_body && t->doubted && t->accepted > 0);
        if (s->size == 0)
            check_stuffed(s);
    }
    if (s->size == 0)
        FUZZ_CHECK((e->stage == STAGE_FINAL_DOT) == (t->in_body && t->doubted));
    if (e->stage == STAGE_FINAL_DOT)
        FUZZ_CHECK(t->in_body && t->doubted);
    FUZZ_CHECK(t->number > s->ended || e->reply->local == LOCAL_SPOOL);
    if (e->reply->local != LOCAL_SPOOL) /* which may end one out of its turn */
        s->ended = t->number;
    s->under_way--;
    if (t == s->newest) {
        s->newest = NULL;
        s->due = CLIENT_NOTHING;
    }
    end_transaction(t);
}

static void on_body(struct shell *s, struct carried *t)
{
    FUZZ_CHECK(t == s->newest && t->envelope != NULL && s->secure);
    FUZZ_CHECK(t->accepted > 0 || s->size > 0);
    t->in_body = true;
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
        on_recipient(e->owner, e);
        return;
    case CLIENT_RESULT:
        on_result(s, e->owner, e);
        return;
    case CLIENT_FAILED:
        FUZZ_CHECK(s->under_way == 0 && e->reply != NULL && e->stage < STAGE_COUNT);
        s->failed = true;
        return;
    case CLIENT_BODY:
        on_body(s, e->owner);
        break;
    case CLIENT_START_TLS:
        FUZZ_CHECK(!s->secure);
        break;
    case CLIENT_SASL_START:
    case CLIENT_SASL_STEP:
        FUZZ_CHECK(s->secure && s->under_way == 0);
        break;
    case CLIENT_READY:
        FUZZ_CHECK(s->secure && s->under_way == 0);
        break;
    case CLIENT_DOUBT:
        FUZZ_CHECK(e->owner == s->newest && s->newest->in_body && !s->newest->doubted);
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
        s->newest->doubted = ok;
        client_fsm_doubted(s->fsm, ok);
        if (s->size == 0)
            s->newest->doubted = ok && client_fsm_stage(s->fsm) == STAGE_FINAL_DOT;
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
        if (s->due == CLIENT_READY) {
            s->due = CLIENT_NOTHING;
            client_fsm_quit(s->fsm);
        } else if (s->under_way > 0 && !s->failed) {
            begin(s);
        }
        break;
    case MORE_BODY:
        give_body(s, more_body);
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
                                       .in_flight = 1 + ((flags >> 4) & 3),
                                       .mechanisms = "XOAUTH2 LOGIN"};
    struct shell s = {.fsm = client_fsm_new(&settings),
                      .secure = settings.implicit_tls,
                      .size = (flags & 4) != 0 ? strlen(more_body) : 0,
                      .most = settings.in_flight};

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
    FUZZ_CHECK(s.failed && s.under_way == 0);
    client_fsm_free(s.fsm);
    bytes_done(&s.sent);
    return 0;
}
