/*
 * The commands that talk to the daemon or read the spool. Each returns its exit code, all said.
 */
#ifndef OUTTRAY_RELAY_TOOL_COMMANDS_H
#define OUTTRAY_RELAY_TOOL_COMMANDS_H

#include "relay/tool/tool.h"

int command_status(const struct tool *t);
int command_queue(const struct tool *t);
int command_dead(const struct tool *t);
int command_requeue(const struct tool *t);
int command_show(const struct tool *t);
int command_retry(const struct tool *t);
int command_delete(const struct tool *t);
int command_export(const struct tool *t);
int command_resume(const struct tool *t);

#endif
