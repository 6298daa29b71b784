#include "relay/intake/session_inside.h"

#include <stdio.h>
#include <string.h>

#include "relay/base/log.h"
#include "relay/base/stream.h"

#define REPLY_MAX 160 /* octets of a refusal that are written down */

static uint64_t wall_now(const struct session *s)
{
    return clock_wall_ms(s->set.intake->clock);
}

void session_tell_begin(struct session *s)
{
    struct registry *registry = s->set.intake->registry;
    char text[NET_TEXT_MAX + CONFIG_NAME_MAX + 32];

    if (registry == NULL)
        return;
    registry_session(registry, s->access.name, stream_peer(s->stream), wall_now(s));
    s->told = true;
    s->transcript = transcript_new(s->began_ms);
    snprintf(text, sizeof text, "%s on listener %s", stream_peer_text(s->stream),
             s->set.listener->name);
    session_tell_note(s, text);
}

void session_tell_device(struct session *s)
{
    char text[sizeof s->access.name + 16];

    registry_session(s->set.intake->registry, s->access.name, stream_peer(s->stream), wall_now(s));
    snprintf(text, sizeof text, "signed in as %s", s->access.name);
    session_tell_note(s, text);
}

void session_tell_quirk(struct session *s, enum quirk quirk)
{
    s->seen |= QUIRK_BIT(quirk);
}

quirks session_quirks(const struct session *s)
{
    return s->seen | server_fsm_quirks(s->fsm);
}

void session_tell_note(struct session *s, const char *text)
{
    transcript_note(s->transcript, text, session_now(s));
}

void session_tell_heard(struct session *s)
{
    struct server_heard heard = server_fsm_heard(s->fsm);

    if (s->transcript == NULL)
        return;
    transcript_heard(s->transcript, heard.commands, heard.commands_len, session_now(s));
    transcript_mail_data(s->transcript, heard.mail_len, session_now(s));
}

void session_tell_trouble(struct session *s, const char *text, bool refused)
{
    s->troubled = true;
    registry_trouble(s->set.intake->registry, s->access.name, text, refused, wall_now(s));
}

/* Of a message or a recipient, as against a command that nobody knows or a login. */
static bool is_about_mail(const char *reply)
{
    static const char *const others[] = {"454", "500", "501 5.5", "501 5.7.0", "502",
                                         "503", "504", "535",     "421"};

    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (strncmp(reply, others[i], strlen(others[i])) == 0)
            return false;
    }
    return true;
}

/* Told elsewhere with its reason, or no fault of the device. */
static bool is_explained(const char *reply)
{
    return strncmp(reply, "535", 3) == 0 || strncmp(reply, "454", 3) == 0 ||
           strncmp(reply, "421 4.3.2", 9) == 0 || strncmp(reply, "421 4.4.2", 9) == 0;
}

/* Whoever looks for a scan that did not come must find why: the device's panel is far away. The
 * text is ours; nothing that the device sent is in it but what the machine made printable. */
static void tell_refusal(struct session *s, const struct server_effect *effect)
{
    char reply[REPLY_MAX];
    const struct envelope *e = server_fsm_envelope(s->fsm);
    size_t len = strcspn(effect->text, "\r\n");

    snprintf(reply, sizeof reply, "%.*s", (int)(len < sizeof reply ? len : sizeof reply - 1),
             effect->text);
    log_event(LOG_LEVEL_WARN, "refused", LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name), LOG_PATH("from", e->reverse_path),
              LOG_STR("reply", reply), LOG_END);
    if (!is_explained(reply))
        session_tell_trouble(s, reply, is_about_mail(reply));
}

void session_tell_reply(struct session *s, const struct server_effect *effect)
{
    if (effect->text_len == 0)
        return;
    if (effect->text[0] == '4' || effect->text[0] == '5')
        tell_refusal(s, effect);
    transcript_said(s->transcript, effect->text, effect->text_len, session_now(s));
}

void session_tell_incomplete(struct session *s)
{
    static const char reason[] = "the connection ended before the end of the mail data; nothing of "
                                 "it was kept";

    if (s->writer == NULL)
        return;
    log_event(LOG_LEVEL_WARN, "incomplete", LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name), LOG_U64("size", queue_writer_size(s->writer)),
              LOG_STR("reason", reason), LOG_END);
    session_tell_trouble(s, reason, false);
}

void session_tell_closing(struct session *s, const char *reason)
{
    log_event(LOG_LEVEL_INFO, "session-end", LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name), LOG_U64("messages", s->messages),
              LOG_MS("age", session_now(s) - s->began_ms), LOG_STR("reason", reason), LOG_END);
    session_tell_note(s, reason);
}

void session_tell_end(struct session *s)
{
    bool keep = s->troubled || transcript_is_worth_keeping(s->transcript);
    struct registry_end end = {.tls = s->tls, .had_mail = s->had_mail};

    if (!s->told)
        return;
    end.helo = server_fsm_helo(s->fsm);
    end.seen = session_quirks(s);
    end.was_probe = !s->had_mail && !s->troubled;
    end.transcript = s->transcript != NULL && keep ? transcript_text(s->transcript) : NULL;
    registry_ended(s->set.intake->registry, s->access.name, &end, wall_now(s));
    transcript_free(s->transcript);
    s->transcript = NULL;
    s->told = false;
}
