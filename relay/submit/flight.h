/*
 * One transaction as the client's machine (client_fsm.h) has it under way, and the ring of those
 * that are: from the oldest, to which the next reply belongs, to the newest, which alone may have
 * something left to send. Pure.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_FLIGHT_H
#define OUTTRAY_RELAY_SUBMIT_FLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"
#include "relay/smtp/ehlo.h"
#include "relay/submit/client_fsm.h"

/* The next command of a transaction; they leave in this order. */
enum flight_command { NEXT_NONE, NEXT_RSET, NEXT_MAIL, NEXT_RCPT, NEXT_DATA };

/* Nothing borrowed is looked at after CLIENT_RESULT, though replies may still be due then. */
struct flight {
    struct client_transaction tx;
    enum flight_command next;
    bool open;      /* CLIENT_RESULT is still to come */
    bool rset_due;  /* the reply to RSET comes first */
    bool refused;   /* MAIL was: what follows is read and ignored */
    bool data_sent; /* DATA, that is */
    bool lone_dot;  /* sent after a 354 that nobody needed */
    bool chunked;   /* BDAT instead of DATA */
    bool gathering; /* to leave whole: nothing has been sent */
    bool cleared;   /* the mark of one that gathers is durable */
    bool flown;     /* whole, chunk and all */
    bool mail_heard;
    uint64_t given; /* octets of mail data that the shell has handed in */
    size_t ask;     /* index of the next recipient to ask, then to hear of */
    size_t hear;
    size_t asked; /* how many */
    size_t heard;
    size_t accepted;
};

/* The first recipient at or behind i that is pending; the count when there is none. */
size_t flight_pending(const struct envelope *e, size_t i);

/* Each appends one command, for a server that offers these facts. */
void flight_say_mail(const struct flight *t, const struct ehlo *facts, struct bytes *out);
void flight_say_rcpt(struct flight *t, const struct ehlo *facts, struct bytes *out);
void flight_say_bdat(const struct flight *t, struct bytes *out);

/* ---- those under way ------------------------------------------------------------------------- */

struct flights {
    struct flight list[CLIENT_FLIGHTS_MAX];
    size_t first;
    size_t count;
};

/* NULL when there is none. */
struct flight *flights_oldest(struct flights *f);
struct flight *flights_newest(struct flights *f);
/* Counted from the oldest. */
struct flight *flights_at(struct flights *f, size_t i);
/* There must be room. */
struct flight *flights_add(struct flights *f, const struct flight *t);
void flights_drop_oldest(struct flights *f);
void flights_drop_newest(struct flights *f);

#endif
