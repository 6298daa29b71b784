#include "relay/submit/ledger_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "relay/base/database.h"

#define KEY_TEXT (2 * SIPHASH_KEY + 1)

/* One for each version of the tables; what was released is never changed, only followed. */
static const char *const steps[] = {
    "CREATE TABLE key(value TEXT NOT NULL);"
    "CREATE TABLE mailboxes("
    " name TEXT PRIMARY KEY NOT NULL, budget TEXT NOT NULL, at_rest INTEGER NOT NULL,"
    " boot TEXT NOT NULL, saved_ms INTEGER NOT NULL, saved_wall_ms INTEGER NOT NULL,"
    " state TEXT NOT NULL, wait_ms INTEGER NOT NULL, lasting_ms INTEGER NOT NULL,"
    " troubles INTEGER NOT NULL, secret INTEGER NOT NULL, last_verdict TEXT NOT NULL,"
    " problem TEXT NOT NULL, remedy TEXT NOT NULL, last_reply TEXT NOT NULL,"
    " configured_size INTEGER NOT NULL, max_size INTEGER NOT NULL, size_ms INTEGER NOT NULL,"
    " no_bdat_ms INTEGER NOT NULL, success_wall_ms INTEGER NOT NULL) WITHOUT ROWID;",
};

#define COLUMN_NAMES                                                                               \
    "name, budget, at_rest, boot, saved_ms, saved_wall_ms, state, wait_ms, lasting_ms, troubles,"  \
    " secret, last_verdict, problem, remedy, last_reply, configured_size, max_size, size_ms,"      \
    " no_bdat_ms, success_wall_ms"

static const char wait_for_disk[] = "PRAGMA synchronous = FULL";
static const char load_key[] = "SELECT value FROM key";
static const char save_key[] = "INSERT INTO key(value) VALUES(?1)";
static const char load_rows[] = "SELECT " COLUMN_NAMES " FROM mailboxes";
static const char save_row[] =
    "REPLACE INTO mailboxes(" COLUMN_NAMES ")"
    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,"
    " ?19, ?20)";

enum { COLUMNS = 20 };
_Static_assert(COLUMNS <= DATABASE_COLUMNS_MAX, "a mailbox is one row");

void ledger_rows_free(struct ledger_row *list)
{
    while (list != NULL) {
        struct ledger_row *row = list;
        list = row->next;
        free(row->budget);
        free(row);
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

struct loading {
    struct ledger_row *list;
    bool short_of_memory;
};

static const char *text_of(const struct database_value *v)
{
    return v->kind == DATABASE_TEXT ? v->text : "";
}

static uint64_t number_of(const struct database_value *v)
{
    return v->kind == DATABASE_NUMBER && v->number > 0 ? (uint64_t)v->number : 0;
}

static void take_text(char *out, size_t size, const struct database_value *v)
{
    snprintf(out, size, "%s", text_of(v));
}

static void fill(struct ledger_row *row, const struct database_value *c)
{
    take_text(row->name, sizeof row->name, &c[0]);
    row->at_rest = number_of(&c[2]) != 0;
    take_text(row->boot, sizeof row->boot, &c[3]);
    row->saved_ms = number_of(&c[4]);
    row->saved_wall_ms = number_of(&c[5]);
    take_text(row->state, sizeof row->state, &c[6]);
    row->wait_ms = number_of(&c[7]);
    row->lasting_ms = number_of(&c[8]);
    row->troubles = (uint32_t)number_of(&c[9]);
    row->secret = c[10].kind == DATABASE_NUMBER ? (int32_t)c[10].number : LEDGER_NO_SECRET;
    take_text(row->last_verdict, sizeof row->last_verdict, &c[11]);
    take_text(row->problem, sizeof row->problem, &c[12]);
    take_text(row->remedy, sizeof row->remedy, &c[13]);
    take_text(row->last_reply, sizeof row->last_reply, &c[14]);
    row->configured_size = number_of(&c[15]);
    row->max_size = number_of(&c[16]);
    row->size_ms = number_of(&c[17]);
    row->no_bdat_ms = number_of(&c[18]);
    row->success_wall_ms = number_of(&c[19]);
}

static bool on_row(void *ctx, const struct database_value *columns, size_t n)
{
    struct loading *l = ctx;
    struct ledger_row *row = n == COLUMNS ? calloc(1, sizeof *row) : NULL;
    if (row != NULL)
        row->budget = strdup(text_of(&columns[1]));
    l->short_of_memory = row == NULL || row->budget == NULL;
    if (l->short_of_memory) {
        free(row);
        return false;
    }
    fill(row, columns);
    row->next = l->list;
    l->list = row;
    return true;
}

static bool on_key(void *ctx, const struct database_value *columns, size_t n)
{
    if (n == 1)
        take_text(ctx, KEY_TEXT, &columns[0]);
    return false;
}

/* False, too, when the text is none of ours. */
static bool read_key(const char text[KEY_TEXT], uint8_t key[SIPHASH_KEY])
{
    for (size_t i = 0; i < SIPHASH_KEY; i++) {
        unsigned octet;
        if (sscanf(text + 2 * i, "%2x", &octet) != 1)
            return false;
        key[i] = (uint8_t)octet;
    }
    return true;
}

static bool make_key(struct database *store, uint8_t key[SIPHASH_KEY], struct error *err)
{
    char text[KEY_TEXT];
    const struct database_value value = DATABASE_T(text);
    if (getrandom(key, SIPHASH_KEY, 0) != SIPHASH_KEY)
        return error_errno(err, errno, "make a key");
    for (size_t i = 0; i < SIPHASH_KEY; i++)
        snprintf(text + 2 * i, 3, "%02x", key[i]);
    return database_run(store, save_key, &value, 1, NULL, NULL, err);
}

static bool take_key(struct database *store, uint8_t key[SIPHASH_KEY], struct error *err)
{
    char text[KEY_TEXT] = "";
    if (!database_run(store, load_key, NULL, 0, on_key, text, err))
        return false;
    return read_key(text, key) || make_key(store, key, err);
}

static bool load(struct database *store, struct loading *l, uint8_t key[SIPHASH_KEY],
                 struct error *err)
{
    if (!database_run(store, wait_for_disk, NULL, 0, NULL, NULL, err) ||
        !take_key(store, key, err) || !database_run(store, load_rows, NULL, 0, on_row, l, err))
        return false;
    return !l->short_of_memory ||
           error_set(err, ERROR_NO_ROOM, "read what is known of mailboxes: out of memory");
}

bool ledger_store_open(const char *file, struct database **out_store, struct ledger_row **out_list,
                       uint8_t out_key[SIPHASH_KEY], bool *out_set_aside, struct error *err)
{
    struct loading l = {.list = NULL};
    bool damaged = false;
    struct database *store =
        database_open(file, steps, sizeof steps / sizeof *steps, &damaged, err);
    bool ok = store != NULL && load(store, &l, out_key, err);
    if (!ok && database_close(store)) { /* it was damaged, and has been set aside now */
        bool ignored;
        ledger_rows_free(l.list);
        l.list = NULL;
        damaged = true;
        store = database_open(file, steps, sizeof steps / sizeof *steps, &ignored, err);
        ok = store != NULL && load(store, &l, out_key, err);
        if (!ok)
            (void)database_close(store);
    }
    *out_set_aside = *out_set_aside || damaged;
    if (!ok) {
        ledger_rows_free(l.list);
        return false;
    }
    *out_store = store;
    *out_list = l.list;
    return true;
}

/* ---- writing --------------------------------------------------------------------------------- */

static bool save(struct database *store, const struct ledger_row *row, struct error *err)
{
    const struct database_value values[COLUMNS] = {
        DATABASE_T(row->name),       DATABASE_T(row->budget),
        DATABASE_N(row->at_rest),    DATABASE_T(row->boot),
        DATABASE_N(row->saved_ms),   DATABASE_N(row->saved_wall_ms),
        DATABASE_T(row->state),      DATABASE_N(row->wait_ms),
        DATABASE_N(row->lasting_ms), DATABASE_N(row->troubles),
        DATABASE_N(row->secret),     DATABASE_T(row->last_verdict),
        DATABASE_T(row->problem),    DATABASE_T(row->remedy),
        DATABASE_T(row->last_reply), DATABASE_N(row->configured_size),
        DATABASE_N(row->max_size),   DATABASE_N(row->size_ms),
        DATABASE_N(row->no_bdat_ms), DATABASE_N(row->success_wall_ms)};
    return database_run(store, save_row, values, COLUMNS, NULL, NULL, err);
}

bool ledger_store_write(struct database *store, const struct ledger_row *list, struct error *err)
{
    bool ok = true;
    if (!database_begin(store, err))
        return false;
    for (const struct ledger_row *row = list; ok && row != NULL; row = row->next)
        ok = save(store, row, err);
    if (ok)
        return database_commit(store, err);
    database_rollback(store);
    return false;
}
