/*
 * Command lines: verb, argument, path and ESMTP parameters. Pure; borrows from the line.
 *
 * Verbs and keywords are recognised in any case, with spaces before and behind. Parameters that we
 * do not know, or whose value is not what its RFC asks for, are counted as ignored and cost
 * nothing: devices send some that nobody announced. One exception: a BODY that we could not carry
 * is a problem.
 */
#ifndef OUTTRAY_RELAY_SMTP_COMMAND_H
#define OUTTRAY_RELAY_SMTP_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COMMAND_IGNORED_MAX 8   /* names kept of ignored parameters */
#define COMMAND_ENVID_MAX   100 /* RFC 3461 4.4 */
#define COMMAND_ORCPT_MAX   500 /* RFC 3461 4.2 */

enum command_verb {
    COMMAND_UNKNOWN,
    COMMAND_EHLO,
    COMMAND_HELO,
    COMMAND_MAIL,
    COMMAND_RCPT,
    COMMAND_DATA,
    COMMAND_RSET,
    COMMAND_NOOP,
    COMMAND_VRFY,
    COMMAND_HELP,
    COMMAND_QUIT,
    COMMAND_EXPN,
    COMMAND_ETRN,
    COMMAND_TURN,
    COMMAND_AUTH,
    COMMAND_STARTTLS,
    COMMAND_BDAT,
    COMMAND_SEND, /* SEND, SOML, SAML */
    COMMAND_HTTP, /* a request line or header field: somebody drives a browser at us */
    COMMAND_COUNT
};

/* Octets of the line. */
struct command_text {
    const char *p;
    size_t len;
};

struct command {
    enum command_verb verb;
    struct command_text argument; /* without spaces around it */
};

/* Reads a line without its line end. */
void command_parse(const char *line, size_t len, struct command *out_command);
const char *command_verb_name(enum command_verb verb);

/* "FROM:<path> parameters" or "TO:<path> parameters"; the colon may be missing or have spaces
 * around it. False when the keyword is not there. */
bool command_split_path(struct command_text argument, const char *keyword,
                        struct command_text *out_path, struct command_text *out_parameters);

enum command_body { COMMAND_BODY_NONE, COMMAND_BODY_7BIT, COMMAND_BODY_8BITMIME };

/* Absent texts have len 0. */
struct command_parameters {
    bool has_size;
    bool smtputf8;
    bool has_auth;
    bool has_priority;
    int priority;  /* RFC 6710: -9 to 9 */
    uint64_t size; /* UINT64_MAX when it is larger still */
    enum command_body body;
    struct command_text ret;   /* FULL or HDRS, in any case */
    struct command_text envid; /* xtext */
    struct command_text notify;
    struct command_text orcpt;                        /* address type and xtext */
    struct command_text ignored[COMMAND_IGNORED_MAX]; /* names */
    size_t ignored_count;                             /* may be more than are kept */
};

/* Reads the parameters of MAIL (SIZE, BODY, SMTPUTF8, AUTH, RET, ENVID, MT-PRIORITY) or RCPT
 * (NOTIFY, ORCPT).
 * False when one of them cannot be served; then *out_problem is a phrase for the reply, a constant.
 */
bool command_parameters(struct command_text text, enum command_verb verb,
                        struct command_parameters *out_parameters, const char **out_problem);

/* Reads what stands behind BDAT (RFC 3030 2): a number of octets, and LAST or nothing. */
bool command_chunk(struct command_text argument, uint64_t *out_octets, bool *out_last);
/* Takes the first word, and leaves what stands behind it without spaces around it. */
struct command_text command_word(struct command_text *text);

#endif
