/*
 * One sign-in of a session: the SASL exchange, then the check of what was said in it.
 *
 * Who signed in is a device of the configuration whose password was right. Where any login will do
 * (lenient), a password is checked only when there is a device with that login.
 */
#ifndef OUTTRAY_RELAY_INTAKE_SIGNIN_H
#define OUTTRAY_RELAY_INTAKE_SIGNIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "relay/base/config.h"
#include "relay/base/net.h"
#include "relay/intake/server_fsm.h"

struct logins;
struct signin;

enum signin_step {
    SIGNIN_ASKS,   /* send the question, and hand in what is said next */
    SIGNIN_CHECKS, /* on_done will be called, from the loop */
    SIGNIN_DONE    /* signin_result() is there; on_done will not be called */
};

struct signin_result {
    enum server_check check;
    const struct config_device *device; /* whose login it was; NULL: nobody's */
    uint32_t wrong;                     /* so many times this address was; 0: not counted */
    const char *reason;                 /* for the log; of nothing that was said */
};

struct signin_settings {
    struct logins *logins;
    const struct config *config;
    const struct net_address *client;
    const char *mechanism;
    bool lenient;
    void (*on_done)(void *ctx, const struct signin_result *result);
    void *ctx;
};

/* What the settings point to is borrowed. NULL without memory. */
struct signin *signin_new(const struct signin_settings *settings);
/* What the device said, decoded; NULL: nothing yet. */
enum signin_step signin_take(struct signin *s, const void *said, size_t len,
                             const char **out_question, size_t *out_len);
/* Until signin_free(). */
const struct signin_result *signin_result(const struct signin *s);
/* No callback follows; it may be called from within it. Accepts NULL. */
void signin_free(struct signin *s);

#endif
