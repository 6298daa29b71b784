#include "relay/signin/passwords.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <crypt.h>

#include "queue/bytes.h"
#include "relay/base/secret.h"

#define METHOD    "$y$"
#define COST      4 /* 8 MB */
#define FILE_MODE 0640

/* A setting that no password has: the check of a device without one is made against it. */
#define NOBODY METHOD "j8T$1J4WMtY9rIh0SfPNMwxYc1"

/* ---- hashes ---------------------------------------------------------------------------------- */

static bool is_same(const char *a, const char *b)
{
    size_t len = strlen(a);
    unsigned difference = len != strlen(b);

    for (size_t i = 0; difference == 0 && i < len; i++)
        difference |= (unsigned)((unsigned char)a[i] ^ (unsigned char)b[i]);
    return difference == 0;
}

/* Writes the hash that the setting (or a hash made with it) makes of the password. */
static bool hash(const char *password, const char *setting, char out[CRYPT_OUTPUT_SIZE],
                 struct error *err)
{
    struct crypt_data *data = calloc(1, sizeof(*data));
    const char *text;

    if (data == NULL)
        return error_set(err, ERROR_NO_ROOM, "no memory for a password's hash");
    text = crypt_rn(password, setting, data, sizeof(*data));
    if (text != NULL)
        snprintf(out, CRYPT_OUTPUT_SIZE, "%s", text);
    else
        (void)error_errno(err, errno, "make a password's hash");
    explicit_bzero(data, sizeof(*data));
    free(data);
    return text != NULL;
}

/* ---- the file -------------------------------------------------------------------------------- */

static bool read_all(int fd, struct bytes *out)
{
    ssize_t n;

    do {
        uint8_t *room = bytes_reserve(out, 4096);

        if (room == NULL) {
            errno = EFBIG;
            return false;
        }
        n = read(fd, room, 4096);
        if (n > 0)
            out->len += (size_t)n;
    } while (n > 0 || (n < 0 && errno == EINTR));
    return n == 0;
}

/* A missing file is an empty one. */
static bool read_file(const char *file, struct bytes *out, struct error *err)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    bool ok;

    if (fd < 0 && errno == ENOENT)
        return true;
    if (fd < 0 && errno == EACCES)
        return error_set(err, ERROR_IO,
                         "%s: we may not read it; run: chown root:outtray %s && chmod 640 %s", file,
                         file, file);
    if (fd < 0)
        return error_errno(err, errno, "%s", file);
    ok = secret_check_file(fd, file, err);
    if (ok && !read_all(fd, out))
        ok = error_errno(err, errno, "read %s", file);
    (void)close(fd);
    return ok;
}

/* The line of a device: where it begins, and its octets with the line end. */
static const char *find_line(const char *text, const char *device, size_t *out_len)
{
    size_t name = strlen(device);

    while (*text != '\0') {
        size_t len = strcspn(text, "\n");

        if (strncmp(text, device, name) == 0 && text[name] == ':') {
            *out_len = len + (text[len] == '\n');
            return text;
        }
        text += len + (text[len] == '\n');
    }
    return NULL;
}

/* Copies the device's hash; false when there is none that could be one. */
static bool find_hash(const char *text, const char *device, char out[CRYPT_OUTPUT_SIZE])
{
    size_t len;
    const char *line = find_line(text, device, &len);
    size_t skip = strlen(device) + 1;
    size_t octets = line != NULL ? strcspn(line + skip, "\r\n") : 0;

    if (octets == 0 || octets >= CRYPT_OUTPUT_SIZE)
        return false;
    memcpy(out, line + skip, octets);
    out[octets] = '\0';
    return true;
}

enum passwords_result passwords_check(const char *file, const char *device, const char *password,
                                      struct error *err)
{
    enum passwords_result result = PASSWORDS_FAILED;
    char known[CRYPT_OUTPUT_SIZE];
    char made[CRYPT_OUTPUT_SIZE];
    struct bytes text;

    bytes_init(&text, PASSWORDS_FILE_MAX);
    if (read_file(file, &text, err)) {
        bool has_one = find_hash(bytes_string(&text), device, known);

        if (has_one && known[0] != '$')
            (void)error_set(err, ERROR_INVALID,
                            "%s: the line of %s holds no hash; run: outtray passwd %s", file,
                            device, device);
        else if (!hash(password, has_one ? known : NOBODY, made, err))
            (void)error_wrap(err, "%s: the line of %s", file, device);
        else if (!has_one)
            result = PASSWORDS_NONE;
        else
            result = is_same(made, known) ? PASSWORDS_RIGHT : PASSWORDS_WRONG;
    }
    bytes_done(&text);
    return result;
}

/* ---- new passwords --------------------------------------------------------------------------- */

bool passwords_make(char out[PASSWORDS_LENGTH + 1], struct error *err)
{
    static const char letters[] = "abcdefghjkmnpqrstuvwxyz23456789";
    const unsigned count = sizeof(letters) - 1;
    size_t len = 0;

    while (len < PASSWORDS_LENGTH) {
        unsigned char octet;

        if (getrandom(&octet, 1, 0) != 1)
            return error_errno(err, errno, "make a random password");
        if (octet < 256 / count * count) /* each letter as likely as any */
            out[len++] = letters[octet % count];
    }
    out[len] = '\0';
    return true;
}

bool passwords_is_fit(const char *password, struct error *err)
{
    size_t len = strlen(password);

    if (len < PASSWORDS_MIN || len > PASSWORDS_MAX)
        return error_set(err, ERROR_INVALID, "a password has from %d to %d characters",
                         PASSWORDS_MIN, PASSWORDS_MAX);
    for (size_t i = 0; i < len; i++)
        if (password[i] < ' ' || password[i] > '~')
            return error_set(err, ERROR_INVALID,
                             "a password is of ASCII letters, digits, signs and blanks: devices "
                             "differ in how they send others");
    return true;
}

static bool make_hash(const char *password, char out[CRYPT_OUTPUT_SIZE], struct error *err)
{
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];

    if (crypt_gensalt_rn(METHOD, COST, NULL, 0, setting, sizeof(setting)) == NULL)
        return error_errno(err, errno, "make a password's salt");
    return hash(password, setting, out, err);
}

/* The new text of the file: the device's line in the place of the old one, or at the end. */
static bool compose(const char *old, const char *device, const char *hashed, struct bytes *out)
{
    size_t len = 0;
    const char *line = find_line(old, device, &len);
    size_t before = line != NULL ? (size_t)(line - old) : strlen(old);

    if (!bytes_append(out, old, before))
        return false;
    if (before > 0 && old[before - 1] != '\n' && !bytes_byte(out, '\n'))
        return false;
    return bytes_printf(out, "%s:%s\n", device, hashed) && bytes_text(out, old + before + len);
}

static bool write_all(int fd, const struct bytes *text)
{
    for (size_t done = 0; done < text->len;) {
        ssize_t n = write(fd, text->data + done, text->len - done);

        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            done += (size_t)n;
    }
    return true;
}

/* Owner, group and mode of the file that is replaced, or those of a new one. */
static bool dress(int fd, const char *file, gid_t group)
{
    struct stat st;
    bool exists = stat(file, &st) == 0;
    mode_t mode = exists ? st.st_mode & 0770 : FILE_MODE;

    if (geteuid() == 0 && fchown(fd, exists ? st.st_uid : 0, exists ? st.st_gid : group) != 0)
        return false;
    return fchmod(fd, mode) == 0;
}

/* Whatever happens, the file is the old one or the new one, whole. */
static bool replace(const char *file, int directory, const struct bytes *text, gid_t group,
                    struct error *err)
{
    char fresh[PATH_MAX];
    bool ok;
    int fd;

    if (snprintf(fresh, sizeof(fresh), "%s.new", file) >= (int)sizeof(fresh))
        return error_set(err, ERROR_LIMIT, "%s: the path is too long", file);
    (void)unlink(fresh); /* of a run that was cut off: we hold the lock */
    fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(err, errno, "make %s", fresh);
    ok = write_all(fd, text) && dress(fd, file, group) && fsync(fd) == 0;
    ok = close(fd) == 0 && ok;
    if (ok && rename(fresh, file) == 0)
        return fsync(directory) == 0 || error_errno(err, errno, "sync the directory of %s", file);
    (void)error_errno(err, errno, "write %s", fresh);
    (void)unlink(fresh);
    return false;
}

/* The directory, locked against another run of ours; -1 on failure. */
static int lock_directory(const char *file, struct error *err)
{
    char copy[PATH_MAX];
    const char *name;
    int fd;

    if (snprintf(copy, sizeof(copy), "%s", file) >= (int)sizeof(copy)) {
        (void)error_set(err, ERROR_LIMIT, "%s: the path is too long", file);
        return -1;
    }
    name = dirname(copy);
    fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX) != 0) {
        (void)error_errno(err, errno, "%s", name);
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    return fd;
}

bool passwords_set(const char *file, const char *device, const char *password, gid_t group,
                   struct error *err)
{
    char hashed[CRYPT_OUTPUT_SIZE];
    struct bytes old;
    struct bytes fresh;
    int directory;
    bool ok;

    if (!make_hash(password, hashed, err))
        return false;
    directory = lock_directory(file, err);
    if (directory < 0)
        return false;
    bytes_init(&old, PASSWORDS_FILE_MAX);
    bytes_init(&fresh, PASSWORDS_FILE_MAX);
    ok = read_file(file, &old, err);
    if (ok && !compose(bytes_string(&old), device, hashed, &fresh))
        ok = error_set(err, ERROR_LIMIT, "%s: there is no room for more", file);
    ok = ok && replace(file, directory, &fresh, group, err);
    (void)close(directory);
    bytes_done(&old);
    bytes_done(&fresh);
    return ok;
}
