#include "tests/unit/spool_fixture.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK 16384

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s failed\n", __FILE__, __LINE__, #condition);                 \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* ---- directory ------------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Memory-backed where there is such a place: the tests write much. */
static void make_place(char *out, size_t len)
{
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(out, len, "%s/outtray-XXXXXX", base);
    MUST(mkdtemp(out));
}

void fixture_init(struct spool_fixture *f)
{
    memset(f, 0, sizeof(*f));
    make_place(f->dir, sizeof(f->dir));
    f->now_ms = 1000000;
    inline_executor_init(&f->executor, false);
    f->options = (struct queue_options){
        .dir = f->dir,
        .segment_size = 1536 * 1024,
        .uncertain_wait_ms = 900000,
    };
}

bool fixture_open(struct spool_fixture *f, struct error *err)
{
    f->options.executor = inline_executor(&f->executor);
    f->options.now_ms = f->now_ms;
    f->options.wall_ms = FIXTURE_WALL + f->now_ms;
    f->queue = queue_open(&f->options, &f->found, err);
    return f->queue != NULL;
}

void fixture_close(struct spool_fixture *f)
{
    inline_executor_work(&f->executor);
    queue_close(f->queue);
    f->queue = NULL;
    inline_executor_run(&f->executor);
}

void fixture_done(struct spool_fixture *f)
{
    fixture_close(f);
    remove_tree(f->dir);
}

static void copy_file(const char *from, const char *to)
{
    char buffer[65536];
    FILE *in = fopen(from, "rb");
    FILE *out = fopen(to, "wb");
    size_t n;
    MUST(in && out);
    while ((n = fread(buffer, 1, sizeof(buffer), in)) > 0)
        MUST(fwrite(buffer, 1, n, out) == n);
    fclose(in);
    MUST(fclose(out) == 0);
}

static void copy_tree(const char *from, const char *to)
{
    DIR *dir = opendir(from);
    MUST(dir);
    MUST(mkdir(to, 0700) == 0 || access(to, W_OK) == 0);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        char source[512];
        char target[512];
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(source, sizeof(source), "%s/%s", from, e->d_name);
        snprintf(target, sizeof(target), "%s/%s", to, e->d_name);
        MUST(stat(source, &st) == 0);
        if (S_ISDIR(st.st_mode))
            copy_tree(source, target);
        else
            copy_file(source, target);
    }
    closedir(dir);
}

void fixture_crash(struct spool_fixture *f)
{
    char copy[64];
    make_place(copy, sizeof(copy));
    copy_tree(f->dir, copy);
    fixture_close(f);
    remove_tree(f->dir);
    MUST(rename(copy, f->dir) == 0);
}

void fixture_run(struct spool_fixture *f)
{
    inline_executor_run(&f->executor);
}

void fixture_tick(struct spool_fixture *f, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        f->now_ms += 1000;
        queue_tick(f->queue, f->now_ms, FIXTURE_WALL + f->now_ms);
        fixture_run(f);
    }
}

/* ---- messages -------------------------------------------------------------------------------- */

static void note(struct fixture_result *r, uint64_t id, const struct error *err)
{
    if (!r)
        return;
    r->calls++;
    r->ok = err == NULL;
    r->id = id;
    if (err)
        r->error = *err;
}

void fixture_committed(void *ctx, uint64_t id, const struct error *err)
{
    note(ctx, id, err);
}

void fixture_done_fn(void *ctx, const struct error *err)
{
    note(ctx, 0, err);
}

void fixture_envelope(struct envelope *e, size_t recipients)
{
    envelope_init(e);
    MUST(envelope_set(&e->reverse_path, "scanner@office.example"));
    MUST(envelope_set(&e->device, "printer"));
    MUST(envelope_set(&e->route, "main"));
    e->lane = LANE_NORMAL;
    e->arrived_ms = FIXTURE_WALL;
    for (size_t i = 0; i < recipients; i++) {
        char path[64];
        snprintf(path, sizeof(path), "r%zu@office.example", i);
        MUST(envelope_add_recipient(e, path));
    }
}

void fixture_fill(uint8_t *data, size_t len, uint64_t seed)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < len; i++) {
        if (i % sizeof(x) == 0) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        data[i] = (uint8_t)(x >> i % sizeof(x) * 8);
    }
}

static void drained(void *ctx)
{
    *(bool *)ctx = true;
}

struct queue_writer *fixture_write(struct spool_fixture *f, size_t size, uint64_t seed)
{
    static bool drain; /* of the one writer that appends just now */
    struct error err = ERROR_INIT;
    uint8_t *data = malloc(size ? size : 1);
    MUST(data);
    fixture_fill(data, size, seed);
    struct queue_writer *w = queue_begin(f->queue, LANE_NORMAL, drained, &drain, &err);
    for (size_t at = 0; w && at < size;) {
        size_t n = size - at < CHUNK ? size - at : CHUNK;
        drain = false;
        enum queue_flow flow = queue_append(w, data + at, n, &err);
        if (flow == QUEUE_FLOW_ERROR)
            break;
        at += n;
        if (flow == QUEUE_FLOW_FULL) {
            fixture_run(f);
            MUST(drain);
        }
    }
    free(data);
    return w;
}

uint64_t fixture_accept_to(struct spool_fixture *f, size_t size, uint64_t seed, size_t recipients,
                           struct fixture_result *out_result)
{
    struct envelope e;
    memset(out_result, 0, sizeof(*out_result));
    struct queue_writer *w = fixture_write(f, size, seed);
    if (!w)
        return 0;
    fixture_envelope(&e, recipients);
    uint64_t id = queue_writer_id(w);
    queue_commit(w, &e, f->now_ms, FIXTURE_WALL + f->now_ms, fixture_committed, out_result);
    envelope_done(&e);
    MUST(out_result->calls == 0);
    fixture_run(f);
    MUST(out_result->calls == 1);
    return id;
}

uint64_t fixture_accept(struct spool_fixture *f, size_t size, uint64_t seed)
{
    struct fixture_result r;
    uint64_t id = fixture_accept_to(f, size, seed, 1, &r);
    if (!r.ok)
        fprintf(stderr, "not accepted: %s\n", r.error.text);
    MUST(r.ok && r.id == id);
    return id;
}

/* ---- reading --------------------------------------------------------------------------------- */

struct reading {
    struct fixture_mail *mail;
    struct queue_reader *reader;
    bool ended;
};

static void got(void *ctx, const uint8_t *data, size_t len, const struct error *err)
{
    struct reading *r = ctx;
    if (err)
        r->mail->error = *err;
    r->ended = err || len == 0;
    if (r->ended)
        return;
    MUST(bytes_append(&r->mail->data, data, len));
    queue_read(r->reader, got, r);
}

static void opened(void *ctx, struct queue_reader *reader, const struct envelope *e,
                   const struct error *err)
{
    struct reading *r = ctx;
    if (err) {
        r->mail->error = *err;
        r->ended = true;
        return;
    }
    r->reader = reader;
    r->mail->opened = true;
    MUST(envelope_copy(&r->mail->envelope, e));
    queue_read(reader, got, r);
}

void fixture_read(struct spool_fixture *f, uint64_t id, struct fixture_mail *out)
{
    struct reading r = {.mail = out};
    memset(out, 0, sizeof(*out));
    envelope_init(&out->envelope);
    bytes_init(&out->data, 256u * 1024 * 1024);
    queue_reader_open(f->queue, id, opened, &r);
    fixture_run(f);
    MUST(r.ended);
    queue_reader_close(r.reader);
}

void fixture_mail_done(struct fixture_mail *mail)
{
    envelope_done(&mail->envelope);
    bytes_done(&mail->data);
}

bool fixture_intact(struct spool_fixture *f, uint64_t id, size_t size, uint64_t seed)
{
    struct fixture_mail mail;
    uint8_t *data = malloc(size ? size : 1);
    MUST(data);
    fixture_fill(data, size, seed);
    fixture_read(f, id, &mail);
    bool same = mail.error.kind == ERROR_NONE && mail.data.len == size &&
                (size == 0 || memcmp(mail.data.data, data, size) == 0) &&
                mail.envelope.size == size &&
                strcmp(mail.envelope.reverse_path, "scanner@office.example") == 0;
    fixture_mail_done(&mail);
    free(data);
    return same;
}

/* ---- sending --------------------------------------------------------------------------------- */

bool fixture_pick(struct spool_fixture *f, struct queue_info *out_info)
{
    uint32_t route;
    MUST(queue_route(f->queue, "main", &route));
    return queue_pick(f->queue, route, f->now_ms, out_info);
}

void fixture_settle_for(struct spool_fixture *f, uint64_t id, enum queue_state state,
                        enum recipient_state recipient, uint64_t wait_ms, queue_done_fn *done,
                        void *ctx)
{
    struct envelope e;
    fixture_envelope(&e, 1);
    e.recipients[0].state = recipient;
    MUST(envelope_set(&e.recipients[0].reply, "451 4.7.500 server busy"));
    struct queue_attempt attempt = {
        .envelope = &e, .state = state, .wait_ms = wait_ms, .tried_ms = 5000, .counts = true};
    queue_settle(f->queue, id, &attempt, f->now_ms, FIXTURE_WALL + f->now_ms, done, ctx);
    envelope_done(&e);
}

void fixture_settle(struct spool_fixture *f, uint64_t id, enum queue_state state,
                    enum recipient_state recipient, uint64_t wait_ms,
                    struct fixture_result *out_result)
{
    if (out_result)
        memset(out_result, 0, sizeof(*out_result));
    fixture_settle_for(f, id, state, recipient, wait_ms, out_result ? fixture_done_fn : NULL,
                       out_result);
}

size_t fixture_count(struct spool_fixture *f)
{
    size_t n = 0;
    uint64_t after = 0;
    struct queue_info info;
    while (queue_list(f->queue, after, &info)) {
        MUST(info.id > after);
        after = info.id;
        n++;
    }
    return n;
}

/* ---- files ----------------------------------------------------------------------------------- */

static int visible(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

const char *fixture_path(struct spool_fixture *f, const char *directory, size_t n)
{
    static char path[512];
    char dir[128];
    struct dirent **names;
    snprintf(dir, sizeof(dir), "%s/%s", f->dir, directory);
    int count = scandir(dir, &names, visible, alphasort);
    MUST(count > (int)n);
    snprintf(path, sizeof(path), "%s/%s", dir, names[n]->d_name);
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
    return path;
}

size_t fixture_files(struct spool_fixture *f, const char *directory)
{
    char dir[128];
    struct dirent **names;
    snprintf(dir, sizeof(dir), "%s/%s", f->dir, directory);
    int count = scandir(dir, &names, visible, alphasort);
    MUST(count >= 0);
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
    return (size_t)count;
}

void fixture_flip(const char *path, long offset, uint8_t bits)
{
    FILE *file = fopen(path, "r+b");
    MUST(file);
    MUST(fseek(file, offset, offset < 0 ? SEEK_END : SEEK_SET) == 0);
    int c = fgetc(file);
    MUST(c != EOF);
    MUST(fseek(file, -1, SEEK_CUR) == 0);
    MUST(fputc(c ^ bits, file) != EOF);
    MUST(fclose(file) == 0);
}
