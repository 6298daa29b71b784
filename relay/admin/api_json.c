#include "relay/admin/api_json.h"

#include <inttypes.h>
#include <stdio.h>

#include "relay/admin/json.h"
#include "relay/submit/verdict.h"

static bool put_id(cJSON *o, uint64_t id)
{
    char text[QUEUE_ID_TEXT];

    queue_id_text(id, text);
    return json_put_text(o, "id", text);
}

void api_json_wait(const struct mailbox_status *first, uint64_t ready_ms, struct api_wait *out)
{
    *out = (struct api_wait){.ready_ms = ready_ms};
    if (first->state != MAILBOX_READY)
        snprintf(out->why, sizeof(out->why), "%s", first->problem);
    else if (first->minute_max > 0 && first->sent_this_minute >= first->minute_max)
        snprintf(out->why, sizeof(out->why), "the limit of %" PRIu32 " message%s a minute",
                 first->minute_max, first->minute_max == 1 ? "" : "s");
    else if (first->day_max > 0 && first->recipients_today >= first->day_max)
        snprintf(out->why, sizeof(out->why), "the limit of %" PRIu32 " recipient%s in 24 h",
                 first->day_max, first->day_max == 1 ? "" : "s");
    else
        return;
    snprintf(out->what, sizeof(out->what), "mailbox %s", first->name);
}

/* Its own time or that of the mailbox, whichever is later. */
static bool put_due(cJSON *o, const struct queue_info *info, const struct api_times *times,
                    const struct api_wait *wait)
{
    uint64_t due = info->due_ms;
    bool others;

    if (due == SCHEDULE_NEVER || wait == NULL)
        return json_put_null(o, "due_in") && json_put_text(o, "waits_for", "") &&
               json_put_text(o, "waits_why", "");
    others = due <= times->now_ms || due <= wait->ready_ms;
    if (due < wait->ready_ms)
        due = wait->ready_ms;
    return json_put_seconds(o, "due_in", due > times->now_ms ? due - times->now_ms : 0) &&
           json_put_text(o, "waits_for", others ? wait->what : "") &&
           json_put_text(o, "waits_why", others ? wait->why : "");
}

static bool put_age(cJSON *o, const struct queue_info *info, const struct api_times *times)
{
    uint64_t arrived = info->arrived_ms;

    if (arrived == 0)
        return json_put_null(o, "age");
    return json_put_seconds(o, "age", times->wall_ms > arrived ? times->wall_ms - arrived : 0);
}

static bool put_info(cJSON *o, const struct queue_info *info, const struct api_times *times,
                     const struct api_wait *wait)
{
    return put_id(o, info->id) && json_put_text(o, "state", queue_state_name(info->state)) &&
           json_put_flag(o, "in_flight", info->in_flight) &&
           json_put_flag(o, "in_doubt", info->in_doubt) &&
           json_put_flag(o, "damaged", info->damaged) &&
           json_put_text(o, "lane", lane_name(info->lane)) &&
           json_put_text(o, "route", info->route != NULL ? info->route : "") &&
           json_put_number(o, "size", info->size) &&
           json_put_time(o, "arrived", info->arrived_ms) && put_age(o, info, times) &&
           json_put_number(o, "attempts", info->attempts) &&
           json_put_number(o, "losses", info->losses) && put_due(o, info, times, wait) &&
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

static bool put_verdict(cJSON *o, const char *reason, const char *who, const char *remedy)
{
    return json_put_text(o, "reason", reason) && json_put_text(o, "who", who) &&
           json_put_text(o, "remedy", remedy);
}

/* Failed by a reply that only asked for patience: the time for it was over. */
static bool put_given_up(cJSON *o, const struct verdict *v)
{
    char reason[REPLY_TEXT_MAX];

    snprintf(reason, sizeof(reason),
             "It was tried for as long as give_up in [relay] says. The last time: %s", v->what);
    return put_verdict(o, reason, "whoever looks after this relay",
                       "When the cause is gone, try it again with \"outtray requeue\".");
}

static bool put_reason(cJSON *o, const struct recipient *r)
{
    bool failed = r->state == RECIPIENT_FAILED;
    struct verdict v;

    if (r->state == RECIPIENT_DELIVERED || !verdict_of_stored(r->reply, failed, &v))
        return put_verdict(o, "", "", "");
    if (failed && v.action != VERDICT_RCPT_FAIL && v.action != VERDICT_MSG_FAIL &&
        v.action != VERDICT_HOLD)
        return put_given_up(o, &v);
    return put_verdict(o, v.what, v.who, v.how);
}

static bool put_recipient(cJSON *list, const struct recipient *r, bool whole)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = json_append(list, o);

    ok = ok && json_put_text(o, "path", r->forward_path) &&
         json_put_text(o, "state", recipient_state_name(r->state));
    if (whole)
        ok = ok && json_put_text(o, "reply", r->reply) && put_reason(o, r) &&
             json_put_text(o, "notify", r->notify) && json_put_text(o, "orcpt", r->orcpt);
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
                      const struct error *err, const struct api_times *times,
                      const struct api_wait *wait)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = o != NULL && put_info(o, info, times, wait);

    if (e != NULL)
        ok = ok && put_envelope(o, e) && put_recipients(o, e, API_JSON_RECIPIENTS, false);
    else
        ok = ok && json_put_text(o, "problem", err != NULL ? err->text : "it cannot be read");
    return whole_or_null(o, ok);
}

cJSON *api_json_message(const struct queue_info *info, const struct envelope *e,
                        const struct api_times *times, const struct api_wait *wait)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = o != NULL && put_info(o, info, times, wait) && put_envelope(o, e) &&
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
