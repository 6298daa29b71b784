#include "relay/admin/reports.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "relay/admin/history.h"
#include "relay/admin/notify.h"
#include "relay/admin/report_maker.h"
#include "relay/base/log.h"
#include "relay/smtp/identity.h"
#include "relay/submit/dispatch.h"

#define HOUR_MS 3600000

/* The reports of a round, one after the other; those to senders as often as there are senders. */
enum phase {
    PHASE_IDLE,
    PHASE_FAILED_OPERATOR,
    PHASE_FAILED_SENDER,
    PHASE_DELAYED_OPERATOR,
    PHASE_DELAYED_SENDER,
    PHASE_END
};

struct senders {
    char *list[REPORTS_SENDERS_MAX];
    size_t count;
};

struct reports {
    struct reports_settings set;
    uint64_t due_ms; /* of the next round; 0 = nothing is to be reported */
    bool pending;    /* some note is not told of everywhere */
    bool stopping;

    bool scanned; /* all that was there at the start */
    bool reading; /* the message that is looked at */
    uint64_t scan_after;
    uint64_t upkeep_after;

    /* Late mail, by id: told up to the history's mark, found up to late_up_to. */
    uint64_t late_up_to;
    size_t late; /* of them, that waits */

    enum phase phase;
    struct report_maker *maker;
    uint64_t after;     /* the candidate that was looked at last */
    uint64_t delay_end; /* of this round */
    size_t delay_count; /* late mail of this round */
    size_t more;        /* that the report only counts */
    unsigned looks;     /* messages read for it */
    bool again;         /* there are further senders */
    char to[ENVELOPE_PATH_MAX + 1];
    struct senders told; /* of late mail, in this round */

    uint64_t sent_ms[REPORTS_PER_HOUR]; /* a ring */
    size_t sent_next;

    struct confirmation *confirmations; /* on their way to the spool */
    size_t confirmation_count;
};

/* The report of success of one attempt. */
struct confirmation {
    struct confirmation *next;
    struct reports *reports;
    struct report_maker *maker;
    uint64_t retry_ms; /* 0: it is being stored */
    char to[ENVELOPE_PATH_MAX + 1];
};

static uint64_t now_of(const struct reports *r)
{
    return clock_now_ms(r->set.clock);
}

static bool has_operator(const struct reports *r)
{
    return r->set.config->operator[0] != '\0';
}

static bool is_own(const char *device)
{
    return strcmp(device, CONFIG_OWN_DEVICE) == 0;
}

static bool is_to_sender(const struct reports *r)
{
    return r->phase == PHASE_FAILED_SENDER || r->phase == PHASE_DELAYED_SENDER;
}

static bool is_about_failed(const struct reports *r)
{
    return r->phase == PHASE_FAILED_OPERATOR || r->phase == PHASE_FAILED_SENDER;
}

static uint8_t flag_of(const struct reports *r)
{
    return r->phase == PHASE_FAILED_OPERATOR ? HISTORY_OPERATOR : HISTORY_SENDER;
}

/* ---- notes ----------------------------------------------------------------------------------- */

static bool is_pending(const struct reports *r, const struct history_note *n)
{
    uint8_t wanted = HISTORY_SENDER | (has_operator(r) ? HISTORY_OPERATOR : 0);
    return (n->flags & wanted) != wanted;
}

static void set_flags(struct reports *r, struct history_note *n, uint8_t flags)
{
    n->flags |= flags;
    history_changed(r->set.history, n);
}

/* Something is to be reported, with whatever else comes until then. */
static void await_more(struct reports *r)
{
    r->pending = true;
    if (r->due_ms == 0)
        r->due_ms = now_of(r) + REPORTS_WAIT_MS;
}

/* What cannot be noted now is found by the next start. */
static struct history_note *add_note(struct reports *r, uint64_t id, const char *device)
{
    struct history_note *n = history_add(r->set.history, id, now_of(r));
    if (n != NULL && is_own(device))
        set_flags(r, n, HISTORY_OPERATOR | HISTORY_SENDER);
    else if (n != NULL)
        await_more(r);
    return n;
}

static void tell_own_failure(uint64_t id, const char *reason)
{
    log_event(LOG_LEVEL_ERROR, "report-failed", LOG_ID("queue", id), LOG_STR("reason", reason),
              LOG_STR("remedy",
                      "nobody gets a report about a report: see it with \"outtray show\", "
                      "and the mail it tells of with \"outtray dead\""),
              LOG_END);
}

static void note_dead(struct reports *r, uint64_t id, size_t failed, const char *device,
                      const char *reason)
{
    struct history_note *n = history_find(r->set.history, id);
    if (is_own(device))
        tell_own_failure(id, reason);
    if (n == NULL || n->failed != failed) /* else all of it was told while it still waited */
        n = add_note(r, id, device);
    if (n == NULL)
        return;
    n->failed = (uint32_t)failed;
    n->since_ms = (int64_t)now_of(r);
    set_flags(r, n, HISTORY_DEAD);
}

static void note_partly_failed(struct reports *r, uint64_t id, size_t failed, const char *device)
{
    struct history_note *n = history_find(r->set.history, id);
    if (is_own(device) || (n != NULL && n->failed == failed))
        return;
    n = add_note(r, id, device);
    if (n != NULL)
        n->failed = (uint32_t)failed;
}

void reports_settled(struct reports *r, uint64_t id, enum queue_state state, size_t failed,
                     const char *device, const char *reason)
{
    if (r == NULL)
        return;
    if (state == QUEUE_DEAD) {
        note_dead(r, id, failed, device, reason);
        notify_message(r->set.notify, CONFIG_EVENT_DEAD_LETTER, id, device, reason);
        return;
    }
    if (state == QUEUE_HELD)
        notify_message(r->set.notify, CONFIG_EVENT_HELD, id, device, reason);
    if (state == QUEUE_GONE)
        history_drop(r->set.history, id);
    else if (failed > 0)
        note_partly_failed(r, id, failed, device);
}

void reports_seen(struct reports *r, uint64_t id)
{
    struct history_note *n = r != NULL ? history_find(r->set.history, id) : NULL;
    if (n != NULL && (n->flags & HISTORY_SEEN) == 0)
        set_flags(r, n, HISTORY_SEEN);
}

void reports_retried(struct reports *r, uint64_t id)
{
    if (r != NULL)
        history_drop(r->set.history, id);
}

/* ---- upkeep ---------------------------------------------------------------------------------- */

/* What was there at the start and was not noted, or not all of it: the history is written now and
 * then only, and the daemon may have been killed. */
static void note_found(struct reports *r, const struct queue_info *info, size_t failed)
{
    struct history_note *n = history_find(r->set.history, info->id);
    if (n == NULL || (n->failed != 0 && n->failed < failed)) /* 0: noted by an older version */
        n = add_note(r, info->id, info->device);
    if (n == NULL)
        return;
    n->failed = n->failed < failed ? (uint32_t)failed : n->failed;
    set_flags(r, n, info->state == QUEUE_DEAD ? HISTORY_DEAD : 0);
}

static void scan(struct reports *r);

static void on_found(void *ctx, struct queue_reader *reader, const struct envelope *e,
                     const struct error *err)
{
    struct reports *r = ctx;
    struct queue_info info;
    (void)err;
    r->reading = false;
    if (!queue_find(r->set.queue, r->scan_after, &info)) {
        queue_reader_close(reader);
        return;
    }
    size_t failed = reader != NULL ? envelope_count(e, RECIPIENT_FAILED) : 0;
    if (failed > 0)
        note_found(r, &info, failed);
    else if (info.state == QUEUE_DEAD && history_find(r->set.history, info.id) == NULL)
        (void)add_note(r, info.id, info.device); /* it cannot be read, and is dead all the same */
    queue_reader_close(reader);
    if (!r->stopping)
        scan(r);
}

/* Only the envelope tells who has failed. */
static bool must_be_read(const struct reports *r, const struct queue_info *info)
{
    const struct history_note *n = history_find(r->set.history, info->id);
    if (info->state == QUEUE_DEAD)
        return n == NULL || (n->flags & HISTORY_DEAD) == 0;
    return info->has_outcomes && !is_own(info->device);
}

static void scan(struct reports *r)
{
    struct queue_info info;
    for (unsigned i = 0; i < REPORTS_SLICE && !r->scanned && !r->reading; i++) {
        r->scanned = !queue_list(r->set.queue, r->scan_after, &info);
        if (r->scanned)
            return;
        r->scan_after = info.id;
        if (!must_be_read(r, &info))
            continue;
        r->reading = true;
        queue_reader_open(r->set.queue, info.id, on_found, r);
    }
}

/* A report that failed itself has told nobody. */
static bool was_told(const struct reports *r, const struct history_note *n)
{
    struct queue_info info;
    return (n->flags & HISTORY_SEEN) != 0 ||
           (n->report_id != 0 && !queue_find(r->set.queue, n->report_id, &info));
}

static bool is_over(const struct reports *r, const struct history_note *n)
{
    int64_t kept = (int64_t)now_of(r) - n->since_ms;
    return kept >= (int64_t)r->set.config->dead_keep_ms && was_told(r, n);
}

static void delete_letter(struct reports *r, const struct history_note *n)
{
    uint64_t id = n->id;
    bool seen = (n->flags & HISTORY_SEEN) != 0;
    if (!queue_delete(r->set.queue, id, NULL, NULL, NULL))
        return;
    log_event(LOG_LEVEL_INFO, "dead-letter-deleted", LOG_ID("queue", id),
              LOG_STR("reason", seen ? "dead_keep is over, and it was seen"
                                     : "dead_keep is over, and it was reported"),
              LOG_END);
    history_drop(r->set.history, id);
}

static void look_after(struct reports *r, struct history_note *n)
{
    struct queue_info info;
    if (!queue_find(r->set.queue, n->id, &info))
        history_drop(r->set.history, n->id);
    else if (info.state != QUEUE_DEAD && n->failed == 0)
        history_drop(r->set.history, n->id);
    else if (info.state == QUEUE_DEAD && is_over(r, n))
        delete_letter(r, n);
    else if (is_pending(r, n))
        await_more(r);
}

static void upkeep(struct reports *r)
{
    for (unsigned i = 0; i < REPORTS_SLICE; i++) {
        struct history_note *n = history_next(r->set.history, r->upkeep_after);
        r->upkeep_after = n != NULL ? n->id : 0;
        if (n == NULL)
            return;
        look_after(r, n);
    }
}

/* ---- late mail ------------------------------------------------------------------------------- */

static bool waits(const struct queue_info *info)
{
    return info->state != QUEUE_DEAD && !is_own(info->device);
}

/* A step of the wall clock does nothing. */
static bool is_late(const struct reports *r, const struct queue_info *info)
{
    return (int64_t)now_of(r) - info->since_ms >= (int64_t)r->set.config->delay_notice_ms;
}

static void tell_late(struct reports *r, const struct queue_info *info)
{
    struct mailbox_status first = {.state = MAILBOX_READY};
    const char *reason = "it has not been delivered yet";
    r->late++;
    if (r->set.dispatch != NULL)
        (void)dispatch_route_ready_ms(r->set.dispatch, info->route, &first);
    if (first.state != MAILBOX_READY)
        reason = first.problem;
    notify_message(r->set.notify, CONFIG_EVENT_DELAYED, info->id, info->device, reason);
}

/* Ids grow as mail arrives, so the first that is not late ends the search. */
static void look_for_late(struct reports *r)
{
    struct queue_info info;
    if (r->set.config->delay_notice_ms == 0)
        return;
    for (unsigned i = 0; i < REPORTS_SLICE; i++) {
        if (!queue_list(r->set.queue, r->late_up_to, &info))
            return;
        if (waits(&info) && !is_late(r, &info))
            return;
        r->late_up_to = info.id;
        if (waits(&info))
            tell_late(r, &info);
    }
}

/* ---- success --------------------------------------------------------------------------------- */

static bool wants_confirmation(const struct reports *r, const struct envelope *before,
                               const struct envelope *after)
{
    enum config_report how = report_maker_how(r->set.config, after->device);
    if (!identity_is_answerable(after->reverse_path))
        return false;
    for (size_t i = 0; i < after->recipient_count; i++) {
        if (before->recipients[i].state == RECIPIENT_PENDING &&
            report_maker_is_about(REPORT_RELAYED, true, how, &after->recipients[i]))
            return true;
    }
    return false;
}

static void confirmation_free(struct confirmation *c)
{
    struct confirmation **at = &c->reports->confirmations;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    c->reports->confirmation_count--;
    report_maker_free(c->maker);
    free(c);
}

static void on_confirmed(void *ctx, uint64_t id, const struct error *err)
{
    struct confirmation *c = ctx;
    struct reports *r = c->reports;
    if (id == 0) {
        log_event(LOG_LEVEL_WARN, "report-waits", LOG_PATH("to", c->to),
                  LOG_STR("reason", err->text), LOG_END);
        c->retry_ms = now_of(r) + REPORTS_RETRY_MS;
        return;
    }
    log_event(LOG_LEVEL_INFO, "report", LOG_ID("queue", id), LOG_PATH("to", c->to),
              LOG_STR("about", "relayed"), LOG_U64("messages", 1), LOG_END);
    confirmation_free(c);
    r->set.on_queued(r->set.ctx);
}

static void confirm(struct confirmation *c)
{
    c->retry_ms = 0;
    report_maker_send(c->maker, c->to, 0, on_confirmed, c);
}

static struct confirmation *confirmation_new(struct reports *r, const char *to)
{
    struct confirmation *c =
        r->confirmation_count < REPORTS_CONFIRM_MAX ? calloc(1, sizeof *c) : NULL;
    if (c == NULL)
        return NULL;
    c->reports = r;
    c->next = r->confirmations;
    r->confirmations = c;
    r->confirmation_count++;
    snprintf(c->to, sizeof c->to, "%s", to);
    c->maker = report_maker_new(&r->set, REPORT_RELAYED, true);
    return c;
}

void reports_relayed(struct reports *r, uint64_t id, const struct envelope *before,
                     const struct envelope *after, const void *header, size_t len)
{
    if (r == NULL || !wants_confirmation(r, before, after))
        return;
    struct confirmation *c = confirmation_new(r, after->reverse_path);
    if (c != NULL && c->maker != NULL &&
        report_maker_add(c->maker, id, before, after, header, len)) {
        confirm(c);
        return;
    }
    log_event(LOG_LEVEL_WARN, "report-lost", LOG_ID("queue", id),
              LOG_PATH("to", after->reverse_path), LOG_STR("about", "relayed"),
              LOG_STR("reason", "too many wait for the spool, or no memory"), LOG_END);
    if (c != NULL)
        confirmation_free(c);
}

/* One a tick: they wait because the spool is in trouble. */
static void retry_confirmation(struct reports *r)
{
    struct confirmation *c = r->confirmations;
    while (c != NULL && (c->retry_ms == 0 || c->retry_ms > now_of(r)))
        c = c->next;
    if (c != NULL)
        confirm(c);
}

/* ---- candidates ------------------------------------------------------------------------------ */

static bool next_failed(struct reports *r, uint64_t *out_id)
{
    struct history_note *n = history_next(r->set.history, r->after);
    struct queue_info info;
    for (; n != NULL; n = history_next(r->set.history, n->id)) {
        if ((n->flags & flag_of(r)) != 0 || n->in_job || !queue_find(r->set.queue, n->id, &info))
            continue;
        *out_id = n->id;
        return true;
    }
    return false;
}

static bool next_delayed(struct reports *r, uint64_t *out_id)
{
    struct queue_info info = {.id = r->after};
    while (queue_list(r->set.queue, info.id, &info) && info.id <= r->delay_end) {
        if (!waits(&info))
            continue;
        *out_id = info.id;
        return true;
    }
    return false;
}

static bool next_candidate(struct reports *r, uint64_t *out_id)
{
    bool found = is_about_failed(r) ? next_failed(r, out_id) : next_delayed(r, out_id);
    if (found)
        r->after = *out_id;
    return found;
}

static void mark(struct reports *r, uint64_t id)
{
    struct history_note *n = is_about_failed(r) ? history_find(r->set.history, id) : NULL;
    if (n != NULL)
        n->in_job = true;
}

/* What was in a report is told, or, when there is none, is not. */
static void unmark_all(struct reports *r, uint64_t report_id)
{
    struct history_note *n = history_next(r->set.history, 0);
    for (; n != NULL; n = history_next(r->set.history, n->id)) {
        if (!n->in_job)
            continue;
        n->in_job = false;
        if (report_id == 0)
            continue;
        if (n->report_id == 0 || !is_to_sender(r))
            n->report_id = report_id;
        set_flags(r, n, flag_of(r));
        history_hurry(r->set.history); /* else a crash would have it told twice */
    }
}

/* ---- senders --------------------------------------------------------------------------------- */

static bool is_told(const struct senders *s, const char *address)
{
    for (size_t i = 0; i < s->count; i++) {
        if (strcasecmp(s->list[i], address) == 0)
            return true;
    }
    return false;
}

static void note_told(struct senders *s, const char *address)
{
    char *copy = s->count < REPORTS_SENDERS_MAX ? strdup(address) : NULL;
    if (copy != NULL)
        s->list[s->count++] = copy;
}

static void forget_told(struct senders *s)
{
    while (s->count > 0)
        free(s->list[--s->count]);
}

static bool sender_hears(const struct reports *r, const struct envelope *e)
{
    enum config_report how = report_maker_how(r->set.config, e->device);
    enum report_kind kind = is_about_failed(r) ? REPORT_FAILED : REPORT_DELAYED;
    if (e->reverse_path[0] == '\0' || !identity_is_answerable(e->reverse_path) ||
        strcasecmp(e->reverse_path, r->set.config->operator) == 0)
        return false;
    for (size_t i = 0; i < e->recipient_count; i++) {
        if (report_maker_is_about(kind, true, how, &e->recipients[i]))
            return true;
    }
    return false;
}

static bool judge_for_sender(struct reports *r, const struct envelope *e)
{
    struct history_note *n = is_about_failed(r) ? history_find(r->set.history, r->after) : NULL;
    if (!sender_hears(r, e)) {
        if (n != NULL)
            set_flags(r, n, HISTORY_SENDER);
        return false;
    }
    if (is_told(&r->told, e->reverse_path))
        return false;
    if (r->to[0] == '\0')
        snprintf(r->to, sizeof r->to, "%s", e->reverse_path);
    bool taken = strcasecmp(r->to, e->reverse_path) == 0;
    r->again = r->again || !taken;
    return taken;
}

/* To the operator everything goes that such a report is about. */
static bool judge(void *ctx, const struct envelope *e)
{
    struct reports *r = ctx;
    enum report_kind kind = is_about_failed(r) ? REPORT_FAILED : REPORT_DELAYED;
    if (is_to_sender(r))
        return judge_for_sender(r, e);
    for (size_t i = 0; i < e->recipient_count; i++) {
        if (report_maker_is_about(kind, false, CONFIG_REPORT_YES, &e->recipients[i]))
            return true;
    }
    return false;
}

/* ---- a round --------------------------------------------------------------------------------- */

static void begin_phase(struct reports *r, enum phase phase);
static void look_on(struct reports *r);

static uint64_t rate_ready_ms(const struct reports *r)
{
    uint64_t oldest = r->sent_ms[r->sent_next];
    return oldest == 0 ? 0 : oldest + HOUR_MS;
}

/* Everything is told, or the rest has to wait until then; 0 is the usual time. */
static void end_round(struct reports *r, bool delayed_told, uint64_t not_before_ms)
{
    report_maker_free(r->maker);
    r->maker = NULL;
    unmark_all(r, 0);
    forget_told(&r->told);
    if (delayed_told)
        history_set_delayed(r->set.history, r->delay_end);
    else
        r->late += r->delay_count;
    r->phase = PHASE_IDLE;
    r->pending = false;
    struct history_note *n = history_next(r->set.history, 0);
    for (; n != NULL && !r->pending; n = history_next(r->set.history, n->id))
        r->pending = is_pending(r, n);
    r->due_ms = not_before_ms;
    if (r->due_ms == 0 && r->pending)
        await_more(r);
}

static void next_phase(struct reports *r)
{
    bool once_more =
        is_to_sender(r) && r->again && r->to[0] != '\0' && r->told.count < REPORTS_SENDERS_MAX;
    begin_phase(r, once_more ? r->phase : r->phase + 1);
}

static void log_sent(const struct reports *r, uint64_t id)
{
    log_event(LOG_LEVEL_INFO, "report", LOG_ID("queue", id), LOG_PATH("to", r->to),
              LOG_STR("about", is_about_failed(r) ? "failed" : "delayed"),
              LOG_U64("messages", report_maker_count(r->maker) + r->more), LOG_END);
}

static void on_sent(void *ctx, uint64_t id, const struct error *err)
{
    struct reports *r = ctx;
    if (id == 0) {
        log_event(LOG_LEVEL_WARN, "report-waits", LOG_PATH("to", r->to),
                  LOG_STR("reason", err->text), LOG_END);
        end_round(r, r->phase > PHASE_DELAYED_OPERATOR, now_of(r) + REPORTS_RETRY_MS);
        return;
    }
    log_sent(r, id);
    unmark_all(r, id);
    r->sent_ms[r->sent_next] = now_of(r);
    r->sent_next = (r->sent_next + 1) % REPORTS_PER_HOUR;
    if (is_to_sender(r))
        note_told(&r->told, r->to);
    r->set.on_queued(r->set.ctx);
    if (!r->stopping)
        next_phase(r);
}

static void end_looking(struct reports *r)
{
    if (report_maker_count(r->maker) == 0) {
        next_phase(r);
        return;
    }
    report_maker_send(r->maker, r->to, r->more, on_sent, r);
}

static void on_read(void *ctx, uint64_t id, bool read, bool taken)
{
    struct reports *r = ctx;
    (void)read; /* what cannot be read now is left for the next round */
    if (taken)
        mark(r, id);
    if (!r->stopping)
        look_on(r);
}

/* The rest of what the operator's report is about is counted, and told with it. */
static void count_rest(struct reports *r)
{
    uint64_t id;
    if (!is_about_failed(r)) {
        size_t held = report_maker_count(r->maker);
        r->more = r->delay_count > held ? r->delay_count - held : 0;
        return;
    }
    while (next_candidate(r, &id)) {
        mark(r, id);
        r->more++;
    }
}

static void look_on(struct reports *r)
{
    uint64_t id;
    bool room = report_maker_has_room(r->maker);
    if (!is_to_sender(r) && !room) {
        count_rest(r);
        end_looking(r);
    } else if (!room || (is_to_sender(r) && r->looks++ == REPORTS_LOOKS_MAX)) {
        r->again = is_about_failed(r); /* late mail is told of once */
        end_looking(r);
    } else if (next_candidate(r, &id)) {
        report_maker_read(r->maker, id, judge, on_read, r);
    } else {
        end_looking(r);
    }
}

static bool is_void(const struct reports *r, enum phase phase)
{
    if ((phase == PHASE_FAILED_OPERATOR || phase == PHASE_DELAYED_OPERATOR) && !has_operator(r))
        return true;
    return phase >= PHASE_DELAYED_OPERATOR && r->delay_count == 0;
}

static void begin_phase(struct reports *r, enum phase phase)
{
    uint64_t ready = rate_ready_ms(r);
    report_maker_free(r->maker);
    r->maker = NULL;
    while (phase < PHASE_END && is_void(r, phase))
        phase++;
    if (phase == PHASE_END || ready > now_of(r)) {
        end_round(r, phase > PHASE_DELAYED_OPERATOR, phase == PHASE_END ? 0 : ready);
        return;
    }
    if (phase != r->phase)
        forget_told(&r->told);
    r->phase = phase;
    r->after = is_about_failed(r) ? 0 : history_delayed_up_to(r->set.history);
    r->more = 0;
    r->looks = 0;
    r->again = false;
    snprintf(r->to, sizeof r->to, "%s", is_to_sender(r) ? "" : r->set.config->operator);
    r->maker = report_maker_new(&r->set, is_about_failed(r) ? REPORT_FAILED : REPORT_DELAYED,
                                is_to_sender(r));
    if (r->maker == NULL)
        end_round(r, false, now_of(r) + REPORTS_RETRY_MS);
    else
        look_on(r);
}

static void begin_round(struct reports *r)
{
    r->delay_end = r->late_up_to;
    r->delay_count = r->late;
    r->late = 0;
    begin_phase(r, PHASE_FAILED_OPERATOR);
}

/* ---- the face -------------------------------------------------------------------------------- */

void reports_tick(struct reports *r)
{
    uint64_t now = now_of(r);
    history_tick(r->set.history, now);
    if (r->stopping)
        return;
    scan(r);
    retry_confirmation(r);
    look_for_late(r);
    if (r->phase != PHASE_IDLE)
        return; /* a round counts on its notes */
    upkeep(r);
    if (r->late > 0)
        await_more(r);
    if (r->due_ms != 0 && now >= r->due_ms && r->scanned)
        begin_round(r);
}

struct reports *reports_new(const struct reports_settings *settings)
{
    struct reports *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->set = *settings;
    r->late_up_to = history_delayed_up_to(settings->history);
    return r;
}

void reports_stop(struct reports *r)
{
    if (r != NULL)
        r->stopping = true;
}

void reports_free(struct reports *r)
{
    if (r == NULL)
        return;
    while (r->confirmations != NULL)
        confirmation_free(r->confirmations);
    report_maker_free(r->maker);
    forget_told(&r->told);
    free(r);
}
