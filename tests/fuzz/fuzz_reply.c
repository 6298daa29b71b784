/*
 * What a server says: replies in pieces, EHLO lines, challenges. The first 2 octets say where to
 * cut.
 */
#include "tests/fuzz/fuzz.h"

#include "relay/smtp/base64.h"
#include "relay/smtp/ehlo.h"
#include "relay/smtp/reply.h"

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text < ' ' || *text > '~')
            return false;
    }
    return true;
}

/* What we show of a reply is the reply. */
static void check_format(const struct reply *r)
{
    char text[REPLY_TEXT_MAX + 64];
    char cut[40];
    struct reply again;

    reply_format(r, text, sizeof(text));
    reply_format(r, cut, sizeof(cut));
    FUZZ_CHECK(is_printable(text) && strncmp(text, cut, sizeof(cut) - 1) == 0);
    if (r->code == 0)
        return;
    FUZZ_CHECK(reply_from_text(&again, text));
    FUZZ_CHECK(again.code == r->code && again.has_enhanced == r->has_enhanced);
    FUZZ_CHECK(memcmp(again.enhanced, r->enhanced, sizeof(again.enhanced)) == 0);
    FUZZ_CHECK(strcmp(again.text, r->text) == 0);
}

static void check_lines(const struct reply_parser *p)
{
    char line[REPLY_LINE_MAX];
    char name[32];
    uint8_t octets[BASE64_ROOM(REPLY_LINE_MAX)];
    char back[REPLY_LINE_MAX + 4];
    size_t len;
    struct ehlo e;

    for (size_t i = 0; i < reply_line_count(p); i++) {
        reply_line(p, i, line, sizeof(line));
        FUZZ_CHECK(is_printable(line));
        if (!base64_decode(line, strlen(line), octets, &len))
            continue;
        FUZZ_CHECK(len <= BASE64_ROOM(strlen(line)) && BASE64_LENGTH(len) == strlen(line));
        base64_encode(octets, len, back);
        FUZZ_CHECK(memcmp(back, line, strlen(line)) == 0);
    }
    reply_line(p, reply_line_count(p), line, sizeof(line));
    FUZZ_CHECK(line[0] == '\0');
    ehlo_learn(&e, p);
    FUZZ_CHECK(is_printable(e.greeting) && is_printable(e.auth));
    if (ehlo_choose_mechanism(&e, "XOAUTH2 LOGIN PLAIN", name, sizeof(name)))
        FUZZ_CHECK(e.has_auth && name[0] != '\0' && strcasestr(e.auth, name) != NULL);
}

static void check_reply(const struct reply_parser *p, const struct reply *r)
{
    FUZZ_CHECK(r->code >= 200 && r->code <= 599 && r->local == LOCAL_NONE);
    FUZZ_CHECK(strlen(r->text) < REPLY_TEXT_MAX && is_printable(r->text));
    FUZZ_CHECK(!r->has_enhanced || r->enhanced[0] <= 5);
    check_format(r);
    check_lines(p);
}

/* The next reply; the octets that it took. *out_progress is REPLY_MORE when it does not end. */
static size_t read_one(struct reply_parser *p, struct fuzz_input in, uint64_t *seed,
                       struct reply *out, enum reply_progress *out_progress)
{
    size_t all = in.left;
    enum reply_progress progress = REPLY_MORE;

    while (in.left > 0 && progress == REPLY_MORE) {
        struct fuzz_input rest = in;
        size_t n;
        size_t used;
        uint8_t *piece = fuzz_take(&rest, fuzz_piece(seed, in.left), &n);

        progress = reply_feed(p, piece, n, &used, out);
        free(piece);
        FUZZ_CHECK(used <= n && used > 0);
        FUZZ_CHECK(progress != REPLY_MORE || used == n);
        in.p += used;
        in.left -= used;
    }
    *out_progress = progress;
    return all - in.left;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint64_t seed = fuzz_number(&in, 2) + 1;
    uint64_t none = 0;
    struct reply_parser whole;
    struct reply_parser pieces;
    enum reply_progress progress = REPLY_DONE;

    reply_parser_init(&whole);
    reply_parser_init(&pieces);
    while (in.left > 0 && progress == REPLY_DONE) {
        struct reply a;
        struct reply b;
        enum reply_progress other;
        size_t used = read_one(&whole, in, &none, &a, &progress);
        size_t used_in_pieces = read_one(&pieces, in, &seed, &b, &other);

        FUZZ_CHECK(progress == other);
        if (progress == REPLY_DONE) {
            FUZZ_CHECK(used == used_in_pieces && memcmp(&a, &b, sizeof(a)) == 0);
            check_reply(&whole, &a);
        } else if (progress == REPLY_BAD) {
            FUZZ_CHECK(a.code == 0 && a.local == LOCAL_PROTOCOL && a.text[0] != '\0');
            check_format(&a);
        }
        in.p += used;
        in.left -= used;
    }
    reply_parser_done(&pieces);
    reply_parser_done(&whole);
    return 0;
}
