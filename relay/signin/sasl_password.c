#include "relay/signin/sasl_password.h"

#include <string.h>

/* One sign-in. The output is the library's until the next step or the end. */
struct exchange {
    unsigned step;
    char *out;
    unsigned out_size;
};

typedef void any_fn(void); /* on the way between function types */
typedef int get_login_fn(void *context, int id, const char **out, unsigned *out_len);
typedef int get_password_fn(sasl_conn_t *conn, void *context, int id, sasl_secret_t **out);

static int get_login(const sasl_client_params_t *params, const char **out)
{
    const sasl_utils_t *utils = params->utils;
    sasl_callback_ft proc = NULL;
    void *context = NULL;
    int rc = utils->getcallback(utils->conn, SASL_CB_AUTHNAME, &proc, &context);

    if (rc != SASL_OK || proc == NULL)
        return SASL_FAIL;
    return ((get_login_fn *)(any_fn *)proc)(context, SASL_CB_AUTHNAME, out, NULL);
}

static int get_password(const sasl_client_params_t *params, const sasl_secret_t **out)
{
    const sasl_utils_t *utils = params->utils;
    sasl_callback_ft proc = NULL;
    void *context = NULL;
    sasl_secret_t *secret = NULL;
    int rc = utils->getcallback(utils->conn, SASL_CB_PASS, &proc, &context);

    if (rc != SASL_OK || proc == NULL)
        return SASL_FAIL;
    rc = ((get_password_fn *)(any_fn *)proc)(utils->conn, context, SASL_CB_PASS, &secret);
    *out = secret;
    return rc == SASL_OK && secret == NULL ? SASL_FAIL : rc;
}

static void forget(struct exchange *x, const sasl_utils_t *utils)
{
    if (x->out == NULL)
        return;
    explicit_bzero(x->out, x->out_size);
    utils->free(x->out);
    x->out = NULL;
}

/* Replaces the output by room for size octets. */
static char *make_room(struct exchange *x, const sasl_utils_t *utils, size_t size)
{
    forget(x, utils);
    x->out = utils->malloc(size + 1);
    x->out_size = (unsigned)size;
    return x->out;
}

/* The library takes no name for known until it is told one, and fails at the end without. */
static int tell_login(sasl_client_params_t *params, sasl_out_params_t *result)
{
    const char *login = NULL;
    int rc = get_login(params, &login);

    if (rc != SASL_OK)
        return rc;
    return params->canon_user(params->utils->conn, login, 0, SASL_CU_AUTHID | SASL_CU_AUTHZID,
                              result);
}

/* NUL login NUL password, at once. */
static int step_plain(struct exchange *x, sasl_client_params_t *params, sasl_out_params_t *result)
{
    const sasl_secret_t *password = NULL;
    int rc = tell_login(params, result);
    char *out;

    if (rc == SASL_OK)
        rc = get_password(params, &password);
    if (rc != SASL_OK)
        return rc;
    out = make_room(x, params->utils, 2 + result->alen + password->len);
    if (out == NULL)
        return SASL_NOMEM;
    *out++ = '\0';
    memcpy(out, result->authid, result->alen);
    out += result->alen;
    *out++ = '\0';
    memcpy(out, password->data, password->len);
    result->doneflag = 1;
    return SASL_OK;
}

/* Two questions, whose texts say nothing: the first answer is the login, the second the password.
 * The login is offered at once, which saves a round trip, and waits for its question if need be. */
static int step_login(struct exchange *x, sasl_client_params_t *params, sasl_out_params_t *result)
{
    const sasl_secret_t *password = NULL;
    int rc;

    if (x->step == 0) {
        rc = tell_login(params, result);
        if (rc != SASL_OK)
            return rc;
        if (make_room(x, params->utils, result->alen) == NULL)
            return SASL_NOMEM;
        memcpy(x->out, result->authid, result->alen);
        return SASL_CONTINUE;
    }
    rc = get_password(params, &password);
    if (rc != SASL_OK)
        return rc;
    if (make_room(x, params->utils, password->len) == NULL)
        return SASL_NOMEM;
    memcpy(x->out, password->data, password->len);
    result->doneflag = 1;
    return SASL_OK;
}

typedef int step_fn(struct exchange *x, sasl_client_params_t *params, sasl_out_params_t *result);

struct mechanism {
    unsigned steps;
    step_fn *step;
};

static const struct mechanism plain = {1, step_plain};
static const struct mechanism login = {2, step_login};

/* What the library calls a connection context. */
struct context {
    const struct mechanism *mechanism;
    struct exchange exchange;
};

static int mech_new(void *mechanism, sasl_client_params_t *params, void **out_context)
{
    struct context *c = params->utils->calloc(1, sizeof(*c));

    if (c == NULL)
        return SASL_NOMEM;
    c->mechanism = mechanism;
    *out_context = c;
    return SASL_OK;
}

static int mech_step(void *context, sasl_client_params_t *params, const char *challenge,
                     unsigned challenge_len, sasl_interact_t **prompts, const char **out_response,
                     unsigned *out_len, sasl_out_params_t *result)
{
    struct context *c = context;
    struct exchange *x = &c->exchange;
    int rc;

    (void)challenge;
    (void)challenge_len;
    (void)prompts;
    if (x->step >= c->mechanism->steps)
        return SASL_BADPROT;
    rc = c->mechanism->step(x, params, result);
    if (rc != SASL_OK && rc != SASL_CONTINUE)
        return rc;
    x->step++;
    *out_response = x->out;
    *out_len = x->out_size;
    return rc;
}

static void mech_dispose(void *context, const sasl_utils_t *utils)
{
    struct context *c = context;

    if (c == NULL)
        return;
    forget(&c->exchange, utils);
    utils->free(c);
}

/* The library keeps pointers into this table but never writes to it. */
static const sasl_client_plug_t plugs[] = {
    {
        .mech_name = "PLAIN",
        .security_flags = SASL_SEC_NOANONYMOUS | SASL_SEC_PASS_CREDENTIALS,
        .features = SASL_FEAT_WANT_CLIENT_FIRST,
        .glob_context = (void *)&plain,
        .mech_new = mech_new,
        .mech_step = mech_step,
        .mech_dispose = mech_dispose,
    },
    {
        .mech_name = "LOGIN",
        .security_flags = SASL_SEC_NOANONYMOUS | SASL_SEC_PASS_CREDENTIALS,
        .features = SASL_FEAT_WANT_CLIENT_FIRST,
        .glob_context = (void *)&login,
        .mech_new = mech_new,
        .mech_step = mech_step,
        .mech_dispose = mech_dispose,
    },
};

int sasl_password_init(const sasl_utils_t *utils, int max_version, int *out_version,
                       sasl_client_plug_t **out_plugs, int *out_count)
{
    (void)utils;
    if (max_version < SASL_CLIENT_PLUG_VERSION)
        return SASL_BADVERS;
    *out_version = SASL_CLIENT_PLUG_VERSION;
    *out_plugs = (sasl_client_plug_t *)plugs;
    *out_count = (int)(sizeof(plugs) / sizeof(plugs[0]));
    return SASL_OK;
}
