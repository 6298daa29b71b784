/*
 * The presets of mail services: where their text is. conf/providers.ini holds them; it is
 * installed, and a copy of it is part of the program, made from the same file when it is built, so
 * that a machine without the installed file knows the same.
 *
 * The text has sections [provider NAME] as outtray.conf may have them as well; what they say is
 * struct config_provider of config.h.
 */
#ifndef OUTTRAY_RELAY_BASE_PROVIDER_H
#define OUTTRAY_RELAY_BASE_PROVIDER_H

#include <stddef.h>

#define PROVIDER_FILE_MAX ((size_t)256 * 1024)

/* Where it is installed. */
extern const char provider_file[];

/* The copy; not terminated. */
extern const unsigned char provider_copy[];
extern const size_t provider_copy_length;

/* The installed text, owned by the caller; NULL where there is none that can be read. */
char *provider_read(size_t *out_len);

#endif
