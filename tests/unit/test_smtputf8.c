#include "relay/submit/smtputf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define OURS "scan@office.example"

static void make(struct outcome *o, const char *const *paths, size_t count)
{
    struct envelope e;
    envelope_init(&e);
    for (size_t i = 0; i < count; i++)
        assert_true(envelope_add_recipient(&e, paths[i]));
    assert_true(outcome_init(o, &e));
    envelope_done(&e);
}

static enum recipient_state state_of(const struct outcome *o, size_t i)
{
    return o->envelope.recipients[i].state;
}

static struct outcome_end finish(struct outcome *o, enum client_stage stage, const struct reply *r)
{
    const struct outcome_context c = {.stage = stage, .reply = r};
    struct outcome_end end;
    outcome_finish(o, &c, &end);
    return end;
}

static void only_recipients_beyond_ascii_fail(void **state)
{
    static const char *const paths[] = {"a@example.com", "b\xc3\xbcro@example.com",
                                        "c@b\xc3\xbcro.example", "d@xn--bro-hoa.example"};
    struct outcome o;
    enum client_stage stage;
    struct reply r;
    (void)state;
    make(&o, paths, 4);
    assert_true(smtputf8_leave_out(&o, OURS, &stage, &r));
    assert_int_equal(state_of(&o, 0), RECIPIENT_PENDING);
    assert_int_equal(state_of(&o, 1), RECIPIENT_FAILED);
    assert_int_equal(state_of(&o, 2), RECIPIENT_FAILED);
    assert_int_equal(state_of(&o, 3), RECIPIENT_PENDING);
    assert_non_null(strstr(o.envelope.recipients[1].reply, "SMTPUTF8"));
    assert_true(o.changed); /* even if nothing else comes of the attempt it is recorded */
    outcome_done(&o);
}

static void with_nobody_left_it_is_a_dead_letter_and_no_trouble_of_the_mailbox(void **state)
{
    static const char *const paths[] = {"b\xc3\xbcro@example.com"};
    struct outcome o;
    enum client_stage stage;
    struct reply r;
    (void)state;
    make(&o, paths, 1);
    assert_false(smtputf8_leave_out(&o, OURS, &stage, &r));
    struct outcome_end end = finish(&o, stage, &r);
    assert_int_equal(end.attempt.state, QUEUE_DEAD);
    assert_true(end.worth_recording);
    assert_false(end.has_mailbox_verdict);
    outcome_done(&o);
}

static void a_sender_beyond_ascii_fails_the_message(void **state)
{
    static const char *const paths[] = {"a@example.com", "b\xc3\xbcro@example.com"};
    struct outcome o;
    enum client_stage stage;
    struct reply r;
    (void)state;
    make(&o, paths, 2);
    assert_false(smtputf8_leave_out(&o, "b\xc3\xbcro@office.example", &stage, &r));
    assert_int_equal(stage, STAGE_MAIL);
    struct outcome_end end = finish(&o, stage, &r);
    assert_int_equal(end.attempt.state, QUEUE_DEAD);
    assert_false(end.has_mailbox_verdict);
    assert_string_equal(end.verdict.name, "sender_beyond_ascii");
    assert_int_equal(state_of(&o, 0), RECIPIENT_FAILED);
    assert_int_equal(state_of(&o, 1), RECIPIENT_FAILED);
    outcome_done(&o);
}

static void who_has_an_outcome_keeps_it(void **state)
{
    static const char *const paths[] = {"b\xc3\xbcro@example.com", "a@example.com"};
    struct outcome o;
    enum client_stage stage;
    struct reply r;
    (void)state;
    make(&o, paths, 2);
    o.envelope.recipients[0].state = RECIPIENT_DELIVERED;
    assert_true(smtputf8_leave_out(&o, OURS, &stage, &r));
    assert_int_equal(state_of(&o, 0), RECIPIENT_DELIVERED);
    assert_false(o.changed);
    outcome_done(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_recipients_beyond_ascii_fail),
        cmocka_unit_test(with_nobody_left_it_is_a_dead_letter_and_no_trouble_of_the_mailbox),
        cmocka_unit_test(a_sender_beyond_ascii_fails_the_message),
        cmocka_unit_test(who_has_an_outcome_keeps_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
