/*
 * The answer to an export: a message's mail data, block by block from the spool, the next one read
 * only when the client has taken the last; private to the API.
 *
 * The length is said in the head, so that an answer broken off by damage is known to be incomplete.
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_EXPORT_H
#define OUTTRAY_RELAY_ADMIN_API_EXPORT_H

#include "queue/queue.h"
#include "relay/admin/api_call.h"

/* Takes the call, with its reader open and its size set, to the end. */
void export_start(struct api_call *c);

#endif
