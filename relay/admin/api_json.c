#include "relay/admin/api_json.h"

#include "relay/admin/json.h"

static bool put_id(cJSON *o, uint64_t id)
{
    char text[QUEUE_ID_TEXT];

    queue_id_text(id, text);
    return json_put_text(o, "id", text);
}

static bool put_due(cJSON *o, const struct queue_info *info, const struct api_times *times)
{
    if (info->due_ms == SCHEDULE_NEVER)
        return json_put_null(o, "due_in");
    return json_put_seconds(o, "due_in",
                            info->due_ms > times->now_ms ? info->due_ms - times->now_ms : 0);
}

static bool put_age(cJSON *o, const struct queue_info *info, const struct api_times *times)
{
    uint64_t arrived = info->arrived_ms;

    if (arrived == 0)
        return json_put_null(o, "age");
    return json_put_seconds(o, "age", times->wall_ms > arrived ? times->wall_ms - arrived : 0);
}

static bool put_info(cJSON *o, const struct queue_info *info, const struct api_times *times)
{
    return put_id(o, info->id) && json_put_text(o, "state", queue_state_name(info->state)) &&
           json_put_flag(o, "in_flight", info->in_flight) &&
           json_put_flag(o, "in_doubt", info->in_doubt) &&
           json_put_flag(o, "damaged", info->damaged) &&
           json_put_text(o, "lane", lane_name(info->lane)) &&
           json_put_text(o, "route", info->route != NULL ? info->route : "") &&
           json_put_number(o, "size", info->size) &&
           json_put_time(o, "arrived", info->arrived_ms) && put_age(o, info, times) &&
           json_put_number(o, "attempts", info->attempts) && put_due(o, info, times) &&
           json_put_number(o, "recipient_count", info->recipients);
}

/* The reply that explains why the message is still here: of somebody who waits, else of anybody. */
static const char *last_reply(const struct envelope *e)
{
    const char *any = "";

    for (size_t i = 0; i < e->recipient_count; i++) {
        const struct recipient *r = &e->recipients[i];

        if (r->reply[0] == '\0')
            continue;
        if (r->state == RECIPIENT_PENDING)
            return r->reply;
        if (any[0] == '\0' || r->state == RECIPIENT_FAILED)
            any = r->reply;
    }
    return any;
}

static bool put_recipient(cJSON *list, const struct recipient *r, bool whole)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = json_append(list, o);

    ok = ok && json_put_text(o, "path", r->forward_path) &&
         json_put_text(o, "state", recipient_state_name(r->state));
    if (whole)
        ok = ok && json_put_text(o, "reply", r->reply) && json_put_text(o, "notify", r->notify) &&
             json_put_text(o, "orcpt", r->orcpt);
    return ok;
}

static bool put_recipients(cJSON *o, const struct envelope *e, size_t most, bool whole)
{
    cJSON *list = cJSON_CreateArray();
    bool ok = json_put(o, "recipients", list);

    for (size_t i = 0; ok && i < e->recipient_count && i < most; i++)
        ok = put_recipient(list, &e->recipients[i], whole);
    return ok;
}

static bool put_envelope(cJSON *o, const struct envelope *e)
{
    return json_put_text(o, "device", e->device) && json_put_text(o, "sender", e->reverse_path) &&
           json_put_text(o, "subject", e->subject) && json_put_text(o, "last_reply", last_reply(e));
}

static bool put_details(cJSON *o, const struct queue_info *info, const struct envelope *e)
{
    static const char *const bodies[] = {"7bit", "8bitmime"};

    return json_put_seconds(o, "tried", info->tried_ms) && json_put_text(o, "client", e->client) &&
           json_put_text(o, "helo", e->helo) && json_put_text(o, "login", e->login) &&
           json_put_text(o, "listener", e->listener) &&
           json_put_text(o, "message_id", e->message_id) &&
           json_put_text(o, "body", bodies[e->body == ENVELOPE_BODY_8BITMIME]) &&
           json_put_flag(o, "smtputf8", e->smtputf8) &&
           json_put_number(o, "header_size", e->header_size) &&
           json_put_text(o, "envid", e->envid) && json_put_text(o, "ret", e->ret) &&
           json_put_text(o, "repairs", e->repairs);
}

/* Deletes the tree unless it is whole. */
static cJSON *whole_or_null(cJSON *o, bool ok)
{
    if (ok)
        return o;
    cJSON_Delete(o);
    return NULL;
}

cJSON *api_json_entry(const struct queue_info *info, const struct envelope *e,
                      const struct error *err, const struct api_times *times)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = o != NULL && put_info(o, info, times);

    if (e != NULL)
        ok = ok && put_envelope(o, e) && put_recipients(o, e, API_JSON_RECIPIENTS, false);
    else
        ok = ok && json_put_text(o, "problem", err != NULL ? err->text : "it cannot be read");
    return whole_or_null(o, ok);
}

cJSON *api_json_message(const struct queue_info *info, const struct envelope *e,
                        const struct api_times *times)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = o != NULL && put_info(o, info, times) && put_envelope(o, e) &&
              put_details(o, info, e) && put_recipients(o, e, SIZE_MAX, true);

    return whole_or_null(o, ok);
}

cJSON *api_json_page(cJSON *messages, uint64_t total, uint64_t next_or_0)
{
    cJSON *o = cJSON_CreateObject();
    char next[QUEUE_ID_TEXT];
    bool ok;

    if (o == NULL) {
        cJSON_Delete(messages);
        return NULL;
    }
    queue_id_text(next_or_0, next);
    ok = json_put(o, "messages", messages) && json_put_number(o, "total", total) &&
         (next_or_0 == 0 || json_put_text(o, "next", next));
    return whole_or_null(o, ok);
}

uint64_t api_json_total(const struct queue_counts *counts)
{
    uint64_t total = 0;

    for (size_t i = 0; i < sizeof(counts->state) / sizeof(counts->state[0]); i++)
        total += counts->state[i];
    return total;
}

cJSON *api_json_error(const struct error *err)
{
    cJSON *o = cJSON_CreateObject();
    cJSON *e = cJSON_CreateObject();
    bool ok = json_put(o, "error", e) && json_put_text(e, "kind", error_kind_name(err->kind)) &&
              json_put_text(e, "text", err->text);

    return whole_or_null(o, ok);
}

int api_json_http_status(enum error_kind kind)
{
    static const int status[] = {
        [ERROR_NONE] = 200, [ERROR_IO] = 500,      [ERROR_NO_ROOM] = 507, [ERROR_DAMAGED] = 500,
        [ERROR_BUSY] = 409, [ERROR_MISSING] = 404, [ERROR_INVALID] = 400, [ERROR_LIMIT] = 429,
    };

    if ((size_t)kind >= sizeof(status) / sizeof(status[0]))
        return 500;
    return status[kind];
}
