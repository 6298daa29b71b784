#include "relay/base/config_reader.h"

#include <stdlib.h>
#include <string.h>

#include <ini.h>

#include "relay/base/config.h"

/* inih needs room for CR, LF and NUL as well. */
_Static_assert(CONFIG_LINE_MAX <= INI_MAX_LINE - 3, "inih would cut lines that we let through");

#define BOM "\xef\xbb\xbf"

struct reader {
    struct config_document *doc;
    struct config_mistakes *m;
    const char *p;
    const char *end;
    unsigned line;
    bool fed;       /* this line went to inih ... */
    bool handled;   /* ... which found key and value in it */
    bool in_bad;    /* in a section whose heading could not be read: its keys say nothing */
    bool full;      /* CONFIG_SECTIONS_MAX was reported */
    bool no_memory; /* was reported */
};

static void no_memory(struct reader *r)
{
    if (!r->no_memory)
        config_mistakes_add(r->m, 0, "there is not enough memory to read it");
    r->no_memory = true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The next line without line end and surrounding blanks. */
static bool next_line(struct reader *r, const char **out_p, size_t *out_len)
{
    const char *start = r->p;
    const char *stop;

    if (start == r->end)
        return false;
    stop = memchr(start, '\n', (size_t)(r->end - start));
    r->p = stop != NULL ? stop + 1 : r->end;
    if (stop == NULL)
        stop = r->end;
    if (stop > start && stop[-1] == '\r')
        stop--;
    while (start < stop && is_blank(*start))
        start++;
    while (stop > start && is_blank(stop[-1]))
        stop--;
    r->line++;
    *out_p = start;
    *out_len = (size_t)(stop - start);
    return true;
}

static bool has_control(const char *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (((unsigned char)p[i] < 0x20 && p[i] != '\t') || p[i] == 0x7f)
            return true;
    return false;
}

static bool is_usable(struct reader *r, const char *p, size_t len)
{
    if (len == 0 || *p == '#' || *p == ';')
        return false;
    if (has_control(p, len)) {
        config_mistakes_add(
            r->m, r->line,
            "the line holds a control character; save the file as plain text (UTF-8)");
        return false;
    }
    if (len > CONFIG_LINE_MAX) {
        config_mistakes_add(r->m, r->line,
                            "the line has %zu characters and at most %d can be read; a list may be "
                            "spread over several lines, each with the key in front",
                            len, CONFIG_LINE_MAX);
        return false;
    }
    return true;
}

static struct config_section *add_section(struct reader *r)
{
    struct config_document *doc = r->doc;
    struct config_section *list;

    if (doc->count == CONFIG_SECTIONS_MAX) {
        if (!r->full)
            config_mistakes_add(r->m, r->line, "there are more than %d sections",
                                CONFIG_SECTIONS_MAX);
        r->full = true;
        return NULL;
    }
    list = realloc(doc->sections, (doc->count + 1) * sizeof *list);
    if (list == NULL) {
        no_memory(r);
        return NULL;
    }
    doc->sections = list;
    list[doc->count] = (struct config_section){.line = r->line};
    return &list[doc->count++];
}

/* "[mailbox office]", perhaps with a comment behind. */
static void read_section(struct reader *r, const char *p, size_t len)
{
    const char *stop = memchr(p, ']', len);
    const char *after = stop != NULL ? stop + 1 : p + len;
    const char *kind = p + 1;
    const char *kind_end;
    struct config_section *s;

    while (after < p + len && is_blank(*after))
        after++;
    r->in_bad = true;
    if (stop == NULL || (after < p + len && *after != ';' && *after != '#')) {
        config_mistakes_add(r->m, r->line, "%s; write a section as [relay] or [mailbox office]",
                            stop == NULL ? "the ] is missing" : "there is text after the ]");
        return;
    }
    s = add_section(r);
    if (s == NULL)
        return;
    while (kind < stop && is_blank(*kind))
        kind++;
    while (stop > kind && is_blank(stop[-1]))
        stop--;
    for (kind_end = kind; kind_end < stop && !is_blank(*kind_end);)
        kind_end++;
    s->kind = strndup(kind, (size_t)(kind_end - kind));
    while (kind_end < stop && is_blank(*kind_end))
        kind_end++;
    s->name = strndup(kind_end, (size_t)(stop - kind_end));
    r->in_bad = s->kind == NULL || s->name == NULL;
    if (r->in_bad) {
        no_memory(r);
        free(s->kind);
        free(s->name);
        r->doc->count--;
    }
}

static void check_last_line(struct reader *r)
{
    if (r->fed && !r->handled)
        config_mistakes_add(
            r->m, r->line,
            "the line is neither a [section] nor key = value; a comment starts with #");
    r->fed = r->handled = false;
}

/* What inih calls to get a line, in the manner of fgets(). */
static char *feed_line(char *str, int num, void *stream)
{
    struct reader *r = stream;
    const char *p;
    size_t len;

    check_last_line(r);
    while (next_line(r, &p, &len)) {
        if (!is_usable(r, p, len))
            continue;
        if (*p == '[') {
            read_section(r, p, len);
            continue;
        }
        if ((int)len + 2 > num) {
            config_mistakes_add(r->m, r->line, "the line is too long for the inih library");
            continue;
        }
        memcpy(str, p, len);
        memcpy(str + len, "\n", 2);
        r->fed = true;
        return str;
    }
    return NULL;
}

static void add_entry(struct reader *r, struct config_section *s, const char *key,
                      const char *value)
{
    struct config_entry *list = realloc(s->entries, (s->count + 1) * sizeof *list);
    struct config_entry *e;

    if (list == NULL) {
        no_memory(r);
        return;
    }
    s->entries = list;
    e = &list[s->count];
    *e = (struct config_entry){strdup(key), strdup(value), r->line};
    if (e->key != NULL && e->value != NULL) {
        s->count++;
        return;
    }
    free(e->key);
    free(e->value);
    no_memory(r);
}

/* inih's section argument is of no use: section lines never reach it. */
static int take_entry(void *user, const char *section, const char *key, const char *value)
{
    struct reader *r = user;

    (void)section;
    if (value == NULL || *key == '\0')
        return 1;
    r->handled = true;
    if (r->in_bad)
        return 1;
    if (r->doc->count == 0)
        config_mistakes_add(
            r->m, r->line,
            "%.64s stands before the first [section]; is there still a # in front of the "
            "section's line?",
            key);
    else
        add_entry(r, &r->doc->sections[r->doc->count - 1], key, value);
    return 1;
}

static bool is_utf16(const char *text, size_t len)
{
    return len >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0);
}

void config_reader_read(struct config_document *doc, const char *text, size_t len,
                        struct config_mistakes *m)
{
    struct reader r = {.doc = doc, .m = m, .p = text, .end = text + len};

    *doc = (struct config_document){NULL, 0};
    if (len > CONFIG_FILE_MAX) {
        config_mistakes_add(m, 0, "it is larger than %zu octets", CONFIG_FILE_MAX);
        return;
    }
    if (len == 0) {
        config_mistakes_add(m, 0,
                            "the file is empty; write a section [mailbox office] into it, as "
                            "outtray.conf(5) shows");
        return;
    }
    if (is_utf16(text, len)) {
        config_mistakes_add(m, 1, "the file is UTF-16 text; save it as UTF-8");
        return;
    }
    if (len >= sizeof BOM - 1 && memcmp(text, BOM, sizeof BOM - 1) == 0)
        r.p += sizeof BOM - 1;
    /* Its result is the first line without key and value, which we have reported already. */
    if (ini_parse_stream(feed_line, &r, take_entry, &r) < 0)
        no_memory(&r);
}

void config_document_done(struct config_document *doc)
{
    for (size_t i = 0; i < doc->count; i++) {
        struct config_section *s = &doc->sections[i];

        for (size_t j = 0; j < s->count; j++) {
            free(s->entries[j].key);
            free(s->entries[j].value);
        }
        free(s->entries);
        free(s->kind);
        free(s->name);
    }
    free(doc->sections);
    *doc = (struct config_document){NULL, 0};
}
