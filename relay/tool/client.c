#include "relay/tool/client.h"

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "relay/admin/json.h"

static enum error_kind kind_of_name(const char *name)
{
    for (int kind = ERROR_NONE + 1; kind <= ERROR_LIMIT; kind++)
        if (strcmp(name, error_kind_name((enum error_kind)kind)) == 0)
            return (enum error_kind)kind;
    return ERROR_IO;
}

/* Always false: the answer was a refusal. */
static bool refused(const struct http_answer *a, const cJSON *json, struct error *err)
{
    const cJSON *e = json_get(json, "error");
    const char *text = json_get_text(e, "text");

    if (text[0] == '\0')
        return error_set(err, ERROR_IO, "outtrayd answered with HTTP status %d", a->status);
    return error_set(err, kind_of_name(json_get_text(e, "kind")), "%s", text);
}

cJSON *client_ask(const char *socket, const char *method, const char *path, struct error *err)
{
    return client_ask_long(socket, method, path, 0, err);
}

cJSON *client_ask_long(const char *socket, const char *method, const char *path, int timeout_ms,
                       struct error *err)
{
    struct http_request request = {
        .socket = socket, .method = method, .path = path, .timeout_ms = timeout_ms};
    struct http_answer answer;
    cJSON *json = NULL;
    bool ok = http_ask(&request, &answer, err);

    if (ok) {
        json = cJSON_ParseWithLength((const char *)answer.body.data, answer.body.len);
        if (answer.status != 200)
            ok = refused(&answer, json, err);
        else if (json == NULL)
            ok = error_set(err, ERROR_DAMAGED, "what outtrayd answered is no JSON");
    }
    http_answer_done(&answer);
    if (ok)
        return json;
    cJSON_Delete(json);
    return NULL;
}

bool client_fetch(const char *socket, const char *path, http_sink *sink, void *ctx,
                  struct error *err)
{
    struct http_request request = {
        .socket = socket, .method = "GET", .path = path, .sink = sink, .ctx = ctx};
    struct http_answer answer;
    bool ok = http_ask(&request, &answer, err);

    if (ok && answer.status != 200) {
        cJSON *json = cJSON_ParseWithLength((const char *)answer.body.data, answer.body.len);

        ok = refused(&answer, json, err);
        cJSON_Delete(json);
    }
    http_answer_done(&answer);
    return ok;
}

enum client_state client_probe(const char *socket)
{
    struct error err = ERROR_INIT;
    int fd = http_connect(socket, 0, &err);

    if (fd >= 0) {
        close(fd);
        return CLIENT_ANSWERS;
    }
    return err.errnum == EACCES || err.errnum == EPERM ? CLIENT_FORBIDDEN : CLIENT_DOWN;
}

static void explain_forbidden(const struct tool *t, const struct places *p)
{
    struct stat st;
    const struct group *group = stat(p->socket, &st) == 0 ? getgrgid(st.st_gid) : NULL;

    fprintf(t->err, "outtray: you may not use the control socket %s.\n", p->socket);
    if (group != NULL && strcmp(group->gr_name, "root") != 0)
        fprintf(
            t->err,
            "Run the command with sudo, or join the group %s: sudo usermod -aG %s \"$USER\", then "
            "sign in again.\n",
            group->gr_name, group->gr_name);
    else
        fprintf(t->err, "Run the command with sudo, or as the user that outtrayd runs as.\n");
}

int client_explain(const struct tool *t, const struct places *p, enum client_state state)
{
    if (state == CLIENT_FORBIDDEN) {
        explain_forbidden(t, p);
        tool_error_json(t, ERROR_IO, "you may not use the control socket");
        return EX_NOPERM;
    }
    tool_error_json(t, ERROR_MISSING, "outtrayd is not running");
    fprintf(t->err,
            "outtray: outtrayd is not running: nothing answers on %s.\n"
            "Start it with \"systemctl start outtrayd\"; \"journalctl -u outtrayd\" tells why it "
            "stopped.\n",
            p->socket);
    if (p->guessed && t->socket == NULL)
        fprintf(t->err,
                "(%s could not be used, so this is the default socket; see \"outtray check\", or "
                "name the socket with --socket.)\n",
                t->config_file);
    return EX_UNAVAILABLE;
}
