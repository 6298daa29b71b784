#include "relay/tool/spool.h"

#include <inttypes.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "relay/admin/json.h"
#include "relay/tool/format.h"
#include "relay/tool/source.h"
#include "relay/tool/spool_export.h"

#define CURSOR_TEXT 64
#define HIT_NAMED   8 /* messages */

/* ---- check ----------------------------------------------------------------------------------- */

struct check {
    const struct tool *t;
    cJSON *damage;
    double total; /* octets that there are, about */
    double octets;
    double checked;
    double bad;
    uint64_t segments;
    uint64_t bodies;
    bool progress; /* a line that is written over */
};

static void tell_progress(const struct check *c)
{
    char done[FORMAT_TEXT];
    char total[FORMAT_TEXT];

    if (!c->progress)
        return;
    format_size(c->octets, done);
    format_size(c->total > c->octets ? c->total : c->octets, total);
    fprintf(c->t->err, "\rchecked %s of %s   ", done, total);
}

static void clear_progress(const struct check *c)
{
    if (c->progress)
        fprintf(c->t->err, "\r%*s\r", 60, "");
}

static void tell_place(const struct check *c, const char *file, const cJSON *place)
{
    const char *id = json_get_text(place, "id");

    clear_progress(c);
    fprintf(c->t->out, "%s: %.0f octets at %.0f do not verify: %s%s\n", file,
            json_get_number(place, "length"), json_get_number(place, "offset"),
            id[0] != '\0' ? "message " : "of no message that is known", id);
}

/* Takes the step's places. False without memory. */
static bool take_damage(struct check *c, const cJSON *step)
{
    const char *file = json_get_text(step, "file");

    for (const cJSON *p = json_first(step, "damage"); p != NULL; p = p->next) {
        cJSON *copy = cJSON_Duplicate(p, 1);

        if (!json_append(c->damage, copy) || !json_put_text(copy, "file", file))
            return false;
        if (!c->t->json)
            tell_place(c, file, p);
    }
    return true;
}

static bool take_step(struct check *c, const cJSON *step, struct error *err)
{
    const char *file = json_get_text(step, "file");

    c->octets += json_get_number(step, "octets");
    c->checked += json_get_number(step, "checked");
    c->bad += json_get_number(step, "bad");
    c->segments += strncmp(file, "journal/", 8) == 0;
    c->bodies += strncmp(file, "content/", 8) == 0;
    tell_progress(c);
    return take_damage(c, step) || error_set(err, ERROR_NO_ROOM, "out of memory");
}

static bool walk(struct check *c, struct source *s, struct error *err)
{
    char cursor[CURSOR_TEXT] = "";
    bool ok = true;

    do {
        cJSON *step = source_check(s, cursor, err);

        ok = step != NULL && take_step(c, step, err);
        snprintf(cursor, sizeof(cursor), "%s", ok ? json_get_text(step, "next") : "");
        cJSON_Delete(step);
    } while (ok && cursor[0] != '\0');
    clear_progress(c);
    return ok;
}

/* Each message once. */
static void tell_hit(const struct check *c)
{
    const char *named[HIT_NAMED];
    unsigned n = 0;

    for (const cJSON *p = c->damage->child; p != NULL && n < HIT_NAMED; p = p->next) {
        const char *id = json_get_text(p, "id");
        unsigned i = 0;

        while (i < n && strcmp(named[i], id) != 0)
            i++;
        if (id[0] != '\0' && i == n)
            named[n++] = id;
    }
    if (n == 0) {
        fputs("No message that waits is hit.\n", c->t->out);
        return;
    }
    fputs("Messages that are hit: ", c->t->out);
    for (unsigned i = 0; i < n; i++)
        fprintf(c->t->out, "%s%s", i > 0 ? ", " : "", named[i]);
    fprintf(c->t->out,
            "%s. Save what can be read with \"outtray spool export DIR\" or \"outtray export ID\", "
            "and check the disk.\n",
            n == HIT_NAMED ? " and maybe others" : "");
}

static void tell_check(const struct check *c, double before)
{
    char octets[FORMAT_TEXT];

    format_size(c->octets, octets);
    fprintf(c->t->out, "Checked %" PRIu64 " segment%s and %" PRIu64 " bod%s, %s: ", c->segments,
            c->segments == 1 ? "" : "s", c->bodies, c->bodies == 1 ? "y" : "ies", octets);
    if (c->bad == 0)
        fputs("everything verifies.\n", c->t->out);
    else
        fprintf(c->t->out, "%.0f place%s not verify.\n", c->bad, c->bad == 1 ? " does" : "s do");
    if (c->bad > 0)
        tell_hit(c);
    if (before > c->bad)
        fprintf(c->t->out,
                "Opening the spool has found damage in %.0f place%s; what could not be read is "
                "named there or set aside in its directory \"damaged\".\n",
                before, before == 1 ? "" : "s");
}

static cJSON *check_json(struct check *c, double before)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = o != NULL && json_put_number(o, "segments", c->segments) &&
              json_put_number(o, "bodies", c->bodies) &&
              json_put_number(o, "octets", (uint64_t)c->octets) &&
              json_put_number(o, "checked", (uint64_t)c->checked) &&
              json_put_number(o, "bad", (uint64_t)c->bad) &&
              json_put_number(o, "damaged_at_start", (uint64_t)before);

    if (ok && json_put(o, "damage", c->damage)) {
        c->damage = NULL;
        return o;
    }
    cJSON_Delete(o);
    return NULL;
}

static int report_check(struct check *c, double before)
{
    int code = EX_OK;

    if (c->t->json) {
        cJSON *o = check_json(c, before);

        code = tool_print_json(c->t, o);
        cJSON_Delete(o);
    } else {
        tell_check(c, before);
    }
    return code == EX_OK && (c->bad > 0 || before > 0) ? EX_DATAERR : code;
}

static int check(const struct tool *t, struct source *s)
{
    struct error err = ERROR_INIT;
    struct check c = {.t = t, .progress = !t->json && isatty(fileno(t->err)) == 1};
    cJSON *stats = source_stats(s, &err);
    double before = 0;
    bool ok = stats != NULL;

    c.damage = cJSON_CreateArray();
    if (ok && c.damage == NULL)
        ok = error_set(&err, ERROR_NO_ROOM, "out of memory");
    if (ok) {
        c.total = json_get_number(stats, "disk_bytes");
        before = s->offline != NULL ? json_get_number(stats, "damaged_at_start") : 0;
        ok = walk(&c, s, &err);
    }
    int code = ok ? report_check(&c, before) : tool_fail(t, &err);
    cJSON_Delete(c.damage);
    cJSON_Delete(stats);
    return code;
}

/* ---- stats ----------------------------------------------------------------------------------- */

struct word {
    char text[FORMAT_TEXT];
};

static struct word number(const cJSON *o, const char *key)
{
    struct word w;

    format_count(json_get_number(o, key), w.text);
    return w;
}

static struct word size(const cJSON *o, const char *key)
{
    struct word w;

    format_size(json_get_number(o, key), w.text);
    return w;
}

static void page_mail(FILE *out, const cJSON *s)
{
    const cJSON *lanes = json_get(s, "lanes");
    struct word waiting;

    format_count(json_get_number(s, "queued") + json_get_number(s, "uncertain"), waiting.text);
    fprintf(out, "Mail    %s waiting: %s urgent, %s normal, %s bulk; %s held, %s dead; %s\n",
            waiting.text, number(lanes, "urgent").text, number(lanes, "normal").text,
            number(lanes, "bulk").text, number(s, "held").text, number(s, "dead").text,
            size(s, "mail_bytes").text);
    if (json_get_number(s, "damaged") > 0)
        fprintf(out, "        %s damaged; see \"outtray status\"\n", number(s, "damaged").text);
}

static void page_disk(FILE *out, const cJSON *s)
{
    double disk = json_get_number(s, "disk_bytes");
    double dead = disk - json_get_number(s, "living_bytes");

    fprintf(out, "Disk    %s, of which %s counts and %.0f %% can be had again\n",
            size(s, "disk_bytes").text, size(s, "living_bytes").text,
            disk > 0 && dead > 0 ? dead * 100 / disk : 0);
    fprintf(out, "        %s segment%s of %s, of which %s counts; %s bod%s, %s\n",
            number(s, "segments").text, json_get_number(s, "segments") == 1 ? "" : "s",
            size(s, "journal_bytes").text, size(s, "journal_living").text, number(s, "bodies").text,
            json_get_number(s, "bodies") == 1 ? "y" : "ies", size(s, "body_bytes").text);
}

static void page_limits(FILE *out, const cJSON *s)
{
    if (json_get_number(s, "max_bytes") > 0)
        fprintf(out, "Limits  at most %s", size(s, "max_bytes").text);
    else
        fputs("Limits  no limit of its own", out);
    fprintf(out, ", %s stay free; the disk has %s free of %s\n", size(s, "min_free_bytes").text,
            size(s, "free_bytes").text, size(s, "total_bytes").text);
    if (json_get_flag(s, "full"))
        fprintf(out, "        new mail is refused%s\n",
                json_get_flag(s, "full_urgent") ? "" : ", unless it is urgent");
}

static void page_work(FILE *out, const cJSON *s)
{
    double flushes = json_get_number(s, "flushes");

    fprintf(out, "Since   the start: %s message%s made durable, %s flush%s (%.1f messages each)\n",
            number(s, "commits").text, json_get_number(s, "commits") == 1 ? "" : "s",
            number(s, "flushes").text, flushes == 1 ? "" : "es",
            flushes > 0 ? json_get_number(s, "commits") / flushes : 0);
    fprintf(out, "        %s written to the journal, %s message%s carried forward\n",
            size(s, "journal_written").text, number(s, "carried").text,
            json_get_number(s, "carried") == 1 ? "" : "s");
}

static void page_stats(FILE *out, const cJSON *s, bool offline)
{
    page_mail(out, s);
    page_disk(out, s);
    if (offline)
        return; /* the daemon's limits and work are its own */
    page_limits(out, s);
    page_work(out, s);
}

static int stats(const struct tool *t, struct source *s)
{
    struct error err = ERROR_INIT;
    cJSON *json = source_stats(s, &err);
    int code = EX_OK;

    if (json == NULL)
        return tool_fail(t, &err);
    if (t->json)
        code = tool_print_json(t, json);
    else
        page_stats(t->out, json, s->offline != NULL);
    cJSON_Delete(json);
    return code;
}

/* ---- which ----------------------------------------------------------------------------------- */

static int with_source(const struct tool *t, int (*run)(const struct tool *t, struct source *s))
{
    struct source s;
    int code;

    if (!source_open(t, &s, &code))
        return code;
    code = run(t, &s);
    source_close(&s);
    return code;
}

static int misused(const struct tool *t)
{
    static const char text[] = "spool needs one of: check, stats, export DIR";

    fprintf(t->err, "outtray: %s\n", text);
    tool_error_json(t, ERROR_INVALID, text);
    return EX_USAGE;
}

int spool_run(const struct tool *t)
{
    const char *what = t->word_count > 0 ? t->words[0] : "";

    if (strcmp(what, "check") == 0 && t->word_count == 1)
        return with_source(t, check);
    if (strcmp(what, "stats") == 0 && t->word_count == 1)
        return with_source(t, stats);
    if (strcmp(what, "export") == 0 && t->word_count == 2)
        return spool_export(t, t->words[1]);
    return misused(t);
}
