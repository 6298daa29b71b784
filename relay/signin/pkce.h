/*
 * Proof Key for Code Exchange (RFC 7636, S256), and other random texts of a browser sign-in.
 *
 * OpenSSL lives in pkce.c.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_PKCE_H
#define OUTTRAY_RELAY_SIGNIN_PKCE_H

#include <stdbool.h>

#define PKCE_TEXT 44 /* 43 characters of 256 bits, and a NUL */

/* 256 random bits in base64url: a verifier, or a state. False when there are none to be had. */
bool pkce_random(char out[PKCE_TEXT]);
/* The challenge of a verifier: its SHA-256 in base64url. */
bool pkce_challenge(const char *verifier, char out[PKCE_TEXT]);
/* Compares without telling by its time where they differ. */
bool pkce_equal(const char *a, const char *b);

#endif
