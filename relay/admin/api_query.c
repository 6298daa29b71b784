#include "relay/admin/api_query.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <event2/keyvalq_struct.h>

#define QUERY_PAGE_DEFAULT 100
#define QUERY_NUMBER_TEXT  24
#define QUERY_ID_TEXT      64

bool query_text(struct api_call *c, const char *key, char *out, size_t size)
{
    const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(c->req));
    struct evkeyvalq values = {0};
    const char *text = NULL;
    bool ok = evhttp_parse_query_str(query != NULL ? query : "", &values) == 0;

    if (ok)
        text = evhttp_find_header(&values, key);
    if (text == NULL)
        text = "";
    ok = ok && strlen(text) < size;
    if (ok)
        memcpy(out, text, strlen(text) + 1);
    evhttp_clear_headers(&values);
    if (!ok)
        call_fail_text(c, ERROR_INVALID, "\"%s\" of the query cannot be read", key);
    return ok;
}

static bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    char *end = NULL;

    errno = 0;
    *out = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *out >= min &&
           *out <= max;
}

bool query_number(struct api_call *c, const char *key, uint64_t fallback, uint64_t min,
                  uint64_t max, uint64_t *out)
{
    char text[QUERY_NUMBER_TEXT];
    uint64_t number = fallback;

    if (!query_text(c, key, text, sizeof(text)))
        return false;
    if (text[0] != '\0' && !parse_number(text, min, max, &number)) {
        call_fail_text(c, ERROR_INVALID,
                       "\"%s\" of the query is no number from %" PRIu64 " to %" PRIu64, key, min,
                       max);
        return false;
    }
    *out = number;
    return true;
}

bool query_limit(struct api_call *c, uint32_t *out)
{
    uint64_t limit;

    if (!query_number(c, "limit", QUERY_PAGE_DEFAULT, 1, API_PAGE_MAX, &limit))
        return false;
    *out = (uint32_t)limit;
    return true;
}

bool query_id(struct api_call *c, const char *key, uint64_t *out)
{
    char text[QUERY_ID_TEXT];
    uint64_t id = 0;

    if (!query_text(c, key, text, sizeof(text)))
        return false;
    if (text[0] != '\0' && !queue_id_parse(text, &id)) {
        call_fail_text(c, ERROR_INVALID, "\"%s\" of the query is no message id", key);
        return false;
    }
    *out = id;
    return true;
}
