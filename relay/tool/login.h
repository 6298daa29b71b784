/*
 * outtray login: a person signs in for a mailbox, with a code on any computer, or in a browser on
 * this one. The daemon does the asking and keeps the tokens; this shows where to go and waits.
 */
#ifndef OUTTRAY_RELAY_TOOL_LOGIN_H
#define OUTTRAY_RELAY_TOOL_LOGIN_H

#include "relay/tool/tool.h"

int login_run(const struct tool *t);

#endif
