#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/schedule.h"

struct fixture {
    struct schedule *s;
    uint32_t route;
};

static void setup(struct fixture *f)
{
    f->s = schedule_new();
    assert_non_null(f->s);
    assert_true(schedule_route(f->s, "default", &f->route));
}

static void insert(struct fixture *f, struct schedule_entry *e, enum lane lane, const char *device,
                   uint64_t due_ms, uint64_t order)
{
    assert_true(schedule_insert(f->s, e, f->route, lane, device, due_ms, order));
}

/* Looking first, however often, takes nothing and changes nothing. */
static struct schedule_entry *pick(struct fixture *f, enum lane lowest, uint64_t now_ms)
{
    const struct schedule_entry *seen = schedule_peek_from(f->s, f->route, lowest, now_ms);
    struct schedule_entry *picked;

    assert_true(seen == NULL || seen->queued);
    assert_ptr_equal(schedule_peek_from(f->s, f->route, lowest, now_ms), seen);
    picked = schedule_pick_from(f->s, f->route, lowest, now_ms);
    assert_ptr_equal(picked, seen);
    return picked;
}

static void expect(struct fixture *f, uint64_t now_ms, const struct schedule_entry *e)
{
    struct schedule_entry *picked = pick(f, LANE_BULK, now_ms);

    if (picked != e)
        fail_msg("picked %lld, not %lld", picked != NULL ? (long long)picked->order : -1,
                 e != NULL ? (long long)e->order : -1);
    if (picked != NULL)
        assert_false(picked->queued);
}

static void what_is_due_first_goes_first_and_ids_break_ties(void **state)
{
    struct schedule_entry e[4] = {0};
    struct fixture f;

    (void)state;
    setup(&f);
    insert(&f, &e[0], LANE_NORMAL, "a", 300, 1);
    insert(&f, &e[1], LANE_NORMAL, "a", 100, 4);
    insert(&f, &e[2], LANE_NORMAL, "a", 100, 3);
    insert(&f, &e[3], LANE_NORMAL, "a", 200, 2);
    expect(&f, 400, &e[2]);
    expect(&f, 400, &e[1]);
    expect(&f, 400, &e[3]);
    expect(&f, 400, &e[0]);
    expect(&f, 400, NULL);
    schedule_free(f.s);
}

static void lanes_below_a_given_one_can_be_left_alone(void **state)
{
    struct schedule_entry e[3] = {0};
    struct fixture f;

    (void)state;
    setup(&f);
    insert(&f, &e[0], LANE_BULK, "a", 100, 1);
    insert(&f, &e[1], LANE_NORMAL, "a", 200, 2);
    insert(&f, &e[2], LANE_URGENT, "a", 300, 3);
    assert_int_equal(schedule_next_due_from(f.s, f.route, LANE_URGENT, 0), 300);
    assert_int_equal(schedule_next_due_from(f.s, f.route, LANE_NORMAL, 0), 200);
    assert_null(pick(&f, LANE_URGENT, 250));
    assert_ptr_equal(pick(&f, LANE_NORMAL, 250), &e[1]);
    assert_null(pick(&f, LANE_NORMAL, 250));
    assert_ptr_equal(pick(&f, LANE_URGENT, 300), &e[2]);
    expect(&f, 300, &e[0]);
    schedule_free(f.s);
}

static void nothing_is_picked_before_it_is_due(void **state)
{
    struct schedule_entry e = {0};
    struct fixture f;

    (void)state;
    setup(&f);
    assert_true(schedule_next_due(f.s, f.route, 0) == SCHEDULE_NEVER);
    insert(&f, &e, LANE_NORMAL, "a", 1000, 1);
    expect(&f, 999, NULL);
    assert_true(schedule_next_due(f.s, f.route, 999) == 1000);
    assert_in_range(schedule_next_due(f.s, f.route, 1500), 0, 1500);
    assert_int_equal(schedule_count(f.s, f.route, LANE_NORMAL), 1);
    expect(&f, 1000, &e);
    assert_int_equal(schedule_count(f.s, f.route, LANE_NORMAL), 0);
    assert_true(schedule_next_due(f.s, f.route, 1500) == SCHEDULE_NEVER);
    schedule_free(f.s);
}

static void devices_take_turns(void **state)
{
    struct schedule_entry a[3] = {0};
    struct schedule_entry b[2] = {0};
    struct schedule_entry c = {0};
    struct fixture f;

    (void)state;
    setup(&f);
    for (size_t i = 0; i < 3; i++)
        insert(&f, &a[i], LANE_NORMAL, "a", i, i);
    for (size_t i = 0; i < 2; i++)
        insert(&f, &b[i], LANE_NORMAL, "b", 10 + i, 10 + i);
    expect(&f, 100, &a[0]);
    expect(&f, 100, &b[0]);
    insert(&f, &c, LANE_NORMAL, "c", 100, 20);
    expect(&f, 100, &c);
    expect(&f, 100, &a[1]);
    expect(&f, 100, &b[1]);
    expect(&f, 100, &a[2]);
    expect(&f, 100, NULL);
    schedule_free(f.s);
}

/* A device that sends one message at a time, each as soon as the one before has left, must not come
 * first each time because its queue was empty in between. */
static void a_device_whose_mail_is_gone_keeps_its_place_in_the_turns(void **state)
{
    struct schedule_entry backlog[4] = {0};
    struct schedule_entry single[4] = {0};
    struct fixture f;

    (void)state;
    setup(&f);
    for (size_t i = 0; i < 4; i++)
        insert(&f, &backlog[i], LANE_NORMAL, "backlog", 1, 100 + i);
    for (size_t i = 0; i < 4; i++) {
        insert(&f, &single[i], LANE_NORMAL, "single", 0, i);
        expect(&f, 10, i == 0 ? &single[0] : &backlog[i - 1]);
        if (i > 0)
            expect(&f, 10, &single[i]);
    }
    expect(&f, 10, &backlog[3]);
    schedule_free(f.s);
}

static void an_earlier_arrival_of_a_waiting_device_counts_at_once(void **state)
{
    struct schedule_entry later = {0};
    struct schedule_entry sooner = {0};
    struct fixture f;

    (void)state;
    setup(&f);
    insert(&f, &later, LANE_NORMAL, "a", 1000, 1);
    insert(&f, &sooner, LANE_NORMAL, "a", 50, 2);
    assert_true(schedule_next_due(f.s, f.route, 10) == 50);
    expect(&f, 60, &sooner);
    expect(&f, 60, NULL);
    schedule_free(f.s);
}

static void removing_the_head_lets_its_device_wait_again(void **state)
{
    struct schedule_entry e[3] = {0};
    struct fixture f;

    (void)state;
    setup(&f);
    insert(&f, &e[0], LANE_NORMAL, "a", 10, 1);
    insert(&f, &e[1], LANE_NORMAL, "a", 500, 2);
    insert(&f, &e[2], LANE_NORMAL, "b", 20, 3);
    expect(&f, 100, &e[0]);
    insert(&f, &e[0], LANE_NORMAL, "a", 10, 1);
    schedule_remove(f.s, &e[0]);
    assert_false(e[0].queued);
    schedule_remove(f.s, &e[0]);
    expect(&f, 100, &e[2]);
    expect(&f, 100, NULL);
    assert_true(schedule_next_due(f.s, f.route, 100) == 500);
    schedule_free(f.s);
}

static void urgent_goes_first_but_lower_lanes_advance(void **state)
{
    struct schedule_entry urgent[40] = {0};
    struct schedule_entry normal[2] = {0};
    struct schedule_entry bulk[2] = {0};
    struct fixture f;
    size_t next = 0;

    (void)state;
    setup(&f);
    for (size_t i = 0; i < 40; i++)
        insert(&f, &urgent[i], LANE_URGENT, "a", 0, i);
    for (size_t i = 0; i < 2; i++) {
        insert(&f, &normal[i], LANE_NORMAL, "a", 0, 100 + i);
        insert(&f, &bulk[i], LANE_BULK, "a", 0, 200 + i);
    }
    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < SCHEDULE_BULK_EVERY; i++)
            expect(&f, 1, &urgent[next++]);
        expect(&f, 1, &normal[round]);
        expect(&f, 1, &bulk[round]);
    }
    expect(&f, 1, &urgent[next]);
    schedule_free(f.s);
}

static void picks_while_a_lower_lane_is_empty_do_not_count_for_it(void **state)
{
    struct schedule_entry urgent[30] = {0};
    struct schedule_entry bulk = {0};
    struct fixture f;
    size_t next = 0;

    (void)state;
    setup(&f);
    for (size_t i = 0; i < 30; i++)
        insert(&f, &urgent[i], LANE_URGENT, "a", 0, i);
    insert(&f, &bulk, LANE_BULK, "a", 50, 99);
    while (next < 15)
        expect(&f, 1, &urgent[next++]);
    for (size_t i = 0; i < SCHEDULE_BULK_EVERY; i++)
        expect(&f, 50, &urgent[next++]);
    expect(&f, 50, &bulk);
    expect(&f, 50, &urgent[next]);
    schedule_free(f.s);
}

static void a_lower_lane_that_ran_empty_starts_its_count_again(void **state)
{
    struct schedule_entry urgent[30] = {0};
    struct schedule_entry bulk = {0};
    struct fixture f;
    size_t next = 0;

    (void)state;
    setup(&f);
    for (size_t i = 0; i < 30; i++)
        insert(&f, &urgent[i], LANE_URGENT, "a", 0, i);
    insert(&f, &bulk, LANE_BULK, "a", 0, 99);
    while (next < SCHEDULE_BULK_EVERY - 1)
        expect(&f, 1, &urgent[next++]);
    schedule_remove(f.s, &bulk);
    expect(&f, 1, &urgent[next++]);
    insert(&f, &bulk, LANE_BULK, "a", 0, 99);
    for (size_t i = 0; i < SCHEDULE_BULK_EVERY; i++)
        expect(&f, 1, &urgent[next++]);
    expect(&f, 1, &bulk);
    schedule_free(f.s);
}

static void routes_are_numbered_once_and_kept_apart(void **state)
{
    struct schedule_entry e[2] = {0};
    struct fixture f;
    uint32_t other;
    uint32_t again;

    (void)state;
    setup(&f);
    assert_true(schedule_route(f.s, "other", &other));
    assert_true(schedule_route(f.s, "default", &again));
    assert_int_equal(again, f.route);
    assert_int_not_equal(other, f.route);
    assert_int_equal(schedule_route_count(f.s), 2);
    assert_string_equal(schedule_route_name(f.s, other), "other");
    assert_string_equal(schedule_route_name(f.s, 7), "");
    assert_true(schedule_insert(f.s, &e[0], other, LANE_NORMAL, "a", 0, 1));
    assert_true(schedule_insert(f.s, &e[1], f.route, LANE_NORMAL, "a", 0, 2));
    expect(&f, 0, &e[1]);
    expect(&f, 0, NULL);
    assert_int_equal(schedule_count(f.s, other, LANE_NORMAL), 1);
    assert_ptr_equal(schedule_pick(f.s, other, 0), &e[0]);
    assert_null(schedule_pick(f.s, 7, 0));
    schedule_free(f.s);
}

static void routes_stop_at_the_limit(void **state)
{
    struct schedule *s = schedule_new();
    uint32_t route = 4711;
    char name[32];

    (void)state;
    for (unsigned i = 0; i < SCHEDULE_ROUTES_MAX; i++) {
        snprintf(name, sizeof(name), "route%u", i);
        assert_true(schedule_route(s, name, &route));
        assert_int_equal(route, i);
    }
    assert_false(schedule_route(s, "one more", &route));
    assert_int_equal(route, SCHEDULE_ROUTES_MAX - 1);
    assert_true(schedule_route(s, "route3", &route));
    schedule_free(s);
}

/* ---- against a model that looks at everything each time -------------------------------------- */

#define MODEL_ENTRIES 400
#define MODEL_DEVICES 13
#define MODEL_STEPS   60000

struct model {
    struct schedule_entry entries[MODEL_ENTRIES];
    size_t device[MODEL_ENTRIES];
    enum lane lane[MODEL_ENTRIES];
    uint64_t served[LANE_COUNT][MODEL_DEVICES];
    unsigned passed[LANE_COUNT];
    uint64_t turn;
};

static uint32_t draw(uint32_t *seed, uint32_t below)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed % below;
}

/* Of one device's entries the head is what counts, and only when it is due. */
static bool model_is_head(const struct model *m, size_t i)
{
    for (size_t j = 0; j < MODEL_ENTRIES; j++) {
        const struct schedule_entry *x = &m->entries[j];
        const struct schedule_entry *y = &m->entries[i];

        if (j != i && x->queued && m->lane[j] == m->lane[i] && m->device[j] == m->device[i] &&
            (x->due_ms < y->due_ms || (x->due_ms == y->due_ms && x->order < y->order)))
            return false;
    }
    return true;
}

static size_t model_best(const struct model *m, enum lane lane, uint64_t now_ms)
{
    size_t best = MODEL_ENTRIES;

    for (size_t i = 0; i < MODEL_ENTRIES; i++) {
        const struct schedule_entry *x = &m->entries[i];
        const struct schedule_entry *y = &m->entries[best < MODEL_ENTRIES ? best : 0];
        uint64_t x_served = m->served[lane][m->device[i]];
        uint64_t y_served = m->served[lane][m->device[best < MODEL_ENTRIES ? best : 0]];

        if (!x->queued || m->lane[i] != lane || x->due_ms > now_ms || !model_is_head(m, i))
            continue;
        if (best == MODEL_ENTRIES || x_served < y_served ||
            (x_served == y_served &&
             (x->due_ms < y->due_ms || (x->due_ms == y->due_ms && x->order < y->order))))
            best = i;
    }
    return best;
}

static struct schedule_entry *model_pick(struct model *m, uint64_t now_ms)
{
    size_t best[LANE_COUNT];
    size_t chosen = LANE_COUNT;

    for (size_t lane = 0; lane < LANE_COUNT; lane++) {
        best[lane] = model_best(m, (enum lane)lane, now_ms);
        if (best[lane] == MODEL_ENTRIES)
            m->passed[lane] = 0;
        else if (chosen == LANE_COUNT)
            chosen = lane;
    }
    if (chosen == LANE_COUNT)
        return NULL;
    for (size_t lane = 0; lane < LANE_COUNT; lane++) {
        if (m->passed[lane] >= SCHEDULE_BULK_EVERY) {
            chosen = lane;
            break;
        }
    }
    m->passed[chosen] = 0;
    for (size_t lane = chosen + 1; lane < LANE_COUNT; lane++)
        m->passed[lane] += best[lane] != MODEL_ENTRIES;
    m->turn++;
    m->served[chosen][m->device[best[chosen]]] = m->turn;
    return &m->entries[best[chosen]];
}

static uint64_t model_next_due(const struct model *m)
{
    uint64_t next = SCHEDULE_NEVER;

    for (size_t i = 0; i < MODEL_ENTRIES; i++) {
        if (m->entries[i].queued && m->entries[i].due_ms < next)
            next = m->entries[i].due_ms;
    }
    return next;
}

static void model_insert(struct model *m, struct fixture *f, size_t i, uint64_t now_ms,
                         uint32_t *seed)
{
    char device[32];

    m->device[i] = draw(seed, MODEL_DEVICES);
    m->lane[i] = (enum lane)draw(seed, LANE_COUNT);
    snprintf(device, sizeof(device), "device%zu", m->device[i]);
    insert(f, &m->entries[i], m->lane[i], device, now_ms + draw(seed, 60) - draw(seed, 20),
           draw(seed, 1000) * 1000ull + i);
}

static void check_totals(const struct model *m, const struct fixture *f, uint64_t now_ms)
{
    uint64_t next = schedule_next_due(f->s, f->route, now_ms);
    size_t count[LANE_COUNT] = {0};

    if (model_next_due(m) <= now_ms)
        assert_true(next <= now_ms);
    else
        assert_true(next == model_next_due(m));
    for (size_t i = 0; i < MODEL_ENTRIES; i++)
        count[m->lane[i]] += m->entries[i].queued;
    for (size_t lane = 0; lane < LANE_COUNT; lane++)
        assert_int_equal(schedule_count(f->s, f->route, (enum lane)lane), count[lane]);
}

/* The share of inserts swings, so that the schedule fills up and runs empty several times. */
static void it_does_what_a_simple_model_does(void **state)
{
    struct model *m = calloc(1, sizeof(*m));
    struct fixture f;
    uint32_t seed = 20240229;
    uint64_t now_ms = 1000;
    size_t picked = 0;

    (void)state;
    assert_non_null(m);
    setup(&f);
    for (size_t step = 0; step < MODEL_STEPS; step++) {
        uint32_t inserts = step / 2000 % 2 == 0 ? 60 : 25;
        uint32_t action = draw(&seed, 100);
        size_t i = draw(&seed, MODEL_ENTRIES);

        now_ms += draw(&seed, 4);
        if (action < inserts && !m->entries[i].queued) {
            model_insert(m, &f, i, now_ms, &seed);
        } else if (action > 90) {
            schedule_remove(f.s, &m->entries[i]);
        } else if (action >= inserts) {
            struct schedule_entry *expected = model_pick(m, now_ms);

            expect(&f, now_ms, expected);
            picked += expected != NULL;
        }
        if (step % 64 == 0)
            check_totals(m, &f, now_ms);
    }
    assert_true(picked > MODEL_STEPS / 10);
    schedule_free(f.s);
    free(m);
}

#define MANY 20000

static void thousands_of_devices_each_get_their_turn(void **state)
{
    struct schedule_entry *e = calloc(2 * MANY, sizeof(*e));
    struct fixture f;
    char device[32];

    (void)state;
    assert_non_null(e);
    setup(&f);
    for (size_t i = 0; i < MANY; i++) {
        snprintf(device, sizeof(device), "10.%zu.%zu.1", i / 256, i % 256);
        insert(&f, &e[2 * i], LANE_NORMAL, device, 5, 2 * i);
        insert(&f, &e[2 * i + 1], LANE_NORMAL, device, 5, 2 * i + 1);
    }
    for (size_t i = 0; i < MANY; i++)
        expect(&f, 5, &e[2 * i]);
    for (size_t i = 0; i < MANY; i++)
        expect(&f, 5, &e[2 * i + 1]);
    expect(&f, 5, NULL);
    insert(&f, &e[0], LANE_NORMAL, "10.0.0.1", 6, 1);
    insert(&f, &e[1], LANE_NORMAL, device, 5, 2);
    expect(&f, 6, &e[0]);
    expect(&f, 6, &e[1]);
    schedule_free(f.s);
    free(e);
}

static void it_can_be_freed_while_full_or_absent(void **state)
{
    struct schedule_entry e[3] = {0};
    struct fixture f;

    (void)state;
    setup(&f);
    insert(&f, &e[0], LANE_NORMAL, "a", 5, 1);
    insert(&f, &e[1], LANE_BULK, "b", 500, 2);
    insert(&f, &e[2], LANE_BULK, "c", 5, 3);
    expect(&f, 5, &e[0]);
    schedule_free(f.s);
    schedule_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_due_first_goes_first_and_ids_break_ties),
        cmocka_unit_test(nothing_is_picked_before_it_is_due),
        cmocka_unit_test(lanes_below_a_given_one_can_be_left_alone),
        cmocka_unit_test(devices_take_turns),
        cmocka_unit_test(a_device_whose_mail_is_gone_keeps_its_place_in_the_turns),
        cmocka_unit_test(an_earlier_arrival_of_a_waiting_device_counts_at_once),
        cmocka_unit_test(removing_the_head_lets_its_device_wait_again),
        cmocka_unit_test(urgent_goes_first_but_lower_lanes_advance),
        cmocka_unit_test(picks_while_a_lower_lane_is_empty_do_not_count_for_it),
        cmocka_unit_test(a_lower_lane_that_ran_empty_starts_its_count_again),
        cmocka_unit_test(routes_are_numbered_once_and_kept_apart),
        cmocka_unit_test(routes_stop_at_the_limit),
        cmocka_unit_test(it_does_what_a_simple_model_does),
        cmocka_unit_test(thousands_of_devices_each_get_their_turn),
        cmocka_unit_test(it_can_be_freed_while_full_or_absent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
