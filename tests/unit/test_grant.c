#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/signin/grant.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define SECRET       "aS~/+&= \xc3\xa4"
#define SECRET_SENT  "aS~%2F%2B%26%3D%20%C3%A4"

static const struct grant_client by_secret = {
    .client_id = "app-1", .secret = SECRET, .assertion = "", .scope = "https://x/.default"};
static const struct grant_client by_assertion = {
    .client_id = "app-1", .secret = "", .assertion = "e.e.s", .scope = "https://x/.default"};
static const struct grant_client is_public = {
    .client_id = "app-1", .secret = "", .assertion = "", .scope = "SMTP.Send offline_access"};

static void assert_body(char *body, const char *expected)
{
    assert_non_null(body);
    assert_string_equal(body, expected);
    grant_wipe(body);
}

static void each_grant_posts_what_its_rfc_says(void **state)
{
    (void)state;
    assert_body(grant_client_credentials(&by_secret),
                "grant_type=client_credentials&client_id=app-1&client_secret=" SECRET_SENT
                "&scope=https%3A%2F%2Fx%2F.default");
    assert_body(grant_client_credentials(&by_assertion),
                "grant_type=client_credentials&client_id=app-1&client_assertion_type="
                "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
                "&client_assertion=e.e.s&scope=https%3A%2F%2Fx%2F.default");
    assert_body(grant_refresh(&is_public, "r+1"),
                "grant_type=refresh_token&client_id=app-1&refresh_token=r%2B1"
                "&scope=SMTP.Send%20offline_access");
    assert_body(grant_device(&is_public), "client_id=app-1&scope=SMTP.Send%20offline_access");
    assert_body(grant_device_poll(&is_public, "d1"),
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&client_id=app-1"
                "&device_code=d1");
    assert_body(grant_code(&by_secret, "c&1", "http://localhost:8123/", "v1"),
                "grant_type=authorization_code&client_id=app-1&client_secret=" SECRET_SENT
                "&code=c%261&redirect_uri=http%3A%2F%2Flocalhost%3A8123%2F&code_verifier=v1");
    assert_body(grant_jwt_bearer("a.b.c"),
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a.b.c");
}

static void the_page_to_open_keeps_the_query_that_it_has(void **state)
{
    const struct grant_browser plain = {.authorize_url = "https://l/authorize",
                                        .redirect_uri = "http://localhost:8123",
                                        .challenge = "ch",
                                        .state = "st",
                                        .login_hint = "a@b.test"};
    const struct grant_browser google = {.authorize_url = "https://g/auth?access_type=offline",
                                         .redirect_uri = "http://localhost:1",
                                         .challenge = "ch",
                                         .state = "st",
                                         .login_hint = ""};

    (void)state;
    assert_body(grant_authorize_url(&is_public, &plain),
                "https://l/authorize?response_type=code&client_id=app-1&redirect_uri="
                "http%3A%2F%2Flocalhost%3A8123&scope=SMTP.Send%20offline_access&state=st"
                "&code_challenge=ch&code_challenge_method=S256&login_hint=a%40b.test");
    assert_body(grant_authorize_url(&is_public, &google),
                "https://g/auth?access_type=offline&response_type=code&client_id=app-1"
                "&redirect_uri=http%3A%2F%2Flocalhost%3A1&scope=SMTP.Send%20offline_access"
                "&state=st&code_challenge=ch&code_challenge_method=S256");
}

static enum grant_result parse(unsigned status, const char *body, struct grant_token *t,
                               struct grant_refusal *r)
{
    return grant_parse_token(status, body, strlen(body), t, r);
}

static void tokens_are_taken_in_every_honest_form(void **state)
{
    static const struct {
        const char *name;
        const char *body;
        uint32_t life_s;
        const char *refresh;
    } rows[] = {
        {"number", "{\"token_type\":\"Bearer\",\"access_token\":\"a\",\"expires_in\":3599}", 3599,
         NULL},
        {"text", "{\"token_type\":\"bearer\",\"access_token\":\"a\",\"expires_in\":\"4600\"}", 4600,
         NULL},
        {"no life", " {\"token_type\":\"BEARER\",\"access_token\":\"a\"}\r\n", 3600, NULL},
        {"null life", "{\"token_type\":\"Bearer\",\"access_token\":\"a\",\"expires_in\":null}",
         3600, NULL},
        {"refresh", "{\"token_type\":\"Bearer\",\"access_token\":\"a\",\"refresh_token\":\"r\"}",
         3600, "r"},
        {"empty refresh",
         "{\"token_type\":\"Bearer\",\"access_token\":\"a\",\"refresh_token\":\"\"}", 3600, NULL},
        {"huge life", "{\"token_type\":\"Bearer\",\"access_token\":\"a\",\"expires_in\":1e300}",
         GRANT_LIFE_MAX_S, NULL},
        {"unknown members",
         "{\"x\":[{\"y\":1}],\"token_type\":\"Bearer\",\"access_token\":\"a\",\"expires_in\":1}", 1,
         NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct grant_token t = {.access = NULL};
        struct grant_refusal r;

        print_message("  %s\n", rows[i].name);
        assert_int_equal(parse(200, rows[i].body, &t, &r), GRANT_GIVEN);
        assert_string_equal(t.access, "a");
        assert_int_equal(t.life_s, rows[i].life_s);
        if (rows[i].refresh != NULL)
            assert_string_equal(t.refresh, rows[i].refresh);
        else
            assert_null(t.refresh);
        grant_token_done(&t);
    }
}

static void rubbish_is_no_token_and_is_described(void **state)
{
    static const struct {
        unsigned status;
        const char *body;
        const char *said;
    } rows[] = {
        {200, "", "HTTP 200 with nothing in it"},
        {200, "  \n", "HTTP 200 with nothing in it"},
        {200, "<!DOCTYPE html><html>Sign in</html>", "HTTP 200 with a web page"},
        {403, "<html>blocked</html>", "HTTP 403 with a web page"},
        {200, "OK", "HTTP 200 with something that is not JSON"},
        {200, "[]", "HTTP 200 with something that is not JSON"},
        {200, "\"token\"", "HTTP 200 with something that is not JSON"},
        {200, "{\"token_type\":\"Bearer\"", "HTTP 200 with something that is not JSON"},
        {200, "{} {}", "HTTP 200 with something that is not JSON"},
        {200, "{\"token_type\":\"Bearer\",\"access_token\":\"a\"}x",
         "HTTP 200 with something that is not JSON"},
        {200, "{}", "HTTP 200 with JSON whose token_type is not Bearer"},
        {200, "{\"token_type\":\"mac\",\"access_token\":\"a\"}",
         "HTTP 200 with JSON whose token_type is not Bearer"},
        {200, "{\"token_type\":7,\"access_token\":\"a\"}",
         "HTTP 200 with JSON whose token_type is not Bearer"},
        {200, "{\"token_type\":\"Bearer\"}",
         "HTTP 200 with JSON without an access token that could be used"},
        {200, "{\"token_type\":\"Bearer\",\"access_token\":\"\"}",
         "HTTP 200 with JSON without an access token that could be used"},
        {200, "{\"token_type\":\"Bearer\",\"access_token\":[\"a\"]}",
         "HTTP 200 with JSON without an access token that could be used"},
        {200, "{\"token_type\":\"Bearer\",\"access_token\":\"a b\"}",
         "HTTP 200 with JSON without an access token that could be used"},
        {200, "{\"token_type\":\"Bearer\",\"access_token\":\"a\\u0001b\"}",
         "HTTP 200 with JSON without an access token that could be used"},
        {200, "{\"token_type\":\"Bearer\",\"access_token\":\"\\u00e4\"}",
         "HTTP 200 with JSON without an access token that could be used"},
        {200, "{\"token_type\":\"Bearer\",\"access_token\":\"a\",\"refresh_token\":5}",
         "HTTP 200 with JSON whose refresh token is no text"},
        {200, "{\"token_type\":\"Bearer\",\"access_token\":\"a\",\"refresh_token\":\"r\\n\"}",
         "HTTP 200 with JSON whose refresh token cannot be used"},
        {200, "{\"token_type\":\"Bearer\",\"access_token\":\"a\",\"expires_in\":0}",
         "HTTP 200 with JSON whose expires_in is no number of seconds"},
        {200, "{\"token_type\":\"Bearer\",\"access_token\":\"a\",\"expires_in\":-5}",
         "HTTP 200 with JSON whose expires_in is no number of seconds"},
        {200, "{\"token_type\":\"Bearer\",\"access_token\":\"a\",\"expires_in\":\"soon\"}",
         "HTTP 200 with JSON whose expires_in is no number of seconds"},
        {200, "{\"token_type\":\"Bearer\",\"access_token\":\"a\",\"expires_in\":true}",
         "HTTP 200 with JSON whose expires_in is no number of seconds"},
        {204, "{\"token_type\":\"Bearer\",\"access_token\":\"a\"}",
         "HTTP 204 with JSON that is no OAuth answer"},
        {302, "{\"error\":\"invalid_client\"}", "HTTP 302 with JSON that is no OAuth answer"},
        {400, "{\"message\":\"no\"}", "HTTP 400 with JSON that is no OAuth answer"},
        {400, "{\"error\":{\"code\":1}}", "HTTP 400 with JSON that is no OAuth answer"},
        {400, "{\"error\":\"with space\"}", "HTTP 400 with JSON that is no OAuth answer"},
        {200, "{\"a\":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}",
         "HTTP 200 with something that is not JSON"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct grant_token t;
        struct grant_refusal r;

        print_message("  %s\n", rows[i].body);
        assert_int_equal(parse(rows[i].status, rows[i].body, &t, &r), GRANT_GARBAGE);
        assert_string_equal(r.error, "");
        assert_string_equal(r.said, rows[i].said);
        assert_int_equal(r.status, rows[i].status);
    }
}

static char *body_with(size_t access_len, size_t refresh_len)
{
    char *body = malloc(access_len + refresh_len + 200);
    size_t used = (size_t)sprintf(body, "{\"token_type\":\"Bearer\",\"access_token\":\"");

    memset(body + used, 'a', access_len);
    used += access_len;
    used += (size_t)sprintf(body + used, "\",\"refresh_token\":\"");
    memset(body + used, 'r', refresh_len);
    used += refresh_len;
    sprintf(body + used, "\"}");
    return body;
}

static void tokens_have_limits(void **state)
{
    static const struct {
        size_t access;
        size_t refresh;
        enum grant_result result;
    } rows[] = {
        {GRANT_ACCESS_MAX, GRANT_REFRESH_MAX, GRANT_GIVEN},
        {GRANT_ACCESS_MAX + 1, 1, GRANT_GARBAGE},
        {1, GRANT_REFRESH_MAX + 1, GRANT_GARBAGE},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        char *body = body_with(rows[i].access, rows[i].refresh);
        struct grant_token t = {.access = NULL};
        struct grant_refusal r;

        assert_int_equal(parse(200, body, &t, &r), rows[i].result);
        if (rows[i].result == GRANT_GIVEN) {
            assert_int_equal(strlen(t.access), rows[i].access);
            assert_int_equal(strlen(t.refresh), rows[i].refresh);
            grant_token_done(&t);
        }
        free(body);
    }
}

static void a_refusal_gives_error_number_ids_and_its_first_line(void **state)
{
    struct grant_token t;
    struct grant_refusal r;

    (void)state;
    assert_int_equal(
        parse(401,
              "{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000215: Invalid client "
              "secret provided. Trace ID: 1-2 Correlation ID: 3-4 Timestamp: now\","
              "\"error_codes\":[7000215],\"timestamp\":\"2026\",\"trace_id\":\"1-2\","
              "\"correlation_id\":\"3-4\",\"error_uri\":\"https://l/error\"}",
              &t, &r),
        GRANT_REFUSED);
    assert_string_equal(r.error, "invalid_client");
    assert_string_equal(r.said, "AADSTS7000215: Invalid client secret provided.");
    assert_int_equal(r.aadsts, 7000215);
    assert_string_equal(r.trace, "1-2");
    assert_string_equal(r.correlation, "3-4");

    assert_int_equal(
        parse(400,
              "{\"error\":\"invalid_grant\",\"error_description\":\"AADSTS50126: bad\\r"
              "\\nTrace ID: 9\"}",
              &t, &r),
        GRANT_REFUSED);
    assert_int_equal(r.aadsts, 50126);
    assert_string_equal(r.said, "AADSTS50126: bad");

    assert_int_equal(parse(200, "{\"error\":\"authorization_pending\"}", &t, &r), GRANT_REFUSED);
    assert_string_equal(r.error, "authorization_pending");
    assert_int_equal(r.aadsts, 0);
}

static void what_may_be_a_token_is_not_shown(void **state)
{
    struct grant_token t;
    struct grant_refusal r;

    (void)state;
    assert_int_equal(
        parse(400,
              "{\"error\":\"invalid_grant\",\"error_description\":\"The token "
              "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2V4YW1wbGUuY29tIn0.aaaa "
              "is bad \\u00e4\\u0007\"}",
              &t, &r),
        GRANT_REFUSED);
    assert_string_equal(r.said, "The token *** is bad ???");
}

static void device_codes_are_read_with_their_defaults(void **state)
{
    static const char full[] =
        "{\"device_code\":\"d\",\"user_code\":\"ABC-1\",\"verification_uri\":\"https://m/device\","
        "\"verification_uri_complete\":\"https://m/device?c=1\",\"expires_in\":\"600\","
        "\"interval\":7}";
    static const char google[] = "{\"device_code\":\"d\",\"user_code\":\"ABC-1\","
                                 "\"verification_url\":\"https://www.google.com/device\"}";
    static const char *const bad[] = {
        "{}",
        "{\"device_code\":\"d\",\"user_code\":\"ABC-1\"}",
        "{\"device_code\":\"d\",\"user_code\":\"A\",\"verification_uri\":\"javascript:alert(1)\"}",
        "{\"user_code\":\"A\",\"verification_uri\":\"https://m/\"}",
        "{\"device_code\":\"d\",\"user_code\":\"A\",\"verification_uri\":\"https://m/\","
        "\"interval\":0}",
    };
    struct grant_device_code d;
    struct grant_refusal r;

    (void)state;
    assert_int_equal(grant_parse_device(200, full, strlen(full), &d, &r), GRANT_GIVEN);
    assert_string_equal(d.device_code, "d");
    assert_string_equal(d.user_code, "ABC-1");
    assert_string_equal(d.url, "https://m/device");
    assert_string_equal(d.complete_url, "https://m/device?c=1");
    assert_int_equal(d.life_s, 600);
    assert_int_equal(d.interval_s, 7);
    grant_device_done(&d);
    assert_int_equal(grant_parse_device(200, google, strlen(google), &d, &r), GRANT_GIVEN);
    assert_string_equal(d.url, "https://www.google.com/device");
    assert_int_equal(d.life_s, 900);
    assert_int_equal(d.interval_s, 5);
    grant_device_done(&d);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(grant_parse_device(200, bad[i], strlen(bad[i]), &d, &r), GRANT_GARBAGE);
    assert_int_equal(grant_parse_device(400, "{\"error\":\"unauthorized_client\"}", 31, &d, &r),
                     GRANT_REFUSED);
}

static void the_redirect_brings_code_and_state_or_says_why_not(void **state)
{
    struct grant_redirect d;
    struct grant_refusal r;
    static const char *const bad[] = {"",
                                      "code=1",
                                      "state=1",
                                      "code=&state=1",
                                      "code=%zz&state=1",
                                      "code=a%00b&state=1",
                                      "code=a%20b&state=1",
                                      "code",
                                      "xcode=1&state=2"};

    (void)state;
    assert_int_equal(grant_parse_redirect("session=9&code=0.A%2Bb&state=xyz", &d, &r), GRANT_GIVEN);
    assert_string_equal(d.code, "0.A+b");
    assert_string_equal(d.state, "xyz");
    assert_int_equal(
        grant_parse_redirect("error=access_denied&error_description=AADSTS65004%3a+User+declined"
                             "&state=xyz",
                             &d, &r),
        GRANT_REFUSED);
    assert_string_equal(r.error, "access_denied");
    assert_string_equal(r.said, "AADSTS65004: User declined");
    assert_int_equal(r.aadsts, 65004);
    for (size_t i = 0; i < COUNT(bad); i++) {
        print_message("  \"%s\"\n", bad[i]);
        assert_int_equal(grant_parse_redirect(bad[i], &d, &r), GRANT_GARBAGE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_grant_posts_what_its_rfc_says),
        cmocka_unit_test(the_page_to_open_keeps_the_query_that_it_has),
        cmocka_unit_test(tokens_are_taken_in_every_honest_form),
        cmocka_unit_test(rubbish_is_no_token_and_is_described),
        cmocka_unit_test(tokens_have_limits),
        cmocka_unit_test(a_refusal_gives_error_number_ids_and_its_first_line),
        cmocka_unit_test(what_may_be_a_token_is_not_shown),
        cmocka_unit_test(device_codes_are_read_with_their_defaults),
        cmocka_unit_test(the_redirect_brings_code_and_state_or_says_why_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
