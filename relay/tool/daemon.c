#include "relay/tool/daemon.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "relay/tool/client.h"

#define NAME_MAX_TEXT 64
#define PATH_TEXT     16384 /* what comes back from a browser is long */

bool daemon_find(const struct tool *t, struct places *out_places, int *out_exit)
{
    enum client_state state;

    if (!places_find(t, out_places)) {
        *out_exit = EX_CONFIG;
        return false;
    }
    state = client_probe(out_places->socket);
    if (state == CLIENT_ANSWERS)
        return true;
    *out_exit = client_explain(t, out_places, state);
    places_done(out_places);
    return false;
}

/* Names of mailboxes are made of characters that need no encoding. */
static bool is_name(const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");

    return len > 0 && len < NAME_MAX_TEXT && name[len] == '\0';
}

cJSON *daemon_ask_mailbox(const struct tool *t, const struct places *p, const char *method,
                          const char *rest, struct error *err)
{
    char path[PATH_TEXT];
    int len;

    if (!is_name(t->argument)) {
        (void)error_set(err, ERROR_MISSING, "there is no mailbox \"%.63s\" in the configuration",
                        t->argument);
        return NULL;
    }
    len = snprintf(path, sizeof(path), "/v1/mailbox/%s/%s", t->argument, rest);
    if (len < 0 || (size_t)len >= sizeof(path)) {
        (void)error_set(err, ERROR_LIMIT, "what came back from the browser is too long");
        return NULL;
    }
    return client_ask(p->socket, method, path, err);
}
