/*
 * `outtray spool export DIR`: saves every message into a directory, for a person or another system.
 *
 * Of message 4f2a: 4f2a.eml, its mail data as it was accepted, and 4f2a.txt, its envelope in words.
 * What is damaged is called 4f2a.damaged.eml: as far as it can be read, zeros for the rest. What
 * the spool has set aside goes to set-aside/ below the directory. No file is ever written over:
 * what is there already is named and left, and everything else goes on.
 */
#ifndef OUTTRAY_RELAY_TOOL_SPOOL_EXPORT_H
#define OUTTRAY_RELAY_TOOL_SPOOL_EXPORT_H

#include "relay/tool/tool.h"

/* EX_OK, EX_DATAERR when something was damaged, EX_CANTCREAT when a file could not be made. */
int spool_export(const struct tool *t, const char *directory);

#endif
