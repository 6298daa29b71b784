/*
 * What one run of `outtray` was asked to do, and how it ends: exit codes are those of sysexits.h.
 */
#ifndef OUTTRAY_RELAY_TOOL_TOOL_H
#define OUTTRAY_RELAY_TOOL_TOOL_H

#include <stdbool.h>
#include <stdio.h>

#include "queue/error.h"

struct tool {
    const char *config_file;
    bool config_given;  /* by -c; else it is the default and may be missing */
    const char *socket; /* by --socket, or NULL */
    bool json;
    bool all;
    const char *output;   /* by -o, or NULL */
    const char *argument; /* the message or mailbox, or NULL */
    FILE *out;
    FILE *err;
};

/* Writes "outtray: TEXT" for people and returns the exit code that fits. */
int tool_fail(const struct tool *t, const struct error *err);
/* The exit code of an error alone. */
int tool_exit_code(enum error_kind kind);

#endif
