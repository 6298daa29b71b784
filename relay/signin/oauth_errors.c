#include "relay/signin/oauth_errors.h"

#include <stdio.h>
#include <string.h>

#define NUMBERS_MAX       8
#define LOOP_WAIT_S       300
#define TOO_MANY_REQUESTS 429

#define NOBODY         "nobody needs to"
#define RELAY_OPERATOR "whoever looks after this relay"
#define TENANT_ADMIN   "the administrator of the Microsoft tenant"
#define CLOUD_ADMIN    "the administrator of the mail service"
#define MAILBOX_USER   "the person the mailbox signs in as"
#define MICROSOFT      "Microsoft"
#define MAIL_SERVICE   "the provider of the mail service"

#define ANYHOW  (OAUTH_AS_APP | OAUTH_AS_USER | OAUTH_AS_SERVICE | OAUTH_AS_LOGIN)
#define BY_USER (OAUTH_AS_USER | OAUTH_AS_LOGIN)

#define SIGN_IN_AGAIN "Run: outtray login MAILBOX (or outtray login --browser MAILBOX)."
#define NEW_SECRET                                                                                 \
    "Entra admin centre > App registrations > the app > Certificates & secrets > New client "      \
    "secret; write its Value (not its Secret ID) to the mailbox's secret file."

/* Numbers of Microsoft's, with the errors they usually come with. */
static const struct number_row {
    uint32_t numbers[NUMBERS_MAX];
    const char *errors; /* between spaces */
    struct oauth_advice advice;
} number_rows[] = {
    {{7000215, 70002},
     " invalid_client ",
     {.name = "wrong_secret",
      .action = OAUTH_PAUSE,
      .what = "The client secret is wrong.",
      .who = RELAY_OPERATOR,
      .how = "The Value of the secret is needed, not its Secret ID. It is shown only once; make a "
             "new one if it is lost: " NEW_SECRET}},
    {{7000222},
     " invalid_client ",
     {.name = "secret_expired",
      .action = OAUTH_PAUSE,
      .what = "The client secret has expired.",
      .who = RELAY_OPERATOR,
      .how = NEW_SECRET}},
    {{700027, 50012, 50013, 500133, 700024},
     " invalid_client ",
     {.name = "wrong_certificate",
      .action = OAUTH_PAUSE,
      .what = "The certificate or its signature is not accepted, or this machine's clock is wrong.",
      .who = RELAY_OPERATOR,
      .how = "Upload the certificate that the mailbox names: Entra admin centre > App "
             "registrations > the app > Certificates & secrets > Certificates; check the clock "
             "with: timedatectl"}},
    {{7000218},
     " invalid_client invalid_request ",
     {.name = "secret_missing",
      .action = OAUTH_PAUSE,
      .what = "The app is asked for a secret or certificate, and none was sent.",
      .who = RELAY_OPERATOR,
      .how = "Give the mailbox a client secret or a certificate; for a sign-in by a person instead "
             "switch on: Entra admin centre > App registrations > the app > Authentication > Allow "
             "public client flows."}},
    {{700025},
     " invalid_client ",
     {.name = "secret_not_wanted",
      .action = OAUTH_PAUSE,
      .what = "The app is a public client, which must not send a secret or certificate.",
      .who = RELAY_OPERATOR,
      .how = "Take the client secret out of the mailbox's section, or use an app registration that "
             "is a confidential client."}},
    {{700016, 700011},
     " unauthorized_client invalid_client ",
     {.name = "app_not_found",
      .action = OAUTH_PAUSE,
      .what = "The application is not known in this tenant.",
      .who = RELAY_OPERATOR,
      .how = "Compare the mailbox's client id and tenant with: Entra admin centre > App "
             "registrations > the app > Overview (Application (client) ID, Directory (tenant) "
             "ID)."}},
    {{7000112, 70001},
     " unauthorized_client invalid_client ",
     {.name = "app_disabled",
      .action = OAUTH_PAUSE,
      .what = "The application is disabled.",
      .who = TENANT_ADMIN,
      .how = "Enable it: Entra admin centre > Enterprise applications > the app > Properties > "
             "Enabled for users to sign in."}},
    {{90002},
     " invalid_request invalid_tenant ",
     {.name = "tenant_not_found",
      .action = OAUTH_PAUSE,
      .what = "There is no such tenant.",
      .who = RELAY_OPERATOR,
      .how =
          "Write the Directory (tenant) ID from the app's Overview page as the mailbox's tenant; "
          "a tenant of a national cloud also needs that cloud's provider."}},
    {{90038, 900382},
     " invalid_request ",
     {.name = "wrong_cloud",
      .action = OAUTH_PAUSE,
      .what = "The tenant belongs to another of Microsoft's clouds.",
      .who = RELAY_OPERATOR,
      .how = "Choose the mailbox's provider for that cloud (worldwide and GCC, GCC High, DoD, "
             "21Vianet)."}},
    {{50194, 9001023},
     " invalid_request ",
     {.name = "tenant_needed",
      .action = OAUTH_PAUSE,
      .what = "The app belongs to one tenant, which must be named instead of \"common\".",
      .who = RELAY_OPERATOR,
      .how = "Write the Directory (tenant) ID from the app's Overview page as the mailbox's "
             "tenant."}},
    {{65001, 90094, 650056},
     " invalid_grant consent_required interaction_required ",
     {.name = "consent_missing",
      .action = OAUTH_PAUSE,
      .what = "Nobody has consented to the app's permission to send mail.",
      .who = TENANT_ADMIN,
      .how = "Entra admin centre > App registrations > the app > API permissions: add the "
             "permission (SMTP.SendAsApp of Office 365 Exchange Online for an app, SMTP.Send for a "
             "person), then Grant admin consent."}},
    {{65004},
     " invalid_grant access_denied consent_required ",
     {.name = "consent_declined",
      .action = OAUTH_PAUSE,
      .what = "The person who signed in declined to consent to the app.",
      .who = MAILBOX_USER,
      .how = "Sign in again and accept, or let an administrator consent for all: " SIGN_IN_AGAIN}},
    {{500011, 650057, 70011, 28002, 700022, 28000},
     " invalid_resource invalid_scope invalid_request invalid_client ",
     {.name = "wrong_scope",
      .action = OAUTH_PAUSE,
      .what = "The scope is not one that this cloud or app knows, or names two resources.",
      .who = RELAY_OPERATOR,
      .how = "Leave the mailbox's scope out, so that the provider's is used: "
             "https://outlook.office365.com/.default for an app, "
             "https://outlook.office.com/SMTP.Send offline_access for a person; and check the "
             "app's API permissions."}},
    {{50034, 50020, 51004},
     " invalid_grant interaction_required ",
     {.name = "no_such_user",
      .action = OAUTH_PAUSE,
      .what = "There is no such user in this tenant.",
      .who = RELAY_OPERATOR,
      .how = "Check the mailbox's login and tenant; then " SIGN_IN_AGAIN}},
    {{50126},
     " invalid_grant ",
     {.name = "bad_password",
      .action = OAUTH_HALT,
      .what = "The user name or password is wrong.",
      .who = MAILBOX_USER,
      .how = SIGN_IN_AGAIN}},
    {{50055},
     " invalid_grant ",
     {.name = "password_expired",
      .action = OAUTH_HALT,
      .what = "The password of the account has expired.",
      .who = MAILBOX_USER,
      .how = "Set a new one at https://mysignins.microsoft.com, then: " SIGN_IN_AGAIN}},
    {{50057},
     " invalid_grant ",
     {.name = "account_disabled",
      .action = OAUTH_HALT,
      .what = "The account is disabled.",
      .who = TENANT_ADMIN,
      .how = "Enable it: Entra admin centre > Users > the user > Account status; then: outtray "
             "resume MAILBOX"}},
    {{50053},
     " invalid_grant ",
     {.name = "account_locked",
      .action = OAUTH_HALT,
      .what = "The account is locked after too many wrong sign-ins, or our address is seen as a "
              "risk.",
      .who = TENANT_ADMIN,
      .how = "Entra admin centre > Users > the user > Sign-in logs says which; then: outtray "
             "resume MAILBOX"}},
    {{50076, 50079, 50072, 50074, 50158},
     " interaction_required invalid_grant ",
     {.name = "mfa_needed",
      .action = OAUTH_LOGIN,
      .what = "A second factor is asked for, so a person has to sign in again.",
      .who = MAILBOX_USER,
      .how = SIGN_IN_AGAIN}},
    {{53003, 53000, 530032, 530035},
     " access_denied invalid_grant interaction_required ",
     {.name = "access_policy",
      .action = OAUTH_PAUSE,
      .what = "Conditional Access or Security Defaults forbid this sign-in.",
      .who = TENANT_ADMIN,
      .how = "Entra admin centre > Sign-in logs > the entry > Conditional Access names the policy. "
             "Many tenants block the device code: use outtray login --browser MAILBOX, or sign in "
             "as an app with a certificate."}},
    {{70008, 700082, 50173, 70043, 70000},
     " invalid_grant interaction_required ",
     {.name = "login_over",
      .action = OAUTH_LOGIN,
      .what = "The sign-in has ended: it was unused for 90 days, the password was changed, it was "
              "revoked, or a policy asks for a new one.",
      .who = MAILBOX_USER,
      .how = SIGN_IN_AGAIN}},
    {{54005, 501481, 700005},
     " invalid_grant ",
     {.name = "login_code_refused",
      .action = OAUTH_LOGIN,
      .what = "The code from the sign-in page was used before, or belongs to another sign-in.",
      .who = MAILBOX_USER,
      .how = "Begin again. " SIGN_IN_AGAIN}},
    {{70016},
     " authorization_pending ",
     {.name = "login_pending",
      .action = OAUTH_PENDING,
      .what = "Nobody has entered the code yet.",
      .who = MAILBOX_USER,
      .how = "Open the page that outtray login shows, and enter the code."}},
    {{70018, 70019, 90120},
     " bad_verification_code expired_token code_expired invalid_grant ",
     {.name = "login_too_late",
      .action = OAUTH_LOGIN,
      .what = "The code was not entered in time, or is not valid any more.",
      .who = MAILBOX_USER,
      .how = "Begin again. " SIGN_IN_AGAIN}},
    {{50196},
     " invalid_grant invalid_client invalid_request temporarily_unavailable ",
     {.name = "too_many_requests",
      .action = OAUTH_RETRY,
      .wait_s = LOOP_WAIT_S,
      .what = "The service saw the same request too often and refuses it for some minutes.",
      .who = RELAY_OPERATOR,
      .how = "If it goes on: other programs use the same app and must keep their tokens, or get "
             "app registrations of their own."}},
    {{90033, 90006, 50033, 90024, 90012, 90055},
     " temporarily_unavailable server_error invalid_request ",
     {.name = "service_trouble",
      .action = OAUTH_RETRY,
      .what = "Microsoft's sign-in service has a passing problem.",
      .who = MICROSOFT,
      .how = "It is tried again by itself; see https://status.cloud.microsoft if it lasts."}},
};

/* What the standard and other services say, by how we asked; the first that fits. */
static const struct error_row {
    const char *error;
    unsigned asked; /* set of enum oauth_asked */
    struct oauth_advice advice;
} error_rows[] = {
    {"authorization_pending",
     OAUTH_AS_LOGIN,
     {.name = "login_pending",
      .action = OAUTH_PENDING,
      .what = "Nobody has entered the code yet.",
      .who = MAILBOX_USER,
      .how = "Open the page that outtray login shows, and enter the code."}},
    {"slow_down",
     OAUTH_AS_LOGIN,
     {.name = "login_pending",
      .action = OAUTH_SLOW_DOWN,
      .what = "Nobody has entered the code yet.",
      .who = MAILBOX_USER,
      .how = "Open the page that outtray login shows, and enter the code."}},
    {"expired_token",
     ANYHOW,
     {.name = "login_too_late",
      .action = OAUTH_LOGIN,
      .what = "The code was not entered in time.",
      .who = MAILBOX_USER,
      .how = "Begin again. " SIGN_IN_AGAIN}},
    {"bad_verification_code",
     ANYHOW,
     {.name = "login_too_late",
      .action = OAUTH_LOGIN,
      .what = "The code is not valid any more.",
      .who = MAILBOX_USER,
      .how = "Begin again. " SIGN_IN_AGAIN}},
    {"authorization_declined",
     ANYHOW,
     {.name = "login_declined",
      .action = OAUTH_LOGIN,
      .what = "The sign-in was declined on the page.",
      .who = MAILBOX_USER,
      .how = "Begin again, and accept. " SIGN_IN_AGAIN}},
    {"access_denied",
     OAUTH_AS_LOGIN,
     {.name = "login_declined",
      .action = OAUTH_LOGIN,
      .what = "The sign-in was declined on the page, or a policy forbids it.",
      .who = MAILBOX_USER,
      .how =
          "Begin again, and accept; if that does not help, ask an administrator. " SIGN_IN_AGAIN}},
    {"access_denied",
     ANYHOW,
     {.name = "access_policy",
      .action = OAUTH_PAUSE,
      .what = "A policy of the organisation forbids this sign-in.",
      .who = CLOUD_ADMIN,
      .how = "Let the app through, or use another kind of sign-in."}},
    {"invalid_client",
     OAUTH_AS_APP,
     {.name = "client_refused",
      .action = OAUTH_PAUSE,
      .what = "The client id and its secret or certificate are not accepted.",
      .who = RELAY_OPERATOR,
      .how = "Check the mailbox's client id and secret or certificate, and this machine's clock "
             "(timedatectl)."}},
    {"invalid_client",
     ANYHOW,
     {.name = "client_refused",
      .action = OAUTH_PAUSE,
      .what = "The client id, or its secret, is not accepted.",
      .who = RELAY_OPERATOR,
      .how = "Check the mailbox's client id and, if it has one, its secret."}},
    {"unauthorized_client",
     OAUTH_AS_SERVICE,
     {.name = "delegation_missing",
      .action = OAUTH_PAUSE,
      .what = "The service account may not act for this mailbox with this scope.",
      .who = CLOUD_ADMIN,
      .how = "Google Admin console > Security > API controls > Domain-wide delegation: add the "
             "service account's client ID with the scope https://mail.google.com/"}},
    {"unauthorized_client",
     ANYHOW,
     {.name = "app_not_allowed",
      .action = OAUTH_PAUSE,
      .what = "The application may not sign in this way, is disabled, or is not known there.",
      .who = CLOUD_ADMIN,
      .how = "Check the mailbox's client id and tenant, and what the app registration allows."}},
    {"invalid_grant",
     OAUTH_AS_SERVICE,
     {.name = "service_account_refused",
      .action = OAUTH_PAUSE,
      .what = "The service account's request is refused: the account or the mailbox does not "
              "exist, its key was deleted, or this machine's clock is wrong.",
      .who = RELAY_OPERATOR,
      .how = "Check the key file, the mailbox's address, and the clock with: timedatectl"}},
    {"invalid_grant",
     OAUTH_AS_APP,
     {.name = "app_refused",
      .action = OAUTH_PAUSE,
      .what = "The application's sign-in is refused.",
      .who = CLOUD_ADMIN,
      .how = "Check that the app is allowed to send mail and that an administrator has "
             "consented."}},
    {"invalid_grant",
     BY_USER,
     {.name = "login_over",
      .action = OAUTH_LOGIN,
      .what = "The sign-in has ended: it expired, was revoked, or the password was changed.",
      .who = MAILBOX_USER,
      .how = SIGN_IN_AGAIN " Google ends it after seven days while the app is in \"Testing\"."}},
    {"interaction_required",
     ANYHOW,
     {.name = "mfa_needed",
      .action = OAUTH_LOGIN,
      .what = "A person has to sign in again.",
      .who = MAILBOX_USER,
      .how = SIGN_IN_AGAIN}},
    {"login_required",
     ANYHOW,
     {.name = "login_over",
      .action = OAUTH_LOGIN,
      .what = "A person has to sign in again.",
      .who = MAILBOX_USER,
      .how = SIGN_IN_AGAIN}},
    {"invalid_rapt",
     ANYHOW,
     {.name = "login_over",
      .action = OAUTH_LOGIN,
      .what = "Google asks the person to sign in again.",
      .who = MAILBOX_USER,
      .how = SIGN_IN_AGAIN}},
    {"consent_required",
     ANYHOW,
     {.name = "consent_missing",
      .action = OAUTH_PAUSE,
      .what = "Nobody has consented to the app's permission to send mail.",
      .who = CLOUD_ADMIN,
      .how = "Grant the app that permission; then: outtray resume MAILBOX"}},
    {"admin_policy_enforced",
     ANYHOW,
     {.name = "access_policy",
      .action = OAUTH_PAUSE,
      .what = "A policy of the organisation does not let this app send mail.",
      .who = CLOUD_ADMIN,
      .how =
          "Google Admin console > Security > API controls > App access control: trust the app."}},
    {"invalid_scope",
     ANYHOW,
     {.name = "wrong_scope",
      .action = OAUTH_PAUSE,
      .what = "The scope is not known there, or not allowed for this app.",
      .who = RELAY_OPERATOR,
      .how = "Leave the mailbox's scope out, so that the provider's is used, and check what the "
             "app may do."}},
    {"invalid_resource",
     ANYHOW,
     {.name = "wrong_scope",
      .action = OAUTH_PAUSE,
      .what = "The scope names a resource that is not known there.",
      .who = RELAY_OPERATOR,
      .how =
          "Leave the mailbox's scope out, so that the provider's is used, and check the tenant."}},
    {"invalid_target",
     ANYHOW,
     {.name = "wrong_scope",
      .action = OAUTH_PAUSE,
      .what = "The scope names a resource that is not known there.",
      .who = RELAY_OPERATOR,
      .how = "Leave the mailbox's scope out, so that the provider's is used."}},
    {"unsupported_grant_type",
     ANYHOW,
     {.name = "grant_unsupported",
      .action = OAUTH_PAUSE,
      .what = "The service does not know this kind of sign-in.",
      .who = RELAY_OPERATOR,
      .how = "Check the mailbox's token URL, or choose another kind of sign-in."}},
    {"invalid_request",
     ANYHOW,
     {.name = "request_refused",
      .action = OAUTH_PAUSE,
      .what = "The service finds the request wrong.",
      .who = RELAY_OPERATOR,
      .how = "Check the mailbox's tenant, client id, token URL and scope."}},
    {"deleted_client",
     ANYHOW,
     {.name = "app_not_found",
      .action = OAUTH_PAUSE,
      .what = "The application has been deleted.",
      .who = RELAY_OPERATOR,
      .how = "Register it again, and write its new client id to the mailbox's section."}},
    {"disabled_client",
     ANYHOW,
     {.name = "app_disabled",
      .action = OAUTH_PAUSE,
      .what = "The application is disabled.",
      .who = CLOUD_ADMIN,
      .how = "Enable it; then: outtray resume MAILBOX"}},
    {"temporarily_unavailable",
     ANYHOW,
     {.name = "service_trouble",
      .action = OAUTH_RETRY,
      .what = "The sign-in service is busy or being repaired.",
      .who = NOBODY,
      .how = "It is tried again by itself."}},
    {"server_error",
     ANYHOW,
     {.name = "service_trouble",
      .action = OAUTH_RETRY,
      .what = "The sign-in service has a passing problem.",
      .who = NOBODY,
      .how = "It is tried again by itself."}},
    {"internal_failure",
     ANYHOW,
     {.name = "service_trouble",
      .action = OAUTH_RETRY,
      .what = "The sign-in service has a passing problem.",
      .who = NOBODY,
      .how = "It is tried again by itself."}},
    {"slow_down",
     ANYHOW,
     {.name = "too_many_requests",
      .action = OAUTH_RETRY,
      .what = "The service is asked too often.",
      .who = NOBODY,
      .how = "It is tried again by itself, later."}},
    {"rate_limit_exceeded",
     ANYHOW,
     {.name = "too_many_requests",
      .action = OAUTH_RETRY,
      .what = "The service is asked too often.",
      .who = NOBODY,
      .how = "It is tried again by itself, later."}},
};

static const struct oauth_advice too_many = {
    .name = "too_many_requests",
    .action = OAUTH_RETRY,
    .what = "The service is asked too often (HTTP 429).",
    .who = NOBODY,
    .how = "It is tried again by itself, when the service allows it.",
};

static const struct oauth_advice service_trouble = {
    .name = "service_trouble",
    .action = OAUTH_RETRY,
    .what = "The sign-in service has a passing problem (HTTP 5xx).",
    .who = MAIL_SERVICE,
    .how = "It is tried again by itself; see the service's status page if it lasts.",
};

static const struct oauth_advice redirected = {
    .name = "redirected",
    .action = OAUTH_RETRY,
    .what = "The token URL answers with a redirect, which is not followed.",
    .who = RELAY_OPERATOR,
    .how = "Check the mailbox's token URL, and whether a proxy or a captive portal is in between.",
};

static const struct oauth_advice no_answer = {
    .name = "not_oauth",
    .action = OAUTH_RETRY,
    .what = "What came back is no answer of a token service.",
    .who = RELAY_OPERATOR,
    .how = "Check the mailbox's token URL, and whether a proxy or a captive portal is in between.",
};

static const struct oauth_advice unknown = {
    .name = "refused",
    .action = OAUTH_PAUSE,
    .what = "The sign-in is refused for a reason that we have no words for.",
    .who = CLOUD_ADMIN,
    .how = "See what the service said; then: outtray resume MAILBOX",
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct number_row *find_number(uint32_t aadsts)
{
    for (size_t i = 0; aadsts != 0 && i < COUNT(number_rows); i++)
        for (size_t k = 0; k < NUMBERS_MAX; k++)
            if (number_rows[i].numbers[k] == aadsts)
                return &number_rows[i];
    return NULL;
}

static const struct oauth_advice *find_error(const struct oauth_refusal *r)
{
    for (size_t i = 0; i < COUNT(error_rows); i++)
        if (strcmp(error_rows[i].error, r->error) == 0 && (error_rows[i].asked & r->asked) != 0)
            return &error_rows[i].advice;
    return &unknown;
}

static bool comes_with(const struct number_row *row, const char *error)
{
    const char *at = strstr(row->errors, error);

    return at != NULL && at > row->errors && at[-1] == ' ' && at[strlen(error)] == ' ';
}

/* NULL when the status leaves it to what the answer says. */
static const struct oauth_advice *by_status(const struct oauth_refusal *r)
{
    if (r->status == TOO_MANY_REQUESTS)
        return &too_many;
    if (r->status >= 500)
        return &service_trouble;
    if (r->error[0] != '\0')
        return NULL;
    return r->status >= 300 && r->status < 400 ? &redirected : &no_answer;
}

void oauth_errors_explain(const struct oauth_refusal *refusal, struct oauth_advice *out)
{
    const struct number_row *row = find_number(refusal->aadsts);
    const struct oauth_advice *status = by_status(refusal);
    const struct oauth_advice *error;

    if (status != NULL) {
        *out = row != NULL && row->advice.action == OAUTH_RETRY ? row->advice : *status;
        return;
    }
    error = find_error(refusal);
    *out = row != NULL ? row->advice : *error;
    if (row == NULL || comes_with(row, refusal->error))
        return;
    out->action = error->action;
    out->wait_s = error->wait_s;
}

const char *oauth_action_name(enum oauth_action action)
{
    static const char *const names[] = {"retry", "pause", "halt", "login", "pending", "slow_down"};

    _Static_assert(COUNT(names) == OAUTH_ACTIONS, "each has a name");
    return names[action];
}

void oauth_errors_fill(const char *how, const char *mailbox, char *out, size_t size)
{
    static const char place[] = "MAILBOX";
    size_t used = 0;
    const char *at;

    out[0] = '\0';
    while ((at = strstr(how, place)) != NULL && used < size) {
        (void)snprintf(out + used, size - used, "%.*s%s", (int)(at - how), how, mailbox);
        used += strlen(out + used);
        how = at + sizeof(place) - 1;
    }
    if (used < size)
        (void)snprintf(out + used, size - used, "%s", how);
}
