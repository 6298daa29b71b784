#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "relay/signin/jwt.h"
#include "relay/signin/pkce.h"
#include "relay/smtp/base64.h"

#define NOW INT64_C(1790000000)

static char directory[64];

static const char *path(const char *name)
{
    static char paths[4][128];
    static unsigned turn;
    char *p = paths[turn++ % 4];

    (void)snprintf(p, sizeof(paths[0]), "%s/%s", directory, name);
    return p;
}

static void run(const char *arguments)
{
    char command[1024];

    (void)snprintf(command, sizeof(command), "cd %s && umask 077 && %s", directory, arguments);
    assert_int_equal(system(command), 0);
}

/* Made by the openssl command, so that nothing of ours judges itself. */
static int make_keys(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof(directory), "/tmp/outtray-jwt-XXXXXX");
    assert_non_null(mkdtemp(directory));
    run("exec 2>openssl.log; openssl req -x509 -newkey rsa:2048 -nodes -days 100 -subj /CN=one "
        "-keyout one.key -out one.crt && cat one.key one.crt > one.pem && "
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=two -keyout two.key "
        "-out two.crt && cat two.crt one.crt one.key > chain.pem && "
        "openssl pkcs12 -export -in one.pem -out one.p12 -passout pass:secret && "
        "openssl pkcs12 -export -in one.pem -out open.p12 -passout pass: && "
        "openssl rsa -in one.key -aes256 -passout pass:secret -out locked.key && "
        "openssl pkey -in one.key -outform DER -out one.der && "
        "openssl ecparam -name prime256v1 -genkey -noout -out ec.key && "
        "openssl genrsa -out small.key 1024 && "
        "printf 'secret\\n' > password && printf 'wrong\\n' > wrong && echo rubbish > rubbish && "
        "cp one.pem public.pem && chmod 644 public.pem");
    return 0;
}

static int remove_keys(void **state)
{
    (void)state;
    run("rm -f *");
    return rmdir(directory);
}

static struct jwt_key *load(const char *key, const char *certificate, const char *password,
                            struct error *err)
{
    const struct jwt_source s = {.key = path(key),
                                 .certificate = certificate[0] != '\0' ? path(certificate) : "",
                                 .password_file = password[0] != '\0' ? path(password) : ""};

    error_clear(err);
    return jwt_key_load(&s, err);
}

static const struct {
    const char *key;
    const char *certificate;
    const char *password;
} good[] = {
    {"one.pem", "", ""},         {"one.key", "one.crt", ""}, {"chain.pem", "", ""},
    {"one.p12", "", "password"}, {"open.p12", "", ""},       {"locked.key", "one.crt", "password"},
    {"one.der", "one.crt", ""},
};

static void keys_come_from_every_usual_kind_of_file(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct error err = ERROR_INIT;
        struct jwt_key *k = load(good[i].key, good[i].certificate, good[i].password, &err);

        print_message("  %s: %s\n", good[i].key, err.text);
        assert_non_null(k);
        assert_in_range(jwt_key_end(k) - (int64_t)time(NULL), 99 * 86400, 100 * 86400);
        jwt_key_free(k);
    }
}

static void what_cannot_be_used_is_named_with_its_remedy(void **state)
{
    static const struct {
        const char *key;
        const char *certificate;
        const char *password;
        const char *said;
    } rows[] = {
        {"absent", "", "", "No such file"},
        {"rubbish", "", "", "neither key nor certificate is in it"},
        {"one.key", "", "", "there is no certificate in it"},
        {"one.crt", "", "", "there is no private key in it"},
        {"two.key", "one.crt", "", "its certificate is not the one of the private key"},
        {"locked.key", "one.crt", "", "it is encrypted; write its password to a file"},
        {"locked.key", "one.crt", "wrong", "its password is not the one in the file"},
        {"one.p12", "", "", "it is encrypted"},
        {"one.p12", "", "wrong", "its password is not the one in the file"},
        {"ec.key", "one.crt", "", "not an RSA key"},
        {"small.key", "one.crt", "", "1024 bits; 2048 are needed"},
        {"public.pem", "", "", "chmod o="},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct error err = ERROR_INIT;
        struct jwt_key *k = load(rows[i].key, rows[i].certificate, rows[i].password, &err);

        print_message("  %s: %s\n", rows[i].key, err.text);
        assert_null(k);
        assert_non_null(strstr(err.text, rows[i].said));
        assert_non_null(strstr(err.text, directory));
    }
}

/* ---- What they sign ---- */

struct parts {
    cJSON *header;
    cJSON *claims;
};

static cJSON *json_of(const char *text, size_t len)
{
    uint8_t out[2048];
    size_t out_len;
    cJSON *object;

    assert_true(len < sizeof(out) && base64url_decode(text, len, out, &out_len));
    object = cJSON_ParseWithLength((const char *)out, out_len);
    assert_non_null(object);
    return object;
}

static bool verify(const char *token, bool is_pss)
{
    const char *dot = strrchr(token, '.');
    FILE *f = fopen(path("one.crt"), "r");
    X509 *cert = PEM_read_X509(f, NULL, NULL, NULL);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    EVP_PKEY_CTX *ctx = NULL;
    uint8_t signature[512];
    size_t len;
    bool ok;

    fclose(f);
    assert_true(base64url_decode(dot + 1, strlen(dot + 1), signature, &len));
    assert_int_equal(EVP_DigestVerifyInit(md, &ctx, EVP_sha256(), NULL, X509_get0_pubkey(cert)), 1);
    if (is_pss) {
        assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING), 1);
        assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, 32), 1);
    }
    ok = EVP_DigestVerify(md, signature, len, (const uint8_t *)token, (size_t)(dot - token)) == 1;
    EVP_MD_CTX_free(md);
    X509_free(cert);
    return ok;
}

static struct parts take_apart(const char *token)
{
    const char *dot = strchr(token, '.');

    assert_non_null(dot);
    return (struct parts){json_of(token, (size_t)(dot - token)),
                          json_of(dot + 1, strcspn(dot + 1, "."))};
}

static void parts_done(struct parts *p)
{
    cJSON_Delete(p->header);
    cJSON_Delete(p->claims);
}

static void assert_text(const cJSON *object, const char *key, const char *expected)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));

    assert_non_null(text);
    assert_string_equal(text, expected);
}

static void assert_number(const cJSON *object, const char *key, int64_t expected)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

    assert_true(cJSON_IsNumber(item));
    assert_int_equal((int64_t)item->valuedouble, expected);
}

static void assert_thumbprint(const cJSON *header, const char *key, const char *digest)
{
    char command[256];
    char expected[128] = "";
    FILE *f;

    (void)snprintf(
        command, sizeof(command),
        "openssl x509 -in %s -outform DER | openssl dgst -%s -binary | openssl base64 -A "
        "| tr '+/' '-_' | tr -d =",
        path("one.crt"), digest);
    f = popen(command, "r");
    assert_non_null(fgets(expected, sizeof(expected), f));
    pclose(f);
    assert_text(header, key, expected);
}

static void an_assertion_is_what_microsoft_documents(void **state)
{
    static const struct {
        enum jwt_style style;
        const char *alg;
        const char *name;
        const char *digest;
    } rows[] = {
        {JWT_PS256, "PS256", "x5t#S256", "sha256"},
        {JWT_RS256, "RS256", "x5t", "sha1"},
    };
    struct error err = ERROR_INIT;
    struct jwt_key *k = load("one.pem", "", "", &err);

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const struct jwt_client c = {
            .style = rows[i].style, .client_id = "app-1", .audience = "https://l/token\"\\"};
        char *token = jwt_client_assertion(k, &c, NOW, &err);
        char *other = jwt_client_assertion(k, &c, NOW, &err);
        struct parts p;

        assert_non_null(token);
        p = take_apart(token);
        assert_text(p.header, "alg", rows[i].alg);
        assert_text(p.header, "typ", "JWT");
        assert_thumbprint(p.header, rows[i].name, rows[i].digest);
        assert_int_equal(cJSON_GetArraySize(p.header), 3);
        assert_text(p.claims, "aud", "https://l/token\"\\");
        assert_text(p.claims, "iss", "app-1");
        assert_text(p.claims, "sub", "app-1");
        assert_number(p.claims, "nbf", NOW);
        assert_number(p.claims, "iat", NOW);
        assert_number(p.claims, "exp", NOW + 600);
        assert_int_equal(strlen(cJSON_GetStringValue(cJSON_GetObjectItem(p.claims, "jti"))), 36);
        assert_true(verify(token, rows[i].style == JWT_PS256));
        assert_false(verify(token, rows[i].style != JWT_PS256));
        assert_string_not_equal(token, other); /* a new jti each time */
        parts_done(&p);
        jwt_wipe(token);
        jwt_wipe(other);
    }
    jwt_key_free(k);
}

static void a_service_account_asks_as_google_documents(void **state)
{
    const struct jwt_service_account a = {.key_id = "k1",
                                          .account = "robot@project.test",
                                          .subject = "scanner@office.test",
                                          .scope = "https://mail.google.com/",
                                          .audience = "https://oauth2.test/token"};
    struct error err = ERROR_INIT;
    struct jwt_key *k = NULL;
    char pem[8192];
    FILE *f = fopen(path("one.key"), "r");
    size_t len = fread(pem, 1, sizeof(pem), f);
    char *token;
    struct parts p;

    (void)state;
    fclose(f);
    k = jwt_key_parse("google.json", pem, len, &err);
    assert_non_null(k);
    assert_int_equal(jwt_key_end(k), 0);
    token = jwt_service_grant(k, &a, NOW, &err);
    assert_non_null(token);
    p = take_apart(token);
    assert_text(p.header, "alg", "RS256");
    assert_text(p.header, "kid", "k1");
    assert_text(p.claims, "iss", "robot@project.test");
    assert_text(p.claims, "sub", "scanner@office.test");
    assert_text(p.claims, "scope", "https://mail.google.com/");
    assert_text(p.claims, "aud", "https://oauth2.test/token");
    assert_number(p.claims, "iat", NOW);
    assert_number(p.claims, "exp", NOW + 3600);
    assert_true(verify(token, false));
    parts_done(&p);
    jwt_wipe(token);
    jwt_key_free(k);
    assert_null(jwt_key_parse("google.json", "rubbish", 7, &err));
    assert_non_null(strstr(err.text, "google.json: its private key cannot be read"));
}

static void the_challenge_is_that_of_the_rfc(void **state)
{
    char verifier[PKCE_TEXT];
    char other[PKCE_TEXT];
    char challenge[PKCE_TEXT];

    (void)state;
    assert_true(pkce_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", challenge));
    assert_string_equal(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    assert_true(pkce_random(verifier) && pkce_random(other));
    assert_int_equal(strlen(verifier), 43);
    assert_false(pkce_equal(verifier, other));
    assert_true(pkce_equal(verifier, verifier));
    assert_false(pkce_equal("a", ""));
    assert_false(pkce_equal("", "a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_come_from_every_usual_kind_of_file),
        cmocka_unit_test(what_cannot_be_used_is_named_with_its_remedy),
        cmocka_unit_test(an_assertion_is_what_microsoft_documents),
        cmocka_unit_test(a_service_account_asks_as_google_documents),
        cmocka_unit_test(the_challenge_is_that_of_the_rfc),
    };

    return cmocka_run_group_tests(tests, make_keys, remove_keys);
}
