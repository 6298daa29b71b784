#include "tests/unit/oauth_fixture.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_MAX ((size_t)1024 * 1024)

static void run(const char *command)
{
    assert_int_equal(system(command), 0);
}

/* The text value of that key in a line of JSON without nesting. */
static void value_of(const char *json, const char *key, char *out, size_t size)
{
    char start[64];
    const char *at;

    (void)snprintf(start, sizeof(start), "\"%s\": \"", key);
    at = strstr(json, start);
    assert_non_null(at);
    at += strlen(start);
    (void)snprintf(out, size, "%.*s", (int)strcspn(at, "\""), at);
}

static void make_files(const struct oauth_fixture *f)
{
    char command[1024];

    (void)snprintf(
        command, sizeof(command),
        "cd %s && umask 077 && openssl req -x509 -newkey rsa:2048 -nodes -days 20 "
        "-subj /CN=app -keyout one.key -out one.crt 2>openssl.log && "
        "cat one.key one.crt > one.pem && printf 'practice secret/+&=%%%%\\n' > secret && "
        "printf 'wrong\\n' > wrong",
        f->directory);
    run(command);
}

static void serve(const struct oauth_fixture *f, int input, int output)
{
    char certificate[96];

    (void)snprintf(certificate, sizeof(certificate), "%s/one.crt", f->directory);
    (void)dup2(input, 0);
    (void)dup2(output, 1);
    (void)execlp("python3", "python3", OUTTRAY_SOURCE_DIR "/tests/oauth/oauth.py", "--directory",
                 f->directory, "--certificate", certificate, (char *)NULL);
    _exit(127);
}

static void read_line(int fd, char *out, size_t size)
{
    size_t used = 0;

    while (used + 1 < size && (used == 0 || out[used - 1] != '\n')) {
        ssize_t n = read(fd, out + used, 1);

        assert_true(n == 1);
        used++;
    }
    out[used] = '\0';
}

void oauth_start(struct oauth_fixture *f)
{
    int in[2];
    int out[2];
    char line[512];

    (void)snprintf(f->directory, sizeof(f->directory), "/tmp/outtray-oauth-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    make_files(f);
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    f->child = fork();
    assert_true(f->child >= 0);
    if (f->child == 0)
        serve(f, in[0], out[1]);
    close(in[0]);
    close(out[1]);
    f->to_child = in[1];
    read_line(out[0], line, sizeof(line));
    close(out[0]);
    value_of(line, "url", f->url, sizeof(f->url));
    value_of(line, "ca_file", f->ca_file, sizeof(f->ca_file));
    value_of(line, "proxy", f->proxy, sizeof(f->proxy));
}

void oauth_stop(struct oauth_fixture *f)
{
    char command[128];

    close(f->to_child);
    (void)waitpid(f->child, NULL, 0);
    (void)snprintf(command, sizeof(command), "rm -rf %s", f->directory);
    run(command);
}

static char *ask(struct oauth_fixture *f, const char *json)
{
    char file[96];
    char command[512];
    char *answer = calloc(1, ANSWER_MAX);
    FILE *stream;

    assert_non_null(answer);
    (void)snprintf(file, sizeof(file), "%s/control.json", f->directory);
    stream = fopen(file, "w");
    assert_non_null(stream);
    assert_true(fputs(json, stream) >= 0);
    fclose(stream);
    (void)snprintf(command, sizeof(command),
                   "curl --silent --fail --noproxy '*' --cacert %s --data-binary @%s %s/control",
                   f->ca_file, file, f->url);
    stream = popen(command, "r");
    assert_non_null(stream);
    assert_true(fread(answer, 1, ANSWER_MAX - 1, stream) > 0);
    assert_int_equal(pclose(stream), 0);
    return answer;
}

void oauth_set(struct oauth_fixture *f, const char *json)
{
    free(ask(f, json));
}

long oauth_number(struct oauth_fixture *f, const char *name)
{
    char *answer = ask(f, "{}");
    char start[64];
    const char *at;
    long number;

    (void)snprintf(start, sizeof(start), "\"%s\": ", name);
    at = strstr(answer, start);
    assert_non_null(at);
    number = strtol(at + strlen(start), NULL, 10);
    free(answer);
    return number;
}

long oauth_requests(struct oauth_fixture *f, const char *text)
{
    char *answer = ask(f, "{}");
    long count = 0;

    for (const char *at = strstr(answer, "\"path\": "); at != NULL;) {
        const char *next = strstr(at + 1, "\"path\": ");
        const char *found = strstr(at, text);

        count += found != NULL && (next == NULL || found < next);
        at = next;
    }
    free(answer);
    return count;
}

void oauth_browse(struct oauth_fixture *f, const char *url, char *out, size_t size)
{
    char command[8192];
    FILE *stream;

    (void)snprintf(command, sizeof(command),
                   "curl --silent --noproxy '*' --cacert %s --write-out '%%{redirect_url}' '%s'",
                   f->ca_file, url);
    stream = popen(command, "r");
    assert_non_null(stream);
    assert_non_null(fgets(out, (int)size, stream));
    assert_int_equal(pclose(stream), 0);
}
