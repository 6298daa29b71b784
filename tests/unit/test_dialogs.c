/*
 * Replays tests/dialogs/ against the server state machine; the format is in its README.md.
 * Usage: test_dialogs [DIRECTORY]
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/session_driver.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#ifndef DIALOGS_DIR
#define DIALOGS_DIR "tests/dialogs"
#endif

#define LINE_MAX_  4096
#define PATH_MAX_  512
#define FILES_MAX  256
#define OCTETS_MAX ((size_t)8 << 20)

enum mode { LINE_BY_LINE, OCTET_BY_OCTET, ALL_AT_ONCE, MODE_COUNT };

static const char *const mode_names[] = {"line by line", "octet by octet", "all at once"};

struct dialog {
    char path[PATH_MAX_];
    enum mode mode;
    char name[PATH_MAX_ + 32];
};

struct run {
    const struct dialog *dialog;
    struct session_driver driver;
    bool begun;
    unsigned line;         /* number in the file */
    struct bytes to_send;  /* ALL_AT_ONCE: not sent yet */
    struct bytes expected; /* S lines not compared yet, each with '\n' */
    struct bytes heard;
};

static void die(const struct run *r, const char *what, const char *text)
{
    fail_msg("%s:%u (%s): %s: %s", r->dialog->path, r->line, mode_names[r->dialog->mode], what,
             text);
}

/* ---- words of a line ------------------------------------------------------------------------- */

/* The rest of the line behind a word; NULL when it does not begin with it. */
static const char *after(const char *line, const char *word)
{
    size_t len = strlen(word);

    return strncmp(line, word, len) == 0 ? line + len : NULL;
}

static unsigned hex(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

/* Reads "..." with its escapes. Returns what is behind it. */
static const char *unescape(const struct run *r, const char *p, struct bytes *out)
{
    if (*p++ != '"')
        die(r, "needs a quoted text", p - 1);
    for (; *p != '"'; p++) {
        static const char from[] = "rnt\"\\";
        static const char to[] = "\r\n\t\"\\";
        const char *escape;

        if (*p == '\0')
            die(r, "the quote does not end", "");
        if (*p != '\\') {
            bytes_byte(out, (uint8_t)*p);
            continue;
        }
        p++;
        escape = strchr(from, *p);
        if (*p == 'x') {
            bytes_byte(out, (uint8_t)(hex(p[1]) << 4 | hex(p[2])));
            p += 2;
        } else if (escape != NULL && *p != '\0') {
            bytes_byte(out, (uint8_t)to[escape - from]);
        } else {
            die(r, "unknown escape", p);
        }
    }
    return p + 1;
}

/* ---- the session ----------------------------------------------------------------------------- */

static void begin(struct run *r, const struct server_settings *settings)
{
    driver_init(&r->driver, settings);
    r->begun = true;
}

static void send_octets(struct run *r, const uint8_t *p, size_t len)
{
    size_t step = r->dialog->mode == OCTET_BY_OCTET ? 1 : len;

    for (size_t i = 0; i < len; i += step)
        driver_feed(&r->driver, p + i, step);
}

/* Takes the first line without its end; false when there is none. */
static bool take_line(struct bytes *from, const char *end, char *out)
{
    const char *text = bytes_string(from);
    const char *stop = strstr(text, end);
    size_t len = stop != NULL ? (size_t)(stop - text) : 0;

    if (stop == NULL || len >= LINE_MAX_)
        return false;
    memcpy(out, text, len);
    out[len] = '\0';
    bytes_consume(from, len + strlen(end));
    return true;
}

static bool fits(const char *heard, const char *want)
{
    size_t len = strlen(want);

    if (len >= 3 && strcmp(want + len - 3, "...") == 0)
        return strncmp(heard, want, len - 3) == 0;
    return strcmp(heard, want) == 0;
}

static void compare(struct run *r)
{
    char want[LINE_MAX_];
    char heard[LINE_MAX_];

    bytes_text(&r->heard, driver_heard(&r->driver));
    while (take_line(&r->expected, "\n", want)) {
        if (!take_line(&r->heard, "\r\n", heard))
            die(r, "nothing was heard where this was expected", want);
        if (!fits(heard, want)) {
            print_error("expected \"%s\"\n", want);
            die(r, "heard something else", heard);
        }
    }
}

/* Sends what is left, and compares all that was heard with all that was expected. */
static void settle(struct run *r)
{
    send_octets(r, r->to_send.data, r->to_send.len);
    bytes_clear(&r->to_send);
    compare(r);
    if (r->heard.len > 0)
        die(r, "heard more than expected", bytes_string(&r->heard));
}

static void say(struct run *r, const struct bytes *octets)
{
    if (r->dialog->mode == ALL_AT_ONCE) {
        assert_true(bytes_append(&r->to_send, octets->data, octets->len));
        return;
    }
    send_octets(r, octets->data, octets->len);
}

/* ---- directives ------------------------------------------------------------------------------ */

static void do_line(struct run *r, const char *rest)
{
    struct bytes octets;

    bytes_init(&octets, LINE_MAX_);
    assert_true(bytes_printf(&octets, "%s\r\n", *rest == ' ' ? rest + 1 : rest));
    say(r, &octets);
    bytes_done(&octets);
}

static void do_raw(struct run *r, const char *rest)
{
    struct bytes once;
    struct bytes all;
    unsigned long times = 1;
    const char *tail;

    bytes_init(&once, LINE_MAX_);
    bytes_init(&all, OCTETS_MAX);
    tail = after(unescape(r, rest, &once), " * ");
    if (tail != NULL)
        times = strtoul(tail, NULL, 10);
    for (; times > 0; times--)
        assert_true(bytes_append(&all, once.data, once.len));
    say(r, &all);
    bytes_done(&once);
    bytes_done(&all);
}

static void do_expect(struct run *r, const char *rest)
{
    assert_true(bytes_printf(&r->expected, "%s\n", rest));
    if (r->dialog->mode != ALL_AT_ONCE)
        compare(r);
}

static void do_wait(struct run *r, const char *rest)
{
    (void)rest;
    settle(r);
}

static void do_closed(struct run *r, const char *rest)
{
    settle(r);
    if (!r->driver.closed)
        die(r, "the session goes on", rest);
}

static void set_fault(struct run *r, struct error *fault, const char *rest)
{
    struct bytes text;
    const char *space = strchr(rest, ' ');

    settle(r);
    if (space == NULL)
        die(r, "needs a kind and a text", rest);
    bytes_init(&text, LINE_MAX_);
    unescape(r, space + 1, &text);
    for (int kind = ERROR_IO; kind <= ERROR_LIMIT; kind++) {
        const char *name = error_kind_name((enum error_kind)kind);

        if (strlen(name) == (size_t)(space - rest) && after(rest, name) != NULL)
            error_set(fault, (enum error_kind)kind, "%s", bytes_string(&text));
    }
    if (fault->kind == ERROR_NONE)
        die(r, "no such kind of error", rest);
    bytes_done(&text);
}

static void do_open_fails(struct run *r, const char *rest)
{
    set_fault(r, &r->driver.open_fault, rest);
}

static void do_store_fails(struct run *r, const char *rest)
{
    set_fault(r, &r->driver.store_fault, rest);
}

static void do_commit_fails(struct run *r, const char *rest)
{
    set_fault(r, &r->driver.commit_fault, rest);
}

static void do_auth_fails(struct run *r, const char *rest)
{
    (void)rest;
    settle(r);
    r->driver.auth_unavailable = true;
}

static void do_silence(struct run *r, const char *rest)
{
    settle(r);
    driver_silence(&r->driver, strtoull(rest, NULL, 10) * 1000);
}

static void do_messages(struct run *r, const char *rest)
{
    settle(r);
    if (r->driver.commits != strtoul(rest, NULL, 10))
        die(r, "another number of messages was made durable", rest);
}

static void do_discards(struct run *r, const char *rest)
{
    settle(r);
    if (r->driver.discards != strtoul(rest, NULL, 10))
        die(r, "another number of messages was given up", rest);
}

static bool stored_has(struct run *r, const char *rest)
{
    struct bytes want;
    bool found;

    settle(r);
    bytes_init(&want, LINE_MAX_);
    unescape(r, rest, &want);
    found = memmem(r->driver.content.data, r->driver.content.len, want.data, want.len) != NULL;
    bytes_done(&want);
    return found;
}

static void do_stored(struct run *r, const char *rest)
{
    if (!stored_has(r, rest))
        die(r, rest, bytes_string(&r->driver.content));
}

static void do_not_stored(struct run *r, const char *rest)
{
    if (stored_has(r, rest))
        die(r, rest, bytes_string(&r->driver.content));
}

/* The header's size is what the envelope says: a test of it at the same time. */
static void do_body(struct run *r, const char *rest)
{
    static const char key[] = "\nheader-size: ";
    struct bytes want;
    const char *line;
    size_t header;

    settle(r);
    bytes_init(&want, LINE_MAX_);
    unescape(r, rest, &want);
    line = strstr(bytes_string(&r->driver.envelope), key);
    header = line != NULL ? strtoul(line + sizeof(key) - 1, NULL, 10) : 0;
    if (header < 4 || header > r->driver.content.len ||
        memcmp(r->driver.content.data + header - 4, "\r\n\r\n", 4) != 0)
        die(r, "the header's size is wrong", bytes_string(&r->driver.envelope));
    if (r->driver.content.len - header != want.len ||
        (want.len > 0 && memcmp(r->driver.content.data + header, want.data, want.len) != 0))
        die(r, "the body is", bytes_string(&r->driver.content) + header);
    bytes_done(&want);
}

static bool transcript_has(struct run *r, const char *rest)
{
    const char *text;
    struct bytes want;
    bool found;

    settle(r);
    text = transcript_text(r->driver.transcript);
    bytes_init(&want, LINE_MAX_);
    unescape(r, rest, &want);
    found = memmem(text, strlen(text), want.data, want.len) != NULL;
    bytes_done(&want);
    return found;
}

static void do_transcript(struct run *r, const char *rest)
{
    if (!transcript_has(r, rest))
        die(r, rest, transcript_text(r->driver.transcript));
}

static void do_not_transcript(struct run *r, const char *rest)
{
    if (transcript_has(r, rest))
        die(r, rest, transcript_text(r->driver.transcript));
}

static void do_quirks(struct run *r, const char *rest)
{
    char names[QUIRKS_TEXT_MAX];

    settle(r);
    quirks_names(server_fsm_quirks(r->driver.fsm), names);
    if (strcmp(names, rest) != 0)
        die(r, "its quirks are", names);
}

static bool envelope_has(struct run *r, const char *key, const char *value)
{
    struct bytes line;
    bool found;

    settle(r);
    bytes_init(&line, LINE_MAX_);
    assert_true(bytes_printf(&line, "\n%s:%s", key, value));
    found = strstr(bytes_string(&r->driver.envelope), bytes_string(&line)) != NULL;
    bytes_done(&line);
    return found;
}

static void do_envelope(struct run *r, const char *rest)
{
    const char *equals = strchr(rest, '=');
    char key[64];
    char value[LINE_MAX_];

    if (equals == NULL || (size_t)(equals - rest) >= sizeof(key))
        die(r, "needs key=value", rest);
    snprintf(key, sizeof(key), "%.*s", (int)(equals - rest), rest);
    snprintf(value, sizeof(value), " %s\n", equals + 1);
    if (!envelope_has(r, key, value))
        die(r, rest, bytes_string(&r->driver.envelope));
}

static void do_not_envelope(struct run *r, const char *rest)
{
    if (envelope_has(r, rest, ""))
        die(r, rest, bytes_string(&r->driver.envelope));
}

static void do_tls(struct run *r, const char *rest)
{
    settle(r);
    if (!r->driver.securing)
        die(r, "STARTTLS was not answered", rest);
    driver_secured(&r->driver);
}

static enum config_login auth_named(const struct run *r, const char *value)
{
    static const char *const names[] = {"off", "any", "optional", "required"};

    for (size_t i = 0; i < COUNT(names); i++) {
        size_t len = strlen(names[i]);

        if (strncmp(value, names[i], len) == 0 && (value[len] == ' ' || value[len] == '\0'))
            return (enum config_login)i;
    }
    die(r, "no such auth", value);
    return CONFIG_LOGIN_OFF;
}

static void do_settings(struct run *r, const char *rest)
{
    static char *listed[] = {"example.com", ".example.net"};
    static const struct config_domains domains = {listed, COUNT(listed)};
    struct server_settings settings = driver_settings();

    if (r->begun)
        die(r, "settings come first", rest);
    while (*rest != '\0') {
        const char *value;

        if ((value = after(rest, "max-size=")) != NULL)
            settings.max_size = strtoull(value, NULL, 10);
        else if ((value = after(rest, "max-recipients=")) != NULL)
            settings.max_recipients = (uint32_t)strtoul(value, NULL, 10);
        else if (after(rest, "tls-offered") != NULL)
            settings.tls = SERVER_TLS_OFFERED;
        else if (after(rest, "tls-required") != NULL)
            settings.tls = SERVER_TLS_REQUIRED;
        else if (after(rest, "domains") != NULL)
            settings.recipient_domains = &domains;
        else if ((value = after(rest, "auth=")) != NULL)
            settings.auth = auth_named(r, value);
        else if ((value = after(rest, "hide=")) != NULL)
            settings.hide = (uint32_t)strtoul(value, NULL, 0);
        else if (after(rest, "auth-equals") != NULL)
            settings.auth_equals = true;
        else if (after(rest, "mt-priority") != NULL)
            settings.mt_priority = true;
        else if (after(rest, "no-lf-dot-lf") != NULL)
            settings.lf_dot_lf = false;
        else
            die(r, "unknown setting", rest);
        rest += strcspn(rest, " ");
        rest += strspn(rest, " ");
    }
    begin(r, &settings);
}

static const struct {
    const char *word;
    void (*run)(struct run *r, const char *rest);
} directives[] = {
    {"C:", do_line},
    {"C> ", do_raw},
    {"S: ", do_expect},
    {"wait", do_wait},
    {"closed", do_closed},
    {"settings ", do_settings},
    {"open fails ", do_open_fails},
    {"auth fails", do_auth_fails},
    {"silence ", do_silence},
    {"tls", do_tls},
    {"store fails ", do_store_fails},
    {"commit fails ", do_commit_fails},
    {"messages ", do_messages},
    {"discards ", do_discards},
    {"stored ", do_stored},
    {"not stored ", do_not_stored},
    {"body ", do_body},
    {"envelope ", do_envelope},
    {"not envelope ", do_not_envelope},
    {"transcript ", do_transcript},
    {"not transcript ", do_not_transcript},
    {"quirks ", do_quirks},
    {"quirks", do_quirks},
};

static void do_directive(struct run *r, const char *line)
{
    struct server_settings usual = driver_settings();

    for (size_t i = 0; i < COUNT(directives); i++) {
        const char *rest = after(line, directives[i].word);

        if (rest == NULL)
            continue;
        if (!r->begun && directives[i].run != do_settings)
            begin(r, &usual);
        directives[i].run(r, rest);
        return;
    }
    die(r, "unknown directive", line);
}

/* Whatever a dialogue is about: passwords are in no transcript. */
static void check_secrets(struct run *r)
{
    static const char *const secrets[] = {DRIVER_PASSWORD, "azdtcHgz", "AGNhbWVy", "AHc3bXB4",
                                          "d3Jvbmc",       "B3cm9u",   "c2VjcmV0"};
    const char *text = transcript_text(r->driver.transcript);

    for (size_t i = 0; i < COUNT(secrets); i++) {
        if (strstr(text, secrets[i]) != NULL)
            die(r, "the transcript has a secret", text);
    }
    if (strlen(text) >= TRANSCRIPT_MAX)
        die(r, "the transcript is too long", "");
}

static void replay(void **state)
{
    struct run r = {.dialog = *state};
    char line[LINE_MAX_];
    FILE *file = fopen(r.dialog->path, "r");

    assert_non_null(file);
    bytes_init(&r.to_send, OCTETS_MAX);
    bytes_init(&r.expected, OCTETS_MAX);
    bytes_init(&r.heard, OCTETS_MAX);
    while (fgets(line, sizeof(line), file) != NULL) {
        r.line++;
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '\0' && line[0] != '#')
            do_directive(&r, line);
    }
    (void)fclose(file);
    assert_true(r.begun);
    settle(&r);
    check_secrets(&r);
    driver_done(&r.driver);
    bytes_done(&r.to_send);
    bytes_done(&r.expected);
    bytes_done(&r.heard);
}

/* ---- the directory --------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static size_t list(const char *dir, char names[][256])
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    size_t n = 0;

    if (d == NULL) {
        (void)fprintf(stderr, "test_dialogs: cannot open %s\n", dir);
        exit(1);
    }
    while ((entry = readdir(d)) != NULL && n < FILES_MAX) {
        const char *dot = strrchr(entry->d_name, '.');

        if (dot != NULL && strcmp(dot, ".dlg") == 0)
            snprintf(names[n++], 256, "%s", entry->d_name);
    }
    (void)closedir(d);
    qsort(names, n, 256, by_name);
    return n;
}

int main(int argc, char **argv)
{
    static char names[FILES_MAX][256];
    static struct dialog dialogs[FILES_MAX * MODE_COUNT];
    static struct CMUnitTest tests[FILES_MAX * MODE_COUNT];
    const char *dir = argc > 1 ? argv[1] : DIALOGS_DIR;
    size_t count = list(dir, names);

    for (size_t i = 0; i < count * MODE_COUNT; i++) {
        struct dialog *d = &dialogs[i];

        d->mode = (enum mode)(i % MODE_COUNT);
        snprintf(d->path, sizeof(d->path), "%.200s/%s", dir, names[i / MODE_COUNT]);
        snprintf(d->name, sizeof(d->name), "%s, %s", names[i / MODE_COUNT], mode_names[d->mode]);
        tests[i] = (struct CMUnitTest){.name = d->name, .test_func = replay, .initial_state = d};
    }
    if (count == 0) {
        (void)fprintf(stderr, "test_dialogs: no dialogue in %s\n", dir);
        return 1;
    }
    return _cmocka_run_group_tests("dialogues", tests, count * MODE_COUNT, NULL, NULL);
}
