/*
 * What the ledger keeps on disk: the table, and the way in and out of it.
 *
 * Every call blocks; they belong on the database's thread. What was committed survives a loss of
 * power. A file that proves to be damaged is set aside by whoever finds it, and the store is gone
 * then: open it anew.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_LEDGER_STORE_H
#define OUTTRAY_RELAY_SUBMIT_LEDGER_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "queue/error.h"
#include "relay/base/config.h"
#include "relay/base/siphash.h"
#include "relay/smtp/reply.h"

struct database; /* relay/base/database.h */

#define LEDGER_BOOT_MAX    40
#define LEDGER_STATE_MAX   16
#define LEDGER_VERDICT_MAX 64
#define LEDGER_NO_SECRET   (-1)

/* A mailbox as it was when it was saved. Times to come are what was left of them, so that no step
 * of the wall clock makes them longer. */
struct ledger_row {
    struct ledger_row *next;
    char name[CONFIG_NAME_MAX + 1];
    char *budget;               /* budget_save() */
    bool at_rest;               /* nothing of the budget was in use, nor has been since */
    char boot[LEDGER_BOOT_MAX]; /* of the system that saved_ms belongs to */
    uint64_t saved_ms;          /* monotonic */
    uint64_t saved_wall_ms;
    char state[LEDGER_STATE_MAX]; /* mailbox_state_name() */
    uint64_t wait_ms;             /* left of it */
    uint64_t lasting_ms;          /* how long it has been in trouble */
    uint32_t troubles;
    int32_t secret; /* fingerprint of the one tried last */
    char last_verdict[LEDGER_VERDICT_MAX];
    char problem[REPLY_TEXT_MAX];
    char remedy[REPLY_TEXT_MAX];
    char last_reply[REPLY_TEXT_MAX];
    uint64_t configured_size;
    uint64_t max_size;   /* taught */
    uint64_t size_ms;    /* for how long it still holds; 0 = it was not taught */
    uint64_t no_bdat_ms; /* the same of a refusal of BDAT */
    uint64_t success_wall_ms;
};

void ledger_rows_free(struct ledger_row *list); /* accepts NULL */

/* Opens the file and reads all rows and the key of the fingerprints, which is made when there is
 * none. With damage no row is known, and *out_set_aside says so. */
bool ledger_store_open(const char *file, struct database **out_store, struct ledger_row **out_list,
                       uint8_t out_key[SIPHASH_KEY], bool *out_set_aside, struct error *err);
/* Writes each row in place of the one of its name: all or nothing. */
bool ledger_store_write(struct database *store, const struct ledger_row *list, struct error *err);

#endif
