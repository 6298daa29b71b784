#include "relay/intake/hello.h"

#include <stdbool.h>
#include <stdlib.h>

#define WAYS 4
#define SETS (HELLO_ADDRESSES_MAX / WAYS)

#define TLS_HANDSHAKE     0x16 /* content type of the first record */
#define TLS_MAJOR         0x03
#define SSL2_LENGTH       0x80 /* a two-octet length has this bit */
#define SSL2_CLIENT_HELLO 0x01

struct known {
    struct net_address address;
    uint8_t plain; /* sessions, up to HELLO_PLAIN_SESSIONS */
    bool tls;      /* a hello was seen */
    bool late;     /* one came too late */
    uint32_t used; /* when, in calls: the smallest of a set is replaced */
};

struct hello_table {
    uint32_t seed;
    uint32_t calls;
    struct known sets[SETS][WAYS];
};

enum hello hello_of(const uint8_t *data, size_t len)
{
    if (len == 0)
        return HELLO_UNSURE;
    if (data[0] == TLS_HANDSHAKE)
        return len == 1 || data[1] == TLS_MAJOR ? HELLO_TLS : HELLO_PLAIN;
    if ((data[0] & SSL2_LENGTH) == 0)
        return HELLO_PLAIN;
    if (len < 4)
        return HELLO_UNSURE;
    return data[2] == SSL2_CLIENT_HELLO && data[3] <= TLS_MAJOR ? HELLO_TLS : HELLO_PLAIN;
}

struct hello_table *hello_table_new(uint32_t seed)
{
    struct hello_table *t = calloc(1, sizeof *t);

    if (t != NULL)
        t->seed = seed;
    return t;
}

void hello_table_free(struct hello_table *t)
{
    free(t);
}

/* The place of an address, which is cleared when another one had it. */
static struct known *find(struct hello_table *t, const struct net_address *a)
{
    struct known *set = t->sets[net_hash(a, t->seed) % SETS];
    struct known *oldest = &set[0];

    t->calls++;
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].address.family != 0 && net_equal(&set[i].address, a)) {
            set[i].used = t->calls;
            return &set[i];
        }
        if (t->calls - set[i].used > t->calls - oldest->used)
            oldest = &set[i];
    }
    *oldest = (struct known){.address = *a, .used = t->calls};
    return oldest;
}

uint64_t hello_wait_ms(struct hello_table *t, const struct net_address *a)
{
    const struct known *k = find(t, a);

    if (k->late)
        return HELLO_LATE_WAIT_MS;
    return k->plain >= HELLO_PLAIN_SESSIONS && !k->tls ? 0 : HELLO_WAIT_MS;
}

void hello_saw_plain(struct hello_table *t, const struct net_address *a)
{
    struct known *k = find(t, a);

    if (k->plain < HELLO_PLAIN_SESSIONS)
        k->plain++;
}

void hello_saw_tls(struct hello_table *t, const struct net_address *a)
{
    find(t, a)->tls = true;
}

void hello_saw_late(struct hello_table *t, const struct net_address *a)
{
    struct known *k = find(t, a);

    k->tls = true;
    k->late = true;
}
