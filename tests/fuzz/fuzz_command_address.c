/* A command line, as a device sends it: verb, path, parameters. */
#include "tests/fuzz/fuzz.h"

#include "relay/smtp/address.h"
#include "relay/smtp/command.h"

static bool is_within(struct command_text t, const char *line, size_t len)
{
    return t.len == 0 || (t.p >= line && t.len <= len && t.p + t.len <= line + len);
}

/* What was read as a path is read the same again, from its canonical form. */
static void check_address(const struct address *a, enum address_use use)
{
    char text[ADDRESS_PATH_MAX + 2];
    const char *problem = NULL;
    struct address again;
    size_t len = strlen(a->path);

    FUZZ_CHECK(len <= ADDRESS_PATH_MAX - 2 && a->domain <= len);
    FUZZ_CHECK(use == ADDRESS_REVERSE_PATH || len > 0);
    for (size_t i = 0; i < len; i++) {
        FUZZ_CHECK((unsigned char)a->path[i] >= ' ' && a->path[i] != 0x7f);
        FUZZ_CHECK(a->utf8 || (unsigned char)a->path[i] < 0x80);
    }
    FUZZ_CHECK(a->domain == len || a->path[a->domain - 1] == '@');
    snprintf(text, sizeof(text), "<%s>", a->path);
    FUZZ_CHECK(address_span(text, len + 2) == len + 2);
    FUZZ_CHECK(address_parse(text, len + 2, use, &again, &problem));
    FUZZ_CHECK(strcmp(again.path, a->path) == 0 && again.domain == a->domain);
}

static void check_path(struct command_text path, enum address_use use)
{
    struct address a;
    const char *problem = NULL;

    if (address_parse(path.p, path.len, use, &a, &problem))
        check_address(&a, use);
    else
        FUZZ_CHECK(problem != NULL && problem[0] != '\0');
}

static void check_parameters(struct command_text text, enum command_verb verb)
{
    struct command_parameters p;
    const char *problem = NULL;

    if (!command_parameters(text, verb, &p, &problem)) {
        FUZZ_CHECK(problem != NULL && problem[0] != '\0');
        return;
    }
    FUZZ_CHECK(is_within(p.ret, text.p, text.len) && is_within(p.envid, text.p, text.len));
    FUZZ_CHECK(is_within(p.notify, text.p, text.len) && is_within(p.orcpt, text.p, text.len));
    FUZZ_CHECK(p.envid.len <= COMMAND_ENVID_MAX && p.orcpt.len <= COMMAND_ORCPT_MAX);
    for (size_t i = 0; i < p.ignored_count && i < COMMAND_IGNORED_MAX; i++)
        FUZZ_CHECK(is_within(p.ignored[i], text.p, text.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct {
        const char *keyword;
        enum command_verb verb;
        enum address_use use;
    } kinds[] = {{"FROM", COMMAND_MAIL, ADDRESS_REVERSE_PATH},
                 {"TO", COMMAND_RCPT, ADDRESS_FORWARD_PATH}};
    const char *line = (const char *)data;
    struct command c;

    command_parse(line, size, &c);
    FUZZ_CHECK(c.verb < COMMAND_COUNT && command_verb_name(c.verb) != NULL);
    FUZZ_CHECK(is_within(c.argument, line, size));
    (void)address_is_domain(line, size);
    for (size_t i = 0; i < 2; i++) {
        struct command_text path;
        struct command_text parameters;

        check_path((struct command_text){line, size}, kinds[i].use);
        check_parameters((struct command_text){line, size}, kinds[i].verb);
        if (!command_split_path(c.argument, kinds[i].keyword, &path, &parameters))
            continue;
        FUZZ_CHECK(is_within(path, line, size) && is_within(parameters, line, size));
        check_path(path, kinds[i].use);
        check_parameters(parameters, kinds[i].verb);
    }
    return 0;
}
