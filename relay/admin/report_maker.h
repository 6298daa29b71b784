/*
 * One report in the making: reads messages, one after the other, holds what the report says of
 * them, writes it and puts it into the queue. For reports.c alone.
 *
 * Callbacks come from the loop, one at a time; only a report that cannot be begun is told from
 * within the call. report_maker_free() must not be called while one is owed, unless the queue's
 * work has been drained.
 */
#ifndef OUTTRAY_RELAY_ADMIN_REPORT_MAKER_H
#define OUTTRAY_RELAY_ADMIN_REPORT_MAKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/envelope.h"
#include "queue/queue.h"
#include "relay/admin/reports.h"
#include "relay/smtp/report.h"

struct report_maker;

/* NULL without memory. The settings are borrowed. */
struct report_maker *report_maker_new(const struct reports_settings *settings,
                                      enum report_kind kind, bool to_sender);
void report_maker_free(struct report_maker *m); /* accepts NULL */

/* Whether the message, whose envelope is borrowed for the call, goes into the report. */
typedef bool report_maker_judge_fn(void *ctx, const struct envelope *e);
/* `read` is false when it could not be read. */
typedef void report_maker_read_fn(void *ctx, uint64_t id, bool read, bool taken);
void report_maker_read(struct report_maker *m, uint64_t id, report_maker_judge_fn *judge,
                       report_maker_read_fn *done, void *ctx);
/* Takes a message whose envelope (with its recipients before and after an attempt) and beginning of
 * the header are at hand; REPORT_RELAYED only. False without memory. */
bool report_maker_add(struct report_maker *m, uint64_t id, const struct envelope *before,
                      const struct envelope *after, const void *header, size_t len);
/* False when no further message can be held. */
bool report_maker_has_room(const struct report_maker *m);
size_t report_maker_count(const struct report_maker *m);

/* id is 0 when it could not be stored; then err says why. */
typedef void report_maker_sent_fn(void *ctx, uint64_t id, const struct error *err);
/* Sends the report about what is held and `more` others; once more after it could not be stored. */
void report_maker_send(struct report_maker *m, const char *to, size_t more,
                       report_maker_sent_fn *done, void *ctx);

/* True when the report is about this recipient; to the sender only when it is to be told. */
bool report_maker_is_about(enum report_kind kind, bool to_sender, enum config_report how,
                           const struct recipient *r);
enum config_report report_maker_how(const struct config *c, const char *device);

#endif
