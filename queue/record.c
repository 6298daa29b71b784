#include "queue/record.h"

#include <string.h>

#include "queue/bytes.h"
#include "queue/queue.h"

#define RECORD_VERSION 1

#define MESSAGE_LARGE   1u
#define MESSAGE_DAMAGED 2u
#define STATE_DAMAGED   1u
#define STATE_REVIVED   2u

#define MESSAGE_FIXED 30
#define MESSAGE_PART  33 /* behind the names; only in a fragment's or a joined message's */
#define STATE_LEN     32
#define START_LEN     17
#define DOUBT_LEN     9

_Static_assert(MESSAGE_FIXED + 2 * RECORD_NAME_MAX + MESSAGE_PART <= RECORD_HEAD_MAX,
               "a head fits");

static size_t put_name(uint8_t *out, const char *name)
{
    size_t len = strlen(name);
    memcpy(out, name, len);
    return len;
}

static size_t put_part(uint8_t *out, const struct record_part *p)
{
    if (p->kind == RECORD_WHOLE)
        return 0;
    out[0] = p->kind;
    bytes_put32(out + 1, p->number);
    bytes_put32(out + 5, p->total);
    bytes_put64(out + 9, p->group);
    bytes_put64(out + 17, p->kin);
    bytes_put64(out + 25, p->wait_ms);
    return MESSAGE_PART;
}

size_t record_encode_message(const struct record_message *m, uint8_t *out)
{
    out[0] = RECORD_VERSION;
    out[1] = (uint8_t)((m->large ? MESSAGE_LARGE : 0) | (m->damaged ? MESSAGE_DAMAGED : 0));
    out[2] = (uint8_t)m->lane;
    out[3] = (uint8_t)strlen(m->route);
    out[4] = (uint8_t)strlen(m->device);
    out[5] = 0;
    bytes_put32(out + 6, m->recipients);
    bytes_put32(out + 10, m->envelope_len);
    bytes_put64(out + 14, m->arrived_ms);
    bytes_put64(out + 22, m->size);
    size_t len = MESSAGE_FIXED;
    len += put_name(out + len, m->route);
    len += put_name(out + len, m->device);
    len += put_part(out + len, &m->part);
    return len;
}

static bool read_name(struct bytes_reader *r, size_t len, char out[RECORD_NAME_MAX + 1])
{
    const uint8_t *p = bytes_read(r, len);
    if (r->failed || (len > 0 && memchr(p, '\0', len)))
        return false;
    if (len > 0)
        memcpy(out, p, len);
    out[len] = '\0';
    return true;
}

static void read_part(struct bytes_reader *r, struct record_part *out)
{
    struct record_part p = {.kind = bytes_read8(r)};
    p.number = bytes_read32(r);
    p.total = bytes_read32(r);
    p.group = bytes_read64(r);
    p.kin = bytes_read64(r);
    p.wait_ms = bytes_read64(r);
    if (!r->failed && p.kind <= RECORD_JOINED)
        *out = p;
}

bool record_decode_message(const void *head, size_t len, struct record_message *out)
{
    struct bytes_reader r;
    bytes_reader_init(&r, head, len);
    uint8_t version = bytes_read8(&r);
    uint8_t flags = bytes_read8(&r);
    uint8_t lane = bytes_read8(&r);
    size_t route_len = bytes_read8(&r);
    size_t device_len = bytes_read8(&r);
    (void)bytes_read8(&r);
    struct record_message m = {
        .large = (flags & MESSAGE_LARGE) != 0,
        .damaged = (flags & MESSAGE_DAMAGED) != 0,
        .lane = (enum lane)lane,
    };
    m.recipients = bytes_read32(&r);
    m.envelope_len = bytes_read32(&r);
    m.arrived_ms = bytes_read64(&r);
    m.size = bytes_read64(&r);
    if (version < RECORD_VERSION || lane >= LANE_COUNT || !read_name(&r, route_len, m.route) ||
        !read_name(&r, device_len, m.device))
        return false;
    read_part(&r, &m.part);
    *out = m;
    return true;
}

size_t record_encode_state(const struct record_state *s, uint8_t *out)
{
    out[0] = RECORD_VERSION;
    out[1] = s->state;
    out[2] = (uint8_t)((s->damaged ? STATE_DAMAGED : 0) | (s->revived ? STATE_REVIVED : 0));
    out[3] = s->losses;
    bytes_put32(out + 4, s->attempts);
    bytes_put64(out + 8, s->tried_ms);
    bytes_put64(out + 16, s->wait_ms);
    bytes_put64(out + 24, s->wall_ms);
    return STATE_LEN;
}

bool record_decode_state(const void *head, size_t len, struct record_state *out)
{
    const uint8_t *p = head;
    if (len < STATE_LEN || p[0] < RECORD_VERSION || p[1] >= QUEUE_GONE)
        return false;
    *out = (struct record_state){
        .state = p[1],
        .damaged = (p[2] & STATE_DAMAGED) != 0,
        .revived = (p[2] & STATE_REVIVED) != 0,
        .losses = p[3],
        .attempts = bytes_get32(p + 4),
        .tried_ms = bytes_get64(p + 8),
        .wait_ms = bytes_get64(p + 16),
        .wall_ms = bytes_get64(p + 24),
    };
    return true;
}

size_t record_encode_start(const struct record_start *s, uint8_t *out)
{
    out[0] = RECORD_VERSION;
    bytes_put64(out + 1, s->wall_ms);
    bytes_put64(out + 9, s->id_limit);
    return START_LEN;
}

bool record_decode_start(const void *head, size_t len, struct record_start *out)
{
    const uint8_t *p = head;
    if (len < START_LEN || p[0] < RECORD_VERSION)
        return false;
    *out = (struct record_start){
        .wall_ms = bytes_get64(p + 1),
        .id_limit = bytes_get64(p + 9),
    };
    return true;
}

size_t record_encode_doubt(uint64_t wall_ms, uint8_t *out)
{
    out[0] = RECORD_VERSION;
    bytes_put64(out + 1, wall_ms);
    return DOUBT_LEN;
}

void record_encode_end(const struct record_end *e, uint8_t out[RECORD_END_LEN])
{
    bytes_put64(out, e->number);
    bytes_put32(out + 8, e->proven);
    bytes_put32(out + 12, e->end);
}

void record_decode_end(const uint8_t p[RECORD_END_LEN], struct record_end *out)
{
    *out = (struct record_end){
        .number = bytes_get64(p),
        .proven = bytes_get32(p + 8),
        .end = bytes_get32(p + 12),
    };
}
