#include "relay/submit/pool.h"

#include <stdio.h>
#include <stdlib.h>

#include "relay/base/log.h"
#include "relay/base/random.h"
#include "relay/submit/replies.h"

struct pool {
    struct pool_settings set;
    struct client_target target;
    struct credential credential;
    char mechanisms[CONFIG_MECHANISMS_MAX];
    struct pool_connection *connections; /* newest first */
    size_t count[POOL_STATE_COUNT];
    bool stopping;
};

static uint64_t pool_now(const struct pool *p)
{
    return clock_now_ms(p->set.clock);
}

static void pool_move(struct pool_connection *c, enum pool_state state)
{
    c->pool->count[c->state]--;
    c->pool->count[state]++;
    c->state = state;
    c->since_ms = pool_now(c->pool);
}

static void pool_changed(struct pool *p)
{
    p->set.on_change(p->set.ctx);
}

/* Connections that count towards what is allowed, as against those that only wait for the peer's
 * end. */
static size_t pool_active(const struct pool *p)
{
    return p->count[POOL_CONNECTING] + p->count[POOL_IDLE] + p->count[POOL_LENT];
}

static void pool_close(struct pool_connection *c, const char *reason)
{
    log_event(LOG_LEVEL_DEBUG, "connection-close", LOG_ID("connection", client_id(c->client)),
              LOG_STR("mailbox", c->pool->target.mailbox), LOG_U64("uses", c->uses),
              LOG_MS("age", pool_now(c->pool) - c->opened_ms), LOG_STR("reason", reason), LOG_END);
    pool_move(c, POOL_CLOSING);
    client_quit(c->client);
}

/* Why an idle connection should not be lent again, or NULL. */
static const char *reason_to_close(const struct pool_connection *c)
{
    const struct pool *p = c->pool;
    if (p->stopping)
        return "stopping";
    if (c->spoiled)
        return "its last reply";
    if (pool_now(p) - c->opened_ms > p->set.mailbox->config->session_ms)
        return "old";
    if (!mailbox_is_usable(p->set.mailbox, pool_now(p)))
        return "the mailbox is in trouble";
    if (pool_active(p) > mailbox_connections_allowed(p->set.mailbox, pool_now(p)))
        return "more connections than are allowed";
    return NULL;
}

static void pool_idle(struct pool_connection *c)
{
    const char *reason = reason_to_close(c);
    if (reason != NULL) {
        pool_close(c, reason);
        return;
    }
    if (c->state != POOL_IDLE)
        pool_move(c, POOL_IDLE);
    pool_changed(c->pool);
}

/* ---- what the client tells ------------------------------------------------------------------- */

static bool take_slot(void *ctx, struct client *client)
{
    struct pool_connection *c = ctx;
    struct budget *b = c->pool->set.mailbox->budget;
    (void)client;
    if (!budget_may_connect(b, pool_now(c->pool)))
        return false;
    budget_connection_opened(b, pool_now(c->pool));
    c->runners++;
    return true;
}

/* Nobody has spoken on it: a peer that it did reach has seen its end. */
static void give_slot(void *ctx, struct client *client)
{
    struct pool_connection *c = ctx;
    (void)client;
    c->runners--;
    budget_connection_closed(c->pool->set.mailbox->budget, true, pool_now(c->pool),
                             pool_now(c->pool));
}

static void on_ready(void *ctx, struct client *client)
{
    struct pool_connection *c = ctx;
    struct mailbox *m = c->pool->set.mailbox;
    if (c->state == POOL_CONNECTING) {
        c->ready_ms = pool_now(c->pool);
        mailbox_signed_in(m, client_mechanism(client));
        credential_accepted(&c->pool->credential);
        log_event(LOG_LEVEL_INFO, "signed-in", LOG_ID("connection", client_id(client)),
                  LOG_STR("mailbox", m->config->name), LOG_STR("upstream", m->config->host),
                  LOG_STR("mechanism", client_mechanism(client)),
                  LOG_MS("took", pool_now(c->pool) - c->opened_ms), LOG_END);
    }
    if (c->state != POOL_CLOSING)
        pool_idle(c);
}

static void on_recipient(void *ctx, struct client *client, size_t index, const struct reply *reply)
{
    struct pool_connection *c = ctx;
    (void)client;
    c->pool->set.borrower->on_recipient(c->borrower, index, reply);
}

static void on_doubt(void *ctx, struct client *client)
{
    struct pool_connection *c = ctx;
    (void)client;
    c->pool->set.borrower->on_doubt(c->borrower);
}

static void on_result(void *ctx, struct client *client, enum client_stage stage,
                      const struct reply *reply)
{
    struct pool_connection *c = ctx;
    void *borrower = c->borrower;
    struct verdict v = verdict_of(stage, reply);
    (void)client;
    c->borrower = NULL;
    c->spoiled = !v.reusable && v.action != VERDICT_DELIVERED;
    c->pool->set.borrower->on_result(borrower, stage, reply, c->uses == 1);
}

/* A session that ends before it was ready is the mailbox's trouble, and so is one that ends right
 * after: else the next would be opened at once, and so on. One that ends idle costs nothing; one
 * that ends in a transaction has been judged by its result. */
static bool is_trouble(const struct pool_connection *c)
{
    bool used = c->uses > (c->borrower != NULL ? 1 : 0);
    if (c->state == POOL_CONNECTING)
        return true;
    return c->state != POOL_CLOSING && !used && pool_now(c->pool) - c->ready_ms < POOL_EARLY_END_MS;
}

static void on_failed(void *ctx, struct client *client, enum client_stage stage,
                      const struct reply *reply)
{
    struct pool_connection *c = ctx;
    struct pool *p = c->pool;
    char text[REPLY_TEXT_MAX];
    reply_format(reply, text, sizeof text);
    if (client_lacks_bdat(client))
        mailbox_learn_no_bdat(p->set.mailbox, pool_now(p));
    else if (is_trouble(c)) {
        struct verdict v = verdict_of(stage, reply);
        (void)replies_note(p->set.replies, stage, reply, clock_wall_ms(p->set.clock));
        pool_judge(p, &v, stage, reply, c->token);
    }
    if (c->state != POOL_CLOSING) {
        log_event(LOG_LEVEL_DEBUG, "connection-end", LOG_ID("connection", client_id(client)),
                  LOG_STR("mailbox", p->target.mailbox), LOG_STR("stage", client_stage_name(stage)),
                  LOG_U64("uses", c->uses), LOG_STR("reason", text), LOG_END);
        pool_move(c, POOL_CLOSING);
    }
    if (c->borrower != NULL) { /* no result came: nothing had been submitted */
        void *borrower = c->borrower;
        c->borrower = NULL;
        p->set.borrower->on_lost(borrower);
    }
    pool_changed(p);
}

static void on_closed(void *ctx, struct client *client, bool peer_closed)
{
    struct pool_connection *c = ctx;
    struct pool *p = c->pool;
    struct pool_connection **at = &p->connections;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    p->count[c->state]--;
    while (c->runners > 0)
        give_slot(c, client);
    if (!client_has_connected(client))
        budget_connection_failed(p->set.mailbox->budget);
    else /* our last octet left before now; later is the safe side */
        budget_connection_closed(p->set.mailbox->budget, peer_closed, pool_now(p), pool_now(p));
    client_free(client);
    free(c);
    pool_changed(p);
}

static const struct client_events pool_client_events = {.take_slot = take_slot,
                                                        .give_slot = give_slot,
                                                        .on_ready = on_ready,
                                                        .on_recipient = on_recipient,
                                                        .on_doubt = on_doubt,
                                                        .on_result = on_result,
                                                        .on_failed = on_failed,
                                                        .on_closed = on_closed};

/* ---- the borrower's side --------------------------------------------------------------------- */

struct pool_connection *pool_lend(struct pool *p, void *borrower)
{
    for (struct pool_connection *c = p->connections; c != NULL; c = c->next) {
        if (c->state != POOL_IDLE)
            continue;
        c->warm = pool_now(p) - c->since_ms < POOL_WARM_MS;
        pool_move(c, POOL_LENT);
        c->borrower = borrower;
        c->uses++;
        return c;
    }
    return NULL;
}

void pool_return(struct pool_connection *c)
{
    c->borrower = NULL;
    c->uses--;
    pool_idle(c);
}

void pool_judge(struct pool *p, const struct verdict *v, enum client_stage stage,
                const struct reply *reply, uint64_t token)
{
    credential_judge(&p->credential, v, stage, reply, token);
}

void pool_retry(struct pool *p)
{
    credential_retry(&p->credential);
}

/* Password or token may be another one since the last connection. */
static void refresh_target(struct pool *p)
{
    const struct mailbox *m = p->set.mailbox;
    config_mechanisms(m->config, m->with_token ? CONFIG_AUTH_OAUTH2 : CONFIG_AUTH_PASSWORD,
                      p->mechanisms);
    p->target.secret = mailbox_secret(m);
    p->target.tls = p->set.mailbox->tls;
    p->target.no_chunking = pool_now(p) < p->set.mailbox->no_bdat_until_ms;
}

static bool pool_open_one(struct pool *p)
{
    struct pool_connection *c = calloc(1, sizeof *c);
    if (c == NULL)
        return false;
    *c = (struct pool_connection){.pool = p,
                                  .opened_ms = pool_now(p),
                                  .since_ms = pool_now(p),
                                  .token = credential_generation(&p->credential)};
    refresh_target(p);
    c->client = client_new(p->set.streams, p->set.dns, &p->target, ++*p->set.next_id,
                           &pool_client_events, c);
    if (c->client == NULL) {
        free(c);
        return false;
    }
    budget_connection_opened(p->set.mailbox->budget, pool_now(p));
    c->next = p->connections;
    p->connections = c;
    p->count[POOL_CONNECTING]++;
    return true;
}

void pool_open(struct pool *p, size_t wanted)
{
    struct mailbox *m = p->set.mailbox;
    while (!p->stopping && p->count[POOL_CONNECTING] < wanted &&
           mailbox_is_usable(m, pool_now(p)) &&
           pool_active(p) < mailbox_connections_allowed(m, pool_now(p)) &&
           budget_may_connect(m->budget, pool_now(p)) && credential_is_ready(&p->credential) &&
           mailbox_prepare(m, pool_now(p), random_draw())) {
        if (!pool_open_one(p))
            return;
    }
}

void pool_tick(struct pool *p)
{
    struct pool_connection *next = NULL;
    credential_tick(&p->credential);
    for (struct pool_connection *c = p->connections; c != NULL; c = next) {
        next = c->next; /* closing never frees at once */
        if (c->state != POOL_IDLE)
            continue;
        const char *reason = reason_to_close(c);
        if (reason == NULL && pool_now(p) - c->since_ms > p->set.mailbox->config->idle_ms)
            reason = "idle";
        if (reason != NULL)
            pool_close(c, reason);
    }
}

static void pool_discard(struct pool_connection *c)
{
    on_closed(c, c->client, true);
}

void pool_stop(struct pool *p)
{
    struct pool_connection *next = NULL;
    p->stopping = true;
    credential_stop(&p->credential);
    for (struct pool_connection *c = p->connections; c != NULL; c = next) {
        next = c->next;
        if (c->state == POOL_IDLE)
            pool_close(c, "stopping");
        else if (c->state == POOL_CONNECTING)
            pool_discard(c);
    }
}

size_t pool_count(const struct pool *p, enum pool_state state)
{
    return p->count[state];
}

struct mailbox *pool_mailbox(const struct pool *p)
{
    return p->set.mailbox;
}

static void on_credential(void *ctx)
{
    pool_changed(ctx);
}

struct pool *pool_new(const struct pool_settings *settings)
{
    struct pool *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    const struct config_mailbox *c = settings->mailbox->config;
    p->set = *settings;
    p->credential = (struct credential){.mailbox = settings->mailbox,
                                        .signins = settings->signins,
                                        .index = settings->index,
                                        .clock = settings->clock,
                                        .on_change = on_credential,
                                        .ctx = p};
    p->target = (struct client_target){.mailbox = c->name,
                                       .host = c->host,
                                       .port = c->port,
                                       .implicit_tls = c->tls == CONFIG_TLS_IMPLICIT,
                                       .needs_auth = (c->auth & CONFIG_AUTH_NONE) == 0,
                                       .mechanisms = p->mechanisms,
                                       .helo = c->helo[0] != '\0' ? c->helo : settings->hostname,
                                       .login = c->login};
    return p;
}

bool pool_is_quiet(const struct pool *p)
{
    if (pool_active(p) > 0)
        return false;
    for (const struct pool_connection *c = p->connections; c != NULL; c = c->next) {
        if (pool_now(p) - c->since_ms < POOL_FAREWELL_MS)
            return false;
    }
    return true;
}

void pool_free(struct pool *p)
{
    if (p == NULL)
        return;
    credential_stop(&p->credential);
    while (p->connections != NULL) {
        struct pool_connection *c = p->connections;
        p->connections = c->next;
        client_free(c->client);
        free(c);
    }
    free(p);
}
