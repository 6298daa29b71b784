#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

#include "relay/base/https.h"
#include "tests/unit/oauth_fixture.h"

#define GUARD_S        60
#define SLOW_LOOKUP_MS 1500
#define FORM           "grant_type=client_credentials"

static struct oauth_fixture server;

struct ear {
    struct event_base *base;
    struct https *client;
    unsigned calls;
    struct https_answer answer; /* without its texts */
    char body[HTTPS_ANSWER_MAX + 1];
    char type[HTTPS_TYPE_MAX];
};

static void on_answer(void *ctx, const struct https_answer *answer)
{
    struct ear *e = ctx;

    e->calls++;
    e->answer = *answer;
    memcpy(e->body, answer->body, answer->len + 1);
    (void)snprintf(e->type, sizeof(e->type), "%s", answer->content_type);
    event_base_loopbreak(e->base);
}

static void listen_to(struct ear *e)
{
    e->calls = 0;
    e->base = event_base_new();
    e->client = https_new(e->base);
    assert_non_null(e->client);
}

static void stop_listening(struct ear *e)
{
    https_free(e->client);
    event_base_free(e->base);
}

static struct https_request request_to(const char *path)
{
    static char url[256];

    (void)snprintf(url, sizeof(url), "%s%s", server.url, path);
    return (struct https_request){.url = url,
                                  .body = FORM,
                                  .body_len = strlen(FORM),
                                  .proxy = HTTPS_PROXY_NONE,
                                  .ca_file = server.ca_file};
}

/* Sends it and waits for its answer, which must come once. */
static struct ear *ask(const struct https_request *r)
{
    static struct ear e;
    struct error err = ERROR_INIT;
    const struct timeval guard = {.tv_sec = GUARD_S};

    listen_to(&e);
    assert_non_null(https_send(e.client, r, on_answer, &e, &err));
    assert_int_equal(e.calls, 0);
    event_base_loopexit(e.base, &guard);
    event_base_dispatch(e.base);
    assert_int_equal(e.calls, 1);
    stop_listening(&e);
    return &e;
}

static void rule(const char *json)
{
    char text[1024];

    (void)snprintf(text, sizeof(text), "{\"rules\": [%s]}", json);
    oauth_set(&server, text);
}

static void a_form_is_posted_and_the_answer_comes_whatever_its_status(void **state)
{
    struct https_request r = request_to("/t/token");
    struct ear *e = ask(&r);

    (void)state;
    assert_int_equal(e->answer.status, 400); /* no client id */
    assert_string_equal(e->type, "application/json");
    assert_non_null(strstr(e->body, "unauthorized_client"));
    assert_int_equal(e->answer.len, strlen(e->body));
    assert_in_range(e->answer.date_s, (uint64_t)time(NULL) - 60, (uint64_t)time(NULL) + 60);
    assert_int_equal(oauth_requests(&server, FORM), 0); /* it was decoded */
    assert_int_equal(oauth_requests(&server, "\"client_credentials\""), 1);
}

static void what_the_service_asks_us_to_wait_is_read_in_both_forms(void **state)
{
    static const struct {
        const char *value;
        uint64_t seconds;
    } rows[] = {{"7", 7}, {"999999", 86400}, {"soon", 0}, {"-1", 0}, {"7 days", 0}, {"", 0}};
    struct https_request r = request_to("/t/token");
    char json[256];
    char date[64];
    time_t later = time(NULL) + 86400 + 90;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        (void)snprintf(json, sizeof(json),
                       "{\"status\": 429, \"body\": \"\", \"headers\": {\"Retry-After\": \"%s\"}}",
                       rows[i].value);
        rule(json);
        assert_int_equal(ask(&r)->answer.retry_after_s, rows[i].seconds);
    }
    /* A date is compared with the service's clock, which is a day ahead of ours. */
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime(&later));
    (void)snprintf(json, sizeof(json),
                   "{\"status\": 503, \"body\": \"\", \"headers\": {\"Retry-After\": \"%s\"}}",
                   date);
    oauth_set(&server, "{\"clock_ahead\": 86400}");
    rule(json);
    assert_in_range(ask(&r)->answer.retry_after_s, 60, 90);
    oauth_set(&server, "{\"clock_ahead\": 0}");
}

static void a_redirect_is_not_followed(void **state)
{
    struct https_request r = request_to("/t/token");

    (void)state;
    oauth_set(&server, "{\"forget\": true}");
    rule("{\"status\": 307, \"body\": \"\", \"headers\": {\"Location\": \"/t/elsewhere\"}}");
    assert_int_equal(ask(&r)->answer.status, 307);
    assert_int_equal(oauth_requests(&server, "elsewhere"), 0);
}

static void an_answer_without_end_is_cut_off(void **state)
{
    struct https_request r = request_to("/t/token");
    char *json = malloc(HTTPS_ANSWER_MAX + 200);
    struct ear *e;

    (void)state;
    for (size_t extra = 0; extra < 2; extra++) {
        size_t used = (size_t)sprintf(json, "{\"rules\": [{\"status\": 200, \"body\": \"");

        memset(json + used, 'x', HTTPS_ANSWER_MAX + extra);
        strcpy(json + used + HTTPS_ANSWER_MAX + extra, "\"}]}");
        oauth_set(&server, json);
        e = ask(&r);
        assert_int_equal(e->answer.status, extra == 0 ? 200 : 0);
        if (extra == 0)
            assert_int_equal(e->answer.len, HTTPS_ANSWER_MAX);
        else
            assert_non_null(strstr(e->answer.error.text, "longer than 65536 octets"));
    }
    free(json);
}

static void a_service_that_is_silent_or_gone_is_told(void **state)
{
    struct https_request r = request_to("/t/token");
    struct ear *e;

    (void)state;
    r.total_ms = 300;
    rule("{\"delay\": 2}");
    e = ask(&r);
    assert_int_equal(e->answer.status, 0);
    assert_non_null(strstr(e->answer.error.text, "check that a firewall lets us out"));
    r.total_ms = 0;
    rule("{\"drop\": true}");
    e = ask(&r);
    assert_int_equal(e->answer.status, 0);
    assert_non_null(strstr(e->answer.error.text, "/t/token: "));
    r.url = "https://127.0.0.1:1/token";
    e = ask(&r);
    assert_int_equal(e->answer.status, 0);
    assert_non_null(strstr(e->answer.error.text, "check that a firewall lets us out"));
    r.url = "https://does-not-exist.invalid/token";
    e = ask(&r);
    assert_int_equal(e->answer.status, 0);
    assert_non_null(strstr(e->answer.error.text, "resolv.conf"));
}

static void only_a_service_that_proves_itself_hears_us(void **state)
{
    struct https_request r = request_to("/t/token");
    struct ear *e;
    char url[128];

    (void)state;
    oauth_set(&server, "{\"forget\": true}");
    r.ca_file = "";
    e = ask(&r);
    assert_int_equal(e->answer.status, 0);
    if (access("/etc/ssl/certs/ca-certificates.crt", F_OK) == 0) /* else it knows no authorities */
        assert_int_equal(e->answer.error.kind, ERROR_UNTRUSTED);
    assert_non_null(strstr(e->answer.error.text, "ca_file"));
    r.ca_file = server.ca_file;
    (void)snprintf(url, sizeof(url), "https://127.0.0.2%s/t/token", strrchr(server.url, ':'));
    r.url = url; /* nobody listens there, or under another name */
    assert_int_equal(ask(&r)->answer.status, 0);
    r = request_to("/t/token");
    r.ca_file = "/nonexistent/ca.pem";
    e = ask(&r);
    assert_int_equal(e->answer.status, 0);
    assert_non_null(strstr(e->answer.error.text, "ca_file"));
    assert_int_equal(oauth_requests(&server, "token"), 0);
}

static void a_proxy_is_used_when_named_or_in_the_environment(void **state)
{
    struct https_request r = request_to("/t/token");
    struct ear *e;
    char with_login[128];

    (void)state;
    r.proxy = server.proxy;
    assert_int_equal(ask(&r)->answer.status, 400);
    assert_int_equal(oauth_number(&server, "proxied"), 1);
    setenv("https_proxy", server.proxy, 1);
    r.proxy = "";
    assert_int_equal(ask(&r)->answer.status, 400);
    assert_int_equal(oauth_number(&server, "proxied"), 2);
    r.proxy = HTTPS_PROXY_NONE;
    assert_int_equal(ask(&r)->answer.status, 400);
    setenv("no_proxy", "127.0.0.1", 1);
    r.proxy = "";
    assert_int_equal(ask(&r)->answer.status, 400);
    assert_int_equal(oauth_number(&server, "proxied"), 2);
    unsetenv("https_proxy");
    unsetenv("no_proxy");
    oauth_set(&server, "{\"proxy_login\": \"user:pass word\"}");
    r.proxy = server.proxy;
    e = ask(&r);
    assert_int_equal(e->answer.status, 0);
    assert_non_null(strstr(e->answer.error.text, "the proxy wants a login"));
    (void)snprintf(with_login, sizeof(with_login), "http://user:pass%%20word@%s",
                   server.proxy + strlen("http://"));
    r.proxy = with_login;
    e = ask(&r);
    assert_int_equal(e->answer.status, 400);
    assert_null(strstr(e->answer.error.text, "pass"));
    oauth_set(&server, "{\"proxy_login\": \"\"}");
    r.proxy = "http://127.0.0.1:1";
    assert_int_equal(ask(&r)->answer.status, 0);
}

static void on_never(void *ctx, const struct https_answer *answer)
{
    (void)ctx;
    (void)answer;
    fail();
}

static void a_cancelled_request_is_never_answered(void **state)
{
    struct https_request r = request_to("/t/token");
    struct error err = ERROR_INIT;
    struct ear e;
    const struct timeval soon = {.tv_usec = 200000};
    struct https_call *a;
    struct https_call *b;

    (void)state;
    listen_to(&e);
    rule("{\"delay\": 0.4, \"times\": 2}");
    a = https_send(e.client, &r, on_never, NULL, &err);
    b = https_send(e.client, &r, on_never, NULL, &err);
    assert_true(a != NULL && b != NULL);
    https_cancel(a); /* before anything went out */
    event_base_loopexit(e.base, &soon);
    event_base_dispatch(e.base);
    https_cancel(b); /* under way */
    https_cancel(NULL);
    event_base_loopexit(e.base, &soon);
    event_base_dispatch(e.base);
    assert_non_null(https_send(e.client, &r, on_never, NULL, &err));
    stop_listening(&e); /* cancels the last one */
}

static void many_at_a_time_are_all_answered(void **state)
{
    struct https_request r = request_to("/t/token");
    struct error err = ERROR_INIT;
    struct ear e;
    const struct timeval guard = {.tv_sec = GUARD_S};

    (void)state;
    oauth_set(&server, "{\"forget\": true, \"rules\": []}");
    listen_to(&e);
    for (int i = 0; i < 20; i++)
        assert_non_null(https_send(e.client, &r, on_answer, &e, &err));
    event_base_loopexit(e.base, &guard);
    while (e.calls < 20 && !event_base_got_exit(e.base))
        event_base_loop(e.base, EVLOOP_ONCE);
    assert_int_equal(e.calls, 20);
    stop_listening(&e);
}

static void what_would_go_out_in_the_clear_is_not_sent(void **state)
{
    static const struct {
        const char *url;
        bool ok;
    } rows[] = {
        {"https://login.test/t/token", true},
        {"HTTPS://login.test", true},
        {"https://[::1]:8443/token?a=b", true},
        {"http://localhost:8080/token", true},
        {"http://127.0.0.1/token", true},
        {"http://[::1]:1/token", true},
        {"http://localhost.evil.test/token", false},
        {"http://login.test/token", false},
        {"login.test/token", false},
        {"ftp://login.test/token", false},
        {"file:///etc/passwd", false},
        {"https://", false},
        {"https:///token", false},
        {"https://user:pass@login.test/", false},
        {"https://login.test/to ken", false},
        {"", false},
    };
    struct ear e;
    struct https_request r = request_to("/t/token");

    (void)state;
    listen_to(&e);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct error err = ERROR_INIT;

        print_message("  %s\n", rows[i].url);
        assert_int_equal(https_check_url(rows[i].url, &err), rows[i].ok);
        r.url = rows[i].url;
        if (!rows[i].ok)
            assert_null(https_send(e.client, &r, on_never, NULL, &err));
    }
    stop_listening(&e);
}

/* The library finds this one before the C library's: a resolver that does not answer for long. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    static int (*system_one)(const char *, const char *, const struct addrinfo *,
                             struct addrinfo **);

    if (node != NULL && strcmp(node, "slow.invalid") == 0) {
        (void)usleep(SLOW_LOOKUP_MS * 1000);
        return EAI_AGAIN;
    }
    if (system_one == NULL)
        *(void **)&system_one = dlsym(RTLD_NEXT, "getaddrinfo");
    return system_one(node, service, hints, out);
}

static uint64_t now_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void a_name_that_is_looked_up_for_long_holds_nobody_up(void **state)
{
    struct https_request r = request_to("/t/token");
    struct error err = ERROR_INIT;
    struct https_call *call;
    struct ear e;
    const struct timeval soon = {.tv_usec = 100000};
    uint64_t began = now_ms();

    (void)state;
    r.url = "https://slow.invalid/token";
    r.total_ms = 200;
    assert_int_equal(ask(&r)->answer.status, 0); /* by its time limit */
    listen_to(&e);
    r.total_ms = 0;
    call = https_send(e.client, &r, on_never, NULL, &err);
    event_base_loopexit(e.base, &soon);
    event_base_dispatch(e.base);
    https_cancel(call);
    stop_listening(&e);
    assert_true(now_ms() - began < SLOW_LOOKUP_MS);
    usleep(SLOW_LOOKUP_MS * 1000); /* what was left behind ends by itself */
}

static int start(void **state)
{
    (void)state;
    (void)signal(SIGPIPE, SIG_IGN);
    unsetenv("https_proxy");
    unsetenv("HTTPS_PROXY");
    unsetenv("all_proxy");
    unsetenv("ALL_PROXY");
    oauth_start(&server);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    oauth_stop(&server);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_form_is_posted_and_the_answer_comes_whatever_its_status),
        cmocka_unit_test(what_the_service_asks_us_to_wait_is_read_in_both_forms),
        cmocka_unit_test(a_redirect_is_not_followed),
        cmocka_unit_test(an_answer_without_end_is_cut_off),
        cmocka_unit_test(a_service_that_is_silent_or_gone_is_told),
        cmocka_unit_test(only_a_service_that_proves_itself_hears_us),
        cmocka_unit_test(a_proxy_is_used_when_named_or_in_the_environment),
        cmocka_unit_test(a_cancelled_request_is_never_answered),
        cmocka_unit_test(many_at_a_time_are_all_answered),
        cmocka_unit_test(what_would_go_out_in_the_clear_is_not_sent),
        cmocka_unit_test(a_name_that_is_looked_up_for_long_holds_nobody_up),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
