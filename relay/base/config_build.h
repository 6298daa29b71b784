/*
 * From the sections of a file to struct config: each section gets its struct, each key its field.
 *
 * The first half of reading a configuration; config_check.h is the second. Mistakes are gathered,
 * and reading goes on behind each of them.
 */
#ifndef OUTTRAY_RELAY_BASE_CONFIG_BUILD_H
#define OUTTRAY_RELAY_BASE_CONFIG_BUILD_H

#include <stdbool.h>
#include <stddef.h>

#include "relay/base/config.h"
#include "relay/base/config_mistakes.h"
#include "relay/base/config_reader.h"
#include "relay/base/config_rows.h"

/* A section of the file, the kind it is of, and the struct that takes its values. */
struct config_target {
    const struct config_section *section;
    const struct config_kind *kind; /* NULL when the section is not to be read */
    void *fields;
};

struct config_builder {
    struct config *c;
    struct config_document doc;
    struct config_mistakes m;
    struct config_target *targets; /* as many as doc has sections */
    bool no_memory;                /* reported; c may have NULL strings and is of no use */
};

/* Fills b->c->providers from b->doc, where nothing but [provider NAME] may stand. Goes before
 * config_build() of the same b->c. */
void config_build_presets(struct config_builder *b);
/* Fills b->c and b->targets from b->doc. Routes of the file are there, but name no mailboxes yet.
 */
void config_build(struct config_builder *b);
/* Adds one more listener or route of that kind, at its defaults. Room for one of each is there. */
void *config_build_extra(struct config_builder *b, const char *kind, const char *name);

bool config_build_is(const struct config_target *t, const char *kind);
bool config_build_is_name(const char *name);
/* Replaces a text field by a copy. */
void config_build_text(struct config_builder *b, char **field, const char *text);
void config_build_no_memory(struct config_builder *b);

/* The first value of a key as written, or NULL. */
const char *config_build_value(const struct config_section *s, const char *key);
/* The line of a key, or that of its section. */
unsigned config_build_line(const struct config_section *s, const char *key);

#endif
