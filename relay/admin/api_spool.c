#include "relay/admin/api_spool.h"

#include <event2/keyvalq_struct.h>

#include "queue/queue.h"
#include "relay/admin/spool_json.h"
#include "relay/base/log.h"

void api_spool_stats(struct api_call *c)
{
    struct queue_counts counts;
    struct queue_stats stats;

    queue_counts(c->api->queue, &counts);
    queue_stats(c->api->queue, &stats);
    call_reply(c, HTTP_OK, spool_json_stats(&counts, &stats, c->api->recovery));
}

static void log_damage(const struct queue_verified *v)
{
    if (v->bad > 0)
        log_event(LOG_LEVEL_ERROR, "damage-found", LOG_STR("file", v->name),
                  LOG_U64("places", v->bad), LOG_END);
}

static void on_verified(void *ctx, const struct queue_verified *v, const struct error *err)
{
    struct api_call *c = ctx;

    c->pending = false;
    if (v != NULL)
        log_damage(v);
    if (call_is_gone(c))
        call_free(c);
    else if (err != NULL)
        call_fail(c, err);
    else
        call_reply(c, HTTP_OK, spool_json_verified(v));
}

static bool find_cursor(const struct api_call *c, struct queue_cursor *out)
{
    const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(c->req));
    struct evkeyvalq values = {0};
    bool ok = evhttp_parse_query_str(query != NULL ? query : "", &values) == 0;

    if (ok) {
        const char *text = evhttp_find_header(&values, "after");

        ok = spool_cursor_parse(text != NULL ? text : "", out);
    }
    evhttp_clear_headers(&values);
    return ok;
}

void api_spool_check(struct api_call *c)
{
    struct error err = ERROR_INIT;
    struct queue_cursor from;

    if (!find_cursor(c, &from)) {
        error_set(&err, ERROR_INVALID, "\"after\" of the query is no place in the spool");
        call_fail(c, &err);
        return;
    }
    c->pending = true;
    queue_verify(c->api->queue, &from, on_verified, c);
}
