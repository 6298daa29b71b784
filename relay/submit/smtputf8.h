/*
 * Addresses beyond ASCII, and a server that does not offer SMTPUTF8 (RFC 6531). Pure.
 *
 * They cannot be said to it, and there is no other way of writing them: a recipient whose address
 * is one fails at once, the others are not concerned. When the reverse-path is one the whole
 * message fails. Both say so in words that a person can do something with.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_SMTPUTF8_H
#define OUTTRAY_RELAY_SUBMIT_SMTPUTF8_H

#include <stdbool.h>

#include "relay/submit/outcome.h"

/* For a server without SMTPUTF8: fails the pending recipients that cannot be said to it. True when
 * the others can be submitted; else stage and reply are the result of the attempt, as for
 * outcome_finish(). */
bool smtputf8_leave_out(struct outcome *o, const char *reverse_path, enum client_stage *out_stage,
                        struct reply *out_reply);

#endif
