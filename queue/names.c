#include "queue/names.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_FIRST 32

void names_init(struct names *n)
{
    *n = (struct names){0};
}

void names_done(struct names *n)
{
    for (size_t i = 0; i < n->cap; i++)
        free(n->slots[i]);
    free(n->slots);
    names_init(n);
}

/* FNV-1a */
static uint64_t hash(const char *text)
{
    uint64_t h = 14695981039346656037u;
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 1099511628211u;
    return h;
}

/* Where the text is or should be. */
static struct name **find(struct name **slots, size_t cap, const char *text)
{
    size_t i = (size_t)hash(text) & (cap - 1);
    while (slots[i] && strcmp(slots[i]->text, text) != 0)
        i = (i + 1) & (cap - 1);
    return &slots[i];
}

static int grow(struct names *n)
{
    size_t cap = n->cap ? n->cap * 2 : NAMES_FIRST;
    struct name **slots = calloc(cap, sizeof(*slots));
    if (!slots)
        return 0;
    for (size_t i = 0; i < n->cap; i++)
        if (n->slots[i])
            *find(slots, cap, n->slots[i]->text) = n->slots[i];
    free(n->slots);
    n->slots = slots;
    n->cap = cap;
    return 1;
}

static struct name *name_new(const char *text)
{
    size_t size = strlen(text) + 1;
    struct name *name = calloc(1, sizeof(*name) + size);
    if (name)
        memcpy(name->text, text, size);
    return name;
}

struct name *names_keep(struct names *n, const char *text)
{
    if (n->count * 2 >= n->cap && !grow(n))
        return NULL;
    struct name **slot = find(n->slots, n->cap, text);
    if (!*slot && n->count >= NAMES_MAX) {
        text = NAMES_OTHERS;
        slot = find(n->slots, n->cap, text);
    }
    if (!*slot) {
        *slot = name_new(text);
        n->count += *slot != NULL;
    }
    return *slot;
}

const struct name *names_find(const struct names *n, const char *text)
{
    return n->cap > 0 ? *find(n->slots, n->cap, text) : NULL;
}
