/*
 * What one run of `outtray` was asked to do, and how it ends: exit codes are those of sysexits.h.
 */
#ifndef OUTTRAY_RELAY_TOOL_TOOL_H
#define OUTTRAY_RELAY_TOOL_TOOL_H

#include <stdbool.h>
#include <stdio.h>

#include <cjson/cJSON.h>

#include "queue/error.h"

struct tool {
    const char *config_file;
    bool config_given;  /* by -c; else it is the default and may be missing */
    const char *socket; /* by --socket, or NULL */
    bool json;
    bool all;
    bool all_dead;     /* by --all-dead */
    bool unknown;      /* by --unknown */
    const char *stage; /* by --stage, or NULL */
    bool from_stdin;   /* by --stdin */
    bool force;
    bool transcript;
    bool forget;
    bool browser;         /* by --browser */
    const char *output;   /* by -o, or NULL */
    const char *argument; /* the message, mailbox or device, or NULL */
    char *const *words;   /* of a command that takes several: all behind its name */
    int word_count;
    FILE *in;
    FILE *out;
    FILE *err;
};

/* Writes "outtray: TEXT" for people, with --json the API's {"error": ...} as well, and returns the
 * exit code that fits. */
int tool_fail(const struct tool *t, const struct error *err);
/* The JSON alone, and only with --json: for errors that were told in other words. */
void tool_error_json(const struct tool *t, enum error_kind kind, const char *text);
/* Writes the tree, which may be NULL: memory was out. Returns the exit code. */
int tool_print_json(const struct tool *t, const cJSON *json);
/* The exit code of an error alone. */
int tool_exit_code(enum error_kind kind);

#endif
