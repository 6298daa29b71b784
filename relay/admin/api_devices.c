#include "relay/admin/api_devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/admin/api_device_json.h"
#include "relay/admin/api_query.h"
#include "relay/admin/json.h"
#include "relay/base/config_mistakes.h"
#include "relay/base/log.h"

#define DEVICES_NEAREST_MAX 1000 /* names looked at for the one that was meant */

/* All devices by name: the registry's and, between them, those that were never seen. */
struct walk {
    const struct api_settings *api;
    uint64_t wall_ms;
    const struct config_device **sections; /* by name */
    size_t count, at;
    char after[REGISTRY_NAME_MAX];
    struct registry_device seen;
};

static int by_name(const void *a, const void *b)
{
    const struct config_device *const *one = a;
    const struct config_device *const *other = b;

    return strcmp((*one)->name, (*other)->name);
}

/* False without memory. */
static bool walk_begin(struct walk *w, const struct api_call *c)
{
    const struct config *config = c->api->config;

    *w = (struct walk){.api = c->api, .wall_ms = call_times(c).wall_ms};
    w->count = config != NULL ? config->device_count : 0;
    w->sections = calloc(w->count + 1, sizeof(*w->sections));
    if (w->sections == NULL)
        return false;
    for (size_t i = 0; i < w->count; i++)
        w->sections[i] = &config->devices[i];
    qsort(w->sections, w->count, sizeof(*w->sections), by_name);
    return true;
}

static void walk_end(struct walk *w)
{
    free(w->sections);
}

static bool walk_next(struct walk *w, struct api_device *out)
{
    const struct registry *r = w->api->registry;
    bool seen = r != NULL && registry_next(r, w->after, w->wall_ms, &w->seen);
    const struct config_device *section;
    int order;

    while (w->at < w->count && strcmp(w->sections[w->at]->name, w->after) <= 0)
        w->at++;
    section = w->at < w->count ? w->sections[w->at] : NULL;
    if (section == NULL && !seen)
        return false;
    order = section == NULL ? 1 : !seen ? -1 : strcmp(section->name, w->seen.name);
    *out = (struct api_device){.name = order <= 0 ? section->name : w->seen.name,
                               .section = order <= 0 ? section : NULL,
                               .seen = order >= 0 ? &w->seen : NULL};
    (void)snprintf(w->after, sizeof(w->after), "%s", out->name);
    return true;
}

/* ---- GET /v1/devices ------------------------------------------------------------------------- */

static cJSON *make_page(struct walk *w, uint32_t limit, const struct api_times *times)
{
    char last[REGISTRY_NAME_MAX];
    cJSON *list = cJSON_CreateArray();
    struct api_device d;
    bool more = false;

    for (uint32_t i = 0; i < limit && walk_next(w, &d); i++)
        if (!json_append(list, api_device_entry(&d, times))) {
            cJSON_Delete(list);
            return NULL;
        }
    memcpy(last, w->after, sizeof(last));
    more = walk_next(w, &d);
    return api_device_page(list, more ? last : NULL);
}

void api_devices_list(struct api_call *c)
{
    struct api_times times = call_times(c);
    char after[REGISTRY_NAME_MAX];
    uint32_t limit;
    struct walk w;
    cJSON *page = NULL;

    if (!query_text(c, "after", after, sizeof(after)) || !query_limit(c, &limit))
        return;
    if (walk_begin(&w, c)) {
        memcpy(w.after, after, sizeof(after));
        page = make_page(&w, limit, &times);
        walk_end(&w);
    }
    call_reply(c, HTTP_OK, page);
}

/* ---- one device ------------------------------------------------------------------------------ */

static const struct config_device *find_section(const struct config *config, const char *name)
{
    for (size_t i = 0; config != NULL && i < config->device_count; i++)
        if (strcmp(config->devices[i].name, name) == 0)
            return &config->devices[i];
    return NULL;
}

/* The device that has the address, or the address as it should be written; "" for a stranger. */
static void find_address(const struct api_call *c, const struct net_address *address,
                         char out[REGISTRY_NAME_MAX])
{
    struct registry_device seen;
    struct access access;

    access_of(c->api->config, address, &access);
    if (access.device != NULL ||
        (c->api->registry != NULL && registry_find(c->api->registry, access.name, 0, &seen)))
        (void)snprintf(out, REGISTRY_NAME_MAX, "%s", access.name);
}

/* The device whose name looks most like it; "" when there is none. */
static void find_nearest(const struct api_call *c, char out[REGISTRY_NAME_MAX])
{
    struct walk w;
    struct api_device d;

    if (!walk_begin(&w, c))
        return;
    for (unsigned i = 0; i < DEVICES_NEAREST_MAX && walk_next(&w, &d); i++) {
        const char *both[] = {out[0] != '\0' ? out : d.name, d.name};

        if (config_mistakes_nearest(c->argument, both, 2) == d.name)
            (void)snprintf(out, REGISTRY_NAME_MAX, "%s", d.name);
    }
    walk_end(&w);
}

static void find_meant(const struct api_call *c, char out[REGISTRY_NAME_MAX])
{
    struct net_address address;

    out[0] = '\0';
    if (c->api->config != NULL && net_parse(c->argument, &address))
        find_address(c, &address, out);
    else
        find_nearest(c, out);
}

static void fail_unknown(struct api_call *c)
{
    char meant[REGISTRY_NAME_MAX];

    find_meant(c, meant);
    if (meant[0] != '\0')
        call_fail_text(c, ERROR_MISSING, "there is no device \"%.127s\"; did you mean \"%s\"?",
                       c->argument, meant);
    else
        call_fail_text(c, ERROR_MISSING,
                       "there is no device \"%.127s\"; \"outtray devices\" lists them",
                       c->argument);
}

/* Finds the device that the route's "*" names; answers the call when there is none. */
static bool find_device(struct api_call *c, struct registry_device *seen, struct api_device *out)
{
    const struct registry *r = c->api->registry;

    *out = (struct api_device){.name = c->argument,
                               .section = find_section(c->api->config, c->argument)};
    if (r != NULL && registry_find(r, c->argument, call_times(c).wall_ms, seen))
        out->seen = seen;
    if (out->section != NULL || out->seen != NULL)
        return true;
    fail_unknown(c);
    return false;
}

/* What holds for it at the address it had last, or would have. */
static void rules_of(const struct config *config, const struct api_device *d, struct access *out)
{
    struct net_address address = {.family = 0};

    bool known = d->seen != NULL && net_parse(d->seen->address, &address);

    if (!known && d->section != NULL && d->section->addresses.count > 0)
        address = d->section->addresses.list[0].first;
    if (d->section != NULL)
        access_as(config, &address, d->section, out);
    else
        access_of(config, &address, out);
}

void api_devices_one(struct api_call *c)
{
    static const struct config_domains all_domains;
    struct access rules = {.route = "default", .recipient_domains = &all_domains};
    struct api_times times = call_times(c);
    struct registry_device seen;
    struct api_device d;

    if (!find_device(c, &seen, &d))
        return;
    if (c->api->config != NULL)
        rules_of(c->api->config, &d, &rules);
    call_reply(c, HTTP_OK, api_device_whole(&d, &rules, &times));
}

static void on_transcripts(void *ctx, const struct registry_transcript *list, size_t n,
                           const struct error *err)
{
    struct api_call *c = ctx;
    struct api_times times;

    c->pending = false;
    if (call_is_gone(c)) {
        call_free(c);
        return;
    }
    if (err != NULL) {
        call_fail(c, err);
        return;
    }
    times = call_times(c);
    call_reply(c, HTTP_OK, api_device_transcripts(c->argument, list, n, &times));
}

void api_devices_transcripts(struct api_call *c)
{
    struct api_times times = call_times(c);
    struct registry_device seen;
    struct api_device d;

    if (!find_device(c, &seen, &d))
        return;
    if (d.seen == NULL) {
        call_reply(c, HTTP_OK, api_device_transcripts(d.name, NULL, 0, &times));
        return;
    }
    c->pending = true;
    registry_transcripts(c->api->registry, d.name, on_transcripts, c);
}

void api_devices_forget(struct api_call *c)
{
    struct registry_device seen;
    struct api_device d;
    cJSON *o;

    if (!find_device(c, &seen, &d))
        return;
    if (d.seen == NULL || !registry_forget(c->api->registry, d.name)) {
        call_fail_text(c, ERROR_MISSING,
                       "device \"%s\" has not been seen yet; there is nothing to forget", d.name);
        return;
    }
    log_event(LOG_LEVEL_INFO, "forgotten", LOG_STR("device", d.name), LOG_STR("by", "operator"),
              LOG_END);
    o = cJSON_CreateObject();
    if (!(json_put_text(o, "name", d.name) && json_put_flag(o, "forgotten", true) &&
          json_put_flag(o, "configured", d.section != NULL))) {
        cJSON_Delete(o);
        o = NULL;
    }
    call_reply(c, HTTP_OK, o);
}
