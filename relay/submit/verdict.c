#include "relay/submit/verdict.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

#include "relay/submit/verdict_table.h"

#define SECOND 1000ull
#define MINUTE (60 * SECOND)

static const char *const action_names[] = {
    [VERDICT_GO_ON] = "go_on",         [VERDICT_DELIVERED] = "delivered", [VERDICT_SOON] = "soon",
    [VERDICT_BACK] = "back",           [VERDICT_CONC] = "conc",           [VERDICT_PAUSE] = "pause",
    [VERDICT_RCPT_FAIL] = "rcpt_fail", [VERDICT_MSG_FAIL] = "msg_fail",   [VERDICT_HOLD] = "hold",
};

static const char *const scope_names[] = {
    [SCOPE_NONE] = "none",       [SCOPE_RECIPIENT] = "recipient", [SCOPE_MESSAGE] = "message",
    [SCOPE_MAILBOX] = "mailbox", [SCOPE_UPSTREAM] = "upstream",   [SCOPE_NETWORK] = "network",
};

/* For rows that name no wait of their own. */
static const uint64_t usual_waits[] = {
    [VERDICT_SOON] = 10 * SECOND,
    [VERDICT_CONC] = 15 * SECOND,
    [VERDICT_PAUSE] = 30 * MINUTE,
    [VERDICT_HOLD] = 0,
};

static const struct verdict go_on = {.name = "go_on", .what = "", .who = "", .how = ""};

static const struct verdict delivered = {
    .name = "delivered",
    .action = VERDICT_DELIVERED,
    .scope = SCOPE_MESSAGE,
    .what = "The upstream has taken the message.",
    .who = "",
    .how = "",
};

/* Whatever ended the wait for the final reply: what counts is that there is none. */
static const struct verdict uncertain = {
    .name = "uncertain",
    .action = VERDICT_BACK,
    .scope = SCOPE_MESSAGE,
    .wait_ms = 15 * MINUTE,
    .uncertain = true,
    .what = "All of the message was sent, but no answer to it came. It may have been delivered.",
    .who = "nobody needs to",
    .how =
        "It is sent again later with the same Message-ID, by which a duplicate can be recognised; "
        "the wait grows each time, and at last it is held.",
};

static const struct verdict unexpected = {
    .name = "unexpected_reply",
    .action = VERDICT_BACK,
    .scope = SCOPE_UPSTREAM,
    .what = "The server answered with a reply that does not fit the command.",
    .who = "the operator of the mail service",
    .how = "Check that host and port belong to a submission service.",
};

/* ---- matching -------------------------------------------------------------------------------- */

static unsigned stage_bit(enum client_stage stage)
{
    return 1u << stage;
}

static unsigned read_number(const char **at)
{
    unsigned value = 0;

    for (; **at >= '0' && **at <= '9'; (*at)++)
        value = value * 10 + (unsigned)(**at - '0');
    return value;
}

/* One item of a row's list, "5.7.501-503"; moves behind it. */
static bool matches_enhanced_item(const char **at, const struct reply *reply)
{
    unsigned parts[3];
    unsigned last;

    for (size_t i = 0; i < 3; i++) {
        parts[i] = read_number(at);
        if (**at == '.')
            (*at)++;
    }
    last = parts[2];
    if (**at == '-') {
        (*at)++;
        last = read_number(at);
    }
    return reply->enhanced[0] == parts[0] && reply->enhanced[1] == parts[1] &&
           reply->enhanced[2] >= parts[2] && reply->enhanced[2] <= last;
}

static bool matches_enhanced(const char *list, const struct reply *reply)
{
    if (list == NULL || !reply->has_enhanced)
        return false;
    while (*list != '\0') {
        if (matches_enhanced_item(&list, reply))
            return true;
        assert(*list == ' ' || *list == '\0');
        while (*list == ' ')
            list++;
    }
    return false;
}

static bool contains(const char *text, const char *word, size_t len)
{
    for (; *text != '\0'; text++) {
        if (strncasecmp(text, word, len) == 0)
            return true;
    }
    return false;
}

static bool matches_words(const char *words, const char *text)
{
    size_t len;

    for (; words != NULL; words = words[len] == '|' ? words + len + 1 : NULL) {
        len = strcspn(words, "|");
        if (contains(text, words, len))
            return true;
    }
    return false;
}

static bool matches_code(unsigned code, const struct reply *reply)
{
    return code == 0 || code == reply->code || code == reply->code / 100;
}

static bool matches(const struct verdict_row *row, enum client_stage stage,
                    const struct reply *reply)
{
    if ((row->stages & stage_bit(stage)) == 0 || !matches_code(row->code, reply))
        return false;
    if (row->enhanced == NULL && row->words == NULL)
        return true;
    return matches_enhanced(row->enhanced, reply) || matches_words(row->words, reply->text);
}

static const struct verdict *find(const struct verdict_row *rows, size_t count,
                                  enum client_stage stage, const struct reply *reply)
{
    for (size_t i = 0; i < count; i++) {
        if (matches(&rows[i], stage, reply))
            return &rows[i].verdict;
    }
    return NULL;
}

static const struct verdict *find_local(enum client_stage stage, enum local_failure local)
{
    for (size_t i = 0; i < verdict_local_row_count; i++) {
        const struct verdict_local_row *row = &verdict_local_rows[i];

        if (row->local == local && (row->stages & stage_bit(stage)) != 0)
            return &row->verdict;
    }
    return &unexpected;
}

/* ---- judging --------------------------------------------------------------------------------- */

static const struct verdict *judge_positive(enum client_stage stage, unsigned code)
{
    unsigned class_ = code / 100;

    if (class_ == 2 && stage != STAGE_DATA && stage != STAGE_IDLE && stage != STAGE_BODY)
        return &go_on;
    if (class_ == 3 && (stage == STAGE_DATA || stage == STAGE_AUTH))
        return &go_on;
    return &unexpected;
}

static const struct verdict *judge(enum client_stage stage, const struct reply *reply)
{
    struct reply softened;
    const struct verdict *v;

    if (stage == STAGE_QUIT)
        return &go_on;
    if (stage == STAGE_FINAL_DOT && reply->code < 400)
        return reply->code / 100 == 2 ? &delivered : &uncertain;
    if (reply->code == 0)
        return find_local(stage, reply->local);
    if (reply->code < 400)
        return judge_positive(stage, reply->code);
    v = find(verdict_rows, verdict_row_count, stage, reply);
    if (v != NULL)
        return v;
    /* Basic code and enhanced class may disagree; the one that keeps the message is believed. */
    softened = *reply;
    if (reply->has_enhanced && reply->enhanced[0] == 4)
        softened.code = 400 + reply->code % 100;
    v = find(verdict_default_rows, verdict_default_row_count, stage, &softened);
    return v != NULL ? v : &unexpected;
}

/* Once the recipients are accepted, a reply speaks of all of them. */
static void widen_scope(struct verdict *v, enum client_stage stage)
{
    if (v->scope != SCOPE_RECIPIENT || stage == STAGE_RCPT)
        return;
    v->scope = SCOPE_MESSAGE;
    if (v->action == VERDICT_RCPT_FAIL)
        v->action = VERDICT_MSG_FAIL;
}

static bool is_in_transaction(enum client_stage stage)
{
    return stage == STAGE_MAIL || stage == STAGE_RCPT || stage == STAGE_DATA ||
           stage == STAGE_FINAL_DOT;
}

/* An answer in the middle of mail data leaves the session out of step, a command that was not
 * understood shows that it is, and 421 announces its end. */
static bool is_reusable(const struct verdict *v, enum client_stage stage, const struct reply *reply)
{
    if (!is_in_transaction(stage) || reply->code < 200 || reply->code == 421 ||
        reply->code == 500 || reply->code == 503)
        return false;
    if (v->uncertain)
        return false;
    return v->action == VERDICT_GO_ON || v->scope == SCOPE_RECIPIENT || v->scope == SCOPE_MESSAGE;
}

struct verdict verdict_of(enum client_stage stage, const struct reply *reply)
{
    struct verdict v = *judge(stage, reply);

    widen_scope(&v, stage);
    v.reusable = is_reusable(&v, stage, reply);
    if (v.wait_ms == 0 && v.action < sizeof(usual_waits) / sizeof(usual_waits[0]))
        v.wait_ms = usual_waits[v.action];
    if (v.again == VERDICT_GO_ON)
        v.again = v.action == VERDICT_SOON ? VERDICT_BACK : v.action;
    return v;
}

bool verdict_is_known(enum client_stage stage, const struct reply *reply)
{
    return reply->code < 400 || stage == STAGE_QUIT ||
           find(verdict_rows, verdict_row_count, stage, reply) != NULL;
}

static bool is_narrow(const struct verdict *v)
{
    return v->scope == SCOPE_NONE || v->scope == SCOPE_RECIPIENT || v->scope == SCOPE_MESSAGE;
}

/* Without a row: replies about an address usually answer RCPT. */
static enum client_stage likely_stage(const struct reply *reply)
{
    unsigned detail = reply->code % 100;
    bool address = reply->has_enhanced ? reply->enhanced[1] == 1
                                       : detail == 50 || detail == 51 || detail == 53;

    return address ? STAGE_RCPT : STAGE_FINAL_DOT;
}

/* What is the message's or a recipient's own fault. Of trouble on the way the stage would have to
 * be known. */
static bool local_of_stored(const char *reply_text, struct verdict *out)
{
    static const struct {
        enum local_failure failure;
        enum client_stage stage;
        const char *has;
    } rows[] = {{LOCAL_CONTENT, STAGE_BODY, "(content)"},
                {LOCAL_ADDRESS, STAGE_RCPT, "(address) the recipient"},
                {LOCAL_ADDRESS, STAGE_MAIL, "(address)"}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct reply reply;

        if (strncmp(reply_text, rows[i].has, strlen(rows[i].has)) != 0)
            continue;
        reply_local(&reply, rows[i].failure, "%s", reply_text);
        *out = verdict_of(rows[i].stage, &reply);
        return true;
    }
    return false;
}

bool verdict_of_stored(const char *reply_text, bool failed, struct verdict *out)
{
    static const enum client_stage stages[] = {STAGE_RCPT, STAGE_FINAL_DOT, STAGE_MAIL};
    struct reply reply;
    struct verdict v;

    if (local_of_stored(reply_text, out))
        return true;
    if (!reply_from_text(&reply, reply_text) || reply.code < 400)
        return false;
    for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++) {
        const struct verdict *row = find(verdict_rows, verdict_row_count, stages[i], &reply);

        if (row == NULL || (failed && !is_narrow(row)))
            continue;
        *out = verdict_of(stages[i], &reply);
        return true;
    }
    v = verdict_of(likely_stage(&reply), &reply);
    *out = failed && !is_narrow(&v) ? verdict_of(STAGE_RCPT, &reply) : v;
    return true;
}

enum verdict_action verdict_action_after(const struct verdict *v, const char *last_name,
                                         uint64_t lasting_ms)
{
    return strcmp(v->name, last_name) == 0 && lasting_ms >= v->lasting_ms ? v->again : v->action;
}

const char *verdict_action_name(enum verdict_action action)
{
    if ((size_t)action >= sizeof(action_names) / sizeof(action_names[0]))
        return "unknown";
    return action_names[action];
}

const char *verdict_scope_name(enum verdict_scope scope)
{
    if ((size_t)scope >= sizeof(scope_names) / sizeof(scope_names[0]))
        return "unknown";
    return scope_names[scope];
}
