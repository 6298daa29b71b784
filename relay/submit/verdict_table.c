#include "relay/submit/verdict_table.h"

#define SECOND 1000ull
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)

#define AT(stage)      (1u << STAGE_##stage)
#define AT_EHLO        AT(EHLO)
#define AT_STARTTLS    AT(STARTTLS)
#define AT_AUTH        AT(AUTH)
#define AT_IDLE        AT(IDLE)
#define AT_MAIL        AT(MAIL)
#define AT_RCPT        AT(RCPT)
#define AT_BODY        AT(BODY)
#define AT_CONTENT     (AT(DATA) | AT(BODY) | AT(FINAL_DOT))
#define AT_TRANSACTION (AT_MAIL | AT_RCPT | AT_CONTENT)
#define AT_GREETING    (AT(CONNECT) | AT(BANNER) | AT_EHLO)
#define AT_SESSION     (AT_GREETING | AT_STARTTLS | AT(TLS) | AT_AUTH | AT_IDLE)
#define AT_ANY         (AT_SESSION | AT_TRANSACTION)

#define WHEN(stages_, code_, enhanced_, words_)                                                    \
    .stages = (stages_), .code = (code_), .enhanced = (enhanced_), .words = (words_), .verdict
#define LOCALLY(stages_, local_) .stages = (stages_), .local = (local_), .verdict
#define IS(name_, action_, scope_)                                                                 \
    .name = (name_), .action = VERDICT_##action_, .scope = SCOPE_##scope_

#define NOBODY         "nobody needs to"
#define SENDER         "whoever sent it"
#define RELAY_OPERATOR "whoever looks after this relay"
#define MAIL_ADMIN     "the administrator of the mail service"
#define MAIL_SERVICE   "the provider of the mail service"

const struct verdict_row verdict_rows[] = {
    {WHEN(AT_AUTH | AT_MAIL, 5, NULL, "SmtpClientAuthentication is disabled for the Tenant") =
         {IS("smtp_auth_off_for_tenant", PAUSE, MAILBOX),
          .what = "SMTP AUTH is switched off for the whole organisation.", .who = MAIL_ADMIN,
          .how =
              "Switch it on for this mailbox, which OAuth needs as well: Set-CASMailbox <mailbox> "
              "-SmtpClientAuthenticationDisabled $false. It can take an hour to apply."}},
    {WHEN(AT_AUTH | AT_MAIL, 5, NULL, "SmtpClientAuthentication is disabled for the Mailbox") =
         {IS("smtp_auth_off_for_mailbox", PAUSE, MAILBOX),
          .what = "SMTP AUTH is switched off for this mailbox.", .who = MAIL_ADMIN,
          .how = "Switch it on, which OAuth needs as well: Set-CASMailbox <mailbox> "
                 "-SmtpClientAuthenticationDisabled $false. It can take an hour to apply."}},
    {WHEN(AT_AUTH | AT_MAIL, 5, NULL, "basic authentication is disabled") =
         {IS("basic_auth_disabled", PAUSE, MAILBOX),
          .what = "The service no longer takes passwords for this mailbox.", .who = MAIL_ADMIN,
          .how =
              "Use auth = oauth2 for this mailbox; outtray-oauth(7) has the commands. Until then "
              "an authentication policy may allow Basic authentication for SMTP, as long as that "
              "is possible. The mail waits here meanwhile."}},
    {WHEN(AT_AUTH, 5, "5.7.30", "Basic authentication is not supported") =
         {IS("basic_auth_retired", PAUSE, MAILBOX),
          .what = "Password sign-in has been retired or switched off for sending mail.",
          .who = MAIL_ADMIN,
          .how = "Use auth = oauth2 for this mailbox; outtray-oauth(7) has the commands. Or switch "
                 "Basic authentication for SMTP on again while that is still possible. The mail "
                 "waits here meanwhile."}},
    {WHEN(AT_AUTH | AT_MAIL, 5, NULL, "user credentials were incorrect") =
         {IS("wrong_password", PAUSE, MAILBOX), .wait_ms = 60 * MINUTE,
          .what = "The user name or the password is wrong.", .who = MAIL_ADMIN,
          .how = "Write the right password into the mailbox's password_file; it is tried at "
                 "once. An account with several sign-in factors needs an app password, or "
                 "auth = oauth2. Trying often would lock the account."}},
    {WHEN(AT_AUTH | AT_MAIL, 5, NULL, "security defaults policy") =
         {IS("security_defaults", PAUSE, MAILBOX),
          .what = "The organisation's security defaults forbid this sign-in.", .who = MAIL_ADMIN,
          .how = "Use auth = oauth2 for this mailbox (outtray-oauth(7)), or replace the security "
                 "defaults by Conditional Access policies that leave it out: Entra admin center, "
                 "Identity, Overview, Properties, Manage security defaults.",
          .token_what =
              "The organisation's security defaults forbid SMTP AUTH, with a token as well.",
          .token_how =
              "Replace the security defaults by Conditional Access policies that leave this "
              "mailbox out: Entra admin center, Identity, Overview, Properties, Manage "
              "security defaults."}},
    {WHEN(AT_AUTH | AT_MAIL, 5, NULL, "did not meet the criteria to be authenticated") =
         {IS("conditional_access", PAUSE, MAILBOX),
          .what =
              "A Conditional Access policy refused the sign-in, perhaps because of the address it "
              "came from.",
          .who = MAIL_ADMIN,
          .how =
              "Look up the refusal in the Entra admin center, Monitoring, Sign-in logs, and leave "
              "this mailbox or this office's address out of the policy; or use auth = oauth2 with "
              "an application, to which policies for users do not apply.",
          .token_what = "A Conditional Access policy refused the sign-in, perhaps because of the "
                        "address it came from.",
          .token_how =
              "Look up the refusal in the Entra admin center, Monitoring, Sign-in logs, and "
              "leave this application, mailbox or office's address out of the policy."}},
    {WHEN(AT_AUTH | AT_MAIL, 5, NULL, "account locked|account has an issue") =
         {IS("account_locked", PAUSE, MAILBOX), .wait_ms = 30 * MINUTE,
          .what = "The account is locked, after failed sign-ins or because it looks at risk.",
          .who = MAIL_ADMIN,
          .how = "Wait half an hour; if it stays locked, unblock the account (Entra admin center, "
                 "Protection, Risky users) and look for whatever else signs in with a wrong "
                 "password."}},
    {WHEN(AT_AUTH | AT_MAIL, 5, NULL, "federated STS") =
         {IS("federation_unreachable", BACK, MAILBOX), .again = VERDICT_PAUSE,
          .lasting_ms = 60 * MINUTE,
          .what = "The organisation's own sign-in server could not be reached by the service.",
          .who = MAIL_ADMIN,
          .how = "Check that the federation server is up and reachable over HTTPS, or use auth = "
                 "oauth2 with an application, which does not need it."}},
    {WHEN(AT_AUTH, 5, "5.5.127",
          "Token will expire soon") = {IS("token_expires", SOON, MAILBOX), .fresh_token = true,
                                       .what = "The access token has too little time left.",
                                       .who = NOBODY, .how = "A new token is fetched."}},
    {WHEN(AT_AUTH, 5, "5.5.124", "Invalid XOAUTH2 auth data") =
         {IS("token_malformed", PAUSE, MAILBOX), .fresh_token = true,
          .what = "The service could not read the sign-in, or it belongs to another account.",
          .who = MAIL_ADMIN,
          .how =
              "Check that address and login of the mailbox are those that the application may "
              "use; \"outtray token MAILBOX\" shows what the token is for. For High Volume Email "
              "the application is added with Add-HVEAppAccess."}},
    {WHEN(AT_AUTH, 535, "5.7.3", NULL) =
         {IS("identity_refused", PAUSE, MAILBOX), .wait_ms = 15 * MINUTE, .fresh_token = true,
          .what = "The service does not accept this identity: a wrong password, or an account that "
                  "may not use the mailbox.",
          .who = RELAY_OPERATOR,
          .how = "Check address and login of the mailbox, write the right password into its "
                 "password_file, where it is tried at once. Changes at Microsoft can take an "
                 "hour. Trying often would lock the account.",
          .token_what = "The service does not accept the token for this mailbox, also not a fresh "
                        "one: the application may not use the mailbox, or not yet.",
          .token_how =
              "Have the administrator check New-ServicePrincipal (with the object id of the "
              "enterprise application), Add-MailboxPermission or the role \"Application "
              "SMTP.SendAsApp\", and Set-CASMailbox -SmtpClientAuthenticationDisabled "
              "$false; \"outtray token MAILBOX\" shows what the token says, outtray-oauth(7) "
              "has the commands. Changes can take an hour."}},
    {WHEN(AT_AUTH, 5, "5.7.8", NULL) =
         {IS("credentials_refused", PAUSE, MAILBOX), .wait_ms = 60 * MINUTE, .fresh_token = true,
          .what = "The user name or the password was not accepted.", .who = MAIL_ADMIN,
          .how = "Write the right password into the mailbox's password_file; it is tried at "
                 "once. Some services want an app password, or auth = oauth2.",
          .token_what = "The token was not accepted for this mailbox, also not a fresh one.",
          .token_how = "Check the scope of the token (\"outtray token MAILBOX\") and that whoever "
                       "signed in, or the application, may use this mailbox; then \"outtray resume "
                       "MAILBOX\"."}},
    {WHEN(AT_AUTH, 5, "5.7.139", NULL) =
         {IS("sign_in_refused", PAUSE, MAILBOX), .fresh_token = true,
          .what = "The sign-in was refused by a policy or setting of the organisation.",
          .who = MAIL_ADMIN,
          .how =
              "Look up the refusal in the Entra admin center, Monitoring, Sign-in logs; the reply "
              "names the cause. A password may not be allowed any more: then use auth = oauth2.",
          .token_what = "The sign-in was refused by a policy or setting of the organisation.",
          .token_how = "Look up the refusal in the Entra admin center, Monitoring, Sign-in logs, "
                       "Service principal sign-ins; the reply names the cause."}},
    {WHEN(AT_AUTH, 502, NULL,
          NULL) = {IS("mechanism_unsupported", PAUSE, MAILBOX),
                   .what = "The server does not support the way of signing in that was used.",
                   .who = RELAY_OPERATOR,
                   .how = "Check host and port, and name another one in the mailbox's mechanisms: "
                          "XOAUTH2 or OAUTHBEARER with OAuth, LOGIN or PLAIN with a password."}},
    {WHEN(AT_AUTH, 504, NULL, NULL) =
         {IS("mechanism_not_offered", PAUSE, MAILBOX),
          .what =
              "The server does not offer the way of signing in that was used; this is common when "
              "it is not a submission server.",
          .who = RELAY_OPERATOR,
          .how = "Check host and port (smtp.office365.com and 587 for Microsoft 365, not the name "
                 "that ends in mail.protection.outlook.com) and the mailbox's auth and "
                 "mechanisms."}},
    {WHEN(AT_AUTH | AT_TRANSACTION, 430, NULL, NULL) =
         {IS("mailbox_logon_failed", BACK, MAILBOX), .again = VERDICT_PAUSE,
          .lasting_ms = 60 * MINUTE, .fresh_token = true,
          .what = "The service cannot open the mailbox for whoever signed in.", .who = MAIL_ADMIN,
          .how = "Check the mailbox address and that whoever signs in may open the mailbox.",
          .token_what = "The token is right, but the application may not open the mailbox, or not "
                        "yet.",
          .token_how = "Give it the permission: Add-MailboxPermission -Identity <mailbox> -User "
                       "<service principal> -AccessRights FullAccess, or the role \"Application "
                       "SMTP.SendAsApp\". It can take an hour to apply."}},
    {WHEN(AT_AUTH, 454, NULL, NULL) =
         {IS("auth_unavailable", BACK, UPSTREAM),
          .what =
              "The service cannot check sign-ins at the moment. The password may well be right.",
          .who = MAIL_SERVICE, .how = "Wait; nothing needs to be changed."}},
    {WHEN(AT_ANY, 421, "4.3.2", "Service not available|Service not active") =
         {IS("service_unavailable", BACK, UPSTREAM),
          .what = "The service is not available at the moment.", .who = MAIL_SERVICE,
          .how = "Wait; mail goes out when it is back."}},
    {WHEN(AT_ANY, 421, "4.4.1", "Connection timed out") =
         {IS("session_too_long", SOON, UPSTREAM),
          .what = "The server ended a connection that was idle or had lasted too long.",
          .who = NOBODY, .how = "A new connection is made."}},
    {WHEN(AT_ANY, 4, NULL, "submission rate") =
         {IS("submission_rate", BACK, MAILBOX), .wait_ms = 60 * SECOND,
          .what = "The mailbox sent more messages in a minute than the service takes.",
          .who = RELAY_OPERATOR,
          .how = "Wait; if it happens often, lower messages_per_minute, because other software may "
                 "use the same mailbox."}},
    {WHEN(AT_ANY, 421, "4.4.2", "Connection dropped") =
         {IS("connection_dropped", BACK, NETWORK),
          .what = "The server dropped the connection because of a network error.",
          .who = RELAY_OPERATOR,
          .how =
              "If it happens all the time, look at the firewall and at anything that inspects TLS "
              "on the way."}},
    {WHEN(AT_ANY, 421, "4.7.66", "TLS 1.0 and 1.1 are not supported") =
         {IS("old_tls", PAUSE, UPSTREAM),
          .what = "The service found the TLS version of this connection too old.",
          .who = RELAY_OPERATOR,
          .how =
              "Look for a proxy or firewall that breaks TLS on the way; this relay uses TLS 1.2 or "
              "later."}},
    {WHEN(AT_TRANSACTION, 4, NULL, "recipient thread limit exceeded") =
         {IS("recipient_busy", BACK, RECIPIENT),
          .what = "The recipient's mailbox is receiving too many messages at once.", .who = NOBODY,
          .how = "Wait; it is tried again."}},
    {WHEN(AT_ANY, 432, NULL, NULL) =
         {IS("too_many_connections", CONC, MAILBOX),
          .what =
              "More connections send from this mailbox than the service allows, perhaps by other "
              "software as well.",
          .who = RELAY_OPERATOR,
          .how = "Fewer are used from now on. If other software shares the mailbox, lower its "
                 "connections or give it another mailbox."}},
    {WHEN(AT_ANY, 451, NULL, "Temporary server error") =
         {IS("front_end", BACK, MAILBOX), .again = VERDICT_PAUSE, .lasting_ms = 4 * HOUR,
          .what = "The service cannot reach the mailbox at the moment.", .who = MAIL_SERVICE,
          .how = "Wait; if it lasts for hours, check the mailbox address and the host name in the "
                 "configuration."}},
    {WHEN(AT_ANY, 451, NULL, "Timeout waiting for client input") =
         {IS("idle_timeout", SOON, UPSTREAM),
          .what = "The server ended a connection that had been idle.", .who = NOBODY,
          .how = "A new connection is made."}},
    {WHEN(AT_ANY, 4, "4.7.500-699 4.7.850-899", "Server busy") =
         {IS("server_busy", BACK, UPSTREAM),
          .what = "The service limits mail from this office's public address.", .who = MAIL_ADMIN,
          .how =
              "Wait; if it lasts, check the address's reputation and ask the service to lift the "
              "limit."}},
    {WHEN(AT_ANY, 4, "4.3.1", "Insufficient system resources") =
         {IS("no_resources", BACK, UPSTREAM), .what = "The service is short of resources.",
          .who = MAIL_SERVICE, .how = "Wait; mail goes out when it has recovered."}},
    {WHEN(AT_STARTTLS, 454, NULL,
          NULL) = {IS("starttls_unavailable", BACK, UPSTREAM),
                   .what = "The server cannot start TLS at the moment; nothing is sent in clear.",
                   .who = MAIL_SERVICE,
                   .how = "Wait; if it lasts, ask the operator of the service."}},
    {WHEN(AT_EHLO, 501, NULL,
          NULL) = {IS("bad_helo_argument", PAUSE, UPSTREAM),
                   .what =
                       "The server does not accept the name by which this relay introduces itself.",
                   .who = RELAY_OPERATOR,
                   .how = "Give the relay a full host name, such as relay.example.org."}},
    {WHEN(AT_EHLO | AT_TRANSACTION, 5, "5.7.506", "Bad HELO") =
         {IS("bad_helo", PAUSE, UPSTREAM),
          .what =
              "The service does not accept the name by which this relay introduces itself; it may "
              "be the service's own.",
          .who = RELAY_OPERATOR, .how = "Give the relay a host name of its own."}},
    {WHEN(AT_TRANSACTION, 500, NULL, NULL) =
         {IS("unrecognized_command", HOLD, MESSAGE),
          .what = "The server did not understand a command while taking this message.",
          .who = RELAY_OPERATOR,
          .how = "Look for a firewall that changes SMTP on the way; then retry the message. If it "
                 "happens again, report it as an error of this relay."}},
    {WHEN(AT_SESSION, 500, NULL, NULL) =
         {IS("unrecognized_command", PAUSE, UPSTREAM),
          .what = "The server did not understand a command.", .who = RELAY_OPERATOR,
          .how = "Look for a firewall that changes SMTP on the way, and check that host and port "
                 "belong to a submission service."}},
    {WHEN(AT_TRANSACTION, 503, NULL, NULL) =
         {IS("command_order", HOLD, MESSAGE),
          .what = "The server found the commands for this message out of order.",
          .who = RELAY_OPERATOR,
          .how = "Retry the message. If it happens again, report it as an error of this relay."}},
    {WHEN(AT_SESSION, 503, NULL, NULL) =
         {IS("command_order", PAUSE, UPSTREAM),
          .what = "The server found the commands out of order.", .who = RELAY_OPERATOR,
          .how =
              "Check that host and port belong to a submission service; else report it as an error "
              "of this relay."}},
    {WHEN(AT_AUTH | AT_TRANSACTION, 530, "5.7.0",
          "Must issue a STARTTLS") = {IS("starttls_required", PAUSE, UPSTREAM),
                                      .what = "The server wants TLS first.", .who = RELAY_OPERATOR,
                                      .how = "Check the port and the TLS setting of the mailbox."}},
    {WHEN(AT_AUTH | AT_TRANSACTION, 5, "5.7.57",
          "Client not authenticated|Client was not authenticated") =
         {IS("not_authenticated", PAUSE, MAILBOX), .fresh_token = true,
          .what = "The server does not regard this connection as signed in.", .who = MAIL_ADMIN,
          .how =
              "Check the mailbox's auth and SMTP AUTH of the mailbox (Set-CASMailbox <mailbox> "
              "-SmtpClientAuthenticationDisabled $false); the reply to AUTH shows the cause. A "
              "server that takes mail without sign-in needs this office's address on its list."}},
    {WHEN(AT_TRANSACTION, 530, NULL,
          NULL) = {IS("not_authenticated", PAUSE, MAILBOX), .fresh_token = true,
                   .what = "The server wants a sign-in.", .who = RELAY_OPERATOR,
                   .how = "Configure a sign-in for the mailbox: auth = oauth2, or password.",
                   .token_what = "The server no longer takes this session for signed in.",
                   .token_how = "See \"outtray token MAILBOX\"; the token may have been revoked."}},
    {WHEN(AT_TRANSACTION, 5, "5.1.90",
          "SubmissionQuotaExceeded|Submission quota exceeded|daily limit for message recipients") =
         {IS("recipient_quota", PAUSE, MAILBOX), .wait_ms = 60 * MINUTE,
          .what = "The mailbox has reached its limit of recipients for 24 hours.", .who = NOBODY,
          .how = "Wait; it is tried every hour. If it happens often, spread the mail over several "
                 "mailboxes."}},
    {WHEN(AT_ANY, 5, "5.4.5", "SMTP relay limit exceeded|sending limit exceeded") =
         {IS("relay_quota", PAUSE, MAILBOX), .wait_ms = 60 * MINUTE,
          .what = "The mailbox or the organisation has reached its daily limit.", .who = NOBODY,
          .how = "Wait; it is tried every hour. If it happens often, ask the service for a higher "
                 "limit."}},
    {WHEN(AT_ANY, 4, NULL, "SMTP relay limit exceeded") =
         {IS("relay_peak", BACK, MAILBOX), .wait_ms = 60 * SECOND,
          .what = "The organisation sends more at the moment than the service takes.",
          .who = NOBODY, .how = "Wait; it is tried again."}},
    {WHEN(AT_TRANSACTION, 5, NULL, "OutboundSpamException") =
         {IS("outbound_spam", PAUSE, MAILBOX), .wait_ms = 60 * MINUTE,
          .what = "The service suspects the account of sending spam and wants it verified.",
          .who = MAIL_ADMIN,
          .how = "Sign in to the mailbox in a browser and follow what it asks for."}},
    {WHEN(AT_TRANSACTION, 5, NULL,
          "STOREDRV.Submission.Exception:QuotaExceeded|aka.ms/mailboxfull") =
         {IS("mailbox_full", PAUSE, MAILBOX), .wait_ms = 60 * MINUTE,
          .what = "The sending mailbox is full: every message leaves a copy in its Sent Items.",
          .who = MAIL_ADMIN,
          .how =
              "Empty Sent Items and set a retention policy for it; sending is tried every hour."}},
    {WHEN(AT_MAIL | AT_CONTENT, 5, "5.2.2", NULL) =
         {IS("mailbox_full", PAUSE, MAILBOX), .wait_ms = 60 * MINUTE,
          .what = "The sending mailbox is full: every message may leave a copy in its Sent Items.",
          .who = MAIL_ADMIN,
          .how =
              "Empty Sent Items and set a retention policy for it; sending is tried every hour."}},
    {WHEN(AT_TRANSACTION, 5, "5.1.8", "bad outbound sender") =
         {IS("sender_restricted", PAUSE, MAILBOX), .wait_ms = 60 * MINUTE,
          .what = "The mailbox may not send because spam was seen from it.", .who = MAIL_ADMIN,
          .how =
              "Make sure that the account is safe, then unblock it under Restricted entities; that "
              "takes about an hour."}},
    {WHEN(AT_TRANSACTION, 5, "5.7.233 5.7.236",
          "daily limit for sending to external|tenant external recipient rate limit") =
         {IS("tenant_external_limit", PAUSE, MAILBOX), .wait_ms = 60 * MINUTE,
          .what = "The organisation has reached its limit of external recipients for 24 hours.",
          .who = MAIL_ADMIN,
          .how = "Wait; it is tried every hour. Addresses under onmicrosoft.com have a very low "
                 "limit: send from a domain of your own."}},
    {WHEN(AT_ANY, 5, "5.7.501-503 5.7.511 5.7.606-649 5.7.800",
          "banned sender|spam abuse detected") =
         {IS("sender_banned", PAUSE, MAILBOX), .wait_ms = 60 * MINUTE,
          .what = "The service has banned this account, domain or address.", .who = MAIL_ADMIN,
          .how = "Ask the service to lift the ban; the reply says where."}},
    {WHEN(AT_TRANSACTION, 5, "5.7.705 5.7.708 5.7.750",
          "tenant has exceeded threshold|traffic not accepted from this IP|unregistered domain") =
         {IS("tenant_blocked", PAUSE, MAILBOX), .wait_ms = 60 * MINUTE,
          .what = "The service does not take mail from this organisation at the moment: it is new, "
                  "was blocked, or the sender's domain is not verified.",
          .who = MAIL_ADMIN,
          .how = "Verify the sender's domain and ask the service's support to lift the block."}},
    {WHEN(AT_ANY, 5, "5.7.64", "TenantAttribution; Relay Access Denied") =
         {IS("wrong_connector", PAUSE, MAILBOX),
          .what = "The service does not recognise this office: its public address or certificate "
                  "matches no connector.",
          .who = MAIL_ADMIN,
          .how = "Correct the address in the connector, or submit with a sign-in (host "
                 "smtp.office365.com, port 587) instead."}},
    {WHEN(AT_ANY, 5, "5.7.68", "Direct Send not allowed") =
         {IS("direct_send_refused", PAUSE, MAILBOX),
          .what =
              "The organisation does not take mail without a sign-in or connector (direct send).",
          .who = MAIL_ADMIN,
          .how = "Submit with a sign-in (host smtp.office365.com, port 587) instead."}},
    {WHEN(AT_TRANSACTION, 5, "5.2.252", "SendAsDenied") =
         {IS("send_as_denied", BACK, MESSAGE), .again = VERDICT_HOLD, .wait_ms = 5 * MINUTE,
          .what = "The mailbox may not send as the address in the From field.", .who = MAIL_ADMIN,
          .how = "Set the sender in the device to the mailbox's address, or give the mailbox the "
                 "Send As "
                 "right on the one that it uses; then retry the message."}},
    {WHEN(AT_TRANSACTION, 5, "5.7.60", "does not have permissions to send as this sender") =
         {IS("sender_not_permitted", HOLD, MESSAGE),
          .what = "The mailbox may not send as the message's sender.", .who = MAIL_ADMIN,
          .how =
              "Set the sender in the device to the mailbox's address, or give the mailbox the Send "
              "As right on the one that it uses; then retry the message."}},
    {WHEN(AT_MAIL, 5, "5.1.7", NULL) =
         {IS("bad_sender_address", HOLD, MESSAGE),
          .what = "The sender's address is not written correctly.", .who = RELAY_OPERATOR,
          .how = "Correct the sender's address in the device's settings; then retry the message."}},
    {WHEN(AT_MAIL, 502, NULL, NULL) =
         {IS("parameter_unsupported", HOLD, MESSAGE),
          .what =
              "The server does not support something that this message needs, such as addresses "
              "beyond ASCII.",
          .who = RELAY_OPERATOR, .how = "Send to plain ASCII addresses, or use another service."}},
    {WHEN(AT_RCPT, 0, "4.5.3 5.5.3",
          "Too many recipients") = {IS("too_many_recipients", SOON, RECIPIENT),
                                    .what = "The service takes fewer recipients at once.",
                                    .who = NOBODY,
                                    .how = "The others follow in another transaction."}},
    {WHEN(AT_MAIL | AT_CONTENT, 0, "4.5.3 5.5.3", "Too many recipients") =
         {IS("too_many_recipients", HOLD, MESSAGE),
          .what = "The message has more recipients than the service takes.", .who = MAIL_ADMIN,
          .how = "Raise the organisation's limit of recipients per message, or send to fewer; then "
                 "retry the message."}},
    {WHEN(AT_TRANSACTION, 5, "5.2.3", "RecipSizeLimit|message too large for this recipient") =
         {IS("recipient_too_small", RCPT_FAIL, RECIPIENT),
          .what = "The message is larger than the recipient may receive.", .who = SENDER,
          .how = "Send a smaller scan, or ask the recipient's administrator to raise the limit."}},
    {WHEN(AT_TRANSACTION, 5, "5.3.4", "message size exceeds|exceeds size limit") =
         {IS("too_large", MSG_FAIL, MESSAGE), .too_large = true,
          .what = "The message is larger than the mailbox may send.", .who = SENDER,
          .how =
              "Scan with a lower resolution or in several parts, or have the administrator raise "
              "the mailbox's limit."}},
    {WHEN(AT_CONTENT, 5, "5.6.0", "Too many related errors") =
         {IS("bad_content", MSG_FAIL, MESSAGE),
          .what = "The service could not make sense of the message's content.",
          .who = RELAY_OPERATOR,
          .how = "Export the message and look at it; the device may write broken MIME."}},
    {WHEN(AT_CONTENT, 5, "5.1.20", "Multiple From addresses") =
         {IS("multiple_from", HOLD, MESSAGE),
          .what = "The message has several addresses in From and no Sender.", .who = RELAY_OPERATOR,
          .how =
              "Correct the device's settings, or let the relay repair the header; then retry the "
              "message."}},
    {WHEN(AT_CONTENT, 5, "5.7.512",
          "RFC 5322 section 3.6.2") = {IS("from_invalid", MSG_FAIL, MESSAGE),
                                       .what = "The message's From field is missing or broken.",
                                       .who = RELAY_OPERATOR,
                                       .how = "Set a proper sender address in the device."}},
    {WHEN(AT_CONTENT, 5, "5.6.11", "BareLinefeeds") =
         {IS("bare_line_feed", HOLD, MESSAGE),
          .what = "The service found line ends in the message that are not CR LF.",
          .who = RELAY_OPERATOR,
          .how = "Export the message and report it as an error of this relay."}},
    {WHEN(AT_TRANSACTION, 5, "5.4.6 5.4.14", "Routing loop") =
         {IS("routing_loop", MSG_FAIL, MESSAGE), .what = "The message went round in a loop.",
          .who = MAIL_ADMIN,
          .how =
              "Check that the recipient's domain is set up to receive mail at the service, and is "
              "not sent back here."}},
    {WHEN(AT_CONTENT, 5, "5.7.509 5.7.23", "does not pass DMARC") =
         {IS("dmarc", HOLD, MESSAGE),
          .what = "The sender's domain does not allow this service to send for it.",
          .who = MAIL_ADMIN,
          .how =
              "Correct the SPF, DKIM and DMARC records of the domain, or send from the mailbox's "
              "own domain; then retry the message."}},
    {WHEN(AT_TRANSACTION, 5, "5.7.900-999",
          NULL) = {IS("mail_flow_rule", MSG_FAIL, MESSAGE),
                   .what = "A mail flow rule of the organisation refused the message.",
                   .who = MAIL_ADMIN, .how = "Change the rule, or what the device sends."}},
    {WHEN(AT_TRANSACTION, 5, "5.7.703", "Tenant Allow Block List") =
         {IS("tenant_block_list", HOLD, MESSAGE),
          .what = "One of the recipients is on the organisation's block list, which blocks the "
                  "message for all of them.",
          .who = MAIL_ADMIN,
          .how = "Remove the address from the list or from the message; then retry it."}},
    {WHEN(AT_TRANSACTION, 5, "4.3.2",
          "mailbox busy") = {IS("busy_mailbox", BACK, RECIPIENT), .wait_ms = 60 * MINUTE,
                             .what = "A folder of the recipient's mailbox holds too many items.",
                             .who = MAIL_ADMIN, .how = "Have the recipient's folder cleaned up."}},
    {WHEN(AT_TRANSACTION, 0, "5.2.121 5.2.122", "per hour message receive limit") =
         {IS("recipient_flooded", BACK, RECIPIENT), .wait_ms = 60 * MINUTE,
          .what = "The recipient has received more messages this hour than allowed.", .who = SENDER,
          .how = "Send this recipient less; it is tried again in an hour."}},
    {WHEN(AT_RCPT | AT_CONTENT, 5, "5.1.3", "invalid recipient address") =
         {IS("bad_recipient_address", RCPT_FAIL, RECIPIENT),
          .what = "The recipient's address is not written correctly.", .who = SENDER,
          .how = "Correct the address in the device's address book."}},
    {WHEN(AT_RCPT | AT_CONTENT, 5, "5.1.10 5.1.1 5.5.0", "RecipientNotFound|Recipient not found") =
         {IS("no_such_recipient", RCPT_FAIL, RECIPIENT), .what = "There is no such recipient.",
          .who = SENDER, .how = "Correct the address in the device's address book."}},
    {WHEN(AT_RCPT, 5, "5.4.1", NULL) =
         {IS("recipient_refused", RCPT_FAIL, RECIPIENT),
          .what = "The server does not know this recipient, or does not take mail for that domain "
                  "from here.",
          .who = SENDER,
          .how =
              "Correct the address; if it is right, check that the mailbox's host is a submission "
              "service."}},
    {WHEN(AT_RCPT | AT_CONTENT, 5, "5.7.504 5.7.505",
          "banned recipient") = {IS("recipient_banned", RCPT_FAIL, RECIPIENT),
                                 .what = "The service does not deliver to this recipient.",
                                 .who = MAIL_ADMIN,
                                 .how = "Ask the service why the address is banned."}},
    {WHEN(AT_RCPT | AT_CONTENT, 5, "5.7.1 5.7.12 5.7.124 5.7.133-136",
          "Unable to relay|Delivery not authorized") =
         {IS("not_authorised_for_recipient", RCPT_FAIL, RECIPIENT),
          .what = "The recipient or group does not take mail from this sender.", .who = MAIL_ADMIN,
          .how = "Have the recipient's administrator allow the sender, or check that the mailbox's "
                 "host is a submission service."}},
};

const size_t verdict_row_count = sizeof(verdict_rows) / sizeof(verdict_rows[0]);

const struct verdict_row verdict_default_rows[] = {
    {WHEN(AT_RCPT, 4, NULL, NULL) = {IS("temporary_at_recipient", BACK, RECIPIENT),
                                     .what = "The server cannot take this recipient at the moment.",
                                     .who = NOBODY, .how = "Wait; it is tried again."}},
    {WHEN(AT_AUTH, 4, NULL, NULL) = {IS("temporary_sign_in", BACK, MAILBOX),
                                     .what = "The server cannot take the sign-in at the moment.",
                                     .who = MAIL_SERVICE, .how = "Wait; it is tried again."}},
    {WHEN(AT_ANY, 421, NULL, NULL) = {IS("service_closing", BACK, UPSTREAM),
                                      .what = "The service ended the connection.",
                                      .who = MAIL_SERVICE, .how = "Wait; it is tried again."}},
    {WHEN(AT_TRANSACTION, 4, NULL,
          NULL) = {IS("temporary", BACK, MESSAGE),
                   .what = "The server cannot take the message at the moment.", .who = NOBODY,
                   .how = "Wait; it is tried again."}},
    {WHEN(AT_IDLE, 0, NULL, NULL) = {IS("idle_ended", SOON, UPSTREAM),
                                     .what = "The server ended an idle connection.", .who = NOBODY,
                                     .how = "A new connection is made."}},
    {WHEN(AT_ANY, 4, NULL, NULL) = {IS("temporary_session", BACK, UPSTREAM),
                                    .what = "The service cannot take mail at the moment.",
                                    .who = MAIL_SERVICE, .how = "Wait; it is tried again."}},
    {WHEN(AT_AUTH, 5, NULL,
          NULL) = {IS("sign_in_refused", PAUSE, MAILBOX), .fresh_token = true,
                   .what = "The sign-in was refused.", .who = MAIL_ADMIN,
                   .how = "Check the mailbox's login and password; the reply names the cause.",
                   .token_what = "The sign-in with a token was refused.",
                   .token_how =
                       "\"outtray token MAILBOX\" shows what the token is for; the reply names the "
                       "cause."}},
    {WHEN(AT_RCPT, 5, NULL, NULL) = {IS("recipient_failed", RCPT_FAIL, RECIPIENT),
                                     .what = "The recipient was refused.", .who = SENDER,
                                     .how = "Check the address; the reply names the cause."}},
    {WHEN(AT_TRANSACTION, 5, NULL, NULL) =
         {IS("message_refused", HOLD, MESSAGE), .again = VERDICT_MSG_FAIL,
          .what = "The message was refused for a reason that this relay does not know.",
          .who = RELAY_OPERATOR,
          .how =
              "Read the reply, remove the cause, and retry the message; if it is refused again, it "
              "becomes a dead letter."}},
    {WHEN(AT_ANY, 5, NULL, NULL) =
         {IS("session_refused", BACK, UPSTREAM), .again = VERDICT_PAUSE, .lasting_ms = 60 * MINUTE,
          .what = "The server refuses to talk to this relay.", .who = RELAY_OPERATOR,
          .how =
              "Check that host and port belong to a submission service that takes mail from this "
              "office's address."}},
};

const size_t verdict_default_row_count =
    sizeof(verdict_default_rows) / sizeof(verdict_default_rows[0]);

const struct verdict_local_row verdict_local_rows[] = {
    {LOCALLY(AT_ANY, LOCAL_LOOKUP) =
         {IS("lookup", BACK, NETWORK), .what = "The name of the server could not be resolved.",
          .who = RELAY_OPERATOR,
          .how = "Check the office's DNS and internet connection, and the host name in the "
                 "configuration."}},
    {LOCALLY(AT_ANY, LOCAL_CONNECT) =
         {IS("connect", BACK, NETWORK), .what = "The server could not be reached.",
          .who = RELAY_OPERATOR,
          .how = "Check the internet connection and that the firewall lets this relay out on the "
                 "server's port."}},
    {LOCALLY(AT_ANY, LOCAL_CERTIFICATE) =
         {IS("certificate", PAUSE, UPSTREAM), .wait_ms = 15 * MINUTE,
          .what = "The server's certificate did not verify, so nothing was sent.",
          .who = RELAY_OPERATOR,
          .how = "Check the host name in the configuration, this machine's clock and its CA "
                 "certificates, and look for a firewall that inspects TLS."}},
    {LOCALLY(AT_ANY, LOCAL_TLS) =
         {IS("tls", BACK, UPSTREAM), .again = VERDICT_PAUSE, .lasting_ms = 60 * MINUTE,
          .what = "No TLS connection came about, so nothing was sent.", .who = RELAY_OPERATOR,
          .how =
              "Check port and TLS setting of the mailbox, and look for a firewall that interferes "
              "with STARTTLS."}},
    {LOCALLY(AT_IDLE, LOCAL_TIMEOUT) = {IS("idle_ended", SOON, NETWORK),
                                        .what = "An idle connection no longer answered.",
                                        .who = NOBODY, .how = "A new connection is made."}},
    {LOCALLY(AT_IDLE, LOCAL_LOST) = {IS("idle_ended", SOON, NETWORK),
                                     .what = "An idle connection ended.", .who = NOBODY,
                                     .how = "A new connection is made."}},
    {LOCALLY(AT_MAIL,
             LOCAL_LOST) = {IS("lost_early", SOON, NETWORK),
                            .what = "The connection ended before anything of the message was sent.",
                            .who = NOBODY, .how = "A new connection is made."}},
    {LOCALLY(AT_BODY, LOCAL_LOST) =
         {IS("lost_in_message", BACK, MESSAGE),
          .what = "The connection ended in the middle of the message.", .who = RELAY_OPERATOR,
          .how =
              "It is sent again. If it happens with every large message, look at the firewall and "
              "the line's quality."}},
    {LOCALLY(AT_BODY, LOCAL_TIMEOUT) =
         {IS("timeout_in_message", BACK, MESSAGE),
          .what = "The connection stood still in the middle of the message.", .who = RELAY_OPERATOR,
          .how =
              "It is sent again. If it happens with every large message, look at the firewall and "
              "the line's quality."}},
    {LOCALLY(AT_ANY, LOCAL_TIMEOUT) =
         {IS("timeout", BACK, NETWORK), .what = "The server did not answer in time.",
          .who = RELAY_OPERATOR,
          .how = "Wait; if it lasts, look at the internet connection. A service that limits this "
                 "office may also fall silent."}},
    {LOCALLY(AT_ANY, LOCAL_LOST) =
         {IS("lost", BACK, NETWORK), .what = "The connection ended before its work was done.",
          .who = RELAY_OPERATOR,
          .how = "Wait; if it lasts, look at the internet connection and the firewall."}},
    {LOCALLY(AT_AUTH, LOCAL_PROTOCOL) =
         {IS("no_common_sign_in", PAUSE, MAILBOX),
          .what = "The server and this mailbox found no way of signing in.", .who = RELAY_OPERATOR,
          .how = "Compare what the server offers with the mailbox's auth and mechanisms, and check "
                 "host and port."}},
    {LOCALLY(AT_ANY, LOCAL_PROTOCOL) =
         {IS("protocol", BACK, UPSTREAM), .again = VERDICT_PAUSE, .lasting_ms = 60 * MINUTE,
          .what = "The server sent something that is not SMTP.", .who = RELAY_OPERATOR,
          .how = "Check host and port, and look for a proxy on the way."}},
    {LOCALLY(AT_ANY, LOCAL_SECRET) =
         {IS("secret", PAUSE, MAILBOX), .wait_ms = 5 * MINUTE,
          .what = "What the mailbox needs for signing in or for TLS cannot be read here.",
          .who = RELAY_OPERATOR,
          .how = "Mend the file that is named; it is read again with each try."}},
    {LOCALLY(AT_ANY,
             LOCAL_SPOOL) = {IS("spool", BACK, MESSAGE),
                             .what = "The spool failed while the message was being sent.",
                             .who = RELAY_OPERATOR,
                             .how = "It is sent again. If it happens again, look at the disk."}},
    {LOCALLY(AT_RCPT, LOCAL_ADDRESS) =
         {IS("recipient_beyond_ascii", RCPT_FAIL, RECIPIENT),
          .what = "The recipient's address has letters beyond ASCII, and the mail service does not "
                  "take such addresses (it offers no SMTPUTF8).",
          .who = SENDER,
          .how = "Send to another address of the recipient's, in plain ASCII, or through a service "
                 "that offers SMTPUTF8. A domain can be written in its ASCII form (xn--...)."}},
    {LOCALLY(AT_ANY, LOCAL_ADDRESS) =
         {IS("sender_beyond_ascii", MSG_FAIL, MESSAGE),
          .what = "The sender's address has letters beyond ASCII, and the mail service does not "
                  "take such addresses (it offers no SMTPUTF8).",
          .who = RELAY_OPERATOR,
          .how = "Set a plain ASCII sender in the device, or take its address out of the mailbox's "
                 "send_as, so that the mailbox's own is used; then requeue the message."}},
    {LOCALLY(AT_ANY, LOCAL_CONTENT) =
         {IS("eight_bit_content", MSG_FAIL, MESSAGE),
          .what = "The upstream takes no 8-bit mail, and the message cannot be converted.",
          .who = SENDER,
          .how =
              "Send it without a signature, or as a 7-bit message, or through another service."}},
};

const size_t verdict_local_row_count = sizeof(verdict_local_rows) / sizeof(verdict_local_rows[0]);
