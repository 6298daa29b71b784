#include "relay/intake/server_fsm.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "relay/smtp/address.h"
#include "relay/smtp/base64.h"
#include "relay/smtp/command.h"
#include "relay/smtp/header.h"
#include "relay/smtp/maildata.h"
#include "relay/smtp/mime.h"
#include "relay/smtp/partial.h"
#include "relay/smtp/repair.h"
#include "relay/smtp/trace.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define TLS_HANDSHAKE 0x16 /* first octet of a TLS hello */
#define CLOSING_MAX   96
#define REPAIRS_MAX   (HEADER_REPAIRS_MAX + 256)
#define WRITTEN_MAX   (2 * HEADER_REPLACED_MAX)
#define DECODED_MAX   ((size_t)8192) /* mail data that is looked at in one go */
#define TRACE_MAX     2048
#define KEYWORDS_MAX  512
#define SIZE_MAX_TEXT 32
#define URGENT_FROM   4    /* MT-PRIORITY */
#define SIZE_SLACK    1024 /* octets; SIZE is wrong when twice that and these are exceeded */

/* ---- states ---------------------------------------------------------------------------------- */

enum state {
    STATE_READY,      /* no transaction */
    STATE_MAIL,       /* reverse-path known, no recipient yet */
    STATE_RCPT,       /* at least one recipient */
    STATE_CHUNKS,     /* a chunk has come, the next BDAT has not */
    STATE_SECURING,   /* STARTTLS was answered */
    STATE_CHECKING,   /* the shell looks at what the device signs in with */
    STATE_RESPONSE,   /* the device was asked while it signs in */
    STATE_OPENING,    /* DATA was read; the spool opens a message */
    STATE_DATA,       /* mail data goes into the spool */
    STATE_SWALLOW,    /* mail data is read to its end, to be refused there */
    STATE_COMMITTING, /* the spool makes the message durable */
    STATE_CLOSED,
    STATE_COUNT
};

enum { WAITS = 1, IDLE = 2, CONTENT = 4 };

static const struct {
    const char *phrase;
    unsigned flags;
} states[] = {
    [STATE_READY] = {"waiting for a command", IDLE},
    [STATE_MAIL] = {"waiting for a recipient", 0},
    [STATE_RCPT] = {"waiting for a recipient or DATA", 0},
    [STATE_CHUNKS] = {"waiting for the next chunk of mail data", CONTENT},
    [STATE_SECURING] = {"starting TLS", WAITS | IDLE},
    [STATE_CHECKING] = {"checking a login", WAITS | IDLE},
    [STATE_RESPONSE] = {"waiting for the rest of a login", IDLE},
    [STATE_OPENING] = {"opening a message in the spool", WAITS},
    [STATE_DATA] = {"receiving mail data", CONTENT},
    [STATE_SWALLOW] = {"receiving mail data that will be refused", CONTENT},
    [STATE_COMMITTING] = {"making the message durable", WAITS | CONTENT},
    [STATE_CLOSED] = {"closed", IDLE},
};

_Static_assert(COUNT(states) == STATE_COUNT, "every state has its facts");

/* ---- answers --------------------------------------------------------------------------------- */

enum answer {
    ANSWER_OK,
    ANSWER_SENDER_OK,
    ANSWER_RECIPIENT_OK,
    ANSWER_GO_AHEAD,
    ANSWER_HELP,
    ANSWER_VRFY,
    ANSWER_BYE,
    ANSWER_UNKNOWN,
    ANSWER_NOT_OFFERED,
    ANSWER_LINE_TOO_LONG,
    ANSWER_CONTROLS,
    ANSWER_EMPTY,
    ANSWER_NEEDS_MAIL,
    ANSWER_NEEDS_RCPT,
    ANSWER_NO_RECIPIENTS,
    ANSWER_MAIL_SYNTAX,
    ANSWER_RCPT_SYNTAX,
    ANSWER_TOO_LARGE,
    ANSWER_LOOP,
    ANSWER_LONE_CR,
    ANSWER_BINARY,
    ANSWER_NO_MEMORY,
    ANSWER_NO_ROOM,
    ANSWER_NO_SHARE,
    ANSWER_NOT_STORED,
    ANSWER_CHUNKS_BEGUN,
    ANSWER_BDAT_SYNTAX,
    ANSWER_BDAT_NO_MEMORY,
    ANSWER_AUTH_IN_MAIL,
    ANSWER_AUTH_TWICE,
    ANSWER_AUTH_NOTHING,
    ANSWER_AUTH_UNKNOWN,
    ANSWER_AUTH_SYNTAX,
    ANSWER_AUTH_TOO_LONG,
    ANSWER_AUTH_CANCELLED,
    ANSWER_AUTH_OK,
    ANSWER_AUTH_WRONG,
    ANSWER_AUTH_UNAVAILABLE,
    ANSWER_AUTH_NEEDED,
    ANSWER_TLS_READY,
    ANSWER_TLS_ALREADY,
    ANSWER_TLS_NEEDED,
    ANSWER_TLS_IN_MAIL,
    ANSWER_TLS_AFTER_AUTH,
    ANSWER_TOO_FAST,
    ANSWER_WRONG_DOMAIN,
    ANSWER_HTTP,
    ANSWER_NOT_WAITED,
    ANSWER_ENDLESS_LINE,
    ANSWER_COUNT
};

static const struct {
    const char *text;
    bool bad;            /* counts towards SERVER_BAD_COMMANDS_MAX */
    const char *closing; /* the session ends with it: why */
} answers[] = {
    [ANSWER_OK] = {.text = "250 2.0.0 Ok"},
    [ANSWER_SENDER_OK] = {.text = "250 2.1.0 Ok"},
    [ANSWER_RECIPIENT_OK] = {.text = "250 2.1.5 Ok"},
    [ANSWER_GO_AHEAD] = {.text = "354 End data with <CR><LF>.<CR><LF>"},
    [ANSWER_HELP] = {.text =
                         "214 2.0.0 Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT"},
    [ANSWER_VRFY] = {.text = "252 2.5.2 Cannot verify; send the mail and it will be tried"},
    [ANSWER_BYE] = {.text = "221 2.0.0 Bye", .closing = "quit"},
    [ANSWER_UNKNOWN] = {.text = "500 5.5.1 Command not recognised", .bad = true},
    [ANSWER_NOT_OFFERED] = {.text = "502 5.5.1 Command not offered here", .bad = true},
    [ANSWER_LINE_TOO_LONG] = {.text = "500 5.5.2 Command line too long", .bad = true},
    [ANSWER_CONTROLS] = {.text = "500 5.5.2 Control characters in the command", .bad = true},
    [ANSWER_EMPTY] = {.text = "500 5.5.2 Empty command line", .bad = true},
    [ANSWER_NEEDS_MAIL] = {.text = "503 5.5.1 MAIL comes first"},
    [ANSWER_NEEDS_RCPT] = {.text = "503 5.5.1 RCPT comes first"},
    [ANSWER_NO_RECIPIENTS] = {.text = "554 5.5.1 No valid recipients"},
    [ANSWER_MAIL_SYNTAX] = {.text = "501 5.5.4 Say MAIL FROM:<address>", .bad = true},
    [ANSWER_RCPT_SYNTAX] = {.text = "501 5.5.4 Say RCPT TO:<address>", .bad = true},
    [ANSWER_TOO_LARGE] = {.text = ""}, /* names the limit: too_large in struct server_fsm */
    [ANSWER_LOOP] = {.text = "554 5.4.6 Mail loop: 100 or more Received fields"},
    [ANSWER_LONE_CR] = {.text = "554 5.6.0 A lone CR inside a header field; end lines with CR LF"},
    [ANSWER_BINARY] = {.text = "554 5.6.1 Raw binary data (a NUL octet) in an attachment cannot be "
                               "passed on; send it as base64"},
    [ANSWER_NO_MEMORY] = {.text = "451 4.3.0 The relay is out of memory; send it again later"},
    [ANSWER_NO_ROOM] =
        {.text = "452 4.3.1 The relay has no room for mail; free disk space or send later"},
    [ANSWER_NO_SHARE] = {.text = "452 4.3.1 Too much mail of this device waits at the relay "
                                 "(max_spool); send later"},
    [ANSWER_NOT_STORED] = {.text =
                               "451 4.3.0 The relay could not store the mail; send it again later"},
    [ANSWER_CHUNKS_BEGUN] = {.text = "503 5.5.1 BDAT has begun this mail; BDAT or RSET is next"},
    [ANSWER_BDAT_SYNTAX] = {.text = "501 5.5.4 Say BDAT octets [LAST]; closing",
                            .closing = "BDAT without a number"},
    [ANSWER_BDAT_NO_MEMORY] = {.text = "421 4.3.0 The relay is out of memory; send it again later",
                               .closing = "out of memory"},
    [ANSWER_AUTH_IN_MAIL] = {.text = "503 5.5.1 AUTH is not possible within a mail"},
    [ANSWER_AUTH_TWICE] = {.text = "503 5.5.1 Already authenticated"},
    [ANSWER_AUTH_NOTHING] = {.text = "501 5.5.4 Say AUTH LOGIN or AUTH PLAIN", .bad = true},
    [ANSWER_AUTH_UNKNOWN] = {.text = "504 5.5.4 Unknown mechanism: LOGIN and PLAIN are offered"},
    [ANSWER_AUTH_SYNTAX] = {.text = "501 5.5.2 Cannot decode this as base64", .bad = true},
    [ANSWER_AUTH_TOO_LONG] = {.text = "500 5.5.6 Login too long", .bad = true},
    [ANSWER_AUTH_CANCELLED] = {.text = "501 5.7.0 Authentication aborted"},
    [ANSWER_AUTH_OK] = {.text = "235 2.7.0 Authentication successful"},
    [ANSWER_AUTH_WRONG] = {.text = "535 5.7.8 Error: authentication failed", .bad = true},
    [ANSWER_AUTH_UNAVAILABLE] = {.text = "454 4.7.0 Temporary authentication failure"},
    [ANSWER_AUTH_NEEDED] = {.text = "530 5.7.0 Authentication required"},
    [ANSWER_TLS_READY] = {.text = "220 2.0.0 Ready to start TLS"},
    [ANSWER_TLS_ALREADY] = {.text = "503 5.5.1 TLS is active already"},
    [ANSWER_TLS_NEEDED] = {.text = "530 5.7.0 Must issue a STARTTLS command first"},
    [ANSWER_TLS_IN_MAIL] = {.text = "503 5.5.1 STARTTLS is not possible within a mail"},
    [ANSWER_TLS_AFTER_AUTH] = {.text = "503 5.5.1 STARTTLS comes before AUTH"},
    [ANSWER_TOO_FAST] = {.text = "451 4.7.1 Too many messages in a minute; send it again later"},
    [ANSWER_WRONG_DOMAIN] = {.text = "550 5.7.1 Mail to this domain is not allowed here"},
    [ANSWER_HTTP] = {.text = "554 5.5.1 This is SMTP, not HTTP; closing",
                     .closing = "HTTP on a mail port"},
    [ANSWER_NOT_WAITED] = {.text = "554 5.5.1 Mail data after a refused DATA; closing",
                           .closing = "mail data after a refused DATA"},
    [ANSWER_ENDLESS_LINE] = {"500 5.5.2 Command line without end; closing", false,
                             "a command line without end"},
};

_Static_assert(COUNT(answers) == ANSWER_COUNT, "every answer has its text");

/* ---- the machine ----------------------------------------------------------------------------- */

/* Mail data on its way; lives from DATA to the answer to its end. */
struct mail {
    uint64_t id;
    struct maildata_decoder decoder;
    struct header header;
    bool in_header;
    bool started;        /* an octet has come */
    bool ended;          /* the end of mail data has come */
    bool chunked;        /* by BDAT */
    bool last;           /* this chunk is */
    uint64_t chunk_left; /* octets of this chunk to come */
    bool discard;        /* SERVER_DISCARD is due */
    enum answer refusal;
    uint64_t size;        /* octets of content as sent, in CR LF form */
    uint64_t stored;      /* with what we add */
    uint64_t swallowed;   /* raw octets of refused mail data */
    struct bytes written; /* the stored header */
    const uint8_t *store; /* what is due for the spool: in written or in filtered */
    size_t store_len;
    struct siphash content; /* with has_twice_key */
    struct mime mime;
    uint8_t buffer[DECODED_MAX];
    uint8_t filtered[MIME_ROOM(DECODED_MAX) + MIME_ROOM(0)];
};

_Static_assert(DECODED_MAX <= HEADER_CHUNK_MAX, "what was decoded can be fed to the header");

struct server_fsm {
    char *hostname;
    char *client;
    char *client_literal;
    char *device;
    char *listener;
    uint64_t max_size;
    uint32_t max_recipients;
    int utc_offset_minutes;
    char *charset; /* of header fields that are neither ASCII nor UTF-8 */
    enum server_tls tls;
    const struct config_domains *domains; /* of recipients */
    enum config_login auth;
    uint32_t hide;
    bool auth_equals;
    bool mt_priority;
    bool importance;
    bool lf_dot_lf;
    bool join_split;
    bool has_twice_key;
    uint8_t twice_key[TWICE_KEY];

    enum state state;
    char *login;        /* verified, or NULL */
    char *offered;      /* a login that is a mail address, verified or not, or NULL */
    bool authenticated; /* verified or not */
    bool plain;         /* the mechanism is PLAIN, else LOGIN */
    bool has_answered;  /* ... and the device has said something in it */
    bool named;         /* HELO or EHLO was said */
    bool auth_said;     /* from there on a lost password may be anywhere */
    bool helo_hidden;   /* it may be in this name */
    quirks quirks;
    struct server_heard heard;
    bool silent_end; /* silence has ended the mail data, and so the session */
    bool discard;    /* SERVER_DISCARD is due, behind a reply */
    bool has_lane;
    struct bytes response; /* what the device signs in with, decoded */
    bool greeted;          /* by EHLO: the trace says ESMTP */
    bool begun;            /* an octet has come */
    bool data_refused;     /* the last command was DATA, and not answered 354 */
    bool line_too_long;
    size_t line_octets; /* of the current command line, kept or not */
    size_t held;        /* octets done with but not yet consumed */
    size_t asked;       /* RCPT commands in this transaction */
    bool has_size;      /* SIZE was said in this transaction */
    uint64_t announced; /* ... how much */
    unsigned bad;       /* commands */
    unsigned empty;     /* lines in a row */
    struct bytes line;
    struct envelope envelope;
    struct mail *mail;
    char helo[SERVER_HELO_MAX + 1];
    char secured[SERVER_TLS_TEXT_MAX]; /* TLS version and suite; "" in the clear */
    char too_large[160];
    char closing[CLOSING_MAX];
    char reply[SERVER_REPLY_MAX];
};

static void mail_free(struct mail *m)
{
    if (m == NULL)
        return;
    header_done(&m->header);
    bytes_done(&m->written);
    free(m);
}

static struct mail *mail_new(const struct server_fsm *f)
{
    struct mail *m = malloc(sizeof(*m));

    if (m == NULL)
        return NULL;
    memset(m, 0, offsetof(struct mail, mime));
    mime_begin(&m->mime, "", 0, "", 0);
    maildata_decoder_init(&m->decoder);
    header_init(&m->header);
    siphash_begin(&m->content, SIPHASH_1_3, f->twice_key);
    bytes_init(&m->written, WRITTEN_MAX);
    m->in_header = true;
    return m;
}

/* The one place that changes the state. Mail data ends with its transaction. */
static void server_enter(struct server_fsm *f, enum state state)
{
    assert(f->state != STATE_CLOSED);
    if (state == STATE_READY || state == STATE_CLOSED) {
        f->discard |= f->state == STATE_CHUNKS;
        mail_free(f->mail);
        f->mail = NULL;
    }
    f->state = state;
}

/* ---- replies --------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static void
reply(struct server_fsm *f, struct server_effect *out, const char *fmt, ...)
{
    size_t room = sizeof(f->reply) - 2;
    va_list args;
    size_t len;
    int n;

    va_start(args, fmt);
    n = vsnprintf(f->reply, room, fmt, args);
    va_end(args);
    len = n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
    memcpy(f->reply + len, "\r\n", 2);
    *out = (struct server_effect){.kind = SERVER_REPLY, .text = f->reply, .text_len = len + 2};
}

static void close_with(struct server_fsm *f, struct server_effect *out, const char *closing)
{
    out->kind = SERVER_CLOSE;
    snprintf(f->closing, sizeof(f->closing), "%s", closing);
    server_enter(f, STATE_CLOSED);
}

/* A device that has lost its way is told to come back rather than answered for ever. */
static void count_bad(struct server_fsm *f, struct server_effect *out)
{
    f->bad++;
    if (f->bad <= SERVER_BAD_COMMANDS_MAX)
        return;
    reply(f, out, "421 4.7.0 %s Too many bad commands; closing", f->hostname);
    close_with(f, out, "too many bad commands");
}

static void answer(struct server_fsm *f, enum answer which, struct server_effect *out)
{
    reply(f, out, "%s", which == ANSWER_TOO_LARGE ? f->too_large : answers[which].text);
    if (answers[which].bad)
        count_bad(f, out);
    else if (answers[which].closing != NULL)
        close_with(f, out, answers[which].closing);
}

static enum answer answer_to(const struct error *err)
{
    if (err->kind == ERROR_BUSY)
        return ANSWER_TOO_FAST;
    if (err->kind == ERROR_SHARE)
        return ANSWER_NO_SHARE;
    return err->kind == ERROR_NO_ROOM || err->kind == ERROR_LIMIT ? ANSWER_NO_ROOM
                                                                  : ANSWER_NOT_STORED;
}

/* The printer's panel shows this. */
static void format_too_large(struct server_fsm *f)
{
    static const struct {
        const char *unit;
        uint64_t octets;
    } units[] = {{"MB", UINT64_C(1) << 20}, {"KB", UINT64_C(1) << 10}, {"octets", 1}};
    size_t i = 0;

    while (i + 1 < COUNT(units) && f->max_size < units[i].octets)
        i++;
    snprintf(f->too_large, sizeof(f->too_large),
             "552 5.3.4 Message too large: the limit is %" PRIu64
             " %s; scan fewer pages or at a lower resolution",
             f->max_size / units[i].octets, units[i].unit);
}

static void note(struct server_fsm *f, enum quirk quirk, bool seen)
{
    if (seen)
        f->quirks |= QUIRK_BIT(quirk);
}

/* ---- the transaction ------------------------------------------------------------------------- */

static bool transaction_begin(struct server_fsm *f)
{
    struct envelope *e = &f->envelope;

    note(f, QUIRK_NO_HELO, !f->named);
    note(f, QUIRK_SECOND_MAIL, f->state != STATE_READY);
    envelope_done(e);
    f->asked = 0;
    f->has_lane = false;
    f->has_size = false;
    server_enter(f, STATE_READY);
    return envelope_set(&e->login, f->login != NULL ? f->login : "") &&
           envelope_set(&e->device, f->device) && envelope_set(&e->client, f->client) &&
           envelope_set(&e->listener, f->listener) && envelope_set(&e->helo, f->helo);
}

static void transaction_reset(struct server_fsm *f)
{
    envelope_done(&f->envelope);
    f->asked = 0;
    server_enter(f, STATE_READY);
}

/* ---- commands -------------------------------------------------------------------------------- */

/* RFC 5321 4.1.1.1 asks for a domain name or an address literal. A single label will do: hardly a
 * device has more. */
static bool is_host_name(struct command_text name)
{
    static const char address[] = "0123456789.";
    size_t digits = 0;

    while (digits < name.len && strchr(address, name.p[digits]) != NULL)
        digits++;
    return digits < name.len && memchr(name.p, '_', name.len) == NULL &&
           address_is_domain(name.p, name.len);
}

static void set_helo(struct server_fsm *f, struct command_text name)
{
    size_t n = name.len < SERVER_HELO_MAX ? name.len : SERVER_HELO_MAX;

    f->named = true;
    f->helo_hidden = f->auth_said && !f->authenticated;
    note(f, QUIRK_HELO_EMPTY, name.len == 0);
    note(f, QUIRK_HELO_ODD, name.len > 0 && !is_host_name(name));
    memcpy(f->helo, name.p, n);
    f->helo[n] = '\0';
    for (char *c = f->helo; *c != '\0'; c++) {
        if (*c < ' ' || *c > '~')
            *c = '?';
    }
}

static bool shows(const struct server_fsm *f, enum config_keyword keyword)
{
    return (f->hide & keyword) == 0;
}

/* The lines between the first and the last. */
static void list_keywords(const struct server_fsm *f, char text[KEYWORDS_MAX])
{
    bool auth = f->auth != CONFIG_LOGIN_OFF && shows(f, CONFIG_KEYWORD_AUTH);
    char size[SIZE_MAX_TEXT];
    const struct {
        bool shown;
        const char *line;
    } lines[] = {
        {shows(f, CONFIG_KEYWORD_PIPELINING), "PIPELINING"},
        {shows(f, CONFIG_KEYWORD_SIZE), size},
        {f->tls != SERVER_TLS_NONE && f->secured[0] == '\0' && shows(f, CONFIG_KEYWORD_STARTTLS),
         "STARTTLS"},
        {auth, "AUTH LOGIN PLAIN"},
        {auth && f->auth_equals, "AUTH=LOGIN PLAIN"},
        {shows(f, CONFIG_KEYWORD_8BITMIME), "8BITMIME"},
        {true, "ENHANCEDSTATUSCODES"},
        {shows(f, CONFIG_KEYWORD_DSN), "DSN"},
        {shows(f, CONFIG_KEYWORD_SMTPUTF8), "SMTPUTF8"},
        {shows(f, CONFIG_KEYWORD_CHUNKING), "CHUNKING"},
        {f->mt_priority, "MT-PRIORITY"},
    };
    size_t len = 0;

    snprintf(size, sizeof(size), "SIZE %" PRIu64, f->max_size);
    for (size_t i = 0; i < COUNT(lines); i++) {
        if (lines[i].shown)
            len += (size_t)snprintf(text + len, KEYWORDS_MAX - len, "250-%s\r\n", lines[i].line);
    }
}

static void run_ehlo(struct server_fsm *f, const struct command *c, struct server_effect *out)
{
    char text[KEYWORDS_MAX] = "";

    transaction_reset(f);
    set_helo(f, c->argument);
    f->greeted = true;
    list_keywords(f, text);
    reply(f, out, "250-%s\r\n%s250 HELP", f->hostname, text);
}

static void run_helo(struct server_fsm *f, const struct command *c, struct server_effect *out)
{
    transaction_reset(f);
    set_helo(f, c->argument);
    f->greeted = false;
    reply(f, out, "250 %s", f->hostname);
}

static void run_rset(struct server_fsm *f, const struct command *c, struct server_effect *out)
{
    (void)c;
    transaction_reset(f);
    answer(f, ANSWER_OK, out);
}

/* `argument` is what stands behind MAIL or RCPT, and path a piece of it. */
static void note_path(struct server_fsm *f, struct command_text argument, struct command_text path)
{
    bool brackets = path.len > 1 && path.p[0] == '<' && path.p[path.len - 1] == '>';
    bool space = path.p > argument.p && (path.p[-1] == ' ' || path.p[-1] == '\t');

    note(f, QUIRK_NO_BRACKETS, !brackets);
    note(f, QUIRK_SPACE_IN_PATH, space);
}

static bool keep_text(char **field, struct command_text text)
{
    return envelope_set_n(field, text.p, text.len);
}

/* RFC 6710, in three lanes. Between them the device's own lane counts. */
static void keep_priority(struct server_fsm *f, const struct command_parameters *p)
{
    f->has_lane =
        f->mt_priority && p->has_priority && (p->priority < 0 || p->priority >= URGENT_FROM);
    if (f->has_lane)
        f->envelope.lane = p->priority < 0 ? LANE_BULK : LANE_URGENT;
}

static bool keep_mail_parameters(struct envelope *e, const struct command_parameters *p)
{
    const char *ret = p->ret.len == 0                            ? ""
                      : p->ret.p[0] == 'F' || p->ret.p[0] == 'f' ? "FULL"
                                                                 : "HDRS";

    e->body = p->body == COMMAND_BODY_8BITMIME ? ENVELOPE_BODY_8BITMIME : ENVELOPE_BODY_7BIT;
    return envelope_set(&e->ret, ret) && keep_text(&e->envid, p->envid);
}

static void run_mail(struct server_fsm *f, const struct command *c, struct server_effect *out)
{
    struct command_text path;
    struct command_text text;
    struct command_parameters p;
    struct address a;
    const char *problem;
    struct envelope *e = &f->envelope;
    bool ready = transaction_begin(f);

    if (f->auth == CONFIG_LOGIN_REQUIRED && f->login == NULL)
        answer(f, ANSWER_AUTH_NEEDED, out);
    else if (!command_split_path(c->argument, "FROM", &path, &text))
        answer(f, ANSWER_MAIL_SYNTAX, out);
    else if (!address_parse(path.p, path.len, ADDRESS_REVERSE_PATH, &a, &problem))
        reply(f, out, "501 5.1.7 Sender address refused: %s", problem);
    else if (!command_parameters(text, COMMAND_MAIL, &p, &problem))
        reply(f, out, "555 5.5.4 MAIL parameter refused: %s", problem);
    else if (f->max_size > 0 && p.has_size && p.size > f->max_size)
        answer(f, ANSWER_TOO_LARGE, out);
    else if (!ready || !envelope_set(&e->reverse_path, a.path) || !keep_mail_parameters(e, &p))
        answer(f, ANSWER_NO_MEMORY, out);
    else {
        e->smtputf8 = p.smtputf8 || a.utf8;
        keep_priority(f, &p);
        f->has_size = p.has_size;
        f->announced = p.size;
        note_path(f, c->argument, path);
        note(f, QUIRK_UNKNOWN_PARAMETER, p.ignored_count > 0);
        server_enter(f, STATE_MAIL);
        answer(f, ANSWER_SENDER_OK, out);
    }
}

static bool keep_recipient(struct envelope *e, const char *path, const struct command_parameters *p)
{
    struct recipient *r;

    if (!envelope_add_recipient(e, path))
        return false;
    r = &e->recipients[e->recipient_count - 1];
    return keep_text(&r->notify, p->notify) && keep_text(&r->orcpt, p->orcpt);
}

/* A duplicate is as good as the first. */
static void add_recipient(struct server_fsm *f, const char *path,
                          const struct command_parameters *p, struct server_effect *out)
{
    struct envelope *e = &f->envelope;
    size_t max =
        f->max_recipients < ENVELOPE_RECIPIENTS_MAX ? f->max_recipients : ENVELOPE_RECIPIENTS_MAX;

    if (envelope_has_recipient(e, path)) {
        note(f, QUIRK_DUPLICATE_RECIPIENT, true);
    } else {
        if (e->recipient_count >= max) {
            reply(f, out,
                  "452 4.5.3 Too many recipients: %zu is the limit; send the others separately",
                  max);
            return;
        }
        if (!keep_recipient(e, path, p)) {
            answer(f, ANSWER_NO_MEMORY, out);
            return;
        }
    }
    server_enter(f, STATE_RCPT);
    answer(f, ANSWER_RECIPIENT_OK, out);
}

/* ".example.com" of the list stands for what is below it. */
static bool may_go_to(const struct server_fsm *f, const char *path)
{
    if (f->domains == NULL || f->domains->count == 0)
        return true;
    for (size_t i = 0; i < f->domains->count; i++) {
        if (address_is_listed(f->domains->list[i], path))
            return true;
    }
    return false;
}

static void run_rcpt(struct server_fsm *f, const struct command *c, struct server_effect *out)
{
    struct command_text path;
    struct command_text text;
    struct command_parameters p;
    struct address a;
    const char *problem;

    f->asked++;
    if (!command_split_path(c->argument, "TO", &path, &text))
        answer(f, ANSWER_RCPT_SYNTAX, out);
    else if (!address_parse(path.p, path.len, ADDRESS_FORWARD_PATH, &a, &problem))
        reply(f, out, "501 5.1.3 Recipient address refused: %s", problem);
    else if (!command_parameters(text, COMMAND_RCPT, &p, &problem))
        reply(f, out, "555 5.5.4 RCPT parameter refused: %s", problem);
    else if (!may_go_to(f, a.path))
        answer(f, ANSWER_WRONG_DOMAIN, out);
    else {
        f->envelope.smtputf8 |= a.utf8;
        note_path(f, c->argument, path);
        note(f, QUIRK_UNKNOWN_PARAMETER, p.ignored_count > 0);
        add_recipient(f, a.path, &p, out);
    }
}

static void run_data(struct server_fsm *f, const struct command *c, struct server_effect *out)
{
    (void)c;
    f->data_refused = true;
    if (f->state == STATE_CHUNKS) {
        answer(f, ANSWER_CHUNKS_BEGUN, out);
        return;
    }
    if (f->state == STATE_READY) {
        answer(f, ANSWER_NEEDS_MAIL, out);
        return;
    }
    if (f->state == STATE_MAIL) {
        answer(f, f->asked > 0 ? ANSWER_NO_RECIPIENTS : ANSWER_NEEDS_RCPT, out);
        return;
    }
    f->mail = mail_new(f);
    if (f->mail == NULL) {
        answer(f, ANSWER_NO_MEMORY, out);
        return;
    }
    server_enter(f, STATE_OPENING);
    *out = (struct server_effect){.kind = SERVER_OPEN};
}

/* A chunk that is refused is read all the same: what stands behind it is the next command. */
static void begin_chunks(struct server_fsm *f, struct mail *m, struct server_effect *out)
{
    f->mail = m;
    m->chunked = true;
    m->started = true;
    maildata_decoder_init_chunks(&m->decoder);
    if (f->state == STATE_RCPT) {
        server_enter(f, STATE_OPENING);
        *out = (struct server_effect){.kind = SERVER_OPEN};
        return;
    }
    m->refusal = f->state == STATE_READY ? ANSWER_NEEDS_MAIL
                 : f->asked > 0          ? ANSWER_NO_RECIPIENTS
                                         : ANSWER_NEEDS_RCPT;
    server_enter(f, STATE_SWALLOW);
}

static void run_bdat(struct server_fsm *f, const struct command *c, struct server_effect *out)
{
    bool begun = f->state == STATE_CHUNKS;
    struct mail *m;
    uint64_t octets;
    bool last;

    if (!command_chunk(c->argument, &octets, &last)) {
        answer(f, ANSWER_BDAT_SYNTAX, out);
        return;
    }
    m = begun ? f->mail : mail_new(f);
    if (m == NULL) {
        answer(f, ANSWER_BDAT_NO_MEMORY, out);
        return;
    }
    m->chunk_left = octets;
    m->last = last;
    if (begun)
        server_enter(f, STATE_DATA);
    else
        begin_chunks(f, m, out);
}

/* ---- signing in ------------------------------------------------------------------------------ */

static void forget_response(struct server_fsm *f)
{
    if (f->response.data != NULL)
        explicit_bzero(f->response.data, f->response.cap);
    bytes_done(&f->response);
}

/* "=" is how nothing is written where a blank would end the line. Where any login will do, what is
 * no base64 will do as well. */
static bool decode_response(struct server_fsm *f, struct command_text text)
{
    uint8_t *room;
    size_t len = 0;

    forget_response(f);
    room = bytes_reserve(&f->response, text.len + 1);
    if (room == NULL)
        return false;
    if ((text.len != 1 || text.p[0] != '=') && !base64_decode(text.p, text.len, room, &len)) {
        if (f->auth != CONFIG_LOGIN_ANY)
            return false;
        memcpy(room, text.p, text.len);
        len = text.len;
    }
    f->response.len = len;
    return true;
}

/* What a device signs in with is often the address it would send from. */
static void keep_offered(struct server_fsm *f, const char *p, size_t len)
{
    struct address a;
    const char *problem;

    if (f->offered != NULL || !address_parse(p, len, ADDRESS_REVERSE_PATH, &a, &problem))
        return;
    if (a.path[a.domain] != '\0' && !a.utf8 && strlen(a.path) == len && memcmp(a.path, p, len) == 0)
        f->offered = strdup(a.path); /* without memory: as if it had none */
}

static void forget_offered(struct server_fsm *f)
{
    free(f->offered);
    f->offered = NULL;
}

/* The first answer of LOGIN is the login; PLAIN's one has it between two NULs. */
static void look_for_login(struct server_fsm *f, bool is_first)
{
    const char *p = (const char *)f->response.data;
    const char *end = p + f->response.len;

    if (!is_first || f->response.len == 0)
        return;
    if (f->plain) {
        p = memchr(p, '\0', f->response.len);
        if (p == NULL)
            return;
        p++;
        end = p < end ? memchr(p, '\0', (size_t)(end - p)) : NULL;
        if (end == NULL)
            return;
    }
    keep_offered(f, p, (size_t)(end - p));
}

static void ask_for_check(struct server_fsm *f, const char *mechanism, bool has_response,
                          struct server_effect *out)
{
    if (has_response)
        look_for_login(f, !f->has_answered);
    f->has_answered |= has_response;
    server_enter(f, STATE_CHECKING);
    *out = (struct server_effect){.kind = SERVER_AUTH,
                                  .text = mechanism,
                                  .text_len = mechanism != NULL ? strlen(mechanism) : 0,
                                  .data = has_response ? f->response.data : NULL,
                                  .data_len = has_response ? f->response.len : 0};
}

static void run_auth(struct server_fsm *f, const struct command *c, struct server_effect *out)
{
    static const char *const mechanisms[] = {"LOGIN", "PLAIN"};
    struct command_text response = c->argument;
    struct command_text name = command_word(&response);
    const char *mechanism = NULL;

    for (size_t i = 0; i < COUNT(mechanisms); i++) {
        if (name.len == strlen(mechanisms[i]) && strncasecmp(name.p, mechanisms[i], name.len) == 0)
            mechanism = mechanisms[i];
    }
    if (f->auth == CONFIG_LOGIN_OFF)
        answer(f, ANSWER_NOT_OFFERED, out);
    else if (f->authenticated)
        answer(f, ANSWER_AUTH_TWICE, out);
    else if (mechanism == NULL)
        answer(f, name.len > 0 ? ANSWER_AUTH_UNKNOWN : ANSWER_AUTH_NOTHING, out);
    else if (!decode_response(f, response))
        answer(f, ANSWER_AUTH_SYNTAX, out);
    else {
        f->plain = mechanism == mechanisms[1];
        f->has_answered = false;
        forget_offered(f);
        ask_for_check(f, mechanism, response.len > 0, out);
    }
}

/* A line that the device was asked for. */
static void run_response(struct server_fsm *f, const char *p, size_t len, struct server_effect *out)
{
    struct command_text rest = {p, len};
    struct command_text response = command_word(&rest);
    enum answer wrong = ANSWER_COUNT;

    if (f->line_too_long)
        wrong = ANSWER_AUTH_TOO_LONG;
    else if (response.len == 1 && response.p[0] == '*')
        wrong = ANSWER_AUTH_CANCELLED;
    else if (!decode_response(f, response))
        wrong = ANSWER_AUTH_SYNTAX;
    if (wrong == ANSWER_COUNT) {
        ask_for_check(f, NULL, true, out);
        return;
    }
    forget_response(f);
    server_enter(f, STATE_READY);
    answer(f, wrong, out);
}

/* A parameter is not allowed and does no harm. */
static void run_starttls(struct server_fsm *f, const struct command *c, struct server_effect *out)
{
    (void)c;
    if (f->tls == SERVER_TLS_NONE) {
        answer(f, ANSWER_NOT_OFFERED, out);
    } else if (f->secured[0] != '\0') {
        answer(f, ANSWER_TLS_ALREADY, out);
    } else if (f->authenticated) {
        answer(f, ANSWER_TLS_AFTER_AUTH, out);
    } else {
        answer(f, ANSWER_TLS_READY, out);
        out->kind = SERVER_START_TLS;
        server_enter(f, STATE_SECURING);
    }
}

#define IN_TRANSACTION (1U << STATE_MAIL | 1U << STATE_RCPT)

/* One row a verb. Without `run`, `fixed` is the answer. `allowed` is a set of states, 0 for all
 * that take commands; elsewhere `wrong` is the answer. */
static const struct {
    void (*run)(struct server_fsm *f, const struct command *c, struct server_effect *out);
    enum answer fixed;
    unsigned allowed;
    enum answer wrong;
} commands[] = {
    [COMMAND_UNKNOWN] = {.fixed = ANSWER_UNKNOWN},
    [COMMAND_EHLO] = {.run = run_ehlo},
    [COMMAND_HELO] = {.run = run_helo},
    [COMMAND_MAIL] = {.run = run_mail},
    [COMMAND_RCPT] = {.run = run_rcpt, .allowed = IN_TRANSACTION, .wrong = ANSWER_NEEDS_MAIL},
    [COMMAND_DATA] = {.run = run_data},
    [COMMAND_RSET] = {.run = run_rset},
    [COMMAND_NOOP] = {.fixed = ANSWER_OK},
    [COMMAND_VRFY] = {.fixed = ANSWER_VRFY},
    [COMMAND_HELP] = {.fixed = ANSWER_HELP},
    [COMMAND_QUIT] = {.fixed = ANSWER_BYE},
    [COMMAND_EXPN] = {.fixed = ANSWER_NOT_OFFERED},
    [COMMAND_ETRN] = {.fixed = ANSWER_NOT_OFFERED},
    [COMMAND_TURN] = {.fixed = ANSWER_NOT_OFFERED},
    [COMMAND_AUTH] = {.run = run_auth, .allowed = 1U << STATE_READY, .wrong = ANSWER_AUTH_IN_MAIL},
    [COMMAND_STARTTLS] = {.run = run_starttls,
                          .allowed = 1U << STATE_READY,
                          .wrong = ANSWER_TLS_IN_MAIL},
    [COMMAND_BDAT] = {.run = run_bdat},
    [COMMAND_SEND] = {.fixed = ANSWER_NOT_OFFERED},
    [COMMAND_HTTP] = {.fixed = ANSWER_HTTP},
};

_Static_assert(COUNT(commands) == COMMAND_COUNT, "every verb has its row");

/* What a login or a mail begins with. */
static bool lacks_tls(const struct server_fsm *f, enum command_verb verb)
{
    return f->tls == SERVER_TLS_REQUIRED && f->secured[0] == '\0' &&
           (verb == COMMAND_MAIL || verb == COMMAND_AUTH);
}

static void run_command(struct server_fsm *f, const struct command *c, struct server_effect *out)
{
    if (lacks_tls(f, c->verb))
        answer(f, ANSWER_TLS_NEEDED, out);
    else if (commands[c->verb].allowed != 0 && (commands[c->verb].allowed & 1U << f->state) == 0)
        answer(f, commands[c->verb].wrong, out);
    else if (commands[c->verb].run != NULL)
        commands[c->verb].run(f, c, out);
    else
        answer(f, commands[c->verb].fixed, out);
}

/* ---- command lines --------------------------------------------------------------------------- */

static bool has_controls(const char *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (((unsigned char)p[i] < ' ' && p[i] != '\t') || p[i] == 0x7f)
            return true;
    }
    return false;
}

static bool is_blank(const char *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i] != ' ' && p[i] != '\t')
            return false;
    }
    return true;
}

static void run_line(struct server_fsm *f, const char *p, size_t len, struct server_effect *out)
{
    bool data_refused = f->data_refused;
    bool unfit = f->line_too_long || has_controls(p, len);
    struct command c;

    if (!unfit && is_blank(p, len)) {
        note(f, QUIRK_EMPTY_LINES, true);
        if (++f->empty > SERVER_EMPTY_LINES_MAX)
            answer(f, ANSWER_EMPTY, out);
        return;
    }
    f->empty = 0;
    f->data_refused = false;
    command_parse(p, len, &c);
    f->auth_said |= c.verb == COMMAND_AUTH;
    note(f, QUIRK_UNKNOWN_COMMAND, !unfit && c.verb == COMMAND_UNKNOWN);
    if (data_refused && (unfit || c.verb == COMMAND_UNKNOWN))
        answer(f, ANSWER_NOT_WAITED, out);
    else if (unfit)
        answer(f, f->line_too_long ? ANSWER_LINE_TOO_LONG : ANSWER_CONTROLS, out);
    else
        run_command(f, &c, out);
}

/* It may hold a password. */
static void wipe_line(struct server_fsm *f)
{
    if (f->line.len > 0)
        explicit_bzero(f->line.data, f->line.len);
    bytes_clear(&f->line);
}

/* A bare LF ends a line too, and so does CR CR LF. */
static void end_line(struct server_fsm *f, struct server_effect *out)
{
    const char *p = (const char *)f->line.data;
    size_t len = f->line.len;

    note(f, QUIRK_BARE_LF_COMMANDS, len > 0 && (len == 1 || p[len - 2] != '\r'));
    for (; len > 0 && (p[len - 1] == '\n' || p[len - 1] == '\r'); len--)
        ;
    if (f->state == STATE_RESPONSE)
        run_response(f, len > 0 ? p : "", len, out);
    else
        run_line(f, len > 0 ? p : "", len, out);
    wipe_line(f);
    f->line_too_long = false;
    f->line_octets = 0;
}

/* Reads up to the end of one line. */
static size_t step_command(struct server_fsm *f, const uint8_t *data, size_t len,
                           struct server_effect *out)
{
    const uint8_t *lf = memchr(data, '\n', len);
    size_t used = lf != NULL ? (size_t)(lf - data) + 1 : len;

    if (!f->begun && data[0] == TLS_HANDSHAKE) {
        close_with(f, out, "TLS hello on a plaintext listener");
        return used;
    }
    f->begun = true;
    if (f->line_too_long || !bytes_append(&f->line, data, used)) {
        f->line_too_long = true;
        bytes_clear(&f->line);
    }
    f->line_octets += used;
    if (lf != NULL)
        end_line(f, out);
    else if (f->line_octets > SERVER_LINE_SWALLOW_MAX)
        answer(f, ANSWER_ENDLESS_LINE, out);
    return used;
}

/* ---- mail data ------------------------------------------------------------------------------- */

/* From here on the mail data is only read to its end. */
static void refuse_mail(struct server_fsm *f, enum answer refusal, bool discard)
{
    struct mail *m = f->mail;

    m->refusal = refusal;
    m->discard = discard;
    m->store_len = 0;
    m->in_header = false;
    header_done(&m->header);
    bytes_done(&m->written);
    server_enter(f, STATE_SWALLOW);
}

/* The Message-ID with its brackets, and nothing else of the field. */
static bool keep_message_id(struct server_fsm *f, const char *ours)
{
    char text[TRACE_MESSAGE_ID_MAX];
    const char *open;
    const char *close;

    header_text(&f->mail->header, HEADER_MESSAGE_ID, text, sizeof(text));
    if (text[0] == '\0' && f->mail->header.state == HEADER_DONE)
        return envelope_set(&f->envelope.message_id, ours);
    open = strchr(text, '<');
    close = open != NULL ? strchr(open, '>') : NULL;
    return close == NULL ||
           envelope_set_n(&f->envelope.message_id, open, (size_t)(close - open) + 1);
}

static bool keep_partial(struct server_fsm *f)
{
    struct envelope *e = &f->envelope;
    struct partial part;

    if (!f->join_split || !partial_of(&f->mail->header, &part))
        return true;
    e->partial_number = part.number;
    e->partial_total = part.total;
    return envelope_set(&e->partial_id, part.id);
}

/* What mail programs write; what is neither here nor there is normal. */
static void keep_importance(struct server_fsm *f)
{
    static const struct {
        const char *field;
        const char *begin; /* of its value */
        enum lane lane;
    } rows[] = {{"Importance", "high", LANE_URGENT}, {"Importance", "low", LANE_BULK},
                {"X-Priority", "1", LANE_URGENT},    {"X-Priority", "2", LANE_URGENT},
                {"X-Priority", "4", LANE_BULK},      {"X-Priority", "5", LANE_BULK}};
    char text[SERVER_IMPORTANCE_MAX];

    for (size_t i = 0; f->importance && !f->has_lane && i < COUNT(rows); i++) {
        header_text_named(&f->mail->header, rows[i].field, text, sizeof(text));
        f->has_lane = strncasecmp(text, rows[i].begin, strlen(rows[i].begin)) == 0;
        if (f->has_lane)
            f->envelope.lane = rows[i].lane;
    }
}

static bool keep_facts(struct server_fsm *f, const char *message_id)
{
    char subject[SERVER_SUBJECT_MAX + 1];

    keep_importance(f);
    header_text(&f->mail->header, HEADER_SUBJECT, subject, sizeof(subject));
    return envelope_set(&f->envelope.subject, subject) && keep_message_id(f, message_id) &&
           envelope_set(&f->envelope.repairs, f->mail->header.repairs) && keep_partial(f);
}

/* RFC 3848 and RFC 6531; a login that anybody could have made up is none. */
static const char *protocol_name(const struct server_fsm *f)
{
    static const char *const names[2][2][2] = {
        {{"ESMTP", "ESMTPA"}, {"ESMTPS", "ESMTPSA"}},
        {{"UTF8SMTP", "UTF8SMTPA"}, {"UTF8SMTPS", "UTF8SMTPSA"}},
    };

    if (!f->greeted && f->login == NULL)
        return "SMTP";
    return names[f->envelope.smtputf8][f->secured[0] != '\0'][f->login != NULL];
}

static bool write_trace(const struct server_fsm *f, uint64_t wall_ms, struct bytes *out)
{
    const struct envelope *e = &f->envelope;
    struct trace trace = {.helo = f->helo,
                          .client = f->client_literal,
                          .hostname = f->hostname,
                          .protocol = protocol_name(f),
                          .tls = f->secured,
                          .recipient =
                              e->recipient_count == 1 ? e->recipients[0].forward_path : NULL,
                          .id = f->mail->id,
                          .wall_ms = wall_ms,
                          .utc_offset_minutes = f->utc_offset_minutes};

    return trace_received(&trace, out);
}

/* What a From would say that is missing. */
static const char *sender_of(const struct server_fsm *f)
{
    const char *reverse_path = f->envelope.reverse_path;

    return reverse_path[0] == '\0' && f->authenticated && f->offered != NULL ? f->offered
                                                                             : reverse_path;
}

static bool has_field(const struct header *h, const char *name)
{
    for (size_t i = 0; i < h->field_count; i++) {
        const struct header_field *field = &h->fields[i];

        if (field->action != HEADER_DROP && field->name_len == strlen(name) &&
            strncasecmp((const char *)h->text.data + field->offset, name, field->name_len) == 0)
            return true;
    }
    return false;
}

/* The null reverse-path says that nothing is to be sent in answer. A mailbox takes its place on the
 * way out, so the header has to say it (RFC 3834 5). */
static bool mark_automatic(const struct server_fsm *f, struct header *h)
{
    if (f->envelope.reverse_path[0] != '\0' || h->state != HEADER_DONE ||
        has_field(h, "Auto-Submitted"))
        return true;
    header_note(h, "auto_submitted");
    return header_add(h, "Auto-Submitted: auto-generated");
}

static bool write_header(struct server_fsm *f, uint64_t wall_ms)
{
    struct mail *m = f->mail;
    char date[TRACE_DATE_MAX];
    char message_id[TRACE_MESSAGE_ID_MAX];
    struct repair_facts facts = {.date = date,
                                 .message_id = message_id,
                                 .reverse_path = sender_of(f),
                                 .device = f->envelope.device,
                                 .hostname = f->hostname,
                                 .charset = f->charset,
                                 .smtputf8 = f->envelope.smtputf8};
    struct bytes received;
    bool ok;

    bytes_init(&received, TRACE_MAX);
    trace_date(wall_ms, f->utc_offset_minutes, date);
    trace_message_id(m->id, wall_ms, f->hostname, message_id);
    ok = write_trace(f, wall_ms, &received) && repair_header(&m->header, &facts) &&
         mark_automatic(f, &m->header) && keep_facts(f, message_id) &&
         header_write(&m->header, &received, &m->written, &f->envelope.header_size);
    bytes_done(&received);
    return ok;
}

static const char *value_of(const struct header *h, enum header_name name, size_t *out_len)
{
    const struct header_field *field = header_find(h, name);

    *out_len = 0;
    return field != NULL ? header_value(h, field, out_len) : "";
}

/* The body begins; what came of it with the header goes out behind that. */
static bool begin_body(struct mail *m)
{
    size_t type_len;
    size_t encoding_len;
    const char *type = value_of(&m->header, HEADER_CONTENT_TYPE, &type_len);
    const char *encoding = value_of(&m->header, HEADER_CONTENT_TRANSFER_ENCODING, &encoding_len);
    size_t left;
    const uint8_t *rest = header_rest(&m->header, &left);

    if (m->header.state == HEADER_TOO_LARGE) /* passes with all that follows */
        mime_begin(&m->mime, "message/rfc822", strlen("message/rfc822"), "", 0);
    else
        mime_begin(&m->mime, type, type_len, encoding, encoding_len);
    while (left > 0) {
        size_t n = left < DECODED_MAX ? left : DECODED_MAX;
        uint8_t *to = bytes_reserve(&m->written, MIME_ROOM(n));

        if (to == NULL)
            return false;
        m->written.len += mime_filter(&m->mime, rest, n, to);
        rest += n;
        left -= n;
    }
    return true;
}

/* A lone CR within a field, where other lines end in LF: to make it a line end there would let it
 * forge fields. */
static bool has_lone_cr(const struct mail *m)
{
    const struct maildata_quirks *q = &m->decoder.quirks;
    const uint8_t *p = m->header.text.data;
    size_t lines = 0;

    if (!q->bare_cr || m->header.state != HEADER_DONE)
        return false;
    for (size_t i = 0; i < m->header.end; i++)
        lines += p[i] == '\n';
    return q->first_bare_cr < lines && q->first_lf < lines;
}

static void take_body(struct server_fsm *f, size_t len)
{
    struct mail *m = f->mail;

    m->store = m->filtered;
    m->store_len = mime_filter(&m->mime, m->buffer, len, m->filtered);
    if (m->ended)
        m->store_len += mime_finish(&m->mime, m->filtered + m->store_len);
    if (m->mime.binary)
        refuse_mail(f, ANSWER_BINARY, true);
}

/* The header is as it will be; what is stored of it goes out first. */
static void end_of_header(struct server_fsm *f, uint64_t wall_ms)
{
    struct mail *m = f->mail;

    m->in_header = false;
    if (header_count(&m->header, HEADER_RECEIVED) >= TRACE_HOPS_MAX) {
        refuse_mail(f, ANSWER_LOOP, true);
        return;
    }
    if (has_lone_cr(m)) {
        refuse_mail(f, ANSWER_LONE_CR, true);
        return;
    }
    if (m->header.state == HEADER_NO_MEMORY || !write_header(f, wall_ms) || !begin_body(m)) {
        refuse_mail(f, ANSWER_NO_MEMORY, true);
        return;
    }
    if (m->mime.binary) {
        refuse_mail(f, ANSWER_BINARY, true);
        return;
    }
    header_done(&m->header);
    m->store = m->written.data;
    m->store_len = m->written.len;
}

/* Decoded octets in the buffer. */
static void take_content(struct server_fsm *f, size_t len, uint64_t wall_ms)
{
    struct mail *m = f->mail;

    if (f->state == STATE_SWALLOW)
        return;
    m->size += len;
    if (f->has_twice_key)
        siphash_add(&m->content, m->buffer, len);
    if (f->max_size > 0 && m->size > f->max_size) {
        refuse_mail(f, ANSWER_TOO_LARGE, true);
    } else if (!m->in_header) {
        take_body(f, len);
    } else {
        enum header_state state = header_feed(&m->header, m->buffer, len);

        if (state == HEADER_MORE && m->ended)
            state = header_finish(&m->header);
        if (state != HEADER_MORE)
            end_of_header(f, wall_ms);
    }
}

static bool add_repairs(struct server_fsm *f)
{
    const struct maildata_quirks *q = &f->mail->decoder.quirks;
    const struct mime_quirks *mime = &f->mail->mime.quirks;
    const struct {
        const char *name;
        bool seen;
    } repairs[] = {{"long_base64", mime->long_base64},
                   {"long_quoted", mime->long_quoted},
                   {"long_text", mime->long_text},
                   {"long_lines_kept", mime->long_other},
                   {"long_part_header", mime->long_field},
                   {"nul", mime->nul},
                   {"message_partial", mime->partial},
                   {"mime_too_deep", mime->too_deep},
                   {"bare_lf", q->bare_lf},
                   {"bare_cr", q->bare_cr},
                   {"cr_cr_lf", q->cr_cr_lf},
                   {"lf_dot_lf", f->silent_end}};
    char text[REPAIRS_MAX];
    size_t len = strlen(f->envelope.repairs);

    snprintf(text, sizeof(text), "%s", f->envelope.repairs);
    for (size_t i = 0; i < COUNT(repairs); i++) {
        if (repairs[i].seen)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", len > 0 ? "," : "",
                                    repairs[i].name);
    }
    return envelope_set(&f->envelope.repairs, text);
}

static void commit(struct server_fsm *f, uint64_t wall_ms, struct server_effect *out)
{
    struct mail *m = f->mail;

    if (!add_repairs(f)) {
        refuse_mail(f, ANSWER_NO_MEMORY, false);
        out->kind = SERVER_DISCARD;
        return;
    }
    note(f, QUIRK_SIZE_WRONG,
         f->has_size && m->size > SIZE_SLACK && (m->size - SIZE_SLACK) / 2 > f->announced);
    f->envelope.arrived_ms = wall_ms;
    f->envelope.size = m->stored;
    if (m->decoder.quirks.eight_bit)
        f->envelope.body = ENVELOPE_BODY_8BITMIME;
    server_enter(f, STATE_COMMITTING);
    *out = (struct server_effect){.kind = SERVER_COMMIT};
}

/* A device that could not end its mail data properly will not go on properly. */
static void end_silently(struct server_fsm *f, struct server_effect *out)
{
    if (f->silent_end && f->state != STATE_CLOSED)
        close_with(f, out, "LF . LF and silence");
}

static void end_refused_mail(struct server_fsm *f, struct server_effect *out)
{
    enum answer refusal = f->mail->refusal;

    server_enter(f, STATE_READY);
    answer(f, refusal, out);
    end_silently(f, out);
}

static void store_next(struct mail *m, struct server_effect *out)
{
    size_t len = m->store_len < SERVER_CHUNK ? m->store_len : SERVER_CHUNK;

    *out = (struct server_effect){.kind = SERVER_STORE, .data = m->store, .data_len = len};
    m->store += len;
    m->store_len -= len;
    m->stored += len;
}

static bool chunk_is_over(const struct mail *m)
{
    return m->chunked && m->chunk_left == 0;
}

/* True when something is due before more mail data may be read. */
static bool mail_is_due(const struct mail *m)
{
    return m->store_len > 0 || m->discard || m->ended || chunk_is_over(m);
}

static void end_chunk(struct server_fsm *f, struct server_effect *out)
{
    server_enter(f, STATE_CHUNKS);
    reply(f, out, "250 2.0.0 Ok: chunk received");
}

/* What the last chunk has left undecided. May take several rounds. */
static void finish_chunks(struct server_fsm *f, uint64_t wall_ms)
{
    struct mail *m = f->mail;
    size_t got = 0;

    m->ended = maildata_finish(&m->decoder, m->buffer, sizeof(m->buffer), &got);
    take_content(f, got, wall_ms);
}

static void mail_effect(struct server_fsm *f, uint64_t wall_ms, struct server_effect *out)
{
    struct mail *m = f->mail;

    if (m->discard) {
        m->discard = false;
        *out = (struct server_effect){.kind = SERVER_DISCARD};
    } else if (m->store_len > 0) {
        store_next(m, out);
    } else if (f->state == STATE_SWALLOW) {
        end_refused_mail(f, out);
    } else if (m->chunked && !m->last) {
        end_chunk(f, out);
    } else if (m->chunked && !m->ended) {
        finish_chunks(f, wall_ms);
    } else {
        commit(f, wall_ms, out);
    }
}

/* What was refused is read to its end, so that the reply is heard; but not for ever. */
static void count_swallowed(struct server_fsm *f, size_t len, struct server_effect *out)
{
    f->mail->swallowed += len;
    if (f->mail->swallowed <= SERVER_SWALLOW_MAX)
        return;
    answer(f, f->mail->refusal, out);
    close_with(f, out, "refused mail data did not end");
}

static size_t chunk_octets(const struct mail *m, size_t len)
{
    return m->chunked && m->chunk_left < len ? (size_t)m->chunk_left : len;
}

static size_t step_mail(struct server_fsm *f, const uint8_t *data, size_t len, uint64_t wall_ms,
                        struct server_effect *out)
{
    struct mail *m = f->mail;
    size_t used = 0;
    size_t got = 0;

    if (!mail_is_due(m) && len > 0) {
        bytes_done(&m->written);
        m->started = true;
        m->ended = maildata_decode(&m->decoder, data, chunk_octets(m, len), &used, m->buffer,
                                   sizeof(m->buffer), &got);
        if (m->chunked)
            m->chunk_left -= used;
        take_content(f, got, wall_ms);
    }
    if (mail_is_due(m))
        mail_effect(f, wall_ms, out);
    else if (f->state == STATE_SWALLOW)
        count_swallowed(f, used, out);
    return used;
}

/* ---- the face -------------------------------------------------------------------------------- */

struct server_fsm *server_fsm_new(const struct server_settings *settings)
{
    struct server_fsm *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return NULL;
    envelope_init(&f->envelope);
    bytes_init(&f->line, SERVER_LINE_MAX);
    f->hostname = strdup(settings->hostname);
    f->client = strdup(settings->client);
    f->client_literal = strdup(settings->client_literal);
    f->device = strdup(settings->device);
    f->listener = strdup(settings->listener);
    f->charset = strdup(settings->charset != NULL ? settings->charset : "");
    f->max_size = settings->max_size;
    f->max_recipients = settings->max_recipients;
    f->utc_offset_minutes = settings->utc_offset_minutes;
    f->has_twice_key = settings->twice_key != NULL;
    if (f->has_twice_key)
        memcpy(f->twice_key, settings->twice_key, TWICE_KEY);
    f->tls = settings->tls;
    f->domains = settings->recipient_domains;
    f->auth = settings->auth;
    f->hide = settings->hide;
    f->auth_equals = settings->auth_equals;
    f->mt_priority = settings->mt_priority;
    f->importance = settings->importance;
    f->lf_dot_lf = settings->lf_dot_lf;
    f->join_split = settings->join_split;
    bytes_init(&f->response, SERVER_LINE_MAX + 1);
    format_too_large(f);
    if (f->hostname == NULL || f->client == NULL || f->client_literal == NULL ||
        f->device == NULL || f->listener == NULL || f->charset == NULL) {
        server_fsm_free(f);
        return NULL;
    }
    return f;
}

void server_fsm_free(struct server_fsm *f)
{
    if (f == NULL)
        return;
    mail_free(f->mail);
    envelope_done(&f->envelope);
    wipe_line(f);
    bytes_done(&f->line);
    forget_response(f);
    free(f->login);
    forget_offered(f);
    free(f->hostname);
    free(f->client);
    free(f->client_literal);
    free(f->device);
    free(f->listener);
    free(f->charset);
    free(f);
}

void server_fsm_start(struct server_fsm *f, struct server_effect *out)
{
    reply(f, out, "220 %s ESMTP Outtray", f->hostname);
}

static bool is_command_state(enum state state)
{
    return state == STATE_READY || state == STATE_MAIL || state == STATE_RCPT ||
           state == STATE_CHUNKS || state == STATE_RESPONSE;
}

/* An effect that needs no further input, once the answer that is due has come. */
static bool effect_is_due(const struct server_fsm *f)
{
    if (f->discard)
        return true;
    return f->mail != NULL && f->state != STATE_COMMITTING && f->state != STATE_CHUNKS &&
           mail_is_due(f->mail);
}

static void take_discard(struct server_fsm *f, struct server_effect *out)
{
    f->discard = false;
    *out = (struct server_effect){.kind = SERVER_DISCARD};
}

static size_t hear_mail(struct server_fsm *f, size_t used)
{
    f->heard.mail_len += used;
    return used;
}

/* Behind mail data there is an effect before the next command is read. */
static size_t hear_command(struct server_fsm *f, size_t used)
{
    assert(f->heard.mail_len == 0);
    f->heard.commands_len += used;
    return used;
}

struct server_heard server_fsm_heard(const struct server_fsm *f)
{
    return f->heard;
}

void server_fsm_step(struct server_fsm *f, const uint8_t *data, size_t len, uint64_t wall_ms,
                     size_t *out_used, struct server_effect *out)
{
    size_t used = f->held < len ? f->held : len;

    f->heard = (struct server_heard){.commands = data + used};
    *out = (struct server_effect){.kind = SERVER_NOTHING};
    *out_used = 0;
    if (f->state == STATE_CLOSED)
        *out_used = len;
    if (f->state == STATE_CLOSED || server_fsm_is_waiting(f))
        return;
    do {
        if (f->discard)
            take_discard(f, out);
        else if (!is_command_state(f->state))
            used += hear_mail(f, step_mail(f, data + used, len - used, wall_ms, out));
        else if (used < len)
            used += hear_command(f, step_command(f, data + used, len - used, out));
    } while (out->kind == SERVER_NOTHING && (used < len || effect_is_due(f)));
    f->held = effect_is_due(f) && used > 0 ? 1 : 0;
    *out_used = used - f->held;
}

/* The reply comes at the chunk's end. */
static void chunks_opened(struct server_fsm *f, uint64_t id, const struct error *err)
{
    f->mail->id = id;
    if (err != NULL)
        f->mail->refusal = answer_to(err);
    server_enter(f, err != NULL ? STATE_SWALLOW : STATE_DATA);
}

void server_fsm_opened(struct server_fsm *f, uint64_t id, const struct error *err,
                       struct server_effect *out)
{
    *out = (struct server_effect){.kind = SERVER_NOTHING};
    if (f->state != STATE_OPENING)
        return;
    if (f->mail->chunked) {
        chunks_opened(f, id, err);
        return;
    }
    if (err != NULL) {
        server_enter(f, STATE_READY);
        answer(f, answer_to(err), out);
        return;
    }
    f->mail->id = id;
    f->data_refused = false;
    server_enter(f, STATE_DATA);
    answer(f, ANSWER_GO_AHEAD, out);
}

void server_fsm_store_failed(struct server_fsm *f, const struct error *err)
{
    if (f->state == STATE_DATA)
        refuse_mail(f, answer_to(err), false);
}

void server_fsm_committed(struct server_fsm *f, uint64_t id, const struct error *err,
                          struct server_effect *out)
{
    char text[TRACE_ID_MAX];

    *out = (struct server_effect){.kind = SERVER_NOTHING};
    if (f->state != STATE_COMMITTING)
        return;
    server_enter(f, STATE_READY);
    if (err != NULL) {
        answer(f, answer_to(err), out);
    } else {
        f->bad = 0;
        trace_id(id, text);
        reply(f, out, "250 2.0.0 Ok: queued as %s", text);
    }
    end_silently(f, out);
}

bool server_fsm_awaits_silence(const struct server_fsm *f)
{
    return f->lf_dot_lf && (f->state == STATE_DATA || f->state == STATE_SWALLOW) &&
           !f->mail->ended && maildata_is_lf_dot_lf(&f->mail->decoder) &&
           (f->state == STATE_SWALLOW || !mime_boundary_is_open(&f->mail->mime));
}

void server_fsm_silence(struct server_fsm *f, uint64_t ms, uint64_t wall_ms,
                        struct server_effect *out)
{
    *out = (struct server_effect){.kind = SERVER_NOTHING};
    if (ms < SERVER_LF_DOT_LF_MS || !server_fsm_awaits_silence(f))
        return;
    f->silent_end = true;
    f->mail->ended = true;
    take_content(f, 0, wall_ms);
    mail_effect(f, wall_ms, out);
}

void server_fsm_challenge(struct server_fsm *f, const void *question, size_t len,
                          struct server_effect *out)
{
    char text[BASE64_LENGTH(SERVER_QUESTION_MAX) + 1];

    *out = (struct server_effect){.kind = SERVER_NOTHING};
    if (f->state != STATE_CHECKING)
        return;
    assert(len <= SERVER_QUESTION_MAX);
    forget_response(f);
    base64_encode(question, len, text);
    text[BASE64_LENGTH(len)] = '\0';
    server_enter(f, STATE_RESPONSE);
    reply(f, out, "334 %s", text);
}

/* False without memory: then nothing has changed. */
static bool become(struct server_fsm *f, const struct server_identity *who)
{
    char *device = strdup(who->device);
    char *login = strdup(who->login);

    if (device == NULL || login == NULL) {
        free(device);
        free(login);
        return false;
    }
    free(f->device);
    free(f->login);
    f->device = device;
    f->login = login;
    f->max_size = who->max_size;
    f->max_recipients = who->max_recipients;
    f->domains = who->recipient_domains;
    f->mt_priority = who->mt_priority;
    f->importance = who->importance;
    f->join_split = who->join_split;
    format_too_large(f);
    return true;
}

void server_fsm_checked(struct server_fsm *f, enum server_check check,
                        const struct server_identity *who, struct server_effect *out)
{
    *out = (struct server_effect){.kind = SERVER_NOTHING};
    if (f->state != STATE_CHECKING)
        return;
    forget_response(f);
    server_enter(f, STATE_READY);
    if (check == SERVER_CHECK_VERIFIED && !become(f, who))
        check = SERVER_CHECK_UNAVAILABLE;
    note(f, QUIRK_LOGIN_IGNORED, check == SERVER_CHECK_WRONG && f->auth == CONFIG_LOGIN_ANY);
    if (check == SERVER_CHECK_VERIFIED || f->auth == CONFIG_LOGIN_ANY) {
        f->authenticated = true;
        answer(f, ANSWER_AUTH_OK, out);
    } else {
        answer(f, check == SERVER_CHECK_WRONG ? ANSWER_AUTH_WRONG : ANSWER_AUTH_UNAVAILABLE, out);
    }
}

quirks server_fsm_quirks(const struct server_fsm *f)
{
    return f->quirks;
}

const char *server_fsm_helo(const struct server_fsm *f)
{
    return f->helo_hidden ? "" : f->helo;
}

bool server_fsm_has_lane(const struct server_fsm *f)
{
    return f->has_lane;
}

void server_fsm_secured(struct server_fsm *f, const char *text)
{
    if (f->state == STATE_CLOSED)
        return;
    snprintf(f->secured, sizeof(f->secured), "%s", text);
    transaction_reset(f);
    f->helo[0] = '\0';
    f->greeted = false;
    f->named = false;
    f->begun = false;
    f->empty = 0;
    f->held = 0;
}

void server_fsm_shut(struct server_fsm *f, const char *status, const char *reason,
                     struct server_effect *out)
{
    *out = (struct server_effect){.kind = SERVER_NOTHING};
    if (f->state == STATE_CLOSED)
        return;
    reply(f, out, "421 %s %s %s", status, f->hostname, reason);
    close_with(f, out, reason);
}

struct envelope *server_fsm_envelope(struct server_fsm *f)
{
    return &f->envelope;
}

bool server_fsm_content(const struct server_fsm *f, uint8_t out[TWICE_DIGEST])
{
    if (!f->has_twice_key || f->state != STATE_COMMITTING)
        return false;
    struct siphash content = f->mail->content;
    siphash_end(&content, out);
    return true;
}

uint64_t server_fsm_announced(const struct server_fsm *f)
{
    return f->has_size ? f->announced : 0;
}

bool server_fsm_in_mail_data(const struct server_fsm *f)
{
    return (states[f->state].flags & CONTENT) != 0 && f->mail->started;
}

bool server_fsm_is_idle(const struct server_fsm *f)
{
    return (states[f->state].flags & IDLE) != 0;
}

bool server_fsm_is_waiting(const struct server_fsm *f)
{
    return (states[f->state].flags & WAITS) != 0;
}

const char *server_fsm_phase(const struct server_fsm *f)
{
    return f->state == STATE_CLOSED ? f->closing : states[f->state].phrase;
}
