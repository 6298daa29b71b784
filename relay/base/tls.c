#include "relay/base/tls.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <openssl/x509_vfy.h>

#include "relay/base/tls_parts.h"

#define RESUME_S          3600 /* resuming skips the certificate: verify anew after this */
#define CLOCK_TEXT_MAX    32
#define CERT_NAMES_MAX    3 /* names of a certificate that a message shows */
#define CERT_NAMES_LENGTH 160

static time_t monotonic_seconds(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

const char *tls_reason_text(unsigned long code)
{
    const char *text = ERR_reason_error_string(code);

    return text != NULL ? text : "unknown error of the TLS library";
}

/* ---- Certificates that are refused, in words ---- */

static void time_text(const ASN1_TIME *when, char out[CLOCK_TEXT_MAX])
{
    struct tm tm;

    if (when == NULL || ASN1_TIME_to_tm(when, &tm) != 1 ||
        strftime(out, CLOCK_TEXT_MAX, "%Y-%m-%d %H:%M UTC", &tm) == 0)
        memcpy(out, "an unknown time", sizeof("an unknown time"));
}

static void clock_text(char out[CLOCK_TEXT_MAX])
{
    time_t now = time(NULL);
    struct tm tm;

    if (gmtime_r(&now, &tm) == NULL ||
        strftime(out, CLOCK_TEXT_MAX, "%Y-%m-%d %H:%M UTC", &tm) == 0)
        memcpy(out, "an unknown time", sizeof("an unknown time"));
}

/* Text from a certificate: printable ASCII only, cut to the room there is. */
static void add_name(char *out, size_t size, const unsigned char *name, size_t len)
{
    size_t used = strlen(out);

    if (used > 0 && used + 2 < size) {
        memcpy(out + used, ", ", 3);
        used += 2;
    }
    for (size_t i = 0; i < len && used + 1 < size; i++)
        out[used++] = (char)(name[i] > 0x20 && name[i] < 0x7f ? name[i] : '?');
    out[used] = '\0';
}

static void common_name(const X509 *cert, char out[CERT_NAMES_LENGTH])
{
    char name[CERT_NAMES_LENGTH];
    int len = X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name,
                                        (int)sizeof(name));

    if (len > 0)
        add_name(out, CERT_NAMES_LENGTH, (const unsigned char *)name, strlen(name));
}

static void certificate_names(const X509 *cert, char out[CERT_NAMES_LENGTH])
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    int shown = 0;

    out[0] = '\0';
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && shown < CERT_NAMES_MAX; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        if (name->type != GEN_DNS)
            continue;
        add_name(out, CERT_NAMES_LENGTH, ASN1_STRING_get0_data(name->d.dNSName),
                 (size_t)ASN1_STRING_length(name->d.dNSName));
        shown++;
    }
    GENERAL_NAMES_free(names);
    if (shown == 0)
        common_name(cert, out);
    if (out[0] == '\0')
        add_name(out, CERT_NAMES_LENGTH, (const unsigned char *)"nobody", strlen("nobody"));
}

static void explain_name(const struct tls *t, const X509 *cert, struct error *err)
{
    char names[CERT_NAMES_LENGTH];

    certificate_names(cert, names);
    error_set(
        err, ERROR_UNTRUSTED,
        "the certificate of %s is for another name (%s); check the host of the mailbox, the name "
        "must be one of the certificate's",
        t->host, names);
}

static void explain_time(const struct tls *t, const X509 *cert, bool expired, struct error *err)
{
    char when[CLOCK_TEXT_MAX];
    char now[CLOCK_TEXT_MAX];

    time_text(expired ? X509_get0_notAfter(cert) : X509_get0_notBefore(cert), when);
    clock_text(now);
    error_set(
        err, ERROR_UNTRUSTED,
        "the certificate of %s %s %s and the clock of this host says %s; set the clock if it is "
        "wrong, else the server's owner must renew the certificate",
        t->host, expired ? "expired" : "is not valid before", when, now);
}

static void explain_trust(const struct tls *t, int code, struct error *err)
{
    const struct tls_context *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(t->ssl));
    const char *why = X509_verify_cert_error_string(code);

    if (c != NULL && c->ca_file[0] != '\0')
        error_set(
            err, ERROR_UNTRUSTED,
            "the certificate of %s is not signed by an authority in %s: %s; put the authority's "
            "certificate into that file, or remove ca_file if the server uses a public authority",
            t->host, c->ca_file, why);
    else
        error_set(
            err, ERROR_UNTRUSTED,
            "the certificate of %s is not signed by an authority this host trusts: %s; set ca_file "
            "of the mailbox if the server uses a private authority, and install ca-certificates "
            "if this host has none",
            t->host, why);
}

static void explain_certificate(const struct tls *t, X509_STORE_CTX *store, struct error *err)
{
    int code = X509_STORE_CTX_get_error(store);
    const X509 *cert = X509_STORE_CTX_get_current_cert(store);

    switch (code) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        explain_name(t, cert, err);
        return;
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        explain_time(t, cert, code == X509_V_ERR_CERT_HAS_EXPIRED, err);
        return;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_UNTRUSTED:
        explain_trust(t, code, err);
        return;
    default:
        error_set(err, ERROR_UNTRUSTED,
                  "the certificate of %s is not acceptable: %s; the server's owner "
                  "must replace it",
                  t->host, X509_verify_cert_error_string(code));
        return;
    }
}

static int on_verify(int ok, X509_STORE_CTX *store)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    const struct tls *t = SSL_get_app_data(ssl);

    if (!ok && t->err != NULL && t->err->text[0] == '\0')
        explain_certificate(t, store, t->err);
    return ok;
}

/* ---- Contexts ---- */

static void forget_session(struct tls_context *c)
{
    SSL_SESSION_free(c->session);
    c->session = NULL;
}

/* Keeps the newest session. Returns 1: takes it. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls_context *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    const struct tls *t = SSL_get_app_data(ssl);

    if (c == NULL || !SSL_SESSION_is_resumable(session))
        return 0;
    forget_session(c);
    c->session = session;
    c->session_verified = SSL_session_reused(ssl) ? t->resumed : t->verified;
    memcpy(c->session_host, t->host, sizeof(c->session_host));
    return 1;
}

/* As c_rehash names them: eight hexadecimal digits, a dot, a number. */
static bool is_hash_name(const char *name)
{
    return strspn(name, "0123456789abcdef") == 8 && name[8] == '.' && name[9] >= '0' &&
           name[9] <= '9';
}

static bool is_hashed_directory(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry = NULL;
    bool found = false;

    if (dir == NULL)
        return false;
    while (!found && (entry = readdir(dir)) != NULL)
        found = is_hash_name(entry->d_name);
    (void)closedir(dir);
    return found;
}

const char *tls_system_directory(void)
{
    const char *path = getenv(X509_get_default_cert_dir_env());

    if (path == NULL)
        path = X509_get_default_cert_dir();
    if (is_hashed_directory(path) && getenv(X509_get_default_cert_file_env()) == NULL)
        return path;
    return NULL;
}

static bool trust_system(SSL_CTX *ctx)
{
    if (SSL_CTX_set_default_verify_dir(ctx) != 1)
        return false;
    return tls_system_directory() != NULL || SSL_CTX_set_default_verify_file(ctx) == 1;
}

static bool trust(struct tls_context *c, struct error *err)
{
    unsigned long code = 0;

    if (c->ca_file[0] == '\0')
        return trust_system(c->ctx) || error_set(err, ERROR_NO_ROOM, "set up TLS: out of memory");
    ERR_clear_error();
    errno = 0;
    if (SSL_CTX_load_verify_file(c->ctx, c->ca_file) == 1) {
        X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(c->ctx), X509_V_FLAG_PARTIAL_CHAIN);
        return true;
    }
    code = ERR_peek_error();
    if (ERR_SYSTEM_ERROR(code))
        return error_errno(err, ERR_GET_REASON(code), "read ca_file %s", c->ca_file);
    return error_set(err, ERROR_INVALID,
                     "ca_file %s holds no certificate that can be read (%s); it must "
                     "be in PEM format",
                     c->ca_file, tls_reason_text(code));
}

static bool protocols(SSL_CTX *ctx)
{
    long policy = SSL_CTX_get_min_proto_version(ctx);

    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    return policy > TLS1_2_VERSION || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1;
}

static bool set_up(struct tls_context *c, struct error *err)
{
    ERR_clear_error();
    c->ctx = SSL_CTX_new(TLS_client_method());
    if (c->ctx == NULL || !protocols(c->ctx))
        return error_set(err, ERROR_NO_ROOM, "set up TLS: %s", tls_reason_text(ERR_peek_error()));
    SSL_CTX_set_app_data(c->ctx, c);
    SSL_CTX_set_mode(c->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                 SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(c->ctx, on_session);
    SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, on_verify);
    return trust(c, err);
}

struct tls_context *tls_client_new(const char *ca_file, struct error *err)
{
    struct tls_context *c = calloc(1, sizeof(*c));

    if (c != NULL)
        c->ca_file = strdup(ca_file);
    if (c == NULL || c->ca_file == NULL) {
        error_set(err, ERROR_NO_ROOM, "set up TLS: out of memory");
        tls_context_free(c);
        return NULL;
    }
    if (!set_up(c, err)) {
        tls_context_free(c);
        return NULL;
    }
    return c;
}

void tls_context_free(struct tls_context *c)
{
    if (c == NULL)
        return;
    forget_session(c);
    if (c->ctx != NULL)
        SSL_CTX_set_app_data(c->ctx, NULL); /* connections may keep ctx alive */
    SSL_CTX_free(c->ctx);
    free(c->ca_file);
    free(c);
}

/* ---- Connections ---- */

static bool copy_host(const char *host, char out[TLS_HOST_MAX + 1])
{
    size_t len = strlen(host);

    if (len > 0 && host[len - 1] == '.')
        len--;
    if (len == 0 || len > TLS_HOST_MAX)
        return false;
    memcpy(out, host, len);
    out[len] = '\0';
    return true;
}

static bool expect_host(struct tls *t)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(t->ssl);

    if (X509_VERIFY_PARAM_set1_ip_asc(param, t->host) == 1)
        return true;
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return X509_VERIFY_PARAM_set1_host(param, t->host, 0) == 1 &&
           SSL_set_tlsext_host_name(t->ssl, t->host) == 1;
}

static void offer_session(struct tls *t, struct tls_context *c)
{
    t->verified = monotonic_seconds();
    if (c->session == NULL || strcmp(c->session_host, t->host) != 0)
        return;
    if (t->verified - c->session_verified >= RESUME_S) {
        forget_session(c);
        return;
    }
    t->resumed = c->session_verified;
    (void)SSL_set_session(t->ssl, c->session); /* without it the handshake is a full one */
}

struct tls *tls_client_start(struct tls_context *context, int fd, const char *host)
{
    struct tls *t = calloc(1, sizeof(*t));

    ERR_clear_error();
    if (t == NULL || !copy_host(host, t->host) || (t->ssl = SSL_new(context->ctx)) == NULL ||
        SSL_set_app_data(t->ssl, t) != 1 || !expect_host(t) || SSL_set_fd(t->ssl, fd) != 1) {
        tls_free(t);
        return NULL;
    }
    SSL_set_connect_state(t->ssl);
    offer_session(t, context);
    return t;
}

struct tls *tls_server_start(struct tls_context *context, int fd, const char *peer)
{
    struct tls *t = calloc(1, sizeof(*t));

    ERR_clear_error();
    if (t == NULL || !copy_host(peer, t->host) || (t->ssl = SSL_new(context->ctx)) == NULL ||
        SSL_set_app_data(t->ssl, t) != 1 || SSL_set_fd(t->ssl, fd) != 1) {
        tls_free(t);
        return NULL;
    }
    t->server = true;
    t->legacy = context->legacy;
    SSL_set_accept_state(t->ssl);
    return t;
}

bool tls_feed(struct tls *t, const void *data, size_t len)
{
    BIO *bio = BIO_new(BIO_s_mem());

    if (bio == NULL || len > INT_MAX || BIO_write(bio, data, (int)len) != (int)len) {
        BIO_free(bio);
        return false;
    }
    (void)BIO_set_mem_eof_return(bio, -1); /* empty means "not yet", as on the socket */
    SSL_set0_rbio(t->ssl, bio);
    t->fed = bio;
    return true;
}

/* True when what was fed has just been used up, and the socket comes next. */
static bool turn_to_socket(struct tls *t)
{
    if (t->fed == NULL || BIO_pending(t->fed) > 0)
        return false;
    t->fed = NULL;
    return SSL_set_rfd(t->ssl, SSL_get_wfd(t->ssl)) == 1;
}

void tls_free(struct tls *t)
{
    if (t == NULL)
        return;
    /* Or else OpenSSL declares the session unusable for resumption. */
    if (t->ssl != NULL)
        SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(t->ssl);
    free(t);
}

/* Failures of the handshake that have a well-known cause. */
static const struct {
    int reason;
    const char *text;
} causes[] = {
    {SSL_R_WRONG_VERSION_NUMBER, "the server did not answer with TLS; check port and tls of the "
                                 "mailbox (587 goes with starttls, 465 "
                                 "with implicit)"},
    {SSL_R_HTTP_REQUEST, "the server did not answer with TLS; check port and tls of the mailbox"},
    {SSL_R_UNSUPPORTED_PROTOCOL,
     "the server speaks no TLS version that is allowed here (1.2 or newer); it must be updated"},
    {SSL_R_TLSV1_ALERT_PROTOCOL_VERSION,
     "the server speaks no TLS version that is allowed here (1.2 or newer); it must be updated"},
    {SSL_R_DH_KEY_TOO_SMALL,
     "the server's key is too small for this host's security policy; it must be renewed"},
};

static enum tls_step failed(const struct tls *t, unsigned long code, struct error *err)
{
    if (err->text[0] != '\0') /* the certificate was refused, and on_verify() said why */
        return TLS_FAILED;
    if (t->server) {
        tls_server_explain(t, code, err);
        return TLS_FAILED;
    }
    for (size_t i = 0; i < sizeof(causes) / sizeof(causes[0]); i++) {
        if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == causes[i].reason) {
            error_set(err, ERROR_INVALID, "TLS with %s: %s (%s)", t->host, causes[i].text,
                      tls_reason_text(code));
            return TLS_FAILED;
        }
    }
    error_set(err, ERROR_INVALID, "TLS with %s failed: %s", t->host, tls_reason_text(code));
    return TLS_FAILED;
}

static enum tls_step cut(const struct tls *t, struct error *err)
{
    error_set(err, ERROR_IO,
              "%s closed the connection without TLS close_notify; what came last may be incomplete",
              t->host);
    return TLS_CUT;
}

/* What an unsuccessful call means. Must follow it directly: errno and the queue are the call's. */
static enum tls_step step_of(const struct tls *t, int result, struct error *err)
{
    int errnum = errno;
    unsigned long code = ERR_peek_error();

    switch (SSL_get_error(t->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return TLS_WANT_READ;
    case SSL_ERROR_WANT_WRITE:
        return TLS_WANT_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_CLOSED;
    case SSL_ERROR_SYSCALL:
        if (errnum == 0)
            return cut(t, err);
        error_errno(err, errnum, "connection to %s lost", t->host);
        return TLS_LOST;
    default:
        if (ERR_GET_LIB(code) == ERR_LIB_SSL &&
            ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
            return cut(t, err);
        return failed(t, code, err);
    }
}

static void prepare(void)
{
    ERR_clear_error();
    errno = 0;
}

static void note_text(struct tls *t)
{
    const char *version = SSL_get_version(t->ssl);
    const char *cipher = SSL_get_cipher_name(t->ssl);
    size_t len = strlen(version);
    size_t more = strlen(cipher);

    if (len + 1 + more >= sizeof(t->text))
        return;
    memcpy(t->text, version, len);
    t->text[len] = ' ';
    memcpy(t->text + len + 1, cipher, more + 1);
}

static void end_in_handshake(const struct tls *t, struct error *err)
{
    error_set(err, ERROR_IO, "%s closed the connection during the TLS handshake", t->host);
    if (t->server)
        tls_server_explain_end(t, err);
}

enum tls_step tls_handshake(struct tls *t, struct error *err)
{
    struct tls_context *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(t->ssl));
    enum tls_step step = TLS_OK;
    int result = 0;

    do {
        prepare();
        t->err = err;
        result = SSL_do_handshake(t->ssl);
        t->err = NULL;
        if (result == 1) {
            note_text(t);
            return TLS_OK;
        }
        step = step_of(t, result, err);
    } while (step == TLS_WANT_READ && turn_to_socket(t));
    if (step == TLS_CUT || step == TLS_CLOSED) {
        end_in_handshake(t, err);
        step = TLS_FAILED;
    }
    if (step == TLS_LOST && t->server)
        tls_server_explain_end(t, err);
    if (step == TLS_FAILED && c != NULL)
        forget_session(
            c); /* a server that stumbles over resumption gets a full handshake next time */
    return step;
}

enum tls_step tls_read(struct tls *t, void *data, size_t room, size_t *out_len, struct error *err)
{
    enum tls_step step = TLS_OK;
    size_t got = 0;
    int result = 0;

    do {
        prepare();
        result = SSL_read_ex(t->ssl, data, room, &got);
        step = result == 1 ? TLS_OK : step_of(t, result, err);
    } while (step == TLS_WANT_READ && turn_to_socket(t));
    if (step == TLS_OK)
        *out_len = got;
    return step;
}

enum tls_step tls_write(struct tls *t, const void *data, size_t len, size_t *out_len,
                        struct error *err)
{
    size_t sent = 0;
    int result = 0;

    prepare();
    result = SSL_write_ex(t->ssl, data, len, &sent);
    if (result != 1)
        return step_of(t, result, err);
    *out_len = sent;
    return TLS_OK;
}

enum tls_step tls_close(struct tls *t, struct error *err)
{
    int result = 0;

    prepare();
    result = SSL_shutdown(t->ssl);
    return result >= 0 ? TLS_OK : step_of(t, result, err);
}

size_t tls_buffered(const struct tls *t)
{
    int len = SSL_pending(t->ssl);
    int fed = t->fed != NULL ? (int)BIO_pending(t->fed) : 0;

    return (len > 0 ? (size_t)len : 0) + (fed > 0 ? (size_t)fed : 0);
}

const char *tls_text(const struct tls *t)
{
    return t->text;
}

const char *tls_offered(const struct tls *t)
{
    return t->offered;
}
