/*
 * The answers about queued messages: /v1/queue and all below it; private to the API.
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_QUEUE_H
#define OUTTRAY_RELAY_ADMIN_API_QUEUE_H

#include "relay/admin/api_call.h"

/* Each takes the call to its end. */
void api_queue_list(struct api_call *c);
void api_queue_message(struct api_call *c);
void api_queue_eml(struct api_call *c);
void api_queue_retry(struct api_call *c);
void api_queue_retry_all(struct api_call *c);
void api_queue_requeue_all(struct api_call *c);
void api_queue_delete(struct api_call *c);

#endif
