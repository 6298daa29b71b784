#include "relay/signin/claims.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "relay/signin/grant.h"
#include "relay/smtp/base64.h"

#define NUMBER_MAX 9e15

/* Adds a word, with a space before it unless it is the first. */
static void add_word(char *out, const char *word)
{
    size_t used = strlen(out);

    if (used > 0 && used + 1 < CLAIMS_TEXT_MAX)
        out[used++] = ' ';
    for (; *word != '\0' && used + 1 < CLAIMS_TEXT_MAX; word++)
        out[used++] = *word >= ' ' && *word <= '~' ? *word : '?';
    out[used] = '\0';
}

/* A text, or a list of texts. */
static void take(const cJSON *claims, const char *key, char *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(claims, key);

    if (out[0] != '\0')
        return;
    if (cJSON_IsString(item))
        add_word(out, item->valuestring);
    else if (cJSON_IsArray(item))
        for (const cJSON *each = item->child; each != NULL; each = each->next)
            if (cJSON_IsString(each))
                add_word(out, each->valuestring);
}

static uint64_t seconds(const cJSON *claims, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(claims, key);

    return cJSON_IsNumber(item) && item->valuedouble > 0 && item->valuedouble < NUMBER_MAX
               ? (uint64_t)item->valuedouble
               : 0;
}

static const struct {
    const char *key;
    size_t field;
} texts[] = {
    {"aud", offsetof(struct claims, audience)},
    {"iss", offsetof(struct claims, issuer)},
    {"appid", offsetof(struct claims, app)},
    {"azp", offsetof(struct claims, app)},
    {"client_id", offsetof(struct claims, app)},
    {"tid", offsetof(struct claims, tenant)},
    {"roles", offsetof(struct claims, roles)},
    {"scp", offsetof(struct claims, scopes)},
    {"scope", offsetof(struct claims, scopes)},
    {"upn", offsetof(struct claims, user)},
    {"preferred_username", offsetof(struct claims, user)},
    {"unique_name", offsetof(struct claims, user)},
    {"email", offsetof(struct claims, user)},
    {"sub", offsetof(struct claims, user)},
};

static void read_object(const cJSON *object, struct claims *out)
{
    *out = (struct claims){.issued_s = seconds(object, "iat"), .expires_s = seconds(object, "exp")};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        take(object, texts[i].key, (char *)out + texts[i].field);
}

bool claims_read(const char *token, struct claims *out)
{
    const char *begin = strchr(token, '.');
    size_t len = begin != NULL ? strcspn(begin + 1, ".") : 0;
    uint8_t *json = NULL;
    cJSON *object = NULL;
    size_t json_len = 0;
    bool ok;

    if (len == 0 || begin[1 + len] != '.' || len > GRANT_ACCESS_MAX)
        return false;
    json = malloc(BASE64URL_ROOM(len));
    if (json != NULL && base64url_decode(begin + 1, len, json, &json_len))
        object = cJSON_ParseWithLength((const char *)json, json_len);
    free(json);
    ok = cJSON_IsObject(object);
    if (ok)
        read_object(object, out);
    cJSON_Delete(object);
    return ok;
}
