#include "queue/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const kind_names[] = {
    [ERROR_NONE] = "none",           [ERROR_IO] = "io",       [ERROR_NO_ROOM] = "no_room",
    [ERROR_DAMAGED] = "damaged",     [ERROR_BUSY] = "busy",   [ERROR_MISSING] = "missing",
    [ERROR_INVALID] = "invalid",     [ERROR_LIMIT] = "limit", [ERROR_SHARE] = "share",
    [ERROR_UNTRUSTED] = "untrusted",
};

_Static_assert(sizeof(kind_names) / sizeof(kind_names[0]) == ERROR_UNTRUSTED + 1,
               "every kind has a name");

/* Formats aside first: the arguments may point into err->text. */
static void format(struct error *err, const char *fmt, va_list args)
{
    char text[ERROR_TEXT_MAX];

    if (vsnprintf(text, sizeof(text), fmt, args) < 0)
        text[0] = '\0';
    memcpy(err->text, text, strlen(text) + 1);
}

static void append(struct error *err, const char *text)
{
    size_t used = strlen(err->text);
    size_t room = sizeof(err->text) - 1 - used;
    size_t len = strnlen(text, room);

    memcpy(err->text + used, text, len);
    err->text[used + len] = '\0';
}

/* strerror() may share its buffer between threads; journal and bodies have threads of their own.
 * Both the GNU and the POSIX strerror_r() exist, so the type of its result tells which one it is.
 */
static const char *text_of_gnu(const char *result, const char *buf)
{
    (void)buf;
    return result;
}

static const char *text_of_posix(int result, const char *buf)
{
    return result == 0 ? buf : "unknown error";
}

#define ERRNO_TEXT(result, buf)                                                                    \
    _Generic((result), char * : text_of_gnu, int : text_of_posix)((result), (buf))

static enum error_kind kind_of_errno(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return ERROR_NO_ROOM;
    default:
        return ERROR_IO;
    }
}

bool error_set(struct error *err, enum error_kind kind, const char *fmt, ...)
{
    va_list args;

    if (err == NULL)
        return false;
    va_start(args, fmt);
    format(err, fmt, args);
    va_end(args);
    err->kind = kind;
    err->errnum = 0;
    return false;
}

bool error_errno(struct error *err, int errnum, const char *fmt, ...)
{
    char reason[128] = "";
    va_list args;

    if (err == NULL)
        return false;
    va_start(args, fmt);
    format(err, fmt, args);
    va_end(args);
    append(err, ": ");
    append(err, ERRNO_TEXT(strerror_r(errnum, reason, sizeof(reason)), reason));
    err->kind = kind_of_errno(errnum);
    err->errnum = errnum;
    return false;
}

bool error_wrap(struct error *err, const char *fmt, ...)
{
    char inner[ERROR_TEXT_MAX];
    va_list args;

    if (err == NULL)
        return false;
    memcpy(inner, err->text, sizeof(inner));
    va_start(args, fmt);
    format(err, fmt, args);
    va_end(args);
    append(err, ": ");
    append(err, inner);
    return false;
}

void error_clear(struct error *err)
{
    if (err == NULL)
        return;
    err->kind = ERROR_NONE;
    err->errnum = 0;
    err->text[0] = '\0';
}

const char *error_kind_name(enum error_kind kind)
{
    if ((size_t)kind >= sizeof(kind_names) / sizeof(kind_names[0]))
        return "unknown";
    return kind_names[kind];
}
