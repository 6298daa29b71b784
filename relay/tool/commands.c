#include "relay/tool/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "queue/queue.h"
#include "relay/admin/api_json.h"
#include "relay/admin/json.h"
#include "relay/tool/ask.h"
#include "relay/tool/client.h"
#include "relay/tool/places.h"
#include "relay/tool/page.h"
#include "relay/tool/source.h"

#define PAGE             100
#define PATH_TEXT        512
#define STATUS_ATTENTION 1 /* exit code */

static bool argument_id(const struct tool *t, uint64_t *out_id, struct error *err)
{
    const char *text = t->argument;

    if (strncasecmp(text, "0x", 2) == 0) /* as other programs write such numbers */
        text += 2;
    if (queue_id_parse(text, out_id))
        return true;
    return error_set(err, ERROR_INVALID,
                     "\"%s\" is no message id; \"outtray queue\" lists them, like 4f2a",
                     t->argument);
}

/* ---- commands that need the daemon ----------------------------------------------------------- */

/* The exit code says how the relay is, for scripts. */
static int status_code(const cJSON *status)
{
    return strcmp(json_get_text(status, "state"), "ok") == 0 ? EX_OK : STATUS_ATTENTION;
}

int command_status(const struct tool *t)
{
    struct places p;
    struct error err = ERROR_INIT;
    cJSON *status;
    int code;

    if (!ask_daemon(t, &p, &code))
        return code;
    status = client_ask(p.socket, "GET", "/v1/status", &err);
    code = status != NULL ? status_code(status) : tool_fail(t, &err);
    if (status != NULL && !t->json)
        page_status(t->out, status, ask_now());
    else if (status != NULL && tool_print_json(t, status) != EX_OK)
        code = EX_OSERR;
    cJSON_Delete(status);
    places_done(&p);
    return code;
}

/* A message that is due does not leave while its mailbox waits: say so. */
static void show_unready(const struct tool *t, const struct places *p)
{
    cJSON *status = client_ask(p->socket, "GET", "/v1/status", NULL);

    if (status != NULL)
        page_unready(t->out, status);
    cJSON_Delete(status);
}

static void show_retried(const struct tool *t, const struct places *p, const cJSON *answer)
{
    fprintf(t->out, "Message %s is due now.\n", json_get_text(answer, "id"));
    if (json_get_flag(answer, "uncertain"))
        fputs("outtray: all of it was sent before, but the answer was lost: it may arrive twice.\n",
              t->err);
    show_unready(t, p);
}

static void show_all_retried(const struct tool *t, const struct places *p, const cJSON *answer)
{
    double retried = json_get_number(answer, "retried");
    double left = json_get_number(answer, "left");

    fprintf(t->out, "%.0f message%s due now.\n", retried, retried == 1 ? " is" : "s are");
    if (left > 0)
        fprintf(t->out,
                "%.0f uncertain, held or dead %s left alone; retry such messages one by one: "
                "\"outtray retry ID\".\n",
                left, left == 1 ? "message was" : "messages were");
    if (retried > 0)
        show_unready(t, p);
}

static void show_deleted(const struct tool *t, const struct places *p, const cJSON *answer)
{
    (void)p;
    fprintf(t->out, "Message %s is deleted.\n", json_get_text(answer, "id"));
}

static void show_resumed(const struct tool *t, const struct places *p, const cJSON *answer)
{
    (void)p;
    fprintf(t->out, "Mailbox %s is tried again at once; \"outtray status\" tells how it goes.\n",
            json_get_text(answer, "mailbox"));
}

/* A request about the message of the argument. */
static int ask_message(const struct tool *t, const char *method, const char *tail,
                       void (*show)(const struct tool *t, const struct places *p,
                                    const cJSON *answer))
{
    struct error err = ERROR_INIT;
    char path[PATH_TEXT];
    char text[QUEUE_ID_TEXT];
    uint64_t id;

    if (!argument_id(t, &id, &err))
        return tool_fail(t, &err);
    queue_id_text(id, text);
    snprintf(path, sizeof(path), "/v1/queue/%s%s", text, tail);
    return ask_and_show(t, method, path, show);
}

int command_retry(const struct tool *t)
{
    if (t->all)
        return ask_and_show(t, "POST", "/v1/queue/retry", show_all_retried);
    return ask_message(t, "POST", "/retry", show_retried);
}

static void show_all_requeued(const struct tool *t, const struct places *p, const cJSON *answer)
{
    double retried = json_get_number(answer, "retried");
    double left = json_get_number(answer, "left");

    fprintf(t->out, "%.0f dead letter%s due now.\n", retried, retried == 1 ? " is" : "s are");
    if (left > 0)
        fprintf(t->out, "%.0f could not be read or %s being looked at, and stayed.\n", left,
                left == 1 ? "was" : "were");
    if (retried > 0)
        show_unready(t, p);
}

int command_requeue(const struct tool *t)
{
    if (t->all_dead)
        return ask_and_show(t, "POST", "/v1/queue/requeue", show_all_requeued);
    return ask_message(t, "POST", "/retry", show_retried);
}

int command_delete(const struct tool *t)
{
    return ask_message(t, "DELETE", "", show_deleted);
}

int command_resume(const struct tool *t)
{
    struct error err = ERROR_INIT;
    char name[PATH_TEXT / 2];
    char path[PATH_TEXT];

    if (!ask_encode(t->argument, name, sizeof(name))) {
        error_set(&err, ERROR_INVALID, "the name of the mailbox is too long");
        return tool_fail(t, &err);
    }
    snprintf(path, sizeof(path), "/v1/mailbox/%s/resume", name);
    return ask_and_show(t, "POST", path, show_resumed);
}

/* ---- commands that can read the spool -------------------------------------------------------- */

/* The id to go on after; 0 at the end. */
static uint64_t next_of(const cJSON *page)
{
    uint64_t id = 0;

    if (!queue_id_parse(json_get_text(page, "next"), &id))
        return 0;
    return id;
}

static int queue_for_people(const struct tool *t, struct source *s, struct error *err)
{
    struct page_list list;
    uint64_t after = 0;
    double total = 0;

    page_list_init(&list);
    list.dead = s->state != NULL;
    do {
        cJSON *page = source_page(s, after, PAGE, err);

        if (page == NULL) {
            format_table_done(&list.table);
            return tool_fail(t, err);
        }
        page_list_rows(&list, t->out, page);
        after = next_of(page);
        total = json_get_number(page, "total");
        cJSON_Delete(page);
    } while (t->all && after != 0);
    page_list_end(&list, t->out, (uint64_t)total);
    if (s->offline == NULL && s->state == NULL && total > 0)
        show_unready(t, &s->places);
    return EX_OK;
}

static int print_items(const struct tool *t, const cJSON *page, bool *first)
{
    for (const cJSON *m = json_first(page, "messages"); m != NULL; m = m->next) {
        char *text = cJSON_PrintUnformatted(m);

        if (text == NULL)
            return EX_OSERR;
        fprintf(t->out, "%s\n%s", *first ? "" : ",", text);
        cJSON_free(text);
        *first = false;
    }
    return EX_OK;
}

/* Ends a list that has begun with the error, so that it is JSON all the same. */
static int cut_list_json(const struct tool *t, const struct error *err)
{
    const struct tool plain = {.out = t->out, .err = t->err};
    cJSON *json = api_json_error(err);
    char *text = cJSON_PrintUnformatted(json_get(json, "error"));

    fprintf(t->out, "], \"error\": %s}\n", text != NULL ? text : "{}");
    cJSON_free(text);
    cJSON_Delete(json);
    return tool_fail(&plain, err);
}

/* Every page as one object, written as it comes. */
static int queue_all_json(const struct tool *t, struct source *s, struct error *err)
{
    uint64_t after = 0;
    double total = 0;
    bool first = true;
    bool begun = false;
    int code = EX_OK;

    do {
        cJSON *page = source_page(s, after, PAGE, err);

        if (page == NULL)
            return begun ? cut_list_json(t, err) : tool_fail(t, err);
        if (!begun)
            fputs("{\"messages\": [", t->out);
        begun = true;
        code = print_items(t, page, &first);
        after = next_of(page);
        total = json_get_number(page, "total");
        cJSON_Delete(page);
    } while (code == EX_OK && after != 0);
    fprintf(t->out, "%s], \"total\": %.0f}\n", first ? "" : "\n", total);
    return code;
}

static int queue_page_json(const struct tool *t, struct source *s, struct error *err)
{
    cJSON *page = source_page(s, 0, PAGE, err);
    int code = page != NULL ? tool_print_json(t, page) : tool_fail(t, err);

    cJSON_Delete(page);
    return code;
}

static int list_messages(const struct tool *t, const char *state)
{
    struct error err = ERROR_INIT;
    struct source s;
    int code;

    if (!source_open(t, &s, &code))
        return code;
    s.state = state;
    if (!t->json)
        code = queue_for_people(t, &s, &err);
    else
        code = t->all ? queue_all_json(t, &s, &err) : queue_page_json(t, &s, &err);
    source_close(&s);
    return code;
}

int command_queue(const struct tool *t)
{
    return list_messages(t, NULL);
}

int command_dead(const struct tool *t)
{
    return list_messages(t, queue_state_name(QUEUE_DEAD));
}

int command_show(const struct tool *t)
{
    struct error err = ERROR_INIT;
    struct source s;
    cJSON *message;
    uint64_t id;
    int code;

    if (!argument_id(t, &id, &err))
        return tool_fail(t, &err);
    if (!source_open(t, &s, &code))
        return code;
    message = source_message(&s, id, &err);
    code = EX_OK;
    if (message == NULL)
        code = tool_fail(t, &err);
    else if (t->json)
        code = tool_print_json(t, message);
    else
        page_message(t->out, message, ask_now());
    cJSON_Delete(message);
    source_close(&s);
    return code;
}

/* ---- export ---------------------------------------------------------------------------------- */

/* The file is made with the first octet, so that a wrong id leaves none. */
struct export
{
    const char *name; /* NULL: `file` is stdout */
    FILE *file;
    uint64_t written;
    bool force;  /* may write over a file */
    bool closed; /* to us: the file could not be made */
};

/* A file that is there already is somebody's; a pipe or device is there to be written to. */
static int open_new(const struct export *x)
{
    struct stat st;
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC;

    if (x->force || (stat(x->name, &st) == 0 && !S_ISREG(st.st_mode)))
        flags |= O_TRUNC;
    else
        flags |= O_EXCL;
    return open(x->name, flags, 0600);
}

static bool open_output(struct export *x, struct error *err)
{
    int fd = open_new(x);

    x->file = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (x->file != NULL)
        return true;
    x->closed = true;
    if (errno == EEXIST)
        return error_set(err, ERROR_INVALID,
                         "there is a file %s already; name another one, or write over it with "
                         "--force",
                         x->name);
    error_errno(err, errno, "open %s", x->name);
    if (fd >= 0)
        close(fd);
    return false;
}

static bool write_output(void *ctx, const void *data, size_t len, struct error *err)
{
    struct export *x = ctx;

    if (x->file == NULL && !open_output(x, err))
        return false;
    if (fwrite(data, 1, len, x->file) != len)
        return error_errno(err, errno, "write %s", x->name != NULL ? x->name : "the message");
    x->written += len;
    return true;
}

static bool close_output(struct export *x, struct error *err)
{
    int failed;

    if (x->file == NULL)
        return true;
    failed = x->name != NULL ? fclose(x->file) : fflush(x->file);
    if (failed == 0)
        return true;
    return error_errno(err, errno, "write %s", x->name != NULL ? x->name : "the message");
}

static int report_export(const struct tool *t, const struct export *x, const struct error *err)
{
    /* Behind half a message JSON would only be more of it. */
    const struct tool plain = {.out = t->out, .err = t->err};
    int code = tool_fail(x->written > 0 && x->name == NULL ? &plain : t, err);

    if (x->closed)
        code = EX_CANTCREAT;

    if (x->written > 0)
        fprintf(t->err, "%s is not complete: it ends after %" PRIu64 " octets.\n",
                x->name != NULL ? x->name : "What was written", x->written);
    if (x->written > 0 && err->kind == ERROR_DAMAGED)
        fputs("What is stored behind that cannot be read, or outtrayd was stopped meanwhile.\n",
              t->err);
    return code;
}

static void tell_export(const struct tool *t, const struct export *x)
{
    char size[FORMAT_TEXT];

    format_size((double)x->written, size);
    fprintf(t->err, "Wrote %s: %s.\n", x->name, size);
}

int command_export(const struct tool *t)
{
    struct error err = ERROR_INIT;
    struct export x = {
        .name = t->output, .file = t->output == NULL ? t->out : NULL, .force = t->force};
    struct source s;
    uint64_t id;
    int code = EX_OK;
    bool ok;

    if (!argument_id(t, &id, &err))
        return tool_fail(t, &err);
    if (!source_open(t, &s, &code))
        return code;
    ok = source_export(&s, id, write_output, &x, &err);
    if (!close_output(&x, ok ? &err : NULL))
        ok = false;
    source_close(&s);
    if (!ok)
        return report_export(t, &x, &err);
    if (x.name != NULL)
        tell_export(t, &x);
    return EX_OK;
}
