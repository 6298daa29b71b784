/*
 * Bringing a spool directory back into memory, at the start. Blocks.
 *
 * queue/README.md lists what may be found and what becomes of it.
 */
#ifndef OUTTRAY_QUEUE_RESTORE_H
#define OUTTRAY_QUEUE_RESTORE_H

#include <stdbool.h>

#include "queue/spool.h"

/* Reads all segments and the names of all bodies, fills tree and schedule, and starts the journal
 * unless the queue is read-only. */
bool restore_messages(struct queue *q, struct queue_recovery *out, struct error *err);

#endif
