#include "relay/submit/letter.h"

#include <stdlib.h>
#include <string.h>

#include "relay/smtp/header.h"
#include "relay/smtp/report.h"
#include "relay/smtp/sevenbit.h"
#include "relay/smtp/words.h"

/* The longest header that is looked at, the trace field in front of it, and the block it ends in.
 */
#define HEAD_MAX (HEADER_REPLACED_MAX + HEADER_MAX + 2 * QUEUE_BLOCK)

struct letter {
    struct queue_reader *reader;
    const struct envelope *envelope;
    const struct identity *identity;
    letter_ready_fn *ready;
    queue_read_fn *read;
    void *ctx;
    void *read_ctx;
    struct bytes head;   /* what is read ahead: the header, and what came with its end */
    struct bytes stored; /* the beginning of the header, kept for a report */
    size_t head_given;   /* of it, handed out */
    uint64_t size;
    bool converts;
    bool ended;                /* all of it went into the conversion */
    struct sevenbit *sevenbit; /* made with the first block */
    struct bytes converted;
    size_t converted_given; /* of it, handed out */
    char reverse_path[ADDRESS_PATH_MAX];
};

/* Made with SMTPUTF8 where the server has it: some address that is pending asks for it. */
static bool asks_for_smtputf8(const struct letter *l)
{
    const struct envelope *e = l->envelope;
    bool ascii = words_is_ascii(l->reverse_path, strlen(l->reverse_path));
    for (size_t i = 0; i < e->recipient_count && ascii; i++) {
        const struct recipient *r = &e->recipients[i];
        ascii = r->state != RECIPIENT_PENDING ||
                words_is_ascii(r->forward_path, strlen(r->forward_path));
    }
    return !ascii;
}

/* The header was read: puts the changed one in its place. */
static bool letter_address(struct letter *l, struct error *err)
{
    struct bytes changed;
    bool is_changed = false;
    size_t header = l->envelope->header_size;
    struct identity identity = *l->identity;
    identity.ascii = l->envelope->smtputf8 && !asks_for_smtputf8(l);
    bytes_init(&changed, HEAD_MAX);
    bool ok = identity_apply(&identity, l->head.data, header, &changed, &is_changed);
    if (ok && is_changed) {
        l->size = l->size - header + changed.len;
        ok = bytes_append(&changed, l->head.data + header, l->head.len - header);
        bytes_done(&l->head);
        l->head = changed;
    } else {
        bytes_done(&changed);
    }
    return ok || error_set(err, ERROR_NO_ROOM, "out of memory");
}

static bool is_to_be_told(const struct envelope *e)
{
    for (size_t i = 0; i < e->recipient_count; i++) {
        if (report_notify_has(e->recipients[i].notify, "SUCCESS"))
            return true;
    }
    return false;
}

/* A report can do without. */
static void keep_header(struct letter *l)
{
    size_t len = l->envelope->header_size;
    if (is_to_be_told(l->envelope))
        (void)bytes_append(&l->stored, l->head.data, len < l->stored.max ? len : l->stored.max);
}

static void letter_is_ready(struct letter *l, const struct error *err)
{
    letter_ready_fn *ready = l->ready;
    l->identity = NULL;
    ready(l->ctx, err);
}

static void on_head(void *ctx, const uint8_t *data, size_t len, const struct error *err)
{
    struct letter *l = ctx;
    struct error own = ERROR_INIT;
    if (err == NULL && len > 0 && !bytes_append(&l->head, data, len))
        error_set(&own, ERROR_NO_ROOM, "out of memory");
    if (err == NULL && len == 0)
        error_set(&own, ERROR_DAMAGED, "the stored message ends within its header");
    if (err == NULL && own.kind == ERROR_NONE && l->head.len < l->envelope->header_size) {
        queue_read(l->reader, on_head, l);
        return;
    }
    if (err == NULL && own.kind == ERROR_NONE) {
        keep_header(l);
        (void)letter_address(l, &own);
    }
    letter_is_ready(l, own.kind != ERROR_NONE ? &own : err);
}

struct letter *letter_new(struct queue_reader *reader, const struct envelope *e,
                          const struct identity *identity, letter_ready_fn *done, void *ctx)
{
    struct letter *l = calloc(1, sizeof *l);
    if (l == NULL) {
        queue_reader_close(reader);
        return NULL;
    }
    *l = (struct letter){.reader = reader,
                         .envelope = e,
                         .identity = identity,
                         .ready = done,
                         .ctx = ctx,
                         .size = e->size};
    bytes_init(&l->head, HEAD_MAX);
    bytes_init(&l->stored, REPORT_HEADER_MAX + 2); /* shows where to cut */
    identity_reverse_path(identity, e->reverse_path, l->reverse_path);
    queue_read(reader, on_head, l);
    return l;
}

void letter_free(struct letter *l)
{
    if (l == NULL)
        return;
    queue_reader_close(l->reader);
    bytes_done(&l->head);
    bytes_done(&l->stored);
    bytes_done(&l->converted);
    free(l->sevenbit);
    free(l);
}

const char *letter_reverse_path(const struct letter *l)
{
    return l->reverse_path;
}

const uint8_t *letter_header(const struct letter *l, size_t *out_len)
{
    *out_len = l->stored.len;
    return l->stored.len > 0 ? l->stored.data : NULL;
}

uint64_t letter_size(const struct letter *l)
{
    return l->size;
}

/* ---- reading --------------------------------------------------------------------------------- */

void letter_convert(struct letter *l)
{
    l->converts = true;
}

/* The next block as it is sent to a server that takes anything. */
static void read_block(struct letter *l, queue_read_fn *done, void *ctx)
{
    size_t left = l->head.len - l->head_given;
    if (left == 0) {
        bytes_done(&l->head);
        l->head_given = 0;
        queue_read(l->reader, done, ctx);
        return;
    }
    const uint8_t *data = l->head.data + l->head_given;
    size_t n = left < QUEUE_BLOCK ? left : QUEUE_BLOCK;
    l->head_given += n;
    done(ctx, data, n, NULL);
}

static void on_block(void *ctx, const uint8_t *data, size_t len, const struct error *err)
{
    struct letter *l = ctx;
    l->read(l->read_ctx, data, len, err);
}

static bool prepare_conversion(struct letter *l)
{
    if (l->sevenbit != NULL)
        return true;
    bytes_init(&l->converted, SEVENBIT_ROOM(QUEUE_BLOCK));
    l->sevenbit = malloc(sizeof *l->sevenbit);
    if (l->sevenbit != NULL)
        sevenbit_begin(l->sevenbit);
    return l->sevenbit != NULL;
}

static bool convert(struct letter *l, const uint8_t *data, size_t len, struct error *err)
{
    bool ok = prepare_conversion(l);
    l->ended = len == 0;
    if (ok)
        ok = l->ended ? sevenbit_finish(l->sevenbit, &l->converted)
                      : sevenbit_filter(l->sevenbit, data, len, &l->converted);
    if (ok)
        return true;
    if (l->sevenbit != NULL && l->sevenbit->trouble != NULL)
        return error_set(err, ERROR_INVALID,
                         "the server takes no 8-bit mail and the message cannot be converted: %s",
                         l->sevenbit->trouble);
    return error_set(err, ERROR_NO_ROOM, "out of memory");
}

static void give_converted(struct letter *l);

static void on_unconverted(void *ctx, const uint8_t *data, size_t len, const struct error *err)
{
    struct letter *l = ctx;
    struct error own = ERROR_INIT;
    if (err == NULL && !convert(l, data, len, &own))
        err = &own;
    if (err != NULL)
        l->read(l->read_ctx, NULL, 0, err);
    else
        give_converted(l);
}

static void give_converted(struct letter *l)
{
    size_t left = l->converted.len - l->converted_given;
    size_t n = left < QUEUE_BLOCK ? left : QUEUE_BLOCK;
    size_t from = l->converted_given;
    if (left == 0 && !l->ended) {
        bytes_clear(&l->converted);
        l->converted_given = 0;
        read_block(l, on_unconverted, l);
        return;
    }
    l->converted_given += n;
    l->read(l->read_ctx, n > 0 ? l->converted.data + from : NULL, n, NULL);
}

void letter_read(struct letter *l, queue_read_fn *done, void *ctx)
{
    l->read = done;
    l->read_ctx = ctx;
    if (l->converts)
        give_converted(l);
    else
        read_block(l, on_block, l);
}
