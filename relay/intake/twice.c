#include "relay/intake/twice.h"

#include <stdlib.h>
#include <string.h>

#include "queue/bytes.h"

struct entry {
    uint8_t digest[TWICE_DIGEST];
    uint64_t id; /* 0 = empty */
    uint64_t at_ms;
    bool durable;
};

struct twice {
    uint8_t key[TWICE_KEY];
    uint64_t tags[TWICE_MAX];     /* the first octets of the digests: they are looked through */
    struct entry list[TWICE_MAX]; /* a ring: the next one replaces the oldest */
    size_t next;
};

/* With the NUL at its end, so that two texts are not as one. */
static void add_text(struct siphash *h, const char *text)
{
    siphash_add(h, text, strlen(text) + 1);
}

void twice_digest(const uint8_t key[TWICE_KEY], const struct envelope *e,
                  const uint8_t content[TWICE_DIGEST], uint8_t out[TWICE_DIGEST])
{
    struct siphash h;
    siphash_begin(&h, SIPHASH_1_3, key);
    siphash_add(&h, content, TWICE_DIGEST);
    add_text(&h, e->device);
    add_text(&h, e->reverse_path);
    for (size_t i = 0; i < e->recipient_count; i++)
        add_text(&h, e->recipients[i].forward_path);
    siphash_end(&h, out);
}

/* ---- the table ------------------------------------------------------------------------------- */

struct twice *twice_new(const uint8_t key[TWICE_KEY])
{
    struct twice *t = calloc(1, sizeof *t);
    if (t != NULL)
        memcpy(t->key, key, TWICE_KEY);
    return t;
}

void twice_free(struct twice *t)
{
    free(t);
}

const uint8_t *twice_key(const struct twice *t)
{
    return t->key;
}

bool twice_find(const struct twice *t, const uint8_t digest[TWICE_DIGEST], uint64_t now_ms,
                struct twice_copy *out)
{
    uint64_t tag = bytes_get64(digest);
    for (size_t i = 1; i <= TWICE_MAX; i++) {
        size_t at = (t->next + TWICE_MAX - i) % TWICE_MAX;
        const struct entry *e = &t->list[at];
        if (t->tags[at] != tag || e->id == 0 || memcmp(e->digest, digest, TWICE_DIGEST) != 0)
            continue;
        if (e->at_ms + TWICE_WINDOW_MS <= now_ms)
            return false; /* any before it is older */
        *out = (struct twice_copy){.id = e->id, .age_ms = now_ms - e->at_ms, .durable = e->durable};
        return true;
    }
    return false;
}

void twice_note(struct twice *t, const uint8_t digest[TWICE_DIGEST], uint64_t id, uint64_t now_ms)
{
    struct entry *e = &t->list[t->next];
    t->tags[t->next] = bytes_get64(digest);
    memcpy(e->digest, digest, TWICE_DIGEST);
    e->id = id;
    e->at_ms = now_ms;
    e->durable = false;
    t->next = (t->next + 1) % TWICE_MAX;
}

void twice_committed(struct twice *t, uint64_t id, bool durable)
{
    for (size_t i = 1; i <= TWICE_MAX; i++) {
        struct entry *e = &t->list[(t->next + TWICE_MAX - i) % TWICE_MAX];
        if (e->id != id)
            continue;
        e->durable = durable;
        e->id = durable ? id : 0;
        return;
    }
}
