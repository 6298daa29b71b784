/*
 * The client side of a submission session, as a pure state machine: events in, effects out.
 *
 * The shell (client.c) hands in what happened and performs effects, in order, until
 * client_fsm_next() says CLIENT_NOTHING. Links without sockets, TLS, SASL or spool.
 *
 * The way of a session: greeting, EHLO, STARTTLS (required unless the settings say implicit TLS),
 * EHLO again with everything learnt before forgotten (RFC 3207 4.2), AUTH, then any number of
 * transactions, QUIT. AUTH carries the first response when there is one that fits; LOGIN is asked
 * for once more without, if the server refuses that form, and the next mechanism
 * tried when one turns out not to be implemented (502). A server that does not offer STARTTLS
 * ends the session with LOCAL_TLS: there is no way on in clear.
 *
 * The way of a transaction: MAIL and every RCPT in one flight when PIPELINING is offered, else one
 * at a time; every reply is read. To a server that offers CHUNKING the mail data follows as one
 * chunk (BDAT LAST, RFC 3030) when a recipient was accepted, so a refusal costs no upload; to
 * others behind DATA, which flies with the recipients. If all recipients are refused but DATA got
 * 354, only the dot is sent (RFC 2920 3.1). Mail data is stuffed here where that is needed. The
 * last octets (of the chunk, or the end-of-data line) leave only after the in-doubt mark is durable
 * (CLIENT_DOUBT). The reply to them decides; nothing after it changes it.
 *
 * A small message goes in one flight whole, from MAIL to the end of its chunk, on a connection that
 * is warm: a chunk has succeeded on it, and it was not idle for long. If it is lost before any
 * reply was read, and in an orderly way, nothing was taken and the result is that of STAGE_IDLE;
 * else a loss is uncertain from the first octet on. When MAIL or every recipient is refused while
 * the chunk is in flight, the session ends behind the replies. A message that cannot be read, or
 * whose mark cannot be made, before any of it was sent ends alone: the session goes on.
 *
 * Up to settings.in_flight such flights may be under way, each uncertain for itself: the next one
 * is gathered as soon as the last has left (client_fsm_may_begin()). Everything else begins when
 * all are over. Replies belong to the oldest. When the session ends, each has its result, the
 * oldest first; those behind the one to which the server said its last word were not looked at
 * (STAGE_IDLE) if it ended in an orderly way, with 421 or by closing, and what had not left was not
 * sent (STAGE_IDLE too). Behind a refusal while the chunk was in flight nothing more leaves, and
 * the replies to what has left are read and believed, unless they show that the server has read the
 * chunk for commands: then all that is still under way is uncertain. Behind a refused chunk RSET
 * comes first, when the others are over; a 503 to the next MAIL before that says that the server
 * has kept the refused transaction open, with the same consequence.
 *
 * A server that does not know BDAT after all (500, 501, 502 or 504, not about the message, on a
 * connection where no chunk has succeeded) has not taken the message: the
 * result is that of STAGE_IDLE, the session ends, and client_fsm_lacks_bdat() tells.
 *
 * A reply that nothing asked for ends the session, and 421 does after it was used. A refusal before
 * the end of mail data is the reply to the data (STAGE_BODY); a success there is none.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_CLIENT_FSM_H
#define OUTTRAY_RELAY_SUBMIT_CLIENT_FSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/envelope.h"
#include "relay/smtp/reply.h"

#define CLIENT_BODY_MAX    ((size_t)128 * 1024) /* mail data handed in at once */
#define CLIENT_FLIGHT_MAX  ((size_t)64 * 1024)  /* mail data that goes in one flight whole */
#define CLIENT_FLIGHTS_MAX 4                    /* under way at one time */

/* Where in the session a reply or failure belongs; verdicts are looked up by it. */
enum client_stage {
    STAGE_CONNECT,
    STAGE_BANNER,
    STAGE_EHLO,
    STAGE_STARTTLS,
    STAGE_TLS,
    STAGE_AUTH,
    STAGE_IDLE,
    STAGE_MAIL,
    STAGE_RCPT,
    STAGE_DATA,      /* reply to DATA */
    STAGE_BODY,      /* mail data under way, its end not yet sent */
    STAGE_FINAL_DOT, /* end of mail data sent: any local failure here is uncertain */
    STAGE_QUIT,
    STAGE_COUNT
};

const char *client_stage_name(enum client_stage stage);
/* What the session is doing then: "waiting for the reply to MAIL". */
const char *client_stage_phrase(enum client_stage stage);
/* How long to wait for the peer in this stage, ms, per progress (RFC 5321 4.5.3.2). 0: no limit. */
uint64_t client_stage_timeout(enum client_stage stage);

struct client_settings {
    const char *helo;  /* EHLO argument */
    bool implicit_tls; /* the stream is secure from the start */
    bool needs_auth;
    bool held;              /* the sign-in waits for client_fsm_release() */
    bool no_chunking;       /* the server is known not to understand BDAT */
    uint32_t in_flight;     /* flights that may be under way, at most CLIENT_FLIGHTS_MAX; 0 is 1 */
    const char *mechanisms; /* SASL mechanisms we may use, in order of preference: "PLAIN LOGIN" */
};

/* One transaction. The envelope's DSN parameters are passed on to a server that offers DSN.
 * Borrowed until CLIENT_RESULT. Recipients that are not pending are skipped. */
struct client_transaction {
    const char *reverse_path;
    const struct envelope *envelope;
    /* Octets of mail data as it will be sent, before stuffing. 0: not known; then it goes by DATA.
     */
    uint64_t size;
    bool warm;   /* the connection has not been idle for long */
    void *owner; /* whose it is: comes with each effect that is about it */
};

enum client_effect_kind {
    CLIENT_NOTHING,    /* wait for the next event */
    CLIENT_SEND,       /* write data[0..len) */
    CLIENT_START_TLS,  /* start TLS, then client_fsm_secure() */
    CLIENT_SASL_START, /* text = the chosen mechanism: then client_fsm_sasl() with the initial
                          response */
    CLIENT_SASL_STEP,  /* data = decoded challenge: then client_fsm_sasl() with the response */
    CLIENT_READY,      /* signed in, and nothing is under way: client_fsm_begin() or
                          client_fsm_quit() */
    CLIENT_BODY,       /* hand in mail data: client_fsm_body() until client_fsm_body_end() */
    CLIENT_DOUBT,      /* make the in-doubt mark durable, then client_fsm_doubted() */
    CLIENT_RECIPIENT,  /* recipient `index` of the envelope was answered: reply, stage RCPT */
    CLIENT_RESULT,     /* the transaction ended: stage and reply decide for every pending recipient
                          that no CLIENT_RECIPIENT refused. CLIENT_READY follows when the session can
                          go on and nothing else is under way. STAGE_IDLE: the server took up none of
                          it */
    CLIENT_FAILED      /* the session ended: stage and reply. Comes after CLIENT_RESULT of whatever
                          was under way; with STAGE_QUIT it is the regular end. Close the stream */
};

struct client_effect {
    enum client_effect_kind kind;
    const uint8_t *data; /* valid until the next call of the machine */
    size_t len;
    const char *text;
    size_t index;
    void *owner; /* of the transaction: with BODY, DOUBT, RECIPIENT, RESULT */
    enum client_stage stage;
    const struct reply *reply; /* valid until the next call of the machine */
};

struct client_fsm;

/* Strings are copied. NULL without memory. */
struct client_fsm *client_fsm_new(const struct client_settings *settings);
void client_fsm_free(struct client_fsm *f); /* accepts NULL */

/* The next effect, in order. Call until CLIENT_NOTHING after every event. */
void client_fsm_next(struct client_fsm *f, struct client_effect *out);

/* Events. They may come while an effect is being performed. */
void client_fsm_connected(struct client_fsm *f); /* the stream is up, with implicit TLS secure */
void client_fsm_input(struct client_fsm *f, const uint8_t *data, size_t len); /* takes all of it */
void client_fsm_secure(struct client_fsm *f);
void client_fsm_release(struct client_fsm *f); /* see client_settings.held; before or after EHLO */
/* Response to CLIENT_SASL_START (response NULL: the mechanism is server-first, no initial response)
 * or CLIENT_SASL_STEP. The response is encoded and sent; the copy is wiped. */
void client_fsm_sasl(struct client_fsm *f, const void *response, size_t len);
void client_fsm_sasl_failed(struct client_fsm *f, const char *why); /* cancels AUTH: LOCAL_SECRET */
/* Whether this transaction may begin now: the session is idle, or it may be gathered behind those
 * that fly. */
bool client_fsm_may_begin(struct client_fsm *f, const struct client_transaction *tx);
void client_fsm_begin(struct client_fsm *f, const struct client_transaction *tx);
/* Mail data in CR LF form, at most CLIENT_BODY_MAX octets before CLIENT_SEND has been performed;
 * take care of back-pressure by not handing in more than is written. After the session's end it is
 * ignored, as are client_fsm_body_end() and client_fsm_doubted(): the reads of the shell may still
 * be under way. */
void client_fsm_body(struct client_fsm *f, const uint8_t *data, size_t len);
void client_fsm_body_end(struct client_fsm *f);
/* The message cannot be read (LOCAL_SPOOL) or sent to this server (LOCAL_CONTENT): the session is
 * dropped before the end of data, so nothing is accepted. When nothing was sent of it, it ends with
 * STAGE_IDLE, and the session goes on. */
void client_fsm_body_failed(struct client_fsm *f, enum local_failure failure, const char *why);
void client_fsm_doubted(struct client_fsm *f, bool ok);
/* Only while nothing is under way; else it does nothing. */
void client_fsm_quit(struct client_fsm *f);
/* The stream ended, or a timeout of ours; `failure` and text as for reply_local(). What was
 * received before still counts. */
void client_fsm_lost(struct client_fsm *f, enum local_failure failure, const char *why);
/* The same as LOCAL_LOST, when the peer has closed in an orderly way. */
void client_fsm_closed(struct client_fsm *f, const char *why);

enum client_stage client_fsm_stage(const struct client_fsm *f);
/* A small message could be under way beside the others, now or when the last of them has left. */
bool client_fsm_has_room(struct client_fsm *f);
/* Transactions whose last reply has not been read. */
size_t client_fsm_under_way(const struct client_fsm *f);
/* The newest of them is to leave whole, and has not left yet. */
bool client_fsm_gathers(struct client_fsm *f);
/* Whole replies read so far. */
uint64_t client_fsm_replies(const struct client_fsm *f);
/* What the server announced after TLS: the SIZE limit (0: none) and whether 8BITMIME is offered. */
uint64_t client_fsm_size_limit(const struct client_fsm *f);
bool client_fsm_has_8bitmime(const struct client_fsm *f);
bool client_fsm_has_smtputf8(const struct client_fsm *f);
bool client_fsm_has_dsn(const struct client_fsm *f);
/* It announced CHUNKING and refused BDAT. */
bool client_fsm_lacks_bdat(const struct client_fsm *f);
/* The first line of the EHLO reply: it shows the address by which the server sees us. Valid until
 * the next call of the machine. */
const char *client_fsm_greeting(const struct client_fsm *f);

#endif
