/*
 * The JSON shapes of what is said about the spool, as the API gives them and as the tool makes them
 * from a spool whose daemon is down. Pure; trees belong to the caller, NULL without memory.
 *
 * A cursor is written as "segment-1f" or "message-4f2a", hexadecimal.
 */
#ifndef OUTTRAY_RELAY_ADMIN_SPOOL_JSON_H
#define OUTTRAY_RELAY_ADMIN_SPOOL_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "queue/queue.h"

#define SPOOL_CURSOR_TEXT 32

void spool_cursor_text(const struct queue_cursor *c, char out[SPOOL_CURSOR_TEXT]);
/* "" is the beginning. */
bool spool_cursor_parse(const char *text, struct queue_cursor *out);

/* recovery may be NULL. "damaged_at_start" counts places, whatever was in them. */
cJSON *spool_json_stats(const struct queue_counts *counts, const struct queue_stats *stats,
                        const struct queue_recovery *recovery);
/* One step of a check: "file" ("" when this step read none), "octets", "checked", "bad", "damage"
 * (the first places, each with the "id" of the living message that it hit, or ""), and "next"
 * unless nothing is left. */
cJSON *spool_json_verified(const struct queue_verified *v);

#endif
