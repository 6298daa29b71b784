/*
 * What a refusal of a token endpoint means: one action, with words for a person. Pure, one table.
 *
 * `error` decides what is done, as RFC 6749 5.2 has it. Microsoft adds a number (AADSTS...), which
 * may change without notice and therefore only chooses the words; its row's own action holds where
 * the number comes with one of the errors that it usually comes with. An answer of status 429 or
 * 5xx is always the service's trouble, for now. An answer that is no OAuth answer at all (a web
 * page, a redirect, rubbish) is tried again: nothing is known about the sign-in.
 *
 * What is not known is paused, because asking again and again with something wrong gets accounts
 * locked.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_OAUTH_ERRORS_H
#define OUTTRAY_RELAY_SIGNIN_OAUTH_ERRORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum oauth_action {
    OAUTH_RETRY,     /* by itself, after a growing wait */
    OAUTH_PAUSE,     /* a person must act; probed now and then */
    OAUTH_HALT,      /* a person must act; not tried before, because each try counts */
    OAUTH_LOGIN,     /* a person must sign in again: "outtray login" */
    OAUTH_PENDING,   /* device code: not yet; ask again after the interval */
    OAUTH_SLOW_DOWN, /* device code: the same, with a longer interval from now on */
    OAUTH_ACTIONS
};

/* How we asked, as a set of which a row names those it is for. */
enum oauth_asked {
    OAUTH_AS_APP = 1 << 0,     /* client credentials */
    OAUTH_AS_USER = 1 << 1,    /* refresh token */
    OAUTH_AS_SERVICE = 1 << 2, /* Google service account */
    OAUTH_AS_LOGIN = 1 << 3    /* a person is signing in: device code, or code from a browser */
};

struct oauth_refusal {
    enum oauth_asked asked;
    unsigned status;   /* of HTTP */
    const char *error; /* "" = the answer was no OAuth answer */
    uint32_t aadsts;   /* 0 = none */
};

/* All texts are static. */
struct oauth_advice {
    const char *name; /* for logs and tests: "secret_expired" */
    enum oauth_action action;
    uint32_t wait_s;  /* before the next try: at least this */
    const char *what; /* what happened, a sentence */
    const char *who;  /* who can fix it */
    const char *how;  /* and how, a sentence or two; MAILBOX stands for the mailbox's name */
};

void oauth_errors_explain(const struct oauth_refusal *refusal, struct oauth_advice *out);
/* "retry", "pause", ... */
const char *oauth_action_name(enum oauth_action action);
/* Writes `how` with the mailbox's name in its place, cut to size. */
void oauth_errors_fill(const char *how, const char *mailbox, char *out, size_t size);

#endif
