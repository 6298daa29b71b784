/*
 * Where the daemon's socket and its spool are: from the command line, else the configuration, else
 * the defaults. A configuration that is missing, unreadable or wrong does not stop the tool from
 * reaching a daemon that runs, unless its file was named with -c.
 */
#ifndef OUTTRAY_RELAY_TOOL_PLACES_H
#define OUTTRAY_RELAY_TOOL_PLACES_H

#include <stdbool.h>

#include "relay/tool/tool.h"

struct places {
    char *socket;
    char *spool;
    bool guessed; /* the configuration could not be used */
};

/* False after writing the mistakes of a file named with -c. */
bool places_find(const struct tool *t, struct places *out_places);
void places_done(struct places *p);

#endif
