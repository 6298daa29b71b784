#include "relay/base/quiet.h"

bool quiet_may_tell(struct quiet *q, uint64_t now_ms, uint64_t *out_held)
{
    if (q->told == 0 || now_ms - q->began_ms >= QUIET_PERIOD_MS) {
        q->began_ms = now_ms;
        q->told = 0;
    }
    if (q->told >= QUIET_LINES) {
        q->held++;
        return false;
    }
    q->told++;
    *out_held = q->held;
    q->held = 0;
    return true;
}
