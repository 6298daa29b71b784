/*
 * The API's answers as pages for people. Pure but for the stream that is written to.
 */
#ifndef OUTTRAY_RELAY_TOOL_PAGE_H
#define OUTTRAY_RELAY_TOOL_PAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <cjson/cJSON.h>

#include "relay/tool/format.h"

/* now: seconds since 1970, to leave out today's date. */
void page_status(FILE *out, const cJSON *status, int64_t now);
/* Only the mailboxes that cannot be used at the moment. */
void page_unready(FILE *out, const cJSON *status);
void page_message(FILE *out, const cJSON *message, int64_t now);

/* A list, page by page. */
struct page_list {
    struct format_table table;
    char waits[FORMAT_CELL * 2]; /* said last: what a message waits for */
    uint64_t shown;
    uint64_t held;
    bool dead; /* a list of dead letters only */
    double octets;
};

void page_list_init(struct page_list *l);
void page_list_rows(struct page_list *l, FILE *out, const cJSON *page);
/* The last line: how many there are. */
void page_list_end(struct page_list *l, FILE *out, uint64_t total);

#endif
