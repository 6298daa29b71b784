/*
 * What commands that need the daemon have in common: a request and what becomes of its answer.
 */
#ifndef OUTTRAY_RELAY_TOOL_ASK_H
#define OUTTRAY_RELAY_TOOL_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "relay/tool/places.h"
#include "relay/tool/tool.h"

#define ASK_PATH_MAX 1024

typedef void ask_show_fn(const struct tool *t, const struct places *p, const cJSON *answer);

/* False with the exit code, all said, when it does not run or may not be asked; places are then not
 * to be freed. */
bool ask_daemon(const struct tool *t, struct places *out_places, int *out_exit);
/* One request whose answer `show` prints, unless JSON is wanted. Returns the exit code. */
int ask_and_show(const struct tool *t, const char *method, const char *path, ask_show_fn *show);
/* Asks METHOD /v1/mailbox/NAME/REST, where NAME is the tool's argument. Returns owned; NULL with
 * the daemon's own words. */
cJSON *ask_mailbox(const struct tool *t, const struct places *p, const char *method,
                   const char *rest, struct error *err);
/* Percent-encodes everything but letters, digits and "-_.", for one part of a path or query; false
 * when it does not fit. */
bool ask_encode(const char *text, char *out, size_t size);
/* Seconds since 1970. */
int64_t ask_now(void);

#endif
