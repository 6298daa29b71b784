#include "relay/base/config_rows.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

#define SECONDS(n) ((uint64_t)(n)*1000)
#define MINUTES(n) SECONDS((n)*60)
#define DAYS(n)    MINUTES((n)*24 * 60)
#define KB(n)      ((uint64_t)(n) << 10)
#define MB(n)      ((uint64_t)(n) << 20)
#define GB(n)      ((uint64_t)(n) << 30)
#define TB(n)      ((uint64_t)(n) << 40)

#define NO_FIELD 0 /* CONFIG_NAMES are resolved once all sections are known */

#define KEYWORDS "STARTTLS AUTH SIZE CHUNKING PIPELINING 8BITMIME SMTPUTF8 DSN"

static const struct config_kind kinds[] = {
    {.kind = "mailbox",
     .named = true,
     .example = "office",
     .help = "An account at the mail service that mail is submitted as. At least one is needed. "
             "Without "
             "any [route NAME], every message may leave through every mailbox, the first one in "
             "this file first."},
    {.kind = "relay", .help = "The relay itself."},
    {.kind = "listener",
     .named = true,
     .example = "main",
     .help = "An address and port where devices connect. Without any such section there is one on "
             "port 25 of all addresses, IPv4 and IPv6."},
    {.kind = "devices", .help = "What holds for every device."},
    {.kind = "device",
     .named = true,
     .example = "printer-1st-floor",
     .help =
         "A device, or a group of them, that gets a name in logs, a lane or a route of its own. "
         "What is listed here may connect, whatever [devices] allow says; devices without such a "
         "section are served when it has their address. Ranges of several devices may overlap: the "
         "narrowest one wins."},
    {.kind = "route",
     .named = true,
     .example = "default",
     .help = "Mailboxes that a message may leave through. Needed only where one order for all mail "
             "is not "
             "enough. The route named default is used for every device that names no other."},
    {.kind = "api", .help = "Where the outtray command reaches the daemon."},
};

#define FIELD(type, member) .field = offsetof(struct type, member)

static const struct config_row rows[] = {
    {.section = "mailbox",
     .key = "address",
     .type = CONFIG_MAIL,
     .fallback = "",
     .example = "scans@example.com",
     .help = "Mail address that mail is sent as.",
     .required = true,
     FIELD(config_mailbox, address)},
    {.section = "mailbox",
     .key = "password_file",
     .type = CONFIG_FILE,
     .fallback = "",
     .example = "/etc/outtray/office.password",
     .help =
         "File that holds the password and nothing else. It belongs to root (group outtray, mode "
         "640) or to the user outtray (mode 600). Without this key the password is taken from the "
         "systemd credential NAME.password, or else from the environment variable "
         "OUTTRAY_PASSWORD_NAME, NAME in capitals and with _ for everything but letters and "
         "digits.",
     FIELD(config_mailbox, password_file)},
    {.section = "mailbox",
     .key = "login",
     .type = CONFIG_TEXT,
     .fallback = "",
     .example = "scans@example.com",
     .help = "Name to sign in with, where that is not the address.",
     FIELD(config_mailbox, login)},
    {.section = "mailbox",
     .key = "provider",
     .type = CONFIG_TEXT,
     .fallback = "office365",
     .choices = "office365 custom",
     .help = "The mail service. It sets what this section leaves out: office365 sets what is shown "
             "here; custom sets no host, no messages_per_minute and no recipients_per_day, and the "
             "rest as shown.",
     FIELD(config_mailbox, provider)},
    {.section = "mailbox",
     .key = "host",
     .type = CONFIG_HOST,
     .fallback = "smtp.office365.com",
     .help = "The service's submission server. Its certificate must be valid for this name. Needed "
             "when the provider is custom.",
     FIELD(config_mailbox, host)},
    {.section = "mailbox",
     .key = "port",
     .type = CONFIG_PORT,
     .fallback = "587",
     .min = 1,
     .max = 65535,
     .help = "Port of that server.",
     FIELD(config_mailbox, port)},
    {.section = "mailbox",
     .key = "tls",
     .type = CONFIG_CHOICE,
     .fallback = "starttls",
     .choices = "starttls implicit",
     .help =
         "starttls, as usual on port 587, or implicit (TLS from the start), as usual on port 465. "
         "Mail never leaves without TLS and a verified certificate.",
     FIELD(config_mailbox, tls)},
    {.section = "mailbox",
     .key = "auth",
     .type = CONFIG_CHOICE,
     .fallback = "password",
     .choices = "password none",
     .help = "How to sign in. none is for an internal server that needs no sign-in.",
     FIELD(config_mailbox, auth)},
    {.section = "mailbox",
     .key = "ca_file",
     .type = CONFIG_FILE,
     .fallback = "",
     .example = "/etc/outtray/internal-ca.pem",
     .help = "PEM file with the certificate authorities to trust for this mailbox, instead of the "
             "system's.",
     FIELD(config_mailbox, ca_file)},
    {.section = "mailbox",
     .key = "helo",
     .type = CONFIG_HOST,
     .fallback = "",
     .example = "relay.example.com",
     .help = "Name we give in EHLO, where that is not [relay] hostname.",
     FIELD(config_mailbox, helo)},
    {.section = "mailbox",
     .key = "connections",
     .type = CONFIG_NUMBER,
     .fallback = "3",
     .min = 1,
     .max = 100,
     .help = "Connections at one time. Microsoft 365 refuses mail over a fourth.",
     FIELD(config_mailbox, connections)},
    {.section = "mailbox",
     .key = "messages_per_minute",
     .type = CONFIG_NUMBER,
     .fallback = "30",
     .max = 100000,
     .help = "Messages a minute; 0 is no limit.",
     FIELD(config_mailbox, messages_per_minute)},
    {.section = "mailbox",
     .key = "recipients_per_day",
     .type = CONFIG_NUMBER,
     .fallback = "10000",
     .max = 100000000,
     .help = "Recipients in 24 hours; 0 is no limit.",
     FIELD(config_mailbox, recipients_per_day)},
    {.section = "mailbox",
     .key = "max_size",
     .type = CONFIG_SIZE,
     .fallback = "35MB",
     .min = KB(64),
     .max = CONFIG_SIZE_CEILING,
     .help =
         "Largest message the service takes from this mailbox, as sent: attachments count a third "
         "more than the file's size. Raise it when the limit was raised there.",
     FIELD(config_mailbox, max_size)},

    {.section = "relay",
     .key = "hostname",
     .type = CONFIG_HOST,
     .fallback = "",
     .example = "relay.example.com",
     .help =
         "Name of this relay in greetings and trace fields. Without it: the machine's own name.",
     FIELD(config, hostname)},
    {.section = "relay",
     .key = "user",
     .type = CONFIG_TEXT,
     .fallback = "outtray",
     .help = "User to become once the ports are open. Not used when the daemon was not started as "
             "root. Empty: stay what we are.",
     .may_be_empty = true,
     FIELD(config, user)},
    {.section = "relay",
     .key = "spool",
     .type = CONFIG_FILE,
     .fallback = "/var/spool/outtray",
     .help = "Directory of the queue, on a local disk.",
     FIELD(config, spool)},
    {.section = "relay",
     .key = "spool_max",
     .type = CONFIG_SIZE,
     .fallback = "10G",
     .max = TB(1024),
     .help = "How much disk the queue may take before devices are asked to wait; 0 is no limit.",
     FIELD(config, spool_max)},
    {.section = "relay",
     .key = "spool_min_free",
     .type = CONFIG_SIZE,
     .fallback = "200M",
     .max = TB(1024),
     .help =
         "How much of the queue's file system stays free: with less, devices are asked to wait.",
     FIELD(config, spool_min_free)},
    {.section = "relay",
     .key = "give_up",
     .type = CONFIG_TIME,
     .fallback = "5d",
     .min = MINUTES(1),
     .max = DAYS(60),
     .help =
         "How long a message is tried before it becomes a dead letter. Only time in which it could "
         "have been sent counts: not while the mailbox is paused or the service out of reach.",
     FIELD(config, give_up_ms)},
    {.section = "relay",
     .key = "uncertain_wait",
     .type = CONFIG_TIME,
     .fallback = "15m",
     .max = DAYS(1),
     .help = "How long to wait before a message is sent again of which nobody knows whether it "
             "arrived, because the connection broke after its last byte.",
     FIELD(config, uncertain_wait_ms)},
    {.section = "relay",
     .key = "certificate",
     .type = CONFIG_FILE,
     .fallback = "",
     .example = "/etc/outtray/certificate.pem",
     .help = "PEM file with the certificate that listeners show to devices, and its chain. Without "
             "it one is made at the first start, for the names and addresses this machine has "
             "then: tls/certificate.pem in the spool, which devices that check it can be given. "
             "Remove that file to have a new one made.",
     FIELD(config, certificate)},
    {.section = "relay",
     .key = "private_key",
     .type = CONFIG_FILE,
     .fallback = "",
     .example = "/etc/outtray/private-key.pem",
     .help = "PEM file with the private key of that certificate, RSA for the sake of old devices, "
             "without a passphrase. It belongs to root (group outtray, mode 640) or to the user "
             "outtray (mode 600).",
     FIELD(config, private_key)},
    {.section = "relay",
     .key = "stop_time",
     .type = CONFIG_TIME,
     .fallback = "30s",
     .min = SECONDS(1),
     .max = MINUTES(10),
     .help = "How long transactions under way may take to end when the daemon is stopped.",
     FIELD(config, stop_ms)},
    {.section = "relay",
     .key = "log_level",
     .type = CONFIG_CHOICE,
     .fallback = "info",
     .choices = "error warn info debug",
     .help = "What to log: error is what a person must act on, warn what a person should know, "
             "info every "
             "message that changes hands, debug the protocol.",
     FIELD(config, log_level)},
    {.section = "relay",
     .key = "log_target",
     .type = CONFIG_CHOICE,
     .fallback = "stderr",
     .choices = "stderr syslog",
     .help = "Where to log. Under systemd, stderr is the journal.",
     FIELD(config, log_target)},

    {.section = "listener",
     .key = "address",
     .type = CONFIG_IP,
     .fallback = "",
     .example = "192.168.1.10",
     .help = "IP address to listen on. Without it: all of them.",
     FIELD(config_listener, address)},
    {.section = "listener",
     .key = "port",
     .type = CONFIG_PORT,
     .fallback = "25",
     .min = 1,
     .max = 65535,
     .help = "Port to listen on.",
     FIELD(config_listener, port)},
    {.section = "listener",
     .key = "tls",
     .type = CONFIG_CHOICE,
     .fallback = "auto",
     .choices = "auto none starttls required implicit",
     .help =
         "auto offers STARTTLS and also answers devices that begin with TLS at once, whatever the "
         "port; for them the greeting comes a tenth of a second late until an address is known. "
         "none: no TLS. starttls: offered. required: no mail without STARTTLS. implicit: TLS from "
         "the start, as usual on port 465.",
     FIELD(config_listener, tls)},
    {.section = "listener",
     .key = "auth",
     .type = CONFIG_CHOICE,
     .fallback = "any",
     .choices = "off any optional required",
     .help =
         "Signing in (SMTP AUTH) with a password of the device, see outtray passwd in outtray(1). "
         "any offers it and takes whatever is sent, because the address decides who may: for "
         "devices that cannot do without. optional: what is sent must be right. required: no mail "
         "without it. off: not offered.",
     FIELD(config_listener, auth)},
    {.section = "listener",
     .key = "certificate",
     .type = CONFIG_FILE,
     .fallback = "",
     .example = "/etc/outtray/certificate.pem",
     .help = "As [relay] certificate, for this listener only.",
     FIELD(config_listener, certificate)},
    {.section = "listener",
     .key = "private_key",
     .type = CONFIG_FILE,
     .fallback = "",
     .example = "/etc/outtray/private-key.pem",
     .help = "As [relay] private_key, for this listener only.",
     FIELD(config_listener, private_key)},

    {.section = "devices",
     .key = "allow",
     .type = CONFIG_ADDRESSES,
     .fallback = "127.0.0.0/8, ::1, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16, "
                 "fc00::/7, fe80::/10",
     .help =
         "Addresses that may connect; everybody else is refused. The default is this machine and "
         "private networks. Devices with public IPv6 addresses need their prefix here.",
     FIELD(config, allow)},
    {.section = "devices",
     .key = "max_size",
     .type = CONFIG_SIZE,
     .fallback = "0",
     .max = CONFIG_SIZE_CEILING,
     .help =
         "Largest message taken from a device; 0 is what the mailboxes of its route take, so that "
         "the device shows the error instead of a dead letter later.",
     FIELD(config, max_size)},
    {.section = "devices",
     .key = "max_recipients",
     .type = CONFIG_NUMBER,
     .fallback = "500",
     .min = 1,
     .max = ENVELOPE_RECIPIENTS_MAX,
     .help = "Recipients of one message.",
     FIELD(config, max_recipients)},
    {.section = "devices",
     .key = "max_sessions",
     .type = CONFIG_NUMBER,
     .fallback = "1000",
     .min = 1,
     .max = 100000,
     .help = "Sessions at one time.",
     FIELD(config, max_sessions)},
    {.section = "devices",
     .key = "max_sessions_per_device",
     .type = CONFIG_NUMBER,
     .fallback = "50",
     .min = 1,
     .max = 100000,
     .help = "Sessions of one address at one time. This machine itself counts as one device.",
     FIELD(config, max_sessions_per_device)},
    {.section = "devices",
     .key = "idle_time",
     .type = CONFIG_TIME,
     .fallback = "10m",
     .min = SECONDS(10),
     .max = MINUTES(60),
     .help =
         "How long a device may be silent before its session ends. The standard (RFC 5321) asks "
         "for five minutes at least.",
     FIELD(config, idle_ms)},
    {.section = "devices",
     .key = "passwords",
     .type = CONFIG_FILE,
     .fallback = "/etc/outtray/device-passwords",
     .help = "File of the devices' own passwords, as hashes; outtray passwd writes it.",
     FIELD(config, passwords)},
    {.section = "devices",
     .key = "hide",
     .type = CONFIG_WORDS,
     .fallback = "",
     .example = "STARTTLS CHUNKING",
     .choices = KEYWORDS,
     .help = "Keywords left out of the reply to EHLO, for devices that stumble over them. Without "
             "it: none.",
     .may_be_empty = true,
     FIELD(config, hide)},
    {.section = "devices",
     .key = "auth_equals",
     .type = CONFIG_CHOICE,
     .fallback = "no",
     .choices = "no yes",
     .help = "Also show the line AUTH=LOGIN PLAIN, as very old mail programs want it.",
     FIELD(config, auth_equals)},
    {.section = "devices",
     .key = "charset",
     .type = CONFIG_TEXT,
     .fallback = "windows-1252",
     .help = "Character set of subjects and names that devices send as they are and that are not "
             "UTF-8. They are marked with it, so that they can be read. Old devices in Central "
             "Europe may need iso-8859-2, in Russia koi8-r, in Japan shift_jis.",
     FIELD(config, charset)},
    {.section = "devices",
     .key = "lf_dot_lf",
     .type = CONFIG_CHOICE,
     .fallback = "yes",
     .choices = "no yes",
     .help = "Some devices end all lines in LF alone and their mail in LF . LF, then wait. Ten "
             "seconds of silence after it are taken for the end; the session ends with it.",
     FIELD(config, lf_dot_lf)},
    {.section = "devices",
     .key = "max_messages_per_minute",
     .type = CONFIG_NUMBER,
     .fallback = "600",
     .max = 1000000,
     .help = "Messages taken from one address in a minute; 0 is no limit. More are answered 451: "
             "try again later. Without this key programs on this machine itself are not limited.",
     FIELD(config, max_messages_per_minute)},
    {.section = "devices",
     .key = "max_spool",
     .type = CONFIG_SIZE,
     .fallback = "0",
     .max = TB(1024),
     .help = "How much waiting mail of one device the spool takes: the device is then asked to "
             "wait (452), and others are served. 0 is half of spool_max. What has no [device] "
             "counts by its address.",
     FIELD(config, max_spool)},
    {.section = "devices",
     .key = "join_split",
     .type = CONFIG_CHOICE,
     .fallback = "no",
     .choices = "no yes",
     .help = "Join scans that a device sends in parts (message/partial, \"divide\" or \"split\" in "
             "its menu) into one message again. Parts wait an hour for each other, then leave as "
             "they are; so they do when the whole is larger than the mailboxes take. Better is to "
             "switch the splitting off at the device.",
     FIELD(config, join_split)},
    {.section = "devices",
     .key = "recipient_domains",
     .type = CONFIG_DOMAINS,
     .fallback = "",
     .example = "example.com, .example.net",
     .help = "Domains that mail may be sent to; .example.net stands for all below example.net. "
             "Without it: all.",
     FIELD(config, recipient_domains)},
    {.section = "devices",
     .key = "legacy_tls",
     .type = CONFIG_ADDRESSES,
     .fallback = "",
     .example = "192.168.1.20, 192.168.1.30-192.168.1.39",
     .help = "Addresses of devices too old for TLS 1.2 and its good suites: for them TLS 1.0, RSA "
             "key exchange and CBC suites will do. The log names a device that needs it.",
     FIELD(config, legacy_tls)},

    {.section = "device",
     .key = "address",
     .type = CONFIG_ADDRESSES,
     .fallback = "",
     .example = "192.168.1.20, 192.168.1.30-192.168.1.39",
     .help = "Addresses of the device: single ones, networks (192.168.1.0/24) or ranges "
             "(192.168.1.30-192.168.1.39). Must be given, unless login is.",
     FIELD(config_device, addresses)},
    {.section = "device",
     .key = "lane",
     .type = CONFIG_CHOICE,
     .fallback = "normal",
     .choices = "urgent normal bulk",
     .help =
         "The order in which mail of a route leaves: urgent for alarms, bulk for newsletters and "
         "reports.",
     FIELD(config_device, lane)},
    {.section = "device",
     .key = "route",
     .type = CONFIG_TEXT,
     .fallback = "",
     .example = "default",
     .help = "Name of the [route NAME] its mail takes, where that is not the default one.",
     FIELD(config_device, route)},
    {.section = "device",
     .key = "login",
     .type = CONFIG_TEXT,
     .fallback = "",
     .example = "printer@example.com",
     .help = "Name it signs in with, where that is not the name of this section. With the password "
             "of the device it is recognised wherever it connects from; the address must be "
             "allowed all the same.",
     FIELD(config_device, login)},
    {.section = "device",
     .key = "auth",
     .type = CONFIG_CHOICE,
     .fallback = "",
     .example = "required",
     .choices = "off any optional required",
     .help = "As [listener] auth, for connections from its addresses, whatever the listener says.",
     FIELD(config_device, auth)},
    {.section = "device",
     .key = "hide",
     .type = CONFIG_WORDS,
     .fallback = "",
     .example = "STARTTLS CHUNKING",
     .choices = KEYWORDS,
     .help = "Instead of what [devices] says.",
     .may_be_empty = true,
     FIELD(config_device, hide)},
    {.section = "device",
     .key = "auth_equals",
     .type = CONFIG_CHOICE,
     .fallback = "",
     .example = "yes",
     .choices = "no yes",
     .help = "Instead of what [devices] says.",
     FIELD(config_device, auth_equals)},
    {.section = "device",
     .key = "lf_dot_lf",
     .type = CONFIG_CHOICE,
     .fallback = "",
     .example = "no",
     .choices = "no yes",
     .help = "Instead of what [devices] says.",
     FIELD(config_device, lf_dot_lf)},
    {.section = "device",
     .key = "join_split",
     .type = CONFIG_CHOICE,
     .fallback = "",
     .example = "yes",
     .choices = "no yes",
     .help = "Instead of what [devices] says.",
     FIELD(config_device, join_split)},
    {.section = "device",
     .key = "mt_priority",
     .type = CONFIG_CHOICE,
     .fallback = "no",
     .choices = "no yes",
     .help = "Offer MT-PRIORITY (RFC 6710), and let the device choose the lane of each message "
             "with it: 4 and above is urgent, below 0 bulk.",
     FIELD(config_device, mt_priority)},
    {.section = "device",
     .key = "max_size",
     .type = CONFIG_SIZE,
     .fallback = "0",
     .max = CONFIG_SIZE_CEILING,
     .help = "Largest message taken from it; 0 is what [devices] says.",
     FIELD(config_device, max_size)},
    {.section = "device",
     .key = "max_recipients",
     .type = CONFIG_NUMBER,
     .fallback = "0",
     .max = ENVELOPE_RECIPIENTS_MAX,
     .help = "Recipients of one message; 0 is what [devices] says.",
     FIELD(config_device, max_recipients)},
    {.section = "device",
     .key = "max_sessions",
     .type = CONFIG_NUMBER,
     .fallback = "0",
     .max = 100000,
     .help = "Sessions of each of its addresses at one time; 0 is what [devices] says.",
     FIELD(config_device, max_sessions)},
    {.section = "device",
     .key = "max_messages_per_minute",
     .type = CONFIG_NUMBER,
     .fallback = "0",
     .max = 1000000,
     .help = "Messages taken in a minute from each of its addresses; 0 is what [devices] says.",
     FIELD(config_device, max_messages_per_minute)},
    {.section = "device",
     .key = "max_spool",
     .type = CONFIG_SIZE,
     .fallback = "0",
     .max = TB(1024),
     .help = "How much of its waiting mail the spool takes; 0 is what [devices] says.",
     FIELD(config_device, max_spool)},
    {.section = "device",
     .key = "recipient_domains",
     .type = CONFIG_DOMAINS,
     .fallback = "",
     .example = "example.com, .example.net",
     .help = "Domains that its mail may be sent to, instead of those of [devices].",
     FIELD(config_device, recipient_domains)},

    {.section = "route",
     .key = "mailboxes",
     .type = CONFIG_NAMES,
     .fallback = "",
     .example = "office",
     .help =
         "Names of [mailbox NAME] sections, the preferred one first. The next is used while those "
         "before it are paused or at their limits.",
     .required = true,
     .field = NO_FIELD},

    {.section = "api",
     .key = "socket",
     .type = CONFIG_FILE,
     .fallback = "/run/outtray/control.sock",
     .help = "Unix socket of the daemon. Whoever may write to it may see and delete mail.",
     FIELD(config, socket)},
};

const struct config_row *config_rows(size_t *out_count)
{
    *out_count = COUNT(rows);
    return rows;
}

const struct config_kind *config_kinds(size_t *out_count)
{
    *out_count = COUNT(kinds);
    return kinds;
}

const struct config_kind *config_kind_find(const char *kind)
{
    for (size_t i = 0; i < COUNT(kinds); i++)
        if (strcmp(kinds[i].kind, kind) == 0)
            return &kinds[i];
    return NULL;
}

const struct config_row *config_row_find(const char *section, const char *key)
{
    for (size_t i = 0; i < COUNT(rows); i++)
        if (strcmp(rows[i].section, section) == 0 && strcmp(rows[i].key, key) == 0)
            return &rows[i];
    return NULL;
}

bool config_row_is_list(const struct config_row *row)
{
    return row->type == CONFIG_ADDRESSES || row->type == CONFIG_DOMAINS ||
           row->type == CONFIG_NAMES;
}
