#include "relay/smtp/maildata.h"

#include <assert.h>
#include <string.h>

#include "queue/bytes.h"

/* Where the decoder stands. Only CR LF makes LINE_STRICT, and only from there a dot can end. */
enum state {
    LINE_STRICT,   /* behind CR LF, or before the first octet */
    LINE_LOOSE,    /* behind another line end */
    TEXT,          /* within a line */
    CRS,           /* behind d->crs CRs */
    BREAKS,        /* d->crs line ends are due: no LF followed those CRs */
    DOT_STRICT,    /* a dot from LINE_STRICT is held back */
    DOT_LOOSE,     /* a dot from LINE_LOOSE is held back */
    DOT_STRICT_CR, /* dot and CR from LINE_STRICT are held back */
    LF_DOT_LF      /* a line with nothing but a dot is held back; all line ends so far were LF */
};

/* What one octet may add: a held dot, and CR LF. */
#define OCTETS_PER_STEP 4
#define EVERY_OCTET(c)  (UINT64_C(0x0101010101010101) * (uint8_t)(c))

_Static_assert(MAILDATA_ROOM_MIN >= OCTETS_PER_STEP, "one octet always fits");

void maildata_decoder_init(struct maildata_decoder *d)
{
    *d = (struct maildata_decoder){.state = LINE_STRICT, .quirks.first_lf = SIZE_MAX};
}

void maildata_decoder_init_chunks(struct maildata_decoder *d)
{
    maildata_decoder_init(d);
    d->chunks = true;
}

bool maildata_is_lf_dot_lf(const struct maildata_decoder *d)
{
    return d->state == LF_DOT_LF;
}

static bool is_break(uint8_t c)
{
    return c == '\r' || c == '\n';
}

static uint8_t *put(struct maildata_decoder *d, uint8_t *to, uint8_t c)
{
    d->line++;
    if (d->line > d->quirks.longest_line)
        d->quirks.longest_line = d->line;
    d->quirks.nul |= c == 0;
    d->quirks.eight_bit |= c > 0x7f;
    *to = c;
    return to + 1;
}

static void note_lf(struct maildata_decoder *d)
{
    if (d->quirks.first_lf == SIZE_MAX)
        d->quirks.first_lf = d->lines;
}

static void note_bare_cr(struct maildata_decoder *d)
{
    if (!d->quirks.bare_cr)
        d->quirks.first_bare_cr = d->lines;
    d->quirks.bare_cr = true;
}

static uint8_t *put_line_end(struct maildata_decoder *d, uint8_t *to)
{
    d->line = 0;
    d->lines++;
    to[0] = '\r';
    to[1] = '\n';
    return to + 2;
}

/* An octet within a line. */
static uint8_t *take_text(struct maildata_decoder *d, uint8_t c, uint8_t *to)
{
    if (c == '\r') {
        d->crs = 1;
        d->state = CRS;
        return to;
    }
    if (c == '\n') {
        note_lf(d);
        d->quirks.bare_lf = true;
        d->state = LINE_LOOSE;
        return put_line_end(d, to);
    }
    d->state = TEXT;
    return put(d, to, c);
}

/* The first octet of a line. */
static uint8_t *take_first(struct maildata_decoder *d, uint8_t c, uint8_t *to)
{
    if (c != '.' || d->chunks)
        return take_text(d, c, to);
    d->state = d->state == LINE_STRICT ? DOT_STRICT : DOT_LOOSE;
    return to;
}

/* The octet behind a dot that began a line. */
static uint8_t *take_after_dot(struct maildata_decoder *d, uint8_t c, uint8_t *to)
{
    bool strict = d->state == DOT_STRICT;
    bool is_alone = is_break(c);

    if (strict && c == '\r') {
        d->state = DOT_STRICT_CR;
        return to;
    }
    if (!strict && c == '\n' && !d->crlf && !d->quirks.bare_cr) {
        d->quirks.bare_lf = true;
        d->state = LF_DOT_LF;
        return to;
    }
    if (strict ? is_alone : c != '.')
        to = put(d, to, '.');
    return take_text(d, c, to);
}

/* The octet behind CR LF . CR, which is not LF: the dot was content, and its CR is like any other.
 */
static void keep_dot(struct maildata_decoder *d)
{
    d->crs = 1;
    d->state = CRS;
}

/* The octet behind a run of CRs. False when it has to be looked at again. */
static bool take_after_crs(struct maildata_decoder *d, uint8_t c, uint8_t **to)
{
    if (c == '\r') {
        d->crs++;
        return true;
    }
    if (c == '\n') {
        note_lf(d);
        d->quirks.cr_cr_lf |= d->crs > 1;
        d->crlf = true;
        d->state = LINE_STRICT;
        *to = put_line_end(d, *to);
        return true;
    }
    note_bare_cr(d);
    d->state = BREAKS;
    return false;
}

/* Which of eight octets are not from space to DEL, text in which there is nothing to note: the
 * first one has its high bit set, and none before it has. */
static uint64_t not_plain(uint64_t octets)
{
    return ((octets - EVERY_OCTET(' ')) | octets) & EVERY_OCTET(0x80);
}

/* May write eight octets of len where it returns fewer. */
static size_t copy_plain(const uint8_t *data, size_t len, uint8_t *to)
{
    size_t n = 0;

    for (; len - n >= sizeof(uint64_t); n += sizeof(uint64_t)) {
        uint64_t odd = not_plain(bytes_get64(data + n));

        memcpy(to + n, data + n, sizeof(uint64_t));
        if (odd != 0)
            return n + (size_t)__builtin_ctzll(odd) / 8;
    }
    return n;
}

/* Octets within a line up to the next CR or LF, by runs. */
static size_t copy_text(struct maildata_decoder *d, const uint8_t *data, size_t len, uint8_t *to)
{
    size_t n = copy_plain(data, len, to);

    while (n < len && !is_break(data[n])) {
        d->quirks.eight_bit |= data[n] > 0x7f;
        d->quirks.nul |= data[n] == 0;
        to[n] = data[n];
        n++;
        n += copy_plain(data + n, len - n, to + n);
    }
    d->line += n;
    if (d->line > d->quirks.longest_line)
        d->quirks.longest_line = d->line;
    return n;
}

static bool is_text(const struct maildata_decoder *d, uint8_t c)
{
    if (d->state == LINE_STRICT || d->state == LINE_LOOSE)
        return !is_break(c) && (c != '.' || d->chunks);
    return d->state == TEXT;
}

/* The usual case: a line, or what there is of it, and its CR LF. It comes out as it went in. */
static size_t copy_line(struct maildata_decoder *d, const uint8_t *data, size_t len, uint8_t *to)
{
    size_t n;

    if (!is_text(d, data[0]))
        return 0;
    d->state = TEXT;
    n = copy_text(d, data, len, to);
    if (len - n < 2 || data[n] != '\r' || data[n + 1] != '\n')
        return n;
    note_lf(d);
    d->crlf = true;
    d->state = LINE_STRICT;
    (void)put_line_end(d, to + n);
    return n + 2;
}

static uint8_t *put_break(struct maildata_decoder *d, uint8_t *to)
{
    d->crs--;
    if (d->crs == 0)
        d->state = LINE_LOOSE;
    return put_line_end(d, to);
}

/* One octet. True when it was used; else the state has moved on and it must be given again. */
static bool take(struct maildata_decoder *d, uint8_t c, uint8_t **to)
{
    switch ((enum state)d->state) {
    case LINE_STRICT:
    case LINE_LOOSE:
        *to = take_first(d, c, *to);
        return true;
    case DOT_STRICT:
    case DOT_LOOSE:
        *to = take_after_dot(d, c, *to);
        return true;
    case DOT_STRICT_CR:
        *to = put(d, *to, '.');
        keep_dot(d);
        return false;
    case LF_DOT_LF:
        *to = put_line_end(d, put(d, *to, '.'));
        d->state = LINE_LOOSE;
        return false;
    case CRS:
        return take_after_crs(d, c, to);
    case BREAKS:
        *to = put_break(d, *to);
        return false;
    case TEXT:
        break;
    }
    *to = take_text(d, c, *to);
    return true;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

bool maildata_decode(struct maildata_decoder *d, const uint8_t *data, size_t len, size_t *out_used,
                     uint8_t *out, size_t out_size, size_t *out_len)
{
    const uint8_t *end = out + out_size;
    uint8_t *to = out;
    size_t used = 0;
    bool ended = false;

    assert(out_size >= MAILDATA_ROOM_MIN);
    while (!ended && used < len && end - to >= OCTETS_PER_STEP) {
        size_t n = copy_line(d, data + used, smaller(len - used, (size_t)(end - to)), to);

        used += n;
        to += n;
        if (n > 0)
            continue;
        ended = d->state == DOT_STRICT_CR && data[used] == '\n';
        if (ended || take(d, data[used], &to))
            used++;
    }
    *out_used = used;
    *out_len = (size_t)(to - out);
    return ended;
}

bool maildata_finish(struct maildata_decoder *d, uint8_t *out, size_t out_size, size_t *out_len)
{
    const uint8_t *end = out + out_size;
    uint8_t *to = out;

    assert(d->chunks && out_size >= MAILDATA_ROOM_MIN);
    if (d->state == CRS) {
        note_bare_cr(d);
        d->state = BREAKS;
    }
    while (d->state == BREAKS && end - to >= OCTETS_PER_STEP)
        to = put_break(d, to);
    if (d->state == TEXT && end - to >= OCTETS_PER_STEP) {
        to = put_line_end(d, to);
        d->state = LINE_LOOSE;
    }
    *out_len = (size_t)(to - out);
    return d->state == LINE_STRICT || d->state == LINE_LOOSE;
}

/* ---- out ------------------------------------------------------------------------------------- */

void maildata_encoder_init(struct maildata_encoder *e)
{
    *e = (struct maildata_encoder){.line_start = true};
}

/* What has to go out before this octet; "" for nearly all. */
static const char *before(const struct maildata_encoder *e, uint8_t c)
{
    if (e->after_cr)
        return c == '\n' ? "" : c == '.' ? "\n." : "\n";
    if (c == '\n')
        return "\r";
    return e->line_start && c == '.' ? "." : "";
}

static bool encode(struct maildata_encoder *e, const uint8_t *data, size_t len, struct bytes *out)
{
    size_t from = 0;

    for (size_t i = 0; i < len; i++) {
        const char *extra = before(e, data[i]);

        if (*extra != '\0') {
            if (!bytes_append(out, data + from, i - from) || !bytes_text(out, extra))
                return false;
            from = i;
        }
        e->line_start = data[i] == '\n';
        e->after_cr = data[i] == '\r';
    }
    return bytes_append(out, data + from, len - from);
}

bool maildata_encode(struct maildata_encoder *e, const uint8_t *data, size_t len, struct bytes *out)
{
    struct maildata_encoder old = *e;
    size_t old_len = out->len;
    bool old_failed = out->failed;

    if (encode(e, data, len, out))
        return true;
    *e = old;
    out->len = old_len;
    out->failed = old_failed;
    return false;
}

bool maildata_end(struct maildata_encoder *e, struct bytes *out)
{
    const char *text = e->after_cr ? "\n.\r\n" : e->line_start ? ".\r\n" : "\r\n.\r\n";
    bool old_failed = out->failed;

    if (!bytes_text(out, text)) {
        out->failed = old_failed;
        return false;
    }
    maildata_encoder_init(e);
    return true;
}
