#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "queue/bytes.h"

static void integers_are_little_endian_and_come_back(void **state)
{
    static const uint8_t expected[] = {0x01, 0x34, 0x12, 0x78, 0x56, 0x34, 0x12, 0xef,
                                       0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01};
    struct bytes b;
    struct bytes_reader r;

    (void)state;
    bytes_init(&b, 100);
    assert_true(bytes_byte(&b, 0x01));
    assert_true(bytes_u16(&b, 0x1234));
    assert_true(bytes_u32(&b, 0x12345678));
    assert_true(bytes_u64(&b, 0x0123456789abcdef));
    assert_int_equal(b.len, sizeof(expected));
    assert_memory_equal(b.data, expected, sizeof(expected));

    bytes_reader_init(&r, b.data, b.len);
    assert_int_equal(bytes_read8(&r), 0x01);
    assert_int_equal(bytes_read16(&r), 0x1234);
    assert_int_equal(bytes_read32(&r), 0x12345678);
    assert_true(bytes_read64(&r) == 0x0123456789abcdef);
    assert_int_equal(r.left, 0);
    assert_false(r.failed);
    bytes_done(&b);
}

static void high_bits_survive(void **state)
{
    uint8_t raw[8];

    (void)state;
    bytes_put16(raw, 0xfffe);
    assert_int_equal(bytes_get16(raw), 0xfffe);
    bytes_put32(raw, 0xfffefdfc);
    assert_true(bytes_get32(raw) == 0xfffefdfc);
    bytes_put64(raw, 0xfffefdfcfbfaf9f8);
    assert_true(bytes_get64(raw) == 0xfffefdfcfbfaf9f8);
}

static void append_fails_at_the_maximum_and_changes_nothing(void **state)
{
    struct bytes b;

    (void)state;
    bytes_init(&b, 5);
    assert_true(bytes_append(&b, "abc", 3));
    assert_false(bytes_append(&b, "def", 3));
    assert_int_equal(b.len, 3);
    assert_memory_equal(b.data, "abc", 3);
    assert_true(b.failed);
    assert_true(bytes_append(&b, "de", 2));
    assert_true(b.failed);
    assert_string_equal(bytes_string(&b), "abcde");
    assert_false(bytes_byte(&b, 'f'));
    assert_false(bytes_printf(&b, "%d", 1));
    assert_int_equal(b.len, 5);
    bytes_clear(&b);
    assert_false(b.failed);
    assert_int_equal(b.len, 0);
    bytes_done(&b);
}

static void printf_fills_to_the_last_octet(void **state)
{
    struct bytes b;

    (void)state;
    bytes_init(&b, 8);
    assert_true(bytes_printf(&b, "%s-%03d", "ab", 7));
    assert_string_equal(bytes_string(&b), "ab-007");
    assert_true(bytes_printf(&b, "%d", 42));
    assert_string_equal(bytes_string(&b), "ab-00742");
    assert_true(bytes_printf(&b, "%s", ""));
    assert_false(b.failed);
    bytes_done(&b);
}

static void consume_drops_the_front(void **state)
{
    struct bytes b;

    (void)state;
    bytes_init(&b, 100);
    bytes_consume(&b, 3);
    bytes_text(&b, "abcdef");
    bytes_consume(&b, 2);
    assert_string_equal(bytes_string(&b), "cdef");
    bytes_consume(&b, 0);
    assert_string_equal(bytes_string(&b), "cdef");
    bytes_consume(&b, 100);
    assert_int_equal(b.len, 0);
    assert_string_equal(bytes_string(&b), "");
    bytes_done(&b);
}

static void reserve_gives_the_place_behind_the_content(void **state)
{
    struct bytes b;
    uint8_t *p;

    (void)state;
    bytes_init(&b, 1000);
    assert_non_null(bytes_reserve(&b, 0));
    bytes_text(&b, "ab");
    p = bytes_reserve(&b, 900);
    assert_ptr_equal(p, b.data + 2);
    memset(p, 'c', 900);
    b.len += 900;
    assert_null(bytes_reserve(&b, 99));
    assert_true(b.failed);
    assert_non_null(bytes_reserve(&b, 98));
    assert_int_equal(b.len, 902);
    bytes_done(&b);
}

static void huge_lengths_do_not_wrap_around(void **state)
{
    struct bytes b;

    (void)state;
    bytes_init(&b, 100);
    bytes_text(&b, "abc");
    assert_null(bytes_reserve(&b, SIZE_MAX));
    assert_null(bytes_reserve(&b, SIZE_MAX - 2));
    assert_int_equal(b.len, 3);
    bytes_done(&b);
}

static void done_leaves_it_empty_and_usable(void **state)
{
    struct bytes b;

    (void)state;
    bytes_init(&b, 4);
    bytes_text(&b, "too long");
    bytes_done(&b);
    assert_null(b.data);
    assert_false(b.failed);
    assert_true(bytes_text(&b, "four"));
    assert_false(bytes_text(&b, "x"));
    bytes_done(&b);
}

static void thousands_of_small_appends_keep_their_content(void **state)
{
    struct bytes b;

    (void)state;
    bytes_init(&b, 40000);
    for (uint32_t i = 0; i < 10000; i++)
        assert_true(bytes_u32(&b, i * 2654435761u));
    assert_int_equal(b.len, 40000);
    assert_true(b.cap <= 40000);
    for (uint32_t i = 0; i < 10000; i++)
        assert_true(bytes_get32(b.data + (size_t)i * 4) == i * 2654435761u);
    assert_false(bytes_byte(&b, 0));
    bytes_done(&b);
}

static void reads_past_the_end_are_zero_and_fail_for_good(void **state)
{
    static const uint8_t raw[] = {1, 2, 3};
    struct bytes_reader r;

    (void)state;
    bytes_reader_init(&r, raw, sizeof(raw));
    assert_int_equal(bytes_read16(&r), 0x0201);
    assert_int_equal(bytes_read32(&r), 0);
    assert_true(r.failed);
    assert_int_equal(bytes_read8(&r), 0);
    assert_null(bytes_read(&r, 0));

    bytes_reader_init(&r, NULL, 0);
    assert_non_null(bytes_read(&r, 0));
    assert_false(r.failed);
    assert_null(bytes_read(&r, 1));
    assert_true(r.failed);
}

static void crc_is_the_common_one_and_can_be_continued(void **state)
{
    uint32_t whole = bytes_crc(0, "123456789", 9);

    (void)state;
    assert_true(whole == 0xcbf43926);
    assert_true(bytes_crc(bytes_crc(0, "1234", 4), "56789", 5) == whole);
    assert_true(bytes_crc(whole, NULL, 0) == whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_little_endian_and_come_back),
        cmocka_unit_test(high_bits_survive),
        cmocka_unit_test(append_fails_at_the_maximum_and_changes_nothing),
        cmocka_unit_test(printf_fills_to_the_last_octet),
        cmocka_unit_test(consume_drops_the_front),
        cmocka_unit_test(reserve_gives_the_place_behind_the_content),
        cmocka_unit_test(huge_lengths_do_not_wrap_around),
        cmocka_unit_test(done_leaves_it_empty_and_usable),
        cmocka_unit_test(thousands_of_small_appends_keep_their_content),
        cmocka_unit_test(reads_past_the_end_are_zero_and_fail_for_good),
        cmocka_unit_test(crc_is_the_common_one_and_can_be_continued),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
