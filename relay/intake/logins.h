/*
 * Checks what devices sign in with: on a thread that may be busy with it, and not too often.
 *
 * A check waits its turn (attempts.h), reads the password file and computes a hash on the executor,
 * and is told late when it was wrong. Any number of sessions share one object.
 */
#ifndef OUTTRAY_RELAY_INTAKE_LOGINS_H
#define OUTTRAY_RELAY_INTAKE_LOGINS_H

#include <stdbool.h>
#include <stdint.h>

#include "queue/error.h"
#include "queue/executor.h"
#include "relay/base/clock.h"
#include "relay/base/net.h"
#include "relay/signin/passwords.h"

struct event_base;
struct logins;
struct login_check;

struct login_result {
    enum passwords_result check;
    uint32_t wrong;    /* so many times this address was, with this one; 0 when it is not counted */
    const char *error; /* with PASSWORDS_FAILED */
};

struct login_request {
    const struct net_address *client;
    const char *device; /* whose password it should be; "" when there is no such login */
    const char *password;
    bool lenient; /* a wrong one is as good as a right one: neither slowed nor counted */
    /* From the loop, once. The check is gone then. */
    void (*on_done)(void *ctx, const struct login_result *result);
    void *ctx;
};

/* The file is borrowed. NULL without memory. */
struct logins *logins_new(struct event_base *base, struct clock *clock,
                          const struct executor *executor, const char *file);
/* No job of the executor is under way any more. Accepts NULL. */
void logins_free(struct logins *l);
/* NULL without memory, or when too many logins of that address wait. The texts are copied. */
struct login_check *logins_check(struct logins *l, const struct login_request *request);
/* on_done will not be called. A wrong password counts all the same. */
void logins_abandon(struct login_check *c);

#endif
