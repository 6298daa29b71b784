#include "relay/intake/access.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

static const char text[] = "[devices]\n"
                           "allow = 10.0.0.0/8, fd00::/8\n"
                           "[device floor2]\n"
                           "address = 10.2.0.0/16\n"
                           "lane = bulk\n"
                           "[device alarm]\n"
                           "address = 10.2.0.7, 192.0.2.7\n"
                           "lane = urgent\n"
                           "route = spare\n"
                           "[mailbox a]\n"
                           "provider = office365\n"
                           "address = a@example.com\n"
                           "password_file = /nonexistent\n"
                           "[route spare]\n"
                           "mailboxes = a\n";

static struct access access_of_text(const char *address)
{
    struct net_address a;
    struct access out;
    struct config *c = config_parse("test.conf", text, sizeof text - 1, stderr);
    assert_non_null(c);
    assert_true(net_parse(address, &a));
    access_of(c, &a, &out);
    if (strcmp(out.route, "default") != 0) {
        assert_string_equal(out.route, "spare");
        out.route = "spare";
    }
    out.device = NULL;
    config_free(c);
    return out;
}

static void a_listed_network_may_speak_under_its_address(void **state)
{
    (void)state;
    struct access a = access_of_text("10.9.9.9");
    assert_true(a.allowed);
    assert_string_equal(a.name, "10.9.9.9");
    assert_string_equal(a.route, "default");
    assert_int_equal(a.lane, LANE_NORMAL);
}

static void an_unlisted_address_may_not_speak(void **state)
{
    (void)state;
    static const char *const strangers[] = {"192.168.1.1", "192.0.2.8", "127.0.0.1", "2001:db8::1"};
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++)
        assert_false(access_of_text(strangers[i]).allowed);
}

static void a_named_device_may_speak_from_outside_the_allowed_networks(void **state)
{
    (void)state;
    struct access a = access_of_text("192.0.2.7");
    assert_true(a.allowed);
    assert_string_equal(a.name, "alarm");
}

static void the_narrowest_range_names_the_device(void **state)
{
    (void)state;
    struct access a = access_of_text("10.2.0.7");
    assert_string_equal(a.name, "alarm");
    assert_int_equal(a.lane, LANE_URGENT);
    assert_string_equal(a.route, "spare");
    assert_string_equal(access_of_text("10.2.0.8").name, "floor2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_listed_network_may_speak_under_its_address),
        cmocka_unit_test(an_unlisted_address_may_not_speak),
        cmocka_unit_test(a_named_device_may_speak_from_outside_the_allowed_networks),
        cmocka_unit_test(the_narrowest_range_names_the_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
