/*
 * Mail data: however it arrives in pieces it decodes to the same, and what is sent of it holds an
 * end of data at its end and nowhere else. The first 2 octets say where to cut.
 */
#include "tests/fuzz/fuzz.h"

#include "relay/smtp/maildata.h"

#define CONTENT_MAX ((size_t)64 << 20)
#define ROOM_MAX    256

struct decoded {
    struct bytes content;
    struct maildata_quirks quirks;
    size_t used; /* octets of the input up to and with the end of data */
    bool ended;
};

/* With a seed of 0: all at once. */
static void decode(struct decoded *out, const uint8_t *data, size_t size, uint64_t seed)
{
    struct maildata_decoder d;
    uint8_t room[ROOM_MAX];
    size_t out_size = seed == 0 ? ROOM_MAX : MAILDATA_ROOM_MIN + seed % 64;

    *out = (struct decoded){.used = 0};
    bytes_init(&out->content, CONTENT_MAX);
    maildata_decoder_init(&d);
    while (out->used < size && !out->ended) {
        struct fuzz_input in = {data + out->used, size - out->used};
        size_t n;
        size_t used;
        size_t len;
        uint8_t *piece = fuzz_take(&in, fuzz_piece(&seed, in.left), &n);

        out->ended = maildata_decode(&d, piece, n, &used, room, out_size, &len);
        FUZZ_CHECK(used <= n && len <= out_size && (used > 0 || len > 0));
        FUZZ_CHECK(bytes_append(&out->content, room, len));
        out->used += used;
        free(piece);
    }
    out->quirks = d.quirks;
}

/* What ends mail data is CR LF . CR LF, the first of it, and nothing that is only like it. */
static void check_end(const struct decoded *d, const uint8_t *data, size_t size)
{
    struct bytes raw;
    const uint8_t *end;

    bytes_init(&raw, CONTENT_MAX);
    FUZZ_CHECK(bytes_text(&raw, "\r\n") && bytes_append(&raw, data, size));
    end = memmem(raw.data, raw.len, "\r\n.\r\n", 5);
    FUZZ_CHECK(d->ended == (end != NULL));
    FUZZ_CHECK(!d->ended || d->used == (size_t)(end - raw.data) + 3);
    bytes_done(&raw);
}

static bool same(const struct bytes *a, const struct bytes *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static void encode(struct bytes *out, const uint8_t *data, size_t size, uint64_t seed)
{
    struct maildata_encoder e;

    bytes_init(out, CONTENT_MAX);
    maildata_encoder_init(&e);
    for (size_t at = 0; at < size;) {
        size_t n = fuzz_piece(&seed, size - at);

        FUZZ_CHECK(maildata_encode(&e, data + at, n, out));
        at += n;
    }
    FUZZ_CHECK(maildata_end(&e, out));
}

/* The only end of data is at the end: also for who takes a bare CR or LF for a line end, since
 * there is none. */
static void check_wire(const struct bytes *wire)
{
    static const char end[] = "\r\n.\r\n";
    size_t len = sizeof(end) - 1;
    const uint8_t *at = memmem(wire->data, wire->len, end, len);

    FUZZ_CHECK(fuzz_has_clean_lines(wire->data, wire->len));
    if (wire->len == len - 2) {
        FUZZ_CHECK(memcmp(wire->data, end + 2, len - 2) == 0);
        return;
    }
    FUZZ_CHECK(memcmp(wire->data, end + 2, len - 2) != 0);
    FUZZ_CHECK(at == wire->data + wire->len - len);
}

static void check_encoding(const uint8_t *data, size_t size, uint64_t seed, bool is_content)
{
    struct bytes wire;
    struct bytes again;
    struct decoded back;

    encode(&wire, data, size, 0);
    encode(&again, data, size, seed);
    FUZZ_CHECK(same(&wire, &again));
    check_wire(&wire);
    decode(&back, wire.data, wire.len, seed);
    FUZZ_CHECK(back.ended && back.used == wire.len);
    FUZZ_CHECK(!back.quirks.bare_lf && !back.quirks.bare_cr && !back.quirks.cr_cr_lf);
    if (is_content)
        FUZZ_CHECK(back.content.len == size &&
                   (size == 0 || memcmp(back.content.data, data, size) == 0));
    bytes_done(&back.content);
    bytes_done(&again);
    bytes_done(&wire);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint64_t seed = fuzz_number(&in, 2) + 1;
    struct decoded whole;
    struct decoded pieces;

    decode(&whole, in.p, in.left, 0);
    decode(&pieces, in.p, in.left, seed);
    FUZZ_CHECK(whole.ended == pieces.ended && whole.used == pieces.used);
    FUZZ_CHECK(same(&whole.content, &pieces.content));
    FUZZ_CHECK(whole.quirks.longest_line == pieces.quirks.longest_line);
    check_end(&whole, in.p, in.left);
    FUZZ_CHECK(fuzz_has_clean_lines(whole.content.data, whole.content.len));
    if (whole.ended)
        check_encoding(whole.content.data, whole.content.len, seed, true);
    check_encoding(in.p, in.left, seed, false);
    bytes_done(&pieces.content);
    bytes_done(&whole.content);
    return 0;
}
