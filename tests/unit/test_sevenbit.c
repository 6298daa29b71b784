#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "relay/smtp/base64.h"
#include "relay/smtp/sevenbit.h"

#define OUT_MAX (4u << 20)
#define HEADER  "MIME-Version: 1.0\r\nFrom: <a@b.example>\r\n"
#define MIXED   "Content-Type: multipart/mixed; boundary=\"b\"\r\n"
#define QP      "Content-Transfer-Encoding: quoted-printable\r\n"
#define BASE64  "Content-Transfer-Encoding: base64\r\n"
#define EIGHT   "Content-Transfer-Encoding: 8bit\r\n"
#define SEVEN   "Content-Transfer-Encoding: 7bit\r\n"

/* Fed in pieces of `cut` octets, 0 for one piece. False with the trouble in *out. */
static bool convert(const char *in, size_t len, size_t cut, struct bytes *out, const char **trouble)
{
    struct sevenbit *s = malloc(sizeof(*s));
    bool ok = true;

    assert_non_null(s);
    sevenbit_begin(s);
    bytes_init(out, OUT_MAX);
    for (size_t at = 0; ok && at < len;) {
        size_t n = cut == 0 || len - at < cut ? len - at : cut;
        size_t before = out->len;

        ok = sevenbit_filter(s, (const uint8_t *)in + at, n, out);
        assert_true(out->len - before <= SEVENBIT_ROOM(n));
        at += n;
    }
    ok = ok && sevenbit_finish(s, out);
    *trouble = s->trouble;
    free(s);
    return ok;
}

static const struct {
    const char *name;
    const char *in;
    const char *out;
} rows[] = {
    {"text in 8bit",
     HEADER "Content-Type: text/plain; charset=utf-8\r\n" EIGHT "\r\nGr\xc3\xbc\xc3\x9f"
            "e=\r\n",
     HEADER "Content-Type: text/plain; charset=utf-8\r\n" QP "\r\nGr=C3=BC=C3=9Fe=3D\r\n"},
    {"text that says nothing", "Subject: x\r\n\r\n\xe4\r\n",
     "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n" QP
     "\r\n=E4\r\n"},
    {"a folded field gives way whole",
     HEADER "Content-Transfer-Encoding:\r\n 8bit\r\nContent-Type: "
            "text/plain\r\n\r\n\xe4\r\n",
     HEADER "Content-Type: text/plain\r\n" QP "\r\n=E4\r\n"},
    {"spaces at the end of a line", HEADER "Content-Type: text/plain\r\n\r\na \r\n\t\r\n \xe4\r\n",
     HEADER "Content-Type: text/plain\r\n" QP "\r\na =\r\n\r\n\t=\r\n\r\n =E4\r\n"},
    {"binary data", HEADER "Content-Type: application/pdf\r\n" EIGHT "\r\n\xff\xfe\r\n",
     HEADER "Content-Type: application/pdf\r\n" BASE64 "\r\n//4NCg==\r\n"},
    {"parts of each kind",
     HEADER MIXED EIGHT "\r\npre\xe4mble\r\n--b\r\n\r\n\xe4\r\n--b\r\nContent-Type: "
                        "image/jpeg\r\n\r\n\xff\xd8\r\n--b\r\nContent-Type: image/png\r\n" BASE64
                        "\r\niVBOR\xffw==\r\n--b\r\nContent-Type: text/html\r\n" QP
                        "\r\n=C3\xa4\r\n--b--\r\nepilogue\r\n",
     HEADER MIXED SEVEN
     "\r\npre?mble\r\n--b\r\n" QP "\r\n=E4\r\n--b\r\nContent-Type: "
     "image/jpeg\r\n" BASE64 "\r\n/9g=\r\n--b\r\nContent-Type: image/png\r\n" BASE64
     "\r\niVBORw==\r\n--b\r\nContent-Type: text/html\r\n" QP "\r\n=C3=A4\r\n--b--\r\nepilogue\r\n"},
    {"multiparts within multiparts",
     HEADER MIXED "\r\n--b\r\nContent-Type: multipart/alternative; boundary=c\r\n" EIGHT
                  "\r\n--c\r\n" EIGHT "\r\n\xe4\r\n--c--\r\n--b\r\n\r\n\xf6\r\n--b--\r\n",
     HEADER MIXED "\r\n--b\r\nContent-Type: multipart/alternative; boundary=c\r\n" SEVEN
                  "\r\n--c\r\n" QP "\r\n=E4\r\n--c--\r\n--b\r\n" QP "\r\n=F6\r\n--b--\r\n"},
    {"a message within",
     HEADER MIXED "\r\n--b\r\nContent-Type: message/rfc822\r\n" EIGHT
                  "\r\nSubject: in\r\nContent-Type: text/plain\r\n\r\n\xe4\r\n--b--\r\n",
     HEADER MIXED "\r\n--b\r\nContent-Type: message/rfc822\r\n" SEVEN
                  "\r\nSubject: in\r\nContent-Type: text/plain\r\n" QP "\r\n=E4\r\n--b--\r\n"},
    {"a digest",
     HEADER "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: "
            "in\r\n\r\n\xe4\r\n--b--\r\n",
     HEADER "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: in\r\n" QP
            "\r\n=E4\r\n--b--\r\n"},
    {"names of files",
     HEADER MIXED "\r\n--b\r\nContent-Type: application/pdf; name=\"\xc3\xbc x.pdf\"\r\n" BASE64
                  "\r\nAAAA\r\n--b--\r\n",
     HEADER MIXED
     "\r\n--b\r\nContent-Type: application/pdf; name=\"=?utf-8?B?w7w=?= x.pdf\"\r\n" BASE64
     "\r\nAAAA\r\n--b--\r\n"},
    {"a part without empty line", HEADER MIXED "\r\n--b\r\n\xe4\r\n--b--\r\n",
     HEADER MIXED "\r\n--b\r\n" QP "\r\n=E4\r\n--b--\r\n"},
    {"a signed part in seven bits passes",
     HEADER MIXED
     "\r\n--b\r\nContent-Type: multipart/signed; boundary=s\r\n" EIGHT
     "\r\n--s\r\nContent-Type: text/plain\r\n\r\n= x \r\n--s--\r\n--b\r\n\r\n\xe4\r\n--b--\r\n",
     HEADER MIXED "\r\n--b\r\nContent-Type: multipart/signed; boundary=s\r\n" EIGHT
                  "\r\n--s\r\nContent-Type: text/plain\r\n\r\n= x \r\n--s--\r\n--b\r\n" QP
                  "\r\n=E4\r\n--b--\r\n"},
    {"a header and nothing else", "Subject: x\r\n",
     "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n" QP},
};

static void each_part_is_encoded_as_its_kind_demands(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (size_t cut = 0; cut < 4; cut++) {
            struct bytes out;
            const char *trouble = NULL;

            print_message("  %s, %zu\n", rows[i].name, cut);
            assert_true(convert(rows[i].in, strlen(rows[i].in), cut, &out, &trouble));
            assert_string_equal(bytes_string(&out), rows[i].out);
            bytes_done(&out);
        }
    }
}

static const struct {
    const char *name;
    const char *in;
} impossible[] = {
    {"signed",
     HEADER "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\n\xe4\r\n--s--\r\n"},
    {"a multipart in a signed one", HEADER
     "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\nContent-Type: multipart/mixed; "
     "boundary=t\r\n\r\n--t\r\n\r\n\xe4\r\n--t--\r\n--s--\r\n"},
    {"partial", HEADER "Content-Type: message/partial; id=x; number=1\r\n\r\n\xe4\r\n"},
    {"another kind of message", HEADER "Content-Type: message/delivery-status\r\n\r\nX: \xe4\r\n"},
    {"a message that says it is encoded",
     HEADER "Content-Type: message/rfc822\r\n" BASE64 "\r\n\xe4\r\n"},
};

static void what_must_not_be_changed_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(impossible) / sizeof(impossible[0]); i++) {
        for (size_t cut = 0; cut < 2; cut++) {
            struct bytes out;
            const char *trouble = NULL;

            print_message("  %s, %zu\n", impossible[i].name, cut);
            assert_false(convert(impossible[i].in, strlen(impossible[i].in), cut, &out, &trouble));
            assert_non_null(trouble);
            bytes_done(&out);
        }
    }
}

/* A body of one long line of all octets, as base64 and as quoted-printable. */
static void long_lines_come_out_short_and_whole(void **state)
{
    static const char *const headers[] = {"Content-Type: image/jpeg\r\n\r\n",
                                          "Content-Type: text/plain\r\n\r\n"};
    static char in[20000];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        size_t len = strlen(headers[i]);
        struct bytes whole;
        struct bytes cut;
        const char *trouble = NULL;

        memcpy(in, headers[i], len);
        for (size_t n = 0; len < sizeof(in); n++) {
            char c = (char)(n * 7 % 256);
            if (c != '\r' && c != '\n')
                in[len++] = c;
        }
        assert_true(convert(in, len, 0, &whole, &trouble));
        assert_true(convert(in, len, 777, &cut, &trouble));
        assert_int_equal(whole.len, cut.len);
        assert_memory_equal(whole.data, cut.data, whole.len);
        for (size_t at = 0, begin = 0; at < whole.len; at++) {
            assert_true(whole.data[at] < 0x80);
            assert_true(at - begin < 78);
            if (whole.data[at] == '\n')
                begin = at + 1;
        }
        bytes_done(&whole);
        bytes_done(&cut);
    }
}

static void the_data_of_base64_is_the_part_s_to_the_octet(void **state)
{
    static const char in[] = HEADER "Content-Type: image/jpeg\r\n\r\n\x01\xff\r\n\r\nabc\r\n\r\n";
    static const char data[] = "\x01\xff\r\n\r\nabc\r\n\r\n";
    struct bytes out;
    const char *trouble = NULL;
    uint8_t got[BASE64_ROOM(64)];
    size_t len = 0;

    (void)state;
    assert_true(convert(in, sizeof(in) - 1, 0, &out, &trouble));
    const char *body = strstr(bytes_string(&out), "\r\n\r\n") + 4;
    assert_true(base64_decode(body, strcspn(body, "\r"), got, &len));
    assert_int_equal(len, sizeof(data) - 1);
    assert_memory_equal(got, data, len);
    bytes_done(&out);
}

static void without_room_it_fails(void **state)
{
    struct sevenbit *s = malloc(sizeof(*s));
    struct bytes out;

    (void)state;
    assert_non_null(s);
    bytes_init(&out, 8);
    sevenbit_begin(s);
    assert_false(sevenbit_filter(s, (const uint8_t *)"Subject: longer than that\r\n", 27, &out));
    assert_null(s->trouble);
    bytes_done(&out);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_part_is_encoded_as_its_kind_demands),
        cmocka_unit_test(what_must_not_be_changed_is_refused),
        cmocka_unit_test(long_lines_come_out_short_and_whole),
        cmocka_unit_test(the_data_of_base64_is_the_part_s_to_the_octet),
        cmocka_unit_test(without_room_it_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
