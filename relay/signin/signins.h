/*
 * The OAuth sign-ins of all mailboxes: they fetch tokens ahead of need, keep them, and say why when
 * they cannot.
 *
 * Mailboxes of the same application (and, where a person or a service account signs in, the same
 * login) share one sign-in: one token, one request at a time. A mailbox asks with signins_get() for
 * each connection it opens, reports what the mail service made of the token with signins_accepted()
 * and signins_refused(), and shows signins_status(). What may be used when is relay/signin/token.h,
 * words for what goes wrong are relay/signin/oauth_errors.h.
 *
 * Nothing blocks: files are read and signatures made by the executor, the network is relay/base/
 * https.h. No socket, file or library is touched before the first signins_tick(), but for the
 * tokens' file, which is read when signins_new() is called, and only when there is a sign-in.
 * Callbacks come from the loop, never from within a call of ours; they may call anything but
 * signins_free(). Mailboxes are named by their position in the array that signins_new() was given.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_SIGNINS_H
#define OUTTRAY_RELAY_SIGNIN_SIGNINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"
#include "queue/executor.h"
#include "relay/base/clock.h"
#include "relay/signin/claims.h"
#include "relay/signin/jwt.h"
#include "relay/signin/token.h"

#define SIGNINS_TEXT_MAX 512
#define SIGNINS_URL_MAX  4096
#define SIGNINS_WARNINGS 3

struct event_base;
struct config;
struct signins;
struct signins_request;

enum signin_grant {
    SIGNIN_APP,    /* client credentials */
    SIGNIN_PERSON, /* refresh token, after signins_login_*() */
    SIGNIN_SERVICE /* Google service account */
};

/* All borrowed; texts are never NULL, "" where they do not apply. */
struct signin_config {
    const char *mailbox; /* name, for messages */
    enum signin_grant grant;
    const char *token_url;
    const char *device_url;    /* of SIGNIN_PERSON, "" = no device code */
    const char *authorize_url; /* of SIGNIN_PERSON, "" = no browser */
    const char *client_id;
    const char *scope;
    const char *login; /* of SIGNIN_PERSON and SIGNIN_SERVICE: who signs in */
    /* What the application proves itself with: a certificate, else a secret, else nothing. */
    const char *secret_file;
    struct jwt_source certificate; /* .key "" = none */
    enum jwt_style style;
    const char *service_file; /* of SIGNIN_SERVICE: Google's JSON key */
    const char *proxy;        /* see https.h */
    const char *ca_file;
    uint64_t secret_expires_s; /* since 1970; 0 = not known */
};

/* What a mailbox's section says. False when it has no OAuth; `out` is then all empty, which stands
 * for "none" in signins_settings, too. */
bool signin_config_of(const struct config *config, size_t mailbox, struct signin_config *out);

struct signins_settings {
    struct event_base *base;
    const struct clock *clock;
    struct executor executor;
    const char *directory; /* for the tokens' file: the spool's */
    /* One for each mailbox; mailbox "" = it has no OAuth. Copied, its texts are borrowed. */
    const struct signin_config *mailboxes;
    size_t count;
    /* A mailbox has a token again after trouble, or after a person signed in; may be NULL. */
    void (*on_ready)(void *ctx, size_t mailbox);
    void *ctx;
};

/* A damaged or locked tokens' file is logged and no reason to fail. NULL without memory, or when
 * the key for the file is unfit. */
struct signins *signins_new(const struct signins_settings *settings, struct error *err);
/* Ends what is under way and begins nothing more; answers nobody. Afterwards drain the executor,
 * then signins_free(). Accepts NULL. */
void signins_stop(struct signins *s);
/* Accepts NULL. */
void signins_free(struct signins *s);
/* To be called every second or so, and after the clock was moved. */
void signins_tick(struct signins *s);

/* Why there is no token. All texts are valid during the callback. */
struct signins_trouble {
    enum token_state
        state;         /* TOKEN_READY: paused, because the mail service refused a fresh token */
    uint64_t retry_ms; /* monotonic: ask again then; TOKEN_NEVER when a person must act first */
    const char *name;  /* for logs: "secret_expired" */
    const char *what;
    const char *who;
    const char *how;
    const char *said; /* by the token service, or by us; may be "" */
};

struct signins_token {
    const char *text;    /* valid during the callback */
    uint64_t generation; /* to be given back to signins_refused() */
    uint64_t ends_ms;    /* monotonic */
};

/* One of the two is NULL. */
typedef void signins_answered(void *ctx, const struct signins_token *token,
                              const struct signins_trouble *trouble);

/* The mailbox must have OAuth. Answered at once when there is a token or none can be hoped for
 * soon, else when the request under way has ended. NULL without memory. */
struct signins_request *signins_get(struct signins *s, size_t mailbox, signins_answered *answered,
                                    void *ctx);
void signins_cancel(struct signins_request *request); /* no callback follows; accepts NULL */

/* What to do after the mail service refused a token. */
enum signins_verdict {
    SIGNINS_TRY_AGAIN, /* signins_get() will have a fresh one: once */
    SIGNINS_PAUSE      /* it was a fresh one already; wait until *out_probe_ms */
};

enum signins_verdict signins_refused(struct signins *s, size_t mailbox, uint64_t generation,
                                     uint64_t *out_probe_ms);
void signins_accepted(struct signins *s, size_t mailbox);
/* A person says that it is mended ("outtray resume"): asks at once, forgets refusals. */
void signins_retry(struct signins *s, size_t mailbox);
/* True when there is, or was once, a token: until then a password may serve instead. */
bool signins_is_set_up(const struct signins *s, size_t mailbox);

/* ---- A person signs in ---- */

enum signins_login_state {
    SIGNINS_LOGIN_NONE,
    SIGNINS_LOGIN_ASKING,  /* the service for a code */
    SIGNINS_LOGIN_WAITING, /* for the person */
    SIGNINS_LOGIN_DONE,    /* and the tokens are on disk */
    SIGNINS_LOGIN_FAILED
};

/* Begins with a device code, instead of any earlier attempt. False (and err): this mailbox cannot.
 */
bool signins_login_device(struct signins *s, size_t mailbox, struct error *err);
/* Begins in a browser: out_url is the page to open, which comes back to redirect_uri. */
bool signins_login_browser(struct signins *s, size_t mailbox, const char *redirect_uri,
                           char out_url[SIGNINS_URL_MAX], struct error *err);
/* What came back: the redirect's query. False (and err) when it belongs to no attempt of ours. */
bool signins_login_redirect(struct signins *s, size_t mailbox, const char *query,
                            struct error *err);
void signins_login_cancel(struct signins *s, size_t mailbox);

/* Texts are valid until the next call. */
struct signins_login {
    enum signins_login_state state;
    const char *user_code;     /* of a device code, while waiting */
    const char *url;           /* to open */
    const char *complete_url;  /* with the code in it; may be "" */
    uint64_t ends_ms;          /* monotonic: the person's time is over */
    const char *who_signed_in; /* when done, as far as the token says */
    const char *name;          /* when failed, as in signins_trouble */
    const char *what;
    const char *how;
    const char *said;
};

void signins_login_status(const struct signins *s, size_t mailbox, struct signins_login *out);

/* ---- What to show ---- */

enum signins_warning_kind {
    SIGNINS_SECRET_ENDS,
    SIGNINS_CERTIFICATE_ENDS,
    SIGNINS_REFRESH_UNUSED /* 90 days without use end it */
};

struct signins_warning {
    enum signins_warning_kind kind;
    int64_t ends_s;
    unsigned days;  /* left */
    char text[200]; /* what ends when, and what to do */
};

/* Texts are valid until the next call. Monotonic ms end in _ms, wall seconds in _s; 0 = none or not
 * known. */
struct signins_status {
    bool has_oauth;
    const char *grant; /* "app", "person", "service account" */
    enum token_state state;
    bool has_token;
    uint64_t ends_ms; /* of the token */
    uint64_t next_ms; /* the next fetch; TOKEN_NEVER */
    bool fetching;
    uint64_t fetched_s;      /* last success */
    uint64_t login_s;        /* a person signed in */
    uint64_t refresh_used_s; /* last */
    int64_t certificate_ends_s;
    uint64_t secret_ends_s;
    int64_t clock_ahead_s; /* the token service's clock before ours; 0 = ours is right */
    uint32_t shared_by;    /* mailboxes */
    bool stored_sealed;
    const char *store_trouble; /* the tokens' file cannot be written: why; "" */
    /* The last failure; "" when the last fetch succeeded. */
    const char *name;
    const char *what;
    const char *who;
    const char *how;
    const char *said;
    const char *trace; /* ids that Microsoft's support asks for */
    const char *correlation;
    struct signins_warning warnings[SIGNINS_WARNINGS];
    size_t warning_count;
};

void signins_status(const struct signins *s, size_t mailbox, struct signins_status *out);
/* What the token we hold says. False when there is none, or it is opaque. */
bool signins_claims(const struct signins *s, size_t mailbox, struct claims *out);

#endif
