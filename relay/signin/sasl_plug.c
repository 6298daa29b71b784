#include "relay/signin/sasl_plug.h"

#include <string.h>

typedef void any_fn(void); /* on the way between function types */
typedef int get_login_fn(void *context, int id, const char **out, unsigned *out_len);
typedef int get_secret_fn(sasl_conn_t *conn, void *context, int id, sasl_secret_t **out);

static any_fn *callback_of(const sasl_client_params_t *params, unsigned long id, void **out_context)
{
    const sasl_utils_t *utils = params->utils;
    sasl_callback_ft proc = NULL;

    if (utils->getcallback(utils->conn, id, &proc, out_context) != SASL_OK)
        return NULL;
    return (any_fn *)proc;
}

int sasl_plug_tell_login(sasl_client_params_t *params, sasl_out_params_t *result)
{
    const char *login = NULL;
    void *context = NULL;
    any_fn *ask = callback_of(params, SASL_CB_AUTHNAME, &context);

    if (ask == NULL || ((get_login_fn *)ask)(context, SASL_CB_AUTHNAME, &login, NULL) != SASL_OK)
        return SASL_FAIL;
    return params->canon_user(params->utils->conn, login, 0, SASL_CU_AUTHID | SASL_CU_AUTHZID,
                              result);
}

int sasl_plug_secret(const sasl_client_params_t *params, const sasl_secret_t **out)
{
    sasl_secret_t *secret = NULL;
    void *context = NULL;
    any_fn *ask = callback_of(params, SASL_CB_PASS, &context);
    int rc;

    if (ask == NULL)
        return SASL_FAIL;
    rc = ((get_secret_fn *)ask)(params->utils->conn, context, SASL_CB_PASS, &secret);
    *out = secret;
    return rc == SASL_OK && secret == NULL ? SASL_FAIL : rc;
}

unsigned sasl_plug_port(const sasl_client_params_t *params)
{
    void *context = NULL;
    any_fn *ask = callback_of(params, SASL_PLUG_CB_PORT, &context);

    return ask != NULL ? ((sasl_plug_port_fn *)ask)(context) : 0;
}

static void forget(struct sasl_plug_exchange *x, const sasl_utils_t *utils)
{
    if (x->out == NULL)
        return;
    explicit_bzero(x->out, x->out_size);
    utils->free(x->out);
    x->out = NULL;
}

char *sasl_plug_room(struct sasl_plug_exchange *x, const sasl_utils_t *utils, size_t size)
{
    forget(x, utils);
    x->out = utils->malloc(size + 1);
    x->out_size = (unsigned)size;
    return x->out;
}

/* What the library calls a connection context. */
struct context {
    const struct sasl_plug_mechanism *mechanism;
    struct sasl_plug_exchange exchange;
};

int sasl_plug_new(void *mechanism, sasl_client_params_t *params, void **out_context)
{
    struct context *c = params->utils->calloc(1, sizeof(*c));

    if (c == NULL)
        return SASL_NOMEM;
    c->mechanism = mechanism;
    *out_context = c;
    return SASL_OK;
}

int sasl_plug_step_any(void *context, sasl_client_params_t *params, const char *challenge,
                       unsigned challenge_len, sasl_interact_t **prompts, const char **out_response,
                       unsigned *out_len, sasl_out_params_t *result)
{
    struct context *c = context;
    struct sasl_plug_exchange *x = &c->exchange;
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

void sasl_plug_dispose(void *context, const sasl_utils_t *utils)
{
    struct context *c = context;

    if (c == NULL)
        return;
    forget(&c->exchange, utils);
    utils->free(c);
}
