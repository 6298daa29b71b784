/* Runs a fuzz target over the files and directories given; each is a seed, or what once crashed. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

#define INPUT_MAX ((size_t)16 << 20)

static size_t replayed;

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *buffer = malloc(INPUT_MAX);
    uint8_t *data;
    size_t len;

    FUZZ_CHECK(file != NULL && buffer != NULL);
    len = fread(buffer, 1, INPUT_MAX, file);
    FUZZ_CHECK(ferror(file) == 0 && fclose(file) == 0);
    data = malloc(len > 0 ? len : 1); /* of just its size: a read beyond it is seen */
    FUZZ_CHECK(data != NULL);
    memcpy(data, buffer, len);
    free(buffer);
    fprintf(stderr, "%s\n", path);
    (void)LLVMFuzzerTestOneInput(data, len);
    free(data);
    replayed++;
}

static void replay_directory(const char *path)
{
    DIR *directory = opendir(path);

    FUZZ_CHECK(directory != NULL);
    for (const struct dirent *e = readdir(directory); e != NULL; e = readdir(directory)) {
        char name[4096];

        snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
        if (e->d_name[0] != '.')
            replay_file(name);
    }
    closedir(directory);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct stat st;

        if (stat(argv[i], &st) != 0)
            perror(argv[i]);
        else if (S_ISDIR(st.st_mode))
            replay_directory(argv[i]);
        else
            replay_file(argv[i]);
    }
    printf("%zu inputs replayed\n", replayed);
    return replayed > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
