/*
 * `outtray devices` and `outtray device NAME`. Each returns its exit code, all said.
 */
#ifndef OUTTRAY_RELAY_TOOL_DEVICES_H
#define OUTTRAY_RELAY_TOOL_DEVICES_H

#include "relay/tool/tool.h"

int devices_list(const struct tool *t);
int devices_one(const struct tool *t);

#endif
