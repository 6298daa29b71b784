#include "relay/signin/jwt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/store.h>
#include <openssl/ui.h>
#include <openssl/x509.h>

#include "queue/bytes.h"
#include "relay/base/secret.h"
#include "relay/smtp/base64.h"

#define CERTIFICATES_MAX 16 /* read from one place */
#define GUID_TEXT        37
#define DIGEST_TEXT      (BASE64URL_LENGTH(EVP_MAX_MD_SIZE) + 1)
#define TOKEN_MAX        16384
#define SECONDS_A_DAY    86400

struct jwt_key {
    EVP_PKEY *key;
    X509 *certificate; /* NULL: none */
};

/* ---- Reading ---- */

/* What one place holds. */
struct found {
    EVP_PKEY *key;
    X509 *certificates[CERTIFICATES_MAX];
    size_t count;
};

struct prompt {
    const struct secret *password; /* NULL: none was named */
    bool asked;
};

static const char *reason(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());

    return text != NULL ? text : "unknown format";
}

static int on_password(char *buf, int size, int writing, void *ctx)
{
    struct prompt *p = ctx;
    size_t len = p->password != NULL ? secret_length(p->password) : 0;

    (void)writing;
    p->asked = true;
    if (p->password == NULL || len > (size_t)size)
        return -1;
    memcpy(buf, secret_text(p->password), len);
    return (int)len;
}

static void found_done(struct found *f)
{
    EVP_PKEY_free(f->key);
    for (size_t i = 0; i < f->count; i++)
        X509_free(f->certificates[i]);
}

static void take(struct found *f, OSSL_STORE_INFO *info)
{
    if (OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PKEY && f->key == NULL)
        f->key = OSSL_STORE_INFO_get1_PKEY(info);
    else if (OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_CERT && f->count < CERTIFICATES_MAX)
        f->certificates[f->count++] = OSSL_STORE_INFO_get1_CERT(info);
    OSSL_STORE_INFO_free(info);
}

static bool take_all(OSSL_STORE_CTX *store, struct found *f)
{
    if (store == NULL)
        return false;
    while (OSSL_STORE_eof(store) == 0) {
        OSSL_STORE_INFO *info = OSSL_STORE_load(store);

        if (info != NULL)
            take(f, info);
        else if (OSSL_STORE_error(store) != 0)
            break;
    }
    (void)OSSL_STORE_close(store);
    return f->key != NULL || f->count > 0;
}

static bool read_all(int fd, struct bytes *out)
{
    uint8_t *room = bytes_reserve(out, JWT_FILE_MAX);
    ssize_t n = 1;

    if (room == NULL)
        return false;
    while (n > 0 && out->len < JWT_FILE_MAX) {
        n = read(fd, room + out->len, JWT_FILE_MAX - out->len);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            out->len += (size_t)n;
    }
    return n >= 0;
}

static bool read_file(const char *file, bool is_secret, struct bytes *out, struct error *err)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    bool ok = fd >= 0 || error_errno(err, errno, "%s", file);

    if (ok && is_secret)
        ok = secret_check_file(fd, file, err);
    if (ok && !read_all(fd, out))
        ok = error_errno(err, errno, "%s", file);
    if (ok && out->len == JWT_FILE_MAX)
        ok = error_set(err, ERROR_LIMIT, "%s: it is too large for a key or certificate", file);
    if (fd >= 0)
        (void)close(fd);
    return ok;
}

static void wipe_bytes(struct bytes *b)
{
    if (b->data != NULL)
        explicit_bzero(b->data, b->cap);
    bytes_done(b);
}

/* One that is none of ours: "pkcs11:token=..." */
static bool is_uri(const char *place)
{
    return place[0] != '/' && place[0] != '.' && strchr(place, ':') != NULL;
}

static bool find_in_memory(const void *data, size_t len, UI_METHOD *ui, struct prompt *p,
                           struct found *f)
{
    BIO *bio = BIO_new_mem_buf(data, (int)len);
    bool ok = bio != NULL &&
              take_all(OSSL_STORE_attach(bio, "file", NULL, NULL, ui, p, NULL, NULL, NULL), f);

    BIO_free(bio);
    return ok;
}

static bool not_found(const char *place, const struct prompt *p, struct error *err)
{
    if (p->asked && p->password == NULL)
        return error_set(err, ERROR_INVALID,
                         "%s: it is encrypted; write its password to a file and name that file",
                         place);
    if (p->asked)
        return error_set(err, ERROR_INVALID, "%s: its password is not the one in the file (%s)",
                         place, reason());
    return error_set(
        err, ERROR_INVALID,
        "%s: neither key nor certificate is in it (%s); it must be PEM, PKCS#12 or DER", place,
        reason());
}

static bool find(const char *place, bool is_secret, const struct secret *password, struct found *f,
                 struct error *err)
{
    struct prompt p = {.password = password};
    UI_METHOD *ui = UI_UTIL_wrap_read_pem_callback(on_password, 0);
    struct bytes file;
    bool ok = ui != NULL || error_set(err, ERROR_NO_ROOM, "out of memory");

    bytes_init(&file, JWT_FILE_MAX + 1);
    ERR_clear_error();
    if (ok && is_uri(place))
        ok = take_all(OSSL_STORE_open(place, ui, &p, NULL, NULL), f) || not_found(place, &p, err);
    else if (ok)
        ok = read_file(place, is_secret, &file, err) &&
             (find_in_memory(file.data, file.len, ui, &p, f) || not_found(place, &p, err));
    wipe_bytes(&file);
    UI_destroy_method(ui);
    return ok;
}

static bool check_key(const char *place, EVP_PKEY *key, struct error *err)
{
    if (key == NULL)
        return error_set(err, ERROR_INVALID, "%s: there is no private key in it", place);
    if (EVP_PKEY_is_a(key, "RSA") != 1)
        return error_set(err, ERROR_INVALID, "%s: its key is not an RSA key, which it must be",
                         place);
    if (EVP_PKEY_get_bits(key) < JWT_RSA_BITS_MIN)
        return error_set(err, ERROR_INVALID, "%s: its RSA key has %d bits; %d are needed", place,
                         EVP_PKEY_get_bits(key), JWT_RSA_BITS_MIN);
    return true;
}

/* The one of the certificates that is the key's. */
static X509 *matching(const struct found *f, const EVP_PKEY *key)
{
    for (size_t i = 0; i < f->count; i++)
        if (X509_check_private_key(f->certificates[i], key) == 1)
            return f->certificates[i];
    return NULL;
}

static struct jwt_key *key_new(EVP_PKEY *key, X509 *certificate, struct error *err)
{
    struct jwt_key *k = calloc(1, sizeof(*k));

    if (k == NULL || EVP_PKEY_up_ref(key) != 1) {
        free(k);
        (void)error_set(err, ERROR_NO_ROOM, "out of memory");
        return NULL;
    }
    k->key = key;
    if (certificate != NULL && X509_up_ref(certificate) == 1)
        k->certificate = certificate;
    return k;
}

static struct jwt_key *pair_up(const struct jwt_source *s, const struct found *keys,
                               const struct found *certificates, struct error *err)
{
    const char *place = s->certificate[0] != '\0' ? s->certificate : s->key;
    X509 *certificate;

    if (!check_key(s->key, keys->key, err))
        return NULL;
    certificate = matching(certificates, keys->key);
    if (certificate != NULL)
        return key_new(keys->key, certificate, err);
    if (certificates->count == 0)
        (void)error_set(err, ERROR_INVALID,
                        "%s: there is no certificate in it; the key alone is not enough", place);
    else
        (void)error_set(err, ERROR_INVALID,
                        "%s: its certificate is not the one of the private key in %s", place,
                        s->key);
    return NULL;
}

struct jwt_key *jwt_key_load(const struct jwt_source *source, struct error *err)
{
    struct found keys = {.count = 0};
    struct found certificates = {.count = 0};
    bool apart = source->certificate[0] != '\0';
    struct secret *password = NULL;
    struct jwt_key *k = NULL;
    bool ok = true;

    if (source->password_file[0] != '\0') {
        password = secret_from_file(source->password_file, err);
        ok = password != NULL;
    }
    ok = ok && find(source->key, true, password, &keys, err) &&
         (!apart || find(source->certificate, false, NULL, &certificates, err));
    if (ok)
        k = pair_up(source, &keys, apart ? &certificates : &keys, err);
    found_done(&keys);
    found_done(&certificates);
    secret_free(password);
    return k;
}

struct jwt_key *jwt_key_parse(const char *name, const char *pem, size_t len, struct error *err)
{
    BIO *bio = BIO_new_mem_buf(pem, (int)len);
    EVP_PKEY *key = NULL;
    struct jwt_key *k = NULL;

    ERR_clear_error();
    if (bio != NULL)
        key = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)(uintptr_t) "");
    if (key == NULL)
        (void)error_set(err, ERROR_INVALID, "%s: its private key cannot be read (%s)", name,
                        reason());
    else if (check_key(name, key, err))
        k = key_new(key, NULL, err);
    EVP_PKEY_free(key);
    BIO_free(bio);
    return k;
}

void jwt_key_free(struct jwt_key *key)
{
    if (key == NULL)
        return;
    EVP_PKEY_free(key->key);
    X509_free(key->certificate);
    free(key);
}

int64_t jwt_key_end(const struct jwt_key *key)
{
    ASN1_TIME *epoch = NULL;
    int days = 0;
    int seconds = 0;
    bool ok;

    if (key->certificate == NULL)
        return 0;
    epoch = ASN1_TIME_set(NULL, 0);
    ok = epoch != NULL &&
         ASN1_TIME_diff(&days, &seconds, epoch, X509_get0_notAfter(key->certificate)) == 1;
    ASN1_TIME_free(epoch);
    return ok ? (int64_t)days * SECONDS_A_DAY + seconds : 0;
}

/* ---- Making ---- */

void jwt_wipe(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

/* A random UUID, RFC 9562 5.4. */
static bool make_guid(char out[GUID_TEXT])
{
    unsigned char r[16];

    if (RAND_bytes(r, sizeof(r)) != 1)
        return false;
    r[6] = (unsigned char)((r[6] & 0x0f) | 0x40);
    r[8] = (unsigned char)((r[8] & 0x3f) | 0x80);
    (void)snprintf(out, GUID_TEXT,
                   "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", r[0],
                   r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13],
                   r[14], r[15]);
    return true;
}

static bool put_text(cJSON *object, const char *key, const char *text)
{
    return cJSON_AddStringToObject(object, key, text) != NULL;
}

static bool put_number(cJSON *object, const char *key, int64_t number)
{
    return cJSON_AddNumberToObject(object, key, (double)number) != NULL;
}

static bool put_thumbprint(cJSON *header, const struct jwt_key *k, enum jwt_style style)
{
    const EVP_MD *md = style == JWT_PS256 ? EVP_sha256() : EVP_sha1();
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    char text[DIGEST_TEXT];

    if (k->certificate == NULL || X509_digest(k->certificate, md, digest, &len) != 1)
        return false;
    base64url_encode(digest, len, text);
    text[BASE64URL_LENGTH((size_t)len)] = '\0';
    return put_text(header, style == JWT_PS256 ? "x5t#S256" : "x5t", text);
}

static bool append_part(struct bytes *out, const void *data, size_t len)
{
    uint8_t *room = bytes_reserve(out, BASE64URL_LENGTH(len));

    if (room == NULL)
        return false;
    base64url_encode(data, len, (char *)room);
    out->len += BASE64URL_LENGTH(len);
    return true;
}

static bool append_json(struct bytes *out, const cJSON *object)
{
    char *text = cJSON_PrintUnformatted(object);
    bool ok = text != NULL && append_part(out, text, strlen(text));

    cJSON_free(text);
    return ok;
}

/* What is in `out` is what gets signed. */
static bool append_signature(struct bytes *out, const struct jwt_key *k, enum jwt_style style)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    EVP_PKEY_CTX *ctx = NULL;
    size_t len = (size_t)EVP_PKEY_get_size(k->key);
    unsigned char *signature = malloc(len);
    bool ok = md != NULL && signature != NULL &&
              EVP_DigestSignInit_ex(md, &ctx, "SHA256", NULL, NULL, k->key, NULL) == 1;

    if (ok && style == JWT_PS256)
        ok = EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
             EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1;
    ok = ok && EVP_DigestSign(md, signature, &len, out->data, out->len) == 1 &&
         bytes_byte(out, '.') && append_part(out, signature, len);
    free(signature);
    EVP_MD_CTX_free(md);
    return ok;
}

static char *sign(const struct jwt_key *k, enum jwt_style style, const cJSON *header,
                  const cJSON *claims, struct error *err)
{
    struct bytes out;
    char *text = NULL;

    ERR_clear_error();
    bytes_init(&out, TOKEN_MAX);
    if (append_json(&out, header) && bytes_byte(&out, '.') && append_json(&out, claims) &&
        append_signature(&out, k, style))
        text = strndup((const char *)out.data, out.len);
    if (text == NULL)
        (void)error_set(err, ERROR_IO, "sign a token: %s", reason());
    wipe_bytes(&out);
    return text;
}

/* Takes both, also on failure. */
static char *sign_objects(const struct jwt_key *k, enum jwt_style style, cJSON *header,
                          cJSON *claims, bool complete, struct error *err)
{
    char *text = NULL;

    if (complete)
        text = sign(k, style, header, claims, err);
    else
        (void)error_set(err, ERROR_NO_ROOM, "make a token: out of memory or random numbers");
    cJSON_Delete(header);
    cJSON_Delete(claims);
    return text;
}

char *jwt_client_assertion(const struct jwt_key *key, const struct jwt_client *client,
                           int64_t now_s, struct error *err)
{
    cJSON *header = cJSON_CreateObject();
    cJSON *claims = cJSON_CreateObject();
    char guid[GUID_TEXT];
    bool ok = make_guid(guid) &&
              put_text(header, "alg", client->style == JWT_PS256 ? "PS256" : "RS256") &&
              put_text(header, "typ", "JWT") && put_thumbprint(header, key, client->style) &&
              put_text(claims, "aud", client->audience) &&
              put_text(claims, "iss", client->client_id) &&
              put_text(claims, "sub", client->client_id) && put_text(claims, "jti", guid) &&
              put_number(claims, "nbf", now_s) && put_number(claims, "iat", now_s) &&
              put_number(claims, "exp", now_s + JWT_LIFE_S);

    return sign_objects(key, client->style, header, claims, ok, err);
}

char *jwt_service_grant(const struct jwt_key *key, const struct jwt_service_account *account,
                        int64_t now_s, struct error *err)
{
    cJSON *header = cJSON_CreateObject();
    cJSON *claims = cJSON_CreateObject();
    bool ok = put_text(header, "alg", "RS256") && put_text(header, "typ", "JWT") &&
              (account->key_id[0] == '\0' || put_text(header, "kid", account->key_id)) &&
              put_text(claims, "iss", account->account) &&
              (account->subject[0] == '\0' || put_text(claims, "sub", account->subject)) &&
              put_text(claims, "scope", account->scope) &&
              put_text(claims, "aud", account->audience) && put_number(claims, "iat", now_s) &&
              put_number(claims, "exp", now_s + JWT_GRANT_LIFE_S);

    return sign_objects(key, JWT_RS256, header, claims, ok, err);
}
