#include "relay/admin/api_replies.h"

#include "relay/admin/json.h"
#include "relay/submit/replies.h"
#include "relay/submit/verdict.h"

/* What is done with it until a row knows better. */
static bool put_verdict(cJSON *o, const struct replies_entry *entry)
{
    struct reply reply;
    struct verdict v;

    if (!reply_from_text(&reply, entry->text))
        return true;
    v = verdict_of(entry->stage, &reply);
    return json_put_text(o, "action", verdict_action_name(v.action)) &&
           json_put_text(o, "scope", verdict_scope_name(v.scope));
}

static cJSON *entry_json(const struct replies_entry *entry)
{
    cJSON *o = cJSON_CreateObject();

    if (json_put_text(o, "stage", client_stage_name(entry->stage)) &&
        json_put_text(o, "reply", entry->text) && json_put_number(o, "count", entry->count) &&
        json_put_time(o, "first", entry->first_ms) && json_put_time(o, "last", entry->last_ms) &&
        put_verdict(o, entry))
        return o;
    cJSON_Delete(o);
    return NULL;
}

void api_replies_list(struct api_call *c)
{
    cJSON *o = cJSON_CreateObject();
    cJSON *list = cJSON_CreateArray();
    struct replies_entry entry;
    bool ok = json_put(o, "replies", list);

    for (size_t i = 0; ok && replies_get(c->api->replies, i, &entry); i++)
        ok = json_append(list, entry_json(&entry));
    if (!ok) {
        cJSON_Delete(o);
        o = NULL;
    }
    call_reply(c, HTTP_OK, o);
}
