#include "relay/smtp/words.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "relay/smtp/base64.h"

#define ENCODED_MAX   75 /* octets of an encoded word (RFC 2047 2) */
#define ENCODED_FRAME 7  /* =? ? ? ?= around charset, encoding and text */
#define BASE64_LINE   (ENCODED_MAX - ENCODED_FRAME)
#define GAP_MAX       20  /* ASCII words of this length together join what stands around them */
#define WORD_MAX      900 /* a longer word is encoded */

/* ---- characters ------------------------------------------------------------------------------ */

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_high(char c)
{
    return (unsigned char)c > 0x7f;
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

/* RFC 5322 3.2.3 */
static bool is_atext(char c)
{
    return is_alnum(c) || is_one_of(c, "!#$%&'*+-/=?^_`{|}~");
}

/* Octets of the UTF-8 character at p; 0 when it is none. */
static size_t utf8_length(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t need = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    if ((p[0] >= 0x80 && p[0] < 0xc2) || p[0] > 0xf4 || need > len)
        return 0;
    if (need > 1 && ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
                     (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)))
        return 0;
    for (size_t i = 1; i < need; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return need;
}

bool words_is_utf8(const char *text, size_t len)
{
    size_t n;

    for (size_t i = 0; i < len; i += n) {
        n = utf8_length(text + i, len - i);
        if (n == 0)
            return false;
    }
    return true;
}

bool words_is_ascii(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (is_high(text[i]))
            return false;
    }
    return true;
}

bool words_is_charset(const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < len; i++) {
        if (!is_alnum(name[i]) && !is_one_of(name[i], "!#$%&+-^_`{}~.:"))
            return false;
    }
    return len > 0 && len <= WORDS_CHARSET_MAX;
}

/* Octets that must not be torn apart: of a UTF-8 character, or of a pair in an East Asian charset.
 */
static size_t character(const char *charset, const char *p, size_t len)
{
    static const char *const single[] = {"windows-125", "iso-8859", "koi8", "us-ascii", "cp125"};

    if (strcasecmp(charset, "UTF-8") == 0)
        return utf8_length(p, len) > 0 ? utf8_length(p, len) : 1;
    for (size_t i = 0; i < sizeof(single) / sizeof(single[0]); i++) {
        if (strncasecmp(charset, single[i], strlen(single[i])) == 0)
            return 1;
    }
    return is_high(*p) && len > 1 ? 2 : 1;
}

/* ---- writing --------------------------------------------------------------------------------- */

bool words_raw(struct words *w, const char *text, size_t len)
{
    w->column += len;
    return bytes_append(w->out, text, len);
}

bool words_space(struct words *w, size_t width)
{
    if (w->column <= 1 || w->column + 1 + width <= WORDS_LINE_WANTED)
        return words_raw(w, " ", 1);
    w->column = 0;
    return bytes_text(w->out, "\r\n") && words_raw(w, " ", 1);
}

/* The spaces as they are, behind a fold when the word that follows would not fit. */
static bool put_spaces(struct words *w, const char *text, size_t len, size_t width)
{
    if (len == 0 || len > WORDS_LINE_WANTED)
        return words_space(w, width);
    if (w->column > 1 && w->column + len + width > WORDS_LINE_WANTED) {
        w->column = 0;
        if (!bytes_text(w->out, "\r\n"))
            return false;
    }
    return words_raw(w, text, len);
}

/* ---- encoded words --------------------------------------------------------------------------- */

/* As they are in every place that takes an encoded word (RFC 2047 5 (3)). */
static bool is_plain(char c)
{
    return is_alnum(c) || is_one_of(c, "!*+-/");
}

static size_t quoted_cost(const char *text, size_t len)
{
    size_t cost = 0;

    for (size_t i = 0; i < len; i++)
        cost += is_plain(text[i]) || text[i] == ' ' ? 1 : 3;
    return cost;
}

static size_t quote(const char *text, size_t len, char *out)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        if (is_plain(text[i]) || text[i] == ' ') {
            out[n++] = text[i] == ' ' ? '_' : text[i];
            continue;
        }
        out[n++] = '=';
        out[n++] = hex[(unsigned char)text[i] >> 4];
        out[n++] = hex[text[i] & 0xf];
    }
    return n;
}

/* How much of the text fits into `room` octets of an encoded word: whole characters. */
static size_t fitting(const char *charset, const char *text, size_t len, bool quoted, size_t room)
{
    size_t n = 0;

    while (n < len) {
        size_t more = character(charset, text + n, len - n);

        if ((quoted ? quoted_cost(text, n + more) : BASE64_LENGTH(n + more)) > room)
            break;
        n += more;
    }
    return n;
}

static bool put_encoded(struct words *w, const char *charset, const char *text, size_t len,
                        bool quoted)
{
    char coded[BASE64_LINE];
    size_t n = quoted ? quoted_cost(text, len) : BASE64_LENGTH(len);

    if (quoted)
        (void)quote(text, len, coded);
    else
        base64_encode(text, len, coded);
    return words_space(w, n + strlen(charset) + ENCODED_FRAME) && words_raw(w, "=?", 2) &&
           words_raw(w, charset, strlen(charset)) && words_raw(w, quoted ? "?Q?" : "?B?", 3) &&
           words_raw(w, coded, n) && words_raw(w, "?=", 2);
}

/* As many encoded words as it takes, a space before each. */
static bool encode(struct words *w, const char *text, size_t len)
{
    const char *charset = words_is_utf8(text, len) ? "UTF-8" : w->charset;
    size_t room = ENCODED_MAX - ENCODED_FRAME - strlen(charset);
    bool quoted = quoted_cost(text, len) * 2 <= BASE64_LENGTH(len) * 3; /* it can be read */

    while (len > 0) {
        size_t n = fitting(charset, text, len, quoted, room);

        if (!put_encoded(w, charset, text, n, quoted))
            return false;
        text += n;
        len -= n;
    }
    return true;
}

/* ---- words ----------------------------------------------------------------------------------- */

enum word_kind { WORD_PLAIN, WORD_ENCODED, WORD_FOREIGN };

struct word {
    size_t start; /* of its spaces */
    size_t at;
    size_t end; /* start == end: none */
    enum word_kind kind;
};

static enum word_kind kind_of(const char *p, size_t len)
{
    if (len > WORD_MAX || !words_is_ascii(p, len))
        return WORD_FOREIGN;
    if (len > ENCODED_FRAME && len <= ENCODED_MAX && memcmp(p, "=?", 2) == 0 &&
        memcmp(p + len - 2, "?=", 2) == 0)
        return WORD_ENCODED;
    return WORD_PLAIN;
}

static struct word next_word(const char *text, size_t len, size_t start)
{
    struct word word = {.start = start, .at = start};

    while (word.at < len && is_space(text[word.at]))
        word.at++;
    for (word.end = word.at; word.end < len && !is_space(text[word.end]); word.end++)
        ;
    word.kind = kind_of(text + word.at, word.end - word.at);
    return word;
}

/* Where the text ends that is encoded together with the foreign word: foreign words behind it and
 * the few plain ones in between. *out_encoded: an encoded word follows. */
static size_t foreign_run(const char *text, size_t len, const struct word *first, bool *out_encoded)
{
    size_t end = first->end;
    size_t at = end;

    *out_encoded = false;
    while (at < len && at - end <= GAP_MAX) {
        struct word word = next_word(text, len, at);

        if (word.kind == WORD_ENCODED) {
            *out_encoded = at == end;
            break;
        }
        at = word.end;
        if (word.kind == WORD_FOREIGN)
            end = word.end;
    }
    return end;
}

/* The spaces between encoded words are not shown: those that count go into one of them. */
static bool put_foreign(struct words *w, const char *text, size_t len, struct word *word,
                        bool behind_encoded)
{
    bool before_encoded;
    size_t from = behind_encoded && word->at > word->start ? word->at - 1 : word->at;
    size_t end = foreign_run(text, len, word, &before_encoded);

    word->end = end;
    return encode(w, text + from, end + (before_encoded ? 1 : 0) - from);
}

bool words_text(struct words *w, const char *text, size_t len)
{
    enum word_kind last = WORD_PLAIN;

    for (size_t at = 0; at < len;) {
        struct word word = next_word(text, len, at);

        if (word.at == word.end)
            break;
        if (word.kind == WORD_FOREIGN) {
            if (!put_foreign(w, text, len, &word, last != WORD_PLAIN))
                return false;
        } else if (!put_spaces(w, text + word.start, word.at - word.start, word.end - word.at) ||
                   !words_raw(w, text + word.at, word.end - word.at)) {
            return false;
        }
        last = word.kind;
        at = word.end;
    }
    return true;
}

/* Plain words in a row: atoms, or all of them in quotes. */
static bool put_quoted(struct words *w, const char *text, size_t len)
{
    bool needs_quotes = false;

    for (size_t i = 0; i < len; i++)
        needs_quotes |= !is_atext(text[i]) && text[i] != ' ';
    if (!words_space(w, len + (needs_quotes ? 2 : 0)))
        return false;
    if (!needs_quotes)
        return words_raw(w, text, len);
    if (!words_raw(w, "\"", 1))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (is_one_of(text[i], "\"\\") && !words_raw(w, "\\", 1))
            return false;
        if (!words_raw(w, text + i, 1))
            return false;
    }
    return words_raw(w, "\"", 1);
}

static size_t plain_run(const char *text, size_t len, const struct word *first)
{
    size_t end = first->end;

    while (end < len) {
        struct word word = next_word(text, len, end);

        if (word.kind != WORD_PLAIN || word.at == word.end || word.end - first->at > WORD_MAX)
            break;
        end = word.end;
    }
    return end;
}

bool words_phrase(struct words *w, const char *text, size_t len)
{
    enum word_kind last = WORD_PLAIN;

    for (size_t at = 0; at < len;) {
        struct word word = next_word(text, len, at);
        bool ok;

        if (word.at == word.end)
            break;
        if (word.kind == WORD_FOREIGN) {
            ok = put_foreign(w, text, len, &word, last != WORD_PLAIN);
        } else if (word.kind == WORD_PLAIN) {
            word.end = plain_run(text, len, &word);
            ok = put_quoted(w, text + word.at, word.end - word.at);
        } else {
            ok = words_space(w, word.end - word.at) &&
                 words_raw(w, text + word.at, word.end - word.at);
        }
        if (!ok)
            return false;
        last = word.kind;
        at = word.end;
    }
    return true;
}

/* ---- parameters ------------------------------------------------------------------------------ */

bool words_parameter(struct words *w, const char *name, size_t name_len, const char *value,
                     size_t len)
{
    static const char hex[] = "0123456789ABCDEF";
    const char *charset = words_is_utf8(value, len) ? "UTF-8" : w->charset;

    if (!words_raw(w, name, name_len) || !words_raw(w, "*=", 2) ||
        !words_raw(w, charset, strlen(charset)) || !words_raw(w, "''", 2))
        return false;
    for (size_t i = 0; i < len; i++) {
        char coded[3] = {'%', hex[(unsigned char)value[i] >> 4], hex[value[i] & 0xf]};
        bool plain = is_alnum(value[i]) || is_one_of(value[i], "-._");

        if (!words_raw(w, plain ? value + i : coded, plain ? 1 : 3))
            return false;
    }
    return true;
}

/* ---- folding --------------------------------------------------------------------------------- */

/* Where spaces begin between words: the last such place up to WORDS_LINE_WANTED, else the first one
 * that keeps within WORDS_LINE_MAX. 0 when there is none. */
static size_t fold_at_space(const char *p, size_t len)
{
    size_t best = 0;
    size_t i = 0;
    size_t last = len;

    while (i < len && is_space(p[i]))
        i++;
    while (last > 0 && is_space(p[last - 1]))
        last--;
    for (i++; i < last && i < WORDS_LINE_MAX; i++) {
        if (!is_space(p[i]) || is_space(p[i - 1]))
            continue;
        if (best > 0 && i > WORDS_LINE_WANTED)
            break;
        best = i;
    }
    return best;
}

/* How much of a line without such spaces goes out before the fold. */
static size_t fold_anywhere(const char *p)
{
    for (size_t i = WORDS_LINE_MAX; i > 1; i--) {
        if (is_one_of(p[i - 1], ",;>"))
            return i;
    }
    return WORDS_LINE_MAX;
}

/* One line without its end. What a fold leaves begins with a space, taken from the text or added.
 */
static bool fold_line(struct bytes *out, const char *p, size_t len)
{
    bool is_long = len > WORDS_LINE_MAX;
    bool add_space = false;

    while (is_long && len + (add_space ? 1 : 0) > WORDS_LINE_WANTED) {
        size_t at = fold_at_space(p, len);
        size_t cut;

        if (at == 0 && len + (add_space ? 1 : 0) <= WORDS_LINE_MAX)
            break;
        cut = at > 0 ? at : fold_anywhere(p) - (add_space ? 1 : 0);
        if ((add_space && !bytes_text(out, " ")) || !bytes_append(out, p, cut) ||
            !bytes_text(out, "\r\n"))
            return false;
        add_space = at == 0;
        p += cut;
        len -= cut;
    }
    return (!add_space || bytes_text(out, " ")) && bytes_append(out, p, len);
}

bool words_fold(struct bytes *out, const char *text, size_t len)
{
    while (len > 0) {
        const char *lf = memchr(text, '\n', len);
        size_t line = lf != NULL ? (size_t)(lf - text) : len;
        size_t end = lf != NULL ? 1 : 0;

        if (lf != NULL && line > 0 && text[line - 1] == '\r') {
            line--;
            end++;
        }
        if (!fold_line(out, text, line) || !bytes_append(out, text + line, end))
            return false;
        text += line + end;
        len -= line + end;
    }
    return true;
}
