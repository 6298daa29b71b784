/*
 * The control socket's file: made so that only its owner and group can open it, taken over when it
 * is left from a crash, removed when it is still ours. Blocks for as long as a file call takes.
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_SOCKET_H
#define OUTTRAY_RELAY_ADMIN_API_SOCKET_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/un.h>

#include "queue/error.h"

#define API_SOCKET_MODE    0660
#define API_SOCKET_BACKLOG 16

struct api_socket {
    int fd;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    dev_t device; /* of the file, to know it again */
    ino_t inode;
};

/* Makes the last directory of the path when it is missing. A file that nobody answers on is
 * replaced: ERROR_BUSY when somebody does. The descriptor is listening, non-blocking and the
 * caller's. */
bool api_socket_open(const char *path, struct api_socket *out_socket, struct error *err);
/* Removes the file if it is still the one that was made. Leaves the descriptor alone. */
void api_socket_remove(const struct api_socket *s);

#endif
