#include "relay/smtp/encoded.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "relay/smtp/base64.h"

struct decoded {
    uint8_t data[ENCODED_WORD_MAX];
    size_t len;
    bool latin; /* in windows-1252, which what is called ISO-8859-1 is read as as well */
};

/* 0x80 to 0x9f of windows-1252; 0 where there is nothing. */
static const uint16_t latin_marks[32] = {
    0x20ac, 0,      0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
    0x2039, 0x0152, 0,      0x017d, 0,      0,      0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0,      0x017e, 0x0178};

/* "_" is a blank, "=C3" an octet. */
static bool decode_q(const char *text, size_t len, struct decoded *d)
{
    for (size_t i = 0; i < len; i++) {
        unsigned octet = text[i] == '_' ? ' ' : (unsigned char)text[i];

        if (text[i] == '=') {
            char hex[3] = {len - i > 2 ? text[i + 1] : '\0', len - i > 2 ? text[i + 2] : '\0',
                           '\0'};

            if (strspn(hex, "0123456789abcdefABCDEF") != 2 || sscanf(hex, "%2x", &octet) != 1)
                return false;
            i += 2;
        }
        d->data[d->len++] = (uint8_t)octet;
    }
    return true;
}

/* One word, "=?charset?encoding?text?="; returns its length, 0 when there is none to decode. */
static size_t decode_word(const char *at, struct decoded *d)
{
    static const struct {
        const char *name;
        bool latin;
    } charsets[] = {
        {"utf-8?", false}, {"us-ascii?", false}, {"windows-1252?", true}, {"iso-8859-1?", true}};
    size_t charset = 0;
    const char *text;
    size_t len;

    d->len = 0;
    for (size_t i = 0; i < sizeof(charsets) / sizeof(charsets[0]) && strncmp(at, "=?", 2) == 0; i++)
        if (strncasecmp(at + 2, charsets[i].name, strlen(charsets[i].name)) == 0) {
            charset = strlen(charsets[i].name);
            d->latin = charsets[i].latin;
        }
    if (charset == 0 || strchr("QqBb", at[2 + charset]) == NULL || at[2 + charset] == '\0' ||
        at[3 + charset] != '?')
        return 0;
    text = at + charset + 4;
    len = strcspn(text, "? ");
    if (len > ENCODED_WORD_MAX || strncmp(text + len, "?=", 2) != 0)
        return 0;
    if (strchr("Qq", at[2 + charset]) != NULL ? !decode_q(text, len, d)
                                              : !base64_decode(text, len, d->data, &d->len))
        return 0;
    return (size_t)(text - at) + len + 2;
}

/* The octet in UTF-8; returns its length. */
static size_t utf8_of(uint8_t octet, bool latin, char out[3])
{
    unsigned c = octet;

    out[0] = octet != '\0' ? (char)octet : '?';
    if (!latin || c < 0x80)
        return 1;
    if (c < 0xa0)
        c = latin_marks[c - 0x80] != 0 ? latin_marks[c - 0x80] : '?';
    if (c == '?') {
        out[0] = '?';
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    out[0] = (char)(0xe0 | c >> 12);
    out[1] = (char)(0x80 | (c >> 6 & 0x3f));
    out[2] = (char)(0x80 | (c & 0x3f));
    return 3;
}

static size_t put_octet(uint8_t octet, bool latin, char *out, size_t room)
{
    char utf8[3];
    size_t len = utf8_of(octet, latin, utf8);

    if (len > room)
        return 0;
    memcpy(out, utf8, len);
    return len;
}

void encoded_decode(const char *text, char *out, size_t size)
{
    struct decoded d;
    bool after_word = false;
    size_t used = 0;

    while (*text != '\0' && used + 1 < size) {
        size_t blanks = after_word ? strspn(text, " \t") : 0;
        size_t word = decode_word(text + blanks, &d);

        for (size_t i = 0; i < d.len && word > 0 && used + 1 < size; i++)
            used += put_octet(d.data[i], d.latin, out + used, size - 1 - used);
        if (word == 0)
            out[used++] = *text;
        text += word > 0 ? blanks + word : 1;
        after_word = word > 0;
    }
    out[used] = '\0';
}
