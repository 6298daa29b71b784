#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "relay/submit/verdict.h"
#include "relay/submit/verdict_table.h"

#define MINUTE (60 * 1000ull)
#define HOUR   (60 * MINUTE)

static struct verdict verdict_for(enum client_stage stage, const char *text)
{
    struct reply reply;

    if (!reply_from_text(&reply, text))
        fail_msg("no reply: %s", text);
    return verdict_of(stage, &reply);
}

static struct verdict verdict_locally(enum client_stage stage, enum local_failure failure)
{
    struct reply reply;

    reply_local(&reply, failure, "in a test");
    return verdict_of(stage, &reply);
}

/* Every reply of which it is known that a service gives it, as it gives it. */
static const struct {
    enum client_stage stage;
    const char *text;
    const char *name;
    enum verdict_action action;
    enum verdict_scope scope;
} catalogue[] = {
    {STAGE_BANNER, "421 4.3.2 Service not available", "service_unavailable", VERDICT_BACK,
     SCOPE_UPSTREAM},
    {STAGE_MAIL, "421 4.3.2 Service not active", "service_unavailable", VERDICT_BACK,
     SCOPE_UPSTREAM},
    {STAGE_MAIL, "421 4.4.1 Connection timed out. Total session duration: 00:05:00",
     "session_too_long", VERDICT_SOON, SCOPE_UPSTREAM},
    {STAGE_IDLE, "421 4.4.1 Connection timed out", "session_too_long", VERDICT_SOON,
     SCOPE_UPSTREAM},
    {STAGE_EHLO, "421 4.4.2 Connection dropped due to SocketError", "connection_dropped",
     VERDICT_BACK, SCOPE_NETWORK},
    {STAGE_MAIL,
     "421 4.4.2 Message submission rate for this client has exceeded the configured limit",
     "submission_rate", VERDICT_BACK, SCOPE_MAILBOX},
    {STAGE_EHLO,
     "421 4.7.66 TLS 1.0 and 1.1 are not supported. Please upgrade/update your client to support "
     "TLS 1.2. Visit https://aka.ms/smtp_auth_tls",
     "old_tls", VERDICT_PAUSE, SCOPE_UPSTREAM},
    {STAGE_FINAL_DOT,
     "432 4.3.2 Concurrent connections limit exceeded. Visit "
     "https://aka.ms/concurrent_sending for more information. [Hostname=AB1PR01.example]",
     "too_many_connections", VERDICT_CONC, SCOPE_MAILBOX},
    {STAGE_FINAL_DOT, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
     "too_many_connections", VERDICT_CONC, SCOPE_MAILBOX},
    {STAGE_FINAL_DOT, "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded",
     "recipient_busy", VERDICT_BACK, SCOPE_MESSAGE},
    {STAGE_RCPT, "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", "recipient_busy",
     VERDICT_BACK, SCOPE_RECIPIENT},
    {STAGE_AUTH, "451 4.7.0 Temporary server error. Please try again later. PRX2 [AB1.example]",
     "front_end", VERDICT_BACK, SCOPE_MAILBOX},
    {STAGE_DATA, "451 4.7.0 Temporary server error. Please try again later. PRX5", "front_end",
     VERDICT_BACK, SCOPE_MAILBOX},
    {STAGE_IDLE, "451 4.7.0 Timeout waiting for client input", "idle_timeout", VERDICT_SOON,
     SCOPE_UPSTREAM},
    {STAGE_MAIL, "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77714)",
     "server_busy", VERDICT_BACK, SCOPE_UPSTREAM},
    {STAGE_RCPT, "451 4.7.651 The mail server has been temporarily rate limited", "server_busy",
     VERDICT_BACK, SCOPE_UPSTREAM},
    {STAGE_RCPT, "451 4.7.850 Access denied, please try again later", "server_busy", VERDICT_BACK,
     SCOPE_UPSTREAM},
    {STAGE_MAIL, "452 4.3.1 Insufficient system resources", "no_resources", VERDICT_BACK,
     SCOPE_UPSTREAM},
    {STAGE_DATA, "452 4.3.1 Insufficient system resources", "no_resources", VERDICT_BACK,
     SCOPE_UPSTREAM},
    {STAGE_RCPT, "452 4.5.3 Too many recipients", "too_many_recipients", VERDICT_SOON,
     SCOPE_RECIPIENT},
    {STAGE_RCPT, "550 5.5.3 Too many recipients", "too_many_recipients", VERDICT_SOON,
     SCOPE_RECIPIENT},
    {STAGE_FINAL_DOT, "550 5.5.3 Too many recipients", "too_many_recipients", VERDICT_HOLD,
     SCOPE_MESSAGE},
    {STAGE_AUTH, "454 4.7.0 Temporary authentication failure", "auth_unavailable", VERDICT_BACK,
     SCOPE_UPSTREAM},
    {STAGE_STARTTLS, "454 4.7.0 TLS not available due to temporary reason", "starttls_unavailable",
     VERDICT_BACK, SCOPE_UPSTREAM},
    {STAGE_MAIL, "500 5.3.3 Unrecognized command 'MIAL' [AB1.example]", "unrecognized_command",
     VERDICT_HOLD, SCOPE_MESSAGE},
    {STAGE_EHLO, "500 5.3.3 Unrecognized command 'EHLO' [AB1.example]", "unrecognized_command",
     VERDICT_PAUSE, SCOPE_UPSTREAM},
    {STAGE_RCPT, "501 5.1.3 Invalid address", "bad_recipient_address", VERDICT_RCPT_FAIL,
     SCOPE_RECIPIENT},
    {STAGE_FINAL_DOT, "550 5.1.3 STOREDRV.Submit; invalid recipient address",
     "bad_recipient_address", VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {STAGE_MAIL, "501 5.1.7 Invalid address", "bad_sender_address", VERDICT_HOLD, SCOPE_MESSAGE},
    {STAGE_EHLO, "501 5.5.4 Invalid domain name", "bad_helo_argument", VERDICT_PAUSE,
     SCOPE_UPSTREAM},
    {STAGE_AUTH, "501 5.5.124 Invalid XOAUTH2 auth data", "token_malformed", VERDICT_PAUSE,
     SCOPE_MAILBOX},
    {STAGE_AUTH, "501 5.5.127 Invalid XOAUTH2 auth data - Token will expire soon", "token_expires",
     VERDICT_SOON, SCOPE_MAILBOX},
    {STAGE_AUTH, "502 5.3.3 Command not implemented", "mechanism_unsupported", VERDICT_PAUSE,
     SCOPE_MAILBOX},
    {STAGE_MAIL, "502 5.3.3 Command not implemented", "parameter_unsupported", VERDICT_HOLD,
     SCOPE_MESSAGE},
    {STAGE_MAIL, "503 5.5.1 Bad sequence of commands", "command_order", VERDICT_HOLD,
     SCOPE_MESSAGE},
    {STAGE_MAIL, "503 5.5.2 Send hello first", "command_order", VERDICT_HOLD, SCOPE_MESSAGE},
    {STAGE_AUTH, "503 5.5.2 Send hello first", "command_order", VERDICT_PAUSE, SCOPE_UPSTREAM},
    {STAGE_AUTH, "504 5.7.4 Unrecognized authentication type [AB1.example]",
     "mechanism_not_offered", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_MAIL, "530 5.7.0 Must issue a STARTTLS command first", "starttls_required",
     VERDICT_PAUSE, SCOPE_UPSTREAM},
    {STAGE_AUTH, "530 5.7.0 Must issue a STARTTLS command first", "starttls_required",
     VERDICT_PAUSE, SCOPE_UPSTREAM},
    {STAGE_MAIL, "530 5.7.57 Client not authenticated to send mail.", "not_authenticated",
     VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_MAIL,
     "530 5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL FROM",
     "not_authenticated", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_MAIL,
     "530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication "
     "unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
     "smtp_auth_off_for_tenant", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_MAIL, "530 5.7.1 Client was not authenticated", "not_authenticated", VERDICT_PAUSE,
     SCOPE_MAILBOX},
    {STAGE_AUTH, "530 5.7.57 Client not authenticated to send mail.", "not_authenticated",
     VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_AUTH, "430 4.2.0 STOREDRV; mailbox logon failure [AB1.example]", "mailbox_logon_failed",
     VERDICT_BACK, SCOPE_MAILBOX},
    {STAGE_FINAL_DOT,
     "430 4.2.0 STOREDRV; mailbox logon failure; failed to process message due to a permanent "
     "exception with message [BeginDiagnosticData]Cannot open mailbox. "
     "MapiExceptionLogonFailed: Unable to open message store.",
     "mailbox_logon_failed", VERDICT_BACK, SCOPE_MAILBOX},
    {STAGE_AUTH, "535 5.7.3 Authentication unsuccessful [AB1.example]", "identity_refused",
     VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_AUTH,
     "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the "
     "Tenant. Visit https://aka.ms/smtp_auth_disabled for more information.",
     "smtp_auth_off_for_tenant", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_AUTH,
     "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the "
     "Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information.",
     "smtp_auth_off_for_mailbox", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_AUTH,
     "535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [AB1.example]",
     "basic_auth_disabled", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_AUTH,
     "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect. [AB1]",
     "wrong_password", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_AUTH,
     "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security "
     "defaults policy. Contact your administrator.",
     "security_defaults", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_AUTH,
     "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be "
     "authenticated successfully. Contact your administrator.",
     "conditional_access", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_AUTH, "535 5.7.139 Authentication unsuccessful, account locked. [AB1.example]",
     "account_locked", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_AUTH, "535 5.7.139 Authentication unsuccessful, account has an issue.", "account_locked",
     VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_AUTH, "535 5.7.139 Authentication unsuccessful, federated STS service was unreachable.",
     "federation_unreachable", VERDICT_BACK, SCOPE_MAILBOX},
    {STAGE_AUTH,
     "535 5.7.139 Authentication unsuccessful, the federated STS URL does not support HTTPS.",
     "federation_unreachable", VERDICT_BACK, SCOPE_MAILBOX},
    {STAGE_AUTH, "535 5.7.139 Authentication unsuccessful, something new.", "sign_in_refused",
     VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_AUTH, "535 5.7.8 Username and Password not accepted", "credentials_refused",
     VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_AUTH, "550 5.7.30 Basic authentication is not supported for Client Submission.",
     "basic_auth_retired", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_AUTH, "535 5.7.139 Basic authentication is not supported for Client Submission.",
     "basic_auth_retired", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_MAIL, "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
     "sender_not_permitted", VERDICT_HOLD, SCOPE_MESSAGE},
    {STAGE_FINAL_DOT, "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
     "sender_not_permitted", VERDICT_HOLD, SCOPE_MESSAGE},
    {STAGE_FINAL_DOT,
     "554 5.2.252 SendAsDenied; a@b.example not allowed to send as c@d.example; "
     "STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed",
     "send_as_denied", VERDICT_BACK, SCOPE_MESSAGE},
    {STAGE_FINAL_DOT,
     "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; "
     "Failed to process message",
     "send_as_denied", VERDICT_BACK, SCOPE_MESSAGE},
    {STAGE_FINAL_DOT,
     "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to "
     "process message",
     "recipient_quota", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_FINAL_DOT,
     "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; Failed to process message "
     "due to a permanent exception. Actual verdict is Suspend, ShowTierUpgrade",
     "outbound_spam", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_FINAL_DOT,
     "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException."
     "MapiExceptionShutoffQuotaExceeded",
     "mailbox_full", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_FINAL_DOT, "554 5.2.2 Mailbox full. Visit https://aka.ms/mailboxfull for details",
     "mailbox_full", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_FINAL_DOT, "554 5.6.0 Invalid message content", "bad_content", VERDICT_MSG_FAIL,
     SCOPE_MESSAGE},
    {STAGE_FINAL_DOT, "554 5.3.0 Too many related errors", "bad_content", VERDICT_MSG_FAIL,
     SCOPE_MESSAGE},
    {STAGE_MAIL, "552 5.3.4 Message size exceeds fixed maximum message size", "too_large",
     VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {STAGE_BODY, "552 5.3.4 Message size exceeds fixed maximum message size", "too_large",
     VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {STAGE_MAIL, "552 Message size exceeds maximum permitted", "too_large", VERDICT_MSG_FAIL,
     SCOPE_MESSAGE},
    {STAGE_RCPT, "550 5.2.3 RESOLVER.RST.RecipSizeLimit; message too large for this recipient",
     "recipient_too_small", VERDICT_RCPT_FAIL, SCOPE_RECIPIENT},
    {STAGE_FINAL_DOT, "550 5.1.8 Access denied, bad outbound sender", "sender_restricted",
     VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_RCPT, "550 5.1.10 Recipient not found", "no_such_recipient", VERDICT_RCPT_FAIL,
     SCOPE_RECIPIENT},
    {STAGE_RCPT, "550 5.1.1 User unknown", "no_such_recipient", VERDICT_RCPT_FAIL, SCOPE_RECIPIENT},
    {STAGE_RCPT, "550 5.5.0 Requested action not taken: mailbox unavailable", "no_such_recipient",
     VERDICT_RCPT_FAIL, SCOPE_RECIPIENT},
    {STAGE_FINAL_DOT, "550 5.1.20 Multiple From addresses are not allowed without Sender address",
     "multiple_from", VERDICT_HOLD, SCOPE_MESSAGE},
    {STAGE_FINAL_DOT, "550 5.1.90 Your message can't be sent: daily limit for message recipients",
     "recipient_quota", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_FINAL_DOT, "550 5.2.2 Submission quota exceeded", "recipient_quota", VERDICT_PAUSE,
     SCOPE_MAILBOX},
    {STAGE_RCPT,
     "450 5.2.121 Recipient's per hour message receive limit from specific sender "
     "exceeded",
     "recipient_flooded", VERDICT_BACK, SCOPE_RECIPIENT},
    {STAGE_RCPT, "550 5.2.122 Recipient's per hour message receive limit has been exceeded",
     "recipient_flooded", VERDICT_BACK, SCOPE_RECIPIENT},
    {STAGE_RCPT, "550 5.4.1 Recipient address rejected: Access denied. [AB1.example]",
     "recipient_refused", VERDICT_RCPT_FAIL, SCOPE_RECIPIENT},
    {STAGE_RCPT, "550 5.4.1 Relay Access Denied", "recipient_refused", VERDICT_RCPT_FAIL,
     SCOPE_RECIPIENT},
    {STAGE_RCPT, "554 5.4.6 Hop count exceeded - possible mail loop", "routing_loop",
     VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {STAGE_FINAL_DOT, "554 5.4.14 Routing loop detected", "routing_loop", VERDICT_MSG_FAIL,
     SCOPE_MESSAGE},
    {STAGE_FINAL_DOT,
     "550 5.6.11 Invalid characters; SMTPSEND.BareLinefeedsAreIllegal; message contains bare "
     "linefeeds",
     "bare_line_feed", VERDICT_HOLD, SCOPE_MESSAGE},
    {STAGE_RCPT, "550 5.7.1 Unable to relay", "not_authorised_for_recipient", VERDICT_RCPT_FAIL,
     SCOPE_RECIPIENT},
    {STAGE_FINAL_DOT, "550 5.7.1 Delivery not authorized", "not_authorised_for_recipient",
     VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {STAGE_RCPT, "550 5.7.12 Sender not authenticated by organization",
     "not_authorised_for_recipient", VERDICT_RCPT_FAIL, SCOPE_RECIPIENT},
    {STAGE_RCPT, "550 5.7.124 Sender not in allowed-senders list", "not_authorised_for_recipient",
     VERDICT_RCPT_FAIL, SCOPE_RECIPIENT},
    {STAGE_RCPT, "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup",
     "not_authorised_for_recipient", VERDICT_RCPT_FAIL, SCOPE_RECIPIENT},
    {STAGE_RCPT, "550 5.7.136 RESOLVER.RST.SenderNotAuthenticated", "not_authorised_for_recipient",
     VERDICT_RCPT_FAIL, SCOPE_RECIPIENT},
    {STAGE_RCPT, "550 5.7.64 TenantAttribution; Relay Access Denied", "wrong_connector",
     VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_RCPT,
     "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization from "
     "unauthorized sources",
     "direct_send_refused", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_FINAL_DOT,
     "550 5.7.233 - Your message can't be sent because your tenant has exceeded its daily limit "
     "for sending to external recipients (tenant external recipient rate limit).",
     "tenant_external_limit", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_FINAL_DOT, "550 5.7.236 Onmicrosoft.com limit", "tenant_external_limit", VERDICT_PAUSE,
     SCOPE_MAILBOX},
    {STAGE_FINAL_DOT, "550 5.7.501 Access denied, spam abuse detected", "sender_banned",
     VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_FINAL_DOT, "550 5.7.503 Access denied, banned sender", "sender_banned", VERDICT_PAUSE,
     SCOPE_MAILBOX},
    {STAGE_FINAL_DOT, "550 5.7.511 Access denied, banned sender", "sender_banned", VERDICT_PAUSE,
     SCOPE_MAILBOX},
    {STAGE_MAIL, "550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "sender_banned",
     VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_RCPT, "550 5.7.649 Access denied, banned sending IP", "sender_banned", VERDICT_PAUSE,
     SCOPE_MAILBOX},
    {STAGE_FINAL_DOT, "550 5.7.800 Access denied", "sender_banned", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_RCPT, "550 5.7.504 Recipient address rejected: Access denied", "recipient_banned",
     VERDICT_RCPT_FAIL, SCOPE_RECIPIENT},
    {STAGE_RCPT, "550 5.7.505 Access denied, banned recipient", "recipient_banned",
     VERDICT_RCPT_FAIL, SCOPE_RECIPIENT},
    {STAGE_EHLO, "550 5.7.506 Access Denied, Bad HELO", "bad_helo", VERDICT_PAUSE, SCOPE_UPSTREAM},
    {STAGE_FINAL_DOT,
     "550 5.7.509 Access denied, sending domain b.example does not pass DMARC verification and "
     "has a DMARC policy of reject.",
     "dmarc", VERDICT_HOLD, SCOPE_MESSAGE},
    {STAGE_FINAL_DOT, "550 5.7.23 The message was rejected because of SPF violation", "dmarc",
     VERDICT_HOLD, SCOPE_MESSAGE},
    {STAGE_FINAL_DOT,
     "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant and include a "
     "valid From address",
     "from_invalid", VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {STAGE_FINAL_DOT, "550 5.7.703 Your message can't be delivered: Tenant Allow Block List",
     "tenant_block_list", VERDICT_HOLD, SCOPE_MESSAGE},
    {STAGE_FINAL_DOT, "550 5.7.705 Access denied, tenant has exceeded threshold", "tenant_blocked",
     VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_MAIL, "550 5.7.708 Access denied, traffic not accepted from this IP", "tenant_blocked",
     VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_FINAL_DOT, "550 5.7.750 Client blocked from sending from unregistered domain",
     "tenant_blocked", VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_FINAL_DOT, "550 5.7.900 Delivery not authorized, message refused", "mail_flow_rule",
     VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {STAGE_FINAL_DOT, "550 5.7.999 Delivery not authorized, message refused", "mail_flow_rule",
     VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {STAGE_FINAL_DOT,
     "554 4.3.2 mailbox busy; STOREDRV.Deliver.Exception:StoragePermanentException."
     "MapiExceptionMaxObjsExceeded",
     "busy_mailbox", VERDICT_BACK, SCOPE_MESSAGE},
    {STAGE_RCPT, "550 5.4.5 Daily SMTP relay limit exceeded for user", "relay_quota", VERDICT_PAUSE,
     SCOPE_MAILBOX},
    {STAGE_RCPT, "550 5.7.1 Daily SMTP relay limit exceeded for customer", "relay_quota",
     VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_RCPT, "450 4.2.1 Peak SMTP relay limit exceeded for customer", "relay_peak",
     VERDICT_BACK, SCOPE_MAILBOX},
};

static void each_known_reply_has_its_action_and_scope(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(catalogue) / sizeof(catalogue[0]); i++) {
        struct verdict v = verdict_for(catalogue[i].stage, catalogue[i].text);

        if (strcmp(v.name, catalogue[i].name) != 0 || v.action != catalogue[i].action ||
            v.scope != catalogue[i].scope)
            fail_msg("%s: %s, %s for the %s", catalogue[i].text, v.name,
                     verdict_action_name(v.action), verdict_scope_name(v.scope));
    }
}

static bool is_in_catalogue(const struct verdict_row *row)
{
    for (size_t i = 0; i < sizeof(catalogue) / sizeof(catalogue[0]); i++) {
        if (strcmp(catalogue[i].name, row->verdict.name) == 0 &&
            (row->stages & (1u << catalogue[i].stage)) != 0)
            return true;
    }
    return false;
}

static void no_row_is_without_a_known_reply(void **state)
{
    (void)state;
    for (size_t i = 0; i < verdict_row_count; i++) {
        if (!is_in_catalogue(&verdict_rows[i]))
            fail_msg("row %zu, %s, is not tested", i, verdict_rows[i].verdict.name);
    }
}

static void case_does_not_matter_in_sentences(void **state)
{
    (void)state;
    assert_string_equal(
        verdict_for(STAGE_AUTH, "535 5.7.139 SMTPCLIENTAUTHENTICATION IS DISABLED FOR THE TENANT")
            .name,
        "smtp_auth_off_for_tenant");
}

static void sentences_count_without_an_enhanced_code(void **state)
{
    (void)state;
    assert_string_equal(verdict_for(STAGE_FINAL_DOT, "554 SendAsDenied; a not allowed").name,
                        "send_as_denied");
    assert_string_equal(verdict_for(STAGE_RCPT, "550 Recipient not found").name,
                        "no_such_recipient");
}

static const struct {
    const char *name;
    enum client_stage stage;
    const char *text;
    enum verdict_action action;
    enum verdict_action again;
    enum verdict_scope scope;
} unlisted[] = {
    {"4xx to the greeting", STAGE_BANNER, "450 what", VERDICT_BACK, VERDICT_BACK, SCOPE_UPSTREAM},
    {"4xx to EHLO", STAGE_EHLO, "450 what", VERDICT_BACK, VERDICT_BACK, SCOPE_UPSTREAM},
    {"4xx to AUTH", STAGE_AUTH, "450 what", VERDICT_BACK, VERDICT_BACK, SCOPE_MAILBOX},
    {"4xx to MAIL", STAGE_MAIL, "450 what", VERDICT_BACK, VERDICT_BACK, SCOPE_MESSAGE},
    {"4xx to RCPT", STAGE_RCPT, "450 what", VERDICT_BACK, VERDICT_BACK, SCOPE_RECIPIENT},
    {"4xx to DATA", STAGE_DATA, "450 what", VERDICT_BACK, VERDICT_BACK, SCOPE_MESSAGE},
    {"4xx after the dot", STAGE_FINAL_DOT, "450 what", VERDICT_BACK, VERDICT_BACK, SCOPE_MESSAGE},
    {"421 to MAIL", STAGE_MAIL, "421 bye", VERDICT_BACK, VERDICT_BACK, SCOPE_UPSTREAM},
    {"421 after the dot", STAGE_FINAL_DOT, "421 bye", VERDICT_BACK, VERDICT_BACK, SCOPE_UPSTREAM},
    {"5xx to the greeting", STAGE_BANNER, "554 no", VERDICT_BACK, VERDICT_PAUSE, SCOPE_UPSTREAM},
    {"5xx to EHLO", STAGE_EHLO, "550 no", VERDICT_BACK, VERDICT_PAUSE, SCOPE_UPSTREAM},
    {"5xx to STARTTLS", STAGE_STARTTLS, "554 no", VERDICT_BACK, VERDICT_PAUSE, SCOPE_UPSTREAM},
    {"5xx to AUTH", STAGE_AUTH, "535 no", VERDICT_PAUSE, VERDICT_PAUSE, SCOPE_MAILBOX},
    {"5xx to AUTH, odd", STAGE_AUTH, "554 5.1.1 no", VERDICT_PAUSE, VERDICT_PAUSE, SCOPE_MAILBOX},
    {"5xx to MAIL", STAGE_MAIL, "550 no", VERDICT_HOLD, VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {"5xx to RCPT", STAGE_RCPT, "550 no", VERDICT_RCPT_FAIL, VERDICT_RCPT_FAIL, SCOPE_RECIPIENT},
    {"full recipient", STAGE_RCPT, "552 5.2.2 mailbox full", VERDICT_RCPT_FAIL, VERDICT_RCPT_FAIL,
     SCOPE_RECIPIENT},
    {"5xx to DATA", STAGE_DATA, "554 no", VERDICT_HOLD, VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {"5xx in the data", STAGE_BODY, "554 no", VERDICT_HOLD, VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {"5xx after the dot", STAGE_FINAL_DOT, "554 no", VERDICT_HOLD, VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {"REQUIRETLS", STAGE_MAIL, "550 5.7.30 REQUIRETLS support required", VERDICT_HOLD,
     VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {"5xx while idle", STAGE_IDLE, "554 no", VERDICT_SOON, VERDICT_BACK, SCOPE_UPSTREAM},
    {"5xx with 4.x.x", STAGE_FINAL_DOT, "554 4.9.9 what", VERDICT_BACK, VERDICT_BACK,
     SCOPE_MESSAGE},
    {"5xx with 4.x.x, RCPT", STAGE_RCPT, "550 4.9.9 what", VERDICT_BACK, VERDICT_BACK,
     SCOPE_RECIPIENT},
    {"4xx with 5.x.x", STAGE_FINAL_DOT, "451 5.9.9 what", VERDICT_BACK, VERDICT_BACK,
     SCOPE_MESSAGE},
};

static void unlisted_replies_go_by_class_and_stage(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(unlisted) / sizeof(unlisted[0]); i++) {
        struct verdict v = verdict_for(unlisted[i].stage, unlisted[i].text);

        if (v.action != unlisted[i].action || v.again != unlisted[i].again ||
            v.scope != unlisted[i].scope)
            fail_msg("%s: %s, then %s, for the %s", unlisted[i].name, verdict_action_name(v.action),
                     verdict_action_name(v.again), verdict_scope_name(v.scope));
    }
}

static void only_success_after_the_final_dot_is_delivery(void **state)
{
    (void)state;
    assert_int_equal(verdict_for(STAGE_FINAL_DOT, "250 2.0.0 OK <1@a.example>").action,
                     VERDICT_DELIVERED);
    assert_true(verdict_for(STAGE_FINAL_DOT, "250 2.0.0 OK").reusable);
    assert_int_equal(verdict_for(STAGE_BANNER, "220 hello").action, VERDICT_GO_ON);
    assert_int_equal(verdict_for(STAGE_AUTH, "334 VXNlcm5hbWU6").action, VERDICT_GO_ON);
    assert_int_equal(verdict_for(STAGE_AUTH, "235 2.7.0 fine").action, VERDICT_GO_ON);
    assert_int_equal(verdict_for(STAGE_RCPT, "250 2.1.5 OK").action, VERDICT_GO_ON);
    assert_int_equal(verdict_for(STAGE_DATA, "354 go on").action, VERDICT_GO_ON);
    assert_string_equal(verdict_for(STAGE_DATA, "250 done").name, "unexpected_reply");
    assert_string_equal(verdict_for(STAGE_BODY, "250 done").name, "unexpected_reply");
    assert_string_equal(verdict_for(STAGE_MAIL, "354 go on").name, "unexpected_reply");
}

static void nothing_at_quit_changes_anything(void **state)
{
    (void)state;
    assert_int_equal(verdict_for(STAGE_QUIT, "221 bye").action, VERDICT_GO_ON);
    assert_int_equal(verdict_for(STAGE_QUIT, "554 no").action, VERDICT_GO_ON);
    for (int i = LOCAL_LOOKUP; i < LOCAL_COUNT; i++) {
        struct verdict v = verdict_locally(STAGE_QUIT, (enum local_failure)i);

        assert_int_equal(v.action, VERDICT_GO_ON);
        assert_false(v.uncertain);
    }
}

static void no_answer_to_the_final_dot_is_uncertain_whatever_the_reason(void **state)
{
    (void)state;
    for (int i = LOCAL_LOOKUP; i < LOCAL_COUNT; i++) {
        struct verdict v = verdict_locally(STAGE_FINAL_DOT, (enum local_failure)i);

        assert_true(v.uncertain);
        assert_int_equal(v.action, VERDICT_BACK);
        assert_int_equal(v.again, VERDICT_BACK);
        assert_int_equal(v.scope, SCOPE_MESSAGE);
        assert_true(v.wait_ms == 15 * MINUTE);
        assert_false(v.reusable);
    }
    assert_true(verdict_for(STAGE_FINAL_DOT, "354 what").uncertain);
}

static void a_refusal_or_a_loss_before_the_final_dot_is_certain(void **state)
{
    (void)state;
    for (int stage = 0; stage < STAGE_FINAL_DOT; stage++) {
        for (int i = LOCAL_LOOKUP; i < LOCAL_COUNT; i++)
            assert_false(
                verdict_locally((enum client_stage)stage, (enum local_failure)i).uncertain);
    }
    for (size_t i = 0; i < sizeof(catalogue) / sizeof(catalogue[0]); i++)
        assert_false(verdict_for(catalogue[i].stage, catalogue[i].text).uncertain);
}

static const struct {
    enum client_stage stage;
    enum local_failure failure;
    enum verdict_action action;
    enum verdict_action again;
    enum verdict_scope scope;
} local_rows[] = {
    {STAGE_CONNECT, LOCAL_LOOKUP, VERDICT_BACK, VERDICT_BACK, SCOPE_NETWORK},
    {STAGE_CONNECT, LOCAL_CONNECT, VERDICT_BACK, VERDICT_BACK, SCOPE_NETWORK},
    {STAGE_CONNECT, LOCAL_TIMEOUT, VERDICT_BACK, VERDICT_BACK, SCOPE_NETWORK},
    {STAGE_BANNER, LOCAL_PROTOCOL, VERDICT_BACK, VERDICT_PAUSE, SCOPE_UPSTREAM},
    {STAGE_EHLO, LOCAL_TLS, VERDICT_BACK, VERDICT_PAUSE, SCOPE_UPSTREAM},
    {STAGE_TLS, LOCAL_CERTIFICATE, VERDICT_PAUSE, VERDICT_PAUSE, SCOPE_UPSTREAM},
    {STAGE_AUTH, LOCAL_LOST, VERDICT_BACK, VERDICT_BACK, SCOPE_NETWORK},
    {STAGE_AUTH, LOCAL_SECRET, VERDICT_PAUSE, VERDICT_PAUSE, SCOPE_MAILBOX},
    {STAGE_IDLE, LOCAL_LOST, VERDICT_SOON, VERDICT_BACK, SCOPE_NETWORK},
    {STAGE_IDLE, LOCAL_TIMEOUT, VERDICT_SOON, VERDICT_BACK, SCOPE_NETWORK},
    {STAGE_MAIL, LOCAL_LOST, VERDICT_SOON, VERDICT_BACK, SCOPE_NETWORK},
    {STAGE_RCPT, LOCAL_TIMEOUT, VERDICT_BACK, VERDICT_BACK, SCOPE_NETWORK},
    {STAGE_BODY, LOCAL_LOST, VERDICT_BACK, VERDICT_BACK, SCOPE_MESSAGE},
    {STAGE_BODY, LOCAL_TIMEOUT, VERDICT_BACK, VERDICT_BACK, SCOPE_MESSAGE},
    {STAGE_BODY, LOCAL_SPOOL, VERDICT_BACK, VERDICT_BACK, SCOPE_MESSAGE},
    {STAGE_BODY, LOCAL_CONTENT, VERDICT_MSG_FAIL, VERDICT_MSG_FAIL, SCOPE_MESSAGE},
    {STAGE_RCPT, LOCAL_ADDRESS, VERDICT_RCPT_FAIL, VERDICT_RCPT_FAIL, SCOPE_RECIPIENT},
    {STAGE_MAIL, LOCAL_ADDRESS, VERDICT_MSG_FAIL, VERDICT_MSG_FAIL, SCOPE_MESSAGE},
};

static void a_stored_reply_is_judged_without_its_stage(void **state)
{
    static const struct {
        const char *reply;
        bool failed;
        const char *name;
    } stored[] = {
        {"550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found", true,
         "no_such_recipient"},
        {"550 5.4.1 Recipient address rejected: Access denied", true, "recipient_refused"},
        {"452 4.5.3 Too many recipients", false, "too_many_recipients"},
        {"554 5.2.252 SendAsDenied; printer@office.example not allowed", false, "send_as_denied"},
        {"501 5.1.7 Invalid address", false, "bad_sender_address"},
        {"550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal", true, "bare_line_feed"},
        {"552 5.2.2 mailbox full", false, "mailbox_full"},
        {"552 5.2.2 mailbox full", true, "recipient_failed"}, /* hence the recipient's */
        {"550 5.1.6 something new", true, "recipient_failed"},
        {"550 no such user here", true, "recipient_failed"},
        {"554 5.6.99 something new", true, "message_refused"},
        {"450 4.2.1 later", false, "temporary"},
        {"450 4.1.8 later", false, "temporary_at_recipient"},
        {"250 2.0.0 OK", false, NULL},
        {"(timeout) no answer to MAIL in 5 minutes", false, NULL},
        {"(content) the server takes no 8-bit mail", true, "eight_bit_content"},
        {"(address) the recipient's address needs SMTPUTF8", true, "recipient_beyond_ascii"},
        {"(address) the sender's address needs SMTPUTF8", true, "sender_beyond_ascii"},
        {"", true, NULL},
        {"no reply at all", true, NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(stored) / sizeof(stored[0]); i++) {
        struct verdict v = {.name = "(nothing)"};
        bool judged = verdict_of_stored(stored[i].reply, stored[i].failed, &v);

        if (judged != (stored[i].name != NULL) || (judged && strcmp(v.name, stored[i].name) != 0))
            fail_msg("%s: %s", stored[i].reply, v.name);
    }
}

static void local_failures_are_judged_like_replies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(local_rows) / sizeof(local_rows[0]); i++) {
        struct verdict v = verdict_locally(local_rows[i].stage, local_rows[i].failure);

        if (v.action != local_rows[i].action || v.again != local_rows[i].again ||
            v.scope != local_rows[i].scope || v.reusable)
            fail_msg("row %zu, %s: %s, then %s, for the %s", i,
                     local_failure_name(local_rows[i].failure), verdict_action_name(v.action),
                     verdict_action_name(v.again), verdict_scope_name(v.scope));
    }
}

static void connections_are_reused_after_refusals_of_one_message_only(void **state)
{
    (void)state;
    assert_true(verdict_for(STAGE_RCPT, "550 5.1.1 no such user").reusable);
    assert_true(verdict_for(STAGE_MAIL, "552 5.3.4 too large").reusable);
    assert_true(verdict_for(STAGE_FINAL_DOT, "554 5.6.0 content").reusable);
    assert_true(verdict_for(STAGE_FINAL_DOT, "451 4.9.9 later").reusable);
    assert_false(verdict_for(STAGE_MAIL, "421 4.9.9 bye").reusable);
    assert_false(verdict_for(STAGE_MAIL, "500 5.3.3 Unrecognized command").reusable);
    assert_false(verdict_for(STAGE_MAIL, "503 5.5.1 order").reusable);
    assert_false(verdict_for(STAGE_BODY, "554 5.6.0 content").reusable);
    assert_false(verdict_for(STAGE_AUTH, "535 5.7.3 no").reusable);
    assert_false(verdict_for(STAGE_FINAL_DOT, "432 4.3.2 Concurrent connections").reusable);
    assert_false(verdict_for(STAGE_FINAL_DOT, "554 5.2.2 mailbox full").reusable);
}

static void waits_and_second_thoughts_are_as_advised(void **state)
{
    struct verdict v = verdict_for(STAGE_FINAL_DOT, "554 5.2.252 SendAsDenied");

    (void)state;
    assert_true(v.wait_ms == 5 * MINUTE);
    assert_int_equal(verdict_action_after(&v, "", 0), VERDICT_BACK);
    assert_int_equal(verdict_action_after(&v, "other", HOUR), VERDICT_BACK);
    assert_int_equal(verdict_action_after(&v, "send_as_denied", 0), VERDICT_HOLD);

    v = verdict_for(STAGE_AUTH, "451 4.7.0 Temporary server error. PRX1");
    assert_int_equal(verdict_action_after(&v, "front_end", 4 * HOUR - 1), VERDICT_BACK);
    assert_int_equal(verdict_action_after(&v, "front_end", 4 * HOUR), VERDICT_PAUSE);

    assert_true(verdict_for(STAGE_MAIL, "421 4.4.2 Message submission rate").wait_ms == MINUTE);
    assert_true(verdict_for(STAGE_AUTH, "535 5.7.3 no").wait_ms == 15 * MINUTE);
    assert_true(verdict_for(STAGE_AUTH, "535 5.7.139 account locked").wait_ms >= 30 * MINUTE);
    assert_true(verdict_for(STAGE_FINAL_DOT, "554 5.2.2 mailbox full").wait_ms == HOUR);
    assert_true(verdict_for(STAGE_AUTH, "550 5.7.30 no").wait_ms > 0);
    assert_in_range(verdict_for(STAGE_FINAL_DOT, "432 4.3.2 limit").wait_ms, 1, MINUTE);
}

static void flags_are_set_where_they_help_and_nowhere_else(void **state)
{
    (void)state;
    assert_true(verdict_for(STAGE_AUTH, "535 5.7.3 no").fresh_token);
    assert_true(verdict_for(STAGE_AUTH, "501 5.5.127 Token will expire soon").fresh_token);
    assert_true(verdict_for(STAGE_MAIL, "530 5.7.57 Client not authenticated").fresh_token);
    assert_true(verdict_for(STAGE_FINAL_DOT, "430 4.2.0 mailbox logon failure").fresh_token);
    assert_false(verdict_for(STAGE_AUTH, "454 4.7.0 later").fresh_token);
    assert_true(verdict_for(STAGE_MAIL, "552 5.3.4 too large").too_large);
    assert_false(verdict_for(STAGE_MAIL, "550 5.2.3 too large for this recipient").too_large);
}

static bool is_about_the_mailbox(const struct verdict *v)
{
    return v->scope == SCOPE_MAILBOX || v->scope == SCOPE_UPSTREAM || v->scope == SCOPE_NETWORK;
}

static void check_row(const struct verdict *v, const char *name)
{
    if (v->action == VERDICT_GO_ON || v->action == VERDICT_DELIVERED || v->scope == SCOPE_NONE ||
        v->what == NULL || v->who == NULL || v->how == NULL || v->what[0] == '\0' ||
        v->how[strlen(v->how) - 1] != '.')
        fail_msg("%s is not complete", name);
    if (is_about_the_mailbox(v) && v->action != VERDICT_SOON && v->action != VERDICT_BACK &&
        v->action != VERDICT_CONC && v->action != VERDICT_PAUSE)
        fail_msg("%s lets a message pay for the mailbox", name);
    if (v->scope == SCOPE_MESSAGE && v->action == VERDICT_PAUSE)
        fail_msg("%s lets the mailbox pay for a message", name);
    if ((v->action == VERDICT_RCPT_FAIL) && v->scope != SCOPE_RECIPIENT)
        fail_msg("%s fails a recipient for something else", name);
}

static void every_row_is_complete_and_stays_within_its_scope(void **state)
{
    (void)state;
    for (size_t i = 0; i < verdict_row_count; i++)
        check_row(&verdict_rows[i].verdict, verdict_rows[i].verdict.name);
    for (size_t i = 0; i < verdict_default_row_count; i++)
        check_row(&verdict_default_rows[i].verdict, verdict_default_rows[i].verdict.name);
    for (size_t i = 0; i < verdict_local_row_count; i++)
        check_row(&verdict_local_rows[i].verdict, verdict_local_rows[i].verdict.name);
}

/* Words for a token come in pairs, and a refused sign-in that waits for a person says what to use
 * or to run. */
static void a_refused_sign_in_tells_what_to_do_with_passwords_and_with_tokens(void **state)
{
    (void)state;
    for (size_t i = 0; i < verdict_row_count; i++) {
        const struct verdict_row *row = &verdict_rows[i];
        const struct verdict *v = &row->verdict;

        assert_int_equal(v->token_what == NULL, v->token_how == NULL);
        if ((row->stages & (1u << STAGE_AUTH)) == 0 || v->scope != SCOPE_MAILBOX)
            continue;
        print_message("  %s\n", v->name);
        assert_string_not_equal(v->who, "");
        assert_null(strstr(v->how, "another provider"));
        assert_true(v->token_how == NULL || v->token_how[strlen(v->token_how) - 1] == '.');
    }
}

/* For whatever a server may say or a connection may do, and wherever. */
static void there_is_always_a_verdict_with_words(void **state)
{
    (void)state;
    for (int stage = 0; stage < STAGE_COUNT; stage++) {
        for (unsigned code = 200; code < 600; code++) {
            struct reply reply = {.code = code};
            struct verdict v = verdict_of((enum client_stage)stage, &reply);

            assert_non_null(v.what);
            assert_string_not_equal(v.name, "");
            if (code >= 400 && stage != STAGE_QUIT)
                assert_string_not_equal(v.name, "unexpected_reply");
        }
        for (int i = LOCAL_LOOKUP; i < LOCAL_COUNT && stage != STAGE_QUIT; i++) {
            struct verdict v = verdict_locally((enum client_stage)stage, (enum local_failure)i);

            assert_string_not_equal(v.name, "unexpected_reply");
            assert_string_not_equal(v.how, "");
        }
    }
}

static void actions_and_scopes_have_names(void **state)
{
    (void)state;
    assert_string_equal(verdict_action_name(VERDICT_GO_ON), "go_on");
    assert_string_equal(verdict_action_name(VERDICT_RCPT_FAIL), "rcpt_fail");
    assert_string_equal(verdict_action_name(VERDICT_HOLD), "hold");
    assert_string_equal(verdict_action_name((enum verdict_action)99), "unknown");
    assert_string_equal(verdict_scope_name(SCOPE_NONE), "none");
    assert_string_equal(verdict_scope_name(SCOPE_NETWORK), "network");
    assert_string_equal(verdict_scope_name((enum verdict_scope)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_known_reply_has_its_action_and_scope),
        cmocka_unit_test(no_row_is_without_a_known_reply),
        cmocka_unit_test(case_does_not_matter_in_sentences),
        cmocka_unit_test(sentences_count_without_an_enhanced_code),
        cmocka_unit_test(unlisted_replies_go_by_class_and_stage),
        cmocka_unit_test(only_success_after_the_final_dot_is_delivery),
        cmocka_unit_test(nothing_at_quit_changes_anything),
        cmocka_unit_test(no_answer_to_the_final_dot_is_uncertain_whatever_the_reason),
        cmocka_unit_test(a_refusal_or_a_loss_before_the_final_dot_is_certain),
        cmocka_unit_test(a_stored_reply_is_judged_without_its_stage),
        cmocka_unit_test(local_failures_are_judged_like_replies),
        cmocka_unit_test(connections_are_reused_after_refusals_of_one_message_only),
        cmocka_unit_test(waits_and_second_thoughts_are_as_advised),
        cmocka_unit_test(flags_are_set_where_they_help_and_nowhere_else),
        cmocka_unit_test(every_row_is_complete_and_stays_within_its_scope),
        cmocka_unit_test(a_refused_sign_in_tells_what_to_do_with_passwords_and_with_tokens),
        cmocka_unit_test(there_is_always_a_verdict_with_words),
        cmocka_unit_test(actions_and_scopes_have_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
