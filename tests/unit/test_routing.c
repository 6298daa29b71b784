#include "relay/intake/routing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char text[] =
    "[mailbox office]\naddress = scans@example.com\n"
    "[mailbox hub]\naddress = hub@example.com\n"
    "[listener main]\nport = 25\n"
    "[listener alarm]\nport = 2525\n"
    "[device panel]\naddress = 10.0.0.1\nroute = own\n"
    "[device copier]\naddress = 10.0.0.2\n"
    "[route own]\nmailboxes = hub\n"
    "[route both]\nmailboxes = hub\nlisteners = alarm\nsenders = example.net\n"
    "[route alarms]\nmailboxes = hub\nlisteners = alarm\n"
    "[route staff]\nmailboxes = hub\nrecipient_domains = example.com, "
    ".example.com\n"
    "[route boss]\nmailboxes = hub\nsenders = Boss@example.org\n";

static int set_up(void **state)
{
    *state = config_parse("test.conf", text, sizeof text - 1, stderr);
    return *state != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    config_free(*state);
    return 0;
}

static const char *route_of(const struct config *c, const char *device, const char *listener,
                            const char *from, const char *to)
{
    struct envelope e;
    char list[256];
    char *save = NULL;
    envelope_init(&e);
    assert_true(envelope_set(&e.listener, listener) && envelope_set(&e.reverse_path, from));
    snprintf(list, sizeof list, "%s", to);
    for (char *r = strtok_r(list, " ", &save); r != NULL; r = strtok_r(NULL, " ", &save))
        assert_true(envelope_add_recipient(&e, r));
    const char *route = routing_of(c, config_find_device(c, device), &e);
    envelope_done(&e);
    return route;
}

static void the_first_route_whose_conditions_all_hold_is_taken(void **state)
{
    static const struct {
        const char *device, *listener, *from, *to, *route;
    } rows[] = {
        {"", "main", "a@b.org", "x@y.org", "default"},
        {"copier", "main", "a@b.org", "x@y.org", "default"},
        {"panel", "alarm", "a@example.net", "x@example.com", "own"},
        {"copier", "alarm", "a@b.org", "x@y.org", "alarms"},
        {"copier", "alarm", "a@example.net", "x@y.org", "both"},
        {"copier", "main", "a@example.net", "x@y.org", "default"},
        {"copier", "main", "a@b.org", "x@example.com", "staff"},
        {"copier", "main", "a@b.org", "x@EXAMPLE.com y@sub.example.com", "staff"},
        {"copier", "main", "a@b.org", "x@example.com y@y.org", "default"},
        {"copier", "main", "a@b.org", "x@notexample.com", "default"},
        {"copier", "main", "boss@Example.org", "x@y.org", "boss"},
        {"copier", "main", "aboss@example.org", "x@y.org", "default"},
        {"copier", "main", "", "x@y.org", "default"},
        {"copier", "main", "root", "postmaster", "default"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *got =
            route_of(*state, rows[i].device, rows[i].listener, rows[i].from, rows[i].to);
        if (strcmp(got, rows[i].route) != 0)
            fail_msg("row %zu: %s, not %s", i, got, rows[i].route);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(
        the_first_route_whose_conditions_all_hold_is_taken, set_up, tear_down)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
