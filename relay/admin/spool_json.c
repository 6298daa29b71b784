#include "relay/admin/spool_json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "relay/admin/json.h"

static const char of_segments[] = "segment-";
static const char of_messages[] = "message-";

void spool_cursor_text(const struct queue_cursor *c, char out[SPOOL_CURSOR_TEXT])
{
    snprintf(out, SPOOL_CURSOR_TEXT, "%s%" PRIx64, c->bodies ? of_messages : of_segments, c->after);
}

bool spool_cursor_parse(const char *text, struct queue_cursor *out)
{
    struct queue_cursor c = {.bodies = strncmp(text, of_messages, strlen(of_messages)) == 0};
    const char *kind = c.bodies ? of_messages : of_segments;

    if (text[0] != '\0' &&
        (strncmp(text, kind, strlen(kind)) != 0 || !queue_id_parse(text + strlen(kind), &c.after)))
        return false;
    *out = c;
    return true;
}

static cJSON *whole_or_null(cJSON *o, bool ok)
{
    if (ok)
        return o;
    cJSON_Delete(o);
    return NULL;
}

static bool put_counts(cJSON *o, const struct queue_counts *c)
{
    cJSON *lanes = cJSON_CreateObject();
    bool ok = json_put(o, "lanes", lanes);

    for (int i = 0; i < LANE_COUNT; i++)
        ok = ok && json_put_number(lanes, lane_name((enum lane)i), c->lane[i]);
    for (int i = 0; i < QUEUE_GONE; i++)
        ok = ok && json_put_number(o, queue_state_name((enum queue_state)i), c->state[i]);
    return ok && json_put_number(o, "in_flight", c->in_flight) &&
           json_put_number(o, "damaged", c->damaged) &&
           json_put_number(o, "unmarked", c->unmarked) &&
           json_put_number(o, "commits", c->commits) && json_put_number(o, "flushes", c->flushes);
}

static bool put_limits(cJSON *o, const struct queue_counts *c, const struct queue_stats *s)
{
    return json_put_number(o, "max_bytes", s->max_bytes) &&
           json_put_number(o, "min_free_bytes", s->min_free_bytes) &&
           json_put_number(o, "free_bytes", c->free_bytes) &&
           json_put_number(o, "total_bytes", s->total_bytes) && json_put_flag(o, "full", c->full) &&
           json_put_flag(o, "full_urgent", c->full_urgent) &&
           json_put_flag(o, "failing", c->failing);
}

cJSON *spool_json_stats(const struct queue_counts *counts, const struct queue_stats *stats,
                        const struct queue_recovery *recovery)
{
    cJSON *o = cJSON_CreateObject();
    uint64_t living = stats->journal_living + stats->body_bytes;
    uint64_t disk = stats->journal_bytes + stats->body_bytes;
    bool ok = o != NULL && put_counts(o, counts) && put_limits(o, counts, stats) &&
              json_put_number(o, "mail_bytes", counts->living_bytes) &&
              json_put_number(o, "living_bytes", living) &&
              json_put_number(o, "disk_bytes", disk) &&
              json_put_number(o, "segments", stats->segments) &&
              json_put_number(o, "segment_size", stats->segment_size) &&
              json_put_number(o, "journal_bytes", stats->journal_bytes) &&
              json_put_number(o, "journal_living", stats->journal_living) &&
              json_put_number(o, "journal_written", stats->journal_written) &&
              json_put_number(o, "carried", stats->carried) &&
              json_put_number(o, "bodies", stats->bodies) &&
              json_put_number(o, "body_bytes", stats->body_bytes) &&
              json_put_number(o, "damaged_at_start", recovery != NULL ? recovery->damaged : 0);

    return whole_or_null(o, ok);
}

static bool put_place(cJSON *list, const struct queue_bad_place *p)
{
    cJSON *o = cJSON_CreateObject();
    char id[QUEUE_ID_TEXT] = "";

    if (p->id != 0)
        queue_id_text(p->id, id);
    return json_append(list, o) && json_put_text(o, "id", id) &&
           json_put_number(o, "offset", p->offset) && json_put_number(o, "length", p->len);
}

cJSON *spool_json_verified(const struct queue_verified *v)
{
    cJSON *o = cJSON_CreateObject();
    cJSON *list = cJSON_CreateArray();
    char next[SPOOL_CURSOR_TEXT];
    bool ok = json_put(o, "damage", list) && json_put_text(o, "file", v->is_file ? v->name : "") &&
              json_put_number(o, "octets", v->octets) &&
              json_put_number(o, "checked", v->checked) && json_put_number(o, "bad", v->bad);

    for (size_t i = 0; ok && i < v->place_count; i++)
        ok = put_place(list, &v->places[i]);
    spool_cursor_text(&v->next, next);
    return whole_or_null(o, ok && (v->last || json_put_text(o, "next", next)));
}
