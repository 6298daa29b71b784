#include "relay/submit/outcome.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#define DAY_MS (24 * 3600 * 1000ull)

static struct reply reply(const char *text)
{
    struct reply r;
    assert_true(reply_from_text(&r, text));
    return r;
}

/* A message to a@ and b@, as it is stored. */
static void make(struct outcome *o)
{
    struct envelope e;
    envelope_init(&e);
    assert_true(envelope_add_recipient(&e, "a@example.com"));
    assert_true(envelope_add_recipient(&e, "b@example.com"));
    assert_true(outcome_init(o, &e));
    envelope_done(&e);
}

static struct outcome_context context(enum client_stage stage, const struct reply *r)
{
    return (struct outcome_context){.stage = stage,
                                    .reply = r,
                                    .give_up_ms = 5 * DAY_MS,
                                    .uncertain_wait_ms = 900000,
                                    .first_use = true};
}

static enum recipient_state state_of(const struct outcome *o, size_t i)
{
    return o->envelope.recipients[i].state;
}

static void accept_both(struct outcome *o)
{
    struct reply ok = reply("250 2.1.5 Recipient OK");
    outcome_recipient(o, 0, &ok);
    outcome_recipient(o, 1, &ok);
}

static void a_positive_final_reply_delivers_and_removes(void **state)
{
    struct outcome o;
    struct outcome_end end;
    struct reply r = reply("250 2.0.0 OK <x@y> [Hostname=h]");
    struct outcome_context c = context(STAGE_FINAL_DOT, &r);
    (void)state;
    make(&o);
    accept_both(&o);
    outcome_finish(&o, &c, &end);
    assert_int_equal(end.attempt.state, QUEUE_GONE);
    assert_int_equal(state_of(&o, 0), RECIPIENT_DELIVERED);
    assert_int_equal(state_of(&o, 1), RECIPIENT_DELIVERED);
    assert_int_equal(end.taken, 2);
    assert_true(end.worth_recording);
    assert_false(end.has_mailbox_verdict);
    outcome_done(&o);
}

static void a_refused_recipient_fails_alone_and_is_kept_as_a_dead_letter(void **state)
{
    struct outcome o;
    struct outcome_end end;
    struct reply bad = reply("550 5.1.10 Recipient not found");
    struct reply ok = reply("250 2.1.5 Recipient OK");
    struct reply r = reply("250 2.0.0 OK");
    struct outcome_context c = context(STAGE_FINAL_DOT, &r);
    (void)state;
    make(&o);
    outcome_recipient(&o, 0, &bad);
    outcome_recipient(&o, 1, &ok);
    outcome_finish(&o, &c, &end);
    assert_int_equal(state_of(&o, 0), RECIPIENT_FAILED);
    assert_int_equal(state_of(&o, 1), RECIPIENT_DELIVERED);
    assert_int_equal(end.attempt.state, QUEUE_DEAD);
    assert_int_equal(end.taken, 1);
    assert_string_equal(o.envelope.recipients[0].reply, "550 5.1.10 Recipient not found");
    outcome_done(&o);
}

static void rcpt_4xx_defers_only_that_recipient(void **state)
{
    struct outcome o;
    struct outcome_end end;
    struct reply later = reply("452 4.5.3 Too many recipients");
    struct reply ok = reply("250 2.1.5 Recipient OK");
    struct reply r = reply("250 2.0.0 OK");
    struct outcome_context c = context(STAGE_FINAL_DOT, &r);
    (void)state;
    make(&o);
    outcome_recipient(&o, 0, &later);
    outcome_recipient(&o, 1, &ok);
    outcome_finish(&o, &c, &end);
    assert_int_equal(state_of(&o, 0), RECIPIENT_PENDING);
    assert_int_equal(state_of(&o, 1), RECIPIENT_DELIVERED);
    assert_int_equal(end.attempt.state, QUEUE_QUEUED);
    assert_true(end.worth_recording);
    outcome_done(&o);
}

/* A message to a@ to e@. */
static void make_five(struct outcome *o, const char *first_reply)
{
    static const char *const paths[] = {"a@x.org", "b@x.org", "c@x.org", "d@x.org", "e@x.org"};
    struct envelope e;
    envelope_init(&e);
    for (size_t i = 0; i < 5; i++)
        assert_true(envelope_add_recipient(&e, paths[i]));
    assert_true(envelope_set(&e.recipients[0].reply, first_reply));
    assert_true(outcome_init(o, &e));
    envelope_done(&e);
}

static void recipients_beyond_the_providers_limit_are_next(void **state)
{
    struct outcome o;
    struct outcome_end end;
    struct reply ok = reply("250 2.1.5 Recipient OK");
    struct reply r = reply("250 2.0.0 OK");
    struct outcome_context c = context(STAGE_FINAL_DOT, &r);
    (void)state;
    make_five(&o, "");
    assert_int_equal(outcome_limit(&o, 2), 2);
    assert_int_equal(envelope_count(&o.envelope, RECIPIENT_PENDING), 2);
    outcome_recipient(&o, 0, &ok);
    outcome_recipient(&o, 1, &ok);
    outcome_finish(&o, &c, &end);
    assert_int_equal(state_of(&o, 1), RECIPIENT_DELIVERED);
    assert_int_equal(envelope_count(&o.envelope, RECIPIENT_PENDING), 3);
    assert_int_equal(end.attempt.state, QUEUE_QUEUED);
    assert_int_equal(end.attempt.wait_ms, 0);
    assert_true(end.worth_recording);
    assert_int_equal(end.taken, 2);
    outcome_done(&o);
}

static void those_never_asked_go_before_those_deferred(void **state)
{
    struct outcome o;
    (void)state;
    make_five(&o, "450 4.2.1 busy");
    assert_int_equal(outcome_limit(&o, 4), 4);
    assert_int_equal(state_of(&o, 0), RECIPIENT_FAILED); /* looks so for this attempt */
    assert_int_equal(state_of(&o, 4), RECIPIENT_PENDING);
    outcome_done(&o);
    make_five(&o, "450 4.2.1 busy");
    assert_int_equal(outcome_limit(&o, 0), 5);
    assert_int_equal(outcome_limit(&o, 5), 5);
    assert_false(o.has_left_out);
    outcome_done(&o);
}

static void a_deferred_recipient_makes_those_beyond_the_limit_wait_with_it(void **state)
{
    struct outcome o;
    struct outcome_end end;
    struct reply ok = reply("250 2.1.5 Recipient OK");
    struct reply later = reply("450 4.2.1 busy");
    struct reply r = reply("250 2.0.0 OK");
    struct outcome_context c = context(STAGE_FINAL_DOT, &r);
    (void)state;
    make_five(&o, "");
    assert_int_equal(outcome_limit(&o, 2), 2);
    outcome_recipient(&o, 0, &ok);
    outcome_recipient(&o, 1, &later);
    outcome_finish(&o, &c, &end);
    assert_int_equal(end.attempt.state, QUEUE_QUEUED);
    assert_true(end.attempt.wait_ms > 0);
    assert_int_equal(envelope_count(&o.envelope, RECIPIENT_PENDING), 4);
    outcome_done(&o);
}

static void trouble_of_the_mailbox_leaves_those_beyond_the_limit_as_they_were(void **state)
{
    struct outcome o;
    struct outcome_end end;
    struct reply r = reply("421 4.3.2 Service not available");
    struct outcome_context c = context(STAGE_MAIL, &r);
    (void)state;
    make_five(&o, "");
    assert_int_equal(outcome_limit(&o, 2), 2);
    outcome_finish(&o, &c, &end);
    assert_int_equal(envelope_count(&o.envelope, RECIPIENT_PENDING), 5);
    assert_true(end.has_mailbox_verdict);
    assert_string_equal(o.envelope.recipients[4].reply, "");
    outcome_done(&o);
}

/* Servers differ in how they refuse DATA then; none of it is about the message. */
static void recipients_that_are_all_deferred_wait_whatever_data_got(void **state)
{
    static const char *const refusals[] = {"503 5.5.1 Bad sequence of commands",
                                           "554 5.5.1 Error: no valid recipients",
                                           "503 5.5.2 Need rcpt command"};
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct outcome o;
        struct outcome_end end;
        struct reply later = reply("450 4.2.1 mailbox busy");
        struct reply r = reply(refusals[i]);
        struct outcome_context c = context(STAGE_DATA, &r);
        make(&o);
        outcome_recipient(&o, 0, &later);
        outcome_recipient(&o, 1, &later);
        outcome_finish(&o, &c, &end);
        assert_int_equal(end.attempt.state, QUEUE_QUEUED);
        assert_true(end.attempt.wait_ms >= 60000 * 3 / 4);
        assert_int_equal(state_of(&o, 0), RECIPIENT_PENDING);
        assert_false(end.has_mailbox_verdict);
        assert_string_equal(o.envelope.recipients[0].reply, "450 4.2.1 mailbox busy");
        outcome_done(&o);
    }
}

static void a_loss_after_the_end_of_data_is_uncertain(void **state)
{
    struct outcome o;
    struct outcome_end end;
    struct reply r;
    reply_local(&r, LOCAL_LOST, "the connection was closed");
    struct outcome_context c = context(STAGE_FINAL_DOT, &r);
    (void)state;
    make(&o);
    accept_both(&o);
    outcome_finish(&o, &c, &end);
    assert_int_equal(end.attempt.state, QUEUE_UNCERTAIN);
    assert_int_equal(end.attempt.wait_ms, 900000);
    assert_int_equal(state_of(&o, 0), RECIPIENT_PENDING);
    assert_int_equal(end.taken, 2);
    outcome_done(&o);
}

static void a_session_ended_while_idle_costs_nobody_anything(void **state)
{
    static const char *const texts[] = {
        "421 4.4.1 Connection timed out. Total session duration: 00:05:00",
        "451 4.7.0 Timeout waiting for client input"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct outcome o;
        struct outcome_end end;
        struct reply r;
        assert_true(reply_from_text(&r, texts[i]));
        struct outcome_context c = context(STAGE_MAIL, &r);
        c.first_use = false;
        make(&o);
        outcome_finish(&o, &c, &end);
        assert_false(end.has_mailbox_verdict);
        assert_false(end.worth_recording);
        assert_int_equal(end.attempt.state, QUEUE_QUEUED);
        assert_int_equal(end.attempt.wait_ms, 0);
        c.first_use = true;
        outcome_done(&o);
        make(&o);
        outcome_finish(&o, &c, &end);
        assert_true(end.has_mailbox_verdict);
        outcome_done(&o);
    }
}

static void each_further_loss_after_the_end_of_data_waits_longer_and_the_last_is_held(void **state)
{
    static const struct {
        uint32_t losses;
        uint64_t tried_ms;
        uint64_t wait_ms;
        enum queue_state state;
    } rows[] = {{0, 0, 900000, QUEUE_UNCERTAIN},
                {1, 900000, 4 * 900000, QUEUE_UNCERTAIN},
                {2, 5 * 900000, 16 * 900000, QUEUE_UNCERTAIN},
                {3, 21 * 900000, 64 * 900000, QUEUE_UNCERTAIN},
                {9, 4 * DAY_MS, 64 * 900000, QUEUE_UNCERTAIN},
                {10, 5 * DAY_MS, 64 * 900000, QUEUE_HELD}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome o;
        struct outcome_end end;
        struct reply r;
        reply_local(&r, LOCAL_LOST, "the connection was closed");
        struct outcome_context c = context(STAGE_FINAL_DOT, &r);
        c.losses = rows[i].losses;
        c.attempts = 7; /* of which others do not count here */
        c.tried_ms = rows[i].tried_ms;
        make(&o);
        accept_both(&o);
        outcome_finish(&o, &c, &end);
        assert_int_equal(end.attempt.state, rows[i].state);
        assert_int_equal(end.attempt.wait_ms, rows[i].wait_ms);
        assert_true(end.attempt.lost);
        assert_int_equal(state_of(&o, 0), RECIPIENT_PENDING);
        outcome_done(&o);
    }
}

/* Else the whole queue would be sent into a line that breaks after each message. */
static void the_mailbox_hears_of_a_loss_after_the_end_of_data(void **state)
{
    struct outcome o;
    struct outcome_end end;
    struct reply r;
    reply_local(&r, LOCAL_LOST, "the connection was closed");
    struct outcome_context c = context(STAGE_FINAL_DOT, &r);
    (void)state;
    make(&o);
    accept_both(&o);
    outcome_finish(&o, &c, &end);
    assert_true(end.has_mailbox_verdict);
    assert_int_equal(end.mailbox_verdict.action, VERDICT_BACK);
    assert_int_equal(end.mailbox_verdict.wait_ms, 0); /* as short as its first wait is */
    outcome_done(&o);
}

/* The disk may be well again in a minute; a damaged message is held by the queue itself. */
static void a_failing_spool_defers_the_message_and_holds_nothing(void **state)
{
    struct outcome o;
    struct outcome_end end;
    struct reply r;
    reply_local(&r, LOCAL_SPOOL, "the in-doubt mark could not be made durable");
    struct outcome_context c = context(STAGE_BODY, &r);
    (void)state;
    make(&o);
    accept_both(&o);
    outcome_finish(&o, &c, &end);
    assert_int_equal(end.attempt.state, QUEUE_QUEUED);
    assert_true(end.attempt.wait_ms >= 30000);
    assert_int_equal(end.taken, 0);
    assert_false(end.has_mailbox_verdict);
    outcome_done(&o);
}

static void
a_loss_before_the_end_of_data_is_not_uncertain_and_costs_the_message_nothing(void **state)
{
    static const enum client_stage stages[] = {STAGE_MAIL, STAGE_RCPT, STAGE_DATA};
    (void)state;
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        struct outcome o;
        struct outcome_end end;
        struct reply r;
        reply_local(&r, LOCAL_LOST, "the connection was closed");
        struct outcome_context c = context(stages[i], &r);
        make(&o);
        outcome_finish(&o, &c, &end);
        assert_int_equal(end.attempt.state, QUEUE_QUEUED);
        assert_int_equal(end.attempt.wait_ms, 0);
        assert_false(end.attempt.counts);
        assert_false(end.worth_recording);
        assert_true(end.has_mailbox_verdict);
        outcome_done(&o);
    }
}

/* A message that breaks every connection must not stand in the way of the others. */
static void a_loss_in_the_middle_of_mail_data_makes_only_that_message_wait(void **state)
{
    struct outcome o;
    struct outcome_end end;
    struct reply r;
    reply_local(&r, LOCAL_LOST, "the connection was closed");
    struct outcome_context c = context(STAGE_BODY, &r);
    (void)state;
    make(&o);
    accept_both(&o);
    outcome_finish(&o, &c, &end);
    assert_int_equal(end.attempt.state, QUEUE_QUEUED);
    assert_true(end.attempt.wait_ms >= 60000 * 3 / 4);
    assert_int_equal(state_of(&o, 0), RECIPIENT_PENDING);
    assert_int_equal(end.taken, 0);
    assert_false(end.has_mailbox_verdict);
    outcome_done(&o);
}

static void a_pooled_connection_that_was_closed_while_idle_costs_nobody_anything(void **state)
{
    struct outcome o;
    struct outcome_end end;
    struct reply r;
    reply_local(&r, LOCAL_LOST, "the connection was closed");
    struct outcome_context c = context(STAGE_MAIL, &r);
    c.first_use = false;
    (void)state;
    make(&o);
    outcome_finish(&o, &c, &end);
    assert_false(end.has_mailbox_verdict);
    assert_false(end.worth_recording);
    outcome_done(&o);
}

/* Trouble of the mailbox, and some of the words it comes in. */
static void mailbox_trouble_never_costs_a_message(void **state)
{
    static const struct {
        enum client_stage stage;
        const char *reply;
    } rows[] = {
        {STAGE_FINAL_DOT, "432 4.3.2 Concurrent connections limit exceeded. Visit x"},
        {STAGE_FINAL_DOT, "554 5.2.0 STOREDRV.Submission.Exception:"
                          "SubmissionQuotaExceededException; failed"},
        {STAGE_FINAL_DOT, "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:"
                          "QuotaExceededException.MapiException[Shutoff]QuotaExceeded"},
        {STAGE_FINAL_DOT, "550 5.1.8 Access denied, bad outbound sender"},
        {STAGE_MAIL, "530 5.7.57 Client not authenticated to send mail."},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome o;
        struct outcome_end end;
        struct reply r = reply(rows[i].reply);
        struct outcome_context c = context(rows[i].stage, &r);
        make(&o);
        accept_both(&o);
        outcome_finish(&o, &c, &end);
        assert_true(end.attempt.state == QUEUE_QUEUED || end.attempt.state == QUEUE_HELD);
        assert_int_equal(state_of(&o, 0), RECIPIENT_PENDING);
        if (end.attempt.state == QUEUE_QUEUED)
            assert_true(end.has_mailbox_verdict);
        outcome_done(&o);
    }
}

static void a_recipient_is_given_up_only_after_five_days_of_trying(void **state)
{
    static const struct {
        uint64_t tried_ms;
        enum queue_state end;
    } rows[] = {{0, QUEUE_QUEUED}, {5 * DAY_MS - 1, QUEUE_QUEUED}, {5 * DAY_MS, QUEUE_DEAD}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome o;
        struct outcome_end end;
        struct reply later = reply("450 4.2.1 this recipient is busy");
        struct reply ok = reply("250 2.1.5 Recipient OK");
        struct reply r = reply("250 2.0.0 OK");
        struct outcome_context c = context(STAGE_FINAL_DOT, &r);
        c.attempts = 3;
        c.tried_ms = rows[i].tried_ms;
        make(&o);
        outcome_recipient(&o, 0, &later);
        outcome_recipient(&o, 1, &ok);
        outcome_finish(&o, &c, &end);
        assert_int_equal(end.attempt.state, rows[i].end);
        assert_int_equal(end.expired, rows[i].end == QUEUE_DEAD);
        assert_int_equal(state_of(&o, 0), end.expired ? RECIPIENT_FAILED : RECIPIENT_PENDING);
        assert_true(end.expired || end.attempt.wait_ms >= 60000 * 3 / 4);
        outcome_done(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_positive_final_reply_delivers_and_removes),
        cmocka_unit_test(a_refused_recipient_fails_alone_and_is_kept_as_a_dead_letter),
        cmocka_unit_test(rcpt_4xx_defers_only_that_recipient),
        cmocka_unit_test(recipients_beyond_the_providers_limit_are_next),
        cmocka_unit_test(those_never_asked_go_before_those_deferred),
        cmocka_unit_test(a_deferred_recipient_makes_those_beyond_the_limit_wait_with_it),
        cmocka_unit_test(trouble_of_the_mailbox_leaves_those_beyond_the_limit_as_they_were),
        cmocka_unit_test(recipients_that_are_all_deferred_wait_whatever_data_got),
        cmocka_unit_test(a_loss_after_the_end_of_data_is_uncertain),
        cmocka_unit_test(a_session_ended_while_idle_costs_nobody_anything),
        cmocka_unit_test(each_further_loss_after_the_end_of_data_waits_longer_and_the_last_is_held),
        cmocka_unit_test(the_mailbox_hears_of_a_loss_after_the_end_of_data),
        cmocka_unit_test(a_failing_spool_defers_the_message_and_holds_nothing),
        cmocka_unit_test(
            a_loss_before_the_end_of_data_is_not_uncertain_and_costs_the_message_nothing),
        cmocka_unit_test(a_loss_in_the_middle_of_mail_data_makes_only_that_message_wait),
        cmocka_unit_test(a_pooled_connection_that_was_closed_while_idle_costs_nobody_anything),
        cmocka_unit_test(mailbox_trouble_never_costs_a_message),
        cmocka_unit_test(a_recipient_is_given_up_only_after_five_days_of_trying),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
