#include "relay/intake/profiles.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "relay/base/log.h"
#include "relay/base/tls.h"
#include "relay/base/tls_certificate.h"

#define OWN_NAME_MAX 254
#define TRIAL_MS     20000
#define DAY_MS       INT64_C(86400000)

/* Of one listener; the first one is [relay]'s, which listeners without their own use. */
struct profile {
    const struct config_listener *listener;
    struct tls_identity *identity;
    struct tls_context *contexts[TLS_PROFILES];
};

struct profiles {
    const struct config *config;
    size_t count;
    struct profile list[];
};

/* ---- the certificate we make ----------------------------------------------------------------- */

struct own_names {
    struct tls_certificate_request request;
    char host[OWN_NAME_MAX];
    char label[OWN_NAME_MAX];
};

static void add_name(struct tls_certificate_request *r, const char *name)
{
    struct net_address a;
    if (name[0] == '\0' || r->name_count == TLS_CERTIFICATE_NAMES_MAX || net_parse(name, &a))
        return;
    for (size_t i = 0; i < r->name_count; i++) {
        if (strcmp(r->names[i], name) == 0)
            return;
    }
    r->names[r->name_count++] = name;
}

static bool is_link_local(const struct net_address *a)
{
    return a->family == 6 && a->bytes[0] == 0xfe && (a->bytes[1] & 0xc0) == 0x80;
}

static void add_address(struct tls_certificate_request *r, const struct net_address *a)
{
    if (is_link_local(a) || r->address_count == TLS_CERTIFICATE_ADDRESSES_MAX)
        return;
    for (size_t i = 0; i < r->address_count; i++) {
        if (net_equal(&r->addresses[i], a))
            return;
    }
    r->addresses[r->address_count++] = *a;
}

static void add_addresses_of_host(struct tls_certificate_request *r)
{
    struct ifaddrs *list = NULL;
    struct net_address a;
    if (getifaddrs(&list) != 0)
        return; /* a certificate without addresses serves all who do not verify it */
    for (const struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
        if (i->ifa_addr != NULL && net_from_sockaddr(i->ifa_addr, &a))
            add_address(r, &a);
    }
    freeifaddrs(list);
}

static void add_addresses_of_listeners(const struct config *c, struct tls_certificate_request *r)
{
    static const uint8_t unspecified[16];
    struct net_address a;
    for (size_t i = 0; i < c->listener_count; i++) {
        if (net_parse(c->listeners[i].address, &a) && memcmp(a.bytes, unspecified, 16) != 0)
            add_address(r, &a);
    }
}

static void own_names(const struct config *c, struct own_names *out)
{
    memset(out, 0, sizeof *out);
    if (gethostname(out->host, sizeof out->host - 1) != 0)
        out->host[0] = '\0';
    snprintf(out->label, sizeof out->label, "%.*s", (int)strcspn(out->host, "."), out->host);
    add_name(&out->request, c->hostname);
    add_name(&out->request, out->host);
    add_name(&out->request, out->label);
    add_name(&out->request, "localhost");
    add_addresses_of_listeners(c, &out->request);
    add_addresses_of_host(&out->request);
}

static bool make_certificate(const struct config *c, const char *directory, const char *certificate,
                             const char *key, struct error *err)
{
    struct own_names names;
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        return error_errno(err, errno, "make directory %s", directory);
    own_names(c, &names);
    if (!tls_certificate_make(&names.request, certificate, key, err))
        return false;
    log_event(LOG_LEVEL_INFO, "certificate-made", LOG_STR("file", certificate),
              LOG_STR("name", names.request.names[0]),
              LOG_U64("addresses", names.request.address_count), LOG_END);
    return true;
}

typedef struct tls_identity *identity_fn(const char *certificate_file, const char *key_file,
                                         struct error *err);

static struct tls_identity *own_identity(const struct config *c, identity_fn *take,
                                         struct error *err)
{
    char directory[PATH_MAX];
    char certificate[PATH_MAX + 32];
    char key[PATH_MAX + 32];
    if (snprintf(directory, sizeof directory, "%s/tls", c->spool) >= (int)sizeof directory) {
        error_set(err, ERROR_LIMIT, "[relay] spool: path too long");
        return NULL;
    }
    snprintf(certificate, sizeof certificate, "%s/certificate.pem", directory);
    snprintf(key, sizeof key, "%s/private-key.pem", directory);
    if ((access(certificate, F_OK) != 0 || access(key, F_OK) != 0) &&
        !make_certificate(c, directory, certificate, key, err))
        return NULL;
    struct tls_identity *id = take(certificate, key, err);
    if (id == NULL)
        error_wrap(err,
                   "the certificate that was made for listeners cannot be used; remove %s to "
                   "have a new one made",
                   directory);
    return id;
}

/* ---- what the configuration names ------------------------------------------------------------ */

static bool speaks_tls(const struct config_listener *l)
{
    return l->tls != CONFIG_LISTENER_NONE;
}

static bool has_own(const struct config_listener *l)
{
    return l->certificate[0] != '\0';
}

static bool is_shared_needed(const struct config *c)
{
    for (size_t i = 0; i < c->listener_count; i++) {
        if (speaks_tls(&c->listeners[i]) && !has_own(&c->listeners[i]))
            return true;
    }
    return false;
}

static void warn_of_end(const struct tls_identity *id, const char *file, uint64_t wall_ms)
{
    int64_t left_ms = tls_identity_end(id) * 1000 - (int64_t)wall_ms;
    if (left_ms > PROFILES_WARN_DAYS * DAY_MS)
        return;
    log_event(LOG_LEVEL_WARN, "certificate-ends",
              LOG_STR("file", file[0] != '\0' ? file : "tls/certificate.pem in the spool"),
              LOG_U64("days", left_ms > 0 ? left_ms / DAY_MS : 0),
              LOG_STR("remedy", file[0] != '\0'
                                    ? "renew it, then restart outtrayd"
                                    : "remove it, then restart outtrayd: a new one is made"),
              LOG_END);
}

static bool load(struct profiles *p, const struct config_listener *l, identity_fn *take,
                 struct error *err)
{
    const struct config *c = p->config;
    const char *certificate = l != NULL ? l->certificate : c->certificate;
    const char *key = l != NULL ? l->private_key : c->private_key;
    struct tls_identity *id =
        certificate[0] != '\0' ? take(certificate, key, err) : own_identity(c, take, err);
    if (id == NULL && l != NULL)
        return error_wrap(err, "[listener %s]", l->name);
    if (id == NULL)
        return false;
    p->list[p->count++] = (struct profile){.listener = l, .identity = id};
    return true;
}

static struct profiles *load_all(const struct config *config, identity_fn *take, struct error *err)
{
    struct profiles *p =
        calloc(1, sizeof *p + (config->listener_count + 1) * sizeof(struct profile));
    if (p == NULL) {
        error_set(err, ERROR_NO_ROOM, "out of memory");
        return NULL;
    }
    p->config = config;
    bool ok = !is_shared_needed(config) || load(p, NULL, take, err);
    for (size_t i = 0; ok && i < config->listener_count; i++) {
        const struct config_listener *l = &config->listeners[i];
        if (speaks_tls(l) && has_own(l))
            ok = load(p, l, take, err);
    }
    if (ok)
        return p;
    profiles_free(p);
    return NULL;
}

/* ---- the trial ------------------------------------------------------------------------------- */

static void warn_of_ends(const struct profiles *p, uint64_t wall_ms)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct config_listener *l = p->list[i].listener;
        warn_of_end(p->list[i].identity, l != NULL ? l->certificate : p->config->certificate,
                    wall_ms);
    }
}

static bool try_all(const struct config *config, uint64_t wall_ms, struct error *err)
{
    struct profiles *p = load_all(config, tls_identity_load, err);
    if (p != NULL)
        warn_of_ends(p, wall_ms);
    profiles_free(p);
    return p != NULL;
}

/* In the child: what it found goes through the pipe. */
_Noreturn static void report_trial(int fd, const struct config *config, uint64_t wall_ms)
{
    struct error err = ERROR_INIT;
    (void)try_all(config, wall_ms, &err);
    _exit(write(fd, &err, sizeof err) == sizeof err ? 0 : 1);
}

/* What the child found; false when it did not say so in time, and has been ended. */
static bool await_trial(pid_t child, int fd, struct error *out_found)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int ready;
    ssize_t got = 0;
    do
        ready = poll(&p, 1, TRIAL_MS);
    while (ready < 0 && errno == EINTR);
    if (ready > 0)
        got = read(fd, out_found, sizeof *out_found);
    else
        (void)kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    return got == sizeof *out_found;
}

/* Making and trying certificates brings in some three megabytes of the TLS library, which a relay
 * that nobody speaks TLS to has no use for: a child does it and takes them with it. Of a process
 * with threads a child inherits locks that nobody will open, in a library that does not care for
 * that: then the relay does it itself. */
static bool try_in_child(const struct config *config, uint64_t wall_ms, struct error *err)
{
    struct error found = ERROR_INIT;
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return try_all(config, wall_ms, err);
    pid_t child = fork();
    if (child == 0)
        report_trial(fds[1], config, wall_ms);
    (void)close(fds[1]);
    bool heard = child > 0 && await_trial(child, fds[0], &found);
    (void)close(fds[0]);
    if (!heard)
        return try_all(config, wall_ms, err);
    if (found.kind != ERROR_NONE)
        *err = found;
    return found.kind == ERROR_NONE;
}

static bool is_any_needed(const struct config *c)
{
    for (size_t i = 0; i < c->listener_count; i++) {
        if (speaks_tls(&c->listeners[i]))
            return true;
    }
    return false;
}

struct profiles *profiles_new(const struct config *config, uint64_t wall_ms, struct error *err)
{
    if (is_any_needed(config) && !try_in_child(config, wall_ms, err))
        return NULL;
    return load_all(config, tls_identity_read, err);
}

void profiles_free(struct profiles *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->count; i++) {
        for (size_t k = 0; k < TLS_PROFILES; k++)
            tls_context_free(p->list[i].contexts[k]);
        tls_identity_free(p->list[i].identity);
    }
    free(p);
}

static struct profile *find(struct profiles *p, const struct config_listener *l)
{
    for (size_t i = 0; i < p->count; i++) {
        if (p->list[i].listener == (has_own(l) ? l : NULL))
            return &p->list[i];
    }
    return NULL;
}

struct tls_context *profiles_context(struct profiles *p, const struct config_listener *l,
                                     bool legacy, struct error *err)
{
    struct profile *found = find(p, l);
    enum tls_profile which = legacy ? TLS_LEGACY : TLS_MODERN;
    if (found == NULL) {
        error_set(err, ERROR_MISSING, "[listener %s] has no certificate", l->name);
        return NULL;
    }
    if (found->contexts[which] == NULL)
        found->contexts[which] = tls_server_new(found->identity, which, err);
    return found->contexts[which];
}
