#include "relay/signin/ask.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "relay/base/secret.h"
#include "relay/signin/jwt.h"

#define LOCAL_WAIT_S 30

/* What a Google service account's file says. */
struct account {
    char *email;
    char *key;
    char *key_id;
};

struct ask {
    struct executor_job job; /* first: the executor hands back its address */
    struct ask_settings settings;
    ask_answered *answered;
    void *ctx;
    bool working; /* the executor has it */
    bool cancelled;
    char *refresh;
    char *device_code;
    char *code;
    char *redirect_uri;
    char *verifier;
    uint64_t now_s;      /* corrected, for signing */
    bool is_signed;      /* with now_s */
    struct secret *file; /* of the service account, until it is parsed */
    struct account account;
    char *body;
    struct error err;
    struct https_call *call;
    struct ask_result result;
};

_Static_assert(offsetof(struct ask, job) == 0, "a job is its question");

static const struct oauth_advice local_trouble = {
    .name = "own_files",
    .action = OAUTH_RETRY,
    .wait_s = LOCAL_WAIT_S,
    .what = "What we prove ourselves with cannot be read or used.",
    .who = "whoever looks after this relay",
    .how = "Do as the text says; it is tried again by itself, or at once with: outtray resume "
           "MAILBOX",
};

static const struct oauth_advice unreachable = {
    .name = "unreachable",
    .action = OAUTH_RETRY,
    .what = "The token service cannot be reached.",
    .who = "whoever looks after the network",
    .how = "It is tried again by itself; tokens that still live stay in use.",
};

/* ---- Its life ---- */

static void dispose(struct ask *a)
{
    grant_wipe(a->refresh);
    grant_wipe(a->device_code);
    grant_wipe(a->code);
    grant_wipe(a->redirect_uri);
    grant_wipe(a->verifier);
    grant_wipe(a->account.email);
    grant_wipe(a->account.key);
    grant_wipe(a->account.key_id);
    grant_wipe(a->body);
    secret_free(a->file);
    grant_token_done(&a->result.token);
    grant_device_done(&a->result.device);
    free(a);
}

static void finish(struct ask *a)
{
    if (!a->cancelled)
        a->answered(a->ctx, &a->result);
    dispose(a);
}

static void fail(struct ask *a, const struct oauth_advice *advice, const char *said)
{
    a->result.advice = *advice;
    a->result.wait_s = advice->wait_s;
    (void)snprintf(a->result.said, sizeof(a->result.said), "%s", said);
    finish(a);
}

/* ---- On the executor's thread ---- */

static char *body_of(const struct ask *a, const struct grant_client *client)
{
    switch (a->settings.what) {
    case ASK_DEVICE:
        return grant_device(client);
    case ASK_POLL:
        return grant_device_poll(client, a->device_code);
    case ASK_CODE:
        return grant_code(client, a->code, a->redirect_uri, a->verifier);
    case ASK_TOKEN:
        break;
    }
    return a->settings.config->grant == SIGNIN_PERSON ? grant_refresh(client, a->refresh)
                                                      : grant_client_credentials(client);
}

static char *sign_assertion(struct ask *a)
{
    const struct signin_config *c = a->settings.config;
    const struct jwt_client client = {
        .style = c->style, .client_id = c->client_id, .audience = c->token_url};
    struct jwt_key *key = jwt_key_load(&c->certificate, &a->err);
    char *assertion = NULL;

    if (key == NULL)
        return NULL;
    a->result.certificate_ends_s = jwt_key_end(key);
    a->is_signed = true;
    assertion = jwt_client_assertion(key, &client, (int64_t)a->now_s, &a->err);
    jwt_key_free(key);
    return assertion;
}

static bool write_body(struct ask *a, const char *secret, const char *assertion)
{
    const struct grant_client client = {.client_id = a->settings.config->client_id,
                                        .secret = secret,
                                        .assertion = assertion,
                                        .scope = a->settings.config->scope};

    a->body = body_of(a, &client);
    return a->body != NULL || error_set(&a->err, ERROR_NO_ROOM, "out of memory");
}

static void prove_by_certificate(struct ask *a)
{
    char *assertion = sign_assertion(a);

    if (assertion != NULL)
        (void)write_body(a, "", assertion);
    else
        (void)error_wrap(&a->err, "certificate of mailbox %s", a->settings.config->mailbox);
    jwt_wipe(assertion);
}

static void prove_by_secret(struct ask *a)
{
    struct secret *secret = secret_line_from_file(a->settings.config->secret_file, &a->err);

    if (secret != NULL)
        (void)write_body(a, secret_text(secret), "");
    else
        (void)error_wrap(&a->err, "client secret of mailbox %s", a->settings.config->mailbox);
    secret_free(secret);
}

static void prepare(struct executor_job *job)
{
    struct ask *a = (struct ask *)job;
    const struct signin_config *c = a->settings.config;

    if (c->grant == SIGNIN_SERVICE)
        a->file = secret_from_file(c->service_file, &a->err);
    else if (c->certificate.key[0] != '\0')
        prove_by_certificate(a);
    else if (c->secret_file[0] != '\0')
        prove_by_secret(a);
    else
        (void)write_body(a, "", "");
}

static void sign_service(struct executor_job *job)
{
    struct ask *a = (struct ask *)job;
    const struct signin_config *c = a->settings.config;
    const struct jwt_service_account account = {.key_id = a->account.key_id,
                                                .account = a->account.email,
                                                .subject = c->login,
                                                .scope = c->scope,
                                                .audience = c->token_url};
    struct jwt_key *key =
        jwt_key_parse(c->service_file, a->account.key, strlen(a->account.key), &a->err);
    char *assertion = NULL;

    if (key == NULL)
        return;
    a->is_signed = true;
    assertion = jwt_service_grant(key, &account, (int64_t)a->now_s, &a->err);
    if (assertion != NULL)
        a->body = grant_jwt_bearer(assertion);
    if (assertion != NULL && a->body == NULL)
        (void)error_set(&a->err, ERROR_NO_ROOM, "out of memory");
    jwt_wipe(assertion);
    jwt_key_free(key);
}

/* ---- On the loop's thread ---- */

static void on_prepared(struct executor_job *job);

static void submit(struct ask *a, void (*work)(struct executor_job *job))
{
    a->job = (struct executor_job){.work = work, .done = on_prepared};
    a->working = true;
    a->settings.executor.submit(a->settings.executor.ctx, EXECUTOR_CONTENT, &a->job);
}

static char *copy_text(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

    return cJSON_IsString(item) ? strdup(item->valuestring) : NULL;
}

/* The parser keeps state, so it runs on the loop's thread only. */
static bool parse_account(struct ask *a)
{
    cJSON *object = cJSON_ParseWithLength(secret_text(a->file), secret_length(a->file));
    cJSON *key = cJSON_GetObjectItemCaseSensitive(object, "private_key");

    a->account.email = copy_text(object, "client_email");
    a->account.key = copy_text(object, "private_key");
    a->account.key_id = copy_text(object, "private_key_id");
    if (cJSON_IsString(key))
        explicit_bzero(key->valuestring, strlen(key->valuestring));
    cJSON_Delete(object);
    secret_free(a->file);
    a->file = NULL;
    if (a->account.key_id == NULL)
        a->account.key_id = strdup("");
    return (a->account.email != NULL && a->account.key != NULL && a->account.key_id != NULL) ||
           error_set(&a->err, ERROR_INVALID,
                     "%s: it is no key of a Google service account: client_email or private_key is "
                     "missing; download it again as JSON",
                     a->settings.config->service_file);
}

static void judge(struct ask *a, const struct https_answer *answer, const struct grant_refusal *r)
{
    static const enum oauth_asked kinds[] = {[SIGNIN_APP] = OAUTH_AS_APP,
                                             [SIGNIN_PERSON] = OAUTH_AS_USER,
                                             [SIGNIN_SERVICE] = OAUTH_AS_SERVICE};
    const struct oauth_refusal refusal = {
        .asked = a->settings.what == ASK_TOKEN ? kinds[a->settings.config->grant] : OAUTH_AS_LOGIN,
        .status = answer->status,
        .error = r->error,
        .aadsts = r->aadsts};

    oauth_errors_explain(&refusal, &a->result.advice);
    a->result.wait_s = answer->retry_after_s > a->result.advice.wait_s ? answer->retry_after_s
                                                                       : a->result.advice.wait_s;
    (void)snprintf(a->result.said, sizeof(a->result.said), "%s%s%s", r->error,
                   r->error[0] != '\0' && r->said[0] != '\0' ? ": " : "", r->said);
    memcpy(a->result.trace, r->trace, sizeof(r->trace));
    memcpy(a->result.correlation, r->correlation, sizeof(r->correlation));
}

static void on_answer(void *ctx, const struct https_answer *answer)
{
    struct ask *a = ctx;
    struct grant_refusal refusal;
    enum grant_result result;
    bool moved;

    a->call = NULL;
    if (answer->status == 0) {
        fail(a, &unreachable, answer->error.text);
        return;
    }
    moved = token_clock_learn(a->settings.token_clock, answer->date_s,
                              clock_wall_ms(a->settings.clock) / 1000);
    a->result.clock_was_wrong = moved && a->is_signed;
    if (a->settings.what == ASK_DEVICE)
        result = grant_parse_device(answer->status, answer->body, answer->len, &a->result.device,
                                    &refusal);
    else
        result = grant_parse_token(answer->status, answer->body, answer->len, &a->result.token,
                                   &refusal);
    a->result.given = result == GRANT_GIVEN;
    if (!a->result.given)
        judge(a, answer, &refusal);
    finish(a);
}

static void post(struct ask *a)
{
    const struct signin_config *c = a->settings.config;
    const struct https_request request = {.url = a->settings.what == ASK_DEVICE ? c->device_url
                                                                                : c->token_url,
                                          .body = a->body,
                                          .body_len = strlen(a->body),
                                          .proxy = c->proxy,
                                          .ca_file = c->ca_file};

    a->result.asked_ms = clock_now_ms(a->settings.clock);
    a->call = https_send(a->settings.https, &request, on_answer, a, &a->err);
    grant_wipe(a->body);
    a->body = NULL;
    if (a->call == NULL)
        fail(a, &local_trouble, a->err.text);
}

static void on_prepared(struct executor_job *job)
{
    struct ask *a = (struct ask *)job;

    a->working = false;
    if (a->cancelled)
        dispose(a);
    else if (a->file != NULL && parse_account(a))
        submit(a, sign_service);
    else if (a->body != NULL)
        post(a);
    else
        fail(a, &local_trouble, a->err.text);
}

static bool copy(const char *text, char **out)
{
    if (text == NULL)
        return true;
    *out = strdup(text);
    return *out != NULL;
}

struct ask *ask_begin(const struct ask_settings *settings, ask_answered *answered, void *ctx)
{
    struct ask *a = calloc(1, sizeof(*a));

    if (a == NULL)
        return NULL;
    a->settings = *settings;
    a->answered = answered;
    a->ctx = ctx;
    a->now_s = token_clock_now(settings->token_clock, clock_wall_ms(settings->clock) / 1000);
    if (!copy(settings->refresh, &a->refresh) || !copy(settings->device_code, &a->device_code) ||
        !copy(settings->code, &a->code) || !copy(settings->redirect_uri, &a->redirect_uri) ||
        !copy(settings->verifier, &a->verifier)) {
        dispose(a);
        return NULL;
    }
    submit(a, prepare);
    return a;
}

void ask_cancel(struct ask *a)
{
    if (a == NULL)
        return;
    a->cancelled = true;
    if (a->working)
        return;
    https_cancel(a->call);
    dispose(a);
}
