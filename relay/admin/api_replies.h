/*
 * GET /v1/replies; private to the API.
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_REPLIES_H
#define OUTTRAY_RELAY_ADMIN_API_REPLIES_H

#include "relay/admin/api_call.h"

void api_replies_list(struct api_call *c);

#endif
