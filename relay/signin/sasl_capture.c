#include "relay/signin/sasl_capture.h"

#include <stdbool.h>
#include <string.h>

#define ASK_LOGIN    "Username:"
#define ASK_PASSWORD "Password:"
/* The library wants a name for who signed in. Who that is will be decided later, by others, and
 * what it would do to a name (cut blanks, refuse long ones) would get in the way. */
#define SOMEBODY "device"
/* The last one, so that nobody looks for a user in a database that is not there. */
#define NAMES (SASL_CU_AUTHID | SASL_CU_AUTHZID | SASL_CU_EXTERNALLY_VERIFIED)

typedef void any_fn(void); /* on the way between function types */

/* One sign-in. */
struct exchange {
    int (*step)(struct exchange *x, sasl_server_params_t *params, const char *said, unsigned len,
                const char **out_question);
    char *login; /* LOGIN: heard, and the password is next */
    unsigned login_len;
    bool asked;
};

static int hand_over(sasl_server_params_t *params, const char *login, const char *password,
                     unsigned len)
{
    const sasl_utils_t *utils = params->utils;
    sasl_callback_ft proc = NULL;
    void *context = NULL;
    int rc = utils->getcallback(utils->conn, SASL_CB_SERVER_USERDB_CHECKPASS, &proc, &context);

    if (rc != SASL_OK || proc == NULL)
        return SASL_FAIL;
    return ((sasl_server_userdb_checkpass_t *)(any_fn *)proc)(utils->conn, context, login, password,
                                                              len, params->propctx);
}

/* [identity] NUL login NUL password. */
static int step_plain(struct exchange *x, sasl_server_params_t *params, const char *said,
                      unsigned len, const char **out_question)
{
    const char *login = len > 0 ? memchr(said, '\0', len) : NULL;
    const char *password = NULL;

    (void)x;
    (void)out_question;
    if (login != NULL) {
        login++;
        password = memchr(login, '\0', (size_t)(said + len - login));
    }
    if (password == NULL)
        return SASL_BADPROT;
    password++;
    return hand_over(params, login, password, (unsigned)(said + len - password));
}

static void forget(struct exchange *x, const sasl_utils_t *utils)
{
    if (x->login == NULL)
        return;
    explicit_bzero(x->login, x->login_len);
    utils->free(x->login);
    x->login = NULL;
}

static int keep_login(struct exchange *x, const sasl_utils_t *utils, const char *said, unsigned len)
{
    if (memchr(said, '\0', len) != NULL)
        return SASL_BADPROT;
    x->login = utils->malloc((size_t)len + 1);
    if (x->login == NULL)
        return SASL_NOMEM;
    memcpy(x->login, said, len);
    x->login[len] = '\0';
    x->login_len = len;
    return SASL_OK;
}

/* Begins with a question, unless the device has answered it already. */
static int step_login(struct exchange *x, sasl_server_params_t *params, const char *said,
                      unsigned len, const char **out_question)
{
    int rc;

    if (x->login != NULL)
        return hand_over(params, x->login, said, len);
    if (said == NULL && !x->asked) {
        x->asked = true;
        *out_question = ASK_LOGIN;
        return SASL_CONTINUE;
    }
    rc = keep_login(x, params->utils, said != NULL ? said : "", len);
    *out_question = ASK_PASSWORD;
    return rc == SASL_OK ? SASL_CONTINUE : rc;
}

/* ---- the library's side ---------------------------------------------------------------------- */

static int exchange_new(sasl_server_params_t *params, void **out_context, struct exchange how)
{
    struct exchange *x = params->utils->malloc(sizeof(*x));

    if (x == NULL)
        return SASL_NOMEM;
    *x = how;
    *out_context = x;
    return SASL_OK;
}

static int plain_new(void *mechanism, sasl_server_params_t *params, const char *challenge,
                     unsigned len, void **out_context)
{
    (void)mechanism;
    (void)challenge;
    (void)len;
    return exchange_new(params, out_context, (struct exchange){.step = step_plain});
}

static int login_new(void *mechanism, sasl_server_params_t *params, const char *challenge,
                     unsigned len, void **out_context)
{
    (void)mechanism;
    (void)challenge;
    (void)len;
    return exchange_new(params, out_context, (struct exchange){.step = step_login});
}

static int mech_step(void *context, sasl_server_params_t *params, const char *said, unsigned len,
                     const char **out_question, unsigned *out_len, sasl_out_params_t *result)
{
    struct exchange *x = context;
    const char *question = "";
    int rc = x->step(x, params, said, len, &question);

    *out_question = rc == SASL_CONTINUE ? question : NULL;
    *out_len = rc == SASL_CONTINUE ? (unsigned)strlen(question) : 0;
    if (rc != SASL_OK)
        return rc;
    rc = params->canon_user(params->utils->conn, SOMEBODY, 0, NAMES, result);
    result->doneflag = rc == SASL_OK;
    return rc;
}

static void mech_dispose(void *context, const sasl_utils_t *utils)
{
    struct exchange *x = context;

    if (x == NULL)
        return;
    forget(x, utils);
    utils->free(x);
}

/* The library keeps pointers into this table but never writes to it. */
static const sasl_server_plug_t plugs[] = {
    {
        .mech_name = "PLAIN",
        .security_flags = SASL_SEC_NOANONYMOUS | SASL_SEC_PASS_CREDENTIALS,
        .features = SASL_FEAT_WANT_CLIENT_FIRST,
        .mech_new = plain_new,
        .mech_step = mech_step,
        .mech_dispose = mech_dispose,
    },
    {
        .mech_name = "LOGIN",
        .security_flags = SASL_SEC_NOANONYMOUS | SASL_SEC_PASS_CREDENTIALS,
        .mech_new = login_new,
        .mech_step = mech_step,
        .mech_dispose = mech_dispose,
    },
};

int sasl_capture_init(const sasl_utils_t *utils, int max_version, int *out_version,
                      sasl_server_plug_t **out_plugs, int *out_count)
{
    (void)utils;
    if (max_version < SASL_SERVER_PLUG_VERSION)
        return SASL_BADVERS;
    *out_version = SASL_SERVER_PLUG_VERSION;
    *out_plugs = (sasl_server_plug_t *)plugs;
    *out_count = (int)(sizeof(plugs) / sizeof(plugs[0]));
    return SASL_OK;
}
