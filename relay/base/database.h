/*
 * A small SQLite database: everything of the library is in database.c. For what may be lost without
 * losing mail: the registry of devices, budgets, history.
 *
 * Calls block; they belong on the thread that the executor of the owner gives them. One thread at a
 * time. Statements are text with ?1, ?2 ... and values; rows come by callback. Memory is kept small
 * (DATABASE_CACHE_KB of pages); nothing is mapped, and nobody else can use the file meanwhile.
 */
#ifndef OUTTRAY_RELAY_BASE_DATABASE_H
#define OUTTRAY_RELAY_BASE_DATABASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"

#define DATABASE_CACHE_KB       128
#define DATABASE_WAIT_MS        500 /* for another program that holds the file */
#define DATABASE_COLUMNS_MAX    32  /* of a row */
#define DATABASE_STATEMENTS_MAX 24  /* that are kept prepared */

struct database;

/* Opens or makes the file (mode 0600) and brings its tables up to date: `steps` are scripts, of
 * which those behind the stored version are run, each in a transaction. A file that is no sound
 * database is set aside as FILE.damaged (replacing an older one) and made anew; out_set_aside says
 * so. ERROR_IO and its like when that cannot be done either; ERROR_INVALID when the file is of a
 * newer program. Where the file is damaged further in is found out later, see database_run(). */
struct database *database_open(const char *file, const char *const *steps, size_t step_count,
                               bool *out_set_aside, struct error *err);
/* Accepts NULL. True when damage was found, and the file has been set aside: the next
 * database_open() makes it anew. */
bool database_close(struct database *d);

enum database_kind { DATABASE_NULL, DATABASE_NUMBER, DATABASE_TEXT };
struct database_value {
    enum database_kind kind;
    int64_t number;
    const char *text; /* never NULL when the kind is DATABASE_TEXT; borrowed */
};
#define DATABASE_N(n) ((struct database_value){.kind = DATABASE_NUMBER, .number = (int64_t)(n)})
#define DATABASE_T(t) ((struct database_value){.kind = DATABASE_TEXT, .text = (t)})

/* Returns false to stop. Values are valid during the call. */
typedef bool database_row_fn(void *ctx, const struct database_value *columns, size_t n);

/* Runs one statement; row may be NULL. Statements are kept prepared by their text's address, which
 * must be a constant. ERROR_DAMAGED when the file turns out to be damaged: close it. */
bool database_run(struct database *d, const char *sql, const struct database_value *values,
                  size_t value_count, database_row_fn *row, void *ctx, struct error *err);
/* ERROR_MISSING when the file was removed or replaced since it was opened: close it, too. */
bool database_begin(struct database *d, struct error *err);
/* Ends the transaction: kept when it returns true, undone when false. What was kept survives the
 * end of the program however it comes; a loss of power may take the newest transactions, whole. */
bool database_commit(struct database *d, struct error *err);
void database_rollback(struct database *d);
/* Nothing is to do for a while: gives back what memory can be had again when it is needed, which is
 * the cache and, more than a megabyte of it, the library's code. Costs the next call less than a
 * millisecond. Accepts NULL. */
void database_rest(struct database *d);

#endif
