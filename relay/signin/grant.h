/*
 * The language of token endpoints: what we post (RFC 6749, 7523, 7636, 8628) and what they answer.
 * Pure.
 *
 * Bodies are forms, returned as texts that are the caller's and go to grant_wipe(); NULL without
 * memory. Answers are read strictly: what is not exactly a token, a device code or an OAuth error
 * is GRANT_GARBAGE, with a text that says what it looks like. What a refusal means is
 * oauth_errors.h's business.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_GRANT_H
#define OUTTRAY_RELAY_SIGNIN_GRANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GRANT_ACCESS_MAX     12288 /* octets of an access token */
#define GRANT_REFRESH_MAX    16384
#define GRANT_CODE_MAX       8192 /* of a device code, or a code from a browser */
#define GRANT_TEXT_MAX       256
#define GRANT_URL_MAX        1024
#define GRANT_SAID_MAX       400
#define GRANT_ERROR_MAX      64
#define GRANT_LIFE_DEFAULT_S 3600 /* of an access token whose answer does not say */
#define GRANT_LIFE_MAX_S     (7 * 86400u)
#define GRANT_INTERVAL_S     5 /* of a device code whose answer does not say, RFC 8628 3.2 */
#define GRANT_INTERVAL_MAX_S 300
#define GRANT_DEVICE_LIFE_S  900 /* of a device code whose answer does not say */
#define GRANT_SLOWER_S       5   /* what slow_down adds, for good, RFC 8628 3.5 */

/* Who asks. Texts that do not apply are "". */
struct grant_client {
    const char *client_id;
    const char *secret;
    const char *assertion; /* instead of the secret, see jwt.h */
    const char *scope;
};

char *grant_client_credentials(const struct grant_client *client);
char *grant_refresh(const struct grant_client *client, const char *refresh_token);
char *grant_device(const struct grant_client *client);
char *grant_device_poll(const struct grant_client *client, const char *device_code);
char *grant_code(const struct grant_client *client, const char *code, const char *redirect_uri,
                 const char *verifier);
char *grant_jwt_bearer(const char *assertion);
void grant_wipe(char *text); /* wipes and frees; accepts NULL */

struct grant_browser {
    const char *authorize_url; /* may have a query of its own */
    const char *redirect_uri;
    const char *challenge; /* S256, see pkce.h */
    const char *state;
    const char *login_hint; /* "" = none */
};

/* The page that a browser is to open. */
char *grant_authorize_url(const struct grant_client *client, const struct grant_browser *browser);

enum grant_result { GRANT_GIVEN, GRANT_REFUSED, GRANT_GARBAGE };

struct grant_token {
    char *access;
    char *refresh; /* NULL: none came, the old one stays */
    uint32_t life_s;
    char scope[GRANT_TEXT_MAX]; /* "" when not said */
};

struct grant_device_code {
    char *device_code;
    char user_code[GRANT_TEXT_MAX];
    char url[GRANT_URL_MAX];          /* to open */
    char complete_url[GRANT_URL_MAX]; /* the same with the code in it; "" when not said */
    uint32_t life_s;
    uint32_t interval_s;
};

/* Printable ASCII throughout; long runs that could be tokens are ***. */
struct grant_refusal {
    unsigned status;
    char error[GRANT_ERROR_MAX]; /* "" with GRANT_GARBAGE */
    char said[GRANT_SAID_MAX];   /* description, or what the rubbish looks like */
    uint32_t aadsts;
    char trace[GRANT_ERROR_MAX];
    char correlation[GRANT_ERROR_MAX];
};

/* Of what they are named after, only one is written. */
enum grant_result grant_parse_token(unsigned status, const char *body, size_t len,
                                    struct grant_token *out, struct grant_refusal *out_refusal);
enum grant_result grant_parse_device(unsigned status, const char *body, size_t len,
                                     struct grant_device_code *out,
                                     struct grant_refusal *out_refusal);
void grant_token_done(struct grant_token *t); /* wipes and frees; accepts what is all zero */
void grant_device_done(struct grant_device_code *d);

struct grant_redirect {
    char code[GRANT_CODE_MAX];
    char state[GRANT_TEXT_MAX];
};

/* The query of the loopback redirect, without its '?'. The state is not compared. */
enum grant_result grant_parse_redirect(const char *query, struct grant_redirect *out,
                                       struct grant_refusal *out_refusal);

/* True for a token that fits on the wire: visible ASCII, at most max octets. */
bool grant_is_token(const char *text, size_t max);

#endif
