/*
 * The quirks that devices show on the wire, by name. Pure.
 *
 * A quirk is something that a device does and that was put right or put up with. Those of a
 * message's content are named by who repairs it (smtp/repair.h, smtp/maildata.h, smtp/mime.h) and
 * stand in the envelope's `repairs`; those of the session are noted by server_fsm and session. Both
 * end here, in the set that the registry keeps for each device. A set is stored as names, so that a
 * quirk may move or go.
 */
#ifndef OUTTRAY_RELAY_INTAKE_QUIRKS_H
#define OUTTRAY_RELAY_INTAKE_QUIRKS_H

#include <stddef.h>
#include <stdint.h>

#define QUIRKS_TEXT_MAX 2048 /* of all names, with NUL */

typedef uint64_t quirks; /* a bit for each */

/* Those of the session; the rows of quirks.c hold these and all the repairs, 64 at most. */
enum quirk {
    QUIRK_BARE_LF_COMMANDS, /* commands end in LF */
    QUIRK_TALKS_FIRST,      /* did not wait for the greeting */
    QUIRK_HELO_EMPTY,       /* HELO or EHLO without a name */
    QUIRK_HELO_ODD,         /* ... with one that is no domain name or address literal */
    QUIRK_NO_HELO,          /* MAIL first */
    QUIRK_SECOND_MAIL,      /* MAIL within a transaction */
    QUIRK_NO_BRACKETS,      /* paths without angle brackets */
    QUIRK_SPACE_IN_PATH,    /* a space behind "FROM:" or "TO:" */
    QUIRK_UNKNOWN_PARAMETER,
    QUIRK_EMPTY_LINES, /* between commands */
    QUIRK_UNKNOWN_COMMAND,
    QUIRK_SIZE_WRONG, /* SIZE= was far less than what came */
    QUIRK_DUPLICATE_RECIPIENT,
    QUIRK_LOGIN_IGNORED, /* signed in with something that is nobody's (auth = any) */
    QUIRK_NO_QUIT,       /* hung up behind its mail */
    QUIRK_TLS_FIRST,     /* TLS hello on a port with a greeting */
    QUIRK_TLS_LATE,      /* ... after the greeting */
    QUIRK_TLS_FAILED,    /* a handshake failed */
    QUIRK_TLS_1_0,
    QUIRK_TLS_1_1,
    QUIRK_SESSION_COUNT
};

#define QUIRK_BIT(q) ((quirks)1 << (q))

/* The number of rows; their numbers are 0 up to that. */
size_t quirks_count(void);
/* "bare_lf_commands"; never NULL for a row. */
const char *quirk_name(size_t quirk);
/* What it means, in a few words for a person. */
const char *quirk_words(size_t quirk);
/* What can be done about it at the device, menus of makers included, or "" when nothing need be. */
const char *quirk_remedy(size_t quirk);

/* Of a comma-separated list of names, such as an envelope's repairs; unknown names are left out. */
quirks quirks_of_names(const char *names);
/* The names, comma-separated, in the order of the rows. */
void quirks_names(quirks set, char out[QUIRKS_TEXT_MAX]);

#endif
