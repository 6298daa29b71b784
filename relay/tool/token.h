/*
 * outtray token and outtray report sign-in: what a mailbox's access token says, and who still
 * depends on a password.
 */
#ifndef OUTTRAY_RELAY_TOOL_TOKEN_H
#define OUTTRAY_RELAY_TOOL_TOKEN_H

#include "relay/tool/tool.h"

int token_run(const struct tool *t);
int token_report(const struct tool *t);

#endif
