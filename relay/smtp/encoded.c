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
};

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
    static const char *const charsets[] = {"utf-8?", "us-ascii?"};
    size_t charset = 0;
    const char *text;
    size_t len;

    d->len = 0;
    for (size_t i = 0; i < 2 && strncmp(at, "=?", 2) == 0 && charset == 0; i++)
        if (strncasecmp(at + 2, charsets[i], strlen(charsets[i])) == 0)
            charset = strlen(charsets[i]);
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

void encoded_decode(const char *text, char *out, size_t size)
{
    struct decoded d;
    bool after_word = false;
    size_t used = 0;

    while (*text != '\0' && used + 1 < size) {
        size_t blanks = after_word ? strspn(text, " \t") : 0;
        size_t word = decode_word(text + blanks, &d);

        for (size_t i = 0; i < d.len && word > 0 && used + 1 < size; i++)
            out[used++] = d.data[i] != '\0' ? (char)d.data[i] : '?';
        if (word == 0)
            out[used++] = *text;
        text += word > 0 ? blanks + word : 1;
        after_word = word > 0;
    }
    out[used] = '\0';
}
