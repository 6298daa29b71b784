#include "relay/base/provider.h"

#include <stdio.h>
#include <stdlib.h>

#ifndef OUTTRAY_PROVIDERS
#define OUTTRAY_PROVIDERS "/usr/share/outtray/providers.ini"
#endif

const char provider_file[] = OUTTRAY_PROVIDERS;

char *provider_read(size_t *out_len)
{
    FILE *in = fopen(provider_file, "re");
    char *text = in != NULL ? malloc(PROVIDER_FILE_MAX + 1) : NULL;
    size_t len = text != NULL ? fread(text, 1, PROVIDER_FILE_MAX + 1, in) : 0;

    if (len == 0 || len > PROVIDER_FILE_MAX || ferror(in)) {
        free(text);
        text = NULL;
    }
    if (in != NULL)
        (void)fclose(in);
    *out_len = len;
    return text;
}
