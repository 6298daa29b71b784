#include "relay/submit/replies.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/submit/verdict.h"

#define ID_LEN    8 /* letters and digits mixed are an id from this length on ... */
#define ID_DIGITS 3 /* ... with as many digits */
#define RUN_LEN   3 /* digits in a row that are a number which says nothing */

struct entry {
    enum client_stage stage;
    char *text;
    uint64_t count;
    uint64_t first_ms;
    uint64_t last_ms;
};

struct replies {
    struct entry list[REPLIES_MAX]; /* seen last first */
    size_t count;
    uint64_t version;
};

struct replies *replies_new(void)
{
    return calloc(1, sizeof(struct replies));
}

void replies_free(struct replies *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < r->count; i++)
        free(r->list[i].text);
    free(r);
}

/* ---- masking --------------------------------------------------------------------------------- */

struct writer {
    char *out;
    size_t size;
    size_t len;
};

static void put(struct writer *w, const char *text, size_t len)
{
    size_t room = w->size - w->len - 1;
    if (len > room)
        len = room;
    memcpy(w->out + w->len, text, len);
    w->len += len;
    w->out[w->len] = '\0';
}

static bool is_id(const char *word, size_t len)
{
    size_t digits = 0;
    size_t letters = 0;
    for (size_t i = 0; i < len; i++) {
        digits += isdigit((unsigned char)word[i]) != 0;
        letters += isalpha((unsigned char)word[i]) != 0;
    }
    return len >= ID_LEN && digits >= ID_DIGITS && letters > 0;
}

/* Numbers of some length; shorter ones are codes and limits, which matter. */
static void put_without_numbers(struct writer *w, const char *word, size_t len)
{
    for (size_t at = 0; at < len;) {
        size_t run = 0;
        while (at + run < len && isdigit((unsigned char)word[at + run]))
            run++;
        if (run >= RUN_LEN)
            put(w, "#", 1);
        else
            put(w, word + at, run == 0 ? 1 : run);
        at += run == 0 ? 1 : run;
    }
}

static void put_word(struct writer *w, const char *word, size_t len)
{
    if (memchr(word, '@', len) != NULL)
        put(w, "<...>", 5);
    else if (len > 4 && memcmp(word, "http", 4) == 0)
        put(w, word, len);
    else if (is_id(word, len))
        put(w, "#", 1);
    else
        put_without_numbers(w, word, len);
}

void replies_mask(const char *text, char *out, size_t size)
{
    struct writer w = {.out = out, .size = size};
    out[0] = '\0';
    while (*text != '\0') {
        size_t len = strcspn(text, " [],;:=\"'()");
        const char *end = *text == '[' ? strchr(text, ']') : NULL;
        if (end != NULL) {
            put(&w, "[...]", 5);
            text = end + 1;
            continue;
        }
        if (strncmp(text, "http", 4) == 0)
            len = strcspn(text, " ");
        if (len == 0)
            put(&w, text, len = 1);
        else
            put_word(&w, text, len);
        text += len;
    }
}

/* ---- the table ------------------------------------------------------------------------------- */

static void drop_last(struct replies *r)
{
    free(r->list[--r->count].text);
}

static void move_first(struct replies *r, size_t i)
{
    struct entry e = r->list[i];
    memmove(r->list + 1, r->list, i * sizeof *r->list);
    r->list[0] = e;
}

static bool add(struct replies *r, const struct replies_entry *entry)
{
    char *text = strdup(entry->text);
    if (text == NULL)
        return false;
    if (r->count == REPLIES_MAX)
        drop_last(r);
    r->list[r->count++] = (struct entry){.stage = entry->stage,
                                         .text = text,
                                         .count = entry->count,
                                         .first_ms = entry->first_ms,
                                         .last_ms = entry->last_ms};
    return true;
}

static size_t find(const struct replies *r, enum client_stage stage, const char *text)
{
    size_t i = 0;
    while (i < r->count && (r->list[i].stage != stage || strcmp(r->list[i].text, text) != 0))
        i++;
    return i;
}

static void masked_text(const struct reply *reply, char out[REPLIES_TEXT_MAX])
{
    char enhanced[32] = "";
    if (reply->has_enhanced)
        snprintf(enhanced, sizeof enhanced, "%u.%u.%u ", reply->enhanced[0], reply->enhanced[1],
                 reply->enhanced[2]);
    int len = snprintf(out, REPLIES_TEXT_MAX, "%u %s", reply->code, enhanced);
    replies_mask(reply->text, out + len, REPLIES_TEXT_MAX - (size_t)len);
}

bool replies_note(struct replies *r, enum client_stage stage, const struct reply *reply,
                  uint64_t wall_ms)
{
    char text[REPLIES_TEXT_MAX];
    if (r == NULL || verdict_is_known(stage, reply))
        return false;
    masked_text(reply, text);
    size_t i = find(r, stage, text);
    const struct replies_entry entry = {.stage = stage, .text = text, .first_ms = wall_ms};
    if (i == r->count) {
        if (!add(r, &entry))
            return true;
        i = r->count - 1;
    }
    move_first(r, i);
    r->list[0].count++;
    r->list[0].last_ms = wall_ms;
    r->version++;
    return true;
}

void replies_restore(struct replies *r, const struct replies_entry *entry)
{
    if (r->count < REPLIES_MAX && find(r, entry->stage, entry->text) == r->count)
        (void)add(r, entry);
}

size_t replies_count(const struct replies *r)
{
    return r != NULL ? r->count : 0;
}

bool replies_get(const struct replies *r, size_t i, struct replies_entry *out)
{
    if (r == NULL || i >= r->count)
        return false;
    const struct entry *e = &r->list[i];
    *out = (struct replies_entry){.stage = e->stage,
                                  .text = e->text,
                                  .count = e->count,
                                  .first_ms = e->first_ms,
                                  .last_ms = e->last_ms};
    return true;
}

uint64_t replies_version(const struct replies *r)
{
    return r != NULL ? r->version : 0;
}
