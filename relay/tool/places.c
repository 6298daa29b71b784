#include "relay/tool/places.h"

#include <stdlib.h>
#include <string.h>

#include "relay/base/config.h"

static const char *fallback_of(const char *section, const char *key)
{
    size_t count;
    const struct config_row *rows = config_rows(&count);

    for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].section, section) == 0 && strcmp(rows[i].key, key) == 0)
            return rows[i].fallback;
    return "";
}

/* Mistakes are shown only for a file that somebody asked for. */
static struct config *load(const struct tool *t)
{
    char *text = NULL;
    size_t len = 0;
    FILE *mistakes = open_memstream(&text, &len);
    struct config *c;

    if (mistakes == NULL)
        return NULL;
    c = config_load(t->config_file, mistakes);
    fclose(mistakes);
    if (c == NULL && t->config_given)
        fwrite(text, 1, len, t->err);
    free(text);
    return c;
}

bool places_find(const struct tool *t, struct places *out_places)
{
    struct config *c = load(t);
    struct places p = {.guessed = c == NULL};
    const char *socket = c != NULL ? c->socket : fallback_of("api", "socket");

    if (c == NULL && t->config_given) {
        tool_error_json(t, ERROR_INVALID, "the configuration has mistakes");
        return false;
    }
    p.socket = strdup(t->socket != NULL ? t->socket : socket);
    p.spool = strdup(c != NULL ? c->spool : fallback_of("relay", "spool"));
    config_free(c);
    if (p.socket == NULL || p.spool == NULL) {
        places_done(&p);
        return false;
    }
    *out_places = p;
    return true;
}

void places_done(struct places *p)
{
    free(p->socket);
    free(p->spool);
    *p = (struct places){.socket = NULL};
}
