#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "relay/base/config.h"
#include "relay/tool/check.h"
#include "relay/tool/commands.h"
#include "relay/tool/tool.h"
#include "relay/version.h"

enum takes {
    TAKES_ARGUMENT = 1,
    TAKES_ALL = 2,        /* --all */
    TAKES_ALL_OR_ONE = 4, /* exactly one of --all and an argument */
    TAKES_OUTPUT = 8,     /* -o */
};

struct command {
    const char *name;
    const char *usage; /* behind the name */
    const char *help;
    int (*run)(const struct tool *t);
    unsigned takes;
};

static int command_help(const struct tool *t);

static const struct command commands[] = {
    {"check", "", "read the configuration, tell every mistake, try what it needs", check_run, 0},
    {"status", "", "how the relay is, what needs attention and what to do", command_status, 0},
    {"queue", "[--all]", "list the first messages in the queue, or all", command_queue, TAKES_ALL},
    {"show", "ID", "one message: recipients, replies, times", command_show, TAKES_ARGUMENT},
    {"retry", "ID | --all", "try a message, or all that wait, now", command_retry,
     TAKES_ALL_OR_ONE},
    {"delete", "ID", "remove a message for good", command_delete, TAKES_ARGUMENT},
    {"export", "ID [-o FILE]", "write a message as an .eml file, or to stdout", command_export,
     TAKES_ARGUMENT | TAKES_OUTPUT},
    {"resume", "MAILBOX", "use a paused or waiting mailbox at once", command_resume,
     TAKES_ARGUMENT},
    {"help", "", "this page", command_help, 0},
};

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'}, {"socket", required_argument, NULL, 's'},
    {"json", no_argument, NULL, 'j'},         {"all", no_argument, NULL, 'a'},
    {"output", required_argument, NULL, 'o'}, {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},      {NULL, 0, NULL, 0},
};

static void write_help(FILE *out)
{
    fputs("Usage: outtray [-c FILE] [--socket PATH] [--json] COMMAND\n\n", out);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        char call[32];

        snprintf(call, sizeof(call), "%s %s", commands[i].name, commands[i].usage);
        fprintf(out, "  %-22s %s\n", call, commands[i].help);
    }
    fputs("\n"
          "  -c, --config FILE      the configuration; default " CONFIG_DEFAULT_FILE "\n"
          "      --socket PATH      the daemon's control socket; default as configured\n"
          "      --json             print what the daemon's API says\n"
          "      --version, --help\n\n"
          "queue, show and export read the spool itself while outtrayd is not running.\n",
          out);
}

static int command_help(const struct tool *t)
{
    write_help(t->out);
    return EX_OK;
}

static int usage_error(const char *text, const char *what)
{
    fprintf(stderr, "outtray: %s%s%s; see \"outtray help\"\n", text, what[0] != '\0' ? " " : "",
            what);
    return EX_USAGE;
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* NULL when what was given fits the command. */
static const char *misfit(const struct command *c, const struct tool *t, int arguments)
{
    bool needs_one = (c->takes & TAKES_ARGUMENT) != 0;
    bool one_or_all = (c->takes & TAKES_ALL_OR_ONE) != 0;

    if (t->all && (c->takes & (TAKES_ALL | TAKES_ALL_OR_ONE)) == 0)
        return "--all is of no use with";
    if (t->output != NULL && (c->takes & TAKES_OUTPUT) == 0)
        return "-o is of no use with";
    if (one_or_all && t->all == (arguments > 0))
        return "a message id, or --all, is needed by";
    if (needs_one && arguments == 0)
        return "what to work on is missing from";
    if (arguments > (needs_one || one_or_all ? 1 : 0))
        return "too many words behind";
    return NULL;
}

static int run(struct tool *t, char **words, int count)
{
    const struct command *c;
    const char *wrong;
    int code;

    if (count == 0) {
        write_help(stderr);
        return EX_USAGE;
    }
    c = find_command(words[0]);
    if (c == NULL)
        return usage_error("there is no command", words[0]);
    wrong = misfit(c, t, count - 1);
    if (wrong != NULL)
        return usage_error(wrong, c->name);
    t->argument = count > 1 ? words[1] : NULL;
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
    default:
        return false;
    }
}

int main(int argc, char **argv)
{
    struct tool t = {.config_file = CONFIG_DEFAULT_FILE, .out = stdout, .err = stderr};
    int option;

    while ((option = getopt_long(argc, argv, "c:o:h", options, NULL)) != -1) {
        if (take_option(&t, option))
            continue;
        if (option == 'h') {
            write_help(stdout);
            return EX_OK;
        }
        if (option == 'V') {
            puts("outtray " OUTTRAY_VERSION);
            return EX_OK;
        }
        return EX_USAGE;
    }
    return run(&t, argv + optind, argc - optind);
}
