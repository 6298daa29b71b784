#include "relay/signin/sasl.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sasl/sasl.h>

#include "relay/signin/sasl_password.h"
#include "relay/signin/sasl_plug.h"
#include "relay/signin/sasl_token.h"

#define SERVICE   "smtp"
#define LOGIN_MAX 256
/* A file, so that no directory of plug-ins or settings can be below it. "" would mean "/". */
#define NO_PATH   "/dev/null"
#define TEXT_MAX  200
#define CALLBACKS 6
#define SCRAM     "libscram"

struct sasl_client {
    sasl_conn_t *conn;
    sasl_callback_t callbacks[CALLBACKS];
    char mechanism[SASL_MECHNAMEMAX + 1];
    char login[LOGIN_MAX];
    uint16_t port;
    bool with_token;
    sasl_secret_t *secret; /* the library wants it in a form of its own */
    size_t secret_size;
    char log[TEXT_MAX]; /* what the library said last */
    char failure[SASL_FAILURE_MAX];
};

/* ---- what the library asks us ---------------------------------------------------------------- */

typedef void any_fn(void); /* on the way between function types */

#define CALLBACK(fn) ((sasl_callback_ft)(any_fn *)(fn))

static int on_path(void *context, const char **out)
{
    (void)context;
    *out = NO_PATH;
    return SASL_OK;
}

static int on_configuration_path(void *context, char **out)
{
    (void)context;
    *out = strdup(NO_PATH); /* freed by the library */
    return *out != NULL ? SASL_OK : SASL_NOMEM;
}

/* Traces hold what was sent, passwords included. */
static int on_log(void *context, int level, const char *message)
{
    struct sasl_client *c = context;

    if (c != NULL && message != NULL && level < SASL_LOG_DEBUG)
        snprintf(c->log, sizeof(c->log), "%s", message);
    return SASL_OK;
}

static int on_login(void *context, int id, const char **out, unsigned *out_len)
{
    struct sasl_client *c = context;

    (void)id;
    *out = c->login;
    if (out_len != NULL)
        *out_len = (unsigned)strlen(c->login);
    return SASL_OK;
}

static int on_secret(sasl_conn_t *conn, void *context, int id, sasl_secret_t **out)
{
    struct sasl_client *c = context;

    (void)conn;
    (void)id;
    *out = c->secret;
    return SASL_OK;
}

static unsigned on_port(void *context)
{
    const struct sasl_client *c = context;

    return c->port;
}

/* Of all that stands in the library's folder only SCRAM is loaded. */
static int on_verify_file(void *context, const char *file, sasl_verify_type_t type)
{
    const char *name = strrchr(file, '/');

    (void)context;
    if (type != SASL_VRFY_PLUGIN)
        return SASL_OK;
    name = name != NULL ? name + 1 : file;
    return strncmp(name, SCRAM, strlen(SCRAM)) == 0 ? SASL_OK : SASL_CONTINUE;
}

static const sasl_callback_t process_callbacks[] = {
    {SASL_CB_GETPATH, CALLBACK(on_path), NULL},
    {SASL_CB_GETCONFPATH, CALLBACK(on_configuration_path), NULL},
    {SASL_CB_LOG, CALLBACK(on_log), NULL},
    {SASL_CB_LIST_END, NULL, NULL},
};

static const sasl_callback_t process_callbacks_scram[] = {
    {SASL_CB_VERIFYFILE, CALLBACK(on_verify_file), NULL},
    {SASL_CB_GETCONFPATH, CALLBACK(on_configuration_path), NULL},
    {SASL_CB_LOG, CALLBACK(on_log), NULL},
    {SASL_CB_LIST_END, NULL, NULL},
};

/* ---- the process ----------------------------------------------------------------------------- */

bool sasl_setup(bool scram, struct error *err)
{
    int rc = sasl_client_init(scram ? process_callbacks_scram : process_callbacks);

    if (rc != SASL_OK)
        return error_set(err, ERROR_IO, "start libsasl2: %s", sasl_errstring(rc, NULL, NULL));
    rc = sasl_client_add_plugin("outtray", sasl_password_init);
    if (rc == SASL_OK)
        rc = sasl_client_add_plugin("outtray-token", sasl_token_init);
    if (rc == SASL_OK)
        return true;
    sasl_teardown();
    return error_set(err, ERROR_IO, "add our mechanisms to libsasl2: %s",
                     sasl_errstring(rc, NULL, NULL));
}

void sasl_teardown(void)
{
    sasl_client_done();
}

/* ---- one sign-in ----------------------------------------------------------------------------- */

static bool is_control(char octet)
{
    return (unsigned char)octet < 0x20 || octet == 0x7f;
}

static bool is_ascii(const char *text)
{
    while ((unsigned char)*text > 0 && (unsigned char)*text < 0x80)
        text++;
    return *text == '\0';
}

static bool copy_login(struct sasl_client *c, const char *login, struct error *err)
{
    size_t len = strlen(login);

    if (len == 0)
        return error_set(err, ERROR_INVALID, "the login is empty; set it in the mailbox's section");
    if (len >= sizeof(c->login))
        return error_set(err, ERROR_LIMIT, "the login is longer than %d octets", LOGIN_MAX - 1);
    for (size_t i = 0; i < len; i++)
        if (is_control(login[i]))
            return error_set(err, ERROR_INVALID,
                             "the login holds a control character; correct it in the mailbox's "
                             "section");
    if (c->with_token && !is_ascii(login))
        return error_set(err, ERROR_INVALID,
                         "the login holds letters beyond ASCII, which cannot be sent with a token; "
                         "correct it in the mailbox's section");
    memcpy(c->login, login, len + 1);
    return true;
}

/* 0x01 would end it, and a token of the token endpoint holds nothing but visible ASCII (RFC 6750).
 */
static bool check_token(const struct secret *token, struct error *err)
{
    const char *text = secret_text(token);

    for (size_t i = 0; i < secret_length(token); i++)
        if (text[i] <= ' ' || text[i] > '~')
            return error_set(err, ERROR_INVALID,
                             "the access token holds octets that cannot be sent");
    return true;
}

static bool copy_secret(struct sasl_client *c, const struct secret *secret, struct error *err)
{
    size_t len = secret_length(secret);

    if (c->with_token && !check_token(secret, err))
        return false;
    c->secret_size = sizeof(*c->secret) + len;
    c->secret = calloc(1, c->secret_size);
    if (c->secret == NULL)
        return error_set(err, ERROR_NO_ROOM, "no memory for signing in");
    c->secret->len = len;
    memcpy(c->secret->data, secret_text(secret), len);
    return true;
}

static void fill_callbacks(struct sasl_client *c)
{
    /* Without SASL_CB_USER nobody is signed in for somebody else. */
    const sasl_callback_t callbacks[CALLBACKS] = {
        {SASL_CB_GETPATH, CALLBACK(on_path), NULL}, {SASL_CB_LOG, CALLBACK(on_log), c},
        {SASL_CB_AUTHNAME, CALLBACK(on_login), c},  {SASL_CB_PASS, CALLBACK(on_secret), c},
        {SASL_PLUG_CB_PORT, CALLBACK(on_port), c},  {SASL_CB_LIST_END, NULL, NULL},
    };

    memcpy(c->callbacks, callbacks, sizeof(callbacks));
}

/* NOPLAINTEXT: the library lets a mechanism that shows the password pass only above a layer of at
 * least two bits, which is the TLS layer or none. */
static int set_properties(struct sasl_client *c, unsigned ssf)
{
    const sasl_security_properties_t security = {
        .security_flags = SASL_SEC_NOANONYMOUS | SASL_SEC_NOPLAINTEXT,
    };
    const sasl_ssf_t external = ssf;
    int rc = sasl_setprop(c->conn, SASL_SEC_PROPS, &security);

    return rc == SASL_OK ? sasl_setprop(c->conn, SASL_SSF_EXTERNAL, &external) : rc;
}

static bool failed(struct sasl_client *c, int rc, struct error *err)
{
    const char *detail = c->log[0] != '\0' ? c->log : sasl_errstring(rc, NULL, NULL);

    if (rc == SASL_NOMECH)
        return error_set(err, ERROR_INVALID,
                         "%s cannot be used here: it is not known (SCRAM comes with the package "
                         "libsasl2-modules), or it would show the password or token without TLS",
                         c->mechanism);
    return error_set(err, rc == SASL_NOMEM ? ERROR_NO_ROOM : ERROR_INVALID, "%s: %s", c->mechanism,
                     detail);
}

static int start(struct sasl_client *c, const char *host, unsigned ssf, const char **out_response,
                 size_t *out_len)
{
    const char *response = NULL;
    const char *chosen = NULL;
    unsigned len = 0;
    int rc = sasl_client_new(SERVICE, host, NULL, NULL, c->callbacks, 0, &c->conn);

    if (rc == SASL_OK)
        rc = set_properties(c, ssf);
    if (rc == SASL_OK)
        rc = sasl_client_start(c->conn, c->mechanism, NULL, &response, &len, &chosen);
    *out_response = response;
    *out_len = len;
    return rc;
}

/* One word of the characters that names are made of: the library would take a list and choose. */
static bool is_one_mechanism(const char *name)
{
    size_t len = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");

    return len > 0 && len <= SASL_MECHNAMEMAX && name[len] == '\0';
}

static bool is_token_mechanism(const char *name)
{
    return strcmp(name, "XOAUTH2") == 0 || strcmp(name, "OAUTHBEARER") == 0;
}

struct sasl_client *sasl_client_begin(const struct sasl_identity *who, const char *mechanism,
                                      const char **out_response, size_t *out_len, struct error *err)
{
    struct sasl_client *c;
    int rc;

    if (!is_one_mechanism(mechanism)) {
        (void)error_set(err, ERROR_INVALID, "\"%.40s\" is no SASL mechanism", mechanism);
        return NULL;
    }
    c = calloc(1, sizeof(*c));
    if (c == NULL) {
        (void)error_set(err, ERROR_NO_ROOM, "no memory for signing in");
        return NULL;
    }
    snprintf(c->mechanism, sizeof(c->mechanism), "%s", mechanism);
    c->port = who->port;
    c->with_token = is_token_mechanism(mechanism);
    fill_callbacks(c);
    if (copy_login(c, who->login, err) && copy_secret(c, who->secret, err)) {
        rc = start(c, who->host, who->ssf, out_response, out_len);
        if (rc == SASL_OK || rc == SASL_CONTINUE)
            return c;
        (void)failed(c, rc, err);
    }
    sasl_client_end(c);
    return NULL;
}

bool sasl_client_next(struct sasl_client *c, const void *challenge, size_t len,
                      const char **out_response, size_t *out_len, struct error *err)
{
    const char *response = NULL;
    unsigned response_len = 0;
    int rc;

    if (len > UINT_MAX)
        return error_set(err, ERROR_LIMIT, "the server's question is too long");
    if (c->with_token)
        sasl_token_failure(challenge, len, c->failure, sizeof(c->failure));
    c->log[0] = '\0';
    rc = sasl_client_step(c->conn, challenge, (unsigned)len, NULL, &response, &response_len);
    if (rc != SASL_OK && rc != SASL_CONTINUE)
        return failed(c, rc, err);
    *out_response = response != NULL ? response : "";
    *out_len = response_len;
    return true;
}

const char *sasl_client_failure(const struct sasl_client *c)
{
    return c->failure;
}

void sasl_client_end(struct sasl_client *c)
{
    if (c == NULL)
        return;
    if (c->conn != NULL)
        sasl_dispose(&c->conn);
    if (c->secret != NULL)
        explicit_bzero(c->secret, c->secret_size);
    free(c->secret);
    free(c);
}
