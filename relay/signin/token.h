/*
 * When a sign-in fetches its next token, and which token a mailbox may use. Pure; time is an
 * argument.
 *
 * struct token is one sign-in's, however many mailboxes and connections share it. A token is
 * fetched ahead of need, always, so that mail never waits for it and trouble shows early: ten
 * minutes before the old one ends, or at half its life when that is shorter than twenty. One
 * request is under way at a time. The old token stays in use for as long as it lives, whatever the
 * endpoint says meanwhile. Failures wait longer each time; those that need a person are probed
 * every 15 to 60 minutes, or not at all where each try counts against the account. A refresh token
 * is not used before it is durable, and is used at least once a week.
 *
 * struct token_user is one mailbox's share: a token that the mail service refuses is replaced once,
 * for the mailbox that it was refused for; when the fresh one is refused as well, that mailbox is
 * paused and probed, each time with a token made after the last refusal. The others go on.
 *
 * Monotonic ms drive all of this. The wall clock serves for what is kept across restarts and for
 * what the protocol says, corrected by what the endpoint's own clock has shown (struct
 * token_clock). `jitter` is any random number.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_TOKEN_H
#define OUTTRAY_RELAY_SIGNIN_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "relay/signin/oauth_errors.h"

#define TOKEN_LEAD_MS       (10 * 60 * 1000u) /* before the end */
#define TOKEN_SHORT_MS      (20 * 60 * 1000u) /* lives below it are renewed at their half */
#define TOKEN_MARGIN_MS     5000u             /* of life that a token needs to be handed out */
#define TOKEN_PROBE_MIN_MS  (15 * 60 * 1000u)
#define TOKEN_PROBE_MAX_MS  (60 * 60 * 1000u)
#define TOKEN_RETRY_MIN_MS  5000u
#define TOKEN_RETRY_MAX_MS  (5 * 60 * 1000u)
#define TOKEN_WAIT_MAX_MS   (60 * 60 * 1000u) /* of a wait that the service asks for */
#define TOKEN_KEEPALIVE_MS  (6 * 86400 * 1000ull)
#define TOKEN_WARN_DAYS     30
#define TOKEN_CLOCK_SLACK_S 120 /* a clock that is off by less is right */
#define TOKEN_NEVER         UINT64_MAX

enum token_state {
    TOKEN_READY,   /* nothing is wrong with fetching */
    TOKEN_WAITING, /* to fetch again by itself */
    TOKEN_PAUSED,  /* a person must act; probed */
    TOKEN_HALTED,  /* a person must act; not probed */
    TOKEN_LOGIN,   /* a person must sign in; probed when there is something to probe with */
    TOKEN_STATES
};

struct token {
    enum token_state state;
    uint64_t generation; /* of the token we hold, counted from 1; 0 = none */
    uint64_t ends_ms;
    uint64_t margin_ms;    /* of life that it needs to be handed out */
    uint64_t renew_ms;     /* fetch the next one then */
    uint64_t keepalive_ms; /* use the refresh token by then; TOKEN_NEVER without one */
    uint64_t next_try_ms;  /* not before, after a failure */
    uint64_t failing_since_ms;
    uint32_t failures; /* in a row */
    bool by_refresh;   /* it is fetched with a refresh token */
    bool has_refresh;
    bool refresh_unsaved; /* not yet durable */
    bool in_flight;
    bool renew_now;     /* somebody needs a fresh one */
    bool clock_retried; /* since the last success */
};

/* What a token was when it was written down. Wall times in seconds, corrected. */
struct token_kept {
    bool has_access;
    bool has_refresh;
    uint64_t ends_s;
    uint32_t life_s;
    uint64_t used_s; /* the refresh token's last use */
};

/* by_refresh: it needs a refresh token, which only a person's sign-in gives. */
void token_init(struct token *t, bool by_refresh);
/* After a restart. A time that cannot be right makes a token's life shorter, never longer. */
void token_restore(struct token *t, const struct token_kept *kept, uint64_t now_ms,
                   uint64_t wall_s);

bool token_is_usable(const struct token *t, uint64_t now_ms);
/* True when a request should start now. */
bool token_wants_fetch(const struct token *t, uint64_t now_ms);
/* When the next request will start if nothing happens; TOKEN_NEVER when a person must act. */
uint64_t token_next_ms(const struct token *t);
void token_asked(struct token *t);

struct token_gift {
    uint64_t asked_ms; /* when the request left */
    uint32_t life_s;
    bool refresh_came; /* a new refresh token, which is not durable yet */
};

void token_given(struct token *t, const struct token_gift *gift, uint32_t jitter);
/* The newest refresh token is on disk. */
void token_saved(struct token *t);

struct token_denial {
    enum oauth_action action;
    uint64_t wait_s;      /* at least, as our table or the service says */
    bool clock_was_wrong; /* the request was signed with a time that we now know to be wrong */
};

void token_denied(struct token *t, const struct token_denial *denial, uint64_t now_ms,
                  uint32_t jitter);
/* A person has acted: tried at once. */
void token_retry(struct token *t);
const char *token_state_name(enum token_state state);

/* ---- One mailbox's share ---- */

struct token_user {
    uint64_t refused_generation; /* tokens up to this one are of no use to it */
    uint32_t refusals;           /* in a row */
    uint64_t probe_ms;           /* not before, after two refusals */
};

enum token_turn {
    TOKEN_USE,  /* the token we hold */
    TOKEN_WAIT, /* for one that is being fetched, or will be as soon as the sign-in may */
    TOKEN_STOP  /* paused until probe_ms */
};

/* May ask the sign-in for a fresh token. */
enum token_turn token_user_turn(const struct token_user *u, struct token *t, uint64_t now_ms);
/* The mail service has refused the token of that generation. Returns what comes next: TOKEN_WAIT or
 * TOKEN_USE (a fresh one, once) or TOKEN_STOP. */
enum token_turn token_user_refused(struct token_user *u, struct token *t, uint64_t generation,
                                   uint64_t now_ms, uint32_t jitter);
void token_user_accepted(struct token_user *u);

/* ---- The wall clock ---- */

struct token_clock {
    int64_t ahead_s; /* the endpoint's clock before ours; 0 within TOKEN_CLOCK_SLACK_S */
};

/* date_s: the endpoint's Date, 0 when not said. True when the correction has changed. */
bool token_clock_learn(struct token_clock *c, uint64_t date_s, uint64_t wall_s);
uint64_t token_clock_now(const struct token_clock *c, uint64_t wall_s);

/* True from TOKEN_WARN_DAYS before end_s on. *out_days: full days left, 0 when it is over. */
bool token_warns(int64_t end_s, uint64_t now_s, unsigned *out_days);

#endif
