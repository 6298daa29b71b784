#include "relay/submit/ledger.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "queue/queue.h"
#include "relay/base/database.h"
#include "relay/base/log.h"
#include "relay/submit/ledger_store.h"

#define SECRET_BITS 0xffffu
#define BOOT_FILE   "/proc/sys/kernel/random/boot_id" /* without it wall clocks must do */

/* What was written of a mailbox last, as far as it tells whether it must be written again. */
struct written {
    bool known;
    bool at_rest;
    uint64_t now_ms;
    uint32_t recipients;
    enum mailbox_state state;
    uint64_t next_try_ms;
    uint64_t max_size;
    uint64_t no_bdat_until_ms;
};

struct job {
    struct executor_job job;
    struct ledger *ledger;
    struct ledger_row *list;
    struct ledger_row *loaded; /* by an opening that came late: known better by now */
    struct error err;
    bool ok;
    bool set_aside;
};

struct ledger {
    struct ledger_settings set;
    struct database *store; /* NULL while it cannot be opened; the job's while one is under way */
    struct job job;
    bool busy;
    bool failing;
    bool in_memory;    /* for good: the file is of a newer program */
    uint64_t retry_ms; /* should it fail */
    uint8_t key[SIPHASH_KEY];
    bool has_key;
    char boot[LEDGER_BOOT_MAX];
    struct written *written; /* by mailbox */
    char file[];
};

/* ---- taking over ----------------------------------------------------------------------------- */

static void read_boot(char out[LEDGER_BOOT_MAX])
{
    FILE *f = fopen(BOOT_FILE, "re");
    if (f == NULL)
        return;
    if (fgets(out, LEDGER_BOOT_MAX, f) == NULL)
        out[0] = '\0';
    out[strcspn(out, "\n")] = '\0';
    (void)fclose(f);
}

/* Since it was saved. Monotonic time is better, but knows nothing of other boots. */
static uint64_t elapsed_ms(const struct ledger *l, const struct ledger_row *row, uint64_t now_ms,
                           uint64_t wall_ms)
{
    if (l->boot[0] != '\0' && strcmp(l->boot, row->boot) == 0)
        return now_ms > row->saved_ms ? now_ms - row->saved_ms : 0;
    return wall_ms > row->saved_wall_ms ? wall_ms - row->saved_wall_ms : 0;
}

static uint64_t left_of(uint64_t ms, uint64_t elapsed)
{
    return ms > elapsed ? ms - elapsed : 0;
}

static int32_t print_of(const struct ledger *l, const struct secret *s)
{
    if (s == NULL || !l->has_key)
        return LEDGER_NO_SECRET;
    return (int32_t)(siphash(l->key, secret_text(s), secret_length(s)) & SECRET_BITS);
}

/* The password is read now to see whether it is another one; one that cannot be read is not. With
 * OAuth it is tried in any case: a refusal locks nobody out, and whether the application's secret
 * is another one its sign-in knows. */
static bool has_other_password(const struct ledger *l, struct mailbox *m,
                               const struct ledger_row *row)
{
    struct error err = ERROR_INIT;
    if (m->config->has_oauth)
        return true;
    if (m->config->auth != CONFIG_AUTH_PASSWORD)
        return false;
    m->password = secret_of_mailbox(m->config->name, m->config->password_file, &err);
    return m->password != NULL && print_of(l, m->password) != row->secret;
}

static void take_trouble(const struct ledger *l, struct mailbox *m, const struct ledger_row *row,
                         uint64_t now_ms, uint64_t elapsed)
{
    bool paused = strcmp(row->state, mailbox_state_name(MAILBOX_PAUSED)) == 0;
    bool other = false;
    if (!paused && strcmp(row->state, mailbox_state_name(MAILBOX_WAITING)) != 0)
        return;
    if (paused)
        other = has_other_password(l, m, row);
    m->state = paused ? MAILBOX_PAUSED : MAILBOX_WAITING;
    m->next_try_ms = now_ms + (paused && !other ? left_of(row->wait_ms, elapsed) : 0);
    m->trouble_since_ms = now_ms - row->lasting_ms - elapsed; /* may be before the boot: it wraps */
    m->troubles = row->troubles;
    memcpy(m->last_verdict, row->last_verdict, sizeof m->last_verdict);
    memcpy(m->problem, row->problem, sizeof m->problem);
    memcpy(m->remedy, row->remedy, sizeof m->remedy);
    memcpy(m->last_reply, row->last_reply, sizeof m->last_reply);
    log_event(LOG_LEVEL_WARN, "mailbox-still-in-trouble", LOG_STR("mailbox", m->config->name),
              LOG_STR("state", row->state), LOG_MS("wait", m->next_try_ms - now_ms),
              LOG_STR("effect", other ? "it is tried at once" : ""), LOG_STR("reason", m->problem),
              LOG_STR("remedy", m->remedy), LOG_STR("reply", m->last_reply), LOG_END);
}

static void take_lessons(struct mailbox *m, const struct ledger_row *row, uint64_t now_ms,
                         uint64_t elapsed)
{
    uint64_t size_ms = left_of(row->size_ms, elapsed);
    uint64_t no_bdat_ms = left_of(row->no_bdat_ms, elapsed);
    if (size_ms > 0 && row->configured_size == m->config->max_size) {
        m->max_size = row->max_size;
        m->size_until_ms = now_ms + size_ms;
    }
    if (no_bdat_ms > 0)
        m->no_bdat_until_ms = now_ms + no_bdat_ms;
    m->last_success_wall_ms = row->success_wall_ms;
}

static void take_row(struct ledger *l, struct mailbox *m, const struct ledger_row *row,
                     uint64_t now_ms, uint64_t wall_ms)
{
    uint64_t elapsed = elapsed_ms(l, row, now_ms, wall_ms);
    bool known =
        budget_restore(m->budget, row->budget, row->at_rest, now_ms, row->saved_wall_ms + elapsed);
    if (!known || !row->at_rest)
        log_event(LOG_LEVEL_INFO, "budget-cautious", LOG_STR("mailbox", m->config->name),
                  LOG_STR("reason", known ? "it was in use when the last run ended"
                                          : "what is known of it cannot be read"),
                  LOG_STR("effect", "connections come back one by one, and this minute's messages "
                                    "count as sent if they may have been"),
                  LOG_END);
    take_lessons(m, row, now_ms, elapsed);
    take_trouble(l, m, row, now_ms, elapsed);
}

static const struct ledger_row *row_of(const struct ledger_row *list, const char *name)
{
    while (list != NULL && strcmp(list->name, name) != 0)
        list = list->next;
    return list;
}

static void take_all(struct ledger *l, const struct ledger_row *list, bool lost, uint64_t now_ms,
                     uint64_t wall_ms)
{
    for (size_t i = 0; i < l->set.count; i++) {
        struct mailbox *m = &l->set.mailboxes[i];
        const struct ledger_row *row = row_of(list, m->config->name);
        if (row != NULL)
            take_row(l, m, row, now_ms, wall_ms);
        else if (lost)
            (void)budget_restore(m->budget, "", false, now_ms, wall_ms);
    }
}

/* ---- what is to be written ------------------------------------------------------------------- */

static void note_written(struct ledger *l, size_t i, bool at_rest, uint64_t now_ms)
{
    const struct mailbox *m = &l->set.mailboxes[i];
    l->written[i] = (struct written){.known = true,
                                     .at_rest = at_rest,
                                     .now_ms = now_ms,
                                     .recipients = budget_recipients(m->budget, now_ms),
                                     .state = m->state,
                                     .next_try_ms = m->next_try_ms,
                                     .max_size = m->max_size,
                                     .no_bdat_until_ms = m->no_bdat_until_ms};
}

static bool must_write(const struct ledger *l, size_t i, uint64_t now_ms)
{
    const struct mailbox *m = &l->set.mailboxes[i];
    const struct written *w = &l->written[i];
    bool at_rest = budget_is_at_rest(m->budget, now_ms);
    uint32_t step = budget_save_step(m->budget);
    return !w->known || w->at_rest != at_rest || w->state != m->state ||
           (m->state != MAILBOX_READY && w->next_try_ms != m->next_try_ms) ||
           w->max_size != m->max_size || w->no_bdat_until_ms != m->no_bdat_until_ms ||
           (step > 0 && budget_recipients(m->budget, now_ms) >= w->recipients + step) ||
           (!at_rest && now_ms - w->now_ms >= BUDGET_SAVE_MS);
}

static void fill_row(const struct ledger *l, const struct mailbox *m, struct ledger_row *row,
                     uint64_t now_ms, uint64_t wall_ms)
{
    bool trouble = m->state != MAILBOX_READY;
    snprintf(row->name, sizeof row->name, "%s", m->config->name);
    memcpy(row->boot, l->boot, sizeof row->boot);
    row->saved_ms = now_ms;
    row->saved_wall_ms = wall_ms;
    snprintf(row->state, sizeof row->state, "%s", mailbox_state_name(m->state));
    row->wait_ms = trouble ? left_of(m->next_try_ms, now_ms) : 0;
    row->lasting_ms = trouble ? now_ms - m->trouble_since_ms : 0;
    row->troubles = m->troubles;
    row->secret = print_of(l, m->password);
    memcpy(row->last_verdict, m->last_verdict, sizeof row->last_verdict);
    memcpy(row->problem, m->problem, sizeof row->problem);
    memcpy(row->remedy, m->remedy, sizeof row->remedy);
    memcpy(row->last_reply, m->last_reply, sizeof row->last_reply);
    row->configured_size = m->config->max_size;
    row->max_size = m->max_size;
    row->size_ms = left_of(m->size_until_ms, now_ms);
    row->no_bdat_ms = left_of(m->no_bdat_until_ms, now_ms);
    row->success_wall_ms = m->last_success_wall_ms;
}

/* NULL without memory. */
static struct ledger_row *make_row(const struct ledger *l, const struct mailbox *m, bool at_rest,
                                   uint64_t now_ms, uint64_t wall_ms)
{
    struct bytes text;
    struct ledger_row *row = calloc(1, sizeof *row);
    if (row == NULL)
        return NULL;
    bytes_init(&text, BUDGET_TEXT_MAX);
    if (budget_save(m->budget, now_ms, wall_ms, &text))
        row->budget = strdup(bytes_string(&text));
    bytes_done(&text);
    if (row->budget == NULL) {
        free(row);
        return NULL;
    }
    row->at_rest = at_rest;
    fill_row(l, m, row, now_ms, wall_ms);
    return row;
}

static void add_row(struct ledger *l, size_t i, bool at_rest, uint64_t now_ms, uint64_t wall_ms)
{
    struct ledger_row *row = make_row(l, &l->set.mailboxes[i], at_rest, now_ms, wall_ms);
    if (row == NULL)
        return;
    row->next = l->job.list;
    l->job.list = row;
    note_written(l, i, at_rest, now_ms);
}

/* ---- the file -------------------------------------------------------------------------------- */

static bool open_store(struct job *j)
{
    struct ledger *l = j->ledger;
    if (l->store != NULL)
        return true;
    return ledger_store_open(l->file, &l->store, &j->loaded, l->key, &j->set_aside, &j->err);
}

/* On the database's thread, or while there is no other. */
static void work_write(struct executor_job *ej)
{
    struct job *j = (struct job *)ej; /* its first member */
    struct ledger *l = j->ledger;
    j->ok = open_store(j) && ledger_store_write(l->store, j->list, &j->err);
    if (!j->ok && j->err.kind == ERROR_DAMAGED && l->store != NULL) {
        j->set_aside = database_close(l->store) || j->set_aside;
        l->store = NULL;
    }
    database_rest(l->store);
}

static void tell_set_aside(const struct ledger *l)
{
    log_event(LOG_LEVEL_WARN, "ledger-damaged", LOG_STR("file", l->file),
              LOG_STR("effect", "it was set aside as the same name with \".damaged\"; what it knew "
                                "of mailboxes is learnt again, mail is not concerned"),
              LOG_END);
}

static void tell_failure(struct ledger *l, const struct error *err)
{
    bool newer = err->kind == ERROR_INVALID;
    l->in_memory = l->in_memory || newer;
    if (!l->failing)
        log_event(
            LOG_LEVEL_WARN, "ledger-failing", LOG_STR("reason", err->text),
            LOG_STR("effect", newer ? "pauses and budgets are forgotten with the next stop"
                                    : "pauses and budgets are kept in memory until the file "
                                      "can be written; mail goes on"),
            LOG_STR("remedy", newer ? "install the newer version, or move the file away" : ""),
            LOG_END);
    l->failing = true;
}

static void forget_written(struct ledger *l)
{
    for (size_t i = 0; i < l->set.count; i++)
        l->written[i].known = false;
}

/* What was made while the file could not be opened has no fingerprint: it is made again. */
static void take_result(struct ledger *l)
{
    struct job *j = &l->job;
    bool opened = j->loaded != NULL || (l->store != NULL && !l->has_key);
    l->has_key = l->has_key || l->store != NULL;
    if (j->set_aside)
        tell_set_aside(l);
    if (!j->ok) {
        tell_failure(l, &j->err);
    } else {
        if (l->failing)
            log_event(LOG_LEVEL_INFO, "ledger-recovered", LOG_STR("file", l->file), LOG_END);
        l->failing = false;
        l->retry_ms = 0;
    }
    if (!j->ok || opened)
        forget_written(l);
    ledger_rows_free(j->list);
    ledger_rows_free(j->loaded);
    l->busy = false;
}

static void done_write(struct executor_job *ej)
{
    take_result(((struct job *)ej)->ledger);
}

static void begin_job(struct ledger *l)
{
    l->job = (struct job){
        .job = {.work = work_write, .done = done_write}, .ledger = l, .err = ERROR_INIT};
}

void ledger_look(struct ledger *l, uint64_t now_ms, uint64_t wall_ms)
{
    if (l == NULL || l->busy || l->in_memory || now_ms < l->retry_ms)
        return;
    begin_job(l);
    for (size_t i = 0; i < l->set.count; i++) {
        if (must_write(l, i, now_ms))
            add_row(l, i, budget_is_at_rest(l->set.mailboxes[i].budget, now_ms), now_ms, wall_ms);
    }
    if (l->job.list == NULL)
        return;
    l->busy = true;
    l->retry_ms = now_ms + BUDGET_SAVE_MS;
    l->set.executor.submit(l->set.executor.ctx, EXECUTOR_CONTENT, &l->job.job);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void ledger_free(struct ledger *l)
{
    explicit_bzero(l->key, sizeof l->key);
    free(l->written);
    free(l);
}

/* Mail that waits was tried before. */
static bool any_was_tried(const struct queue *q)
{
    struct queue_info info = {.id = 0};
    while (q != NULL && queue_list(q, info.id, &info)) {
        if (info.attempts > 0 || info.losses > 0 || info.state != QUEUE_QUEUED)
            return true;
    }
    return false;
}

static bool is_missing(const char *file)
{
    return access(file, F_OK) != 0 && errno == ENOENT;
}

static void open_first(struct ledger *l, uint64_t now_ms, uint64_t wall_ms)
{
    struct error err = ERROR_INIT;
    struct ledger_row *list = NULL;
    bool aside = false;
    bool missing = is_missing(l->file);
    l->has_key = ledger_store_open(l->file, &l->store, &list, l->key, &aside, &err);
    if (aside)
        tell_set_aside(l);
    if (!l->has_key) {
        tell_failure(l, &err);
        l->retry_ms = now_ms + BUDGET_SAVE_MS;
    }
    take_all(l, list, missing ? any_was_tried(l->set.queue) : aside || !l->has_key, now_ms,
             wall_ms);
    ledger_rows_free(list);
    database_rest(l->store);
}

struct ledger *ledger_open(const struct ledger_settings *settings, uint64_t now_ms,
                           uint64_t wall_ms)
{
    size_t size = strlen(settings->file) + 1;
    struct ledger *l = calloc(1, sizeof *l + size);
    if (l == NULL)
        return NULL;
    l->set = *settings;
    memcpy(l->file, settings->file, size);
    l->set.file = l->file;
    l->written = calloc(settings->count + 1, sizeof *l->written);
    if (l->written == NULL) {
        ledger_free(l);
        return NULL;
    }
    read_boot(l->boot);
    open_first(l, now_ms, wall_ms);
    return l;
}

void ledger_close(struct ledger *l, uint64_t now_ms, uint64_t wall_ms)
{
    if (l == NULL)
        return;
    if (!l->in_memory) {
        begin_job(l);
        for (size_t i = 0; i < l->set.count; i++)
            add_row(l, i, true, now_ms, wall_ms);
        work_write(&l->job.job);
        take_result(l);
    }
    (void)database_close(l->store);
    ledger_free(l);
}
