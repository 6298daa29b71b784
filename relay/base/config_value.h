/*
 * From the text of a value to the field that takes it, by the type of its row. Pure.
 *
 * On failure the field is untouched and err tells what is wrong and what to write instead, made to
 * be put behind "key = value: ".
 */
#ifndef OUTTRAY_RELAY_BASE_CONFIG_VALUE_H
#define OUTTRAY_RELAY_BASE_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"
#include "relay/base/config.h"

/* Text fields are freed and replaced; ranges are added to what is there. Rows of CONFIG_NAMES have
 * no field and must not be given. */
bool config_value_set(const struct config_row *row, const char *text, void *field,
                      struct error *err);

bool config_value_number(const char *text, uint64_t *out_value);
bool config_value_size(const char *text, uint64_t *out_octets);
bool config_value_time(const char *text, uint64_t *out_ms);
/* As short as it can be written exactly: "35MB", "90s", "0". */
void config_value_size_text(uint64_t octets, char *out, size_t size);
void config_value_time_text(uint64_t ms, char *out, size_t size);

/* A domain name of RFC 1123 letters, digits, '-' and dots, or an IP address. */
bool config_value_is_host(const char *text);
bool config_value_is_mail(const char *text);

/* The next item of a comma-separated list: moves *p behind it, copies it trimmed. False at the end;
 * an item that does not fit comes out empty. */
bool config_value_item(const char **p, char *out, size_t size);

#endif
