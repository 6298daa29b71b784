#include "relay/base/config_signin.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "queue/bytes.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define URL_MAX      ((size_t)1024)
#define TENANT       "{tenant}"

static const char *const grant_names[] = {
    [CONFIG_GRANT_CLIENT_CREDENTIALS] = "client-credentials",
    [CONFIG_GRANT_DEVICE] = "device",
    [CONFIG_GRANT_BROWSER] = "browser",
    [CONFIG_GRANT_JWT] = "jwt",
};

const char *config_grant_name(enum config_grant grant)
{
    return grant_names[grant];
}

/* ---- mechanisms ------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    uint32_t bit;
} mechanisms[] = {
    {"XOAUTH2", CONFIG_MECHANISM_XOAUTH2},
    {"OAUTHBEARER", CONFIG_MECHANISM_OAUTHBEARER},
    {"SCRAM-SHA-256", CONFIG_MECHANISM_SCRAM_SHA_256},
    {"SCRAM-SHA-1", CONFIG_MECHANISM_SCRAM_SHA_1},
    {"PLAIN", CONFIG_MECHANISM_PLAIN}, /* fewer round trips than LOGIN */
    {"LOGIN", CONFIG_MECHANISM_LOGIN},
};

void config_mechanisms(const struct config_mailbox *mb, enum config_auth auth,
                       char out[CONFIG_MECHANISMS_MAX])
{
    size_t len = 0;

    out[0] = '\0';
    for (size_t i = 0; i < COUNT(mechanisms); i++) {
        bool token = (mechanisms[i].bit & CONFIG_MECHANISMS_TOKEN) != 0;

        if ((mb->mechanisms & mechanisms[i].bit) != 0 && token == (auth == CONFIG_AUTH_OAUTH2))
            len += (size_t)snprintf(out + len, CONFIG_MECHANISMS_MAX - len, "%s%s",
                                    len > 0 ? " " : "", mechanisms[i].name);
    }
}

bool config_wants_scram(const struct config *c)
{
    for (size_t i = 0; i < c->mailbox_count; i++)
        if ((c->mailboxes[i].mechanisms & CONFIG_MECHANISMS_SCRAM) != 0)
            return true;
    return false;
}

/* ---- one mailbox ----------------------------------------------------------------------------- */

struct signin {
    struct config_builder *b;
    const struct config_target *t;
    struct config_mailbox *mb;
};

static bool is_given(const struct signin *s, const char *key)
{
    return config_build_value(s->t->section, key) != NULL;
}

static unsigned line_of(const struct signin *s, const char *key)
{
    return config_build_line(s->t->section, key);
}

/* Keys of which one alone means that OAuth is wanted. */
static const char *const oauth_keys[] = {
    "client_id", "tenant", "client_secret_file", "certificate_file", "service_account_file",
    "grant",     "sign_in"};

static const char *first_oauth_key(const struct signin *s)
{
    for (size_t i = 0; i < COUNT(oauth_keys); i++)
        if (is_given(s, oauth_keys[i]))
            return oauth_keys[i];
    return NULL;
}

static const struct config_provider *provider_of(const struct signin *s)
{
    return config_find_provider(s->b->c, s->mb->provider);
}

static void infer_auth(const struct signin *s)
{
    const struct config_provider *p = provider_of(s);

    if (is_given(s, "auth"))
        return;
    if (first_oauth_key(s) != NULL)
        s->mb->auth = CONFIG_AUTH_OAUTH2;
    else
        s->mb->auth = p != NULL ? p->auth : CONFIG_AUTH_PASSWORD;
}

/* As against words that were not understood, which is reported already. */
static bool is_blank_list(const char *value)
{
    return value != NULL && value[strspn(value, ", \t")] == '\0';
}

static void check_auth(const struct signin *s)
{
    uint32_t auth = s->mb->auth;
    char names[CONFIG_MECHANISMS_MAX];

    if ((auth & CONFIG_AUTH_NONE) != 0 && auth != CONFIG_AUTH_NONE)
        config_mistakes_add(&s->b->m, line_of(s, "auth"),
                            "auth = none stands alone; take it out, or the others");
    if (is_blank_list(config_build_value(s->t->section, "auth")))
        config_mistakes_add(&s->b->m, line_of(s, "auth"),
                            "auth has no value; write oauth2, password or none");
    for (uint32_t bit = CONFIG_AUTH_OAUTH2; bit <= CONFIG_AUTH_PASSWORD; bit <<= 1) {
        config_mechanisms(s->mb, bit, names);
        if ((auth & bit) == 0 || names[0] != '\0' || provider_of(s) == NULL)
            continue;
        config_mistakes_add(
            &s->b->m, line_of(s, is_given(s, "mechanisms") ? "mechanisms" : "auth"),
            "[mailbox %s] signs in with %s, but none of its mechanisms can do that; add one of: %s",
            s->mb->name, bit == CONFIG_AUTH_OAUTH2 ? "OAuth" : "a password",
            bit == CONFIG_AUTH_OAUTH2 ? "XOAUTH2 OAUTHBEARER"
                                      : "LOGIN PLAIN SCRAM-SHA-256 SCRAM-SHA-1");
    }
}

static bool has_client_proof(const struct config_mailbox *mb)
{
    return *mb->client_secret_file != '\0' || *mb->certificate_file != '\0';
}

/* Without the key: what the other keys suggest. */
static enum config_grant infer_grant(const struct signin *s)
{
    const struct config_provider *p = provider_of(s);

    if (is_given(s, "grant"))
        return s->mb->grant;
    if (*s->mb->service_account_file != '\0')
        return CONFIG_GRANT_JWT;
    if (has_client_proof(s->mb) && p != NULL &&
        (*p->app_scope != '\0' || *p->user_scope == '\0' || is_given(s, "scope")))
        return CONFIG_GRANT_CLIENT_CREDENTIALS;
    return *s->mb->device_url != '\0' ? CONFIG_GRANT_DEVICE : CONFIG_GRANT_BROWSER;
}

static void infer_scope(const struct signin *s)
{
    const struct config_provider *p = provider_of(s);
    bool app = s->mb->grant == CONFIG_GRANT_CLIENT_CREDENTIALS;

    if (!is_given(s, "scope") && p != NULL)
        config_build_text(s->b, &s->mb->scope,
                          app && *p->app_scope != '\0' ? p->app_scope : p->user_scope);
}

static void need(const struct signin *s, const char *key, const char *what)
{
    config_mistakes_add(&s->b->m, s->t->section->line,
                        "[mailbox %s] signs in with OAuth and needs %s; write %s", s->mb->name, key,
                        what);
}

static void check_client(const struct signin *s)
{
    const struct config_mailbox *mb = s->mb;

    if (mb->grant == CONFIG_GRANT_JWT) {
        if (*mb->service_account_file == '\0')
            need(s, "service_account_file",
                 "service_account_file = with the JSON key of the service account");
        return;
    }
    if (*mb->client_id == '\0')
        need(s, "client_id",
             "client_id = with the application (client) ID from the overview of the app "
             "registration, or sign_in = with the name of a mailbox that has it");
    if (mb->grant == CONFIG_GRANT_CLIENT_CREDENTIALS && !has_client_proof(mb))
        need(s, "the application's secret or certificate",
             "client_secret_file = or certificate_file = with its file");
    if (*mb->client_secret_file != '\0' && *mb->certificate_file != '\0')
        config_mistakes_add(
            &s->b->m, line_of(s, "client_secret_file"),
            "client_secret_file and certificate_file are two ways to prove the same; "
            "take one of them out");
    if (*mb->private_key_file != '\0' && *mb->certificate_file == '\0')
        config_mistakes_add(&s->b->m, line_of(s, "private_key_file"),
                            "private_key_file needs certificate_file");
}

static bool is_tenant(const char *text)
{
    return text[0] != '.' && text[0] != '-' &&
           text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.")] ==
               '\0';
}

static bool is_shared_tenant(const char *text)
{
    return strcasecmp(text, "common") == 0 || strcasecmp(text, "organizations") == 0 ||
           strcasecmp(text, "consumers") == 0;
}

static void check_tenant(const struct signin *s)
{
    const struct config_mailbox *mb = s->mb;

    if (*mb->tenant == '\0') {
        if (strstr(mb->token_url, TENANT) != NULL)
            need(s, "tenant",
                 "tenant = with the organisation's directory (tenant) ID or one of its domains, "
                 "such as example.onmicrosoft.com");
        return;
    }
    if (!is_tenant(mb->tenant))
        config_mistakes_add(&s->b->m, line_of(s, "tenant"),
                            "tenant = %.64s: this is neither an ID nor a domain; write one such as "
                            "example.onmicrosoft.com",
                            mb->tenant);
    if (mb->grant == CONFIG_GRANT_CLIENT_CREDENTIALS && is_shared_tenant(mb->tenant))
        config_mistakes_add(
            &s->b->m, line_of(s, "tenant"),
            "tenant = %.64s: an application signs in to one organisation; write its "
            "directory (tenant) ID or one of its domains",
            mb->tenant);
}

static void check_urls(const struct signin *s)
{
    const struct config_mailbox *mb = s->mb;

    if (*mb->token_url == '\0')
        need(s, "token_url",
             "token_url = with the address of its token endpoint, because its provider has none");
    if (mb->grant == CONFIG_GRANT_DEVICE && *mb->device_url == '\0')
        need(s, "device_url",
             "device_url = with the endpoint for device codes, or grant = browser");
    if (mb->grant == CONFIG_GRANT_BROWSER && *mb->authorize_url == '\0')
        need(s, "authorize_url",
             "authorize_url = with the page where a person signs in, or grant = device");
}

/* Puts the tenant where an address says {tenant}. */
static void fill_tenant(const struct signin *s, char **url)
{
    const char *at = strstr(*url, TENANT);
    struct bytes text;

    if (at == NULL)
        return;
    bytes_init(&text, URL_MAX);
    bytes_append(&text, *url, (size_t)(at - *url));
    bytes_text(&text, s->mb->tenant);
    bytes_text(&text, at + strlen(TENANT));
    if (text.failed)
        config_build_no_memory(s->b);
    else
        config_build_text(s->b, url, bytes_string(&text));
    bytes_done(&text);
}

static void check_own_oauth(const struct signin *s)
{
    struct config_mailbox *mb = s->mb;

    mb->grant = infer_grant(s);
    infer_scope(s);
    check_client(s);
    check_tenant(s);
    check_urls(s);
    fill_tenant(s, &mb->token_url);
    fill_tenant(s, &mb->device_url);
    fill_tenant(s, &mb->authorize_url);
    config_build_text(s->b, &mb->sign_in, mb->name);
    mb->has_oauth = true;
}

/* ---- sign_in = NAME -------------------------------------------------------------------------- */

static const char *const own_keys[] = {"client_id",
                                       "tenant",
                                       "client_secret_file",
                                       "certificate_file",
                                       "private_key_file",
                                       "key_password_file",
                                       "service_account_file",
                                       "grant",
                                       "token_url",
                                       "device_url",
                                       "authorize_url",
                                       "scope",
                                       "secret_expires"};

static bool check_no_own_keys(const struct signin *s)
{
    bool ok = true;

    for (size_t i = 0; i < COUNT(own_keys); i++)
        if (is_given(s, own_keys[i])) {
            config_mistakes_add(
                &s->b->m, line_of(s, own_keys[i]),
                "%s is taken from [mailbox %.64s], which sign_in names; take one of "
                "the two out",
                own_keys[i], s->mb->sign_in);
            ok = false;
        }
    return ok;
}

static const struct config_mailbox *find_owner(const struct signin *s)
{
    const struct config *c = s->b->c;
    const char *nearest = NULL;

    for (size_t i = 0; i < c->mailbox_count; i++) {
        const char *word = c->mailboxes[i].name;

        if (strcmp(word, s->mb->sign_in) == 0)
            return &c->mailboxes[i];
        if (nearest == NULL)
            nearest = config_mistakes_nearest(s->mb->sign_in, &word, 1);
    }
    config_mistakes_add(&s->b->m, line_of(s, "sign_in"), "there is no [mailbox %.64s]%s%s%s",
                        s->mb->sign_in, nearest != NULL ? "; did you mean " : "; add that section",
                        nearest != NULL ? nearest : "", nearest != NULL ? "?" : "");
    return NULL;
}

static void copy_oauth(const struct signin *s, const struct config_mailbox *from)
{
    struct config_mailbox *to = s->mb;
    const struct {
        char **to;
        const char *from;
    } texts[] = {
        {&to->tenant, from->tenant},
        {&to->client_id, from->client_id},
        {&to->client_secret_file, from->client_secret_file},
        {&to->certificate_file, from->certificate_file},
        {&to->private_key_file, from->private_key_file},
        {&to->key_password_file, from->key_password_file},
        {&to->service_account_file, from->service_account_file},
        {&to->token_url, from->token_url},
        {&to->device_url, from->device_url},
        {&to->authorize_url, from->authorize_url},
        {&to->scope, from->scope},
        {&to->token_ca_file, from->token_ca_file},
    };

    for (size_t i = 0; i < COUNT(texts); i++)
        config_build_text(s->b, texts[i].to, texts[i].from);
    to->grant = from->grant;
    to->signature = from->signature;
    to->secret_expires_ms = from->secret_expires_ms;
    to->has_oauth = true;
}

static void share_oauth(const struct signin *s)
{
    const struct config_mailbox *owner = find_owner(s);

    if (!check_no_own_keys(s) || owner == NULL)
        return;
    if (!owner->has_oauth || strcmp(owner->sign_in, owner->name) != 0) {
        config_mistakes_add(
            &s->b->m, line_of(s, "sign_in"),
            "sign_in = %.64s: [mailbox %.64s] has no OAuth sign-in of its own; name "
            "one that has client_id",
            s->mb->sign_in, owner->name);
        return;
    }
    copy_oauth(s, owner);
    if (s->mb->grant == CONFIG_GRANT_JWT) /* each mailbox is signed for by itself */
        config_build_text(s->b, &s->mb->sign_in, s->mb->name);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static bool is_set_up(const struct signin *s)
{
    return s->mb->auth != (CONFIG_AUTH_OAUTH2 | CONFIG_AUTH_PASSWORD) || first_oauth_key(s) != NULL;
}

static void check_own(const struct signin *s)
{
    infer_auth(s);
    check_auth(s);
    if ((s->mb->auth & CONFIG_AUTH_OAUTH2) != 0 && !is_given(s, "sign_in") && is_set_up(s))
        check_own_oauth(s);
}

static void check_shared(const struct signin *s)
{
    if ((s->mb->auth & CONFIG_AUTH_OAUTH2) != 0 && is_given(s, "sign_in"))
        share_oauth(s);
}

static void each(struct config_builder *b, void (*check)(const struct signin *s))
{
    for (size_t i = 0; i < b->doc.count && !b->no_memory; i++) {
        const struct signin s = {b, &b->targets[i], b->targets[i].fields};

        if (config_build_is(s.t, "mailbox"))
            check(&s);
    }
}

void config_signin_check(struct config_builder *b)
{
    each(b, check_own);
    each(b, check_shared);
}
