#include "relay/tool/replies.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sysexits.h>

#include "relay/admin/json.h"
#include "relay/submit/verdict.h"
#include "relay/tool/ask.h"
#include "relay/tool/format.h"

#define STAGES_TEXT 320

/* What can be answered with a reply, and how people call it. */
static const struct stage {
    const char *name;
    enum client_stage stage;
    const char *words;
    bool local; /* nothing is answered here, but it can go wrong here */
} stages[] = {
    {"connect", STAGE_CONNECT, "the connection attempt", true},
    {"banner", STAGE_BANNER, "the connection", false},
    {"ehlo", STAGE_EHLO, "EHLO", false},
    {"starttls", STAGE_STARTTLS, "STARTTLS", false},
    {"tls", STAGE_TLS, "the TLS handshake", true},
    {"auth", STAGE_AUTH, "AUTH (the sign-in)", false},
    {"idle", STAGE_IDLE, "an idle connection", true},
    {"mail", STAGE_MAIL, "MAIL (the sender)", false},
    {"rcpt", STAGE_RCPT, "RCPT (a recipient)", false},
    {"data", STAGE_DATA, "DATA", false},
    {"body", STAGE_BODY, "the mail data", true},
    {"dot", STAGE_FINAL_DOT, "the end of the mail data", false},
};

#define STAGES (sizeof(stages) / sizeof(stages[0]))

static const char *const action_words[] = {
    [VERDICT_GO_ON] = "It goes on; nothing is decided by this reply.",
    [VERDICT_DELIVERED] = "The message is delivered.",
    [VERDICT_SOON] = "It is tried again within a minute.",
    [VERDICT_BACK] = "It is tried again later; the wait grows each time.",
    [VERDICT_CONC] = "Fewer connections are used, and it is tried again soon.",
    [VERDICT_PAUSE] =
        "The mailbox is paused: its mail waits, nothing of it fails, and the mailbox is "
        "tried from time to time.",
    [VERDICT_RCPT_FAIL] = "This recipient has failed; the others are not touched.",
    [VERDICT_MSG_FAIL] = "The message has failed and becomes a dead letter.",
    [VERDICT_HOLD] = "The message is held until the operator decides.",
};

static const char *const scope_words[] = {
    [SCOPE_NONE] = "",
    [SCOPE_RECIPIENT] = "the recipient",
    [SCOPE_MESSAGE] = "the message",
    [SCOPE_MAILBOX] = "the mailbox",
    [SCOPE_UPSTREAM] = "the mail service",
    [SCOPE_NETWORK] = "the network",
};

/* Stages at which a reply means the same. */
struct meaning {
    struct verdict verdict;
    bool known;
    bool at[STAGES];
};

struct meanings {
    struct meaning list[STAGES];
    size_t count;
};

static void add_meaning(struct meanings *m, size_t stage, const struct reply *reply)
{
    struct verdict v = verdict_of(stages[stage].stage, reply);
    size_t i = 0;

    while (i < m->count &&
           (strcmp(m->list[i].verdict.name, v.name) != 0 || m->list[i].verdict.action != v.action))
        i++;
    if (i == m->count)
        m->list[m->count++] =
            (struct meaning){.verdict = v, .known = verdict_is_known(stages[stage].stage, reply)};
    m->list[i].at[stage] = true;
}

/* As here, or as in the log. */
static bool is_named(const struct stage *s, const char *name)
{
    return strcasecmp(s->name, name) == 0 || strcasecmp(client_stage_name(s->stage), name) == 0;
}

/* A server answers commands; what goes wrong here can do so between them as well. */
static bool has_stage(const struct reply *reply, size_t i)
{
    enum client_stage stage = stages[i].stage;

    switch (reply->local) {
    case LOCAL_NONE:
        return !stages[i].local;
    case LOCAL_LOOKUP:
    case LOCAL_CONNECT:
        return stage == STAGE_CONNECT;
    case LOCAL_CERTIFICATE:
    case LOCAL_TLS:
    case LOCAL_SECRET:
        return stage <= STAGE_AUTH;
    case LOCAL_SPOOL:
    case LOCAL_CONTENT:
    case LOCAL_ADDRESS:
        return stage >= STAGE_MAIL && stage <= STAGE_BODY;
    default:
        return true;
    }
}

/* At the stage that was named, else at those where a row knows the reply, else at all. */
static void find_meanings(const struct reply *reply, const char *stage, struct meanings *out)
{
    bool known = false;

    *out = (struct meanings){.count = 0};
    for (size_t i = 0; i < STAGES; i++)
        known = known || (has_stage(reply, i) && verdict_is_known(stages[i].stage, reply));
    for (size_t i = 0; i < STAGES; i++)
        if (!has_stage(reply, i))
            continue;
        else if (stage != NULL ? is_named(&stages[i], stage)
                               : !known || verdict_is_known(stages[i].stage, reply))
            add_meaning(out, i, reply);
}

/* ---- for people ------------------------------------------------------------------------------ */

static void stages_text(const struct meaning *m, char out[STAGES_TEXT])
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < STAGES; i++)
        if (m->at[i])
            used += (size_t)snprintf(out + used, STAGES_TEXT - used, "%s%s", used > 0 ? ", " : "",
                                     stages[i].words);
}

static void print_again(FILE *out, const struct verdict *v)
{
    char span[FORMAT_TEXT];
    char text[256];

    if (v->again == v->action)
        return;
    format_span((double)v->lasting_ms / 1000, span);
    snprintf(text, sizeof(text), "When it comes again%s%s: %s", v->lasting_ms > 0 ? " after " : "",
             v->lasting_ms > 0 ? span : "", action_words[v->again]);
    format_line(out, "", text);
}

static void print_meaning(FILE *out, const struct meaning *m, bool local)
{
    const struct verdict *v = &m->verdict;
    char at[STAGES_TEXT];
    char name[128];

    stages_text(m, at);
    snprintf(name, sizeof(name), "%s%s", v->name,
             m->known ? "" : " (Outtray does not know this reply; it goes by the code alone)");
    format_line(out, local ? "Happens at" : "Answer to", at);
    format_line(out, "Means", v->what);
    format_line(out, "Concerns", scope_words[v->scope]);
    format_line(out, "Who helps", v->who);
    format_line(out, "How", v->how);
    format_line(out, "Then", action_words[v->action]);
    print_again(out, v);
    format_line(out, "Verdict", name);
}

/* ---- for programs ---------------------------------------------------------------------------- */

static cJSON *meaning_json(const struct meaning *m)
{
    const struct verdict *v = &m->verdict;
    cJSON *o = cJSON_CreateObject();
    cJSON *list = cJSON_CreateArray();
    bool ok = json_put(o, "stages", list);

    for (size_t i = 0; ok && i < STAGES; i++)
        ok = !m->at[i] || json_append(list, json_text(stages[i].name));
    ok = ok && json_put_text(o, "verdict", v->name) && json_put_flag(o, "known", m->known) &&
         json_put_text(o, "action", verdict_action_name(v->action)) &&
         json_put_text(o, "again", verdict_action_name(v->again)) &&
         json_put_text(o, "scope", verdict_scope_name(v->scope)) &&
         json_put_seconds(o, "wait", v->wait_ms) && json_put_flag(o, "reusable", v->reusable) &&
         json_put_text(o, "what", v->what) && json_put_text(o, "who", v->who) &&
         json_put_text(o, "how", v->how);
    if (ok)
        return o;
    cJSON_Delete(o);
    return NULL;
}

static int print_json(const struct tool *t, const char *text, const struct meanings *m)
{
    cJSON *o = cJSON_CreateObject();
    cJSON *list = cJSON_CreateArray();
    bool ok = json_put_text(o, "reply", text) && json_put(o, "meanings", list);
    int code;

    for (size_t i = 0; ok && i < m->count; i++)
        ok = json_append(list, meaning_json(&m->list[i]));
    code = tool_print_json(t, ok ? o : NULL);
    cJSON_Delete(o);
    return code;
}

/* ---- explain --------------------------------------------------------------------------------- */

#define EXPLAINED_MAX (REPLY_LINE_MAX - 2) /* what is longer is cut, as from a server */

/* Quotation marks around the reply are easily forgotten. */
static void join_words(const struct tool *t, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (int i = 0; i < t->word_count && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? " " : "", t->words[i]);
}

/* "(timeout) no answer to EHLO", as status, show and the log say what went wrong here. */
static bool local_from_text(struct reply *out, const char *text)
{
    size_t len = strcspn(text, ")");

    if (text[0] != '(' || text[len] != ')')
        return false;
    for (int i = LOCAL_NONE + 1; i < LOCAL_COUNT; i++) {
        const char *name = local_failure_name((enum local_failure)i);

        if (strlen(name) != len - 1 || strncasecmp(name, text + 1, len - 1) != 0)
            continue;
        reply_local(out, (enum local_failure)i, "%s", text + len + 1 + strspn(text + len + 1, " "));
        return true;
    }
    return false;
}

static bool read_reply(const struct tool *t, char *text, size_t size, struct reply *out,
                       struct error *err)
{
    join_words(t, text, size);
    if (reply_from_text(out, text) || local_from_text(out, text))
        return true;
    return error_set(err, ERROR_INVALID,
                     "write the reply as the log shows it, with its code in front: outtray explain "
                     "\"535 5.7.3 Authentication unsuccessful\", or with what went wrong here: "
                     "outtray explain \"(timeout)\"");
}

int replies_explain(const struct tool *t)
{
    struct error err = ERROR_INIT;
    char text[EXPLAINED_MAX];
    struct reply reply;
    struct meanings m;

    if (!read_reply(t, text, sizeof(text), &reply, &err))
        return tool_fail(t, &err);
    find_meanings(&reply, t->stage, &m);
    if (m.count == 0) {
        error_set(
            &err, ERROR_INVALID,
            "there is no stage \"%.32s\"; there are banner, ehlo, starttls, auth, mail, rcpt, "
            "data and dot",
            t->stage);
        return tool_fail(t, &err);
    }
    if (t->json)
        return print_json(t, text, &m);
    for (size_t i = 0; i < m.count; i++) {
        if (i > 0)
            fputc('\n', t->out);
        print_meaning(t->out, &m.list[i], reply.local != LOCAL_NONE);
    }
    return EX_OK;
}

/* ---- replies --------------------------------------------------------------------------------- */

static void show_replies(const struct tool *t, const struct places *p, const cJSON *answer)
{
    static const char *const titles[] = {"STAGE", ">TIMES", "FIRST", "LAST", NULL};
    struct format_table table;
    int64_t now = ask_now();

    (void)p;
    if (json_first(answer, "replies") == NULL) {
        fputs("Outtray could explain every reply so far.\n", t->out);
        return;
    }
    format_table_init(&table, titles);
    for (const cJSON *r = json_first(answer, "replies"); r != NULL; r = r->next) {
        struct format_row *row = format_table_row(&table);

        if (row == NULL)
            break;
        format_clean(json_get_text(r, "stage"), row->cells[0], FORMAT_CELL);
        format_count(json_get_number(r, "count"), row->cells[1]);
        format_time(json_get_text(r, "first"), now, row->cells[2]);
        format_time(json_get_text(r, "last"), now, row->cells[3]);
        format_clean(json_get_text(r, "reply"), row->note, sizeof(row->note));
    }
    format_table_write(&table, t->out);
    format_table_done(&table);
}

int replies_list(const struct tool *t)
{
    return ask_and_show(t, "GET", "/v1/replies", show_replies);
}
