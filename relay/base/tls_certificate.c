#include "relay/base/tls_certificate.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "relay/base/tls_parts.h"

#define KEY_BITS      2048
#define SERIAL_BITS   127  /* RFC 5280 4.1.2.2: at most 20 octets, positive */
#define VALID_DAYS    3652 /* ten years */
#define COMMON_MAX    64   /* characters of a common name, RFC 5280 A.1 */
#define X509_VERSION3 2

/* ---- Making ---- */

static bool set_serial(X509 *cert)
{
    BIGNUM *n = BN_new();
    bool ok = n != NULL && BN_rand(n, SERIAL_BITS, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
              BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert)) != NULL;

    BN_free(n);
    return ok;
}

static bool set_subject(X509 *cert, const char *common)
{
    X509_NAME *name = X509_get_subject_name(cert);
    int len = (int)strnlen(common, COMMON_MAX);

    return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)common, len,
                                      -1, 0) == 1 &&
           X509_set_issuer_name(cert, name) == 1;
}

static bool set_validity(X509 *cert)
{
    return X509_time_adj_ex(X509_getm_notBefore(cert), -1, 0, NULL) != NULL &&
           X509_time_adj_ex(X509_getm_notAfter(cert), VALID_DAYS, 0, NULL) != NULL;
}

static bool add_extension(X509 *cert, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext = NULL;
    bool ok = false;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    ok = ext != NULL && X509_add_ext(cert, ext, -1) == 1;
    X509_EXTENSION_free(ext);
    return ok;
}

/* Takes value, also on failure. */
static bool push_name(GENERAL_NAMES *names, int type, ASN1_STRING *value)
{
    GENERAL_NAME *name = value != NULL ? GENERAL_NAME_new() : NULL;

    if (name == NULL) {
        ASN1_STRING_free(value);
        return false;
    }
    GENERAL_NAME_set0_value(name, type, value);
    if (sk_GENERAL_NAME_push(names, name) > 0)
        return true;
    GENERAL_NAME_free(name);
    return false;
}

static ASN1_STRING *string_of(int type, const void *data, size_t len)
{
    ASN1_STRING *s = ASN1_STRING_type_new(type);

    if (s != NULL && ASN1_STRING_set(s, data, (int)len) != 1) {
        ASN1_STRING_free(s);
        s = NULL;
    }
    return s;
}

/* An address is there as a name too: that is where old devices look for it. */
static bool push_address(GENERAL_NAMES *names, const struct net_address *a)
{
    char text[NET_TEXT_MAX];

    net_text(a, text);
    return push_name(names, GEN_IPADD,
                     string_of(V_ASN1_OCTET_STRING, a->bytes, a->family == 4 ? 4 : 16)) &&
           (a->family != 4 ||
            push_name(names, GEN_DNS, string_of(V_ASN1_IA5STRING, text, strlen(text))));
}

static bool set_names(X509 *cert, const struct tls_certificate_request *r)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    bool ok = names != NULL;

    for (size_t i = 0; ok && i < r->name_count; i++)
        ok = push_name(names, GEN_DNS,
                       string_of(V_ASN1_IA5STRING, r->names[i], strlen(r->names[i])));
    for (size_t i = 0; ok && i < r->address_count; i++)
        ok = push_address(names, &r->addresses[i]);
    ok = ok && X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(names);
    return ok;
}

static bool fill(X509 *cert, EVP_PKEY *key, const struct tls_certificate_request *r)
{
    return X509_set_version(cert, X509_VERSION3) == 1 && set_serial(cert) && set_validity(cert) &&
           set_subject(cert, r->names[0]) && X509_set_pubkey(cert, key) == 1 &&
           add_extension(cert, NID_basic_constraints, "critical,CA:TRUE") &&
           add_extension(cert, NID_key_usage,
                         "critical,digitalSignature,keyEncipherment,keyCertSign") &&
           add_extension(cert, NID_ext_key_usage, "serverAuth") &&
           add_extension(cert, NID_subject_key_identifier, "hash") && set_names(cert, r) &&
           X509_sign(cert, key, EVP_sha256()) > 0;
}

/* ---- Writing ---- */

static bool sync_directory_of(const char *file, struct error *err)
{
    char copy[PATH_MAX];
    bool ok = false;
    int fd = -1;

    if (snprintf(copy, sizeof(copy), "%s", file) >= (int)sizeof(copy))
        return error_set(err, ERROR_LIMIT, "%s: path too long", file);
    fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ok = fd >= 0 && fsync(fd) == 0;
    if (!ok)
        error_errno(err, errno, "sync the directory of %s", file);
    if (fd >= 0)
        (void)close(fd);
    return ok;
}

static bool write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static bool write_new(const char *file, const char *data, size_t len)
{
    int fd = -1;
    bool ok = false;
    int errnum = 0;

    (void)unlink(file); /* of an attempt that was cut short */
    fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    ok = write_all(fd, data, len) && fsync(fd) == 0;
    errnum = errno;
    if (close(fd) != 0 && ok) {
        errnum = errno;
        ok = false;
    }
    errno = errnum;
    return ok;
}

static bool replace(const char *file, BIO *pem, struct error *err)
{
    char temporary[PATH_MAX];
    char *data = NULL;
    long len = BIO_get_mem_data(pem, &data);

    if (snprintf(temporary, sizeof(temporary), "%s.new", file) >= (int)sizeof(temporary))
        return error_set(err, ERROR_LIMIT, "%s: path too long", file);
    if (!write_new(temporary, data, (size_t)len))
        return error_errno(err, errno, "write %s", temporary);
    if (rename(temporary, file) != 0)
        return error_errno(err, errno, "rename %s to %s", temporary, file);
    return sync_directory_of(file, err);
}

static bool write_key(EVP_PKEY *key, const char *file, struct error *err)
{
    BIO *pem = BIO_new(BIO_s_secmem());
    bool ok = pem != NULL && PEM_write_bio_PrivateKey(pem, key, NULL, NULL, 0, NULL, NULL) == 1
                  ? replace(file, pem, err)
                  : error_set(err, ERROR_NO_ROOM, "write %s: out of memory", file);

    BIO_free(pem);
    return ok;
}

static bool write_certificate(X509 *cert, const char *file, struct error *err)
{
    BIO *pem = BIO_new(BIO_s_mem());
    bool ok = pem != NULL && PEM_write_bio_X509(pem, cert) == 1
                  ? replace(file, pem, err)
                  : error_set(err, ERROR_NO_ROOM, "write %s: out of memory", file);

    BIO_free(pem);
    return ok;
}

/* A certificate of an earlier key goes first. */
static bool remove_old(const char *certificate_file, struct error *err)
{
    if (unlink(certificate_file) == 0)
        return sync_directory_of(certificate_file, err);
    return errno == ENOENT || error_errno(err, errno, "remove %s", certificate_file);
}

bool tls_certificate_make(const struct tls_certificate_request *request,
                          const char *certificate_file, const char *key_file, struct error *err)
{
    EVP_PKEY *key = NULL;
    X509 *cert = NULL;
    bool ok = false;

    ERR_clear_error();
    key = EVP_RSA_gen(KEY_BITS);
    cert = X509_new();
    if (key == NULL || cert == NULL || !fill(cert, key, request))
        error_set(err, ERROR_NO_ROOM, "make a certificate: %s", tls_reason_text(ERR_peek_error()));
    else
        ok = remove_old(certificate_file, err) && write_key(key, key_file, err) &&
             write_certificate(cert, certificate_file, err);
    X509_free(cert);
    EVP_PKEY_free(key);
    return ok;
}
