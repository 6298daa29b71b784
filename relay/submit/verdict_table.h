/*
 * The rows behind verdict.h, and nothing else. Private to it.
 *
 * The first row that matches counts, so a row for a sentence stands before the row for its code. A
 * row matches when the stage is in its mask, its code agrees (0: any; 4 or 5: of that class), and,
 * where it has enhanced codes or words, at least one of either is found. The verdict's scope,
 * reusable and waits are completed by verdict_of().
 */
#ifndef OUTTRAY_RELAY_SUBMIT_VERDICT_TABLE_H
#define OUTTRAY_RELAY_SUBMIT_VERDICT_TABLE_H

#include <stddef.h>

#include "relay/submit/verdict.h"

struct verdict_row {
    unsigned stages; /* 1 << enum client_stage, or'ed */
    unsigned code;
    const char *enhanced; /* "5.1.1 5.7.501-503": separated by spaces, with ranges; or NULL */
    const char *words;    /* "one sentence|another": parts of the text in any case; or NULL */
    struct verdict verdict;
};

struct verdict_local_row {
    unsigned stages;
    enum local_failure local;
    struct verdict verdict;
};

extern const struct verdict_row verdict_rows[];
extern const size_t verdict_row_count;
/* For what verdict_rows do not know; the last one of either class matches at any stage. */
extern const struct verdict_row verdict_default_rows[];
extern const size_t verdict_default_row_count;
/* Every local failure has a row for any stage. */
extern const struct verdict_local_row verdict_local_rows[];
extern const size_t verdict_local_row_count;

#endif
