#include "relay/tool/devices.h"

#include <stdio.h>
#include <sysexits.h>

#include "relay/admin/json.h"
#include "relay/tool/ask.h"
#include "relay/tool/client.h"
#include "relay/tool/page_devices.h"

#define DEVICES_PAGE     500
#define DEVICES_NAME_MAX 512 /* encoded */

/* Says what only these commands have to say when nobody answers. */
static int explain(const struct tool *t, int code)
{
    if (code == EX_UNAVAILABLE)
        fputs("What is known of devices only the running daemon can tell.\n", t->err);
    return code;
}

/* ---- the list -------------------------------------------------------------------------------- */

static bool page_path(const char *after, char path[ASK_PATH_MAX], struct error *err)
{
    char name[DEVICES_NAME_MAX];

    if (!ask_encode(after, name, sizeof(name)))
        return error_set(err, ERROR_DAMAGED, "the name of a device is too long");
    snprintf(path, ASK_PATH_MAX, "/v1/devices?limit=%d%s%s", DEVICES_PAGE,
             name[0] != '\0' ? "&after=" : "", name);
    return true;
}

static void move_items(cJSON *page, cJSON *all)
{
    cJSON *list = cJSON_GetObjectItemCaseSensitive(page, "devices");

    for (cJSON *item = list != NULL ? list->child : NULL; item != NULL; item = list->child)
        (void)json_append(all, cJSON_DetachItemViaPointer(list, item));
}

/* Every page in one; NULL with the error. */
static cJSON *fetch_all(const struct places *p, struct error *err)
{
    cJSON *all = cJSON_CreateArray();
    cJSON *page = NULL;
    char path[ASK_PATH_MAX];
    bool more = true;
    bool ok = page_path("", path, err);

    while (ok && more) {
        page = client_ask(p->socket, "GET", path, err);
        more = page != NULL && json_get_text(page, "next")[0] != '\0';
        ok = page != NULL && (!more || page_path(json_get_text(page, "next"), path, err));
        if (ok)
            move_items(page, all);
        cJSON_Delete(page);
    }
    if (ok)
        return all;
    cJSON_Delete(all);
    return NULL;
}

/* Takes the list. */
static int print_list_json(const struct tool *t, cJSON *devices)
{
    cJSON *o = cJSON_CreateObject();
    int code;

    if (o == NULL)
        cJSON_Delete(devices);
    code = tool_print_json(t, o != NULL && json_put(o, "devices", devices) ? o : NULL);
    cJSON_Delete(o);
    return code;
}

int devices_list(const struct tool *t)
{
    struct error err = ERROR_INIT;
    struct places p;
    cJSON *devices;
    int code;

    if (!ask_daemon(t, &p, &code))
        return explain(t, code);
    devices = fetch_all(&p, &err);
    places_done(&p);
    if (devices == NULL)
        return tool_fail(t, &err);
    if (t->json)
        return print_list_json(t, devices);
    page_devices(t->out, devices);
    cJSON_Delete(devices);
    return EX_OK;
}

/* ---- one device ------------------------------------------------------------------------------ */

static void show_device(const struct tool *t, const struct places *p, const cJSON *answer)
{
    (void)p;
    page_device(t->out, answer, ask_now());
}

static void show_transcripts(const struct tool *t, const struct places *p, const cJSON *answer)
{
    (void)p;
    page_transcripts(t->out, answer, ask_now());
}

static void show_forgotten(const struct tool *t, const struct places *p, const cJSON *answer)
{
    (void)p;
    fprintf(t->out, "All that was known of device %s is forgotten. ",
            json_get_text(answer, "name"));
    if (json_get_flag(answer, "configured"))
        fputs("As it is in the configuration, it stays in the list, as never seen.\n", t->out);
    else
        fputs("When it connects again, it is a new one.\n", t->out);
}

int devices_one(const struct tool *t)
{
    struct error err = ERROR_INIT;
    char name[DEVICES_NAME_MAX];
    char path[ASK_PATH_MAX];

    if (!ask_encode(t->argument, name, sizeof(name)) || name[0] == '\0') {
        error_set(&err, ERROR_INVALID,
                  "that is no name of a device; \"outtray devices\" lists them");
        return tool_fail(t, &err);
    }
    snprintf(path, sizeof(path), "/v1/devices/%s%s", name, t->transcript ? "/transcripts" : "");
    if (t->forget)
        return explain(t, ask_and_show(t, "DELETE", path, show_forgotten));
    return explain(t, ask_and_show(t, "GET", path, t->transcript ? show_transcripts : show_device));
}
