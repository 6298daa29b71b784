/*
 * The header section of a message on its way in. What is stored must be the same however it came in
 * pieces, must parse as a header that ends where we say, and must need no further repair. The first
 * 2 octets say where to cut; the rest is mail data as on the wire.
 */
#include "tests/fuzz/fuzz.h"

#include "relay/smtp/header.h"
#include "relay/smtp/repair.h"
#include "relay/smtp/maildata.h"

#define CONTENT_MAX ((size_t)64 << 20)
#define ROOM        4096
#define TRACE                                                                                      \
    "Received: from a (b)\r\n\tby c with SMTP id 1;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\n"
#define DATE       "Mon, 1 Jan 2024 00:00:00 +0000"
#define MESSAGE_ID "<1.2@relay.example>"

/* Lines that end in CR LF, as the header gets them. */
static void decode(struct bytes *out, const uint8_t *data, size_t size)
{
    static const uint8_t end[] = "\r\n.\r\n";
    struct maildata_decoder d;
    uint8_t room[ROOM];
    struct fuzz_input parts[2] = {{data, size}, {end, sizeof(end) - 1}};
    bool ended = false;

    maildata_decoder_init(&d);
    for (size_t i = 0; i < 2; i++) {
        while (parts[i].left > 0 && !ended) {
            size_t used;
            size_t len;

            ended = maildata_decode(&d, parts[i].p, parts[i].left, &used, room, ROOM, &len);
            FUZZ_CHECK(bytes_append(out, room, len));
            parts[i].p += used;
            parts[i].left -= used;
        }
    }
}

/* Feeds until the header has its end; the octets that were taken. */
static size_t feed(struct header *h, const struct bytes *text, uint64_t seed)
{
    size_t at = 0;

    header_init(h);
    while (at < text->len && h->state == HEADER_MORE) {
        struct fuzz_input in = {text->data + at, text->len - at};
        size_t most = in.left < HEADER_CHUNK_MAX ? in.left : HEADER_CHUNK_MAX;
        size_t n;
        uint8_t *piece = fuzz_take(&in, fuzz_piece(&seed, most), &n);

        (void)header_feed(h, piece, n);
        free(piece);
        at += n;
    }
    if (h->state == HEADER_MORE)
        (void)header_finish(h);
    FUZZ_CHECK(h->state == HEADER_DONE || h->state == HEADER_TOO_LARGE);
    return at;
}

static const struct repair_facts facts = {.date = DATE,
                                          .message_id = MESSAGE_ID,
                                          .reverse_path = "a@office.example",
                                          .device = "copier",
                                          .hostname = "relay.example",
                                          .charset = ""};

/* The message as it is stored. */
static uint32_t store(struct bytes *out, const struct bytes *text, uint64_t seed, const char *trace)
{
    struct header h;
    struct bytes received;
    char value[64];
    const uint8_t *rest;
    size_t rest_len = 0;
    uint32_t header_size = 0;
    size_t fed = feed(&h, text, seed);

    bytes_init(&received, ROOM);
    FUZZ_CHECK(bytes_text(&received, trace));
    FUZZ_CHECK(repair_header(&h, &facts));
    for (int name = 0; name < HEADER_NAME_COUNT; name++) {
        header_text(&h, (enum header_name)name, value, sizeof(value));
        FUZZ_CHECK(strlen(value) < sizeof(value) && strpbrk(value, "\r\n\t") == NULL);
    }
    FUZZ_CHECK(header_write(&h, &received, out, &header_size));
    rest = header_rest(&h, &rest_len);
    FUZZ_CHECK(rest_len == 0 || bytes_append(out, rest, rest_len));
    if (fed < text->len)
        FUZZ_CHECK(bytes_append(out, text->data + fed, text->len - fed));
    FUZZ_CHECK(strlen(h.repairs) < sizeof(h.repairs));
    FUZZ_CHECK((header_size == 0) == (h.state == HEADER_TOO_LARGE));
    bytes_done(&received);
    header_done(&h);
    return header_size;
}

static void check_stored(const struct bytes *stored, uint32_t header_size, uint64_t seed)
{
    struct bytes again;
    struct header h;
    char value[64];

    FUZZ_CHECK(fuzz_has_clean_lines(stored->data, stored->len) && header_size <= stored->len);
    if (header_size == 0)
        return;
    (void)feed(&h, stored, seed);
    FUZZ_CHECK(h.state == HEADER_DONE && h.start == 0 && h.body == header_size);
    header_text(&h, HEADER_DATE, value, sizeof(value));
    FUZZ_CHECK(value[0] != '\0');
    header_text(&h, HEADER_MESSAGE_ID, value, sizeof(value));
    FUZZ_CHECK(value[0] != '\0');
    FUZZ_CHECK(h.repairs[0] == '\0');
    header_done(&h);
    bytes_init(&again, CONTENT_MAX);
    FUZZ_CHECK(store(&again, stored, seed, "") == header_size);
    FUZZ_CHECK(again.len == stored->len && memcmp(again.data, stored->data, again.len) == 0);
    bytes_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint64_t seed = fuzz_number(&in, 2) + 1;
    struct bytes text;
    struct bytes whole;
    struct bytes pieces;
    uint32_t header_size;

    bytes_init(&text, CONTENT_MAX);
    bytes_init(&whole, CONTENT_MAX);
    bytes_init(&pieces, CONTENT_MAX);
    decode(&text, in.p, in.left);
    header_size = store(&whole, &text, 0, TRACE);
    FUZZ_CHECK(store(&pieces, &text, seed, TRACE) == header_size);
    FUZZ_CHECK(whole.len == pieces.len && memcmp(whole.data, pieces.data, whole.len) == 0);
    check_stored(&whole, header_size, seed);
    bytes_done(&pieces);
    bytes_done(&whole);
    bytes_done(&text);
    return 0;
}
