/*
 * A long life at random: whatever comes, goes, waits and fails, the spool on disk stays below twice
 * what counts and a few segments, and everything that should be there is there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "queue/queue.h"
#include "tests/unit/spool_fixture.h"

#define ALIVE_MAX 4000
#define STEPS     60000
#define TICK      40 /* steps */
/* The four that carrying leaves alone, the one being written, one prepared, one spare, and what
 * comes between two ticks. */
#define FEW_SEGMENTS 8

struct mail {
    uint64_t id;
    uint32_t size;
    bool settled; /* held, dead or deferred for long: a straggler */
};

struct life {
    struct spool_fixture f;
    struct mail alive[ALIVE_MAX];
    size_t count;
    uint64_t random;
    uint64_t worst; /* octets beyond twice what counts */
    unsigned starts;
};

static uint64_t draw(struct life *l, uint64_t below)
{
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return (l->random >> 11) % below;
}

static void open_it(struct life *l)
{
    struct error err = ERROR_INIT;
    if (!fixture_open(&l->f, &err))
        fail_msg("%s", err.text);
    l->starts++;
}

static void accept_one(struct life *l)
{
    uint32_t size = (uint32_t)(draw(l, 10) == 0 ? draw(l, 55000) : draw(l, 4000));
    if (draw(l, 200) == 0)
        size = 200000;
    if (l->count == ALIVE_MAX)
        return;
    uint64_t id = fixture_accept(&l->f, size, size);
    l->alive[l->count++] = (struct mail){.id = id, .size = size};
}

static struct mail *find(struct life *l, uint64_t id)
{
    for (size_t i = 0; i < l->count; i++)
        if (l->alive[i].id == id)
            return &l->alive[i];
    fail_msg("message %llx is not known", (unsigned long long)id);
    return NULL;
}

static void forget(struct life *l, struct mail *m)
{
    *m = l->alive[--l->count];
}

static void send_one(struct life *l)
{
    static const enum queue_state stays[] = {QUEUE_HELD, QUEUE_DEAD, QUEUE_QUEUED, QUEUE_UNCERTAIN};
    struct queue_info info;
    if (!fixture_pick(&l->f, &info))
        return;
    struct mail *m = find(l, info.id);
    if (draw(l, 2))
        queue_doubt(l->f.queue, info.id, FIXTURE_WALL, fixture_done_fn, NULL);
    if (draw(l, 12) == 0) {
        fixture_settle(&l->f, info.id, stays[draw(l, 4)], RECIPIENT_PENDING, 900000000, NULL);
        m->settled = true;
    } else {
        fixture_settle(&l->f, info.id, QUEUE_GONE, RECIPIENT_DELIVERED, 0, NULL);
        forget(l, m);
    }
    fixture_run(&l->f);
}

static void operate_on_one(struct life *l)
{
    struct error err = ERROR_INIT;
    if (l->count == 0)
        return;
    struct mail *m = &l->alive[draw(l, l->count)];
    if (m->settled && draw(l, 2)) {
        assert_true(queue_retry(l->f.queue, m->id, l->f.now_ms, FIXTURE_WALL, &err));
        m->settled = false;
    } else if (draw(l, 3) == 0) {
        assert_true(queue_delete(l->f.queue, m->id, NULL, NULL, &err));
        forget(l, m);
    }
    fixture_run(&l->f);
}

static void start_again(struct life *l)
{
    if (draw(l, 2)) {
        fixture_crash(&l->f);
    } else {
        fixture_close(&l->f);
    }
    open_it(l);
    assert_int_equal(l->f.found.damaged, 0);
    assert_int_equal(l->f.found.messages, l->count);
}

static void check_cost(struct life *l)
{
    struct queue_stats s;
    queue_stats(l->f.queue, &s);
    uint64_t twice = 2 * s.journal_living;
    uint64_t beyond = s.journal_bytes > twice ? s.journal_bytes - twice : 0;
    l->worst = beyond > l->worst ? beyond : l->worst;
    assert_true(beyond <= FEW_SEGMENTS * l->f.options.segment_size);
    assert_true(fixture_files(&l->f, "journal") <= s.segments + 2);
    assert_int_equal(fixture_files(&l->f, "content"), s.bodies);
}

static void check_mail(struct life *l)
{
    assert_int_equal(fixture_count(&l->f), l->count);
    for (size_t i = 0; i < l->count; i++)
        assert_true(fixture_intact(&l->f, l->alive[i].id, l->alive[i].size, l->alive[i].size));
}

/* The mix drifts between filling and draining, as days do. */
static void step(struct life *l, unsigned n)
{
    uint64_t in = n / 6000 % 2 == 0 ? 60 : 35;
    uint64_t what = draw(l, 100);
    if (what < in)
        accept_one(l);
    else if (what < 95)
        send_one(l);
    else
        operate_on_one(l);
}

static void the_spool_stays_below_twice_what_counts(void **state)
{
    struct life *l = calloc(1, sizeof(*l));
    (void)state;
    assert_non_null(l);
    l->random = 88172645463325252u;
    fixture_init(&l->f);
    open_it(l);
    for (unsigned n = 1; n <= STEPS; n++) {
        step(l, n);
        if (n % TICK == 0) {
            fixture_tick(&l->f, 1);
            check_cost(l);
        }
        if (n % 7000 == 0)
            start_again(l);
    }
    check_mail(l);
    printf("%u starts, %zu messages at the end, at most %.1f segments beyond twice what counts\n",
           l->starts, l->count, (double)l->worst / (double)l->f.options.segment_size);
    fixture_done(&l->f);
    free(l);
}

/* A slow line takes hours for one message; the journal goes on meanwhile. */
static void a_message_being_sent_for_hours_does_not_keep_the_segments_behind_it(void **state)
{
    struct spool_fixture f;
    struct error err = ERROR_INIT;
    struct queue_info sent;
    struct queue_info info;
    struct queue_stats s;
    struct fixture_result r = {0};
    (void)state;
    fixture_init(&f);
    assert_true(fixture_open(&f, &err));
    uint64_t id = fixture_accept(&f, 5000, 7);
    assert_true(fixture_pick(&f, &sent));
    for (uint64_t i = 0; i < 400; i++) {
        fixture_accept(&f, 50000, i);
        assert_true(fixture_pick(&f, &info));
        fixture_settle(&f, info.id, QUEUE_GONE, RECIPIENT_DELIVERED, 0, NULL);
        fixture_run(&f);
        if (i % 20 == 0)
            fixture_tick(&f, 1);
    }
    fixture_tick(&f, 2);
    queue_stats(f.queue, &s);
    assert_true(s.journal_bytes <= FEW_SEGMENTS * f.options.segment_size);
    assert_int_equal(s.carried > 0, 1);
    queue_doubt(f.queue, id, FIXTURE_WALL, fixture_done_fn, &r);
    fixture_run(&f);
    assert_true(r.ok);
    fixture_crash(&f);
    assert_true(fixture_open(&f, &err));
    assert_int_equal(f.found.messages, 1);
    assert_int_equal(f.found.uncertain, 1); /* the mark counts, behind the copy */
    assert_true(fixture_intact(&f, id, 5000, 7));
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_spool_stays_below_twice_what_counts),
        cmocka_unit_test(a_message_being_sent_for_hours_does_not_keep_the_segments_behind_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
