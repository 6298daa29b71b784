#include "relay/signin/sasl.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sasl/sasl.h>

#include "relay/signin/sasl_password.h"

#define SERVICE   "smtp"
#define LOGIN_MAX 256
/* A file, so that no directory of plug-ins or settings can be below it. "" would mean "/". */
#define NO_PATH   "/dev/null"
#define TEXT_MAX  200
#define CALLBACKS 6

struct sasl_client {
    sasl_conn_t *conn;
    sasl_callback_t callbacks[CALLBACKS];
    char mechanism[SASL_MECHNAMEMAX + 1];
    char login[LOGIN_MAX];
    sasl_secret_t *password; /* the library wants it in a form of its own */
    size_t password_size;
    char log[TEXT_MAX]; /* what the library said last */
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

static int on_password(sasl_conn_t *conn, void *context, int id, sasl_secret_t **out)
{
    struct sasl_client *c = context;

    (void)conn;
    (void)id;
    *out = c->password;
    return SASL_OK;
}

static const sasl_callback_t process_callbacks[] = {
    {SASL_CB_GETPATH, CALLBACK(on_path), NULL},
    {SASL_CB_GETCONFPATH, CALLBACK(on_configuration_path), NULL},
    {SASL_CB_LOG, CALLBACK(on_log), NULL},
    {SASL_CB_LIST_END, NULL, NULL},
};

/* ---- the process ----------------------------------------------------------------------------- */

bool sasl_setup(struct error *err)
{
    int rc = sasl_client_init(process_callbacks);

    if (rc != SASL_OK)
        return error_set(err, ERROR_IO, "start libsasl2: %s", sasl_errstring(rc, NULL, NULL));
    rc = sasl_client_add_plugin("outtray", sasl_password_init);
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

static bool copy_login(struct sasl_client *c, const char *login, struct error *err)
{
    size_t len = strlen(login);

    if (len == 0)
        return error_set(err, ERROR_INVALID, "the login is empty; set it in the mailbox's section");
    if (len >= sizeof(c->login))
        return error_set(err, ERROR_LIMIT, "the login is longer than %d octets", LOGIN_MAX - 1);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)login[i] < 0x20 || login[i] == 0x7f)
            return error_set(err, ERROR_INVALID,
                             "the login holds a control character; correct it in the mailbox's "
                             "section");
    memcpy(c->login, login, len + 1);
    return true;
}

static bool copy_password(struct sasl_client *c, const struct secret *password, struct error *err)
{
    size_t len = secret_length(password);

    c->password_size = sizeof(*c->password) + len;
    c->password = calloc(1, c->password_size);
    if (c->password == NULL)
        return error_set(err, ERROR_NO_ROOM, "no memory for the password");
    c->password->len = len;
    memcpy(c->password->data, secret_text(password), len);
    return true;
}

static void fill_callbacks(struct sasl_client *c)
{
    const sasl_callback_t callbacks[CALLBACKS] = {
        {SASL_CB_GETPATH, CALLBACK(on_path), NULL}, {SASL_CB_LOG, CALLBACK(on_log), c},
        {SASL_CB_USER, CALLBACK(on_login), c},      {SASL_CB_AUTHNAME, CALLBACK(on_login), c},
        {SASL_CB_PASS, CALLBACK(on_password), c},   {SASL_CB_LIST_END, NULL, NULL},
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
                         "%s cannot be used here: it is not known, or it would show the password "
                         "without TLS",
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

struct sasl_client *sasl_client_begin(const char *host, const char *mechanism, const char *login,
                                      const struct secret *password, unsigned ssf,
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
    fill_callbacks(c);
    if (copy_login(c, login, err) && copy_password(c, password, err)) {
        rc = start(c, host, ssf, out_response, out_len);
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
    c->log[0] = '\0';
    rc = sasl_client_step(c->conn, challenge, (unsigned)len, NULL, &response, &response_len);
    if (rc != SASL_OK && rc != SASL_CONTINUE)
        return failed(c, rc, err);
    *out_response = response != NULL ? response : "";
    *out_len = response_len;
    return true;
}

void sasl_client_end(struct sasl_client *c)
{
    if (c == NULL)
        return;
    if (c->conn != NULL)
        sasl_dispose(&c->conn);
    if (c->password != NULL)
        explicit_bzero(c->password, c->password_size);
    free(c->password);
    free(c);
}
