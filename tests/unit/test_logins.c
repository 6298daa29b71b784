/* Without a thread: the executor keeps its jobs until the test runs them. The clock is moved, the
 * loop's timers are let fire by waiting for them: none is longer than the first delay. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>

#include "relay/intake/attempts.h"
#include "relay/intake/logins.h"

#define PASSWORD "k7mpx3w9qd"

struct fixture {
    struct event_base *base;
    struct clock clock;
    struct executor_job *jobs;
    size_t submitted;
    struct logins *logins;
    char directory[64];
    char file[96];
    struct net_address client;
    struct login_result told; /* the last one */
    size_t tells;
};

static void keep_job(void *ctx, enum executor_lane lane, struct executor_job *job)
{
    struct fixture *f = ctx;

    (void)lane;
    job->next = f->jobs;
    f->jobs = job;
    f->submitted++;
}

static void run_jobs(struct fixture *f)
{
    while (f->jobs != NULL) {
        struct executor_job *job = f->jobs;

        f->jobs = job->next;
        job->work(job);
        job->done(job);
    }
}

static void loop(struct fixture *f)
{
    (void)event_base_loop(f->base, EVLOOP_NONBLOCK);
}

static void on_done(void *ctx, const struct login_result *result)
{
    struct fixture *f = ctx;

    f->told = *result;
    f->tells++;
}

static struct login_check *check(struct fixture *f, const char *device, const char *password,
                                 bool lenient)
{
    const struct login_request request = {.client = &f->client,
                                          .device = device,
                                          .password = password,
                                          .lenient = lenient,
                                          .on_done = on_done,
                                          .ctx = f};

    return logins_check(f->logins, &request);
}

static void a_right_password_is_told_at_once(void **state)
{
    struct fixture *f = *state;

    assert_non_null(check(f, "camera", PASSWORD, false));
    assert_int_equal(f->submitted, 0); /* nothing happens within the call */
    loop(f);
    assert_int_equal(f->submitted, 1);
    assert_int_equal(f->tells, 0);
    run_jobs(f);
    assert_int_equal(f->tells, 1);
    assert_int_equal(f->told.check, PASSWORDS_RIGHT);
    assert_int_equal(f->told.wrong, 0);
}

static void a_wrong_one_is_counted_and_told_late(void **state)
{
    struct fixture *f = *state;

    assert_non_null(check(f, "camera", "wrong", false));
    loop(f);
    run_jobs(f);
    loop(f);
    assert_int_equal(f->tells, 0);
    assert_non_null(check(f, "camera", PASSWORD, false)); /* waits as well */
    loop(f);
    assert_int_equal(f->submitted, 1);
    (void)event_base_loop(f->base, EVLOOP_ONCE); /* the first delay, a second */
    assert_int_equal(f->tells, 1);
    assert_int_equal(f->told.check, PASSWORDS_WRONG);
    assert_int_equal(f->told.wrong, 1);
    while (f->submitted == 1)
        (void)event_base_loop(f->base, EVLOOP_ONCE);
    run_jobs(f);
    assert_int_equal(f->told.check, PASSWORDS_RIGHT);
}

static void a_login_of_nobody_is_as_wrong(void **state)
{
    struct fixture *f = *state;

    assert_non_null(check(f, "", "wrong", false));
    loop(f);
    run_jobs(f);
    assert_int_equal(f->tells, 0);
    (void)event_base_loop(f->base, EVLOOP_ONCE);
    assert_int_equal(f->told.check, PASSWORDS_NONE);
    assert_int_equal(f->told.wrong, 1);
}

static void where_any_will_do_none_is_slowed(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 1; i < 10; i++) {
        assert_non_null(check(f, "camera", "wrong", true));
        loop(f);
        run_jobs(f);
        assert_int_equal(f->tells, i);
        assert_int_equal(f->told.check, PASSWORDS_WRONG);
        assert_int_equal(f->told.wrong, 0);
    }
}

static void what_cannot_be_checked_is_nobodys_fault(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(chmod(f->file, 0644), 0);
    assert_non_null(check(f, "camera", PASSWORD, false));
    loop(f);
    run_jobs(f);
    assert_int_equal(f->tells, 1);
    assert_int_equal(f->told.check, PASSWORDS_FAILED);
    assert_int_equal(f->told.wrong, 0);
}

/* A device that hangs up instead of waiting for its 535 has had its try. */
static void a_check_that_is_abandoned_counts_all_the_same(void **state)
{
    struct fixture *f = *state;
    struct login_check *c = check(f, "camera", "wrong", false);

    loop(f);
    logins_abandon(c); /* while it works */
    run_jobs(f);
    c = check(f, "camera", "wrong", false);
    loop(f);
    assert_int_equal(f->submitted, 1);
    logins_abandon(c); /* while it waits */
    clock_advance(&f->clock, ATTEMPTS_LONGEST_MS);
    c = check(f, "camera", "wrong", false);
    loop(f);
    run_jobs(f);
    logins_abandon(c); /* while its reply waits */
    clock_advance(&f->clock, ATTEMPTS_LONGEST_MS);
    assert_non_null(check(f, "camera", "wrong", true));
    loop(f);
    run_jobs(f);
    assert_int_equal(f->tells, 1);
    assert_int_equal(f->submitted, 3);
}

static void too_many_are_not_taken(void **state)
{
    struct fixture *f = *state;
    size_t taken = 0;

    assert_non_null(check(f, "camera", "wrong", false));
    loop(f);
    run_jobs(f);
    while (taken < 1000 && check(f, "camera", PASSWORD, false) != NULL)
        taken++;
    assert_in_range(taken, 10, 100);
} /* and freeing drops those that wait */

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = ERROR_INIT;
    struct executor executor = {.ctx = f, .submit = keep_job};

    if (f == NULL)
        return 1;
    snprintf(f->directory, sizeof(f->directory), "/tmp/outtray-logins-XXXXXX");
    if (mkdtemp(f->directory) == NULL)
        return 1;
    snprintf(f->file, sizeof(f->file), "%s/passwords", f->directory);
    clock_init(&f->clock);
    f->base = event_base_new();
    f->logins = logins_new(f->base, &f->clock, &executor, f->file);
    *state = f;
    return net_parse("192.168.1.21", &f->client) && f->logins != NULL &&
                   passwords_set(f->file, "camera", PASSWORD, getegid(), &err)
               ? 0
               : 1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    logins_free(f->logins);
    event_base_free(f->base);
    libevent_global_shutdown();
    (void)unlink(f->file);
    (void)rmdir(f->directory);
    free(f);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_right_password_is_told_at_once),
        TEST(a_wrong_one_is_counted_and_told_late),
        TEST(a_login_of_nobody_is_as_wrong),
        TEST(where_any_will_do_none_is_slowed),
        TEST(what_cannot_be_checked_is_nobodys_fault),
        TEST(a_check_that_is_abandoned_counts_all_the_same),
        TEST(too_many_are_not_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
