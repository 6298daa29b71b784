/*
 * What stands behind the "?" of a request; private to the API. False when it makes no sense, all
 * answered.
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_QUERY_H
#define OUTTRAY_RELAY_ADMIN_API_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "relay/admin/api_call.h"

/* From min to max; `fallback` when it is absent. */
bool query_number(struct api_call *c, const char *key, uint64_t fallback, uint64_t min,
                  uint64_t max, uint64_t *out);
/* Entries of a page: "limit". */
bool query_limit(struct api_call *c, uint32_t *out);
/* A message id; 0 when it is absent. */
bool query_id(struct api_call *c, const char *key, uint64_t *out);
/* A text, decoded; "" when it is absent. */
bool query_text(struct api_call *c, const char *key, char *out, size_t size);

#endif
