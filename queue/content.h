/*
 * Large mail data: a file of its own for each message, in blocks that verify by themselves.
 *
 * A file is a row of frames: length (4 octets), checksum (4), then that many octets of mail data,
 * CONTENT_BLOCK in every frame but the last. The checksum covers the message's id, the block's
 * number and the data, so that no block can stand for another.
 *
 * Everything here blocks and touches only its arguments. `dir` is the directory of the bodies.
 */
#ifndef OUTTRAY_QUEUE_CONTENT_H
#define OUTTRAY_QUEUE_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"
#include "queue/fileops.h"

#define CONTENT_BLOCK        65536u
#define CONTENT_FRAME        8u                   /* length and checksum */
#define CONTENT_WRITE_BACK   (256u * 1024u)       /* the kernel is asked to begin after this much */
#define CONTENT_PIECE_MIN    CONTENT_BLOCK        /* or, on a slow disk, after less */
#define CONTENT_UNSYNCED_MAX (4u * 1024u * 1024u) /* most that has not been synced */
#define CONTENT_NAME_MAX     22                   /* 16 hex digits, ".body", NUL */
#define CONTENT_PATH_MAX     4096

struct content_block {
    struct content_block *next;
    uint32_t len; /* of the data */
    uint8_t frame[CONTENT_FRAME + CONTENT_BLOCK];
};

/* A body being written. What arrives is written back at once and at most two pieces of it are on
 * their way to the disk: a fast device is held to the disk's pace, and the end has little to wait
 * for. Everybody else's flush waits behind what is on its way, so where a piece takes long, pieces
 * become smaller, and of several bodies one piece at a time is on its way; unless smaller ones take
 * as long. */
struct content_file {
    const struct fileops *ops;
    uint64_t id;
    int fd; /* -1 when closed */
    uint64_t blocks;
    uint64_t written; /* octets of the file */
    uint64_t started; /* of them, write-back has been asked for */
    uint64_t waited;  /* of them, write-back has been waited for */
    uint64_t synced;
    bool shared;         /* other bodies are written as well; the caller says so */
    uint32_t piece;      /* octets after which write-back is asked for */
    uint32_t piece_min;  /* smaller ones would not be quicker */
    uint64_t doubled_us; /* how long one twice as large took, when there was one just now; or 0 */
};

void content_path(const char *dir, uint64_t id, char out[CONTENT_PATH_MAX]);
bool content_parse_name(const char *name, uint64_t *out_id);

/* Makes the file, its name durable. */
bool content_create(struct content_file *f, const struct fileops *ops, const char *dir, uint64_t id,
                    struct error *err);
/* Appends blocks; all but the last of the file must be full. Writes the frames' first octets. */
bool content_write(struct content_file *f, struct content_block *first, struct error *err);
/* Makes everything durable and closes, also on failure. */
bool content_finish(struct content_file *f, struct error *err);
/* Closes without a promise. Does nothing when closed. */
void content_close(struct content_file *f);
/* Removes a body; one that is not there is no error. */
bool content_remove(const struct fileops *ops, const char *dir, uint64_t id, struct error *err);

/* Opens a body for reading: a descriptor, or -1. ERROR_DAMAGED when it is missing. */
int content_open(const struct fileops *ops, const char *dir, uint64_t id, struct error *err);
/* Reads block `number` of a body of `size` octets. ERROR_DAMAGED when it does not verify, ERROR_IO
 * when a part cannot be read, which is zeros then; in both cases block->len says how much of it
 * there is. */
bool content_read(const struct fileops *ops, int fd, uint64_t id, uint64_t size, uint64_t number,
                  struct content_block *block, struct error *err);

#endif
