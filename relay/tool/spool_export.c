#include "relay/tool/spool_export.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "queue/queue.h"
#include "relay/admin/json.h"
#include "relay/tool/format.h"
#include "relay/tool/source.h"

#define PAGE       100
#define LINE_TEXT  2048
#define COPY_CHUNK 65536

struct export_all {
    const struct tool *t;
    struct source *s;
    const char *directory;
    uint64_t messages;
    uint64_t damaged;
    uint64_t left_out; /* could not be written, or was there */
    uint64_t set_aside;
    double octets;
};

/* A file being made; with the first octet, so that what cannot be read leaves none. */
struct target {
    char path[PATH_MAX];
    FILE *file;
    bool failed; /* to us: it cannot be made or written */
    double octets;
};

static bool set_path(struct target *o, const struct export_all *x, const char *id, const char *end,
                     struct error *err)
{
    *o = (struct target){.file = NULL};
    return snprintf(o->path, sizeof(o->path), "%s/%s%s", x->directory, id, end) <
               (int)sizeof(o->path) ||
           error_set(err, ERROR_INVALID, "%s: the path is too long", x->directory);
}

static bool make(struct target *o, struct error *err)
{
    int fd = open(o->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    o->file = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (o->file != NULL)
        return true;
    o->failed = true;
    if (errno == EEXIST)
        return error_set(err, ERROR_INVALID, "%s is there already and was left as it is", o->path);
    error_errno(err, errno, "make %s", o->path);
    if (fd >= 0)
        close(fd);
    return false;
}

static bool put(void *ctx, const void *data, size_t len, struct error *err)
{
    struct target *o = ctx;

    if (o->file == NULL && !make(o, err))
        return false;
    if (fwrite(data, 1, len, o->file) == len) {
        o->octets += (double)len;
        return true;
    }
    o->failed = true;
    return error_errno(err, errno, "write %s", o->path);
}

static bool finish(struct target *o, struct error *err)
{
    FILE *file = o->file;

    o->file = NULL;
    if (file == NULL || fclose(file) == 0)
        return true;
    o->failed = true;
    return error_errno(err, errno, "write %s", o->path);
}

static void say(struct export_all *x, const char *what, const struct error *err)
{
    fprintf(x->t->err, "outtray: %s%s%s\n", what, what[0] != '\0' ? ": " : "", err->text);
}

/* ---- the envelope ---------------------------------------------------------------------------- */

static bool put_line(struct target *o, const char *name, const char *text, struct error *err)
{
    char clean[LINE_TEXT];
    char line[LINE_TEXT + 64];
    int len;

    if (text[0] == '\0')
        return true;
    format_clean(text, clean, sizeof(clean));
    len = snprintf(line, sizeof(line), "%-14s %s\n", name, clean);
    return put(o, line, (size_t)len, err);
}

static bool put_recipient(struct target *o, const cJSON *r, struct error *err)
{
    char line[LINE_TEXT];

    snprintf(line, sizeof(line), "<%s> %s", json_get_text(r, "path"), json_get_text(r, "state"));
    return put_line(o, "Recipient:", line, err) &&
           put_line(o, "  Last reply:", json_get_text(r, "reply"), err) &&
           put_line(o, "  Meaning:", json_get_text(r, "reason"), err);
}

static bool put_members(struct target *o, const cJSON *message, struct error *err)
{
    static const struct {
        const char *name, *key;
    } members[] = {
        {"Message:", "id"},        {"State:", "state"},
        {"Arrived:", "arrived"},   {"Lane:", "lane"},
        {"Route:", "route"},       {"Device:", "device"},
        {"Client:", "client"},     {"Login:", "login"},
        {"Listener:", "listener"}, {"Message-ID:", "message_id"},
        {"Subject:", "subject"},   {"Repairs:", "repairs"},
        {"Problem:", "problem"},
    };

    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        if (!put_line(o, members[i].name, json_get_text(message, members[i].key), err))
            return false;
    return true;
}

static bool put_envelope(struct target *o, const cJSON *message, struct error *err)
{
    char line[LINE_TEXT];
    bool ok = put_members(o, message, err);

    if (json_get_flag(message, "damaged"))
        ok = ok && put_line(o, "Damaged:", "yes: it is here as far as it can be read", err);
    snprintf(line, sizeof(line), "%.0f octets, %.0f attempts", json_get_number(message, "size"),
             json_get_number(message, "attempts"));
    ok = ok && put_line(o, "Size:", line, err);
    snprintf(line, sizeof(line), "<%s>", json_get_text(message, "sender"));
    ok = ok && put_line(o, "Reverse-path:", line, err);
    for (const cJSON *r = json_first(message, "recipients"); ok && r != NULL; r = r->next)
        ok = put_recipient(o, r, err);
    return ok;
}

/* ---- one message ----------------------------------------------------------------------------- */

/* The first that reads damage is told so, and by that the message is marked; the second one gets
 * what there is. */
static cJSON *ask_message(struct export_all *x, uint64_t id, struct error *err)
{
    cJSON *message = source_message(x->s, id, err);

    if (message != NULL || err->kind != ERROR_DAMAGED)
        return message;
    error_clear(err);
    return source_message(x->s, id, err);
}

static bool write_mail(struct export_all *x, struct target *o, uint64_t id, const char *text,
                       bool damaged, struct error *err)
{
    bool ok = set_path(o, x, text, damaged ? ".damaged.eml" : ".eml", err) &&
              source_export(x->s, id, put, o, err);

    return finish(o, ok ? err : NULL) && ok;
}

/* False: it could not be written here. */
static bool save_mail(struct export_all *x, uint64_t id, const char *text, bool *damaged,
                      struct error *err)
{
    struct target o;
    bool ok = write_mail(x, &o, id, text, *damaged, err);

    if (!ok && !o.failed && err->kind == ERROR_DAMAGED && !*damaged) {
        if (o.octets > 0)
            (void)unlink(o.path); /* ours, and not whole */
        *damaged = true;
        error_clear(err);
        ok = write_mail(x, &o, id, text, true, err);
    }
    x->octets += ok || !o.failed ? o.octets : 0;
    if (ok)
        return true;
    if (!o.failed && err->kind == ERROR_DAMAGED) {
        *damaged = true;
        say(x, text, err);
        return true; /* that is all there is of it */
    }
    return false;
}

static bool save_envelope(struct export_all *x, const char *text, const cJSON *message,
                          struct error *err)
{
    struct target o;
    bool ok = set_path(&o, x, text, ".txt", err) && put_envelope(&o, message, err);

    return finish(&o, ok ? err : NULL) && ok;
}

/* By reading its mail data it may have turned out to be damaged: then it is another state that is
 * written down. False: it could not be saved. */
static bool save_both(struct export_all *x, const cJSON *entry, cJSON **message, bool *damaged,
                      struct error *err)
{
    const char *text = json_get_text(entry, "id");
    bool known = *damaged;
    uint64_t id;

    if (!queue_id_parse(text, &id))
        return error_set(err, ERROR_MISSING, "there is no such message");
    if (!save_mail(x, id, text, damaged, err))
        return false;
    if (*damaged && !known) {
        cJSON_Delete(*message);
        *message = ask_message(x, id, err);
    }
    error_clear(err);
    return save_envelope(x, text, *message != NULL ? *message : entry, err);
}

static void save_message(struct export_all *x, const cJSON *entry)
{
    struct error err = ERROR_INIT;
    const char *text = json_get_text(entry, "id");
    uint64_t id = 0;
    bool damaged = true;
    bool ok = false;
    cJSON *message = queue_id_parse(text, &id) ? ask_message(x, id, &err) : NULL;

    if (message != NULL)
        damaged = json_get_flag(message, "damaged");
    if (message != NULL || err.kind != ERROR_MISSING)
        ok = save_both(x, entry, &message, &damaged, &err);
    cJSON_Delete(message);
    x->messages += ok;
    x->damaged += ok && damaged;
    if (ok || err.kind == ERROR_MISSING)
        return; /* saved, or it has left meanwhile */
    x->left_out++;
    say(x, text, &err);
}

static bool save_messages(struct export_all *x, struct error *err)
{
    uint64_t after = 0;

    do {
        cJSON *page = source_page(x->s, after, PAGE, err);

        if (page == NULL)
            return false;
        for (const cJSON *entry = json_first(page, "messages"); entry != NULL; entry = entry->next)
            save_message(x, entry);
        if (!queue_id_parse(json_get_text(page, "next"), &after))
            after = 0;
        cJSON_Delete(page);
    } while (after != 0);
    return true;
}

/* ---- what was set aside ---------------------------------------------------------------------- */

static bool copy(FILE *from, struct target *to, struct error *err)
{
    static char chunk[COPY_CHUNK];
    size_t len;

    while ((len = fread(chunk, 1, sizeof(chunk), from)) > 0)
        if (!put(to, chunk, len, err))
            return false;
    return !ferror(from) || error_errno(err, errno, "read what belongs into %s", to->path);
}

static void save_aside(struct export_all *x, const char *directory, const char *name)
{
    struct error err = ERROR_INIT;
    struct target o;
    char path[PATH_MAX];
    FILE *from = NULL;
    bool ok = set_path(&o, x, "set-aside/", name, &err);

    if (snprintf(path, sizeof(path), "%s/%s", directory, name) < (int)sizeof(path))
        from = fopen(path, "rbe");
    if (from == NULL)
        ok = error_errno(&err, errno, "open %s", path);
    ok = ok && copy(from, &o, &err);
    ok = finish(&o, ok ? &err : NULL) && ok;
    if (from != NULL)
        (void)fclose(from);
    x->set_aside += ok;
    x->left_out += !ok;
    if (!ok)
        say(x, name, &err);
}

static bool make_aside_directory(const struct export_all *x, struct error *err)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/set-aside", x->directory) >= (int)sizeof(path))
        return error_set(err, ERROR_INVALID, "%s: the path is too long", x->directory);
    return mkdir(path, 0700) == 0 || errno == EEXIST || error_errno(err, errno, "make %s", path);
}

/* The daemon need not be asked: its directory says it. */
static void save_set_aside(struct export_all *x)
{
    struct error err = ERROR_INIT;
    const struct dirent *entry;
    char path[PATH_MAX];
    DIR *dir = NULL;
    bool made = false;

    if (snprintf(path, sizeof(path), "%s/damaged", x->s->places.spool) < (int)sizeof(path))
        dir = opendir(path);
    if (dir == NULL && errno == EACCES)
        fprintf(
            x->t->err,
            "outtray: what the spool has set aside in %s is open to root and outtrayd only; run "
            "the command with sudo to have it as well\n",
            path);
    if (dir == NULL)
        return;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        if (!made && !make_aside_directory(x, &err)) {
            say(x, "", &err);
            x->left_out++;
            break;
        }
        made = true;
        save_aside(x, path, entry->d_name);
    }
    closedir(dir);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool make_directory(const char *path, struct error *err)
{
    struct stat st;

    if (mkdir(path, 0700) == 0)
        return true;
    if (errno != EEXIST)
        return error_errno(err, errno, "make directory %s", path);
    return (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) ||
           error_set(err, ERROR_INVALID, "%s is there and is no directory", path);
}

static cJSON *export_json(const struct export_all *x)
{
    cJSON *o = cJSON_CreateObject();

    if (json_put_text(o, "directory", x->directory) &&
        json_put_number(o, "messages", x->messages) && json_put_number(o, "damaged", x->damaged) &&
        json_put_number(o, "left_out", x->left_out) &&
        json_put_number(o, "set_aside", x->set_aside) &&
        json_put_number(o, "octets", (uint64_t)x->octets))
        return o;
    cJSON_Delete(o);
    return NULL;
}

static void tell_export(const struct export_all *x)
{
    char count[FORMAT_TEXT];
    char size[FORMAT_TEXT];

    format_count((double)x->messages, count);
    format_size(x->octets, size);
    fprintf(x->t->out, "Saved %s message%s to %s: %s.\n", count, x->messages == 1 ? "" : "s",
            x->directory, size);
    if (x->damaged > 0)
        fprintf(x->t->out, "%" PRIu64 " of them %s damaged: look for \".damaged.eml\".\n",
                x->damaged, x->damaged == 1 ? "is" : "are");
    if (x->set_aside > 0)
        fprintf(x->t->out, "%" PRIu64 " file%s that the spool has set aside: see %s/set-aside.\n",
                x->set_aside, x->set_aside == 1 ? "" : "s", x->directory);
    if (x->left_out > 0)
        fprintf(x->t->out, "%" PRIu64 " could not be saved, as said above.\n", x->left_out);
}

static int report(const struct export_all *x)
{
    int code = EX_OK;

    if (x->t->json) {
        cJSON *o = export_json(x);

        code = tool_print_json(x->t, o);
        cJSON_Delete(o);
    } else {
        tell_export(x);
    }
    if (code == EX_OK && x->left_out > 0)
        return EX_CANTCREAT;
    return code == EX_OK && x->damaged + x->set_aside > 0 ? EX_DATAERR : code;
}

int spool_export(const struct tool *t, const char *directory)
{
    struct error err = ERROR_INIT;
    struct source s;
    struct export_all x = {.t = t, .s = &s, .directory = directory};
    int code;

    if (!source_open(t, &s, &code))
        return code;
    if (!make_directory(directory, &err)) {
        (void)tool_fail(t, &err);
        code = EX_CANTCREAT;
    } else if (!save_messages(&x, &err)) {
        code = tool_fail(t, &err);
    } else {
        save_set_aside(&x);
        code = report(&x);
    }
    source_close(&s);
    return code;
}
