#include "relay/intake/registry.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "relay/base/database.h"
#include "relay/base/log.h"
#include "relay/intake/registry_entry.h"
#include "relay/intake/registry_store.h"

#define BATCH_MAX     256 /* devices written at a time, for the sake of memory */
#define FORGOTTEN_MAX REGISTRY_DEVICES_MAX

/* Somebody who waits for a device's transcripts. */
struct request {
    struct request *next;
    registry_transcripts_fn *done;
    void *ctx;
    char name[];
};

/* What the database's thread has in hand; one at a time. */
struct job {
    struct executor_job job; /* first: see job_of() */
    struct registry *registry;
    struct registry_batch batch; /* of a write */
    struct request *request;     /* of a read */
    struct registry_transcript list[REGISTRY_TRANSCRIPTS];
    size_t count;
    struct registry_entry *loaded; /* when the file had to be opened */
    bool set_aside;
    bool removed;   /* by somebody, under our hands */
    bool postponed; /* what was read comes first */
    bool ok;
    struct error err;
};

struct registry {
    const struct config *config;
    const char **configured; /* names, sorted; borrowed from the configuration */
    struct executor executor;
    char *file;

    struct registry_entry **entries; /* by name */
    size_t count, room;
    size_t turn;   /* where the next batch begins: no device waits for ever */
    uint64_t used; /* see registry_entry.h */

    /* What the database does not know yet, besides entries that have changed. */
    struct registry_kept *pending; /* the oldest first */
    struct registry_kept **pending_end;
    size_t pending_count;
    struct registry_name *forgotten;
    size_t forgotten_count;

    struct request *requests;
    struct request **requests_end;

    struct database *store; /* the job's while it runs */
    struct job job;
    bool busy;
    bool in_memory; /* there is no file, or none that we may touch */
    bool failing;
    uint64_t write_ms; /* when the next write is due; monotonic */
};

/* ---- entries --------------------------------------------------------------------------------- */

/* The first entry whose name is not before this one, or with `behind` is behind it. */
static size_t place_of(const struct registry *r, const char *name, bool behind)
{
    size_t from = 0;
    size_t to = r->count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        int order = strcmp(r->entries[middle]->name, name);
        if (order < 0 || (behind && order == 0))
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static struct registry_entry *find(const struct registry *r, const char *name)
{
    size_t place = place_of(r, name, false);
    bool found = place < r->count && strcmp(r->entries[place]->name, name) == 0;
    return found ? r->entries[place] : NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool is_configured(const struct registry *r, const char *name)
{
    return r->config->device_count > 0 && bsearch(&name, r->configured, r->config->device_count,
                                                  sizeof *r->configured, compare_names) != NULL;
}

static bool is_forgotten(const struct registry_name *list, const char *name)
{
    while (list != NULL && strcmp(list->name, name) != 0)
        list = list->next;
    return list != NULL;
}

/* Without memory, or when too many are waiting, it comes back with the next start. */
static void add_forgotten(struct registry *r, const char *name)
{
    if (r->in_memory || r->forgotten_count == FORGOTTEN_MAX || is_forgotten(r->forgotten, name))
        return;
    size_t size = strlen(name) + 1;
    struct registry_name *n = malloc(sizeof *n + size);
    if (n == NULL)
        return;
    memcpy(n->name, name, size);
    n->next = r->forgotten;
    r->forgotten = n;
    r->forgotten_count++;
}

static void drop_pending(struct registry *r, struct registry_kept **at)
{
    struct registry_kept *t = *at;
    *at = t->next;
    if (*at == NULL)
        r->pending_end = at;
    r->pending_count--;
    free(t->name);
    free(t);
}

static void drop_pending_of(struct registry *r, const char *name)
{
    struct registry_kept **at = &r->pending;
    while (*at != NULL) {
        if (strcmp((*at)->name, name) == 0)
            drop_pending(r, at);
        else
            at = &(*at)->next;
    }
}

static void remove_entry(struct registry *r, size_t place)
{
    struct registry_entry *e = r->entries[place];
    r->count--;
    memmove(r->entries + place, r->entries + place + 1,
            (r->count - place) * sizeof(struct registry_entry *));
    drop_pending_of(r, e->name);
    add_forgotten(r, e->name);
    registry_entry_free(e);
}

/* False when every entry has a name in the configuration. */
static bool make_place(struct registry *r)
{
    size_t oldest = r->count;
    for (size_t i = 0; i < r->count; i++) {
        const struct registry_entry *e = r->entries[i];
        if (!e->configured && (oldest == r->count || e->used < r->entries[oldest]->used))
            oldest = i;
    }
    if (oldest == r->count)
        return false;
    remove_entry(r, oldest);
    return true;
}

static bool make_room(struct registry *r)
{
    if (r->count == REGISTRY_DEVICES_MAX && !make_place(r))
        return false;
    if (r->count < r->room)
        return true;
    size_t room = r->room == 0 ? 16 : r->room * 2;
    struct registry_entry **entries = realloc(r->entries, room * sizeof(struct registry_entry *));
    if (entries == NULL)
        return false;
    r->entries = entries;
    r->room = room;
    return true;
}

/* Takes the entry. False, and it is gone, when there is no room. */
static bool insert(struct registry *r, struct registry_entry *e)
{
    if (!make_room(r)) {
        registry_entry_free(e);
        return false;
    }
    size_t place = place_of(r, e->name, false);
    memmove(r->entries + place + 1, r->entries + place,
            (r->count - place) * sizeof(struct registry_entry *));
    r->entries[place] = e;
    r->count++;
    e->next = NULL;
    e->configured = is_configured(r, e->name);
    return true;
}

/* In its first session. */
static struct registry_entry *begin_entry(struct registry *r, const char *device, uint64_t wall_ms)
{
    struct registry_entry *e = registry_entry_new(device);
    if (e == NULL || !insert(r, e))
        return NULL;
    e->first_ms = wall_ms;
    e->sessions = 1;
    (void)net_parse(device, &e->address); /* of one without a name it is the name */
    return e;
}

static void no_later_than(uint64_t *at_ms, uint64_t wall_ms)
{
    if (*at_ms > wall_ms)
        *at_ms = wall_ms;
}

/* The entry, which is seen now and will have changed; NULL without memory. */
static struct registry_entry *touch(struct registry *r, const char *device, uint64_t wall_ms)
{
    if (r == NULL || device[0] == '\0' || strlen(device) >= REGISTRY_NAME_MAX)
        return NULL;
    struct registry_entry *e = find(r, device);
    if (e == NULL)
        e = begin_entry(r, device, wall_ms);
    if (e == NULL)
        return NULL;
    no_later_than(&e->first_ms, wall_ms); /* the clock was ahead */
    no_later_than(&e->mail_ms, wall_ms);
    no_later_than(&e->error_ms, wall_ms);
    e->last_ms = wall_ms;
    e->used = ++r->used;
    e->changed = true;
    return e;
}

/* ---- what sessions tell ---------------------------------------------------------------------- */

void registry_session(struct registry *r, const char *device, const struct net_address *peer,
                      uint64_t wall_ms)
{
    bool known = r != NULL && find(r, device) != NULL;
    struct registry_entry *e = touch(r, device, wall_ms);
    if (e == NULL)
        return;
    e->address = *peer;
    e->sessions += known ? 1 : 0;
}

void registry_message(struct registry *r, const char *device, uint64_t octets, quirks seen,
                      uint64_t wall_ms)
{
    struct registry_entry *e = touch(r, device, wall_ms);
    if (e == NULL)
        return;
    e->messages++;
    e->octets += octets;
    e->mail_ms = wall_ms;
    e->no_room_ms = 0;
    e->quirks |= seen;
    e->gathered |= seen;
    habit_mail(&e->habit, wall_ms);
}

void registry_trouble(struct registry *r, const char *device, const char *text, bool refused,
                      uint64_t wall_ms)
{
    struct registry_entry *e = touch(r, device, wall_ms);
    if (e == NULL)
        return;
    registry_entry_set(&e->error, text, REGISTRY_ERROR_MAX);
    e->error_ms = wall_ms;
    e->refused += refused ? 1 : 0;
}

void registry_no_room(struct registry *r, const char *device, const char *text, uint64_t wall_ms)
{
    struct registry_entry *e = touch(r, device, wall_ms);
    if (e == NULL)
        return;
    registry_entry_set(&e->no_room, text, REGISTRY_ERROR_MAX);
    e->no_room_ms = wall_ms;
}

static void append_pending(struct registry *r, struct registry_kept *t)
{
    t->next = NULL;
    *r->pending_end = t;
    r->pending_end = &t->next;
    r->pending_count++;
}

/* The oldest of a device goes when it has more than are kept, and of all when there are too many.
 */
static void limit_pending(struct registry *r, const char *name)
{
    struct registry_kept **oldest = NULL;
    size_t of_device = 0;
    for (struct registry_kept **at = &r->pending; *at != NULL; at = &(*at)->next) {
        if (strcmp((*at)->name, name) != 0)
            continue;
        if (of_device++ == 0)
            oldest = at;
    }
    if (oldest != NULL && of_device > REGISTRY_TRANSCRIPTS)
        drop_pending(r, oldest);
    else if (r->pending != NULL && r->pending_count > REGISTRY_PENDING_MAX)
        drop_pending(r, &r->pending);
}

static void add_transcript(struct registry *r, const char *name, const char *text, uint64_t wall_ms)
{
    size_t size = strlen(text) + 1;
    struct registry_kept *t = malloc(sizeof *t + size);
    if (t == NULL)
        return;
    t->name = strdup(name);
    if (t->name == NULL) {
        free(t);
        return;
    }
    t->ended_ms = wall_ms;
    memcpy(t->text, text, size);
    append_pending(r, t);
    limit_pending(r, name);
}

void registry_ended(struct registry *r, const char *device, const struct registry_end *end,
                    uint64_t wall_ms)
{
    struct registry_entry *e = touch(r, device, wall_ms);
    if (e == NULL)
        return;
    e->quirks |= end->seen;
    e->probes += end->was_probe ? 1 : 0;
    if (end->helo[0] != '\0')
        registry_entry_set(&e->helo, end->helo, REGISTRY_HELO_MAX);
    if (end->had_mail || end->tls[0] != '\0')
        registry_entry_set(&e->tls, end->tls, REGISTRY_TLS_MAX);
    if (end->had_mail) {
        e->newest = end->seen | e->gathered;
        e->gathered = 0;
    }
    if (end->transcript != NULL)
        add_transcript(r, e->name, end->transcript, wall_ms);
}

/* ---- the file -------------------------------------------------------------------------------- */

static struct job *job_of(struct executor_job *job)
{
    return (struct job *)job; /* its first member */
}

/* On the database's thread, or while there is no other. */
static bool open_store(struct job *j)
{
    struct registry *r = j->registry;
    return r->store != NULL ||
           registry_store_open(r->file, &r->store, &j->loaded, &j->set_aside, &j->err);
}

/* What is damaged is closed, and set aside thereby, and so is what has no file any more; the next
 * job opens it anew. */
static void leave(struct job *j)
{
    struct registry *r = j->registry;
    bool removed = j->err.kind == ERROR_MISSING;
    if (!j->ok && (removed || j->err.kind == ERROR_DAMAGED) && r->store != NULL) {
        j->removed = removed;
        j->set_aside = database_close(r->store) || j->set_aside;
        r->store = NULL;
    }
    database_rest(r->store);
}

static void work_write(struct executor_job *ej)
{
    struct job *j = job_of(ej);
    j->ok = open_store(j);
    j->postponed = j->loaded != NULL;
    if (j->ok && !j->postponed)
        j->ok = registry_store_write(j->registry->store, &j->batch, &j->err);
    leave(j);
}

static void work_read(struct executor_job *ej)
{
    struct job *j = job_of(ej);
    if (j->registry->in_memory) {
        j->ok = true;
        return;
    }
    j->ok = open_store(j) &&
            registry_store_read(j->registry->store, j->request->name, j->list, &j->count, &j->err);
    leave(j);
}

static void log_failing(struct registry *r, const struct error *err)
{
    bool newer = err->kind == ERROR_INVALID;
    if (newer)
        r->in_memory = true;
    if (!r->failing)
        log_event(
            LOG_LEVEL_WARN, "registry-failing", LOG_STR("reason", err->text),
            LOG_STR("effect", newer ? "what is learnt of devices is lost with the next stop"
                                    : "what is learnt of devices is kept in memory until "
                                      "the file can be written; mail goes on"),
            LOG_STR("remedy", newer ? "install the newer version, or move the file away" : ""),
            LOG_END);
    r->failing = true;
}

static void log_written(struct registry *r)
{
    if (r->failing)
        log_event(LOG_LEVEL_INFO, "registry-recovered", LOG_STR("file", r->file), LOG_END);
    r->failing = false;
}

static void mark_all_changed(struct registry *r)
{
    for (size_t i = 0; i < r->count; i++)
        r->entries[i]->changed = true;
}

/* log_failing() tells it. */
static void take_removed(struct registry *r, bool removed)
{
    if (!removed)
        return;
    mark_all_changed(r);
    r->write_ms = 0;
}

static void take_set_aside(struct registry *r, bool set_aside)
{
    if (!set_aside)
        return;
    log_event(LOG_LEVEL_WARN, "registry-damaged", LOG_STR("file", r->file),
              LOG_STR("effect", "it was set aside as the same name with \".damaged\"; what memory "
                                "does not know of devices is lost, mail is not concerned"),
              LOG_END);
    mark_all_changed(r);
    r->write_ms = 0;
}

/* What a file knows that was opened late is added to what was learnt without it. */
static void take_loaded(struct registry *r, struct registry_entry *list,
                        const struct registry_name *forgotten)
{
    while (list != NULL) {
        struct registry_entry *e = list;
        list = e->next;
        struct registry_entry *known = find(r, e->name);
        bool gone = is_forgotten(forgotten, e->name) || is_forgotten(r->forgotten, e->name);
        e->used = e->last_ms;
        if (r->used < e->used)
            r->used = e->used;
        if (known != NULL && !gone)
            registry_entry_merge(known, e);
        if (known != NULL || gone)
            registry_entry_free(e);
        else
            (void)insert(r, e);
    }
}

/* What came of opening, for every job. */
static void finish(struct registry *r, struct job *j)
{
    take_loaded(r, j->loaded, j->batch.forgotten);
    take_set_aside(r, j->set_aside);
    take_removed(r, j->removed);
    if (!j->ok && !j->set_aside)
        log_failing(r, &j->err);
    j->loaded = NULL;
    j->set_aside = false;
}

static void prepare(struct registry *r, void (*work)(struct executor_job *),
                    void (*done)(struct executor_job *))
{
    r->job = (struct job){.job = {.work = work, .done = done}, .registry = r};
}

/* ---- writing --------------------------------------------------------------------------------- */

static void free_kept(struct registry_kept *t)
{
    while (t != NULL) {
        struct registry_kept *next = t->next;
        free(t->name);
        free(t);
        t = next;
    }
}

static void free_names(struct registry_name *n)
{
    while (n != NULL) {
        struct registry_name *next = n->next;
        free(n);
        n = next;
    }
}

static void gather_entries(struct registry *r, struct registry_batch *b)
{
    struct registry_entry **end = &b->entries;
    size_t n = 0;
    size_t at = r->turn < r->count ? r->turn : 0;
    for (size_t left = r->count; left > 0 && n < BATCH_MAX; left--) {
        struct registry_entry *e = r->entries[at];
        at = at + 1 < r->count ? at + 1 : 0;
        struct registry_entry *copy = e->changed ? registry_entry_copy(e) : NULL;
        if (copy == NULL)
            continue;
        e->changed = false;
        *end = copy;
        end = &copy->next;
        n++;
    }
    r->turn = at;
    if (n == BATCH_MAX && !r->failing) /* there may be more */
        r->write_ms = 0;
}

/* False when there is nothing to write. */
static bool gather(struct registry *r)
{
    struct registry_batch *b = &r->job.batch;
    b->forgotten = r->forgotten;
    r->forgotten = NULL;
    r->forgotten_count = 0;
    b->transcripts = r->pending;
    r->pending = NULL;
    r->pending_end = &r->pending;
    r->pending_count = 0;
    gather_entries(r, b);
    return b->forgotten != NULL || b->transcripts != NULL || b->entries != NULL;
}

/* In front of what came meanwhile; but what was forgotten meanwhile stays so. */
static void put_back_transcripts(struct registry *r, struct registry_kept *list)
{
    struct registry_kept *newer = r->pending;
    r->pending = NULL;
    r->pending_end = &r->pending;
    r->pending_count = 0;
    for (struct registry_kept *next; list != NULL; list = next) {
        next = list->next;
        list->next = NULL;
        if (is_forgotten(r->forgotten, list->name))
            free_kept(list);
        else
            append_pending(r, list);
    }
    for (struct registry_kept *next; newer != NULL; newer = next) {
        next = newer->next;
        append_pending(r, newer);
        limit_pending(r, newer->name);
    }
}

static void put_back(struct registry *r, struct registry_batch *b)
{
    put_back_transcripts(r, b->transcripts);
    b->transcripts = NULL;
    for (const struct registry_entry *copy = b->entries; copy != NULL; copy = copy->next) {
        struct registry_entry *e = find(r, copy->name);
        if (e != NULL)
            e->changed = true;
    }
    for (const struct registry_name *n = b->forgotten; n != NULL; n = n->next)
        add_forgotten(r, n->name);
}

static void finish_write(struct registry *r)
{
    struct registry_batch batch = r->job.batch;
    finish(r, &r->job);
    if (!r->job.ok || r->job.postponed)
        put_back(r, &batch);
    else
        log_written(r);
    if (r->job.postponed)
        r->write_ms = 0;
    free_kept(batch.transcripts);
    registry_entries_free(batch.entries);
    free_names(batch.forgotten);
    r->job.batch = (struct registry_batch){.forgotten = NULL};
}

static void read_next(struct registry *r);

static void done_write(struct executor_job *ej)
{
    struct registry *r = job_of(ej)->registry;
    finish_write(r);
    r->busy = false;
    read_next(r);
}

void registry_tick(struct registry *r, uint64_t now_ms, uint64_t wall_ms)
{
    (void)wall_ms;
    if (r == NULL || r->busy || r->in_memory)
        return;
    bool crowded = !r->failing && r->pending_count >= REGISTRY_PENDING_MAX / 2;
    if (now_ms < r->write_ms && !crowded)
        return;
    r->write_ms = now_ms + REGISTRY_WRITE_MS;
    prepare(r, work_write, done_write);
    if (!gather(r))
        return;
    r->busy = true;
    r->executor.submit(r->executor.ctx, EXECUTOR_CONTENT, &r->job.job);
}

/* ---- transcripts ----------------------------------------------------------------------------- */

static void done_read(struct executor_job *ej);

static void read_next(struct registry *r)
{
    struct request *q = r->requests;
    if (q == NULL || r->busy)
        return;
    r->requests = q->next;
    if (r->requests == NULL)
        r->requests_end = &r->requests;
    prepare(r, work_read, done_read);
    r->job.request = q;
    r->busy = true;
    r->executor.submit(r->executor.ctx, EXECUTOR_CONTENT, &r->job.job);
}

/* The newest of those that wait, the newest first; their texts are borrowed. */
static size_t newest_pending(const struct registry *r, const char *name,
                             struct registry_transcript list[REGISTRY_TRANSCRIPTS])
{
    size_t n = 0;
    for (struct registry_kept *t = r->pending; t != NULL; t = t->next) {
        if (strcmp(t->name, name) != 0)
            continue;
        if (n < REGISTRY_TRANSCRIPTS)
            n++;
        memmove(list + 1, list, (n - 1) * sizeof *list);
        list[0] = (struct registry_transcript){.ended_ms = t->ended_ms, .text = t->text};
    }
    return n;
}

static void answer(struct registry *r, const struct request *q,
                   const struct registry_transcript *stored, size_t stored_count,
                   const struct error *err)
{
    struct registry_transcript list[REGISTRY_TRANSCRIPTS];
    size_t n = newest_pending(r, q->name, list);
    if (is_forgotten(r->forgotten, q->name))
        stored_count = 0;
    for (size_t i = 0; i < stored_count && n < REGISTRY_TRANSCRIPTS; i++)
        list[n++] = stored[i];
    q->done(q->ctx, list, n, n > 0 ? NULL : err);
}

/* No write runs beside a read, so a transcript is either stored or waits, never both. */
static void done_read(struct executor_job *ej)
{
    struct job *j = job_of(ej);
    struct registry *r = j->registry;
    struct request *q = j->request;
    struct registry_transcript stored[REGISTRY_TRANSCRIPTS];
    const struct error err = j->err;
    size_t count = j->count;
    bool ok = j->ok;
    memcpy(stored, j->list, sizeof stored);
    if (!r->in_memory)
        finish(r, j);
    r->busy = false;
    answer(r, q, stored, count, ok ? NULL : &err);
    while (count > 0)
        free(stored[--count].text);
    free(q);
    read_next(r);
}

void registry_transcripts(struct registry *r, const char *name, registry_transcripts_fn *done,
                          void *ctx)
{
    struct error err = ERROR_INIT;
    size_t size = strlen(name) + 1;
    struct request *q = r != NULL ? malloc(sizeof *q + size) : NULL;
    if (q == NULL) {
        (void)error_set(&err, ERROR_NO_ROOM, "read transcripts: out of memory");
        done(ctx, NULL, 0, &err);
        return;
    }
    *q = (struct request){.done = done, .ctx = ctx};
    memcpy(q->name, name, size);
    *r->requests_end = q;
    r->requests_end = &q->next;
    read_next(r);
}

/* ---- questions ------------------------------------------------------------------------------- */

size_t registry_count(const struct registry *r)
{
    return r != NULL ? r->count : 0;
}

bool registry_next(const struct registry *r, const char *after, uint64_t wall_ms,
                   struct registry_device *out)
{
    size_t place = r != NULL ? place_of(r, after, true) : 0;
    if (r == NULL || place == r->count)
        return false;
    registry_entry_show(r->entries[place], wall_ms, out);
    return true;
}

bool registry_find(const struct registry *r, const char *name, uint64_t wall_ms,
                   struct registry_device *out)
{
    const struct registry_entry *e = r != NULL ? find(r, name) : NULL;
    if (e != NULL)
        registry_entry_show(e, wall_ms, out);
    return e != NULL;
}

bool registry_forget(struct registry *r, const char *name)
{
    if (r == NULL || find(r, name) == NULL)
        return false;
    remove_entry(r, place_of(r, name, false));
    return true;
}

/* ---- opening and closing --------------------------------------------------------------------- */

static bool sort_configured(struct registry *r)
{
    size_t n = r->config->device_count;
    r->configured = n > 0 ? calloc(n, sizeof *r->configured) : NULL;
    if (n == 0 || r->configured == NULL)
        return n == 0;
    for (size_t i = 0; i < n; i++)
        r->configured[i] = r->config->devices[i].name;
    qsort(r->configured, n, sizeof *r->configured, compare_names);
    return true;
}

static void free_registry(struct registry *r)
{
    for (size_t i = 0; i < r->count; i++)
        registry_entry_free(r->entries[i]);
    free(r->entries);
    free_kept(r->pending);
    free_names(r->forgotten);
    free(r->configured);
    free(r->file);
    free(r);
}

struct registry *registry_open(const struct registry_settings *settings)
{
    struct registry *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->config = settings->config;
    r->executor = settings->executor;
    r->used = clock_wall_ms(settings->clock); /* later than what is stored */
    r->pending_end = &r->pending;
    r->requests_end = &r->requests;
    r->in_memory = settings->file[0] == '\0';
    r->file = strdup(settings->file);
    if (r->file == NULL || !sort_configured(r)) {
        free_registry(r);
        return NULL;
    }
    if (r->in_memory)
        return r;
    prepare(r, NULL, NULL);
    r->job.ok = open_store(&r->job);
    leave(&r->job);
    finish(r, &r->job);
    return r;
}

/* A file that is damaged or gone costs one more round, in which it is made anew. */
static void write_all(struct registry *r)
{
    bool was_lost = false;
    for (bool go_on = true; go_on;) {
        prepare(r, NULL, NULL);
        if (!gather(r))
            return;
        work_write(&r->job.job);
        bool lost = r->job.set_aside || r->job.removed;
        go_on = r->job.ok || (lost && !was_lost);
        was_lost = was_lost || lost;
        finish_write(r);
    }
}

void registry_close(struct registry *r)
{
    if (r == NULL)
        return;
    assert(!r->busy); /* the executor was drained */
    if (!r->in_memory)
        write_all(r);
    (void)database_close(r->store);
    free_registry(r);
}
