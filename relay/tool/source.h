/*
 * Where queued messages are read from: the daemon, or the spool itself while the daemon is down.
 * Both give the same JSON. Blocks.
 */
#ifndef OUTTRAY_RELAY_TOOL_SOURCE_H
#define OUTTRAY_RELAY_TOOL_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "relay/tool/http.h"
#include "relay/tool/places.h"
#include "relay/tool/tool.h"

struct offline;

struct source {
    struct places places;
    struct offline *offline; /* NULL: the daemon answers */
    const char *state;       /* of the messages that are listed; NULL = any */
};

/* Says on stderr when it reads the spool itself. False with the exit code, all said. Not to be
 * closed then. */
bool source_open(const struct tool *t, struct source *out_source, int *out_exit);
void source_close(struct source *s);

cJSON *source_page(struct source *s, uint64_t after, uint32_t limit, struct error *err);
cJSON *source_message(struct source *s, uint64_t id, struct error *err);
/* As GET /v1/spool and POST /v1/spool/check?after=CURSOR. */
cJSON *source_stats(struct source *s, struct error *err);
cJSON *source_check(struct source *s, const char *cursor, struct error *err);
bool source_export(struct source *s, uint64_t id, http_sink *sink, void *ctx, struct error *err);

#endif
