/*
 * A shell for server_fsm without sockets and spool: performs the effects in memory and records what
 * the device heard and what would be in the spool. For tests.
 *
 * It checks the contract as it goes: effects come in a legal order, nothing is consumed while an
 * answer is due, no effect is left behind when all input is consumed, and what is said to have been
 * read is what was fed. A transcript is kept as session.c does.
 */
#ifndef OUTTRAY_TESTS_UNIT_SESSION_DRIVER_H
#define OUTTRAY_TESTS_UNIT_SESSION_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"
#include "queue/error.h"
#include "relay/intake/server_fsm.h"
#include "relay/intake/transcript.h"

#define DRIVER_WALL_MS   UINT64_C(1751623200000) /* Fri, 4 Jul 2025 10:00:00 +0000 */
#define DRIVER_LOGIN_MAX 4096
#define DRIVER_FIRST_ID  UINT64_C(0x4f2a)

struct session_driver {
    struct server_fsm *fsm;
    struct bytes sent;       /* what the device heard and nobody has taken yet */
    struct bytes content;    /* the message being stored, or the last one that was */
    struct bytes envelope;   /* of the last commit, encoded */
    struct bytes input;      /* not consumed */
    struct error open_fault; /* of the next such effect; kind ERROR_NONE: none */
    struct error store_fault;
    struct error commit_fault;
    struct transcript *transcript;
    size_t fed;  /* octets consumed ... */
    size_t told; /* ... and said to have been read */
    uint64_t next_id;
    unsigned opens;
    unsigned stores;
    unsigned commits; /* that succeeded */
    unsigned discards;
    bool securing;  /* STARTTLS was answered: what is fed is lost until driver_secured() */
    bool by_hand;   /* commits are not answered by the driver */
    bool has_login; /* AUTH LOGIN: login was said */
    char login[DRIVER_LOGIN_MAX];
    char mechanism[DRIVER_LOGIN_MAX];
    bool auth_unavailable; /* the next password cannot be checked */
    bool message_open;
    bool closed;
};

/* The one login that is right: what becomes of the session then. */
#define DRIVER_LOGIN    "camera"
#define DRIVER_PASSWORD "k7mpx3w9qd"
#define DRIVER_DEVICE   "gate-camera"

/* Settings that suit most tests. */
struct server_settings driver_settings(void);
void driver_init(struct session_driver *d, const struct server_settings *settings);
void driver_done(struct session_driver *d);
/* Lets the device send octets, and performs all that follows. */
void driver_feed(struct session_driver *d, const void *data, size_t len);
void driver_text(struct session_driver *d, const char *text);
#define DRIVER_TLS "TLSv1.3 TLS_AES_256_GCM_SHA384"

/* The TLS handshake is done. */
void driver_secured(struct session_driver *d);
/* Nothing comes for ms. */
void driver_silence(struct session_driver *d, uint64_t ms);
/* Answers the commit that waits (by_hand), and goes on with the input. */
void driver_committed(struct session_driver *d);
/* Hands out what the device has heard since the last call; valid until the next feed. */
const char *driver_heard(struct session_driver *d);

#endif
