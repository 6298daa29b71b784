#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "relay/intake/twice.h"

#define MINUTE 60000u

static const uint8_t key[TWICE_KEY] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static void digest_of(const char *device, const char *from, const char *to, const char *to_too,
                      uint8_t out[TWICE_DIGEST])
{
    static const uint8_t content[TWICE_DIGEST] = "the same content";
    struct envelope e;
    envelope_init(&e);
    assert_true(envelope_set(&e.device, device) && envelope_set(&e.reverse_path, from) &&
                envelope_add_recipient(&e, to) &&
                (to_too == NULL || envelope_add_recipient(&e, to_too)));
    twice_digest(key, &e, content, out);
    envelope_done(&e);
}

static void whatever_differs_in_the_envelope_makes_it_another_mail(void **state)
{
    static const struct {
        const char *name, *device, *from, *to, *to_too;
    } rows[] = {
        {"device", "b", "x@y", "r@y", NULL},
        {"reverse-path", "a", "z@y", "r@y", NULL},
        {"recipient", "a", "x@y", "s@y", NULL},
        {"one more", "a", "x@y", "r@y", "s@y"},
        {"the same octets cut elsewhere", "ax", "@y", "r@y", NULL},
    };
    uint8_t first[TWICE_DIGEST];
    uint8_t other[TWICE_DIGEST];
    (void)state;
    digest_of("a", "x@y", "r@y", NULL, first);
    digest_of("a", "x@y", "r@y", NULL, other);
    assert_memory_equal(first, other, TWICE_DIGEST);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        print_message("  %s\n", rows[i].name);
        digest_of(rows[i].device, rows[i].from, rows[i].to, rows[i].to_too, other);
        assert_memory_not_equal(first, other, TWICE_DIGEST);
    }
}

static void a_copy_is_found_until_the_window_is_over(void **state)
{
    static const uint8_t digest[TWICE_DIGEST] = "one mail";
    static const uint8_t another[TWICE_DIGEST] = "another";
    struct twice *t = twice_new(key);
    struct twice_copy copy;
    (void)state;
    assert_false(twice_find(t, digest, 1000, &copy));
    twice_note(t, digest, 7, 1000);
    twice_note(t, another, 8, 2000);
    assert_true(twice_find(t, digest, 61000, &copy));
    assert_int_equal(copy.id, 7);
    assert_int_equal(copy.age_ms, MINUTE);
    assert_false(copy.durable);
    twice_committed(t, 7, true);
    assert_true(twice_find(t, digest, 61000, &copy));
    assert_true(copy.durable);
    assert_true(twice_find(t, digest, 1000 + TWICE_WINDOW_MS - 1, &copy));
    assert_false(twice_find(t, digest, 1000 + TWICE_WINDOW_MS, &copy));
    assert_true(twice_find(t, another, 1000 + TWICE_WINDOW_MS, &copy));
    twice_free(t);
}

static void mail_that_was_not_stored_has_no_copy(void **state)
{
    static const uint8_t digest[TWICE_DIGEST] = "one mail";
    struct twice *t = twice_new(key);
    struct twice_copy copy;
    (void)state;
    twice_note(t, digest, 7, 1000);
    twice_committed(t, 7, false);
    assert_false(twice_find(t, digest, 2000, &copy));
    twice_committed(t, 99, true); /* was never noted */
    twice_free(t);
}

static void the_newest_ones_are_kept(void **state)
{
    struct twice *t = twice_new(key);
    struct twice_copy copy;
    uint8_t digest[TWICE_DIGEST] = {0};
    (void)state;
    for (uint64_t id = 1; id <= TWICE_MAX + 10; id++) {
        memcpy(digest, &id, sizeof id);
        twice_note(t, digest, id, 1000 + id);
    }
    for (uint64_t id = 1; id <= TWICE_MAX + 10; id++) {
        memcpy(digest, &id, sizeof id);
        assert_int_equal(twice_find(t, digest, 5000, &copy), id > 10);
        assert_true(id <= 10 || copy.id == id);
    }
    twice_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_differs_in_the_envelope_makes_it_another_mail),
        cmocka_unit_test(a_copy_is_found_until_the_window_is_over),
        cmocka_unit_test(mail_that_was_not_stored_has_no_copy),
        cmocka_unit_test(the_newest_ones_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
