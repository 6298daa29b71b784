#include "relay/admin/report_maker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "relay/smtp/header.h"
#include "relay/smtp/trace.h"
#include "relay/smtp/words.h"
#include "relay/submit/dispatch.h"
#include "relay/submit/verdict.h"

#define LISTENER    "report"                /* that mail of our own comes by */
#define HELD_HEADER (REPORT_HEADER_MAX + 2) /* one more than is returned shows where to cut */
#define SUBJECT_MAX 1000                    /* octets of a subject in encoded words */
#define WHOLE_MAX   ((size_t)64 * 1024)     /* octets of a message that is returned whole */

/* Texts that live as long as the report. */
struct text {
    struct text *next;
    char text[];
};

struct report_maker {
    const struct reports_settings *set;
    enum report_kind kind;
    bool to_sender;
    struct report_message messages[REPORT_MESSAGES_MAX];
    size_t count;
    size_t octets;
    struct text *texts;
    bool no_memory;
    char *route; /* of the first message; NULL before */

    /* The message that is being read. */
    uint64_t id;
    struct queue_reader *reader;
    report_maker_judge_fn *judge;
    report_maker_read_fn *read;
    struct bytes header;
    size_t header_size;            /* octets of it that are wanted */
    const struct envelope *before; /* an attempt; NULL: does not matter */

    /* The report that is being stored. */
    struct queue_writer *writer;
    struct bytes text;
    size_t appended;
    struct envelope envelope;
    bool storing;
    report_maker_sent_fn *sent;
    void *ctx;
};

/* ---- texts ----------------------------------------------------------------------------------- */

static const char *keep(struct report_maker *m, const char *text)
{
    size_t size = strlen(text) + 1;
    struct text *t = malloc(sizeof *t + size);
    if (t == NULL) {
        m->no_memory = true;
        return "";
    }
    memcpy(t->text, text, size);
    t->next = m->texts;
    m->texts = t;
    m->octets += size;
    return t->text;
}

/* ---- whom it is about ------------------------------------------------------------------------ */

/* RFC 3464 2.3.3 and RFC 3461 4.1 */
static const struct {
    enum recipient_state state;
    const char *word;
} kinds[] = {[REPORT_FAILED] = {RECIPIENT_FAILED, "FAILURE"},
             [REPORT_DELAYED] = {RECIPIENT_PENDING, "DELAY"},
             [REPORT_RELAYED] = {RECIPIENT_DELIVERED, "SUCCESS"}};

/* RFC 3461 4.1: without NOTIFY it is ours to decide, but for success, which nobody hears of
 * unasked; with it, only what was asked for. */
static bool sender_wants(enum report_kind kind, enum config_report how, const char *notify)
{
    if (notify[0] == '\0')
        return how == CONFIG_REPORT_YES && kind != REPORT_RELAYED;
    return how != CONFIG_REPORT_NO && report_notify_has(notify, kinds[kind].word);
}

bool report_maker_is_about(enum report_kind kind, bool to_sender, enum config_report how,
                           const struct recipient *r)
{
    return r->state == kinds[kind].state && (!to_sender || sender_wants(kind, how, r->notify));
}

enum config_report report_maker_how(const struct config *c, const char *device)
{
    const struct config_device *d = config_find_device(c, device);
    return d != NULL ? d->report_to_sender : c->report_to_sender;
}

/* ---- holding a message ----------------------------------------------------------------------- */

#define OWN_COMMAND "\"outtray " /* in what can be done: for the operator only */

static void explain(struct report_recipient *out, const char *what, const char *who,
                    const char *how)
{
    out->what = what;
    out->who = who;
    out->how = how;
}

/* A mailbox that is in trouble keeps all of its mail waiting, whatever was said to each. */
static bool explain_by_mailbox(struct report_maker *m, const char *route,
                               struct report_recipient *out)
{
    struct mailbox_status first;
    char what[2048];
    if (m->set->dispatch == NULL)
        return false;
    (void)dispatch_route_ready_ms(m->set->dispatch, route, &first);
    if (first.state == MAILBOX_READY)
        return false;
    snprintf(what, sizeof what, "It waits for mailbox %s (%s), which is %s: %s", first.name,
             first.address, mailbox_state_name(first.state), first.problem);
    explain(out, keep(m, what), "", keep(m, first.remedy));
    return true;
}

/* Failed by a reply that only asked for patience: the time for it was over. */
static bool was_given_up(const struct verdict *v)
{
    return v->action != VERDICT_RCPT_FAIL && v->action != VERDICT_MSG_FAIL &&
           v->action != VERDICT_HOLD;
}

/* A reply that holds a message first, and makes it a dead letter the second time. */
static const char *how_of(const struct verdict *v, bool failed)
{
    if (failed && v->action == VERDICT_HOLD && v->again == VERDICT_MSG_FAIL)
        return "Read the reply and remove the cause; then \"outtray requeue\" tries it again.";
    return v->how;
}

static void explain_reply(struct report_maker *m, const struct recipient *r, const char *route,
                          bool held, struct report_recipient *out)
{
    bool failed = r->state == RECIPIENT_FAILED;
    struct verdict v;
    if (r->state == RECIPIENT_DELIVERED) {
        explain(out, "The mail service has taken it over.", "", "");
        return;
    }
    if (!failed && !held && explain_by_mailbox(m, route, out))
        return;
    if (!verdict_of_stored(r->reply, failed, &v)) {
        explain(out, failed ? "It was given up." : held ? "It is held." : "", "", "");
        return;
    }
    if (failed && was_given_up(&v)) {
        char what[REPLY_TEXT_MAX];
        snprintf(what, sizeof what,
                 "It was tried for as long as give_up in [relay] says. The last time: %s", v.what);
        explain(out, keep(m, what), "whoever looks after the relay",
                "When the cause is gone, \"outtray requeue\" tries it again.");
        return;
    }
    explain(out, v.what, v.who, how_of(&v, failed));
}

static void explain_recipient(struct report_maker *m, const struct recipient *r, const char *route,
                              bool held, struct report_recipient *out)
{
    explain_reply(m, r, route, held, out);
    if (m->to_sender && out->how != NULL && strstr(out->how, OWN_COMMAND) != NULL)
        out->how = "";
}

static bool hold_recipients(struct report_maker *m, const struct envelope *e, bool held,
                            struct report_message *out)
{
    enum config_report how = report_maker_how(m->set->config, e->device);
    struct report_recipient *list = calloc(REPORTS_RECIPIENTS_MAX, sizeof *list);
    if (list == NULL)
        return false;
    out->recipients = list;
    for (size_t i = 0; i < e->recipient_count; i++) {
        const struct recipient *r = &e->recipients[i];
        if (!report_maker_is_about(m->kind, m->to_sender, how, r) ||
            (m->before != NULL && m->before->recipients[i].state != RECIPIENT_PENDING))
            continue;
        if (out->recipient_count == REPORTS_RECIPIENTS_MAX) {
            out->more_recipients++;
            continue;
        }
        struct report_recipient *to = &list[out->recipient_count++];
        *to = (struct report_recipient){.forward_path = keep(m, r->forward_path),
                                        .orcpt = keep(m, r->orcpt),
                                        .reply = keep(m, r->reply)};
        explain_recipient(m, r, e->route, held, to);
    }
    return true;
}

/* The header follows. */
static bool hold(struct report_maker *m, const struct envelope *e)
{
    struct report_message *out = &m->messages[m->count];
    struct queue_info info;
    char id[QUEUE_ID_TEXT];
    bool held = queue_find(m->set->queue, m->id, &info) && info.state == QUEUE_HELD;
    queue_id_text(m->id, id);
    *out = (struct report_message){.id = keep(m, id),
                                   .device = keep(m, e->device),
                                   .reverse_path = keep(m, e->reverse_path),
                                   .subject = keep(m, e->subject),
                                   .message_id = keep(m, e->message_id),
                                   .envid = keep(m, e->envid),
                                   .arrived_ms = e->arrived_ms};
    if (m->route == NULL)
        m->route = strdup(e->route);
    m->no_memory = !hold_recipients(m, e, held, out) || m->route == NULL || m->no_memory;
    m->count += !m->no_memory;
    return !m->no_memory;
}

/* ---- reading --------------------------------------------------------------------------------- */

static void end_reading(struct report_maker *m, bool read, bool taken)
{
    report_maker_read_fn *done = m->read;
    queue_reader_close(m->reader);
    m->reader = NULL;
    m->read = NULL;
    bytes_done(&m->header);
    done(m->ctx, m->id, read, taken);
}

static void hold_header(struct report_maker *m, const void *header, size_t len)
{
    struct report_message *last = &m->messages[m->count - 1];
    uint8_t *copy = len > 0 ? malloc(len) : NULL;
    if (copy == NULL)
        return;
    memcpy(copy, header, len);
    last->header = copy;
    last->header_len = len;
    m->octets += len;
}

/* The envelope has the subject as the device wrote it, with "?" for what is not UTF-8; the header
 * that is stored has been repaired. */
static void take_subject(struct report_maker *m, const uint8_t *header, size_t len)
{
    struct header h;
    char subject[SUBJECT_MAX];
    header_init(&h);
    for (size_t at = 0; at < len && h.state == HEADER_MORE; at += HEADER_CHUNK_MAX)
        header_feed(&h, header + at, len - at < HEADER_CHUNK_MAX ? len - at : HEADER_CHUNK_MAX);
    if (h.state == HEADER_MORE)
        header_finish(&h);
    header_text(&h, HEADER_SUBJECT, subject, sizeof subject);
    if (subject[0] != '\0')
        m->messages[m->count - 1].subject = keep(m, subject);
    header_done(&h);
}

/* A header that cannot be read is left out: the rest is what matters. */
static void take_header(struct report_maker *m, bool read)
{
    if (read) {
        take_subject(m, m->header.data, m->header.len);
        hold_header(m, m->header.data, m->header.len);
    }
    end_reading(m, true, true);
}

static void on_block(void *ctx, const uint8_t *data, size_t len, const struct error *err)
{
    struct report_maker *m = ctx;
    size_t wanted = m->header_size - m->header.len;
    bool ok = err == NULL && len > 0 && bytes_append(&m->header, data, len < wanted ? len : wanted);
    if (ok && m->header.len < m->header_size)
        queue_read(m->reader, on_block, m);
    else
        take_header(m, ok);
}

/* RFC 3461 4.3: the sender may have a message back that failed; a large one gets its header. */
static bool is_returned_whole(const struct report_maker *m, const struct envelope *e)
{
    return m->kind == REPORT_FAILED && m->to_sender && strcasecmp(e->ret, "FULL") == 0 &&
           e->size <= WHOLE_MAX && m->octets + e->size <= REPORTS_OCTETS_MAX;
}

static void on_opened(void *ctx, struct queue_reader *reader, const struct envelope *e,
                      const struct error *err)
{
    struct report_maker *m = ctx;
    (void)err;
    m->reader = reader;
    if (reader == NULL) {
        end_reading(m, false, false);
        return;
    }
    bool wanted = m->judge(m->ctx, e);
    if (!wanted || !hold(m, e)) {
        end_reading(m, !wanted, false);
        return;
    }
    m->header_size = e->header_size < HELD_HEADER ? e->header_size : HELD_HEADER;
    if (is_returned_whole(m, e)) {
        m->header_size = (size_t)e->size;
        m->messages[m->count - 1].whole = true;
    }
    if (m->header_size == 0)
        take_header(m, false);
    else
        queue_read(reader, on_block, m);
}

void report_maker_read(struct report_maker *m, uint64_t id, report_maker_judge_fn *judge,
                       report_maker_read_fn *done, void *ctx)
{
    m->id = id;
    m->judge = judge;
    m->read = done;
    m->ctx = ctx;
    bytes_init(&m->header, WHOLE_MAX);
    queue_reader_open(m->set->queue, id, on_opened, m);
}

bool report_maker_add(struct report_maker *m, uint64_t id, const struct envelope *before,
                      const struct envelope *after, const void *header, size_t len)
{
    m->id = id;
    m->before = before;
    bool ok = hold(m, after);
    m->before = NULL;
    if (ok && len > 0) {
        take_subject(m, header, len);
        hold_header(m, header, len < HELD_HEADER ? len : HELD_HEADER);
    }
    return ok;
}

bool report_maker_has_room(const struct report_maker *m)
{
    return m->count < REPORT_MESSAGES_MAX && m->octets < REPORTS_OCTETS_MAX && !m->no_memory;
}

size_t report_maker_count(const struct report_maker *m)
{
    return m->count;
}

/* ---- the route ------------------------------------------------------------------------------- */

static bool works(const struct report_maker *m, const char *route)
{
    struct mailbox_status first;
    if (m->set->dispatch == NULL)
        return true;
    (void)dispatch_route_ready_ms(m->set->dispatch, route, &first);
    return first.state == MAILBOX_READY;
}

static const struct config_route *route_named(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->route_count; i++) {
        if (strcmp(c->routes[i].name, name) == 0)
            return &c->routes[i];
    }
    return &c->routes[0];
}

/* The message's own, unless its mailbox is in trouble and another one's is not: news of trouble
 * should not wait for it to end. */
static const struct config_route *choose_route(const struct report_maker *m)
{
    const struct config *c = m->set->config;
    const struct config_route *own = route_named(c, m->route);
    if (works(m, own->name))
        return own;
    for (size_t i = 0; i < c->route_count; i++) {
        if (works(m, c->routes[i].name))
            return &c->routes[i];
    }
    return own;
}

/* ---- writing --------------------------------------------------------------------------------- */

static int utc_offset_minutes(uint64_t wall_ms)
{
    time_t now = (time_t)(wall_ms / 1000);
    struct tm local;
    return localtime_r(&now, &local) != NULL ? (int)(local.tm_gmtoff / 60) : 0;
}

/* Fewer messages are told of when all together are too large, and the last without its header. */
static bool compose(struct report_maker *m, struct report *report)
{
    for (;;) {
        bytes_clear(&m->text);
        if (report_write(report, &m->text))
            return true;
        if (report->message_count > 1) {
            size_t kept = report->message_count / 2;
            report->more += report->message_count - kept;
            report->message_count = kept;
        } else if (m->messages[0].header != NULL) {
            free((void *)m->messages[0].header);
            m->messages[0].header = NULL;
        } else {
            return false;
        }
    }
}

static size_t header_size_of(const struct bytes *text)
{
    for (size_t i = 0; i + 4 <= text->len; i++) {
        if (memcmp(text->data + i, "\r\n\r\n", 4) == 0)
            return i + 4;
    }
    return 0;
}

static const char *const subjects[] = {[REPORT_FAILED] = "Mail could not be delivered",
                                       [REPORT_DELAYED] = "Mail is delayed",
                                       [REPORT_RELAYED] = "Mail was handed over"};

/* Good news can wait for the mail itself. */
static bool fill_envelope(struct report_maker *m, const struct report *report,
                          const struct config_route *route)
{
    struct envelope *e = &m->envelope;
    envelope_done(e);
    envelope_init(e);
    e->lane = m->kind == REPORT_RELAYED ? LANE_BULK : LANE_NORMAL;
    e->arrived_ms = report->wall_ms;
    e->header_size = (uint32_t)header_size_of(&m->text);
    if (!words_is_ascii((const char *)m->text.data, m->text.len))
        e->body = ENVELOPE_BODY_8BITMIME;
    return envelope_set(&e->device, CONFIG_OWN_DEVICE) && envelope_set(&e->listener, LISTENER) &&
           envelope_set(&e->route, route->name) &&
           envelope_set(&e->message_id, report->message_id) &&
           envelope_set(&e->subject, subjects[m->kind]) && envelope_add_recipient(e, report->to);
}

static bool write_report(struct report_maker *m, const char *to, size_t more)
{
    const struct config_route *route = choose_route(m);
    const struct config *c = m->set->config;
    char message_id[TRACE_MESSAGE_ID_MAX];
    uint64_t wall = clock_wall_ms(m->set->clock);
    trace_message_id(queue_writer_id(m->writer), wall, c->hostname, message_id);
    struct report report = {.kind = m->kind,
                            .to_sender = m->to_sender,
                            .from = c->mailboxes[route->mailboxes[0]].address,
                            .to = to,
                            .hostname = c->hostname,
                            .message_id = message_id,
                            .wall_ms = wall,
                            .utc_offset_minutes = utc_offset_minutes(wall),
                            .messages = m->messages,
                            .message_count = m->count,
                            .more = more};
    return compose(m, &report) && fill_envelope(m, &report, route);
}

static void end_sending(struct report_maker *m, uint64_t id, const struct error *err)
{
    queue_abort(m->writer);
    m->writer = NULL;
    m->storing = false;
    m->sent(m->ctx, err == NULL ? id : 0, err);
}

static void on_committed(void *ctx, uint64_t id, const struct error *err)
{
    end_sending(ctx, id, err);
}

/* Stops where the spool asks for it. */
static bool append_all(struct report_maker *m, struct error *err)
{
    while (m->appended < m->text.len) {
        size_t left = m->text.len - m->appended;
        size_t n = left < QUEUE_BLOCK ? left : QUEUE_BLOCK;
        enum queue_flow flow = queue_append(m->writer, m->text.data + m->appended, n, err);
        if (flow == QUEUE_FLOW_ERROR)
            return false;
        m->appended += n;
        if (flow == QUEUE_FLOW_FULL)
            return true; /* on_drain() goes on */
    }
    return true;
}

static void commit_when_whole(struct report_maker *m)
{
    struct queue_writer *w = m->writer;
    if (m->appended < m->text.len)
        return;
    m->writer = NULL;
    queue_commit(w, &m->envelope, clock_now_ms(m->set->clock), clock_wall_ms(m->set->clock),
                 on_committed, m);
}

static void on_drain(void *ctx)
{
    struct report_maker *m = ctx;
    struct error err = ERROR_INIT;
    if (!m->storing || m->writer == NULL)
        return;
    if (append_all(m, &err))
        commit_when_whole(m);
    else
        end_sending(m, 0, &err);
}

void report_maker_send(struct report_maker *m, const char *to, size_t more,
                       report_maker_sent_fn *done, void *ctx)
{
    struct error err = ERROR_INIT;
    m->sent = done;
    m->ctx = ctx;
    m->storing = true;
    m->appended = 0;
    m->writer = queue_begin(m->set->queue, LANE_NORMAL, on_drain, m, &err);
    bool ok = m->writer != NULL;
    if (ok && !write_report(m, to, more))
        ok = error_set(&err, ERROR_NO_ROOM, "out of memory");
    if (ok && append_all(m, &err))
        commit_when_whole(m);
    else
        end_sending(m, 0, &err);
}

/* ---- life ------------------------------------------------------------------------------------ */

struct report_maker *report_maker_new(const struct reports_settings *settings,
                                      enum report_kind kind, bool to_sender)
{
    struct report_maker *m = calloc(1, sizeof *m);
    if (m == NULL)
        return NULL;
    m->set = settings;
    m->kind = kind;
    m->to_sender = to_sender;
    bytes_init(&m->text, REPORT_MAX);
    envelope_init(&m->envelope);
    return m;
}

void report_maker_free(struct report_maker *m)
{
    if (m == NULL)
        return;
    queue_reader_close(m->reader);
    queue_abort(m->writer);
    for (size_t i = 0; i <= m->count && i < REPORT_MESSAGES_MAX; i++) {
        free((void *)m->messages[i].recipients);
        free((void *)m->messages[i].header);
    }
    while (m->texts != NULL) {
        struct text *next = m->texts->next;
        free(m->texts);
        m->texts = next;
    }
    bytes_done(&m->header);
    bytes_done(&m->text);
    envelope_done(&m->envelope);
    free(m->route);
    free(m);
}
