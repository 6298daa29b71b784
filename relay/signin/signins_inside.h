/*
 * What the parts of signins share. Private to signins*.c.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_SIGNINS_INSIDE_H
#define OUTTRAY_RELAY_SIGNIN_SIGNINS_INSIDE_H

#include "relay/base/https.h"
#include "relay/base/secret.h"
#include "relay/signin/ask.h"
#include "relay/signin/grant.h"
#include "relay/signin/pkce.h"
#include "relay/signin/signins.h"
#include "relay/signin/token.h"
#include "relay/signin/token_store.h"

struct event;

/* What went wrong last; name NULL: nothing. */
struct signins_failure {
    struct oauth_advice advice;
    char said[ERROR_TEXT_MAX];
    char trace[GRANT_ERROR_MAX];
    char correlation[GRANT_ERROR_MAX];
    char how[SIGNINS_TEXT_MAX]; /* advice.how with the mailbox's name */
};

/* A person's attempt. */
struct attempt {
    enum signins_login_state state;
    struct ask *ask;
    struct grant_device_code device;
    uint64_t interval_ms;
    uint64_t poll_ms; /* the next question; TOKEN_NEVER */
    uint64_t ends_ms;
    char redirect_uri[GRANT_URL_MAX]; /* "" = by device code */
    char verifier[PKCE_TEXT];
    char expected[PKCE_TEXT]; /* state of the redirect */
    char who[CLAIMS_TEXT_MAX];
    struct signins_failure failure;
};

struct signin {
    struct signins *all;
    struct signin *next;
    struct signin_config config; /* of the first mailbox that has it */
    char *key;                   /* its name in the tokens' file */
    struct token token;
    struct token_clock clock;
    struct secret *access;
    struct secret *refresh;
    uint32_t life_s; /* of access */
    struct ask *ask; /* under way, for a token */
    struct attempt *attempt;
    uint64_t fetched_s;
    uint64_t login_s;
    uint64_t used_s;
    int64_t certificate_ends_s;
    uint32_t puts;          /* under way to the tokens' file */
    uint64_t save_again_ms; /* after a failure; TOKEN_NEVER */
    char store_trouble[ERROR_TEXT_MAX];
    struct signins_failure failure;
    uint64_t warned_day;
    uint32_t users;
};

struct signins_user {
    struct signin *signin; /* NULL: no OAuth */
    struct token_user share;
};

struct signins_request {
    struct signins *all;
    struct signins_request *next;
    uint64_t serial;
    size_t mailbox;
    signins_answered *answered;
    void *ctx;
};

struct signins {
    struct event_base *base;
    const struct clock *clock;
    struct executor executor;
    struct https *https;
    struct token_store *store;   /* NULL without sign-ins */
    char locked[ERROR_TEXT_MAX]; /* why the tokens' file is left alone; "" */
    struct signin *first;
    struct signins_user *users;
    size_t count;
    struct signins_request *requests; /* oldest first */
    uint64_t serial;
    struct event *serve;
    void (*on_ready)(void *ctx, size_t mailbox);
    void *ctx;
    bool stopped;
};

uint64_t signins_now_ms(const struct signin *s);
uint64_t signins_now_s(const struct signin *s); /* corrected */
/* Questions of any kind in the sign-in's name. */
struct ask *signins_ask(struct signin *s, const struct ask_settings *particulars,
                        ask_answered *answered, void *ctx);
/* Puts what a service gave in the place of what we had, and on disk. Takes what result owns. */
void signins_adopt(struct signin *s, struct ask_result *result, bool signed_in);
void signins_fail(const struct signin *s, struct signins_failure *f, const struct ask_result *r);
/* Requests are looked at from the loop soon. */
void signins_wake(struct signins *all);

/* signins_login.c */
void signins_login_tick(struct signin *s);
void signins_login_stored(struct signin *s,
                          bool ok); /* the tokens' file has what we hold, or not */
void signins_login_drop(struct signin *s);

/* signins_status.c */
void signins_warn(struct signin *s); /* logs what ends soon, once a day */

#endif
