/*
 * A disk in memory behind a table of file calls, which knows at every moment what of it would
 * survive a loss of power, and makes disks of what might.
 *
 * Each file has what programs see and what was synced, and between them the list of writes since;
 * each directory likewise, with creations, renames and removals. An image is a new disk: what was
 * synced, with some choice of the rest. Two models say which choices there are:
 *
 * RECORDING_POSIX   A file's bytes survive only by a sync of the file: of what was written since,
 *                   each sector may be as it was at any moment, the size too, and what lies between
 *                   the synced size and the new one may be zeros or junk. A name survives only by a
 *                   sync of its directory: each change since may have happened or not, and of a
 *                   rename also both names may be there, or neither.
 * RECORDING_JOURNAL As ext4 with data=ordered. Names change in the order of the calls, and a sync
 * of a file or directory takes along all changes up to its own last one. Where a file has grown its
 * octets are written before its new size; where it was overwritten each sector may be as it was at
 * any moment.
 *
 * In both, a sector of RECORDING_SECTOR octets is written whole or not at all.
 */
#ifndef OUTTRAY_TESTS_RECORDING_FILEOPS_H
#define OUTTRAY_TESTS_RECORDING_FILEOPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/fileops.h"

#define RECORDING_SECTOR   512u
#define RECORDING_NAME_MAX 40
#define RECORDING_OPEN_MAX 64 /* descriptors at a time */

enum recording_model { RECORDING_POSIX, RECORDING_JOURNAL };

enum recording_kind {
    RECORDING_CREATE,
    RECORDING_WRITE,
    RECORDING_TRUNCATE,
    RECORDING_SYNC, /* fdatasync, fsync */
    RECORDING_SYNC_DIRECTORY,
    RECORDING_RENAME,
    RECORDING_UNLINK,
    RECORDING_MKDIR
};

/* A call that is about to change something. */
struct recording_call {
    enum recording_kind kind;
    const char *name; /* last part of the path; "" is the root */
    const char *to;   /* of a rename, else "" */
    bool made;        /* RECORDING_SYNC: the descriptor was opened with O_CREAT */
    bool at_end; /* RECORDING_SYNC: the file's last sector was overwritten since its last sync */
    bool zeros;  /* RECORDING_WRITE: nothing but zeros */
};

/* What becomes of the call. */
enum recording_answer {
    RECORDING_GO,
    RECORDING_LIE, /* of a sync: reports success and does nothing */
    RECORDING_FAIL /* of a sync: EIO; what was to be synced is on the disk or not, and as the kernel
                      takes it for clean now, no later sync brings it there */
};

struct recording_inode;

struct recording {
    struct fileops ops; /* give this to the queue */
    enum recording_model model;
    /* Called before each such call, when set: the moment to look at images. */
    enum recording_answer (*before)(void *ctx, struct recording *r,
                                    const struct recording_call *call);
    void *ctx;
    bool stopped; /* every call but close() fails: the program was killed */
    /* private */
    struct recording_inode *inodes;
    size_t inode_count;
    size_t inode_cap;
    uint64_t next_seq; /* of changes of names */
    struct {
        uint32_t inode; /* 0: free */
        bool made;
    } fds[RECORDING_OPEN_MAX];
};

/* An empty disk: a root and nothing in it. */
void recording_init(struct recording *r, enum recording_model model);
void recording_done(struct recording *r);

/* What was not synced: nothing of it, all of it, the names only, the octets only, or a choice. */
enum recording_image { IMAGE_SYNCED, IMAGE_ALL, IMAGE_NAMES, IMAGE_OCTETS, IMAGE_CHOICE };

/* Whether there is anything that was not synced. */
bool recording_unsynced_names(const struct recording *r);
bool recording_unsynced_octets(const struct recording *r);
/* Makes `out`, which must not be initialised, the disk that is found after a loss of power. `seed`
 * decides what a choice chooses. */
void recording_image(const struct recording *r, enum recording_image image, uint64_t seed,
                     struct recording *out);

/* Whether there is such a file or directory, and how many entries a directory has. */
bool recording_exists(const struct recording *r, const char *path);
size_t recording_entries(const struct recording *r, const char *path);

#endif
