#include "relay/smtp/ehlo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void learn_size(struct ehlo *e, const char *value)
{
    if (*value >= '0' && *value <= '9')
        e->size = strtoull(value, NULL, 10);
}

static void learn_auth(struct ehlo *e, const char *value)
{
    size_t used = strlen(e->auth);

    snprintf(e->auth + used, sizeof(e->auth) - used, "%s%s", used > 0 ? " " : "", value);
}

struct keyword {
    const char *word;
    size_t flag; /* offset of a bool */
    void (*learn)(struct ehlo *e, const char *value);
};

static const struct keyword keywords[] = {
    {"PIPELINING", offsetof(struct ehlo, pipelining), NULL},
    {"CHUNKING", offsetof(struct ehlo, chunking), NULL},
    {"STARTTLS", offsetof(struct ehlo, starttls), NULL},
    {"8BITMIME", offsetof(struct ehlo, eight_bit_mime), NULL},
    {"SMTPUTF8", offsetof(struct ehlo, smtputf8), NULL},
    {"DSN", offsetof(struct ehlo, dsn), NULL},
    {"SIZE", offsetof(struct ehlo, has_size), learn_size},
    {"AUTH", offsetof(struct ehlo, has_auth), learn_auth}, /* "AUTH=" too, as before RFC 2554 */
};

static void learn_line(struct ehlo *e, char *line)
{
    char *value = line + strcspn(line, " =");

    if (*value != '\0')
        *value++ = '\0';
    for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++) {
        if (strcasecmp(line, keywords[i].word) != 0)
            continue;
        *(bool *)((char *)e + keywords[i].flag) = true;
        if (keywords[i].learn != NULL)
            keywords[i].learn(e, value);
    }
}

void ehlo_learn(struct ehlo *out, const struct reply_parser *p)
{
    size_t count = reply_line_count(p);
    char line[EHLO_AUTH_MAX];

    memset(out, 0, sizeof(*out));
    reply_line(p, 0, out->greeting, sizeof(out->greeting));
    for (size_t i = 1; i < count; i++) {
        reply_line(p, i, line, sizeof(line));
        learn_line(out, line);
    }
}

/* Takes the next word from *at, and says whether there was one. */
static bool next_word(const char **at, const char **word, size_t *len)
{
    *word = *at + strspn(*at, " ");
    *len = strcspn(*word, " ");
    *at = *word + *len;
    return *len > 0;
}

static bool has_word(const char *list, const char *wanted, size_t wanted_len)
{
    const char *word;
    size_t len;

    while (next_word(&list, &word, &len))
        if (len == wanted_len && strncasecmp(word, wanted, len) == 0)
            return true;
    return false;
}

bool ehlo_choose_mechanism(const struct ehlo *e, const char *wanted, char *out_name, size_t size)
{
    const char *word;
    size_t len;

    while (next_word(&wanted, &word, &len)) {
        if (len < size && has_word(e->auth, word, len)) {
            memcpy(out_name, word, len);
            out_name[len] = '\0';
            return true;
        }
    }
    return false;
}

void ehlo_forget_mechanism(struct ehlo *e, const char *name)
{
    char left[EHLO_AUTH_MAX] = "";
    const char *at = e->auth;
    const char *word;
    size_t used = 0;
    size_t len;

    while (next_word(&at, &word, &len)) {
        if (len == strlen(name) && strncasecmp(word, name, len) == 0)
            continue;
        used += (size_t)snprintf(left + used, sizeof(left) - used, "%s%.*s", used > 0 ? " " : "",
                                 (int)len, word);
    }
    memcpy(e->auth, left, sizeof(e->auth));
}
