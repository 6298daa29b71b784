#include "relay/signin/grant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cjson/cJSON.h>

#include "queue/bytes.h"

#define FORM_MAX         ((size_t)128 * 1024)
#define DEPTH_MAX        16 /* of objects in an answer */
#define TOKEN_RUN        60 /* so many characters without a space could be a token */
#define NUMBER_DIGITS    9
#define ASSERTION_TYPE   "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#define DEVICE_GRANT     "urn:ietf:params:oauth:grant-type:device_code"
#define JWT_BEARER_GRANT "urn:ietf:params:oauth:grant-type:jwt-bearer"

/* ---- What we say ---- */

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._~", c) != NULL);
}

static void escape(struct bytes *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (is_unreserved(*text))
            (void)bytes_byte(out, (uint8_t)*text);
        else
            (void)bytes_printf(out, "%%%02X", (unsigned)(unsigned char)*text);
    }
}

/* Nothing for an empty value. */
static void add(struct bytes *out, const char *name, const char *value)
{
    if (value[0] == '\0')
        return;
    if (out->len > 0 && out->data[out->len - 1] != '?' && out->data[out->len - 1] != '&')
        (void)bytes_byte(out, '&');
    (void)bytes_text(out, name);
    (void)bytes_byte(out, '=');
    escape(out, value);
}

/* All the room at once, so that growing leaves no copies of a secret behind. */
static void begin(struct bytes *out)
{
    bytes_init(out, FORM_MAX);
    (void)bytes_reserve(out, FORM_MAX / 2);
}

static void begin_form(struct bytes *out, const char *grant, const struct grant_client *c)
{
    begin(out);
    add(out, "grant_type", grant);
    add(out, "client_id", c->client_id);
    if (c->assertion[0] != '\0') {
        add(out, "client_assertion_type", ASSERTION_TYPE);
        add(out, "client_assertion", c->assertion);
    } else {
        add(out, "client_secret", c->secret);
    }
}

static char *end_form(struct bytes *out)
{
    char *text = out->failed ? NULL : strdup(bytes_string(out));

    if (out->data != NULL)
        explicit_bzero(out->data, out->cap);
    bytes_done(out);
    return text;
}

char *grant_client_credentials(const struct grant_client *client)
{
    struct bytes out;

    begin_form(&out, "client_credentials", client);
    add(&out, "scope", client->scope);
    return end_form(&out);
}

char *grant_refresh(const struct grant_client *client, const char *refresh_token)
{
    struct bytes out;

    begin_form(&out, "refresh_token", client);
    add(&out, "refresh_token", refresh_token);
    add(&out, "scope", client->scope);
    return end_form(&out);
}

char *grant_device(const struct grant_client *client)
{
    struct bytes out;

    begin_form(&out, "", client);
    add(&out, "scope", client->scope);
    return end_form(&out);
}

char *grant_device_poll(const struct grant_client *client, const char *device_code)
{
    struct bytes out;

    begin_form(&out, DEVICE_GRANT, client);
    add(&out, "device_code", device_code);
    return end_form(&out);
}

char *grant_code(const struct grant_client *client, const char *code, const char *redirect_uri,
                 const char *verifier)
{
    struct bytes out;

    begin_form(&out, "authorization_code", client);
    add(&out, "code", code);
    add(&out, "redirect_uri", redirect_uri);
    add(&out, "code_verifier", verifier);
    return end_form(&out);
}

char *grant_jwt_bearer(const char *assertion)
{
    struct bytes out;

    begin(&out);
    add(&out, "grant_type", JWT_BEARER_GRANT);
    add(&out, "assertion", assertion);
    return end_form(&out);
}

char *grant_authorize_url(const struct grant_client *client, const struct grant_browser *browser)
{
    struct bytes out;

    begin(&out);
    (void)bytes_text(&out, browser->authorize_url);
    if (strchr(browser->authorize_url, '?') == NULL)
        (void)bytes_byte(&out, '?');
    add(&out, "response_type", "code");
    add(&out, "client_id", client->client_id);
    add(&out, "redirect_uri", browser->redirect_uri);
    add(&out, "scope", client->scope);
    add(&out, "state", browser->state);
    add(&out, "code_challenge", browser->challenge);
    add(&out, "code_challenge_method", "S256");
    add(&out, "login_hint", browser->login_hint);
    return end_form(&out);
}

void grant_wipe(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

/* ---- What they say ---- */

bool grant_is_token(const char *text, size_t max)
{
    size_t len = 0;

    for (; text[len] != '\0' && len <= max; len++)
        if (text[len] < '!' || text[len] > '~')
            return false;
    return len > 0 && len <= max;
}

static size_t run_length(const char *text)
{
    return strcspn(text, " \t\r\n\"',;()<>/?&:");
}

/* Of foreign text, what a person can read: the first line, in ASCII, without what might be secret.
 */
static void show(const char *text, char *out, size_t size)
{
    size_t used = 0;

    while (*text != '\0' && *text != '\r' && *text != '\n' && used + 4 < size) {
        size_t run = run_length(text);

        if (run >= TOKEN_RUN) {
            (void)snprintf(out + used, size - used, "***");
            used += 3;
            text += run;
            continue;
        }
        out[used++] = *text >= ' ' && *text <= '~' ? *text : '?';
        text++;
    }
    out[used] = '\0';
}

static const char *text_of(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));

    return text != NULL ? text : "";
}

/* Only what is visible ASCII and fits, else "". */
static void copy_text(const cJSON *object, const char *key, char *out, size_t size)
{
    const char *text = text_of(object, key);

    out[0] = '\0';
    if (grant_is_token(text, size - 1))
        (void)snprintf(out, size, "%s", text);
}

static bool digits(const char *text, uint32_t *out)
{
    size_t len = strspn(text, "0123456789");

    if (len == 0 || len > NUMBER_DIGITS || text[len] != '\0')
        return false;
    *out = (uint32_t)strtoul(text, NULL, 10);
    return true;
}

/* A number of seconds, as a number or a text; `fallback` when it is absent. False: nonsense. */
static bool seconds_of(const cJSON *object, const char *key, uint32_t fallback, uint32_t max,
                       uint32_t *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    double number = 0;
    uint32_t whole = 0;

    if (item == NULL || cJSON_IsNull(item)) {
        *out = fallback;
        return true;
    }
    if (cJSON_IsNumber(item))
        number = cJSON_GetNumberValue(item);
    else if (cJSON_IsString(item) && digits(text_of(object, key), &whole))
        number = whole;
    if (!(number >= 1))
        return false;
    *out = number < max ? (uint32_t)number : max;
    return true;
}

/* Strings may be tokens. The tree is at most DEPTH_MAX deep. */
static void wipe_tree(cJSON *item)
{
    for (; item != NULL; item = item->next) {
        if (item->valuestring != NULL)
            explicit_bzero(item->valuestring, strlen(item->valuestring));
        wipe_tree(item->child);
    }
}

static void forget(cJSON *root)
{
    wipe_tree(root);
    cJSON_Delete(root);
}

/* Braces inside strings count too: no honest answer has many. */
static bool is_shallow(const char *body, size_t len)
{
    int depth = 0;

    for (size_t i = 0; i < len; i++) {
        if (body[i] == '{' || body[i] == '[')
            depth++;
        else if (body[i] == '}' || body[i] == ']')
            depth--;
        if (depth > DEPTH_MAX)
            return false;
    }
    return true;
}

static const char *skip_space(const char *body, size_t *len)
{
    while (*len > 0 && strchr(" \t\r\n", *body) != NULL && *body != '\0') {
        body++;
        (*len)--;
    }
    return body;
}

static enum grant_result rubbish(struct grant_refusal *r, unsigned status, const char *what)
{
    *r = (struct grant_refusal){.status = status};
    (void)snprintf(r->said, sizeof(r->said), "HTTP %u with %s", status, what);
    return GRANT_GARBAGE;
}

static const char *looks_like(const char *body, size_t len)
{
    body = skip_space(body, &len);
    if (len == 0)
        return "nothing in it";
    if (*body == '<')
        return "a web page";
    return "something that is not JSON";
}

static cJSON *read_object(const char *body, size_t len)
{
    const char *end = NULL;
    size_t left = len;
    const char *start = skip_space(body, &left);
    cJSON *root = NULL;

    if (left == 0 || *start != '{' || !is_shallow(start, left))
        return NULL;
    root = cJSON_ParseWithLengthOpts(start, left, &end, false);
    if (root == NULL)
        return NULL;
    left -= (size_t)(end - start);
    (void)skip_space(end, &left);
    if (left == 0 && cJSON_IsObject(root))
        return root;
    forget(root);
    return NULL;
}

/* The first of error_codes, or what follows AADSTS in the description. */
static uint32_t find_aadsts(const cJSON *object)
{
    const cJSON *codes = cJSON_GetObjectItemCaseSensitive(object, "error_codes");
    const cJSON *first = cJSON_IsArray(codes) ? codes->child : NULL;
    const char *at = strstr(text_of(object, "error_description"), "AADSTS");

    if (cJSON_IsNumber(first) && first->valuedouble >= 1 && first->valuedouble < UINT32_MAX)
        return (uint32_t)first->valuedouble;
    if (at == NULL || strspn(at + 6, "0123456789") > NUMBER_DIGITS)
        return 0;
    return (uint32_t)strtoul(at + 6, NULL, 10);
}

/* Microsoft repeats ids and time in the text; they have fields of their own. */
static void cut_trailer(char *text)
{
    char *at = strstr(text, " Trace ID:");

    if (at != NULL)
        *at = '\0';
}

static void read_refusal(const cJSON *object, unsigned status, struct grant_refusal *r)
{
    *r = (struct grant_refusal){.status = status, .aadsts = find_aadsts(object)};
    copy_text(object, "error", r->error, sizeof(r->error));
    copy_text(object, "trace_id", r->trace, sizeof(r->trace));
    copy_text(object, "correlation_id", r->correlation, sizeof(r->correlation));
    show(text_of(object, "error_description"), r->said, sizeof(r->said));
    cut_trailer(r->said);
}

/* NULL after writing what is wrong: no object, an error, or a status that goes with neither. */
static cJSON *read_answer(unsigned status, const char *body, size_t len, enum grant_result *out,
                          struct grant_refusal *out_refusal)
{
    cJSON *root = read_object(body, len);

    if (root == NULL) {
        *out = rubbish(out_refusal, status, looks_like(body, len));
        return NULL;
    }
    read_refusal(root, status, out_refusal);
    if (out_refusal->error[0] == '\0' && status == 200)
        return root;
    *out = GRANT_REFUSED;
    if (out_refusal->error[0] == '\0' || (status >= 200 && status < 400 && status != 200))
        *out = rubbish(out_refusal, status, "JSON that is no OAuth answer");
    forget(root);
    return NULL;
}

static const char *fill_token(const cJSON *root, struct grant_token *t)
{
    const char *access = text_of(root, "access_token");
    const cJSON *refresh = cJSON_GetObjectItemCaseSensitive(root, "refresh_token");
    const char *text = text_of(root, "refresh_token");

    if (strcasecmp(text_of(root, "token_type"), "bearer") != 0)
        return "JSON whose token_type is not Bearer";
    if (!grant_is_token(access, GRANT_ACCESS_MAX))
        return "JSON without an access token that could be used";
    if (refresh != NULL && !cJSON_IsNull(refresh) && text[0] != '\0' &&
        !grant_is_token(text, GRANT_REFRESH_MAX))
        return "JSON whose refresh token cannot be used";
    if (refresh != NULL && !cJSON_IsNull(refresh) && !cJSON_IsString(refresh))
        return "JSON whose refresh token is no text";
    if (!seconds_of(root, "expires_in", GRANT_LIFE_DEFAULT_S, GRANT_LIFE_MAX_S, &t->life_s))
        return "JSON whose expires_in is no number of seconds";
    show(text_of(root, "scope"), t->scope, sizeof(t->scope));
    t->access = strdup(access);
    t->refresh = text[0] != '\0' ? strdup(text) : NULL;
    return t->access == NULL || (text[0] != '\0' && t->refresh == NULL) ? "more than fits in memory"
                                                                        : NULL;
}

enum grant_result grant_parse_token(unsigned status, const char *body, size_t len,
                                    struct grant_token *out, struct grant_refusal *out_refusal)
{
    struct grant_refusal refusal;
    struct grant_token t = {.access = NULL};
    enum grant_result result = GRANT_GIVEN;
    cJSON *root = read_answer(status, body, len, &result, &refusal);
    const char *wrong = root != NULL ? fill_token(root, &t) : NULL;

    forget(root);
    if (wrong != NULL)
        result = rubbish(&refusal, status, wrong);
    if (result == GRANT_GIVEN) {
        *out = t;
        return result;
    }
    grant_token_done(&t);
    *out_refusal = refusal;
    return result;
}

static bool is_web_page(const char *url)
{
    return strncmp(url, "https://", 8) == 0 || strncmp(url, "http://", 7) == 0;
}

static const char *fill_device(const cJSON *root, struct grant_device_code *d)
{
    const char *code = text_of(root, "device_code");

    copy_text(root, "verification_uri", d->url, sizeof(d->url));
    if (d->url[0] == '\0') /* Google's name for it */
        copy_text(root, "verification_url", d->url, sizeof(d->url));
    copy_text(root, "verification_uri_complete", d->complete_url, sizeof(d->complete_url));
    show(text_of(root, "user_code"), d->user_code, sizeof(d->user_code));
    if (!grant_is_token(code, GRANT_CODE_MAX - 1))
        return "JSON without a device_code";
    if (d->user_code[0] == '\0' || !is_web_page(d->url))
        return "JSON without a user_code and a verification_uri";
    if (!is_web_page(d->complete_url))
        d->complete_url[0] = '\0';
    if (!seconds_of(root, "expires_in", GRANT_DEVICE_LIFE_S, GRANT_LIFE_MAX_S, &d->life_s) ||
        !seconds_of(root, "interval", GRANT_INTERVAL_S, GRANT_INTERVAL_MAX_S, &d->interval_s))
        return "JSON whose expires_in or interval is no number of seconds";
    d->device_code = strdup(code);
    return d->device_code == NULL ? "more than fits in memory" : NULL;
}

enum grant_result grant_parse_device(unsigned status, const char *body, size_t len,
                                     struct grant_device_code *out,
                                     struct grant_refusal *out_refusal)
{
    struct grant_refusal refusal;
    struct grant_device_code d = {.device_code = NULL};
    enum grant_result result = GRANT_GIVEN;
    cJSON *root = read_answer(status, body, len, &result, &refusal);
    const char *wrong = root != NULL ? fill_device(root, &d) : NULL;

    forget(root);
    if (wrong != NULL)
        result = rubbish(&refusal, status, wrong);
    if (result == GRANT_GIVEN) {
        *out = d;
        return result;
    }
    grant_device_done(&d);
    *out_refusal = refusal;
    return result;
}

void grant_token_done(struct grant_token *t)
{
    grant_wipe(t->access);
    grant_wipe(t->refresh);
    *t = (struct grant_token){.access = NULL};
}

void grant_device_done(struct grant_device_code *d)
{
    grant_wipe(d->device_code);
    d->device_code = NULL;
}

/* ---- The way back from a browser ---- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Up to the next '&'. False when it does not fit, or holds what no such value holds. */
static bool unescape(const char *p, char *out, size_t size)
{
    size_t used = 0;

    for (; *p != '\0' && *p != '&'; p++) {
        char c = *p == '+' ? ' ' : *p;

        if (*p == '%') {
            if (hex_value(p[1]) < 0 || hex_value(p[2]) < 0)
                return false;
            c = (char)(hex_value(p[1]) << 4 | hex_value(p[2]));
            p += 2;
        }
        if (used + 1 >= size || c == '\0')
            return false;
        out[used++] = c;
    }
    out[used] = '\0';
    return true;
}

/* The first of that name; "" when it is absent. */
static bool query_value(const char *query, const char *name, char *out, size_t size)
{
    size_t len = strlen(name);

    out[0] = '\0';
    while (*query != '\0') {
        if (strncmp(query, name, len) == 0 && query[len] == '=')
            return unescape(query + len + 1, out, size);
        query += strcspn(query, "&");
        query += *query == '&';
    }
    return true;
}

static enum grant_result redirect_error(const char *query, const char *error,
                                        struct grant_refusal *r)
{
    char text[GRANT_CODE_MAX];
    const char *number;

    *r = (struct grant_refusal){.status = 200};
    show(error, r->error, sizeof(r->error));
    if (!query_value(query, "error_description", text, sizeof(text)))
        text[0] = '\0';
    show(text, r->said, sizeof(r->said));
    number = strstr(text, "AADSTS");
    if (number != NULL && strspn(number + 6, "0123456789") <= NUMBER_DIGITS)
        r->aadsts = (uint32_t)strtoul(number + 6, NULL, 10);
    return GRANT_REFUSED;
}

enum grant_result grant_parse_redirect(const char *query, struct grant_redirect *out,
                                       struct grant_refusal *out_refusal)
{
    char error[GRANT_ERROR_MAX];
    struct grant_redirect r;

    if (!query_value(query, "error", error, sizeof(error)))
        return rubbish(out_refusal, 200, "a redirect that cannot be read");
    if (error[0] != '\0')
        return redirect_error(query, error, out_refusal);
    if (!query_value(query, "code", r.code, sizeof(r.code)) ||
        !query_value(query, "state", r.state, sizeof(r.state)) ||
        !grant_is_token(r.code, sizeof(r.code) - 1) ||
        !grant_is_token(r.state, sizeof(r.state) - 1))
        return rubbish(out_refusal, 200, "a redirect without a code and a state");
    *out = r;
    explicit_bzero(&r, sizeof(r));
    return GRANT_GIVEN;
}
