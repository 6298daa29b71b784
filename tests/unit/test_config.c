#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "relay/base/config.h"
#include "relay/base/config_mistakes.h"
#include "relay/base/config_rows.h"
#include "relay/base/config_value.h"

#ifndef OUTTRAY_SOURCE_DIR
#define OUTTRAY_SOURCE_DIR "."
#endif

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define KB           1024ull
#define MB           (1024 * KB)
#define GB           (1024 * MB)

#define NO_MAILBOX                                                                                 \
    "there is no mailbox to send through; add a section [mailbox office] with address = "          \
    "scans@example.com, and with tenant, client_id and client_secret_file (OAuth) or "             \
    "password_file"

#define MAILBOX "[mailbox office]\naddress = scans@example.com\n"

/* What a file gives: a config, or the text of its mistakes. */
struct result {
    struct config *config;
    char *mistakes;
};

static struct result parse_n(const char *text, size_t len)
{
    struct result r = {NULL, NULL};
    size_t size;
    FILE *out = open_memstream(&r.mistakes, &size);

    assert_non_null(out);
    r.config = config_parse("test.conf", text, len, out);
    assert_int_equal(fclose(out), 0);
    return r;
}

static struct config *parse_good(const char *text)
{
    struct result r = parse_n(text, strlen(text));

    if (r.config == NULL)
        fail_msg("mistakes: %s", r.mistakes);
    assert_string_equal(r.mistakes, "");
    free(r.mistakes);
    return r.config;
}

static void expect_mistakes(const char *text, const char *expected)
{
    struct result r = parse_n(text, strlen(text));

    assert_null(r.config);
    assert_string_equal(r.mistakes, expected);
    free(r.mistakes);
}

/* ---- what is read ---- */

static void one_mailbox_is_enough(void **state)
{
    struct config *c = parse_good(MAILBOX);
    const struct config_mailbox *mb = &c->mailboxes[0];
    char own[256] = "";

    (void)state;
    assert_int_equal(c->mailbox_count, 1);
    assert_string_equal(mb->name, "office");
    assert_string_equal(mb->provider, "office365");
    assert_string_equal(mb->host, "smtp.office365.com");
    assert_int_equal(mb->port, 587);
    assert_int_equal(mb->tls, CONFIG_TLS_STARTTLS);
    assert_int_equal(mb->auth, CONFIG_AUTH_PASSWORD);
    assert_string_equal(mb->address, "scans@example.com");
    assert_string_equal(mb->login, "scans@example.com");
    assert_string_equal(mb->password_file, "");
    assert_string_equal(mb->ca_file, "");
    assert_string_equal(mb->helo, "");
    assert_int_equal(mb->connections, 3);
    assert_int_equal(mb->messages_per_minute, 30);
    assert_int_equal(mb->recipients_per_day, 10000);
    assert_int_equal(mb->max_size, 35 * MB);
    assert_int_equal(mb->line, 1);

    assert_int_equal(gethostname(own, sizeof own - 1), 0);
    assert_true(config_value_is_host(c->hostname));
    if (config_value_is_host(own))
        assert_string_equal(c->hostname, own);
    assert_string_equal(c->user, "outtray");
    assert_string_equal(c->spool, "/var/spool/outtray");
    assert_int_equal(c->log_level, LOG_LEVEL_INFO);
    assert_int_equal(c->log_target, LOG_TARGET_STDERR);
    assert_int_equal(c->spool_max, 10 * GB);
    assert_int_equal(c->spool_min_free, 200 * MB);
    assert_int_equal(c->stop_ms, 30000);
    assert_int_equal(c->give_up_ms, 5ull * 24 * 3600 * 1000);
    assert_int_equal(c->uncertain_wait_ms, 15 * 60 * 1000);
    assert_int_equal(c->max_size, 0);
    assert_int_equal(c->max_recipients, 500);
    assert_int_equal(c->max_sessions, 1000);
    assert_int_equal(c->max_sessions_per_device, 50);
    assert_int_equal(c->max_messages_per_minute, 600);
    assert_int_equal(c->max_spool, 0);
    assert_int_equal(c->join_split, CONFIG_NO);
    assert_false(c->max_messages_given);
    assert_int_equal(c->recipient_domains.count, 0);
    assert_int_equal(c->legacy_tls.count, 0);
    assert_string_equal(c->certificate, "");
    assert_string_equal(c->private_key, "");
    assert_int_equal(c->listeners[0].tls, CONFIG_LISTENER_AUTO);
    assert_int_equal(c->idle_ms, 10 * 60 * 1000);
    assert_string_equal(c->passwords, "/etc/outtray/device-passwords");
    assert_int_equal(c->hide, 0);
    assert_int_equal(c->auth_equals, CONFIG_NO);
    assert_int_equal(c->lf_dot_lf, CONFIG_YES);
    assert_string_equal(c->charset, "windows-1252");
    assert_int_equal(c->listeners[0].auth, CONFIG_LOGIN_ANY);
    assert_string_equal(c->socket, "/run/outtray/control.sock");

    assert_int_equal(c->listener_count, 1);
    assert_string_equal(c->listeners[0].address, "");
    assert_int_equal(c->listeners[0].port, 25);
    assert_int_equal(c->device_count, 0);
    assert_int_equal(c->route_count, 1);
    assert_string_equal(c->routes[0].name, "default");
    assert_int_equal(c->routes[0].mailbox_count, 1);
    assert_int_equal(c->routes[0].mailboxes[0], 0);
    config_free(c);
}

static void the_default_networks_are_loopback_and_what_net_calls_private(void **state)
{
    static const char *const probes[] = {"127.0.0.1",   "::1",         "10.2.3.4",    "172.31.0.1",
                                         "172.32.0.1",  "192.168.9.9", "169.254.1.1", "8.8.8.8",
                                         "fd12::1",     "fe80::1",     "2001:db8::1", "100.64.0.1",
                                         "192.169.1.1", "fec0::1",     "11.0.0.1"};
    struct config *c = parse_good(MAILBOX);

    (void)state;
    for (size_t i = 0; i < COUNT(probes); i++) {
        struct net_address a;

        assert_true(net_parse(probes[i], &a));
        assert_int_equal(net_ranges_have(&c->allow, &a), net_is_private(&a) || net_is_loopback(&a));
    }
    config_free(c);
}

static const char everything[] = "[relay]\n"
                                 "proxy = http://proxy.example.com:3128\n"
                                 "hostname = relay.example.com\n"
                                 "user = nobody\n"
                                 "spool = /srv/spool\n"
                                 "log_level = debug\n"
                                 "log_target = syslog\n"
                                 "spool_max = 2G\n"
                                 "spool_min_free = 1MB\n"
                                 "stop_time = 2m\n"
                                 "give_up = 3d\n"
                                 "uncertain_wait = 0s\n"
                                 "uncertain_wait_urgent = 2m\n"
                                 "operator = it@example.com\n"
                                 "dead_keep = 7d\n"
                                 "delay_notice = 0\n"
                                 "[listener lan]\n"
                                 "address = 192.168.1.2\n"
                                 "port = 2525\n"
                                 "[listener six]\n"
                                 "address = fd00::2\n"
                                 "tls = required\n"
                                 "auth = required\n"
                                 "certificate = /etc/outtray/c.pem\n"
                                 "private_key = /etc/outtray/k.pem\n"
                                 "[devices]\n"
                                 "allow = 192.168.0.0/16\n"
                                 "max_size = 100MB\n"
                                 "max_recipients = 10\n"
                                 "max_sessions = 20\n"
                                 "max_sessions_per_device = 5\n"
                                 "max_messages_per_minute = 12\n"
                                 "max_spool = 1G\n"
                                 "join_split = no\n"
                                 "recipient_domains = example.com, .example.net\n"
                                 "recipient_domains = example.org\n"
                                 "legacy_tls = 192.168.1.20\n"
                                 "idle_time = 5m\n"
                                 "passwords = /srv/passwords\n"
                                 "hide = STARTTLS,auth DSN\n"
                                 "auth_equals = yes\n"
                                 "lf_dot_lf = no\n"
                                 "charset = iso-8859-2\n"
                                 "report_to_sender = yes\n"
                                 "sent_twice = once\n"
                                 "[device alarm]\n"
                                 "address = 192.168.1.20, 192.168.2.0/24\n"
                                 "lane = urgent\n"
                                 "route = alarms\n"
                                 "login = alarm@example.com\n"
                                 "auth = optional\n"
                                 "hide = SIZE CHUNKING PIPELINING 8BITMIME SMTPUTF8\n"
                                 "auth_equals = no\n"
                                 "lf_dot_lf = yes\n"
                                 "mt_priority = yes\n"
                                 "importance = yes\n"
                                 "report_to_sender = no\n"
                                 "sent_twice = mark\n"
                                 "max_size = 1MB\n"
                                 "max_recipients = 2\n"
                                 "max_sessions = 3\n"
                                 "max_messages_per_minute = 4\n"
                                 "max_spool = 3MB\n"
                                 "join_split = yes\n"
                                 "recipient_domains = example.com\n"
                                 "from = keep\n"
                                 "from_name = Alarm, hall\n"
                                 "[mailbox office]\n"
                                 "address = scans@example.com\n"
                                 "[mailbox hub]\n"
                                 "provider = custom\n"
                                 "host = mail.example.net\n"
                                 "port = 465\n"
                                 "tls = implicit\n"
                                 "auth = none\n"
                                 "address = alarm@example.net\n"
                                 "login = alarm-login\n"
                                 "password_file = /etc/outtray/hub\n"
                                 "ca_file = /etc/outtray/ca.pem\n"
                                 "helo = out.example.net\n"
                                 "connections = 7\n"
                                 "in_flight = 4\n"
                                 "messages_per_minute = 8\n"
                                 "urgent_reserve = 2\n"
                                 "recipients_per_day = 9\n"
                                 "send_as = door@example.net, example.org\n"
                                 "send_as = .example.org\n"
                                 "from = alarm@example.net\n"
                                 "from_name = Alarm\n"
                                 "max_size = 20MB\n"
                                 "recipients_per_message = 6\n"
                                 "urgent_connections = 5\n"
                                 "idle_time = 20s\n"
                                 "session_time = 5m\n"
                                 "[route alarms]\n"
                                 "mailboxes = hub\n"
                                 "backup = office\n"
                                 "backup_after = 5m\n"
                                 "backup_urgent = no\n"
                                 "choose = order\n"
                                 "listeners = six\n"
                                 "senders = alarm@example.com\n"
                                 "recipient_domains = example.com\n"
                                 "[route default]\n"
                                 "mailboxes = office\n"
                                 "[notify pager]\n"
                                 "command = /usr/bin/page\n"
                                 "events = held, mailbox-paused\n"
                                 "[mailbox m365]\n"
                                 "provider = intranet\n"
                                 "address = m365@example.com\n"
                                 "auth = oauth2, password\n"
                                 "tenant = example.onmicrosoft.com\n"
                                 "client_id = 1111\n"
                                 "certificate_file = /etc/outtray/c.pem\n"
                                 "private_key_file = /etc/outtray/c.key\n"
                                 "key_password_file = /etc/outtray/c.password\n"
                                 "grant = client-credentials\n"
                                 "secret_expires = 2027-06-30\n"
                                 "assertion = rs256\n"
                                 "mechanisms = PLAIN XOAUTH2\n"
                                 "token_url = https://sts.example.com/{tenant}/token\n"
                                 "device_url = https://sts.example.com/{tenant}/device\n"
                                 "authorize_url = https://sts.example.com/authorize\n"
                                 "scope = mail send\n"
                                 "token_ca_file = /etc/outtray/sts.pem\n"
                                 "[mailbox second]\n"
                                 "provider = intranet\n"
                                 "address = second@example.com\n"
                                 "sign_in = m365\n"
                                 "[mailbox google]\n"
                                 "provider = gmail\n"
                                 "address = scans@example.net\n"
                                 "service_account_file = /etc/outtray/google.json\n"
                                 "[mailbox secretly]\n"
                                 "address = secretly@example.com\n"
                                 "tenant = t\n"
                                 "client_id = 2222\n"
                                 "client_secret_file = /etc/outtray/secret\n"
                                 "[provider intranet]\n"
                                 "host = smtp.intranet.example\n"
                                 "host_example = x.example\n"
                                 "port = 2587\n"
                                 "tls = implicit\n"
                                 "auth = password\n"
                                 "mechanisms = XOAUTH2 LOGIN\n"
                                 "login = someone\n"
                                 "tenant = house\n"
                                 "token_url = https://sso.example.com/token\n"
                                 "device_url = https://sso.example.com/device\n"
                                 "authorize_url = https://sso.example.com/authorize\n"
                                 "passwords_end = 2030-01-01\n"
                                 "app_scope = smtp/.default\n"
                                 "user_scope = smtp offline_access\n"
                                 "connections = 4\n"
                                 "in_flight = 2\n"
                                 "messages_per_minute = 40\n"
                                 "recipients_per_day = 400\n"
                                 "recipients_per_message = 14\n"
                                 "max_size = 4MB\n"
                                 "idle_time = 20s\n"
                                 "session_time = 3m\n"
                                 "[api]\n"
                                 "socket = /run/x/y.sock\n";

static void oauth_keys_reach_their_fields(void **state)
{
    struct config *c = parse_good(everything);
    const struct config_mailbox *mb = &c->mailboxes[2];
    const struct config_mailbox *second = &c->mailboxes[3];
    const struct config_mailbox *google = &c->mailboxes[4];
    const struct config_mailbox *secretly = &c->mailboxes[5];
    char names[CONFIG_MECHANISMS_MAX];

    (void)state;
    assert_string_equal(c->proxy, "http://proxy.example.com:3128");
    assert_int_equal(mb->auth, CONFIG_AUTH_OAUTH2 | CONFIG_AUTH_PASSWORD);
    assert_true(mb->has_oauth);
    assert_string_equal(mb->sign_in, "m365");
    assert_string_equal(mb->tenant, "example.onmicrosoft.com");
    assert_string_equal(mb->client_id, "1111");
    assert_string_equal(mb->certificate_file, "/etc/outtray/c.pem");
    assert_string_equal(mb->private_key_file, "/etc/outtray/c.key");
    assert_string_equal(mb->key_password_file, "/etc/outtray/c.password");
    assert_int_equal(mb->grant, CONFIG_GRANT_CLIENT_CREDENTIALS);
    assert_int_equal(mb->secret_expires_ms / 1000, 1814313600);
    assert_int_equal(mb->signature, CONFIG_SIGNATURE_RS256);
    assert_string_equal(mb->token_url, "https://sts.example.com/example.onmicrosoft.com/token");
    assert_string_equal(mb->device_url, "https://sts.example.com/example.onmicrosoft.com/device");
    assert_string_equal(mb->authorize_url, "https://sts.example.com/authorize");
    assert_string_equal(mb->scope, "mail send");
    assert_string_equal(mb->token_ca_file, "/etc/outtray/sts.pem");
    config_mechanisms(mb, CONFIG_AUTH_OAUTH2, names);
    assert_string_equal(names, "XOAUTH2");
    config_mechanisms(mb, CONFIG_AUTH_PASSWORD, names);
    assert_string_equal(names, "PLAIN");
    assert_false(config_wants_scram(c));
    assert_string_equal(mb->host, "smtp.intranet.example");
    assert_int_equal(mb->port, 2587);
    assert_int_equal(mb->tls, CONFIG_TLS_IMPLICIT);
    assert_string_equal(mb->login, "someone");
    assert_int_equal(mb->connections, 4);
    assert_int_equal(mb->in_flight, 2);
    assert_int_equal(mb->messages_per_minute, 40);
    assert_int_equal(mb->recipients_per_day, 400);
    assert_int_equal(mb->recipients_per_message, 14);
    assert_int_equal(mb->max_size, 4 * MB);
    assert_int_equal(second->auth, CONFIG_AUTH_OAUTH2);
    assert_true(second->has_oauth);
    assert_string_equal(second->sign_in, "m365");
    assert_string_equal(second->client_id, "1111");
    assert_string_equal(second->token_url, mb->token_url);
    assert_int_equal(second->signature, CONFIG_SIGNATURE_RS256);
    assert_int_equal(google->grant, CONFIG_GRANT_JWT);
    assert_string_equal(google->service_account_file, "/etc/outtray/google.json");
    assert_string_equal(google->scope, "https://mail.google.com/");
    assert_string_equal(google->login, "scans@example.net");
    assert_int_equal(secretly->grant, CONFIG_GRANT_CLIENT_CREDENTIALS);
    assert_string_equal(secretly->client_secret_file, "/etc/outtray/secret");
    assert_string_equal(secretly->token_url,
                        "https://login.microsoftonline.com/t/oauth2/v2.0/token");
    assert_string_equal(secretly->scope, "https://outlook.office365.com/.default");
    assert_int_equal(secretly->auth, CONFIG_AUTH_OAUTH2);
    assert_int_equal(c->mailboxes[0].auth, CONFIG_AUTH_PASSWORD);
    assert_false(c->mailboxes[0].has_oauth);
    const struct config_provider *p = config_find_provider(c, "intranet");
    assert_non_null(p);
    assert_string_equal(p->host_example, "x.example");
    assert_string_equal(p->tenant, "house");
    assert_string_equal(p->app_scope, "smtp/.default");
    config_free(c);
}

static void every_key_reaches_its_field(void **state)
{
    struct config *c = parse_good(everything);
    const struct config_mailbox *mb = &c->mailboxes[1];
    struct net_address a;

    (void)state;
    assert_string_equal(c->hostname, "relay.example.com");
    assert_string_equal(c->user, "nobody");
    assert_string_equal(c->spool, "/srv/spool");
    assert_int_equal(c->log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(c->log_target, LOG_TARGET_SYSLOG);
    assert_int_equal(c->spool_max, 2 * GB);
    assert_int_equal(c->spool_min_free, MB);
    assert_int_equal(c->stop_ms, 120000);
    assert_int_equal(c->give_up_ms, 3 * 24 * 3600 * 1000);
    assert_int_equal(c->uncertain_wait_ms, 0);
    assert_int_equal(c->uncertain_wait_urgent_ms, 2 * 60 * 1000);
    assert_string_equal(c->operator, "it@example.com");
    assert_int_equal(c->dead_keep_ms, 7 * 24 * 3600 * 1000);
    assert_int_equal(c->delay_notice_ms, 0);
    assert_int_equal(c->report_to_sender, CONFIG_REPORT_YES);
    assert_int_equal(c->sent_twice, CONFIG_TWICE_ONCE);
    assert_int_equal(c->notify_count, 1);
    assert_string_equal(c->notifies[0].name, "pager");
    assert_string_equal(c->notifies[0].command, "/usr/bin/page");
    assert_int_equal(c->notifies[0].events, CONFIG_EVENT_MAILBOX_PAUSED | CONFIG_EVENT_HELD);
    assert_int_equal(c->listener_count, 2);
    assert_string_equal(c->listeners[0].name, "lan");
    assert_string_equal(c->listeners[0].address, "192.168.1.2");
    assert_int_equal(c->listeners[0].port, 2525);
    assert_string_equal(c->listeners[1].address, "fd00::2");
    assert_int_equal(c->listeners[1].port, 25);
    assert_int_equal(c->listeners[1].line, 20);
    assert_true(net_parse("10.0.0.1", &a));
    assert_false(net_ranges_have(&c->allow, &a));
    assert_int_equal(c->max_size, 100 * MB);
    assert_int_equal(c->max_recipients, 10);
    assert_int_equal(c->max_sessions, 20);
    assert_int_equal(c->max_sessions_per_device, 5);
    assert_int_equal(c->max_messages_per_minute, 12);
    assert_int_equal(c->max_spool, GB);
    assert_int_equal(c->join_split, CONFIG_NO);
    assert_true(c->max_messages_given);
    assert_int_equal(c->recipient_domains.count, 3);
    assert_string_equal(c->recipient_domains.list[0], "example.com");
    assert_string_equal(c->recipient_domains.list[1], ".example.net");
    assert_string_equal(c->recipient_domains.list[2], "example.org");
    assert_true(net_parse("192.168.1.20", &a));
    assert_true(net_ranges_have(&c->legacy_tls, &a));
    assert_true(net_parse("192.168.1.21", &a));
    assert_false(net_ranges_have(&c->legacy_tls, &a));
    assert_int_equal(c->listeners[0].tls, CONFIG_LISTENER_AUTO);
    assert_string_equal(c->listeners[0].certificate, "");
    assert_int_equal(c->listeners[1].tls, CONFIG_LISTENER_REQUIRED);
    assert_string_equal(c->listeners[1].certificate, "/etc/outtray/c.pem");
    assert_string_equal(c->listeners[1].private_key, "/etc/outtray/k.pem");
    assert_string_equal(c->certificate, "");
    assert_int_equal(c->devices[0].max_size, MB);
    assert_int_equal(c->devices[0].max_recipients, 2);
    assert_int_equal(c->devices[0].max_sessions, 3);
    assert_int_equal(c->devices[0].max_messages_per_minute, 4);
    assert_int_equal(c->devices[0].max_spool, 3 * MB);
    assert_int_equal(c->devices[0].join_split, CONFIG_YES);
    assert_int_equal(c->devices[0].report_to_sender, CONFIG_REPORT_NO);
    assert_int_equal(c->devices[0].sent_twice, CONFIG_TWICE_MARK);
    assert_int_equal(c->devices[0].recipient_domains.count, 1);
    assert_int_equal(c->idle_ms, 300000);
    assert_string_equal(c->passwords, "/srv/passwords");
    assert_int_equal(c->hide, CONFIG_KEYWORD_STARTTLS | CONFIG_KEYWORD_AUTH | CONFIG_KEYWORD_DSN);
    assert_int_equal(c->auth_equals, CONFIG_YES);
    assert_int_equal(c->lf_dot_lf, CONFIG_NO);
    assert_string_equal(c->charset, "iso-8859-2");
    assert_int_equal(c->listeners[0].auth, CONFIG_LOGIN_ANY);
    assert_int_equal(c->listeners[1].auth, CONFIG_LOGIN_REQUIRED);
    assert_string_equal(c->devices[0].login, "alarm@example.com");
    assert_true(c->devices[0].has_auth);
    assert_int_equal(c->devices[0].auth, CONFIG_LOGIN_OPTIONAL);
    assert_int_equal(c->devices[0].hide, CONFIG_KEYWORD_SIZE | CONFIG_KEYWORD_CHUNKING |
                                             CONFIG_KEYWORD_PIPELINING | CONFIG_KEYWORD_8BITMIME |
                                             CONFIG_KEYWORD_SMTPUTF8);
    assert_int_equal(c->devices[0].auth_equals, CONFIG_NO);
    assert_int_equal(c->devices[0].lf_dot_lf, CONFIG_YES);
    assert_int_equal(c->devices[0].mt_priority, CONFIG_YES);
    assert_int_equal(c->device_count, 1);
    assert_string_equal(c->devices[0].name, "alarm");
    assert_int_equal(c->devices[0].addresses.count, 2);
    assert_int_equal(c->devices[0].lane, LANE_URGENT);
    assert_true(c->devices[0].has_lane);
    assert_int_equal(c->devices[0].importance, CONFIG_YES);
    assert_string_equal(c->devices[0].route, "alarms");
    assert_string_equal(mb->provider, "custom");
    assert_string_equal(mb->host, "mail.example.net");
    assert_int_equal(mb->port, 465);
    assert_int_equal(mb->tls, CONFIG_TLS_IMPLICIT);
    assert_int_equal(mb->auth, CONFIG_AUTH_NONE);
    assert_string_equal(mb->address, "alarm@example.net");
    assert_string_equal(mb->login, "alarm-login");
    assert_string_equal(mb->password_file, "/etc/outtray/hub");
    assert_string_equal(mb->ca_file, "/etc/outtray/ca.pem");
    assert_string_equal(mb->helo, "out.example.net");
    assert_int_equal(mb->connections, 7);
    assert_int_equal(mb->in_flight, 4);
    assert_int_equal(c->mailboxes[0].in_flight, 1);
    assert_int_equal(mb->messages_per_minute, 8);
    assert_int_equal(mb->recipients_per_day, 9);
    assert_int_equal(mb->urgent_reserve, 2);
    assert_int_equal(mb->urgent_connections, 5);
    assert_int_equal(mb->idle_ms, 20000);
    assert_int_equal(mb->session_ms, 300000);
    assert_int_equal(mb->recipients_per_message, 6);
    assert_int_equal(c->mailboxes[0].recipients_per_message, 500);
    assert_int_equal(mb->send_as.count, 3);
    assert_string_equal(mb->send_as.list[0], "door@example.net");
    assert_string_equal(mb->send_as.list[2], ".example.org");
    assert_string_equal(mb->from, "alarm@example.net");
    assert_string_equal(mb->from_name, "Alarm");
    assert_string_equal(c->mailboxes[0].from, "rewrite");
    assert_string_equal(c->devices[0].from, "keep");
    assert_string_equal(c->devices[0].from_name, "Alarm, hall");
    assert_ptr_equal(config_find_device(c, "alarm"), &c->devices[0]);
    assert_null(config_find_device(c, "door"));
    assert_int_equal(mb->max_size, 20 * MB);
    assert_string_equal(c->socket, "/run/x/y.sock");
    const struct config_route *r = &c->routes[1];
    assert_string_equal(r->name, "alarms");
    assert_int_equal(r->mailbox_count, 1);
    assert_int_equal(r->backup_count, 1);
    assert_int_equal(r->backup[0], 0);
    assert_int_equal(r->backup_after_ms, 5 * 60 * 1000);
    assert_int_equal(r->backup_urgent, CONFIG_NO);
    assert_int_equal(r->choose, CONFIG_CHOOSE_ORDER);
    assert_int_equal(r->listener_count, 1);
    assert_int_equal(r->listeners[0], 1);
    assert_string_equal(r->senders.list[0], "alarm@example.com");
    assert_string_equal(r->recipient_domains.list[0], "example.com");
    assert_int_equal(c->routes[0].choose, CONFIG_CHOOSE_SHARE);
    assert_int_equal(c->routes[0].backup_urgent, CONFIG_YES);
    config_free(c);
}

static void every_row_has_a_key_in_that_file(void **state)
{
    size_t count;
    const struct config_row *rows = config_rows(&count);
    char line[80];

    (void)state;
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(line, sizeof line, "\n%s = ", rows[i].key);
        if (strstr(everything, line) == NULL)
            fail_msg("%s is not tested", rows[i].key);
    }
}

static void the_default_route_comes_first_and_keeps_the_order_of_the_rest(void **state)
{
    struct config *c = parse_good(MAILBOX "[mailbox b]\naddress = b@example.com\n"
                                          "[route one]\nmailboxes = b\n"
                                          "[route two]\nmailboxes = office\n"
                                          "[route default]\nmailboxes = b, office\n");

    (void)state;
    assert_int_equal(c->route_count, 3);
    assert_string_equal(c->routes[0].name, "default");
    assert_int_equal(c->routes[0].mailbox_count, 2);
    assert_int_equal(c->routes[0].mailboxes[0], 1);
    assert_int_equal(c->routes[0].mailboxes[1], 0);
    assert_string_equal(c->routes[1].name, "one");
    assert_string_equal(c->routes[2].name, "two");
    config_free(c);
}

static void without_a_default_route_there_is_one_of_all_mailboxes(void **state)
{
    struct config *c = parse_good(MAILBOX "[mailbox b]\naddress = b@example.com\n"
                                          "[route one]\nmailboxes = b\n");

    (void)state;
    assert_int_equal(c->route_count, 2);
    assert_string_equal(c->routes[0].name, "default");
    assert_int_equal(c->routes[0].mailbox_count, 2);
    assert_int_equal(c->routes[0].line, 0);
    assert_string_equal(c->routes[1].name, "one");
    config_free(c);
}

static void five_lines_are_enough_for_microsoft_365(void **state)
{
    struct config *c = parse_good("[mailbox office]\n"
                                  "provider = office365\n"
                                  "address = scans@example.com\n"
                                  "tenant = example.onmicrosoft.com\n"
                                  "client_id = 11111111-2222-3333-4444-555555555555\n"
                                  "certificate_file = /etc/outtray/office.pem\n");
    const struct config_mailbox *mb = &c->mailboxes[0];

    (void)state;
    assert_int_equal(mb->auth, CONFIG_AUTH_OAUTH2);
    assert_true(mb->has_oauth);
    assert_int_equal(mb->grant, CONFIG_GRANT_CLIENT_CREDENTIALS);
    assert_string_equal(
        mb->token_url,
        "https://login.microsoftonline.com/example.onmicrosoft.com/oauth2/v2.0/token");
    assert_string_equal(mb->scope, "https://outlook.office365.com/.default");
    config_free(c);
}

struct grant_row {
    const char *name;
    const char *keys;
    enum config_grant grant;
    const char *scope;
};

static void the_grant_follows_from_what_is_given(void **state)
{
    static const struct grant_row rows[] = {
        {"a person at Microsoft", "tenant = t\nclient_id = c\n", CONFIG_GRANT_DEVICE,
         "https://outlook.office.com/SMTP.Send offline_access"},
        {"a person with a browser", "tenant = t\nclient_id = c\ngrant = browser\n",
         CONFIG_GRANT_BROWSER, "https://outlook.office.com/SMTP.Send offline_access"},
        {"a consumer", "provider = outlook.com\nclient_id = c\n", CONFIG_GRANT_DEVICE,
         "https://outlook.office.com/SMTP.Send offline_access"},
        {"a person at Google", "provider = gmail\nclient_id = c\nclient_secret_file = /s\n",
         CONFIG_GRANT_BROWSER, "https://mail.google.com/"},
        {"a service account", "provider = gmail\nservice_account_file = /s\n", CONFIG_GRANT_JWT,
         "https://mail.google.com/"},
        {"an application elsewhere",
         "provider = custom\nhost = h.example\nclient_id = c\nclient_secret_file = /s\n"
         "token_url = https://sts.example/token\n",
         CONFIG_GRANT_CLIENT_CREDENTIALS, ""},
        {"GCC High", "provider = gcc-high\ntenant = t\nclient_id = c\nclient_secret_file = /s\n",
         CONFIG_GRANT_CLIENT_CREDENTIALS, "https://outlook.office365.us/.default"},
        {"a scope of its own", "tenant = t\nclient_id = c\nclient_secret_file = /s\nscope = x y\n",
         CONFIG_GRANT_CLIENT_CREDENTIALS, "x y"},
    };
    char text[512];

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct config *c;

        print_message("  %s\n", rows[i].name);
        (void)snprintf(text, sizeof text, MAILBOX "%s", rows[i].keys);
        c = parse_good(text);
        assert_true(c->mailboxes[0].has_oauth);
        assert_int_equal(c->mailboxes[0].auth, CONFIG_AUTH_OAUTH2);
        assert_int_equal(c->mailboxes[0].grant, rows[i].grant);
        assert_string_equal(c->mailboxes[0].scope, rows[i].scope);
        config_free(c);
    }
}

static void a_password_bridges_until_oauth_is_set_up(void **state)
{
    struct config *c = parse_good(MAILBOX "auth = oauth2, password\n");

    (void)state;
    assert_int_equal(c->mailboxes[0].auth, CONFIG_AUTH_OAUTH2 | CONFIG_AUTH_PASSWORD);
    assert_false(c->mailboxes[0].has_oauth);
    config_free(c);
    c = parse_good(MAILBOX "auth = password\ntenant = t\nclient_id = c\n");
    assert_int_equal(c->mailboxes[0].auth, CONFIG_AUTH_PASSWORD);
    assert_false(c->mailboxes[0].has_oauth);
    config_free(c);
}

static void a_section_changes_what_a_preset_says_and_nothing_else(void **state)
{
    struct config *c = parse_good(MAILBOX "[provider office365]\nhost = smtp.office365.test\n");

    (void)state;
    assert_string_equal(c->mailboxes[0].host, "smtp.office365.test");
    assert_int_equal(c->mailboxes[0].recipients_per_day, 10000);
    config_free(c);
}

static void custom_takes_its_own_defaults(void **state)
{
    struct config *c = parse_good("[mailbox m]\nprovider = custom\nhost = mail.example.com\n"
                                  "address = a@example.com\n");

    (void)state;
    assert_int_equal(c->mailboxes[0].port, 587);
    assert_int_equal(c->mailboxes[0].connections, 3);
    assert_int_equal(c->mailboxes[0].messages_per_minute, 0);
    assert_int_equal(c->mailboxes[0].recipients_per_day, 0);
    assert_int_equal(c->mailboxes[0].max_size, 35 * MB);
    config_free(c);
}

/* ---- devices and their logins ---- */

static void a_device_has_what_devices_says_unless_it_says_otherwise(void **state)
{
    struct config *c = parse_good("[device first]\naddress = 10.0.0.1\n"
                                  "[device second]\nlogin = camera\nhide =\nlf_dot_lf = yes\n"
                                  "[devices]\nhide = SIZE\nauth_equals = yes\nlf_dot_lf = no\n"
                                  "join_split = yes\n" MAILBOX);

    (void)state;
    assert_string_equal(c->devices[0].login, "first");
    assert_false(c->devices[0].has_auth);
    assert_int_equal(c->devices[0].hide, CONFIG_KEYWORD_SIZE);
    assert_int_equal(c->devices[0].auth_equals, CONFIG_YES);
    assert_int_equal(c->devices[0].lf_dot_lf, CONFIG_NO);
    assert_int_equal(c->devices[0].join_split, CONFIG_YES);
    assert_int_equal(c->devices[0].mt_priority, CONFIG_NO);
    assert_string_equal(c->devices[1].login, "camera");
    assert_int_equal(c->devices[1].addresses.count, 0);
    assert_int_equal(c->devices[1].hide, 0);
    assert_int_equal(c->devices[1].auth_equals, CONFIG_YES);
    assert_int_equal(c->devices[1].lf_dot_lf, CONFIG_YES);
    config_free(c);
}

static void mistakes_about_logins_are_told(void **state)
{
    (void)state;
    expect_mistakes("[device a]\nlane = urgent\n" MAILBOX,
                    "test.conf:1: [device a] needs address; write a line such as address = "
                    "192.168.1.20, 192.168.1.30-192.168.1.39\n");
    config_free(parse_good("[device 10.0.0.1]\naddress = 10.0.0.0/24\n" MAILBOX));
    expect_mistakes("[device 10.0.0.1]\naddress = 10.0.0.2\n" MAILBOX,
                    "test.conf:1: [device 10.0.0.1] is named like an address that it does not "
                    "have; choose another name, or add it to address\n");
    expect_mistakes("[device a]\nlogin = B\n[device b]\naddress = 10.0.0.1\n" MAILBOX,
                    "test.conf:2: login = B is that of [device b], at line 3; choose another\n");
    expect_mistakes(
        "[devices]\nhide = STARTTLS TLS\nauth_equals =\n[listener l]\nauth = some\n" MAILBOX,
        "test.conf:2: hide = STARTTLS TLS: \"TLS\" is none of them; write some of: "
        "STARTTLS AUTH SIZE CHUNKING PIPELINING 8BITMIME SMTPUTF8 DSN, with spaces "
        "between them\n"
        "test.conf:3: auth_equals has no value; write one or take the line out\n"
        "test.conf:5: auth = some: write one of: off any optional required\n");
}

static void proxies_and_listeners_that_work_are_good(void **state)
{
    static const char *const proxies[] = {"http://proxy.example.com:3128", "proxy.example.com:3128",
                                          "http://name:pass@10.0.0.1:8080/",
                                          "socks5h://[fd00::1]:1080", "none"};
    char text[256];

    (void)state;
    for (size_t i = 0; i < sizeof proxies / sizeof *proxies; i++) {
        (void)snprintf(text, sizeof text, MAILBOX "[relay]\nproxy = %s\n", proxies[i]);
        config_free(parse_good(text));
    }
    config_free(parse_good(MAILBOX "[listener a]\naddress = 0.0.0.0\n[listener b]\naddress = ::\n"
                                   "[listener c]\nport = 465\naddress = 10.0.0.1\n"));
    config_free(parse_good(MAILBOX "[devices]\ncharset = koi8-r\n"));
}

/* ---- who may connect where ---- */

static const struct {
    const char *name;
    const char *text;
    bool good;
} publics[] = {
    {"a public address", "[listener x]\naddress = 203.0.113.5\n", false},
    {"a public address, IPv6", "[listener x]\naddress = 2001:db8::5\n", false},
    {"with an allow list",
     "[listener x]\naddress = 203.0.113.5\n[devices]\nallow = 203.0.113.0/24\n", true},
    {"with a device", "[listener x]\naddress = 203.0.113.5\n[device d]\naddress = 203.0.113.7\n",
     true},
    {"a private address", "[listener x]\naddress = 192.168.1.5\n", true},
    {"a private address, IPv6", "[listener x]\naddress = fd00::5\n", true},
    {"loopback", "[listener x]\naddress = 127.0.0.1\n", true},
    {"link-local", "[listener x]\naddress = fe80::1\n", true},
    {"all addresses", "[listener x]\nport = 25\n", true},
    {"all addresses by number", "[listener x]\naddress = 0.0.0.0\n", true},
    {"all addresses by number, IPv6", "[listener x]\naddress = ::\n", true},
};

static void a_public_address_needs_a_list_of_who_may_connect(void **state)
{
    char text[256];

    (void)state;
    for (size_t i = 0; i < COUNT(publics); i++) {
        struct result r;

        (void)snprintf(text, sizeof text, "%s%s", publics[i].text, MAILBOX);
        r = parse_n(text, strlen(text));
        if ((r.config != NULL) != publics[i].good)
            fail_msg("%s: %s", publics[i].name, r.mistakes);
        if (!publics[i].good && strstr(r.mistakes, "test.conf:1: [listener x] is on ") == NULL)
            fail_msg("%s: %s", publics[i].name, r.mistakes);
        config_free(r.config);
        free(r.mistakes);
    }
}

static void a_certificate_and_its_key_come_together(void **state)
{
    (void)state;
    expect_mistakes("[relay]\ncertificate = /c.pem\n" MAILBOX,
                    "test.conf:2: certificate and private_key belong together; private_key is "
                    "missing\n");
    expect_mistakes("[listener l]\nport = 465\nprivate_key = /k.pem\n" MAILBOX,
                    "test.conf:3: certificate and private_key belong together; certificate is "
                    "missing\n");
}

static void senders_are_addresses_or_domains(void **state)
{
    (void)state;
    expect_mistakes("[mailbox office]\naddress = a@example.com\nsend_as = example.com, not one\n"
                    "from = nobody\nurgent_reserve = 30\n",
                    "test.conf:3: send_as = example.com, not one: \"not one\" is neither a mail "
                    "address nor a domain; write alarm@example.com, example.com, or .example.com "
                    "for all below it, with commas between\n"
                    "test.conf:4: from = nobody: write rewrite, keep or a mail address such as "
                    "scans@example.com\n"
                    "test.conf:5: urgent_reserve = 30 leaves nothing of messages_per_minute = 30 "
                    "to other mail; write a smaller number\n");
}

static void what_is_no_domain_is_not_taken_for_one(void **state)
{
    (void)state;
    expect_mistakes("[devices]\nrecipient_domains = example.com, a@example.com\n" MAILBOX,
                    "test.conf:2: recipient_domains = example.com, a@example.com: "
                    "\"a@example.com\" is not a domain; write example.com, or .example.com for "
                    "all below it, with commas between them\n");
}

static void an_empty_user_means_to_stay_who_we_are(void **state)
{
    struct config *c = parse_good("[relay]\nuser =\n" MAILBOX);

    (void)state;
    assert_string_equal(c->user, "");
    config_free(c);
}

/* ---- the text ---- */

static const struct {
    const char *name;
    const char *text;
} shapes[] = {
    {"CR LF line ends", "[relay]\r\nspool = /a b\r\n[mailbox m]\r\naddress = a@b.example\r\n"},
    {"no line end at the end", "[mailbox m]\naddress = a@b.example\n[relay]\nspool = /a b"},
    {"a byte-order mark",
     "\xef\xbb\xbf[relay]\nspool = /a b\n[mailbox m]\naddress = a@b.example\n"},
    {"a byte-order mark and CR LF",
     "\xef\xbb\xbf# x\r\n[relay]\r\nspool = /a b\r\n[mailbox m]\r\naddress = a@b.example"},
    {"indented keys and sections",
     "  [relay]\n    spool = /a b\n\t[mailbox m]\n\t\taddress = a@b.example\n\t\tport = 587\n"},
    {"comments and empty lines",
     "# one\n; two\n\n   \n  # three\n[relay] ; why\n[mailbox m] # so\naddress = a@b.example ; "
     "who\n"
     "[api]\n[devices]\n[device d]\naddress = 10.0.0.1\n[listener l]\n"},
    {"no blanks at all", "[relay]\nspool=/a b\n[mailbox m]\naddress=a@b.example"},
    {"colons and wide blanks",
     "[ relay ]\nspool :  /a b  \n[ mailbox   m ]\naddress: a@b.example\n"},
    {"a comment without a line end", "[mailbox m]\naddress = a@b.example\n#"},
    {"a section name at the very limit and longer than inih's",
     "[mailbox m]\naddress = a@b.example\n"
     "[device aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]\naddress = "
     "10.0.0.1\n"
     "[device aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab]\naddress = "
     "10.0.0.2\n"},
};

static void files_come_in_many_shapes(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++) {
        struct config *c;

        print_message("  %s\n", shapes[i].name);
        c = parse_good(shapes[i].text);
        assert_string_equal(c->mailboxes[0].name, "m");
        assert_string_equal(c->mailboxes[0].address, "a@b.example");
        if (strstr(shapes[i].text, "spool") != NULL)
            assert_string_equal(c->spool, "/a b");
        config_free(c);
    }
}

static void lists_go_on_in_another_line(void **state)
{
    struct config *c = parse_good(MAILBOX "[devices]\nallow = 10.0.0.0/8\nallow = fd00::/8, ::1\n"
                                          "[mailbox b]\naddress = b@example.com\n"
                                          "[route default]\nmailboxes = b\nmailboxes = office\n");

    (void)state;
    assert_int_equal(c->allow.count, 3);
    assert_int_equal(c->routes[0].mailbox_count, 2);
    config_free(c);
}

/* A good file whose fourth line has that length and ends in 'y'. */
static void text_with_line(char *out, size_t len)
{
    size_t n = (size_t)sprintf(out, MAILBOX "[relay]\nspool = /");
    size_t rest = len - strlen("spool = /");

    memset(out + n, 'x', rest - 1);
    memcpy(out + n + rest - 1, "y\n[api]\n", sizeof "y\n[api]\n");
}

static void a_line_of_the_greatest_length_is_read_whole(void **state)
{
    char text[CONFIG_LINE_MAX + 200];
    struct config *c;

    (void)state;
    text_with_line(text, CONFIG_LINE_MAX);
    c = parse_good(text);
    assert_int_equal(strlen(c->spool), CONFIG_LINE_MAX - strlen("spool = "));
    assert_int_equal(c->spool[strlen(c->spool) - 1], 'y');
    config_free(c);
}

static void a_longer_line_is_a_mistake(void **state)
{
    char text[CONFIG_LINE_MAX + 200];

    (void)state;
    text_with_line(text, CONFIG_LINE_MAX + 1);
    expect_mistakes(text,
                    "test.conf:4: the line has 198 characters and at most 197 can be read; a list "
                    "may be spread over several lines, each with the key in front\n");
}

static void a_long_comment_is_none(void **state)
{
    char text[4 * CONFIG_LINE_MAX];
    int n = sprintf(text, MAILBOX "# ");
    struct config *c;

    (void)state;
    memset(text + n, 'x', sizeof text - (size_t)n - 1);
    text[sizeof text - 1] = '\0';
    c = parse_good(text);
    config_free(c);
}

struct cut {
    size_t longest;
};

static int note_value(void *user, const char *section, const char *name, const char *value)
{
    struct cut *cut = user;

    (void)section;
    (void)name;
    if (strlen(value) > cut->longest)
        cut->longest = strlen(value);
    return 1;
}

/* What the packaged library takes, so that a build of it with smaller limits is noticed here. */
static void the_inih_library_takes_lines_as_long_as_ours(void **state)
{
    char text[CONFIG_LINE_MAX + 16];
    struct cut cut = {0};

    (void)state;
    memcpy(text, "[s]\nk=", 6);
    memset(text + 6, 'x', CONFIG_LINE_MAX - 2);
    memcpy(text + 6 + CONFIG_LINE_MAX - 2, "\r\n", 3);
    assert_int_equal(ini_parse_string(text, note_value, &cut), 0);
    assert_int_equal(cut.longest, CONFIG_LINE_MAX - 2);
}

/* ---- mistakes ---- */

static const struct {
    const char *name;
    const char *text;
    const char *mistakes;
} wrong[] = {
    {"no mailbox", "[relay]\n", "test.conf: " NO_MAILBOX "\n"},
    {"a misspelt section", "[mailbx office]\naddress = a@b.example\n",
     "test.conf:1: there is no section [mailbx office]; did you mean [mailbox office]?\n"},
    {"a section in capitals", MAILBOX "[Relay]\n",
     "test.conf:3: there is no section [Relay]; did you mean [relay]?\n"},
    {"a section of another world", MAILBOX "[kerberos]\nspool = /x\nnonsense\n",
     "test.conf:3: there is no section [kerberos]; there are [relay], [listener NAME], [devices], "
     "[device NAME], [mailbox NAME], [route NAME], [provider NAME], [notify NAME] and [api]\n"
     "test.conf:5: the line is neither a [section] nor key = value; a comment starts with #\n"},
    {"a section without its name", MAILBOX "[device]\naddress = 10.0.0.1\n",
     "test.conf:3: [device] needs a name, such as [device printer-1st-floor]\n"},
    {"a section with a name too many", MAILBOX "[relay main]\n",
     "test.conf:3: [relay] takes no name; write [relay]\n"},
    {"a name of two words", MAILBOX "[device front door]\naddress = 10.0.0.1\n",
     "test.conf:3: a name is at most 63 letters, digits, '-', '_' and '.', such as [device "
     "printer-1st-floor]\n"},
    {"the same section twice", MAILBOX "[mailbox office]\naddress = b@b.example\n",
     "test.conf:3: [mailbox office] is there already, at line 1; put the keys there\n"},
    {"a bracket missing", MAILBOX "[relay\nspool = /x\n",
     "test.conf:3: the ] is missing; write a section as [relay] or [mailbox office]\n"},
    {"text behind a section", MAILBOX "[relay] spool = /x\n",
     "test.conf:3: there is text after the ]; write a section as [relay] or [mailbox office]\n"},
    {"a key before any section", "spool = /x\n" MAILBOX,
     "test.conf:1: spool stands before the first [section]; is there still a # in front of the "
     "section's line?\n"},
    {"a line of words", MAILBOX "please deliver\n",
     "test.conf:3: the line is neither a [section] nor key = value; a comment starts with #\n"},
    {"a value without a key", MAILBOX "= x\n",
     "test.conf:3: the line is neither a [section] nor key = value; a comment starts with #\n"},
    {"a control character",
     MAILBOX "login = a\x01"
             "b\n",
     "test.conf:3: the line holds a control character; save the file as plain text (UTF-8)\n"},
    {"a misspelt key", MAILBOX "conections = 3\n",
     "test.conf:3: there is no key conections in [mailbox office]; did you mean connections?\n"},
    {"a key with hyphens", MAILBOX "max-size = 3\n",
     "test.conf:3: there is no key max-size in [mailbox office]; did you mean max_size?\n"},
    {"a key of another section", MAILBOX "[relay]\nport = 25\n",
     "test.conf:4: there is no key port in [relay]; it belongs in [mailbox NAME] or [listener "
     "NAME] or [provider NAME]\n"},
    {"an unheard-of key", MAILBOX "colour = blue\n",
     "test.conf:3: there is no key colour in [mailbox office]; see outtray.conf(5)\n"},
    {"the password itself", MAILBOX "password = hunter2\n",
     "test.conf:3: there is no key password in [mailbox office]: the password does not belong in "
     "this file, which is copied, shown and mailed around; write it to a file of its own "
     "(root:outtray, mode 640) and name that with password_file\n"},
    {"another word for a key", MAILBOX "username = x\n",
     "test.conf:3: there is no key username in [mailbox office]: the key is login, or only address "
     "when both are the same\n"},
    {"the same key twice", MAILBOX "port = 587\nlogin = x\nport = 25\n",
     "test.conf:5: port is there already, at line 3; take one of them out\n"},
    {"a comment as elsewhere", MAILBOX "port = 587 # submission\n",
     "test.conf:3: port: a comment behind a value starts with ; and not with #\n"},
    {"no value", MAILBOX "port =\n",
     "test.conf:3: port has no value; write one or take the line out\n"},
    {"a required key missing", "[mailbox office]\n[device d]\n",
     "test.conf:1: [mailbox office] needs address; write a line such as address = "
     "scans@example.com\n"
     "test.conf:2: [device d] needs address; write a line such as address = 192.168.1.20, "
     "192.168.1.30-192.168.1.39\n"},
    {"a custom mailbox without a host", "[mailbox m]\nprovider = custom\naddress = a@b.example\n",
     "test.conf:1: [mailbox m] needs host, because its provider is custom; write a line such as "
     "host "
     "= mail.example.com\n"},
    {"OAuth without anything else", MAILBOX "auth = oauth2\n",
     "test.conf:1: [mailbox office] signs in with OAuth and needs client_id; write client_id = "
     "with "
     "the application (client) ID from the overview of the app registration, or sign_in = with the "
     "name of a mailbox that has it\n"
     "test.conf:1: [mailbox office] signs in with OAuth and needs tenant; write tenant = with the "
     "organisation's directory (tenant) ID or one of its domains, such as "
     "example.onmicrosoft.com\n"},
    {"an application without proof",
     MAILBOX "tenant = t\nclient_id = c\ngrant = client-credentials\n",
     "test.conf:1: [mailbox office] signs in with OAuth and needs the application's secret or "
     "certificate; write client_secret_file = or certificate_file = with its file\n"},
    {"two proofs",
     MAILBOX "tenant = t\nclient_id = c\nclient_secret_file = /s\ncertificate_file = /c\n",
     "test.conf:5: client_secret_file and certificate_file are two ways to prove the same; take "
     "one "
     "of them out\n"},
    {"an application of everybody's tenant",
     MAILBOX "tenant = common\nclient_id = c\nclient_secret_file = /s\n",
     "test.conf:3: tenant = common: an application signs in to one organisation; write its "
     "directory (tenant) ID or one of its domains\n"},
    {"no tenant", MAILBOX "tenant = a/b\nclient_id = c\n",
     "test.conf:3: tenant = a/b: this is neither an ID nor a domain; write one such as "
     "example.onmicrosoft.com\n"},
    {"a service account without its key", MAILBOX "provider = gmail\ngrant = jwt\n",
     "test.conf:1: [mailbox office] signs in with OAuth and needs service_account_file; write "
     "service_account_file = with the JSON key of the service account\n"},
    {"OAuth where there is none",
     MAILBOX "provider = sendgrid\nclient_id = c\nmechanisms = XOAUTH2\nscope = s\n"
             "client_secret_file = /s\n",
     "test.conf:1: [mailbox office] signs in with OAuth and needs token_url; write token_url = "
     "with "
     "the address of its token endpoint, because its provider has none\n"},
    {"OAuth with mechanisms for passwords",
     MAILBOX "tenant = t\nclient_id = c\nmechanisms = LOGIN\n",
     "test.conf:5: [mailbox office] signs in with OAuth, but none of its mechanisms can do that; "
     "add one of: XOAUTH2 OAUTHBEARER\n"},
    {"a password for a provider of tokens", MAILBOX "provider = outlook.com\nauth = password\n",
     "test.conf:4: [mailbox office] signs in with a password, but none of its mechanisms can do "
     "that; add one of: LOGIN PLAIN SCRAM-SHA-256 SCRAM-SHA-1\n"},
    {"none and more", MAILBOX "auth = none, password\n",
     "test.conf:3: auth = none stands alone; take it out, or the others\n"},
    {"the sign-in of a mailbox that is not there", MAILBOX "sign_in = ofice2\n",
     "test.conf:3: there is no [mailbox ofice2]; did you mean office?\n"},
    {"its own sign-in", MAILBOX "sign_in = office\n",
     "test.conf:3: sign_in = office: [mailbox office] has no OAuth sign-in of its own; name one "
     "that has client_id\n"},
    {"the sign-in of a mailbox and its own",
     MAILBOX "tenant = t\nclient_id = c\n[mailbox b]\naddress = b@example.com\nsign_in = office\n"
             "client_id = d\n",
     "test.conf:8: client_id is taken from [mailbox office], which sign_in names; take one of the "
     "two out\n"},
    {"a plain http token endpoint", MAILBOX "token_url = http://sts.example.com/\n",
     "test.conf:3: token_url = http://sts.example.com/: this is no address; write one that starts "
     "with https://\n"},
    {"no date", MAILBOX "secret_expires = 30.6.2027\n",
     "test.conf:3: secret_expires = 30.6.2027: this is not a date; write one such as 2027-06-30\n"},
    {"no day", MAILBOX "secret_expires = 2027-02-30\n",
     "test.conf:3: secret_expires = 2027-02-30: there is no such day; write one such as "
     "2027-06-30\n"},
    {"a secret in the file", MAILBOX "client_secret = abc\n",
     "test.conf:3: there is no key client_secret in [mailbox office]: write the secret to a file "
     "of "
     "its own and name that with client_secret_file\n"},
    {"a provider that needs a host", MAILBOX "provider = ses\n",
     "test.conf:1: [mailbox office] needs host, because its provider is ses; write a line such as "
     "host = email-smtp.eu-west-1.amazonaws.com\n"},
    {"an unknown provider", MAILBOX "provider = ofice365\n",
     "test.conf:3: provider = ofice365: there is no such one; did you mean office365?\n"},
    {"a provider we have not", MAILBOX "provider = yahoo\n",
     "test.conf:3: provider = yahoo: there is no such one; write one of: office365 gcc-high dod "
     "21vianet outlook.com hve acs gmail google-relay ses sendgrid smtp2go custom, or a [provider "
     "NAME] of your own\n"},
    {"a port out of range", MAILBOX "port = 70000\n",
     "test.conf:3: port = 70000: write a port from 1 to 65535\n"},
    {"a number out of range", MAILBOX "connections = 0\n",
     "test.conf:3: connections = 0: write a number from 1 to 100\n"},
    {"a number with a unit", MAILBOX "connections = 3x\n",
     "test.conf:3: connections = 3x: write a number from 1 to 100\n"},
    {"a negative number", MAILBOX "connections = -3\n",
     "test.conf:3: connections = -3: write a number from 1 to 100\n"},
    {"a huge number", MAILBOX "connections = 99999999999999999999999999\n",
     "test.conf:3: connections = 99999999999999999999999999: write a number from 1 to 100\n"},
    {"a size above the ceiling", MAILBOX "max_size = 200MB\n",
     "test.conf:3: max_size = 200MB: write a size from 64KB to 150MB\n"},
    {"no size", MAILBOX "max_size = big\n",
     "test.conf:3: max_size = big: this is not a size; write one such as 512K, 35MB or 1G\n"},
    {"a time without a unit", MAILBOX "[relay]\ngive_up = 5\n",
     "test.conf:4: give_up = 5: this is not a time; write a number with its unit, such as 30s, 5m, "
     "2h "
     "or 5d\n"},
    {"a time out of range", MAILBOX "[relay]\ngive_up = 90d\n",
     "test.conf:4: give_up = 90d: write a time from 1m to 60d\n"},
    {"no such choice", MAILBOX "tls = none\n",
     "test.conf:3: tls = none: write one of: starttls implicit\n"},
    {"a relative path", MAILBOX "password_file = secret\n",
     "test.conf:3: password_file = secret: this is not an absolute path; write one that starts "
     "with "
     "/\n"},
    {"a URL for a host", MAILBOX "host = smtp://mail.example.com\n",
     "test.conf:3: host = smtp://mail.example.com: this is neither a host name nor an IP address; "
     "write it without protocol, port or brackets, such as mail.example.com\n"},
    {"a name for an address", MAILBOX "[listener l]\naddress = eth0\n",
     "test.conf:4: address = eth0: this is not an IP address; write one such as 192.168.1.10 or "
     "fd00::10\n"},
    {"no mail address", "[mailbox m]\naddress = scans\n",
     "test.conf:2: address = scans: this is not a mail address; write one such as "
     "scans@example.com\n"},
    {"no range", MAILBOX "[devices]\nallow = 10.0.0.0/8, 192.168.1.*\n",
     "test.conf:4: allow = 10.0.0.0/8, 192.168.1.*: \"192.168.1.*\" is neither an address nor a "
     "range; "
     "write 192.168.1.20, 192.168.1.0/24 or 192.168.1.20-192.168.1.40, with commas between them\n"},
    {"an empty item", MAILBOX "[devices]\nallow = 10.0.0.0/8,,::1\n",
     "test.conf:4: allow = 10.0.0.0/8,,::1: \"\" is neither an address nor a range; write "
     "192.168.1.20, 192.168.1.0/24 or 192.168.1.20-192.168.1.40, with commas between them\n"},
    {"a route to nowhere", MAILBOX "[route default]\nmailboxes = offce\n",
     "test.conf:4: there is no [mailbox offce]; did you mean office?\n"},
    {"a route to a mailbox of which the heading is wrong",
     MAILBOX "[mailbx b]\naddress = b@b.example\n[route default]\nmailboxes = office, b\n",
     "test.conf:3: there is no section [mailbx b]; did you mean [mailbox b]?\n"},
    {"a route to a listener that is none",
     MAILBOX "[route r]\nmailboxes = office\nlisteners = lann\n[listener lan]\n",
     "test.conf:5: there is no [listener lann]; did you mean lan?\n"},
    {"a backup that is in use already", MAILBOX "[route r]\nmailboxes = office\nbackup = office\n",
     "test.conf:5: backup: office is one of mailboxes already; take it out of one\n"},
    {"a route that names one twice", MAILBOX "[route r]\nmailboxes = office, office\n",
     "test.conf:4: mailboxes: office is named twice\n"},
    {"a device on no route", MAILBOX "[device d]\naddress = 10.0.0.1\nroute = fast\n",
     "test.conf:5: there is no [route fast]; add that section\n"},
    {"two devices at one address",
     MAILBOX "[device a]\naddress = 10.0.0.1, 10.0.0.0/24\n[device b]\naddress = 10.0.0.5/24\n",
     "test.conf:5: [device b] has the same address or range (10.0.0.0) as [device a], at line 3; "
     "take "
     "one of them out\n"},
    {"two listeners in one place", MAILBOX "[listener a]\n[listener b]\nport = 25\n",
     "test.conf:4: [listener b] has the address and port of [listener a], at line 3; change one of "
     "them\n"},
    {"a character set that is none", MAILBOX "[devices]\ncharset = windows 1252\n",
     "test.conf:4: [devices] charset: not the name of a character set; write for example "
     "windows-1252\n"},
    {"a character set that nobody knows", MAILBOX "[devices]\ncharset = klingon\n",
     "test.conf:4: charset = klingon: nobody knows such a character set; write for example "
     "windows-1252, iso-8859-2, koi8-r or shift_jis\n"},
    {"a listener on one address of all", MAILBOX "[listener a]\n[listener b]\naddress = 10.0.0.1\n",
     "test.conf:4: [listener b] has the port of [listener a], at line 3, and one of them is on "
     "every address; change one of the ports, or name an address for each\n"},
    {"a listener on one address of a family",
     MAILBOX "[listener a]\naddress = 127.0.0.1\n[listener b]\naddress = 0.0.0.0\n",
     "test.conf:5: [listener b] has the port of [listener a], at line 3, and one of them is on "
     "every address; change one of the ports, or name an address for each\n"},
    {"one address written in two ways",
     MAILBOX "[listener a]\naddress = fd00::1\n[listener b]\naddress = fd00:0::1\n",
     "test.conf:5: [listener b] has the address and port of [listener a], at line 3; change one of "
     "them\n"},
    {"a proxy without its port", MAILBOX "[relay]\nproxy = socks5://x\n",
     "test.conf:4: proxy: write it as http://HOST:PORT, such as http://proxy.example.com:3128\n"},
    {"a proxy of another kind", MAILBOX "[relay]\nproxy = ftp://x.example:21\n",
     "test.conf:4: proxy: write it as http://HOST:PORT, such as http://proxy.example.com:3128\n"},
    {"words of which none is understood", MAILBOX "auth = passwort\n",
     "test.conf:3: auth = passwort: \"passwort\" is none of them; write some of: oauth2 password "
     "none, with spaces between them\n"},
    {"every word that is not understood", MAILBOX "auth = oaut2 password pasword\n",
     "test.conf:3: auth = oaut2 password pasword: \"oaut2\", \"pasword\" are none of them; write "
     "some of: oauth2 password none, with spaces between them\n"},
    {"every domain that is none", MAILBOX "[devices]\nrecipient_domains = a_b, example.com, c_d\n",
     "test.conf:4: recipient_domains = a_b, example.com, c_d: \"a_b\", \"c_d\" are each not a "
     "domain; write example.com, or .example.com for all below it, with commas between them\n"},
    {"every range that is none", MAILBOX "[devices]\nallow = x, 10.0.0.1, y\n",
     "test.conf:4: allow = x, 10.0.0.1, y: \"x\", \"y\" are each neither an address nor a range; "
     "write 192.168.1.20, 192.168.1.0/24 or 192.168.1.20-192.168.1.40, with commas between them\n"},
    {"an empty file", "",
     "test.conf: the file is empty; write a section [mailbox office] into it, as outtray.conf(5) "
     "shows\n"},
    {"a socket path that is too long",
     MAILBOX
     "[api]\nsocket = /xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
     "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n",
     "test.conf:4: [api] socket: a unix socket's path has at most 107 characters\n"},
};

static void a_mistake_says_where_what_and_what_to_write_instead(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        print_message("  %s\n", wrong[i].name);
        expect_mistakes(wrong[i].text, wrong[i].mistakes);
    }
}

static void all_mistakes_come_at_once_in_the_order_of_the_file(void **state)
{
    (void)state;
    expect_mistakes(
        "[devices]\n"
        "idle_time = 3\n"
        "nonsense\n"
        "[device d]\n"
        "route = nowhere\n"
        "[relay]\n"
        "log_level = loud\n"
        "spol = /x\n",
        "test.conf:2: idle_time = 3: this is not a time; write a number with its unit, "
        "such as 30s, 5m, 2h or 5d\n"
        "test.conf:3: the line is neither a [section] nor key = value; a comment starts "
        "with #\n"
        "test.conf:4: [device d] needs address; write a line such as address = "
        "192.168.1.20, 192.168.1.30-192.168.1.39\n"
        "test.conf:5: there is no [route nowhere]; add that section\n"
        "test.conf:7: log_level = loud: write one of: error warn info debug\n"
        "test.conf:8: there is no key spol in [relay]; did you mean spool?\n"
        "test.conf: " NO_MAILBOX "\n");
}

static void beyond_a_hundred_mistakes_are_counted(void **state)
{
    char text[8 * 1024] = MAILBOX;
    struct result r;
    size_t lines = 0;

    (void)state;
    for (int i = 0; i < CONFIG_MISTAKES_MAX + 7; i++)
        strcat(text, "nonsense\n");
    r = parse_n(text, strlen(text));
    assert_null(r.config);
    for (const char *p = r.mistakes; *p != '\0'; p++)
        lines += *p == '\n';
    assert_int_equal(lines, CONFIG_MISTAKES_MAX + 1);
    assert_non_null(strstr(r.mistakes, "\ntest.conf: and 7 more\n"));
    free(r.mistakes);
}

static void text_in_another_encoding_is_told(void **state)
{
    static const char wide[] = "\xff\xfe[\0r\0e\0l\0a\0y\0]\0";
    static const char nul[] = MAILBOX "login = a\0b\n";
    struct result r = parse_n(wide, sizeof wide - 1);

    (void)state;
    assert_null(r.config);
    assert_string_equal(r.mistakes, "test.conf:1: the file is UTF-16 text; save it as UTF-8\n");
    free(r.mistakes);
    r = parse_n(nul, sizeof nul - 1);
    assert_null(r.config);
    assert_non_null(strstr(r.mistakes, "test.conf:3: the line holds a control character"));
    free(r.mistakes);
}

static void too_many_sections_are_refused_once(void **state)
{
    size_t size = (CONFIG_SECTIONS_MAX + 100) * 32;
    char *text = malloc(size);
    struct result r;
    size_t len = 0;

    (void)state;
    assert_non_null(text);
    for (int i = 0; i < CONFIG_SECTIONS_MAX + 10; i++)
        len += (size_t)snprintf(text + len, size - len, "[listener l%d]\nport = %d\n", i, i + 1);
    r = parse_n(text, len);
    assert_null(r.config);
    assert_string_equal(r.mistakes, "test.conf:8193: there are more than 4096 sections\n"
                                    "test.conf: " NO_MAILBOX "\n");
    free(r.mistakes);
    free(text);
}

static void any_bytes_are_survived(void **state)
{
    char text[400];
    unsigned seed = 12345;

    (void)state;
    for (int round = 0; round < 5000; round++) {
        static const char alphabet[] = "[]=;#:, \n\n\r\t\"'.-/ab0mailbox address\xff\xc3\x01\0";
        size_t len;
        struct result r;

        for (len = 0; len < sizeof text; len++) {
            seed = seed * 1103515245 + 12345;
            text[len] = alphabet[(seed >> 16) % (sizeof alphabet - 1)];
        }
        r = parse_n(text, len);
        assert_true((r.config == NULL) == (*r.mistakes != '\0'));
        config_free(r.config);
        free(r.mistakes);
    }
}

static void a_file_that_is_not_there_is_told_with_its_name(void **state)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    (void)state;
    assert_null(config_load("/nonexistent/outtray.conf", out));
    assert_null(config_load("/tmp", out));
    assert_int_equal(fclose(out), 0);
    assert_string_equal(text,
                        "/nonexistent/outtray.conf: the configuration cannot be read: No such file "
                        "or directory; name another one with -c FILE\n"
                        "/tmp: the configuration cannot be read: Is a directory; name another one "
                        "with -c FILE\n");
    free(text);
}

static void freeing_nothing_is_fine(void **state)
{
    (void)state;
    config_free(NULL);
}

/* ---- values ---- */

static void sizes_and_times_are_read_and_written(void **state)
{
    static const struct {
        const char *text;
        uint64_t octets;
        const char *shown;
    } sizes[] = {
        {"0", 0, "0"},
        {"35MB", 35 * MB, "35MB"},
        {"35m", 35 * MB, "35MB"},
        {"35 MiB", 35 * MB, "35MB"},
        {"512K", 512 * KB, "512KB"},
        {"1G", GB, "1GB"},
        {"1024M", GB, "1GB"},
        {"1000", 1000, "1000"},
        {"2T", 2048 * GB, "2TB"},
        {"1000B", 1000, "1000"},
    };
    static const struct {
        const char *text;
        uint64_t ms;
        const char *shown;
    } times[] = {
        {"30s", 30000, "30s"}, {"90s", 90000, "90s"},   {"5m", 300000, "5m"},
        {"2h", 7200000, "2h"}, {"5d", 432000000, "5d"}, {"1w", 604800000, "7d"},
        {"0s", 0, "0s"},       {"60 m", 3600000, "1h"},
    };
    static const char *const bad[] = {
        "", "s", "5", "5x", "-5s", "5s5", "1.5h", "99999999999999999s", "999999999999999w"};
    char out[32];
    uint64_t value;

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        assert_true(config_value_size(sizes[i].text, &value));
        assert_int_equal(value, sizes[i].octets);
        config_value_size_text(value, out, sizeof out);
        assert_string_equal(out, sizes[i].shown);
    }
    for (size_t i = 0; i < COUNT(times); i++) {
        assert_true(config_value_time(times[i].text, &value));
        assert_int_equal(value, times[i].ms);
        config_value_time_text(value, out, sizeof out);
        assert_string_equal(out, times[i].shown);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(config_value_time(bad[i], &value));
    assert_false(config_value_size("999999999999999T", &value));
}

static void host_names_and_mail_addresses_follow_their_grammar(void **state)
{
    static const struct {
        const char *text;
        bool host;
    } hosts[] = {
        {"localhost", true},
        {"smtp.office365.com", true},
        {"a-b.example", true},
        {"192.168.1.9", true},
        {"fd00::9", true},
        {"", false},
        {"a..b", false},
        {".a", false},
        {"a.", false},
        {"-a.example", false},
        {"a-.example", false},
        {"a_b.example", false},
        {"mail.example:25", false},
        {"[10.0.0.1]", false},
        {"10.0.0.256", false},
        {"192.168.1", false},
        {"a b", false},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example", false},
    };
    static const struct {
        const char *text;
        bool mail;
    } mails[] = {
        {"a@b.example", true},
        {"first.last+tag@b.example", true},
        {"a'b@b.example", true},
        {"", false},
        {"a", false},
        {"@b.example", false},
        {"a@", false},
        {"a@b@c.example", false},
        {"<a@b.example>", false},
        {"a b@c.example", false},
        {"a@b_c.example", false},
        {"a@10.0.0.1", false},
        {"\xc3\xbc@b.example", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(hosts); i++)
        if (config_value_is_host(hosts[i].text) != hosts[i].host)
            fail_msg("%s", hosts[i].text);
    for (size_t i = 0; i < COUNT(mails); i++)
        if (config_value_is_mail(mails[i].text) != mails[i].mail)
            fail_msg("%s", mails[i].text);
}

static void the_nearest_word_is_near(void **state)
{
    static const char *const words[] = {"port", "host", "password_file", "connections"};
    static const struct {
        const char *word;
        const char *nearest;
    } rows[] = {
        {"prot", "port"},
        {"hosts", "host"},
        {"HOST", "host"},
        {"pasword-file", "password_file"},
        {"conections", "connections"},
        {"xyz", NULL},
        {"", NULL},
        {"p", NULL},
        {"certificate", NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *found = config_mistakes_nearest(rows[i].word, words, COUNT(words));

        if (rows[i].nearest == NULL)
            assert_null(found);
        else if (found == NULL)
            fail_msg("nothing is near %s", rows[i].word);
        else
            assert_string_equal(found, rows[i].nearest);
    }
}

/* ---- rows, sample and manual page ---- */

static void rows_hold_together(void **state)
{
    size_t count;
    const struct config_row *rows = config_rows(&count);

    (void)state;
    for (size_t i = 0; i < count; i++) {
        const struct config_row *r = &rows[i];

        print_message("  %s %s\n", r->section, r->key);
        assert_non_null(config_kind_find(r->section));
        assert_ptr_equal(config_row_find(r->section, r->key), r); /* nothing is there twice */
        assert_true(strlen(r->help) > 10 && r->help[strlen(r->help) - 1] == '.');
        assert_true(*r->fallback != '\0' || (r->example != NULL && *r->example != '\0'));
        assert_true(r->type != CONFIG_CHOICE || r->choices != NULL);
        assert_true(r->min <= r->max);
        assert_true(!r->required || *r->fallback == '\0');
    }
}

static void rows_of_a_mailbox_show_what_office365_has(void **state)
{
    static const char *const keys[] = {"host",
                                       "port",
                                       "tls",
                                       "connections",
                                       "messages_per_minute",
                                       "recipients_per_day",
                                       "recipients_per_message",
                                       "max_size"};
    struct config *c = parse_good(MAILBOX);
    struct config_mailbox shown = {.name = NULL};
    const struct config_mailbox *mb = &c->mailboxes[0];
    struct error err = ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < COUNT(keys); i++) {
        const struct config_row *row = config_row_find("mailbox", keys[i]);

        assert_true(config_value_set(row, row->fallback, (char *)&shown + row->field, &err));
    }
    assert_string_equal(config_row_find("mailbox", "provider")->fallback, "office365");
    assert_string_equal(shown.host, mb->host);
    assert_int_equal(shown.port, mb->port);
    assert_int_equal(shown.tls, mb->tls);
    assert_int_equal(shown.connections, mb->connections);
    assert_int_equal(shown.messages_per_minute, mb->messages_per_minute);
    assert_int_equal(shown.recipients_per_day, mb->recipients_per_day);
    assert_int_equal(shown.recipients_per_message, mb->recipients_per_message);
    assert_int_equal(shown.max_size, mb->max_size);
    free(shown.host);
    config_free(c);
}

static void the_choice_of_providers_is_all_of_them(void **state)
{
    const char *choices = config_row_find("mailbox", "provider")->choices;
    struct config *c = parse_good(MAILBOX);
    char text[256] = "";

    (void)state;
    for (size_t i = 0; i < c->provider_count; i++) {
        strcat(text, i > 0 ? " " : "");
        strcat(text, c->providers[i].name);
    }
    assert_string_equal(choices, text);
    config_free(c);
}

static char *written(void (*write)(FILE *))
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    write(out);
    assert_int_equal(fclose(out), 0);
    return text;
}

/* The kept file is the written one. With OUTTRAY_WRITE_DOCS=1 in the environment it becomes it. */
static void expect_kept(const char *path, void (*write)(FILE *))
{
    char file[1024];
    char *text = written(write);
    size_t len = strlen(text);
    char *kept = calloc(1, len + 2); /* one octet more than it should have */
    FILE *f;

    assert_non_null(kept);
    (void)snprintf(file, sizeof file, "%s/%s", OUTTRAY_SOURCE_DIR, path);
    if (getenv("OUTTRAY_WRITE_DOCS") != NULL) {
        f = fopen(file, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(text, 1, len, f), len);
        assert_int_equal(fclose(f), 0);
    }
    f = fopen(file, "r");
    if (f == NULL)
        fail_msg("%s is not there; run this test with OUTTRAY_WRITE_DOCS=1", file);
    kept[fread(kept, 1, len + 1, f)] = '\0';
    (void)fclose(f);
    if (strcmp(text, kept) != 0)
        fail_msg("%s is not what the rows say; run this test with OUTTRAY_WRITE_DOCS=1", file);
    free(kept);
    free(text);
}

static void the_sample_file_is_what_the_rows_say(void **state)
{
    (void)state;
    expect_kept("conf/outtray.conf", config_write_sample);
}

static void the_manual_page_is_what_the_rows_say(void **state)
{
    (void)state;
    expect_kept("packaging/man/outtray.conf.5", config_write_manual);
}

static void the_sample_as_it_is_lacks_only_a_mailbox(void **state)
{
    char *sample = written(config_write_sample);
    struct result r = parse_n(sample, strlen(sample));

    (void)state;
    assert_null(r.config);
    assert_memory_equal(r.mistakes, "test.conf: there is no mailbox", 30);
    assert_ptr_equal(strchr(r.mistakes, '\n'), r.mistakes + strlen(r.mistakes) - 1);
    free(r.mistakes);
    free(sample);
}

/* Takes the # off every line that holds no words of explanation. */
static char *uncommented(const char *sample)
{
    char *text = calloc(1, strlen(sample) + 1);
    char *p = text;

    assert_non_null(text);
    for (bool at_start = true; *sample != '\0'; sample++) {
        if (!(at_start && sample[0] == '#' && sample[1] != ' ' && sample[1] != '\n'))
            *p++ = *sample;
        at_start = *sample == '\n';
    }
    return text;
}

/* Of keys that exclude each other. */
static void take_out(char *text, const char *key)
{
    char *line = strstr(text, key);
    char *end;

    assert_non_null(line);
    end = strchr(line, '\n');
    memmove(line, end + 1, strlen(end + 1) + 1);
}

static void the_sample_with_everything_taken_in_is_a_good_file(void **state)
{
    char *sample = written(config_write_sample);
    char *taken_in = uncommented(sample);
    char *text = NULL;
    struct config *c;

    (void)state;
    take_out(taken_in, "client_secret_file = ");
    take_out(taken_in, "sign_in = ");
    /* What it names as another mailbox is not in it. */
    assert_true(asprintf(&text, "%s\n[mailbox spare]\naddress = spare@example.com\n", taken_in) >
                0);
    free(taken_in);
    c = parse_good(text);
    assert_string_equal(c->mailboxes[0].password_file, "/etc/outtray/office.password");
    assert_int_equal(c->mailboxes[0].max_size, 35 * MB);
    assert_int_equal(c->give_up_ms, 5ull * 24 * 3600 * 1000);
    assert_int_equal(c->listeners[0].port, 25);
    assert_int_equal(c->devices[0].addresses.count, 2);
    config_free(c);
    free(text);
    free(sample);
}

static void the_smallest_example_is_a_good_file(void **state)
{
    struct config *c = config_load(OUTTRAY_SOURCE_DIR "/conf/examples/smallest.conf", stderr);

    (void)state;
    assert_non_null(c);
    assert_int_equal(c->mailbox_count, 1);
    assert_int_equal(c->listener_count, 1);
    assert_true(c->listeners[0].line > 0);
    assert_string_equal(c->mailboxes[0].provider, "office365");
    assert_string_not_equal(c->mailboxes[0].password_file, "");
    config_free(c);
}

static void the_oauth_example_is_a_good_file(void **state)
{
    struct config *c =
        config_load(OUTTRAY_SOURCE_DIR "/conf/examples/microsoft365-oauth.conf", stderr);

    (void)state;
    assert_non_null(c);
    assert_int_equal(c->mailbox_count, 2);
    assert_true(c->mailboxes[1].has_oauth);
    assert_string_equal(c->mailboxes[1].token_url, c->mailboxes[0].token_url);
    config_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_mailbox_is_enough),
        cmocka_unit_test(the_default_networks_are_loopback_and_what_net_calls_private),
        cmocka_unit_test(every_key_reaches_its_field),
        cmocka_unit_test(oauth_keys_reach_their_fields),
        cmocka_unit_test(every_row_has_a_key_in_that_file),
        cmocka_unit_test(the_default_route_comes_first_and_keeps_the_order_of_the_rest),
        cmocka_unit_test(without_a_default_route_there_is_one_of_all_mailboxes),
        cmocka_unit_test(five_lines_are_enough_for_microsoft_365),
        cmocka_unit_test(the_grant_follows_from_what_is_given),
        cmocka_unit_test(a_password_bridges_until_oauth_is_set_up),
        cmocka_unit_test(a_section_changes_what_a_preset_says_and_nothing_else),
        cmocka_unit_test(custom_takes_its_own_defaults),
        cmocka_unit_test(a_device_has_what_devices_says_unless_it_says_otherwise),
        cmocka_unit_test(mistakes_about_logins_are_told),
        cmocka_unit_test(proxies_and_listeners_that_work_are_good),
        cmocka_unit_test(a_public_address_needs_a_list_of_who_may_connect),
        cmocka_unit_test(a_certificate_and_its_key_come_together),
        cmocka_unit_test(senders_are_addresses_or_domains),
        cmocka_unit_test(what_is_no_domain_is_not_taken_for_one),
        cmocka_unit_test(an_empty_user_means_to_stay_who_we_are),
        cmocka_unit_test(files_come_in_many_shapes),
        cmocka_unit_test(lists_go_on_in_another_line),
        cmocka_unit_test(a_line_of_the_greatest_length_is_read_whole),
        cmocka_unit_test(a_longer_line_is_a_mistake),
        cmocka_unit_test(a_long_comment_is_none),
        cmocka_unit_test(the_inih_library_takes_lines_as_long_as_ours),
        cmocka_unit_test(a_mistake_says_where_what_and_what_to_write_instead),
        cmocka_unit_test(all_mistakes_come_at_once_in_the_order_of_the_file),
        cmocka_unit_test(beyond_a_hundred_mistakes_are_counted),
        cmocka_unit_test(text_in_another_encoding_is_told),
        cmocka_unit_test(too_many_sections_are_refused_once),
        cmocka_unit_test(any_bytes_are_survived),
        cmocka_unit_test(a_file_that_is_not_there_is_told_with_its_name),
        cmocka_unit_test(freeing_nothing_is_fine),
        cmocka_unit_test(sizes_and_times_are_read_and_written),
        cmocka_unit_test(host_names_and_mail_addresses_follow_their_grammar),
        cmocka_unit_test(the_nearest_word_is_near),
        cmocka_unit_test(rows_hold_together),
        cmocka_unit_test(rows_of_a_mailbox_show_what_office365_has),
        cmocka_unit_test(the_choice_of_providers_is_all_of_them),
        cmocka_unit_test(the_sample_file_is_what_the_rows_say),
        cmocka_unit_test(the_manual_page_is_what_the_rows_say),
        cmocka_unit_test(the_sample_as_it_is_lacks_only_a_mailbox),
        cmocka_unit_test(the_sample_with_everything_taken_in_is_a_good_file),
        cmocka_unit_test(the_smallest_example_is_a_good_file),
        cmocka_unit_test(the_oauth_example_is_a_good_file),
    };

    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
