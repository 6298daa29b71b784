#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include <event2/event.h>

#include "relay/submit/dispatch.h"
#include "relay/submit/pool.h"

/* ---- what stands in for the pools ------------------------------------------------------------ */

struct pool {
    struct mailbox *mailbox;
    size_t count[POOL_STATE_COUNT];
    size_t opened; /* asked for */
};

static struct pool pools[2];

struct pool *pool_new(const struct pool_settings *settings)
{
    struct pool *p = &pools[settings->index];
    *p = (struct pool){.mailbox = settings->mailbox};
    return p;
}

void pool_free(struct pool *p)
{
    (void)p;
}

struct mailbox *pool_mailbox(const struct pool *p)
{
    return p->mailbox;
}

size_t pool_count(const struct pool *p, enum pool_state state)
{
    return p->count[state];
}

void pool_open(struct pool *p, size_t wanted)
{
    p->opened += wanted;
}

bool pool_has_room(const struct pool *p, bool urgent)
{
    (void)p;
    (void)urgent;
    return false;
}

struct pool_connection *pool_lend(struct pool *p, void *borrower)
{
    (void)p;
    (void)borrower;
    return NULL;
}

struct pool_connection *pool_join(struct pool *p, void *borrower, bool urgent)
{
    (void)p;
    (void)borrower;
    (void)urgent;
    return NULL;
}

void pool_return(struct pool_connection *c, void *borrower)
{
    (void)c;
    (void)borrower;
}

uint64_t pool_begin(struct pool_connection *c)
{
    (void)c;
    return 1;
}

void pool_judge(struct pool_connection *c, uint64_t number, const struct verdict *v,
                enum client_stage stage, const struct reply *reply)
{
    (void)c;
    (void)number;
    (void)v;
    (void)stage;
    (void)reply;
}

void pool_retry(struct pool *p)
{
    (void)p;
}

void pool_tick(struct pool *p)
{
    (void)p;
}

void pool_stop(struct pool *p)
{
    (void)p;
}

bool pool_is_quiet(const struct pool *p)
{
    (void)p;
    return true;
}

/* ---- the fixture ----------------------------------------------------------------------------- */

struct fixture {
    struct event_base *base;
    struct clock clock;
    struct config_mailbox mailboxes[2];
    uint32_t order[2];
    char name[16];
    struct config_route route;
    struct config config;
    struct dispatch *dispatch;
};

static void on_stopped(void *ctx)
{
    (void)ctx;
}

/* Two mailboxes, which have signed in, and a route that prefers the first. */
static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    clock_init(&f->clock);
    f->base = event_base_new();
    assert_non_null(f->base);
    for (uint32_t i = 0; i < 2; i++) {
        f->order[i] = i;
        f->mailboxes[i] = (struct config_mailbox){.name = i == 0 ? "first" : "second",
                                                  .auth = CONFIG_AUTH_NONE,
                                                  .connections = 3,
                                                  .in_flight = 1,
                                                  .messages_per_minute = 2};
    }
    snprintf(f->name, sizeof(f->name), "default");
    f->route = (struct config_route){
        .name = f->name, .mailboxes = f->order, .mailbox_count = 2, .choose = CONFIG_CHOOSE_ORDER};
    f->config = (struct config){
        .mailboxes = f->mailboxes, .mailbox_count = 2, .routes = &f->route, .route_count = 1};
    const struct dispatch_settings settings = {
        .base = f->base, .clock = &f->clock, .config = &f->config};
    f->dispatch = dispatch_new(&settings, NULL);
    assert_non_null(f->dispatch);
    pools[0].mailbox->proven = pools[1].mailbox->proven = true;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    dispatch_free(f->dispatch);
    event_base_free(f->base);
    free(f);
    return 0;
}

/* ---- mail that is on its way ----------------------------------------------------------------- */

static void a_connection_is_opened_for_mail_that_is_on_its_way(void **state)
{
    struct fixture *f = *state;
    dispatch_expect(f->dispatch, "default");
    assert_int_equal(pools[0].opened, 1);
    assert_int_equal(pools[1].opened, 0);
}

static void none_is_opened_beside_one_that_is_idle_or_being_made(void **state)
{
    struct fixture *f = *state;
    pools[0].count[POOL_CONNECTING] = 1;
    dispatch_expect(f->dispatch, "default");
    pools[0].count[POOL_CONNECTING] = 0;
    pools[0].count[POOL_IDLE] = 1;
    dispatch_expect(f->dispatch, "default");
    assert_int_equal(pools[0].opened + pools[1].opened, 0);
    pools[0].count[POOL_IDLE] = 0;
    pools[0].count[POOL_LENT] = 1;
    dispatch_expect(f->dispatch, "default");
    assert_int_equal(pools[0].opened, 1);
}

static void none_for_a_mailbox_that_is_in_trouble_or_has_never_signed_in(void **state)
{
    struct fixture *f = *state;
    pools[0].mailbox->proven = false;
    dispatch_expect(f->dispatch, "default");
    assert_int_equal(pools[0].opened + pools[1].opened, 0);
    pools[0].mailbox->proven = true;
    pools[0].mailbox->state = MAILBOX_WAITING; /* and its time has come: that is for a message */
    dispatch_expect(f->dispatch, "default");
    assert_int_equal(pools[0].opened, 0);
}

static void one_whose_minute_is_spent_leaves_it_to_the_next(void **state)
{
    struct fixture *f = *state;
    uint64_t now = clock_now_ms(&f->clock);
    for (int i = 0; i < 2; i++)
        budget_message_started(pools[0].mailbox->budget, 1, now);
    dispatch_expect(f->dispatch, "default");
    assert_int_equal(pools[0].opened, 0);
    assert_int_equal(pools[1].opened, 1);
}

static void none_during_a_stop(void **state)
{
    struct fixture *f = *state;
    dispatch_stop(f->dispatch, on_stopped, NULL);
    dispatch_expect(f->dispatch, "default");
    assert_int_equal(pools[0].opened + pools[1].opened, 0);
}

#define FRESH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH(a_connection_is_opened_for_mail_that_is_on_its_way),
        FRESH(none_is_opened_beside_one_that_is_idle_or_being_made),
        FRESH(none_for_a_mailbox_that_is_in_trouble_or_has_never_signed_in),
        FRESH(one_whose_minute_is_spent_leaves_it_to_the_next),
        FRESH(none_during_a_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
