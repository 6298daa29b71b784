#include "relay/tool/passwd.h"

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "relay/base/config.h"
#include "relay/signin/passwords.h"

static const struct config_device *find_device(const struct config *c, const char *name,
                                               const char *file, struct error *err)
{
    for (size_t i = 0; i < c->device_count; i++)
        if (strcmp(c->devices[i].name, name) == 0)
            return &c->devices[i];
    (void)error_set(err, ERROR_MISSING,
                    "there is no [device %.64s] in %s; add that section, with its address or login",
                    name, file);
    return NULL;
}

/* The first line; whatever ends it is not part of the password. */
static bool read_password(const struct tool *t, char out[PASSWORDS_MAX + 1], struct error *err)
{
    char line[PASSWORDS_MAX + 3];
    bool ok = fgets(line, sizeof(line), t->in) != NULL;

    if (!ok)
        return error_set(err, ERROR_INVALID, "there is no password on the standard input");
    line[strcspn(line, "\r\n")] = '\0';
    ok = passwords_is_fit(line, err);
    if (ok)
        memcpy(out, line, strlen(line) + 1);
    explicit_bzero(line, sizeof(line));
    return ok;
}

/* The group of the user that the daemon becomes. */
static gid_t daemon_group(const struct config *c)
{
    const struct passwd *pw = c->user[0] != '\0' ? getpwnam(c->user) : NULL;

    return pw != NULL ? pw->pw_gid : getegid();
}

static int show_json(const struct tool *t, const struct config_device *d, const char *password)
{
    cJSON *json = cJSON_CreateObject();
    char *text = NULL;

    if (cJSON_AddStringToObject(json, "device", d->name) != NULL &&
        cJSON_AddStringToObject(json, "login", d->login) != NULL &&
        (t->from_stdin || cJSON_AddStringToObject(json, "password", password) != NULL))
        text = cJSON_Print(json);
    if (text != NULL)
        fprintf(t->out, "%s\n", text);
    cJSON_free(text);
    cJSON_Delete(json);
    return text != NULL ? EX_OK : EX_OSERR;
}

static int show(const struct tool *t, const struct config_device *d, const char *password)
{
    if (t->json)
        return show_json(t, d, password);
    if (t->from_stdin)
        fprintf(t->out, "Device %s has a new password. ", d->name);
    else
        fprintf(t->out,
                "New password of device %s: %s\n"
                "It is shown this once. ",
                d->name, password);
    fprintf(t->out, "At the device, set the user name to %s.\n", d->login);
    return EX_OK;
}

/* Its directory is told of apart: the error would name that alone. */
static bool has_directory(const char *file, struct error *err)
{
    char *copy = strdup(file);
    char *slash = copy != NULL ? strrchr(copy, '/') : NULL;
    bool ok;

    if (slash != NULL)
        slash[slash == copy ? 1 : 0] = '\0';
    ok = slash == NULL || access(copy, F_OK) == 0 || errno != ENOENT;
    if (!ok)
        (void)error_set(err, ERROR_MISSING,
                        "%s: the directory that it should be in does not exist; correct passwords "
                        "in [devices], or run: mkdir -p %s",
                        file, copy);
    free(copy);
    return ok;
}

static int set_password(const struct tool *t, const struct config *c)
{
    struct error err = ERROR_INIT;
    char password[PASSWORDS_MAX + 1] = "";
    const struct config_device *d = find_device(c, t->argument, t->config_file, &err);
    int code;

    if (d != NULL && has_directory(c->passwords, &err) &&
        (t->from_stdin ? read_password(t, password, &err) : passwords_make(password, &err)) &&
        passwords_set(c->passwords, d->name, password, daemon_group(c), &err))
        code = show(t, d, password);
    else
        code = tool_fail(t, &err);
    explicit_bzero(password, sizeof(password));
    return code;
}

int passwd_run(const struct tool *t)
{
    struct config *c = config_load(t->config_file, t->err);
    int code;

    if (c == NULL)
        return EX_CONFIG;
    code = set_password(t, c);
    config_free(c);
    return code;
}
