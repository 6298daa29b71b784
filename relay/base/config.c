#include "relay/base/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "relay/base/config_build.h"
#include "relay/base/config_check.h"
#include "relay/base/provider.h"

/* The presets: sections [provider NAME] and nothing else. */
static void read_presets(struct config *c, const char *file, const char *text, size_t len,
                         FILE *mistakes, bool *out_good)
{
    struct config_builder b = {.c = c};

    config_mistakes_init(&b.m);
    config_reader_read(&b.doc, text, len, &b.m);
    config_build_presets(&b);
    config_mistakes_write(&b.m, file, mistakes);
    *out_good = !config_mistakes_any(&b.m);
    free(b.targets);
    config_document_done(&b.doc);
    config_mistakes_done(&b.m);
}

/* The text of the presets is the installed one where there is one. */
static struct config *parse(const char *file, const char *text, size_t len, const char *presets,
                            size_t presets_len, FILE *mistakes)
{
    struct config_builder b = {.c = calloc(1, sizeof(struct config))};
    struct config *result = NULL;
    bool good = true;

    if (b.c == NULL) {
        (void)fprintf(mistakes, "%s: there is not enough memory to read it\n", file);
        return NULL;
    }
    if (presets != NULL)
        read_presets(b.c, provider_file, presets, presets_len, mistakes, &good);
    else
        read_presets(b.c, "the built-in providers.ini", (const char *)provider_copy,
                     provider_copy_length, mistakes, &good);
    config_mistakes_init(&b.m);
    config_reader_read(&b.doc, text, len, &b.m);
    config_build(&b);
    if (!b.no_memory)
        config_check(&b);
    config_mistakes_write(&b.m, file, mistakes);
    if (good && !config_mistakes_any(&b.m)) {
        result = b.c;
        b.c = NULL;
    }
    free(b.targets);
    config_document_done(&b.doc);
    config_mistakes_done(&b.m);
    config_free(b.c);
    return result;
}

struct config *config_parse(const char *file, const char *text, size_t len, FILE *mistakes)
{
    return parse(file, text, len, NULL, 0, mistakes);
}

static bool read_stream(FILE *in, char *buf, size_t size, size_t *out_len)
{
    size_t len = fread(buf, 1, size, in);

    if (ferror(in))
        return false;
    *out_len = len;
    return true;
}

struct config *config_load(const char *file, FILE *mistakes)
{
    size_t size = CONFIG_FILE_MAX + 1; /* one more, to tell a file that is too large */
    FILE *in = fopen(file, "re");
    char *buf = malloc(size);
    size_t presets_len;
    char *presets = provider_read(&presets_len);
    struct config *c = NULL;
    size_t len = 0;

    if (in == NULL || buf == NULL || !read_stream(in, buf, size, &len))
        (void)fprintf(mistakes,
                      "%s: the configuration cannot be read: %s; name another one with -c FILE\n",
                      file, strerror(errno));
    else
        c = parse(file, buf, len, presets, presets_len, mistakes);
    free(presets);
    free(buf);
    if (in != NULL)
        (void)fclose(in);
    return c;
}

static void free_domains(struct config_domains *d)
{
    for (size_t i = 0; i < d->count; i++)
        free(d->list[i]);
    free(d->list);
}

static void free_listener(struct config_listener *l)
{
    free(l->name);
    free(l->address);
    free(l->certificate);
    free(l->private_key);
}

static void free_device(struct config_device *d)
{
    free(d->name);
    free(d->route);
    free(d->login);
    net_ranges_done(&d->addresses);
    free_domains(&d->recipient_domains);
    free(d->from);
    free(d->from_name);
}

static void free_mailbox(struct config_mailbox *mb)
{
    free(mb->name);
    free(mb->provider);
    free(mb->host);
    free(mb->address);
    free(mb->login);
    free(mb->password_file);
    free(mb->ca_file);
    free(mb->helo);
    free_domains(&mb->send_as);
    free(mb->from);
    free(mb->from_name);
    free(mb->sign_in);
    free(mb->tenant);
    free(mb->client_id);
    free(mb->client_secret_file);
    free(mb->certificate_file);
    free(mb->private_key_file);
    free(mb->key_password_file);
    free(mb->service_account_file);
    free(mb->token_url);
    free(mb->device_url);
    free(mb->authorize_url);
    free(mb->scope);
    free(mb->token_ca_file);
}

static void free_provider(struct config_provider *p)
{
    free(p->name);
    free(p->host);
    free(p->host_example);
    free(p->login);
    free(p->tenant);
    free(p->token_url);
    free(p->device_url);
    free(p->authorize_url);
    free(p->app_scope);
    free(p->user_scope);
}

static void free_route(struct config_route *r)
{
    free(r->backup);
    free(r->listeners);
    free_domains(&r->senders);
    free_domains(&r->recipient_domains);
    free(r->name);
    free(r->mailboxes);
}

static void free_notify(struct config_notify *n)
{
    free(n->name);
    free(n->command);
}

void config_free(struct config *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->listener_count; i++)
        free_listener(&c->listeners[i]);
    for (size_t i = 0; i < c->device_count; i++)
        free_device(&c->devices[i]);
    for (size_t i = 0; i < c->mailbox_count; i++)
        free_mailbox(&c->mailboxes[i]);
    for (size_t i = 0; i < c->route_count; i++)
        free_route(&c->routes[i]);
    for (size_t i = 0; i < c->notify_count; i++)
        free_notify(&c->notifies[i]);
    for (size_t i = 0; i < c->provider_count; i++)
        free_provider(&c->providers[i]);
    free(c->providers);
    free(c->listeners);
    free(c->devices);
    free(c->mailboxes);
    free(c->routes);
    free(c->notifies);
    free(c->operator);
    free(c->hostname);
    free(c->user);
    free(c->spool);
    free(c->socket);
    free(c->passwords);
    free(c->charset);
    free(c->certificate);
    free(c->private_key);
    free(c->proxy);
    net_ranges_done(&c->allow);
    net_ranges_done(&c->legacy_tls);
    free_domains(&c->recipient_domains);
    free(c);
}

const struct config_provider *config_find_provider(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->provider_count; i++) {
        if (strcmp(c->providers[i].name, name) == 0)
            return &c->providers[i];
    }
    return NULL;
}

const struct config_device *config_find_device(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->device_count; i++) {
        if (strcmp(c->devices[i].name, name) == 0)
            return &c->devices[i];
    }
    return NULL;
}
