#include "relay/tool/token.h"

#include <string.h>
#include <strings.h>
#include <sysexits.h>

#include "relay/admin/json.h"
#include "relay/tool/client.h"
#include "relay/tool/ask.h"
#include "relay/tool/format.h"

#define ATTENTION 1 /* exit code */
#define DATE_LEN  10
#define TEXT_MAX  1024

/* ---- outtray token --------------------------------------------------------------------------- */

static void line(const struct tool *t, const char *label, const char *text)
{
    if (*text != '\0')
        fprintf(t->out, "  %-13s %s\n", label, text);
}

static void show_claims(const struct tool *t, const cJSON *o)
{
    line(t, "for", json_get_text(o, "audience"));
    line(t, "application", json_get_text(o, "application"));
    line(t, "tenant", json_get_text(o, "tenant"));
    line(t, "roles", json_get_text(o, "roles"));
    line(t, "scopes", json_get_text(o, "scopes"));
    line(t, "user", json_get_text(o, "user"));
    line(t, "issued by", json_get_text(o, "issuer"));
    line(t, "ends", json_get_text(o, "expires"));
}

static void show_checks(const struct tool *t, const cJSON *o)
{
    for (const cJSON *check = json_first(o, "checks"); check != NULL; check = check->next)
        format_wrap(t->out, json_get_flag(check, "good") ? "  fits     " : "  WRONG    ",
                    json_get_text(check, "text"));
    for (const cJSON *w = json_first(o, "warnings"); w != NULL; w = w->next)
        format_wrap(t->out, "  warning  ", cJSON_IsString(w) ? w->valuestring : "");
}

static void show_problem(const struct tool *t, const cJSON *o)
{
    char text[TEXT_MAX];

    if (*json_get_text(o, "problem") == '\0')
        return;
    format_wrap(t->out, "  problem  ", json_get_text(o, "problem"));
    (void)snprintf(text, sizeof(text), "%s: %s", json_get_text(o, "who"),
                   json_get_text(o, "remedy"));
    format_wrap(t->out, "  remedy   ", text);
    if (*json_get_text(o, "said") != '\0')
        format_wrap(t->out, "  it said  ", json_get_text(o, "said"));
    if (*json_get_text(o, "trace_id") != '\0') {
        (void)snprintf(text, sizeof(text), "trace %s, correlation %s", json_get_text(o, "trace_id"),
                       json_get_text(o, "correlation_id"));
        format_wrap(t->out, "  ids      ", text);
    }
}

static void show_token(const struct tool *t, const cJSON *o)
{
    if (!json_get_flag(o, "has_token"))
        fprintf(t->out, "Mailbox %s has no token.\n", t->argument);
    else if (json_get_flag(o, "readable"))
        fprintf(t->out, "The token of mailbox %s:\n", t->argument);
    else
        fprintf(t->out,
                "Mailbox %s has a token, which is good for %.0f minutes. It does not say "
                "more: its service gives tokens that only it can read.\n",
                t->argument, json_get_number(o, "ends_in") / 60);
    show_claims(t, o);
    show_checks(t, o);
    show_problem(t, o);
}

static bool is_good(const cJSON *o)
{
    for (const cJSON *check = json_first(o, "checks"); check != NULL; check = check->next)
        if (!json_get_flag(check, "good"))
            return false;
    return json_get_flag(o, "has_token");
}

int token_run(const struct tool *t)
{
    struct error err = ERROR_INIT;
    struct places p;
    cJSON *o;
    int code;

    if (!ask_daemon(t, &p, &code))
        return code;
    o = ask_mailbox(t, &p, "GET", "token", &err);
    if (o == NULL)
        code = tool_fail(t, &err);
    else
        code = is_good(o) ? EX_OK : ATTENTION;
    if (o != NULL && !t->json)
        show_token(t, o);
    else if (o != NULL && tool_print_json(t, o) != EX_OK)
        code = EX_OSERR;
    cJSON_Delete(o);
    places_done(&p);
    return code;
}

/* ---- outtray report sign-in ------------------------------------------------------------------ */

static void devices_text(const cJSON *mailbox, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (const cJSON *d = json_first(mailbox, "devices"); d != NULL && used < size; d = d->next)
        used += (size_t)snprintf(out + used, size - used, "%s%s", used > 0 ? ", " : "",
                                 cJSON_IsString(d) ? d->valuestring : "");
    if (json_get_flag(mailbox, "other_devices") && used < size)
        (void)snprintf(out + used, size - used, "%s",
                       used > 0 ? ", and every other one" : "every one");
}

static void show_dependent(const struct tool *t, const cJSON *mailbox)
{
    const char *end = json_get_text(mailbox, "passwords_end");
    char devices[TEXT_MAX];

    fprintf(t->out, "Mailbox %s (%s, %s) signs in with a password%s%.*s%s.\n",
            json_get_text(mailbox, "name"), json_get_text(mailbox, "address"),
            json_get_text(mailbox, "provider"),
            *end != '\0' ? ", which the service switches off by default on " : "", DATE_LEN, end,
            *end != '\0' ? "" : "; nothing is known of an end");
    devices_text(mailbox, devices, sizeof(devices));
    if (devices[0] != '\0')
        format_wrap(t->out, "  devices  ", devices);
    format_wrap(t->out, "  to do    ",
                json_get_flag(mailbox, "oauth_configured")
                    ? "OAuth is configured, but nobody has signed in: run \"outtray login\" for it."
                    : "Set up OAuth: outtray-oauth(7) has every step.");
}

static bool depends(const cJSON *mailbox)
{
    return strcmp(json_get_text(mailbox, "signs_in_with"), "password") == 0;
}

/* Mailboxes whose password ends are what the exit code tells. */
static int show_report(const struct tool *t, const cJSON *o)
{
    unsigned dependent = 0;
    unsigned ending = 0;

    for (const cJSON *m = json_first(o, "mailboxes"); m != NULL; m = m->next) {
        if (!depends(m))
            continue;
        dependent++;
        ending += json_get_null(m, "passwords_end") ? 0 : 1;
        if (!t->json)
            show_dependent(t, m);
    }
    if (dependent == 0 && !t->json)
        fputs("No mailbox depends on a password.\n", t->out);
    return ending > 0 ? ATTENTION : EX_OK;
}

int token_report(const struct tool *t)
{
    struct error err = ERROR_INIT;
    struct places p;
    cJSON *o;
    int code;

    if (strcasecmp(t->argument, "sign-in") != 0) {
        (void)error_set(&err, ERROR_INVALID,
                        "there is no report on \"%.64s\"; there is one on "
                        "sign-in",
                        t->argument);
        (void)tool_fail(t, &err);
        return EX_USAGE;
    }
    if (!ask_daemon(t, &p, &code))
        return code;
    o = client_ask(p.socket, "GET", "/v1/sign-in", &err);
    code = o != NULL ? show_report(t, o) : tool_fail(t, &err);
    if (o != NULL && t->json && tool_print_json(t, o) != EX_OK)
        code = EX_OSERR;
    cJSON_Delete(o);
    places_done(&p);
    return code;
}
