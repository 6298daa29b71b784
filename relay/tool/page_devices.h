/*
 * What the API says of devices, as pages for people. Pure but for the stream that is written to.
 */
#ifndef OUTTRAY_RELAY_TOOL_PAGE_DEVICES_H
#define OUTTRAY_RELAY_TOOL_PAGE_DEVICES_H

#include <stdint.h>
#include <stdio.h>

#include <cjson/cJSON.h>

/* devices: an array of entries, by name. Those that need attention come first. */
void page_devices(FILE *out, const cJSON *devices);
/* now: seconds since 1970, to leave out today's date. */
void page_device(FILE *out, const cJSON *device, int64_t now);
/* The newest last, so that it stands above the prompt. */
void page_transcripts(FILE *out, const cJSON *answer, int64_t now);

#endif
