/*
 * A spool's files in memory, to be opened read-only: while `locked` is set, whatever would change a
 * file ends the program.
 */
#ifndef OUTTRAY_TESTS_FUZZ_MEMORY_SPOOL_H
#define OUTTRAY_TESTS_FUZZ_MEMORY_SPOOL_H

#include <stdbool.h>
#include <stddef.h>

#include "queue/bytes.h"
#include "queue/fileops.h"

#define MEMORY_FILES_MAX 8
#define MEMORY_PATH_MAX  96
#define MEMORY_FILE_MAX  ((size_t)8 << 20)

struct memory_file {
    char path[MEMORY_PATH_MAX];
    struct bytes data;
};

struct memory_spool {
    struct fileops ops; /* give this to the queue */
    struct memory_file files[MEMORY_FILES_MAX];
    size_t count;
    size_t opened; /* descriptors */
    bool locked;
};

void memory_init(struct memory_spool *m);
void memory_done(struct memory_spool *m);
/* Adds an empty file; its number is its descriptor as well. At most MEMORY_FILES_MAX. */
int memory_add(struct memory_spool *m, const char *path);

#endif
