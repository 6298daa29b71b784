#include "relay/signin/sasl_password.h"

#include <string.h>

#include "relay/signin/sasl_plug.h"

/* NUL login NUL password, at once. */
static int step_plain(struct sasl_plug_exchange *x, sasl_client_params_t *params,
                      sasl_out_params_t *result)
{
    const sasl_secret_t *password = NULL;
    int rc = sasl_plug_tell_login(params, result);
    char *out;

    if (rc == SASL_OK)
        rc = sasl_plug_secret(params, &password);
    if (rc != SASL_OK)
        return rc;
    out = sasl_plug_room(x, params->utils, 2 + result->alen + password->len);
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
static int step_login(struct sasl_plug_exchange *x, sasl_client_params_t *params,
                      sasl_out_params_t *result)
{
    const sasl_secret_t *password = NULL;
    int rc;

    if (x->step == 0) {
        rc = sasl_plug_tell_login(params, result);
        if (rc != SASL_OK)
            return rc;
        if (sasl_plug_room(x, params->utils, result->alen) == NULL)
            return SASL_NOMEM;
        memcpy(x->out, result->authid, result->alen);
        return SASL_CONTINUE;
    }
    rc = sasl_plug_secret(params, &password);
    if (rc != SASL_OK)
        return rc;
    if (sasl_plug_room(x, params->utils, password->len) == NULL)
        return SASL_NOMEM;
    memcpy(x->out, password->data, password->len);
    result->doneflag = 1;
    return SASL_OK;
}

static const struct sasl_plug_mechanism plain = {1, step_plain};
static const struct sasl_plug_mechanism login = {2, step_login};

/* The library keeps pointers into this table but never writes to it. */
static const sasl_client_plug_t plugs[] = {
    {
        .mech_name = "PLAIN",
        .security_flags = SASL_SEC_NOANONYMOUS | SASL_SEC_PASS_CREDENTIALS,
        .features = SASL_FEAT_WANT_CLIENT_FIRST,
        .glob_context = (void *)&plain,
        .mech_new = sasl_plug_new,
        .mech_step = sasl_plug_step_any,
        .mech_dispose = sasl_plug_dispose,
    },
    {
        .mech_name = "LOGIN",
        .security_flags = SASL_SEC_NOANONYMOUS | SASL_SEC_PASS_CREDENTIALS,
        .features = SASL_FEAT_WANT_CLIENT_FIRST,
        .glob_context = (void *)&login,
        .mech_new = sasl_plug_new,
        .mech_step = sasl_plug_step_any,
        .mech_dispose = sasl_plug_dispose,
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
