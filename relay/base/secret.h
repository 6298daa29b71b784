/*
 * Secrets: read from where the operator keeps them, held in one place, wiped when dropped.
 *
 * A secret comes from a file (owned by root or by us, of no use to others; its group may read it
 * when it is one of ours), from a systemd credential (the file NAME in $CREDENTIALS_DIRECTORY) or
 * from the environment. A leading byte-order mark and trailing line ends are cut; what is left is 1
 * to SECRET_MAX octets without a NUL. The bytes live in locked memory where the system allows it
 * and are never logged. A password is one line.
 */
#ifndef OUTTRAY_RELAY_BASE_SECRET_H
#define OUTTRAY_RELAY_BASE_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#include "queue/error.h"

#define SECRET_MAX 16384

struct secret;

/* The password of a mailbox: `file` when not "", else the credential "MAILBOX.password", else the
 * environment variable OUTTRAY_PASSWORD_MAILBOX (the name in capitals, anything but letters and
 * digits as '_'). NULL with a text that says what was looked for, and the command that mends it. */
struct secret *secret_of_mailbox(const char *mailbox, const char *file, struct error *err);
/* A secret that is always in a file, such as a private key. */
struct secret *secret_from_file(const char *file, struct error *err);
/* One that is a single line, such as a password; more lines are refused. */
struct secret *secret_line_from_file(const char *file, struct error *err);
/* True for an open file that only root, we, and a group of ours can use; else err says what to run.
 */
bool secret_check_file(int fd, const char *file, struct error *err);
struct secret *secret_from_text(const char *text, size_t len, struct error *err);
/* Valid until freed; NUL-terminated. */
const char *secret_text(const struct secret *s);
size_t secret_length(const struct secret *s);
bool secret_equal(const struct secret *a, const struct secret *b); /* accept NULL: of nothing */
void secret_free(struct secret *s);                                /* accepts NULL */

#endif
