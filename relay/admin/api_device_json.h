/*
 * The JSON shapes of devices. Pure: plain values in, a cJSON tree out, which belongs to the caller;
 * NULL without memory.
 *
 * "state" is the first of these that holds:
 *
 *   never    in the configuration, but never seen
 *   trouble  its last error is newer than its last mail
 *   quiet    it has sent nothing for longer than its habit explains
 *   test     it was seen, but never with mail or trouble: connection tests
 *   ok
 *
 * An entry (in lists) and the device (alone) share their members; the device has more of them: its
 * quirks, and what the configuration lays down for it. Wall times are ISO 8601 in UTC or null,
 * spans ("..._age", "silence") are seconds or null. Names and errors come from the device and may
 * hold anything but control characters.
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_DEVICE_JSON_H
#define OUTTRAY_RELAY_ADMIN_API_DEVICE_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include <cjson/cJSON.h>

#include "relay/admin/api_json.h"
#include "relay/base/config.h"
#include "relay/intake/access.h"
#include "relay/intake/registry.h"

#define API_DEVICE_RANGES  20 /* of its section that are named */
#define API_DEVICE_DOMAINS 50

struct api_device {
    const char *name;
    const struct registry_device *seen;  /* NULL: never */
    const struct config_device *section; /* NULL: known by its address alone */
};

const char *api_device_state(const struct api_device *d);
/* Somebody should look at it. */
bool api_device_needs_attention(const struct api_device *d);

cJSON *api_device_entry(const struct api_device *d, const struct api_times *times);
/* rules: what applies to it today. */
cJSON *api_device_whole(const struct api_device *d, const struct access *rules,
                        const struct api_times *times);
/* {"devices": [...]} and, when there are more, "next": the name to give as `after`. Takes devices,
 * also on failure. */
cJSON *api_device_page(cJSON *devices, const char *next_or_null);
/* {"name": ..., "transcripts": [{"ended": ..., "age": ..., "text": ...}, ...]} */
cJSON *api_device_transcripts(const char *name, const struct registry_transcript *list, size_t n,
                              const struct api_times *times);

#endif
