/*
 * Root, and how we stop being it.
 *
 * Started as root, outtrayd binds its ports, makes the directories it needs for the configured user
 * and becomes that user for good. Started as anybody else, all of this does nothing.
 */
#ifndef OUTTRAY_RELAY_BASE_PRIVILEGES_H
#define OUTTRAY_RELAY_BASE_PRIVILEGES_H

#include <stdbool.h>

#include "queue/error.h"

/* No core files, no ptrace by others of our user: what we hold includes passwords. */
void privileges_guard_memory(void);

/* Makes the directory (0750) for the user when it does not exist. As root only. ERROR_INVALID when
 * there is no such user. */
bool privileges_own_directory(const char *user, const char *path, struct error *err);
/* The same for the directory that the file is in; an existing one is left alone. */
bool privileges_own_parent(const char *user, const char *file, struct error *err);

/* Becomes the user: groups, ids, no way back, no new privileges. "" stays. */
bool privileges_drop(const char *user, struct error *err);

#endif
