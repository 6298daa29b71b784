/*
 * What the API says about the spool itself; private to the API.
 *
 * A check goes on only as long as somebody asks: each call reads one file on a worker and answers
 * with what it found and where to go on from. So the loop has nothing to do meanwhile, the client
 * shows its progress, and a client that leaves ends it.
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_SPOOL_H
#define OUTTRAY_RELAY_ADMIN_API_SPOOL_H

#include "relay/admin/api_call.h"

/* Each takes the call to its end. */
void api_spool_stats(struct api_call *c);
void api_spool_check(struct api_call *c);

#endif
