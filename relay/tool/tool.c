#include "relay/tool/tool.h"

#include <sysexits.h>

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

int tool_fail(const struct tool *t, const struct error *err)
{
    fprintf(t->err, "outtray: %s\n", err->text);
    return tool_exit_code(err->kind);
}
