#include <ctype.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "relay/base/config.h"
#include "relay/base/config_mistakes.h"
#include "relay/tool/check.h"
#include "relay/tool/commands.h"
#include "relay/tool/devices.h"
#include "relay/tool/login.h"
#include "relay/tool/passwd.h"
#include "relay/tool/replies.h"
#include "relay/tool/spool.h"
#include "relay/tool/token.h"
#include "relay/tool/tool.h"
#include "relay/version.h"

enum takes {
    TAKES_ARGUMENT = 1,
    TAKES_ALL = 2,        /* --all */
    TAKES_ALL_OR_ONE = 4, /* exactly one of --all and an argument */
    TAKES_OUTPUT = 8,     /* -o, --force */
    TAKES_WORD = 16,      /* an argument, or none */
    TAKES_STDIN = 32,     /* --stdin */
    TAKES_DEVICE = 64,    /* --transcript or --forget */
    TAKES_WORDS = 128,    /* words that the command itself looks at */
    TAKES_ALL_DEAD = 256, /* exactly one of --all-dead and an argument */
    TAKES_UNKNOWN = 512,  /* --unknown */
    TAKES_STAGE = 1024,   /* --stage */
    TAKES_BROWSER = 2048, /* --browser */
};

struct command {
    const char *name;
    const char *usage; /* behind the name */
    const char *help;
    int (*run)(const struct tool *t);
    unsigned takes;
    const char *needs;   /* when the argument is missing */
    const char *details; /* of "help COMMAND", or NULL */
};

static int command_help(const struct tool *t);

#define NEEDS_ID "needs a message id; \"outtray queue\" lists them"

static const struct command commands[] = {
    {"check", "", "tell every mistake, and try what outtrayd needs", check_run, 0, NULL,
     "Run it with sudo: then files are tried as the user that outtrayd becomes. Ends with 78 when\n"
     "there are mistakes.\n"},
    {"status", "", "how the relay is, what needs attention and what to do", command_status, 0, NULL,
     "Ends with 0 when all is well and with 1 when something needs attention.\n"},
    {"queue", "[--all]", "list the first messages in the queue, or all", command_queue, TAKES_ALL,
     NULL, NULL},
    {"show", "ID", "one message: recipients, replies, times", command_show, TAKES_ARGUMENT,
     NEEDS_ID,
     "For each recipient that failed or waits it says what the upstream answered, what that\n"
     "means, who can help and how.\n"},
    {"retry", "ID | --all", "try a message, or all that wait, now", command_retry, TAKES_ALL_OR_ONE,
     "needs a message id, or --all; \"outtray queue\" lists them",
     "--all leaves uncertain, held and dead messages alone. An uncertain message that is retried\n"
     "may arrive twice.\n"},
    {"dead", "[--all]", "list the dead letters: mail that failed for good", command_dead, TAKES_ALL,
     NULL,
     "They are kept for dead_keep of the configuration, and until somebody was told of them.\n"},
    {"requeue", "ID | --all-dead", "try a dead letter, or all of them, anew", command_requeue,
     TAKES_ALL_DEAD, "needs a message id, or --all-dead; \"outtray dead\" lists them",
     "Only recipients that failed are tried again. \"outtray retry\" is for mail that waits or is "
     "held.\n"},
    {"delete", "ID", "remove a message for good", command_delete, TAKES_ARGUMENT, NEEDS_ID,
     "Nobody is told. \"outtray export\" saves it first.\n"},
    {"export", "ID [-o FILE [--force]]", "write a message as an .eml file, or to stdout",
     command_export, TAKES_ARGUMENT | TAKES_OUTPUT, NEEDS_ID,
     "  -o, --output FILE      write to FILE, which must not be there yet\n"
     "      --force            write over it all the same\n"},
    {"resume", "MAILBOX", "use a paused or waiting mailbox at once", command_resume, TAKES_ARGUMENT,
     "needs the name of a mailbox; \"outtray status\" lists them", NULL},
    {"devices", "", "list the devices, those that need attention first", devices_list, 0, NULL,
     "States: \"trouble\" when the last error is newer than the last mail; \"quiet\" when it has\n"
     "sent nothing for longer than its own habit explains; \"test only\" when it has connected,\n"
     "but never with mail; \"never seen\" when it is only in the configuration.\n"},
    {"device", "NAME [OPTION]", "one device: what it does, and what to do about it", devices_one,
     TAKES_ARGUMENT | TAKES_DEVICE, "needs the name of a device; \"outtray devices\" lists them",
     "      --transcript       what was said in its last sessions, the newest last\n"
     "      --forget           forget all that is known of it\n"},
    {"passwd", "DEVICE [--stdin]", "a new password for a device to sign in with", passwd_run,
     TAKES_ARGUMENT | TAKES_STDIN, "needs the name of a device of the configuration",
     "      --stdin            read the password instead of making one\n"},
    {"spool", "check | stats | export DIR", "the queue on disk", spool_run, TAKES_WORDS, NULL,
     "  spool check            verify every checksum, while outtrayd runs or not; ends with 65 "
     "when\n"
     "                         anything does not verify\n"
     "  spool stats            what the queue takes on the disk and how much of it lives\n"
     "  spool export DIR       every message as an .eml file with its envelope beside it, damaged\n"
     "                         ones as far as they can be read; writes over nothing\n"},
    {"explain", "REPLY", "what a reply of a mail service means, and what follows", replies_explain,
     TAKES_WORDS | TAKES_STAGE, NULL,
     "      --stage STAGE      what was answered with it: banner, ehlo, starttls, auth, mail,\n"
     "                         rcpt, data or dot (the end of the mail data); all, else\n"},
    {"replies", "", "replies that Outtray has no explanation for", replies_list, TAKES_UNKNOWN,
     NULL,
     "Names, addresses and numbers in them are masked. Whoever sends them to the authors of\n"
     "Outtray helps to have them explained.\n"},
    {"login", "MAILBOX [--browser]", "sign in as a person for a mailbox, with OAuth", login_run,
     TAKES_ARGUMENT | TAKES_BROWSER, "needs the name of a mailbox; \"outtray status\" lists them",
     "Shows a page and a code to type there, on any computer, and waits.\n\n"
     "      --browser          sign in with a browser on this machine instead, where\n"
     "                         codes are not allowed\n"},
    {"token", "MAILBOX", "what a mailbox's OAuth token says, and whether it fits", token_run,
     TAKES_ARGUMENT, "needs the name of a mailbox; \"outtray status\" lists them",
     "Never the token itself. Ends with 1 when there is none, or it does not fit.\n"},
    {"report", "sign-in", "mailboxes and devices that depend on a password", token_report,
     TAKES_ARGUMENT, "needs what to report on: sign-in",
     "Ends with 1 when a service that one of them uses switches passwords off.\n"},
    {"help", "[COMMAND]", "this page, or more about a command", command_help, TAKES_WORD, NULL,
     NULL},
};

#define CALL_WIDTH 25 /* of a command with its usage */
#define COMMANDS   (sizeof(commands) / sizeof(commands[0]))

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'}, {"socket", required_argument, NULL, 's'},
    {"json", no_argument, NULL, 'j'},         {"all", no_argument, NULL, 'a'},
    {"output", required_argument, NULL, 'o'}, {"help", no_argument, NULL, 'h'},
    {"stdin", no_argument, NULL, 'i'},        {"version", no_argument, NULL, 'V'},
    {"force", no_argument, NULL, 'f'},        {"transcript", no_argument, NULL, 't'},
    {"forget", no_argument, NULL, 'g'},       {"all-dead", no_argument, NULL, 'd'},
    {"unknown", no_argument, NULL, 'u'},      {"stage", required_argument, NULL, 'S'},
    {"browser", no_argument, NULL, 'b'},      {NULL, 0, NULL, 0},
};

static void write_help(FILE *out)
{
    fputs("Usage: outtray [-c FILE] [--socket PATH] [--json] COMMAND\n\n", out);
    for (size_t i = 0; i < COMMANDS; i++) {
        char call[64];

        snprintf(call, sizeof(call), "%s %s", commands[i].name, commands[i].usage);
        if (strlen(call) > CALL_WIDTH) /* has a line of its own */
            fprintf(out, "  %s\n  %-*s %s\n", call, CALL_WIDTH, "", commands[i].help);
        else
            fprintf(out, "  %-*s %s\n", CALL_WIDTH, call, commands[i].help);
    }
    fputs("\n"
          "  -c, --config FILE      the configuration; default " CONFIG_DEFAULT_FILE "\n"
          "      --socket PATH      the daemon's control socket; default as configured\n"
          "      --json             print JSON: what the daemon's API says\n"
          "      --version, --help\n\n"
          "queue, show, export and spool read the spool itself while outtrayd is not running.\n",
          out);
}

static int usage_error(const struct tool *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static int usage_error(const struct tool *t, const char *fmt, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    fprintf(t->err, "outtray: %s\n", text);
    tool_error_json(t, ERROR_INVALID, text);
    return EX_USAGE;
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int unknown_command(const struct tool *t, const char *name)
{
    const char *names[COMMANDS];
    const char *nearest;

    for (size_t i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    nearest = config_mistakes_nearest(name, names, COMMANDS);
    if (nearest != NULL)
        return usage_error(t, "there is no command \"%.64s\"; did you mean \"%s\"?", name, nearest);
    return usage_error(t, "there is no command \"%.64s\"; \"outtray help\" lists them", name);
}

static int command_help(const struct tool *t)
{
    const struct command *c = t->argument != NULL ? find_command(t->argument) : NULL;

    if (t->argument != NULL && c == NULL)
        return unknown_command(t, t->argument);
    if (c == NULL) {
        write_help(t->out);
        return EX_OK;
    }
    fprintf(t->out, "Usage: outtray [-c FILE] [--socket PATH] [--json] %s %s\n\n%c%s.\n", c->name,
            c->usage, toupper((unsigned char)c->help[0]), c->help + 1);
    if (c->details != NULL)
        fprintf(t->out, "\n%s", c->details);
    fputs("\n\"man outtray\" says it all.\n", t->out);
    return EX_OK;
}

/* The same for options of a single command each. */
static int misfit_rare(const struct command *c, const struct tool *t)
{
    if (t->all_dead && (c->takes & TAKES_ALL_DEAD) == 0)
        return usage_error(t, "%s takes no --all-dead", c->name);
    if (t->unknown && (c->takes & TAKES_UNKNOWN) == 0)
        return usage_error(t, "%s takes no --unknown", c->name);
    if (t->stage != NULL && (c->takes & TAKES_STAGE) == 0)
        return usage_error(t, "%s takes no --stage", c->name);
    return EX_OK;
}

/* EX_OK when what was given fits the command. */
static int misfit(const struct command *c, const struct tool *t, int arguments)
{
    bool one = (c->takes & TAKES_ARGUMENT) != 0;
    bool one_or_all = (c->takes & (TAKES_ALL_OR_ONE | TAKES_ALL_DEAD)) != 0;
    bool all = t->all || t->all_dead;
    bool word = (c->takes & TAKES_WORD) != 0;

    if (misfit_rare(c, t) != EX_OK)
        return EX_USAGE;
    if (t->all && (c->takes & TAKES_ALL_DEAD) != 0)
        return usage_error(t, "%s takes no --all; --all-dead is for all dead letters", c->name);
    if (t->all && (c->takes & (TAKES_ALL | TAKES_ALL_OR_ONE)) == 0)
        return usage_error(t, "%s takes no --all", c->name);
    if (t->output != NULL && (c->takes & TAKES_OUTPUT) == 0)
        return usage_error(t, "%s takes no -o", c->name);
    if (t->from_stdin && (c->takes & TAKES_STDIN) == 0)
        return usage_error(t, "%s takes no --stdin", c->name);
    if ((t->transcript || t->forget) && (c->takes & TAKES_DEVICE) == 0)
        return usage_error(t, "%s takes no --%s", c->name, t->forget ? "forget" : "transcript");
    if (t->transcript && t->forget)
        return usage_error(t, "%s takes --transcript or --forget, not both", c->name);
    if (t->browser && (c->takes & TAKES_BROWSER) == 0)
        return usage_error(t, "%s takes no --browser", c->name);
    if (t->force && t->output == NULL)
        return usage_error(t, "--force is for \"outtray export ID -o FILE\" only");
    if ((one && arguments == 0) || (one_or_all && all == (arguments > 0)))
        return usage_error(t, "%s %s", c->name, c->needs);
    if ((c->takes & TAKES_WORDS) == 0 && arguments > (one || one_or_all || word ? 1 : 0))
        return usage_error(t, "%s takes %s; see \"outtray help %s\"", c->name,
                           one || one_or_all || word ? "one argument" : "no argument", c->name);
    return EX_OK;
}

static int run(struct tool *t, char **words, int count)
{
    const struct command *c;
    int code;

    if (count == 0) {
        write_help(stderr);
        return EX_USAGE;
    }
    c = find_command(words[0]);
    if (c == NULL)
        return unknown_command(t, words[0]);
    code = misfit(c, t, count - 1);
    if (code != EX_OK)
        return code;
    t->argument = count > 1 ? words[1] : NULL;
    t->words = words + 1;
    t->word_count = count - 1;
    code = c->run(t);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("outtray: write to stdout");
        return EX_IOERR;
    }
    return code;
}

/* Sets what the option says; false when it was none of ours. */
static bool take_option(struct tool *t, int option)
{
    switch (option) {
    case 'c':
        t->config_file = optarg;
        t->config_given = true;
        return true;
    case 's':
        t->socket = optarg;
        return true;
    case 'j':
        t->json = true;
        return true;
    case 'a':
        t->all = true;
        return true;
    case 'o':
        t->output = optarg;
        return true;
    case 'i':
        t->from_stdin = true;
        return true;
    case 'f':
        t->force = true;
        return true;
    case 't':
        t->transcript = true;
        return true;
    case 'g':
        t->forget = true;
        return true;
    case 'd':
        t->all_dead = true;
        return true;
    case 'u':
        t->unknown = true;
        return true;
    case 'S':
        t->stage = optarg;
        return true;
    case 'b':
        t->browser = true;
        return true;
    default:
        return false;
    }
}

int main(int argc, char **argv)
{
    struct tool t = {.config_file = CONFIG_DEFAULT_FILE, .in = stdin, .out = stdout, .err = stderr};
    bool help = false;
    int option;

    while ((option = getopt_long(argc, argv, "c:o:h", options, NULL)) != -1) {
        if (take_option(&t, option))
            continue;
        if (option == 'h') {
            help = true;
            continue;
        }
        if (option == 'V') {
            puts("outtray " OUTTRAY_VERSION);
            return EX_OK;
        }
        return EX_USAGE;
    }
    if (!help)
        return run(&t, argv + optind, argc - optind);
    t.argument = optind < argc ? argv[optind] : NULL;
    return command_help(&t);
}
