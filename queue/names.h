/*
 * Strings kept once. A name stays at its address until names_done(). Pure.
 */
#ifndef OUTTRAY_QUEUE_NAMES_H
#define OUTTRAY_QUEUE_NAMES_H

#include <stddef.h>

struct names {
    char **slots; /* open addressing; a power of two */
    size_t cap;
    size_t count;
};

void names_init(struct names *n);
void names_done(struct names *n);
/* The one copy of this text. NULL without memory. */
const char *names_keep(struct names *n, const char *text);

#endif
