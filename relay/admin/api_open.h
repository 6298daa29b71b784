/*
 * Opens queued messages for calls, with a limit to the waiting; private to the API.
 *
 * To open a message is to read, which takes as long as a slow or failing disk likes. An answer does
 * not wait for that: after the limit the call goes on without the message, and as long as the queue
 * still owes it, calls for the same message do not even ask. So what is owed never exceeds the
 * messages that cannot be read, however often somebody looks.
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_OPEN_H
#define OUTTRAY_RELAY_ADMIN_API_OPEN_H

#include <stdint.h>

#include "queue/queue.h"
#include "relay/admin/api_call.h"

/* r and e are NULL with an error, which is ERROR_BUSY when the limit was reached. The reader is the
 * callee's to close. */
typedef void api_open_fn(struct api_call *c, struct queue_reader *r, const struct envelope *e,
                         const struct error *err);

/* One at a time for a call. done comes once, perhaps from within, unless the call is freed before.
 */
void api_open(struct api_call *c, uint64_t id, uint64_t limit_ms, api_open_fn *done);
/* The call goes. Accepts NULL. */
void api_open_forget(struct api_open *o);
/* The API goes: what the queue still owes is left to its callbacks. */
void api_open_orphan_all(struct api_opens *opens);

#endif
