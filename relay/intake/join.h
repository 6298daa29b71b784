/*
 * Joins what devices split: the fragments of a mail (message/partial, RFC 2046 5.2.2) become one
 * message again.
 *
 * A fragment of a device with join_split is accepted and made durable like any mail, but waits up
 * to JOIN_WAIT_MS for its siblings: those of the same device, id, reverse-path and recipients. When
 * all are there they are joined, one group after the other. The whole stands in for them from the
 * moment in which it is durable, so that a crash leaves either the fragments or the whole (see
 * queue_commit()). What cannot be joined leaves as it came, and the log says why: a part is missing
 * after the wait, or comes twice, or the parts do not agree, or together they are larger than the
 * mailboxes take. Nothing is lost or held for ever by it, for the wait ends by itself.
 *
 * Memory: one small entry a fragment, JOIN_GROUPS_MAX groups of JOIN_PARTS_MAX fragments at most,
 * JOIN_DEVICE_MAX of one device; beyond that a fragment leaves as it came. After a restart the
 * groups are found again in the queue.
 */
#ifndef OUTTRAY_RELAY_INTAKE_JOIN_H
#define OUTTRAY_RELAY_INTAKE_JOIN_H

#include <stdbool.h>
#include <stdint.h>

#include "queue/queue.h"
#include "relay/base/clock.h"
#include "relay/base/config.h"

#define JOIN_WAIT_MS    (UINT64_C(3600) * 1000)
#define JOIN_RETRY_MS   (UINT64_C(30) * 1000) /* while the spool has no room or fails */
#define JOIN_PARTS_MAX  200
#define JOIN_GROUPS_MAX 64
#define JOIN_DEVICE_MAX 16 /* groups of one device */

struct join;

struct join_settings {
    struct queue *queue;
    struct clock *clock;
    const struct config *config;
    /* Octets of mail data that the route's mailboxes take today; 0 = no limit known. */
    uint64_t (*route_max_size)(void *ctx, const char *route);
    /* Something new is due. */
    void (*on_queued)(void *ctx);
    void *ctx;
};

/* Finds the fragments that wait in the queue. The settings are copied, what they point to is
 * borrowed. NULL without memory. */
struct join *join_new(const struct join_settings *settings);
/* Begins nothing any more, and ends what reads or writes, but for a whole that is on its way to the
 * disk. Accepts NULL. */
void join_stop(struct join *j);
/* Before the queue is closed. Accepts NULL. */
void join_free(struct join *j);
/* Regular upkeep, about once a second. */
void join_tick(struct join *j);

/* Before the message `id` is committed whose envelope says that it is a fragment: notes in the
 * envelope that it waits for its siblings, or does nothing when it cannot be joined. True when it
 * waits; then join_stored() must be told how the commit ended. Accepts NULL. */
bool join_admit(struct join *j, uint64_t id, struct envelope *e);
void join_stored(struct join *j, uint64_t id, bool ok);

#endif
