/*
 * Wrong passwords, counted per address, and how much they slow its logins. Pure.
 *
 * The reply to a wrong password waits, longer with each one (ATTEMPTS_FIRST_MS, doubled up to
 * ATTEMPTS_LONGEST_MS), and until then no other login of that address is looked at: not its own
 * next one, nor those of its other connections, which are spread out at that pace. A right password
 * ends the waiting, but only ATTEMPTS_FORGET_MS without a wrong one end the counting. Of more than
 * ATTEMPTS_MAX addresses the one that was wrong longest ago is forgotten.
 */
#ifndef OUTTRAY_RELAY_INTAKE_ATTEMPTS_H
#define OUTTRAY_RELAY_INTAKE_ATTEMPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "relay/base/net.h"

#define ATTEMPTS_MAX        256 /* addresses */
#define ATTEMPTS_FIRST_MS   UINT64_C(1000)
#define ATTEMPTS_LONGEST_MS UINT64_C(16000)
#define ATTEMPTS_QUEUE_MS   UINT64_C(60000) /* longest wait of a login; more come in vain */
#define ATTEMPTS_FORGET_MS  UINT64_C(600000)

/* Of one address that was wrong. */
struct attempts_of {
    struct net_address address;
    uint32_t wrong;
    uint64_t last_ms; /* the last wrong one */
    uint64_t next_ms; /* no login is looked at before */
};

/* All zero to begin with. */
struct attempts {
    struct attempts_of list[ATTEMPTS_MAX];
    size_t count;
};

/* A login has come: *out_wait_ms until it may be looked at, which is then its turn. False when too
 * many of that address wait already. */
bool attempts_begin(struct attempts *t, const struct net_address *a, uint64_t now_ms,
                    uint64_t *out_wait_ms);
/* It was wrong. Returns how long its reply is to wait; *out_count: wrong ones of this address. */
uint64_t attempts_wrong(struct attempts *t, const struct net_address *a, uint64_t now_ms,
                        uint32_t *out_count);
void attempts_right(struct attempts *t, const struct net_address *a, uint64_t now_ms);

#endif
