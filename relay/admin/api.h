/*
 * The API: HTTP/JSON over a unix socket, by libevent's evhttp and cJSON. One request at a time is
 * cheap; long lists are cut into pages, so that the loop never stalls.
 *
 *   GET    /v1/status
 *       version, uptime, queue, intake, devices, mailboxes with problem and remedy
 *   GET    /v1/queue?after=ID&limit=N&state=STATE
 *       messages by id, "total", and "next" (to give as `after`) when there are more; limit at
 *       most API_PAGE_MAX. A message that cannot be read in time has a "problem" instead of sender
 *       and recipients. With a state, those in it only. Dead letters that are listed, named in the
 *       status or asked for have been seen by somebody (see reports.h)
 *   GET    /v1/queue/ID
 *       one message: envelope, recipients with their last replies, times
 *   GET    /v1/queue/ID/eml
 *       its mail data, message/rfc822; cut short of its Content-Length where what is stored is
 *       damaged
 *   POST   /v1/queue/ID/retry
 *       due now; "uncertain" when it may arrive twice
 *   POST   /v1/queue/retry
 *       all that are queued; "left" are the uncertain, the held and the dead
 *   POST   /v1/queue/requeue
 *       all dead letters, anew; "left" are those that cannot be
 *   DELETE /v1/queue/ID
 *       answered when it is durable; with 503 ("busy") when the disk cannot take it for now: it is
 *       deleted, but comes back if the relay is stopped before that has passed
 *   GET    /v1/replies
 *       refusals of upstreams that no verdict knows, the latest first
 *   GET    /v1/devices?after=NAME&limit=N
 *       devices by name, those of the configuration that were never seen too, and "next"
 *   GET    /v1/devices/NAME
 *       one device: what it did, its quirks, and what applies to it
 *   GET    /v1/devices/NAME/transcripts
 *       what was said in its last sessions, the newest first
 *   DELETE /v1/devices/NAME
 *       forgets it
 *   GET    /v1/spool
 *       what the spool costs: segments, living and dead bytes, bodies, flushes, limits
 *   POST   /v1/spool/check?after=CURSOR
 *       verifies one file; "next" (to give as `after`) when there are more
 *   POST   /v1/mailbox/NAME/resume
 *   POST   /v1/clock?advance=SECONDS&wall_forward=SECONDS&wall_back=SECONDS
 *       only when started with --test-clock
 *
 * What has to do with signing in is in api_signin.h.
 *
 * Errors are {"error": {"kind": "missing", "text": "..."}} with a fitting status. The socket is
 * made with mode 0660, its group that of the process; who can open it may do everything. Nothing
 * secret is ever in an answer.
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_H
#define OUTTRAY_RELAY_ADMIN_API_H

#include <stdbool.h>
#include <stdint.h>

#include "queue/error.h"
#include "queue/queue.h"
#include "relay/base/clock.h"
#include "relay/base/config.h"
#include "relay/intake/listener.h"
#include "relay/submit/dispatch.h"

#define API_PAGE_MAX 500
#define API_OPEN_MS  2000

struct event_base;
struct signins;
struct api;
struct registry; /* relay/intake/registry.h */
struct replies;  /* relay/submit/replies.h */
struct reports;  /* relay/admin/reports.h */

struct api_settings {
    struct event_base *base;
    struct clock *clock;
    const struct config *config;
    struct queue *queue;
    struct intake *intake;
    struct dispatch *dispatch;
    struct registry *registry; /* NULL: no device is known */
    struct reports *reports;   /* NULL: nobody cares what was seen */
    const struct replies *replies;
    struct signins *signins; /* NULL without OAuth */
    const char *socket;
    const struct queue_recovery *recovery; /* what the start found */
    uint64_t open_ms; /* how long an answer waits for messages to be read; 0: API_OPEN_MS */
    bool test_clock;
    void (*on_clock)(void *ctx); /* the clock was moved */
    void *ctx;
};

/* Replaces a stale socket file (one that nobody answers on); ERROR_BUSY when somebody does.
 * Settings are copied, what they point to is borrowed until api_free(). The process must ignore
 * SIGPIPE. */
struct api *api_new(const struct api_settings *settings, struct error *err);
/* Removes the socket and drops every connection. Callbacks that the queue still owes to requests
 * under way must be delivered (work_drain()) before queue_close(). Accepts NULL. */
void api_free(struct api *a);

#endif
