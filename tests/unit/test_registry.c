/* With an executor that runs inline, but where the threads themselves are the matter. What is
 * logged is read from standard error, which is a file meanwhile. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>

#include "relay/base/work.h"
#include "relay/intake/registry.h"
#include "tests/unit/inline_executor.h"

#define NOW    UINT64_C(1000000)       /* monotonic */
#define WALL   UINT64_C(1767571200000) /* 2026-01-05 */
#define MINUTE UINT64_C(60000)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

struct fixture {
    char directory[64];
    char file[96];
    char log[96];
    int standard_error;
    struct clock clock;
    struct config_device devices[2];
    struct config config;
    struct inline_executor executor;
    struct registry_settings settings;
    struct registry *r;
    uint64_t now_ms;
    /* The newest answer to registry_transcripts(). */
    size_t answers;
    size_t count;
    uint64_t ended_ms[REGISTRY_TRANSCRIPTS];
    char text[REGISTRY_TRANSCRIPTS][TRANSCRIPT_MAX];
    struct error err;
};

static void catch_log(struct fixture *f)
{
    int fd = open(f->log, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0600);

    assert_true(fd >= 0);
    (void)fflush(stderr);
    f->standard_error = dup(STDERR_FILENO);
    assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    (void)close(fd);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    strcpy(f->directory, "/tmp/outtray-registry-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    snprintf(f->file, sizeof f->file, "%s/devices.db", f->directory);
    snprintf(f->log, sizeof f->log, "%s/log", f->directory);
    f->devices[0].name = strdup("scanner"); /* not in their order */
    f->devices[1].name = strdup("alarm panel");
    f->config = (struct config){.devices = f->devices, .device_count = 2};
    inline_executor_init(&f->executor, false);
    f->settings = (struct registry_settings){.clock = &f->clock,
                                             .config = &f->config,
                                             .executor = inline_executor(&f->executor),
                                             .file = f->file};
    f->now_ms = NOW;
    catch_log(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    char command[128];

    registry_close(f->r);
    (void)fflush(stderr);
    (void)dup2(f->standard_error, STDERR_FILENO);
    (void)close(f->standard_error);
    snprintf(command, sizeof command, "rm -rf %s", f->directory);
    assert_int_equal(system(command), 0);
    free(f->devices[0].name);
    free(f->devices[1].name);
    free(f);
    return 0;
}

static size_t logged(const struct fixture *f, const char *event)
{
    char line[LOG_LINE_MAX + 2];
    char wanted[64];
    size_t n = 0;
    FILE *file = fopen(f->log, "r");

    assert_non_null(file);
    snprintf(wanted, sizeof wanted, "event=%s ", event);
    while (fgets(line, sizeof line, file) != NULL)
        n += strstr(line, wanted) != NULL;
    (void)fclose(file);
    return n;
}

static void start(struct fixture *f)
{
    f->r = registry_open(&f->settings);
    assert_non_null(f->r);
}

static void stop(struct fixture *f)
{
    registry_close(f->r);
    f->r = NULL;
}

static void restart(struct fixture *f)
{
    stop(f);
    start(f);
}

/* Time for one write, and its end. */
static void write_now(struct fixture *f)
{
    f->now_ms += REGISTRY_WRITE_MS;
    registry_tick(f->r, f->now_ms, WALL);
    inline_executor_run(&f->executor);
}

/* As if the program had ended there: what is on disk is copied, and opened by another. */
static void crash(struct fixture *f)
{
    char command[512];

    snprintf(command, sizeof command, "cd %s && mkdir crashed && cp devices.db* crashed/",
             f->directory);
    assert_int_equal(system(command), 0);
    stop(f);
    snprintf(command, sizeof command, "cd %s && rm devices.db* && mv crashed/* . && rmdir crashed",
             f->directory);
    assert_int_equal(system(command), 0);
    start(f);
}

static struct registry_device device(struct fixture *f, const char *name)
{
    struct registry_device d;

    if (!registry_find(f->r, name, WALL, &d))
        fail_msg("%s is not known", name);
    return d;
}

static bool knows(struct fixture *f, const char *name)
{
    struct registry_device d;

    return registry_find(f->r, name, WALL, &d);
}

static struct net_address address(const char *text)
{
    struct net_address a;

    assert_true(net_parse(text, &a));
    return a;
}

static void see(struct fixture *f, const char *name, uint64_t wall_ms)
{
    const struct net_address a = address("192.168.1.21");

    registry_session(f->r, name, &a, wall_ms);
}

static void end_with(struct fixture *f, const char *name, const char *transcript, uint64_t wall_ms)
{
    const struct registry_end end = {.helo = "", .tls = "", .transcript = transcript};

    registry_ended(f->r, name, &end, wall_ms);
}

static void on_transcripts(void *ctx, const struct registry_transcript *list, size_t n,
                           const struct error *err)
{
    struct fixture *f = ctx;

    f->answers++;
    f->count = n;
    f->err = (struct error)ERROR_INIT;
    if (err != NULL)
        f->err = *err;
    assert_in_range(n, 0, REGISTRY_TRANSCRIPTS);
    for (size_t i = 0; i < n; i++) {
        f->ended_ms[i] = list[i].ended_ms;
        snprintf(f->text[i], sizeof f->text[i], "%s", list[i].text);
    }
}

static void ask(struct fixture *f, const char *name)
{
    size_t before = f->answers;

    registry_transcripts(f->r, name, on_transcripts, f);
    assert_int_equal(f->answers, before); /* later */
    inline_executor_run(&f->executor);
    assert_int_equal(f->answers, before + 1);
}

/* A device with something in every field. */
static void live(struct fixture *f, const char *name)
{
    const struct net_address a = address("fd00::21");
    const struct registry_end end = {.helo = "MFP-2\xc3\xa9",
                                     .tls = "TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256",
                                     .seen = QUIRK_BIT(QUIRK_NO_QUIT),
                                     .had_mail = true,
                                     .transcript = "one\n"};
    const struct registry_end probe = {.helo = "", .tls = "", .was_probe = true};

    for (unsigned day = 0; day < 20; day++) {
        registry_session(f->r, name, &a, WALL + day * DAY);
        registry_message(f->r, name, 1000, QUIRK_BIT(QUIRK_NO_BRACKETS), WALL + day * DAY + 5);
    }
    registry_ended(f->r, name, &end, WALL + 20 * DAY);
    registry_trouble(f->r, name, "550 5.7.1 \"Relaying denied\"", true, WALL + 21 * DAY);
    registry_trouble(f->r, name, "the TLS handshake failed", false, WALL + 22 * DAY);
    registry_ended(f->r, name, &probe, WALL + 23 * DAY);
}

static void a_refusal_for_lack_of_room_is_known_until_mail_gets_in(void **state)
{
    struct fixture *f = *state;

    start(f);
    live(f, "scanner");
    assert_int_equal(device(f, "scanner").no_room_ms, 0);
    registry_no_room(f->r, "scanner", "the spool is full: let mail leave", WALL + 30 * DAY);
    assert_int_equal(device(f, "scanner").no_room_ms, WALL + 30 * DAY);
    assert_string_equal(device(f, "scanner").no_room, "the spool is full: let mail leave");
    write_now(f);
    registry_message(f->r, "scanner", 1000, 0, WALL + 30 * DAY + 1);
    assert_int_equal(device(f, "scanner").no_room_ms, 0);
    assert_string_equal(device(f, "scanner").no_room, "");
    registry_no_room(NULL, "scanner", "text", WALL);
}

static void what_is_told_of_a_device_can_be_asked(void **state)
{
    struct fixture *f = *state;

    start(f);
    live(f, "scanner");
    struct registry_device d = device(f, "scanner");
    assert_string_equal(d.name, "scanner");
    assert_string_equal(d.address, "fd00::21");
    assert_string_equal(d.helo, "MFP-2\xc3\xa9");
    assert_string_equal(d.tls, "TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256");
    assert_string_equal(d.error, "the TLS handshake failed");
    assert_int_equal(d.first_ms, WALL);
    assert_int_equal(d.last_ms, WALL + 23 * DAY);
    assert_int_equal(d.mail_ms, WALL + 19 * DAY + 5);
    assert_int_equal(d.error_ms, WALL + 22 * DAY);
    assert_int_equal(d.sessions, 20);
    assert_int_equal(d.probes, 1);
    assert_int_equal(d.messages, 20);
    assert_int_equal(d.octets, 20000);
    assert_int_equal(d.refused, 1);
    assert_true(d.quirks == (QUIRK_BIT(QUIRK_NO_QUIT) | QUIRK_BIT(QUIRK_NO_BRACKETS)));
    assert_true(d.newest == d.quirks);
    assert_true(d.configured);
    assert_int_equal(d.usual_ms, DAY);
    assert_false(d.is_quiet);
    assert_true(registry_find(f->r, "scanner", WALL + 22 * DAY, &d));
    assert_true(d.is_quiet);
}

static void everything_survives_a_restart(void **state)
{
    struct fixture *f = *state;

    start(f);
    live(f, "scanner");
    live(f, "10.0.0.7");
    const struct registry_device before = device(f, "scanner");
    const struct registry_device other = device(f, "10.0.0.7");
    for (int i = 0; i < 2; i++) {
        restart(f);
        const struct registry_device after = device(f, "scanner");
        assert_memory_equal(&before, &after, sizeof before);
        const struct registry_device other_after = device(f, "10.0.0.7");
        assert_memory_equal(&other, &other_after, sizeof other);
        assert_false(other_after.configured);
        assert_int_equal(registry_count(f->r), 2);
    }
    ask(f, "scanner");
    assert_int_equal(f->count, 1);
    assert_string_equal(f->text[0], "one\n");
    assert_int_equal(f->ended_ms[0], WALL + 20 * DAY);
}

static void a_crash_costs_what_was_not_written_and_no_more(void **state)
{
    struct fixture *f = *state;

    start(f);
    see(f, "scanner", WALL);
    end_with(f, "scanner", "written\n", WALL);
    write_now(f);
    see(f, "scanner", WALL + 1);
    see(f, "10.0.0.9", WALL + 1);
    end_with(f, "scanner", "lost\n", WALL + 1);
    crash(f);
    assert_int_equal(device(f, "scanner").sessions, 1);
    assert_false(knows(f, "10.0.0.9"));
    ask(f, "scanner");
    assert_int_equal(f->count, 1);
    assert_string_equal(f->text[0], "written\n");
}

static void it_is_written_at_intervals_and_only_when_something_changed(void **state)
{
    struct fixture *f = *state;

    start(f);
    write_now(f);
    assert_int_equal(f->executor.submitted, 0);
    see(f, "scanner", WALL);
    registry_tick(f->r, f->now_ms + 1, WALL);
    registry_tick(f->r, f->now_ms + REGISTRY_WRITE_MS, WALL);
    assert_int_equal(f->executor.submitted, 1);
    registry_tick(f->r, f->now_ms + 3 * REGISTRY_WRITE_MS, WALL); /* one at a time */
    assert_int_equal(f->executor.submitted, 1);
    inline_executor_run(&f->executor);
    registry_tick(f->r, f->now_ms + 5 * REGISTRY_WRITE_MS, WALL);
    assert_int_equal(f->executor.submitted, 1);
}

static void more_devices_than_fit_a_batch_are_written_all(void **state)
{
    struct fixture *f = *state;
    char name[32];

    start(f);
    for (int i = 0; i < 700; i++) {
        snprintf(name, sizeof name, "10.1.%d.%d", i / 250, i % 250);
        see(f, name, WALL);
    }
    for (int i = 0; i < 3; i++)
        write_now(f);
    assert_int_equal(f->executor.submitted, 3);
    crash(f);
    assert_int_equal(registry_count(f->r), 700);
}

static void busy_devices_do_not_keep_others_from_being_written(void **state)
{
    struct fixture *f = *state;
    char name[32];

    start(f);
    see(f, "192.168.9.9", WALL);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 300; i++) {
            snprintf(name, sizeof name, "10.1.%d.%d", i / 250, i % 250);
            see(f, name, WALL);
        }
        registry_tick(f->r, f->now_ms += 1000, WALL); /* soon: a whole batch was not all */
        inline_executor_run(&f->executor);
    }
    assert_int_equal(f->executor.submitted, 2);
    crash(f);
    assert_true(knows(f, "192.168.9.9"));
}

static void errors_and_mail_of_a_time_ahead_are_now_when_the_clock_is_set_back(void **state)
{
    struct fixture *f = *state;

    start(f);
    registry_trouble(f->r, "scanner", "no paper", false, WALL + 30 * DAY);
    registry_message(f->r, "scanner", 1000, 0, WALL + 31 * DAY);
    see(f, "scanner", WALL);
    assert_int_equal(device(f, "scanner").error_ms, WALL);
    assert_int_equal(device(f, "scanner").mail_ms, WALL);
    registry_trouble(f->r, "scanner", "no paper", false, WALL + 1);
    assert_true(device(f, "scanner").error_ms > device(f, "scanner").mail_ms);
}

static void a_clock_that_is_set_back_does_no_harm(void **state)
{
    struct fixture *f = *state;

    start(f);
    see(f, "scanner", WALL + 400 * DAY);
    registry_message(f->r, "scanner", 1, 0, WALL + 400 * DAY);
    see(f, "scanner", WALL);
    registry_message(f->r, "scanner", 1, 0, WALL);
    struct registry_device d = device(f, "scanner");
    assert_int_equal(d.first_ms, WALL);
    assert_int_equal(d.last_ms, WALL);
    assert_int_equal(d.mail_ms, WALL);
    assert_false(d.is_quiet);
    restart(f);
    const struct registry_device after = device(f, "scanner");
    assert_memory_equal(&d, &after, sizeof d);
}

static void sessions_say_what_is_new_and_leave_the_rest(void **state)
{
    struct fixture *f = *state;
    const struct registry_end first = {
        .helo = "mfp", .tls = "TLSv1.3", .had_mail = true, .seen = QUIRK_BIT(QUIRK_NO_QUIT)};
    const struct registry_end probe = {.helo = "", .tls = "", .seen = QUIRK_BIT(QUIRK_HELO_ODD)};
    const struct registry_end clear = {.helo = "", .tls = "", .had_mail = true};

    start(f);
    registry_ended(f->r, "scanner", &first, WALL);
    registry_ended(f->r, "scanner", &probe, WALL);
    assert_string_equal(device(f, "scanner").helo, "mfp");
    assert_string_equal(device(f, "scanner").tls, "TLSv1.3");
    assert_true(device(f, "scanner").newest == QUIRK_BIT(QUIRK_NO_QUIT));
    registry_message(f->r, "scanner", 1, QUIRK_BIT(QUIRK_SIZE_WRONG), WALL);
    registry_ended(f->r, "scanner", &clear, WALL);
    assert_string_equal(device(f, "scanner").tls, "");
    assert_true(device(f, "scanner").newest == QUIRK_BIT(QUIRK_SIZE_WRONG));
    assert_true(
        device(f, "scanner").quirks ==
        (QUIRK_BIT(QUIRK_NO_QUIT) | QUIRK_BIT(QUIRK_HELO_ODD) | QUIRK_BIT(QUIRK_SIZE_WRONG)));
}

static void long_texts_are_cut_between_characters(void **state)
{
    struct fixture *f = *state;
    char text[2 * REGISTRY_ERROR_MAX + 1];

    start(f);
    for (size_t i = 0; i < sizeof text - 1; i += 2)
        memcpy(text + i, "\xc3\xa9", 2);
    text[sizeof text - 1] = '\0';
    registry_trouble(f->r, "scanner", text, true, WALL);
    struct registry_device d = device(f, "scanner");
    assert_int_equal(strlen(d.error), REGISTRY_ERROR_MAX - 2);
    assert_memory_equal(d.error, text, REGISTRY_ERROR_MAX - 2);
}

static void devices_come_by_name(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"scanner", "10.0.0.9", "alarm panel", "10.0.0.10", "ups"};
    static const char *const sorted[] = {"10.0.0.10", "10.0.0.9", "alarm panel", "scanner", "ups"};
    struct registry_device d = {.name = ""};

    start(f);
    for (size_t i = 0; i < 5; i++)
        see(f, names[i], WALL);
    for (size_t i = 0; i < 5; i++) {
        assert_true(registry_next(f->r, d.name, WALL, &d));
        assert_string_equal(d.name, sorted[i]);
    }
    assert_false(registry_next(f->r, d.name, WALL, &d));
    assert_true(registry_next(f->r, "b", WALL, &d));
    assert_string_equal(d.name, "scanner");
}

static void thousands_of_unnamed_devices_are_bounded_and_the_named_ones_stay(void **state)
{
    struct fixture *f = *state;
    char name[32];

    start(f);
    see(f, "scanner", WALL);
    see(f, "alarm panel", WALL);
    see(f, "10.0.0.1", WALL);
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "10.%d.%d.5", i / 250, i % 250);
        see(f, name, WALL - (uint64_t)i); /* whatever the clock says */
        if (i == 2500) {
            write_now(f);
            see(f, "10.0.0.1", WALL);
        }
    }
    assert_int_equal(registry_count(f->r), REGISTRY_DEVICES_MAX);
    assert_true(knows(f, "scanner"));
    assert_true(knows(f, "alarm panel"));
    assert_true(knows(f, "10.0.0.1"));  /* seen since */
    assert_true(knows(f, name));        /* the newest */
    assert_false(knows(f, "10.0.0.5")); /* the oldest */
    restart(f);
    assert_int_equal(registry_count(f->r), REGISTRY_DEVICES_MAX);
    assert_true(knows(f, "scanner"));
    assert_false(knows(f, "10.0.0.5"));
}

static void the_newest_five_transcripts_of_a_device_are_kept_word_for_word(void **state)
{
    struct fixture *f = *state;
    static char large[TRANSCRIPT_MAX];
    char text[128];

    start(f);
    for (unsigned i = 0; i < 12; i++) {
        snprintf(text, sizeof text, "0.040 >> AUTH LOGIN (%u octets hidden)\n\\x1b 'q' \"%%s\"\n",
                 i);
        end_with(f, "scanner", text, WALL + i);
        end_with(f, "ups", "other\n", WALL + i);
        if (i % 3 == 1)
            write_now(f);
    }
    memset(large, 'x', sizeof large - 1);
    end_with(f, "ups", large, WALL + 99);
    for (int round = 0; round < 3; round++) {
        ask(f, "scanner"); /* some wait, then all are written, then read again */
        assert_int_equal(f->count, REGISTRY_TRANSCRIPTS);
        for (unsigned i = 0; i < REGISTRY_TRANSCRIPTS; i++) {
            snprintf(text, sizeof text,
                     "0.040 >> AUTH LOGIN (%u octets hidden)\n\\x1b 'q' \"%%s\"\n", 11 - i);
            assert_string_equal(f->text[i], text);
            assert_int_equal(f->ended_ms[i], WALL + 11 - i);
        }
        if (round == 0)
            write_now(f);
        else
            restart(f);
    }
    ask(f, "ups");
    assert_int_equal(f->count, REGISTRY_TRANSCRIPTS);
    assert_string_equal(f->text[0], large);
    ask(f, "nobody");
    assert_int_equal(f->count, 0);
    assert_int_equal(f->err.kind, ERROR_NONE);
}

static void several_may_ask_at_once_and_while_it_writes(void **state)
{
    struct fixture *f = *state;

    start(f);
    end_with(f, "scanner", "one\n", WALL);
    registry_tick(f->r, f->now_ms += REGISTRY_WRITE_MS, WALL); /* under way */
    end_with(f, "scanner", "two\n", WALL + 1);
    for (int i = 0; i < 3; i++)
        registry_transcripts(f->r, "scanner", on_transcripts, f);
    assert_int_equal(f->answers, 0);
    inline_executor_run(&f->executor);
    assert_int_equal(f->answers, 3);
    assert_int_equal(f->count, 2);
    assert_string_equal(f->text[0], "two\n");
    assert_string_equal(f->text[1], "one\n");
}

static void transcripts_that_wait_are_bounded(void **state)
{
    struct fixture *f = *state;
    char name[32];

    f->settings.file = "/nonexistent/devices.db";
    start(f);
    for (int i = 0; i < REGISTRY_PENDING_MAX + 10; i++) {
        snprintf(name, sizeof name, "10.2.%d.%d", i / 250, i % 250);
        end_with(f, name, "text\n", WALL);
    }
    ask(f, "10.2.0.9");
    assert_int_equal(f->count, 0);
    assert_int_equal(f->err.kind, ERROR_IO); /* it may be stored there */
    ask(f, "10.2.0.10");
    assert_int_equal(f->count, 1);
    assert_int_equal(f->err.kind, ERROR_NONE);
    ask(f, name);
    assert_int_equal(f->count, 1);
}

static void many_transcripts_are_written_early(void **state)
{
    struct fixture *f = *state;
    char name[32];

    start(f);
    registry_tick(f->r, f->now_ms, WALL);
    for (int i = 0; i < REGISTRY_PENDING_MAX / 2; i++) {
        assert_int_equal(f->executor.submitted, 0);
        snprintf(name, sizeof name, "10.3.0.%d", i);
        end_with(f, name, "text\n", WALL);
        registry_tick(f->r, f->now_ms + 1, WALL);
    }
    assert_int_equal(f->executor.submitted, 1);
    inline_executor_run(&f->executor);
}

static void forgetting_removes_everything(void **state)
{
    struct fixture *f = *state;

    start(f);
    live(f, "scanner");
    live(f, "10.0.0.7");
    end_with(f, "scanner", "waits\n", WALL);
    write_now(f);
    end_with(f, "scanner", "waits\n", WALL);
    assert_true(registry_forget(f->r, "scanner"));
    assert_false(registry_forget(f->r, "scanner"));
    assert_false(knows(f, "scanner"));
    ask(f, "scanner"); /* though it is on disk still */
    assert_int_equal(f->count, 0);
    restart(f);
    assert_false(knows(f, "scanner"));
    assert_true(knows(f, "10.0.0.7"));
    ask(f, "scanner");
    assert_int_equal(f->count, 0);
    ask(f, "10.0.0.7");
    assert_int_equal(f->count, 1);
}

static void a_device_that_comes_back_begins_anew(void **state)
{
    struct fixture *f = *state;

    start(f);
    live(f, "scanner");
    write_now(f);
    assert_true(registry_forget(f->r, "scanner"));
    see(f, "scanner", WALL + 100);
    end_with(f, "scanner", "new\n", WALL + 101);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(device(f, "scanner").sessions, 1);
        assert_int_equal(device(f, "scanner").first_ms, WALL + 100);
        assert_int_equal(device(f, "scanner").messages, 0);
        ask(f, "scanner");
        assert_int_equal(f->count, 1);
        assert_string_equal(f->text[0], "new\n");
        restart(f);
    }
}

static void what_is_forgotten_while_connected_is_in_its_first_session(void **state)
{
    struct fixture *f = *state;
    struct registry_device d;

    start(f);
    see(f, "192.168.1.21", WALL);
    see(f, "192.168.1.21", WALL);
    assert_true(registry_forget(f->r, "192.168.1.21"));
    end_with(f, "192.168.1.21", "bye\n", WALL + 1);
    d = device(f, "192.168.1.21");
    assert_int_equal(d.sessions, 1);
    assert_string_equal(d.address, "192.168.1.21");
    see(f, "192.168.1.21", WALL + 2);
    assert_int_equal(device(f, "192.168.1.21").sessions, 2);
}

static void forgetting_while_it_writes_holds(void **state)
{
    struct fixture *f = *state;

    start(f);
    live(f, "scanner");
    registry_tick(f->r, f->now_ms += REGISTRY_WRITE_MS, WALL);
    assert_true(registry_forget(f->r, "scanner"));
    inline_executor_run(&f->executor);
    ask(f, "scanner");
    assert_int_equal(f->count, 0);
    restart(f);
    assert_false(knows(f, "scanner"));
    ask(f, "scanner");
    assert_int_equal(f->count, 0);
}

/* ---- trouble --------------------------------------------------------------------------------- */

static void spoil(const struct fixture *f, off_t from)
{
    char rubbish[4096];
    struct stat st;
    int fd = open(f->file, O_WRONLY);

    memset(rubbish, 0xa5, sizeof rubbish);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    for (off_t at = from; at < st.st_size; at += 4096)
        assert_int_equal(pwrite(fd, rubbish, sizeof rubbish, at), sizeof rubbish);
    (void)close(fd);
}

static bool is_set_aside(const struct fixture *f)
{
    char path[128];

    snprintf(path, sizeof path, "%s.damaged", f->file);
    return access(path, F_OK) == 0;
}

static void remove_file(const struct fixture *f)
{
    char command[128];

    snprintf(command, sizeof command, "rm %s*", f->file);
    assert_int_equal(system(command), 0);
}

static void a_file_that_is_removed_is_written_anew_from_memory(void **state)
{
    struct fixture *f = *state;

    start(f);
    live(f, "scanner");
    live(f, "10.0.0.7");
    write_now(f);
    for (size_t round = 1; round <= 2; round++) {
        remove_file(f);
        see(f, "10.0.0.7", WALL);
        end_with(f, "10.0.0.7", "late\n", WALL);
        if (round == 1) {
            write_now(f);
            assert_int_equal(logged(f, "registry-failing"), 1);
            write_now(f);
            assert_int_equal(logged(f, "registry-recovered"), 1);
            crash(f);
        } else {
            restart(f);
        }
        assert_int_equal(registry_count(f->r), 2);
        assert_int_equal(device(f, "scanner").messages, 20);
        ask(f, "10.0.0.7");
        assert_int_equal(f->count, 1);
        assert_string_equal(f->text[0], "late\n");
    }
    assert_int_equal(logged(f, "registry-damaged"), 0);
}

static void a_damaged_file_is_set_aside_and_told_once(void **state)
{
    struct fixture *f = *state;
    static const off_t from[] = {0, 4096};

    for (size_t i = 0; i < 2; i++) {
        start(f);
        live(f, "scanner");
        stop(f);
        spoil(f, from[i]);
        start(f);
        assert_int_equal(logged(f, "registry-damaged"), i + 1);
        assert_int_equal(logged(f, "registry-failing"), 0);
        assert_true(is_set_aside(f));
        assert_int_equal(registry_count(f->r), 0);
        see(f, "scanner", WALL);
        restart(f);
        assert_int_equal(device(f, "scanner").sessions, 1);
        assert_int_equal(logged(f, "registry-damaged"), i + 1);
        registry_forget(f->r, "scanner");
        stop(f);
    }
}

/* Leaves the rows of some devices readable: damage is behind them. */
static void devices_before_the_damage_are_saved(void **state)
{
    struct fixture *f = *state;
    char name[32];
    struct stat st;

    start(f);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "10.0.0.%d", i);
        live(f, name);
    }
    stop(f);
    assert_int_equal(stat(f->file, &st), 0);
    spoil(f, st.st_size / 8192 * 4096);
    start(f);
    assert_int_equal(logged(f, "registry-damaged"), 1);
    size_t saved = registry_count(f->r);
    assert_in_range(saved, 1, 199);
    crash(f);
    assert_int_equal(registry_count(f->r), 0); /* they were to be written yet */
}

static void damage_that_shows_while_it_runs_costs_transcripts_only(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    char name[32];

    start(f);
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "10.0.0.%d", i);
        live(f, name);
    }
    stop(f);
    start(f);
    /* Its pages are read when they are needed. */
    assert_int_equal(stat(f->file, &st), 0);
    spoil(f, 4096);
    ask(f, "10.0.0.3");
    assert_int_equal(f->count, 0);
    assert_int_equal(f->err.kind, ERROR_DAMAGED);
    assert_int_equal(logged(f, "registry-damaged"), 1);
    assert_true(is_set_aside(f));
    write_now(f);
    crash(f);
    assert_int_equal(registry_count(f->r), 50);
    assert_int_equal(device(f, "10.0.0.3").messages, 20);
    assert_int_equal(logged(f, "registry-failing"), 0);
}

static void a_file_that_cannot_be_opened_leaves_it_in_memory_and_is_told_once(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkdir(f->file, 0700), 0);
    start(f);
    assert_int_equal(logged(f, "registry-failing"), 1);
    live(f, "scanner");
    for (int i = 0; i < 5; i++)
        write_now(f);
    assert_int_equal(logged(f, "registry-failing"), 1);
    assert_int_equal(logged(f, "registry-damaged"), 0);
    assert_int_equal(device(f, "scanner").messages, 20);
    ask(f, "scanner");
    assert_int_equal(f->count, 1);
    assert_string_equal(f->text[0], "one\n");

    assert_int_equal(rmdir(f->file), 0);
    write_now(f);
    assert_int_equal(logged(f, "registry-recovered"), 1);
    crash(f);
    assert_int_equal(device(f, "scanner").messages, 20);
    ask(f, "scanner");
    assert_int_equal(f->count, 1);
}

static void what_a_file_knows_that_opens_late_is_added(void **state)
{
    struct fixture *f = *state;
    char hidden[128];

    start(f);
    live(f, "scanner");
    live(f, "ups");
    live(f, "10.0.0.7");
    live(f, "plotter");
    const struct registry_device plotter = device(f, "plotter");
    stop(f);
    snprintf(hidden, sizeof hidden, "%s/hidden", f->directory);
    assert_int_equal(rename(f->file, hidden), 0);
    assert_int_equal(mkdir(f->file, 0700), 0);
    start(f);
    assert_int_equal(registry_count(f->r), 0);
    see(f, "scanner", WALL + 30 * DAY);
    see(f, "10.0.0.7", WALL + 30 * DAY);
    assert_true(registry_forget(f->r, "10.0.0.7"));
    see(f, "ups", WALL + 31 * DAY);
    assert_true(registry_forget(f->r, "ups"));
    see(f, "ups", WALL + 32 * DAY);
    end_with(f, "scanner", "late\n", WALL + 30 * DAY);
    assert_int_equal(rmdir(f->file), 0);
    assert_int_equal(rename(hidden, f->file), 0);
    write_now(f);
    write_now(f);
    crash(f);
    assert_int_equal(registry_count(f->r), 3);
    struct registry_device d = device(f, "plotter");
    assert_memory_equal(&plotter, &d, sizeof d);
    assert_int_equal(device(f, "ups").messages, 0); /* forgotten, and there again */
    d = device(f, "scanner");
    assert_int_equal(d.sessions, 21);
    assert_int_equal(d.messages, 20);
    assert_int_equal(d.first_ms, WALL);
    assert_int_equal(d.last_ms, WALL + 30 * DAY);
    assert_string_equal(d.helo, "MFP-2\xc3\xa9");
    assert_int_equal(d.usual_ms, DAY);
    ask(f, "scanner");
    assert_int_equal(f->count, 2);
    assert_string_equal(f->text[0], "late\n");
    assert_string_equal(f->text[1], "one\n");
}

static void limit_files(rlim_t octets)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = octets == 0 ? limit.rlim_max : octets;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void a_full_disk_is_told_once_and_what_waits_is_written_later(void **state)
{
    struct fixture *f = *state;

    start(f);
    live(f, "10.0.0.7");
    write_now(f);
    (void)signal(SIGXFSZ, SIG_IGN);
    for (int round = 1; round <= 2; round++) {
        live(f, "scanner");
        assert_int_equal(registry_forget(f->r, "10.0.0.7"), round == 1);
        limit_files(4096);
        for (int i = 0; i < 4; i++)
            write_now(f);
        limit_files(0); /* the log is a file, too */
        ask(f, "scanner");
        assert_int_equal(f->count, round);
        write_now(f);
        assert_int_equal(logged(f, "registry-recovered"), round);
    }
    crash(f);
    assert_int_equal(device(f, "scanner").messages, 40);
    assert_false(knows(f, "10.0.0.7"));
    ask(f, "scanner");
    assert_int_equal(f->count, 2);
    assert_int_equal(logged(f, "registry-failing"), 2);
}

static void a_file_of_a_newer_program_is_left_alone_and_told_once(void **state)
{
    struct fixture *f = *state;
    char command[256];

    start(f);
    live(f, "scanner");
    stop(f);
    snprintf(command, sizeof command,
             "python3 -c 'import sqlite3; c = sqlite3.connect(\"%s\"); "
             "c.execute(\"PRAGMA user_version = 99\"); c.commit()'",
             f->file);
    assert_int_equal(system(command), 0);
    start(f);
    assert_int_equal(registry_count(f->r), 0);
    see(f, "scanner", WALL);
    end_with(f, "scanner", "text\n", WALL);
    write_now(f);
    ask(f, "scanner");
    assert_int_equal(f->count, 1);
    stop(f);
    assert_int_equal(logged(f, "registry-failing"), 1);
    assert_false(is_set_aside(f));
}

static void without_a_file_all_is_in_memory(void **state)
{
    struct fixture *f = *state;

    f->settings.file = "";
    start(f);
    live(f, "scanner");
    write_now(f);
    assert_int_equal(f->executor.submitted, 0);
    ask(f, "scanner");
    assert_int_equal(f->count, 1);
    assert_true(registry_forget(f->r, "scanner"));
    ask(f, "scanner");
    assert_int_equal(f->count, 0);
    assert_int_equal(logged(f, "registry-failing"), 0);
}

static void without_a_registry_nothing_happens(void **state)
{
    struct fixture *f = *state;
    struct registry_device d;
    const struct net_address a = address("10.0.0.1");
    const struct registry_end end = {.helo = "", .tls = ""};

    registry_session(NULL, "scanner", &a, WALL);
    registry_message(NULL, "scanner", 1, 0, WALL);
    registry_trouble(NULL, "scanner", "text", true, WALL);
    registry_ended(NULL, "scanner", &end, WALL);
    registry_tick(NULL, NOW, WALL);
    assert_int_equal(registry_count(NULL), 0);
    assert_false(registry_next(NULL, "", WALL, &d));
    assert_false(registry_find(NULL, "scanner", WALL, &d));
    assert_false(registry_forget(NULL, "scanner"));
    registry_transcripts(NULL, "scanner", on_transcripts, f);
    assert_int_equal(f->answers, 1);
    assert_int_not_equal(f->err.kind, ERROR_NONE);
    registry_close(NULL);
}

/* ---- threads --------------------------------------------------------------------------------- */

static void the_database_has_a_thread_and_the_loop_goes_on(void **state)
{
    struct fixture *f = *state;
    struct error err = ERROR_INIT;
    struct event_base *base = event_base_new();
    struct work *work = work_new(base, &err);
    char name[32];

    assert_non_null(work);
    f->settings.executor = work_database_executor(work);
    start(f);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "10.0.0.%d", i % 20);
        live(f, name);
        registry_tick(f->r, f->now_ms += REGISTRY_WRITE_MS, WALL);
        registry_transcripts(f->r, name, on_transcripts, f);
        if (i % 50 == 49)
            assert_true(registry_forget(f->r, "10.0.0.3"));
        (void)event_base_loop(base, EVLOOP_NONBLOCK);
    }
    work_drain(work);
    assert_int_equal(f->answers, 200);
    assert_true(f->count > 0);
    assert_int_equal(f->err.kind, ERROR_NONE);
    stop(f);
    start(f);
    assert_int_equal(registry_count(f->r), 19);
    assert_int_equal(device(f, "10.0.0.5").messages, 200);
    stop(f);
    work_free(work);
    event_base_free(base);
    assert_int_equal(logged(f, "registry-failing"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(a_refusal_for_lack_of_room_is_known_until_mail_gets_in),
        TEST(what_is_told_of_a_device_can_be_asked),
        TEST(everything_survives_a_restart),
        TEST(a_crash_costs_what_was_not_written_and_no_more),
        TEST(it_is_written_at_intervals_and_only_when_something_changed),
        TEST(more_devices_than_fit_a_batch_are_written_all),
        TEST(busy_devices_do_not_keep_others_from_being_written),
        TEST(errors_and_mail_of_a_time_ahead_are_now_when_the_clock_is_set_back),
        TEST(a_clock_that_is_set_back_does_no_harm),
        TEST(sessions_say_what_is_new_and_leave_the_rest),
        TEST(long_texts_are_cut_between_characters),
        TEST(devices_come_by_name),
        TEST(thousands_of_unnamed_devices_are_bounded_and_the_named_ones_stay),
        TEST(the_newest_five_transcripts_of_a_device_are_kept_word_for_word),
        TEST(several_may_ask_at_once_and_while_it_writes),
        TEST(transcripts_that_wait_are_bounded),
        TEST(many_transcripts_are_written_early),
        TEST(forgetting_removes_everything),
        TEST(a_device_that_comes_back_begins_anew),
        TEST(what_is_forgotten_while_connected_is_in_its_first_session),
        TEST(forgetting_while_it_writes_holds),
        TEST(a_file_that_is_removed_is_written_anew_from_memory),
        TEST(a_damaged_file_is_set_aside_and_told_once),
        TEST(devices_before_the_damage_are_saved),
        TEST(damage_that_shows_while_it_runs_costs_transcripts_only),
        TEST(a_file_that_cannot_be_opened_leaves_it_in_memory_and_is_told_once),
        TEST(what_a_file_knows_that_opens_late_is_added),
        TEST(a_full_disk_is_told_once_and_what_waits_is_written_later),
        TEST(a_file_of_a_newer_program_is_left_alone_and_told_once),
        TEST(without_a_file_all_is_in_memory),
        TEST(without_a_registry_nothing_happens),
        TEST(the_database_has_a_thread_and_the_loop_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
