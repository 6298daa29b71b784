#include "relay/intake/quirks.h"

#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define LINE_ENDS "Nothing need be done. A firmware update often cures it."
#define OLD_TLS                                                                                    \
    "Update the firmware if there is one; the relay serves it as long as [devices] legacy_tls "    \
    "lists it. Keep it in a network of its own."

/* In the order of enum quirk, then those that are repairs of a message. */
static const struct {
    const char *name;
    const char *words;
    const char *remedy;
} rows[] = {
    [QUIRK_BARE_LF_COMMANDS] = {"bare_lf_commands", "its commands end in LF instead of CR LF",
                                LINE_ENDS},
    [QUIRK_TALKS_FIRST] = {"talks_first", "it does not wait for the greeting", ""},
    [QUIRK_HELO_EMPTY] = {"helo_empty", "it says HELO or EHLO without a name",
                          "Give the device a host name in its network settings."},
    [QUIRK_HELO_ODD] = {"helo_odd", "the name it says in HELO or EHLO is no host name",
                        "Give the device a host name of letters, digits and hyphens."},
    [QUIRK_NO_HELO] = {"no_helo", "it sends mail without HELO or EHLO", ""},
    [QUIRK_SECOND_MAIL] = {"second_mail", "it begins the next mail before the last one has ended",
                           ""},
    [QUIRK_NO_BRACKETS] = {"no_brackets", "its addresses in MAIL and RCPT lack angle brackets", ""},
    [QUIRK_SPACE_IN_PATH] = {"space_in_path", "it puts a space behind FROM: or TO:", ""},
    [QUIRK_UNKNOWN_PARAMETER] = {"unknown_parameter",
                                 "it sends parameters that nobody offered; they are ignored", ""},
    [QUIRK_EMPTY_LINES] = {"empty_lines", "it sends empty lines between commands", ""},
    [QUIRK_UNKNOWN_COMMAND] = {"unknown_command", "it sends commands that SMTP does not have",
                               "Look at the transcript: often it is a login that went wrong, or a "
                               "program that is no mail program."},
    [QUIRK_SIZE_WRONG] = {"size_wrong", "it announces far less mail data than it sends", ""},
    [QUIRK_DUPLICATE_RECIPIENT] = {"duplicate_recipient", "it names a recipient twice",
                                   "Look for the address in more than one group of its address "
                                   "book. Each recipient gets the mail once."},
    [QUIRK_LOGIN_IGNORED] = {"login_ignored",
                             "it signs in as nobody the relay knows; its address decides",
                             "Switch SMTP authentication off on the device, or give its [device] "
                             "that login and \"outtray passwd\"."},
    [QUIRK_NO_QUIT] = {"no_quit", "it hangs up behind its mail without QUIT", ""},
    [QUIRK_TLS_FIRST] = {"tls_first", "it begins with TLS, as on port 465",
                         "Where the listener is tls = auto or implicit nothing need be done; else "
                         "set the device to STARTTLS or to no encryption."},
    [QUIRK_TLS_LATE] = {"tls_late", "it begins with TLS, but too late to be told from plain SMTP",
                        "Point it to a [listener] with tls = implicit (port 465), or set the "
                        "device to STARTTLS."},
    [QUIRK_TLS_FAILED] = {"tls_failed", "a TLS handshake failed",
                          "See the last error. [device] hide = STARTTLS lets it send in the "
                          "clear, [devices] legacy_tls serves old versions."},
    [QUIRK_TLS_1_0] = {"tls1.0", "it speaks no newer TLS than 1.0", OLD_TLS},
    [QUIRK_TLS_1_1] = {"tls1.1", "it speaks no newer TLS than 1.1", OLD_TLS},

    {"no_message_id", "its mail has no Message-ID; the relay adds one", ""},
    {"bad_message_id", "its Message-ID is not in angle brackets; the relay writes its own", ""},
    {"no_date", "its mail has no date; the relay adds the time of arrival", ""},
    {"bad_date", "its date cannot be read; the relay writes the time of arrival",
     "Set date and time on the device, best from a time server; if that does not help, its "
     "firmware writes it wrong."},
    {"no_from", "its mail has no From; the relay adds one",
     "Set the sender or administrator e-mail address on the device."},
    {"no_to", "its mail names no recipient in To or Cc", ""},
    {"bcc", "its mail names hidden recipients; the relay leaves the field out", ""},
    {"auto_submitted",
     "its mail has the null sender; the relay marks it as automatic, so that nobody answers it",
     ""},
    {"bad_from", "its From is not written as mail programs need it; the relay writes it anew",
     "Leave \"@\", commas and brackets out of the device's sender name."},
    {"bad_sender", "its Sender is not written as mail programs need it",
     "Leave \"@\", commas and brackets out of the device's sender name."},
    {"bad_reply_to", "its Reply-To is not written as mail programs need it",
     "Correct the reply address on the device."},
    {"bad_to", "its To is not written as mail programs need it",
     "Correct the names in the device's address book."},
    {"bad_cc", "its Cc is not written as mail programs need it",
     "Correct the names in the device's address book."},
    {"duplicate_fields", "its mail has a field twice that may stand once", ""},
    {"raw_8bit_header", "its header has letters that are not ASCII and not encoded",
     "If names look wrong, set [devices] charset to what the device writes in, or its mail "
     "encoding to UTF-8."},
    {"control_characters", "its header has control characters; the relay leaves them out", ""},
    {"long_header_line", "its header has lines that are too long; the relay folds them", ""},
    {"header_too_large", "its header is over 256 KB and passes as it is",
     "This is hardly mail of a device: look at what sends it."},
    {"no_header", "its mail is text without a header", ""},
    {"no_empty_line", "its header does not end in an empty line", ""},
    {"leading_empty_lines", "its header begins with empty lines", ""},
    {"bad_field_name", "its header has a field whose name cannot stand; it is left out", ""},
    {"mbox_line", "its mail begins with the \"From \" line of a mailbox file",
     "A script hands on a mailbox file: let it leave out the first line."},
    {"long_base64", "it sends attachments in overlong lines; the relay wraps them", ""},
    {"long_quoted", "it sends quoted-printable in overlong lines; the relay wraps them", ""},
    {"long_text", "it sends text in overlong lines; the relay breaks them", ""},
    {"long_lines_kept", "it sends overlong lines in parts that must not be changed",
     "If the service refuses this mail, let the device encode attachments as base64."},
    {"long_part_header", "a part of its mail has overlong header lines; the relay folds them", ""},
    {"nul", "its text has NUL octets; the relay leaves them out", ""},
    {"message_partial",
     "it splits large scans into several mails, which Outlook and most others cannot put together",
     "Switch splitting off on the device and raise its size limit. "
     "Canon: Send, E-Mail/I-Fax settings: raise the maximum data size for sending, and switch "
     "divided sending over that size off, also in the address book's entry. "
     "Fuji Xerox, FUJIFILM: Tools, E-mail/Internet Fax Service Settings, E-mail Control: raise "
     "Maximum Total Data Size, and set Split Send Method to anything but Split by Data Size. "
     "Ricoh: Scanner Features, Send Settings: Divide & Send E-mail off. "
     "Konica Minolta: E-mail TX (SMTP): Binary Division off. "
     "Others: look for split, divide or fragment in the e-mail settings. "
     "Until then join_split = yes in its [device] lets the relay put them together."},
    {"mime_too_deep", "its mail nests parts too deeply; the inner ones pass as they are", ""},
    {"bare_lf", "its lines end in LF instead of CR LF", LINE_ENDS},
    {"bare_cr", "its lines end in CR instead of CR LF", LINE_ENDS},
    {"cr_cr_lf", "its lines end in CR CR LF", LINE_ENDS},
    {"sent_twice", "it sends a mail again although the first one was taken",
     "Raise its time limit for sending (SMTP timeout) if there is one; [device] sent_twice = once "
     "lets each mail through only once."},
    {"lf_dot_lf", "it does not end its mail properly, so the relay waits ten seconds for more",
     "Nothing need be done, but each mail takes ten seconds; [device] lf_dot_lf = no switches it "
     "off. A firmware update often cures it."},
};

_Static_assert(COUNT(rows) <= 64, "each has a bit");

size_t quirks_count(void)
{
    return COUNT(rows);
}

const char *quirk_name(size_t quirk)
{
    return rows[quirk].name;
}

const char *quirk_words(size_t quirk)
{
    return rows[quirk].words;
}

const char *quirk_remedy(size_t quirk)
{
    return rows[quirk].remedy;
}

static quirks bit_of(const char *name, size_t len)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (strlen(rows[i].name) == len && memcmp(rows[i].name, name, len) == 0)
            return QUIRK_BIT(i);
    }
    return 0;
}

quirks quirks_of_names(const char *names)
{
    quirks set = 0;

    while (*names != '\0') {
        size_t len = strcspn(names, ",");

        set |= bit_of(names, len);
        names += len + (names[len] == ',');
    }
    return set;
}

void quirks_names(quirks set, char out[QUIRKS_TEXT_MAX])
{
    size_t len = 0;

    out[0] = '\0';
    for (size_t i = 0; i < COUNT(rows); i++) {
        if ((set & QUIRK_BIT(i)) != 0)
            len += (size_t)snprintf(out + len, QUIRKS_TEXT_MAX - len, "%s%s", len > 0 ? "," : "",
                                    rows[i].name);
    }
}
