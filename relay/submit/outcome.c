#include "relay/submit/outcome.h"

#include <stdlib.h>
#include <string.h>

#include "queue/backoff.h"

bool outcome_init(struct outcome *o, const struct envelope *stored)
{
    memset(o, 0, sizeof *o);
    envelope_init(&o->envelope);
    o->accepted = calloc(stored->recipient_count + 1, sizeof *o->accepted);
    o->left_out = calloc(stored->recipient_count + 1, sizeof *o->left_out);
    if (o->accepted != NULL && o->left_out != NULL && envelope_copy(&o->envelope, stored))
        return true;
    outcome_done(o);
    return false;
}

void outcome_done(struct outcome *o)
{
    envelope_done(&o->envelope);
    free(o->accepted);
    free(o->left_out);
    o->accepted = o->left_out = NULL;
}

/* Without memory the reply's text is lost, never the state. */
static void note_reply(struct recipient *r, const struct reply *reply)
{
    char text[ENVELOPE_REPLY_MAX];
    reply_format(reply, text, sizeof text);
    (void)envelope_set(&r->reply, text);
}

static void set_state(struct outcome *o, struct recipient *r, enum recipient_state state)
{
    r->state = state;
    o->changed = o->changed || state != RECIPIENT_PENDING;
}

static bool is_narrow(const struct verdict *v)
{
    return v->scope == SCOPE_NONE || v->scope == SCOPE_RECIPIENT || v->scope == SCOPE_MESSAGE;
}

static bool is_failure(enum verdict_action action)
{
    return action == VERDICT_RCPT_FAIL || action == VERDICT_MSG_FAIL;
}

void outcome_recipient(struct outcome *o, size_t index, const struct reply *reply)
{
    struct recipient *r = &o->envelope.recipients[index];
    struct verdict v = verdict_of(STAGE_RCPT, reply);
    if (reply_is_positive(reply)) {
        o->accepted[index] = true;
        o->any_accepted = true;
        return;
    }
    note_reply(r, reply);
    if (is_failure(v.action)) {
        set_state(o, r, RECIPIENT_FAILED);
    } else if (!o->has_later) {
        o->has_later = true;
        o->later = v;
    }
    if (is_narrow(&v) || o->has_wider)
        return;
    o->has_wider = true;
    o->wider = v;
    o->wider_reply = *reply;
}

/* Those whom the message's own result concerns: before RCPT was answered everybody who is pending.
 */
static bool is_concerned(const struct outcome *o, size_t i, enum client_stage stage)
{
    return o->envelope.recipients[i].state == RECIPIENT_PENDING && !o->left_out[i] &&
           (stage < STAGE_RCPT || o->accepted[i]);
}

static uint32_t apply_result(struct outcome *o, const struct outcome_context *c,
                             enum verdict_action action, bool uncertain)
{
    uint32_t taken = 0;
    for (size_t i = 0; i < o->envelope.recipient_count; i++) {
        struct recipient *r = &o->envelope.recipients[i];
        if (!is_concerned(o, i, c->stage))
            continue;
        note_reply(r, c->reply);
        taken += uncertain || action == VERDICT_DELIVERED;
        if (action == VERDICT_DELIVERED)
            set_state(o, r, RECIPIENT_DELIVERED);
        else if (is_failure(action))
            set_state(o, r, RECIPIENT_FAILED);
    }
    return taken;
}

static enum queue_state final_state(const struct outcome *o)
{
    return envelope_count(&o->envelope, RECIPIENT_FAILED) > 0 ? QUEUE_DEAD : QUEUE_GONE;
}

static void give_up(struct outcome *o, struct outcome_end *out)
{
    for (size_t i = 0; i < o->envelope.recipient_count; i++) {
        if (o->envelope.recipients[i].state == RECIPIENT_PENDING)
            set_state(o, &o->envelope.recipients[i], RECIPIENT_FAILED);
    }
    out->expired = true;
    out->attempt.state = QUEUE_DEAD;
    out->attempt.wait_ms = 0;
}

/* A wait of the message's own, because it or a recipient was the trouble. */
static void back_off(struct outcome *o, const struct outcome_context *c, bool soon,
                     uint64_t at_least_ms, struct outcome_end *out)
{
    const struct backoff_policy policy = {.min_ms = backoff_message.min_ms,
                                          .max_ms = backoff_message.max_ms,
                                          .give_up_ms = c->give_up_ms};
    uint64_t wait = backoff_wait(&policy, c->attempts + 1, c->tried_ms, c->jitter);
    if (soon && c->attempts == 0)
        wait = OUTCOME_SOON_MS + c->jitter % OUTCOME_SOON_MS;
    wait = wait > at_least_ms ? wait : at_least_ms;
    out->attempt.counts = true;
    out->attempt.wait_ms = wait;
    out->attempt.tried_ms = c->tried_ms + wait;
    if (backoff_expired(&policy, c->tried_ms))
        give_up(o, out);
}

/* On a connection that had worked before, with no reply to anything of this message: the peer had
 * ended it while it was idle, without a word or with 421 or 451 for that, which says nothing about
 * anybody. */
static bool was_stale(const struct outcome_context *c, const struct verdict *v)
{
    bool ended = c->reply->local == LOCAL_LOST || v->action == VERDICT_SOON;
    return c->stage <= STAGE_MAIL && ended && !v->reusable && !c->first_use;
}

static void tell_mailbox(struct outcome_end *out, const struct verdict *v,
                         const struct reply *reply)
{
    out->has_mailbox_verdict = true;
    out->mailbox_verdict = *v;
    out->mailbox_reply = *reply;
}

static bool given_up(const struct outcome_context *c)
{
    return c->give_up_ms != 0 && c->tried_ms >= c->give_up_ms;
}

/* Every further copy may be one too many, so each waits four times as long; in the end somebody has
 * to look whether it arrived. */
static void be_uncertain(const struct outcome_context *c, const struct verdict *v,
                         struct outcome_end *out)
{
    struct verdict loss = *v;
    uint64_t wait = backoff_loss(c->uncertain_wait_ms, c->losses + 1);
    loss.wait_ms = 0; /* that is the message's */
    tell_mailbox(out, &loss, c->reply);
    out->attempt.state = given_up(c) ? QUEUE_HELD : QUEUE_UNCERTAIN;
    out->attempt.wait_ms = wait;
    out->attempt.tried_ms = c->tried_ms + wait;
    out->attempt.counts = true;
    out->attempt.lost = true;
}

/* Of the pending ones: those who have, or have not, been answered before. */
static uint32_t leave_out(struct outcome *o, bool answered, uint32_t most)
{
    uint32_t kept = 0;
    for (size_t i = 0; i < o->envelope.recipient_count; i++) {
        struct recipient *r = &o->envelope.recipients[i];
        if (r->state != RECIPIENT_PENDING || (r->reply[0] != '\0') != answered)
            continue;
        if (kept < most) {
            kept++;
            continue;
        }
        r->state = RECIPIENT_FAILED;
        o->left_out[i] = true;
        o->has_left_out = true;
    }
    return kept;
}

uint32_t outcome_limit(struct outcome *o, uint32_t most)
{
    uint32_t all = (uint32_t)envelope_count(&o->envelope, RECIPIENT_PENDING);
    if (most == 0 || all <= most)
        return all;
    uint32_t kept = leave_out(o, false, most);
    return kept + leave_out(o, true, most - kept);
}

static void take_in_again(struct outcome *o)
{
    for (size_t i = 0; i < o->envelope.recipient_count; i++) {
        if (o->left_out[i])
            o->envelope.recipients[i].state = RECIPIENT_PENDING;
    }
}

/* Nothing speaks against sending to the others at once. */
static bool others_are_next(const struct outcome *o, const struct verdict *v)
{
    return o->has_left_out && !o->has_later && !o->has_wider &&
           (v->action == VERDICT_DELIVERED || v->action == VERDICT_RCPT_FAIL);
}

/* What becomes of recipients that are still pending. */
static void decide_pending(struct outcome *o, const struct outcome_context *c,
                           const struct verdict *v, enum verdict_action action,
                           struct outcome_end *out)
{
    out->attempt.state = QUEUE_QUEUED;
    if (was_stale(c, v) || others_are_next(o, v))
        return;
    if (!is_narrow(v)) {
        tell_mailbox(out, v, c->reply);
        return;
    }
    if (o->has_wider) {
        tell_mailbox(out, &o->wider, &o->wider_reply);
        return;
    }
    if (action == VERDICT_HOLD) {
        out->attempt.state = QUEUE_HELD;
        out->attempt.counts = true;
        return;
    }
    back_off(o, c, action == VERDICT_SOON, v->wait_ms, out);
}

/* The verdict of the last attempt's reply, as far as the stored text tells: the same refusal twice
 * weighs more. */
static const char *last_verdict(const struct outcome *o, enum client_stage stage)
{
    for (size_t i = 0; i < o->envelope.recipient_count; i++) {
        const struct recipient *r = &o->envelope.recipients[i];
        struct reply reply;
        if (r->state == RECIPIENT_PENDING && reply_from_text(&reply, r->reply))
            return verdict_of(stage, &reply).name;
    }
    return "";
}

/* Nobody was accepted and somebody may be later: then whatever came after RCPT (usually a refusal
 * of DATA, "no valid recipients") only repeats what the replies to RCPT said. */
static struct verdict deciding_verdict(const struct outcome *o, const struct outcome_context *c)
{
    if (c->stage >= STAGE_RCPT && o->has_later && !o->any_accepted)
        return o->later;
    return verdict_of(c->stage, c->reply);
}

void outcome_finish(struct outcome *o, const struct outcome_context *c, struct outcome_end *out)
{
    take_in_again(o);
    struct verdict v = deciding_verdict(o, c);
    const char *last = c->attempts > 0 ? last_verdict(o, c->stage) : "";
    enum verdict_action action = verdict_action_after(&v, last, c->tried_ms);
    *out = (struct outcome_end){.verdict = v, .too_large = v.too_large};
    out->attempt.envelope = &o->envelope;
    out->attempt.tried_ms = c->tried_ms;
    out->taken = apply_result(o, c, action, v.uncertain);
    if (v.uncertain)
        be_uncertain(c, &v, out);
    else if (envelope_count(&o->envelope, RECIPIENT_PENDING) > 0)
        decide_pending(o, c, &v, action, out);
    else
        out->attempt = (struct queue_attempt){.envelope = &o->envelope,
                                              .state = final_state(o),
                                              .tried_ms = c->tried_ms,
                                              .counts = true};
    out->worth_recording = out->attempt.counts || o->changed;
}
