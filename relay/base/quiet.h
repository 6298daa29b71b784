/*
 * Log lines that others can cause at will: so many in a period, then none until the next. Pure.
 *
 * The first line of a new period tells how many were held back before it.
 */
#ifndef OUTTRAY_RELAY_BASE_QUIET_H
#define OUTTRAY_RELAY_BASE_QUIET_H

#include <stdbool.h>
#include <stdint.h>

#define QUIET_LINES     10
#define QUIET_PERIOD_MS UINT64_C(60000)

/* All zero to begin with. */
struct quiet {
    uint64_t began_ms;
    uint32_t told; /* in this period */
    uint64_t held; /* since the last line that was told */
};

/* True when a line may be written now; then *out_held is how many were not before it. */
bool quiet_may_tell(struct quiet *q, uint64_t now_ms, uint64_t *out_held);
/* The same with one line in a period. */
bool quiet_may_tell_once(struct quiet *q, uint64_t now_ms, uint64_t *out_held);

#endif
