/*
 * What a server announces in its reply to EHLO (RFC 5321 4.1.1.1), as far as a client needs it.
 * Pure.
 *
 * Unknown keywords are ignored, as is what is no value of a known one.
 */
#ifndef OUTTRAY_RELAY_SMTP_EHLO_H
#define OUTTRAY_RELAY_SMTP_EHLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "relay/smtp/reply.h"

#define EHLO_GREETING_MAX 256
#define EHLO_AUTH_MAX     512

struct ehlo {
    char greeting[EHLO_GREETING_MAX]; /* the first line */
    bool pipelining;
    bool chunking;
    bool starttls;
    bool eight_bit_mime;
    bool smtputf8;
    bool dsn;
    bool has_size;
    uint64_t size; /* 0: no limit announced */
    bool has_auth;
    char auth[EHLO_AUTH_MAX]; /* mechanisms, a space between */
};

/* Forgets what out held and reads the reply that p has just finished. */
void ehlo_learn(struct ehlo *out, const struct reply_parser *p);
/* Writes the first of `wanted` (words, in order of preference) that the server offers. False when
 * it offers none of them, or when its name does not fit. */
bool ehlo_choose_mechanism(const struct ehlo *e, const char *wanted, char *out_name, size_t size);
/* The server does not know this mechanism after all. */
void ehlo_forget_mechanism(struct ehlo *e, const char *name);

#endif
