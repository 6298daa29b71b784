/*
 * A mailbox we submit as: its budget, whether it may be used now, and why not.
 *
 * Trouble of the mailbox, its upstream or the network backs off here, once for all mail, and never
 * costs a message. A mailbox in trouble is probed when its wait is over: by one connection, with
 * one message. Trouble on the way to the sign-in, that included, is over when the probe is signed
 * in; what was met later, until a message is taken. A sign-in that was refused is likewise tried by
 * one connection alone until it is accepted again, because every refused attempt counts towards the
 * account's lockout. A password that was changed ends the wait: it is tried at once. Time is an
 * argument; no sockets, no callbacks.
 *
 * A mailbox signs in with an access token, with its password, or not at all. A token is given for
 * the connections that are opened now (mailbox_needs_token()); whoever gives them says what a
 * refusal of one means (signin/signins.h).
 */
#ifndef OUTTRAY_RELAY_SUBMIT_MAILBOX_H
#define OUTTRAY_RELAY_SUBMIT_MAILBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "queue/error.h"
#include "relay/base/config.h"
#include "relay/base/secret.h"
#include "relay/base/tls.h"
#include "relay/submit/budget.h"
#include "relay/submit/dispatch.h"
#include "relay/submit/verdict.h"

#define MAILBOX_SOON_MS 5000 /* wait of action "soon", and twice it with jitter */
#define MAILBOX_PAUSE_MS                                                                           \
    (30 * 60 * 1000u) /* when the verdict names no time; lengthened by jitter */
#define MAILBOX_NO_BDAT_MS     (24ull * 3600 * 1000)
#define MAILBOX_SIZE_MS        (7 * 24ull * 3600 * 1000) /* how long a size that was taught holds */
#define MAILBOX_LOOK_MS        5000 /* between two looks at the password of one in trouble */
#define MAILBOX_TOKEN_MS       (30 * 1000u) /* how long a token that was given is used without asking */
#define MAILBOX_SIZE_LEARN_MIN (1024 * 1024u) /* a refusal for size teaches nothing below */

struct mailbox {
    const struct config_mailbox *config;
    struct budget *budget;
    struct secret *password; /* NULL: none needed, or unreadable (see secret_trouble) */
    bool with_token;         /* signs in with a token now */
    struct secret *token;    /* NULL: none was given yet, or it was refused */
    uint64_t token_generation;
    uint64_t token_until_ms;
    bool token_missing; /* none could be had when it was last asked for */
    bool fresh_tried;   /* a token was refused after the sign-in, since a message was last taken */
    struct tls_context *tls; /* made with the first connection */
    enum mailbox_state state;
    uint64_t next_try_ms;
    uint64_t trouble_since_ms;
    uint32_t troubles;         /* in a row */
    bool probing;              /* a connection was opened in trouble, and was not judged yet */
    uint64_t probed_ms;        /* when */
    bool needs_message;        /* trouble was met after a sign-in: only mail proves it to be over */
    bool asked;                /* to be tried even when no mail waits */
    bool proven;               /* a sign-in was accepted since the last one that was refused */
    uint64_t look_ms;          /* when to look for another password */
    uint64_t max_size;         /* as configured or taught */
    uint64_t size_until_ms;    /* it was taught, until then; 0 = it was not */
    uint64_t no_bdat_until_ms; /* its upstream has refused BDAT */
    uint64_t delivered;
    uint64_t failed;
    uint64_t last_success_wall_ms;
    char mechanism[32];
    char last_verdict[64]; /* its name */
    char problem[REPLY_TEXT_MAX];
    char remedy[REPLY_TEXT_MAX];
    char last_reply[REPLY_TEXT_MAX];
};

/* config is borrowed. A password that cannot be read is trouble of this mailbox alone and is read
 * again at each probe, so that mending the file is enough. */
bool mailbox_init(struct mailbox *m, const struct config_mailbox *config, struct error *err);
void mailbox_done(struct mailbox *m);

/* True when a message may be submitted through it now, as far as its own state goes. */
bool mailbox_is_usable(const struct mailbox *m, uint64_t now_ms);
/* How many connections its state allows: the budget's number, or one while it is being proven. */
uint32_t mailbox_connections_allowed(const struct mailbox *m, uint64_t now_ms);
/* Reads the password and makes the TLS context when they are not there yet. False: it is in trouble
 * now. */
bool mailbox_prepare(struct mailbox *m, uint64_t now_ms, uint32_t jitter);

/* About once a second: ends the wait when the password has changed, and forgets a size that was
 * taught long ago. */
void mailbox_tick(struct mailbox *m, uint64_t now_ms);

/* Chooses between token and password, where the configuration allows both: the password serves only
 * until OAuth is set up. */
void mailbox_choose_signin(struct mailbox *m, bool oauth_is_set_up);
/* It signs in with a token and has none to open a connection with now. */
bool mailbox_needs_token(const struct mailbox *m, uint64_t now_ms);
/* The token to use from now on, good until ends_ms. Copied. Without memory it still needs one. */
void mailbox_give_token(struct mailbox *m, const char *token, uint64_t generation, uint64_t ends_ms,
                        uint64_t now_ms);
void mailbox_drop_token(struct mailbox *m);
/* No token can be had, for the reason in v, whose texts need not be static, as is said in `said`.
 */
void mailbox_no_token(struct mailbox *m, const struct verdict *v, const char *said, uint64_t now_ms,
                      uint32_t jitter);
/* True when the verdict of a refusal may be put off until a fresh token was tried: not twice in a
 * row where the sign-in itself was accepted. */
bool mailbox_may_freshen(struct mailbox *m, const struct verdict *v, enum client_stage stage);
/* What a connection signs in with now; NULL without sign-in. */
const struct secret *mailbox_secret(const struct mailbox *m);

/* Ends trouble that was met before, when it is a probe that is signed in. */
void mailbox_signed_in(struct mailbox *m, const char *mechanism);
/* A message was taken, which ends trouble; but not the wait of a sign-in that failed: it left on a
 * connection that was signed in before. */
void mailbox_delivered(struct mailbox *m, uint64_t now_ms, uint64_t wall_ms);
/* What a verdict of mailbox, upstream or network scope means for the mailbox. Only another pause
 * changes one that lasts. */
void mailbox_judge(struct mailbox *m, const struct verdict *v, enum client_stage stage,
                   const struct reply *reply, uint64_t now_ms, uint32_t jitter);
/* A message of `size` octets was refused as too large. */
void mailbox_learn_size(struct mailbox *m, uint64_t size, uint64_t now_ms);
/* Its upstream announces CHUNKING but refuses BDAT: DATA is used for a day. */
void mailbox_learn_no_bdat(struct mailbox *m, uint64_t now_ms);
/* Forgets wait and pause; the next try is a probe, and one is asked for, whether mail waits or not.
 */
void mailbox_resume(struct mailbox *m);
/* An operator's word that all is well again: that, and forgets what its upstream has taught and
 * the password as it was read. */
void mailbox_start_over(struct mailbox *m);
/* When its own state or its budget may allow more than now; SCHEDULE_NEVER when nothing is awaited.
 */
uint64_t mailbox_next_ms(const struct mailbox *m, uint64_t now_ms);
void mailbox_status(const struct mailbox *m, uint64_t now_ms, struct mailbox_status *out);

#endif
