/*
 * The sign-ins without the daemon, to be tried against token services of other people's making.
 *
 * Arguments are KEY=VALUE settings of one mailbox (grant=app|person|service, token_url, device_url,
 * authorize_url, client_id, scope, login, secret_file, certificate, style=ps256|rs256,
 * service_file, ca_file, directory). Standard input has commands, one a line; each is answered by a
 * line, OK or NO and a text:
 *   get             a token, or why there is none
 *   fresh           the same, after saying that the mail service refused the one before
 *   device          begins a sign-in by device code; the answer is CODE URL
 *   browser URI     begins one in a browser; the answer is the URL to open
 *   redirect QUERY  what the browser brought back
 *   login           waits until the sign-in is done or has failed
 *   memory          proportional set size in kB
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "relay/base/https.h"
#include "relay/base/work.h"
#include "relay/signin/signins.h"

#define LINE    8192
#define WAIT_MS 60000

struct probe {
    struct event_base *base;
    struct clock clock;
    struct signins *signins;
    uint64_t generation;
    bool answered;
};

static void on_tick(evutil_socket_t fd, short what, void *ctx)
{
    struct probe *p = ctx;

    (void)fd;
    (void)what;
    signins_tick(p->signins);
}

static void on_answer(void *ctx, const struct signins_token *token,
                      const struct signins_trouble *trouble)
{
    struct probe *p = ctx;

    p->answered = true;
    if (token != NULL) {
        p->generation = token->generation;
        printf("OK %s\n", token->text);
    } else {
        printf("NO %s: %s (%s)\n", trouble->name, trouble->what, trouble->said);
    }
}

static void get(struct probe *p)
{
    p->answered = false;
    if (signins_get(p->signins, 0, on_answer, p) == NULL)
        return;
    while (!p->answered)
        event_base_loop(p->base, EVLOOP_ONCE);
}

static void fresh(struct probe *p)
{
    uint64_t unused;

    clock_advance(&p->clock, TOKEN_RETRY_MIN_MS);
    (void)signins_refused(p->signins, 0, p->generation, &unused);
    get(p);
    signins_accepted(p->signins, 0);
}

static struct signins_login wait_login(struct probe *p, enum signins_login_state at_least)
{
    uint64_t limit = clock_now_ms(&p->clock) + WAIT_MS;
    struct signins_login l;

    do {
        event_base_loop(p->base, EVLOOP_ONCE);
        signins_login_status(p->signins, 0, &l);
    } while (l.state < at_least && clock_now_ms(&p->clock) < limit);
    return l;
}

static void tell_login(struct probe *p)
{
    struct signins_login l = wait_login(p, SIGNINS_LOGIN_DONE);

    if (l.state == SIGNINS_LOGIN_DONE)
        printf("OK %s\n", l.who_signed_in);
    else
        printf("NO %s: %s (%s)\n", l.name, l.what, l.said);
}

static void device(struct probe *p)
{
    struct error err = ERROR_INIT;
    struct signins_login l;

    if (!signins_login_device(p->signins, 0, &err)) {
        printf("NO %s\n", err.text);
        return;
    }
    l = wait_login(p, SIGNINS_LOGIN_WAITING);
    if (l.state == SIGNINS_LOGIN_WAITING)
        printf("OK %s %s\n", l.user_code, l.url);
    else
        printf("NO %s: %s (%s)\n", l.name, l.what, l.said);
}

static void browser(struct probe *p, const char *uri)
{
    struct error err = ERROR_INIT;
    char url[SIGNINS_URL_MAX];

    if (signins_login_browser(p->signins, 0, uri, url, &err))
        printf("OK %s\n", url);
    else
        printf("NO %s\n", err.text);
}

static void redirect(struct probe *p, const char *query)
{
    struct error err = ERROR_INIT;
    bool ok = signins_login_redirect(p->signins, 0, query, &err);

    printf("%s %s\n", ok ? "OK" : "NO", err.text);
}

static void memory(void)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    char line[LINE];
    unsigned long kb = 0;

    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "Pss: %lu", &kb) == 1)
            break;
    if (f != NULL)
        (void)fclose(f);
    printf("OK %lu\n", kb);
}

static void obey(struct probe *p, char *line)
{
    char *argument = strchr(line, ' ');

    if (argument != NULL)
        *argument++ = '\0';
    if (strcmp(line, "get") == 0)
        get(p);
    else if (strcmp(line, "fresh") == 0)
        fresh(p);
    else if (strcmp(line, "device") == 0)
        device(p);
    else if (strcmp(line, "browser") == 0 && argument != NULL)
        browser(p, argument);
    else if (strcmp(line, "redirect") == 0 && argument != NULL)
        redirect(p, argument);
    else if (strcmp(line, "login") == 0)
        tell_login(p);
    else if (strcmp(line, "memory") == 0)
        memory();
    else
        printf("NO such command\n");
    (void)fflush(stdout);
}

static const char *setting(int argc, char **argv, const char *key)
{
    size_t len = strlen(key);

    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], key, len) == 0 && argv[i][len] == '=')
            return argv[i] + len + 1;
    return "";
}

static struct signin_config configure(int argc, char **argv)
{
    const char *grant = setting(argc, argv, "grant");
    struct signin_config c = {.mailbox = "probe",
                              .grant = SIGNIN_APP,
                              .token_url = setting(argc, argv, "token_url"),
                              .device_url = setting(argc, argv, "device_url"),
                              .authorize_url = setting(argc, argv, "authorize_url"),
                              .client_id = setting(argc, argv, "client_id"),
                              .scope = setting(argc, argv, "scope"),
                              .login = setting(argc, argv, "login"),
                              .secret_file = setting(argc, argv, "secret_file"),
                              .certificate = {setting(argc, argv, "certificate"), "", ""},
                              .style = JWT_PS256,
                              .service_file = setting(argc, argv, "service_file"),
                              .proxy = HTTPS_PROXY_NONE,
                              .ca_file = setting(argc, argv, "ca_file")};

    if (strcmp(grant, "person") == 0)
        c.grant = SIGNIN_PERSON;
    if (strcmp(grant, "service") == 0)
        c.grant = SIGNIN_SERVICE;
    if (strcmp(setting(argc, argv, "style"), "rs256") == 0)
        c.style = JWT_RS256;
    return c;
}

int main(int argc, char **argv)
{
    const struct signin_config config = configure(argc, argv);
    const struct timeval often = {.tv_usec = 50000};
    struct error err = ERROR_INIT;
    struct probe p = {.base = event_base_new()};
    struct work *work = work_new(p.base, &err);
    struct signins_settings settings = {.base = p.base,
                                        .clock = &p.clock,
                                        .directory = setting(argc, argv, "directory"),
                                        .mailboxes = &config,
                                        .count = 1};
    struct event *tick = event_new(p.base, -1, EV_PERSIST, on_tick, &p);
    char line[LINE];

    (void)signal(SIGPIPE, SIG_IGN);
    clock_init(&p.clock);
    settings.executor = work_executor(work);
    p.signins = signins_new(&settings, &err);
    if (p.signins == NULL) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    (void)event_add(tick, &often);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        obey(&p, line);
    }
    signins_stop(p.signins);
    work_drain(work);
    signins_free(p.signins);
    event_free(tick);
    work_free(work);
    event_base_free(p.base);
    return 0;
}
