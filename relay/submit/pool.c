#include "relay/submit/pool.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    bool hold_failed; /* a held connection has ended: no more until one is signed in */
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

/* Takes the connection away from whoever has it and has not had a result. */
static void tell_lost(struct pool_connection *c)
{
    while (c->borrower_count > 0)
        c->pool->set.borrower->on_lost(c->borrowers[--c->borrower_count]);
}

static void drop_borrower(struct pool_connection *c, const void *borrower)
{
    size_t i = 0;
    while (c->borrowers[i] != borrower)
        i++;
    c->borrower_count--;
    memmove(c->borrowers + i, c->borrowers + i + 1,
            (c->borrower_count - i) * sizeof c->borrowers[0]);
}

/* Nothing is under way on it. */
static void pool_idle(struct pool_connection *c)
{
    const char *reason = reason_to_close(c);
    if (reason != NULL) {
        pool_close(c, reason);
        tell_lost(c);
        return;
    }
    if (c->borrower_count > 0)
        return;
    if (c->state != POOL_IDLE)
        pool_move(c, POOL_IDLE);
    pool_changed(c->pool);
}

/* ---- connections that are held -------------------------------------------------------------- */

static void on_closed(void *ctx, struct client *client, bool peer_closed);

static void pool_discard(struct pool_connection *c)
{
    on_closed(c, c->client, true);
}

/* It keeps its slot until the peer's end was seen, as the peer counts it that long. */
static void pool_drop(struct pool_connection *c)
{
    c->held = false;
    if (!client_has_connected(c->client)) {
        pool_discard(c);
        return;
    }
    pool_move(c, POOL_CLOSING);
    client_drop(c->client);
}

static void release_held(struct pool *p)
{
    p->hold_failed = false;
    for (struct pool_connection *c = p->connections; c != NULL; c = c->next) {
        if (!c->held)
            continue;
        c->held = false;
        client_release(c->client);
    }
}

/* Those that were opened before so long. */
static void drop_held(struct pool *p, uint64_t for_ms)
{
    struct pool_connection *next = NULL;
    for (struct pool_connection *c = p->connections; c != NULL; c = next) {
        next = c->next;
        if (!c->held || c->state != POOL_CONNECTING || pool_now(p) - c->opened_ms < for_ms)
            continue;
        p->hold_failed = true;
        pool_drop(c);
    }
}

/* A sign-in was refused: whoever has not begun its own would only be refused as well. */
static void drop_unsigned(struct pool *p)
{
    struct pool_connection *next = NULL;
    for (struct pool_connection *c = p->connections; c != NULL; c = next) {
        next = c->next;
        if (c->state == POOL_CONNECTING && !client_is_signing_in(c->client))
            pool_drop(c);
    }
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
        release_held(c->pool);
        log_event(LOG_LEVEL_INFO, "signed-in", LOG_ID("connection", client_id(client)),
                  LOG_STR("mailbox", m->config->name), LOG_STR("upstream", m->config->host),
                  LOG_STR("mechanism", client_mechanism(client)),
                  LOG_MS("took", pool_now(c->pool) - c->opened_ms), LOG_END);
    }
    if (c->state != POOL_CLOSING)
        pool_idle(c);
    else /* replies were still due when it was to be closed */
        client_quit(client);
}

static void on_recipient(void *ctx, struct client *client, void *owner, size_t index,
                         const struct reply *reply)
{
    struct pool_connection *c = ctx;
    (void)client;
    c->pool->set.borrower->on_recipient(owner, index, reply);
}

static void on_doubt(void *ctx, struct client *client, void *owner)
{
    struct pool_connection *c = ctx;
    (void)client;
    c->pool->set.borrower->on_doubt(owner);
}

/* A message that our own spool kept back says nothing about the connection. */
static bool spoils(enum client_stage stage, const struct reply *reply)
{
    struct verdict v = verdict_of(stage, reply);
    if (stage == STAGE_IDLE && reply->local == LOCAL_SPOOL)
        return false;
    return !v.reusable && v.action != VERDICT_DELIVERED;
}

static void on_result(void *ctx, struct client *client, void *owner, enum client_stage stage,
                      const struct reply *reply)
{
    struct pool_connection *c = ctx;
    (void)client;
    drop_borrower(c, owner);
    c->warm = true;
    c->spoiled |= spoils(stage, reply);
    c->pool->set.borrower->on_result(owner, stage, reply, c->uses == 1);
}

/* A session that ends before it was ready is the mailbox's trouble, and so is one that ends right
 * after: else the next would be opened at once, and so on. One that ends idle costs nothing; one
 * that ends in a transaction has been judged by its result. */
static bool is_trouble(const struct pool_connection *c)
{
    bool used = c->uses > c->borrower_count;
    if (c->state == POOL_CONNECTING)
        return !c->held; /* the one that it waits for will tell */
    return c->state != POOL_CLOSING && !used && pool_now(c->pool) - c->ready_ms < POOL_EARLY_END_MS;
}

static void on_failed(void *ctx, struct client *client, enum client_stage stage,
                      const struct reply *reply)
{
    struct pool_connection *c = ctx;
    struct pool *p = c->pool;
    bool signing_in = c->state == POOL_CONNECTING && stage == STAGE_AUTH;
    char text[REPLY_TEXT_MAX];
    reply_format(reply, text, sizeof text);
    if (client_lacks_bdat(client))
        mailbox_learn_no_bdat(p->set.mailbox, pool_now(p));
    else if (is_trouble(c)) {
        struct verdict v = verdict_of(stage, reply);
        (void)replies_note(p->set.replies, stage, reply, clock_wall_ms(p->set.clock));
        credential_judge(&p->credential, &v, stage, reply, c->token);
    }
    if (c->held)
        p->hold_failed = true;
    else if (c->state == POOL_CONNECTING)
        drop_held(p, 0);
    if (c->state != POOL_CLOSING) {
        log_event(LOG_LEVEL_DEBUG, "connection-end", LOG_ID("connection", client_id(client)),
                  LOG_STR("mailbox", p->target.mailbox), LOG_STR("stage", client_stage_name(stage)),
                  LOG_U64("uses", c->uses), LOG_STR("reason", text), LOG_END);
        pool_move(c, POOL_CLOSING);
    }
    if (signing_in)
        drop_unsigned(p);
    tell_lost(c); /* no result came: they had submitted nothing */
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

static void lend(struct pool_connection *c, void *borrower)
{
    assert(c->borrower_count < CLIENT_FLIGHTS_MAX);
    c->borrowers[c->borrower_count++] = borrower;
    c->uses++;
}

/* Other mail has left this one, and those that were not lent before, to urgent mail. */
static bool is_kept(const struct pool *p)
{
    const struct mailbox *m = p->set.mailbox;
    uint32_t allowed = mailbox_connections_allowed(m, pool_now(p));
    uint32_t kept = m->config->urgent_connections;
    return kept > 0 && allowed > kept && p->count[POOL_LENT] + kept >= allowed;
}

struct pool_connection *pool_lend(struct pool *p, void *borrower)
{
    for (struct pool_connection *c = p->connections; c != NULL; c = c->next) {
        if (c->state != POOL_IDLE)
            continue;
        c->warm = pool_now(p) - c->since_ms < POOL_WARM_MS;
        c->kept = is_kept(p);
        pool_move(c, POOL_LENT);
        lend(c, borrower);
        return c;
    }
    return NULL;
}

static bool has_room(const struct pool_connection *c, bool urgent)
{
    const struct mailbox *m = c->pool->set.mailbox;
    return c->state == POOL_LENT && (urgent || !c->kept) &&
           c->borrower_count < m->config->in_flight && reason_to_close(c) == NULL &&
           client_has_room(c->client);
}

/* The one with fewest borrowers. */
static struct pool_connection *find_room(const struct pool *p, bool urgent)
{
    const struct mailbox *m = p->set.mailbox;
    struct pool_connection *best = NULL;
    if (m->config->in_flight <= 1 || m->state != MAILBOX_READY || !m->proven)
        return NULL;
    for (struct pool_connection *c = p->connections; c != NULL; c = c->next) {
        if ((best == NULL || c->borrower_count < best->borrower_count) && has_room(c, urgent))
            best = c;
    }
    return best;
}

bool pool_has_room(const struct pool *p, bool urgent)
{
    return find_room(p, urgent) != NULL;
}

struct pool_connection *pool_join(struct pool *p, void *borrower, bool urgent)
{
    struct pool_connection *c = find_room(p, urgent);
    if (c != NULL)
        lend(c, borrower);
    return c;
}

void pool_return(struct pool_connection *c, void *borrower)
{
    drop_borrower(c, borrower);
    c->uses--;
    if (c->borrower_count == 0)
        pool_idle(c);
    else
        pool_changed(c->pool);
}

uint64_t pool_begin(struct pool_connection *c)
{
    return ++c->begun;
}

void pool_judge(struct pool_connection *c, uint64_t number, const struct verdict *v,
                enum client_stage stage, const struct reply *reply)
{
    if (number <= c->judged)
        return;
    c->judged = c->begun;
    credential_judge(&c->pool->credential, v, stage, reply, c->token);
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

/* Where a sign-in has not been accepted yet, and none was refused: one signs in, and the others
 * that will be wanted are held. */
static bool may_hold(const struct pool *p)
{
    const struct mailbox *m = p->set.mailbox;
    return m->config->in_flight > 1 && m->state == MAILBOX_READY && !m->proven && !p->hold_failed;
}

static uint32_t may_be_open(const struct pool *p)
{
    const struct mailbox *m = p->set.mailbox;
    return may_hold(p) ? budget_connections_allowed(m->budget, pool_now(p))
                       : mailbox_connections_allowed(m, pool_now(p));
}

static bool pool_open_one(struct pool *p)
{
    struct pool_connection *c = calloc(1, sizeof *c);
    if (c == NULL)
        return false;
    *c = (struct pool_connection){.pool = p,
                                  .opened_ms = pool_now(p),
                                  .since_ms = pool_now(p),
                                  .held = may_hold(p) && p->count[POOL_CONNECTING] > 0,
                                  .token = credential_generation(&p->credential)};
    refresh_target(p);
    p->target.held = c->held;
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
           mailbox_is_usable(m, pool_now(p)) && pool_active(p) < may_be_open(p) &&
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
    drop_held(p, POOL_HOLD_MS);
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
                                       .in_flight = c->in_flight,
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
