/*
 * The log: one event, one line, key=value, ids first.
 *
 *   log_event(LOG_LEVEL_INFO, "delivered", LOG_PATH("to", path), LOG_ID("queue", id), LOG_END);
 *   -> level=info event=delivered queue=4f2a to=<a@b.example>
 *
 * Values that hold spaces, quotes, '=' or bytes outside printable ASCII (valid UTF-8 is kept) are
 * quoted and escaped, so text from the network cannot forge a line. Ids come before the other
 * fields, each group in the order given. error = a person must act, warn = a person should know,
 * info = a message changed hands or a part changed its state, debug = the protocol. Secrets are
 * never passed in: a log gets "***". The sink is process-wide: stderr (journald adds the time; with
 * `timestamps` we do), or syslog. Lines are at most LOG_LINE_MAX octets and are cut with "..."
 * beyond. Not for use in signal handlers. Only the loop's thread logs.
 */
#ifndef OUTTRAY_RELAY_BASE_LOG_H
#define OUTTRAY_RELAY_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_LINE_MAX 4096

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_target { LOG_TARGET_STDERR, LOG_TARGET_SYSLOG };

enum log_type { LOG_TYPE_END, LOG_TYPE_STR, LOG_TYPE_PATH, LOG_TYPE_U64, LOG_TYPE_ID, LOG_TYPE_MS };

struct log_field {
    enum log_type type;
    const char *key;
    const char *text;
    uint64_t number;
};

/* Text is left out when "" or NULL; a path is an address in <>, left out when NULL; an id is hex of
 * at least four digits, as the tool shows it, left out when 0; ms are shown as seconds, 1.234. */
#define LOG_STR(k, v)  ((struct log_field){LOG_TYPE_STR, (k), (v), 0})
#define LOG_PATH(k, v) ((struct log_field){LOG_TYPE_PATH, (k), (v), 0})
#define LOG_U64(k, v)  ((struct log_field){LOG_TYPE_U64, (k), NULL, (uint64_t)(v)})
#define LOG_ID(k, v)   ((struct log_field){LOG_TYPE_ID, (k), NULL, (uint64_t)(v)})
#define LOG_MS(k, v)   ((struct log_field){LOG_TYPE_MS, (k), NULL, (uint64_t)(v)})
#define LOG_END        ((struct log_field){LOG_TYPE_END, NULL, NULL, 0})

void log_setup(enum log_level level, enum log_target target, bool timestamps);
bool log_enabled(enum log_level level);

/* Fields end with LOG_END. */
#define log_event(level, event, ...)                                                               \
    log_fields((level), (event), (const struct log_field[]){__VA_ARGS__})
void log_fields(enum log_level level, const char *event, const struct log_field *fields);

/* Formats one line without its newline into out; what log_fields() writes. For tests. */
size_t log_format(enum log_level level, const char *event, const struct log_field *fields,
                  char *out, size_t size);

bool log_level_parse(const char *text, enum log_level *out_level);

#endif
