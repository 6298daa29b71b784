/*
 * Envelope and outcomes as stored: what was read and written again stays as it is. The input is an
 * envelope's text and, behind a NUL, a text of outcomes.
 */
#include "tests/fuzz/fuzz.h"

#include "queue/envelope.h"

static bool same(const struct bytes *a, const struct bytes *b)
{
    return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static bool is_one_line(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            return false;
    }
    return true;
}

static void check_texts(const struct envelope *e)
{
    const char *const texts[] = {e->reverse_path, e->device,   e->client, e->helo,
                                 e->login,        e->listener, e->route,  e->message_id,
                                 e->subject,      e->envid,    e->ret,    e->repairs};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        FUZZ_CHECK(texts[i] != NULL && is_one_line(texts[i]));
    FUZZ_CHECK(e->lane < LANE_COUNT && e->recipient_count <= ENVELOPE_RECIPIENTS_MAX);
    for (size_t i = 0; i < e->recipient_count; i++) {
        const struct recipient *r = &e->recipients[i];

        FUZZ_CHECK(is_one_line(r->forward_path) && is_one_line(r->notify));
        FUZZ_CHECK(is_one_line(r->orcpt) && is_one_line(r->reply));
        FUZZ_CHECK(envelope_has_recipient(e, r->forward_path));
    }
    FUZZ_CHECK(envelope_count(e, RECIPIENT_PENDING) + envelope_count(e, RECIPIENT_DELIVERED) +
                   envelope_count(e, RECIPIENT_FAILED) ==
               e->recipient_count);
}

/* Encoding gives text that decodes to what encodes to the same. */
static void check_fixed_point(const struct envelope *e)
{
    struct error err = ERROR_INIT;
    struct envelope again;
    struct bytes first;
    struct bytes second;

    envelope_init(&again);
    bytes_init(&first, (size_t)ENVELOPE_TEXT_MAX * 2);
    bytes_init(&second, (size_t)ENVELOPE_TEXT_MAX * 2);
    if (envelope_encode(e, &first)) {
        FUZZ_CHECK(envelope_decode(&again, first.data, first.len, &err));
        FUZZ_CHECK(envelope_count(&again, RECIPIENT_PENDING) == e->recipient_count);
        FUZZ_CHECK(envelope_encode(&again, &second) && same(&first, &second));
    }
    bytes_done(&second);
    bytes_done(&first);
    envelope_done(&again);
}

static void check_outcomes(struct envelope *e)
{
    struct error err = ERROR_INIT;
    struct envelope copy;
    struct bytes first;
    struct bytes second;

    envelope_init(&copy);
    bytes_init(&first, (size_t)ENVELOPE_TEXT_MAX * 2);
    bytes_init(&second, (size_t)ENVELOPE_TEXT_MAX * 2);
    FUZZ_CHECK(envelope_copy(&copy, e) && envelope_encode_outcomes(e, &first));
    FUZZ_CHECK(envelope_apply_outcomes(&copy, first.data, first.len, &err));
    FUZZ_CHECK(envelope_encode_outcomes(&copy, &second) && same(&first, &second));
    for (size_t i = 0; i < e->recipient_count; i++) {
        FUZZ_CHECK(copy.recipients[i].state == e->recipients[i].state);
        FUZZ_CHECK(strlen(copy.recipients[i].reply) <= ENVELOPE_REPLY_MAX);
    }
    bytes_done(&second);
    bytes_done(&first);
    envelope_done(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size > 0 ? memchr(data, '\0', size) : NULL;
    size_t text_len = nul != NULL ? (size_t)(nul - data) : size;
    struct fuzz_input in = {data, size};
    struct error err = ERROR_INIT;
    struct envelope e;
    size_t outcomes_len;
    uint8_t *text = fuzz_take(&in, text_len, &text_len);
    uint8_t *outcomes;

    (void)fuzz_u8(&in);
    outcomes = fuzz_take(&in, in.left, &outcomes_len);
    envelope_init(&e);
    if (envelope_decode(&e, text, text_len, &err)) {
        check_texts(&e);
        check_fixed_point(&e);
        if (!envelope_apply_outcomes(&e, outcomes, outcomes_len, &err))
            FUZZ_CHECK(err.kind == ERROR_DAMAGED || err.kind == ERROR_INVALID);
        check_texts(&e);
        check_outcomes(&e);
    } else {
        FUZZ_CHECK(err.kind == ERROR_DAMAGED || err.kind == ERROR_INVALID);
        FUZZ_CHECK(e.recipient_count == 0 && e.recipients == NULL);
    }
    envelope_done(&e);
    free(outcomes);
    free(text);
    return 0;
}
