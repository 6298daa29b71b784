#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "relay/base/net.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static struct net_address address(const char *text)
{
    struct net_address a;

    assert_true(net_parse(text, &a));
    return a;
}

static const struct {
    const char *text;
    uint8_t family; /* 0 = refused */
    const char *shown;
    const char *literal;
} texts[] = {
    {"192.168.1.20", 4, "192.168.1.20", "[192.168.1.20]"},
    {"0.0.0.0", 4, "0.0.0.0", "[0.0.0.0]"},
    {"::1", 6, "::1", "[IPv6:::1]"},
    {"FD00:0:0:0::00A", 6, "fd00::a", "[IPv6:fd00::a]"},
    {"::ffff:10.1.2.3", 4, "10.1.2.3", "[10.1.2.3]"},
    {"::ffff:a01:203", 4, "10.1.2.3", "[10.1.2.3]"},
    {"::10.1.2.3", 6, "::10.1.2.3", "[IPv6:::10.1.2.3]"},
    {"fe80::1%eth0", 6, "fe80::1", "[IPv6:fe80::1]"},
    {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
     "[IPv6:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"},
    {"", 0, NULL, NULL},
    {"10.0.0", 0, NULL, NULL},
    {"10.0.0.256", 0, NULL, NULL},
    {"010.0.0.1", 0, NULL, NULL},
    {"10.0.0.1 ", 0, NULL, NULL},
    {"10.0.0.1:25", 0, NULL, NULL},
    {"10.0.0.1%eth0", 0, NULL, NULL},
    {"%eth0", 0, NULL, NULL},
    {"[::1]", 0, NULL, NULL},
    {"printer.example.com", 0, NULL, NULL},
    {"11111111111111111111111111111111111111111111111111111111111111111111111", 0, NULL, NULL},
};

static void addresses_are_read_and_shown(void **state)
{
    char out[NET_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct net_address a = {0};

        print_message("  '%s'\n", texts[i].text);
        assert_int_equal(net_parse(texts[i].text, &a), texts[i].family != 0);
        assert_int_equal(a.family, texts[i].family);
        if (texts[i].family == 0)
            continue;
        net_text(&a, out);
        assert_string_equal(out, texts[i].shown);
        net_literal(&a, out);
        assert_string_equal(out, texts[i].literal);
    }
}

static void an_address_that_is_none_has_a_text_too(void **state)
{
    struct net_address none = {0};
    char out[NET_TEXT_MAX];

    (void)state;
    net_text(&none, out);
    assert_string_equal(out, "unknown");
}

static void a_peer_on_a_dual_stack_socket_is_its_ipv4_address(void **state)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    struct sockaddr_in four = {.sin_family = AF_INET};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct net_address a, b;

    (void)state;
    assert_int_equal(inet_pton(AF_INET6, "::ffff:192.168.7.8", &six.sin6_addr), 1);
    assert_int_equal(inet_pton(AF_INET, "192.168.7.8", &four.sin_addr), 1);
    assert_true(net_from_sockaddr((struct sockaddr *)&six, &a));
    assert_true(net_from_sockaddr((struct sockaddr *)&four, &b));
    assert_int_equal(a.family, 4);
    assert_true(net_equal(&a, &b));
    assert_false(net_from_sockaddr((struct sockaddr *)&local, &a));
}

static void equality_looks_at_the_family(void **state)
{
    struct net_address four = {.family = 4, .bytes = {1}};
    struct net_address six = {.family = 6, .bytes = {1}};

    (void)state;
    assert_false(net_equal(&four, &six));
    assert_true(net_equal(&six, &six));
}

static const struct {
    const char *text;
    const char *first; /* NULL = refused */
    const char *last;
} ranges[] = {
    {"10.0.0.0/8", "10.0.0.0", "10.255.255.255"},
    {"172.16.0.0/12", "172.16.0.0", "172.31.255.255"},
    {"192.168.1.7/24", "192.168.1.0", "192.168.1.255"},
    {"192.168.1.7/31", "192.168.1.6", "192.168.1.7"},
    {"192.168.1.7/32", "192.168.1.7", "192.168.1.7"},
    {"0.0.0.0/0", "0.0.0.0", "255.255.255.255"},
    {"192.168.1.9", "192.168.1.9", "192.168.1.9"},
    {"192.168.1.10-192.168.1.50", "192.168.1.10", "192.168.1.50"},
    {"192.168.1.10 - 192.168.1.50", "192.168.1.10", "192.168.1.50"},
    {"fd00::/8", "fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
    {"2001:db8:1:2::/63", "2001:db8:1:2::", "2001:db8:1:3:ffff:ffff:ffff:ffff"},
    {"fd00::1-fd00::f", "fd00::1", "fd00::f"},
    {"::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
    {"::ffff:10.0.0.0/104", "10.0.0.0", "10.255.255.255"},
    {"::ffff:0:0/96", "0.0.0.0", "255.255.255.255"},
    {"::ffff:10.0.0.0/8", NULL, NULL},
    {"10.0.0.0/33", NULL, NULL},
    {"fd00::/129", NULL, NULL},
    {"10.0.0.0/", NULL, NULL},
    {"10.0.0.0/-1", NULL, NULL},
    {"10.0.0.0/0008", NULL, NULL},
    {"10.0.0.0/255.0.0.0", NULL, NULL},
    {"10.0.0.0/8/8", NULL, NULL},
    {"10.0.0.9-10.0.0.1", NULL, NULL},
    {"10.0.0.1-fd00::1", NULL, NULL},
    {"10.0.0.1-", NULL, NULL},
    {"-10.0.0.1", NULL, NULL},
    {"10.0.0.1-10.0.0.2-10.0.0.3", NULL, NULL},
    {"", NULL, NULL},
};

static void ranges_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ranges); i++) {
        struct net_range r;
        struct net_address first, last;

        print_message("  '%s'\n", ranges[i].text);
        assert_int_equal(net_range_parse(ranges[i].text, &r), ranges[i].first != NULL);
        if (ranges[i].first == NULL)
            continue;
        first = address(ranges[i].first);
        last = address(ranges[i].last);
        assert_true(net_equal(&r.first, &first));
        assert_true(net_equal(&r.last, &last));
    }
}

static void a_range_has_its_ends_and_nothing_beyond(void **state)
{
    static const struct {
        const char *text;
        bool inside;
    } rows[] = {{"192.168.1.9", false},       {"192.168.1.10", true},  {"192.168.1.33", true},
                {"192.168.1.50", true},       {"192.168.1.51", false}, {"::c0a8:10a", false},
                {"::ffff:192.168.1.10", true}};
    struct net_range r;

    (void)state;
    assert_true(net_range_parse("192.168.1.10-192.168.1.50", &r));
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct net_address a = address(rows[i].text);

        assert_int_equal(net_range_has(&r, &a), rows[i].inside);
    }
}

static void a_list_has_what_any_of_its_ranges_has(void **state)
{
    struct net_ranges rs = {NULL, 0};
    struct net_range r;
    struct net_address in_first = address("10.1.1.1");
    struct net_address in_second = address("fd00::5");
    struct net_address outside = address("11.1.1.1");

    (void)state;
    assert_false(net_ranges_have(&rs, &in_first));
    assert_true(net_range_parse("10.0.0.0/8", &r));
    assert_true(net_ranges_add(&rs, &r));
    assert_true(net_range_parse("fd00::/8", &r));
    assert_true(net_ranges_add(&rs, &r));
    assert_true(net_ranges_have(&rs, &in_first));
    assert_true(net_ranges_have(&rs, &in_second));
    assert_false(net_ranges_have(&rs, &outside));
    net_ranges_done(&rs);
    assert_int_equal(rs.count, 0);
}

static void private_and_loopback_end_where_the_standards_say(void **state)
{
    static const struct {
        const char *text;
        bool private;
        bool loopback;
    } rows[] = {
        {"9.255.255.255", false, false},
        {"10.0.0.0", true, false},
        {"10.255.255.255", true, false},
        {"11.0.0.0", false, false},
        {"172.15.255.255", false, false},
        {"172.16.0.0", true, false},
        {"172.31.255.255", true, false},
        {"172.32.0.0", false, false},
        {"192.168.255.255", true, false},
        {"192.169.0.0", false, false},
        {"169.254.3.4", true, false},
        {"100.64.0.1", false, false},
        {"127.0.0.1", false, true},
        {"127.255.0.1", false, true},
        {"128.0.0.1", false, false},
        {"fc00::1", true, false},
        {"fdff::1", true, false},
        {"fe00::1", false, false},
        {"fe80::1", true, false},
        {"febf::1", true, false},
        {"fec0::1", false, false},
        {"2001:db8::1", false, false},
        {"::1", false, true},
        {"::2", false, false},
        {"a00::1", false, false},
        {"7f00::1", false, false},
        {"::ffff:127.0.0.1", false, true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct net_address a = address(rows[i].text);

        print_message("  %s\n", rows[i].text);
        assert_int_equal(net_is_private(&a), rows[i].private);
        assert_int_equal(net_is_loopback(&a), rows[i].loopback);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read_and_shown),
        cmocka_unit_test(an_address_that_is_none_has_a_text_too),
        cmocka_unit_test(a_peer_on_a_dual_stack_socket_is_its_ipv4_address),
        cmocka_unit_test(equality_looks_at_the_family),
        cmocka_unit_test(ranges_are_read),
        cmocka_unit_test(a_range_has_its_ends_and_nothing_beyond),
        cmocka_unit_test(a_list_has_what_any_of_its_ranges_has),
        cmocka_unit_test(private_and_loopback_end_where_the_standards_say),
    };

    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
