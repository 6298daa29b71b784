#include "relay/tool/source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sysexits.h>

#include "queue/queue.h"
#include "relay/tool/client.h"
#include "relay/tool/offline.h"

#define PATH_TEXT        128
#define CHECK_TIMEOUT_MS 600000 /* a large body on a slow disk */

static bool open_spool(const struct tool *t, struct source *s, int *out_exit)
{
    struct error err = ERROR_INIT;

    s->offline = offline_open(s->places.spool, &err);
    if (s->offline != NULL) {
        fprintf(t->err, "outtrayd is not running; reading the spool %s directly.\n",
                s->places.spool);
        return true;
    }
    *out_exit = client_explain(t, &s->places, CLIENT_DOWN);
    fprintf(t->err, "The spool cannot be read directly either: %s\n", err.text);
    if (err.errnum == EACCES) {
        fprintf(t->err, "Run the command with sudo.\n");
        *out_exit = EX_NOPERM;
    }
    return false;
}

bool source_open(const struct tool *t, struct source *out_source, int *out_exit)
{
    struct source s = {.offline = NULL};
    enum client_state state;
    bool ok = true;

    if (!places_find(t, &s.places)) {
        *out_exit = EX_CONFIG;
        return false;
    }
    state = client_probe(s.places.socket);
    if (state == CLIENT_DOWN)
        ok = open_spool(t, &s, out_exit);
    else if (state == CLIENT_FORBIDDEN) {
        *out_exit = client_explain(t, &s.places, state);
        ok = false;
    }
    if (ok)
        *out_source = s;
    else
        places_done(&s.places);
    return ok;
}

void source_close(struct source *s)
{
    offline_close(s->offline);
    places_done(&s->places);
}

static void message_path(uint64_t id, const char *tail, char out[PATH_TEXT])
{
    char text[QUEUE_ID_TEXT];

    queue_id_text(id, text);
    snprintf(out, PATH_TEXT, "/v1/queue/%s%s", text, tail);
}

cJSON *source_page(struct source *s, uint64_t after, uint32_t limit, struct error *err)
{
    char path[PATH_TEXT];
    char text[QUEUE_ID_TEXT];

    if (s->offline != NULL)
        return offline_page(s->offline, s->state, after, limit, err);
    queue_id_text(after, text);
    snprintf(path, sizeof(path), "/v1/queue?limit=%" PRIu32 "%s%s%s%s", limit,
             after != 0 ? "&after=" : "", after != 0 ? text : "", s->state != NULL ? "&state=" : "",
             s->state != NULL ? s->state : "");
    return client_ask(s->places.socket, "GET", path, err);
}

cJSON *source_message(struct source *s, uint64_t id, struct error *err)
{
    char path[PATH_TEXT];

    if (s->offline != NULL)
        return offline_message(s->offline, id, err);
    message_path(id, "", path);
    return client_ask(s->places.socket, "GET", path, err);
}

cJSON *source_stats(struct source *s, struct error *err)
{
    if (s->offline != NULL)
        return offline_stats(s->offline, err);
    return client_ask(s->places.socket, "GET", "/v1/spool", err);
}

cJSON *source_check(struct source *s, const char *cursor, struct error *err)
{
    char path[PATH_TEXT];

    if (s->offline != NULL)
        return offline_check(s->offline, cursor, err);
    snprintf(path, sizeof(path), "/v1/spool/check%s%s", cursor[0] != '\0' ? "?after=" : "", cursor);
    return client_ask_long(s->places.socket, "POST", path, CHECK_TIMEOUT_MS, err);
}

bool source_export(struct source *s, uint64_t id, http_sink *sink, void *ctx, struct error *err)
{
    char path[PATH_TEXT];

    if (s->offline != NULL)
        return offline_export(s->offline, id, sink, ctx, err);
    message_path(id, "/eml", path);
    return client_fetch(s->places.socket, path, sink, ctx, err);
}
