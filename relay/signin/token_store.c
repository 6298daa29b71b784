#include "relay/signin/token_store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "queue/bytes.h"
#include "relay/base/secret.h"

#define MAGIC      "OTTOKEN1"
#define MAGIC_LEN  8
#define SEALED     1u
#define KEY_LEN    32
#define KEY_ID     8
#define NONCE_LEN  12
#define TAG_LEN    16
#define CRC_LEN    4
#define HEADER_LEN (MAGIC_LEN + 4 + 4 + KEY_ID + NONCE_LEN)
#define ASIDE_TRY  100 /* names */

/*
 * The file, little-endian:
 *   magic 8, flags 4, length of the content 4, id of the key 8, nonce 12   (the header)
 *   content
 *   tag 16 when sealed, which covers the header as well; else CRC-32 4 of header and content
 * The content: a count 4, then for each name, access, refresh (length 4, octets), ends 8, life 4,
 * login 8, used 8.
 */

struct entry {
    struct entry *next;
    char *name;
    char *access;
    char *refresh;
    uint64_t ends_s;
    uint32_t life_s;
    uint64_t login_s;
    uint64_t used_s;
};

struct key {
    unsigned char key[KEY_LEN];
    unsigned char id[KEY_ID];
};

struct waiter {
    struct waiter *next;
    token_store_stored *stored;
    void *ctx;
};

/* A write: the executor's while it runs. */
struct write_job {
    struct executor_job job; /* first: the executor hands back its address */
    struct token_store *store;
    struct bytes content;
    bool sealed;
    struct key key;
    bool set_aside; /* the old file first */
    bool nothing;   /* the file is locked: only tells so */
    bool ok;
    struct error err;
    struct waiter *waiters;
};

_Static_assert(offsetof(struct write_job, job) == 0, "a job is its write");

struct token_store {
    char directory[PATH_MAX];
    char file[PATH_MAX];
    const struct fileops *ops;
    struct executor executor;
    uint64_t wall_s;
    bool sealed;
    struct key key;
    bool locked; /* what is on disk must stay */
    bool aside_wanted;
    struct error why_locked;
    struct entry *entries;
    size_t count;
    struct waiter *waiters; /* for the write after the one under way */
    bool writing;
};

/* ---- Memory ---- */

static void wipe_text(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

static void wipe_bytes(struct bytes *b)
{
    if (b->data != NULL)
        explicit_bzero(b->data, b->cap);
    bytes_done(b);
}

static void entry_free(struct entry *e)
{
    if (e == NULL)
        return;
    free(e->name);
    wipe_text(e->access);
    wipe_text(e->refresh);
    free(e);
}

static struct entry **find_entry(struct token_store *s, const char *name)
{
    struct entry **at = &s->entries;

    while (*at != NULL && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    return at;
}

static void remove_entry(struct token_store *s, struct entry **at)
{
    struct entry *e = *at;

    if (e == NULL)
        return;
    *at = e->next;
    entry_free(e);
    s->count--;
}

static struct entry *entry_new(const char *name, const struct token_record *r)
{
    struct entry *e = calloc(1, sizeof(*e));

    if (e == NULL)
        return NULL;
    e->name = strdup(name);
    e->access = strdup(r->access);
    e->refresh = strdup(r->refresh);
    e->ends_s = r->ends_s;
    e->life_s = r->life_s;
    e->login_s = r->login_s;
    e->used_s = r->used_s;
    if (e->name != NULL && e->access != NULL && e->refresh != NULL)
        return e;
    entry_free(e);
    return NULL;
}

/* ---- The content ---- */

static void write_text(struct bytes *b, const char *text)
{
    (void)bytes_u32(b, (uint32_t)strlen(text));
    (void)bytes_append(b, text, strlen(text));
}

static size_t content_size(const struct token_store *s)
{
    size_t size = 4;

    for (const struct entry *e = s->entries; e != NULL; e = e->next)
        size += strlen(e->name) + strlen(e->access) + strlen(e->refresh) + 64;
    return size;
}

/* All the room at once, so that growing leaves no copies behind. */
static bool write_content(const struct token_store *s, struct bytes *b)
{
    size_t size = content_size(s);

    bytes_init(b, TOKEN_STORE_MAX);
    if (bytes_reserve(b, size) == NULL)
        return false;
    (void)bytes_u32(b, (uint32_t)s->count);
    for (const struct entry *e = s->entries; e != NULL; e = e->next) {
        write_text(b, e->name);
        write_text(b, e->access);
        write_text(b, e->refresh);
        (void)bytes_u64(b, e->ends_s);
        (void)bytes_u32(b, e->life_s);
        (void)bytes_u64(b, e->login_s);
        (void)bytes_u64(b, e->used_s);
    }
    return !b->failed;
}

static char *read_text(struct bytes_reader *r, size_t max)
{
    uint32_t len = bytes_read32(r);
    const uint8_t *p = len <= max ? bytes_read(r, len) : NULL;

    if (len > max || p == NULL || memchr(p, '\0', len) != NULL)
        return NULL;
    return strndup((const char *)p, len);
}

static struct entry *read_entry(struct bytes_reader *r)
{
    struct entry *e = calloc(1, sizeof(*e));

    if (e == NULL)
        return NULL;
    e->name = read_text(r, TOKEN_STORE_NAME_MAX);
    e->access = read_text(r, SECRET_MAX);
    e->refresh = read_text(r, SECRET_MAX);
    e->ends_s = bytes_read64(r);
    e->life_s = bytes_read32(r);
    e->login_s = bytes_read64(r);
    e->used_s = bytes_read64(r);
    if (!r->failed && e->name != NULL && e->access != NULL && e->refresh != NULL)
        return e;
    entry_free(e);
    return NULL;
}

static bool read_content(struct token_store *s, const uint8_t *data, size_t len)
{
    struct bytes_reader r;
    uint32_t count;

    bytes_reader_init(&r, data, len);
    count = bytes_read32(&r);
    for (uint32_t i = 0; i < count && i < TOKEN_STORE_ENTRIES; i++) {
        struct entry *e = read_entry(&r);

        if (e == NULL)
            return false;
        e->next = s->entries;
        s->entries = e;
        s->count++;
    }
    return !r.failed && r.left == 0;
}

/* ---- The key ---- */

static bool derive(const struct secret *from, const char *info, unsigned char *out, size_t len)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)(uintptr_t) "SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)secret_text(from),
                                          secret_length(from)),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)info,
                                          strlen(info)),
        OSSL_PARAM_construct_end(),
    };
    bool ok = ctx != NULL && EVP_KDF_derive(ctx, out, len, params) == 1;

    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return ok;
}

/* True without a credential, too. */
static bool read_key(struct token_store *s, struct error *err)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    char path[PATH_MAX];
    struct secret *secret = NULL;
    bool ok = false;

    if (directory == NULL || directory[0] == '\0' ||
        snprintf(path, sizeof(path), "%s/" TOKEN_STORE_CREDENTIAL, directory) >=
            (int)sizeof(path) ||
        access(path, F_OK) != 0)
        return true;
    secret = secret_from_file(path, err);
    if (secret == NULL)
        return error_wrap(err, "key of the tokens' file");
    if (secret_length(secret) < TOKEN_STORE_KEY_MIN)
        ok = error_set(err, ERROR_INVALID,
                       "key of the tokens' file: the credential " TOKEN_STORE_CREDENTIAL
                       " has %zu characters, %d are needed; make it with: openssl rand -hex 32",
                       secret_length(secret), TOKEN_STORE_KEY_MIN);
    else if (!derive(secret, "outtray tokens key 1", s->key.key, KEY_LEN) ||
             !derive(secret, "outtray tokens id 1", s->key.id, KEY_ID))
        ok = error_set(err, ERROR_NO_ROOM, "key of the tokens' file: out of memory");
    else
        s->sealed = ok = true;
    secret_free(secret);
    return ok;
}

/* ---- Sealing ---- */

/* In place, both ways. */
static bool seal(const struct key *key, const uint8_t *header, uint8_t *data, size_t len,
                 uint8_t tag[TAG_LEN])
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n = 0;
    bool ok = ctx != NULL &&
              EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key->key,
                                 header + HEADER_LEN - NONCE_LEN) == 1 &&
              EVP_EncryptUpdate(ctx, NULL, &n, header, HEADER_LEN) == 1 &&
              EVP_EncryptUpdate(ctx, data, &n, data, (int)len) == 1 &&
              EVP_EncryptFinal_ex(ctx, data + n, &n) == 1 &&
              EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_LEN, tag) == 1;

    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

static bool unseal(const struct key *key, const uint8_t *header, uint8_t *data, size_t len,
                   uint8_t tag[TAG_LEN])
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n = 0;
    bool ok = ctx != NULL &&
              EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key->key,
                                 header + HEADER_LEN - NONCE_LEN) == 1 &&
              EVP_DecryptUpdate(ctx, NULL, &n, header, HEADER_LEN) == 1 &&
              EVP_DecryptUpdate(ctx, data, &n, data, (int)len) == 1 &&
              EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_LEN, tag) == 1 &&
              EVP_DecryptFinal_ex(ctx, data + n, &n) == 1;

    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

static bool make_header(const struct write_job *j, uint8_t header[HEADER_LEN])
{
    memset(header, 0, HEADER_LEN);
    memcpy(header, MAGIC, MAGIC_LEN);
    bytes_put32(header + MAGIC_LEN, j->sealed ? SEALED : 0);
    bytes_put32(header + MAGIC_LEN + 4, (uint32_t)j->content.len);
    if (!j->sealed)
        return true;
    memcpy(header + MAGIC_LEN + 8, j->key.id, KEY_ID);
    return RAND_bytes(header + HEADER_LEN - NONCE_LEN, NONCE_LEN) == 1;
}

/* ---- Reading ---- */

static bool read_rest(int fd, struct bytes *out)
{
    struct stat st;
    uint8_t *room;
    size_t size;

    if (fstat(fd, &st) != 0 || st.st_size < 0 || (uint64_t)st.st_size > TOKEN_STORE_MAX) {
        errno = EFBIG;
        return false;
    }
    size = (size_t)st.st_size;
    room = bytes_reserve(out, size + 1);
    if (room == NULL) {
        errno = ENOMEM;
        return false;
    }
    return fileops_read_all(&fileops_system, fd, room, size, 0, &out->len) == 0;
}

static bool is_ours(int fd, const char *file, struct error *err)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return error_errno(err, errno, "%s", file);
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return error_set(err, ERROR_INVALID,
                         "%s: it is not a file of the user we run as (%lu), so it is not trusted; "
                         "run: chown %lu %s",
                         file, (unsigned long)geteuid(), (unsigned long)geteuid(), file);
    if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return error_set(err, ERROR_INVALID,
                         "%s: others can use it (mode %04o), so it is not trusted; run: chmod 600 "
                         "%s, and sign in again if somebody may have read it",
                         file, (unsigned)(st.st_mode & 07777), file);
    return true;
}

static enum token_store_found locked(struct error *err, const char *file, const char *why)
{
    (void)error_set(err, ERROR_UNTRUSTED,
                    "%s: it is encrypted, and the credential " TOKEN_STORE_CREDENTIAL
                    " %s; give the service the right one (LoadCredentialEncrypted=), or sign in "
                    "again with outtray login",
                    file, why);
    return TOKEN_STORE_LOCKED;
}

static enum token_store_found damaged(struct error *err, const char *file)
{
    (void)error_set(err, ERROR_DAMAGED, "%s: its content is damaged", file);
    return TOKEN_STORE_DAMAGED;
}

static bool is_intact(const struct bytes *file, size_t len)
{
    return file->len == HEADER_LEN + len + CRC_LEN &&
           bytes_get32(file->data + HEADER_LEN + len) == bytes_crc(0, file->data, HEADER_LEN + len);
}

static enum token_store_found open_content(struct token_store *s, struct bytes *file,
                                           struct error *err)
{
    uint8_t *data = file->data + HEADER_LEN;
    size_t len;

    if (file->len < HEADER_LEN || memcmp(file->data, MAGIC, MAGIC_LEN) != 0)
        return damaged(err, s->file);
    len = bytes_get32(file->data + MAGIC_LEN + 4);
    if (bytes_get32(file->data + MAGIC_LEN) != SEALED)
        return is_intact(file, len) && read_content(s, data, len) ? TOKEN_STORE_READ
                                                                  : damaged(err, s->file);
    if (!s->sealed)
        return locked(err, s->file, "is missing");
    if (memcmp(file->data + MAGIC_LEN + 8, s->key.id, KEY_ID) != 0)
        return locked(err, s->file, "is not the one it was encrypted with");
    if (file->len != HEADER_LEN + len + TAG_LEN ||
        !unseal(&s->key, file->data, data, len, data + len) || !read_content(s, data, len))
        return damaged(err, s->file);
    return TOKEN_STORE_READ;
}

static enum token_store_found load(struct token_store *s, struct error *err)
{
    enum token_store_found found = TOKEN_STORE_LOCKED;
    struct bytes file;
    int fd = open(s->file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0 && errno == ENOENT)
        return TOKEN_STORE_NONE;
    bytes_init(&file, TOKEN_STORE_MAX);
    if (fd < 0 || (is_ours(fd, s->file, err) && !read_rest(fd, &file)))
        (void)error_errno(err, errno, "%s", s->file);
    else if (err->kind == ERROR_NONE)
        found = open_content(s, &file, err);
    wipe_bytes(&file);
    if (fd >= 0)
        (void)close(fd);
    return found;
}

/* ---- Setting aside ---- */

static bool aside_name(const struct token_store *s, char out[PATH_MAX])
{
    for (unsigned i = 0; i < ASIDE_TRY; i++) {
        int n =
            snprintf(out, PATH_MAX, "%s.aside-%llu", s->file, (unsigned long long)(s->wall_s + i));

        if (n < 0 || n >= PATH_MAX)
            return false;
        if (access(out, F_OK) != 0)
            return true;
    }
    return false;
}

static bool set_aside(const struct token_store *s, char out[PATH_MAX], struct error *err)
{
    const struct fileops *ops = s->ops;

    if (!aside_name(s, out))
        return error_set(err, ERROR_LIMIT, "%s: too many were set aside beside it", s->file);
    if (ops->rename(ops->ctx, s->file, out) != 0 && errno != ENOENT)
        return error_errno(err, errno, "rename %s to %s", s->file, out);
    return true;
}

static void drop_entries(struct token_store *s)
{
    while (s->entries != NULL)
        remove_entry(s, &s->entries);
}

static enum token_store_found begin_anew(struct token_store *s, struct error *err)
{
    char aside[PATH_MAX];
    struct error trouble = ERROR_INIT;

    drop_entries(s);
    if (!set_aside(s, aside, &trouble)) {
        (void)error_wrap(err, "%s", trouble.text);
        return TOKEN_STORE_LOCKED;
    }
    (void)error_set(err, ERROR_DAMAGED,
                    "%s: its content was damaged; it was set aside as %s. Sign-ins of apps go on "
                    "by themselves; for the others run: outtray login MAILBOX",
                    s->file, aside);
    return TOKEN_STORE_DAMAGED;
}

/* ---- Opening ---- */

struct token_store *token_store_open(const struct token_store_options *options,
                                     enum token_store_found *out_found, struct error *err)
{
    struct token_store *s = calloc(1, sizeof(*s));
    struct error ignored = ERROR_INIT;

    if (err == NULL)
        err = &ignored;
    error_clear(err);
    if (s == NULL || snprintf(s->file, sizeof(s->file), "%s/" TOKEN_STORE_FILE,
                              options->directory) >= (int)sizeof(s->file)) {
        free(s);
        (void)error_set(err, ERROR_NO_ROOM, "open the tokens' file: out of memory");
        return NULL;
    }
    memcpy(s->directory, options->directory, strlen(options->directory) + 1);
    s->ops = options->ops != NULL ? options->ops : &fileops_system;
    s->executor = options->executor;
    s->wall_s = options->wall_s;
    if (!read_key(s, err)) {
        token_store_close(s);
        return NULL;
    }
    *out_found = load(s, err);
    if (*out_found == TOKEN_STORE_DAMAGED)
        *out_found = begin_anew(s, err);
    s->locked = *out_found == TOKEN_STORE_LOCKED;
    s->why_locked = *err;
    return s;
}

void token_store_close(struct token_store *s)
{
    if (s == NULL)
        return;
    while (s->waiters != NULL) {
        struct waiter *w = s->waiters;

        s->waiters = w->next;
        free(w);
    }
    drop_entries(s);
    explicit_bzero(&s->key, sizeof(s->key));
    free(s);
}

bool token_store_is_sealed(const struct token_store *s)
{
    return s->sealed;
}

bool token_store_find(const struct token_store *s, const char *name, struct token_record *out)
{
    for (const struct entry *e = s->entries; e != NULL; e = e->next) {
        if (strcmp(e->name, name) != 0)
            continue;
        *out = (struct token_record){.access = e->access,
                                     .ends_s = e->ends_s,
                                     .life_s = e->life_s,
                                     .refresh = e->refresh,
                                     .login_s = e->login_s,
                                     .used_s = e->used_s};
        return true;
    }
    return false;
}

/* ---- Writing, on the executor's thread ---- */

static bool write_file(const struct write_job *j, const char *path, const uint8_t *header,
                       const uint8_t *trailer, size_t trailer_len, struct error *err)
{
    const struct fileops *ops = j->store->ops;
    const struct iovec parts[] = {
        {.iov_base = (void *)(uintptr_t)header, .iov_len = HEADER_LEN},
        {.iov_base = j->content.data, .iov_len = j->content.len},
        {.iov_base = (void *)(uintptr_t)trailer, .iov_len = trailer_len},
    };
    int fd = ops->open(ops->ctx, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    bool ok;

    if (fd < 0)
        return error_errno(err, errno, "write %s", path);
    ok = (fileops_writev_all(ops, fd, parts, 3, 0) == 0 && ops->fsync(ops->ctx, fd) == 0) ||
         error_errno(err, errno, "write %s", path);
    if (ops->close(ops->ctx, fd) != 0 && ok)
        ok = error_errno(err, errno, "write %s", path);
    return ok;
}

static bool replace(const struct write_job *j, const uint8_t *header, const uint8_t *trailer,
                    size_t trailer_len, struct error *err)
{
    const struct token_store *s = j->store;
    const struct fileops *ops = s->ops;
    char fresh[PATH_MAX];
    char aside[PATH_MAX];

    if (snprintf(fresh, sizeof(fresh), "%s.new", s->file) >= (int)sizeof(fresh))
        return error_set(err, ERROR_LIMIT, "%s: the path is too long", s->file);
    (void)ops->unlink(ops->ctx, fresh); /* of an attempt that was cut short */
    if (!write_file(j, fresh, header, trailer, trailer_len, err) ||
        (j->set_aside && !set_aside(s, aside, err)))
        return false;
    if (ops->rename(ops->ctx, fresh, s->file) != 0)
        return error_errno(err, errno, "rename %s to %s", fresh, s->file);
    return ops->sync_directory(ops->ctx, s->directory) == 0 ||
           error_errno(err, errno, "sync %s", s->directory);
}

static void work(struct executor_job *job)
{
    struct write_job *j = (struct write_job *)job;
    uint8_t header[HEADER_LEN];
    uint8_t trailer[TAG_LEN];
    size_t trailer_len = j->sealed ? TAG_LEN : CRC_LEN;
    bool ok = true;

    if (j->nothing)
        return;
    ok = make_header(j, header);
    if (ok && j->sealed)
        ok = seal(&j->key, header, j->content.data, j->content.len, trailer);
    else if (ok)
        bytes_put32(trailer,
                    bytes_crc(bytes_crc(0, header, HEADER_LEN), j->content.data, j->content.len));
    j->ok = ok ? replace(j, header, trailer, trailer_len, &j->err)
               : error_set(&j->err, ERROR_NO_ROOM, "encrypt the tokens' file: out of memory");
}

/* ---- Writing, on the loop's thread ---- */

static void start_write(struct token_store *s);

static void job_free(struct write_job *j)
{
    explicit_bzero(&j->key, sizeof(j->key));
    wipe_bytes(&j->content);
    free(j);
}

static void done(struct executor_job *job)
{
    struct write_job *j = (struct write_job *)job;
    struct token_store *s = j->store;
    struct error err = j->err;
    bool ok = j->ok;
    struct waiter *w = j->waiters;

    s->writing = false;
    if (ok && j->set_aside)
        s->locked = s->aside_wanted = false;
    job_free(j);
    if (s->waiters != NULL)
        start_write(s);
    while (w != NULL) {
        struct waiter *next = w->next;

        w->stored(w->ctx, ok ? NULL : &err);
        free(w);
        w = next;
    }
}

/* Without memory for the job, the waiters stay for the next put. */
static void start_write(struct token_store *s)
{
    struct write_job *j = calloc(1, sizeof(*j));

    if (j == NULL)
        return;
    j->job = (struct executor_job){.work = work, .done = done};
    j->store = s;
    bytes_init(&j->content, 0);
    j->nothing = s->locked && !s->aside_wanted;
    j->set_aside = s->locked && s->aside_wanted;
    j->err = s->why_locked;
    if (!j->nothing && !write_content(s, &j->content)) {
        j->nothing = true;
        (void)error_set(&j->err, ERROR_NO_ROOM, "write %s: out of memory", s->file);
    }
    j->sealed = s->sealed;
    j->key = s->key;
    j->waiters = s->waiters;
    s->waiters = NULL;
    s->writing = true;
    s->executor.submit(s->executor.ctx, EXECUTOR_CONTENT, &j->job);
}

/* The one whose refresh token has not been used for longest, or that has none. */
static void make_room(struct token_store *s)
{
    struct entry **oldest = &s->entries;

    for (struct entry **at = &s->entries; *at != NULL; at = &(*at)->next)
        if ((*at)->used_s < (*oldest)->used_s)
            oldest = at;
    remove_entry(s, oldest);
}

bool token_store_put(struct token_store *s, const char *name, const struct token_record *record,
                     bool signed_in, token_store_stored *stored, void *ctx)
{
    struct waiter *w = calloc(1, sizeof(*w));
    struct waiter **end = &s->waiters;
    struct entry *e = record != NULL ? entry_new(name, record) : NULL;

    if (w == NULL || (e == NULL && record != NULL)) {
        free(w);
        entry_free(e);
        return false;
    }
    remove_entry(s, find_entry(s, name));
    if (e != NULL && s->count == TOKEN_STORE_ENTRIES)
        make_room(s);
    if (e != NULL) {
        e->next = s->entries;
        s->entries = e;
        s->count++;
    }
    s->aside_wanted = s->aside_wanted || signed_in;
    *w = (struct waiter){.stored = stored, .ctx = ctx};
    while (*end != NULL)
        end = &(*end)->next;
    *end = w;
    if (!s->writing)
        start_write(s);
    return true;
}
