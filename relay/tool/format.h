/*
 * Words, numbers and tables for people. Pure but for the stream that is written to.
 *
 * Whatever came from the network is made printable first: control characters of both sets and
 * those that turn the direction of text become '?'.
 */
#ifndef OUTTRAY_RELAY_TOOL_FORMAT_H
#define OUTTRAY_RELAY_TOOL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define FORMAT_TEXT    64
#define FORMAT_WIDTH   78 /* of wrapped text */
#define FORMAT_COLUMNS 8
#define FORMAT_CELL    256 /* octets; longer cells are cut */

/* "812 B", "1.2 MB", "35 MB": see queue_size_text(). */
void format_size(double octets, char out[FORMAT_TEXT]);
/* "12 s", "3 min 20 s", "2 h 5 min", "4 d 3 h". */
void format_span(double seconds, char out[FORMAT_TEXT]);
/* "1,234,567" */
void format_count(double count, char out[FORMAT_TEXT]);
/* An ISO 8601 UTC time as local time: "08:12" when it is of the same day as now, "3 May 08:12" when
 * of the same year, else "3 May 2023 08:12"; "" for what is no time. */
void format_time(const char *iso, int64_t now, char out[FORMAT_TEXT]);
/* Copies text, made printable and cut to size with "..." at most; never splits a character. */
void format_clean(const char *text, char *out, size_t size);
/* As format_clean(), cut to so many characters on the screen. */
void format_fit(const char *text, size_t width, char *out, size_t size);
/* Characters on the screen, as far as one per code point is right. */
size_t format_width(const char *text);
/* Writes text in lines of FORMAT_WIDTH, the first after `first`, others after as many blanks. */
void format_wrap(FILE *out, const char *first, const char *text);
/* "Label       text", wrapped; nothing when there is no text. */
void format_line(FILE *out, const char *label, const char *text);

/* Rows are held until they are written, so that their columns align. */
struct format_row {
    char cells[FORMAT_COLUMNS][FORMAT_CELL];
    char note[FORMAT_CELL * 2]; /* on a line of its own below, or "" */
};

struct format_table {
    const char *const *titles; /* ended by NULL; a leading '>' aligns right */
    struct format_row *rows;
    size_t count;
    size_t cap;
    size_t widths[FORMAT_COLUMNS]; /* never shrink, so that pages of one list align */
    bool titled;
};

void format_table_init(struct format_table *t, const char *const *titles);
/* A new, empty row to fill; valid until the next. NULL without memory. */
struct format_row *format_table_row(struct format_table *t);
/* Writes the titles, the first time, and the rows, and forgets the rows. */
void format_table_write(struct format_table *t, FILE *out);
void format_table_done(struct format_table *t);

#endif
