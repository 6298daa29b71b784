/*
 * What a disk allows anybody who stores each message durably before answering for it.
 *
 *   disk_limits log DIRECTORY WRITERS SECONDS SIZE      one shared log in space filled with zeros;
 * whoever waits shares the next flush disk_limits growing DIRECTORY WRITERS SECONDS SIZE  the same
 * in a file that grows disk_limits files DIRECTORY WRITERS SECONDS SIZE    a file for each message,
 * its name made durable as well
 *
 * Nothing else is done: no network, no protocol, no checksum. Prints one line of JSON.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WRITERS_MAX 256
#define LOG_SIZE    (64u << 20) /* of the one that is filled; then it begins anew */
#define ZEROS       (1u << 20)

struct disk {
    const char *directory;
    size_t size;
    uint64_t end_us;
    int log; /* the file */
    int directory_fd;
    uint8_t *waiting; /* what the next flush writes */
    uint8_t *flushing;
    pthread_mutex_t lock;
    pthread_cond_t flushed;
    size_t count;     /* messages in waiting */
    uint64_t turn;    /* flushes begun */
    uint64_t durable; /* flushes ended */
    uint64_t at;      /* where the next flush begins */
    bool grows;
    bool busy;
};

struct writer {
    struct disk *disk;
    unsigned number;
    uint64_t written;
    uint8_t *message;
    pthread_t thread;
};

static void die(const char *what)
{
    fprintf(stderr, "disk_limits: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Called and left with the lock; writes what waits, for everybody. */
static void flush(struct disk *d)
{
    uint8_t *data = d->waiting;
    size_t len = d->count * d->size;
    uint64_t at = d->at;
    d->waiting = d->flushing;
    d->flushing = data;
    d->count = 0;
    d->busy = true;
    d->turn++;
    d->at = d->grows || at + 2 * WRITERS_MAX * d->size <= LOG_SIZE ? at + len : 0;
    pthread_mutex_unlock(&d->lock);
    if (pwrite(d->log, data, len, (off_t)at) != (ssize_t)len || fdatasync(d->log) != 0)
        die("write the log");
    pthread_mutex_lock(&d->lock);
    d->durable++;
    d->busy = false;
    pthread_cond_broadcast(&d->flushed);
}

static void *write_log(void *arg)
{
    struct writer *w = arg;
    struct disk *d = w->disk;
    while (now_us() < d->end_us) {
        pthread_mutex_lock(&d->lock);
        memcpy(d->waiting + d->count++ * d->size, w->message, d->size);
        uint64_t mine = d->turn + 1;
        while (d->durable < mine) {
            if (d->busy || d->turn >= mine)
                pthread_cond_wait(&d->flushed, &d->lock);
            else
                flush(d);
        }
        pthread_mutex_unlock(&d->lock);
        w->written++;
    }
    return NULL;
}

static void *write_files(void *arg)
{
    struct writer *w = arg;
    struct disk *d = w->disk;
    while (now_us() < d->end_us) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%u-%llu", d->directory, w->number,
                 (unsigned long long)w->written);
        int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
        if (fd < 0 || write(fd, w->message, d->size) != (ssize_t)d->size || fsync(fd) != 0 ||
            close(fd) != 0 || fsync(d->directory_fd) != 0)
            die(path);
        w->written++;
    }
    return NULL;
}

static void open_log(struct disk *d)
{
    static const uint8_t zeros[ZEROS];
    char path[4096];
    snprintf(path, sizeof path, "%s/log", d->directory);
    d->log = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
    if (d->log < 0)
        die(path);
    for (uint32_t at = 0; !d->grows && at < LOG_SIZE; at += ZEROS)
        if (pwrite(d->log, zeros, ZEROS, at) != ZEROS)
            die(path);
    if (fsync(d->log) != 0 || fsync(d->directory_fd) != 0)
        die(path);
}

int main(int argc, char **argv)
{
    struct disk d = {.lock = PTHREAD_MUTEX_INITIALIZER, .flushed = PTHREAD_COND_INITIALIZER};
    static struct writer writers[WRITERS_MAX];
    if (argc != 6) {
        fputs("usage: disk_limits log|growing|files DIRECTORY WRITERS SECONDS SIZE\n", stderr);
        return 2;
    }
    bool files = strcmp(argv[1], "files") == 0;
    unsigned count = (unsigned)atoi(argv[3]);
    double seconds = atof(argv[4]);
    uint64_t written = 0;
    d.directory = argv[2];
    d.size = (size_t)atol(argv[5]);
    if (count == 0 || count > WRITERS_MAX || d.size == 0) {
        fputs("disk_limits: 1 to 256 writers\n", stderr);
        return 2;
    }
    d.directory_fd = open(d.directory, O_RDONLY | O_DIRECTORY);
    d.waiting = malloc(WRITERS_MAX * d.size);
    d.flushing = malloc(WRITERS_MAX * d.size);
    if (d.directory_fd < 0 || d.waiting == NULL || d.flushing == NULL)
        die(d.directory);
    d.grows = strcmp(argv[1], "growing") == 0;
    if (!files)
        open_log(&d);
    uint64_t began_us = now_us();
    d.end_us = began_us + (uint64_t)(seconds * 1e6);
    for (unsigned i = 0; i < count; i++) {
        struct writer *w = &writers[i];
        *w = (struct writer){.disk = &d, .number = i, .message = malloc(d.size)};
        if (w->message == NULL)
            die("memory");
        memset(w->message, 'a' + (int)(i % 26), d.size);
        errno = pthread_create(&w->thread, NULL, files ? write_files : write_log, w);
        if (errno != 0)
            die("start a thread");
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(writers[i].thread, NULL);
        written += writers[i].written;
        free(writers[i].message);
    }
    printf("{\"messages\": %llu, \"rate\": %.2f}\n", (unsigned long long)written,
           (double)written * 1e6 / (double)(now_us() - began_us));
    free(d.waiting);
    free(d.flushing);
    return 0;
}
