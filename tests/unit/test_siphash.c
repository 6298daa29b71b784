#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "relay/base/siphash.h"

/* From the paper and the reference implementation: key 00 01 ... 0f, data 00 01 02 ... */
static void it_gives_the_published_values(void **state)
{
    static const struct {
        size_t len;
        uint64_t hash;
    } rows[] = {{0, 0x726fdb47dd0e0e31u}, {1, 0x74f839c593dc67fdu},  {7, 0xab0200f58b01d137u},
                {8, 0x93f5f5799a932462u}, {15, 0xa129ca6149be45e5u}, {63, 0x958a324ceb064572u}};
    uint8_t key[SIPHASH_KEY];
    uint8_t data[64];

    (void)state;
    for (uint8_t i = 0; i < sizeof data; i++)
        data[i] = i;
    for (uint8_t i = 0; i < sizeof key; i++)
        key[i] = i;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_true(siphash(key, data, rows[i].len) == rows[i].hash);
}

static void another_key_gives_another_hash(void **state)
{
    uint8_t one[SIPHASH_KEY] = {1};
    uint8_t two[SIPHASH_KEY] = {2};

    (void)state;
    assert_true(siphash(one, "secret", 6) != siphash(two, "secret", 6));
}

static void hash(enum siphash_rounds rounds, const void *data, size_t len, size_t step,
                 uint8_t out[SIPHASH_LONG])
{
    static const uint8_t key[SIPHASH_KEY] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    struct siphash h;
    const uint8_t *p = data;
    siphash_begin(&h, rounds, key);
    for (size_t at = 0; at < len; at += step)
        siphash_add(&h, p + at, len - at < step ? len - at : step);
    siphash_end(&h, out);
}

/* Octets 0, 1, 2 ... of so many, with this key: as the authors' reference and others' libraries
 * have them. */
static void the_long_one_gives_the_published_values_too(void **state)
{
    static const struct {
        enum siphash_rounds rounds;
        size_t len;
        uint8_t expected[SIPHASH_LONG];
    } rows[] = {
        {SIPHASH_2_4,
         0,
         {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02,
          0x93}},
        {SIPHASH_2_4,
         1,
         {0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc,
          0x45}},
        {SIPHASH_1_3,
         0,
         {0xe7, 0x7e, 0xbc, 0xb2, 0x27, 0x88, 0xa5, 0xbe, 0xfd, 0x62, 0xdb, 0x6a, 0xdd, 0x30, 0x30,
          0x01}},
        {SIPHASH_1_3,
         1,
         {0xfc, 0x6f, 0x37, 0x04, 0x60, 0xd3, 0xed, 0xa8, 0x5e, 0x05, 0x73, 0xcc, 0x2b, 0x2f, 0xf0,
          0x63}},
        {SIPHASH_1_3,
         63,
         {0x4c, 0x58, 0x00, 0xe3, 0x4e, 0xfe, 0x42, 0x6f, 0x07, 0x9f, 0x6b, 0x0a, 0xa7, 0x52, 0x60,
          0xad}},
    };
    uint8_t data[64];
    uint8_t out[SIPHASH_LONG];
    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hash(rows[i].rounds, data, rows[i].len, 64, out);
        assert_memory_equal(out, rows[i].expected, SIPHASH_LONG);
    }
}

static void check_pieces(enum siphash_rounds rounds)
{
    uint8_t data[1000];
    uint8_t whole[SIPHASH_LONG];
    uint8_t pieces[SIPHASH_LONG];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    hash(rounds, data, sizeof data, sizeof data, whole);
    for (size_t step = 1; step < 40; step++) {
        hash(rounds, data, sizeof data, step, pieces);
        assert_memory_equal(whole, pieces, SIPHASH_LONG);
    }
    data[999] ^= 1;
    hash(rounds, data, sizeof data, 13, pieces);
    assert_memory_not_equal(whole, pieces, SIPHASH_LONG);
}

static void pieces_do_not_matter(void **state)
{
    (void)state;
    check_pieces(SIPHASH_2_4);
    check_pieces(SIPHASH_1_3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_gives_the_published_values),
        cmocka_unit_test(the_long_one_gives_the_published_values_too),
        cmocka_unit_test(pieces_do_not_matter),
        cmocka_unit_test(another_key_gives_another_hash),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
