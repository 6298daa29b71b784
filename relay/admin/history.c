#include "relay/admin/history.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "relay/base/database.h"
#include "relay/base/log.h"
#include "relay/submit/replies.h"

#define BATCH_MAX 1000             /* notes written at a time */
#define AGE_MS    (60 * 60 * 1000) /* how far the ages in the file may lag behind */

/* One for each version of the tables; what was released is never changed, only followed. */
static const char *const steps[] = {
    "CREATE TABLE notes("
    " id INTEGER PRIMARY KEY, report_id INTEGER NOT NULL, kept_ms INTEGER NOT NULL,"
    " failed INTEGER NOT NULL, flags INTEGER NOT NULL);"
    "CREATE TABLE replies("
    " stage TEXT NOT NULL, text TEXT NOT NULL, count INTEGER NOT NULL,"
    " first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, PRIMARY KEY(stage, text));"
    "CREATE TABLE marks(name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID;",
};

static const char load_notes[] =
    "SELECT id, report_id, kept_ms, failed, flags FROM notes ORDER BY id";
static const char load_replies[] =
    "SELECT stage, text, count, first_ms, last_ms FROM replies ORDER BY last_ms DESC";
static const char load_marks[] = "SELECT value FROM marks WHERE name = 'delayed'";
static const char save_note[] = "REPLACE INTO notes(id, report_id, kept_ms, failed, flags)"
                                " VALUES(?1, ?2, ?3, ?4, ?5)";
static const char drop_note[] = "DELETE FROM notes WHERE id = ?1";
static const char drop_replies[] = "DELETE FROM replies";
static const char save_reply[] = "INSERT INTO replies(stage, text, count, first_ms, last_ms)"
                                 " VALUES(?1, ?2, ?3, ?4, ?5)";
static const char save_mark[] = "REPLACE INTO marks(name, value) VALUES('delayed', ?1)";

struct stored_note {
    struct history_note note;
    int64_t kept_ms;
    bool dropped;
};

struct stored_reply {
    char *stage;
    char *text;
    struct replies_entry entry;
};

/* What the database's thread has in hand; one at a time. */
struct job {
    struct executor_job job; /* first: see job_of() */
    struct history *history;
    struct stored_note *notes;
    size_t note_count;
    struct stored_reply *replies;
    size_t reply_count;
    bool with_replies;
    bool with_mark;
    uint64_t mark;
    uint64_t replies_version;
    bool ok;
    struct error err;
};

struct history {
    struct executor executor;
    struct replies *replies;
    char *file;
    struct database *store; /* the job's while it runs */
    struct history_note *notes;
    size_t count, room;
    uint64_t *dropped; /* ids that the file still has */
    size_t dropped_count, dropped_room;
    uint64_t delayed;
    bool mark_changed;
    uint64_t replies_version; /* that the file has */
    struct job job;
    bool busy;
    bool notes_changed;
    bool failing;
    uint64_t write_ms;
    uint64_t aged_ms; /* when all ages were last written */
};

/* ---- notes ----------------------------------------------------------------------------------- */

/* The first place whose id is not below. */
static size_t place_of(const struct history *h, uint64_t id)
{
    size_t from = 0;
    size_t to = h->count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (h->notes[middle].id < id)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

struct history_note *history_find(struct history *h, uint64_t id)
{
    size_t place = place_of(h, id);
    return place < h->count && h->notes[place].id == id ? &h->notes[place] : NULL;
}

struct history_note *history_next(struct history *h, uint64_t after)
{
    size_t place = after == UINT64_MAX ? h->count : place_of(h, after + 1);
    return place < h->count ? &h->notes[place] : NULL;
}

static bool make_room(void **list, size_t *room, size_t count, size_t size)
{
    if (count < *room)
        return true;
    size_t more = *room == 0 ? 16 : *room * 2;
    void *grown = realloc(*list, more * size);
    if (grown == NULL)
        return false;
    *list = grown;
    *room = more;
    return true;
}

static struct history_note *insert(struct history *h, uint64_t id)
{
    void *list = h->notes;
    if (h->count == HISTORY_NOTES_MAX || !make_room(&list, &h->room, h->count, sizeof *h->notes))
        return NULL;
    h->notes = list;
    size_t place = place_of(h, id);
    memmove(h->notes + place + 1, h->notes + place, (h->count - place) * sizeof *h->notes);
    h->count++;
    return &h->notes[place];
}

struct history_note *history_add(struct history *h, uint64_t id, uint64_t now_ms)
{
    struct history_note *note = history_find(h, id);
    if (note == NULL)
        note = insert(h, id);
    if (note == NULL)
        return NULL;
    *note = (struct history_note){.id = id, .since_ms = (int64_t)now_ms};
    history_changed(h, note);
    return note;
}

void history_changed(struct history *h, struct history_note *note)
{
    note->changed = true;
    h->notes_changed = true;
}

/* Without memory it comes back with the next start, and is dropped then. */
static void forget_stored(struct history *h, uint64_t id)
{
    void *list = h->dropped;
    if (!make_room(&list, &h->dropped_room, h->dropped_count, sizeof *h->dropped))
        return;
    h->dropped = list;
    h->dropped[h->dropped_count++] = id;
    h->notes_changed = true;
}

void history_drop(struct history *h, uint64_t id)
{
    struct history_note *note = history_find(h, id);
    if (note == NULL)
        return;
    size_t place = (size_t)(note - h->notes);
    h->count--;
    memmove(note, note + 1, (h->count - place) * sizeof *note);
    forget_stored(h, id);
}

size_t history_count(const struct history *h)
{
    return h->count;
}

uint64_t history_delayed_up_to(const struct history *h)
{
    return h->delayed;
}

void history_set_delayed(struct history *h, uint64_t id)
{
    h->mark_changed = h->mark_changed || id != h->delayed;
    h->delayed = id;
}

/* ---- writing --------------------------------------------------------------------------------- */

static struct job *job_of(struct executor_job *ej)
{
    return (struct job *)ej;
}

static bool write_note(struct database *store, const struct stored_note *n, struct error *err)
{
    const struct database_value values[] = {DATABASE_N(n->note.id), DATABASE_N(n->note.report_id),
                                            DATABASE_N(n->kept_ms), DATABASE_N(n->note.failed),
                                            DATABASE_N(n->note.flags)};
    return database_run(store, n->dropped ? drop_note : save_note, values, n->dropped ? 1 : 5, NULL,
                        NULL, err);
}

static bool write_reply(struct database *store, const struct stored_reply *r, struct error *err)
{
    const struct database_value values[] = {
        DATABASE_T(r->stage), DATABASE_T(r->text), DATABASE_N(r->entry.count),
        DATABASE_N(r->entry.first_ms), DATABASE_N(r->entry.last_ms)};
    return database_run(store, save_reply, values, 5, NULL, NULL, err);
}

static bool write_all(struct database *store, const struct job *j, struct error *err)
{
    const struct database_value mark = DATABASE_N(j->mark);
    bool ok = !j->with_mark || database_run(store, save_mark, &mark, 1, NULL, NULL, err);
    for (size_t i = 0; ok && i < j->note_count; i++)
        ok = write_note(store, &j->notes[i], err);
    ok = ok && (!j->with_replies || database_run(store, drop_replies, NULL, 0, NULL, NULL, err));
    for (size_t i = 0; ok && i < j->reply_count; i++)
        ok = write_reply(store, &j->replies[i], err);
    return ok;
}

/* Damage sets the file aside; the next write makes it anew. */
static void work_write(struct executor_job *ej)
{
    struct job *j = job_of(ej);
    struct history *h = j->history;
    bool set_aside = false;
    j->ok = false;
    if (h->store == NULL)
        h->store = database_open(h->file, steps, sizeof steps / sizeof *steps, &set_aside, &j->err);
    if (h->store == NULL || !database_begin(h->store, &j->err))
        return;
    if (write_all(h->store, j, &j->err)) {
        j->ok = database_commit(h->store, &j->err);
        database_rest(h->store);
        return;
    }
    database_rollback(h->store);
    if (j->err.kind != ERROR_DAMAGED)
        return;
    (void)database_close(h->store);
    h->store = NULL;
}

static void job_clear(struct job *j)
{
    for (size_t i = 0; i < j->reply_count; i++) {
        free(j->replies[i].stage);
        free(j->replies[i].text);
    }
    free(j->replies);
    free(j->notes);
    *j = (struct job){.history = j->history};
}

static size_t changed_notes(struct history *h)
{
    size_t n = h->dropped_count;
    for (size_t i = 0; i < h->count && n < BATCH_MAX; i++)
        n += h->notes[i].changed;
    return n < BATCH_MAX ? n : BATCH_MAX;
}

/* What is taken counts as written until the job says otherwise. */
static bool take_notes(struct history *h, uint64_t now_ms)
{
    struct job *j = &h->job;
    size_t most = changed_notes(h);
    j->notes = calloc(most + 1, sizeof *j->notes);
    if (j->notes == NULL)
        return false;
    while (h->dropped_count > 0 && j->note_count < most)
        j->notes[j->note_count++] =
            (struct stored_note){.note = {.id = h->dropped[--h->dropped_count]}, .dropped = true};
    for (size_t i = 0; i < h->count && j->note_count < most; i++) {
        struct history_note *note = &h->notes[i];
        if (!note->changed)
            continue;
        note->changed = false;
        j->notes[j->note_count++] =
            (struct stored_note){.note = *note, .kept_ms = (int64_t)now_ms - note->since_ms};
    }
    h->notes_changed = most == BATCH_MAX;
    return true;
}

static bool take_replies(struct history *h)
{
    struct job *j = &h->job;
    size_t count = replies_count(h->replies);
    j->replies_version = replies_version(h->replies);
    j->with_replies = j->replies_version != h->replies_version;
    if (!j->with_replies)
        return true;
    j->replies = calloc(count + 1, sizeof *j->replies);
    if (j->replies == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct stored_reply *r = &j->replies[i];
        (void)replies_get(h->replies, i, &r->entry);
        r->stage = strdup(client_stage_name(r->entry.stage));
        r->text = strdup(r->entry.text);
        j->reply_count++;
        if (r->stage == NULL || r->text == NULL)
            return false;
    }
    return true;
}

/* Puts back what was not written; the file may be a new and empty one. */
static void untake(struct history *h)
{
    for (size_t i = 0; i < h->job.note_count; i++) {
        uint64_t id = h->job.notes[i].note.id;
        struct history_note *note = history_find(h, id);
        if (note != NULL)
            note->changed = true;
        else if (h->job.notes[i].dropped)
            forget_stored(h, id);
    }
    h->notes_changed = h->notes_changed || h->job.note_count > 0;
    h->mark_changed = h->mark_changed || h->job.with_mark;
}

static bool take(struct history *h, uint64_t now_ms)
{
    job_clear(&h->job);
    h->job.with_mark = h->mark_changed;
    h->job.mark = h->delayed;
    if (!take_notes(h, now_ms) || !take_replies(h)) {
        untake(h);
        job_clear(&h->job);
        return false;
    }
    h->mark_changed = false;
    return true;
}

static void finish(struct history *h)
{
    struct job *j = &h->job;
    if (j->ok) {
        h->replies_version = j->replies_version;
        h->failing = false;
    } else {
        untake(h);
        for (size_t i = 0; i < h->count && j->err.kind == ERROR_DAMAGED; i++)
            history_changed(h, &h->notes[i]);
        if (!h->failing)
            log_event(LOG_LEVEL_WARN, "history-failed", LOG_STR("file", h->file),
                      LOG_STR("reason", j->err.text),
                      LOG_STR("effect", "no mail depends on it; after a restart reports may come a "
                                        "second time"),
                      LOG_END);
        h->failing = true;
    }
    job_clear(j);
}

static void done_write(struct executor_job *ej)
{
    struct history *h = job_of(ej)->history;
    h->busy = false;
    finish(h);
}

static bool has_changes(const struct history *h)
{
    return h->notes_changed || h->mark_changed || replies_version(h->replies) != h->replies_version;
}

/* A dead letter's age is written when it changes anyway, and now and then. */
static void age(struct history *h, uint64_t now_ms)
{
    if (now_ms - h->aged_ms < AGE_MS)
        return;
    h->aged_ms = now_ms;
    for (size_t i = 0; i < h->count; i++)
        history_changed(h, &h->notes[i]);
}

void history_tick(struct history *h, uint64_t now_ms)
{
    if (h->busy || h->file[0] == '\0' || now_ms < h->write_ms)
        return;
    age(h, now_ms);
    if (!has_changes(h))
        return;
    h->write_ms = now_ms + HISTORY_WRITE_MS;
    if (!take(h, now_ms))
        return;
    h->busy = true;
    h->job.job = (struct executor_job){.work = work_write, .done = done_write};
    h->executor.submit(h->executor.ctx, EXECUTOR_CONTENT, &h->job.job);
}

void history_hurry(struct history *h)
{
    h->write_ms = 0;
}

/* ---- reading --------------------------------------------------------------------------------- */

struct loading {
    struct history *history;
    uint64_t now_ms;
};

static uint64_t number_of(const struct database_value *v)
{
    return v->kind == DATABASE_NUMBER && v->number > 0 ? (uint64_t)v->number : 0;
}

static const char *text_of(const struct database_value *v)
{
    return v->kind == DATABASE_TEXT ? v->text : "";
}

static bool on_note(void *ctx, const struct database_value *c, size_t n)
{
    struct loading *l = ctx;
    if (n != 5 || number_of(&c[0]) == 0)
        return true;
    struct history_note *note = history_add(l->history, number_of(&c[0]), l->now_ms);
    if (note == NULL)
        return false;
    note->report_id = number_of(&c[1]);
    note->since_ms = (int64_t)l->now_ms - (int64_t)number_of(&c[2]);
    note->failed = (uint32_t)number_of(&c[3]);
    note->flags = (uint8_t)number_of(&c[4]);
    note->changed = false;
    return true;
}

static bool on_reply(void *ctx, const struct database_value *c, size_t n)
{
    struct loading *l = ctx;
    struct replies_entry entry = {.stage = 0};
    if (n != 5 || text_of(&c[1])[0] == '\0')
        return true;
    while (entry.stage < STAGE_COUNT && strcmp(client_stage_name(entry.stage), text_of(&c[0])) != 0)
        entry.stage++;
    entry.text = text_of(&c[1]);
    entry.count = number_of(&c[2]);
    entry.first_ms = number_of(&c[3]);
    entry.last_ms = number_of(&c[4]);
    if (entry.stage < STAGE_COUNT && l->history->replies != NULL)
        replies_restore(l->history->replies, &entry);
    return true;
}

static bool on_mark(void *ctx, const struct database_value *c, size_t n)
{
    struct loading *l = ctx;
    if (n == 1)
        l->history->delayed = number_of(&c[0]);
    return true;
}

static bool load(struct history *h, uint64_t now_ms, bool *out_set_aside, struct error *err)
{
    struct loading l = {.history = h, .now_ms = now_ms};
    h->store = database_open(h->file, steps, sizeof steps / sizeof *steps, out_set_aside, err);
    if (h->store == NULL)
        return false;
    bool ok = database_run(h->store, load_notes, NULL, 0, on_note, &l, err) &&
              database_run(h->store, load_marks, NULL, 0, on_mark, &l, err) &&
              database_run(h->store, load_replies, NULL, 0, on_reply, &l, err);
    if (!ok && database_close(h->store)) {
        *out_set_aside = true;
        h->store = NULL;
        return true;
    }
    if (!ok)
        h->store = NULL;
    else
        database_rest(h->store);
    return ok;
}

static void read_file(struct history *h, uint64_t now_ms)
{
    struct error err = ERROR_INIT;
    bool set_aside = false;
    bool ok = load(h, now_ms, &set_aside, &err);
    if (set_aside)
        log_event(LOG_LEVEL_WARN, "history-damaged", LOG_STR("file", h->file),
                  LOG_STR("reason",
                          "it was set aside and is made anew; reports of dead letters may "
                          "come a second time"),
                  LOG_END);
    if (!ok)
        log_event(LOG_LEVEL_WARN, "history-failed", LOG_STR("file", h->file),
                  LOG_STR("reason", err.text), LOG_END);
    h->failing = !ok;
    h->notes_changed = set_aside;
    for (size_t i = 0; i < h->count; i++)
        h->notes[i].changed = set_aside;
}

/* ---- opening and closing --------------------------------------------------------------------- */

struct history *history_open(const char *file, const struct executor *executor,
                             struct replies *replies, uint64_t now_ms)
{
    struct history *h = calloc(1, sizeof *h);
    if (h == NULL)
        return NULL;
    h->file = strdup(file);
    if (h->file == NULL) {
        free(h);
        return NULL;
    }
    h->executor = *executor;
    h->replies = replies;
    h->job.history = h;
    h->aged_ms = now_ms;
    if (file[0] != '\0')
        read_file(h, now_ms);
    h->replies_version = replies_version(replies);
    return h;
}

void history_close(struct history *h, uint64_t now_ms)
{
    if (h == NULL)
        return;
    assert(!h->busy); /* the executor was drained */
    for (size_t i = 0; i < h->count; i++)
        history_changed(h, &h->notes[i]);
    for (bool ok = h->file[0] != '\0'; ok && has_changes(h) && take(h, now_ms);) {
        work_write(&h->job.job);
        ok = h->job.ok;
        finish(h);
    }
    (void)database_close(h->store);
    job_clear(&h->job);
    free(h->notes);
    free(h->dropped);
    free(h->file);
    free(h);
}
