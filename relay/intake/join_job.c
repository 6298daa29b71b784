#include "relay/intake/join_job.h"

#include <stdlib.h>
#include <string.h>

#include "relay/smtp/header.h"
#include "relay/smtp/mime.h"
#include "relay/smtp/partial.h"
#include "relay/smtp/repair.h"
#include "relay/smtp/trace.h"

#define SUBJECT_MAX 201 /* octets kept for people, with NUL */

struct join_job {
    struct join_job_settings set;
    struct queue_writer *writer;
    struct queue_reader *reader;
    struct envelope envelope; /* the first fragment's, then the whole's */
    struct header outer;      /* of the first fragment */
    struct header inner;      /* that its body begins with */
    struct mime mime;
    struct error error;
    uint64_t max_size;
    size_t at;      /* which fragment is read */
    uint64_t left;  /* octets of its header that are still to come */
    bool in_header; /* the inner header has not ended */
    bool full;      /* the spool asked to stop */
    bool paused;    /* ... and the next block waits for that */
    bool starting;
    bool ended; /* while starting */
    bool committing;
    bool opening;
    bool abandoned; /* freed while committing or opening */
    uint8_t room[MIME_ROOM(QUEUE_BLOCK)];
};

static void read_next(struct join_job *j);
static void open_next(struct join_job *j);

/* ---- what fragments have in common ----------------------------------------------------------- */

/* FNV-1a, with an end that no text has. */
static uint64_t hash_text(uint64_t hash, const char *text)
{
    for (; *text != '\0'; text++)
        hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return (hash ^ 0x100) * UINT64_C(1099511628211);
}

uint64_t join_kin(const struct envelope *e)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    hash = hash_text(hash, e->device);
    hash = hash_text(hash, e->partial_id);
    hash = hash_text(hash, e->reverse_path);
    for (size_t i = 0; i < e->recipient_count; i++)
        hash = hash_text(hash, e->recipients[i].forward_path);
    return hash;
}

/* Hashes may agree by chance, or by somebody's will. */
static bool are_kin(const struct envelope *a, const struct envelope *b)
{
    if (strcmp(a->device, b->device) != 0 || strcmp(a->partial_id, b->partial_id) != 0 ||
        strcmp(a->reverse_path, b->reverse_path) != 0 || strcmp(a->route, b->route) != 0 ||
        a->recipient_count != b->recipient_count)
        return false;
    for (size_t i = 0; i < a->recipient_count; i++) {
        if (strcmp(a->recipients[i].forward_path, b->recipients[i].forward_path) != 0)
            return false;
    }
    return true;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void job_destroy(struct join_job *j)
{
    queue_reader_close(j->reader);
    queue_abort(j->writer);
    header_done(&j->outer);
    header_done(&j->inner);
    envelope_done(&j->envelope);
    free(j);
}

void join_job_free(struct join_job *j)
{
    if (j == NULL)
        return;
    if (!j->committing && !j->opening) {
        job_destroy(j);
        return;
    }
    j->abandoned = true; /* its callback comes */
    queue_abort(j->writer);
    j->writer = NULL;
}

bool join_job_is_committing(const struct join_job *j)
{
    return j->committing;
}

static void job_end(struct join_job *j, uint64_t id)
{
    if (j->starting) {
        j->ended = true;
        return;
    }
    struct join_job_settings set = j->set;
    struct error err = j->error;
    uint64_t size = j->envelope.size;
    job_destroy(j);
    set.on_end(set.ctx, id, size, err.kind != ERROR_NONE ? &err : NULL);
}

static bool no_memory(struct join_job *j)
{
    return error_set(&j->error, ERROR_NO_ROOM, "out of memory");
}

/* ---- writing --------------------------------------------------------------------------------- */

static bool append(struct join_job *j, const void *data, size_t len)
{
    char max[QUEUE_SIZE_TEXT];
    if (queue_writer_size(j->writer) + len > j->max_size) {
        queue_size_text(j->max_size, max);
        return error_set(&j->error, ERROR_LIMIT,
                         "together they are larger than the mailboxes of the route take (%s)", max);
    }
    enum queue_flow flow = queue_append(j->writer, data, len, &j->error);
    if (flow == QUEUE_FLOW_FULL)
        j->full = true;
    return flow != QUEUE_FLOW_ERROR;
}

static bool take_filtered(struct join_job *j, size_t len)
{
    if (j->mime.binary)
        return error_set(&j->error, ERROR_INVALID, "together they hold raw binary data");
    return append(j, j->room, len);
}

static bool take_body(struct join_job *j, const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t n = len < QUEUE_BLOCK ? len : QUEUE_BLOCK;
        if (!take_filtered(j, mime_filter(&j->mime, data, n, j->room)))
            return false;
        data += n;
        len -= n;
    }
    return true;
}

/* ---- the header ------------------------------------------------------------------------------ */

static bool feed(struct header *h, const uint8_t *data, size_t len, size_t *out_used)
{
    *out_used = 0;
    while (*out_used < len && h->state == HEADER_MORE) {
        size_t n = len - *out_used < HEADER_CHUNK_MAX ? len - *out_used : HEADER_CHUNK_MAX;
        (void)header_feed(h, data + *out_used, n);
        *out_used += n;
    }
    return h->state == HEADER_MORE || h->state == HEADER_DONE;
}

static bool bad_header(struct join_job *j, const struct header *h)
{
    return h->state == HEADER_NO_MEMORY
               ? no_memory(j)
               : error_set(&j->error, ERROR_INVALID, "the first one's header cannot be read");
}

static const char *value_of(const struct header *h, enum header_name name, size_t *out_len)
{
    const struct header_field *field = header_find(h, name);
    *out_len = 0;
    return field != NULL ? header_value(h, field, out_len) : "";
}

static void begin_mime(struct join_job *j, const struct header *h)
{
    size_t type_len;
    size_t encoding_len;
    const char *type = value_of(h, HEADER_CONTENT_TYPE, &type_len);
    const char *encoding = value_of(h, HEADER_CONTENT_TRANSFER_ENCODING, &encoding_len);
    mime_begin(&j->mime, type, type_len, encoding, encoding_len);
}

static bool keep_facts(struct join_job *j, struct header *h, const char *message_id)
{
    struct envelope *e = &j->envelope;
    char text[ENVELOPE_PATH_MAX + 1];
    header_text(h, HEADER_MESSAGE_ID, text, sizeof text);
    if (!envelope_set(&e->message_id, text[0] != '\0' ? text : message_id))
        return no_memory(j);
    header_text(h, HEADER_SUBJECT, text, SUBJECT_MAX);
    header_note(h, "joined");
    return (envelope_set(&e->subject, text) && envelope_set(&e->repairs, h->repairs)) ||
           no_memory(j);
}

static bool repair(struct join_job *j, struct header *h)
{
    char date[TRACE_DATE_MAX];
    char message_id[TRACE_MESSAGE_ID_MAX];
    uint64_t wall_ms = clock_wall_ms(j->set.clock);
    const struct repair_facts facts = {.date = date,
                                       .message_id = message_id,
                                       .reverse_path = j->envelope.reverse_path,
                                       .device = j->envelope.device,
                                       .hostname = j->set.hostname,
                                       .charset = j->set.charset,
                                       .smtputf8 = j->envelope.smtputf8};
    trace_date(wall_ms, 0, date);
    trace_message_id(queue_writer_id(j->writer), wall_ms, j->set.hostname, message_id);
    return repair_header(h, &facts) ? keep_facts(j, h, message_id) : no_memory(j);
}

static bool write_header(struct join_job *j, const struct header *h)
{
    struct bytes out;
    struct bytes none;
    bytes_init(&none, 0);
    bytes_init(&out, JOIN_HEADER_MAX);
    bool ok = header_write(h, &none, &out, &j->envelope.header_size)
                  ? append(j, out.data, out.len)
                  : error_set(&j->error, ERROR_LIMIT, "together their header is too large");
    bytes_done(&out);
    return ok;
}

/* Text that is a header by itself: held, repaired and written as any other. */
static bool take_header(struct join_job *j, const struct bytes *text)
{
    struct header h;
    size_t used;
    header_init(&h);
    bool ok = feed(&h, text->data, text->len, &used) && header_finish(&h) == HEADER_DONE;
    ok = ok ? repair(j, &h) && write_header(j, &h) : bad_header(j, &h);
    if (ok)
        begin_mime(j, &h);
    header_done(&h);
    return ok;
}

static bool begin_whole(struct join_job *j)
{
    struct bytes text;
    size_t rest_len;
    if (j->outer.state != HEADER_DONE)
        return bad_header(j, &j->outer);
    if (j->inner.field_count == 0)
        return error_set(&j->error, ERROR_INVALID,
                         "the first one does not begin with the header of the whole");
    bytes_init(&text, 2 * HEADER_MAX + 2);
    bool ok = partial_join(&j->outer, &j->inner, &text) ? take_header(j, &text) : no_memory(j);
    bytes_done(&text);
    j->in_header = false;
    const uint8_t *rest = header_rest(&j->inner, &rest_len);
    ok = ok && take_body(j, rest, rest_len);
    header_done(&j->inner);
    header_done(&j->outer);
    return ok;
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool take_outer(struct join_job *j, const uint8_t *data, size_t len)
{
    size_t used;
    j->left -= len;
    return j->at > 0 || (feed(&j->outer, data, len, &used) && used == len) ||
           bad_header(j, &j->outer);
}

static bool take_inner(struct join_job *j, const uint8_t *data, size_t len)
{
    size_t used;
    if (!feed(&j->inner, data, len, &used))
        return bad_header(j, &j->inner);
    if (j->inner.state == HEADER_MORE)
        return true;
    return begin_whole(j) && take_body(j, data + used, len - used);
}

static bool take_block(struct join_job *j, const uint8_t *data, size_t len)
{
    size_t header = j->left < len ? (size_t)j->left : len;
    if (header > 0 && !take_outer(j, data, header))
        return false;
    if (header == len)
        return true;
    return j->in_header ? take_inner(j, data + header, len - header)
                        : take_body(j, data + header, len - header);
}

static bool end_fragment(struct join_job *j)
{
    queue_reader_close(j->reader);
    j->reader = NULL;
    j->at++;
    if (!j->in_header)
        return true;
    return header_finish(&j->inner) == HEADER_DONE ? begin_whole(j) : bad_header(j, &j->inner);
}

static void on_read(void *ctx, const uint8_t *data, size_t len, const struct error *err)
{
    struct join_job *j = ctx;
    if (err != NULL)
        j->error = *err;
    else if (len == 0 ? end_fragment(j) : take_block(j, data, len)) {
        read_next(j);
        return;
    }
    job_end(j, 0);
}

static void on_drain(void *ctx)
{
    struct join_job *j = ctx;
    j->full = false;
    if (j->paused)
        read_next(j);
}

static void read_next(struct join_job *j)
{
    j->paused = j->full;
    if (j->paused)
        return;
    if (j->reader != NULL)
        queue_read(j->reader, on_read, j);
    else
        open_next(j);
}

static bool begin_fragment(struct join_job *j, const struct envelope *e)
{
    if (e->header_size == 0)
        return error_set(&j->error, ERROR_INVALID, "one's header was too large to be looked at");
    if (j->at == 0 && !envelope_copy(&j->envelope, e))
        return no_memory(j);
    if (j->at == 0)
        j->max_size = j->set.max_size(j->set.ctx, e->route);
    if (!are_kin(&j->envelope, e))
        return error_set(&j->error, ERROR_INVALID, "they are not of one mail");
    if (e->body == ENVELOPE_BODY_8BITMIME)
        j->envelope.body = ENVELOPE_BODY_8BITMIME;
    j->envelope.smtputf8 |= e->smtputf8;
    j->left = e->header_size;
    return true;
}

static void on_opened(void *ctx, struct queue_reader *r, const struct envelope *e,
                      const struct error *err)
{
    struct join_job *j = ctx;
    j->opening = false;
    j->reader = r;
    if (j->abandoned) {
        job_destroy(j);
        return;
    }
    if (err != NULL)
        j->error = *err;
    else if (begin_fragment(j, e)) {
        read_next(j);
        return;
    }
    job_end(j, 0);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void on_committed(void *ctx, uint64_t id, const struct error *err)
{
    struct join_job *j = ctx;
    j->committing = false;
    if (j->abandoned) {
        job_destroy(j);
        return;
    }
    if (err != NULL) {
        j->error = *err;
        j->error.kind = ERROR_IO; /* of the disk: it may pass */
    }
    job_end(j, id);
}

static void commit(struct join_job *j)
{
    struct envelope *e = &j->envelope;
    struct queue_writer *w = j->writer;
    uint64_t wall_ms = clock_wall_ms(j->set.clock);
    if (!take_filtered(j, mime_finish(&j->mime, j->room))) {
        job_end(j, 0);
        return;
    }
    e->joined = e->partial_total = (uint32_t)j->set.count;
    e->partial_number = 0;
    e->partial_group = j->set.group;
    e->arrived_ms = wall_ms;
    e->size = queue_writer_size(w);
    j->writer = NULL;
    j->committing = true;
    queue_commit(w, e, clock_now_ms(j->set.clock), wall_ms, on_committed, j);
}

static void open_next(struct join_job *j)
{
    if (j->at == j->set.count) {
        commit(j);
        return;
    }
    j->opening = true;
    queue_reader_open(j->set.queue, j->set.ids[j->at], on_opened, j);
}

struct join_job *join_job_start(const struct join_job_settings *settings, struct error *err)
{
    struct join_job *j = calloc(1, sizeof *j);
    if (j == NULL) {
        error_set(err, ERROR_NO_ROOM, "out of memory");
        return NULL;
    }
    j->set = *settings;
    envelope_init(&j->envelope);
    header_init(&j->outer);
    header_init(&j->inner);
    j->in_header = true;
    j->writer = queue_begin(settings->queue, LANE_NORMAL, on_drain, j, err);
    if (j->writer == NULL) {
        job_destroy(j);
        return NULL;
    }
    j->starting = true;
    open_next(j);
    j->starting = false;
    if (j->ended) {
        *err = j->error;
        job_destroy(j);
        return NULL;
    }
    return j;
}
