/*
 * From the text of a configuration file to sections and their keys, with line numbers.
 *
 * inih splits the "key = value" lines. It is fed one line at a time, and what it would get wrong is
 * kept from it: as packaged it cuts lines at 200 octets and section names at 50, takes an indented
 * line for more of the value above, tells its handler no line number and says nothing of empty
 * sections. So this reader counts lines, reads the section lines itself, removes indentation, a
 * byte-order mark and carriage returns, and refuses lines over CONFIG_LINE_MAX and control
 * characters.
 *
 * Comments: lines that start with '#' or ';', and what follows blank and ';' behind a value.
 */
#ifndef OUTTRAY_RELAY_BASE_CONFIG_READER_H
#define OUTTRAY_RELAY_BASE_CONFIG_READER_H

#include <stdbool.h>
#include <stddef.h>

#include "relay/base/config_mistakes.h"

struct config_entry {
    char *key;
    char *value;
    unsigned line;
};

struct config_section {
    char *kind; /* "mailbox" of [mailbox office] */
    char *name; /* "office"; "" when there is none */
    unsigned line;
    struct config_entry *entries;
    size_t count;
};

struct config_document {
    struct config_section *sections;
    size_t count;
};

/* Fills doc with all that can be read, and adds what cannot to m. config_document_done() is due
 * either way. */
void config_reader_read(struct config_document *doc, const char *text, size_t len,
                        struct config_mistakes *m);
void config_document_done(struct config_document *doc);

#endif
