#include "relay/base/database.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sqlite3.h>

#define SUFFIX_MAX 16 /* ".damaged-journal" is longer than any of ours, with NUL */

struct kept {
    const char *sql;
    sqlite3_stmt *statement;
};

struct database {
    sqlite3 *handle;
    bool damaged;
    struct kept kept[DATABASE_STATEMENTS_MAX];
    size_t kept_count;
    char file[];
};

/* ---- errors ---------------------------------------------------------------------------------- */

static enum error_kind kind_of(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ERROR_DAMAGED;
    case SQLITE_FULL:
    case SQLITE_NOMEM:
        return ERROR_NO_ROOM;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERROR_BUSY;
    default:
        return ERROR_IO;
    }
}

/* Of the call that has just failed. */
static bool failed(struct database *d, int rc, struct error *err)
{
    int errnum = d->handle != NULL ? sqlite3_system_errno(d->handle) : 0;
    const char *text = d->handle != NULL ? sqlite3_errmsg(d->handle) : sqlite3_errstr(rc);
    d->damaged = d->damaged || kind_of(rc) == ERROR_DAMAGED;
    if (errnum == 0 || kind_of(rc) == ERROR_DAMAGED)
        return error_set(err, kind_of(rc), "%s: %s", d->file, text);
    error_errno(err, errnum, "%s: %s", d->file, text);
    if (err != NULL && kind_of(rc) != ERROR_IO)
        err->kind = kind_of(rc);
    return false;
}

/* ---- setting aside --------------------------------------------------------------------------- */

/* The file's own companions go with it; those of an older one that was set aside would not fit. */
static bool set_aside(const char *file, struct error *err)
{
    static const char *const suffixes[] = {"-wal", "-shm", "-journal", ""};
    char from[PATH_MAX];
    char to[PATH_MAX + SUFFIX_MAX];
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        if (snprintf(from, sizeof from, "%s%s", file, suffixes[i]) >= (int)sizeof from)
            return error_set(err, ERROR_LIMIT, "%s: path too long", file);
        snprintf(to, sizeof to, "%s.damaged%s", file, suffixes[i]);
        if (unlink(to) != 0 && errno != ENOENT)
            return error_errno(err, errno, "remove %s", to);
        if (rename(from, to) != 0 && errno != ENOENT)
            return error_errno(err, errno, "set aside %s as %s", from, to);
    }
    return true;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* SQLite would give it the usual mode; its companions get the mode of the file. */
static bool make_file(const char *file, struct error *err)
{
    int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_errno(err, errno, "open %s", file);
    (void)close(fd);
    return true;
}

/* Only the first call has an effect: memory that SQLite would take ahead for speed we do not need.
 */
static void save_memory(void)
{
    (void)sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0);
    (void)sqlite3_config(SQLITE_CONFIG_PAGECACHE, NULL, 0, 0);
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

#define TEXT_OF(n)  TEXT_OF_(n)
#define TEXT_OF_(n) #n

/* Exclusive, for then SQLite needs no shared memory, and so no file that is mapped; it stays so
 * until the file is closed. */
static bool set_up(struct database *d, struct error *err)
{
    static const char script[] =
        "PRAGMA locking_mode = EXCLUSIVE;"
        "PRAGMA cache_size = -" TEXT_OF(DATABASE_CACHE_KB) ";"
                                                           "PRAGMA mmap_size = 0;"
                                                           "PRAGMA temp_store = MEMORY;"
                                                           "PRAGMA journal_mode = WAL;"
                                                           "PRAGMA synchronous = NORMAL;"
                                                           "PRAGMA wal_autocheckpoint = 128;"
                                                           "PRAGMA journal_size_limit = 1048576;";
    (void)sqlite3_extended_result_codes(d->handle, 1);
    (void)sqlite3_busy_timeout(d->handle, DATABASE_WAIT_MS);
    int rc = sqlite3_exec(d->handle, script, NULL, NULL, NULL);
    return rc == SQLITE_OK || failed(d, rc, err);
}

static int take_number(void *ctx, int columns, char **values, char **names)
{
    (void)columns;
    (void)names;
    *(long *)ctx = values[0] != NULL ? atol(values[0]) : 0;
    return 0;
}

static bool run_step(struct database *d, const char *script, size_t version, struct error *err)
{
    char end[64];
    snprintf(end, sizeof end, "PRAGMA user_version = %zu; COMMIT", version);
    int rc = sqlite3_exec(d->handle, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(d->handle, script, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(d->handle, end, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        return true;
    failed(d, rc, err);
    /* A script that does not fit the tables: they are of somebody else. */
    d->damaged = d->damaged || (rc & 0xff) == SQLITE_ERROR;
    database_rollback(d);
    return false;
}

static bool bring_up_to_date(struct database *d, const char *const *steps, size_t step_count,
                             struct error *err)
{
    long version = 0;
    int rc = sqlite3_exec(d->handle, "PRAGMA user_version", take_number, &version, NULL);
    if (rc != SQLITE_OK)
        return failed(d, rc, err);
    if (version > (long)step_count)
        return error_set(err, ERROR_INVALID,
                         "%s was written by a newer version (its tables are %ld, known are %zu)",
                         d->file, version, step_count);
    d->damaged = version < 0;
    if (d->damaged)
        return error_set(err, ERROR_DAMAGED, "%s: is of another program", d->file);
    for (size_t i = (size_t)version; i < step_count; i++) {
        if (!run_step(d, steps[i], i + 1, err))
            return error_wrap(err, "bring to version %zu", i + 1);
    }
    return true;
}

static bool open_file(struct database *d, const char *const *steps, size_t step_count,
                      struct error *err)
{
    if (!make_file(d->file, err))
        return false;
    save_memory();
    int rc = sqlite3_open_v2(d->file, &d->handle,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
                             NULL);
    if (rc != SQLITE_OK)
        return failed(d, rc, err);
    return set_up(d, err) && bring_up_to_date(d, steps, step_count, err);
}

/* The handle alone; true when it was found damaged and set aside. */
static bool close_file(struct database *d, struct error *err)
{
    for (size_t i = 0; i < d->kept_count; i++)
        (void)sqlite3_finalize(d->kept[i].statement);
    d->kept_count = 0;
    (void)sqlite3_close(d->handle);
    d->handle = NULL;
    bool aside = d->damaged && set_aside(d->file, err);
    d->damaged = false;
    return aside;
}

struct database *database_open(const char *file, const char *const *steps, size_t step_count,
                               bool *out_set_aside, struct error *err)
{
    size_t size = strlen(file) + 1;
    struct database *d = calloc(1, sizeof *d + size);
    bool aside = false;
    if (d == NULL) {
        (void)error_set(err, ERROR_NO_ROOM, "%s: out of memory", file);
        return NULL;
    }
    memcpy(d->file, file, size);
    bool ok = open_file(d, steps, step_count, err);
    if (!ok) {
        aside = close_file(d, err);
        ok = aside && open_file(d, steps, step_count, err);
    }
    *out_set_aside = aside;
    if (ok)
        return d;
    (void)database_close(d);
    return NULL;
}

bool database_close(struct database *d)
{
    if (d == NULL)
        return false;
    bool aside = close_file(d, NULL);
    free(d);
    return aside;
}

/* ---- statements ------------------------------------------------------------------------------ */

static sqlite3_stmt *prepare(struct database *d, const char *sql, struct error *err)
{
    for (size_t i = 0; i < d->kept_count; i++) {
        if (d->kept[i].sql == sql)
            return d->kept[i].statement;
    }
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v3(d->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL);
    if (rc != SQLITE_OK) {
        (void)failed(d, rc, err);
        return NULL;
    }
    if (d->kept_count == DATABASE_STATEMENTS_MAX) { /* the oldest makes room */
        (void)sqlite3_finalize(d->kept[0].statement);
        memmove(d->kept, d->kept + 1, --d->kept_count * sizeof *d->kept);
    }
    d->kept[d->kept_count++] = (struct kept){sql, statement};
    return statement;
}

static int bind(sqlite3_stmt *statement, const struct database_value *values, size_t count)
{
    int rc = SQLITE_OK;
    for (int i = 0; rc == SQLITE_OK && i < (int)count; i++) {
        if (values[i].kind == DATABASE_NUMBER)
            rc = sqlite3_bind_int64(statement, i + 1, values[i].number);
        else if (values[i].kind == DATABASE_TEXT)
            rc = sqlite3_bind_text(statement, i + 1, values[i].text, -1, SQLITE_STATIC);
        else
            rc = sqlite3_bind_null(statement, i + 1);
    }
    return rc;
}

static struct database_value value_of(sqlite3_stmt *statement, int column)
{
    switch (sqlite3_column_type(statement, column)) {
    case SQLITE_NULL:
        return (struct database_value){.kind = DATABASE_NULL};
    case SQLITE_INTEGER:
        return DATABASE_N(sqlite3_column_int64(statement, column));
    default: {
        const char *text = (const char *)sqlite3_column_text(statement, column);
        return DATABASE_T(text != NULL ? text : "");
    }
    }
}

static bool give_row(sqlite3_stmt *statement, database_row_fn *row, void *ctx)
{
    struct database_value columns[DATABASE_COLUMNS_MAX];
    int n = sqlite3_column_count(statement);
    if (n > DATABASE_COLUMNS_MAX)
        n = DATABASE_COLUMNS_MAX;
    for (int i = 0; i < n; i++)
        columns[i] = value_of(statement, i);
    return row == NULL || row(ctx, columns, (size_t)n);
}

bool database_run(struct database *d, const char *sql, const struct database_value *values,
                  size_t value_count, database_row_fn *row, void *ctx, struct error *err)
{
    sqlite3_stmt *statement = prepare(d, sql, err);
    if (statement == NULL)
        return false;
    int rc = bind(statement, values, value_count);
    if (rc == SQLITE_OK) {
        while ((rc = sqlite3_step(statement)) == SQLITE_ROW && give_row(statement, row, ctx))
            continue;
    }
    bool ok = rc == SQLITE_DONE || rc == SQLITE_ROW || failed(d, rc, err);
    (void)sqlite3_reset(statement);
    (void)sqlite3_clear_bindings(statement);
    return ok;
}

/* What is written to a file without a name is lost with the end of the program. */
static bool has_moved(struct database *d)
{
    int moved = 0;
    return sqlite3_file_control(d->handle, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK &&
           moved != 0;
}

bool database_begin(struct database *d, struct error *err)
{
    if (has_moved(d))
        return error_set(err, ERROR_MISSING, "%s was removed or replaced meanwhile", d->file);
    return database_run(d, "BEGIN IMMEDIATE", NULL, 0, NULL, NULL, err);
}

bool database_commit(struct database *d, struct error *err)
{
    if (database_run(d, "COMMIT", NULL, 0, NULL, NULL, err))
        return true;
    database_rollback(d);
    return false;
}

/* Some errors have undone it already. */
void database_rollback(struct database *d)
{
    if (sqlite3_get_autocommit(d->handle) == 0)
        (void)sqlite3_exec(d->handle, "ROLLBACK", NULL, NULL, NULL);
}

/* ---- resting --------------------------------------------------------------------------------- */

static bool is_within(const struct dl_phdr_info *object, uintptr_t address)
{
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &object->dlpi_phdr[i];
        uintptr_t start = object->dlpi_addr + p->p_vaddr;
        if (p->p_type == PT_LOAD && address >= start && address - start < p->p_memsz)
            return true;
    }
    return false;
}

/* The loader tells addresses as numbers. */
static void *pointer_to(uintptr_t address)
{
    return (void *)address; /* NOLINT(performance-no-int-to-ptr) */
}

/* Code that was relocated in place cannot be read again from its file. */
static bool has_text_relocations(const struct dl_phdr_info *object)
{
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &object->dlpi_phdr[i];
        if (p->p_type != PT_DYNAMIC)
            continue;
        const ElfW(Dyn) *d = pointer_to(object->dlpi_addr + p->p_vaddr);
        for (; d->d_tag != DT_NULL; d++) {
            if (d->d_tag == DT_TEXTREL || (d->d_tag == DT_FLAGS && (d->d_un.d_val & DF_TEXTREL)))
                return true;
        }
    }
    return false;
}

/* Pages that nobody can have written to are those of the file: dropped, they come back with the
 * next use, as a rule from the system's cache. */
static int drop_code(struct dl_phdr_info *object, size_t size, void *ctx)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    (void)size;
    if (!is_within(object, *(const uintptr_t *)ctx))
        return 0;
    for (int i = 0; i < object->dlpi_phnum && !has_text_relocations(object); i++) {
        const ElfW(Phdr) *p = &object->dlpi_phdr[i];
        uintptr_t start = (object->dlpi_addr + p->p_vaddr) & ~(page - 1);
        uintptr_t end = (object->dlpi_addr + p->p_vaddr + p->p_memsz + page - 1) & ~(page - 1);
        if (p->p_type == PT_LOAD && (p->p_flags & PF_W) == 0)
            (void)madvise(pointer_to(start), end - start, MADV_DONTNEED);
    }
    return 1;
}

void database_rest(struct database *d)
{
    uintptr_t within = (uintptr_t)&sqlite3_open_v2;
    if (d != NULL)
        (void)sqlite3_db_release_memory(d->handle);
    (void)dl_iterate_phdr(drop_code, &within);
}
