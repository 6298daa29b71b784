#include "relay/signin/sasl_server.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sasl/sasl.h>

#include "relay/signin/sasl_capture.h"

#define SERVICE   "smtp"
#define NO_PATH   "/dev/null" /* a file: no plug-in or setting can be below it */
#define CALLBACKS 4

struct sasl_server {
    sasl_conn_t *conn;
    sasl_callback_t callbacks[CALLBACKS];
    char mechanism[SASL_MECHNAMEMAX + 1];
    char *login; /* heard */
    char *password;
    bool begun;
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

/* Its messages can hold what the device said. */
static int on_log(void *context, int level, const char *message)
{
    (void)context;
    (void)level;
    (void)message;
    return SASL_OK;
}

static void forget(char **text)
{
    if (*text != NULL)
        explicit_bzero(*text, strlen(*text));
    free(*text);
    *text = NULL;
}

static char *keep(const char *text, size_t len)
{
    return memchr(text, '\0', len) == NULL ? strndup(text, len) : NULL;
}

static int on_password(sasl_conn_t *conn, void *context, const char *login, const char *password,
                       unsigned len, struct propctx *properties)
{
    struct sasl_server *s = context;

    (void)conn;
    (void)properties;
    forget(&s->login);
    forget(&s->password);
    s->login = strdup(login);
    s->password = keep(password, len);
    return s->login != NULL && s->password != NULL ? SASL_OK : SASL_BADPROT;
}

static const sasl_callback_t process_callbacks[] = {
    {SASL_CB_GETPATH, CALLBACK(on_path), NULL},
    {SASL_CB_GETCONFPATH, CALLBACK(on_configuration_path), NULL},
    {SASL_CB_LOG, CALLBACK(on_log), NULL},
    {SASL_CB_LIST_END, NULL, NULL},
};

/* ---- the process ----------------------------------------------------------------------------- */

bool sasl_server_setup(struct error *err)
{
    int rc = sasl_server_init(process_callbacks, NULL);

    if (rc != SASL_OK)
        return error_set(err, ERROR_IO, "start libsasl2: %s", sasl_errstring(rc, NULL, NULL));
    rc = sasl_server_add_plugin("outtray", sasl_capture_init);
    if (rc == SASL_OK)
        return true;
    sasl_server_teardown();
    return error_set(err, ERROR_IO, "add our mechanisms to libsasl2: %s",
                     sasl_errstring(rc, NULL, NULL));
}

void sasl_server_teardown(void)
{
    (void)sasl_server_done();
}

/* ---- one sign-in ----------------------------------------------------------------------------- */

/* A password may be shown: whether a listener offers it in the clear is the operator's choice. */
static int open_connection(struct sasl_server *s, const char *host)
{
    const sasl_security_properties_t security = {.security_flags = SASL_SEC_NOANONYMOUS};
    const sasl_callback_t callbacks[CALLBACKS] = {
        {SASL_CB_GETPATH, CALLBACK(on_path), NULL},
        {SASL_CB_LOG, CALLBACK(on_log), NULL},
        {SASL_CB_SERVER_USERDB_CHECKPASS, CALLBACK(on_password), s},
        {SASL_CB_LIST_END, NULL, NULL},
    };
    int rc;

    memcpy(s->callbacks, callbacks, sizeof(callbacks));
    rc = sasl_server_new(SERVICE, host, NULL, NULL, NULL, s->callbacks, 0, &s->conn);
    return rc == SASL_OK ? sasl_setprop(s->conn, SASL_SEC_PROPS, &security) : rc;
}

struct sasl_server *sasl_server_begin(const char *host, const char *mechanism, struct error *err)
{
    struct sasl_server *s = calloc(1, sizeof(*s));
    int rc = s != NULL ? open_connection(s, host) : SASL_NOMEM;

    if (rc == SASL_OK) {
        snprintf(s->mechanism, sizeof(s->mechanism), "%s", mechanism);
        return s;
    }
    (void)error_set(err, ERROR_NO_ROOM, "sign in: %s", sasl_errstring(rc, NULL, NULL));
    sasl_server_end(s);
    return NULL;
}

enum sasl_server_step sasl_server_next(struct sasl_server *s, const void *response, size_t len,
                                       const char **out_question, size_t *out_len,
                                       struct error *err)
{
    const char *question = NULL;
    unsigned question_len = 0;
    int rc = SASL_BADPARAM;

    if (len <= UINT_MAX && !s->begun)
        rc = sasl_server_start(s->conn, s->mechanism, response, (unsigned)len, &question,
                               &question_len);
    else if (len <= UINT_MAX)
        rc = sasl_server_step(s->conn, response, (unsigned)len, &question, &question_len);
    s->begun = true;
    if (rc == SASL_OK && s->password != NULL)
        return SASL_SERVER_HEARD;
    if (rc == SASL_CONTINUE) {
        *out_question = question != NULL ? question : "";
        *out_len = question_len;
        return SASL_SERVER_ASKS;
    }
    (void)error_set(err, ERROR_INVALID, "AUTH %s: %s", s->mechanism,
                    sasl_errstring(rc, NULL, NULL));
    return SASL_SERVER_REFUSES;
}

const char *sasl_server_login(const struct sasl_server *s)
{
    return s->login;
}

const char *sasl_server_password(const struct sasl_server *s)
{
    return s->password;
}

void sasl_server_end(struct sasl_server *s)
{
    if (s == NULL)
        return;
    if (s->conn != NULL)
        sasl_dispose(&s->conn);
    forget(&s->login);
    forget(&s->password);
    free(s);
}
