/* Random numbers for jitter. Not for secrets. */
#ifndef OUTTRAY_RELAY_BASE_RANDOM_H
#define OUTTRAY_RELAY_BASE_RANDOM_H

#include <stdint.h>

/* 0 when the system has none to give, which is as good a jitter as any. */
uint32_t random_draw(void);

#endif
