/*
 * One question to the daemon, or several, for commands that need it running. Blocks, see http.h.
 */
#ifndef OUTTRAY_RELAY_TOOL_DAEMON_H
#define OUTTRAY_RELAY_TOOL_DAEMON_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "relay/tool/places.h"
#include "relay/tool/tool.h"

/* Finds the daemon. False with the exit code, all said; else places_done() is due. */
bool daemon_find(const struct tool *t, struct places *out_places, int *out_exit);
/* Asks METHOD /v1/mailbox/NAME/REST, where NAME is the tool's argument. Returns owned; NULL with
 * the daemon's own words. */
cJSON *daemon_ask_mailbox(const struct tool *t, const struct places *p, const char *method,
                          const char *rest, struct error *err);

#endif
