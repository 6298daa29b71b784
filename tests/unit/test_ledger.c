#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "relay/base/log.h"
#include "relay/submit/ledger.h"
#include "tests/unit/inline_executor.h"

#define SECOND 1000ull
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)
#define T0     (DAY)         /* monotonic */
#define WALL   (20000 * DAY) /* at T0 */
#define MB     (1024 * 1024ull)

struct fixture {
    char directory[32];
    char file[64];
    char password_file[64];
    struct config_mailbox config;
    struct inline_executor executor;
    struct mailbox m;
    struct ledger *ledger;
};

static void write_file(const char *file, const char *text)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(close(fd), 0);
}

/* A run of the program begins. The wall clock is `step` off what the monotonic one says. */
static void begin_stepped(struct fixture *f, uint64_t now_ms, int64_t step)
{
    const struct ledger_settings settings = {
        .executor = inline_executor(&f->executor), .file = f->file, .mailboxes = &f->m, .count = 1};
    inline_executor_init(&f->executor, false);
    assert_true(mailbox_init(&f->m, &f->config, NULL));
    f->ledger = ledger_open(&settings, now_ms, WALL + (now_ms - T0) + step);
    assert_non_null(f->ledger);
}

static void begin(struct fixture *f, uint64_t now_ms)
{
    begin_stepped(f, now_ms, 0);
}

static void look(struct fixture *f, uint64_t now_ms)
{
    ledger_look(f->ledger, now_ms, WALL + (now_ms - T0));
    inline_executor_run(&f->executor);
}

static void end_cleanly(struct fixture *f, uint64_t now_ms)
{
    ledger_close(f->ledger, now_ms, WALL + (now_ms - T0));
    mailbox_done(&f->m);
}

static void copy_file(const char *from, const char *to)
{
    static char buf[1 << 20];
    int in = open(from, O_RDONLY);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(in >= 0 && out >= 0);
    ssize_t n = read(in, buf, sizeof buf);
    assert_true(n >= 0 && n < (ssize_t)sizeof buf);
    assert_int_equal(write(out, buf, (size_t)n), n);
    (void)close(in);
    (void)close(out);
}

/* What is on the disk at this moment is what the next run finds. */
static void be_killed(struct fixture *f, uint64_t now_ms)
{
    char wal[80];
    char kept[80];
    char kept_wal[80];
    snprintf(wal, sizeof wal, "%s-wal", f->file);
    snprintf(kept, sizeof kept, "%s.kept", f->file);
    snprintf(kept_wal, sizeof kept_wal, "%s-wal.kept", f->file);
    copy_file(f->file, kept);
    copy_file(wal, kept_wal);
    end_cleanly(f, now_ms);
    assert_int_equal(rename(kept, f->file), 0);
    assert_int_equal(rename(kept_wal, wal), 0);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    strcpy(f->directory, "/tmp/outtray-test-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    snprintf(f->file, sizeof f->file, "%s/ledger.db", f->directory);
    snprintf(f->password_file, sizeof f->password_file, "%s/password", f->directory);
    write_file(f->password_file, "first\n");
    f->config = (struct config_mailbox){.name = "office",
                                        .host = "smtp.example",
                                        .port = 587,
                                        .auth = CONFIG_AUTH_PASSWORD,
                                        .address = "scan@office.example",
                                        .login = "scan@office.example",
                                        .password_file = f->password_file,
                                        .ca_file = "",
                                        .helo = "",
                                        .connections = 3,
                                        .messages_per_minute = 30,
                                        .recipients_per_day = 10000,
                                        .max_size = 35 * MB};
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {
        "ledger.db",         "ledger.db-wal",         "ledger.db-shm",
        "ledger.db.damaged", "ledger.db.damaged-wal", "password"};
    struct fixture *f = *state;
    char path[96];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", f->directory, names[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(f->directory), 0);
    free(f);
    return 0;
}

static void judge(struct fixture *f, enum client_stage stage, const char *text, uint64_t now_ms)
{
    struct reply reply;
    assert_true(reply_from_text(&reply, text));
    struct verdict v = verdict_of(stage, &reply);
    mailbox_judge(&f->m, &v, stage, &reply, now_ms, 0);
}

static void use(struct fixture *f, uint32_t recipients, uint64_t now_ms)
{
    budget_message_started(f->m.budget, recipients, now_ms);
    budget_message_ended(f->m.budget, recipients, recipients, now_ms);
}

static const char refused[] = "535 5.7.139 Authentication unsuccessful, the user credentials were "
                              "incorrect.";

/* ---- pauses ---------------------------------------------------------------------------------- */

static void pause_it(struct fixture *f, uint64_t now_ms)
{
    begin(f, now_ms);
    assert_true(mailbox_prepare(&f->m, now_ms, 0));
    judge(f, STAGE_AUTH, refused, now_ms);
    assert_int_equal(f->m.state, MAILBOX_PAUSED);
    look(f, now_ms);
}

static void a_pause_goes_on_after_a_restart(void **state)
{
    struct fixture *f = *state;
    for (int killed = 0; killed < 2; killed++) {
        pause_it(f, T0);
        uint64_t until = f->m.next_try_ms;
        if (killed)
            be_killed(f, T0 + MINUTE);
        else
            end_cleanly(f, T0 + MINUTE);
        begin(f, T0 + 2 * MINUTE);
        assert_int_equal(f->m.state, MAILBOX_PAUSED);
        assert_true(f->m.next_try_ms == until);
        assert_false(mailbox_is_usable(&f->m, until - 1));
        assert_true(mailbox_is_usable(&f->m, until));
        assert_int_equal(mailbox_connections_allowed(&f->m, until), 1);
        assert_string_equal(f->m.last_reply, refused);
        assert_true(f->m.problem[0] != '\0' && f->m.remedy[0] != '\0');
        assert_true(T0 + 2 * MINUTE - f->m.trouble_since_ms == 2 * MINUTE);
        mailbox_tick(&f->m, T0 + 3 * MINUTE); /* the same password */
        assert_false(mailbox_is_usable(&f->m, T0 + 3 * MINUTE));
        end_cleanly(f, T0 + 3 * MINUTE);
        assert_int_equal(unlink(f->file), 0);
    }
}

static void another_password_lifts_it(void **state)
{
    struct fixture *f = *state;
    pause_it(f, T0);
    end_cleanly(f, T0 + MINUTE);
    write_file(f->password_file, "second\n");
    begin(f, T0 + 2 * MINUTE);
    assert_int_equal(f->m.state, MAILBOX_PAUSED);
    assert_true(mailbox_is_usable(&f->m, T0 + 2 * MINUTE));
    assert_int_equal(mailbox_connections_allowed(&f->m, T0 + 2 * MINUTE), 1);
    end_cleanly(f, T0 + 2 * MINUTE);
}

static void so_it_does_while_we_run_again(void **state)
{
    struct fixture *f = *state;
    pause_it(f, T0);
    end_cleanly(f, T0 + MINUTE);
    begin(f, T0 + 2 * MINUTE);
    mailbox_tick(&f->m, T0 + 2 * MINUTE);
    assert_false(mailbox_is_usable(&f->m, T0 + 2 * MINUTE));
    write_file(f->password_file, "second\n");
    mailbox_tick(&f->m, T0 + 3 * MINUTE);
    assert_true(mailbox_is_usable(&f->m, T0 + 3 * MINUTE));
    end_cleanly(f, T0 + 3 * MINUTE);
}

static void a_wait_of_another_kind_is_tried_at_once(void **state)
{
    struct fixture *f = *state;
    begin(f, T0);
    judge(f, STAGE_BANNER, "421 4.3.2 Service not available", T0);
    look(f, T0);
    be_killed(f, T0 + SECOND);
    begin(f, T0 + 2 * SECOND);
    assert_int_equal(f->m.state, MAILBOX_WAITING);
    assert_true(mailbox_is_usable(&f->m, T0 + 2 * SECOND));
    assert_int_equal(f->m.troubles, 1);
    assert_true(T0 + 2 * SECOND - f->m.trouble_since_ms == 2 * SECOND);
    end_cleanly(f, T0 + 2 * SECOND);
}

static void a_pause_that_ended_is_not_remembered(void **state)
{
    struct fixture *f = *state;
    pause_it(f, T0);
    mailbox_delivered(&f->m, T0 + HOUR, WALL + HOUR);
    look(f, T0 + HOUR);
    be_killed(f, T0 + HOUR);
    begin(f, T0 + HOUR);
    assert_int_equal(f->m.state, MAILBOX_READY);
    assert_true(f->m.last_success_wall_ms == WALL + HOUR);
    end_cleanly(f, T0 + HOUR);
}

/* The boot is the same here, so monotonic time tells; and the wait is never longer than it was. */
static void no_step_of_the_wall_clock_makes_a_pause_longer_or_shorter(void **state)
{
    struct fixture *f = *state;
    static const int64_t steps[] = {-2 * (int64_t)DAY, (int64_t)DAY};
    pause_it(f, T0);
    uint64_t until = f->m.next_try_ms;
    end_cleanly(f, T0 + MINUTE);
    for (size_t i = 0; i < 2; i++) {
        begin_stepped(f, T0 + (2 + i) * MINUTE, steps[i]);
        assert_true(f->m.next_try_ms == until);
        end_cleanly(f, T0 + (2 + i) * MINUTE);
    }
}

static void the_password_is_not_in_the_file(void **state)
{
    static char buf[1 << 20];
    struct fixture *f = *state;
    write_file(f->password_file, "correct horse battery\n");
    pause_it(f, T0);
    end_cleanly(f, T0 + MINUTE);
    int fd = open(f->file, O_RDONLY);
    ssize_t n = read(fd, buf, sizeof buf);
    (void)close(fd);
    assert_true(n > 0);
    assert_non_null(memmem(buf, (size_t)n, "office", 6));
    assert_null(memmem(buf, (size_t)n, "horse", 5));
}

/* ---- budgets --------------------------------------------------------------------------------- */

static void a_clean_restart_keeps_the_budget(void **state)
{
    struct fixture *f = *state;
    begin(f, T0);
    for (unsigned i = 0; i < 10; i++)
        use(f, 5, T0);
    end_cleanly(f, T0 + SECOND);
    begin(f, T0 + 3 * SECOND);
    assert_int_equal(budget_messages(f->m.budget, T0 + 3 * SECOND), 10);
    assert_int_equal(budget_recipients(f->m.budget, T0 + 3 * SECOND), 50);
    assert_int_equal(budget_connections_allowed(f->m.budget, T0 + 3 * SECOND), 3);
    end_cleanly(f, T0 + 3 * SECOND);
}

static void killed_in_use_the_minute_is_spent(void **state)
{
    struct fixture *f = *state;
    begin(f, T0);
    budget_connection_opened(f->m.budget, T0);
    look(f, T0);
    use(f, 5, T0 + SECOND);
    be_killed(f, T0 + 2 * SECOND);
    begin(f, T0 + 3 * SECOND);
    assert_int_equal(budget_messages(f->m.budget, T0 + 3 * SECOND), 30);
    assert_int_equal(budget_connections_allowed(f->m.budget, T0 + 3 * SECOND), 1);
    assert_int_equal(budget_connections_why(f->m.budget, T0 + 3 * SECOND), BUDGET_RAMPING);
    assert_true(budget_recipients(f->m.budget, T0 + 3 * SECOND) >= 5);
    end_cleanly(f, T0 + 3 * SECOND);
}

static void killed_at_rest_nothing_is_spent(void **state)
{
    struct fixture *f = *state;
    begin(f, T0);
    budget_connection_opened(f->m.budget, T0);
    look(f, T0);
    use(f, 5, T0);
    look(f, T0 + 10 * SECOND);
    budget_connection_closed(f->m.budget, true, T0 + MINUTE, T0 + MINUTE);
    look(f, T0 + 2 * MINUTE);
    be_killed(f, T0 + HOUR);
    begin(f, T0 + HOUR);
    assert_int_equal(budget_messages(f->m.budget, T0 + HOUR), 0);
    assert_int_equal(budget_connections_allowed(f->m.budget, T0 + HOUR), 3);
    assert_int_equal(budget_recipients(f->m.budget, T0 + HOUR), 5);
    end_cleanly(f, T0 + HOUR);
}

/* However often and early it is killed. */
static void no_minute_sees_more_than_the_limit_across_kills(void **state)
{
    struct fixture *f = *state;
    static uint64_t sent[400];
    size_t count = 0;
    uint64_t now = T0;
    for (unsigned run = 0; run < 12; run++) {
        uint64_t end = now + (run * 7919 % 140) * SECOND;
        begin(f, now);
        budget_connection_opened(f->m.budget, now);
        for (; now <= end; now += SECOND) {
            look(f, now);
            while (budget_may_send(f->m.budget, false, now) == 0) {
                assert_true(count < sizeof sent / sizeof *sent);
                sent[count++] = now;
                use(f, 1, now);
            }
        }
        be_killed(f, now);
    }
    assert_true(count > 90);
    for (size_t i = 30; i < count; i++)
        assert_true(sent[i] - sent[i - 30] >= MINUTE);
}

static void many_recipients_are_written_at_once(void **state)
{
    struct fixture *f = *state;
    begin(f, T0);
    budget_connection_opened(f->m.budget, T0);
    look(f, T0);
    for (unsigned i = 0; i < 15; i++) {
        use(f, 500, T0 + i);
        look(f, T0 + i);
    }
    be_killed(f, T0 + 15);
    begin(f, T0 + SECOND);
    assert_in_range(budget_recipients(f->m.budget, T0 + SECOND), 7500, 7601);
    end_cleanly(f, T0 + SECOND);
}

static void at_rest_nothing_is_written(void **state)
{
    struct fixture *f = *state;
    begin(f, T0);
    for (unsigned i = 0; i < 100; i++)
        look(f, T0 + i * MINUTE);
    assert_int_equal(f->executor.submitted, 1);
    end_cleanly(f, T0 + 100 * MINUTE);
}

/* ---- lessons --------------------------------------------------------------------------------- */

static void lessons_hold_across_a_restart_until_their_time(void **state)
{
    struct fixture *f = *state;
    begin(f, T0);
    mailbox_learn_size(&f->m, 20 * MB, T0);
    mailbox_learn_no_bdat(&f->m, T0);
    look(f, T0);
    be_killed(f, T0);
    begin(f, T0 + HOUR);
    assert_int_equal(f->m.max_size, 20 * MB - 1);
    assert_true(f->m.size_until_ms == T0 + MAILBOX_SIZE_MS);
    assert_true(f->m.no_bdat_until_ms == T0 + MAILBOX_NO_BDAT_MS);
    end_cleanly(f, T0 + HOUR);
    begin(f, T0 + 8 * DAY);
    assert_int_equal(f->m.max_size, 35 * MB);
    assert_int_equal(f->m.no_bdat_until_ms, 0);
    end_cleanly(f, T0 + 8 * DAY);
}

static void a_size_taught_is_forgotten_when_another_is_configured(void **state)
{
    struct fixture *f = *state;
    begin(f, T0);
    mailbox_learn_size(&f->m, 20 * MB, T0);
    end_cleanly(f, T0);
    f->config.max_size = 100 * MB;
    begin(f, T0 + MINUTE);
    assert_int_equal(f->m.max_size, 100 * MB);
    end_cleanly(f, T0 + MINUTE);
}

/* ---- a lost file ----------------------------------------------------------------------------- */

static void a_damaged_file_is_set_aside_and_the_safe_side_taken(void **state)
{
    struct fixture *f = *state;
    char aside[80];
    struct stat st;
    write_file(f->file, "this is no database, but it is long enough to look like a file of one");
    begin(f, T0);
    assert_int_equal(f->m.state, MAILBOX_READY);
    assert_int_equal(budget_messages(f->m.budget, T0), 30);
    assert_int_equal(budget_connections_allowed(f->m.budget, T0), 1);
    snprintf(aside, sizeof aside, "%s.damaged", f->file);
    assert_int_equal(stat(aside, &st), 0);
    end_cleanly(f, T0);
    pause_it(f, T0 + HOUR);
    end_cleanly(f, T0 + HOUR);
}

/* The directory is not there: nothing can be made in it, as on a read-only file system. */
static void a_file_that_never_was_and_cannot_be_made_is_no_lost_one(void **state)
{
    struct fixture *f = *state;
    char kept[64];
    memcpy(kept, f->file, sizeof kept);
    snprintf(f->file, sizeof f->file, "%s/none/ledger.db", f->directory);
    begin(f, T0);
    assert_int_equal(budget_messages(f->m.budget, T0), 0);
    assert_int_equal(budget_recipients(f->m.budget, T0), 0);
    assert_int_equal(budget_connections_allowed(f->m.budget, T0), 3);
    assert_false(budget_is_assumed(f->m.budget, T0));
    end_cleanly(f, T0);
    memcpy(f->file, kept, sizeof kept);
}

static void a_file_that_cannot_be_opened_is_written_when_it_can(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(mkdir(f->file, 0700), 0);
    begin(f, T0);
    assert_int_equal(budget_messages(f->m.budget, T0), 30);
    assert_true(mailbox_prepare(&f->m, T0, 0));
    judge(f, STAGE_AUTH, refused, T0);
    look(f, T0 + 11 * SECOND);
    assert_int_equal(rmdir(f->file), 0);
    look(f, T0 + 30 * SECOND);
    look(f, T0 + 31 * SECOND); /* now with the password's fingerprint */
    be_killed(f, T0 + 32 * SECOND);
    begin(f, T0 + MINUTE);
    assert_int_equal(f->m.state, MAILBOX_PAUSED);
    assert_false(mailbox_is_usable(&f->m, T0 + MINUTE));
    end_cleanly(f, T0 + MINUTE);
}

#define FRESH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH(a_pause_goes_on_after_a_restart),
        FRESH(another_password_lifts_it),
        FRESH(so_it_does_while_we_run_again),
        FRESH(a_wait_of_another_kind_is_tried_at_once),
        FRESH(a_pause_that_ended_is_not_remembered),
        FRESH(no_step_of_the_wall_clock_makes_a_pause_longer_or_shorter),
        FRESH(the_password_is_not_in_the_file),
        FRESH(a_clean_restart_keeps_the_budget),
        FRESH(killed_in_use_the_minute_is_spent),
        FRESH(killed_at_rest_nothing_is_spent),
        FRESH(no_minute_sees_more_than_the_limit_across_kills),
        FRESH(many_recipients_are_written_at_once),
        FRESH(at_rest_nothing_is_written),
        FRESH(lessons_hold_across_a_restart_until_their_time),
        FRESH(a_size_taught_is_forgotten_when_another_is_configured),
        FRESH(a_file_that_never_was_and_cannot_be_made_is_no_lost_one),
        FRESH(a_damaged_file_is_set_aside_and_the_safe_side_taken),
        FRESH(a_file_that_cannot_be_opened_is_written_when_it_can),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
