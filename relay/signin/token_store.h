/*
 * The tokens' file: what a sign-in holds, so that a restart needs neither the token service nor a
 * person.
 *
 * One file, <spool>/tokens, mode 0600, ours. It is replaced durably: written beside, synced,
 * renamed, and its directory synced, by the executor; a put is answered once a file with it is on
 * disk. The format carries a version. With a key (systemd credential "outtray-token-key", 32
 * characters at least) the content is sealed with AES-256-GCM; else a checksum guards it.
 *
 * A file that is damaged is set aside under another name, never deleted. One that cannot be used
 * for now (sealed, and the key is missing or another one; or owned or readable by others) is left
 * alone: then nothing is written, until a person signs in again, which sets it aside.
 *
 * Names are the sign-ins' own. All secrets are wiped when dropped. OpenSSL lives in token_store.c.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_TOKEN_STORE_H
#define OUTTRAY_RELAY_SIGNIN_TOKEN_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"
#include "queue/executor.h"
#include "queue/fileops.h"

#define TOKEN_STORE_FILE       "tokens"
#define TOKEN_STORE_CREDENTIAL "outtray-token-key"
#define TOKEN_STORE_KEY_MIN    32
#define TOKEN_STORE_ENTRIES    1024
#define TOKEN_STORE_NAME_MAX   4096
#define TOKEN_STORE_MAX        ((size_t)32 * 1024 * 1024)

struct token_store;

enum token_store_found {
    TOKEN_STORE_NONE,    /* there is no file yet */
    TOKEN_STORE_READ,    /* all is well */
    TOKEN_STORE_DAMAGED, /* set aside; begun anew */
    TOKEN_STORE_LOCKED   /* it cannot be used as things are; left alone */
};

/* Wall times in seconds, 0 = not known. Absent tokens are "". */
struct token_record {
    const char *access;
    uint64_t ends_s;
    uint32_t life_s; /* of access, when it was new */
    const char *refresh;
    uint64_t login_s; /* when a person signed in */
    uint64_t used_s;  /* when refresh was used last */
};

struct token_store_options {
    const char *directory; /* the spool's */
    struct executor executor;
    const struct fileops *ops; /* for writing; NULL = fileops_system */
    uint64_t wall_s;           /* for the name of what is set aside */
};

/* Reads the file, blocking: for the start. NULL only without memory, or when the key is unfit;
 * *out_found and, when it is not NONE or READ, err tell the rest. */
struct token_store *token_store_open(const struct token_store_options *options,
                                     enum token_store_found *out_found, struct error *err);
/* No write may be under way: drain the executor first. Accepts NULL. */
void token_store_close(struct token_store *s);
bool token_store_is_sealed(const struct token_store *s); /* there is a key */

/* False when there is none of that name. What it points to is valid until the next put. */
bool token_store_find(const struct token_store *s, const char *name, struct token_record *out);

/* err is NULL when it is durable. */
typedef void token_store_stored(void *ctx, const struct error *err);

/* Replaces what is there of that name; a NULL record removes it. `signed_in`: a person has just
 * signed in, so a locked file is set aside. stored() is called from the loop, never from within.
 * False without memory: then nothing has changed and nothing is called. */
bool token_store_put(struct token_store *s, const char *name, const struct token_record *record,
                     bool signed_in, token_store_stored *stored, void *ctx);

#endif
