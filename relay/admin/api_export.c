#include "relay/admin/api_export.h"

#include <inttypes.h>
#include <stdio.h>

static void read_next(struct api_call *c);

static void on_written(struct evhttp_connection *conn, void *ctx)
{
    (void)conn;
    read_next(ctx);
}

static bool start_answer(struct api_call *c)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(c->req);
    char text[32];

    snprintf(text, sizeof(text), "%" PRIu64, c->size);
    if (evhttp_add_header(headers, "Content-Length", text) != 0 ||
        evhttp_add_header(headers, "Content-Type", "message/rfc822") != 0)
        return false;
    evhttp_send_reply_start(c->req, HTTP_OK, NULL);
    return true;
}

static void end_of_message(struct api_call *c)
{
    if (c->sent == c->size)
        call_finish(c);
    else
        call_cut(c);
}

/* The first block decides whether there is an answer or an error. */
static bool begin(struct api_call *c, size_t len, const struct error *err)
{
    struct error failure = ERROR_INIT;

    if (c->sent > 0)
        return true;
    if (err != NULL)
        call_fail(c, err);
    else if (len > 0 && !start_answer(c)) {
        error_set(&failure, ERROR_NO_ROOM, "out of memory");
        call_fail(c, &failure);
    } else if (len == 0) {
        error_set(&failure, ERROR_DAMAGED, "the message has no mail data");
        call_fail(c, &failure);
    } else
        return true;
    return false;
}

static void on_block(void *ctx, const uint8_t *data, size_t len, const struct error *err)
{
    struct api_call *c = ctx;

    if (!begin(c, len, err))
        return;
    if (err != NULL || len > c->size - c->sent || evbuffer_add(c->block, data, len) != 0) {
        call_cut(c);
        return;
    }
    if (len == 0) {
        end_of_message(c);
        return;
    }
    c->sent += len;
    evhttp_send_reply_chunk_with_cb(c->req, c->block, on_written, c);
}

static void read_next(struct api_call *c)
{
    queue_read(c->reader, on_block, c);
}

void export_start(struct api_call *c)
{
    struct error err = ERROR_INIT;

    c->block = evbuffer_new();
    if (c->block != NULL) {
        read_next(c);
        return;
    }
    error_set(&err, ERROR_NO_ROOM, "out of memory");
    call_fail(c, &err);
}
