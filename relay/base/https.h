/*
 * HTTPS requests on our loop: libcurl's multi interface. libcurl lives in https.c and nowhere else.
 *
 * The library (and the two dozen it brings, some 4 MB) is loaded with the first request and stays.
 * A program that makes none pays nothing and does not need it installed.
 *
 * A request goes to an https URL (http only to the loopback), is never redirected, and is answered
 * once: with whatever status the server gave, or with an error that says what failed and what to
 * do. TLS 1.2 and newer, with the certificate and name verified; authorities are the system's or
 * those of a PEM file. Both address families are tried. A proxy comes from the request or, as for
 * other programs, from https_proxy, all_proxy and no_proxy in the environment.
 *
 * Names are looked up by a thread of libcurl's own, which is left behind when a request ends before
 * the resolver answers. Nothing here waits. Callbacks come from the loop, never from within a call
 * of ours; a callback may make and cancel requests, but not free the client.
 */
#ifndef OUTTRAY_RELAY_BASE_HTTPS_H
#define OUTTRAY_RELAY_BASE_HTTPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"

#define HTTPS_ANSWER_MAX  65536 /* octets of an answer's body */
#define HTTPS_CONNECT_MS  15000 /* name, connection and TLS */
#define HTTPS_TOTAL_MS    30000
#define HTTPS_TYPE_MAX    128
#define HTTPS_RETRY_MAX_S 86400 /* longer ones are cut to it */
#define HTTPS_PROXY_NONE  "none"

struct event_base;
struct https;
struct https_call;

/* All of it is copied. */
struct https_request {
    const char *url;
    const char *body; /* posted; NULL: GET */
    size_t body_len;
    const char *content_type; /* of body; NULL: a form */
    const char *proxy;        /* URL or host:port; "" = the environment's; HTTPS_PROXY_NONE */
    const char *ca_file;      /* PEM; "" = the system's */
    uint32_t connect_ms;      /* 0 = HTTPS_CONNECT_MS */
    uint32_t total_ms;        /* 0 = HTTPS_TOTAL_MS */
};

/* Valid during the callback; the body is wiped afterwards. */
struct https_answer {
    unsigned status; /* 0: there was none, and error says why */
    const char *body;
    size_t len;
    const char *content_type; /* "" when not said */
    uint64_t retry_after_s;   /* 0 when not said */
    uint64_t date_s;          /* the server's clock, since 1970; 0 when not said */
    struct error error;
};

typedef void https_answered(void *ctx, const struct https_answer *answer);

/* Cheap: the library is not loaded yet. The base is borrowed. NULL without memory. */
struct https *https_new(struct event_base *base);
/* Cancels what is under way. Accepts NULL. */
void https_free(struct https *h);

/* NULL (and err) when it cannot even begin. The call is gone when its callback is called. */
struct https_call *https_send(struct https *h, const struct https_request *request,
                              https_answered *answered, void *ctx, struct error *err);
void https_cancel(struct https_call *call); /* no callback follows; accepts NULL */

/* True for a URL that https_send() takes; else err says what is wrong with it. */
bool https_check_url(const char *url, struct error *err);

#endif
