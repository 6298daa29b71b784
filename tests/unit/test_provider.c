#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/base/config.h"
#include "relay/base/config_value.h"
#include "relay/base/provider.h"

static struct config *presets(void)
{
    static const char text[] = "[mailbox m]\naddress = a@b.example\n";
    struct config *c = config_parse("test.conf", text, strlen(text), stderr);

    assert_non_null(c);
    return c;
}

static void the_copy_is_the_installed_file(void **state)
{
    FILE *f = fopen(OUTTRAY_SOURCE_DIR "/conf/providers.ini", "re");
    char *text = malloc(PROVIDER_FILE_MAX);
    size_t len;

    (void)state;
    assert_non_null(f);
    assert_non_null(text);
    len = fread(text, 1, PROVIDER_FILE_MAX, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(len, provider_copy_length);
    assert_memory_equal(text, provider_copy, len);
    free(text);
}

static void every_preset_names_a_sane_server(void **state)
{
    struct config *c = presets();

    (void)state;
    assert_true(c->provider_count >= 13);
    for (size_t i = 0; i < c->provider_count; i++) {
        const struct config_provider *p = &c->providers[i];
        const char *host = *p->host != '\0' ? p->host : p->host_example;

        print_message("  %s\n", p->name);
        assert_true(config_value_is_host(host));
        assert_non_null(strchr(host, '.'));
        assert_true(p->port == 465 || p->port == 587);
        assert_int_equal(p->tls, p->port == 465 ? CONFIG_TLS_IMPLICIT : CONFIG_TLS_STARTTLS);
        assert_true(p->mechanisms != 0 && p->auth != 0);
        assert_true(p->connections >= 1 && p->connections <= 5);
        assert_int_equal(p->in_flight, 1);
        assert_true(p->max_size >= 10u * 1024 * 1024);
    }
    config_free(c);
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* What can take a token says where one is to be had, and for what. */
static void what_has_oauth_has_all_of_it(void **state)
{
    struct config *c = presets();

    (void)state;
    for (size_t i = 0; i < c->provider_count; i++) {
        const struct config_provider *p = &c->providers[i];

        if (*p->token_url == '\0')
            continue;
        print_message("  %s\n", p->name);
        assert_true((p->mechanisms & CONFIG_MECHANISMS_TOKEN) != 0);
        assert_true(starts(p->token_url, "https://"));
        assert_true(starts(p->authorize_url, "https://"));
        assert_true(*p->device_url == '\0' || starts(p->device_url, "https://"));
        assert_true(*p->user_scope != '\0');
        assert_true(*p->app_scope == '\0' || strstr(p->app_scope, "/.default") != NULL);
    }
    config_free(c);
}

struct cloud {
    const char *provider;
    const char *authority;
    const char *resource;
};

static void each_cloud_of_microsoft_has_its_own_authority(void **state)
{
    static const struct cloud rows[] = {
        {"office365", "https://login.microsoftonline.com/{tenant}/", "https://outlook.office"},
        {"hve", "https://login.microsoftonline.com/{tenant}/", "https://outlook.office"},
        {"gcc-high", "https://login.microsoftonline.us/{tenant}/", "https://outlook.office365.us/"},
        {"dod", "https://login.microsoftonline.us/{tenant}/", "https://outlook.office365.us/"},
        {"21vianet", "https://login.partner.microsoftonline.cn/{tenant}/",
         "https://partner.outlook.cn/"},
    };
    struct config *c = presets();

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct config_provider *p = config_find_provider(c, rows[i].provider);

        print_message("  %s\n", rows[i].provider);
        assert_non_null(p);
        assert_true(starts(p->token_url, rows[i].authority));
        assert_true(starts(p->device_url, rows[i].authority));
        assert_true(starts(p->authorize_url, rows[i].authority));
        assert_true(starts(p->app_scope, rows[i].resource));
        assert_true(starts(p->user_scope, rows[i].resource));
        assert_non_null(strstr(p->user_scope, "offline_access"));
    }
    config_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_copy_is_the_installed_file),
        cmocka_unit_test(every_preset_names_a_sane_server),
        cmocka_unit_test(what_has_oauth_has_all_of_it),
        cmocka_unit_test(each_cloud_of_microsoft_has_its_own_authority),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
