/*
 * The transcript of a session: bounded, printable, the same however the device's octets were cut,
 * and without what a device signs in with. The first 2 octets say where to cut. The rest are
 * lines: one that begins with '<' is said by the relay, with '-' noted, with '#' mail data of its
 * length, the others are heard; "%s" in those stands for a secret wherever AUTH came before.
 */
#include "tests/fuzz/fuzz.h"

#include "queue/bytes.h"
#include "relay/intake/transcript.h"

#define SESSION_MAX ((size_t)1 << 20)

/* No octets that a session would have by itself. */
static const char secret[] = "qZ7wKx9vJ3";
#define PIECE 5

static bool begins(const struct bytes *line, const char *verb)
{
    return line->len >= 5 && strncasecmp((const char *)line->data, verb, 5) == 0;
}

/* Where names and addresses stand, which are shown. */
static bool is_harmless(const struct bytes *line)
{
    return begins(line, "MAIL ") || begins(line, "RCPT ") || begins(line, "EHLO ") ||
           begins(line, "HELO ");
}

/* The line with its secrets. They stand behind AUTH and, from there on, in lines of any kind that
 * have no business with a name or an address. */
static void expand(struct bytes *line, const uint8_t *p, size_t len, bool *auth)
{
    bytes_clear(line);
    for (size_t i = 0; i < len; i++) {
        if (p[i] != '%' || i + 1 == len || p[i + 1] != 's') {
            FUZZ_CHECK(bytes_byte(line, p[i]));
            continue;
        }
        i++;
        *auth |= begins(line, "AUTH ");
        if (*auth && !is_harmless(line))
            FUZZ_CHECK(bytes_text(line, secret));
    }
    *auth |= begins(line, "AUTH ");
}

static void hear(struct transcript *t, const struct bytes *line, uint64_t *seed)
{
    struct fuzz_input in = {line->data, line->len};

    while (in.left > 0) {
        size_t n = fuzz_piece(seed, in.left);
        uint8_t *piece = fuzz_take(&in, n, &n);

        transcript_heard(t, piece, n, 1);
        free(piece);
    }
}

static void run(struct bytes *out, struct fuzz_input in, uint64_t seed)
{
    struct transcript *t = transcript_new(0);
    struct bytes line;
    bool auth = false;

    FUZZ_CHECK(t != NULL);
    bytes_init(&line, SESSION_MAX);
    bytes_init(out, TRANSCRIPT_MAX);
    while (in.left > 0) {
        const uint8_t *lf = memchr(in.p, '\n', in.left);
        size_t len = lf != NULL ? (size_t)(lf - in.p) + 1 : in.left;

        if (in.p[0] == '<') {
            transcript_said(t, in.p + 1, len - 1, 1);
        } else if (in.p[0] == '-' && lf != NULL) {
            transcript_note(t, "a note", 1);
        } else if (in.p[0] == '#') {
            transcript_mail_data(t, len, 1);
        } else {
            expand(&line, in.p, len, &auth);
            hear(t, &line, &seed);
        }
        in.p += len;
        in.left -= len;
    }
    FUZZ_CHECK(bytes_text(out, transcript_text(t)));
    bytes_done(&line);
    transcript_free(t);
}

static bool has_piece_of_secret(const void *p, size_t len)
{
    bool found = false;

    for (size_t i = 0; i + PIECE < sizeof(secret); i++)
        found |= len > 0 && memmem(p, len, secret + i, PIECE) != NULL;
    return found;
}

static void check_text(struct bytes *text)
{
    const char *p = bytes_string(text);

    FUZZ_CHECK(text->len < TRANSCRIPT_MAX && (text->len == 0 || p[text->len - 1] == '\n'));
    for (size_t i = 0; i < text->len; i++)
        FUZZ_CHECK(p[i] == '\n' || (p[i] >= ' ' && p[i] <= '~'));
    FUZZ_CHECK(!has_piece_of_secret(p, text->len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint64_t seed = fuzz_number(&in, 2) + 1;
    struct bytes whole;
    struct bytes pieces;

    if (has_piece_of_secret(in.p, in.left))
        return 0; /* said where nobody says it */
    run(&whole, in, 0);
    run(&pieces, in, seed);
    FUZZ_CHECK(strcmp(bytes_string(&whole), bytes_string(&pieces)) == 0);
    check_text(&whole);
    bytes_done(&whole);
    bytes_done(&pieces);
    return 0;
}
