#include "relay/base/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "relay/base/secret.h"
#include "relay/base/tls_parts.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

#define CHAIN_LENGTH_MAX 16 /* certificates of a file that are used */
#define SSL_3_0          0x0300
#define TLS_1_0          0x0301
#define TLS_1_2          0x0303

struct tls_identity {
    char *chain; /* PEM */
    struct secret *key;
    int64_t end;
};

/* ---- Profiles ---- */

static const struct {
    int floor;
    const char *ciphers; /* up to TLS 1.2 */
    uint64_t options;
} profiles[] = {
    [TLS_MODERN] = {TLS1_2_VERSION,
                    "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:@SECLEVEL=2", 0},
    /* Diffie-Hellman last: many of these devices choke on 2048 bits of it. */
    [TLS_LEGACY] =
        {TLS1_VERSION,
         "ECDHE+HIGH:ECDHE+MEDIUM:kRSA+HIGH:kRSA+MEDIUM:DHE+HIGH:!aNULL:!eNULL:!PSK:!SRP:"
         "@SECLEVEL=0",
         SSL_OP_ALL},
};

_Static_assert(COUNT(profiles) == TLS_PROFILES, "every profile has its row");

/* ---- What a client offers ---- */

static const struct {
    unsigned version;
    const char *name;
} versions[] = {
    {0x0304, "TLS 1.3"},  {TLS_1_2, "TLS 1.2"}, {0x0302, "TLS 1.1"},
    {TLS_1_0, "TLS 1.0"}, {SSL_3_0, "SSL 3.0"}, {0x0002, "SSL 2.0"},
};

static void add_offer(struct tls *t, const char *text)
{
    size_t used = strlen(t->offered);
    size_t more = strlen(text);

    if (used + 2 + more >= sizeof(t->offered))
        return;
    if (used > 0)
        memcpy(t->offered + used, ", ", 2);
    memcpy(t->offered + used + (used > 0 ? 2 : 0), text, more + 1);
}

static bool lists_version(const unsigned char *list, size_t len, unsigned version)
{
    for (size_t i = 0; i + 1 < len; i += 2)
        if (((unsigned)list[i] << 8 | list[i + 1]) == version)
            return true;
    return false;
}

/* supported_versions (RFC 8446 4.2.1) when it is there, else the newest one alone. */
static void note_versions(struct tls *t)
{
    const unsigned char *list = NULL;
    size_t len = 0;
    unsigned newest = SSL_client_hello_get0_legacy_version(t->ssl);
    bool listed =
        SSL_client_hello_get0_ext(t->ssl, TLSEXT_TYPE_supported_versions, &list, &len) == 1 &&
        len > 1 && list[0] < len;

    for (size_t i = 0; i < COUNT(versions); i++)
        if (listed ? lists_version(list + 1, list[0], versions[i].version)
                   : versions[i].version == newest)
            add_offer(t, versions[i].name);
}

static bool is_forward_secret(unsigned suite)
{
    return (suite >> 8) == 0x13 || (suite >= 0xC001 && suite <= 0xC0FF) ||
           (suite >= 0xCCA8 && suite <= 0xCCAE) || suite == 0x009E || suite == 0x009F;
}

/* Suites that need no forward secrecy are what the old ones have in common. */
static void note_suites(struct tls *t)
{
    const unsigned char *list = NULL;
    size_t len = SSL_client_hello_get0_ciphers(t->ssl, &list);
    size_t step = SSL_client_hello_isv2(t->ssl) ? 3 : 2;

    for (size_t i = 0; i + step <= len; i += step)
        if (is_forward_secret((unsigned)list[i + step - 2] << 8 | list[i + step - 1]))
            return;
    add_offer(t, "RSA key exchange only");
}

static int on_hello(SSL *ssl, int *alert, void *arg)
{
    struct tls *t = SSL_get_app_data(ssl);

    (void)alert;
    (void)arg;
    if (t != NULL) {
        t->offered[0] = '\0';
        note_versions(t);
        note_suites(t);
    }
    return SSL_CLIENT_HELLO_SUCCESS;
}

/* ---- Failures in words ---- */

enum advice { ADVICE_TOO_OLD, ADVICE_CERTIFICATE, ADVICE_NOT_TLS, ADVICE_OTHER };

static const struct {
    int reason;
    enum advice advice;
} reasons[] = {
    {SSL_R_UNSUPPORTED_PROTOCOL, ADVICE_TOO_OLD},
    {SSL_R_VERSION_TOO_LOW, ADVICE_TOO_OLD},
    {SSL_R_NO_PROTOCOLS_AVAILABLE, ADVICE_TOO_OLD},
    {SSL_R_NO_SHARED_CIPHER, ADVICE_TOO_OLD},
    {SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, ADVICE_TOO_OLD},
    {SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, ADVICE_TOO_OLD},
    {SSL_R_NO_SUITABLE_GROUPS, ADVICE_TOO_OLD},
    {SSL_R_NO_SHARED_GROUPS, ADVICE_TOO_OLD},
    {SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, ADVICE_TOO_OLD},
    {SSL_R_TLSV1_ALERT_INSUFFICIENT_SECURITY, ADVICE_TOO_OLD},
    {SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE, ADVICE_TOO_OLD},
    {SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER, ADVICE_TOO_OLD},
    {SSL_R_TLSV1_ALERT_UNKNOWN_CA, ADVICE_CERTIFICATE},
    {SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, ADVICE_CERTIFICATE},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, ADVICE_CERTIFICATE},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, ADVICE_CERTIFICATE},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED, ADVICE_CERTIFICATE},
    {SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE, ADVICE_CERTIFICATE},
    {SSL_R_TLSV1_ALERT_ACCESS_DENIED, ADVICE_CERTIFICATE},
    {SSL_R_WRONG_VERSION_NUMBER, ADVICE_NOT_TLS},
    {SSL_R_HTTP_REQUEST, ADVICE_NOT_TLS},
    {SSL_R_HTTPS_PROXY_REQUEST, ADVICE_NOT_TLS},
};

static enum advice advice_on(unsigned long code)
{
    for (size_t i = 0; i < COUNT(reasons); i++)
        if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == reasons[i].reason)
            return reasons[i].advice;
    return ADVICE_OTHER;
}

static const char *too_old_advice(const struct tls *t)
{
    if (!t->legacy && strncmp(t->offered, "SSL", 3) != 0)
        return "put its address into [devices] legacy_tls, or switch TLS off on the device";
    return "nothing it has can be served; switch TLS off on the device, which is then served "
           "without";
}

static const char *advice_text(const struct tls *t, enum advice advice)
{
    switch (advice) {
    case ADVICE_TOO_OLD:
        return too_old_advice(t);
    case ADVICE_CERTIFICATE:
        return "it does not accept the certificate; install the certificate on the device or "
               "switch its verification off, or set [relay] certificate to one it trusts";
    case ADVICE_NOT_TLS:
        return "what it sent is not TLS; set the device to TLS, or tls of the [listener] to auto";
    case ADVICE_OTHER:
        break;
    }
    return "if it goes on, put its address into [devices] legacy_tls, or switch TLS off on the "
           "device";
}

void tls_server_explain(const struct tls *t, unsigned long code, struct error *err)
{
    if (t->text[0] != '\0') /* the handshake was done */
        error_set(err, ERROR_INVALID, "TLS with %s failed: %s", t->host, tls_reason_text(code));
    else
        error_set(err, ERROR_INVALID, "%s; %s", tls_reason_text(code),
                  advice_text(t, advice_on(code)));
}

/* No alert: the device gave no reason. */
void tls_server_explain_end(const struct tls *t, struct error *err)
{
    if (t->offered[0] == '\0')
        error_set(err, ERROR_IO,
                  "it closed the connection before its TLS hello; if it goes on, switch TLS off on "
                  "the device, or set tls of the [listener] to auto");
    else
        error_set(err, ERROR_IO,
                  "it closed the connection during the TLS handshake without a reason; install the "
                  "certificate on the device or switch its verification off%s",
                  t->legacy ? "" : ", or put its address into [devices] legacy_tls");
}

/* ---- Identities ---- */

static bool read_all(int fd, char *out, size_t room, size_t *out_len)
{
    ssize_t got = 0;

    *out_len = 0;
    while (*out_len < room && (got = read(fd, out + *out_len, room - *out_len)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        *out_len += (size_t)got;
    }
    return true;
}

static char *read_chain(const char *file, struct error *err)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    char *text = malloc(TLS_CHAIN_MAX + 1);
    size_t len = 0;
    bool done = false;

    if (text == NULL)
        error_set(err, ERROR_NO_ROOM, "%s: out of memory", file);
    else if (fd < 0 || !read_all(fd, text, TLS_CHAIN_MAX + 1, &len))
        error_errno(err, errno, "certificate %s", file);
    else if (len > TLS_CHAIN_MAX)
        error_set(err, ERROR_LIMIT, "certificate %s: it is longer than %d octets", file,
                  TLS_CHAIN_MAX);
    else
        done = true;
    if (fd >= 0)
        (void)close(fd);
    if (!done) {
        free(text);
        return NULL;
    }
    text[len] = '\0';
    return text;
}

/* A key with a passphrase fails instead of asking for it. */
static int no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

static bool use_key(SSL_CTX *ctx, const struct secret *key, struct error *err)
{
    BIO *bio = BIO_new_mem_buf(secret_text(key), (int)secret_length(key));
    EVP_PKEY *pkey = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    bool ok = false;

    if (pkey == NULL)
        error_set(
            err, ERROR_INVALID,
            "private_key holds no key that can be read (%s); it must be in PEM format, without "
            "a passphrase",
            tls_reason_text(ERR_peek_error()));
    else if (SSL_CTX_use_PrivateKey(ctx, pkey) != 1 || SSL_CTX_check_private_key(ctx) != 1)
        error_set(err, ERROR_INVALID,
                  "private_key does not belong to the certificate (%s); give the one it was made "
                  "with",
                  tls_reason_text(ERR_peek_error()));
    else
        ok = true;
    EVP_PKEY_free(pkey);
    BIO_free(bio);
    return ok;
}

/* The first certificate is ours, the others are its chain. */
static bool use_certificates(SSL_CTX *ctx, BIO *bio, struct error *err)
{
    X509 *cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
    bool ok = cert != NULL && SSL_CTX_use_certificate(ctx, cert) == 1;

    X509_free(cert);
    if (!ok)
        return error_set(err, ERROR_INVALID,
                         "certificate holds none that can be used (%s); it must be in PEM format, "
                         "with RSA 2048 or better",
                         tls_reason_text(ERR_peek_error()));
    for (int i = 0; ok && i < CHAIN_LENGTH_MAX; i++) {
        cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
        if (cert == NULL)
            break;
        ok = SSL_CTX_add1_chain_cert(ctx, cert) == 1;
        X509_free(cert);
    }
    ERR_clear_error(); /* the end of the file is one */
    return ok || error_set(err, ERROR_NO_ROOM, "set up TLS: out of memory");
}

static bool use_identity(SSL_CTX *ctx, const struct tls_identity *id, struct error *err)
{
    BIO *bio = BIO_new_mem_buf(id->chain, -1);
    bool ok = false;

    ERR_clear_error();
    if (bio == NULL)
        error_set(err, ERROR_NO_ROOM, "set up TLS: out of memory");
    else
        ok = use_certificates(ctx, bio, err) && use_key(ctx, id->key, err);
    BIO_free(bio);
    return ok;
}

static int64_t end_of(SSL_CTX *ctx)
{
    const X509 *cert = SSL_CTX_get0_certificate(ctx);
    struct tm tm;

    if (cert == NULL || ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1)
        return 0;
    return (int64_t)timegm(&tm);
}

static bool try_out(struct tls_identity *id, struct error *err)
{
    for (enum tls_profile p = TLS_MODERN; p < TLS_PROFILES; p++) {
        struct tls_context *c = tls_server_new(id, p, err);

        if (c == NULL)
            return false;
        id->end = end_of(c->ctx);
        tls_context_free(c);
    }
    return true;
}

struct tls_identity *tls_identity_read(const char *certificate_file, const char *key_file,
                                       struct error *err)
{
    struct tls_identity *id = calloc(1, sizeof(*id));

    if (id == NULL) {
        error_set(err, ERROR_NO_ROOM, "set up TLS: out of memory");
        return NULL;
    }
    id->chain = read_chain(certificate_file, err);
    if (id->chain != NULL) {
        id->key = secret_from_file(key_file, err);
        if (id->key == NULL)
            error_wrap(err, "private key");
    }
    if (id->key != NULL)
        return id;
    tls_identity_free(id);
    return NULL;
}

struct tls_identity *tls_identity_load(const char *certificate_file, const char *key_file,
                                       struct error *err)
{
    struct tls_identity *id = tls_identity_read(certificate_file, key_file, err);

    if (id == NULL || try_out(id, err))
        return id;
    error_wrap(err, "certificate %s and private key %s", certificate_file, key_file);
    tls_identity_free(id);
    return NULL;
}

int64_t tls_identity_end(const struct tls_identity *id)
{
    return id->end;
}

void tls_identity_free(struct tls_identity *id)
{
    if (id == NULL)
        return;
    free(id->chain);
    secret_free(id->key);
    free(id);
}

/* ---- Contexts ---- */

static bool set_up(struct tls_context *c, enum tls_profile profile)
{
    c->ctx = SSL_CTX_new(TLS_server_method());
    if (c->ctx == NULL || SSL_CTX_set_min_proto_version(c->ctx, profiles[profile].floor) != 1 ||
        SSL_CTX_set_max_proto_version(c->ctx, 0) != 1 ||
        SSL_CTX_set_cipher_list(c->ctx, profiles[profile].ciphers) != 1 ||
        SSL_CTX_set_dh_auto(c->ctx, 1) != 1)
        return false;
    SSL_CTX_set_app_data(c->ctx, c);
    /* A device that ends without close_notify can still read what it is owed, if no alert is sent.
     * Whether mail data was cut off, SMTP knows by itself. */
    SSL_CTX_set_options(c->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                    SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF |
                                    profiles[profile].options);
    SSL_CTX_set_mode(c->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                 SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_num_tickets(c->ctx, 1);
    SSL_CTX_set_client_hello_cb(c->ctx, on_hello, NULL);
    return true;
}

struct tls_context *tls_server_new(const struct tls_identity *id, enum tls_profile profile,
                                   struct error *err)
{
    struct tls_context *c = calloc(1, sizeof(*c));

    ERR_clear_error();
    if (c == NULL || !set_up(c, profile)) {
        error_set(err, ERROR_NO_ROOM, "set up TLS: %s",
                  c == NULL ? "out of memory" : tls_reason_text(ERR_peek_error()));
        tls_context_free(c);
        return NULL;
    }
    c->legacy = profile == TLS_LEGACY;
    if (!use_identity(c->ctx, id, err)) {
        tls_context_free(c);
        return NULL;
    }
    return c;
}
