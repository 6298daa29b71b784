/*
 * The system's file calls, with one of them failing, cut short, or being the last.
 *
 * Calls are counted when their kind is in `kinds`; number `at` (the first is 1) is hit. After a
 * stop every call but close() fails: to the program it is as if it had been killed, and what it
 * wrote so far is what a new one finds.
 */
#ifndef OUTTRAY_TESTS_FAULT_FILEOPS_H
#define OUTTRAY_TESTS_FAULT_FILEOPS_H

#include <stdbool.h>
#include <stdint.h>

#include "queue/fileops.h"

enum fault_kind {
    FAULT_OPEN = 1,
    FAULT_READ = 2,
    FAULT_WRITE = 4,
    FAULT_SYNC = 8,       /* fdatasync, fsync */
    FAULT_DIRECTORY = 16, /* sync_directory */
    FAULT_RENAME = 32,
    FAULT_UNLINK = 64,
    FAULT_OTHER = 128,
    FAULT_CHANGE = FAULT_OPEN | FAULT_WRITE | FAULT_SYNC | FAULT_DIRECTORY | FAULT_RENAME |
                   FAULT_UNLINK | FAULT_OTHER,
    FAULT_ANY = 255
};

enum fault_mode {
    FAULT_STOP,    /* this one still works, nothing after it does */
    FAULT_TEAR,    /* a write that ends half way, and nothing after it works */
    FAULT_FAIL,    /* this one fails with errnum */
    FAULT_FAIL_ON, /* this one and all later ones of these kinds */
    FAULT_SHORT    /* a read or write does half of it; others work */
};

struct fault {
    struct fileops ops; /* give this to the queue */
    enum fault_mode mode;
    unsigned kinds;
    uint64_t at; /* 0: never */
    int errnum;
    uint64_t calls;
    bool stopped;
};

void fault_init(struct fault *f);
/* Counts from 0 again. */
void fault_set(struct fault *f, enum fault_mode mode, unsigned kinds, uint64_t at, int errnum);

#endif
