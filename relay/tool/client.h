/*
 * The daemon's API as calls: a method and a path in, JSON out. Blocks, see http.h.
 */
#ifndef OUTTRAY_RELAY_TOOL_CLIENT_H
#define OUTTRAY_RELAY_TOOL_CLIENT_H

#include <cjson/cJSON.h>

#include "queue/error.h"
#include "relay/tool/http.h"
#include "relay/tool/places.h"
#include "relay/tool/tool.h"

/* Returns owned; NULL with the daemon's own words when it refused. */
cJSON *client_ask(const char *socket, const char *method, const char *path, struct error *err);
/* The same, for what may take long: waits so many ms for the answer. */
cJSON *client_ask_long(const char *socket, const char *method, const char *path, int timeout_ms,
                       struct error *err);
/* Streams the body of a GET. */
bool client_fetch(const char *socket, const char *path, http_sink *sink, void *ctx,
                  struct error *err);

enum client_state {
    CLIENT_ANSWERS,
    CLIENT_DOWN,     /* nobody listens on the socket */
    CLIENT_FORBIDDEN /* the socket may not be opened */
};

/* Finds out whether somebody listens. */
enum client_state client_probe(const char *socket);
/* Writes why the daemon cannot be used and what to do; returns the exit code. */
int client_explain(const struct tool *t, const struct places *p, enum client_state state);

#endif
