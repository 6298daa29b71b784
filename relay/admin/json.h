/*
 * Small helpers over cJSON, for those who build answers and those who read them. Pure.
 *
 * Putters add one member to an object and return false without memory, so that a shape is one
 * condition; texts that are not valid UTF-8 are made so, byte by byte, with U+FFFD. Getters never
 * fail: what is absent or of another type is "", 0 or false.
 */
#ifndef OUTTRAY_RELAY_ADMIN_JSON_H
#define OUTTRAY_RELAY_ADMIN_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#define JSON_TIME_TEXT 32

/* Takes item, also on failure; false when it is NULL. */
bool json_put(cJSON *object, const char *key, cJSON *item);
bool json_append(cJSON *array, cJSON *item);
bool json_put_text(cJSON *object, const char *key, const char *text);
bool json_put_number(cJSON *object, const char *key, uint64_t number);
bool json_put_flag(cJSON *object, const char *key, bool flag);
/* A wall time in ms since 1970 as "2024-05-06T07:08:09Z"; null when it is 0. */
bool json_put_time(cJSON *object, const char *key, uint64_t wall_ms);
/* A span given in ms, as seconds: 12.5. */
bool json_put_seconds(cJSON *object, const char *key, uint64_t ms);
bool json_put_null(cJSON *object, const char *key);

/* A string item of `text` with everything that is not UTF-8 replaced; NULL without memory. */
cJSON *json_text(const char *text);
/* Writes "2024-05-06T07:08:09Z". */
void json_time_text(uint64_t wall_ms, char out[JSON_TIME_TEXT]);
/* Length of the valid UTF-8 sequence that p starts with; 0 when there is none. */
size_t json_utf8_length(const char *p, size_t len);

const char *json_get_text(const cJSON *object, const char *key);
double json_get_number(const cJSON *object, const char *key);
bool json_get_flag(const cJSON *object, const char *key);
bool json_get_null(const cJSON *object, const char *key);    /* absent or null */
const cJSON *json_get(const cJSON *object, const char *key); /* NULL when absent */
/* The first item of an array member, to be followed by its `next`; NULL when it is empty or absent.
 */
const cJSON *json_first(const cJSON *object, const char *key);

#endif
