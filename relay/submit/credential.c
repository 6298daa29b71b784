#include "relay/submit/credential.h"

#include "relay/base/log.h"
#include "relay/base/random.h"

static uint64_t now_of(const struct credential *c)
{
    return clock_now_ms(c->clock);
}

static bool has_oauth(const struct credential *c)
{
    return c->signins != NULL && c->mailbox->config->has_oauth;
}

/* ---- asking for a token ---------------------------------------------------------------------- */

static uint64_t wait_until(uint64_t when_ms, uint64_t now_ms)
{
    return when_ms == TOKEN_NEVER || when_ms <= now_ms ? 0 : when_ms - now_ms;
}

static void tell_trouble(struct credential *c, const struct signins_trouble *trouble)
{
    enum verdict_action action = trouble->state == TOKEN_WAITING ? VERDICT_BACK : VERDICT_PAUSE;
    const struct verdict v = {.name = trouble->name,
                              .action = action,
                              .again = action,
                              .scope = SCOPE_MAILBOX,
                              .wait_ms = wait_until(trouble->retry_ms, now_of(c)),
                              .what = trouble->what,
                              .who = trouble->who,
                              .how = trouble->how};
    mailbox_no_token(c->mailbox, &v, trouble->said[0] != '\0' ? trouble->said : trouble->what,
                     now_of(c), random_draw());
}

static void on_answer(void *ctx, const struct signins_token *token,
                      const struct signins_trouble *trouble)
{
    struct credential *c = ctx;
    c->asking = NULL;
    if (token != NULL)
        mailbox_give_token(c->mailbox, token->text, token->generation, token->ends_ms, now_of(c));
    else
        tell_trouble(c, trouble);
    c->on_change(c->ctx);
}

static void choose(struct credential *c)
{
    bool was = c->mailbox->with_token;
    mailbox_choose_signin(c->mailbox, signins_is_set_up(c->signins, c->index));
    if (was && !c->mailbox->with_token)
        log_event(LOG_LEVEL_WARN, "password-instead", LOG_STR("mailbox", c->mailbox->config->name),
                  LOG_STR("reason", "OAuth is not set up: nobody has signed in yet"),
                  LOG_STR("remedy", "run \"outtray login\" for this mailbox"), LOG_END);
}

bool credential_is_ready(struct credential *c)
{
    if (!has_oauth(c))
        return true;
    choose(c);
    if (!mailbox_needs_token(c->mailbox, now_of(c)))
        return true;
    if (c->asking == NULL)
        c->asking = signins_get(c->signins, c->index, on_answer, c);
    return false;
}

uint64_t credential_generation(const struct credential *c)
{
    return c->mailbox->with_token ? c->mailbox->token_generation : 0;
}

/* ---- what became of it ----------------------------------------------------------------------- */

void credential_accepted(struct credential *c)
{
    if (has_oauth(c) && c->mailbox->with_token)
        signins_accepted(c->signins, c->index);
}

static void judge(struct credential *c, const struct verdict *v, enum client_stage stage,
                  const struct reply *reply)
{
    mailbox_judge(c->mailbox, v, stage, reply, now_of(c), random_draw());
}

/* The probe's time is chosen where the next token comes from. */
static void judge_until(struct credential *c, const struct verdict *v, enum client_stage stage,
                        const struct reply *reply, uint64_t probe_ms)
{
    struct verdict lasting = *v;
    uint64_t wait = wait_until(probe_ms, now_of(c));
    if (wait > 0)
        lasting.wait_ms = wait;
    mailbox_judge(c->mailbox, &lasting, stage, reply, now_of(c), 0);
}

void credential_judge(struct credential *c, const struct verdict *v, enum client_stage stage,
                      const struct reply *reply, uint64_t generation)
{
    struct mailbox *m = c->mailbox;
    uint64_t probe_ms = 0;
    if (!has_oauth(c) || !m->with_token || !v->fresh_token) {
        judge(c, v, stage, reply);
        return;
    }
    if (generation <= c->refused) /* of several connections, one has told already */
        return;
    c->refused = generation;
    if (m->token_generation <= generation)
        mailbox_drop_token(m);
    bool fresh = mailbox_may_freshen(m, v, stage);
    if (signins_refused(c->signins, c->index, generation, &probe_ms) == SIGNINS_PAUSE)
        judge_until(c, v, stage, reply, probe_ms);
    else if (!fresh)
        judge(c, v, stage, reply);
    else
        log_event(LOG_LEVEL_WARN, "token-refused", LOG_STR("mailbox", m->config->name),
                  LOG_STR("stage", client_stage_name(stage)), LOG_U64("code", reply->code),
                  LOG_STR("reply", reply->text), LOG_STR("remedy", "a fresh token is tried, once"),
                  LOG_END);
}

void credential_retry(struct credential *c)
{
    if (has_oauth(c))
        signins_retry(c->signins, c->index);
}

void credential_tick(struct credential *c)
{
    struct mailbox *m = c->mailbox;
    struct signins_status status;
    if (!m->token_missing || !has_oauth(c))
        return;
    signins_status(c->signins, c->index, &status);
    if (!status.has_token)
        return;
    m->token_missing = false;
    mailbox_resume(m);
    c->on_change(c->ctx);
}

void credential_stop(struct credential *c)
{
    signins_cancel(c->asking);
    c->asking = NULL;
}
