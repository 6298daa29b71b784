#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "relay/submit/pool.h"

#define SECOND 1000ull
#define MINUTE (60 * SECOND)

#define IDLE_MS    (40 * SECOND)
#define SESSION_MS (5 * MINUTE)

/* ---- what stands in for the clients ---------------------------------------------------------- */

struct client {
    struct client_events events;
    void *ctx;
    uint64_t id;
    struct client *next;
    bool quit;
    bool dropped;
    bool busy; /* replies are due */
    bool signing_in;
    bool full; /* has no room */
    bool held;
    void *waiting; /* whose transaction waits; NULL: none */
};

static struct client *clients; /* newest first */
static unsigned made;

struct client *client_new(struct stream_loop *streams, struct dns *dns,
                          const struct client_target *target, uint64_t id,
                          const struct client_events *events, void *ctx)
{
    struct client *c = calloc(1, sizeof(*c));
    (void)streams;
    (void)dns;
    assert_non_null(c);
    *c = (struct client){
        .events = *events, .ctx = ctx, .id = id, .next = clients, .held = target->held};
    clients = c;
    made++;
    return c;
}

void client_free(struct client *c)
{
    struct client **at = &clients;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    free(c);
}

void client_quit(struct client *c)
{
    void *waiting = c->waiting;
    struct reply reply;
    assert_false(c->quit);
    c->quit = !c->busy;
    c->waiting = NULL;
    reply_local(&reply, LOCAL_LOST, "closed");
    if (waiting != NULL)
        c->events.on_result(c->ctx, c, waiting, STAGE_IDLE, &reply);
}

void client_drop(struct client *c)
{
    assert_false(c->dropped || c->quit);
    c->dropped = true;
}

void client_release(struct client *c)
{
    assert_false(c->dropped);
    assert_true(c->held);
    c->held = false;
}

bool client_has_room(const struct client *c)
{
    return !c->full;
}

bool client_has_connected(const struct client *c)
{
    (void)c;
    return true;
}

bool client_is_signing_in(const struct client *c)
{
    return c->signing_in;
}

uint64_t client_id(const struct client *c)
{
    return c->id;
}

bool client_lacks_bdat(const struct client *c)
{
    (void)c;
    return false;
}

const char *client_mechanism(const struct client *c)
{
    (void)c;
    return "LOGIN";
}

/* ---- the fixture ----------------------------------------------------------------------------- */

struct borrowed {
    unsigned lost;
    unsigned results;
    bool first_use;
};

struct fixture {
    struct config_mailbox config;
    struct mailbox mailbox;
    struct clock clock;
    struct pool *pool;
    uint64_t next_id;
    unsigned changes;
};

static void on_lost(void *borrower)
{
    ((struct borrowed *)borrower)->lost++;
}

static void on_recipient(void *borrower, size_t index, const struct reply *reply)
{
    (void)borrower;
    (void)index;
    (void)reply;
}

static void on_doubt(void *borrower)
{
    (void)borrower;
}

static void on_result(void *borrower, enum client_stage stage, const struct reply *reply,
                      bool first_use)
{
    struct borrowed *b = borrower;
    (void)stage;
    (void)reply;
    b->results++;
    b->first_use = first_use;
}

static const struct pool_borrower borrower = {
    .on_lost = on_lost, .on_recipient = on_recipient, .on_doubt = on_doubt, .on_result = on_result};

static void on_change(void *ctx)
{
    ((struct fixture *)ctx)->changes++;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->config = (struct config_mailbox){.name = "office",
                                        .host = "smtp.example",
                                        .port = 587,
                                        .auth = CONFIG_AUTH_NONE,
                                        .address = "",
                                        .login = "",
                                        .password_file = "",
                                        .ca_file = "",
                                        .helo = "",
                                        .connections = 3,
                                        .idle_ms = IDLE_MS,
                                        .session_ms = SESSION_MS};
    assert_true(mailbox_init(&f->mailbox, &f->config, NULL));
    clock_init(&f->clock);
    const struct pool_settings settings = {.mailbox = &f->mailbox,
                                           .clock = &f->clock,
                                           .hostname = "relay.example",
                                           .borrower = &borrower,
                                           .next_id = &f->next_id,
                                           .on_change = on_change,
                                           .ctx = f};
    f->pool = pool_new(&settings);
    assert_non_null(f->pool);
    made = 0;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    pool_free(f->pool);
    assert_null(clients);
    mailbox_done(&f->mailbox);
    free(f);
    return 0;
}

static void ready(struct client *c)
{
    c->events.on_ready(c->ctx, c);
}

static void result(struct client *c, struct borrowed *b, enum client_stage stage, const char *text)
{
    struct reply reply;
    assert_true(reply_from_text(&reply, text));
    c->events.on_result(c->ctx, c, b, stage, &reply);
}

/* It ends in a transaction. */
static void result_lost(struct client *c, struct borrowed *b, enum client_stage stage)
{
    struct reply reply;
    reply_local(&reply, LOCAL_LOST, "lost");
    c->events.on_result(c->ctx, c, b, stage, &reply);
}

static void fail_lost(struct client *c, enum client_stage stage)
{
    struct reply reply;
    reply_local(&reply, LOCAL_LOST, "lost");
    c->events.on_failed(c->ctx, c, stage, &reply);
}

static void closed(struct client *c, bool peer_closed)
{
    c->events.on_closed(c->ctx, c, peer_closed);
}

/* One signed-in connection. */
static struct client *open_one(struct fixture *f)
{
    pool_open(f->pool, 1);
    assert_non_null(clients);
    ready(clients);
    return clients;
}

static uint32_t slots(struct fixture *f)
{
    return budget_connections(f->mailbox.budget, clock_now_ms(&f->clock));
}

/* ---- opening --------------------------------------------------------------------------------- */

static void one_connection_proves_the_sign_in_and_then_all_are_used(void **state)
{
    struct fixture *f = *state;
    pool_open(f->pool, 5);
    assert_int_equal(made, 1);
    ready(clients);
    assert_int_equal(pool_count(f->pool, POOL_IDLE), 1);
    assert_int_equal(f->changes, 1);
    pool_open(f->pool, 5);
    assert_int_equal(made, 3);
    assert_int_equal(slots(f), 3);
}

static void no_more_are_opened_than_messages_wait(void **state)
{
    struct fixture *f = *state;
    (void)open_one(f);
    pool_open(f->pool, 1);
    pool_open(f->pool, 1);
    assert_int_equal(pool_count(f->pool, POOL_CONNECTING), 1);
}

static void a_closing_connection_keeps_its_slot_until_the_peer_has_closed(void **state)
{
    struct fixture *f = *state;
    struct client *first = open_one(f);
    pool_open(f->pool, 5);
    clock_advance(&f->clock, IDLE_MS + 1);
    pool_tick(f->pool);
    assert_true(first->quit);
    assert_int_equal(pool_count(f->pool, POOL_CLOSING), 1);
    pool_open(f->pool, 5);
    assert_int_equal(made, 3);
    closed(first, true);
    clock_advance(&f->clock, BUDGET_CLOSED_MS);
    pool_open(f->pool, 5);
    assert_int_equal(made, 4);
}

static void a_peer_that_never_closes_costs_its_slot_for_ten_minutes(void **state)
{
    struct fixture *f = *state;
    struct client *c = open_one(f);
    clock_advance(&f->clock, MINUTE);
    fail_lost(c, STAGE_IDLE);
    closed(c, false);
    assert_int_equal(slots(f), 1);
    clock_advance(&f->clock, BUDGET_LINGER_MS);
    assert_int_equal(slots(f), 0);
}

/* ---- held until another one has signed in ---------------------------------------------------- */

/* The first of three, which signs in; the others are held. */
static struct client *open_three(struct fixture *f)
{
    f->config.in_flight = 2;
    pool_open(f->pool, 5);
    assert_int_equal(made, 3);
    assert_true(clients->held && clients->next->held);
    assert_false(clients->next->next->held);
    return clients->next->next;
}

static void the_others_are_held_until_the_first_has_signed_in(void **state)
{
    struct fixture *f = *state;
    struct client *first = open_three(f);
    pool_open(f->pool, 5);
    assert_int_equal(made, 3); /* within what is allowed */
    ready(first);
    assert_false(clients->held || clients->next->held);
    ready(clients);
    ready(clients->next);
    assert_int_equal(pool_count(f->pool, POOL_IDLE), 3);
}

static void when_the_first_fails_the_others_are_dropped(void **state)
{
    struct fixture *f = *state;
    struct client *first = open_three(f);
    fail_lost(first, STAGE_AUTH);
    assert_true(clients->dropped && clients->next->dropped && !first->dropped);
    assert_int_equal(f->mailbox.failed, 1);
    closed(first, true);
    clock_advance(&f->clock, BUDGET_CLOSED_MS);
    assert_int_equal(slots(f), 2); /* the peer has not closed them yet */
    closed(clients, true);
    closed(clients, true);
    clock_advance(&f->clock, BUDGET_CLOSED_MS);
    assert_int_equal(slots(f), 0);
    clock_advance(&f->clock, 10 * MINUTE);
    pool_open(f->pool, 5);
    assert_int_equal(made, 4); /* one alone probes */
}

static void a_held_one_that_ends_is_nobody_s_trouble_and_not_replaced(void **state)
{
    struct fixture *f = *state;
    struct client *first = open_three(f);
    fail_lost(clients, STAGE_EHLO);
    closed(clients, true);
    assert_int_equal(f->mailbox.state, MAILBOX_READY);
    clock_advance(&f->clock, BUDGET_CLOSED_MS);
    pool_open(f->pool, 5);
    assert_int_equal(made, 3);
    ready(first);
    pool_open(f->pool, 5);
    assert_int_equal(made, 4);
    assert_false(clients->held);
}

static void none_is_held_for_what_is_signed_in_already(void **state)
{
    struct fixture *f = *state;
    f->config.in_flight = 2;
    (void)open_one(f);
    f->mailbox.proven = false; /* a token was refused since */
    pool_open(f->pool, 2);
    assert_int_equal(made, 3);
    assert_true(clients->held);
    assert_false(clients->next->held);
}

static void a_refused_sign_in_drops_those_that_have_not_begun_theirs(void **state)
{
    struct fixture *f = *state;
    (void)open_one(f);
    pool_open(f->pool, 2);
    struct client *late = clients;
    struct client *refused = clients->next;
    struct reply reply;
    assert_true(reply_from_text(&reply, "535 5.7.3 Authentication unsuccessful"));
    refused->signing_in = true;
    refused->events.on_failed(refused->ctx, refused, STAGE_AUTH, &reply);
    assert_true(late->dropped && !refused->dropped);
    assert_int_equal(pool_count(f->pool, POOL_CONNECTING), 0);
    assert_int_equal(f->mailbox.failed, 1);
    closed(refused, true);
    clock_advance(&f->clock, BUDGET_CLOSED_MS);
    assert_int_equal(slots(f), 2); /* the peer has not closed it yet */
    closed(late, true);
    clock_advance(&f->clock, BUDGET_CLOSED_MS);
    assert_int_equal(slots(f), 1);
}

static void a_sign_in_that_has_begun_is_not_dropped_with_another_one(void **state)
{
    struct fixture *f = *state;
    (void)open_one(f);
    pool_open(f->pool, 2);
    clients->signing_in = clients->next->signing_in = true;
    fail_lost(clients->next, STAGE_AUTH);
    assert_int_equal(pool_count(f->pool, POOL_CONNECTING), 1);
    ready(clients);
    assert_true(f->mailbox.proven);
}

static void none_is_held_for_long(void **state)
{
    struct fixture *f = *state;
    struct client *first = open_three(f);
    clock_advance(&f->clock, POOL_HOLD_MS);
    pool_tick(f->pool);
    assert_true(clients->dropped && clients->next->dropped && !first->dropped);
    assert_int_equal(pool_count(f->pool, POOL_CONNECTING), 1);
    assert_int_equal(slots(f), 3);
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void an_end_before_the_sign_in_is_the_mailbox_s_trouble(void **state)
{
    struct fixture *f = *state;
    pool_open(f->pool, 1);
    fail_lost(clients, STAGE_BANNER);
    assert_int_equal(f->mailbox.state, MAILBOX_WAITING);
    closed(clients, true);
    pool_open(f->pool, 1);
    assert_int_equal(made, 1);
    clock_advance(&f->clock, BUDGET_CLOSED_MS);
    assert_int_equal(slots(f), 0);
}

static void an_end_right_after_the_sign_in_is_trouble_too(void **state)
{
    struct fixture *f = *state;
    struct client *c = open_one(f);
    fail_lost(c, STAGE_IDLE);
    assert_int_equal(f->mailbox.state, MAILBOX_WAITING);
    closed(c, true);
}

static void an_end_while_the_first_message_is_being_opened_is_trouble_too(void **state)
{
    struct fixture *f = *state;
    struct borrowed b = {0};
    struct client *c = open_one(f);
    assert_non_null(pool_lend(f->pool, &b));
    fail_lost(c, STAGE_IDLE);
    assert_int_equal(b.lost, 1);
    assert_int_equal(b.results, 0);
    assert_int_equal(f->mailbox.state, MAILBOX_WAITING);
    closed(c, true);
}

static void the_end_of_an_idle_connection_costs_nothing(void **state)
{
    struct fixture *f = *state;
    struct borrowed b = {0};
    struct client *unused = open_one(f);
    clock_advance(&f->clock, 30 * SECOND);
    fail_lost(unused, STAGE_IDLE);
    assert_int_equal(f->mailbox.state, MAILBOX_READY);
    closed(unused, true);

    struct client *used = open_one(f);
    assert_non_null(pool_lend(f->pool, &b));
    result(used, &b, STAGE_FINAL_DOT, "250 2.0.0 OK");
    ready(used);
    fail_lost(used, STAGE_IDLE);
    assert_int_equal(f->mailbox.state, MAILBOX_READY);
    assert_int_equal(b.lost, 0);
    closed(used, true);
}

/* ---- lending --------------------------------------------------------------------------------- */

static void a_connection_returned_unused_counts_as_new(void **state)
{
    struct fixture *f = *state;
    struct borrowed b = {0};
    struct client *c = open_one(f);
    pool_return(pool_lend(f->pool, &b), &b);
    assert_int_equal(pool_count(f->pool, POOL_IDLE), 1);
    assert_non_null(pool_lend(f->pool, &b));
    assert_null(pool_lend(f->pool, &b));
    result(c, &b, STAGE_FINAL_DOT, "250 2.0.0 OK");
    assert_true(b.first_use);
    ready(c);
    assert_non_null(pool_lend(f->pool, &b));
    result(c, &b, STAGE_FINAL_DOT, "250 2.0.0 OK");
    assert_false(b.first_use);
    ready(c);
}

static const struct {
    const char *name;
    const char *reply;
    bool reused;
} endings[] = {
    {"taken", "250 2.0.0 OK", true},
    {"refused for its content", "554 5.6.0 content", true},
    {"too many connections", "432 4.3.2 Concurrent connections limit exceeded", false},
    {"a service that closes", "421 4.3.2 Service not available", false},
};

static void a_connection_is_used_again_unless_its_last_reply_spoils_it(void **state)
{
    struct fixture *f = *state;
    struct borrowed b = {0};
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        struct client *c = open_one(f);
        assert_non_null(pool_lend(f->pool, &b));
        result(c, &b, STAGE_FINAL_DOT, endings[i].reply);
        ready(c);
        if (c->quit == endings[i].reused)
            fail_msg("%s: quit is %d", endings[i].name, c->quit);
        fail_lost(c, STAGE_QUIT);
        closed(c, true);
        clock_advance(&f->clock, BUDGET_CLOSED_MS);
        assert_int_equal(slots(f), 0);
    }
    assert_int_equal(b.results, 4);
}

static void an_old_connection_is_closed_after_its_message(void **state)
{
    struct fixture *f = *state;
    struct borrowed b = {0};
    struct client *c = open_one(f);
    assert_non_null(pool_lend(f->pool, &b));
    clock_advance(&f->clock, SESSION_MS + 1);
    pool_tick(f->pool);
    assert_false(c->quit);
    result(c, &b, STAGE_FINAL_DOT, "250 2.0.0 OK");
    ready(c);
    assert_true(c->quit);
}

static void more_than_are_allowed_now_are_closed(void **state)
{
    struct fixture *f = *state;
    (void)open_one(f);
    pool_open(f->pool, 2);
    ready(clients);
    ready(clients->next);
    assert_int_equal(pool_count(f->pool, POOL_IDLE), 3);
    budget_shrink(f->mailbox.budget, clock_now_ms(&f->clock));
    pool_tick(f->pool);
    assert_int_equal(pool_count(f->pool, POOL_IDLE), 2);
    assert_int_equal(pool_count(f->pool, POOL_CLOSING), 1);
}

/* ---- several messages on one connection -------------------------------------------------------
 */

/* A connection that is lent and has taken a message before. */
static struct client *open_shared(struct fixture *f, struct borrowed *b)
{
    f->config.in_flight = 3;
    struct client *c = open_one(f);
    assert_non_null(pool_lend(f->pool, b));
    (void)pool_begin(c->ctx);
    result(c, b, STAGE_FINAL_DOT, "250 2.0.0 OK");
    ready(c);
    assert_non_null(pool_lend(f->pool, b));
    (void)pool_begin(c->ctx);
    return c;
}

static void a_lent_connection_is_joined_while_it_has_room(void **state)
{
    struct fixture *f = *state;
    struct borrowed b[4] = {{0}};
    struct client *c = open_shared(f, &b[0]);
    assert_true(pool_has_room(f->pool, false));
    assert_ptr_equal(pool_join(f->pool, &b[1], false), c->ctx);
    c->full = true; /* as the client says */
    assert_null(pool_join(f->pool, &b[2], false));
    c->full = false;
    assert_ptr_equal(pool_join(f->pool, &b[2], false), c->ctx);
    assert_false(pool_has_room(f->pool, true)); /* as configured */
    assert_null(pool_join(f->pool, &b[3], false));
    assert_int_equal(pool_count(f->pool, POOL_LENT), 1);
    result(c, &b[0], STAGE_FINAL_DOT, "250 2.0.0 OK");
    assert_false(b[0].first_use);
    assert_true(pool_has_room(f->pool, false));
    result(c, &b[2], STAGE_FINAL_DOT, "250 2.0.0 OK");
    assert_int_equal(pool_count(f->pool, POOL_LENT), 1);
    pool_return(c->ctx, &b[1]);
    assert_int_equal(pool_count(f->pool, POOL_IDLE), 1);
    assert_false(pool_has_room(f->pool, false)); /* it is lent, not joined */
    assert_int_equal(b[0].results + b[1].results + b[2].results, 3);
}

static void with_one_in_flight_nobody_joins(void **state)
{
    struct fixture *f = *state;
    struct borrowed b = {0};
    (void)open_shared(f, &b);
    f->config.in_flight = 1;
    assert_false(pool_has_room(f->pool, true));
}

static void the_one_with_fewest_is_joined(void **state)
{
    struct fixture *f = *state;
    struct borrowed b[5] = {{0}};
    struct client *first = open_shared(f, &b[0]);
    pool_open(f->pool, 1);
    struct client *second = clients;
    ready(second);
    assert_ptr_equal(pool_lend(f->pool, &b[1]), second->ctx);
    assert_ptr_equal(pool_join(f->pool, &b[2], false), second->ctx);
    assert_ptr_equal(pool_join(f->pool, &b[3], false), first->ctx);
}

static void nobody_joins_in_a_mailbox_that_is_in_trouble_or_unproven(void **state)
{
    struct fixture *f = *state;
    struct borrowed b = {0};
    (void)open_shared(f, &b);
    f->mailbox.state = MAILBOX_WAITING;
    assert_false(pool_has_room(f->pool, true));
    f->mailbox.state = MAILBOX_READY;
    f->mailbox.proven = false;
    assert_false(pool_has_room(f->pool, true));
    f->mailbox.proven = true;
    assert_true(pool_has_room(f->pool, true));
}

static void what_is_to_be_closed_is_not_joined(void **state)
{
    struct fixture *f = *state;
    struct borrowed b[3] = {{0}};
    struct client *c = open_shared(f, &b[0]);
    assert_non_null(pool_join(f->pool, &b[1], false));
    result(c, &b[0], STAGE_FINAL_DOT, "432 4.3.2 Concurrent connections limit exceeded");
    assert_null(pool_join(f->pool, &b[2], false));
    result(c, &b[1], STAGE_FINAL_DOT, "250 2.0.0 OK"); /* which does not mend it */
    ready(c);
    assert_true(c->quit);
    c = open_shared(f, &b[0]);
    clock_advance(&f->clock, SESSION_MS + 1);
    assert_false(pool_has_room(f->pool, false));
    result(c, &b[0], STAGE_FINAL_DOT, "250 2.0.0 OK");
    ready(c);
    assert_true(c->quit);
}

static void a_connection_that_closes_is_taken_from_whoever_still_opens_its_message(void **state)
{
    struct fixture *f = *state;
    struct borrowed b[3] = {{0}};
    struct client *c = open_shared(f, &b[0]);
    assert_non_null(pool_join(f->pool, &b[1], false));
    assert_non_null(pool_join(f->pool, &b[2], false));
    (void)pool_begin(c->ctx);
    c->waiting = &b[1];
    result(c, &b[0], STAGE_FINAL_DOT, "421 4.3.2 bye");
    ready(c);
    assert_true(c->quit);
    assert_int_equal(b[1].results, 1);
    assert_false(b[1].first_use);
    assert_int_equal(b[2].lost, 1);
    assert_int_equal(pool_count(f->pool, POOL_CLOSING), 1);
    fail_lost(c, STAGE_QUIT);
    assert_int_equal(b[0].lost + b[1].lost, 0);
}

static void what_is_closed_while_replies_are_due_says_quit_behind_them(void **state)
{
    struct fixture *f = *state;
    struct borrowed b[2] = {{0}};
    struct client *c = open_shared(f, &b[0]);
    assert_non_null(pool_join(f->pool, &b[1], false));
    c->busy = true;
    result(c, &b[0], STAGE_MAIL, "451 4.7.500 Server busy"); /* the replies to RCPT follow */
    pool_return(c->ctx, &b[1]);
    assert_int_equal(pool_count(f->pool, POOL_CLOSING), 1);
    assert_false(c->quit);
    c->busy = false;
    ready(c);
    assert_true(c->quit);
}

static void a_session_that_ends_is_taken_from_all(void **state)
{
    struct fixture *f = *state;
    struct borrowed b[3] = {{0}};
    struct client *c = open_shared(f, &b[0]);
    assert_non_null(pool_join(f->pool, &b[1], false));
    assert_non_null(pool_join(f->pool, &b[2], false));
    result_lost(c, &b[0], STAGE_FINAL_DOT);
    result_lost(c, &b[1], STAGE_IDLE);
    fail_lost(c, STAGE_FINAL_DOT);
    assert_int_equal(b[0].results, 2);
    assert_int_equal(b[1].results, 1);
    assert_int_equal(b[2].results, 0);
    assert_int_equal(b[0].lost + b[1].lost, 0);
    assert_int_equal(b[2].lost, 1);
    assert_int_equal(f->mailbox.state, MAILBOX_READY); /* whoever had the results judges */
}

static void a_stop_waits_for_all_of_them(void **state)
{
    struct fixture *f = *state;
    struct borrowed b[2] = {{0}};
    struct client *c = open_shared(f, &b[0]);
    assert_non_null(pool_join(f->pool, &b[1], false));
    pool_stop(f->pool);
    assert_false(pool_has_room(f->pool, true));
    result(c, &b[0], STAGE_FINAL_DOT, "250 2.0.0 OK");
    assert_false(c->quit);
    assert_false(pool_is_quiet(f->pool));
    result(c, &b[1], STAGE_FINAL_DOT, "250 2.0.0 OK");
    ready(c);
    assert_true(c->quit);
}

static void only_urgent_mail_joins_on_what_is_kept_for_it(void **state)
{
    struct fixture *f = *state;
    struct borrowed b[6] = {{0}};
    f->config.urgent_connections = 1;
    (void)open_shared(f, &b[0]);
    pool_open(f->pool, 2);
    struct client *third = clients;
    struct client *second = clients->next;
    ready(second);
    assert_non_null(pool_lend(f->pool, &b[1]));
    ready(third);
    assert_ptr_equal(pool_lend(f->pool, &b[2]), third->ctx); /* urgent, as the dispatcher sees to */
    assert_ptr_not_equal(pool_join(f->pool, &b[3], false), third->ctx);
    assert_ptr_not_equal(pool_join(f->pool, &b[4], false), third->ctx);
    assert_ptr_equal(pool_join(f->pool, &b[5], true), third->ctx);
}

static void what_was_under_way_together_meets_the_same_trouble_once(void **state)
{
    struct fixture *f = *state;
    struct borrowed b[3] = {{0}};
    struct client *c = open_shared(f, &b[0]);
    struct reply reply;
    assert_true(reply_from_text(&reply, "451 4.7.0 Temporary server error"));
    struct verdict v = verdict_of(STAGE_FINAL_DOT, &reply);
    uint64_t one = pool_begin(c->ctx);
    uint64_t two = pool_begin(c->ctx);
    pool_judge(c->ctx, one, &v, STAGE_FINAL_DOT, &reply);
    assert_int_equal(f->mailbox.troubles + f->mailbox.failed, 2);
    pool_judge(c->ctx, two, &v, STAGE_FINAL_DOT, &reply);
    assert_int_equal(f->mailbox.failed, 1);
    pool_judge(c->ctx, pool_begin(c->ctx), &v, STAGE_FINAL_DOT, &reply);
    assert_int_equal(f->mailbox.failed, 2);
}

/* ---- addresses that race ------------------------------------------------------------------- */

static void every_socket_of_a_race_takes_a_slot(void **state)
{
    struct fixture *f = *state;
    pool_open(f->pool, 1);
    struct client *c = clients;
    assert_int_equal(slots(f), 1);
    assert_true(c->events.take_slot(c->ctx, c));
    assert_true(c->events.take_slot(c->ctx, c));
    assert_false(c->events.take_slot(c->ctx, c)); /* never a fourth */
    assert_int_equal(slots(f), 3);
    c->events.give_slot(c->ctx, c);
    clock_advance(&f->clock, BUDGET_CLOSED_MS);
    assert_int_equal(slots(f), 2);
    fail_lost(c, STAGE_CONNECT);
    closed(c, true); /* the others' slots end with it */
    clock_advance(&f->clock, BUDGET_CLOSED_MS);
    assert_int_equal(slots(f), 0);
}

static void a_race_leaves_the_slots_of_others_alone(void **state)
{
    struct fixture *f = *state;
    (void)open_one(f);
    pool_open(f->pool, 2);
    assert_int_equal(made, 3);
    assert_false(clients->events.take_slot(clients->ctx, clients));
}

static void a_stop_gives_back_every_slot_of_a_race(void **state)
{
    struct fixture *f = *state;
    pool_open(f->pool, 1);
    assert_true(clients->events.take_slot(clients->ctx, clients));
    pool_stop(f->pool);
    clock_advance(&f->clock, BUDGET_CLOSED_MS);
    assert_int_equal(slots(f), 0);
}

/* ---- stopping -------------------------------------------------------------------------------- */

static void a_stop_ends_what_is_idle_or_connecting_and_waits_for_messages(void **state)
{
    struct fixture *f = *state;
    struct borrowed b = {0};
    struct client *lent = open_one(f);
    assert_non_null(pool_lend(f->pool, &b));
    pool_open(f->pool, 2);
    struct client *idle = clients->next;
    ready(idle);
    pool_stop(f->pool);
    assert_int_equal(pool_count(f->pool, POOL_CONNECTING), 0);
    assert_true(idle->quit);
    assert_false(lent->quit);
    assert_false(pool_is_quiet(f->pool));
    pool_open(f->pool, 5);
    assert_int_equal(made, 3);
    result(lent, &b, STAGE_FINAL_DOT, "250 2.0.0 OK");
    ready(lent);
    assert_true(lent->quit);
    assert_false(pool_is_quiet(f->pool));
    clock_advance(&f->clock, POOL_FAREWELL_MS + 1);
    assert_true(pool_is_quiet(f->pool)); /* peers that take their time are not waited for */
}

#define FRESH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH(one_connection_proves_the_sign_in_and_then_all_are_used),
        FRESH(no_more_are_opened_than_messages_wait),
        FRESH(a_closing_connection_keeps_its_slot_until_the_peer_has_closed),
        FRESH(a_peer_that_never_closes_costs_its_slot_for_ten_minutes),
        FRESH(the_others_are_held_until_the_first_has_signed_in),
        FRESH(when_the_first_fails_the_others_are_dropped),
        FRESH(a_held_one_that_ends_is_nobody_s_trouble_and_not_replaced),
        FRESH(none_is_held_for_what_is_signed_in_already),
        FRESH(none_is_held_for_long),
        FRESH(a_sign_in_that_has_begun_is_not_dropped_with_another_one),
        FRESH(a_refused_sign_in_drops_those_that_have_not_begun_theirs),
        FRESH(an_end_before_the_sign_in_is_the_mailbox_s_trouble),
        FRESH(an_end_right_after_the_sign_in_is_trouble_too),
        FRESH(an_end_while_the_first_message_is_being_opened_is_trouble_too),
        FRESH(the_end_of_an_idle_connection_costs_nothing),
        FRESH(a_connection_returned_unused_counts_as_new),
        FRESH(a_connection_is_used_again_unless_its_last_reply_spoils_it),
        FRESH(an_old_connection_is_closed_after_its_message),
        FRESH(more_than_are_allowed_now_are_closed),
        FRESH(a_lent_connection_is_joined_while_it_has_room),
        FRESH(with_one_in_flight_nobody_joins),
        FRESH(the_one_with_fewest_is_joined),
        FRESH(nobody_joins_in_a_mailbox_that_is_in_trouble_or_unproven),
        FRESH(what_is_to_be_closed_is_not_joined),
        FRESH(a_connection_that_closes_is_taken_from_whoever_still_opens_its_message),
        FRESH(what_is_closed_while_replies_are_due_says_quit_behind_them),
        FRESH(a_session_that_ends_is_taken_from_all),
        FRESH(a_stop_waits_for_all_of_them),
        FRESH(only_urgent_mail_joins_on_what_is_kept_for_it),
        FRESH(what_was_under_way_together_meets_the_same_trouble_once),
        FRESH(every_socket_of_a_race_takes_a_slot),
        FRESH(a_race_leaves_the_slots_of_others_alone),
        FRESH(a_stop_gives_back_every_slot_of_a_race),
        FRESH(a_stop_ends_what_is_idle_or_connecting_and_waits_for_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
