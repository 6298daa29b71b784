#include "relay/base/provider.h"

#include <string.h>

#define MB     ((uint64_t)1024 * 1024)
#define SECOND ((uint64_t)1000)

static const struct provider table[] = {
    {
        .name = "office365",
        .host = "smtp.office365.com",
        .port = 587,
        .connections = 3,
        .messages_per_minute = 30,
        .recipients_per_day = 10000,
        .recipients_per_message = 500,
        .max_size = 35 * MB,
        .idle_ms = 60 * SECOND,
        .session_ms = 8 * 60 * SECOND,
    },
    {
        .name = "custom",
        .host = "",
        .port = 587,
        .connections = 3,
        .max_size = 35 * MB,
        .idle_ms = 60 * SECOND,
        .session_ms = 8 * 60 * SECOND,
    },
};

const struct provider *providers(size_t *out_count)
{
    *out_count = sizeof table / sizeof *table;
    return table;
}

const struct provider *provider_find(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}
