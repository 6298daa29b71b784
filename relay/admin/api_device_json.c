#include "relay/admin/api_device_json.h"

#include <stdio.h>
#include <string.h>

#include "relay/admin/json.h"

static bool has_trouble(const struct registry_device *seen)
{
    return seen->error_ms > 0 && seen->error_ms > seen->mail_ms;
}

const char *api_device_state(const struct api_device *d)
{
    if (d->seen == NULL)
        return "never";
    if (has_trouble(d->seen))
        return "trouble";
    if (d->seen->is_quiet)
        return "quiet";
    return d->seen->messages > 0 ? "ok" : "test";
}

bool api_device_needs_attention(const struct api_device *d)
{
    return d->seen != NULL && (has_trouble(d->seen) || d->seen->is_quiet);
}

/* Seconds since a wall time; null when there is none. */
static bool put_age(cJSON *o, const char *key, uint64_t then_ms, const struct api_times *times)
{
    if (then_ms == 0)
        return json_put_null(o, key);
    return json_put_seconds(o, key, times->wall_ms > then_ms ? times->wall_ms - then_ms : 0);
}

static bool put_span(cJSON *o, const char *key, uint64_t ms)
{
    return ms > 0 ? json_put_seconds(o, key, ms) : json_put_null(o, key);
}

static size_t count_quirks(quirks set)
{
    size_t n = 0;

    for (; set != 0; set &= set - 1)
        n++;
    return n;
}

static bool put_seen(cJSON *o, const struct registry_device *s, const struct api_times *times)
{
    return json_put_text(o, "address", s->address) && json_put_time(o, "first_seen", s->first_ms) &&
           json_put_time(o, "last_seen", s->last_ms) &&
           put_age(o, "last_seen_age", s->last_ms, times) &&
           json_put_time(o, "last_mail", s->mail_ms) &&
           put_age(o, "last_mail_age", s->mail_ms, times) &&
           json_put_number(o, "sessions", s->sessions) && json_put_number(o, "probes", s->probes) &&
           json_put_number(o, "messages", s->messages) && json_put_number(o, "octets", s->octets) &&
           json_put_number(o, "refused", s->refused) && json_put_text(o, "error", s->error) &&
           json_put_time(o, "error_at", s->error_ms) &&
           put_age(o, "error_age", s->error_ms, times) && json_put_flag(o, "quiet", s->is_quiet) &&
           put_span(o, "usual_silence", s->usual_ms) &&
           json_put_number(o, "quirk_count", count_quirks(s->quirks));
}

static bool put_common(cJSON *o, const struct api_device *d, const struct api_times *times)
{
    static const struct registry_device none;

    return json_put_text(o, "name", d->name) && json_put_text(o, "state", api_device_state(d)) &&
           json_put_flag(o, "attention", api_device_needs_attention(d)) &&
           json_put_flag(o, "configured", d->section != NULL) &&
           put_seen(o, d->seen != NULL ? d->seen : &none, times);
}

static bool put_quirks(cJSON *o, const struct registry_device *seen)
{
    cJSON *list = cJSON_CreateArray();
    bool ok = json_put(o, "quirks", list);

    for (size_t i = 0; ok && seen != NULL && i < quirks_count(); i++) {
        cJSON *item;

        if ((seen->quirks & QUIRK_BIT(i)) == 0)
            continue;
        item = cJSON_CreateObject();
        ok = json_append(list, item) && json_put_text(item, "name", quirk_name(i)) &&
             json_put_text(item, "words", quirk_words(i)) &&
             json_put_text(item, "remedy", quirk_remedy(i)) &&
             json_put_flag(item, "newest", (seen->newest & QUIRK_BIT(i)) != 0);
    }
    return ok;
}

static bool put_ranges(cJSON *o, const struct config_device *section)
{
    cJSON *list = cJSON_CreateArray();
    bool ok = json_put(o, "addresses", list);
    size_t n = section != NULL ? section->addresses.count : 0;

    for (size_t i = 0; ok && i < n && i < API_DEVICE_RANGES; i++) {
        const struct net_range *r = &section->addresses.list[i];
        char text[NET_TEXT_MAX * 2];
        char last[NET_TEXT_MAX];

        net_text(&r->first, text);
        net_text(&r->last, last);
        if (!net_equal(&r->first, &r->last))
            snprintf(text + strlen(text), sizeof(text) - strlen(text), "-%s", last);
        ok = json_append(list, json_text(text));
    }
    return ok;
}

static bool put_domains(cJSON *o, const struct config_domains *domains)
{
    cJSON *list = cJSON_CreateArray();
    bool ok = json_put(o, "recipient_domains", list);

    for (size_t i = 0; ok && i < domains->count && i < API_DEVICE_DOMAINS; i++)
        ok = json_append(list, json_text(domains->list[i]));
    return ok;
}

static bool put_login(cJSON *o, const struct config_device *section)
{
    static const char *const words[] = {"off", "any", "optional", "required"};

    return json_put_text(o, "login", section != NULL ? section->login : "") &&
           json_put_text(o, "auth",
                         section != NULL && section->has_auth ? words[section->auth] : "");
}

static bool put_rules(cJSON *o, const struct api_device *d, const struct access *rules)
{
    cJSON *r = cJSON_CreateObject();

    return json_put(o, "rules", r) && json_put_flag(r, "allowed", rules->allowed) &&
           json_put_text(r, "lane", lane_name(rules->lane)) &&
           json_put_text(r, "route", rules->route) &&
           json_put_number(r, "max_size", rules->max_size) &&
           json_put_number(r, "max_recipients", rules->max_recipients) &&
           json_put_number(r, "max_sessions", rules->max_sessions) &&
           json_put_number(r, "max_messages_per_minute", rules->max_messages_per_minute) &&
           put_domains(r, rules->recipient_domains) &&
           json_put_flag(r, "legacy_tls", rules->legacy_tls) && put_ranges(r, d->section) &&
           put_login(r, d->section);
}

/* Deletes the tree unless it is whole. */
static cJSON *whole_or_null(cJSON *o, bool ok)
{
    if (ok)
        return o;
    cJSON_Delete(o);
    return NULL;
}

cJSON *api_device_entry(const struct api_device *d, const struct api_times *times)
{
    cJSON *o = cJSON_CreateObject();

    return whole_or_null(o, o != NULL && put_common(o, d, times));
}

cJSON *api_device_whole(const struct api_device *d, const struct access *rules,
                        const struct api_times *times)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = o != NULL && put_common(o, d, times) &&
              json_put_text(o, "helo", d->seen != NULL ? d->seen->helo : "") &&
              json_put_text(o, "tls", d->seen != NULL ? d->seen->tls : "") &&
              put_quirks(o, d->seen) && put_rules(o, d, rules);

    return whole_or_null(o, ok);
}

cJSON *api_device_page(cJSON *devices, const char *next_or_null)
{
    cJSON *o = cJSON_CreateObject();

    if (o == NULL) {
        cJSON_Delete(devices);
        return NULL;
    }
    return whole_or_null(o, json_put(o, "devices", devices) &&
                                (next_or_null == NULL || json_put_text(o, "next", next_or_null)));
}

cJSON *api_device_transcripts(const char *name, const struct registry_transcript *list, size_t n,
                              const struct api_times *times)
{
    cJSON *o = cJSON_CreateObject();
    cJSON *items = cJSON_CreateArray();
    bool ok = json_put(o, "transcripts", items) && json_put_text(o, "name", name);

    for (size_t i = 0; ok && i < n; i++) {
        cJSON *item = cJSON_CreateObject();

        ok = json_append(items, item) && json_put_time(item, "ended", list[i].ended_ms) &&
             put_age(item, "age", list[i].ended_ms, times) &&
             json_put_text(item, "text", list[i].text);
    }
    return whole_or_null(o, ok);
}
