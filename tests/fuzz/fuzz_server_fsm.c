/*
 * A whole session with a device: octets, cut anywhere, and a spool that takes mail or does not.
 * What the device hears and what is stored must not depend on the cuts. The first 4 octets say
 * where to cut, what the spool answers (a bit each) and what the limits are; the rest is what the
 * device says.
 */
#include "tests/fuzz/fuzz.h"

#include "queue/bytes.h"
#include "relay/intake/server_fsm.h"

#define WALL_MS    UINT64_C(1751623200000)
#define RECORD_MAX ((size_t)64 << 20)

struct shell {
    struct server_fsm *fsm;
    struct bytes record;  /* what was heard and what was committed, in their order */
    struct bytes content; /* of the open message */
    const struct server_settings *settings;
    unsigned answers;   /* bits: 1 = the spool refuses */
    bool store_fails;   /* at the first octets */
    bool message_open;  /* between SERVER_OPEN and what ends it */
    bool data_promised; /* 354 was said, and its mail data not answered yet */
    bool closed;
};

static bool refuses(struct shell *s)
{
    bool refused = s->answers & 1;

    s->answers = s->answers >> 1 | s->answers << 7;
    return refused;
}

static void hear(struct shell *s, const struct server_effect *e)
{
    FUZZ_CHECK(e->text_len >= 3 && e->text_len <= SERVER_REPLY_MAX);
    FUZZ_CHECK(memcmp(e->text + e->text_len - 2, "\r\n", 2) == 0);
    FUZZ_CHECK(fuzz_has_clean_lines((const uint8_t *)e->text, e->text_len));
    FUZZ_CHECK(e->text[0] >= '2' && e->text[0] <= '5');
    FUZZ_CHECK(bytes_append(&s->record, e->text, e->text_len));
}

static void on_open(struct shell *s)
{
    struct error err = {.kind = ERROR_NO_ROOM, .text = "full"};
    bool refused = refuses(s);
    struct server_effect e;

    FUZZ_CHECK(!s->message_open && !s->data_promised && server_fsm_is_waiting(s->fsm));
    FUZZ_CHECK(server_fsm_envelope(s->fsm)->recipient_count > 0);
    server_fsm_opened(s->fsm, 0x4f2a, refused ? &err : NULL, &e);
    FUZZ_CHECK(e.kind == SERVER_REPLY && e.text[0] == (refused ? '4' : '3'));
    bytes_clear(&s->content);
    s->message_open = s->data_promised = !refused;
    hear(s, &e);
}

static void on_store(struct shell *s, const struct server_effect *e)
{
    struct error err = {.kind = ERROR_IO, .text = "broken"};

    FUZZ_CHECK(s->message_open && s->data_promised);
    FUZZ_CHECK(e->data_len > 0 && e->data_len <= SERVER_CHUNK);
    FUZZ_CHECK(bytes_append(&s->content, e->data, e->data_len));
    if (!s->store_fails)
        return;
    s->message_open = false;
    server_fsm_store_failed(s->fsm, &err);
}

static void check_envelope(struct shell *s)
{
    const struct envelope *e = server_fsm_envelope(s->fsm);

    FUZZ_CHECK(e->recipient_count > 0 && e->recipient_count <= s->settings->max_recipients);
    FUZZ_CHECK(e->size == s->content.len && e->header_size <= e->size);
    FUZZ_CHECK(fuzz_has_clean_lines(s->content.data, s->content.len));
    FUZZ_CHECK(strcmp(e->device, s->settings->device) == 0);
    FUZZ_CHECK(bytes_append(&s->record, s->content.data, s->content.len));
    FUZZ_CHECK(envelope_encode(e, &s->record));
}

/* The one place where 250 may follow mail data. */
static void on_commit(struct shell *s)
{
    struct error err = {.kind = ERROR_IO, .text = "broken"};
    bool refused = refuses(s);
    struct server_effect e;

    FUZZ_CHECK(s->message_open && s->data_promised && server_fsm_is_waiting(s->fsm));
    check_envelope(s);
    s->message_open = s->data_promised = false;
    server_fsm_committed(s->fsm, 0x4f2a, refused ? &err : NULL, &e);
    FUZZ_CHECK(e.kind == SERVER_REPLY && e.text[0] == (refused ? '4' : '2'));
    hear(s, &e);
}

static void on_reply(struct shell *s, const struct server_effect *e)
{
    FUZZ_CHECK(!s->message_open);
    if (s->data_promised)
        FUZZ_CHECK(e->text[0] == '4' || e->text[0] == '5');
    s->data_promised = false;
    hear(s, e);
}

static void on_close(struct shell *s, const struct server_effect *e)
{
    FUZZ_CHECK(!s->data_promised || e->text_len == 0 || e->text[0] >= '4');
    s->closed = true;
    if (e->text_len > 0)
        hear(s, e);
    FUZZ_CHECK(bytes_text(&s->record, server_fsm_phase(s->fsm)));
}

/* One question, then an answer that the input chooses. */
static void on_auth(struct shell *s, const struct server_effect *e)
{
    const struct server_identity who = {.device = "copier", .login = "copier", .max_recipients = 100};
    struct server_effect answer;

    FUZZ_CHECK(server_fsm_is_waiting(s->fsm) && !s->message_open);
    if (e->text != NULL)
        server_fsm_challenge(s->fsm, "Username:", 9, &answer);
    else
        server_fsm_checked(s->fsm, refuses(s) ? SERVER_CHECK_WRONG : SERVER_CHECK_VERIFIED, &who,
                           &answer);
    FUZZ_CHECK(answer.kind != SERVER_NOTHING);
    hear(s, &answer);
    s->closed = s->closed || answer.kind == SERVER_CLOSE;
}

static void perform(struct shell *s, const struct server_effect *e)
{
    switch (e->kind) {
    case SERVER_NOTHING:
        break;
    case SERVER_REPLY:
        on_reply(s, e);
        break;
    case SERVER_OPEN:
        on_open(s);
        break;
    case SERVER_STORE:
        on_store(s, e);
        break;
    case SERVER_COMMIT:
        on_commit(s);
        break;
    case SERVER_DISCARD:
        FUZZ_CHECK(s->message_open);
        s->message_open = false;
        break;
    case SERVER_AUTH:
        on_auth(s, e);
        break;
    case SERVER_START_TLS:
        hear(s, e);
        server_fsm_secured(s->fsm, "TLSv1.3 TLS_AES_256_GCM_SHA384");
        break;
    case SERVER_CLOSE:
        on_close(s, e);
        break;
    }
}

/* Every octet and every piece may cause some effects, not any number of them; and while one is due,
 * an octet is left to come back with. */
static void feed(struct shell *s, struct fuzz_input in, size_t piece)
{
    size_t most = in.left < piece ? in.left : piece;
    size_t effects = 0;

    while (!s->closed) {
        struct fuzz_input rest = in;
        struct server_effect e;
        size_t n;
        size_t used = 0;
        uint8_t *copy = fuzz_take(&rest, most, &n);

        server_fsm_step(s->fsm, copy, n, WALL_MS, &used, &e);
        FUZZ_CHECK(used <= n && ++effects <= 64 + 8 * piece);
        FUZZ_CHECK(e.kind == SERVER_NOTHING ? used == n : n > 0);
        perform(s, &e);
        free(copy);
        in.p += used;
        in.left -= used;
        most -= used;
        if (e.kind == SERVER_NOTHING)
            break;
    }
}

static void run(struct shell *s, struct fuzz_input in, uint64_t seed)
{
    struct server_effect e;

    s->fsm = server_fsm_new(s->settings);
    FUZZ_CHECK(s->fsm != NULL);
    bytes_init(&s->record, RECORD_MAX);
    bytes_init(&s->content, RECORD_MAX);
    server_fsm_start(s->fsm, &e);
    hear(s, &e);
    while (in.left > 0 && !s->closed) {
        size_t n = fuzz_piece(&seed, in.left);

        feed(s, in, n);
        in.p += n;
        in.left -= n;
    }
    FUZZ_CHECK(server_fsm_is_idle(s->fsm) || !s->closed);
    server_fsm_free(s->fsm);
    bytes_done(&s->content);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint64_t seed = fuzz_number(&in, 2) + 1;
    unsigned answers = fuzz_u8(&in);
    uint8_t limits = fuzz_u8(&in);
    struct server_settings settings = {.hostname = "relay.example",
                                       .client = "192.168.1.21",
                                       .client_literal = "[192.168.1.21]",
                                       .device = "copier",
                                       .listener = "lan",
                                       .max_size = limits & 1 ? 600 : 0,
                                       .max_recipients = limits & 2 ? 2 : 100};
    struct shell whole = {
        .settings = &settings, .answers = answers, .store_fails = (limits & 4) != 0};
    struct shell pieces = whole;

    run(&whole, in, 0);
    run(&pieces, in, seed);
    FUZZ_CHECK(whole.closed == pieces.closed);
    /* Which of two refusals comes first may depend on the pieces when storing fails as well. */
    if (!whole.store_fails)
        FUZZ_CHECK(whole.record.len == pieces.record.len &&
                   memcmp(whole.record.data, pieces.record.data, whole.record.len) == 0);
    bytes_done(&pieces.record);
    bytes_done(&whole.record);
    return 0;
}
