/*
 * `outtray explain REPLY` and `outtray replies`. Each returns its exit code, all said.
 */
#ifndef OUTTRAY_RELAY_TOOL_REPLIES_H
#define OUTTRAY_RELAY_TOOL_REPLIES_H

#include "relay/tool/tool.h"

/* What the daemon would make of a reply; asks nobody. */
int replies_explain(const struct tool *t);
/* Those that no verdict knows; asks the daemon. */
int replies_list(const struct tool *t);

#endif
