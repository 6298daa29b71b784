#include "relay/smtp/command.h"

#include <string.h>
#include <strings.h>

#include "relay/smtp/address.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
    const char *name;
    enum command_verb verb;
} verbs[] = {
    {"EHLO", COMMAND_EHLO},       {"HELO", COMMAND_HELO},         {"MAIL", COMMAND_MAIL},
    {"RCPT", COMMAND_RCPT},       {"DATA", COMMAND_DATA},         {"RSET", COMMAND_RSET},
    {"NOOP", COMMAND_NOOP},       {"VRFY", COMMAND_VRFY},         {"HELP", COMMAND_HELP},
    {"QUIT", COMMAND_QUIT},       {"EXPN", COMMAND_EXPN},         {"ETRN", COMMAND_ETRN},
    {"TURN", COMMAND_TURN},       {"ATRN", COMMAND_TURN},         {"AUTH", COMMAND_AUTH},
    {"BDAT", COMMAND_BDAT},       {"STARTTLS", COMMAND_STARTTLS}, {"SEND", COMMAND_SEND},
    {"SOML", COMMAND_SEND},       {"SAML", COMMAND_SEND},         {"GET", COMMAND_HTTP},
    {"POST", COMMAND_HTTP},       {"PUT", COMMAND_HTTP},          {"HEAD", COMMAND_HTTP},
    {"OPTIONS", COMMAND_HTTP},    {"CONNECT", COMMAND_HTTP},      {"DELETE", COMMAND_HTTP},
    {"PATCH", COMMAND_HTTP},      {"TRACE", COMMAND_HTTP},        {"PRI", COMMAND_HTTP},
    {"Host:", COMMAND_HTTP},      {"User-Agent:", COMMAND_HTTP},  {"Content-Type:", COMMAND_HTTP},
    {"Connection:", COMMAND_HTTP}};

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static struct command_text trim(struct command_text t)
{
    for (; t.len > 0 && is_space(t.p[0]); t.p++, t.len--)
        ;
    for (; t.len > 0 && is_space(t.p[t.len - 1]); t.len--)
        ;
    return t;
}

static struct command_text skip(struct command_text t, size_t n)
{
    return (struct command_text){t.p + n, t.len - n};
}

static bool is_word(struct command_text t, const char *word)
{
    return t.len == strlen(word) && strncasecmp(t.p, word, t.len) == 0;
}

static size_t word_length(struct command_text t)
{
    size_t n = 0;

    while (n < t.len && !is_space(t.p[n]))
        n++;
    return n;
}

void command_parse(const char *line, size_t len, struct command *out_command)
{
    struct command_text rest = trim((struct command_text){line, len});
    struct command_text word = {rest.p, word_length(rest)};

    *out_command =
        (struct command){.verb = COMMAND_UNKNOWN, .argument = trim(skip(rest, word.len))};
    for (size_t i = 0; i < COUNT(verbs); i++) {
        if (is_word(word, verbs[i].name))
            out_command->verb = verbs[i].verb;
    }
}

const char *command_verb_name(enum command_verb verb)
{
    for (size_t i = 0; i < COUNT(verbs); i++) {
        if (verbs[i].verb == verb && verb != COMMAND_HTTP)
            return verbs[i].name;
    }
    return verb == COMMAND_HTTP ? "HTTP" : "unknown";
}

bool command_split_path(struct command_text argument, const char *keyword,
                        struct command_text *out_path, struct command_text *out_parameters)
{
    size_t len = strlen(keyword);
    struct command_text rest;
    size_t span;

    if (argument.len < len || strncasecmp(argument.p, keyword, len) != 0)
        return false;
    rest = trim(skip(argument, len));
    if (rest.len > 0 && rest.p[0] == ':')
        rest = trim(skip(rest, 1));
    else if (argument.len > len && !is_space(argument.p[len]) && argument.p[len] != '<')
        return false;
    span = address_span(rest.p, rest.len);
    *out_path = (struct command_text){rest.p, span};
    *out_parameters = trim(skip(rest, span));
    return true;
}

/* ---- parameters ------------------------------------------------------------------------------ */

/* The values' readers: false when the value is not what the RFC asks for. */

/* UINT64_MAX when it is larger still. */
static bool read_octets(struct command_text value, uint64_t *out_octets)
{
    uint64_t octets = 0;

    for (size_t i = 0; i < value.len; i++) {
        unsigned digit = (unsigned)(unsigned char)value.p[i] - '0';

        if (digit > 9)
            return false;
        octets = octets > (UINT64_MAX - digit) / 10 ? UINT64_MAX : octets * 10 + digit;
    }
    *out_octets = octets;
    return value.len > 0;
}

static bool read_size(struct command_parameters *out, struct command_text value)
{
    uint64_t size;

    if (!read_octets(value, &size))
        return false;
    out->has_size = true;
    out->size = size;
    return true;
}

static bool read_priority(struct command_parameters *out, struct command_text value)
{
    bool negative = value.len > 0 && value.p[0] == '-';
    struct command_text digit = skip(value, negative);

    if (digit.len != 1 || digit.p[0] < '0' || digit.p[0] > '9')
        return false;
    out->has_priority = true;
    out->priority = negative ? '0' - digit.p[0] : digit.p[0] - '0';
    return true;
}

static bool read_body(struct command_parameters *out, struct command_text value)
{
    if (is_word(value, "8BITMIME"))
        out->body = COMMAND_BODY_8BITMIME;
    else if (is_word(value, "7BIT"))
        out->body = COMMAND_BODY_7BIT;
    else
        return false;
    return true;
}

static bool read_smtputf8(struct command_parameters *out, struct command_text value)
{
    out->smtputf8 = value.len == 0;
    return value.len == 0;
}

static bool read_auth(struct command_parameters *out, struct command_text value)
{
    out->has_auth = value.len > 0;
    return value.len > 0;
}

static bool read_ret(struct command_parameters *out, struct command_text value)
{
    if (!is_word(value, "FULL") && !is_word(value, "HDRS"))
        return false;
    out->ret = value;
    return true;
}

/* RFC 3461 4: printable ASCII, anything else as +XX. */
static bool is_xtext(struct command_text t)
{
    static const char hex[] = "0123456789ABCDEF";

    for (size_t i = 0; i < t.len; i++) {
        if (t.p[i] < '!' || t.p[i] > '~' || t.p[i] == '=')
            return false;
        if (t.p[i] != '+')
            continue;
        if (i + 2 >= t.len || !strchr(hex, t.p[i + 1]) || !strchr(hex, t.p[i + 2]))
            return false;
    }
    return t.len > 0;
}

static bool read_envid(struct command_parameters *out, struct command_text value)
{
    if (value.len > COMMAND_ENVID_MAX || !is_xtext(value))
        return false;
    out->envid = value;
    return true;
}

static bool read_notify(struct command_parameters *out, struct command_text value)
{
    static const char *const words[] = {"SUCCESS", "FAILURE", "DELAY"};
    struct command_text rest = value;

    while (rest.len > 0 && !is_word(value, "NEVER")) {
        const char *comma = memchr(rest.p, ',', rest.len);
        struct command_text word = {rest.p, comma != NULL ? (size_t)(comma - rest.p) : rest.len};
        bool known = false;

        for (size_t i = 0; i < COUNT(words); i++)
            known |= is_word(word, words[i]);
        if (!known || word.len + 1 == rest.len)
            return false;
        rest = skip(rest, comma != NULL ? word.len + 1 : word.len);
    }
    out->notify = value;
    return value.len > 0;
}

static bool read_orcpt(struct command_parameters *out, struct command_text value)
{
    const char *semicolon = value.len > 0 ? memchr(value.p, ';', value.len) : NULL;
    size_t type = semicolon != NULL ? (size_t)(semicolon - value.p) : 0;

    if (type == 0 || value.len > COMMAND_ORCPT_MAX || !is_xtext(skip(value, type + 1)) ||
        !is_xtext((struct command_text){value.p, type}))
        return false;
    out->orcpt = value;
    return true;
}

static const struct parameter {
    const char *name;
    enum command_verb verb;
    bool (*read)(struct command_parameters *out, struct command_text value);
    const char *problem; /* NULL: a bad value is ignored */
} parameters[] = {
    {"SIZE", COMMAND_MAIL, read_size, NULL},
    {"BODY", COMMAND_MAIL, read_body, "this BODY is not offered: use 8BITMIME or 7BIT"},
    {"SMTPUTF8", COMMAND_MAIL, read_smtputf8, NULL},
    {"AUTH", COMMAND_MAIL, read_auth, NULL},
    {"RET", COMMAND_MAIL, read_ret, NULL},
    {"ENVID", COMMAND_MAIL, read_envid, NULL},
    {"MT-PRIORITY", COMMAND_MAIL, read_priority, NULL},
    {"NOTIFY", COMMAND_RCPT, read_notify, NULL},
    {"ORCPT", COMMAND_RCPT, read_orcpt, NULL},
};

static void ignore(struct command_parameters *out, struct command_text name)
{
    if (out->ignored_count < COMMAND_IGNORED_MAX)
        out->ignored[out->ignored_count] = name;
    out->ignored_count++;
}

/* One parameter. Returns the problem, or NULL. */
static const char *read_parameter(struct command_parameters *out, struct command_text word,
                                  enum command_verb verb)
{
    const char *equals = memchr(word.p, '=', word.len);
    struct command_text name = {word.p, equals != NULL ? (size_t)(equals - word.p) : word.len};
    struct command_text value = skip(word, equals != NULL ? name.len + 1 : name.len);

    for (size_t i = 0; i < COUNT(parameters); i++) {
        const struct parameter *p = &parameters[i];

        if (p->verb != verb || !is_word(name, p->name))
            continue;
        if (!p->read(out, value)) {
            ignore(out, name);
            return p->problem;
        }
        return NULL;
    }
    ignore(out, name);
    return NULL;
}

bool command_parameters(struct command_text text, enum command_verb verb,
                        struct command_parameters *out_parameters, const char **out_problem)
{
    struct command_parameters found = {.has_size = false};
    struct command_text rest = trim(text);

    while (rest.len > 0) {
        struct command_text word = {rest.p, word_length(rest)};
        const char *problem = read_parameter(&found, word, verb);

        if (problem != NULL) {
            *out_problem = problem;
            return false;
        }
        rest = trim(skip(rest, word.len));
    }
    *out_parameters = found;
    return true;
}

struct command_text command_word(struct command_text *text)
{
    struct command_text word = {text->p, word_length(*text)};

    *text = trim(skip(*text, word.len));
    return word;
}

bool command_chunk(struct command_text argument, uint64_t *out_octets, bool *out_last)
{
    struct command_text rest = argument;
    struct command_text word = command_word(&rest);
    bool last = is_word(rest, "LAST");
    uint64_t octets;

    if (!read_octets(word, &octets) || (rest.len > 0 && !last))
        return false;
    *out_octets = octets;
    *out_last = last;
    return true;
}
