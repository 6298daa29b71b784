/*
 * An error on its way up to the one place that reports it.
 *
 * Library code never logs: it fills a struct error and returns false (or NULL). Each caller may
 * put its own context in front, so that the text reads from the outside in:
 * "commit 4f2a: sync journal/0000000000000003.seg: No space left on device".
 * The struct owns its text in place; there is nothing to free and nothing here can fail.
 */
#ifndef OUTTRAY_QUEUE_ERROR_H
#define OUTTRAY_QUEUE_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#define ERROR_TEXT_MAX 512 /* longer texts are cut, never overrun */

/* What went wrong, as far as a caller can act on it. */
enum error_kind {
    ERROR_NONE = 0,
    ERROR_IO,       /* a system call failed; errnum says how */
    ERROR_NO_ROOM,  /* disk budget, descriptors or memory; may pass by itself */
    ERROR_DAMAGED,  /* stored bytes do not verify */
    ERROR_BUSY,     /* somebody else holds it */
    ERROR_MISSING,  /* no such message, file or key */
    ERROR_INVALID,  /* the caller's or a person's input is wrong */
    ERROR_LIMIT,    /* a named limit was reached */
    ERROR_SHARE,    /* one device's part of the room is used up, others' is not */
    ERROR_UNTRUSTED /* a peer did not prove who it is */
};

struct error {
    enum error_kind kind;
    int errnum; /* errno, or 0 */
    char text[ERROR_TEXT_MAX];
};

#define ERROR_INIT                                                                                 \
    {                                                                                              \
        .kind = ERROR_NONE, .errnum = 0, .text = ""                                                \
    }

/* Sets kind and text. Accepts a NULL err and then does nothing. Always returns false, so that
 * "return error_set(...)" reads well. */
bool error_set(struct error *err, enum error_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As error_set(), of kind ERROR_IO (ERROR_NO_ROOM for ENOSPC, EDQUOT, EMFILE, ENFILE, ENOMEM), with
 * ": " and strerror(errnum) appended. */
bool error_errno(struct error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<context>: " in front of the text. Returns false. */
bool error_wrap(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void error_clear(struct error *err);

/* The lower-case name of a kind, for logs and JSON: "io", "no_room", ... Never NULL. */
const char *error_kind_name(enum error_kind kind);

#endif
