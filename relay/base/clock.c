#include "relay/base/clock.h"

#include <time.h>

static uint64_t read_ms(clockid_t id)
{
    struct timespec ts = {0, 0};
    (void)clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void clock_init(struct clock *c)
{
    *c = (struct clock){.offset_ms = 0};
}

uint64_t clock_now_ms(const struct clock *c)
{
    return read_ms(CLOCK_MONOTONIC) + c->offset_ms;
}

uint64_t clock_wall_ms(const struct clock *c)
{
    return read_ms(CLOCK_REALTIME) + c->offset_ms + (uint64_t)c->wall_offset_ms;
}

void clock_advance(struct clock *c, uint64_t ms)
{
    c->offset_ms += ms;
}

void clock_step_wall(struct clock *c, int64_t ms)
{
    c->wall_offset_ms += ms;
}
