#include "relay/signin/pkce.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "relay/smtp/base64.h"

#define OCTETS 32

_Static_assert(BASE64URL_LENGTH(OCTETS) + 1 == PKCE_TEXT, "a text of 256 bits");

static void write_text(const unsigned char octets[OCTETS], char out[PKCE_TEXT])
{
    base64url_encode(octets, OCTETS, out);
    out[PKCE_TEXT - 1] = '\0';
}

bool pkce_random(char out[PKCE_TEXT])
{
    unsigned char octets[OCTETS];
    bool ok = RAND_bytes(octets, sizeof(octets)) == 1;

    if (ok)
        write_text(octets, out);
    explicit_bzero(octets, sizeof(octets));
    return ok;
}

bool pkce_challenge(const char *verifier, char out[PKCE_TEXT])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    if (EVP_Digest(verifier, strlen(verifier), digest, &len, EVP_sha256(), NULL) != 1 ||
        len != OCTETS)
        return false;
    write_text(digest, out);
    return true;
}

bool pkce_equal(const char *a, const char *b)
{
    size_t len = strlen(a);

    return len == strlen(b) && CRYPTO_memcmp(a, b, len) == 0;
}
