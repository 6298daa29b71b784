/* outtrayd: options, wiring, signals, exit codes. Everything hangs off struct relay; what happens
 * to a message is told in relay/README.md. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>

#include <event2/event.h>

#include "relay/admin/api.h"
#include "relay/admin/history.h"
#include "relay/admin/notify.h"
#include "relay/admin/reports.h"
#include "relay/base/clock.h"
#include "relay/base/config.h"
#include "relay/base/dns.h"
#include "relay/base/log.h"
#include "relay/base/privileges.h"
#include "relay/base/secret.h"
#include "relay/base/stream.h"
#include "relay/base/work.h"
#include "relay/intake/join.h"
#include "relay/intake/listener.h"
#include "relay/intake/logins.h"
#include "relay/intake/registry.h"
#include "relay/signin/sasl.h"
#include "relay/signin/sasl_server.h"
#include "relay/signin/signins.h"
#include "relay/submit/dispatch.h"
#include "relay/submit/replies.h"
#include "relay/version.h"

#define TICK_SECONDS  1
#define PARTS_TO_STOP 2 /* intake and dispatch */

struct options {
    const char *config_file;
    bool test_clock;
    uint64_t clock_ms; /* how far the test clock is moved at the start */
    bool timestamps;
};

struct relay {
    const struct options *options;
    struct config *config;
    struct clock clock;
    struct event_base *base;
    struct stream_loop *streams;
    struct work *work;
    struct queue *queue;
    struct queue_recovery recovery;
    struct dns *dns;
    struct signins *signins; /* NULL when no mailbox has OAuth */
    struct dispatch *dispatch;
    struct intake *intake;
    struct join *join;
    struct logins *logins;
    struct registry *registry;
    struct replies *replies;
    struct history *history;
    struct notify *notify;
    struct reports *reports;
    struct api *api;
    struct event *tick;
    struct event *sigterm;
    struct event *sigint;
    struct event *sighup;
    struct event *stop_limit;
    unsigned parts_stopped;
    bool stopping;
    bool queue_failing;
    unsigned queue_full; /* 1: but for urgent mail; 2 */
};

/* ---- running --------------------------------------------------------------------------------- */

/* Tells once when the spool begins to fail and once when it is well again. */
static void watch_failure(struct relay *r, const struct queue_counts *counts)
{
    if (counts->failing == r->queue_failing)
        return;
    r->queue_failing = counts->failing;
    if (counts->failing)
        notify_spool_failing(r->notify, counts->failure);
    if (counts->failing)
        log_event(LOG_LEVEL_ERROR, "spool-failing", LOG_STR("reason", counts->failure),
                  LOG_STR("effect", "mail is refused with 451 until the spool can be written; what "
                                    "waits is sent, and its outcomes are remembered until then"),
                  LOG_END);
    else
        log_event(LOG_LEVEL_WARN, "spool-recovered", /* whoever heard of the failure hears this */
                  LOG_STR("effect", "mail is taken again, and what was remembered is written"),
                  LOG_END);
}

/* The same for its limits. */
static void watch_room(struct relay *r, const struct queue_counts *counts)
{
    static const char *const refused[] = {"none", "normal and bulk", "all"};
    struct error err = ERROR_INIT;
    unsigned full = counts->full_urgent ? 2 : counts->full ? 1 : 0;
    bool more = full > r->queue_full;
    if (full == r->queue_full)
        return;
    r->queue_full = full;
    if (more && !queue_has_room(r->queue, full == 2 ? LANE_URGENT : LANE_NORMAL, 0, &err))
        log_event(LOG_LEVEL_WARN, "spool-full", LOG_STR("refused", refused[full]),
                  LOG_STR("reason", err.text), LOG_END);
    else
        log_event(LOG_LEVEL_INFO, "spool-has-room", LOG_STR("refused", refused[full]), LOG_END);
}

static void watch_queue(struct relay *r)
{
    struct queue_counts counts;
    queue_counts(r->queue, &counts);
    watch_failure(r, &counts);
    watch_room(r, &counts);
}

static void on_tick(evutil_socket_t fd, short what, void *ctx)
{
    struct relay *r = ctx;
    (void)fd;
    (void)what;
    queue_tick(r->queue, clock_now_ms(&r->clock), clock_wall_ms(&r->clock));
    watch_queue(r);
    join_tick(r->join);
    registry_tick(r->registry, clock_now_ms(&r->clock), clock_wall_ms(&r->clock));
    reports_tick(r->reports);
    notify_tick(r->notify);
    if (r->signins != NULL)
        signins_tick(r->signins);
    dispatch_wake(r->dispatch);
}

static void on_queued(void *ctx)
{
    struct relay *r = ctx;
    dispatch_wake(r->dispatch);
}

static void on_coming(void *ctx, const char *route)
{
    struct relay *r = ctx;
    dispatch_expect(r->dispatch, route);
}

static void on_settled(void *ctx, uint64_t id, enum queue_state state, size_t failed,
                       const char *device, const char *reason)
{
    struct relay *r = ctx;
    reports_settled(r->reports, id, state, failed, device, reason);
}

static void on_relayed(void *ctx, uint64_t id, const struct envelope *before,
                       const struct envelope *after, const void *header, size_t len)
{
    struct relay *r = ctx;
    reports_relayed(r->reports, id, before, after, header, len);
}

static uint64_t route_max_size(void *ctx, const char *route)
{
    struct relay *r = ctx;
    return dispatch_route_max_size(r->dispatch, route);
}

static void on_clock_moved(void *ctx)
{
    on_tick(-1, 0, ctx);
}

/* ---- stopping -------------------------------------------------------------------------------- */

static void on_part_stopped(void *ctx)
{
    struct relay *r = ctx;
    if (++r->parts_stopped == PARTS_TO_STOP)
        (void)event_base_loopexit(r->base, NULL);
}

static void on_stop_limit(evutil_socket_t fd, short what, void *ctx)
{
    struct relay *r = ctx;
    (void)fd;
    (void)what;
    log_event(LOG_LEVEL_WARN, "stop-limit",
              LOG_STR("reason",
                      "stop_time is over: submissions begin again after the next start; what "
                      "devices are sending now is lost to them, and named below"),
              LOG_END);
    (void)event_base_loopexit(r->base, NULL);
}

static void on_stop_signal(evutil_socket_t signo, short what, void *ctx)
{
    struct relay *r = ctx;
    struct timeval limit = {.tv_sec = (time_t)(r->config->stop_ms / 1000),
                            .tv_usec = (suseconds_t)(r->config->stop_ms % 1000 * 1000)};
    (void)what;
    if (r->stopping)
        return;
    r->stopping = true;
    log_event(LOG_LEVEL_INFO, "stopping", LOG_STR("signal", strsignal((int)signo)), LOG_END);
    (void)event_add(r->stop_limit, &limit);
    intake_stop(r->intake, on_part_stopped, r);
    dispatch_stop(r->dispatch, on_part_stopped, r);
}

static void on_hangup(evutil_socket_t signo, short what, void *ctx)
{
    (void)signo;
    (void)what;
    (void)ctx;
    log_event(
        LOG_LEVEL_WARN, "hangup",
        LOG_STR("reason", "the configuration is read at the start only; restart to change it"),
        LOG_END);
}

/* What is forgotten with this process. */
static void tell_unmarked(const struct relay *r)
{
    struct queue_counts counts;
    if (r->queue == NULL)
        return;
    queue_counts(r->queue, &counts);
    if (counts.unmarked > 0)
        log_event(LOG_LEVEL_WARN, "outcomes-unwritten", LOG_U64("messages", counts.unmarked),
                  LOG_STR("effect", "they were sent while the spool could not be written; unless "
                                    "that has just changed they are sent again"),
                  LOG_END);
}

/* Order matters: first nothing new can begin, then what the disk still owes is delivered, then the
 * parts go, and the queue last, because they hold writers and readers of it. Sessions that are cut
 * have something to tell the registry. */
static void relay_close(struct relay *r)
{
    api_free(r->api);
    reports_stop(r->reports);
    join_stop(r->join);
    signins_stop(r->signins);
    if (r->work != NULL)
        work_drain(r->work);
    intake_free(r->intake);
    join_free(r->join);
    logins_free(r->logins);
    registry_close(r->registry);
    reports_free(r->reports);
    notify_free(r->notify);
    dispatch_free(r->dispatch);
    history_close(r->history, clock_now_ms(&r->clock));
    replies_free(r->replies);
    tell_unmarked(r);
    signins_free(r->signins);
    queue_close(r->queue);
    dns_free(r->dns);
    stream_loop_free(r->streams);
    work_free(r->work);
    struct event *events[] = {r->tick, r->sigterm, r->sigint, r->sighup, r->stop_limit};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        if (events[i] != NULL)
            event_free(events[i]);
    }
    if (r->base != NULL)
        event_base_free(r->base);
    sasl_server_teardown();
    sasl_teardown();
    config_free(r->config);
    libevent_global_shutdown();
}

/* ---- starting -------------------------------------------------------------------------------- */

static bool start_loop(struct relay *r, struct error *err)
{
    r->base = event_base_new();
    if (r->base == NULL)
        return error_set(err, ERROR_NO_ROOM, "cannot make the event loop");
    r->streams = stream_loop_new(r->base);
    r->tick = event_new(r->base, -1, EV_PERSIST, on_tick, r);
    r->stop_limit = evtimer_new(r->base, on_stop_limit, r);
    r->sigterm = evsignal_new(r->base, SIGTERM, on_stop_signal, r);
    r->sigint = evsignal_new(r->base, SIGINT, on_stop_signal, r);
    r->sighup = evsignal_new(r->base, SIGHUP, on_hangup, r);
    if (r->streams == NULL || r->tick == NULL || r->stop_limit == NULL || r->sigterm == NULL ||
        r->sigint == NULL || r->sighup == NULL || event_add(r->sigterm, NULL) != 0 ||
        event_add(r->sigint, NULL) != 0 || event_add(r->sighup, NULL) != 0)
        return error_set(err, ERROR_NO_ROOM, "cannot make the event loop's timers");
    r->work = work_new(r->base, err);
    return r->work != NULL;
}

static bool start_queue(struct relay *r, struct error *err)
{
    const struct queue_options options = {
        .dir = r->config->spool,
        .executor = work_executor(r->work),
        .max_bytes = r->config->spool_max,
        .min_free_bytes = r->config->spool_min_free,
        .uncertain_wait_ms = r->config->uncertain_wait_ms,
        .uncertain_wait_urgent_ms = r->config->uncertain_wait_urgent_ms,
        .now_ms = clock_now_ms(&r->clock),
        .wall_ms = clock_wall_ms(&r->clock),
    };
    uint64_t began = clock_now_ms(&r->clock);
    r->queue = queue_open(&options, &r->recovery, err);
    if (r->queue == NULL)
        return false;
    log_event(r->recovery.damaged > 0 ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, "spool-open",
              LOG_STR("spool", r->config->spool), LOG_U64("messages", r->recovery.messages),
              LOG_U64("uncertain", r->recovery.uncertain), LOG_U64("damaged", r->recovery.damaged),
              LOG_MS("took", clock_now_ms(&r->clock) - began), LOG_END);
    watch_queue(r);
    return true;
}

/* Only where a mailbox has OAuth. */
static bool start_signins(struct relay *r, struct error *err)
{
    size_t count = r->config->mailbox_count;
    struct signin_config *configs = calloc(count, sizeof *configs);
    size_t with_oauth = 0;
    if (configs == NULL)
        return error_set(err, ERROR_NO_ROOM, "out of memory");
    for (size_t i = 0; i < count; i++)
        with_oauth += signin_config_of(r->config, i, &configs[i]) ? 1 : 0;
    const struct signins_settings settings = {.base = r->base,
                                              .clock = &r->clock,
                                              .executor = work_executor(r->work),
                                              .directory = r->config->spool,
                                              .mailboxes = configs,
                                              .count = count};
    if (with_oauth > 0)
        r->signins = signins_new(&settings, err);
    free(configs);
    return with_oauth == 0 || r->signins != NULL;
}

static void warn_of_secret(const struct config_mailbox *m, struct secret *s,
                           const struct error *err)
{
    if (s == NULL)
        log_event(LOG_LEVEL_WARN, "secret-missing", LOG_STR("mailbox", m->name),
                  LOG_STR("reason", err->text),
                  LOG_STR("effect", "its mail waits until it can be read"), LOG_END);
    secret_free(s);
}

/* It is no reason not to start: what is missing may come later, and mail can wait for it. */
static void warn_of_secrets(const struct config *c)
{
    for (size_t i = 0; i < c->mailbox_count; i++) {
        const struct config_mailbox *m = &c->mailboxes[i];
        struct error err = ERROR_INIT;

        if ((m->auth & CONFIG_AUTH_PASSWORD) != 0 && (!m->has_oauth || m->password_file[0] != '\0'))
            warn_of_secret(m, secret_of_mailbox(m->name, m->password_file, &err), &err);
        if (m->has_oauth && m->client_secret_file[0] != '\0')
            warn_of_secret(m, secret_line_from_file(m->client_secret_file, &err), &err);
        if (m->has_oauth && m->certificate_file[0] != '\0')
            warn_of_secret(m,
                           secret_from_file(m->private_key_file[0] != '\0' ? m->private_key_file
                                                                           : m->certificate_file,
                                            &err),
                           &err);
        if (m->has_oauth && m->service_account_file[0] != '\0')
            warn_of_secret(m, secret_from_file(m->service_account_file, &err), &err);
    }
}

static bool start_submit(struct relay *r, struct error *err)
{
    if (!sasl_setup(config_wants_scram(r->config), err))
        return false;
    r->dns = dns_new(r->base, dns_resolve_system, NULL, DNS_TIMEOUT_MS);
    if (r->dns == NULL)
        return error_set(err, ERROR_NO_ROOM, "out of memory");
    char ledger[PATH_MAX];
    if (snprintf(ledger, sizeof ledger, "%s/ledger.db", r->config->spool) >= (int)sizeof ledger)
        return error_set(err, ERROR_LIMIT, "[relay] spool: path too long");
    if (!start_signins(r, err))
        return false;
    warn_of_secrets(r->config);
    const struct dispatch_settings settings = {.base = r->base,
                                               .streams = r->streams,
                                               .clock = &r->clock,
                                               .dns = r->dns,
                                               .config = r->config,
                                               .queue = r->queue,
                                               .ledger = ledger,
                                               .executor = work_database_executor(r->work),
                                               .replies = r->replies,
                                               .on_settled = on_settled,
                                               .on_relayed = on_relayed,
                                               .ctx = r,
                                               .signins = r->signins};
    r->dispatch = dispatch_new(&settings, err);
    return r->dispatch != NULL;
}

static bool start_registry(struct relay *r, struct error *err)
{
    char file[PATH_MAX];
    if (snprintf(file, sizeof file, "%s/devices.db", r->config->spool) >= (int)sizeof file)
        return error_set(err, ERROR_LIMIT, "[relay] spool: path too long");
    const struct registry_settings settings = {.clock = &r->clock,
                                               .config = r->config,
                                               .executor = work_database_executor(r->work),
                                               .file = file};
    r->registry = registry_open(&settings);
    return r->registry != NULL || error_set(err, ERROR_NO_ROOM, "out of memory");
}

/* Reading the file is the last thing of the start that blocks. */
static bool start_reports(struct relay *r, struct error *err)
{
    const struct notify_settings notify = {
        .clock = &r->clock, .config = r->config, .dispatch = r->dispatch};
    struct queue_counts counts;
    queue_counts(r->queue, &counts);
    r->notify = notify_new(&notify);
    if (counts.failing)
        notify_spool_failing(r->notify, counts.failure);
    const struct reports_settings settings = {.clock = &r->clock,
                                              .config = r->config,
                                              .queue = r->queue,
                                              .dispatch = r->dispatch,
                                              .history = r->history,
                                              .notify = r->notify,
                                              .on_queued = on_queued,
                                              .ctx = r};
    r->reports = r->notify != NULL ? reports_new(&settings) : NULL;
    return r->reports != NULL || error_set(err, ERROR_NO_ROOM, "out of memory");
}

static bool start_history(struct relay *r, struct error *err)
{
    char file[PATH_MAX];
    const struct executor database = work_database_executor(r->work);
    if (snprintf(file, sizeof file, "%s/history.db", r->config->spool) >= (int)sizeof file)
        return error_set(err, ERROR_LIMIT, "[relay] spool: path too long");
    r->replies = replies_new();
    if (r->replies != NULL)
        r->history = history_open(file, &database, r->replies, clock_now_ms(&r->clock));
    return r->history != NULL || error_set(err, ERROR_NO_ROOM, "out of memory");
}

static bool start_join(struct relay *r, struct error *err)
{
    const struct join_settings settings = {.queue = r->queue,
                                           .clock = &r->clock,
                                           .config = r->config,
                                           .route_max_size = route_max_size,
                                           .on_queued = on_queued,
                                           .ctx = r};
    r->join = join_new(&settings);
    return r->join != NULL || error_set(err, ERROR_NO_ROOM, "out of memory");
}

static bool start_intake(struct relay *r, struct error *err)
{
    const struct executor slow = work_slow_executor(r->work);
    if (!sasl_server_setup(err))
        return false;
    r->logins = logins_new(r->base, &r->clock, &slow, r->config->passwords);
    if (r->logins == NULL)
        return error_set(err, ERROR_NO_ROOM, "out of memory");
    const struct intake_settings settings = {.base = r->base,
                                             .streams = r->streams,
                                             .clock = &r->clock,
                                             .config = r->config,
                                             .queue = r->queue,
                                             .logins = r->logins,
                                             .join = r->join,
                                             .registry = r->registry,
                                             .route_max_size = route_max_size,
                                             .on_coming = on_coming,
                                             .on_queued = on_queued,
                                             .ctx = r};
    return intake_start(r->intake, &settings, err);
}

static bool start_api(struct relay *r, struct error *err)
{
    const struct api_settings settings = {.base = r->base,
                                          .clock = &r->clock,
                                          .config = r->config,
                                          .queue = r->queue,
                                          .intake = r->intake,
                                          .dispatch = r->dispatch,
                                          .registry = r->registry,
                                          .reports = r->reports,
                                          .replies = r->replies,
                                          .signins = r->signins,
                                          .socket = r->config->socket,
                                          .recovery = &r->recovery,
                                          .test_clock = r->options->test_clock,
                                          .on_clock = on_clock_moved,
                                          .ctx = r};
    r->api = api_new(&settings, err);
    return r->api != NULL;
}

/* Ports below 1024 are bound as root; everything after that is done as the configured user. */
static bool start_sockets(struct relay *r, struct error *err)
{
    r->intake = intake_bind(r->config, err);
    if (r->intake == NULL)
        return false;
    if (!privileges_own_directory(r->config->user, r->config->spool, err) ||
        !privileges_own_parent(r->config->user, r->config->socket, err))
        return false;
    return privileges_drop(r->config->user, err);
}

static bool relay_start(struct relay *r, struct error *err)
{
    return start_sockets(r, err) && start_loop(r, err) && start_queue(r, err) &&
           start_history(r, err) && start_submit(r, err) && start_reports(r, err) &&
           start_registry(r, err) && start_join(r, err) && start_intake(r, err) &&
           start_api(r, err);
}

static int exit_code(const struct error *err)
{
    switch (err->kind) {
    case ERROR_INVALID:
        return EX_CONFIG;
    case ERROR_BUSY:
        return EX_TEMPFAIL;
    case ERROR_DAMAGED:
        return EX_DATAERR;
    default:
        return err->errnum == EACCES || err->errnum == EPERM ? EX_NOPERM : EX_OSERR;
    }
}

static int relay_run(struct relay *r)
{
    struct error err = ERROR_INIT;
    const struct timeval tick = {.tv_sec = TICK_SECONDS};
    if (!relay_start(r, &err)) {
        log_event(LOG_LEVEL_ERROR, "start-failed", LOG_STR("reason", err.text), LOG_END);
        return exit_code(&err);
    }
    (void)event_add(r->tick, &tick);
    log_event(LOG_LEVEL_INFO, "started", LOG_STR("version", OUTTRAY_VERSION),
              LOG_STR("config", r->options->config_file), LOG_END);
    dispatch_wake(r->dispatch);
    (void)event_base_dispatch(r->base);
    return EX_OK;
}

/* Each session and each large message takes a descriptor; the usual soft limit of 1024 is for
 * select(). */
static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* fewer sessions at a time, else */
}

/* ---- options --------------------------------------------------------------------------------- */

static void print_help(FILE *out)
{
    fprintf(out,
            "Usage: outtrayd [-c FILE] [--timestamps] [--test-clock[=SECONDS]]\n"
            "\n"
            "Takes mail from devices on the LAN and submits it to a mailbox's provider.\n"
            "Runs in the foreground; a supervisor such as systemd keeps it.\n"
            "\n"
            "  -c, --config FILE  read this configuration (" CONFIG_DEFAULT_FILE ")\n"
            "      --timestamps   begin log lines with the time (journald adds its own)\n"
            "      --test-clock[=SECONDS]\n"
            "                     begin so many seconds later and let the API move the clock; for\n"
            "                     tests only\n"
            "  -V, --version      print the version\n"
            "  -h, --help         print this\n"
            "\n"
            "\"outtray check\" tells what is wrong with a configuration, \"outtray status\" what\n"
            "the daemon is doing. See outtrayd(8), outtray(1) and outtray.conf(5).\n");
}

/* Returns an exit code when the program is done, or -1 to go on. */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {{"config", required_argument, NULL, 'c'},
                                          {"timestamps", no_argument, NULL, 't'},
                                          {"test-clock", optional_argument, NULL, 'k'},
                                          {"check", no_argument, NULL, 'C'},
                                          {"version", no_argument, NULL, 'V'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "c:Vh", longs, NULL)) != -1) {
        switch (c) {
        case 'c':
            o->config_file = optarg;
            break;
        case 't':
            o->timestamps = true;
            break;
        case 'k':
            o->test_clock = true;
            o->clock_ms = optarg != NULL ? strtoull(optarg, NULL, 10) * 1000 : 0;
            break;
        case 'C':
            fprintf(stderr, "outtrayd: use: outtray check\n");
            return EX_USAGE;
        case 'V':
            printf("outtrayd %s\n", OUTTRAY_VERSION);
            return EX_OK;
        case 'h':
            print_help(stdout);
            return EX_OK;
        default:
            print_help(stderr);
            return EX_USAGE;
        }
    }
    if (optind == argc)
        return -1;
    fprintf(stderr, "outtrayd: unexpected argument \"%s\"\n", argv[optind]);
    return EX_USAGE;
}

int main(int argc, char **argv)
{
    struct options options = {.config_file = CONFIG_DEFAULT_FILE};
    struct relay relay = {.options = &options};
    int code = parse_options(argc, argv, &options);
    if (code >= 0)
        return code;
    (void)signal(SIGPIPE, SIG_IGN); /* a broken connection is an error of its write */
    raise_descriptors();
    privileges_guard_memory();
    clock_init(&relay.clock);
    clock_advance(&relay.clock, options.clock_ms);
    relay.config = config_load(options.config_file, stderr);
    if (relay.config == NULL)
        return EX_CONFIG;
    log_setup(relay.config->log_level, relay.config->log_target, options.timestamps);
    code = relay_run(&relay);
    relay_close(&relay);
    log_event(LOG_LEVEL_INFO, "stopped", LOG_U64("code", code), LOG_END);
    return code;
}
