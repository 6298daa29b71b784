/*
 * `outtray spool check | stats | export DIR`: the queue on disk, with the daemon or without it.
 */
#ifndef OUTTRAY_RELAY_TOOL_SPOOL_H
#define OUTTRAY_RELAY_TOOL_SPOOL_H

#include "relay/tool/tool.h"

int spool_run(const struct tool *t);

#endif
