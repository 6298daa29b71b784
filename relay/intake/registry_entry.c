#include "relay/intake/registry_entry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct registry_entry *registry_entry_new(const char *name)
{
    struct registry_entry *e = calloc(1, sizeof *e);
    if (e == NULL)
        return NULL;
    e->name = strdup(name);
    if (e->name != NULL)
        return e;
    free(e);
    return NULL;
}

static bool copy_text(char **out, const char *text)
{
    *out = text != NULL ? strdup(text) : NULL;
    return text == NULL || *out != NULL;
}

struct registry_entry *registry_entry_copy(const struct registry_entry *e)
{
    struct registry_entry *copy = malloc(sizeof *copy);
    if (copy == NULL)
        return NULL;
    *copy = *e;
    copy->next = NULL;
    copy->no_room = NULL;
    bool ok = copy_text(&copy->name, e->name);
    ok = copy_text(&copy->helo, e->helo) && ok;
    ok = copy_text(&copy->tls, e->tls) && ok;
    ok = copy_text(&copy->error, e->error) && ok;
    if (ok)
        return copy;
    registry_entry_free(copy);
    return NULL;
}

void registry_entry_free(struct registry_entry *e)
{
    if (e == NULL)
        return;
    free(e->name);
    free(e->helo);
    free(e->tls);
    free(e->error);
    free(e->no_room);
    free(e);
}

void registry_entries_free(struct registry_entry *first)
{
    while (first != NULL) {
        struct registry_entry *next = first->next;
        registry_entry_free(first);
        first = next;
    }
}

static bool is_within_character(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

void registry_entry_set(char **field, const char *text, size_t max)
{
    size_t len = strlen(text);
    if (len >= max) {
        len = max - 1;
        while (len > 0 && is_within_character(text[len]))
            len--;
    }
    if (*field != NULL && strlen(*field) == len && memcmp(*field, text, len) == 0)
        return;
    char *copy = len > 0 ? strndup(text, len) : NULL;
    if (len > 0 && copy == NULL)
        return;
    free(*field);
    *field = copy;
}

/* ---- an earlier life ------------------------------------------------------------------------- */

static void keep_text(char **field, const char *earlier, size_t max)
{
    if (*field == NULL && earlier != NULL)
        registry_entry_set(field, earlier, max);
}

static void merge_habit(struct habit *h, const struct habit *earlier)
{
    struct habit both = *earlier;
    if (h->mails > 0) {
        habit_mail(&both, h->first_ms);
        habit_mail(&both, h->last_ms);
    }
    *h = both;
}

void registry_entry_merge(struct registry_entry *e, const struct registry_entry *earlier)
{
    keep_text(&e->helo, earlier->helo, REGISTRY_HELO_MAX);
    keep_text(&e->tls, earlier->tls, REGISTRY_TLS_MAX);
    keep_text(&e->error, earlier->error, REGISTRY_ERROR_MAX);
    if (e->address.family == 0)
        e->address = earlier->address;
    if (earlier->first_ms < e->first_ms)
        e->first_ms = earlier->first_ms;
    if (e->mail_ms == 0) {
        e->mail_ms = earlier->mail_ms;
        e->newest = earlier->newest;
    }
    if (e->error_ms == 0)
        e->error_ms = earlier->error_ms;
    e->sessions += earlier->sessions;
    e->probes += earlier->probes;
    e->messages += earlier->messages;
    e->octets += earlier->octets;
    e->refused += earlier->refused;
    e->quirks |= earlier->quirks;
    merge_habit(&e->habit, &earlier->habit);
    e->changed = true;
}

/* ---- for others ------------------------------------------------------------------------------ */

static void show_text(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text != NULL ? text : "");
}

void registry_entry_show(const struct registry_entry *e, uint64_t wall_ms,
                         struct registry_device *out)
{
    *out = (struct registry_device){.first_ms = e->first_ms,
                                    .last_ms = e->last_ms,
                                    .mail_ms = e->mail_ms,
                                    .error_ms = e->error_ms,
                                    .no_room_ms = e->no_room_ms,
                                    .sessions = e->sessions,
                                    .probes = e->probes,
                                    .messages = e->messages,
                                    .octets = e->octets,
                                    .refused = e->refused,
                                    .quirks = e->quirks,
                                    .newest = e->newest,
                                    .habit = e->habit,
                                    .configured = e->configured,
                                    .usual_ms = habit_usual_ms(&e->habit),
                                    .is_quiet = habit_is_quiet(&e->habit, wall_ms)};
    show_text(out->name, sizeof out->name, e->name);
    show_text(out->helo, sizeof out->helo, e->helo);
    show_text(out->tls, sizeof out->tls, e->tls);
    show_text(out->error, sizeof out->error, e->error);
    show_text(out->no_room, sizeof out->no_room, e->no_room_ms != 0 ? e->no_room : NULL);
    if (e->address.family != 0)
        net_text(&e->address, out->address);
}
