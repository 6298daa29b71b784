#include "relay/intake/transcript.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "relay/smtp/command.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define HELD_MAX  512                        /* octets looked at of a line that is heard */
#define SHOWN_MAX (TRANSCRIPT_LINE_MAX + 96) /* of one line, with time, counts and LF */
#define NOTE_MAX  48                         /* "-- (N lines left out)" */
#define TEXT_MAX                                                                                   \
    (TRANSCRIPT_MAX - NOTE_MAX - 2 * SHOWN_MAX - 1) /* the two of transcript_text()                \
                                                     */
#define TEXT_MIN   256
#define ROOM_MADE  1024 /* when lines are left out */
#define HIDDEN_MAX 40   /* "(N octets hidden)" */
#define WORD_MAX   16   /* letters of a command that nobody knows */

struct line {
    char text[HELD_MAX];
    size_t kept; /* in text */
    size_t len;  /* as heard, without its end */
    size_t crs;  /* at its end so far: part of the line end if LF is next */
};

struct transcript {
    uint64_t began_ms;
    char *text; /* whole lines */
    size_t len;
    size_t cap;
    size_t head;     /* of the first half, once lines were left out behind it */
    size_t left_out; /* lines */
    char *shown;     /* by transcript_text() */
    struct line *line;
    uint64_t line_ms; /* its last octet */
    uint64_t mail_octets;
    uint64_t mail_began_ms;
    uint64_t mail_ms;
    bool mail;      /* mail data has come that is not shown yet */
    bool heard;     /* anything */
    bool auth;      /* AUTH was heard, ever */
    bool answering; /* AUTH has not been answered for good */
    bool failed;    /* one has failed */
};

/* ---- lines ----------------------------------------------------------------------------------- */

/* One line under construction: what does not fit is counted. */
struct shown {
    char text[SHOWN_MAX];
    size_t len;
    size_t begin; /* behind the time and the arrow */
    size_t more;  /* octets that are not shown */
};

static void begin_shown(struct shown *s, const struct transcript *t, const char *arrow,
                        uint64_t now_ms)
{
    uint64_t ms = now_ms > t->began_ms ? now_ms - t->began_ms : 0;
    int n = snprintf(s->text, sizeof(s->text), "%5" PRIu64 ".%03u %s ", ms / 1000,
                     (unsigned)(ms % 1000), arrow);

    s->len = s->begin = (size_t)n;
    s->more = 0;
}

static void show_octet(struct shown *s, char c)
{
    char text[5] = {c, '\0'};
    size_t room = TRANSCRIPT_LINE_MAX - (s->len - s->begin);

    if (c < ' ' || c > '~')
        snprintf(text, sizeof(text), "\\x%02X", (unsigned)(unsigned char)c);
    if (s->more > 0 || strlen(text) > room) {
        s->more++;
        return;
    }
    memcpy(s->text + s->len, text, strlen(text));
    s->len += strlen(text);
}

/* The usual case: text that fits. */
static size_t show_run(struct shown *s, const char *p, size_t len)
{
    size_t room = TRANSCRIPT_LINE_MAX - (s->len - s->begin);
    size_t n = 0;

    if (s->more > 0)
        return 0;
    while (n < len && n < room && p[n] >= ' ' && p[n] <= '~')
        n++;
    memcpy(s->text + s->len, p, n);
    s->len += n;
    return n;
}

static void show(struct shown *s, const char *p, size_t len)
{
    for (size_t i = show_run(s, p, len); i < len; i++)
        show_octet(s, p[i]);
}

static void show_text(struct shown *s, const char *text)
{
    show(s, text, strlen(text));
}

/* What is hidden behind what is shown; nothing for nothing. */
static void show_hidden(struct shown *s, size_t octets)
{
    char text[HIDDEN_MAX];

    if (octets == 0)
        return;
    if (s->len > s->begin)
        show_text(s, " ");
    snprintf(text, sizeof(text), "(%zu octet%s hidden)", octets, octets == 1 ? "" : "s");
    show_text(s, text);
}

static void end_shown(struct shown *s)
{
    size_t room = sizeof(s->text) - s->len;

    if (s->more > 0)
        s->len += (size_t)snprintf(s->text + s->len, room, "... (%zu more)", s->more);
    s->text[s->len++] = '\n';
}

/* ---- the text -------------------------------------------------------------------------------- */

static size_t line_length(const char *p, size_t len)
{
    const char *lf = memchr(p, '\n', len);

    return lf != NULL ? (size_t)(lf - p) + 1 : len;
}

/* The lines that stay for good: no more than half of what there may be. */
static size_t head_of(const struct transcript *t)
{
    size_t head = 0;
    size_t next = line_length(t->text, t->len);

    while (next <= TEXT_MAX / 2 && next < t->len) {
        head = next;
        next += line_length(t->text + next, t->len - next);
    }
    return head;
}

/* More than is wanted just now, as all that is behind it has to be moved. */
static void leave_out(struct transcript *t, size_t wanted)
{
    size_t end = t->head;

    wanted += ROOM_MADE;
    if (t->left_out == 0)
        end = t->head = head_of(t);
    while (end < t->len && t->len - (end - t->head) + wanted > TEXT_MAX) {
        end += line_length(t->text + end, t->len - end);
        t->left_out++;
    }
    memmove(t->text + t->head, t->text + end, t->len - end);
    t->len -= end - t->head;
}

static bool has_room(struct transcript *t, size_t wanted)
{
    size_t cap = t->cap > 0 ? t->cap : TEXT_MIN;
    char *text;

    if (t->len + wanted > TEXT_MAX)
        leave_out(t, wanted);
    while (cap < t->len + wanted)
        cap *= 2;
    if (cap == t->cap)
        return true;
    text = realloc(t->text, cap);
    if (text == NULL)
        return false;
    t->text = text;
    t->cap = cap;
    return true;
}

/* Without memory a line is missing, which is what happens to transcripts then. */
static void store(struct transcript *t, struct shown *s)
{
    end_shown(s);
    if (!has_room(t, s->len))
        return;
    memcpy(t->text + t->len, s->text, s->len);
    t->len += s->len;
}

static void show_mail_data(const struct transcript *t, struct shown *s)
{
    uint64_t ms = t->mail_ms - t->mail_began_ms;
    char text[96];

    snprintf(text, sizeof(text), "(%" PRIu64 " octets of mail data in %" PRIu64 ".%u s)",
             t->mail_octets, ms / 1000, (unsigned)(ms % 1000 / 100));
    begin_shown(s, t, ">>", t->mail_ms);
    show_text(s, text);
}

static void store_mail_data(struct transcript *t)
{
    struct shown s;

    if (!t->mail)
        return;
    show_mail_data(t, &s);
    store(t, &s);
    t->mail = false;
    t->mail_octets = 0;
}

/* ---- masking --------------------------------------------------------------------------------- */

/* What may be shown behind a verb. */
enum rest {
    REST_HIDDEN,
    REST_NAME,       /* of a host: until a sign-in has failed */
    REST_PATH,       /* "FROM:" or "TO:" and what follows */
    REST_NUMBER,     /* and LAST */
    REST_UNTIL_AUTH, /* nothing is expected there */
    REST_MECHANISM   /* its name, and no more */
};

static const enum rest rests[COMMAND_COUNT] = {
    [COMMAND_UNKNOWN] = REST_HIDDEN,      [COMMAND_EHLO] = REST_NAME,
    [COMMAND_HELO] = REST_NAME,           [COMMAND_MAIL] = REST_PATH,
    [COMMAND_RCPT] = REST_PATH,           [COMMAND_DATA] = REST_UNTIL_AUTH,
    [COMMAND_RSET] = REST_UNTIL_AUTH,     [COMMAND_NOOP] = REST_UNTIL_AUTH,
    [COMMAND_VRFY] = REST_UNTIL_AUTH,     [COMMAND_HELP] = REST_UNTIL_AUTH,
    [COMMAND_QUIT] = REST_UNTIL_AUTH,     [COMMAND_EXPN] = REST_UNTIL_AUTH,
    [COMMAND_ETRN] = REST_UNTIL_AUTH,     [COMMAND_TURN] = REST_UNTIL_AUTH,
    [COMMAND_AUTH] = REST_MECHANISM,      [COMMAND_BDAT] = REST_NUMBER,
    [COMMAND_STARTTLS] = REST_UNTIL_AUTH, [COMMAND_SEND] = REST_HIDDEN,
    [COMMAND_HTTP] = REST_HIDDEN, /* cookies and tokens stand there */
};

static bool begins_with(const char *p, size_t len, const char *word)
{
    return len >= strlen(word) && strncasecmp(p, word, strlen(word)) == 0;
}

static bool is_mechanism(struct command_text name)
{
    static const char *const known[] = {"LOGIN",       "PLAIN",         "CRAM-MD5", "DIGEST-MD5",
                                        "SCRAM-SHA-1", "SCRAM-SHA-256", "NTLM",     "GSSAPI",
                                        "XOAUTH2",     "OAUTHBEARER",   "EXTERNAL"};

    for (size_t i = 0; i < COUNT(known); i++) {
        if (name.len == strlen(known[i]) && strncasecmp(name.p, known[i], name.len) == 0)
            return true;
    }
    return false;
}

/* Anything that may be AUTH in some disguise counts as such. */
static bool mentions_auth(struct command_text text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (begins_with(text.p + i, text.len - i, "AUTH"))
            return true;
    }
    return false;
}

static bool may_show(const struct transcript *t, enum rest kind, struct command_text rest)
{
    uint64_t octets;
    bool last;

    switch (kind) {
    case REST_NAME:
        return !t->failed && !mentions_auth(rest);
    case REST_PATH:
        return begins_with(rest.p, rest.len, "FROM") || begins_with(rest.p, rest.len, "TO");
    case REST_NUMBER:
        return command_chunk(rest, &octets, &last);
    case REST_UNTIL_AUTH:
        return !t->auth && !mentions_auth(rest);
    case REST_MECHANISM:
    case REST_HIDDEN:
        break;
    }
    return false;
}

static bool is_plain_word(struct command_text word)
{
    for (size_t i = 0; i < word.len; i++) {
        char c = (char)(word.p[i] | 0x20);

        if ((c < 'a' || c > 'z') && word.p[i] != '-')
            return false;
    }
    return word.len > 0 && word.len <= WORD_MAX;
}

static struct command_text trim(struct command_text t)
{
    for (; t.len > 0 && (t.p[0] == ' ' || t.p[0] == '\t'); t.p++, t.len--)
        ;
    return t;
}

static void show_unknown(struct transcript *t, struct shown *s, struct command_text rest,
                         size_t more)
{
    size_t len = rest.len + more;
    struct command_text word;

    if (mentions_auth(rest))
        t->auth = t->answering = true;
    word = command_word(&rest);
    if (t->auth || !is_plain_word(word)) {
        show_hidden(s, len);
        return;
    }
    show(s, word.p, word.len);
    show_hidden(s, rest.len > 0 ? rest.len + more : 0);
}

static void show_auth(struct transcript *t, struct shown *s, struct command_text rest, size_t more)
{
    struct command_text left = rest;
    struct command_text name = command_word(&left);

    t->auth = t->answering = true;
    if (is_mechanism(name)) {
        show_text(s, " ");
        show(s, name.p, name.len);
        rest = left;
    }
    show_hidden(s, rest.len + more);
}

/* Behind a control character there may be another line of a device that ends them otherwise. */
static size_t length_to_control(struct command_text text)
{
    size_t n = 0;

    while (n < text.len && ((unsigned char)text.p[n] >= ' ' || text.p[n] == '\t'))
        n++;
    return n;
}

static void show_rest(struct transcript *t, struct shown *s, enum rest kind,
                      struct command_text rest, size_t more)
{
    size_t n = length_to_control(rest);
    struct command_text behind = {rest.p + n, rest.len - n};

    if (mentions_auth(behind))
        t->auth = t->answering = true;
    rest.len = n;
    if (n == 0 || !may_show(t, kind, rest)) {
        show_hidden(s, n + behind.len + more);
        return;
    }
    show_text(s, " ");
    show(s, rest.p, rest.len);
    if (behind.len > 0)
        show_hidden(s, behind.len + more);
    else
        s->more += more;
}

/* Also changes what will be masked from here on. */
static void show_command(struct transcript *t, struct shown *s, const struct line *l)
{
    size_t more = l->len - l->kept;
    struct command_text rest = trim((struct command_text){l->text, l->kept});
    struct command_text word;
    struct command c;

    command_parse(l->text, l->kept, &c);
    if (c.verb == COMMAND_UNKNOWN) {
        show_unknown(t, s, rest, more);
        return;
    }
    word = command_word(&rest);
    show(s, word.p, word.len);
    if (rests[c.verb] == REST_MECHANISM)
        show_auth(t, s, c.argument, more);
    else
        show_rest(t, s, rests[c.verb], c.argument, more);
}

static void show_line(struct transcript *t, struct shown *s, const struct line *l)
{
    begin_shown(s, t, ">>", t->line_ms);
    if (t->answering && l->len == 1 && l->text[0] == '*')
        show_text(s, "*");
    else if (t->answering)
        show_hidden(s, l->len);
    else
        show_command(t, s, l);
}

/* ---- hearing --------------------------------------------------------------------------------- */

static void wipe_line(struct line *l)
{
    explicit_bzero(l->text, sizeof(l->text));
    l->kept = l->len = l->crs = 0;
}

static void cut_end(struct line *l)
{
    l->len -= l->crs;
    if (l->kept > l->len)
        l->kept = l->len;
}

static void end_line(struct transcript *t)
{
    struct shown s;

    cut_end(t->line);
    show_line(t, &s, t->line);
    store(t, &s);
    wipe_line(t->line);
}

static void keep(struct line *l, const char *p, size_t len)
{
    size_t room = HELD_MAX - l->kept;
    size_t n = len < room ? len : room;
    size_t crs = 0;

    while (crs < len && p[len - 1 - crs] == '\r')
        crs++;
    l->crs = crs < len ? crs : l->crs + crs;
    memcpy(l->text + l->kept, p, n);
    l->kept += n;
    l->len += len;
}

void transcript_heard(struct transcript *t, const void *data, size_t len, uint64_t now_ms)
{
    const char *p = data;

    if (t == NULL || len == 0)
        return;
    store_mail_data(t);
    t->heard = true;
    if (t->line == NULL)
        t->line = calloc(1, sizeof(*t->line));
    if (t->line == NULL)
        return;
    t->line_ms = now_ms;
    while (len > 0) {
        size_t n = line_length(p, len);
        bool ended = p[n - 1] == '\n';

        keep(t->line, p, ended ? n - 1 : n);
        if (ended)
            end_line(t);
        p += n;
        len -= n;
    }
    if (t->line->len == 0) { /* sessions wait for long between commands */
        free(t->line);
        t->line = NULL;
    }
}

void transcript_mail_data(struct transcript *t, size_t len, uint64_t now_ms)
{
    if (t == NULL || len == 0)
        return;
    if (!t->mail)
        t->mail_began_ms = now_ms;
    t->mail = true;
    t->heard = true;
    t->mail_octets += len;
    t->mail_ms = now_ms;
}

/* ---- saying ---------------------------------------------------------------------------------- */

static void answer_auth(struct transcript *t, const char *text, size_t len)
{
    if (!t->answering || begins_with(text, len, "334"))
        return;
    t->answering = false;
    t->failed |= !begins_with(text, len, "235");
}

void transcript_said(struct transcript *t, const void *text, size_t len, uint64_t now_ms)
{
    const char *p = text;

    if (t == NULL || len == 0)
        return;
    store_mail_data(t);
    answer_auth(t, p, len);
    while (len > 0) {
        size_t n = line_length(p, len);
        size_t end = n;
        struct shown s;

        while (end > 0 && (p[end - 1] == '\n' || p[end - 1] == '\r'))
            end--;
        begin_shown(&s, t, "<<", now_ms);
        show(&s, p, end);
        store(t, &s);
        p += n;
        len -= n;
    }
}

void transcript_note(struct transcript *t, const char *text, uint64_t now_ms)
{
    struct shown s;

    if (t == NULL)
        return;
    store_mail_data(t);
    begin_shown(&s, t, "--", now_ms);
    show_text(&s, text);
    store(t, &s);
}

/* ---- the whole ------------------------------------------------------------------------------- */

struct transcript *transcript_new(uint64_t began_ms)
{
    struct transcript *t = calloc(1, sizeof(*t));

    if (t != NULL)
        t->began_ms = began_ms;
    return t;
}

void transcript_free(struct transcript *t)
{
    if (t == NULL)
        return;
    if (t->line != NULL)
        wipe_line(t->line);
    free(t->line);
    free(t->text);
    free(t->shown);
    free(t);
}

static size_t put(char *to, const void *p, size_t len)
{
    if (len > 0)
        memcpy(to, p, len);
    return len;
}

/* A line without an end is shown by a copy of what is known: the line may go on. */
static size_t put_unfinished(const struct transcript *t, char *to)
{
    struct transcript copy = *t;
    struct shown s;

    if (t->mail)
        show_mail_data(t, &s);
    else if (t->line != NULL && t->line->len > 0)
        show_line(&copy, &s, t->line);
    else
        return 0;
    end_shown(&s);
    return put(to, s.text, s.len);
}

const char *transcript_text(struct transcript *t)
{
    size_t len = 0;

    if (t == NULL)
        return "";
    if (t->shown == NULL)
        t->shown = malloc(TRANSCRIPT_MAX);
    if (t->shown == NULL)
        return "";
    len += put(t->shown, t->text, t->left_out > 0 ? t->head : t->len);
    if (t->left_out > 0) {
        len += (size_t)snprintf(t->shown + len, NOTE_MAX, "          -- (%zu lines left out)\n",
                                t->left_out);
        len += put(t->shown + len, t->text + t->head, t->len - t->head);
    }
    len += put_unfinished(t, t->shown + len);
    t->shown[len] = '\0';
    return t->shown;
}

bool transcript_is_worth_keeping(const struct transcript *t)
{
    return t != NULL && t->heard;
}
