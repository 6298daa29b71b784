/*
 * The devices' own passwords: a file of hashes (crypt(3), yescrypt).
 *
 * One line per device, "NAME:HASH"; other lines (empty ones, # comments) are left as they are. The
 * daemon reads the file at each check, so a new password counts at once. It is replaced as a whole
 * and durably. The service's own password never goes into a printer: these are short enough to be
 * typed at one.
 *
 * Everything here blocks, and a check takes a processor for some hundredths of a second and
 * 8 MB: never on the loop. Safe to call from any thread.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_PASSWORDS_H
#define OUTTRAY_RELAY_SIGNIN_PASSWORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "queue/error.h"

#define PASSWORDS_LENGTH   10 /* characters of those we make: 49 bits */
#define PASSWORDS_MIN      6  /* of those that a person chooses */
#define PASSWORDS_MAX      64
#define PASSWORDS_FILE_MAX ((size_t)1024 * 1024)

enum passwords_result {
    PASSWORDS_RIGHT,
    PASSWORDS_WRONG,
    PASSWORDS_NONE,  /* the device has no password */
    PASSWORDS_FAILED /* the file cannot be used; err says why */
};

/* Takes as long for a device without a password as for any other. A missing file has none. */
enum passwords_result passwords_check(const char *file, const char *device, const char *password,
                                      struct error *err);

/* A new password of characters that cannot be mistaken for others and are on every keypad. */
bool passwords_make(char out[PASSWORDS_LENGTH + 1], struct error *err);
/* True for what a person may choose; else err says what is wrong. */
bool passwords_is_fit(const char *password, struct error *err);
/* Replaces or adds the device's line. A new file has mode 0640 and, when we are root, this group.
 */
bool passwords_set(const char *file, const char *device, const char *password, gid_t group,
                   struct error *err);

#endif
