#include "relay/signin/sasl_token.h"

#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "relay/signin/sasl_plug.h"

#define SEPARATOR   '\x01'
#define FAILURE_MAX 4096 /* octets of JSON that are looked at */
#define GS2_FACTOR  3    /* one octet of a name becomes "=2C" at worst */
#define PORT_TEXT   6
#define HOST_MAX    256
#define LOGIN_MAX   256
#define HEAD_MAX    (GS2_FACTOR * LOGIN_MAX + HOST_MAX + 64)

/* HEAD auth=Bearer TOKEN 0x01 0x01 */
static int say(struct sasl_plug_exchange *x, sasl_client_params_t *params, const char *head,
               size_t head_len)
{
    static const char bearer[] = "auth=Bearer ";
    const sasl_secret_t *token = NULL;
    int rc = sasl_plug_secret(params, &token);
    char *out;

    if (rc != SASL_OK)
        return rc;
    out = sasl_plug_room(x, params->utils, head_len + sizeof(bearer) - 1 + token->len + 2);
    if (out == NULL)
        return SASL_NOMEM;
    memcpy(out, head, head_len);
    out += head_len;
    memcpy(out, bearer, sizeof(bearer) - 1);
    out += sizeof(bearer) - 1;
    memcpy(out, token->data, token->len);
    out += token->len;
    *out++ = SEPARATOR;
    *out = SEPARATOR;
    return SASL_CONTINUE; /* not done: the server may still explain a refusal */
}

static int step_xoauth2(struct sasl_plug_exchange *x, sasl_client_params_t *params,
                        sasl_out_params_t *result)
{
    char head[HEAD_MAX];
    int rc;
    int len;

    if (x->step > 0) {
        (void)sasl_plug_room(x, params->utils, 0);
        return x->out != NULL ? SASL_CONTINUE : SASL_NOMEM;
    }
    rc = sasl_plug_tell_login(params, result);
    if (rc != SASL_OK)
        return rc;
    len = snprintf(head, sizeof(head), "user=%s%c", result->authid, SEPARATOR);
    return len < (int)sizeof(head) ? say(x, params, head, (size_t)len) : SASL_BADPARAM;
}

/* A saslname of RFC 5801: comma and equals sign would end it. */
static void write_saslname(const char *name, char out[GS2_FACTOR * LOGIN_MAX + 1])
{
    for (size_t i = 0; *name != '\0' && i < LOGIN_MAX; name++, i++) {
        if (*name == ',' || *name == '=')
            out += snprintf(out, GS2_FACTOR + 1, "=%s", *name == ',' ? "2C" : "3D");
        else
            *out++ = *name;
    }
    *out = '\0';
}

static int step_oauthbearer(struct sasl_plug_exchange *x, sasl_client_params_t *params,
                            sasl_out_params_t *result)
{
    char name[GS2_FACTOR * LOGIN_MAX + 1];
    char head[HEAD_MAX];
    int rc;
    int len;

    if (x->step > 0) {
        if (sasl_plug_room(x, params->utils, 1) == NULL)
            return SASL_NOMEM;
        x->out[0] = SEPARATOR;
        return SASL_CONTINUE;
    }
    rc = sasl_plug_tell_login(params, result);
    if (rc != SASL_OK)
        return rc;
    write_saslname(result->authid, name);
    len = snprintf(head, sizeof(head), "n,a=%s,%chost=%s%cport=%u%c", name, SEPARATOR,
                   params->serverFQDN, SEPARATOR, sasl_plug_port(params), SEPARATOR);
    return len < (int)sizeof(head) ? say(x, params, head, (size_t)len) : SASL_BADPARAM;
}

static const struct sasl_plug_mechanism xoauth2 = {2, step_xoauth2};
static const struct sasl_plug_mechanism oauthbearer = {2, step_oauthbearer};

/* The library keeps pointers into this table but never writes to it. */
static const sasl_client_plug_t plugs[] = {
    {
        .mech_name = "XOAUTH2",
        .security_flags = SASL_SEC_NOANONYMOUS | SASL_SEC_PASS_CREDENTIALS,
        .features = SASL_FEAT_WANT_CLIENT_FIRST,
        .glob_context = (void *)&xoauth2,
        .mech_new = sasl_plug_new,
        .mech_step = sasl_plug_step_any,
        .mech_dispose = sasl_plug_dispose,
    },
    {
        .mech_name = "OAUTHBEARER",
        .security_flags = SASL_SEC_NOANONYMOUS | SASL_SEC_PASS_CREDENTIALS,
        .features = SASL_FEAT_WANT_CLIENT_FIRST,
        .glob_context = (void *)&oauthbearer,
        .mech_new = sasl_plug_new,
        .mech_step = sasl_plug_step_any,
        .mech_dispose = sasl_plug_dispose,
    },
};

int sasl_token_init(const sasl_utils_t *utils, int max_version, int *out_version,
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

/* ---- what a refusal says --------------------------------------------------------------------- */

/* Appends "NAME VALUE"; a status comes as a number or as a text. */
static void add_member(const cJSON *json, const char *name, char *out, size_t size)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
    size_t used = strlen(out);
    const char *comma = used > 0 ? ", " : "";

    if (cJSON_IsString(item) && item->valuestring[0] != '\0')
        (void)snprintf(out + used, size - used, "%s%s %s", comma, name, item->valuestring);
    else if (cJSON_IsNumber(item))
        (void)snprintf(out + used, size - used, "%s%s %.0f", comma, name, item->valuedouble);
    for (char *p = out + used; *p != '\0'; p++)
        if (*p < ' ' || *p > '~')
            *p = '?';
}

void sasl_token_failure(const void *challenge, size_t len, char *out, size_t size)
{
    static const char *const members[] = {"status", "schemes", "scope"};
    cJSON *json = len <= FAILURE_MAX ? cJSON_ParseWithLength(challenge, len) : NULL;

    out[0] = '\0';
    for (size_t i = 0; json != NULL && i < sizeof(members) / sizeof(members[0]); i++)
        add_member(json, members[i], out, size);
    cJSON_Delete(json);
}
