#include "relay/tool/ask.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "relay/tool/client.h"

#define NAME_MAX_TEXT 64
#define PATH_TEXT     16384 /* what comes back from a browser is long */

bool ask_daemon(const struct tool *t, struct places *out_places, int *out_exit)
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

int ask_and_show(const struct tool *t, const char *method, const char *path, ask_show_fn *show)
{
    struct error err = ERROR_INIT;
    struct places p;
    cJSON *answer;
    int code;

    if (!ask_daemon(t, &p, &code))
        return code;
    answer = client_ask(p.socket, method, path, &err);
    if (answer == NULL)
        code = tool_fail(t, &err);
    else if (t->json)
        code = tool_print_json(t, answer);
    else {
        show(t, &p, answer);
        code = EX_OK;
    }
    cJSON_Delete(answer);
    places_done(&p);
    return code;
}

bool ask_encode(const char *text, char *out, size_t size)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t used = 0;

    for (; *text != '\0'; text++) {
        if (used + 4 > size)
            return false;
        if (strchr(plain, *text) != NULL)
            out[used++] = *text;
        else
            used += (size_t)snprintf(out + used, size - used, "%%%02X", (unsigned char)*text);
    }
    out[used] = '\0';
    return true;
}

/* Names of mailboxes are made of characters that need no encoding. */
static bool is_name(const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");

    return len > 0 && len < NAME_MAX_TEXT && name[len] == '\0';
}

cJSON *ask_mailbox(const struct tool *t, const struct places *p, const char *method,
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

int64_t ask_now(void)
{
    return (int64_t)time(NULL);
}
