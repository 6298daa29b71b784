/*
 * The token service of tests/oauth/oauth.py as a child process, and its settings by the curl
 * command.
 */
#ifndef OUTTRAY_TESTS_OAUTH_FIXTURE_H
#define OUTTRAY_TESTS_OAUTH_FIXTURE_H

#include <stddef.h>
#include <sys/types.h>

struct oauth_fixture {
    char directory[64]; /* for whatever a test needs; removed at the end */
    char url[64];       /* https://127.0.0.1:PORT */
    char ca_file[96];
    char proxy[64];
    pid_t child;
    int to_child; /* the child ends when this is closed */
};

/* In `directory` are one.key, one.crt (registered as the application's), one.pem with both, a file
 * "secret" with the right secret and "wrong" with another one. */
void oauth_start(struct oauth_fixture *f);
void oauth_stop(struct oauth_fixture *f);
/* Posts JSON to /control. */
void oauth_set(struct oauth_fixture *f, const char *json);
/* The number of that name in what /control tells, or of requests whose form holds that text. */
long oauth_number(struct oauth_fixture *f, const char *name);
long oauth_requests(struct oauth_fixture *f, const char *text);
/* Opens the URL as a browser would; writes where it is sent. */
void oauth_browse(struct oauth_fixture *f, const char *url, char *out, size_t size);

#endif
