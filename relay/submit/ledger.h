/*
 * The ledger: what is known of each mailbox, across restarts.
 *
 * Its budget, its pause and what led to it, and what its upstream has taught. It is read before the
 * first connection is made. Then a mailbox is written when its use begins and when it ends, every
 * BUDGET_SAVE_MS in between, and at once for what must not be forgotten: a pause or wait that
 * begins or ends, a lesson, many recipients. So a process that is killed leaves an account that is
 * a few seconds old, and the next start recognises whether a mailbox was in use then.
 *
 *  - A pause goes on after a restart: the mailbox is not tried before its time, unless its password
 *    has changed. Of the password only 16 bits of a keyed hash are kept: enough to see a change, of
 *    no use for guessing. A wait of another kind is tried at once, and goes on when that fails.
 *  - A mailbox that was in use begins on the budget's safe side; so do all after the file was
 *    damaged or could not be read. Where there is no file, nothing was sent, unless mail that
 *    waits has been tried.
 *
 * Losing the file loses no mail: a damaged one is set aside and written anew; one that cannot be
 * opened or written leaves the ledger in memory until it can; one of a newer program is left alone.
 * Each is told in the log once. Nothing waits for it: writing is done by the executor, one job at a
 * time.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_LEDGER_H
#define OUTTRAY_RELAY_SUBMIT_LEDGER_H

#include <stddef.h>
#include <stdint.h>

#include "queue/executor.h"
#include "relay/submit/mailbox.h"

struct ledger;

struct ledger_settings {
    struct executor executor; /* the database's thread */
    const char *file;
    struct mailbox *mailboxes; /* new; borrowed until the ledger is closed */
    size_t count;
    const struct queue *queue; /* tells whether mail was tried before; NULL: none was */
};

/* Opens the file and gives each mailbox what is known of it; blocks, for it is called before the
 * loop runs. NULL without memory only. */
struct ledger *ledger_open(const struct ledger_settings *settings, uint64_t now_ms,
                           uint64_t wall_ms);
/* Writes what must be written now. Cheap to call often; about once a second at least. Accepts
 * NULL. */
void ledger_look(struct ledger *l, uint64_t now_ms, uint64_t wall_ms);
/* Writes everything, itself, as the account of a clean stop: nothing of a mailbox is used any more.
 * Jobs under way must have been delivered (work_drain()). Accepts NULL. */
void ledger_close(struct ledger *l, uint64_t now_ms, uint64_t wall_ms);

#endif
