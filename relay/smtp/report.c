#include "relay/smtp/report.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "relay/smtp/encoded.h"
#include "relay/smtp/reply.h"
#include "relay/smtp/trace.h"
#include "relay/smtp/words.h"

#define LINE_WIDTH   76  /* of words for people */
#define SUBJECT_MAX  120 /* octets of a subject that are shown */
#define BOUNDARY_MAX 80

struct kind {
    const char *action;  /* RFC 3464 2.3.3 */
    const char *status;  /* where the upstream gave none */
    const char *subject; /* of the report */
    const char *opening;
    const char *closing;        /* for the operator */
    const char *sender_closing; /* or for the sender */
};

static const struct kind kinds[] = {
    [REPORT_FAILED] =
        {"failed", "5.0.0", "Mail could not be delivered",
         "The following mail could not be delivered. It is kept as a dead letter and "
         "will not be tried again by itself.",
         "\"outtray dead\" lists dead letters; \"outtray requeue ID\" tries one "
         "again, \"outtray export ID\" saves it as a file.",
         "Whoever looks after the relay can have it tried again, and needs its id for "
         "that."},
    [REPORT_DELAYED] = {"delayed", "4.4.7", "Mail is delayed",
                        "The following mail has not been delivered yet. It is kept, and tried "
                        "until it is delivered or has failed. Nothing need be sent again.",
                        "\"outtray show ID\" tells more about a message.",
                        "Whoever looks after the relay can tell more, and needs its id for that."},
    /* X.1.9 (RFC 3886): handed to a system that says nothing more. */
    [REPORT_RELAYED] = {"relayed", "2.1.9", "Mail was handed over",
                        "The following mail was handed over to the mail service. You asked for a "
                        "confirmation of delivery, and the mail service does not give any: this is "
                        "the last that is known of it here.",
                        "If it cannot be delivered after all, the mail service tells.",
                        "If it cannot be delivered after all, the mail service tells."},
};

static const unsigned status_classes[] = {
    [REPORT_FAILED] = 5, [REPORT_DELAYED] = 4, [REPORT_RELAYED] = 2};

/* ---- text ------------------------------------------------------------------------------------ */

/* One line's worth of text that somebody else wrote. */
static bool put_clean(struct bytes *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (!bytes_byte(out, c < ' ' || c == 0x7f ? '?' : c))
            return false;
    }
    return true;
}

static bool put(struct bytes *out, const char *text)
{
    return put_clean(out, text, strlen(text));
}

/* Words for people, broken at spaces, each line behind the margin. */
static bool put_wrapped(struct bytes *out, const char *margin, const char *text)
{
    size_t width = LINE_WIDTH - strlen(margin);
    while (*text != '\0') {
        size_t len = strlen(text);
        if (len > width) {
            for (len = width; len > 0 && text[len] != ' '; len--)
                ;
            if (len == 0)
                len = strcspn(text, " ");
        }
        if (!bytes_text(out, margin) || !put_clean(out, text, len) || !bytes_text(out, "\r\n"))
            return false;
        text += len + strspn(text + len, " ");
    }
    return true;
}

static bool put_labelled(struct bytes *out, const char *label, const char *text)
{
    return *text == '\0' || (bytes_text(out, label) && put(out, text) && bytes_text(out, "\r\n"));
}

static bool put_ascii(struct bytes *out, const char *text)
{
    for (; *text != '\0'; text++) {
        bool plain = *text >= ' ' && *text < 0x7f;
        if (!bytes_byte(out, plain ? (uint8_t)*text : '?'))
            return false;
    }
    return true;
}

/* A field for programs: ASCII, one line. */
static bool put_field(struct bytes *out, const char *name, const char *text)
{
    return *text == '\0' ||
           (bytes_text(out, name) && put_ascii(out, text) && bytes_text(out, "\r\n"));
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789ABCDEF";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

/* A field whose text came in xtext (RFC 3461 4); control characters give way even then. */
static bool put_xtext_field(struct bytes *out, const char *name, const char *xtext)
{
    bool ok = *xtext == '\0' || bytes_text(out, name);
    const char *p = xtext;
    for (; ok && *p != '\0'; p++) {
        char c[2] = {*p, '\0'};
        int high = *p == '+' ? hex_digit(p[1]) : -1;
        int low = high >= 0 ? hex_digit(p[2]) : -1;
        if (low >= 0) {
            c[0] = (char)(high * 16 + low);
            p += 2;
        }
        ok = c[0] == '\0' ? bytes_byte(out, '?') : put_ascii(out, c);
    }
    return ok && (*xtext == '\0' || bytes_text(out, "\r\n"));
}

/* Reads one character of UTF-8 and moves behind it; octets that are none stand for themselves. */
static unsigned next_character(const char **at)
{
    const unsigned char *p = (const unsigned char *)*at;
    unsigned value = *p++;
    unsigned more = value >= 0xf0 ? 3 : value >= 0xe0 ? 2 : value >= 0xc2 ? 1 : 0;
    bool starts = more > 0;
    unsigned whole = value & (0x3fu >> more);
    for (; more > 0 && (*p & 0xc0) == 0x80; more--)
        whole = whole << 6 | (*p++ & 0x3f);
    *at = (const char *)p;
    return starts && more == 0 ? whole : value;
}

/* RFC 6533 3: the form of an address beyond ASCII that fits into a report that is ASCII. */
static bool put_utf8_address(struct bytes *out, const char *path)
{
    bool ok = bytes_text(out, "utf-8; ");
    while (ok && *path != '\0') {
        unsigned c = next_character(&path);
        bool plain = c > ' ' && c < 0x7f && strchr("+=\\", (int)c) == NULL;
        ok = plain ? bytes_byte(out, (uint8_t)c) : bytes_printf(out, "\\x{%02X}", c);
    }
    return ok;
}

static bool put_final_recipient(struct bytes *out, const char *path)
{
    if (!bytes_text(out, "Final-Recipient: "))
        return false;
    if (!words_is_ascii(path, strlen(path)))
        return put_utf8_address(out, path);
    return bytes_text(out, "rfc822; ") && put(out, path);
}

bool report_notify_has(const char *notify, const char *word)
{
    size_t len = strlen(word);
    while (*notify != '\0') {
        size_t n = strcspn(notify, ",");
        if (n == len && strncasecmp(notify, word, len) == 0)
            return true;
        notify += n + (notify[n] == ',');
    }
    return false;
}

/* What this relay found out by itself has a code as well (RFC 3463 X.6.3, RFC 6531 X.6.7). */
static const char *status_of_own(const char *reply)
{
    static const struct {
        enum local_failure failure;
        const char *detail;
    } rows[] = {{LOCAL_CONTENT, "6.3"}, {LOCAL_ADDRESS, "6.7"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *name = local_failure_name(rows[i].failure);
        if (reply[0] == '(' && strncmp(reply + 1, name, strlen(name)) == 0)
            return rows[i].detail;
    }
    return NULL;
}

void report_status(const struct report_recipient *r, enum report_kind kind, char out[16])
{
    struct reply reply;
    unsigned class_ = status_classes[kind];
    const char *own = status_of_own(r->reply);
    snprintf(out, 16, "%s", kinds[kind].status);
    if (kind == REPORT_RELAYED)
        return;
    if (own != NULL)
        snprintf(out, 16, "%u.%s", class_, own);
    /* The class must agree with the action, and services let the two disagree. */
    if (reply_from_text(&reply, r->reply) && reply.has_enhanced)
        snprintf(out, 16, "%u.%u.%u", class_, reply.enhanced[1] % 1000u, reply.enhanced[2] % 1000u);
}

/* ---- for people ------------------------------------------------------------------------------ */

static bool write_recipient_words(const struct report_recipient *r, struct bytes *out)
{
    return bytes_text(out, "  To: <") && put(out, r->forward_path) && bytes_text(out, ">\r\n") &&
           put_wrapped(out, "      ", r->what) && put_wrapped(out, "      ", r->how) &&
           put_labelled(out, "      Who can fix it: ", r->who) &&
           put_labelled(out, "      The provider's words: ", r->reply);
}

static bool write_message_words(const struct report *r, const struct report_message *m,
                                struct bytes *out)
{
    char date[TRACE_DATE_MAX];
    char subject[SUBJECT_MAX + 1];
    trace_date(m->arrived_ms, r->utc_offset_minutes, date);
    encoded_decode(m->subject, subject, sizeof subject);
    if (!put_labelled(out, "Message: ", m->id) || !put_labelled(out, "  Subject: ", subject) ||
        !put_labelled(out, "  Device: ", m->device) || !put_labelled(out, "  Arrived: ", date))
        return false;
    for (size_t i = 0; i < m->recipient_count; i++) {
        if (!write_recipient_words(&m->recipients[i], out))
            return false;
    }
    if (m->more_recipients > 0 &&
        !bytes_printf(out, "  ... and %zu more recipients.\r\n", m->more_recipients))
        return false;
    return bytes_text(out, "\r\n");
}

static bool write_words(const struct report *r, struct bytes *out)
{
    const struct kind *k = &kinds[r->kind];
    if (!bytes_text(out, "Content-Type: text/plain; charset=utf-8\r\n"
                         "Content-Transfer-Encoding: 8bit\r\n\r\n") ||
        !put_wrapped(out, "", k->opening) || !bytes_text(out, "\r\n"))
        return false;
    for (size_t i = 0; i < r->message_count; i++) {
        if (!write_message_words(r, &r->messages[i], out))
            return false;
    }
    if (r->more > 0 && !bytes_printf(out, "... and %zu more.\r\n\r\n", r->more))
        return false;
    return put_wrapped(out, "", r->to_sender ? k->sender_closing : k->closing) &&
           bytes_printf(out, "\r\nOuttray on ") && put(out, r->hostname) && bytes_text(out, "\r\n");
}

/* ---- for programs ---------------------------------------------------------------------------- */

static bool write_recipient_status(const struct report *r, const struct report_recipient *to,
                                   struct bytes *out)
{
    char status[16];
    report_status(to, r->kind, status);
    if (!bytes_text(out, "\r\n") || !put_xtext_field(out, "Original-Recipient: ", to->orcpt) ||
        !put_final_recipient(out, to->forward_path) ||
        !bytes_printf(out, "\r\nAction: %s\r\nStatus: %s\r\n", kinds[r->kind].action, status))
        return false;
    /* Only an SMTP reply may stand behind "smtp;". */
    struct reply reply;
    if (!reply_from_text(&reply, to->reply))
        return true;
    return put_field(out, "Diagnostic-Code: smtp; ", to->reply);
}

/* RFC 3464 2.1 */
static bool write_status(const struct report *r, const struct report_message *m, struct bytes *out)
{
    char date[TRACE_DATE_MAX];
    trace_date(m->arrived_ms, r->utc_offset_minutes, date);
    if (!bytes_text(out, "Content-Type: message/delivery-status\r\n\r\n") ||
        !put_xtext_field(out, "Original-Envelope-Id: ", m->envid) ||
        !bytes_text(out, "Reporting-MTA: dns; ") || !put(out, r->hostname) ||
        !bytes_printf(out, "\r\nArrival-Date: %s\r\n", date))
        return false;
    for (size_t i = 0; i < m->recipient_count; i++) {
        if (!write_recipient_status(r, &m->recipients[i], out))
            return false;
    }
    return true;
}

/* Whole fields of the header, up to the limit. */
static size_t header_span(const struct report_message *m)
{
    size_t len = m->header_len;
    if (len <= REPORT_HEADER_MAX)
        return len;
    for (len = REPORT_HEADER_MAX; len > 2; len--) {
        bool ends = m->header[len - 2] == '\r' && m->header[len - 1] == '\n';
        if (ends && m->header[len] != ' ' && m->header[len] != '\t')
            return len;
    }
    return 0;
}

static bool write_header(const struct report_message *m, struct bytes *out)
{
    size_t len = m->whole ? m->header_len : header_span(m);
    bool ascii = words_is_ascii((const char *)m->header, len);
    return bytes_printf(out,
                        "Content-Type: %s\r\nContent-Transfer-Encoding: "
                        "%s\r\n\r\n",
                        m->whole ? "message/rfc822" : "text/rfc822-headers",
                        ascii ? "7bit" : "8bit") &&
           bytes_append(out, m->header, len);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool delimit(struct bytes *out, const char *boundary, const char *end)
{
    return bytes_printf(out, "\r\n--%s%s\r\n", boundary, end);
}

static bool write_message_parts(const struct report *r, const struct report_message *m,
                                const char *boundary, struct bytes *out)
{
    if (!delimit(out, boundary, "") || !write_status(r, m, out))
        return false;
    return m->header == NULL || (delimit(out, boundary, "") && write_header(m, out));
}

static bool write_report_header(const struct report *r, const char *boundary, struct bytes *out)
{
    char date[TRACE_DATE_MAX];
    bool one = r->message_count == 1 && r->more == 0;
    trace_date(r->wall_ms, r->utc_offset_minutes, date);
    if (!bytes_printf(out, "Date: %s\r\nFrom: Outtray <%s>\r\nTo: <%s>\r\nSubject: %s", date,
                      r->from, r->to, kinds[r->kind].subject) ||
        (!one && !bytes_printf(out, " (%zu messages)", r->message_count + r->more)))
        return false;
    return bytes_printf(out,
                        "\r\nMessage-ID: %s\r\nAuto-Submitted: auto-replied\r\n"
                        "MIME-Version: 1.0\r\nContent-Type: multipart/%s;%s\r\n"
                        " boundary=\"%s\"\r\n\r\n",
                        r->message_id, one ? "report" : "mixed",
                        one ? " report-type=delivery-status;" : "", boundary);
}

bool report_write(const struct report *r, struct bytes *out)
{
    char boundary[BOUNDARY_MAX];
    /* "=_" can stand in no quoted-printable or base64 text, and what is quoted here are headers. */
    snprintf(boundary, sizeof boundary, "=_outtray_%llx_%zu", (unsigned long long)r->wall_ms,
             r->message_count);
    if (!write_report_header(r, boundary, out) ||
        !bytes_text(out, "This is a report in MIME format.\r\n") || !delimit(out, boundary, "") ||
        !write_words(r, out))
        return false;
    for (size_t i = 0; i < r->message_count; i++) {
        if (!write_message_parts(r, &r->messages[i], boundary, out))
            return false;
    }
    return delimit(out, boundary, "--");
}
