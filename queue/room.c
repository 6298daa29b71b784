/*
 * Whether there is room for more mail: the part of queue.h that is queue_has_room().
 *
 * Two limits: what counts in the spool takes at most max_bytes, and min_free_bytes of the file
 * system stay free. The last part of each is kept for urgent mail, so that an alarm gets through
 * when scans have filled everything else. Once a limit was reached it takes a little more than one
 * octet to go back, or every delivery would let one device in and turn the next one away.
 */
#include "queue/spool.h"

#define ROOM_SLACK_SHARE 50 /* of a limit, one part in so many must be free again */
#define ROOM_SLACK_MAX   (64ull * 1024 * 1024)

static uint64_t part_of(uint64_t limit, uint64_t share, uint64_t most)
{
    return limit / share < most ? limit / share : most;
}

static uint64_t kept_for_urgent(uint64_t limit, bool urgent)
{
    return urgent ? 0 : part_of(limit, QUEUE_URGENT_SHARE, QUEUE_URGENT_MAX);
}

static uint64_t less(uint64_t from, uint64_t what)
{
    return from > what ? from - what : 0;
}

/* What the spool may still take. */
static uint64_t left_of_spool(const struct queue *q, bool urgent)
{
    uint64_t taken = q->living_journal + q->content_bytes + q->writer_bytes;
    if (q->max_bytes == 0)
        return UINT64_MAX;
    return less(q->max_bytes - kept_for_urgent(q->max_bytes, urgent), taken);
}

static uint64_t left_of_disk(const struct queue *q, bool urgent)
{
    if (!q->space_known)
        return UINT64_MAX;
    return less(q->free_bytes, q->min_free_bytes + kept_for_urgent(q->min_free_bytes, urgent));
}

static uint64_t slack(uint64_t limit)
{
    return part_of(limit, ROOM_SLACK_SHARE, ROOM_SLACK_MAX);
}

static void update(struct queue *q, bool urgent, bool leave)
{
    uint64_t spool = left_of_spool(q, urgent);
    uint64_t disk = left_of_disk(q, urgent);
    if (spool == 0 || disk == 0)
        q->full[urgent] = true;
    else if (leave && spool > slack(q->max_bytes) && disk > slack(q->min_free_bytes))
        q->full[urgent] = false;
}

void room_update(struct queue *q, bool leave)
{
    update(q, false, leave);
    update(q, true, leave);
}

static bool refuse_full(const struct queue *q, bool urgent, struct error *err)
{
    char max[QUEUE_SIZE_TEXT];
    queue_size_text(q->max_bytes, max);
    return error_set(err, ERROR_NO_ROOM,
                     "the waiting mail has reached spool_max (%s%s): let mail leave, or raise "
                     "spool_max in [relay]",
                     max, urgent ? "" : ", of which the last part is for urgent mail");
}

static bool refuse_short_of_disk(const struct queue *q, bool urgent, struct error *err)
{
    char is_free[QUEUE_SIZE_TEXT];
    char min[QUEUE_SIZE_TEXT];
    queue_size_text(q->free_bytes, is_free);
    queue_size_text(q->min_free_bytes, min);
    return error_set(err, ERROR_NO_ROOM,
                     "the disk has only %s free and spool_min_free asks for %s%s: free disk space, "
                     "or lower spool_min_free in [relay]",
                     is_free, min, urgent ? "" : " and a little for urgent mail");
}

static bool refuse(const struct queue *q, bool urgent, uint64_t size, struct error *err)
{
    uint64_t disk = left_of_disk(q, urgent);
    bool by_disk = disk < size || disk <= slack(q->min_free_bytes);
    return by_disk || q->max_bytes == 0 ? refuse_short_of_disk(q, urgent, err)
                                        : refuse_full(q, urgent, err);
}

bool queue_has_room(struct queue *q, enum lane lane, uint64_t size, struct error *err)
{
    bool urgent = lane == LANE_URGENT;
    if (q->read_only)
        return error_set(err, ERROR_INVALID, "the spool is open for reading only");
    if (*journal_failure(q->journal))
        return error_set(err, ERROR_IO, "the spool cannot be written: %s",
                         journal_failure(q->journal));
    room_update(q, false);
    if (q->full[urgent] || size > left_of_spool(q, urgent) || size > left_of_disk(q, urgent))
        return refuse(q, urgent, size, err);
    return true;
}

bool room_to_grow(const struct queue *q, bool urgent, struct error *err)
{
    if (left_of_spool(q, urgent) > 0 && left_of_disk(q, urgent) > 0)
        return true;
    return refuse(q, urgent, 0, err);
}
