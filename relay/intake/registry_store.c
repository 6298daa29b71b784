#include "relay/intake/registry_store.h"

#include <stdlib.h>
#include <string.h>

#include "relay/base/database.h"

/* One for each version of the tables; what was released is never changed, only followed. */
static const char *const steps[] = {
    "CREATE TABLE devices("
    " name TEXT PRIMARY KEY NOT NULL, address TEXT NOT NULL, helo TEXT NOT NULL,"
    " tls TEXT NOT NULL, error TEXT NOT NULL,"
    " first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, mail_ms INTEGER NOT NULL,"
    " error_ms INTEGER NOT NULL, sessions INTEGER NOT NULL, probes INTEGER NOT NULL,"
    " messages INTEGER NOT NULL, octets INTEGER NOT NULL, refused INTEGER NOT NULL,"
    " quirks TEXT NOT NULL, newest TEXT NOT NULL, habit TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE transcripts("
    " id INTEGER PRIMARY KEY, name TEXT NOT NULL, ended_ms INTEGER NOT NULL,"
    " text TEXT NOT NULL);"
    "CREATE INDEX transcripts_of ON transcripts(name, id);",
};

static const char load_devices[] =
    "SELECT name, address, helo, tls, error, first_ms, last_ms, mail_ms, error_ms, sessions,"
    " probes, messages, octets, refused, quirks, newest, habit FROM devices";
static const char save_device[] =
    "REPLACE INTO devices(name, address, helo, tls, error, first_ms, last_ms, mail_ms, error_ms,"
    " sessions, probes, messages, octets, refused, quirks, newest, habit)"
    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
static const char forget_device[] = "DELETE FROM devices WHERE name = ?1";
static const char forget_transcripts[] = "DELETE FROM transcripts WHERE name = ?1";
static const char add_transcript[] =
    "INSERT INTO transcripts(name, ended_ms, text) VALUES(?1, ?2, ?3)";
static const char drop_transcripts[] =
    "DELETE FROM transcripts WHERE name = ?1 AND id NOT IN"
    " (SELECT id FROM transcripts WHERE name = ?1 ORDER BY id DESC LIMIT ?2)";
static const char load_transcripts[] =
    "SELECT ended_ms, text FROM transcripts WHERE name = ?1 ORDER BY id DESC LIMIT ?2";

enum { COLUMNS = 17 };
_Static_assert(COLUMNS <= DATABASE_COLUMNS_MAX, "a device is one row");

/* ---- opening --------------------------------------------------------------------------------- */

struct loading {
    struct registry_entry *first;
    struct registry_entry **end;
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

static void fill(struct registry_entry *e, const struct database_value *c)
{
    if (!net_parse(text_of(&c[1]), &e->address))
        e->address = (struct net_address){0};
    registry_entry_set(&e->helo, text_of(&c[2]), REGISTRY_HELO_MAX);
    registry_entry_set(&e->tls, text_of(&c[3]), REGISTRY_TLS_MAX);
    registry_entry_set(&e->error, text_of(&c[4]), REGISTRY_ERROR_MAX);
    e->first_ms = number_of(&c[5]);
    e->last_ms = number_of(&c[6]);
    e->mail_ms = number_of(&c[7]);
    e->error_ms = number_of(&c[8]);
    e->sessions = number_of(&c[9]);
    e->probes = number_of(&c[10]);
    e->messages = number_of(&c[11]);
    e->octets = number_of(&c[12]);
    e->refused = number_of(&c[13]);
    e->quirks = quirks_of_names(text_of(&c[14]));
    e->newest = quirks_of_names(text_of(&c[15]));
    (void)habit_decode(&e->habit, text_of(&c[16])); /* it is learnt anew, else */
}

static bool on_device(void *ctx, const struct database_value *columns, size_t n)
{
    struct loading *l = ctx;
    const char *name = n == COLUMNS ? text_of(&columns[0]) : "";
    if (name[0] == '\0' || strlen(name) >= REGISTRY_NAME_MAX)
        return true;
    struct registry_entry *e = registry_entry_new(name);
    l->short_of_memory = e == NULL;
    if (e == NULL)
        return false;
    fill(e, columns);
    *l->end = e;
    l->end = &e->next;
    return true;
}

static bool load(struct database *store, struct loading *l, struct error *err)
{
    if (!database_run(store, load_devices, NULL, 0, on_device, l, err))
        return false;
    return !l->short_of_memory || error_set(err, ERROR_NO_ROOM, "read the devices: out of memory");
}

static struct database *open_tables(const char *file, bool *out_set_aside, struct error *err)
{
    return database_open(file, steps, sizeof steps / sizeof *steps, out_set_aside, err);
}

/* Damage that is found while reading costs what lies behind it, no more. */
static struct database *open_and_load(const char *file, struct loading *l, bool *out_set_aside,
                                      struct error *err)
{
    bool ignored;
    struct database *store = open_tables(file, out_set_aside, err);
    if (store == NULL || load(store, l, err))
        return store;
    if (!database_close(store))
        return NULL;
    *out_set_aside = true;
    for (struct registry_entry *e = l->first; e != NULL; e = e->next)
        e->changed = true;
    return open_tables(file, &ignored, err);
}

bool registry_store_open(const char *file, struct database **out_store,
                         struct registry_entry **out_list, bool *out_set_aside, struct error *err)
{
    struct loading l = {.first = NULL};
    l.end = &l.first;
    struct database *store = open_and_load(file, &l, out_set_aside, err);
    if (store == NULL) {
        registry_entries_free(l.first);
        return false;
    }
    *out_store = store;
    *out_list = l.first;
    return true;
}

/* ---- writing --------------------------------------------------------------------------------- */

static const char *text_or_empty(const char *text)
{
    return text != NULL ? text : "";
}

static bool save(struct database *store, const struct registry_entry *e, struct error *err)
{
    char address[NET_TEXT_MAX] = "";
    char all[QUIRKS_TEXT_MAX];
    char newest[QUIRKS_TEXT_MAX];
    char habit[HABIT_TEXT_MAX];
    if (e->address.family != 0)
        net_text(&e->address, address);
    quirks_names(e->quirks, all);
    quirks_names(e->newest, newest);
    habit_encode(&e->habit, habit);
    const struct database_value values[COLUMNS] = {DATABASE_T(e->name),
                                                   DATABASE_T(address),
                                                   DATABASE_T(text_or_empty(e->helo)),
                                                   DATABASE_T(text_or_empty(e->tls)),
                                                   DATABASE_T(text_or_empty(e->error)),
                                                   DATABASE_N(e->first_ms),
                                                   DATABASE_N(e->last_ms),
                                                   DATABASE_N(e->mail_ms),
                                                   DATABASE_N(e->error_ms),
                                                   DATABASE_N(e->sessions),
                                                   DATABASE_N(e->probes),
                                                   DATABASE_N(e->messages),
                                                   DATABASE_N(e->octets),
                                                   DATABASE_N(e->refused),
                                                   DATABASE_T(all),
                                                   DATABASE_T(newest),
                                                   DATABASE_T(habit)};
    return database_run(store, save_device, values, COLUMNS, NULL, NULL, err);
}

static bool forget(struct database *store, const char *name, struct error *err)
{
    const struct database_value value = DATABASE_T(name);
    return database_run(store, forget_device, &value, 1, NULL, NULL, err) &&
           database_run(store, forget_transcripts, &value, 1, NULL, NULL, err);
}

static bool add(struct database *store, const struct registry_kept *t, struct error *err)
{
    const struct database_value values[] = {DATABASE_T(t->name), DATABASE_N(t->ended_ms),
                                            DATABASE_T(t->text)};
    const struct database_value limit[] = {DATABASE_T(t->name), DATABASE_N(REGISTRY_TRANSCRIPTS)};
    return database_run(store, add_transcript, values, 3, NULL, NULL, err) &&
           database_run(store, drop_transcripts, limit, 2, NULL, NULL, err);
}

static bool write_all(struct database *store, const struct registry_batch *batch, struct error *err)
{
    bool ok = true;
    for (const struct registry_name *n = batch->forgotten; ok && n != NULL; n = n->next)
        ok = forget(store, n->name, err);
    for (const struct registry_entry *e = batch->entries; ok && e != NULL; e = e->next)
        ok = save(store, e, err);
    for (const struct registry_kept *t = batch->transcripts; ok && t != NULL; t = t->next)
        ok = add(store, t, err);
    return ok;
}

bool registry_store_write(struct database *store, const struct registry_batch *batch,
                          struct error *err)
{
    if (!database_begin(store, err))
        return false;
    if (write_all(store, batch, err))
        return database_commit(store, err);
    database_rollback(store);
    return false;
}

/* ---- reading --------------------------------------------------------------------------------- */

struct reading {
    struct registry_transcript *list;
    size_t count;
};

static bool on_transcript(void *ctx, const struct database_value *columns, size_t n)
{
    struct reading *reading = ctx;
    if (n != 2 || reading->count == REGISTRY_TRANSCRIPTS)
        return false;
    struct registry_transcript *t = &reading->list[reading->count];
    t->ended_ms = number_of(&columns[0]);
    t->text = strdup(text_of(&columns[1]));
    if (t->text != NULL)
        reading->count++;
    return t->text != NULL;
}

bool registry_store_read(struct database *store, const char *name,
                         struct registry_transcript list[REGISTRY_TRANSCRIPTS], size_t *out_count,
                         struct error *err)
{
    const struct database_value values[] = {DATABASE_T(name), DATABASE_N(REGISTRY_TRANSCRIPTS)};
    struct reading reading = {.list = list};
    if (database_run(store, load_transcripts, values, 2, on_transcript, &reading, err)) {
        *out_count = reading.count;
        return true;
    }
    while (reading.count > 0)
        free(list[--reading.count].text);
    return false;
}
