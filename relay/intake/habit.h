/*
 * How often a device sends mail, and whether it has gone quiet by its own habit. Pure.
 *
 * What counts is the silence between mails, as of the newest mail and HABIT_WINDOW_MS back. The
 * longest usual one is the second longest there was, so that one holiday is no habit; but the
 * longest itself when it takes more than half of the time that is looked at, for that is no
 * exception. The device has gone quiet when it has been silent for twice as long, never less than
 * HABIT_QUIET_MIN_MS. No habit is known before HABIT_LEARN_MS and HABIT_MAILS_MIN mails, and a
 * silence longer than HABIT_WINDOW_MS begins a new one.
 *
 * In bounded memory: the gaps between mails are sorted into classes, each twice as long as the one
 * before, and of each class the two newest are kept. Mails that come in one burst are one; of a
 * stream without gaps each HABIT_GAP_MIN_MS counts as a mail. Times are of the wall clock; one that
 * was set back counts as no gap, and what it said of the time ahead is not counted until then.
 */
#ifndef OUTTRAY_RELAY_INTAKE_HABIT_H
#define OUTTRAY_RELAY_INTAKE_HABIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HABIT_CLASSES      17              /* from HABIT_GAP_MIN_MS to HABIT_WINDOW_MS */
#define HABIT_GAP_MIN_MS   UINT64_C(60000) /* shorter ones are one burst */
#define HABIT_WINDOW_MS    (UINT64_C(91) * 24 * 3600 * 1000)
#define HABIT_LEARN_MS     (UINT64_C(14) * 24 * 3600 * 1000)
#define HABIT_QUIET_MIN_MS (UINT64_C(2) * 3600 * 1000)
#define HABIT_MAILS_MIN    6
#define HABIT_TEXT_MAX     1536

struct habit_gap {
    uint64_t ended_ms; /* 0 = none */
    uint64_t gap_ms;
};

struct habit {
    uint64_t first_ms; /* mail of this habit; 0 = none */
    uint64_t last_ms;
    uint64_t counted_ms;                     /* the newest mail that was counted */
    uint64_t mails;                          /* bursts counted once */
    struct habit_gap gaps[HABIT_CLASSES][2]; /* the newest two of each class, the newest first */
};

/* One more mail. */
void habit_mail(struct habit *h, uint64_t wall_ms);
/* The longest silence that is usual; 0 = not known yet. */
uint64_t habit_usual_ms(const struct habit *h);
/* It has been silent for longer than its habit explains. */
bool habit_is_quiet(const struct habit *h, uint64_t wall_ms);

/* As one line of text, for storage. */
void habit_encode(const struct habit *h, char out[HABIT_TEXT_MAX]);
/* False, and h empty, when it is none. */
bool habit_decode(struct habit *h, const char *text);

#endif
