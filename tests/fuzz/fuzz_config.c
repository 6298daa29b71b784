/* A configuration file: it gives a whole configuration, or lines that say what is wrong with it. */
#include "tests/fuzz/fuzz.h"

#include "relay/base/config.h"

#define FILE_NAME "fuzz.conf"

static void check_texts(const char *const *texts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        FUZZ_CHECK(texts[i] != NULL);
        for (const char *c = texts[i]; *c != '\0'; c++)
            FUZZ_CHECK((unsigned char)*c >= ' ' && *c != 0x7f);
    }
}

static void check_mailbox(const struct config_mailbox *m)
{
    const char *const texts[] = {m->name,  m->provider,      m->host,    m->address,
                                 m->login, m->password_file, m->ca_file, m->helo};

    check_texts(texts, sizeof(texts) / sizeof(texts[0]));
    FUZZ_CHECK(m->name[0] != '\0' && strlen(m->name) <= CONFIG_NAME_MAX);
    FUZZ_CHECK(m->host[0] != '\0' && m->port > 0 && m->address[0] != '\0');
    FUZZ_CHECK(m->connections > 0 && m->max_size > 0 && m->max_size <= CONFIG_SIZE_CEILING);
}

static void check_route(const struct config *c, const struct config_route *r)
{
    FUZZ_CHECK(r->name != NULL && r->mailbox_count > 0);
    for (size_t i = 0; i < r->mailbox_count; i++)
        FUZZ_CHECK(r->mailboxes[i] < c->mailbox_count);
}

static void check_device(const struct config *c, const struct config_device *d)
{
    bool found = d->route[0] == '\0';

    FUZZ_CHECK(d->name != NULL && d->lane < LANE_COUNT);
    for (size_t i = 0; i < c->route_count; i++)
        found |= strcmp(c->routes[i].name, d->route) == 0;
    FUZZ_CHECK(found);
}

static void check_config(const struct config *c)
{
    const char *const texts[] = {c->hostname, c->user, c->spool, c->socket};

    check_texts(texts, sizeof(texts) / sizeof(texts[0]));
    FUZZ_CHECK(c->hostname[0] != '\0' && strlen(c->socket) <= CONFIG_SOCKET_MAX);
    FUZZ_CHECK(c->mailbox_count > 0 && c->route_count > 0 && c->listener_count > 0);
    FUZZ_CHECK(strcmp(c->routes[0].name, "default") == 0);
    for (size_t i = 0; i < c->mailbox_count; i++)
        check_mailbox(&c->mailboxes[i]);
    for (size_t i = 0; i < c->route_count; i++)
        check_route(c, &c->routes[i]);
    for (size_t i = 0; i < c->device_count; i++)
        check_device(c, &c->devices[i]);
    for (size_t i = 0; i < c->listener_count; i++)
        FUZZ_CHECK(c->listeners[i].name != NULL && c->listeners[i].address != NULL);
}

/* Each line names the file; nothing of the file can steer the terminal it is shown on. */
static void check_mistakes(const char *text)
{
    size_t lines = 0;

    for (const char *line = text; *line != '\0'; lines++) {
        const char *end = strchr(line, '\n');

        FUZZ_CHECK(end != NULL && strncmp(line, FILE_NAME ":", sizeof(FILE_NAME)) == 0);
        for (; line < end; line++)
            FUZZ_CHECK(((unsigned char)*line >= ' ' || *line == '\t') && *line != 0x7f);
        line = end + 1;
    }
    FUZZ_CHECK(lines > 0 && lines <= CONFIG_MISTAKES_MAX + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *mistakes = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&mistakes, &len);
    struct config *c;

    FUZZ_CHECK(out != NULL);
    c = config_parse(FILE_NAME, (const char *)data, size, out);
    FUZZ_CHECK(fclose(out) == 0);
    if (c == NULL)
        check_mistakes(mistakes);
    else
        check_config(c);
    FUZZ_CHECK(c == NULL || len == 0);
    config_free(c);
    free(mistakes);
    return 0;
}
