#include "queue/names.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void a_text_is_kept_once(void **state)
{
    struct names n;
    (void)state;
    names_init(&n);
    assert_null(names_find(&n, "copier"));
    struct name *name = names_keep(&n, "copier");
    assert_string_equal(name->text, "copier");
    assert_ptr_equal(names_keep(&n, "copier"), name);
    assert_ptr_equal(names_find(&n, "copier"), name);
    assert_ptr_not_equal(names_keep(&n, "alarm"), name);
    assert_int_equal(n.count, 2);
    names_done(&n);
}

static void beyond_the_limit_new_ones_share_a_name(void **state)
{
    struct names n;
    char text[32];
    (void)state;
    names_init(&n);
    for (unsigned i = 0; i < NAMES_MAX + 1000; i++) {
        snprintf(text, sizeof text, "fd00::%x", i);
        struct name *name = names_keep(&n, text);
        assert_non_null(name);
        assert_string_equal(name->text, i < NAMES_MAX ? text : NAMES_OTHERS);
    }
    assert_int_equal(n.count, NAMES_MAX + 1);
    assert_string_equal(names_keep(&n, "fd00::5")->text, "fd00::5");
    assert_null(names_find(&n, text));
    names_done(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_is_kept_once),
        cmocka_unit_test(beyond_the_limit_new_ones_share_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
