#include "relay/smtp/identity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "relay/smtp/address_list.h"

#define ROOM (1024 * 1024)

static char *listed[] = {"alarm@example.com", "factory.example", ".branches.example"};

static struct identity office(void)
{
    return (struct identity){.mailbox = "scans@example.com",
                             .send_as = listed,
                             .send_as_count = sizeof listed / sizeof *listed,
                             .how = IDENTITY_REWRITE,
                             .from = "",
                             .name = "",
                             .device = "copier"};
}

/* What is sent instead, or the same. */
static void apply(const struct identity *id, const char *header, char *out, size_t size)
{
    struct bytes b;
    bool changed;
    bytes_init(&b, ROOM);
    assert_true(identity_apply(id, header, strlen(header), &b, &changed));
    snprintf(out, size, "%s", changed ? bytes_string(&b) : header);
    if (!changed)
        assert_int_equal(b.len, 0);
    bytes_done(&b);
}

static void header_becomes(const struct identity *id, const char *header, const char *wanted)
{
    char got[4096];
    apply(id, header, got, sizeof got);
    assert_string_equal(got, wanted);
}

static void addresses_of_the_mailbox_and_its_list_may_be_used(void **state)
{
    static const struct {
        const char *address;
        bool may;
    } rows[] = {{"scans@example.com", true},
                {"Scans@Example.COM", true},
                {"alarm@example.com", true},
                {"other@example.com", false},
                {"anybody@factory.example", true},
                {"x@sub.factory.example", false},
                {"x@a.branches.example", true},
                {"x@branches.example", false},
                {"x@notfactory.example", false},
                {"x@evil-branches.example", false},
                {"scans", false},
                {"", false}};
    struct identity id = office();
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (identity_may_use(&id, rows[i].address) != rows[i].may)
            fail_msg("%s", rows[i].address);
    }
}

static void from_that_may_be_used_is_not_changed(void **state)
{
    static const char *const headers[] = {
        "From: scans@example.com\r\nTo: a@b.example\r\n\r\n",
        "From: \"Copier, 2nd floor\" <SCANS@example.com>\r\n\r\n",
        "From: Line 4\r\n <robot@factory.example>\r\nReply-To: x@y.example\r\n\r\n",
        "From: (hall) alarm@example.com (north)\r\nSender: scans@example.com\r\n\r\n"};
    struct identity id = office();
    (void)state;
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        header_becomes(&id, headers[i], headers[i]);
}

static void other_from_becomes_the_mailbox_and_its_address_the_reply_to(void **state)
{
    struct identity id = office();
    (void)state;
    header_becomes(
        &id, "Subject: s\r\nFrom: \"Canon, hall\" <hall@corp-mail.com>\r\nTo: a@b.com\r\n\r\n",
        "Subject: s\r\nFrom: \"Canon, hall\" <scans@example.com>\r\n"
        "Reply-To: \"Canon, hall\" <hall@corp-mail.com>\r\nTo: a@b.com\r\n\r\n");
}

static void a_reply_to_of_the_device_stays(void **state)
{
    struct identity id = office();
    (void)state;
    header_becomes(&id, "From: hall@corp-mail.com\r\nReply-To: me@corp-mail.com\r\n\r\n",
                   "From: copier <scans@example.com>\r\nX-Original-From: hall@corp-mail.com\r\n"
                   "Reply-To: me@corp-mail.com\r\n\r\n");
}

static void an_address_that_nobody_could_answer_is_kept_in_an_x_header(void **state)
{
    static const char *const addresses[] = {"root@nas",       "monit@OPNsense.localdomain",
                                            "ups@10.1.2.3",   "ups@[10.1.2.3]",
                                            "cam@cam1.local", "x@printers.lan"};
    struct identity id = office();
    (void)state;
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        char header[256], wanted[256];
        snprintf(header, sizeof header, "From: <%s>\r\n\r\n", addresses[i]);
        snprintf(wanted, sizeof wanted,
                 "From: copier <scans@example.com>\r\nX-Original-From: <%s>\r\n\r\n", addresses[i]);
        header_becomes(&id, header, wanted);
    }
}

static void a_configured_name_goes_before_the_original_one(void **state)
{
    struct identity id = office();
    (void)state;
    id.name = "Empf\xc3\xa4nger, Scans";
    header_becomes(&id, "From: Hall <hall@nas>\r\n\r\n",
                   "From: =?UTF-8?Q?Empf=C3=A4nger=2C?= Scans <scans@example.com>\r\n"
                   "X-Original-From: Hall <hall@nas>\r\n\r\n");
}

static void an_encoded_display_name_stays_as_it_is(void **state)
{
    struct identity id = office();
    (void)state;
    header_becomes(&id, "From: =?UTF-8?Q?B=C3=BCro?= <hall@nas>\r\n\r\n",
                   "From: =?UTF-8?Q?B=C3=BCro?= <scans@example.com>\r\n"
                   "X-Original-From: =?UTF-8?Q?B=C3=BCro?= <hall@nas>\r\n\r\n");
}

static void what_is_added_is_ascii(void **state)
{
    struct identity id = office();
    (void)state;
    header_becomes(&id, "From: kopierer-b\xc3\xbcro@corp-mail.com\r\n\r\n",
                   "From: copier <scans@example.com>\r\n"
                   "X-Original-From: =?UTF-8?Q?kopierer-b=C3=BCro=40corp-mail=2Ecom?=\r\n\r\n");
    header_becomes(&id, "From: \"B\xc3\xbcro, 1\" <hall@corp-mail.com>\r\n\r\n",
                   "From: =?UTF-8?Q?B=C3=BCro=2C?= 1 <scans@example.com>\r\n"
                   "Reply-To: =?UTF-8?Q?B=C3=BCro=2C?= 1 <hall@corp-mail.com>\r\n\r\n");
    header_becomes(&id, "From: scans@example.com\r\nSender: b\xc3\xbcro@nas\r\n\r\n",
                   "From: scans@example.com\r\n"
                   "X-Original-Sender: =?UTF-8?Q?b=C3=BCro=40nas?=\r\n\r\n");
}

static void a_header_in_utf8_is_encoded_where_nobody_asks_for_smtputf8(void **state)
{
    static const char header[] = "From: scans@example.com\r\nSubject: Gr\xc3\xbc\xc3\x9f"
                                 "e\r\nTo: J\xc3\xb6rg <j@b.com>, b\xc3\xbcro@c.com\r\n\r\n";
    struct identity id = office();
    (void)state;
    header_becomes(&id, header, header);
    id.ascii = true;
    header_becomes(&id, header,
                   "From: scans@example.com\r\nSubject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\r\n"
                   "To: =?UTF-8?Q?J=C3=B6rg?= <j@b.com>, b\xc3\xbcro@c.com\r\n\r\n");
}

static void a_from_too_long_to_be_encoded_is_cut(void **state)
{
    static char header[64 * 1024];
    static char got[64 * 1024];
    struct identity id = office();
    size_t n = (size_t)sprintf(header, "From: ");
    (void)state;
    for (int i = 0; i < 2000; i++)
        n += (size_t)sprintf(header + n, "\xc3\xbc@a.com,\r\n ");
    (void)sprintf(header + n, "b@a.com\r\n\r\n");
    apply(&id, header, got, sizeof got);
    assert_non_null(strstr(got, "\r\nX-Original-From:"));
    assert_true(words_is_ascii(got, strlen(got)));
}

static void several_senders_need_one_that_sends(void **state)
{
    struct identity id = office();
    (void)state;
    header_becomes(&id, "From: a@factory.example, b@factory.example\r\n\r\n",
                   "From: a@factory.example, b@factory.example\r\n"
                   "Sender: <scans@example.com>\r\n\r\n");
    header_becomes(
        &id, "From: a@factory.example, b@factory.example\r\nSender: a@factory.example\r\n\r\n",
        "From: a@factory.example, b@factory.example\r\nSender: a@factory.example\r\n\r\n");
    header_becomes(&id, "From: a@our-factory.com, b@other.com\r\n\r\n",
                   "From: copier <scans@example.com>\r\n"
                   "Reply-To: a@our-factory.com, b@other.com\r\n\r\n");
}

static void a_sender_that_may_not_send_is_kept_in_an_x_header(void **state)
{
    struct identity id = office();
    (void)state;
    header_becomes(&id, "Sender: root@nas\r\nFrom: scans@example.com\r\n\r\n",
                   "X-Original-Sender: root@nas\r\nFrom: scans@example.com\r\n\r\n");
}

static void keep_changes_nothing(void **state)
{
    static const char header[] = "From: x@elsewhere.com\r\nSender: root@nas\r\n\r\n";
    struct identity id = office();
    (void)state;
    id.how = IDENTITY_KEEP;
    header_becomes(&id, header, header);
}

static void a_fixed_address_replaces_even_what_may_be_used(void **state)
{
    struct identity id = office();
    (void)state;
    id.how = IDENTITY_FIXED;
    id.from = "alarm@example.com";
    header_becomes(&id, "From: scans@example.com\r\n\r\n",
                   "From: copier <alarm@example.com>\r\nReply-To: scans@example.com\r\n\r\n");
    header_becomes(&id, "From: Alarm <alarm@example.com>\r\n\r\n",
                   "From: Alarm <alarm@example.com>\r\n\r\n");
}

static void the_reverse_path_follows_the_same_rule(void **state)
{
    char path[ADDRESS_PATH_MAX];
    struct identity id = office();
    (void)state;
    identity_reverse_path(&id, "hall@nas", path);
    assert_string_equal(path, "scans@example.com");
    identity_reverse_path(&id, "", path);
    assert_string_equal(path, "scans@example.com");
    identity_reverse_path(&id, "x@factory.example", path);
    assert_string_equal(path, "x@factory.example");
    id.how = IDENTITY_KEEP;
    identity_reverse_path(&id, "hall@nas", path);
    assert_string_equal(path, "hall@nas");
    identity_reverse_path(&id, "", path);
    assert_string_equal(path, "scans@example.com");
    id.how = IDENTITY_FIXED;
    id.from = "alarm@example.com";
    identity_reverse_path(&id, "scans@example.com", path);
    assert_string_equal(path, "alarm@example.com");
}

static void addresses_are_taken_off_a_list_one_by_one(void **state)
{
    static const char text[] = "a@b.c, \"D, E\" <d@e.f>, Group: g@h.i, J <j@k.l>;, (x) \"y>z\"@m.n";
    static const char *const wanted[] = {"|a@b.c", "\"D, E\"|d@e.f", "|g@h.i", "J|j@k.l",
                                         "|\"y>z\"@m.n"};
    const char *p = text;
    size_t len = sizeof text - 1;
    struct address_list_item item;
    (void)state;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        char got[64];
        assert_true(address_list_take(&p, &len, &item));
        snprintf(got, sizeof got, "%.*s|%.*s", (int)item.name_len, item.name, (int)item.address_len,
                 item.address);
        assert_string_equal(got, wanted[i]);
    }
    assert_false(address_list_take(&p, &len, &item));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_of_the_mailbox_and_its_list_may_be_used),
        cmocka_unit_test(from_that_may_be_used_is_not_changed),
        cmocka_unit_test(other_from_becomes_the_mailbox_and_its_address_the_reply_to),
        cmocka_unit_test(a_reply_to_of_the_device_stays),
        cmocka_unit_test(an_address_that_nobody_could_answer_is_kept_in_an_x_header),
        cmocka_unit_test(a_configured_name_goes_before_the_original_one),
        cmocka_unit_test(an_encoded_display_name_stays_as_it_is),
        cmocka_unit_test(what_is_added_is_ascii),
        cmocka_unit_test(a_header_in_utf8_is_encoded_where_nobody_asks_for_smtputf8),
        cmocka_unit_test(a_from_too_long_to_be_encoded_is_cut),
        cmocka_unit_test(several_senders_need_one_that_sends),
        cmocka_unit_test(a_sender_that_may_not_send_is_kept_in_an_x_header),
        cmocka_unit_test(keep_changes_nothing),
        cmocka_unit_test(a_fixed_address_replaces_even_what_may_be_used),
        cmocka_unit_test(the_reverse_path_follows_the_same_rule),
        cmocka_unit_test(addresses_are_taken_off_a_list_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
