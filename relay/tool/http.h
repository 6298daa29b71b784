/*
 * A small HTTP/1.1 client over a unix socket: one request, one answer, one connection. It blocks,
 * but never longer than HTTP_TIMEOUT_MS for a step, and holds a bounded answer.
 *
 * It speaks to our own daemon only: an answer must have a Content-Length.
 */
#ifndef OUTTRAY_RELAY_TOOL_HTTP_H
#define OUTTRAY_RELAY_TOOL_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"
#include "queue/error.h"

#define HTTP_TIMEOUT_MS 30000
#define HTTP_HEAD_MAX   16384
#define HTTP_BODY_MAX   ((size_t)16 * 1024 * 1024) /* of an answer that is held */

/* Takes a part of the body; false (with err set) breaks off. */
typedef bool http_sink(void *ctx, const void *data, size_t len, struct error *err);

struct http_request {
    const char *socket;
    const char *method;
    const char *path;
    http_sink *sink; /* takes the body of a 200 as it comes; NULL: it is held as well */
    void *ctx;
    int timeout_ms; /* 0: HTTP_TIMEOUT_MS */
};

struct http_answer {
    int status;
    uint64_t length;   /* of the body, as announced */
    struct bytes body; /* unless it went to the sink */
};

/* Connects; the descriptor is the caller's. -1 with an error whose errnum tells why. */
int http_connect(const char *socket, int timeout_ms, struct error *err);
/* ERROR_DAMAGED: the answer ended before its announced length. The answer is initialised in any
 * case; http_answer_done() frees it. */
bool http_ask(const struct http_request *request, struct http_answer *out_answer,
              struct error *err);
void http_answer_done(struct http_answer *a);

#endif
