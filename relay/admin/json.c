#include "relay/admin/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REPLACEMENT     "\xef\xbf\xbd" /* U+FFFD */
#define REPLACEMENT_LEN 3

bool json_put(cJSON *object, const char *key, cJSON *item)
{
    if (item == NULL)
        return false;
    if (cJSON_AddItemToObject(object, key, item))
        return true;
    cJSON_Delete(item);
    return false;
}

bool json_append(cJSON *array, cJSON *item)
{
    if (item == NULL)
        return false;
    if (cJSON_AddItemToArray(array, item))
        return true;
    cJSON_Delete(item);
    return false;
}

/* First bytes with the range of their second byte, after RFC 3629 section 4. */
static const struct {
    unsigned char first, last, second_min, second_max;
    size_t length;
} utf8_forms[] = {
    {0x01, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
    {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
    {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
};

static bool is_tail(unsigned char c)
{
    return c >= 0x80 && c <= 0xbf;
}

size_t json_utf8_length(const char *p, size_t len)
{
    const unsigned char *u = (const unsigned char *)p;

    for (size_t i = 0; len > 0 && i < sizeof(utf8_forms) / sizeof(utf8_forms[0]); i++) {
        size_t want = utf8_forms[i].length;

        if (u[0] < utf8_forms[i].first || u[0] > utf8_forms[i].last)
            continue;
        if (want == 1)
            return 1;
        if (len < want || u[1] < utf8_forms[i].second_min || u[1] > utf8_forms[i].second_max)
            return 0;
        for (size_t k = 2; k < want; k++)
            if (!is_tail(u[k]))
                return 0;
        return want;
    }
    return 0;
}

static bool is_utf8(const char *text, size_t len)
{
    size_t step;

    for (size_t i = 0; i < len; i += step) {
        step = json_utf8_length(text + i, len - i);
        if (step == 0)
            return false;
    }
    return true;
}

static void replace_invalid(const char *text, size_t len, char *out)
{
    for (size_t i = 0; i < len;) {
        size_t step = json_utf8_length(text + i, len - i);
        const char *from = step > 0 ? text + i : REPLACEMENT;
        size_t n = step > 0 ? step : REPLACEMENT_LEN;

        memcpy(out, from, n);
        out += n;
        i += step > 0 ? step : 1;
    }
    *out = '\0';
}

cJSON *json_text(const char *text)
{
    size_t len = strlen(text);
    cJSON *item;
    char *clean;

    if (is_utf8(text, len))
        return cJSON_CreateString(text);
    clean = malloc(len * REPLACEMENT_LEN + 1);
    if (clean == NULL)
        return NULL;
    replace_invalid(text, len, clean);
    item = cJSON_CreateString(clean);
    free(clean);
    return item;
}

bool json_put_text(cJSON *object, const char *key, const char *text)
{
    return json_put(object, key, json_text(text));
}

bool json_put_number(cJSON *object, const char *key, uint64_t number)
{
    return json_put(object, key, cJSON_CreateNumber((double)number));
}

bool json_put_flag(cJSON *object, const char *key, bool flag)
{
    return json_put(object, key, cJSON_CreateBool(flag));
}

bool json_put_null(cJSON *object, const char *key)
{
    return json_put(object, key, cJSON_CreateNull());
}

bool json_put_seconds(cJSON *object, const char *key, uint64_t ms)
{
    return json_put(object, key, cJSON_CreateNumber((double)ms / 1000.0));
}

void json_time_text(uint64_t wall_ms, char out[JSON_TIME_TEXT])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;

    if (gmtime_r(&seconds, &tm) == NULL ||
        strftime(out, JSON_TIME_TEXT, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        out[0] = '\0';
}

bool json_put_time(cJSON *object, const char *key, uint64_t wall_ms)
{
    char text[JSON_TIME_TEXT];

    if (wall_ms == 0)
        return json_put_null(object, key);
    json_time_text(wall_ms, text);
    return json_put_text(object, key, text);
}

const cJSON *json_get(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

const cJSON *json_first(const cJSON *object, const char *key)
{
    const cJSON *array = json_get(object, key);

    return cJSON_IsArray(array) ? array->child : NULL;
}

const char *json_get_text(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(json_get(object, key));

    return text != NULL ? text : "";
}

double json_get_number(const cJSON *object, const char *key)
{
    const cJSON *item = json_get(object, key);

    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

bool json_get_flag(const cJSON *object, const char *key)
{
    return cJSON_IsTrue(json_get(object, key));
}

bool json_get_null(const cJSON *object, const char *key)
{
    const cJSON *item = json_get(object, key);

    return item == NULL || cJSON_IsNull(item);
}
