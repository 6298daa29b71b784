/*
 * The first fragment of a split mail: its header, and the header that its body begins with.
 */
#include "tests/fuzz/fuzz.h"

#include "relay/smtp/partial.h"

static void feed(struct header *h, const uint8_t *data, size_t len, size_t *out_used)
{
    *out_used = 0;
    header_init(h);
    while (*out_used < len && h->state == HEADER_MORE) {
        size_t n = len - *out_used < HEADER_CHUNK_MAX ? len - *out_used : HEADER_CHUNK_MAX;
        (void)header_feed(h, data + *out_used, n);
        *out_used += n;
    }
    (void)header_finish(h);
}

static void check_partial(const struct header *h)
{
    struct partial p;

    if (!partial_of(h, &p))
        return;
    FUZZ_CHECK(p.number > 0 && p.number <= PARTIAL_NUMBER_MAX && p.total <= PARTIAL_NUMBER_MAX);
    FUZZ_CHECK(p.total == 0 || p.number <= p.total);
    FUZZ_CHECK(p.id[0] != '\0' && strlen(p.id) <= PARTIAL_ID_MAX);
    for (const char *c = p.id; *c != '\0'; c++)
        FUZZ_CHECK(*c >= ' ' && *c <= '~');
}

/* The header of the whole is one, and adds nothing to what the two had. */
static void check_join(const struct header *outer, const struct header *inner)
{
    struct header whole;
    struct bytes out;
    size_t used;

    bytes_init(&out, 2 * HEADER_MAX + 2);
    FUZZ_CHECK(partial_join(outer, inner, &out));
    feed(&whole, out.data, out.len, &used);
    FUZZ_CHECK(whole.state == HEADER_DONE || whole.state == HEADER_TOO_LARGE);
    FUZZ_CHECK(whole.field_count <= outer->field_count + inner->field_count);
    header_done(&whole);
    bytes_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct header outer;
    struct header inner;
    struct partial p;
    size_t used;

    (void)partial_read((const char *)data, size, &p);
    feed(&outer, data, size, &used);
    if (outer.state == HEADER_DONE) {
        size_t rest_len;
        const uint8_t *rest = header_rest(&outer, &rest_len);

        check_partial(&outer);
        feed(&inner, rest, rest_len, &used);
        if (inner.state == HEADER_DONE)
            check_join(&outer, &inner);
        header_done(&inner);
    }
    header_done(&outer);
    return 0;
}
