#include "relay/tool/ask.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "relay/tool/client.h"

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

int64_t ask_now(void)
{
    return (int64_t)time(NULL);
}
