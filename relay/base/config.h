/*
 * The configuration: one table row per key, read once into a struct that nobody changes afterwards.
 *
 * The rows (config_rows()) name section, key, type, default, limits, help and the field that takes
 * the value. They feed the parser, `outtray check`, the sample file and the manual page; a test
 * holds these together. Nothing else knows key names, but for the few checks between keys in
 * config.c. inih reads the text, fed line by line by a reader of our own (config_reader.h) that
 * keeps line numbers and refuses or does itself what inih would cut or misread.
 *
 * Every mistake of a file is reported, each as "FILE:LINE: what is wrong; what to write instead",
 * with the nearest known key or section; then nothing is returned. Reading never blocks on anything
 * but the file. Secrets are not in here, only where they are (see secret.h).
 *
 * All strings are owned by the config and never NULL; an absent text is "".
 */
#ifndef OUTTRAY_RELAY_BASE_CONFIG_H
#define OUTTRAY_RELAY_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "queue/envelope.h"
#include "relay/base/log.h"
#include "relay/base/net.h"

#define CONFIG_LINE_MAX     197 /* octets; what inih as packaged takes. Lists can be continued */
#define CONFIG_FILE_MAX     ((size_t)4 * 1024 * 1024)
#define CONFIG_NAME_MAX     63 /* of a listener, device, mailbox, route */
#define CONFIG_SECTIONS_MAX 4096
#define CONFIG_MISTAKES_MAX 100 /* reported; then "and N more" */
#define CONFIG_SIZE_CEILING (150u * 1024 * 1024)
#define CONFIG_SOCKET_MAX   107       /* octets of a unix socket's path */
#define CONFIG_DOMAINS_MAX  1000      /* of one list */
#define CONFIG_OWN_DEVICE   "outtray" /* what the relay's own mail comes from; no device's name */
#define CONFIG_DEFAULT_FILE "/etc/outtray/outtray.conf"

/* Domains as written in a list, each "example.com" or, for its subdomains, ".example.com". Some
 * lists take mail addresses as well. */
struct config_domains {
    char **list;
    size_t count;
};

enum config_listener_tls {
    CONFIG_LISTENER_AUTO,     /* STARTTLS offered; a TLS hello instead of a command is answered */
    CONFIG_LISTENER_NONE,     /* plaintext only */
    CONFIG_LISTENER_STARTTLS, /* offered */
    CONFIG_LISTENER_REQUIRED, /* no mail before STARTTLS */
    CONFIG_LISTENER_IMPLICIT  /* TLS from the first octet */
};

/* What a login (SMTP AUTH) is good for. */
enum config_login {
    CONFIG_LOGIN_OFF,      /* not offered */
    CONFIG_LOGIN_ANY,      /* offered; whatever is sent is taken, because the address decides */
    CONFIG_LOGIN_OPTIONAL, /* offered; what is sent must be right */
    CONFIG_LOGIN_REQUIRED  /* no mail without it */
};

/* Keywords of the reply to EHLO that can be hidden, as bits in the order of the rows' choices. */
enum config_keyword {
    CONFIG_KEYWORD_STARTTLS = 1 << 0,
    CONFIG_KEYWORD_AUTH = 1 << 1,
    CONFIG_KEYWORD_SIZE = 1 << 2,
    CONFIG_KEYWORD_CHUNKING = 1 << 3,
    CONFIG_KEYWORD_PIPELINING = 1 << 4,
    CONFIG_KEYWORD_8BITMIME = 1 << 5,
    CONFIG_KEYWORD_SMTPUTF8 = 1 << 6,
    CONFIG_KEYWORD_DSN = 1 << 7
};

enum config_switch { CONFIG_NO, CONFIG_YES };

/* Whether the sender of a message hears that it failed. */
enum config_report {
    CONFIG_REPORT_NO,
    CONFIG_REPORT_ASKED, /* where the device asked for it (RFC 3461 NOTIFY) */
    CONFIG_REPORT_YES
};

/* What becomes of mail that a device sends a second time. */
enum config_twice {
    CONFIG_TWICE_MARK, /* it is sent, and marked */
    CONFIG_TWICE_ONCE  /* it is accepted, and not sent again */
};

/* What a program is told of, as bits in the order of the rows' choices. */
enum config_event {
    CONFIG_EVENT_MAILBOX_PAUSED = 1 << 0,
    CONFIG_EVENT_MAILBOX_RECOVERED = 1 << 1,
    CONFIG_EVENT_DEAD_LETTER = 1 << 2,
    CONFIG_EVENT_HELD = 1 << 3,
    CONFIG_EVENT_DELAYED = 1 << 4,
    CONFIG_EVENT_SPOOL_FAILING = 1 << 5
};

struct config_listener {
    char *name;
    char *address; /* "" = all addresses, both families; else an IP address */
    uint16_t port;
    enum config_listener_tls tls;
    enum config_login auth;
    enum lane lane;
    char *certificate; /* PEM files of its own; "" = [relay]'s */
    char *private_key;
    unsigned line; /* of its section, here and below; 0 when it is not in the file */
};

struct config_device {
    char *name;
    struct net_ranges addresses;
    bool has_lane;
    enum lane lane; /* with has_lane, instead of the listener's */
    char *route;    /* "" = the default route */
    char *login;    /* what it signs in as; its name when the file leaves it out */
    bool has_auth;
    enum config_login auth; /* with has_auth, instead of the listener's */
    enum config_switch mt_priority;
    enum config_switch importance;
    /* What [devices] says, where the section does not. */
    uint32_t hide; /* set of enum config_keyword */
    enum config_switch auth_equals;
    enum config_switch lf_dot_lf;
    enum config_switch join_split;
    enum config_report report_to_sender;
    enum config_twice sent_twice;
    /* Instead of what [devices] says; 0 and an empty list are what it says. */
    uint64_t max_size;
    uint32_t max_recipients;
    uint32_t max_sessions; /* of each of its addresses */
    uint32_t max_messages_per_minute;
    uint64_t max_spool;
    struct config_domains recipient_domains;
    char *from;      /* instead of the mailbox's; "" = that */
    char *from_name; /* display name of a From that was changed; "" = the mailbox's */
    unsigned line;
};

enum config_tls { CONFIG_TLS_STARTTLS, CONFIG_TLS_IMPLICIT };

/* How a mailbox signs in, as bits in the order of the row's choices. With OAuth and a password the
 * password serves only as long as OAuth is not set up. */
enum config_auth {
    CONFIG_AUTH_OAUTH2 = 1 << 0,
    CONFIG_AUTH_PASSWORD = 1 << 1,
    CONFIG_AUTH_NONE = 1 << 2
};

/* SASL mechanisms, as bits in the order of the row's choices. */
enum config_mechanism {
    CONFIG_MECHANISM_XOAUTH2 = 1 << 0,
    CONFIG_MECHANISM_OAUTHBEARER = 1 << 1,
    CONFIG_MECHANISM_SCRAM_SHA_256 = 1 << 2,
    CONFIG_MECHANISM_SCRAM_SHA_1 = 1 << 3,
    CONFIG_MECHANISM_LOGIN = 1 << 4,
    CONFIG_MECHANISM_PLAIN = 1 << 5
};
#define CONFIG_MECHANISMS_TOKEN (CONFIG_MECHANISM_XOAUTH2 | CONFIG_MECHANISM_OAUTHBEARER)
#define CONFIG_MECHANISMS_SCRAM (CONFIG_MECHANISM_SCRAM_SHA_256 | CONFIG_MECHANISM_SCRAM_SHA_1)
#define CONFIG_MECHANISMS_MAX   80 /* octets of config_mechanisms() */

/* What an access token is asked for with. */
enum config_grant {
    CONFIG_GRANT_CLIENT_CREDENTIALS, /* the application itself, by secret or certificate */
    CONFIG_GRANT_DEVICE,             /* a person, who types a code into a web page */
    CONFIG_GRANT_BROWSER,            /* a person, in a browser that is sent to and from the page */
    CONFIG_GRANT_JWT                 /* a service account that signs for a mailbox (Google) */
};

/* How a client assertion is signed: RFC 7518. */
enum config_signature { CONFIG_SIGNATURE_PS256, CONFIG_SIGNATURE_RS256 };

/* What is known of a mail service: a mailbox's defaults. */
struct config_provider {
    char *name;
    char *host; /* "" = the mailbox must say; host_example shows how */
    char *host_example;
    uint16_t port;
    enum config_tls tls;
    uint32_t auth; /* set of enum config_auth: what a mailbox that says nothing uses */
    uint32_t mechanisms;
    uint64_t passwords_end_ms; /* wall time; 0 = not known */
    char *login;               /* "" = the mailbox's address */
    char *tenant;              /* "" = the mailbox must say, where a URL holds {tenant} */
    char *token_url;           /* "" = no OAuth */
    char *device_url;
    char *authorize_url;
    char *app_scope; /* of client credentials; "" = the service has none */
    char *user_scope;
    uint32_t connections;
    uint32_t messages_per_minute;
    uint32_t recipients_per_day;
    uint32_t recipients_per_message;
    uint64_t max_size;
    uint32_t in_flight; /* see config_mailbox, as the others */
    uint64_t idle_ms;
    uint64_t session_ms;
    unsigned line;
};

struct config_mailbox {
    char *name;
    char *provider; /* preset whose values were taken for what the file leaves out */
    char *host;
    uint16_t port;
    enum config_tls tls;
    uint32_t auth;       /* set of enum config_auth */
    uint32_t mechanisms; /* set of enum config_mechanism */
    char *address;       /* sender identity */
    char *login;         /* signing-in identity; the address when the file leaves it out */
    /* OAuth. Those of the mailbox that sign_in names are copied here. */
    bool has_oauth; /* the rest of this is complete; else "" and 0 */
    char *sign_in;  /* the mailbox whose application and sign-in are used; its own name
                       where that is itself */
    enum config_grant grant;
    char *tenant;
    char *client_id;
    char *client_secret_file;
    char *certificate_file; /* PEM or PKCS#12 */
    char *private_key_file; /* "" = in certificate_file */
    char *key_password_file;
    enum config_signature signature;
    char *service_account_file; /* Google's JSON */
    char *token_url;            /* with the tenant filled in, as the other two */
    char *device_url;
    char *authorize_url;
    char *scope;
    char *token_ca_file;
    uint64_t secret_expires_ms;    /* wall time; 0 = not known */
    uint64_t passwords_end_ms;     /* when its provider switches passwords off; 0 = not known */
    char *password_file;           /* "" with systemd credential or environment, see secret.h */
    char *ca_file;                 /* PEM with the authorities to trust; "" = the system's */
    char *helo;                    /* our EHLO argument; "" = [relay] hostname */
    struct config_domains send_as; /* whom it may send as besides its address */
    char *from;                    /* "rewrite", "keep" or an address */
    char *from_name;             /* display name of a From that was changed; "" = the original's */
    uint32_t urgent_reserve;     /* messages of each minute that only urgent mail may use */
    uint32_t urgent_connections; /* that only urgent mail may use; less than connections */
    uint32_t recipients_per_message; /* more are sent in several transactions; 0 = no limit */
    uint32_t connections;
    uint32_t in_flight; /* small messages under way at one time on a connection */
    uint32_t messages_per_minute;
    uint32_t recipients_per_day;
    uint64_t max_size;   /* octets of mail data the provider takes */
    uint64_t idle_ms;    /* after so long without use a connection is closed */
    uint64_t session_ms; /* one that is older is closed as soon as it is free */
    unsigned line;
};

/* How a mailbox is chosen where several may take a message. */
enum config_choose {
    CONFIG_CHOOSE_SHARE, /* the one whose budget has most left */
    CONFIG_CHOOSE_ORDER  /* the first that may */
};

struct config_route {
    char *name;
    uint32_t *mailboxes; /* indices into config.mailboxes, in order of preference */
    size_t mailbox_count;
    uint32_t *backup; /* the same, for when none of those could be used for backup_after_ms */
    size_t backup_count;
    uint64_t backup_after_ms;
    enum config_switch backup_urgent; /* urgent mail need not wait for that */
    enum config_choose choose;
    /* What a message must have to take this route where its device names none; empty = anything. */
    uint32_t *listeners; /* indices into config.listeners */
    size_t listener_count;
    struct config_domains senders;           /* its reverse-path */
    struct config_domains recipient_domains; /* every recipient's */
    unsigned line;
};

/* A program that is told of events. */
struct config_notify {
    char *name;
    char *command;   /* absolute path */
    uint32_t events; /* set of enum config_event; 0 = all */
    unsigned line;
};

struct config {
    /* [relay] */
    char *hostname; /* never "": the host's own name when the file leaves it out */
    char *user;     /* "" = do not change */
    char *spool;
    enum log_level log_level;
    enum log_target log_target;
    uint64_t spool_max;      /* octets; 0 = no limit */
    uint64_t spool_min_free; /* octets */
    uint64_t stop_ms;        /* how long a clean stop may take */
    uint64_t give_up_ms;
    uint64_t uncertain_wait_ms;
    uint64_t uncertain_wait_urgent_ms;
    char *operator;           /* mail address for reports; "" = none */
    uint64_t dead_keep_ms;    /* how long a dead letter is kept once somebody was told of it */
    uint64_t delay_notice_ms; /* a message older than this is reported; 0 = never */
    char *proxy;              /* for HTTPS; "" = the environment's */
    char *certificate;        /* PEM files for the listeners; "" = made at the first start */
    char *private_key;
    /* [devices]: defaults for all */
    struct net_ranges allow; /* loopback and private ranges unless given */
    uint64_t max_size;       /* octets of mail data accepted; 0 = what the route's mailboxes take */
    uint32_t max_recipients;
    uint32_t max_sessions; /* in all */
    uint32_t max_sessions_per_device;
    uint64_t idle_ms;               /* longest silence of a device */
    char *passwords;                /* file of the devices' passwords, see signin/passwords.h */
    uint32_t hide;                  /* set of enum config_keyword */
    enum config_switch auth_equals; /* show "AUTH=LOGIN PLAIN" too */
    enum config_switch lf_dot_lf;   /* silence after LF . LF ends mail data */
    enum config_switch join_split;  /* message/partial becomes one message again */
    enum config_report report_to_sender;
    enum config_twice sent_twice;
    uint64_t max_spool; /* octets of one device's waiting mail; 0 = half of spool_max */
    char *charset;      /* of header fields that are neither ASCII nor UTF-8 */
    uint32_t max_messages_per_minute; /* of one address; 0 = no limit */
    bool max_messages_given;          /* in the file; else this machine itself is not limited */
    struct config_domains recipient_domains; /* that mail may go to; empty = all */
    struct net_ranges legacy_tls;            /* served with old TLS versions and suites */
    /* [api] */
    char *socket; /* control socket */

    struct config_listener *listeners;
    size_t listener_count;
    struct config_device *devices;
    size_t device_count;
    struct config_provider *providers;
    size_t provider_count;
    struct config_mailbox *mailboxes;
    size_t mailbox_count;
    struct config_notify *notifies;
    size_t notify_count;
    struct config_route *routes; /* at least one; the first is "default": every mailbox, unless the
                                    file has [route default] */
    size_t route_count;
};

/* NULL after writing every mistake as a line to `mistakes`. */
struct config *config_load(const char *file, FILE *mistakes);
/* As config_load() of a text; `file` is the name used in messages. */
struct config *config_parse(const char *file, const char *text, size_t len, FILE *mistakes);
void config_free(struct config *c);
/* The preset or [provider] of that name, or NULL. */
const struct config_provider *config_find_provider(const struct config *c, const char *name);
/* The mailbox's mechanisms for one way of signing in, in order of preference, a space between. */
void config_mechanisms(const struct config_mailbox *mb, enum config_auth auth,
                       char out[CONFIG_MECHANISMS_MAX]);
/* A mailbox names a SCRAM mechanism. */
bool config_wants_scram(const struct config *c);
/* "client-credentials", as the file writes it. */
const char *config_grant_name(enum config_grant grant);
/* The [device] of that name, or NULL. */
const struct config_device *config_find_device(const struct config *c, const char *name);

enum config_type {
    CONFIG_TEXT,      /* char *; one line */
    CONFIG_FILE,      /* char *; absolute path */
    CONFIG_HOST,      /* char *; domain name or IP address */
    CONFIG_IP,        /* char *; IP address */
    CONFIG_MAIL,      /* char *; local-part@domain */
    CONFIG_NUMBER,    /* uint32_t */
    CONFIG_PORT,      /* uint16_t */
    CONFIG_SIZE,      /* uint64_t octets: 35MB, 512K, 1G (powers of 1024) */
    CONFIG_TIME,      /* uint64_t ms, from 30s, 5m, 2h, 5d */
    CONFIG_CHOICE,    /* an enum: the position in `choices` */
    CONFIG_WORDS,     /* uint32_t: a bit for each of `choices` that is named */
    CONFIG_ADDRESSES, /* struct net_ranges: comma-separated ranges; may be given several times */
    CONFIG_DOMAINS,   /* struct config_domains; comma-separated; may be given several times */
    CONFIG_SENDERS,   /* the same, of domains and mail addresses */
    CONFIG_URL,       /* char *; https://... */
    CONFIG_DATE,      /* uint64_t ms since 1970, from 2026-12-31; 0 = none */
    CONFIG_FROM,      /* char *; "rewrite", "keep" or a mail address */
    CONFIG_NAMES      /* comma-separated names of sections; may be given several times. No field */
};

struct config_row {
    const char *section; /* "relay"; "listener" stands for every [listener NAME] */
    const char *key;
    enum config_type type;
    const char *fallback; /* the default as written in a file; "" = none */
    const char *example;  /* for the sample where there is no default */
    uint64_t min, max;    /* of numbers, sizes, times */
    const char *choices;  /* space-separated */
    const char *help;     /* one or two sentences, for the sample file and the manual page */
    size_t field;         /* where the value goes in the section's struct */
    bool required;
    bool may_be_empty;
};

const struct config_row *config_rows(size_t *out_count);
/* The sample file: every section and key, commented, at its default. */
void config_write_sample(FILE *out);
/* The manual page outtray.conf(5), from the same rows. */
void config_write_manual(FILE *out);

#endif
