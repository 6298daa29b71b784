/*
 * The clock, an object that is passed to whoever needs the time.
 *
 * Monotonic ms drive every timer and schedule; wall ms are for people and headers only. Both are
 * read when asked for (some 20 ns each), because a time that was read earlier and passed around
 * breaks cause and effect. Pure modules never see the clock: they are given the time as an
 * argument. clock_advance() moves both forward, clock_step_wall() the wall clock alone: tests use
 * them to let days pass, and to set the clock.
 */
#ifndef OUTTRAY_RELAY_BASE_CLOCK_H
#define OUTTRAY_RELAY_BASE_CLOCK_H

#include <stdint.h>

struct clock {
    uint64_t offset_ms;     /* that clock_advance() has added */
    int64_t wall_offset_ms; /* that clock_step_wall() has added */
};

void clock_init(struct clock *c);
uint64_t clock_now_ms(const struct clock *c);  /* monotonic; never goes back */
uint64_t clock_wall_ms(const struct clock *c); /* since 1970 */
/* Moves the clock forward by ms, at once and for good. */
void clock_advance(struct clock *c, uint64_t ms);
/* Sets the wall clock forward, or back. */
void clock_step_wall(struct clock *c, int64_t ms);

#endif
