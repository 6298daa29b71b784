#include "relay/base/config.h"

#include <string.h>

#include "relay/base/config_rows.h"
#include "relay/base/config_value.h"

#define SAMPLE_WIDTH 96
#define NOTE_MAX     400
#define LIMIT_MAX    32

static const char sample_head[] =
    "# Outtray's configuration: every key, commented out, at its default.\n"
    "#\n"
    "# To fill in:\n"
    "#   1. Take the # off [mailbox office], address and password_file, the first lines below, "
    "and\n"
    "#      write the address that your devices' mail is to be sent as.\n"
    "#   2. Write that mailbox's password to its file:\n"
    "#        install -m 640 -g outtray /dev/stdin /etc/outtray/office.password\n"
    "#      then type or paste the password, Enter, Ctrl-D.\n"
    "#      With OAuth, as Microsoft 365 wants it from the end of 2026 on: tenant, client_id and\n"
    "#      client_secret_file or certificate_file instead; outtray-oauth(7) has every step.\n"
    "#   3. Check and start:  outtray check  and  systemctl restart outtrayd\n"
    "#\n"
    "# The rest can stay as it is. A comment is a line that starts with # or ;, or what follows\n"
    "# a blank and a ; behind a value. Lists (addresses, mailboxes) are separated by commas; a\n"
    "# long one can go on in another line with the same key in front. Sizes are written 512K,\n"
    "# 35MB or 1G (powers of 1024), times 30s, 5m, 2h or 5d.\n"
    "# outtray.conf(5) says the same with more words.\n";

static const char manual_head[] =
    ".TH OUTTRAY.CONF 5 \"\" Outtray \"File formats\"\n"
    ".nh\n"
    ".SH NAME\n"
    "outtray.conf \\- configuration of the Outtray mail relay\n"
    ".SH DESCRIPTION\n"
    "The file\n"
    ".I /etc/outtray/outtray.conf\n"
    "tells\n"
    ".BR outtrayd (8)\n"
    "where devices connect, who may, and through which mailboxes their mail leaves.\n"
    "It is read once, at the start. The daemon does not start with a mistake in it;\n"
    ".B outtray check\n"
    "shows all mistakes with their lines.\n"
    ".PP\n"
    "The file is UTF\\-8 text of sections,\n"
    ".BR [relay] \" or \" \"[mailbox office]\" ,\n"
    "and settings,\n"
    ".BR \"key = value\" ,\n"
    "one to a line of at most 197 octets. There is no continuation of lines, but keys that take a\n"
    "list can be given several times: the lists add up. Every other key, and every section, is "
    "there\n"
    "at most once.\n"
    "A comment is a line that starts with # or ;, or what follows a blank and a ; behind a value.\n"
    "Names of sections are at most 63 letters, digits, hyphens, underscores and dots.\n"
    ".PP\n"
    "Sizes are octets or end in K, M, G or T, with or without B: powers of 1024.\n"
    "Times end in s, m, h, d or w.\n"
    "Addresses are single ones (192.168.1.20), networks (192.168.1.0/24, fd00::/8) or ranges\n"
    "(192.168.1.20\\-192.168.1.40), separated by commas.\n"
    ".PP\n"
    "A smallest file, which listens on port 25 of all addresses, serves this machine and private\n"
    "networks, and sends through one mailbox at Microsoft 365:\n"
    ".PP\n"
    ".RS 4\n"
    ".EX\n"
    "[mailbox office]\n"
    "address = scans@example.com\n"
    "tenant = example.onmicrosoft.com\n"
    "client_id = 11111111\\-2222\\-3333\\-4444\\-555555555555\n"
    "client_secret_file = /etc/outtray/office.secret\n"
    ".EE\n"
    ".RE\n"
    ".PP\n"
    "or, with a password where that is still allowed, through any other service:\n"
    ".PP\n"
    ".RS 4\n"
    ".EX\n"
    "[mailbox office]\n"
    "provider = custom\n"
    "host = mail.example.com\n"
    "address = scans@example.com\n"
    "password_file = /etc/outtray/office.password\n"
    ".EE\n"
    ".RE\n";

static const char manual_tail[] = ".SH FILES\n"
                                  ".TP\n"
                                  ".I /etc/outtray/outtray.conf\n"
                                  "The configuration.\n"
                                  ".TP\n"
                                  ".I /usr/share/outtray/providers.ini\n"
                                  "What is known of mail services. A copy is built in.\n"
                                  ".SH SEE ALSO\n"
                                  ".BR outtrayd (8),\n"
                                  ".BR outtray (1),\n"
                                  ".BR outtray-oauth (7)\n";

static void limit_text(const struct config_row *row, uint64_t value, char out[LIMIT_MAX])
{
    if (row->type == CONFIG_SIZE)
        config_value_size_text(value, out, LIMIT_MAX);
    else if (row->type == CONFIG_TIME)
        config_value_time_text(value, out, LIMIT_MAX);
    else
        (void)snprintf(out, LIMIT_MAX, "%llu", (unsigned long long)value);
}

/* What may be written, beyond the help: choices, limits, and whether it must be there. */
static void note_text(const struct config_row *row, char out[NOTE_MAX])
{
    char min[LIMIT_MAX], max[LIMIT_MAX];

    out[0] = '\0';
    if (row->choices != NULL) {
        (void)snprintf(out, NOTE_MAX, "%s: %s.", row->type == CONFIG_WORDS ? "Any of" : "One of",
                       row->choices);
    } else if (row->max != 0) {
        limit_text(row, row->min, min);
        limit_text(row, row->max, max);
        (void)snprintf(out, NOTE_MAX, "From %s to %s.", min, max);
    } else if (row->required) {
        (void)snprintf(out, NOTE_MAX, "Must be given.");
    } else if (*row->fallback == '\0') {
        (void)snprintf(out, NOTE_MAX, "An example:");
    }
}

static const char *shown_value(const struct config_row *row)
{
    return *row->fallback != '\0' ? row->fallback : row->example;
}

/* Writes text as comment lines, broken at spaces. */
static void write_comment(FILE *out, const char *text)
{
    while (*text != '\0') {
        size_t len = strlen(text);

        if (len > SAMPLE_WIDTH)
            for (len = SAMPLE_WIDTH; text[len] != ' ';)
                len--;
        (void)fprintf(out, "# %.*s\n", (int)len, text);
        text += len;
        text += strspn(text, " ");
    }
}

static void write_sample_row(FILE *out, const struct config_row *row)
{
    char text[2 * NOTE_MAX + LIMIT_MAX];
    char note[NOTE_MAX];

    note_text(row, note);
    (void)snprintf(text, sizeof text, "%s%s%s", row->help, *note != '\0' ? " " : "", note);
    (void)fputc('\n', out);
    write_comment(out, text);
    (void)fprintf(out, "#%s = %s\n", row->key, shown_value(row));
}

static void write_sample_kind(FILE *out, const struct config_kind *kind)
{
    size_t count;
    const struct config_row *rows = config_rows(&count);

    (void)fprintf(out, "\n\n");
    write_comment(out, kind->help);
    if (kind->named)
        (void)fprintf(out, "#[%s %s]\n", kind->kind, kind->example);
    else
        (void)fprintf(out, "[%s]\n", kind->kind);
    for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].section, kind->kind) == 0)
            write_sample_row(out, &rows[i]);
}

void config_write_sample(FILE *out)
{
    size_t count;
    const struct config_kind *kinds = config_kinds(&count);

    (void)fputs(sample_head, out);
    for (size_t i = 0; i < count; i++)
        write_sample_kind(out, &kinds[i]);
}

/* Text of a manual page: no character of it may be taken for markup. */
static void write_roff(FILE *out, const char *text)
{
    if (*text == '.' || *text == '\'')
        (void)fputs("\\&", out);
    for (; *text != '\0'; text++) {
        if (*text == '\\')
            (void)fputs("\\e", out);
        else if (*text == '-')
            (void)fputs("\\-", out);
        else
            (void)fputc(*text, out);
    }
}

static void write_manual_row(FILE *out, const struct config_row *row)
{
    char note[NOTE_MAX];
    bool has_default = *row->fallback != '\0';

    (void)fprintf(out, ".TP\n.B ");
    write_roff(out, row->key);
    (void)fputc('\n', out);
    write_roff(out, row->help);
    (void)fputc('\n', out);
    note_text(row, note);
    if (*note != '\0' && (has_default || row->required)) {
        write_roff(out, note);
        (void)fputc('\n', out);
    }
    (void)fprintf(out, ".br\n%s: ", has_default ? "Default" : "Example");
    write_roff(out, shown_value(row));
    (void)fputc('\n', out);
}

static void write_manual_kind(FILE *out, const struct config_kind *kind)
{
    size_t count;
    const struct config_row *rows = config_rows(&count);

    (void)fprintf(out, ".SS [%s%s]\n", kind->kind, kind->named ? " NAME" : "");
    write_roff(out, kind->help);
    (void)fputc('\n', out);
    for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].section, kind->kind) == 0)
            write_manual_row(out, &rows[i]);
}

void config_write_manual(FILE *out)
{
    size_t count;
    const struct config_kind *kinds = config_kinds(&count);

    (void)fputs(manual_head, out);
    (void)fputs(".SH SECTIONS\n", out);
    for (size_t i = 0; i < count; i++)
        write_manual_kind(out, &kinds[i]);
    (void)fputs(manual_tail, out);
}
