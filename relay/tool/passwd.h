/*
 * `outtray passwd DEVICE`: a new password for a device to sign in with, made here and printed once,
 * or read from the standard input. Needs no daemon; the daemon takes it at once.
 */
#ifndef OUTTRAY_RELAY_TOOL_PASSWD_H
#define OUTTRAY_RELAY_TOOL_PASSWD_H

#include "relay/tool/tool.h"

int passwd_run(const struct tool *t);

#endif
