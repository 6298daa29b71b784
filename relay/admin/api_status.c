#include "relay/admin/api_status.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "relay/admin/json.h"
#include "relay/version.h"

#define PROBLEM_TEXT_MAX 1024
#define SPAN_TEXT_MAX    40
#define IDS_TEXT_MAX     128 /* API_STATUS_IDS ids and " and others" */

_Static_assert(IDS_TEXT_MAX > API_STATUS_IDS * (QUEUE_ID_TEXT + 2) + 12, "room for the ids");

static bool put_problem(cJSON *list, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static bool put_problem(cJSON *list, const char *remedy, const char *fmt, ...)
{
    char what[PROBLEM_TEXT_MAX];
    cJSON *o = cJSON_CreateObject();
    va_list args;

    va_start(args, fmt);
    if (vsnprintf(what, sizeof(what), fmt, args) < 0)
        what[0] = '\0';
    va_end(args);
    return json_append(list, o) && json_put_text(o, "what", what) &&
           json_put_text(o, "remedy", remedy);
}

/* "4f2a, 4f2b and others" */
static void ids_text(const uint64_t *ids, uint64_t count, char *out, size_t size)
{
    size_t used = 0;
    uint64_t named = 0;

    out[0] = '\0';
    for (size_t i = 0; i < API_STATUS_IDS && ids[i] != 0; i++, named++) {
        char id[QUEUE_ID_TEXT];

        queue_id_text(ids[i], id);
        used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? ", " : "", id);
    }
    if (count > named && named > 0)
        snprintf(out + used, size - used, " and others");
}

static bool put_message_problem(cJSON *list, uint64_t count, const uint64_t *ids, const char *one,
                                const char *many, const char *advice)
{
    char named[IDS_TEXT_MAX];
    char remedy[PROBLEM_TEXT_MAX];
    char id[QUEUE_ID_TEXT] = "ID";

    if (count == 0)
        return true;
    ids_text(ids, count, named, sizeof(named));
    if (ids[0] != 0)
        queue_id_text(ids[0], id);
    snprintf(remedy, sizeof(remedy), "See why with \"outtray show %s\", then %s", id, advice);
    return put_problem(list, remedy, "%" PRIu64 " %s%s%s", count, count == 1 ? one : many,
                       named[0] != '\0' ? ": " : "", named);
}

static bool put_mailbox_problem(cJSON *list, const struct mailbox_status *m)
{
    if (m->state != MAILBOX_PAUSED)
        return true;
    return put_problem(list, m->remedy, "mailbox %s (%s) is paused: %s", m->name, m->address,
                       m->problem);
}

/* "WHAT: ADVICE", as the queue says it, or WHAT alone. */
static bool put_refusal(cJSON *list, const char *refusing, bool all)
{
    const char *colon = strstr(refusing, ": ");
    int len = colon != NULL ? (int)(colon - refusing) : (int)strlen(refusing);
    char remedy[PROBLEM_TEXT_MAX];

    snprintf(remedy, sizeof(remedy),
             "Devices are asked to try again later, nothing accepted is lost. What helps: %s.",
             colon != NULL ? colon + 2 : "make room on the disk");
    return put_problem(list, remedy, "new mail%s is refused: %.*s",
                       all ? "" : ", unless it is urgent,", len, refusing);
}

/* What a person can do, by the system's error. */
static const char *mending(int errnum)
{
    switch (errnum) {
    case EROFS:
        return "Mount its file system writable again (\"dmesg\" tells why it is not)";
    case ENOSPC:
    case EDQUOT:
        return "Free disk space";
    default:
        return "Mend or replace the disk, or make room on it";
    }
}

static bool put_failure(cJSON *list, const struct queue_counts *c)
{
    char sent[PROBLEM_TEXT_MAX / 4] = "";
    char remedy[PROBLEM_TEXT_MAX];

    if (c->unmarked > 0)
        snprintf(sent, sizeof(sent),
                 " Do not stop outtrayd before that: it alone remembers that %" PRIu64
                 " message%s sent meanwhile, and would send %s again.",
                 c->unmarked, c->unmarked == 1 ? " was" : "s were",
                 c->unmarked == 1 ? "it" : "them");
    snprintf(remedy, sizeof(remedy),
             "Devices are asked to try again later, what was accepted is sent. %s; outtrayd goes "
             "on by itself.%s",
             mending(c->failure_errnum), sent);
    return put_problem(list, remedy, "the spool cannot be written: %s", c->failure);
}

static bool put_spool_problem(cJSON *list, const struct api_status *s)
{
    if (s->counts->failing)
        return put_failure(list, s->counts);
    if (s->refusing[0] != '\0')
        return put_refusal(list, s->refusing, s->counts->full_urgent);
    return true;
}

static bool put_damage_problem(cJSON *list, const struct api_status *s)
{
    bool ok;

    ok = put_message_problem(list, s->counts->damaged, s->damaged, "message is damaged on the disk",
                             "messages are damaged on the disk",
                             "save what can be read with \"outtray export ID\" and drop it with "
                             "\"outtray delete ID\"; it cannot be sent any more. Check the disk.");
    if (s->recovery != NULL && s->recovery->damaged > s->counts->damaged)
        ok = ok &&
             put_problem(list,
                         "What could not be read was set aside in the spool's directory "
                         "\"damaged\" for a person to look at; check the disk.",
                         "damage was found in the spool at the last start (%" PRIu64 " place%s)",
                         s->recovery->damaged, s->recovery->damaged == 1 ? "" : "s");
    return ok;
}

/* "9 days", but "47 hours" and "90 minutes": rounded to a whole number of two at least. */
static void span_words(uint64_t ms, char out[SPAN_TEXT_MAX])
{
    static const struct {
        uint64_t ms;
        const char *name;
    } units[] = {
        {UINT64_C(24) * 3600 * 1000, "day"}, {UINT64_C(3600) * 1000, "hour"}, {60000, "minute"}};
    size_t i = 0;
    uint64_t n;

    while (i + 1 < sizeof(units) / sizeof(units[0]) && ms < 2 * units[i].ms)
        i++;
    n = (ms + units[i].ms / 2) / units[i].ms;
    snprintf(out, SPAN_TEXT_MAX, "%" PRIu64 " %s%s", n, units[i].name, n == 1 ? "" : "s");
}

/* Also where smaller mail fits: the device tries the same again, and in vain. */
static bool put_no_room_problem(cJSON *list, const struct api_status *s,
                                const struct api_status_no_room *d)
{
    const char *colon = strstr(d->why, ": ");
    int len = colon != NULL ? (int)(colon - d->why) : (int)strlen(d->why);
    char remedy[PROBLEM_TEXT_MAX];
    char ago[SPAN_TEXT_MAX];
    char all[QUEUE_SIZE_TEXT];
    char own[QUEUE_SIZE_TEXT];

    snprintf(remedy, sizeof(remedy),
             "The device is asked to try again later, nothing accepted is lost. What helps: %s.",
             colon != NULL ? colon + 2 : "make room for the relay");
    if (d->ago_ms < 60000)
        snprintf(ago, sizeof(ago), "less than a minute");
    else
        span_words(d->ago_ms, ago);
    queue_size_text(d->waits, own);
    queue_size_text(s->counts->living_bytes, all);
    return put_problem(list, remedy,
                       "mail of device %s was refused %s ago, and none was accepted from it since: "
                       "%.*s; %s of its mail waits here, %s of all",
                       d->name, ago, len, d->why, own, all);
}

static bool put_no_room_problems(cJSON *list, const struct api_status *s)
{
    size_t named = s->no_room_count < API_STATUS_QUIET ? s->no_room_count : API_STATUS_QUIET;
    bool ok = true;

    if (s->counts->failing) /* nobody's mail is taken then, for another reason */
        return true;
    for (size_t i = 0; ok && i < named; i++)
        ok = put_no_room_problem(list, s, &s->no_room[i]);
    if (s->no_room_count > named)
        ok = ok && put_problem(list, "\"outtray devices\" lists them first.",
                               "mail of %zu more device%s was refused for lack of room",
                               s->no_room_count - named, s->no_room_count - named == 1 ? "" : "s");
    return ok;
}

static bool put_quiet_problem(cJSON *list, const struct api_status_quiet *quiet)
{
    char remedy[PROBLEM_TEXT_MAX];
    char silent[SPAN_TEXT_MAX];
    char usual[SPAN_TEXT_MAX];

    span_words(quiet->silent_ms, silent);
    span_words(quiet->usual_ms, usual);
    snprintf(remedy, sizeof(remedy),
             "See whether the device is on, and what it says about its mail. When it is gone for "
             "good: \"outtray device %s --forget\".",
             quiet->name);
    return put_problem(list, remedy,
                       "device %s has sent nothing for %s; its longest usual silence is %s",
                       quiet->name, silent, usual);
}

static bool put_quiet_problems(cJSON *list, const struct api_status *s)
{
    size_t named = s->quiet_count < API_STATUS_QUIET ? s->quiet_count : API_STATUS_QUIET;
    bool ok = true;

    for (size_t i = 0; ok && i < named; i++)
        ok = put_quiet_problem(list, &s->quiet[i]);
    if (s->quiet_count > named)
        ok = ok && put_problem(list, "\"outtray devices\" lists them first.",
                               "%zu more device%s gone quiet", s->quiet_count - named,
                               s->quiet_count - named == 1 ? " has" : "s have");
    return ok;
}

static uint64_t less(uint64_t from, uint64_t what)
{
    return from > what ? from - what : 0;
}

static bool put_problems(cJSON *list, const struct api_status *s)
{
    const uint64_t *state = s->counts->state;
    bool ok = put_message_problem(list, less(state[QUEUE_HELD], s->damaged_held), s->held,
                                  "message is held", "messages are held",
                                  "\"outtray retry\" sends it again, \"outtray delete\" drops it.");

    for (size_t i = 0; ok && i < s->mailbox_count; i++)
        ok = put_mailbox_problem(list, &s->mailboxes[i]);
    return ok && put_spool_problem(list, s) && put_no_room_problems(list, s) &&
           put_damage_problem(list, s) &&
           put_message_problem(list, less(state[QUEUE_DEAD], s->damaged_dead), s->dead,
                               "message could not be delivered", "messages could not be delivered",
                               "\"outtray requeue\" tries again, \"outtray export\" saves it, "
                               "\"outtray delete\" drops it.") &&
           put_quiet_problems(list, s);
}

static bool put_queue(cJSON *o, const struct queue_counts *c)
{
    cJSON *q = cJSON_CreateObject();
    cJSON *lanes = NULL;
    bool ok = json_put(o, "queue", q);

    if (ok)
        ok = json_put(q, "lanes", lanes = cJSON_CreateObject());
    for (int i = 0; i < QUEUE_GONE; i++)
        ok = ok && json_put_number(q, queue_state_name((enum queue_state)i), c->state[i]);
    for (int i = 0; i < LANE_COUNT; i++)
        ok = ok && json_put_number(lanes, lane_name((enum lane)i), c->lane[i]);
    return ok && json_put_number(q, "in_flight", c->in_flight) &&
           json_put_number(q, "damaged", c->damaged) &&
           json_put_number(q, "living_bytes", c->living_bytes) &&
           json_put_number(q, "disk_bytes", c->disk_bytes) &&
           json_put_number(q, "free_bytes", c->free_bytes) &&
           json_put_number(q, "segments", c->segments) &&
           json_put_number(q, "commits", c->commits) && json_put_number(q, "flushes", c->flushes) &&
           json_put_number(q, "unmarked", c->unmarked) && json_put_flag(q, "full", c->full) &&
           json_put_flag(q, "full_urgent", c->full_urgent) &&
           json_put_flag(q, "failing", c->failing) &&
           json_put_text(q, "failure", c->failing ? c->failure : "");
}

static bool put_recovery(cJSON *o, const struct queue_recovery *r)
{
    cJSON *q;

    if (r == NULL)
        return json_put_null(o, "recovery");
    q = cJSON_CreateObject();
    return json_put(o, "recovery", q) && json_put_number(q, "messages", r->messages) &&
           json_put_number(q, "uncertain", r->uncertain) &&
           json_put_number(q, "damaged", r->damaged) && json_put_number(q, "orphans", r->orphans) &&
           json_put_number(q, "segments", r->segments);
}

static bool put_intake(cJSON *o, const struct intake_counts *c)
{
    cJSON *i = cJSON_CreateObject();

    return json_put(o, "intake", i) && json_put_number(i, "sessions", c->sessions) &&
           json_put_number(i, "sessions_ever", c->sessions_ever) &&
           json_put_number(i, "accepted", c->accepted) &&
           json_put_number(i, "refused", c->refused) &&
           json_put_number(i, "strangers", c->strangers);
}

static bool put_devices(cJSON *o, const struct api_status *s)
{
    cJSON *d = cJSON_CreateObject();

    return json_put(o, "devices", d) && json_put_number(d, "known", s->devices) &&
           json_put_number(d, "quiet", s->quiet_count);
}

static bool put_next_try(cJSON *o, const struct mailbox_status *m, const struct api_times *times)
{
    if (m->state == MAILBOX_READY || m->next_try_ms == 0 || m->next_try_ms == UINT64_MAX)
        return json_put_null(o, "next_try_in");
    return json_put_seconds(o, "next_try_in",
                            m->next_try_ms > times->now_ms ? m->next_try_ms - times->now_ms : 0);
}

static bool put_forecast(cJSON *o, const struct mailbox_status *m)
{
    bool ok =
        m->dry_in_ms > 0 ? json_put_seconds(o, "dry_in", m->dry_in_ms) : json_put_null(o, "dry_in");

    return ok && (m->empty_in_ms != UINT64_MAX ? json_put_seconds(o, "empty_in", m->empty_in_ms)
                                               : json_put_null(o, "empty_in"));
}

static bool put_budget(cJSON *o, const struct mailbox_status *m)
{
    const char *why = m->connections_why != NULL ? m->connections_why : "";

    return json_put_number(o, "connections", m->connections) &&
           json_put_number(o, "connections_max", m->connections_max) &&
           json_put_number(o, "connections_allowed", m->connections_allowed) &&
           json_put_text(o, "connections_why", why) && put_forecast(o, m) &&
           json_put_text(o, "budget_why", m->budget_why != NULL ? m->budget_why : "") &&
           json_put_number(o, "sent_this_minute", m->sent_this_minute) &&
           json_put_number(o, "minute_max", m->minute_max) &&
           json_put_number(o, "recipients_today", m->recipients_today) &&
           json_put_number(o, "day_max", m->day_max) && json_put_number(o, "max_size", m->max_size);
}

static bool put_mailbox(cJSON *list, const struct mailbox_status *m, bool waited_for,
                        const struct api_times *times)
{
    cJSON *o = cJSON_CreateObject();

    return json_append(list, o) && json_put_text(o, "name", m->name) &&
           json_put_text(o, "address", m->address) && json_put_text(o, "host", m->host) &&
           json_put_number(o, "port", m->port) &&
           json_put_text(o, "state", mailbox_state_name(m->state)) &&
           json_put_flag(o, "waited_for", waited_for) && put_next_try(o, m, times) &&
           json_put_text(o, "problem", m->problem) && json_put_text(o, "remedy", m->remedy) &&
           json_put_text(o, "last_reply", m->last_reply) &&
           json_put_text(o, "mechanism", m->mechanism) &&
           json_put_number(o, "delivered", m->delivered) &&
           json_put_number(o, "failed", m->failed) &&
           json_put_time(o, "last_success", m->last_success_wall_ms) && put_budget(o, m);
}

static bool put_mailboxes(cJSON *o, const struct api_status *s)
{
    cJSON *list = cJSON_CreateArray();
    bool ok = json_put(o, "mailboxes", list);

    for (size_t i = 0; ok && i < s->mailbox_count; i++)
        ok = put_mailbox(list, &s->mailboxes[i], s->waited_for != NULL && s->waited_for[i],
                         &s->times);
    return ok;
}

static uint64_t delivered(const struct api_status *s)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < s->mailbox_count; i++)
        sum += s->mailboxes[i].delivered;
    return sum;
}

static bool put_head(cJSON *o, const struct api_status *s, bool attention)
{
    return json_put_text(o, "version", OUTTRAY_VERSION) &&
           json_put_text(o, "state", attention ? "attention" : "ok") &&
           json_put_number(o, "pid", (uint64_t)s->pid) &&
           json_put_time(o, "started", s->started_wall_ms) &&
           json_put_seconds(o, "uptime", s->times.now_ms - s->started_ms) &&
           json_put_number(o, "delivered", delivered(s));
}

cJSON *api_status_json(const struct api_status *s)
{
    cJSON *o = cJSON_CreateObject();
    cJSON *problems = cJSON_CreateArray();
    bool ok = problems != NULL && put_problems(problems, s);

    ok = ok && o != NULL && put_head(o, s, cJSON_GetArraySize(problems) > 0);
    if (ok) {
        ok = json_put(o, "problems", problems);
        problems = NULL;
    }
    ok = ok && put_queue(o, s->counts) && put_recovery(o, s->recovery) &&
         put_intake(o, s->intake) && put_devices(o, s) && put_mailboxes(o, s);
    if (ok)
        return o;
    cJSON_Delete(problems);
    cJSON_Delete(o);
    return NULL;
}
