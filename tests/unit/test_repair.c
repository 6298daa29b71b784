#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/smtp/repair.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define OUR_ID   "<ours@relay.example>"
#define OUR_DATE "Fri, 4 Jul 2025 10:00:00 +0000"

/* What a header needs, so that a row shows one thing only. */
#define ID   "Message-ID: <1@printer>\r\n"
#define DATE "Date: Thu, 3 Jul 2025 09:00:00 +0200\r\n"
#define FROM "From: a@b.example\r\n"
#define TO   "To: c@d.example\r\n"
#define ALL  ID DATE FROM TO

static const struct repair_facts facts = {.date = OUR_DATE,
                                          .message_id = OUR_ID,
                                          .reverse_path = "x@office.example",
                                          .device = "copier",
                                          .hostname = "relay.example",
                                          .charset = ""};

/* The header as it is stored, from a text with its empty line. */
static const char *repaired(const char *text, const struct repair_facts *with, struct header *h,
                            struct bytes *out)
{
    struct bytes trace;
    uint32_t size;
    size_t len = strlen(text);

    header_init(h);
    bytes_init(out, 1 << 24);
    bytes_init(&trace, 1);
    for (size_t at = 0; at < len && h->state == HEADER_MORE;) {
        size_t n = len - at < HEADER_CHUNK_MAX ? len - at : HEADER_CHUNK_MAX;

        header_feed(h, (const uint8_t *)text + at, n);
        at += n;
    }
    header_finish(h);
    assert_true(repair_header(h, with));
    assert_true(header_write(h, &trace, out, &size));
    return bytes_string(out);
}

static void check(const char *name, const char *text, const char *wanted, const char *repairs,
                  const struct repair_facts *with)
{
    struct header h;
    struct bytes out;
    const char *got = repaired(text, with, &h, &out);

    if (strcmp(got, wanted) != 0)
        fail_msg("%s: \"%s\"", name, got);
    if (strcmp(h.repairs, repairs) != 0)
        fail_msg("%s: repairs %s", name, h.repairs);
    header_done(&h);
    bytes_done(&out);
}

static const struct {
    const char *name;
    const char *text;
} unchanged[] = {
    {"what every mail has", ALL "Subject: x\r\n\r\n"},
    {"odd but legal fields", "RECEIVED:x\r\nX:\r\nSubject : a\r\n \tb\r\n  \r\n" ALL "\r\n"},
    {"bare address", ID DATE TO "From: x@office.example\r\n\r\n"},
    {"name in quotes", ID DATE TO "From: \"Scanner, 2nd @ HQ\" <x@office.example>\r\n\r\n"},
    {"name of atoms", ID DATE TO "From: Scanner at HQ <x@office.example>\r\n\r\n"},
    {"obsolete name with a dot", ID DATE TO "From: John Q. Public <x@office.example>\r\n\r\n"},
    {"comments", ID DATE TO "From: x@office.example (Scanner (2nd floor))\r\n\r\n"},
    {"encoded name", ID DATE TO "From: =?UTF-8?Q?B=C3=BCro?=\r\n <x@office.example>\r\n\r\n"},
    {"several",
     ID DATE FROM "To: a@b.example, \"B, C\"\r\n\t<c@d.example> , <e@f.example>\r\n\r\n"},
    {"group", ID DATE FROM "To: office: a@b.example, c@d.example;\r\n\r\n"},
    {"group of nobody", ID DATE FROM "To: undisclosed-recipients:;\r\n\r\n"},
    {"Cc without To", ID DATE FROM "Cc: a@b.example\r\n\r\n"},
    {"quoted local part", ID DATE TO "From: \"a b\"@office.example\r\n\r\n"},
    {"address literal", ID DATE TO "From: <root@[192.168.1.21]>\r\n\r\n"},
    {"domain of one label", ID DATE TO "From: root@printer\r\n\r\n"},
    {"sender and reply-to", ALL "Sender: A <a@b.example>\r\nReply-To: b@c.example\r\n\r\n"},
    {"Message-ID with a comment", DATE FROM TO "Message-ID: (old) <1@x> \r\n\r\n"},
    {"obsolete date", ID FROM TO "Date: 4 jul 25 10:00 GMT\r\n\r\n"},
    {"Date with a comment", ID FROM TO "Date: Fri,  4 Jul 2025 9:00:00 +0200 (CEST)\r\n\r\n"},
    {"a clock that is years behind", ID FROM TO "Date: Thu, 1 Jan 1970 00:00:12 +0000\r\n\r\n"},
    {"tabs", ALL "Subject: a\tb\r\n\r\n"},
    {"several Received fields", "Received: a\r\nReceived: b\r\n" ALL "\r\n"},
};

static void well_formed_headers_pass_to_the_octet(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(unchanged); i++)
        check(unchanged[i].name, unchanged[i].text, unchanged[i].text, "", &facts);
}

struct row {
    const char *name;
    const char *text;
    const char *wanted;
    const char *repairs;
};

static void check_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check(rows[i].name, rows[i].text, rows[i].wanted, rows[i].repairs, &facts);
}

static const struct row missing[] = {
    {"everything", "\r\n",
     "Message-ID: " OUR_ID "\r\nDate: " OUR_DATE
     "\r\nFrom: x@office.example\r\nTo: undisclosed-recipients:;\r\n\r\n",
     "no_header,no_message_id,no_date,no_from,no_to"},
    {"Date", "message-id: <1@printer>\r\n" FROM TO "\r\n",
     "message-id: <1@printer>\r\n" FROM TO "Date: " OUR_DATE "\r\n\r\n", "no_date"},
    {"Message-ID", DATE FROM TO "\r\n", DATE FROM TO "Message-ID: " OUR_ID "\r\n\r\n",
     "no_message_id"},
    {"From", ID DATE TO "\r\n", ID DATE TO "From: x@office.example\r\n\r\n", "no_from"},
    {"To", ID DATE FROM "\r\n", ID DATE FROM "To: undisclosed-recipients:;\r\n\r\n", "no_to"},
    {"all of them empty", "Date:\r\nTo:  \r\nMessage-ID: \r\n \r\nFrom: \r\n\r\n",
     "Message-ID: " OUR_ID "\r\nDate: " OUR_DATE
     "\r\nFrom: x@office.example\r\nTo: undisclosed-recipients:;\r\n\r\n",
     "no_message_id,no_date,no_from,no_to"},
    {"the first of two is empty", "Date:\r\n" ALL "\r\n", ALL "\r\n", ""},
    {"Reply-To and Cc are empty", ALL "Reply-To:\r\nCc: \r\n\r\n", ALL "\r\n",
     "bad_reply_to,bad_cc"},
};

static void what_is_missing_is_added(void **state)
{
    (void)state;
    check_rows(missing, COUNT(missing));
}

static void a_missing_from_is_what_the_envelope_says(void **state)
{
    static const struct {
        const char *reverse_path;
        const char *device;
        const char *from;
    } rows[] = {
        {"x@office.example", "copier", "x@office.example"},
        {"root", "copier", "root@relay.example"},
        {"\"a@b\"", "copier", "\"a@b\"@relay.example"},
        {"", "copier", "copier@relay.example"},
        {"", "192.168.1.21", "192.168.1.21@relay.example"},
        {"", "fe80::1", "fe80--1@relay.example"},
        {"", "2nd floor, HQ.", "2nd-floor--HQ-@relay.example"},
        {"", "", "device@relay.example"},
        {"b\xc3\xbcro@office.example", "copier", "copier@relay.example"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct repair_facts with = facts;
        char wanted[256];

        with.reverse_path = rows[i].reverse_path;
        with.device = rows[i].device;
        snprintf(wanted, sizeof(wanted), ID DATE TO "From: %s\r\n\r\n", rows[i].from);
        check(rows[i].from, ID DATE TO "\r\n", wanted, "no_from", &with);
    }
}

static const struct row dates[] = {
    {"Oracle's", ID FROM TO "Date: 05/03/19 10:42 AM\r\nX: y\r\n\r\n",
     ID FROM TO "Date: " OUR_DATE "\r\nX-Original-Date: 05/03/19 10:42 AM\r\nX: y\r\n\r\n",
     "bad_date"},
    {"no zone", ID FROM TO "DATE: Fri, 4 Jul 2025 10:00:00\r\n\r\n",
     ID FROM TO "Date: " OUR_DATE "\r\nX-Original-DATE: Fri, 4 Jul 2025 10:00:00\r\n\r\n",
     "bad_date"},
    {"not ASCII", ID FROM TO "Date: Fr, 4. M\xe4r 2025\r\n\r\n",
     ID FROM TO "Date: " OUR_DATE "\r\nX-Original-Date: Fr, 4. M?r 2025\r\n\r\n",
     "raw_8bit_header,bad_date"},
};

static void an_unreadable_date_is_replaced_and_kept(void **state)
{
    (void)state;
    check_rows(dates, COUNT(dates));
}

static const struct row ids[] = {
    {"no brackets", DATE FROM TO "Message-ID: 12345\r\n\r\n",
     DATE FROM TO "Message-ID: " OUR_ID "\r\nX-Original-Message-ID: 12345\r\n\r\n",
     "bad_message_id"},
    {"nothing in them", DATE FROM TO "Message-ID: <>\r\n\r\n",
     DATE FROM TO "Message-ID: " OUR_ID "\r\nX-Original-Message-ID: <>\r\n\r\n", "bad_message_id"},
    {"a space in them", DATE FROM TO "Message-Id: <a b@c>\r\n\r\n",
     DATE FROM TO "Message-ID: " OUR_ID "\r\nX-Original-Message-Id: <a b@c>\r\n\r\n",
     "bad_message_id"},
};

static void a_message_id_that_is_none_is_replaced_and_kept(void **state)
{
    (void)state;
    check_rows(ids, COUNT(ids));
}

#define REST ID DATE TO
#define BAD(value, wanted)                                                                         \
    {                                                                                              \
        value, REST "From: " value "\r\n\r\n", REST "From: " wanted "\r\n\r\n", "bad_from"         \
    }

static const struct row senders[] = {
    BAD("Scanner @ HQ <s@office.example>", "\"Scanner @ HQ\" <s@office.example>"),
    BAD("s@office.example <s@office.example>", "\"s@office.example\" <s@office.example>"),
    BAD("Scan @, HQ, 2nd floor <s@office.example>", "\"Scan @, HQ, 2nd floor\" <s@office.example>"),
    BAD("Scanner s@office.example", "Scanner <s@office.example>"),
    BAD("2nd floor: Scanner s@office.example", "\"2nd floor: Scanner\" <s@office.example>"),
    BAD("\"Scanner\" s@office.example", "Scanner <s@office.example>"),
    BAD("Scanner (s@office.example)", "Scanner <s@office.example>"),
    BAD("Scanner [s@office.example]", "Scanner <s@office.example>"),
    BAD("Scanner <s@office.example", "Scanner <s@office.example>"),
    BAD("s@office.example>", "s@office.example"),
    BAD("Scanner <<s@office.example>>", "Scanner <s@office.example>"),
    BAD("Scanner < s@office.example. >", "Scanner <s@office.example>"),
    BAD("\"Scanner <s@office.example>", "Scanner <s@office.example>"),
    BAD("Scanner \\ \"HQ\" @ x <s@office.example>", "\"Scanner HQ @ x\" <s@office.example>"),
    BAD("Scanner @ HQ, 2nd floor <s@office.example>",
        "\"Scanner @ HQ, 2nd floor\" <s@office.example>"),
    BAD("s @ office.example", "s@office.example"),
    BAD("\"HQ \\\" <2nd\" floor: <s@office.example>", "\"HQ \\\" <2nd floor:\" <s@office.example>"),
    BAD("'s@office.example'", "s@office.example"),
    BAD("<'s@office.example'>", "s@office.example"),
    BAD("Scanner", "Scanner <x@office.example>"),
    BAD("Scanner, 2nd floor", "\"Scanner, 2nd floor\" <x@office.example>"),
    BAD("Scanner <>", "Scanner <x@office.example>"),
    BAD("Scanner <scanner>", "Scanner <scanner@relay.example>"),
    BAD("<>", "x@office.example"),
    BAD("scanner@", "scanner@relay.example"),
    BAD("a@b.example c@d.example <e@f.example>", "\"a@b.example c@d.example\" <e@f.example>"),
    BAD("a@b.example, Scan: @ <e@f.example>", "a@b.example, \"Scan: @\" <e@f.example>"),
    BAD("a@b.example; c@d.example", "a@b.example, c@d.example"),
    BAD("=?UTF-8?Q?B=C3=BCro?= @ HQ <s@office.example>",
        "=?UTF-8?Q?B=C3=BCro?= \"@ HQ\" <s@office.example>"),
};

static void addresses_are_written_as_they_were_meant(void **state)
{
    (void)state;
    check_rows(senders, COUNT(senders));
}

static const struct row others[] = {
    {"Sender", ALL "Sender: A @ B <a@b.example>\r\n\r\n",
     ALL "Sender: \"A @ B\" <a@b.example>\r\n\r\n", "bad_sender"},
    {"a Sender without any address", ALL "Sender: the copier\r\n\r\n",
     ALL "X-Original-Sender: the copier\r\n\r\n", "bad_sender"},
    {"a Reply-To without any address", ALL "Reply-To: none\r\n\r\n",
     ALL "X-Original-Reply-To: none\r\n\r\n", "bad_reply_to"},
    {"a To without any address", ID DATE FROM "To: all users\r\n\r\n",
     ID DATE FROM "To: all users:;\r\n\r\n", "bad_to"},
    {"a To of commas", ID DATE FROM "To: , ;\r\n\r\n",
     ID DATE FROM "To: undisclosed-recipients:;\r\n\r\n", "bad_to,no_to"},
    {"Cc", ALL "Cc: Boss boss@office.example, b@c.example\r\n\r\n",
     ALL "Cc: Boss <boss@office.example>, b@c.example\r\n\r\n", "bad_cc"},
    {"Bcc", "Bcc: secret@office.example\r\n" ALL "Resent-Bcc: x@y.example\r\n\r\n", ALL "\r\n",
     "bcc"},
    {"Bcc only", ID DATE FROM "bcc: secret@office.example\r\n\r\n",
     ID DATE FROM "To: undisclosed-recipients:;\r\n\r\n", "bcc,no_to"},
    {"two of what may stand once",
     ALL "Subject: x\r\nsubject: y\r\nFrom: z@b.example\r\nDate: " OUR_DATE "\r\n\r\n",
     ALL "Subject: x\r\nX-Original-subject: y\r\nX-Original-From: z@b.example\r\n"
         "X-Original-Date: " OUR_DATE "\r\n\r\n",
     "duplicate_fields"},
    {"three To fields", ALL "To: e@f.example,\r\n g@h.example\r\nX: y\r\nTO: i@j.example\r\n\r\n",
     ID DATE FROM
     "To: c@d.example,\r\n e@f.example,\r\n g@h.example,\r\n i@j.example\r\nX: y\r\n\r\n",
     "duplicate_fields"},
};

static void other_fields_are_repaired_too(void **state)
{
    (void)state;
    check_rows(others, COUNT(others));
}

static const struct row octets[] = {
    {"control characters",
     ALL "Subject: a\x01"
         "b\x7f\r\n \x1b"
         "c\td\r\n\r\n",
     ALL "Subject: ab\r\n c\td\r\n\r\n", "control_characters"},
    {"... in an address", ID DATE TO "From: \"A\x07\" <a@b.example>\r\n\r\n",
     ID DATE TO "From: \"A\" <a@b.example>\r\n\r\n", "control_characters"},
    {"UTF-8", ALL "Subject: B\xc3\xbcro 2. OG\r\n\r\n",
     ALL "Subject: =?UTF-8?Q?B=C3=BCro?= 2. OG\r\n\r\n", "raw_8bit_header"},
    {"a local charset", ALL "Subject: Scan vom B\xfcro\r\n\r\n",
     ALL "Subject: Scan vom =?windows-1252?Q?B=FCro?=\r\n\r\n", "raw_8bit_header"},
    {"short words between foreign ones",
     ALL "Subject: \xc3\xa4 b \xc3\xb6 rest of the text\r\n\r\n",
     ALL "Subject: =?UTF-8?Q?=C3=A4_b_=C3=B6?= rest of the text\r\n\r\n", "raw_8bit_header"},
    {"next to an encoded word",
     ALL "Subject: =?UTF-8?Q?=C3=A4?= \xc3\xb6 =?UTF-8?Q?=C3=BC?=\r\n\r\n",
     ALL "Subject: =?UTF-8?Q?=C3=A4?= =?UTF-8?Q?_=C3=B6_?= =?UTF-8?Q?=C3=BC?=\r\n\r\n",
     "raw_8bit_header"},
    {"in an unknown field", ALL "X-Ort: B\xc3\xbcro\r\n\r\n",
     ALL "X-Ort: =?UTF-8?Q?B=C3=BCro?=\r\n\r\n", "raw_8bit_header"},
    {"in a name", ID DATE TO "From: \"B\xc3\xbcro, 2. OG\" <s@office.example>\r\n\r\n",
     ID DATE TO "From: =?UTF-8?Q?B=C3=BCro=2C?= \"2. OG\" <s@office.example>\r\n\r\n",
     "raw_8bit_header"},
    {"in a comment", ID DATE TO "From: s@office.example (B\xfcro)\r\n\r\n",
     ID DATE TO "From: =?windows-1252?Q?B=FCro?= <s@office.example>\r\n\r\n", "raw_8bit_header"},
    {"in an address", ID DATE TO "From: b\xc3\xbcro@office.example\r\n\r\n",
     ID DATE TO "From: =?UTF-8?Q?b=C3=BCro=40office=2Eexample?= <x@office.example>\r\n\r\n",
     "raw_8bit_header"},
    {"in a file name",
     ALL "Content-Type: application/pdf; name=\"B\xc3\xbcro \\\"1\\\".pdf\"; x=y\r\n\r\n",
     ALL "Content-Type: application/pdf; name*=UTF-8''B%C3%BCro%20%221%22.pdf; x=y\r\n\r\n",
     "raw_8bit_header"},
    {"where nothing may be encoded", "Received: from b\xfcro\r\n" ALL "\r\n",
     "Received: from b?ro\r\n" ALL "\r\n", "raw_8bit_header"},
};

static void octets_that_may_not_stay_are_encoded_or_go(void **state)
{
    (void)state;
    check_rows(octets, COUNT(octets));
}

static void with_smtputf8_utf8_stays(void **state)
{
    static const char text[] = ALL "Subject: B\xc3\xbcro\r\n"
                                   "Reply-To: B\xc3\xbcro <b\xc3\xbcro@b\xc3\xbcro.example>\r\n"
                                   "Sender: b\xc3\xbcro@office.example\r\n\r\n";
    struct repair_facts with = facts;

    (void)state;
    with.smtputf8 = true;
    check("UTF-8", text, text, "", &with);
    check("what gives way", ALL "Sender: b\xc3\xbcro\r\n\r\n",
          ALL "X-Original-Sender: b\xc3\xbcro\r\n\r\n", "bad_sender", &with);
    check("not UTF-8", ALL "Subject: B\xfcro\r\n\r\n",
          ALL "Subject: =?windows-1252?Q?B=FCro?=\r\n\r\n", "raw_8bit_header", &with);
}

static void the_charset_is_a_setting(void **state)
{
    struct repair_facts with = facts;

    (void)state;
    with.charset = "iso-8859-2";
    check("set", ALL "Subject: B\xfcro\r\n\r\n", ALL "Subject: =?iso-8859-2?Q?B=FCro?=\r\n\r\n",
          "raw_8bit_header", &with);
    with.charset = "no charset?";
    check("no name", ALL "Subject: B\xfcro\r\n\r\n",
          ALL "Subject: =?windows-1252?Q?B=FCro?=\r\n\r\n", "raw_8bit_header", &with);
}

static size_t longest_line(const char *text)
{
    size_t longest = 0;

    while (*text != '\0') {
        size_t len = strcspn(text, "\r\n");

        longest = len > longest ? len : longest;
        text += len;
        text += strspn(text, "\r\n");
    }
    return longest;
}

/* Without folds. */
static void unfold(char *text)
{
    char *to = text;

    for (; *text != '\0'; text++) {
        if (*text != '\r' && *text != '\n')
            *to++ = *text;
    }
    *to = '\0';
}

static void over_long_lines_are_folded_and_say_the_same(void **state)
{
    static const char *const names[] = {"Subject", "To", "References", "X-Other", "Content-Type"};
    char *text = malloc(40000);
    char *wanted = malloc(40000);

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        struct header h;
        struct bytes out;
        char *got;
        size_t n = (size_t)sprintf(text, "%s:", names[i]);

        for (size_t k = 0; k < 300; k++)
            n += (size_t)sprintf(text + n, "%s %s%zu@b.example%s", k > 0 && i == 1 ? "," : "",
                                 i == 2 ? "<" : "", k, i == 2 ? ">" : "");
        sprintf(wanted, "%s", text);
        sprintf(text + n, "\r\n\r\n");
        got = strdup(repaired(text, &facts, &h, &out));
        assert_non_null(strstr(h.repairs, "long_header_line"));
        assert_in_range(longest_line(got), 40, 90);
        unfold(got);
        if (strncmp(got, wanted, strlen(wanted)) != 0)
            fail_msg("%s: %s", names[i], got);
        free(got);
        header_done(&h);
        bytes_done(&out);
    }
    free(text);
    free(wanted);
}

static void a_line_of_998_octets_stays_and_one_of_999_is_folded(void **state)
{
    char *text = malloc(2000);

    (void)state;
    for (size_t len = 998; len <= 999; len++) {
        struct header h;
        struct bytes out;
        size_t n = (size_t)sprintf(text, "X: ");

        for (; n < len; n++)
            text[n] = n % 10 == 9 ? ' ' : 'x';
        text[len - 1] = 'x';
        strcpy(text + len, "\r\n" ALL "\r\n");
        (void)repaired(text, &facts, &h, &out);
        assert_string_equal(h.repairs, len == 998 ? "" : "long_header_line");
        assert_int_equal(out.len == strlen(text), len == 998);
        header_done(&h);
        bytes_done(&out);
    }
    free(text);
}

static void a_long_word_in_a_subject_is_encoded_and_so_stays_one(void **state)
{
    char *text = malloc(4000);
    struct header h;
    struct bytes out;
    const char *got;
    size_t letters = 0;

    (void)state;
    strcpy(text, ALL "Subject: ");
    memset(text + strlen(text), 'x', 1200);
    strcpy(text + strlen(ALL "Subject: ") + 1200, "\r\n\r\n");
    got = strstr(repaired(text, &facts, &h, &out), "=?UTF-8?Q?xx");
    assert_non_null(got);
    for (; *got != '\0'; got++)
        letters += *got == 'x';
    assert_int_equal(letters, 1200);
    header_done(&h);
    bytes_done(&out);
    free(text);
}

static void a_word_that_no_line_takes_is_folded_somehow(void **state)
{
    static const char *const begins[] = {
        "Subject: ", "X: ", "References: ", "From: ", "To:", "Date: ", "DKIM-Signature: a=b; b="};
    char *text = malloc(20000);

    (void)state;
    for (size_t i = 0; i < COUNT(begins); i++) {
        for (size_t len = 900; len < 5000; len += 997) {
            struct header h;
            struct bytes out;
            size_t n = strlen(begins[i]);

            memcpy(text, begins[i], n);
            memset(text + n, 'x', len);
            strcpy(text + n + len, "\r\n\r\n");
            assert_in_range(longest_line(repaired(text, &facts, &h, &out)), 1, 998);
            header_done(&h);
            bytes_done(&out);
        }
    }
    free(text);
}

/* Whatever comes, the outcome has short lines of plain ASCII, ends once, and needs no repair. */
static void any_header_comes_out_well_formed(void **state)
{
    static const char *const pieces[] = {"From: ",
                                         "To: ",
                                         "Sender:",
                                         "Reply-To: ",
                                         "Subject: ",
                                         "Date: ",
                                         "Message-ID: ",
                                         "Cc: ",
                                         "X: ",
                                         "\r\n",
                                         "\r\n ",
                                         "a@b.example",
                                         ", ",
                                         "<",
                                         ">",
                                         "\"",
                                         "(",
                                         ")",
                                         "B\xc3\xbcro",
                                         "\xfc",
                                         " ",
                                         "@",
                                         "Content-Type: text/plain; name=",
                                         ";",
                                         "\\",
                                         ":",
                                         "\x01",
                                         "=?UTF-8?Q?x?= ",
                                         "x",
                                         "[",
                                         "]",
                                         "12:00:00",
                                         "4 Jul 2025",
                                         "Bcc: b"};
    uint32_t seed = 1;
    size_t long_word = 0;

    (void)state;
    for (size_t round = 0; round < 5000; round++) {
        struct header h;
        struct bytes text;
        struct bytes out;
        struct bytes again;
        const char *got;

        bytes_init(&text, 1 << 16);
        assert_true(bytes_text(&text, "X: y\r\n"));
        for (size_t i = 0; i < 60; i++) {
            seed = seed * 1664525 + 1013904223;
            assert_true(bytes_text(&text, pieces[(seed >> 16) % COUNT(pieces)]));
            if ((seed >> 8) % 500 == 0) {
                for (long_word = 0; long_word < 1500; long_word++)
                    assert_true(bytes_text(&text, long_word % 40 == 39 ? "\xc3\xbc" : "w"));
            }
        }
        assert_true(bytes_text(&text, "\r\n\r\n"));
        got = repaired(bytes_string(&text), &facts, &h, &out);
        header_done(&h);
        for (const char *c = got; *c != '\0'; c++) {
            if ((*c < ' ' && *c != '\t' && *c != '\r' && *c != '\n') || *c == 0x7f)
                fail_msg("octet %d in \"%s\" of \"%s\"", *c, got, bytes_string(&text));
        }
        if (longest_line(got) > 998)
            fail_msg("too long: \"%s\"", got);
        if (strcmp(repaired(got, &facts, &h, &again), got) != 0)
            fail_msg("\"%s\" becomes \"%s\" (%s)", got, bytes_string(&again), h.repairs);
        header_done(&h);
        bytes_done(&text);
        bytes_done(&out);
        bytes_done(&again);
    }
}

static void a_header_too_large_is_left_alone(void **state)
{
    struct header h;

    (void)state;
    header_init(&h);
    while (header_feed(&h, (const uint8_t *)"a:\r\n", 4) == HEADER_MORE)
        ;
    assert_true(repair_header(&h, &facts));
    assert_string_equal(h.repairs, "header_too_large");
    header_done(&h);
}

/* What costs most to read and to write. */
static void hostile_headers_take_little_time_and_room(void **state)
{
    static const char *const pieces[] = {"To: a,\r\n", "a,",      "<",  "\"",    "(",
                                         "\xfc ",      "\xfc a ", "a@", "<a@b>,"};
    char *text = malloc(HEADER_MAX + 64);

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < COUNT(pieces); i++) {
        struct header h;
        struct bytes out;
        size_t n = (size_t)sprintf(text, "From:");

        for (size_t k = 0; n < HEADER_MAX - 512; k++) {
            n += (size_t)sprintf(text + n, "%s", pieces[i]);
            if (k % 256 == 255 && i > 0)
                n += (size_t)sprintf(text + n, "\r\n ");
        }
        strcpy(text + n, "\r\n\r\n");
        assert_in_range(strlen(repaired(text, &facts, &h, &out)), 100, HEADER_REPLACED_MAX);
        header_done(&h);
        bytes_done(&out);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_headers_pass_to_the_octet),
        cmocka_unit_test(what_is_missing_is_added),
        cmocka_unit_test(a_missing_from_is_what_the_envelope_says),
        cmocka_unit_test(an_unreadable_date_is_replaced_and_kept),
        cmocka_unit_test(a_message_id_that_is_none_is_replaced_and_kept),
        cmocka_unit_test(addresses_are_written_as_they_were_meant),
        cmocka_unit_test(other_fields_are_repaired_too),
        cmocka_unit_test(octets_that_may_not_stay_are_encoded_or_go),
        cmocka_unit_test(with_smtputf8_utf8_stays),
        cmocka_unit_test(the_charset_is_a_setting),
        cmocka_unit_test(over_long_lines_are_folded_and_say_the_same),
        cmocka_unit_test(a_line_of_998_octets_stays_and_one_of_999_is_folded),
        cmocka_unit_test(a_long_word_in_a_subject_is_encoded_and_so_stays_one),
        cmocka_unit_test(a_word_that_no_line_takes_is_folded_somehow),
        cmocka_unit_test(any_header_comes_out_well_formed),
        cmocka_unit_test(a_header_too_large_is_left_alone),
        cmocka_unit_test(hostile_headers_take_little_time_and_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
