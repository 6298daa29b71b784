/*
 * `outtray check`: reads the configuration, tells every mistake at once, tries what is cheap to try
 * (the spool, passwords, authorities) as the user that the daemon becomes, and says what it will
 * do.
 */
#ifndef OUTTRAY_RELAY_TOOL_CHECK_H
#define OUTTRAY_RELAY_TOOL_CHECK_H

#include "relay/tool/tool.h"

/* EX_OK or EX_CONFIG. Run as root it becomes the configured user, for good. */
int check_run(const struct tool *t);

#endif
