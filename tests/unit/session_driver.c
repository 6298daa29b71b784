#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/session_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRIVER_MAX ((size_t)64 << 20)

struct server_settings driver_settings(void)
{
    return (struct server_settings){.hostname = "relay.example",
                                    .client = "192.168.1.21",
                                    .client_literal = "[192.168.1.21]",
                                    .device = "copier",
                                    .listener = "lan",
                                    .max_size = 35 << 20,
                                    .max_recipients = 100,
                                    .auth = CONFIG_LOGIN_ANY,
                                    .lf_dot_lf = true};
}

static void perform(struct session_driver *d, const struct server_effect *effect);

void driver_init(struct session_driver *d, const struct server_settings *settings)
{
    struct server_effect effect;

    *d = (struct session_driver){.next_id = DRIVER_FIRST_ID};
    bytes_init(&d->sent, DRIVER_MAX);
    bytes_init(&d->content, DRIVER_MAX);
    bytes_init(&d->envelope, DRIVER_MAX);
    bytes_init(&d->input, DRIVER_MAX);
    d->fsm = server_fsm_new(settings);
    d->transcript = transcript_new(0);
    assert_non_null(d->fsm);
    assert_non_null(d->transcript);
    server_fsm_start(d->fsm, &effect);
    assert_int_equal(effect.kind, SERVER_REPLY);
    perform(d, &effect);
}

void driver_done(struct session_driver *d)
{
    server_fsm_free(d->fsm);
    transcript_free(d->transcript);
    bytes_done(&d->sent);
    bytes_done(&d->content);
    bytes_done(&d->envelope);
    bytes_done(&d->input);
}

/* Takes a fault that was set: it strikes once. */
static bool strikes(struct error *fault, struct error *out)
{
    if (fault->kind == ERROR_NONE)
        return false;
    *out = *fault;
    error_clear(fault);
    return true;
}

static void perform_open(struct session_driver *d)
{
    struct error err;
    bool failed = strikes(&d->open_fault, &err);
    struct server_effect effect;

    assert_false(d->message_open);
    assert_true(server_fsm_is_waiting(d->fsm));
    d->opens++;
    d->message_open = !failed;
    bytes_clear(&d->content);
    server_fsm_opened(d->fsm, failed ? 0 : d->next_id, failed ? &err : NULL, &effect);
    assert_true(effect.kind == SERVER_REPLY || effect.kind == SERVER_NOTHING); /* BDAT */
    perform(d, &effect);
}

static void perform_store(struct session_driver *d, const struct server_effect *effect)
{
    struct error err;

    assert_true(d->message_open);
    assert_in_range(effect->data_len, 1, SERVER_CHUNK);
    d->stores++;
    if (strikes(&d->store_fault, &err)) {
        d->message_open = false;
        server_fsm_store_failed(d->fsm, &err);
        return;
    }
    assert_true(bytes_append(&d->content, effect->data, effect->data_len));
}

static void perform_commit(struct session_driver *d)
{
    assert_true(d->message_open);
    assert_true(server_fsm_is_waiting(d->fsm));
    assert_true(server_fsm_in_mail_data(d->fsm));
    bytes_clear(&d->envelope);
    assert_true(envelope_encode(server_fsm_envelope(d->fsm), &d->envelope));
    d->message_open = false;
    if (!d->by_hand)
        driver_committed(d);
}

/* ---- signing in: what the mechanisms of relay/signin do ------------------------------------- */

static void check_login(struct session_driver *d, const char *login, const char *password)
{
    const struct server_identity who = {.device = DRIVER_DEVICE,
                                        .login = DRIVER_LOGIN,
                                        .max_size = 1 << 20,
                                        .max_recipients = 2,
                                        .mt_priority = true};
    enum server_check check =
        strcmp(login, DRIVER_LOGIN) == 0 && strcmp(password, DRIVER_PASSWORD) == 0
            ? SERVER_CHECK_VERIFIED
            : SERVER_CHECK_WRONG;
    struct server_effect effect;

    if (d->auth_unavailable)
        check = SERVER_CHECK_UNAVAILABLE;
    d->auth_unavailable = false;
    server_fsm_checked(d->fsm, check, &who, &effect);
    assert_true(effect.kind == SERVER_REPLY || effect.kind == SERVER_CLOSE);
    perform(d, &effect);
}

static void ask(struct session_driver *d, const char *question)
{
    struct server_effect effect;

    server_fsm_challenge(d->fsm, question, strlen(question), &effect);
    assert_int_equal(effect.kind, SERVER_REPLY);
    perform(d, &effect);
}

static void perform_plain(struct session_driver *d, const char *said, size_t len)
{
    const char *login = said != NULL ? memchr(said, '\0', len) : NULL;

    if (said == NULL)
        ask(d, "");
    else if (login == NULL || strlen(login + 1) + 2 > (size_t)(said + len - login))
        check_login(d, "", "");
    else
        check_login(d, login + 1, login + strlen(login + 1) + 2);
}

static void perform_login(struct session_driver *d, const char *said, size_t len)
{
    if (d->has_login) {
        check_login(d, d->login, said);
    } else if (said != NULL) {
        d->has_login = true;
        assert_in_range(len, 0, sizeof(d->login) - 1);
        memcpy(d->login, said, len + 1);
        ask(d, "Password:");
    } else {
        ask(d, "Username:");
    }
}

static void perform_auth(struct session_driver *d, const struct server_effect *effect)
{
    char said[DRIVER_LOGIN_MAX] = "";

    assert_true(server_fsm_is_waiting(d->fsm));
    assert_in_range(effect->data_len, 0, sizeof(said) - 1);
    if (effect->data != NULL)
        memcpy(said, effect->data, effect->data_len);
    if (effect->text != NULL) {
        d->has_login = false;
        snprintf(d->mechanism, sizeof(d->mechanism), "%s", effect->text);
    }
    if (strcmp(d->mechanism, "PLAIN") == 0)
        perform_plain(d, effect->data != NULL ? said : NULL, effect->data_len);
    else
        perform_login(d, effect->data != NULL ? said : NULL, effect->data_len);
}

/* ---------------------------------------------------------------------------------------------- */

static void perform(struct session_driver *d, const struct server_effect *effect)
{
    assert_false(d->closed);
    if (effect->text_len > 0 && effect->kind != SERVER_AUTH)
        transcript_said(d->transcript, effect->text, effect->text_len, 0);
    switch (effect->kind) {
    case SERVER_NOTHING:
        break;
    case SERVER_CLOSE:
        d->closed = true;
        d->message_open = false;
        assert_true(bytes_append(&d->sent, effect->text, effect->text_len));
        break;
    case SERVER_REPLY:
        assert_in_range(effect->text_len, 3, SERVER_REPLY_MAX);
        assert_memory_equal(effect->text + effect->text_len - 2, "\r\n", 2);
        assert_true(bytes_append(&d->sent, effect->text, effect->text_len));
        break;
    case SERVER_OPEN:
        perform_open(d);
        break;
    case SERVER_STORE:
        perform_store(d, effect);
        break;
    case SERVER_COMMIT:
        perform_commit(d);
        break;
    case SERVER_AUTH:
        perform_auth(d, effect);
        break;
    case SERVER_START_TLS: /* what stands behind STARTTLS in the clear is dropped */
        assert_true(server_fsm_is_waiting(d->fsm));
        assert_true(bytes_append(&d->sent, effect->text, effect->text_len));
        bytes_clear(&d->input);
        d->securing = true;
        break;
    case SERVER_DISCARD:
        assert_true(d->message_open);
        d->message_open = false;
        d->discards++;
        break;
    }
}

/* What is read is told at once, but for an octet that is consumed later. */
static void tell(struct session_driver *d, const uint8_t *data, size_t used,
                 const struct server_effect *effect)
{
    struct server_heard heard = server_fsm_heard(d->fsm);

    d->fed += used;
    d->told += heard.commands_len + heard.mail_len;
    assert_in_range(d->told - d->fed, 0, 1);
    if (effect->kind == SERVER_NOTHING)
        assert_int_equal(d->told, d->fed);
    assert_in_range((size_t)(heard.commands - data), 0, 1);
    transcript_heard(d->transcript, heard.commands, heard.commands_len, 0);
    transcript_mail_data(d->transcript, heard.mail_len, 0);
}

/* One step on a copy of the input of its own size, so that a read beyond its end is seen. */
static void step(struct session_driver *d, struct server_effect *effect)
{
    uint8_t *copy = malloc(d->input.len > 0 ? d->input.len : 1);
    size_t used = 0;

    assert_non_null(copy);
    memcpy(copy, d->input.len > 0 ? d->input.data : copy, d->input.len);
    server_fsm_step(d->fsm, copy, d->input.len, DRIVER_WALL_MS, &used, effect);
    assert_in_range(used, 0, d->input.len);
    if (effect->kind == SERVER_NOTHING)
        assert_int_equal(used, d->input.len);
    tell(d, copy, used, effect);
    perform(d, effect);
    bytes_consume(&d->input, used);
    free(copy);
}

static void run(struct session_driver *d)
{
    struct server_effect effect = {.kind = SERVER_REPLY};

    while (!d->closed && effect.kind != SERVER_NOTHING && !server_fsm_is_waiting(d->fsm)) {
        bool had_input = d->input.len > 0;

        step(d, &effect);
        if (!had_input)
            assert_int_equal(effect.kind, SERVER_NOTHING);
    }
    if (d->closed)
        bytes_clear(&d->input);
}

void driver_feed(struct session_driver *d, const void *data, size_t len)
{
    if (d->closed || d->securing)
        return;
    assert_true(bytes_append(&d->input, data, len));
    run(d);
}

void driver_secured(struct session_driver *d)
{
    assert_true(d->securing);
    d->securing = false;
    server_fsm_secured(d->fsm, DRIVER_TLS);
    assert_false(server_fsm_is_waiting(d->fsm));
}

void driver_silence(struct session_driver *d, uint64_t ms)
{
    struct server_effect effect;
    size_t used;

    assert_int_equal(d->input.len, 0);
    server_fsm_silence(d->fsm, ms, DRIVER_WALL_MS, &effect);
    while (effect.kind != SERVER_NOTHING) {
        perform(d, &effect);
        if (d->closed || server_fsm_is_waiting(d->fsm))
            return;
        server_fsm_step(d->fsm, (const uint8_t *)"", 0, DRIVER_WALL_MS, &used, &effect);
    }
}

void driver_text(struct session_driver *d, const char *text)
{
    driver_feed(d, text, strlen(text));
}

void driver_committed(struct session_driver *d)
{
    struct error err;
    bool failed = strikes(&d->commit_fault, &err);
    struct server_effect effect;

    assert_true(server_fsm_is_waiting(d->fsm));
    server_fsm_committed(d->fsm, d->next_id, failed ? &err : NULL, &effect);
    assert_true(effect.kind == SERVER_REPLY || effect.kind == SERVER_CLOSE);
    if (!failed) {
        d->commits++;
        d->next_id++;
    }
    perform(d, &effect);
    if (d->by_hand)
        run(d);
}

const char *driver_heard(struct session_driver *d)
{
    const char *text = bytes_string(&d->sent);

    bytes_clear(&d->sent);
    return text;
}
