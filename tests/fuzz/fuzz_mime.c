/*
 * The body of a message on its way in. However it is cut, the same comes out, in bounded room; no
 * line that can be broken is too long, what needs no repair passes to the octet, and what was
 * repaired needs no more. The first 2 octets say where to cut; then the value of Content-Type, NUL,
 * that of Content-Transfer-Encoding, NUL; the rest is the body as on the wire.
 */
#include "tests/fuzz/fuzz.h"

#include "relay/smtp/maildata.h"
#include "relay/smtp/mime.h"

#define CONTENT_MAX ((size_t)64 << 20)
#define ROOM        4096
#define VALUE_MAX   4096
#define PIECE_MAX   ((size_t)8192) /* what server_fsm hands in at most */

struct input {
    uint8_t *type;
    size_t type_len;
    uint8_t *encoding;
    size_t encoding_len;
    struct bytes body;
    uint64_t seed;
};

/* Up to the next NUL, in memory of just its size. */
static uint8_t *take_value(struct fuzz_input *in, size_t *out_len)
{
    const uint8_t *nul = in->left > 0 ? memchr(in->p, '\0', in->left) : NULL;
    size_t len = nul != NULL ? (size_t)(nul - in->p) : in->left;
    uint8_t *value = fuzz_take(in, len < VALUE_MAX ? len : VALUE_MAX, out_len);

    if (nul != NULL && in->left > 0 && *in->p == '\0')
        (void)fuzz_u8(in);
    return value;
}

/* Lines that end in CR LF, as the module gets them; dots are no matter here. */
static void read_body(struct bytes *out, const uint8_t *data, size_t size)
{
    struct maildata_decoder d;
    uint8_t room[ROOM];
    bool ended = false;

    bytes_init(out, CONTENT_MAX);
    maildata_decoder_init_chunks(&d);
    while (size > 0) {
        size_t used;
        size_t len;

        (void)maildata_decode(&d, data, size, &used, room, ROOM, &len);
        FUZZ_CHECK(bytes_append(out, room, len));
        data += used;
        size -= used;
    }
    while (!ended) {
        size_t len;

        ended = maildata_finish(&d, room, ROOM, &len);
        FUZZ_CHECK(bytes_append(out, room, len));
    }
}

struct output {
    struct bytes text;
    struct mime_quirks quirks;
    bool binary;
    bool open; /* a multipart has not ended */
};

static void filter(struct output *out, const struct input *in, const struct bytes *body,
                   uint64_t seed)
{
    static struct mime m;
    size_t at = 0;

    memset(&m, 0xa5, sizeof(m)); /* mime_begin() has to set what it needs */
    bytes_init(&out->text, CONTENT_MAX);
    mime_begin(&m, (const char *)in->type, in->type_len, (const char *)in->encoding,
               in->encoding_len);
    while (at < body->len) {
        struct fuzz_input rest = {body->data + at, body->len - at};
        size_t n = fuzz_piece(&seed, rest.left < PIECE_MAX ? rest.left : PIECE_MAX);
        uint8_t *piece = fuzz_take(&rest, n, &n);
        uint8_t *room = malloc(MIME_ROOM(n));
        size_t got;

        FUZZ_CHECK(room != NULL);
        got = mime_filter(&m, piece, n, room);
        FUZZ_CHECK(got <= MIME_ROOM(n) && bytes_append(&out->text, room, got));
        free(room);
        free(piece);
        at += n;
    }
    {
        uint8_t room[MIME_ROOM(0)];
        size_t got = mime_finish(&m, room);

        FUZZ_CHECK(got <= sizeof(room) && bytes_append(&out->text, room, got));
    }
    out->quirks = m.quirks;
    out->binary = m.binary;
    out->open = mime_boundary_is_open(&m);
}

static bool same(const struct bytes *a, const struct bytes *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static size_t longest_line(const struct bytes *text)
{
    size_t longest = 0;
    size_t line = 0;

    for (size_t i = 0; i < text->len; i++) {
        line = text->data[i] == '\n' ? 0 : line + 1;
        if (line > longest)
            longest = line - (text->data[i] == '\r');
    }
    return longest;
}

static bool was_changed(const struct mime_quirks *q)
{
    return q->long_base64 || q->long_quoted || q->long_text || q->long_field || q->nul;
}

static void check_output(const struct input *in, const struct output *out)
{
    struct output again;

    if (out->binary)
        return;
    FUZZ_CHECK(fuzz_has_clean_lines(out->text.data, out->text.len));
    FUZZ_CHECK(was_changed(&out->quirks) || same(&out->text, &in->body));
    FUZZ_CHECK(out->quirks.long_other || longest_line(&out->text) <= MIME_LINE_MAX);
    filter(&again, in, &out->text, in->seed);
    FUZZ_CHECK(!again.binary && !was_changed(&again.quirks) && same(&again.text, &out->text));
    FUZZ_CHECK(again.open == out->open);
    bytes_done(&again.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input from = {data, size};
    struct input in = {.seed = fuzz_number(&from, 2) + 1};
    struct output whole;
    struct output pieces;

    in.type = take_value(&from, &in.type_len);
    in.encoding = take_value(&from, &in.encoding_len);
    read_body(&in.body, from.p, from.left);
    filter(&whole, &in, &in.body, 0);
    filter(&pieces, &in, &in.body, in.seed);
    FUZZ_CHECK(whole.binary == pieces.binary);
    if (!whole.binary)
        FUZZ_CHECK(same(&whole.text, &pieces.text) && whole.open == pieces.open &&
                   memcmp(&whole.quirks, &pieces.quirks, sizeof(whole.quirks)) == 0);
    check_output(&in, &whole);
    bytes_done(&pieces.text);
    bytes_done(&whole.text);
    bytes_done(&in.body);
    free(in.encoding);
    free(in.type);
    return 0;
}
