#include "relay/tool/tool.h"

#include <sysexits.h>

#include "relay/admin/api_json.h"

int tool_exit_code(enum error_kind kind)
{
    static const int codes[] = {
        [ERROR_NONE] = EX_OK,         [ERROR_IO] = EX_IOERR,       [ERROR_NO_ROOM] = EX_TEMPFAIL,
        [ERROR_DAMAGED] = EX_DATAERR, [ERROR_BUSY] = EX_TEMPFAIL,  [ERROR_MISSING] = EX_NOINPUT,
        [ERROR_INVALID] = EX_DATAERR, [ERROR_LIMIT] = EX_TEMPFAIL,
    };

    if ((size_t)kind >= sizeof(codes) / sizeof(codes[0]))
        return EX_SOFTWARE;
    return codes[kind];
}

int tool_print_json(const struct tool *t, const cJSON *json)
{
    char *text = json != NULL ? cJSON_Print(json) : NULL;

    if (text == NULL) {
        fputs("outtray: out of memory\n", t->err);
        return EX_OSERR;
    }
    fprintf(t->out, "%s\n", text);
    cJSON_free(text);
    return EX_OK;
}

void tool_error_json(const struct tool *t, enum error_kind kind, const char *text)
{
    struct error err = ERROR_INIT;
    cJSON *json;

    if (!t->json)
        return;
    error_set(&err, kind, "%s", text);
    json = api_json_error(&err);
    (void)tool_print_json(t, json);
    cJSON_Delete(json);
}

int tool_fail(const struct tool *t, const struct error *err)
{
    fprintf(t->err, "outtray: %s\n", err->text);
    tool_error_json(t, err->kind, err->text);
    return tool_exit_code(err->kind);
}
