#include "relay/submit/dispatch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "relay/base/log.h"
#include "relay/base/random.h"
#include "relay/submit/ledger.h"
#include "relay/submit/mailbox.h"
#include "relay/submit/outcome.h"
#include "relay/submit/pool.h"
#include "relay/submit/replies.h"
#include "relay/submit/smtputf8.h"

#define READ_RETRY_MS  60000 /* after a message could not be read from the spool */
#define SPOOL_RETRY_MS 10000 /* after the spool could not be written */
#define SLEEP_MAX_MS   60000 /* the timer looks again at least this often */
#define HEADER_GROWTH  1024  /* octets that a mailbox may add to a message */
#define STEP_BACK_MS   5000  /* by how much others go before what may be the trouble itself */

/* One message under way. Freed when it was settled and no mark is being made durable any more. */
struct attempt {
    struct dispatch *dispatch;
    struct attempt *next;
    struct pool *pool;
    struct pool_connection *connection; /* NULL once its result has come */
    struct queue_info info;
    struct letter *letter;
    struct identity identity;
    const struct envelope *stored; /* the reader's */
    struct outcome outcome;
    struct client_transaction tx;
    uint32_t recipients;
    uint64_t began_ms;
    uint64_t number; /* on its connection */
    bool has_outcome;
    bool submitted; /* the budget counts it */
    bool has_dsn;   /* the server tells of success itself */
    bool doubting;  /* the mark is on its way to the disk */
    bool doubted;   /* the mark was asked for: the outcome must be settled */
    bool ended;
};

struct dispatch {
    struct dispatch_settings set;
    struct mailbox *mailboxes;
    struct pool **pools; /* by mailbox */
    bool *idle_wanted;   /* the same: a large message waits for a connection of its own */
    size_t mailbox_count;
    struct ledger *ledger; /* NULL: none */
    struct attempt *attempts;
    struct event *run;
    uint32_t next_route; /* to be served: they take turns */
    uint64_t next_connection;
    uint64_t spool_retry_ms; /* nothing is begun before */
    void (*on_stopped)(void *ctx);
    void *stop_ctx;
    bool told_stopped;
};

static void attempt_end(struct attempt *a);

static uint64_t now_of(const struct dispatch *d)
{
    return clock_now_ms(d->set.clock);
}

void dispatch_wake(struct dispatch *d)
{
    event_active(d->run, EV_TIMEOUT, 0);
}

static void on_pool_change(void *ctx)
{
    dispatch_wake(ctx);
}

/* The first route is the default, and what a message names that is not configured any more goes
 * there. */
static const struct config_route *config_route_of(const struct dispatch *d, const char *name)
{
    const struct config *c = d->set.config;
    for (size_t i = 0; i < c->route_count; i++) {
        if (strcmp(c->routes[i].name, name) == 0)
            return &c->routes[i];
    }
    return &c->routes[0];
}

/* ---- an attempt ------------------------------------------------------------------------------ */

static void attempt_unlink(struct attempt *a)
{
    struct attempt **at = &a->dispatch->attempts;
    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
}

static void attempt_free(struct attempt *a)
{
    letter_free(a->letter);
    if (a->has_outcome)
        outcome_done(&a->outcome);
    free(a);
}

static void attempt_end(struct attempt *a)
{
    struct dispatch *d = a->dispatch;
    a->ended = true;
    if (a->doubting)
        return; /* on_doubt_durable() comes back */
    attempt_unlink(a);
    attempt_free(a);
    dispatch_wake(d);
}

/* Nothing of the message was sent. */
static void attempt_release(struct attempt *a, uint64_t due_ms)
{
    queue_release(a->dispatch->set.queue, a->info.id, due_ms);
    if (a->connection != NULL)
        pool_return(a->connection, a);
    a->connection = NULL;
    attempt_end(a);
}

/* The wall clock may have been put back since. */
static uint64_t age_of(const struct attempt *a)
{
    uint64_t wall = clock_wall_ms(a->dispatch->set.clock);
    return wall > a->info.arrived_ms ? wall - a->info.arrived_ms : 0;
}

/* A recipient that was refused has a verdict of its own, whatever became of the others. */
static struct verdict recipient_verdict(const struct recipient *r, const struct outcome_end *end)
{
    struct reply reply;
    struct verdict own;
    if (r->state == RECIPIENT_FAILED && !reply_from_text(&reply, r->reply) &&
        verdict_of_stored(r->reply, true, &own))
        return own;
    if (r->state == RECIPIENT_DELIVERED || end->verdict.action != VERDICT_DELIVERED ||
        !reply_from_text(&reply, r->reply))
        return end->verdict;
    return verdict_of(STAGE_RCPT, &reply);
}

static void log_recipients(const struct attempt *a, const struct outcome_end *end)
{
    static const char *const events[] = {[RECIPIENT_PENDING] = "deferred",
                                         [RECIPIENT_DELIVERED] = "delivered",
                                         [RECIPIENT_FAILED] = "failed"};
    static const char doubt[] = "an earlier copy may have arrived";
    const struct dispatch *d = a->dispatch;
    for (size_t i = 0; i < a->outcome.envelope.recipient_count; i++) {
        const struct recipient *r = &a->outcome.envelope.recipients[i];
        struct verdict v = recipient_verdict(r, end);
        if (a->stored->recipients[i].state != RECIPIENT_PENDING)
            continue; /* an earlier attempt told */
        enum log_level level = r->state == RECIPIENT_FAILED ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO;
        log_event(level, events[r->state], LOG_ID("queue", a->info.id),
                  LOG_STR("device", a->outcome.envelope.device), LOG_PATH("to", r->forward_path),
                  LOG_STR("mailbox", pool_mailbox(a->pool)->config->name),
                  LOG_U64("size", a->info.size), LOG_MS("delay", age_of(a)),
                  LOG_MS("took", now_of(d) - a->began_ms),
                  LOG_STR("state", queue_state_name(end->attempt.state)),
                  LOG_STR("doubt", a->info.losses > 0 ? doubt : ""),
                  LOG_MS("wait", end->attempt.wait_ms), LOG_STR("reason", v.what),
                  LOG_STR("remedy", v.how), LOG_STR("reply", r->reply), LOG_END);
    }
}

static void tell_mailbox(struct attempt *a, enum client_stage stage, const struct outcome_end *end)
{
    struct dispatch *d = a->dispatch;
    struct mailbox *m = pool_mailbox(a->pool);
    budget_message_ended(m->budget, a->recipients, end->taken, now_of(d));
    if (end->too_large)
        mailbox_learn_size(m, a->info.size, now_of(d));
    if (end->verdict.action == VERDICT_DELIVERED)
        mailbox_delivered(m, now_of(d), clock_wall_ms(d->set.clock));
    if (end->has_mailbox_verdict)
        pool_judge(a->connection, a->number, &end->mailbox_verdict, stage, &end->mailbox_reply);
}

static bool others_wait(const struct attempt *a)
{
    struct queue *q = a->dispatch->set.queue;
    uint32_t route;
    return queue_route(q, a->info.route, &route) && queue_waiting(q, route) > 0;
}

static bool has_usable_mailbox(const struct dispatch *d, const struct config_route *r)
{
    for (size_t i = 0; i < r->mailbox_count; i++) {
        if (mailbox_is_usable(&d->mailboxes[r->mailboxes[i]], now_of(d)))
            return true;
    }
    return false;
}

/* Its transaction brought the mailbox into trouble, which may be its own doing after all. While
 * others wait, one of them makes the next try: else a single message could block all of them. */
static uint64_t step_back(const struct attempt *a, const struct outcome_end *end)
{
    const struct dispatch *d = a->dispatch;
    const struct mailbox *m = pool_mailbox(a->pool);
    uint64_t now = now_of(d);
    if (!end->has_mailbox_verdict || m->state != MAILBOX_WAITING || m->next_try_ms <= now ||
        !others_wait(a) || has_usable_mailbox(d, config_route_of(d, a->info.route)))
        return 0;
    return m->next_try_ms - now + STEP_BACK_MS;
}

/* The words of the first recipient who failed, else of whom it waits for. */
static const char *reason_of(const struct envelope *e)
{
    const char *any = "";
    for (size_t i = 0; i < e->recipient_count; i++) {
        if (e->recipients[i].state == RECIPIENT_FAILED)
            return e->recipients[i].reply;
        if (e->recipients[i].state == RECIPIENT_PENDING)
            any = e->recipients[i].reply;
    }
    return any;
}

static void tell_settled(const struct attempt *a, enum queue_state state)
{
    const struct dispatch_settings *set = &a->dispatch->set;
    const struct envelope *e = &a->outcome.envelope;
    if (set->on_settled != NULL)
        set->on_settled(set->ctx, a->info.id, state, envelope_count(e, RECIPIENT_FAILED), e->device,
                        reason_of(e));
}

static void tell_relayed(const struct attempt *a)
{
    const struct dispatch_settings *set = &a->dispatch->set;
    size_t len = 0;
    const uint8_t *header = letter_header(a->letter, &len);
    if (!a->has_dsn && set->on_relayed != NULL)
        set->on_relayed(set->ctx, a->info.id, a->stored, &a->outcome.envelope, header, len);
}

static void attempt_settle(struct attempt *a, struct outcome_end *end)
{
    struct dispatch *d = a->dispatch;
    uint64_t least_ms = step_back(a, end);
    if (!end->worth_recording && !a->doubted) {
        queue_release(d->set.queue, a->info.id, now_of(d) + least_ms);
        return;
    }
    if (end->attempt.wait_ms < least_ms)
        end->attempt.wait_ms = least_ms;
    log_recipients(a, end);
    tell_relayed(a);
    queue_settle(d->set.queue, a->info.id, &end->attempt, now_of(d), clock_wall_ms(d->set.clock),
                 NULL, NULL);
    tell_settled(a, end->attempt.state);
}

static void on_recipient(void *borrower, size_t index, const struct reply *reply)
{
    struct attempt *a = borrower;
    const struct dispatch_settings *set = &a->dispatch->set;
    outcome_recipient(&a->outcome, index, reply);
    (void)replies_note(set->replies, STAGE_RCPT, reply, clock_wall_ms(set->clock));
}

static void on_result(void *borrower, enum client_stage stage, const struct reply *reply,
                      bool first_use)
{
    struct attempt *a = borrower;
    const struct config *config = a->dispatch->set.config;
    const struct outcome_context context = {
        .stage = stage,
        .reply = reply,
        .attempts = a->info.attempts,
        .tried_ms = a->info.tried_ms,
        .give_up_ms = config->give_up_ms,
        .uncertain_wait_ms = a->info.lane == LANE_URGENT ? config->uncertain_wait_urgent_ms
                                                         : config->uncertain_wait_ms,
        .jitter = random_draw(),
        .first_use = first_use,
        .losses = a->info.losses};
    struct outcome_end end;
    const struct dispatch_settings *set = &a->dispatch->set;
    if (stage != STAGE_RCPT) /* those have been noted one by one */
        (void)replies_note(set->replies, stage, reply, clock_wall_ms(set->clock));
    outcome_finish(&a->outcome, &context, &end);
    tell_mailbox(a, stage, &end);
    a->connection = NULL; /* the pool's again */
    attempt_settle(a, &end);
    attempt_end(a);
}

/* While no mark can be made every message would be sent in vain up to its end. */
static void on_doubt_durable(void *ctx, const struct error *err)
{
    struct attempt *a = ctx;
    a->doubting = false;
    if (err != NULL)
        a->dispatch->spool_retry_ms = now_of(a->dispatch) + SPOOL_RETRY_MS;
    if (a->ended)
        attempt_end(a);
    else
        client_doubted(a->connection->client, err == NULL);
}

static void on_doubt(void *borrower)
{
    struct attempt *a = borrower;
    const struct dispatch *d = a->dispatch;
    a->doubting = true;
    a->doubted = true;
    queue_doubt(d->set.queue, a->info.id, clock_wall_ms(d->set.clock), on_doubt_durable, a);
}

/* While the message is being opened; on_reader() releases it. */
static void on_lost(void *borrower)
{
    struct attempt *a = borrower;
    a->connection = NULL;
}

static const struct pool_borrower dispatch_borrower = {
    .on_lost = on_lost, .on_recipient = on_recipient, .on_doubt = on_doubt, .on_result = on_result};

static void attempt_submit(struct attempt *a)
{
    struct mailbox *m = pool_mailbox(a->pool);
    a->tx = (struct client_transaction){.reverse_path = letter_reverse_path(a->letter),
                                        .envelope = &a->outcome.envelope,
                                        .size = letter_size(a->letter),
                                        .warm = a->connection->warm,
                                        .owner = a};
    a->submitted = true;
    a->has_dsn = client_has_dsn(a->connection->client);
    a->number = pool_begin(a->connection);
    a->began_ms = now_of(a->dispatch);
    budget_message_started(m->budget, a->recipients, a->began_ms);
    client_submit(a->connection->client, &a->tx, a->letter);
}

/* Whatever time is said, a damaged message is held by the queue when its lease ends. */
static void on_unreadable(struct attempt *a, const struct error *err)
{
    const struct dispatch_settings *set = &a->dispatch->set;
    log_event(LOG_LEVEL_ERROR, "unreadable", LOG_ID("queue", a->info.id),
              LOG_STR("reason", err->text), LOG_END);
    if (err->kind == ERROR_DAMAGED && set->on_settled != NULL)
        set->on_settled(set->ctx, a->info.id, QUEUE_HELD, 0, a->info.device, err->text);
    attempt_release(a, now_of(a->dispatch) + READ_RETRY_MS);
}

/* 0 when it may be submitted now; else when to look again. While the message was being opened
 * others may have taken what was left of the budget or met trouble, and the connection may have
 * ended. */
static uint64_t attempt_wait(const struct attempt *a)
{
    uint64_t now = now_of(a->dispatch);
    const struct mailbox *m = pool_mailbox(a->pool);
    struct budget *budget = m->budget;
    uint64_t recipients = budget_may_use_recipients(budget, a->recipients, now);
    if (a->connection == NULL || !mailbox_is_usable(m, now) ||
        budget_may_send(budget, a->info.lane == LANE_URGENT, now) != 0)
        return now; /* the next one is asked for before it is picked again */
    return recipients == BUDGET_NEVER ? now + READ_RETRY_MS : recipients;
}

/* Whom the message is from, as the mailbox and the device are configured. */
static struct identity identity_of(const struct dispatch *d, const struct config_mailbox *m,
                                   const char *device)
{
    const struct config_device *c = config_find_device(d->set.config, device);
    const char *from = c != NULL && c->from[0] != '\0' ? c->from : m->from;
    const char *name = c != NULL && c->from_name[0] != '\0' ? c->from_name : m->from_name;
    struct identity id = {.mailbox = m->address,
                          .send_as = m->send_as.list,
                          .send_as_count = m->send_as.count,
                          .how = IDENTITY_FIXED,
                          .from = from,
                          .name = name,
                          .device = device};
    if (strcmp(from, "keep") == 0)
        id.how = IDENTITY_KEEP;
    else if (strchr(from, '@') == NULL)
        id.how = IDENTITY_REWRITE;
    return id;
}

/* A message for more people than a whole day has goes in parts: first what is left of this day. */
static uint32_t recipients_at_once(const struct attempt *a)
{
    const struct mailbox *m = pool_mailbox(a->pool);
    uint32_t most = m->config->recipients_per_message;
    uint32_t day = m->config->recipients_per_day;
    uint32_t pending = (uint32_t)envelope_count(&a->outcome.envelope, RECIPIENT_PENDING);
    uint32_t used = budget_recipients(m->budget, now_of(a->dispatch));
    if (day == 0 || pending <= day || (most != 0 && most <= day))
        return most;
    log_event(
        LOG_LEVEL_INFO, "split", LOG_ID("queue", a->info.id), LOG_STR("mailbox", m->config->name),
        LOG_U64("recipients", pending), LOG_U64("day", day),
        LOG_STR("reason", "it has more recipients than the mailbox may use in a day; it leaves "
                          "in parts, on several days"),
        LOG_END);
    return used < day ? day - used : day;
}

/* Nothing was sent, so the mailbox hears nothing and keeps the connection. */
static void settle_unsayable(struct attempt *a, enum client_stage stage, const struct reply *reply)
{
    const struct outcome_context context = {.stage = stage,
                                            .reply = reply,
                                            .attempts = a->info.attempts,
                                            .tried_ms = a->info.tried_ms,
                                            .losses = a->info.losses};
    struct outcome_end end;
    a->began_ms = now_of(a->dispatch);
    outcome_finish(&a->outcome, &context, &end);
    attempt_settle(a, &end);
    pool_return(a->connection, a);
    a->connection = NULL;
    attempt_end(a);
}

/* False when nobody is left to submit to, and the attempt has ended. */
static bool leave_out_unsayable(struct attempt *a)
{
    enum client_stage stage;
    struct reply reply;
    if (a->connection == NULL || client_has_smtputf8(a->connection->client) ||
        smtputf8_leave_out(&a->outcome, letter_reverse_path(a->letter), &stage, &reply))
        return true;
    settle_unsayable(a, stage, &reply);
    return false;
}

static void on_letter(void *ctx, const struct error *err)
{
    struct attempt *a = ctx;
    if (err != NULL) {
        on_unreadable(a, err);
        return;
    }
    if (!leave_out_unsayable(a))
        return;
    a->recipients = outcome_limit(&a->outcome, recipients_at_once(a));
    uint64_t when = attempt_wait(a);
    if (when != 0)
        attempt_release(a, when);
    else
        attempt_submit(a);
}

static void on_reader(void *ctx, struct queue_reader *reader, const struct envelope *e,
                      const struct error *err)
{
    struct attempt *a = ctx;
    struct dispatch *d = a->dispatch;
    if (reader == NULL) {
        on_unreadable(a, err);
        return;
    }
    a->stored = e;
    a->has_outcome = outcome_init(&a->outcome, e);
    if (a->has_outcome) {
        a->identity = identity_of(d, pool_mailbox(a->pool)->config, e->device);
        a->letter = letter_new(reader, e, &a->identity, on_letter, a);
    } else {
        queue_reader_close(reader);
    }
    if (a->letter == NULL)
        attempt_release(a, now_of(d) + READ_RETRY_MS);
}

/* The next message on an idle connection, or on one that others have. */
static bool attempt_begin(struct dispatch *d, struct pool *pool, uint32_t route, enum lane lowest,
                          bool join)
{
    struct attempt *a = calloc(1, sizeof *a);
    if (a == NULL)
        return false;
    if (!queue_pick_from(d->set.queue, route, lowest, now_of(d), &a->info)) {
        free(a);
        return false;
    }
    a->dispatch = d;
    a->pool = pool;
    a->connection = join ? pool_join(pool, a, lowest == LANE_URGENT) : pool_lend(pool, a);
    a->next = d->attempts;
    d->attempts = a;
    queue_reader_open(d->set.queue, a->info.id, on_reader, a);
    return true;
}

/* ---- choosing -------------------------------------------------------------------------------- */

/* A mailbox in trouble is probed by one message at a time. What is kept of the connections for
 * urgent mail, only that may use. */
static bool may_take_connection(struct pool *p, bool urgent, uint64_t now_ms)
{
    struct mailbox *m = pool_mailbox(p);
    size_t lent = pool_count(p, POOL_LENT);
    uint32_t connections = mailbox_connections_allowed(m, now_ms);
    if (m->state != MAILBOX_READY)
        return lent == 0;
    return urgent || connections <= m->config->urgent_connections ||
           lent + m->config->urgent_connections < connections;
}

/* The same is true of what is kept of the minute. */
static bool may_take_message(struct pool *p, bool urgent, uint64_t now_ms)
{
    struct mailbox *m = pool_mailbox(p);
    return mailbox_is_usable(m, now_ms) && budget_may_send(m->budget, urgent, now_ms) == 0 &&
           (may_take_connection(p, urgent, now_ms) || pool_has_room(p, urgent));
}

/* Whether a mailbox is worth leaving an idle connection of another one for, or room on one: it has
 * more left by this many thousandths. */
#define SHARE_STEP 100
#define SHARE_ROOM 50

static uint32_t share_of(const struct dispatch *d, const struct config_route *r, struct pool *p,
                         bool urgent)
{
    uint32_t left = budget_left(pool_mailbox(p)->budget, now_of(d));
    if (r->choose == CONFIG_CHOOSE_ORDER)
        return 0;
    if (pool_count(p, POOL_IDLE) > 0)
        return left + SHARE_STEP;
    return left + (pool_has_room(p, urgent) ? SHARE_ROOM : 0);
}

/* The mailbox of the list that should take the next message, or NULL. */
static struct pool *choose_pool(const struct dispatch *d, const struct config_route *r,
                                const uint32_t *list, size_t count, bool urgent)
{
    struct pool *best = NULL;
    uint32_t most = 0;
    for (size_t i = 0; i < count; i++) {
        struct pool *p = d->pools[list[i]];
        if (!may_take_message(p, urgent, now_of(d)))
            continue;
        uint32_t share = share_of(d, r, p, urgent);
        if (best != NULL && share <= most)
            continue;
        best = p;
        most = share;
    }
    return best;
}

/* How long none of the route's mailboxes has been usable; 0 when one is. A mailbox that is at its
 * limits is usable. */
static uint64_t outage_of(const struct dispatch *d, const struct config_route *r)
{
    uint64_t now = now_of(d);
    uint64_t shortest = UINT64_MAX;
    for (size_t i = 0; i < r->mailbox_count; i++) {
        const struct mailbox *m = &d->mailboxes[r->mailboxes[i]];
        uint64_t lasting = m->state == MAILBOX_READY ? 0 : now - m->trouble_since_ms;
        shortest = lasting < shortest ? lasting : shortest;
    }
    return shortest;
}

static bool backup_may_help(const struct dispatch *d, const struct config_route *r, bool urgent)
{
    uint64_t outage = r->backup_count > 0 ? outage_of(d, r) : 0;
    return outage > 0 &&
           (outage >= r->backup_after_ms || (urgent && r->backup_urgent == CONFIG_YES));
}

/* The route's own mailboxes are still probed when their time comes: one that can be used goes
 * before the backup. */
static struct pool *pool_for(const struct dispatch *d, const struct config_route *r, bool urgent)
{
    struct pool *p = choose_pool(d, r, r->mailboxes, r->mailbox_count, urgent);
    if (p == NULL && backup_may_help(d, r, urgent))
        p = choose_pool(d, r, r->backup, r->backup_count, urgent);
    return p;
}

/* Only a small message can share a connection. Its header may still change a little, and then it
 * waits there. */
static bool next_is_small(struct dispatch *d, uint32_t route, enum lane lowest)
{
    struct queue_info info;
    return queue_peek_from(d->set.queue, route, lowest, now_of(d), &info) &&
           info.size <= CLIENT_FLIGHT_MAX - HEADER_GROWTH;
}

/* Small messages that join one after the other could keep every connection busy, so that a large
 * one of another route or lane never found any idle: nobody joins before it has. */
static bool may_join(struct dispatch *d, struct pool *p, uint32_t route, enum lane lowest)
{
    bool *wanted = &d->idle_wanted[pool_mailbox(p) - d->mailboxes];
    if (pool_mailbox(p)->config->in_flight <= 1)
        return false;
    bool small = next_is_small(d, route, lowest);
    if (!small && pool_count(p, POOL_CONNECTING) == 0)
        *wanted = true;
    return small && !*wanted && pool_has_room(p, lowest == LANE_URGENT);
}

/* An idle connection, else a further one and meanwhile room on one that is lent. */
static bool serve_pool(struct dispatch *d, struct pool *p, uint32_t route, enum lane lowest)
{
    if (may_take_connection(p, lowest == LANE_URGENT, now_of(d))) {
        if (pool_count(p, POOL_IDLE) > 0) {
            d->idle_wanted[pool_mailbox(p) - d->mailboxes] = false;
            return attempt_begin(d, p, route, lowest, false);
        }
        pool_open(p, queue_waiting(d->set.queue, route));
    }
    return may_join(d, p, route, lowest) && attempt_begin(d, p, route, lowest, true);
}

/* Begins a message of these lanes, or asks for the connections it needs. False when nothing was
 * begun. */
static bool serve_lanes(struct dispatch *d, uint32_t route, enum lane lowest)
{
    struct queue *q = d->set.queue;
    const struct config_route *r = config_route_of(d, queue_route_name(q, route));
    if (queue_next_due_from(q, route, lowest, now_of(d)) > now_of(d))
        return false;
    struct pool *p = pool_for(d, r, lowest == LANE_URGENT);
    return p != NULL && serve_pool(d, p, route, lowest);
}

/* Where other mail may not go any more urgent mail may. */
static bool serve_route(struct dispatch *d, uint32_t route)
{
    return serve_lanes(d, route, LANE_BULK) || serve_lanes(d, route, LANE_URGENT);
}

/* One message of a route, then the next route's turn, until none can begin one: routes may share a
 * mailbox. */
static void serve_routes(struct dispatch *d)
{
    uint32_t count = queue_route_count(d->set.queue);
    for (uint32_t vain = 0; vain < count;) {
        uint32_t route = d->next_route % count;
        d->next_route = route + 1;
        vain = serve_route(d, route) ? 0 : vain + 1;
    }
}

static uint64_t earliest(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void sleep_until_next(struct dispatch *d)
{
    uint64_t now = now_of(d);
    uint64_t next = now + SLEEP_MAX_MS;
    for (uint32_t i = 0; i < queue_route_count(d->set.queue); i++) {
        uint64_t due = queue_next_due(d->set.queue, i, now);
        if (due > now) /* what is due already waits for a mailbox or connection, which report */
            next = earliest(next, due);
    }
    for (size_t i = 0; i < d->mailbox_count; i++) {
        uint64_t change = mailbox_next_ms(&d->mailboxes[i], now);
        if (change > now)
            next = earliest(next, change);
    }
    uint64_t wait = next - now;
    const struct timeval tv = {.tv_sec = (time_t)(wait / 1000),
                               .tv_usec = (suseconds_t)(wait % 1000 * 1000)};
    (void)event_add(d->run, &tv);
}

static bool is_quiet(const struct dispatch *d)
{
    for (size_t i = 0; i < d->mailbox_count; i++) {
        if (!pool_is_quiet(d->pools[i]))
            return false;
    }
    return d->attempts == NULL;
}

/* Those that no mail has tried: what was mended shows without any. */
static void try_asked(struct dispatch *d)
{
    for (size_t i = 0; i < d->mailbox_count; i++) {
        if (d->mailboxes[i].asked)
            pool_open(d->pools[i], 1);
    }
}

static void on_run(evutil_socket_t fd, short what, void *ctx)
{
    struct dispatch *d = ctx;
    (void)fd;
    (void)what;
    for (size_t i = 0; i < d->mailbox_count; i++) {
        mailbox_tick(&d->mailboxes[i], now_of(d));
        pool_tick(d->pools[i]);
    }
    if (d->on_stopped == NULL) {
        if (now_of(d) >= d->spool_retry_ms)
            serve_routes(d);
        try_asked(d);
        sleep_until_next(d);
    } else if (!d->told_stopped && is_quiet(d)) {
        d->told_stopped = true;
        d->on_stopped(d->stop_ctx);
    }
    ledger_look(d->ledger, now_of(d), clock_wall_ms(d->set.clock));
}

/* ---- before the mail is here ------------------------------------------------------------------
 */

static bool may_expect(struct pool *p, uint64_t now_ms)
{
    struct mailbox *m = pool_mailbox(p);
    return m->state == MAILBOX_READY && m->proven && pool_count(p, POOL_IDLE) == 0 &&
           pool_count(p, POOL_CONNECTING) == 0 && budget_may_send(m->budget, false, now_ms) == 0;
}

/* The mailbox that would take the message now. */
void dispatch_expect(struct dispatch *d, const char *route)
{
    struct pool *p = NULL;
    if (d->on_stopped == NULL && now_of(d) >= d->spool_retry_ms)
        p = pool_for(d, config_route_of(d, route), false);
    if (p != NULL && may_expect(p, now_of(d)))
        pool_open(p, 1);
}

/* ---- life ------------------------------------------------------------------------------------ */

static bool make_pool(struct dispatch *d, size_t i, struct error *err)
{
    const struct pool_settings settings = {.mailbox = &d->mailboxes[i],
                                           .signins = d->set.signins,
                                           .index = i,
                                           .streams = d->set.streams,
                                           .dns = d->set.dns,
                                           .clock = d->set.clock,
                                           .hostname = d->set.config->hostname,
                                           .borrower = &dispatch_borrower,
                                           .next_id = &d->next_connection,
                                           .replies = d->set.replies,
                                           .on_change = on_pool_change,
                                           .ctx = d};
    if (!mailbox_init(&d->mailboxes[i], &d->set.config->mailboxes[i], err))
        return false;
    d->mailbox_count = i + 1;
    d->pools[i] = pool_new(&settings);
    return d->pools[i] != NULL || error_set(err, ERROR_NO_ROOM, "out of memory");
}

static bool open_ledger(struct dispatch *d, struct error *err)
{
    const struct ledger_settings settings = {.executor = d->set.executor,
                                             .file = d->set.ledger,
                                             .queue = d->set.queue,
                                             .mailboxes = d->mailboxes,
                                             .count = d->mailbox_count};
    if (d->set.ledger == NULL)
        return true;
    d->ledger = ledger_open(&settings, now_of(d), clock_wall_ms(d->set.clock));
    return d->ledger != NULL || error_set(err, ERROR_NO_ROOM, "out of memory");
}

struct dispatch *dispatch_new(const struct dispatch_settings *settings, struct error *err)
{
    size_t count = settings->config->mailbox_count;
    struct dispatch *d = calloc(1, sizeof *d);
    if (d == NULL) {
        error_set(err, ERROR_NO_ROOM, "out of memory");
        return NULL;
    }
    d->set = *settings;
    d->mailboxes = calloc(count, sizeof *d->mailboxes);
    d->pools = calloc(count, sizeof *d->pools);
    d->idle_wanted = calloc(count, sizeof *d->idle_wanted);
    d->run = evtimer_new(settings->base, on_run, d);
    bool ok =
        (d->mailboxes != NULL && d->pools != NULL && d->idle_wanted != NULL && d->run != NULL) ||
        error_set(err, ERROR_NO_ROOM, "out of memory");
    for (size_t i = 0; ok && i < count; i++)
        ok = make_pool(d, i, err);
    if (ok && open_ledger(d, err))
        return d;
    dispatch_free(d);
    return NULL;
}

void dispatch_stop(struct dispatch *d, void (*on_stopped)(void *ctx), void *ctx)
{
    d->on_stopped = on_stopped;
    d->stop_ctx = ctx;
    for (size_t i = 0; i < d->mailbox_count; i++)
        pool_stop(d->pools[i]);
    dispatch_wake(d);
}

void dispatch_free(struct dispatch *d)
{
    if (d == NULL)
        return;
    ledger_close(d->ledger, now_of(d), clock_wall_ms(d->set.clock));
    while (d->attempts != NULL) {
        struct attempt *a = d->attempts;
        d->attempts = a->next;
        attempt_free(a);
    }
    for (size_t i = 0; i < d->mailbox_count; i++) {
        pool_free(d->pools[i]);
        mailbox_done(&d->mailboxes[i]);
    }
    if (d->run != NULL)
        event_free(d->run);
    free(d->idle_wanted);
    free(d->pools);
    free(d->mailboxes);
    free(d);
}

size_t dispatch_mailbox_count(const struct dispatch *d)
{
    return d->mailbox_count;
}

static bool route_has(const struct config_route *r, size_t mailbox)
{
    for (size_t i = 0; i < r->mailbox_count; i++) {
        if (r->mailboxes[i] == mailbox)
            return true;
    }
    return false;
}

/* A route's mail is shared by its mailboxes. */
static uint64_t waiting_for(const struct dispatch *d, size_t mailbox)
{
    const struct queue *q = d->set.queue;
    uint64_t waiting = 0;
    for (uint32_t i = 0; i < queue_route_count(q); i++) {
        const struct config_route *r = config_route_of(d, queue_route_name(q, i));
        if (route_has(r, mailbox))
            waiting += (queue_waiting(q, i) + r->mailbox_count - 1) / r->mailbox_count;
    }
    return waiting;
}

/* Each message has one recipient at least. */
static uint64_t empty_in_ms(const struct dispatch *d, size_t mailbox)
{
    const struct mailbox *m = &d->mailboxes[mailbox];
    uint64_t waiting = waiting_for(d, mailbox);
    uint64_t now = now_of(d);
    uint64_t in = waiting > 0 ? budget_done_in_ms(m->budget, waiting, waiting, now) : 0;
    uint64_t pause = mailbox_is_usable(m, now) ? 0 : m->next_try_ms - now;
    if (waiting == 0 || in == BUDGET_NEVER)
        return waiting == 0 ? 0 : SCHEDULE_NEVER;
    return in + pause;
}

bool dispatch_mailbox(const struct dispatch *d, size_t i, struct mailbox_status *out)
{
    if (i >= d->mailbox_count)
        return false;
    mailbox_status(&d->mailboxes[i], now_of(d), out);
    out->empty_in_ms = empty_in_ms(d, i);
    return true;
}

bool dispatch_resume(struct dispatch *d, const char *mailbox)
{
    for (size_t i = 0; i < d->mailbox_count; i++) {
        if (strcmp(d->mailboxes[i].config->name, mailbox) != 0)
            continue;
        mailbox_start_over(&d->mailboxes[i]);
        pool_retry(d->pools[i]);
        dispatch_wake(d);
        return true;
    }
    return false;
}

static uint64_t latest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* What waits for a message under way to end is about as late as the budget's window. */
static uint64_t known_time(uint64_t ms, uint64_t now_ms)
{
    return ms == BUDGET_NEVER ? now_ms + BUDGET_WINDOW_MS : ms;
}

static uint64_t mailbox_ready_ms(const struct mailbox *m, uint64_t now_ms)
{
    uint64_t usable = mailbox_is_usable(m, now_ms) ? 0 : m->next_try_ms;
    uint64_t send = known_time(budget_may_send(m->budget, true, now_ms), now_ms);
    uint64_t recipient = known_time(budget_may_use_recipients(m->budget, 1, now_ms), now_ms);
    return latest(usable, latest(send, recipient));
}

uint64_t dispatch_route_ready_ms(const struct dispatch *d, const char *route,
                                 struct mailbox_status *out_first)
{
    const struct config_route *r = config_route_of(d, route);
    const struct mailbox *first = NULL;
    uint64_t ready = UINT64_MAX;
    for (size_t i = 0; i < r->mailbox_count; i++) {
        const struct mailbox *m = &d->mailboxes[r->mailboxes[i]];
        uint64_t when = mailbox_ready_ms(m, now_of(d));
        bool better = when == ready && m->state == MAILBOX_READY && first->state != MAILBOX_READY;
        if (first != NULL && when >= ready && !better)
            continue;
        first = m;
        ready = when;
    }
    mailbox_status(first, now_of(d), out_first);
    return ready;
}

uint64_t dispatch_route_max_size(const struct dispatch *d, const char *route)
{
    const struct config_route *r = config_route_of(d, route);
    uint64_t most = 0;
    for (size_t i = 0; i < r->mailbox_count; i++) {
        uint64_t max = d->mailboxes[r->mailboxes[i]].max_size;
        most = max > most ? max : most;
    }
    return most;
}
