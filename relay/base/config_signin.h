/*
 * How mailboxes sign in: what follows from the keys that are given, and what is missing. Private to
 * the configuration.
 */
#ifndef OUTTRAY_RELAY_BASE_CONFIG_SIGNIN_H
#define OUTTRAY_RELAY_BASE_CONFIG_SIGNIN_H

#include "relay/base/config_build.h"

/* Completes and checks the sign-in of every mailbox, once all sections are read. */
void config_signin_check(struct config_builder *b);

#endif
