#include "relay/admin/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "queue/queue.h"
#include "relay/admin/json.h"
#include "relay/base/log.h"
#include "relay/submit/dispatch.h"

#define PATH_VALUE "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static const struct kind {
    enum config_event event;
    const char *name;
} kinds[] = {
    {CONFIG_EVENT_MAILBOX_PAUSED, "mailbox-paused"},
    {CONFIG_EVENT_MAILBOX_RECOVERED, "mailbox-recovered"},
    {CONFIG_EVENT_DEAD_LETTER, "dead-letter"},
    {CONFIG_EVENT_HELD, "held"},
    {CONFIG_EVENT_DELAYED, "delayed"},
    {CONFIG_EVENT_SPOOL_FAILING, "spool-failing"},
};

#define KINDS (sizeof kinds / sizeof *kinds)

/* An event for one program: waiting, then running. */
struct run {
    struct run *next;
    const struct config_notify *program;
    const struct kind *kind;
    pid_t pid;
    int output; /* -1 = closed */
    uint64_t began_ms;
    bool killed;
    size_t said_len;
    char said[NOTIFY_OUTPUT_MAX];
    char json[];
};

/* Messages of one kind that are not told of yet. */
struct gathered {
    cJSON *list;
    uint64_t count;
    uint64_t due_ms;
};

struct notify {
    struct notify_settings set;
    struct run *waiting; /* the oldest first */
    size_t waiting_count;
    struct run *running;
    size_t running_count;
    struct gathered gathered[KINDS];
    bool *paused; /* by mailbox: its pause was told of */
};

static uint64_t now_of(const struct notify *n)
{
    return clock_now_ms(n->set.clock);
}

static const struct kind *kind_of(enum config_event event)
{
    size_t i = 0;
    while (kinds[i].event != event)
        i++;
    return &kinds[i];
}

/* ---- running --------------------------------------------------------------------------------- */

/* Closes what is open. */
static void close_pair(int fds[2])
{
    for (int i = 0; i < 2; i++) {
        if (fds[i] >= 0)
            (void)close(fds[i]);
    }
}

static bool prepare_files(posix_spawn_file_actions_t *files, int in, int out)
{
    bool ok = posix_spawn_file_actions_adddup2(files, in, STDIN_FILENO) == 0 &&
              posix_spawn_file_actions_adddup2(files, out, STDOUT_FILENO) == 0 &&
              posix_spawn_file_actions_adddup2(files, out, STDERR_FILENO) == 0;
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
    /* All of ours are closed on exec anyway; a library's might not be. */
    ok = ok && posix_spawn_file_actions_addclosefrom_np(files, STDERR_FILENO + 1) == 0;
#endif
    return ok;
}

/* No signal is blocked or ignored there, and it leads a group of its own. */
static bool prepare_signals(posix_spawnattr_t *attr)
{
    sigset_t none;
    sigset_t usual;
    (void)sigemptyset(&none);
    (void)sigemptyset(&usual);
    (void)sigaddset(&usual, SIGPIPE);
    return posix_spawnattr_setsigmask(attr, &none) == 0 &&
           posix_spawnattr_setsigdefault(attr, &usual) == 0 &&
           posix_spawnattr_setpgroup(attr, 0) == 0 &&
           posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETPGROUP) == 0;
}

/* 0, or why it could not be started. */
static int spawn(struct run *r, int in, int out)
{
    char event[64];
    char command[PATH_MAX];
    char name[32];
    char path[] = PATH_VALUE;
    char lang[] = "LANG=C.UTF-8";
    char *argv[] = {command, name, NULL};
    char *env[] = {path, lang, event, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    snprintf(command, sizeof command, "%s", r->program->command);
    snprintf(name, sizeof name, "%s", r->kind->name);
    snprintf(event, sizeof event, "OUTTRAY_EVENT=%s", r->kind->name);
    if (posix_spawn_file_actions_init(&files) != 0)
        return ENOMEM;
    int rc = posix_spawnattr_init(&attr);
    if (rc == 0) {
        rc = prepare_files(&files, in, out) && prepare_signals(&attr)
                 ? posix_spawn(&r->pid, command, &files, &attr, argv, env)
                 : ENOMEM;
        (void)posix_spawnattr_destroy(&attr);
    }
    (void)posix_spawn_file_actions_destroy(&files);
    return rc;
}

/* An empty pipe takes the whole event, so that nobody has to wait for the program to read. */
static bool write_event(int fd, const char *json)
{
    size_t len = strlen(json);
    return write(fd, json, len) == (ssize_t)len;
}

static bool open_pipes(int in[2], int out[2])
{
    in[0] = in[1] = out[0] = out[1] = -1;
    return pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 &&
           fcntl(out[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(in[1], F_SETFL, O_NONBLOCK) == 0;
}

static bool run_start(struct run *r)
{
    int in[2];
    int out[2];
    int rc = open_pipes(in, out) && write_event(in[1], r->json) ? 0 : errno;
    if (rc == 0)
        rc = spawn(r, in[0], out[1]);
    if (rc == 0) {
        r->output = out[0];
        out[0] = -1;
    } else {
        log_event(LOG_LEVEL_ERROR, "notify-failed", LOG_STR("notify", r->program->name),
                  LOG_STR("told", r->kind->name), LOG_STR("command", r->program->command),
                  LOG_STR("reason", strerror(rc)), LOG_END);
    }
    close_pair(in);
    close_pair(out);
    return rc == 0;
}

/* What does not fit is read all the same, so that the program does not get stuck. */
static void run_listen(struct run *r)
{
    char more[4096];
    ssize_t got = 0;
    for (int i = 0; i < 64 && r->output >= 0; i++) {
        got = read(r->output, more, sizeof more);
        if (got <= 0)
            break;
        size_t room = sizeof r->said - 1 - r->said_len;
        size_t n = (size_t)got < room ? (size_t)got : room;
        memcpy(r->said + r->said_len, more, n);
        r->said_len += n;
    }
    if (r->output >= 0 && (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))) {
        (void)close(r->output);
        r->output = -1;
    }
}

static void run_log(struct run *r, int status, uint64_t took_ms)
{
    char how[64] = "";
    bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    while (r->said_len > 0 &&
           (r->said[r->said_len - 1] == '\n' || r->said[r->said_len - 1] == '\r'))
        r->said_len--;
    r->said[r->said_len] = '\0';
    for (char *nul = r->said; (nul = memchr(r->said, '\0', r->said_len)) != NULL;)
        *nul = ' ';
    if (r->killed)
        snprintf(how, sizeof how, "killed: it took longer than %d s", NOTIFY_TIME_MS / 1000);
    else if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "ended by signal %d", WTERMSIG(status));
    else if (!good)
        snprintf(how, sizeof how, "exit code %d", WEXITSTATUS(status));
    log_event(good ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, good ? "notified" : "notify-failed",
              LOG_STR("notify", r->program->name), LOG_STR("told", r->kind->name),
              LOG_MS("took", took_ms), LOG_STR("reason", how), LOG_STR("output", r->said), LOG_END);
}

static void run_free(struct run *r)
{
    if (r->output >= 0)
        (void)close(r->output);
    free(r);
}

/* True when it has ended. The pid is ours until we have waited for it. */
static bool run_watch(struct run *r, uint64_t now_ms)
{
    int status = 0;
    run_listen(r);
    pid_t ended = waitpid(r->pid, &status, WNOHANG);
    if (ended == r->pid) {
        run_listen(r);
        run_log(r, status, now_ms - r->began_ms);
        return true;
    }
    if (ended < 0 && errno != EINTR)
        return true;
    if (now_ms - r->began_ms >= NOTIFY_TIME_MS && !r->killed) {
        r->killed = true;
        (void)kill(-r->pid, SIGKILL);
        (void)kill(r->pid, SIGKILL); /* it may have left its group */
    }
    return false;
}

static void watch_running(struct notify *n)
{
    struct run **at = &n->running;
    while (*at != NULL) {
        struct run *r = *at;
        if (!run_watch(r, now_of(n))) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        n->running_count--;
        run_free(r);
    }
}

static void start_waiting(struct notify *n)
{
    while (n->waiting != NULL && n->running_count < NOTIFY_RUNNING_MAX) {
        struct run *r = n->waiting;
        n->waiting = r->next;
        n->waiting_count--;
        r->began_ms = now_of(n);
        if (!run_start(r)) {
            run_free(r);
            continue;
        }
        r->next = n->running;
        n->running = r;
        n->running_count++;
    }
}

/* ---- events ---------------------------------------------------------------------------------- */

static void drop_oldest(struct notify *n)
{
    struct run *r = n->waiting;
    n->waiting = r->next;
    n->waiting_count--;
    log_event(LOG_LEVEL_ERROR, "notify-failed", LOG_STR("notify", r->program->name),
              LOG_STR("told", r->kind->name),
              LOG_STR("reason", "too many events wait for programs that run"), LOG_END);
    run_free(r);
}

static void enqueue(struct notify *n, const struct config_notify *program, const struct kind *kind,
                    const char *json)
{
    size_t len = strlen(json);
    struct run *r = calloc(1, sizeof *r + len + 2);
    if (r == NULL)
        return;
    r->program = program;
    r->kind = kind;
    r->output = -1;
    snprintf(r->json, len + 2, "%s\n", json);
    if (n->waiting_count == NOTIFY_WAITING_MAX)
        drop_oldest(n);
    struct run **at = &n->waiting;
    while (*at != NULL)
        at = &(*at)->next;
    *at = r;
    n->waiting_count++;
}

static bool is_wanted(const struct config_notify *p, enum config_event event)
{
    return p->events == 0 || (p->events & event) != 0;
}

static bool anybody_wants(const struct notify *n, enum config_event event)
{
    for (size_t i = 0; i < n->set.config->notify_count; i++) {
        if (is_wanted(&n->set.config->notifies[i], event))
            return true;
    }
    return false;
}

static cJSON *event_begin(const struct notify *n, const struct kind *kind)
{
    cJSON *o = cJSON_CreateObject();
    if (json_put_text(o, "event", kind->name) &&
        json_put_time(o, "time", clock_wall_ms(n->set.clock)) &&
        json_put_text(o, "host", n->set.config->hostname))
        return o;
    cJSON_Delete(o);
    return NULL;
}

/* Takes the tree, which may be NULL. */
static void event_send(struct notify *n, const struct kind *kind, cJSON *o)
{
    char *text = o != NULL ? cJSON_PrintUnformatted(o) : NULL;
    cJSON_Delete(o);
    if (text == NULL || strlen(text) >= NOTIFY_EVENT_MAX) {
        log_event(LOG_LEVEL_ERROR, "notify-failed", LOG_STR("told", kind->name),
                  LOG_STR("reason", text == NULL ? "out of memory" : "the event is too large"),
                  LOG_END);
        cJSON_free(text);
        return;
    }
    for (size_t i = 0; i < n->set.config->notify_count; i++) {
        const struct config_notify *p = &n->set.config->notifies[i];
        if (is_wanted(p, kind->event))
            enqueue(n, p, kind, text);
    }
    cJSON_free(text);
    start_waiting(n);
}

/* ---- messages -------------------------------------------------------------------------------- */

static cJSON *message_json(uint64_t id, const char *device, const char *reason)
{
    char text[QUEUE_ID_TEXT];
    char cut[200];
    cJSON *o = cJSON_CreateObject();
    queue_id_text(id, text);
    snprintf(cut, sizeof cut, "%s", reason);
    if (json_put_text(o, "id", text) && json_put_text(o, "device", device) &&
        json_put_text(o, "reason", cut))
        return o;
    cJSON_Delete(o);
    return NULL;
}

void notify_message(struct notify *n, enum config_event event, uint64_t id, const char *device,
                    const char *reason)
{
    if (n == NULL || !anybody_wants(n, event))
        return;
    struct gathered *g = &n->gathered[kind_of(event) - kinds];
    if (g->list == NULL)
        g->list = cJSON_CreateArray();
    if (g->list == NULL)
        return;
    g->count++;
    if (cJSON_GetArraySize(g->list) < NOTIFY_IDS_MAX)
        (void)json_append(g->list, message_json(id, device, reason));
}

static void send_gathered(struct notify *n, const struct kind *kind, struct gathered *g)
{
    cJSON *o = event_begin(n, kind);
    cJSON *list = g->list;
    g->list = NULL;
    if (o == NULL)
        cJSON_Delete(list);
    else if (!json_put_number(o, "count", g->count) || !json_put(o, "messages", list)) {
        cJSON_Delete(o);
        o = NULL;
    }
    g->count = 0;
    g->due_ms = now_of(n) + NOTIFY_GATHER_MS;
    event_send(n, kind, o);
}

static void watch_gathered(struct notify *n)
{
    for (size_t i = 0; i < KINDS; i++) {
        struct gathered *g = &n->gathered[i];
        if (g->list != NULL && now_of(n) >= g->due_ms)
            send_gathered(n, &kinds[i], g);
    }
}

void notify_spool_failing(struct notify *n, const char *reason)
{
    const struct kind *kind = kind_of(CONFIG_EVENT_SPOOL_FAILING);
    if (n == NULL || !anybody_wants(n, kind->event))
        return;
    cJSON *o = event_begin(n, kind);
    if (o != NULL && !json_put_text(o, "reason", reason)) {
        cJSON_Delete(o);
        o = NULL;
    }
    event_send(n, kind, o);
}

/* ---- mailboxes ------------------------------------------------------------------------------- */

static void tell_mailbox(struct notify *n, const struct mailbox_status *m, bool paused)
{
    const struct kind *kind =
        kind_of(paused ? CONFIG_EVENT_MAILBOX_PAUSED : CONFIG_EVENT_MAILBOX_RECOVERED);
    if (!anybody_wants(n, kind->event))
        return;
    cJSON *o = event_begin(n, kind);
    if (o != NULL &&
        !(json_put_text(o, "mailbox", m->name) && json_put_text(o, "address", m->address) &&
          json_put_text(o, "problem", m->problem) && json_put_text(o, "remedy", m->remedy) &&
          json_put_text(o, "reply", m->last_reply))) {
        cJSON_Delete(o);
        o = NULL;
    }
    event_send(n, kind, o);
}

static void watch_mailboxes(struct notify *n)
{
    const struct dispatch *d = n->set.dispatch;
    struct mailbox_status m;
    for (size_t i = 0; d != NULL && i < n->set.config->mailbox_count; i++) {
        if (!dispatch_mailbox(d, i, &m))
            continue;
        bool paused = m.state == MAILBOX_PAUSED;
        if (n->paused[i] == paused || (n->paused[i] && m.state != MAILBOX_READY))
            continue;
        n->paused[i] = paused;
        tell_mailbox(n, &m, paused);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

void notify_tick(struct notify *n)
{
    if (n == NULL || n->set.config->notify_count == 0)
        return;
    watch_mailboxes(n);
    watch_gathered(n);
    watch_running(n);
    start_waiting(n);
}

struct notify *notify_new(const struct notify_settings *settings)
{
    struct notify *n = calloc(1, sizeof *n);
    if (n == NULL)
        return NULL;
    n->set = *settings;
    n->paused = calloc(settings->config->mailbox_count + 1, sizeof *n->paused);
    if (n->paused != NULL)
        return n;
    free(n);
    return NULL;
}

static void free_runs(struct run *r)
{
    while (r != NULL) {
        struct run *next = r->next;
        run_free(r);
        r = next;
    }
}

void notify_free(struct notify *n)
{
    if (n == NULL)
        return;
    for (size_t i = 0; i < KINDS; i++)
        cJSON_Delete(n->gathered[i].list);
    free_runs(n->waiting);
    free_runs(n->running);
    free(n->paused);
    free(n);
}
