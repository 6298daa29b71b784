#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/smtp/date.h"

#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
    const char *text;
    bool readable;
} rows[] = {
    {" Fri, 4 Jul 2025 10:00:00 +0200\r\n", true},
    {"Fri, 04 Jul 2025 10:00:00 +0200", true},
    {"4 Jul 2025 10:00 -0930", true},
    {"fri,4 JUL 25 9:05:59 GMT", true},
    {"Fri, 4 Jul 2025 23:59:60 Z", true},
    {"Fri, 4 Jul 2025\r\n 10:00:00 +0200 (CEST)", true},
    {"(a (b) \\) c) Fri (x) , (x) 4 (x) Jul (x) 2025 (x) 10 : 00 : 00 (x) EDT", true},
    {"Mon, 4 Jul 2025 10:00:00 +0200", true}, /* it was a Friday */
    {"29 Feb 2023 10:00:00 +0000", true},     /* there was none */
    {"1 Jan 1970 00:00:00 +0000", true},
    {"1 Jan 125 00:00:00 +0000", true},
    {"", false},
    {"now", false},
    {"05/03/19 10:42 AM", false},
    {"2025-07-04T10:00:00Z", false},
    {"Friday, 4 Jul 2025 10:00:00 +0200", false},
    {"Fri 4 Jul 2025 10:00:00 +0200", false},
    {"Fri Jul  4 10:00:00 2025", false},
    {"4 July 2025 10:00:00 +0200", false},
    {"0 Jul 2025 10:00:00 +0200", false},
    {"31 Apr 2025 10:00:00 +0200", false},
    {"32 Jul 2025 10:00:00 +0200", false},
    {"4 Jul 5 10:00:00 +0200", false},
    {"4 Jul 20255 10:00:00 +0200", false},
    {"4 Jul 2025 24:00:00 +0200", false},
    {"4 Jul 2025 10:60:00 +0200", false},
    {"4 Jul 2025 10:00:61 +0200", false},
    {"4 Jul 2025 10:0:00 +0200", false},
    {"4 Jul 2025 10 +0200", false},
    {"4 Jul 2025 10:00:00", false},
    {"4 Jul 2025 10:00:00 200", false},
    {"4 Jul 2025 10:00:00 +200", false},
    {"4 Jul 2025 10:00:00 +02000", false},
    {"4 Jul 2025 10:00:00 +0260", false},
    {"4 Jul 2025 10:00:00 +02:00", false},
    {"4 Jul 2025 10:00:00 Europe/Berlin", false},
    {"4 Jul 2025 10:00:00 +0200 x", false},
    {"4 Jul", false},
    {"4", false},
    {"(", false},
};

static void dates_are_readable_or_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        size_t len = strlen(rows[i].text);
        char *exact = malloc(len > 0 ? len : 1); /* a read beyond its end is seen */

        assert_non_null(exact);
        memcpy(exact, rows[i].text, len);
        if (date_is_readable(exact, len) != rows[i].readable)
            fail_msg("\"%s\"", rows[i].text);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dates_are_readable_or_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
