#include "relay/submit/mailbox.h"

#include <stdio.h>
#include <string.h>

#include "queue/backoff.h"
#include "relay/base/log.h"

static const char *const state_names[] = {
    [MAILBOX_READY] = "ready", [MAILBOX_WAITING] = "waiting", [MAILBOX_PAUSED] = "paused"};

const char *mailbox_state_name(enum mailbox_state state)
{
    return state_names[state];
}

bool mailbox_init(struct mailbox *m, const struct config_mailbox *config, struct error *err)
{
    const struct budget_limits limits = {.connections = config->connections,
                                         .messages_per_minute = config->messages_per_minute,
                                         .recipients_per_day = config->recipients_per_day,
                                         .urgent_reserve = config->urgent_reserve};
    *m = (struct mailbox){.config = config, .max_size = config->max_size};
    mailbox_choose_signin(m, true);
    m->budget = budget_new(&limits);
    return m->budget != NULL || error_set(err, ERROR_NO_ROOM, "out of memory");
}

void mailbox_done(struct mailbox *m)
{
    budget_free(m->budget);
    secret_free(m->password);
    secret_free(m->token);
    tls_context_free(m->tls);
    *m = (struct mailbox){.config = NULL};
}

bool mailbox_is_usable(const struct mailbox *m, uint64_t now_ms)
{
    return m->state == MAILBOX_READY || now_ms >= m->next_try_ms;
}

uint32_t mailbox_connections_allowed(const struct mailbox *m, uint64_t now_ms)
{
    return m->state == MAILBOX_READY && m->proven ? budget_connections_allowed(m->budget, now_ms)
                                                  : 1;
}

/* ---- trouble --------------------------------------------------------------------------------- */

static uint64_t with_jitter(uint64_t ms, uint32_t jitter)
{
    return ms + jitter % (ms + 1);
}

static void mailbox_wait(struct mailbox *m, enum mailbox_state state, uint64_t wait_ms,
                         uint64_t now_ms)
{
    if (m->state == MAILBOX_READY)
        m->trouble_since_ms = now_ms;
    m->state = state;
    m->next_try_ms = now_ms + wait_ms;
    log_event(state == MAILBOX_PAUSED ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN, "mailbox-trouble",
              LOG_STR("mailbox", m->config->name), LOG_STR("state", mailbox_state_name(state)),
              LOG_MS("wait", wait_ms), LOG_STR("reason", m->problem), LOG_STR("remedy", m->remedy),
              LOG_STR("reply", m->last_reply), LOG_END);
}

static void mailbox_back_off(struct mailbox *m, uint64_t at_least_ms, uint64_t now_ms,
                             uint32_t jitter)
{
    m->troubles++;
    uint64_t lasting = m->state == MAILBOX_READY ? 0 : now_ms - m->trouble_since_ms;
    uint64_t wait = backoff_wait(&backoff_mailbox, m->troubles, lasting, jitter);
    mailbox_wait(m, MAILBOX_WAITING, wait > at_least_ms ? wait : at_least_ms, now_ms);
}

static void mailbox_pause(struct mailbox *m, uint64_t pause_ms, uint64_t now_ms, uint32_t jitter)
{
    m->troubles++;
    mailbox_wait(m, MAILBOX_PAUSED,
                 with_jitter(pause_ms != 0 ? pause_ms : MAILBOX_PAUSE_MS, jitter), now_ms);
}

/* One connection less; when one alone is too many, others use the mailbox and time must help. */
static void mailbox_crowded(struct mailbox *m, uint64_t now_ms, uint32_t jitter)
{
    bool last = budget_connections_allowed(m->budget, now_ms) == 1 ||
                budget_connections_open(m->budget, now_ms) <= 1;
    budget_shrink(m->budget, now_ms);
    if (last)
        mailbox_back_off(m, 0, now_ms, jitter);
}

/* Told by 421 to go away, by a service that had let several in: fewer come back. */
static void mailbox_turned_away(struct mailbox *m, const struct verdict *v,
                                const struct reply *reply, uint64_t now_ms)
{
    if (reply->code == 421 && v->action == VERDICT_BACK &&
        budget_connections_open(m->budget, now_ms) > 1)
        budget_shrink(m->budget, now_ms);
}

static void mailbox_note(struct mailbox *m, const struct verdict *v, const struct reply *reply)
{
    snprintf(m->last_verdict, sizeof m->last_verdict, "%s", v->name);
    bool token = m->with_token && v->token_how != NULL;
    snprintf(m->problem, sizeof m->problem, "%s", token ? v->token_what : v->what);
    snprintf(m->remedy, sizeof m->remedy, "%s: %s", v->who, token ? v->token_how : v->how);
    /* Whose file it is, and what is wrong with it, only the text says. */
    if (strcmp(v->name, "secret") == 0 && reply->text[0] != '\0')
        snprintf(m->problem, sizeof m->problem, "%s", reply->text);
    reply_format(reply, m->last_reply, sizeof m->last_reply);
}

/* What was under way when it was paused may meet lesser trouble, whose wait is shorter. */
static bool stays_paused(const struct mailbox *m, enum verdict_action action, uint64_t now_ms)
{
    return m->state == MAILBOX_PAUSED && now_ms < m->next_try_ms && action != VERDICT_PAUSE &&
           action != VERDICT_HOLD;
}

void mailbox_judge(struct mailbox *m, const struct verdict *v, enum client_stage stage,
                   const struct reply *reply, uint64_t now_ms, uint32_t jitter)
{
    uint64_t lasting = m->state == MAILBOX_READY ? 0 : now_ms - m->trouble_since_ms;
    enum verdict_action action = verdict_action_after(v, m->last_verdict, lasting);
    m->failed++;
    m->probing = m->asked = false;
    if (stage == STAGE_AUTH)
        m->proven = false;
    if (stays_paused(m, action, now_ms))
        return;
    mailbox_note(m, v, reply);
    switch (action) {
    case VERDICT_SOON:
        mailbox_wait(m, MAILBOX_WAITING,
                     with_jitter(v->wait_ms != 0 ? v->wait_ms : MAILBOX_SOON_MS, jitter), now_ms);
        break;
    case VERDICT_CONC:
        mailbox_crowded(m, now_ms, jitter);
        break;
    case VERDICT_PAUSE:
    case VERDICT_HOLD:
        mailbox_pause(m, v->wait_ms, now_ms, jitter);
        break;
    default:
        mailbox_turned_away(m, v, reply, now_ms);
        mailbox_back_off(m, v->wait_ms, now_ms, jitter);
        break;
    }
    m->needs_message = m->state != MAILBOX_READY && (m->needs_message || stage > STAGE_AUTH);
}

bool mailbox_prepare(struct mailbox *m, uint64_t now_ms, uint32_t jitter)
{
    struct error err = ERROR_INIT;
    struct reply local;
    const struct config_mailbox *c = m->config;
    bool password = !m->with_token && (c->auth & CONFIG_AUTH_NONE) == 0;
    if (password && (m->password == NULL || !m->proven)) {
        secret_free(m->password);
        m->password = secret_of_mailbox(c->name, c->password_file, &err);
    }
    if (m->tls == NULL && err.kind == ERROR_NONE)
        m->tls = tls_client_new(c->ca_file, &err);
    if (err.kind == ERROR_NONE) {
        m->probing = m->state != MAILBOX_READY;
        m->probed_ms = now_ms;
        m->asked = false;
        return true;
    }
    reply_local(&local, LOCAL_SECRET, "%s", err.text);
    struct verdict v = verdict_of(STAGE_CONNECT, &local);
    mailbox_judge(m, &v, STAGE_CONNECT, &local, now_ms, jitter);
    return false;
}

static bool has_other_password(const struct mailbox *m)
{
    struct error err = ERROR_INIT;
    struct secret *s = secret_of_mailbox(m->config->name, m->config->password_file, &err);
    bool other = s != NULL && !secret_equal(s, m->password);
    secret_free(s);
    return other;
}

/* Connections borrow the password that is there: mailbox_prepare() takes the other one. */
static void look_for_password(struct mailbox *m, uint64_t now_ms)
{
    if (m->state == MAILBOX_READY || m->with_token ||
        (m->config->auth & CONFIG_AUTH_PASSWORD) == 0 || now_ms < m->look_ms ||
        now_ms >= m->next_try_ms)
        return;
    m->look_ms = now_ms + MAILBOX_LOOK_MS;
    if (!has_other_password(m))
        return;
    m->proven = false;
    log_event(LOG_LEVEL_INFO, "password-changed", LOG_STR("mailbox", m->config->name),
              LOG_STR("effect", "it is tried at once"), LOG_END);
    mailbox_resume(m);
}

static void forget_size(struct mailbox *m)
{
    m->max_size = m->config->max_size;
    m->size_until_ms = 0;
}

void mailbox_tick(struct mailbox *m, uint64_t now_ms)
{
    look_for_password(m, now_ms);
    if (m->size_until_ms != 0 && now_ms >= m->size_until_ms)
        forget_size(m);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

void mailbox_choose_signin(struct mailbox *m, bool oauth_is_set_up)
{
    const struct config_mailbox *c = m->config;
    bool password = (c->auth & CONFIG_AUTH_PASSWORD) != 0;
    bool with_token = c->has_oauth && (oauth_is_set_up || !password);
    if (with_token != m->with_token)
        m->proven = false;
    m->with_token = with_token;
}

bool mailbox_needs_token(const struct mailbox *m, uint64_t now_ms)
{
    return m->with_token && (m->token == NULL || now_ms >= m->token_until_ms);
}

void mailbox_give_token(struct mailbox *m, const char *token, uint64_t generation, uint64_t ends_ms,
                        uint64_t now_ms)
{
    mailbox_drop_token(m);
    m->token = secret_from_text(token, strlen(token), NULL);
    m->token_generation = generation;
    m->token_until_ms = ends_ms < now_ms + MAILBOX_TOKEN_MS ? ends_ms : now_ms + MAILBOX_TOKEN_MS;
    m->token_missing = false;
}

/* Connections that use it have their own copy once they sign in. */
void mailbox_drop_token(struct mailbox *m)
{
    secret_free(m->token);
    m->token = NULL;
}

void mailbox_no_token(struct mailbox *m, const struct verdict *v, const char *said, uint64_t now_ms,
                      uint32_t jitter)
{
    struct reply local;
    reply_local(&local, LOCAL_SECRET, "%s", said);
    m->token_missing = true;
    mailbox_judge(m, v, STAGE_CONNECT, &local, now_ms, jitter);
}

bool mailbox_may_freshen(struct mailbox *m, const struct verdict *v, enum client_stage stage)
{
    bool again = stage != STAGE_AUTH && m->fresh_tried;
    if (!m->with_token || !v->fresh_token)
        return false;
    m->proven = false;
    m->fresh_tried = m->fresh_tried || stage != STAGE_AUTH;
    return !again;
}

const struct secret *mailbox_secret(const struct mailbox *m)
{
    return m->with_token ? m->token : m->password;
}

/* ---- success --------------------------------------------------------------------------------- */

static void mailbox_recovered(struct mailbox *m, uint64_t now_ms)
{
    log_event(LOG_LEVEL_INFO, "mailbox-recovered", LOG_STR("mailbox", m->config->name),
              LOG_MS("after", now_ms - m->trouble_since_ms), LOG_END);
    m->next_try_ms = 0;
    m->state = MAILBOX_READY;
    m->troubles = 0;
    m->probing = m->needs_message = false;
    m->problem[0] = m->remedy[0] = m->last_reply[0] = m->last_verdict[0] = '\0';
}

void mailbox_signed_in(struct mailbox *m, const char *mechanism)
{
    m->proven = true;
    snprintf(m->mechanism, sizeof m->mechanism, "%s", mechanism);
    if (m->probing && !m->needs_message)
        mailbox_recovered(m, m->probed_ms);
}

void mailbox_delivered(struct mailbox *m, uint64_t now_ms, uint64_t wall_ms)
{
    m->delivered++;
    m->fresh_tried = false;
    m->last_success_wall_ms = wall_ms;
    budget_succeeded(m->budget, now_ms);
    if (m->state != MAILBOX_READY && !m->proven && now_ms < m->next_try_ms)
        return;
    m->needs_message = false;
    if (m->state != MAILBOX_READY)
        mailbox_recovered(m, now_ms);
}

void mailbox_learn_size(struct mailbox *m, uint64_t size, uint64_t now_ms)
{
    if (size <= MAILBOX_SIZE_LEARN_MIN || (m->max_size != 0 && size > m->max_size))
        return;
    m->max_size = size - 1;
    m->size_until_ms = now_ms + MAILBOX_SIZE_MS;
    log_event(
        LOG_LEVEL_WARN, "size-learnt", LOG_STR("mailbox", m->config->name),
        LOG_U64("max_size", m->max_size),
        LOG_STR("reason", "a message was refused as too large; larger ones are refused to the "
                          "device for a week"),
        LOG_STR("remedy", "when the service's limit was raised, resume the mailbox"), LOG_END);
}

void mailbox_learn_no_bdat(struct mailbox *m, uint64_t now_ms)
{
    m->no_bdat_until_ms = now_ms + MAILBOX_NO_BDAT_MS;
    log_event(LOG_LEVEL_WARN, "bdat-refused", LOG_STR("mailbox", m->config->name),
              LOG_STR("reason",
                      "the upstream announces CHUNKING but refuses BDAT; DATA is used for a day"),
              LOG_END);
}

void mailbox_resume(struct mailbox *m)
{
    m->next_try_ms = 0;
    m->asked = true;
}

void mailbox_start_over(struct mailbox *m)
{
    mailbox_resume(m);
    forget_size(m);
    m->no_bdat_until_ms = 0;
    /* Those that sign in now have a copy; the next one reads the file. */
    secret_free(m->password);
    m->password = NULL;
}

uint64_t mailbox_next_ms(const struct mailbox *m, uint64_t now_ms)
{
    uint64_t next = budget_next_ms(m->budget, now_ms);
    if (m->state != MAILBOX_READY && m->next_try_ms > now_ms && m->next_try_ms < next)
        next = m->next_try_ms;
    return next;
}

static const char *connections_why(const struct mailbox *m, uint64_t now_ms)
{
    static const char *const words[] = {
        [BUDGET_ALL] = "",
        [BUDGET_RAMPING] = "they come back one by one after an unclean stop",
        [BUDGET_CROWDED] = "the upstream has refused more; other software may use this mailbox"};
    if (m->config->connections > 1 && !m->proven)
        return "one alone signs in until that is accepted";
    if (m->config->connections > 1 && m->state != MAILBOX_READY)
        return "one alone tries whether the trouble is over";
    return words[budget_connections_why(m->budget, now_ms)];
}

static uint64_t dry_in_ms(const struct mailbox *m, uint64_t now_ms)
{
    uint64_t in = budget_dry_in_ms(m->budget, now_ms);
    if (in == BUDGET_NEVER)
        return 0;
    return in > 0 ? in : 1;
}

void mailbox_status(const struct mailbox *m, uint64_t now_ms, struct mailbox_status *out)
{
    *out = (struct mailbox_status){
        .name = m->config->name,
        .address = m->config->address,
        .host = m->config->host,
        .port = m->config->port,
        .state = m->state,
        .next_try_ms = m->state == MAILBOX_READY ? 0 : m->next_try_ms,
        .connections = budget_connections(m->budget, now_ms),
        .connections_max = m->config->connections,
        .connections_allowed = mailbox_connections_allowed(m, now_ms),
        .connections_why = connections_why(m, now_ms),
        .budget_why = budget_is_assumed(m->budget, now_ms)
                          ? "what was used is counted upwards after an unclean stop"
                          : "",
        .sent_this_minute = budget_messages(m->budget, now_ms),
        .minute_max = m->config->messages_per_minute,
        .recipients_today = budget_recipients(m->budget, now_ms),
        .day_max = m->config->recipients_per_day,
        .delivered = m->delivered,
        .failed = m->failed,
        .last_success_wall_ms = m->last_success_wall_ms,
        .mechanism = m->mechanism,
        .problem = m->problem,
        .remedy = m->remedy,
        .last_reply = m->last_reply,
        .max_size = m->max_size,
        .dry_in_ms = dry_in_ms(m, now_ms),
    };
}
