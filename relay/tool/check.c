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

#include "relay/base/config.h"
#include "relay/base/privileges.h"
#include "relay/base/secret.h"
#include "relay/tool/format.h"

#define RANGES_SHOWN 4
#define TEXT_MAX     1024

struct check {
    const struct tool *tool;
    const struct config *config;
    unsigned problems;
};

static void problem(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void problem(struct check *c, const char *fmt, ...)
{
    va_list args;

    fputs("outtray: ", c->tool->err);
    va_start(args, fmt);
    vfprintf(c->tool->err, fmt, args);
    va_end(args);
    fputc('\n', c->tool->err);
    c->problems++;
}

static void note(const struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void note(const struct check *c, const char *fmt, ...)
{
    va_list args;

    fputs("note: ", c->tool->err);
    va_start(args, fmt);
    vfprintf(c->tool->err, fmt, args);
    va_end(args);
    fputc('\n', c->tool->err);
}

/* ---- trying ---------------------------------------------------------------------------------- */

static const char *user_name(const struct check *c)
{
    const struct passwd *pw;

    if (c->config->user[0] != '\0' && geteuid() == 0)
        return c->config->user;
    pw = getpwuid(geteuid());
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

static void try_spool(struct check *c)
{
    const char *spool = c->config->spool;
    const char *user = user_name(c);
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
        problem(c, "spool %s: %s for %s; run: chown -R %s %s", spool, strerror(errno), user, user,
                spool);
    } else if (!S_ISDIR(st.st_mode)) {
        problem(c, "spool %s: it is no directory", spool);
    }
}

static void try_password(struct check *c, const struct config_mailbox *m)
{
    struct error err = ERROR_INIT;
    struct secret *s;

    if (m->auth == CONFIG_AUTH_NONE)
        return;
    s = secret_of_mailbox(m->name, m->password_file, &err);
    if (s == NULL && m->password_file[0] == '\0')
        note(c,
             "mailbox %s has no password_file: its password must come from a systemd "
             "credential or the environment of outtrayd, which cannot be seen from here",
             m->name);
    else if (s == NULL)
        problem(c, "%s", err.text);
    secret_free(s);
}

static void try_authorities(struct check *c, const struct config_mailbox *m)
{
    static const char mark[] = "-----BEGIN ";
    char line[TEXT_MAX];
    bool found = false;
    FILE *f;

    if (m->ca_file[0] == '\0')
        return;
    f = fopen(m->ca_file, "re");
    if (f == NULL) {
        problem(c, "mailbox %s: ca_file %s: %s", m->name, m->ca_file, strerror(errno));
        return;
    }
    while (!found && fgets(line, sizeof(line), f) != NULL)
        found = strncmp(line, mark, sizeof(mark) - 1) == 0;
    fclose(f);
    if (!found)
        problem(c, "mailbox %s: ca_file %s holds no certificate in PEM form", m->name, m->ca_file);
}

static void try_all(struct check *c)
{
    struct error err = ERROR_INIT;

    if (!privileges_drop(c->config->user, &err)) {
        problem(c, "%s", err.text);
        return;
    }
    try_spool(c);
    for (size_t i = 0; i < c->config->mailbox_count; i++) {
        try_password(c, &c->config->mailboxes[i]);
        try_authorities(c, &c->config->mailboxes[i]);
    }
    if (geteuid() != 0 && c->config->user[0] != '\0' && strcmp(user_name(c), c->config->user) != 0)
        note(c,
             "files were tried as %s; outtrayd reads them as %s. Run the check with sudo to be "
             "sure",
             user_name(c), c->config->user);
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

/* "3 connections, 30 messages a minute, ..." */
static void budget_text(const struct config_mailbox *m, char *out, size_t size)
{
    char minute[FORMAT_TEXT] = "any number of messages";
    char day[FORMAT_TEXT] = "any number of recipients";
    char octets[FORMAT_TEXT];

    format_size((double)m->max_size, octets);
    if (m->messages_per_minute > 0)
        snprintf(minute, sizeof(minute), "%" PRIu32 " messages", m->messages_per_minute);
    if (m->recipients_per_day > 0)
        snprintf(day, sizeof(day), "%" PRIu32 " recipients", m->recipients_per_day);
    snprintf(out, size, "at most %" PRIu32 " connection%s, %s a minute, %s in 24 h, %s a message",
             m->connections, m->connections == 1 ? "" : "s", minute, day, octets);
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

int check_run(const struct tool *t)
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
        fprintf(t->err, "outtray: %u problem%s to mend before outtrayd can work.\n", c.problems,
                c.problems == 1 ? "" : "s");
    config_free(config);
    return c.problems > 0 ? EX_CONFIG : EX_OK;
}
