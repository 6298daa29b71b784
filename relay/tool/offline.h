/*
 * The spool itself, read without the daemon: the same JSON as the API gives, made from a queue that
 * is opened for reading only. Nothing is locked, written or repaired. Blocks.
 */
#ifndef OUTTRAY_RELAY_TOOL_OFFLINE_H
#define OUTTRAY_RELAY_TOOL_OFFLINE_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "queue/error.h"
#include "relay/tool/http.h"

struct offline;

struct offline *offline_open(const char *spool, struct error *err);
void offline_close(struct offline *o); /* accepts NULL */
/* As GET /v1/queue?after=ID&limit=N, GET /v1/queue/ID, GET /v1/queue/ID/eml. */
cJSON *offline_page(struct offline *o, const char *state, uint64_t after, uint32_t limit,
                    struct error *err);
cJSON *offline_message(struct offline *o, uint64_t id, struct error *err);
/* As GET /v1/spool and POST /v1/spool/check?after=CURSOR. */
cJSON *offline_stats(struct offline *o, struct error *err);
cJSON *offline_check(struct offline *o, const char *cursor, struct error *err);
bool offline_export(struct offline *o, uint64_t id, http_sink *sink, void *ctx, struct error *err);

#endif
