/*
 * The mistakes of a configuration, gathered so that a person sees all of them at once, by line.
 *
 * At most CONFIG_MISTAKES_MAX are kept, the rest is counted. Without memory a mistake is still
 * counted, so that config_mistakes_any() is always right.
 */
#ifndef OUTTRAY_RELAY_BASE_CONFIG_MISTAKES_H
#define OUTTRAY_RELAY_BASE_CONFIG_MISTAKES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define CONFIG_MISTAKE_TEXT_MAX 640

struct config_mistake;

struct config_mistakes {
    struct config_mistake *list;
    size_t kept;
    size_t count;
};

void config_mistakes_init(struct config_mistakes *m);
void config_mistakes_done(struct config_mistakes *m);
/* Line 0 is the file as a whole; those come last. */
void config_mistakes_add(struct config_mistakes *m, unsigned line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool config_mistakes_any(const struct config_mistakes *m);
/* Writes "FILE:LINE: text" lines in the order of the file. */
void config_mistakes_write(struct config_mistakes *m, const char *file, FILE *out);

/* The word of `words` that `word` was probably meant to be, or NULL. Small edit distance, where
 * the case of letters and '-' for '_' cost nothing. */
const char *config_mistakes_nearest(const char *word, const char *const *words, size_t count);

#endif
