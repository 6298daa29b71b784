/*
 * What is due: for each route, by lane, then by time. Pure and in memory; the time is an argument
 * (monotonic, ms) and no entry is owned here.
 *
 * An entry is embedded in the caller's own object, stays at its address, and is in at most one
 * schedule. Within a lane devices take turns: the next message comes from the device that was
 * served longest ago (one never served goes before those), and among one device's the one due
 * first. A device whose mail is all gone is remembered for its turn; SCHEDULE_IDLE_MAX such are.
 * Urgent goes before normal before bulk; but after SCHEDULE_BULK_EVERY picks in a row above it, a
 * waiting lower lane gets one, so that bulk always advances.
 *
 * Insert, remove and pick are O(log n) in the number of entries of the route; a pick may also have
 * to move the devices whose mail has become due since the last one, once each.
 */
#ifndef OUTTRAY_QUEUE_SCHEDULE_H
#define OUTTRAY_QUEUE_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/envelope.h"

#define SCHEDULE_BULK_EVERY 10
#define SCHEDULE_IDLE_MAX   1024
#define SCHEDULE_NEVER      UINT64_MAX

struct schedule;
struct schedule_group; /* private: the entries of one route, lane and device */

struct schedule_entry {
    uint64_t due_ms; /* monotonic; set by schedule_insert */
    uint64_t order;  /* ties are broken by it: the message id */
    struct schedule_group *group;
    uint32_t slot; /* place in its heap; private */
    bool queued;   /* is in a schedule */
};

/* NULL without memory. */
struct schedule *schedule_new(void);
/* Leaves entries that are still queued as they are. Accepts NULL. */
void schedule_free(struct schedule *s);

/* Number of a route, made when new (at most SCHEDULE_ROUTES_MAX). False without memory or room. */
#define SCHEDULE_ROUTES_MAX 1024
bool schedule_route(struct schedule *s, const char *name, uint32_t *out_route);
const char *schedule_route_name(const struct schedule *s, uint32_t route);
uint32_t schedule_route_count(const struct schedule *s);

/* Queues an entry that is in no schedule. `device` is copied when new. False without memory. */
bool schedule_insert(struct schedule *s, struct schedule_entry *e, uint32_t route, enum lane lane,
                     const char *device, uint64_t due_ms, uint64_t order);
/* Does nothing to an entry that is not queued. */
void schedule_remove(struct schedule *s, struct schedule_entry *e);

/* Takes the entry that should go next on this route, or NULL when none is due at now_ms, which must
 * never go back between calls. */
struct schedule_entry *schedule_pick(struct schedule *s, uint32_t route, uint64_t now_ms);
/* The same, but nothing of a lane below `lowest`. */
struct schedule_entry *schedule_pick_from(struct schedule *s, uint32_t route, enum lane lowest,
                                          uint64_t now_ms);
/* What that would take now, left where it is. */
const struct schedule_entry *schedule_peek_from(struct schedule *s, uint32_t route,
                                                enum lane lowest, uint64_t now_ms);
/* When the route's next entry becomes due: SCHEDULE_NEVER when it is empty, at most now_ms when one
 * is due already. */
uint64_t schedule_next_due(const struct schedule *s, uint32_t route, uint64_t now_ms);
uint64_t schedule_next_due_from(const struct schedule *s, uint32_t route, enum lane lowest,
                                uint64_t now_ms);
size_t schedule_count(const struct schedule *s, uint32_t route, enum lane lane);

#endif
