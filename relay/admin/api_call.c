#include "relay/admin/api_call.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/admin/api_open.h"

static void send_json(struct evhttp_request *req, int status, cJSON *json);

/* A request whose connection failed is left to us by evhttp; one whose connection is being freed
 * is not. */
static void on_client_gone(struct evhttp_connection *conn, void *ctx)
{
    struct api_call *c = ctx;

    (void)conn;
    if (c->req != NULL && evhttp_request_get_connection(c->req) == NULL)
        evhttp_request_free(c->req);
    c->req = NULL;
    if (!c->pending)
        call_free(c);
}

static void link_call(struct api_calls *calls, struct api_call *c)
{
    c->calls = calls;
    c->next = calls->first;
    if (c->next != NULL)
        c->next->prev = c;
    calls->first = c;
    calls->count++;
}

static void unlink_call(struct api_call *c)
{
    if (c->calls == NULL)
        return;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        c->calls->first = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    c->calls->count--;
    c->calls = NULL;
}

static void refuse(struct evhttp_request *req)
{
    struct error err = ERROR_INIT;

    error_set(&err, ERROR_LIMIT, "too many requests at once; try again in a moment");
    send_json(req, api_json_http_status(err.kind), api_json_error(&err));
}

struct api_call *call_new(struct api_calls *calls, const struct api_settings *api,
                          struct evhttp_request *req)
{
    struct api_call *c = calls->count < API_CALLS_MAX ? calloc(1, sizeof(*c)) : NULL;

    if (c == NULL) {
        refuse(req);
        return NULL;
    }
    c->api = api;
    c->req = req;
    link_call(calls, c);
    evhttp_connection_set_closecb(evhttp_request_get_connection(req), on_client_gone, c);
    return c;
}

bool call_is_gone(const struct api_call *c)
{
    return c->req == NULL || c->calls == NULL;
}

struct api_times call_times(const struct api_call *c)
{
    const struct clock *clock = c->api->clock;

    return (struct api_times){.now_ms = clock_now_ms(clock), .wall_ms = clock_wall_ms(clock)};
}

/* Takes the request from the call, so that what happens to its connection no longer concerns it. */
static struct evhttp_request *detach(struct api_call *c)
{
    struct evhttp_request *req = c->req;

    evhttp_connection_set_closecb(evhttp_request_get_connection(req), NULL, NULL);
    c->req = NULL;
    return req;
}

static void free_text(const void *data, size_t len, void *ctx)
{
    (void)data;
    (void)len;
    cJSON_free(ctx);
}

static void send_json(struct evhttp_request *req, int status, cJSON *json)
{
    char *text = json != NULL ? cJSON_PrintUnformatted(json) : NULL;
    struct evbuffer *body = evbuffer_new();

    cJSON_Delete(json);
    if (text == NULL || body == NULL ||
        evbuffer_add_reference(body, text, strlen(text), free_text, text) != 0) {
        cJSON_free(text);
        evhttp_send_error(req, HTTP_SERVUNAVAIL, "out of memory");
    } else {
        evbuffer_add(body, "\n", 1);
        evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Type",
                          "application/json");
        evhttp_send_reply(req, status, NULL, body);
    }
    if (body != NULL)
        evbuffer_free(body);
}

void call_reply(struct api_call *c, int status, cJSON *json)
{
    struct evhttp_request *req = detach(c);

    call_free(c);
    send_json(req, status, json);
}

void call_reply_early(struct api_call *c, int status, cJSON *json)
{
    struct evhttp_request *req = detach(c);

    unlink_call(c);
    send_json(req, status, json);
}

void call_fail(struct api_call *c, const struct error *err)
{
    call_reply(c, api_json_http_status(err->kind), api_json_error(err));
}

void call_fail_text(struct api_call *c, enum error_kind kind, const char *fmt, ...)
{
    char text[ERROR_TEXT_MAX];
    struct error err = ERROR_INIT;
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    error_set(&err, kind, "%s", text);
    call_fail(c, &err);
}

void call_finish(struct api_call *c)
{
    struct evhttp_request *req = detach(c);

    call_free(c);
    evhttp_send_reply_end(req);
}

void call_cut(struct api_call *c)
{
    struct evhttp_request *req = detach(c);

    call_free(c);
    evhttp_connection_free(evhttp_request_get_connection(req));
}

void call_free(struct api_call *c)
{
    unlink_call(c);
    api_open_forget(c->open);
    queue_reader_close(c->reader);
    if (c->block != NULL)
        evbuffer_free(c->block);
    if (c->again != NULL)
        event_free(c->again);
    cJSON_Delete(c->list);
    free(c->argument);
    free(c);
}

void call_orphan_all(struct api_calls *calls)
{
    while (calls->first != NULL)
        unlink_call(calls->first);
    api_open_orphan_all(&calls->opens);
}
