/*
 * What was said in one session, for people: both sides, line by line, in bounded memory, and
 * without secrets. Pure.
 *
 *      0.000 -- 192.168.1.21 on listener office
 *      0.001 << 220 relay.example.com ESMTP
 *      0.012 >> EHLO copier
 *      ...
 *      0.040 >> AUTH LOGIN (8 octets hidden)
 *      0.041 << 334 UGFzc3dvcmQ6
 *      0.044 >> (24 octets hidden)
 *      ...
 *      3.852 >> (2400178 octets of mail data in 3.8 s)
 *
 * ">>" is the device, "<<" the relay, "--" a note: TLS, silence, the end. Control and non-ASCII
 * octets are shown as \xNN; a line is cut at TRANSCRIPT_LINE_MAX, mail data is only counted. The
 * first half and the newest lines are kept, with a note of how many were left out between.
 *
 * A line is masked before it is stored, and it is looked at when it is whole, so that it does not
 * matter how it came in pieces. Masked are the parameters of AUTH behind a mechanism that is known,
 * and from there on every line until AUTH has been answered by something else than 334. As devices
 * send credentials as commands when a sign-in fails, from the first AUTH on a line that is no known
 * command is masked, and so is what stands behind those commands that need nothing there; after a
 * failed AUTH also the name behind HELO and EHLO. Of a line that is no known command nothing but a
 * first word of letters is shown even before that.
 */
#ifndef OUTTRAY_RELAY_INTAKE_TRANSCRIPT_H
#define OUTTRAY_RELAY_INTAKE_TRANSCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRANSCRIPT_MAX      8192 /* octets of text, with NUL */
#define TRANSCRIPT_LINE_MAX 160  /* octets of what is shown of one line */

struct transcript;

/* began_ms is monotonic. Takes some hundred octets and grows as it is filled. NULL without memory;
 * all functions accept NULL and then do nothing, for a session goes on without a transcript. */
struct transcript *transcript_new(uint64_t began_ms);
void transcript_free(struct transcript *t);

/* What the device sent while the state machine read commands, or an answer to AUTH; cut anyhow, but
 * in the order in which it was answered. */
void transcript_heard(struct transcript *t, const void *data, size_t len, uint64_t now_ms);
/* Mail data: counted, shown as one line when something else follows. */
void transcript_mail_data(struct transcript *t, size_t len, uint64_t now_ms);
/* A reply, one or more whole lines. Its code steers the masking. */
void transcript_said(struct transcript *t, const void *text, size_t len, uint64_t now_ms);
/* A remark of ours; never of what was heard. */
void transcript_note(struct transcript *t, const char *text, uint64_t now_ms);

/* The text so far, lines ending in LF, the line that has no end yet as the last one; valid until
 * the next call. Never NULL. */
const char *transcript_text(struct transcript *t);
/* True when the device said something: a session worth keeping. */
bool transcript_is_worth_keeping(const struct transcript *t);

#endif
