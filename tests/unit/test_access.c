#include "relay/intake/access.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
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
                           "[device camera]\n"
                           "login = camera@example.com\n"
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

static const char limits_text[] = "[devices]\n"
                                  "max_size = 20MB\n"
                                  "max_recipients = 9\n"
                                  "max_sessions_per_device = 8\n"
                                  "recipient_domains = example.com\n"
                                  "legacy_tls = 192.168.1.0/28\n"
                                  "%s"
                                  "[device small]\n"
                                  "address = 192.168.1.7, 127.0.0.7\n"
                                  "max_size = 1MB\n"
                                  "max_recipients = 2\n"
                                  "max_sessions = 3\n"
                                  "max_messages_per_minute = 4\n"
                                  "max_spool = 3G\n"
                                  "join_split = yes\n"
                                  "recipient_domains = example.net, example.org\n"
                                  "[mailbox a]\n"
                                  "address = a@example.com\n";

static struct config *limits_config(const char *more)
{
    char whole[1024];
    struct config *c;
    (void)snprintf(whole, sizeof whole, limits_text, more);
    c = config_parse("test.conf", whole, strlen(whole), stderr);
    assert_non_null(c);
    return c;
}

static struct access access_in(const struct config *c, const char *address)
{
    struct net_address a;
    struct access out;
    assert_true(net_parse(address, &a));
    access_of(c, &a, &out);
    assert_true(out.allowed);
    return out;
}

static void a_device_has_the_common_limits_or_its_own(void **state)
{
    (void)state;
    struct config *c = limits_config("");
    struct access a = access_in(c, "192.168.1.20");
    assert_int_equal(a.max_size, 20 << 20);
    assert_int_equal(a.max_recipients, 9);
    assert_int_equal(a.max_sessions, 8);
    assert_int_equal(a.max_messages_per_minute, 600);
    assert_int_equal(a.max_spool, (uint64_t)5 << 30); /* half of spool_max */
    assert_false(a.join_split);
    assert_int_equal(a.recipient_domains->count, 1);
    a = access_in(c, "192.168.1.7");
    assert_int_equal(a.max_size, 1 << 20);
    assert_int_equal(a.max_recipients, 2);
    assert_int_equal(a.max_sessions, 3);
    assert_int_equal(a.max_messages_per_minute, 4);
    assert_int_equal(a.max_spool, (uint64_t)3 << 30);
    assert_true(a.join_split);
    assert_int_equal(a.recipient_domains->count, 2);
    config_free(c);
}

static void this_machine_is_limited_in_messages_only_when_somebody_said_so(void **state)
{
    (void)state;
    struct config *c = limits_config("");
    assert_int_equal(access_in(c, "127.0.0.1").max_messages_per_minute, 0);
    assert_int_equal(access_in(c, "::1").max_messages_per_minute, 0);
    assert_int_equal(access_in(c, "127.0.0.7").max_messages_per_minute, 4);
    config_free(c);
    c = limits_config("max_spool = 1G\njoin_split = yes\nmax_messages_per_minute = 30\n");
    assert_int_equal(access_in(c, "127.0.0.1").max_spool, (uint64_t)1 << 30);
    assert_true(access_in(c, "127.0.0.1").join_split);
    assert_int_equal(access_in(c, "127.0.0.1").max_messages_per_minute, 30);
    config_free(c);
}

static void old_tls_is_for_listed_addresses_only(void **state)
{
    (void)state;
    struct config *c = limits_config("");
    assert_true(access_in(c, "192.168.1.7").legacy_tls);
    assert_true(access_in(c, "::ffff:192.168.1.8").legacy_tls);
    assert_false(access_in(c, "192.168.1.20").legacy_tls);
    config_free(c);
}

static void a_login_names_its_device_wherever_it_comes_from(void **state)
{
    (void)state;
    struct config *c = config_parse("test.conf", text, sizeof text - 1, stderr);
    const struct config_device *d;
    struct net_address a;
    struct access out;
    assert_non_null(c);
    assert_null(access_find_login(c, "floor3"));
    assert_null(access_find_login(c, ""));
    assert_null(access_find_login(c, "camera"));
    d = access_find_login(c, "Camera@example.com");
    assert_non_null(d);
    assert_string_equal(d->name, "camera");
    assert_string_equal(access_find_login(c, "ALARM")->name, "alarm");
    assert_true(net_parse("10.2.0.8", &a));
    access_as(c, &a, d, &out);
    assert_true(out.allowed);
    assert_string_equal(out.name, "camera");
    assert_int_equal(out.lane, LANE_URGENT);
    assert_string_equal(out.route, "spare");
    config_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_listed_network_may_speak_under_its_address),
        cmocka_unit_test(an_unlisted_address_may_not_speak),
        cmocka_unit_test(a_named_device_may_speak_from_outside_the_allowed_networks),
        cmocka_unit_test(the_narrowest_range_names_the_device),
        cmocka_unit_test(a_login_names_its_device_wherever_it_comes_from),
        cmocka_unit_test(a_device_has_the_common_limits_or_its_own),
        cmocka_unit_test(this_machine_is_limited_in_messages_only_when_somebody_said_so),
        cmocka_unit_test(old_tls_is_for_listed_addresses_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
