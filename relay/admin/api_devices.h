/*
 * The answers about devices: /v1/devices and all below it; private to the API.
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_DEVICES_H
#define OUTTRAY_RELAY_ADMIN_API_DEVICES_H

#include "relay/admin/api_call.h"

/* Each takes the call to its end. */
void api_devices_list(struct api_call *c);
void api_devices_one(struct api_call *c);
void api_devices_transcripts(struct api_call *c);
void api_devices_forget(struct api_call *c);

#endif
