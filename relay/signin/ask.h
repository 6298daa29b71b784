/*
 * One question to a token service, from a sign-in's files to a judged answer.
 *
 * Secrets, keys and certificates are read (again for each question, so that a mended file is
 * enough) and signatures made by the executor; then the body is posted. Whatever happens ends in
 * one struct ask_result: a token, a device code, or a failure with its advice. The callback comes
 * from the loop, never from within ask_begin().
 */
#ifndef OUTTRAY_RELAY_SIGNIN_ASK_H
#define OUTTRAY_RELAY_SIGNIN_ASK_H

#include <stdbool.h>
#include <stdint.h>

#include "queue/executor.h"
#include "relay/base/clock.h"
#include "relay/base/https.h"
#include "relay/signin/grant.h"
#include "relay/signin/oauth_errors.h"
#include "relay/signin/signins.h"
#include "relay/signin/token.h"

struct ask;

enum ask_for {
    ASK_TOKEN,  /* as the sign-in's grant says */
    ASK_DEVICE, /* a device code */
    ASK_POLL,   /* has the person entered it? */
    ASK_CODE    /* a token for the code from a browser */
};

/* All but the texts of ASK_* must stay until the end. */
struct ask_settings {
    struct https *https;
    struct executor executor;
    const struct clock *clock;
    const struct signin_config *config;
    struct token_clock *token_clock; /* learns */
    enum ask_for what;
    const char *refresh;     /* of ASK_TOKEN by a person; copied, as are the next ones */
    const char *device_code; /* of ASK_POLL */
    const char *code;        /* of ASK_CODE */
    const char *redirect_uri;
    const char *verifier;
};

struct ask_result {
    bool given;
    struct grant_token token;        /* the callback may take what it owns, and zero it */
    struct grant_device_code device; /* the same */
    uint64_t asked_ms;
    int64_t certificate_ends_s; /* 0 = there is none, or it was not read */
    /* When not given: */
    struct oauth_advice advice;
    uint64_t wait_s; /* at least, before the next question */
    bool clock_was_wrong;
    char said[ERROR_TEXT_MAX];
    char trace[GRANT_ERROR_MAX];
    char correlation[GRANT_ERROR_MAX];
};

typedef void ask_answered(void *ctx, struct ask_result *result);

/* NULL without memory. */
struct ask *ask_begin(const struct ask_settings *settings, ask_answered *answered, void *ctx);
/* No callback follows. What the executor is at is finished and freed later. Accepts NULL. */
void ask_cancel(struct ask *a);

#endif
