/*
 * What the connections of one mailbox sign in with: its password, read when it is needed, or an
 * access token, asked for before a connection is opened, so that none is ever held open for it.
 *
 * A refused token is replaced by a fresh one, once; when that is refused as well the mailbox pauses
 * and is probed, each time with a fresh token, because what an administrator grants is written into
 * the next one. Until a sign-in was accepted again one connection alone tries.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_CREDENTIAL_H
#define OUTTRAY_RELAY_SUBMIT_CREDENTIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "relay/base/clock.h"
#include "relay/signin/signins.h"
#include "relay/submit/mailbox.h"

struct credential {
    struct mailbox *mailbox;
    struct signins *signins; /* NULL when no mailbox has OAuth */
    size_t index;            /* of the mailbox, there */
    const struct clock *clock;
    struct signins_request *asking;
    uint64_t refused; /* the newest token that was refused */
    /* There is a token now, or the mailbox is in trouble. */
    void (*on_change)(void *ctx);
    void *ctx;
};

/* True when a connection can be opened as far as the sign-in goes. Else on_change() follows, from
 * the loop. */
bool credential_is_ready(struct credential *c);
/* The token that a connection opened now signs in with; 0 = none. */
uint64_t credential_generation(const struct credential *c);
void credential_accepted(struct credential *c);
/* Judges a refusal of what a connection signed in with: of the mailbox, or puts that off until a
 * fresh token was tried. */
void credential_judge(struct credential *c, const struct verdict *v, enum client_stage stage,
                      const struct reply *reply, uint64_t generation);
/* A person says that it is mended. */
void credential_retry(struct credential *c);
/* Looks whether a token that was missing is there now, because a person has signed in. */
void credential_tick(struct credential *c);
/* Asks for nothing any more. */
void credential_stop(struct credential *c);

#endif
