#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "relay/intake/join.h"
#include "tests/unit/spool_fixture.h"

#define PARTS_MAX 250
#define TEXT_MAX  ((size_t)400 * 1024)

/* Joining over a real spool, with an executor that runs when it is told to. */
struct fixture {
    struct spool_fixture spool;
    struct clock clock;
    struct config config;
    struct join *join;
    uint64_t max_size;
    unsigned queued;
};

static uint64_t route_max_size(void *ctx, const char *route)
{
    const struct fixture *f = ctx;
    assert_string_equal(route, "main");
    return f->max_size;
}

static void on_queued(void *ctx)
{
    struct fixture *f = ctx;
    f->queued++;
}

static void begin_joining(struct fixture *f)
{
    const struct join_settings settings = {.queue = f->spool.queue,
                                           .clock = &f->clock,
                                           .config = &f->config,
                                           .route_max_size = route_max_size,
                                           .on_queued = on_queued,
                                           .ctx = f};
    f->join = join_new(&settings);
    assert_non_null(f->join);
}

static int set_up(void **state)
{
    static char hostname[] = "relay.office.example";
    static char charset[] = "windows-1252";
    struct error err = ERROR_INIT;
    struct fixture *f = calloc(1, sizeof *f);
    if (f == NULL)
        return -1;
    *state = f;
    fixture_init(&f->spool);
    clock_init(&f->clock);
    f->spool.now_ms = clock_now_ms(&f->clock);
    f->config.hostname = hostname;
    f->config.charset = charset;
    if (!fixture_open(&f->spool, &err))
        return -1;
    begin_joining(f);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    join_free(f->join);
    fixture_done(&f->spool);
    free(f);
    return 0;
}

static void advance(struct fixture *f, uint64_t ms)
{
    clock_advance(&f->clock, ms);
    f->spool.now_ms = clock_now_ms(&f->clock);
    join_tick(f->join);
    fixture_run(&f->spool);
}

static void reopen(struct fixture *f, bool crash)
{
    struct error err = ERROR_INIT;
    join_free(f->join);
    f->join = NULL;
    if (crash)
        fixture_crash(&f->spool);
    else
        fixture_close(&f->spool);
    assert_true(fixture_open(&f->spool, &err));
    assert_int_equal(f->spool.found.damaged, 0);
}

/* ---- fragments ------------------------------------------------------------------------------- */

struct fragment {
    uint32_t number;
    uint32_t total;
    const char *id;
    const char *recipient;
    const char *body;
    const char *device;
};

static const char inner_header[] = "Subject: Scan of the day\r\n"
                                   "Message-ID: <whole@copier>\r\n"
                                   "MIME-Version: 1.0\r\n"
                                   "Content-Type: text/plain\r\n"
                                   "\r\n";

static const struct fragment three[] = {
    {.number = 1, .total = 3, .body = NULL /* the inner header and a line */},
    {.number = 2, .total = 3, .body = "second\r\n"},
    {.number = 3, .total = 3, .body = "third\r\n"},
};

static const char whole_of_three[] = "Received: by relay\r\n"
                                     "From: <copier@office.example>\r\n"
                                     "To: <r0@office.example>\r\n"
                                     "Date: Fri, 26 Mar 1993 12:59:38 -0500\r\n"
                                     "Subject: Scan of the day\r\n"
                                     "Message-ID: <whole@copier>\r\n"
                                     "MIME-Version: 1.0\r\n"
                                     "Content-Type: text/plain\r\n"
                                     "\r\n"
                                     "first\r\n"
                                     "second\r\n"
                                     "third\r\n";

struct sent {
    struct fixture *f;
    uint64_t id;
    bool admitted;
    bool ok;
};

static void on_committed(void *ctx, uint64_t id, const struct error *err)
{
    struct sent *s = ctx;
    s->ok = err == NULL;
    if (s->admitted && s->f->join != NULL)
        join_stored(s->f->join, id, s->ok);
}

static void describe(const struct fragment *p, struct envelope *e)
{
    fixture_envelope(e, p->recipient != NULL ? 0 : 1);
    if (p->recipient != NULL)
        assert_true(envelope_add_recipient(e, p->recipient));
    assert_true(envelope_set(&e->partial_id, p->id != NULL ? p->id : "scan-1@copier"));
    if (p->device != NULL)
        assert_true(envelope_set(&e->device, p->device));
    e->partial_number = p->number;
    e->partial_total = p->total;
}

/* As a session does. */
static void begin_sending(struct fixture *f, const struct fragment *p, struct sent *s)
{
    static char header[512];
    struct error err = ERROR_INIT;
    struct envelope e;
    struct queue_writer *w = queue_begin(f->spool.queue, LANE_NORMAL, NULL, NULL, &err);
    assert_non_null(w);
    describe(p, &e);
    e.arrived_ms = FIXTURE_WALL + f->spool.now_ms;
    e.header_size = (uint32_t)snprintf(
        header, sizeof header,
        "Received: by relay\r\nFrom: <copier@office.example>\r\nTo: <r0@office.example>\r\n"
        "Date: Fri, 26 Mar 1993 12:59:38 -0500\r\nSubject: Scan (%u)\r\n"
        "Message-ID: <%u@copier>\r\nContent-Type: message/partial; id=x; number=%u\r\n\r\n",
        p->number, p->number, p->number);
    assert_int_not_equal(queue_append(w, header, e.header_size, &err), QUEUE_FLOW_ERROR);
    if (p->body == NULL) {
        (void)queue_append(w, inner_header, strlen(inner_header), &err);
        (void)queue_append(w, "first\r\n", 7, &err);
    } else {
        assert_int_not_equal(queue_append(w, p->body, strlen(p->body), &err), QUEUE_FLOW_ERROR);
    }
    *s = (struct sent){.f = f, .id = queue_writer_id(w)};
    e.size = queue_writer_size(w);
    s->admitted = join_admit(f->join, s->id, &e);
    queue_commit(w, &e, f->spool.now_ms, FIXTURE_WALL + f->spool.now_ms, on_committed, s);
    envelope_done(&e);
}

static uint64_t send_part(struct fixture *f, const struct fragment *p)
{
    struct sent s;
    begin_sending(f, p, &s);
    fixture_run(&f->spool);
    assert_true(s.ok);
    return s.admitted ? s.id : 0;
}

static void check_mail(struct fixture *f, uint64_t id, const char *expected)
{
    struct fixture_mail mail;
    fixture_read(&f->spool, id, &mail);
    if (strcmp(bytes_string(&mail.data), expected) != 0)
        fail_msg("it is %s", bytes_string(&mail.data));
    assert_int_equal(mail.envelope.size, strlen(expected));
    fixture_mail_done(&mail);
}

static size_t count_due(struct fixture *f)
{
    struct queue_info info[8];
    size_t n = 0;
    f->spool.now_ms = clock_now_ms(&f->clock);
    while (n < 8 && queue_pick(f->spool.queue, 0, f->spool.now_ms, &info[n]))
        n++;
    for (size_t i = 0; i < n; i++)
        queue_release(f->spool.queue, info[i].id, f->spool.now_ms);
    return n;
}

/* The one message there is, and that it is the whole. */
static uint64_t check_whole(struct fixture *f)
{
    struct queue_info info;
    assert_int_equal(fixture_count(&f->spool), 1);
    assert_true(queue_list(f->spool.queue, 0, &info));
    assert_int_equal(info.part.kind, RECORD_JOINED);
    assert_int_equal(count_due(f), 1);
    check_mail(f, info.id, whole_of_three);
    return info.id;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void parts_become_one_message_in_whatever_order_they_come(void **state)
{
    static const size_t orders[][3] = {{0, 1, 2}, {2, 1, 0}, {1, 0, 2}};
    struct fixture *f = *state;
    for (size_t i = 0; i < 3; i++) {
        struct fixture_mail mail;
        struct error err = ERROR_INIT;
        assert_true(send_part(f, &three[orders[i][0]]) > 0);
        assert_true(send_part(f, &three[orders[i][1]]) > 0);
        assert_int_equal(count_due(f), 0);
        assert_true(send_part(f, &three[orders[i][2]]) > 0);
        uint64_t id = check_whole(f);
        fixture_read(&f->spool, id, &mail);
        assert_string_equal(mail.envelope.message_id, "<whole@copier>");
        assert_string_equal(mail.envelope.subject, "Scan of the day");
        assert_string_equal(mail.envelope.repairs, "joined");
        assert_string_equal(mail.envelope.partial_id, "scan-1@copier");
        assert_int_equal(mail.envelope.joined, 3);
        assert_int_equal(mail.envelope.header_size,
                         strstr(whole_of_three, "first") - whole_of_three);
        fixture_mail_done(&mail);
        assert_true(queue_delete(f->spool.queue, id, NULL, NULL, &err));
        fixture_run(&f->spool);
    }
    assert_int_equal(f->queued, 3);
}

static void one_part_of_one_is_a_whole(void **state)
{
    struct fixture *f = *state;
    struct queue_info info;
    const struct fragment only = {.number = 1, .total = 1};
    assert_true(send_part(f, &only) > 0);
    assert_true(queue_list(f->spool.queue, 0, &info));
    assert_int_equal(info.part.kind, RECORD_JOINED);
    assert_int_equal(fixture_count(&f->spool), 1);
}

static void only_the_last_part_has_to_say_how_many_there_are(void **state)
{
    struct fixture *f = *state;
    struct fragment parts[3];
    memcpy(parts, three, sizeof parts);
    parts[0].total = parts[1].total = 0;
    for (size_t i = 0; i < 3; i++)
        assert_true(send_part(f, &parts[i]) > 0);
    check_whole(f);
}

static void large_parts_are_joined_in_bounded_memory(void **state)
{
    struct fixture *f = *state;
    struct fixture_mail mail;
    struct queue_info info;
    char *body = malloc(TEXT_MAX + 1);
    struct fragment parts[3];
    assert_non_null(body);
    for (size_t i = 0; i < TEXT_MAX; i += 64)
        (void)snprintf(body + i, 65, "%062zu\r\n", i);
    memcpy(parts, three, sizeof parts);
    parts[1].body = parts[2].body = body;
    for (size_t i = 0; i < 3; i++)
        assert_true(send_part(f, &parts[i]) > 0);
    assert_int_equal(fixture_count(&f->spool), 1);
    assert_true(queue_list(f->spool.queue, 0, &info));
    fixture_read(&f->spool, info.id, &mail);
    assert_int_equal(mail.error.kind, ERROR_NONE);
    size_t head = (size_t)(strstr(whole_of_three, "second") - whole_of_three);
    assert_int_equal(mail.data.len, head + 2 * TEXT_MAX);
    assert_memory_equal(mail.data.data, whole_of_three, head);
    assert_memory_equal(mail.data.data + head, body, TEXT_MAX);
    assert_memory_equal(mail.data.data + head + TEXT_MAX, body, TEXT_MAX);
    fixture_mail_done(&mail);
    free(body);
    assert_int_equal(fixture_files(&f->spool, "content"), 1);
}

static void what_the_inner_header_lacks_is_repaired(void **state)
{
    struct fixture *f = *state;
    struct fixture_mail mail;
    struct queue_info info;
    const struct fragment only = {
        .number = 1, .total = 1, .body = "Content-Type: text/plain\r\n\r\nbody\r\n"};
    assert_true(send_part(f, &only) > 0);
    assert_true(queue_list(f->spool.queue, 0, &info));
    fixture_read(&f->spool, info.id, &mail);
    assert_string_equal(mail.envelope.repairs, "no_message_id,joined");
    assert_string_equal(mail.envelope.subject, "Scan (1)");
    assert_non_null(strstr(mail.envelope.message_id, "@relay.office.example>"));
    assert_non_null(strstr(bytes_string(&mail.data), mail.envelope.message_id));
    fixture_mail_done(&mail);
}

static void a_missing_part_lets_the_others_go_after_an_hour(void **state)
{
    struct fixture *f = *state;
    send_part(f, &three[0]);
    advance(f, JOIN_WAIT_MS / 2);
    send_part(f, &three[2]);
    advance(f, JOIN_WAIT_MS / 2 - 1000);
    assert_int_equal(count_due(f), 0);
    advance(f, 1000);
    assert_int_equal(count_due(f), 2);
    /* The late one begins anew. */
    assert_true(send_part(f, &three[1]) > 0);
    assert_int_equal(count_due(f), 2);
    advance(f, JOIN_WAIT_MS);
    assert_int_equal(count_due(f), 3);
    assert_int_equal(fixture_count(&f->spool), 3);
}

static void parts_that_do_not_belong_together_are_not_joined(void **state)
{
    static const struct {
        const char *name;
        struct fragment second;
        bool waits;
    } rows[] = {
        {"another id", {.number = 2, .total = 2, .id = "other", .body = "x\r\n"}, true},
        {"another recipient",
         {.number = 2, .total = 2, .recipient = "boss@b", .body = "x\r\n"},
         true},
        {"the same number", {.number = 1, .total = 2, .body = "x\r\n"}, false},
        {"another total", {.number = 2, .total = 3, .body = "x\r\n"}, false},
        {"too many", {.number = 2, .total = JOIN_PARTS_MAX + 1, .body = "x\r\n"}, false},
        {"a large number", {.number = JOIN_PARTS_MAX + 1, .body = "x\r\n"}, false},
        {"a number above the total", {.number = 3, .body = "x\r\n"}, false},
    };
    struct fixture *f = *state;
    const struct fragment first = {.number = 1, .total = 2};
    assert_true(send_part(f, &first) > 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t due = count_due(f);
        if ((send_part(f, &rows[i].second) > 0) != rows[i].waits ||
            count_due(f) != due + !rows[i].waits)
            fail_msg("%s", rows[i].name);
    }
    const struct fragment second = {.number = 2, .total = 2, .body = "second\r\n"};
    size_t before = fixture_count(&f->spool);
    assert_true(send_part(f, &second) > 0);
    assert_int_equal(fixture_count(&f->spool), before);
}

static void what_is_too_large_together_leaves_as_it_came(void **state)
{
    struct fixture *f = *state;
    f->max_size = strlen(whole_of_three) - 1;
    for (size_t i = 0; i < 3; i++)
        send_part(f, &three[i]);
    assert_int_equal(fixture_count(&f->spool), 3);
    assert_int_equal(count_due(f), 3);
}

static void what_just_fits_is_joined(void **state)
{
    struct fixture *f = *state;
    f->max_size = strlen(whole_of_three);
    for (size_t i = 0; i < 3; i++)
        send_part(f, &three[i]);
    check_whole(f);
}

static void a_first_part_without_a_header_inside_leaves_as_it_came(void **state)
{
    struct fixture *f = *state;
    const struct fragment first = {.number = 1, .total = 2, .body = "no header at all\r\n"};
    const struct fragment second = {.number = 2, .total = 2, .body = "x\r\n"};
    send_part(f, &first);
    send_part(f, &second);
    assert_int_equal(fixture_count(&f->spool), 2);
    assert_int_equal(count_due(f), 2);
}

static void groups_are_found_again_after_a_restart(void **state)
{
    for (int crash = 0; crash < 2; crash++) {
        struct fixture *f = *state;
        struct error err = ERROR_INIT;
        send_part(f, &three[0]);
        send_part(f, &three[2]);
        reopen(f, crash != 0);
        begin_joining(f);
        fixture_run(&f->spool);
        assert_int_equal(count_due(f), 0);
        assert_int_equal(fixture_count(&f->spool), 2);
        send_part(f, &three[1]);
        uint64_t id = check_whole(f);
        assert_true(queue_delete(f->spool.queue, id, NULL, NULL, &err));
        fixture_run(&f->spool);
    }
}

/* At each moment of the joining. */
static void a_crash_leaves_the_parts_or_the_whole_and_never_both(void **state)
{
    struct fixture *f = *state;
    bool whole_seen = false;
    for (unsigned steps = 0; !whole_seen && steps < 100; steps++) {
        struct sent last;
        struct error err = ERROR_INIT;
        struct queue_info info;
        send_part(f, &three[0]);
        send_part(f, &three[1]);
        begin_sending(f, &three[2], &last);
        for (unsigned i = 0; i < steps; i++)
            inline_executor_step(&f->spool.executor);
        reopen(f, true);
        size_t count = fixture_count(&f->spool);
        assert_true(queue_list(f->spool.queue, 0, &info));
        if (count == 1) {
            assert_int_equal(info.part.kind, RECORD_JOINED);
            whole_seen = steps > 0;
        } else {
            assert_in_range(count, 2, 3);
        }
        begin_joining(f);
        fixture_run(&f->spool);
        if (count == 2)
            send_part(f, &three[2]);
        uint64_t id = check_whole(f);
        assert_true(queue_delete(f->spool.queue, id, NULL, NULL, &err));
        fixture_run(&f->spool);
        assert_int_equal(fixture_count(&f->spool), 0);
    }
    assert_true(whole_seen);
}

static void a_stop_in_the_middle_leaves_the_parts(void **state)
{
    struct fixture *f = *state;
    struct sent last;
    send_part(f, &three[0]);
    send_part(f, &three[1]);
    begin_sending(f, &three[2], &last);
    while (!last.ok)
        inline_executor_step(&f->spool.executor);
    join_stop(f->join);
    fixture_run(&f->spool);
    assert_int_equal(fixture_count(&f->spool), 3);
    assert_int_equal(count_due(f), 0);
    reopen(f, false);
    begin_joining(f);
    fixture_run(&f->spool);
    check_whole(f);
}

static void a_part_that_was_deleted_lets_the_others_go(void **state)
{
    struct fixture *f = *state;
    struct error err = ERROR_INIT;
    uint64_t id = send_part(f, &three[0]);
    send_part(f, &three[1]);
    assert_true(queue_delete(f->spool.queue, id, NULL, NULL, &err));
    fixture_run(&f->spool);
    send_part(f, &three[2]);
    assert_int_equal(fixture_count(&f->spool), 2);
    assert_int_equal(count_due(f), 2);
}

static void without_room_it_is_tried_again_later(void **state)
{
    struct fixture *f = *state;
    struct error err = ERROR_INIT;
    join_free(f->join);
    fixture_close(&f->spool);
    f->spool.options.max_bytes = 25000;
    assert_true(fixture_open(&f->spool, &err));
    begin_joining(f);
    uint64_t ballast = fixture_accept(&f->spool, 20000, 1);
    for (size_t i = 0; i < 3; i++)
        send_part(f, &three[i]);
    assert_int_equal(fixture_count(&f->spool), 4);
    assert_int_equal(count_due(f), 1);
    assert_true(queue_delete(f->spool.queue, ballast, NULL, NULL, &err));
    fixture_run(&f->spool);
    queue_tick(f->spool.queue, f->spool.now_ms, FIXTURE_WALL);
    advance(f, JOIN_RETRY_MS - 1000);
    assert_int_equal(fixture_count(&f->spool), 3);
    advance(f, 1000);
    check_whole(f);
}

static void beyond_the_number_of_groups_parts_leave_as_they_came(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i <= JOIN_GROUPS_MAX; i++) {
        char id[32];
        char device[32];
        snprintf(id, sizeof id, "scan-%u", i);
        snprintf(device, sizeof device, "copier-%u", i / JOIN_DEVICE_MAX);
        const struct fragment first = {.number = 1, .total = 2, .id = id, .device = device};
        if ((send_part(f, &first) > 0) != (i < JOIN_GROUPS_MAX))
            fail_msg("group %u", i);
    }
    assert_int_equal(count_due(f), 1);
}

static void one_device_leaves_room_for_the_groups_of_others(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < 2 * JOIN_DEVICE_MAX; i++) {
        char id[32];
        snprintf(id, sizeof id, "scan-%u", i);
        const struct fragment first = {.number = 1, .total = 2, .id = id, .device = "greedy"};
        if ((send_part(f, &first) > 0) != (i < JOIN_DEVICE_MAX))
            fail_msg("group %u", i);
    }
    const struct fragment other = {.number = 1, .total = 2, .device = "modest"};
    assert_true(send_part(f, &other) > 0);
}

static void as_many_parts_as_may_be_are_joined(void **state)
{
    struct fixture *f = *state;
    for (uint32_t i = JOIN_PARTS_MAX; i > 0; i--) {
        const struct fragment p = {
            .number = i, .total = JOIN_PARTS_MAX, .body = i == 1 ? NULL : "x\r\n"};
        assert_true(send_part(f, &p) > 0);
    }
    assert_int_equal(fixture_count(&f->spool), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(parts_become_one_message_in_whatever_order_they_come),
        TEST(one_part_of_one_is_a_whole),
        TEST(only_the_last_part_has_to_say_how_many_there_are),
        TEST(large_parts_are_joined_in_bounded_memory),
        TEST(what_the_inner_header_lacks_is_repaired),
        TEST(a_missing_part_lets_the_others_go_after_an_hour),
        TEST(parts_that_do_not_belong_together_are_not_joined),
        TEST(what_is_too_large_together_leaves_as_it_came),
        TEST(what_just_fits_is_joined),
        TEST(a_first_part_without_a_header_inside_leaves_as_it_came),
        TEST(groups_are_found_again_after_a_restart),
        TEST(a_crash_leaves_the_parts_or_the_whole_and_never_both),
        TEST(a_stop_in_the_middle_leaves_the_parts),
        TEST(a_part_that_was_deleted_lets_the_others_go),
        TEST(without_room_it_is_tried_again_later),
        TEST(beyond_the_number_of_groups_parts_leave_as_they_came),
        TEST(one_device_leaves_room_for_the_groups_of_others),
        TEST(as_many_parts_as_may_be_are_joined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
