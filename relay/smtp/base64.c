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

void base64url_encode(const void *data, size_t len, char *out)
{
    const uint8_t *p = data;
    char four[4];

    while (len > 0) {
        size_t n = len < 3 ? len : 3;

        base64_encode(p, n, four);
        for (size_t i = 0; i <= n; i++)
            *out++ = four[i];
        p += n;
        len -= n;
    }
    for (size_t i = BASE64URL_LENGTH((size_t)(p - (const uint8_t *)data)); i > 0; i--) {
        out--;
        if (*out == '+')
            *out = '-';
        else if (*out == '/')
            *out = '_';
    }
}

static char plain_of(char c)
{
    if (c == '-')
        return '+';
    if (c == '_')
        return '/';
    return strchr("+/=", c) != NULL ? '\0' : c;
}

bool base64url_decode(const char *text, size_t len, uint8_t *out, size_t *out_len)
{
    size_t total = 0;

    for (size_t i = 0; i < len; i += 4) {
        char four[4] = {'=', '=', '=', '='};
        size_t n = len - i < 4 ? len - i : 4;
        size_t got;

        for (size_t k = 0; k < n; k++)
            four[k] = plain_of(text[i + k]);
        if (n == 1 || !base64_decode(four, 4, out + total, &got))
            return false;
        total += got;
    }
    *out_len = total;
    return true;
}
