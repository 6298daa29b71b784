/*
 * What a reply means: one action, for one scope, with words for a person. Pure and data-driven: the
 * rows are in verdict_table.c, what to do with them is here, and nobody else judges a reply.
 *
 * Rows are looked up by the stage, the reply code, the enhanced status code and the sentence,
 * because none of them is enough: one enhanced code has many causes, basic code and enhanced class
 * disagree, and some 5xx replies are temporary. What no row knows is judged by its class and stage:
 *  - 4xx: tried again later.
 *  - 5xx to AUTH: the mailbox is paused. To RCPT: that recipient has failed. To MAIL or to the mail
 * data: the message is held the first time and fails when it is refused again. Earlier in the
 * session: the upstream is tried again later, and paused when it lasts. In doubt the verdict is the
 * one that keeps the message. Refusals that concern the session or the sign-in never cost a
 * message: they pause the mailbox, which keeps its mail and tells somebody.
 *
 * Local failures go the same way. One after the end of mail data was sent is uncertain, whatever it
 * was. What happens at QUIT changes nothing.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_VERDICT_H
#define OUTTRAY_RELAY_SUBMIT_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "relay/smtp/reply.h"
#include "relay/submit/client_fsm.h"

enum verdict_action {
    VERDICT_GO_ON = 0, /* nothing is decided: the reply that was hoped for, or it does not matter */
    VERDICT_DELIVERED, /* the upstream has taken the message */
    VERDICT_SOON,      /* again within a minute, on a new connection unless this one is reusable */
    VERDICT_BACK,      /* again after a growing wait */
    VERDICT_CONC,      /* fewer connections, then soon */
    VERDICT_PAUSE,     /* the mailbox is used only to probe until it works; it keeps its mail */
    VERDICT_RCPT_FAIL, /* this recipient will not be tried again */
    VERDICT_MSG_FAIL,  /* none of the recipients that were accepted will be tried again */
    VERDICT_HOLD       /* the message waits for the operator */
};

/* Whose problem it is, hence what waits. */
enum verdict_scope {
    SCOPE_NONE = 0,
    SCOPE_RECIPIENT, /* only at RCPT; later it is the message's */
    SCOPE_MESSAGE,
    SCOPE_MAILBOX,  /* the account, its sign-in or its limits */
    SCOPE_UPSTREAM, /* the service, for whatever mailbox */
    SCOPE_NETWORK   /* the way there */
};

/* All texts are static. */
struct verdict {
    const char *name; /* for logs and tests: "smtp_auth_off_for_tenant" */
    enum verdict_action action;
    enum verdict_scope scope;
    /* What to do instead when the same verdict (by name, for the same message or mailbox) came the
     * last time too and has been coming for lasting_ms. The same as action for most. */
    enum verdict_action again;
    uint64_t lasting_ms;
    uint64_t wait_ms; /* before the next try: at least this; 0 leaves it to the backoff */
    bool reusable;    /* the connection can be used for another transaction, after RSET */
    bool uncertain;   /* the message may have been taken */
    bool fresh_token; /* with a token: get a new one and try once more before doing anything else */
    bool too_large;   /* teaches that the mailbox takes less than this message's size */
    const char *what; /* what happened, a sentence */
    const char *who;  /* who can fix it */
    const char *how;  /* and how, a sentence */
    const char *token_what; /* both instead where the sign-in was with a token; NULL: the same */
    const char *token_how;
};

struct verdict verdict_of(enum client_stage stage, const struct reply *reply);

/* True when a row knows the reply, or it is no refusal of the upstream: false says that the verdict
 * is only that of its class and stage. */
bool verdict_is_known(enum client_stage stage, const struct reply *reply);

/* The verdict of a reply that was stored with a recipient, whose stage is not known any more: that
 * of the first stage of a transaction with a row for it, else what its codes make likely. One that
 * failed the recipient cannot have been the mailbox's or the service's trouble. False when there is
 * nothing to judge: a reply that took the message, a failure of our own, or no text. */
bool verdict_of_stored(const char *reply_text, bool failed, struct verdict *out);

/* The action of v when the last verdict for the same message or mailbox was called last_name (""
 * for none) and verdicts of that name have been coming for lasting_ms. */
enum verdict_action verdict_action_after(const struct verdict *v, const char *last_name,
                                         uint64_t lasting_ms);

const char *verdict_action_name(enum verdict_action action); /* "go_on", "delivered", "soon", ... */
const char *verdict_scope_name(enum verdict_scope scope);    /* "none", "recipient", ... */

#endif
