#include "relay/base/quiet.h"

static bool may_tell(struct quiet *q, uint32_t lines, uint64_t now_ms, uint64_t *out_held)
{
    if (q->told == 0 || now_ms - q->began_ms >= QUIET_PERIOD_MS) {
        q->began_ms = now_ms;
        q->told = 0;
    }
    if (q->told >= lines) {
        q->held++;
        return false;
    }
    q->told++;
    *out_held = q->held;
    q->held = 0;
    return true;
}

bool quiet_may_tell(struct quiet *q, uint64_t now_ms, uint64_t *out_held)
{
    return may_tell(q, QUIET_LINES, now_ms, out_held);
}

bool quiet_may_tell_once(struct quiet *q, uint64_t now_ms, uint64_t *out_held)
{
    return may_tell(q, 1, now_ms, out_held);
}
