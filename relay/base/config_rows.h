/*
 * The table behind the configuration: what sections there are and which keys they take.
 *
 * The rows themselves are config_rows() of config.h.
 */
#ifndef OUTTRAY_RELAY_BASE_CONFIG_ROWS_H
#define OUTTRAY_RELAY_BASE_CONFIG_ROWS_H

#include <stdbool.h>
#include <stddef.h>

#include "relay/base/config.h"

struct config_kind {
    const char *kind;
    bool named;
    const char *example; /* a name, for the sample file and for messages */
    const char *help;
};

/* In the order of the sample file; the keys of a section stand together in config_rows(). */
const struct config_kind *config_kinds(size_t *out_count);
const struct config_kind *config_kind_find(const char *kind);
const struct config_row *config_row_find(const char *section, const char *key);
bool config_row_is_list(const struct config_row *row);

#endif
