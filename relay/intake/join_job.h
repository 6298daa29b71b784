/*
 * Makes one message of the fragments of a group: reads them from the queue one after the other, in
 * the order of their numbers, and writes the whole into the queue, in bounded memory.
 *
 * The caller has leased the fragments. Until the whole is durable nothing has changed; from then on
 * it stands in for them (queue_commit()), and the caller settles them as gone.
 */
#ifndef OUTTRAY_RELAY_INTAKE_JOIN_JOB_H
#define OUTTRAY_RELAY_INTAKE_JOIN_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/queue.h"
#include "relay/base/clock.h"

#define JOIN_HEADER_MAX ((size_t)512 * 1024) /* octets of the whole's header */

struct join_job;

struct join_job_settings {
    struct queue *queue;
    struct clock *clock;
    const char *hostname; /* these are borrowed */
    const char *charset;
    uint64_t (*max_size)(void *ctx, const char *route); /* octets that the whole may have */
    uint64_t group;
    const uint64_t *ids; /* of the fragments, in order; borrowed until the end */
    size_t count;
    /* Once, from the loop, unless the job is freed before: err is NULL exactly when the whole is
     * durable. Of kind ERROR_NO_ROOM or ERROR_IO it may pass; any other will not. The job is gone
     * then, and so is err behind the call. */
    void (*on_end)(void *ctx, uint64_t id, uint64_t size, const struct error *err);
    void *ctx;
};

/* NULL, with an error as in on_end, when it cannot begin. */
struct join_job *join_job_start(const struct join_job_settings *settings, struct error *err);
/* Stops it. A whole that is on its way to the disk may still get there, as after a crash; its
 * fragments are then gone at the next start. Accepts NULL. */
void join_job_free(struct join_job *j);
/* The whole is on its way to the disk. */
bool join_job_is_committing(const struct join_job *j);

/* Hash of what the fragments of one mail have in common: device, id, reverse-path, recipients. */
uint64_t join_kin(const struct envelope *e);

#endif
