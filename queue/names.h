/*
 * Strings kept once, each with a number of its user's. A name stays at its address until
 * names_done(). Beyond NAMES_MAX all new ones share one, for whoever has an IPv6 network to himself
 * can invent any number. Pure.
 */
#ifndef OUTTRAY_QUEUE_NAMES_H
#define OUTTRAY_QUEUE_NAMES_H

#include <stddef.h>
#include <stdint.h>

#define NAMES_MAX    65536
#define NAMES_OTHERS "(others)"

struct name {
    uint64_t number; /* 0 at first; the user's */
    char text[];
};

struct names {
    struct name **slots; /* open addressing; a power of two */
    size_t cap;
    size_t count;
};

void names_init(struct names *n);
void names_done(struct names *n);
/* The one copy of this text, or of NAMES_OTHERS. NULL without memory. */
struct name *names_keep(struct names *n, const char *text);
/* NULL when it is not kept. */
const struct name *names_find(const struct names *n, const char *text);

#endif
