/*
 * The spool's directory: made when it is missing, its format checked, locked. Blocks.
 */
#ifndef OUTTRAY_QUEUE_SPOOLDIR_H
#define OUTTRAY_QUEUE_SPOOLDIR_H

#include <stdbool.h>

#include "queue/spool.h"

/* Makes the directories and the format file when they are missing, durably, locks, and checks the
 * format. On a read-only file system, where all that must be there already, it is only locked and
 * checked; of a read-only queue only the format is checked. */
bool spooldir_lock(struct queue *q, struct error *err);

#endif
