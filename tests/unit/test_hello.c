#include "relay/intake/hello.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static struct net_address address(const char *text)
{
    struct net_address a;

    assert_true(net_parse(text, &a));
    return a;
}

static void the_first_octets_tell_tls_from_smtp(void **state)
{
    static const struct {
        const char *name;
        const char *octets;
        size_t len;
        enum hello hello;
    } rows[] = {
        {"nothing", "", 0, HELLO_UNSURE},
        {"TLS 1.0 record", "\x16\x03\x01\x02\x00", 5, HELLO_TLS},
        {"TLS 1.2 record", "\x16\x03\x03", 3, HELLO_TLS},
        {"SSL 3 record", "\x16\x03\x00", 3, HELLO_TLS},
        {"its first octet", "\x16", 1, HELLO_TLS},
        {"a control character and text", "\x16Hello", 6, HELLO_PLAIN},
        {"SSL 2 hello for TLS 1.0", "\x80\x2e\x01\x03\x01", 5, HELLO_TLS},
        {"SSL 2 hello for SSL 2", "\x80\x1c\x01\x00\x02", 5, HELLO_TLS},
        {"its first octets", "\x80\x2e\x01", 3, HELLO_UNSURE},
        {"its first octet alone", "\x80", 1, HELLO_UNSURE},
        {"UTF-8", "\xc3\xa4\xc3\xb6\xc3\xbc", 6, HELLO_PLAIN},
        {"EHLO", "EHLO printer\r\n", 14, HELLO_PLAIN},
        {"one octet of it", "e", 1, HELLO_PLAIN},
        {"a line end", "\r\n", 2, HELLO_PLAIN},
        {"NUL", "\0", 1, HELLO_PLAIN},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (hello_of((const uint8_t *)rows[i].octets, rows[i].len) != rows[i].hello)
            fail_msg("%s", rows[i].name);
    }
}

static void an_unknown_address_is_waited_for_a_moment(void **state)
{
    struct hello_table *t = hello_table_new(1);
    struct net_address a = address("192.168.1.20");

    (void)state;
    assert_int_equal(hello_wait_ms(t, &a), HELLO_WAIT_MS);
    assert_int_equal(hello_wait_ms(t, &a), HELLO_WAIT_MS);
    hello_table_free(t);
}

static void twenty_plain_sessions_end_the_waiting(void **state)
{
    struct hello_table *t = hello_table_new(2);
    struct net_address a = address("192.168.1.20");
    struct net_address other = address("192.168.1.21");

    (void)state;
    for (int i = 0; i < HELLO_PLAIN_SESSIONS; i++) {
        assert_int_equal(hello_wait_ms(t, &a), HELLO_WAIT_MS);
        hello_saw_plain(t, &a);
    }
    assert_int_equal(hello_wait_ms(t, &a), 0);
    assert_int_equal(hello_wait_ms(t, &other), HELLO_WAIT_MS);
    for (int i = 0; i < 1000; i++)
        hello_saw_plain(t, &a);
    assert_int_equal(hello_wait_ms(t, &a), 0);
    hello_table_free(t);
}

static void one_hello_keeps_the_waiting(void **state)
{
    struct hello_table *t = hello_table_new(3);
    struct net_address a = address("fd00::20");

    (void)state;
    hello_saw_tls(t, &a);
    for (int i = 0; i < 2 * HELLO_PLAIN_SESSIONS; i++)
        hello_saw_plain(t, &a);
    assert_int_equal(hello_wait_ms(t, &a), HELLO_WAIT_MS);
    hello_table_free(t);
}

static void a_late_hello_makes_it_longer_even_after_many_plain_sessions(void **state)
{
    struct hello_table *t = hello_table_new(4);
    struct net_address a = address("10.0.0.1");

    (void)state;
    for (int i = 0; i < HELLO_PLAIN_SESSIONS; i++)
        hello_saw_plain(t, &a);
    hello_saw_late(t, &a);
    assert_int_equal(hello_wait_ms(t, &a), HELLO_LATE_WAIT_MS);
    for (int i = 0; i < 2 * HELLO_PLAIN_SESSIONS; i++)
        hello_saw_plain(t, &a);
    assert_int_equal(hello_wait_ms(t, &a), HELLO_LATE_WAIT_MS);
    hello_table_free(t);
}

/* However many come, one that is used stays known longer than those that are not. */
static void the_table_is_bounded_and_forgets_the_least_used(void **state)
{
    struct hello_table *t = hello_table_new(5);
    struct net_address busy = address("10.0.0.1");
    struct net_address once = address("10.0.0.2");
    struct net_address a = address("172.16.0.0");

    (void)state;
    hello_saw_late(t, &busy);
    hello_saw_late(t, &once);
    for (unsigned i = 0; i < 20 * HELLO_ADDRESSES_MAX; i++) {
        a.bytes[1] = (uint8_t)(16 + (i >> 16));
        a.bytes[2] = (uint8_t)(i >> 8);
        a.bytes[3] = (uint8_t)i;
        hello_saw_plain(t, &a);
        if (i % 64 == 0)
            assert_int_equal(hello_wait_ms(t, &busy), HELLO_LATE_WAIT_MS);
    }
    assert_int_equal(hello_wait_ms(t, &once), HELLO_WAIT_MS);
    hello_table_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_octets_tell_tls_from_smtp),
        cmocka_unit_test(an_unknown_address_is_waited_for_a_moment),
        cmocka_unit_test(twenty_plain_sessions_end_the_waiting),
        cmocka_unit_test(one_hello_keeps_the_waiting),
        cmocka_unit_test(a_late_hello_makes_it_longer_even_after_many_plain_sessions),
        cmocka_unit_test(the_table_is_bounded_and_forgets_the_least_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
