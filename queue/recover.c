#include "queue/recover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "queue/window.h"

#define SCAN_WINDOW (1024u * 1024u)
#define COPY_CHUNK  65536u

_Static_assert(SCAN_WINDOW >= SEGMENT_RECORD_HEADER + SEGMENT_HEAD_MAX + SEGMENT_BODY_MAX,
               "the window holds the largest record");

/* ---- the header ------------------------------------------------------------------------------ */

/* Without a header the salt is still in every record, and the first record is always at the same
 * place. */
static bool header_from_start(const struct fileops *ops, int fd, uint64_t number,
                              struct segment_header *out)
{
    uint8_t p[SEGMENT_RECORD_HEADER];
    struct segment_record r;
    struct fileops_stat st;
    size_t len = 0;
    if (fileops_read_all(ops, fd, p, sizeof(p), SEGMENT_BLOCK, &len) < 0 || len < sizeof(p) ||
        ops->fstat(ops->ctx, fd, &st) < 0)
        return false;
    uint64_t salt = bytes_get64(p);
    if (!segment_decode_record(p, salt, SEGMENT_BLOCK, &r) || r.type != SEGMENT_START)
        return false;
    uint64_t size = st.size < SEGMENT_SIZE_MAX ? st.size : SEGMENT_SIZE_MAX;
    *out = (struct segment_header){.number = number, .salt = salt, .size = (uint32_t)size};
    return true;
}

/* With the first record gone as well, any other will do. */
static bool header_from_any(const struct fileops *ops, int fd, uint64_t number,
                            struct segment_header *out)
{
    struct window w;
    struct segment_record r;
    struct fileops_stat st = {.size = 0};
    bool found = false;
    if (ops->fstat(ops->ctx, fd, &st) < 0 || !window_init(&w, ops, fd, SCAN_WINDOW))
        return false;
    uint64_t size = st.size < SEGMENT_SIZE_MAX ? st.size : SEGMENT_SIZE_MAX;
    for (uint64_t at = SEGMENT_BLOCK; !found && at + SEGMENT_RECORD_HEADER <= size;) {
        const uint8_t *p = window_at(&w, at, SEGMENT_RECORD_HEADER);
        uint64_t salt = p ? bytes_get64(p) : 0;
        found = salt != 0 && segment_decode_record(p, salt, (uint32_t)at, &r);
        if (found)
            *out = (struct segment_header){.number = number, .salt = salt, .size = (uint32_t)size};
        at = p || !w.errnum ? at + SEGMENT_ALIGN : (at / SEGMENT_BLOCK + 1) * SEGMENT_BLOCK;
    }
    window_done(&w);
    return found;
}

bool recover_open(const struct fileops *ops, const char *path, uint64_t number, bool read_only,
                  struct recover_segment *out, int *out_fd, struct error *err)
{
    uint8_t block[SEGMENT_BLOCK];
    size_t len = 0;
    struct recover_segment s = {.header_ok = true};
    int fd = ops->open(ops->ctx, path, read_only ? O_RDONLY : O_RDWR, 0);
    if (fd < 0 && errno == EROFS)
        fd = ops->open(ops->ctx, path, O_RDONLY, 0);
    if (fd < 0)
        return error_errno(err, errno, "open %s", path);
    if (fileops_read_all(ops, fd, block, sizeof(block), 0, &len) < 0 || len < sizeof(block) ||
        !segment_decode_header(block, &s.header) || s.header.number != number)
        s.header_ok = false;
    if (!s.header_ok && !header_from_start(ops, fd, number, &s.header) &&
        !header_from_any(ops, fd, number, &s.header)) {
        (void)ops->close(ops->ctx, fd);
        return error_set(err, ERROR_DAMAGED, "%s has no readable header", path);
    }
    bytes_init(&s.heads, SEGMENT_SIZE_MAX);
    *out = s;
    *out_fd = fd;
    return true;
}

bool recover_start(const struct fileops *ops, int fd, const struct recover_segment *s,
                   struct bytes *out_ends)
{
    uint8_t p[SEGMENT_RECORD_HEADER];
    struct segment_record r;
    size_t len = 0;
    if (fileops_read_all(ops, fd, p, sizeof(p), SEGMENT_BLOCK, &len) < 0 || len < sizeof(p) ||
        !segment_decode_record(p, s->header.salt, SEGMENT_BLOCK, &r) || r.type != SEGMENT_START)
        return false;
    size_t before = out_ends->len;
    uint8_t *body = bytes_reserve(out_ends, r.body_len);
    off_t at = (off_t)SEGMENT_BLOCK + SEGMENT_RECORD_HEADER + r.head_len;
    if (!body || fileops_read_all(ops, fd, body, r.body_len, at, &len) < 0 || len < r.body_len ||
        bytes_crc(0, body, r.body_len) != r.body_crc)
        return false;
    out_ends->len = before + r.body_len / RECORD_END_LEN * RECORD_END_LEN;
    return true;
}

/* ---- lists that grow ------------------------------------------------------------------------- */

static bool grow(void **items, size_t *cap, size_t count, size_t item)
{
    if (count < *cap)
        return true;
    size_t more = *cap ? *cap * 2 : 64;
    void *p = realloc(*items, more * item);
    if (!p)
        return false;
    *items = p;
    *cap = more;
    return true;
}

static bool add_entry(struct recover_segment *s, const struct segment_record *r, uint32_t offset,
                      const uint8_t *head, bool body_ok)
{
    void *items = s->entries;
    bool ok = grow(&items, &s->entry_cap, s->entry_count, sizeof(*s->entries));
    s->entries = items;
    uint32_t head_at = (uint32_t)s->heads.len;
    if (!ok || !bytes_append(&s->heads, head, r->head_len))
        return false;
    s->entries[s->entry_count++] = (struct recover_entry){
        .record = *r, .offset = offset, .head_at = head_at, .body_ok = body_ok};
    return true;
}

static bool add_gap(struct recover_segment *s, uint32_t offset, uint32_t len)
{
    void *items = s->gaps;
    bool ok = grow(&items, &s->gap_cap, s->gap_count, sizeof(*s->gaps));
    s->gaps = items;
    if (!ok)
        return false;
    s->gaps[s->gap_count++] = (struct recover_gap){.offset = offset, .len = len};
    return true;
}

void recover_done(struct recover_segment *s)
{
    free(s->entries);
    free(s->gaps);
    bytes_done(&s->heads);
    s->entries = NULL;
    s->gaps = NULL;
}

/* ---- a sealed segment ------------------------------------------------------------------------ */

static bool parse_index(struct recover_segment *s, const uint8_t *index, size_t len, uint32_t end)
{
    struct bytes_reader r;
    bytes_reader_init(&r, index, len);
    while (r.left > 0) {
        struct segment_record record;
        uint32_t offset;
        const uint8_t *entry = bytes_read(&r, SEGMENT_ENTRY);
        if (!entry)
            return false;
        segment_decode_entry(entry, &record, &offset);
        const uint8_t *head = bytes_read(&r, record.head_len);
        if (r.failed || offset < SEGMENT_BLOCK || offset >= end ||
            record.body_len > SEGMENT_BODY_MAX || !add_entry(s, &record, offset, head, true))
            return false;
    }
    return true;
}

static bool read_footer(const struct fileops *ops, int fd, const struct recover_segment *s,
                        struct segment_footer *out)
{
    uint8_t p[SEGMENT_FOOTER];
    size_t len = 0;
    off_t at = (off_t)s->header.size - SEGMENT_FOOTER;
    return fileops_read_all(ops, fd, p, sizeof(p), at, &len) == 0 && len == sizeof(p) &&
           segment_decode_footer(p, &s->header, out);
}

static void forget_entries(struct recover_segment *s)
{
    s->entry_count = 0;
    bytes_clear(&s->heads);
}

static bool read_index(const struct fileops *ops, int fd, const struct segment_footer *f,
                       struct recover_segment *s)
{
    size_t len = 0;
    uint8_t *index = malloc(f->index_len ? f->index_len : 1);
    bool ok = index && fileops_read_all(ops, fd, index, f->index_len, f->end, &len) == 0 &&
              len == f->index_len && bytes_crc(0, index, len) == f->index_crc &&
              parse_index(s, index, len, f->end);
    free(index);
    if (!ok)
        forget_entries(s);
    return ok;
}

/* ---- a search -------------------------------------------------------------------------------- */

struct scan {
    struct window window;
    struct recover_segment *s;
    uint32_t limit; /* of what can be searched */
    uint32_t bound; /* no record reaches beyond */
    uint32_t gap;   /* where the current gap begins, or 0 */
    uint32_t base;  /* highest seen */
};

/* The head of the record at `at`, when its header and head verify. */
static const uint8_t *scan_record(struct scan *c, uint32_t at, struct segment_record *out,
                                  bool *out_body_ok)
{
    const uint8_t *p = window_at(&c->window, at, SEGMENT_RECORD_HEADER);
    if (!p || !segment_decode_record(p, c->s->header.salt, at, out) ||
        segment_span(out->head_len, out->body_len) > c->bound - at)
        return NULL;
    size_t len = (size_t)SEGMENT_RECORD_HEADER + out->head_len;
    p = window_at(&c->window, at, len + out->body_len);
    *out_body_ok = p && bytes_crc(0, p + len, out->body_len) == out->body_crc;
    if (!p) /* the file was cut, or part of the body cannot be read */
        p = window_at(&c->window, at, len);
    if (!p || bytes_crc(0, p + SEGMENT_RECORD_HEADER, out->head_len) != out->head_crc)
        return NULL;
    return p + SEGMENT_RECORD_HEADER;
}

static size_t until_tag(const uint8_t *p, size_t len, uint64_t salt)
{
    uint8_t wanted[SEGMENT_ALIGN];
    uint64_t tag;
    uint64_t found;
    size_t at = 0;
    bytes_put64(wanted, salt);
    memcpy(&tag, wanted, sizeof(tag));
    for (; at + SEGMENT_ALIGN <= len; at += SEGMENT_ALIGN) {
        memcpy(&found, p + at, sizeof(found));
        if (found == tag)
            break;
    }
    return at;
}

/* The next place at or behind `at` that could be a record's. */
static uint32_t scan_tag(struct scan *c, uint32_t at)
{
    while (at + SEGMENT_RECORD_HEADER <= c->limit) {
        const uint8_t *p = window_at(&c->window, at, SEGMENT_ALIGN);
        if (!p) { /* behind the end, or a bad sector: go on behind it */
            at = c->window.errnum ? (at / SEGMENT_BLOCK + 1) * SEGMENT_BLOCK : at + SEGMENT_ALIGN;
            continue;
        }
        size_t len = window_from(&c->window, at);
        size_t skip = until_tag(p, len, c->s->header.salt);
        at += (uint32_t)skip;
        if (skip + SEGMENT_ALIGN <= len)
            return at + SEGMENT_RECORD_HEADER <= c->limit ? at : c->limit;
    }
    return c->limit;
}

static bool end_gap(struct scan *c, uint32_t at)
{
    uint32_t from = c->gap;
    c->gap = 0;
    return from == 0 || add_gap(c->s, from, at - from);
}

static bool scan_records(struct scan *c)
{
    uint32_t at = SEGMENT_BLOCK;
    while (at < c->limit) {
        struct segment_record r;
        bool body_ok = false;
        const uint8_t *head = scan_record(c, at, &r, &body_ok);
        if (!head) {
            c->gap = c->gap ? c->gap : at;
            at = scan_tag(c, at + SEGMENT_ALIGN);
            continue;
        }
        if (!end_gap(c, at) || !add_entry(c->s, &r, at, head, body_ok))
            return false;
        c->base = r.base > c->base ? r.base : c->base;
        at += segment_span(r.head_len, r.body_len);
        c->s->end = at;
    }
    return true;
}

/* What follows the last record: nothing was begun there unless it carries this segment's salt, or
 * the records are known to have gone on. */
static bool end_scan(struct scan *c)
{
    if (!c->gap)
        return true;
    const uint8_t *p = window_at(&c->window, c->gap, SEGMENT_ALIGN);
    if (!c->s->ended && (!p || bytes_get64(p) != c->s->header.salt))
        return true;
    return end_gap(c, c->limit);
}

static bool scan_file(const struct fileops *ops, int fd, uint32_t limit, uint32_t bound,
                      struct recover_segment *s)
{
    struct scan c = {.s = s, .limit = limit, .bound = bound};
    s->end = SEGMENT_BLOCK;
    bool ok = window_init(&c.window, ops, fd, SCAN_WINDOW) && scan_records(&c) && end_scan(&c);
    window_done(&c.window);
    s->proven = c.base < s->end ? c.base : s->end;
    return ok;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool all_verified(const struct recover_segment *s)
{
    for (size_t i = 0; i < s->entry_count; i++)
        if (!s->entries[i].body_ok)
            return false;
    return s->gap_count == 0;
}

static uint32_t scan_limit(const struct fileops *ops, int fd, const struct recover_segment *s,
                           uint32_t known)
{
    struct fileops_stat st;
    uint64_t size = s->header.size;
    if (ops->fstat(ops->ctx, fd, &st) == 0 && st.size < size)
        size = st.size;
    uint64_t limit = known && known < size ? known : size;
    return (uint32_t)(limit / SEGMENT_ALIGN * SEGMENT_ALIGN);
}

/* A file that was cut lost what was durable at its end. */
static bool add_cut(struct recover_segment *s, uint32_t limit)
{
    return s->proven <= limit || add_gap(s, limit, s->proven - limit);
}

static void mark_torn(struct recover_segment *s)
{
    for (size_t i = 0; i < s->gap_count; i++)
        s->gaps[i].torn = s->gaps[i].offset >= s->proven;
}

bool recover_search(const struct fileops *ops, int fd, const struct record_end *end,
                    struct recover_segment *s, bool *out_index_ok, struct error *err)
{
    struct segment_footer f;
    bool has_footer = read_footer(ops, fd, s, &f);
    *out_index_ok = !has_footer || read_index(ops, fd, &f, s);
    forget_entries(s);
    s->ended = true;
    uint32_t limit = scan_limit(ops, fd, s, end->end);
    bool ok = scan_file(ops, fd, limit, end->end, s);
    s->proven = end->proven;
    s->end = end->end;
    ok = ok && add_cut(s, limit);
    mark_torn(s);
    return ok ||
           error_set(err, ERROR_NO_ROOM, "no memory to read segment %016" PRIx64, s->header.number);
}

bool recover_scan(const struct fileops *ops, int fd, const struct record_end *end,
                  struct recover_segment *s, struct error *err)
{
    struct segment_footer f;
    struct record_end sealed;
    bool has_footer = read_footer(ops, fd, s, &f);
    if (has_footer && !end) {
        sealed = (struct record_end){s->header.number, f.end, f.end};
        end = &sealed;
    }
    s->ended = end != NULL;
    s->sealed = has_footer && read_index(ops, fd, &f, s);
    uint32_t limit = scan_limit(ops, fd, s, end ? end->end : 0);
    bool ok = s->sealed || scan_file(ops, fd, limit, end ? end->end : s->header.size, s);
    if (ok && end) {
        s->proven = end->proven;
        s->end = end->end;
        ok = s->sealed || add_cut(s, limit);
    } else if (ok && all_verified(s)) {
        s->proven = s->end;
    }
    mark_torn(s);
    return ok ||
           error_set(err, ERROR_NO_ROOM, "no memory to read segment %016" PRIx64, s->header.number);
}

/* ---- setting aside --------------------------------------------------------------------------- */

static bool copy_stretch(const struct fileops *ops, int from, const struct recover_gap *gap, int to)
{
    uint8_t *chunk = malloc(COPY_CHUNK);
    bool ok = chunk != NULL;
    uint32_t len = gap->len < RECOVER_COPY_MAX ? gap->len : RECOVER_COPY_MAX;
    for (uint32_t at = 0; ok && at < len;) {
        size_t want = len - at < COPY_CHUNK ? len - at : COPY_CHUNK;
        size_t got = 0;
        if (fileops_read_all(ops, from, chunk, want, (off_t)gap->offset + at, &got) < 0)
            got = 0;
        struct iovec iov = {.iov_base = chunk, .iov_len = got};
        ok = got == 0 || fileops_writev_all(ops, to, &iov, 1, (off_t)at) == 0;
        at += (uint32_t)want;
    }
    free(chunk);
    return ok && ops->fsync(ops->ctx, to) == 0;
}

bool recover_set_aside(const struct fileops *ops, int fd, const struct recover_gap *gap,
                       const char *path, struct error *err)
{
    int to = ops->open(ops->ctx, path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (to < 0)
        return errno == EEXIST || error_errno(err, errno, "create %s", path);
    bool ok = copy_stretch(ops, fd, gap, to) || error_errno(err, errno, "copy to %s", path);
    (void)ops->close(ops->ctx, to);
    return ok;
}
