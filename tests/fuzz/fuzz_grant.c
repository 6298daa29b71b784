/*
 * What a token service answers, what a browser brings back, and what a token says. The first 2
 * octets are the status.
 */
#include "tests/fuzz/fuzz.h"

#include "relay/signin/claims.h"
#include "relay/signin/grant.h"

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++)
        if (*text < ' ' || *text > '~')
            return false;
    return true;
}

static void check_refusal(const struct grant_refusal *r, enum grant_result result)
{
    FUZZ_CHECK(result == GRANT_REFUSED || r->error[0] == '\0');
    FUZZ_CHECK(result == GRANT_GARBAGE || r->error[0] != '\0');
    FUZZ_CHECK(is_printable(r->error) && is_printable(r->said) && is_printable(r->trace) &&
               is_printable(r->correlation));
}

static void check_token(unsigned status, const char *text, size_t len)
{
    struct grant_token t = {.access = NULL};
    struct grant_refusal r;
    enum grant_result result = grant_parse_token(status, text, len, &t, &r);

    if (result != GRANT_GIVEN) {
        check_refusal(&r, result);
        return;
    }
    FUZZ_CHECK(status == 200);
    FUZZ_CHECK(grant_is_token(t.access, GRANT_ACCESS_MAX));
    FUZZ_CHECK(t.refresh == NULL || grant_is_token(t.refresh, GRANT_REFRESH_MAX));
    FUZZ_CHECK(t.life_s >= 1 && t.life_s <= GRANT_LIFE_MAX_S && is_printable(t.scope));
    grant_token_done(&t);
}

static void check_device(unsigned status, const char *text, size_t len)
{
    struct grant_device_code d = {.device_code = NULL};
    struct grant_refusal r;
    enum grant_result result = grant_parse_device(status, text, len, &d, &r);

    if (result != GRANT_GIVEN) {
        check_refusal(&r, result);
        return;
    }
    FUZZ_CHECK(status == 200 && is_printable(d.user_code) && is_printable(d.url));
    FUZZ_CHECK(strncmp(d.url, "http", 4) == 0 && d.interval_s >= 1 && d.life_s >= 1);
    grant_device_done(&d);
}

static void check_redirect(const char *query)
{
    struct grant_redirect d;
    struct grant_refusal r;
    enum grant_result result = grant_parse_redirect(query, &d, &r);

    if (result == GRANT_GIVEN)
        FUZZ_CHECK(d.code[0] != '\0' && d.state[0] != '\0' && is_printable(d.code));
    else
        FUZZ_CHECK(is_printable(r.error) && is_printable(r.said));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    unsigned status = (unsigned)fuzz_number(&in, 2) % 600;
    size_t len = in.left;
    char *text = malloc(len + 1);
    struct claims c;

    FUZZ_CHECK(text != NULL);
    memcpy(text, in.p, len);
    text[len] = '\0';
    check_token(status, text, len);
    check_token(200, text, len);
    check_device(200, text, len);
    check_redirect(text);
    if (claims_read(text, &c))
        FUZZ_CHECK(is_printable(c.audience) && is_printable(c.roles) && is_printable(c.user));
    free(text);
    return 0;
}
