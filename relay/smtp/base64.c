#include "relay/smtp/base64.h"

#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(const void *data, size_t len, char *out)
{
    const uint8_t *p = data;

    for (; len >= 3; len -= 3, p += 3) {
        *out++ = alphabet[p[0] >> 2];
        *out++ = alphabet[(p[0] & 0x03) << 4 | p[1] >> 4];
        *out++ = alphabet[(p[1] & 0x0f) << 2 | p[2] >> 6];
        *out++ = alphabet[p[2] & 0x3f];
    }
    if (len == 0)
        return;
    *out++ = alphabet[p[0] >> 2];
    if (len == 1) {
        *out++ = alphabet[(p[0] & 0x03) << 4];
        *out++ = '=';
    } else {
        *out++ = alphabet[(p[0] & 0x03) << 4 | p[1] >> 4];
        *out++ = alphabet[(p[1] & 0x0f) << 2];
    }
    *out = '=';
}

static bool value(char c, uint32_t *out)
{
    const char *at = c != '\0' ? strchr(alphabet, c) : NULL;

    if (at == NULL)
        return false;
    *out = (uint32_t)(at - alphabet);
    return true;
}

/* Four characters of which the last `pads` are '='. */
static bool quantum(const char *text, size_t pads, uint8_t *out)
{
    uint32_t bits = 0;
    uint32_t v;

    for (size_t i = 0; i < 4 - pads; i++) {
        if (!value(text[i], &v))
            return false;
        bits |= v << (18 - 6 * i);
    }
    for (size_t i = 0; i < 3 - pads; i++)
        out[i] = (uint8_t)(bits >> (16 - 8 * i));
    return (bits & ((1U << (8 * pads)) - 1)) == 0;
}

bool base64_decode(const char *text, size_t len, uint8_t *out, size_t *out_len)
{
    size_t pads = 0;
    size_t n = 0;

    if (len % 4 != 0)
        return false;
    if (len > 0 && text[len - 1] == '=')
        pads = text[len - 2] == '=' ? 2 : 1;
    for (size_t i = 0; i < len; i += 4) {
        size_t p = i + 4 == len ? pads : 0;

        if (!quantum(text + i, p, out + n))
            return false;
        n += 3 - p;
    }
    *out_len = n;
    return true;
}
