#include "relay/tool/check.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "relay/admin/json.h"
#include "relay/base/config.h"
#include "relay/base/config_rows.h"
#include "relay/base/privileges.h"
#include "relay/base/secret.h"
#include "relay/signin/passwords.h"
#include "relay/tool/format.h"

#define RANGES_SHOWN 4
#define SMALL_SIZE   (UINT64_C(64) * 1024)        /* a max_size of less is a slip */
#define SMALL_SPOOL  (UINT64_C(32) * 1024 * 1024) /* two of the queue's segments */
#define TEXT_MAX     1024

struct check {
    const struct tool *tool;
    const struct config *config;
    bool as_daemon; /* files are tried as the user that reads them later */
    unsigned problems;
    cJSON *mistakes; /* with --json, else NULL */
    cJSON *notes;
};

static void tell(const struct check *c, cJSON *list, const char *mark, const char *fmt,
                 va_list args) __attribute__((format(printf, 4, 0)));

static void tell(const struct check *c, cJSON *list, const char *mark, const char *fmt,
                 va_list args)
{
    char text[TEXT_MAX * 2];

    (void)vsnprintf(text, sizeof(text), fmt, args);
    if (c->tool->json)
        (void)json_append(list, json_text(text));
    else
        fprintf(c->tool->err, "%s: %s\n", mark, text);
}

static void problem(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void problem(struct check *c, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    tell(c, c->mistakes, "outtray", fmt, args);
    va_end(args);
    c->problems++;
}

static void note(const struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void note(const struct check *c, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    tell(c, c->notes, "note", fmt, args);
    va_end(args);
}

/* ---- trying ---------------------------------------------------------------------------------- */

static const char *user_name(void)
{
    const struct passwd *pw = getpwuid(geteuid());

    return pw != NULL ? pw->pw_name : "the current user";
}

static bool parent_exists(const char *path)
{
    char *copy = strdup(path);
    char *slash = copy != NULL ? strrchr(copy, '/') : NULL;
    struct stat st;
    bool exists;

    if (slash != NULL)
        *slash = '\0';
    exists = slash != NULL && (copy[0] == '\0' || (stat(copy, &st) == 0 && S_ISDIR(st.st_mode)));
    free(copy);
    return exists;
}

/* "/etc/outtray/outtray.conf:12", where the section begins that something is about. */
static const char *place(const struct check *c, unsigned line, char out[TEXT_MAX])
{
    (void)snprintf(out, TEXT_MAX, "%s:%u", c->tool->config_file, line);
    return out;
}

/* What is closed to somebody else may well be open to the daemon, and must not be opened to him. */
static void refuse_spool(struct check *c, int errnum)
{
    const char *spool = c->config->spool;

    if (errnum == EROFS)
        problem(c, "spool %s: its file system is read-only. Mount its file system writable again",
                spool);
    else if (c->as_daemon)
        problem(c, "spool %s: %s for %s; run: chown -R %s %s", spool, strerror(errnum), user_name(),
                user_name(), spool);
    else
        note(c, "the spool %s is closed to %s; run the check with sudo to check it", spool,
             user_name());
}

static void try_spool(struct check *c)
{
    const char *spool = c->config->spool;
    struct stat st;

    if (stat(spool, &st) != 0 && errno == ENOENT) {
        if (parent_exists(spool))
            note(c,
                 "the spool %s does not exist yet; outtrayd makes it when it starts as root, or "
                 "may write to the directory above it",
                 spool);
        else
            problem(c,
                    "spool %s: the directory it should be made in does not exist; run: mkdir -p "
                    "\"$(dirname %s)\"",
                    spool, spool);
    } else if (access(spool, R_OK | W_OK | X_OK) != 0) {
        refuse_spool(c, errno);
    } else if (!S_ISDIR(st.st_mode)) {
        problem(c, "spool %s: it is no directory", spool);
    }
}

static void try_secret_file(struct check *c, const struct config_mailbox *m, const char *key,
                            const char *file, bool one_line)
{
    struct error err = ERROR_INIT;
    struct secret *s;

    if (file[0] == '\0')
        return;
    s = one_line ? secret_line_from_file(file, &err) : secret_from_file(file, &err);
    if (s == NULL && (c->as_daemon || err.kind == ERROR_MISSING))
        problem(c, "mailbox %s, %s: %s", m->name, key, err.text);
    else if (s == NULL)
        note(c, "mailbox %s: %s %s cannot be used by %s; run the check with sudo to check it",
             m->name, key, file, user_name());
    secret_free(s);
}

/* The files alone: nothing is connected to. */
static void try_oauth(struct check *c, const struct config_mailbox *m)
{
    bool person = m->grant == CONFIG_GRANT_DEVICE || m->grant == CONFIG_GRANT_BROWSER;

    if (!m->has_oauth)
        return;
    try_secret_file(c, m, "client_secret_file", m->client_secret_file, true);
    if (m->private_key_file[0] == '\0')
        try_secret_file(c, m, "certificate_file", m->certificate_file, false);
    try_secret_file(c, m, "private_key_file", m->private_key_file, false);
    try_secret_file(c, m, "key_password_file", m->key_password_file, false);
    try_secret_file(c, m, "service_account_file", m->service_account_file, false);
    if (person && strcmp(m->sign_in, m->name) == 0)
        note(c, "mailbox %s needs somebody to sign in once outtrayd runs: outtray login %s%s",
             m->name, m->name, m->grant == CONFIG_GRANT_BROWSER ? " --browser" : "");
}

static void try_password(struct check *c, const struct config_mailbox *m)
{
    struct error err = ERROR_INIT;
    struct secret *s;

    if ((m->auth & CONFIG_AUTH_PASSWORD) == 0)
        return;
    s = secret_of_mailbox(m->name, m->password_file, &err);
    if (s == NULL && m->password_file[0] == '\0')
        note(c,
             "mailbox %s has no password_file: its password must come from a systemd "
             "credential or the environment of outtrayd, which cannot be seen from here",
             m->name);
    else if (s == NULL && c->as_daemon)
        problem(c, "%s", err.text);
    else if (s == NULL && err.kind == ERROR_MISSING)
        problem(c,
                "password of mailbox %s: there is no file %s; run the check with sudo for the "
                "command that makes it",
                m->name, m->password_file);
    else if (s == NULL)
        note(c,
             "the password of mailbox %s in %s cannot be used by %s; run the check with sudo to "
             "check it",
             m->name, m->password_file, user_name());
    secret_free(s);
}

static void try_authorities(struct check *c, const struct config_mailbox *m)
{
    static const char mark[] = "-----BEGIN ";
    char line[TEXT_MAX];
    char at[TEXT_MAX];
    bool found = false;
    FILE *f;

    if (m->ca_file[0] == '\0')
        return;
    f = fopen(m->ca_file, "re");
    if (f == NULL && errno == EACCES && !c->as_daemon) {
        note(c, "mailbox %s: ca_file %s is closed to %s; run the check with sudo to check it",
             m->name, m->ca_file, user_name());
        return;
    }
    if (f == NULL) {
        problem(c,
                "%s: mailbox %s: ca_file %s: %s; name the PEM file with the authorities of %s, or "
                "take the line out to use the system's",
                place(c, m->line, at), m->name, m->ca_file, strerror(errno), m->host);
        return;
    }
    while (!found && fgets(line, sizeof(line), f) != NULL)
        found = strncmp(line, mark, sizeof(mark) - 1) == 0;
    fclose(f);
    if (!found)
        problem(c,
                "%s: mailbox %s: ca_file %s holds no certificate in PEM form (-----BEGIN "
                "CERTIFICATE-----)",
                place(c, m->line, at), m->name, m->ca_file);
}

static bool checks_logins(const struct config *c)
{
    for (size_t i = 0; i < c->listener_count; i++)
        if (c->listeners[i].auth > CONFIG_LOGIN_ANY)
            return true;
    for (size_t i = 0; i < c->device_count; i++)
        if (c->devices[i].has_auth && c->devices[i].auth > CONFIG_LOGIN_ANY)
            return true;
    return false;
}

static void try_device_passwords(struct check *c)
{
    const char *file = c->config->passwords;
    struct error err = ERROR_INIT;

    /* Where nobody wrote the key, no directory is missed. */
    if (strcmp(file, config_row_find("devices", "passwords")->fallback) != 0 &&
        !parent_exists(file)) {
        problem(c,
                "passwords of devices: %s: the directory that it should be in does not exist; "
                "correct passwords in [devices], or run: mkdir -p \"$(dirname %s)\"",
                file, file);
    } else if (access(file, F_OK) == 0) {
        if (passwords_check(file, "", "", &err) == PASSWORDS_FAILED)
            problem(c, "passwords of devices: %s", err.text);
    } else if (checks_logins(c->config)) {
        note(c, "no device has a password yet; make one with: outtray passwd DEVICE");
    }
}

/* ---- values that are surely not meant ---------------------------------------------------------
 */

static void doubt_size(const struct check *c, unsigned line, const char *section, const char *name,
                       uint64_t size)
{
    char text[FORMAT_TEXT];
    char at[TEXT_MAX];

    if (size == 0 || size >= SMALL_SIZE)
        return;
    format_size((double)size, text);
    note(c,
         "%s%s[%s%s%s] max_size is %s, which hardly any mail fits into; is a K or an M missing "
         "behind it?",
         line > 0 ? place(c, line, at) : "", line > 0 ? ": " : "", section,
         *name != '\0' ? " " : "", name, text);
}

static void doubt_values(const struct check *c)
{
    const struct config *cfg = c->config;
    char text[FORMAT_TEXT];

    doubt_size(c, 0, "devices", "", cfg->max_size);
    for (size_t i = 0; i < cfg->device_count; i++)
        doubt_size(c, cfg->devices[i].line, "device", cfg->devices[i].name,
                   cfg->devices[i].max_size);
    if (cfg->spool_max == 0 || cfg->spool_max >= SMALL_SPOOL)
        return;
    format_size((double)cfg->spool_max, text);
    note(c,
         "[relay] spool_max is %s; below 32M the queue, which is written in pieces of up to 16M, "
         "may take no mail at all. Is an M or a G missing behind it?",
         text);
}

static void try_program(struct check *c, const struct config_notify *n)
{
    char at[TEXT_MAX];
    struct stat st;

    if (stat(n->command, &st) != 0)
        problem(c,
                "%s: [notify %s] command: %s: %s; name a program that is there, by its full path",
                place(c, n->line, at), n->name, n->command, strerror(errno));
    else if (!S_ISREG(st.st_mode) || access(n->command, X_OK) != 0)
        problem(c, "%s: [notify %s] command: %s is no program that %s may run; run: chmod a+x %s",
                place(c, n->line, at), n->name, n->command, user_name(), n->command);
}

static void try_all(struct check *c)
{
    struct error err = ERROR_INIT;
    bool was_root = geteuid() == 0;

    if (!privileges_drop(c->config->user, &err)) {
        problem(c, "%s", err.text);
        return;
    }
    c->as_daemon = was_root || strcmp(user_name(), c->config->user) == 0;
    doubt_values(c);
    try_spool(c);
    try_device_passwords(c);
    for (size_t i = 0; i < c->config->mailbox_count; i++) {
        try_password(c, &c->config->mailboxes[i]);
        try_oauth(c, &c->config->mailboxes[i]);
        try_authorities(c, &c->config->mailboxes[i]);
    }
    for (size_t i = 0; i < c->config->notify_count; i++)
        try_program(c, &c->config->notifies[i]);
    if (!c->as_daemon && c->config->user[0] != '\0')
        note(c,
             "files were tried as %s; outtrayd reads them as %s. Run the check with sudo to be "
             "sure",
             user_name(), c->config->user);
}

/* ---- what it will do ------------------------------------------------------------------------- */

static void listener_text(const struct config_listener *l, char *out, size_t size)
{
    if (l->address[0] == '\0')
        snprintf(out, size, "port %u", l->port);
    else
        snprintf(out, size, "%s port %u", l->address, l->port);
}

static void show_allowed(const struct check *c)
{
    const struct net_ranges *allow = &c->config->allow;
    char text[TEXT_MAX] = "";
    size_t used = 0;

    for (size_t i = 0; i < allow->count && i < RANGES_SHOWN; i++) {
        char first[NET_TEXT_MAX];
        char last[NET_TEXT_MAX];
        bool single = net_equal(&allow->list[i].first, &allow->list[i].last);

        net_text(&allow->list[i].first, first);
        net_text(&allow->list[i].last, last);
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s%s%s", i > 0 ? ", " : "",
                                 first, single ? "" : " to ", single ? "" : last);
    }
    if (allow->count > RANGES_SHOWN)
        snprintf(text + used, sizeof(text) - used, " and %zu more", allow->count - RANGES_SHOWN);
    format_wrap(c->tool->out, "  serves   ", allow->count > 0 ? text : "no address at all");
}

/* "30 messages", "1 message", "any number of messages" */
static void limit_text(uint32_t limit, const char *unit, char out[FORMAT_TEXT])
{
    if (limit > 0)
        snprintf(out, FORMAT_TEXT, "%" PRIu32 " %s%s", limit, unit, limit == 1 ? "" : "s");
    else
        snprintf(out, FORMAT_TEXT, "any number of %ss", unit);
}

/* "3 connections, 30 messages a minute, ..." */
static void budget_text(const struct config_mailbox *m, char *out, size_t size)
{
    char connections[FORMAT_TEXT];
    char minute[FORMAT_TEXT];
    char day[FORMAT_TEXT];
    char octets[FORMAT_TEXT];

    limit_text(m->connections, "connection", connections);
    limit_text(m->messages_per_minute, "message", minute);
    limit_text(m->recipients_per_day, "recipient", day);
    format_size((double)m->max_size, octets);
    snprintf(out, size, "at most %s, %s a minute, %s in 24 h, %s a message", connections, minute,
             day, octets);
}

static void show_mailbox(const struct check *c, const struct config_mailbox *m)
{
    char budget[TEXT_MAX / 2];
    char text[TEXT_MAX * 2];

    budget_text(m, budget, sizeof(budget));
    snprintf(text, sizeof(text), "as %s via %s:%u (%s), %s", m->address, m->host, m->port,
             m->tls == CONFIG_TLS_STARTTLS ? "STARTTLS" : "TLS from the start", budget);
    format_wrap(c->tool->out, "  submits  ", text);
}

static void show_plan(const struct check *c)
{
    char text[TEXT_MAX];

    for (size_t i = 0; i < c->config->listener_count; i++) {
        listener_text(&c->config->listeners[i], text, sizeof(text));
        format_wrap(c->tool->out, "  listens  ", text);
    }
    show_allowed(c);
    for (size_t i = 0; i < c->config->mailbox_count; i++)
        show_mailbox(c, &c->config->mailboxes[i]);
    format_wrap(c->tool->out, "  spools   ", c->config->spool);
}

static void show_summary(const struct check *c)
{
    const struct config *cfg = c->config;
    FILE *out = c->tool->out;
    char text[TEXT_MAX];

    fprintf(out, "%zu listener%s", cfg->listener_count, cfg->listener_count == 1 ? "" : "s");
    for (size_t i = 0; i < cfg->listener_count; i++) {
        listener_text(&cfg->listeners[i], text, sizeof(text));
        fprintf(out, "%s%s", i == 0 ? " on " : ", ", text);
    }
    fprintf(out, ", %zu mailbox%s", cfg->mailbox_count, cfg->mailbox_count == 1 ? "" : "es");
    for (size_t i = 0; i < cfg->mailbox_count; i++)
        fprintf(out, "%s %s via %s:%u", i == 0 ? "" : ",", cfg->mailboxes[i].address,
                cfg->mailboxes[i].host, cfg->mailboxes[i].port);
    fputs(".\n", out);
}

/* ---- for programs ---------------------------------------------------------------------------- */

static bool put_listeners(cJSON *o, const struct config *cfg)
{
    cJSON *list = cJSON_CreateArray();
    bool ok = json_put(o, "listeners", list);

    for (size_t i = 0; ok && i < cfg->listener_count; i++) {
        const struct config_listener *l = &cfg->listeners[i];
        cJSON *item = cJSON_CreateObject();

        ok = json_append(list, item) && json_put_text(item, "name", l->name) &&
             json_put_text(item, "address", l->address) && json_put_number(item, "port", l->port);
    }
    return ok;
}

static bool put_allowed(cJSON *o, const struct net_ranges *allow)
{
    cJSON *list = cJSON_CreateArray();
    bool ok = json_put(o, "allow", list);

    for (size_t i = 0; ok && i < allow->count; i++) {
        cJSON *item = cJSON_CreateObject();
        char first[NET_TEXT_MAX];
        char last[NET_TEXT_MAX];

        net_text(&allow->list[i].first, first);
        net_text(&allow->list[i].last, last);
        ok = json_append(list, item) && json_put_text(item, "first", first) &&
             json_put_text(item, "last", last);
    }
    return ok;
}

static bool put_mailboxes(cJSON *o, const struct config *cfg)
{
    cJSON *list = cJSON_CreateArray();
    bool ok = json_put(o, "mailboxes", list);

    for (size_t i = 0; ok && i < cfg->mailbox_count; i++) {
        const struct config_mailbox *m = &cfg->mailboxes[i];
        cJSON *item = cJSON_CreateObject();

        ok = json_append(list, item) && json_put_text(item, "name", m->name) &&
             json_put_text(item, "address", m->address) && json_put_text(item, "host", m->host) &&
             json_put_number(item, "port", m->port) &&
             json_put_text(item, "tls", m->tls == CONFIG_TLS_STARTTLS ? "starttls" : "implicit") &&
             json_put_number(item, "connections_max", m->connections) &&
             json_put_number(item, "minute_max", m->messages_per_minute) &&
             json_put_number(item, "day_max", m->recipients_per_day) &&
             json_put_number(item, "max_size", m->max_size);
    }
    return ok;
}

/* Takes the lists; the summary is null when there is no configuration to go by. */
static int print_check(const struct check *c)
{
    cJSON *o = cJSON_CreateObject();
    cJSON *summary = c->config != NULL ? cJSON_CreateObject() : cJSON_CreateNull();
    bool ok = json_put(o, "mistakes", c->mistakes);
    int code;

    ok = json_put(o, "notes", c->notes) && ok;
    ok = json_put(o, "summary", summary) && ok;
    if (c->config != NULL)
        ok = ok && json_put_text(summary, "file", c->tool->config_file) &&
             json_put_text(summary, "spool", c->config->spool) &&
             put_listeners(summary, c->config) && put_allowed(summary, &c->config->allow) &&
             put_mailboxes(summary, c->config);
    code = tool_print_json(c->tool, ok ? o : NULL);
    cJSON_Delete(o);
    return code;
}

/* The mistakes of the file, one a line, become items. */
static struct config *load_for_json(struct check *c)
{
    char *text = NULL;
    size_t len = 0;
    FILE *lines = open_memstream(&text, &len);
    struct config *config = lines != NULL ? config_load(c->tool->config_file, lines) : NULL;
    char *rest = NULL;

    if (lines != NULL)
        fclose(lines);
    for (const char *line = text != NULL ? strtok_r(text, "\n", &rest) : NULL; line != NULL;
         line = strtok_r(NULL, "\n", &rest))
        problem(c, "%s", line);
    free(text);
    return config;
}

static int check_for_json(const struct tool *t)
{
    struct check c = {.tool = t, .mistakes = cJSON_CreateArray(), .notes = cJSON_CreateArray()};
    struct config *config = load_for_json(&c);
    int code;

    c.config = config;
    if (config != NULL)
        try_all(&c);
    code = print_check(&c);
    if (code == EX_OK && (config == NULL || c.problems > 0))
        code = EX_CONFIG;
    config_free(config);
    return code;
}

static int check_for_people(const struct tool *t)
{
    struct config *config = config_load(t->config_file, t->err);
    struct check c = {.tool = t, .config = config};

    if (config == NULL)
        return EX_CONFIG;
    fprintf(t->out, "%s:\n", t->config_file);
    show_plan(&c);
    show_summary(&c);
    fflush(t->out);
    try_all(&c);
    if (c.problems > 0)
        fprintf(t->err, "outtray: %u problem%s to mend.\n", c.problems, c.problems == 1 ? "" : "s");
    config_free(config);
    return c.problems > 0 ? EX_CONFIG : EX_OK;
}

int check_run(const struct tool *t)
{
    return t->json ? check_for_json(t) : check_for_people(t);
}
