/*
 * A spool in a directory of its own, for tests: opened and reopened with any file table, with short
 * ways to put messages in, send them and look. Failures of set-up end the test program.
 */
#ifndef OUTTRAY_TESTS_SPOOL_FIXTURE_H
#define OUTTRAY_TESTS_SPOOL_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"
#include "queue/queue.h"
#include "tests/unit/inline_executor.h"

#define FIXTURE_WALL 1700000000000u

struct spool_fixture {
    char dir[64]; /* the spool's */
    struct inline_executor executor;
    struct queue_options options;
    struct queue *queue;
    struct queue_recovery found;
    uint64_t now_ms;
};

/* Makes the directory; opens nothing. */
void fixture_init(struct spool_fixture *f);
/* Closes and removes everything. */
void fixture_done(struct spool_fixture *f);
bool fixture_open(struct spool_fixture *f, struct error *err);
void fixture_close(struct spool_fixture *f);
/* As after kill -9: a copy of the directory as it is now is opened instead, and the old queue is
 * closed only to free its memory. */
void fixture_crash(struct spool_fixture *f);
void fixture_run(struct spool_fixture *f);
/* Ticks, a second apart, and runs. */
void fixture_tick(struct spool_fixture *f, unsigned times);

/* What a callback said. */
struct fixture_result {
    unsigned calls;
    bool ok;
    uint64_t id;
    struct error error;
};

void fixture_committed(void *ctx, uint64_t id, const struct error *err); /* queue_commit_fn */
void fixture_done_fn(void *ctx, const struct error *err);                /* queue_done_fn */

/* An envelope with `recipients` recipients of the route "main". */
void fixture_envelope(struct envelope *e, size_t recipients);
/* Fills data with octets that depend on the seed. */
void fixture_fill(uint8_t *data, size_t len, uint64_t seed);
/* Begins and appends, obeying the flow. NULL when refused. */
struct queue_writer *fixture_write(struct spool_fixture *f, size_t size, uint64_t seed);
/* Accepts one message, running the executor; *out_result tells how it ended. */
uint64_t fixture_accept_to(struct spool_fixture *f, size_t size, uint64_t seed, size_t recipients,
                           struct fixture_result *out_result);
/* The same, and it must succeed. */
uint64_t fixture_accept(struct spool_fixture *f, size_t size, uint64_t seed);

/* Reads a message back. */
struct fixture_mail {
    struct envelope envelope;
    struct bytes data;
    struct error error; /* of opening or of the first read that failed */
    bool opened;
};

void fixture_read(struct spool_fixture *f, uint64_t id, struct fixture_mail *out);
void fixture_mail_done(struct fixture_mail *mail);
/* Whether the message reads back as it was made. */
bool fixture_intact(struct spool_fixture *f, uint64_t id, size_t size, uint64_t seed);

/* Picks the next message of the route "main". */
bool fixture_pick(struct spool_fixture *f, struct queue_info *out_info);
/* Settles a leased message of one recipient. */
void fixture_settle(struct spool_fixture *f, uint64_t id, enum queue_state state,
                    enum recipient_state recipient, uint64_t wait_ms,
                    struct fixture_result *out_result);
/* The same, with a callback of one's own. */
void fixture_settle_for(struct spool_fixture *f, uint64_t id, enum queue_state state,
                        enum recipient_state recipient, uint64_t wait_ms, queue_done_fn *done,
                        void *ctx);
size_t fixture_count(struct spool_fixture *f);

/* The path of a file of the spool, in a static buffer. `name` NULL: the n-th of the directory in
 * the order of names. */
const char *fixture_path(struct spool_fixture *f, const char *directory, size_t n);
size_t fixture_files(struct spool_fixture *f, const char *directory);
/* XORs an octet of a file; a negative offset counts from its end. */
void fixture_flip(const char *path, long offset, uint8_t bits);

#endif
