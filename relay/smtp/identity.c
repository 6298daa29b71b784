#include "relay/smtp/identity.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "relay/smtp/address_list.h"
#include "relay/smtp/header.h"
#include "relay/smtp/words.h"

#define NAME_MAX_OCTETS 512 /* of a display name */
#define ANSWER_MAX      (4 * ADDRESS_PATH_MAX)

/* Domains that nobody outside can send to (RFC 2606, RFC 6762, RFC 8375, and what devices use). */
static const char *const private_domains[] = {
    "local", "localdomain", "localhost", "lan",  "internal", "intranet", "home",
    "corp",  "private",     "invalid",   "test", "example",  "home.arpa"};

/* ---- addresses ------------------------------------------------------------------------------- */

static const char *domain_of(const char *address)
{
    const char *at = strrchr(address, '@');
    return at != NULL ? at + 1 : "";
}

static bool ends_in_domain(const char *domain, const char *suffix)
{
    size_t len = strlen(domain);
    size_t n = strlen(suffix);
    return len >= n && strcasecmp(domain + len - n, suffix) == 0 &&
           (len == n || domain[len - n - 1] == '.');
}

bool identity_may_use(const struct identity *id, const char *address)
{
    if (strcasecmp(address, id->mailbox) == 0)
        return true;
    for (size_t i = 0; i < id->send_as_count; i++) {
        if (address_is_listed(id->send_as[i], address))
            return true;
    }
    return false;
}

bool identity_is_answerable(const char *address)
{
    const char *domain = domain_of(address);
    const char *last = strrchr(domain, '.');
    if (last == NULL || last == domain || domain[0] == '[')
        return false;
    if (strspn(last + 1, "0123456789") == strlen(last + 1)) /* an address without its brackets */
        return false;
    for (size_t i = 0; i < sizeof private_domains / sizeof *private_domains; i++) {
        if (ends_in_domain(domain, private_domains[i]))
            return false;
    }
    return true;
}

/* What stands in From when the original may not. */
static const char *own_address(const struct identity *id)
{
    return id->how == IDENTITY_FIXED ? id->from : id->mailbox;
}

void identity_reverse_path(const struct identity *id, const char *reverse_path,
                           char out[ADDRESS_PATH_MAX])
{
    const char *path = own_address(id);
    if (*reverse_path != '\0' && (id->how == IDENTITY_KEEP || (id->how == IDENTITY_REWRITE &&
                                                               identity_may_use(id, reverse_path))))
        path = reverse_path;
    snprintf(out, ADDRESS_PATH_MAX, "%s", path);
}

/* ---- fields ---------------------------------------------------------------------------------- */

/* What a From or Sender field says. */
struct senders {
    size_t count;
    bool usable;                    /* every one of them may be used */
    bool answerable;                /* every one of them */
    char name[NAME_MAX_OCTETS];     /* the first one's display name, as it stands */
    char address[ADDRESS_PATH_MAX]; /* the first one, or "" */
};

struct work {
    const struct identity *id;
    struct header header;
    struct bytes value; /* of the field at hand, unfolded */
    struct bytes field; /* what takes its place */
};

/* The field's value on one line. False without memory. */
static bool read_value(struct work *w, const struct header_field *f)
{
    size_t len;
    const char *value = header_value(&w->header, f, &len);
    bytes_clear(&w->value);
    for (size_t i = 0; i < len; i++) {
        if (value[i] != '\r' && value[i] != '\n' && !bytes_byte(&w->value, (uint8_t)value[i]))
            return false;
    }
    return true;
}

static void look_at(const struct identity *id, const struct address_list_item *item,
                    struct senders *out)
{
    struct address a;
    const char *problem;
    bool known =
        address_parse(item->address, item->address_len, ADDRESS_REVERSE_PATH, &a, &problem);
    if (out->count == 0 && known)
        snprintf(out->address, sizeof out->address, "%s", a.path);
    if (out->count == 0)
        snprintf(out->name, sizeof out->name, "%.*s", (int)item->name_len, item->name);
    out->count++;
    out->usable &= known && identity_may_use(id, a.path);
    /* Only a message that is submitted with SMTPUTF8 could be answered there. */
    out->answerable &= known && !a.utf8 && identity_is_answerable(a.path);
}

static struct senders read_senders(struct work *w)
{
    struct senders s = {.usable = true, .answerable = true};
    struct address_list_item item;
    size_t len = w->value.len;
    const char *text = bytes_string(&w->value);
    while (address_list_take(&text, &len, &item)) {
        if (item.name_len >= sizeof s.name)
            item.name_len = 0;
        look_at(w->id, &item, &s);
    }
    s.usable &= s.count > 0;
    s.answerable &= s.count > 0 && w->value.len < ANSWER_MAX;
    return s;
}

/* The display name: configured, else what stood there, else the device's. */
static bool write_name(struct work *w, struct words *words, const struct senders *was)
{
    const char *name = w->id->name;
    if (*name == '\0' && was->name[0] != '\0')
        return words_raw(words, " ", 1) && words_raw(words, was->name, strlen(was->name));
    if (*name == '\0')
        name = w->id->device;
    return *name == '\0' || words_phrase(words, name, strlen(name));
}

/* Addresses anew, their names in encoded words; utf8: addresses may hold octets above 127. */
static bool write_addresses(struct words *words, const char *text, size_t len, bool utf8)
{
    const struct address_list_use use = {.hostname = "", .utf8 = utf8};
    size_t count;
    return address_list_write(words, text, len, &use, &count) && count > 0;
}

/* A name that stood there in UTF-8. */
static bool write_encoded_from(struct work *w, struct words *words, const struct senders *was)
{
    char text[NAME_MAX_OCTETS + ADDRESS_PATH_MAX + sizeof " <>"];
    snprintf(text, sizeof text, "%s <%s>", was->name, own_address(w->id));
    return write_addresses(words, text, strlen(text), true);
}

static bool write_from(struct work *w, const struct senders *was)
{
    struct words words = {.out = &w->field, .charset = WORDS_CHARSET_DEFAULT};
    if (!words_raw(&words, "From:", 5))
        return false;
    if (w->id->name[0] == '\0' && !words_is_ascii(was->name, strlen(was->name)))
        return write_encoded_from(w, &words, was);
    return write_name(w, &words, was) && bytes_printf(&w->field, " <%s>", own_address(w->id));
}

/* At most ANSWER_MAX octets of whole characters. */
static size_t cut(const char *text, size_t len)
{
    if (len <= ANSWER_MAX)
        return len;
    for (len = ANSWER_MAX; len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80; len--)
        ;
    return len;
}

/* What is not ASCII, for people to read. */
static bool write_encoded_as(struct work *w, const char *name, bool addresses)
{
    struct words words = {.out = &w->field, .charset = WORDS_CHARSET_DEFAULT};
    const char *text = bytes_string(&w->value);
    size_t len = w->value.len;
    for (; len > 0 && (*text == ' ' || *text == '\t'); text++, len--)
        ;
    return words_raw(&words, name, strlen(name)) &&
           (addresses ? write_addresses(&words, text, len, false)
                      : words_text(&words, text, cut(text, len))) &&
           bytes_text(&w->field, "\r\n");
}

/* The field, whose value was read, under another name: the original octets, since what they say may
 * be too long for one line; but never any above 127, for which nobody has asked upstream (RFC 6532
 * 3.7). */
static bool write_as(struct work *w, const char *name, const struct header_field *f, bool addresses)
{
    size_t len;
    const char *value = header_value(&w->header, f, &len);
    if (!words_is_ascii(value, len))
        return write_encoded_as(w, name, addresses);
    return bytes_text(&w->field, name) && bytes_append(&w->field, value, len);
}

static bool replace_from(struct work *w, struct header_field *f, const struct senders *was)
{
    bool reply = was->answerable && header_find(&w->header, HEADER_REPLY_TO) == NULL;
    bytes_clear(&w->field);
    return write_from(w, was) && bytes_text(&w->field, "\r\n") &&
           write_as(w, reply ? "Reply-To:" : "X-Original-From:", f, reply) &&
           header_replace(&w->header, f, w->field.data, w->field.len);
}

static bool stays(const struct work *w, const struct senders *s)
{
    if (w->id->how == IDENTITY_FIXED)
        return s->count == 1 && strcasecmp(s->address, w->id->from) == 0;
    return s->usable;
}

/* *out_count: addresses in the From that is sent. */
static bool apply_from(struct work *w, size_t *out_count)
{
    struct header_field *f = header_find(&w->header, HEADER_FROM);
    struct senders was = {.count = 0};
    *out_count = 1;
    bytes_clear(&w->field);
    if (f == NULL)
        return write_from(w, &was) && header_add(&w->header, bytes_string(&w->field));
    if (!read_value(w, f))
        return false;
    was = read_senders(w);
    if (!stays(w, &was))
        return replace_from(w, f, &was);
    *out_count = was.count;
    return true;
}

static bool apply_sender(struct work *w, size_t from_count)
{
    struct header_field *f = header_find(&w->header, HEADER_SENDER);
    bool usable = false;
    if (f != NULL) {
        if (!read_value(w, f))
            return false;
        usable = read_senders(w).usable;
    }
    if (f != NULL && !usable) {
        bytes_clear(&w->field);
        if (!write_as(w, "X-Original-Sender:", f, false) ||
            !header_replace(&w->header, f, w->field.data, w->field.len))
            return false;
    }
    if (usable || from_count < 2)
        return true;
    bytes_clear(&w->field);
    return bytes_printf(&w->field, "Sender: <%s>", own_address(w->id)) &&
           header_add(&w->header, bytes_string(&w->field));
}

/* ---- what is not ASCII ----------------------------------------------------------------------- */

enum encoding { ENCODING_NONE, ENCODING_TEXT, ENCODING_ADDRESSES };

static const enum encoding encodings[HEADER_NAME_COUNT] = {
    [HEADER_OTHER] = ENCODING_TEXT,         [HEADER_TEXT] = ENCODING_TEXT,
    [HEADER_SUBJECT] = ENCODING_TEXT,       [HEADER_FROM] = ENCODING_ADDRESSES,
    [HEADER_SENDER] = ENCODING_ADDRESSES,   [HEADER_REPLY_TO] = ENCODING_ADDRESSES,
    [HEADER_TO] = ENCODING_ADDRESSES,       [HEADER_CC] = ENCODING_ADDRESSES,
    [HEADER_ADDRESSES] = ENCODING_ADDRESSES};

/* An address beyond ASCII has no other form, and stays: the message is worth more than its header.
 */
static bool write_encoded(struct work *w, const struct header_field *f)
{
    struct words words = {.out = &w->field, .charset = WORDS_CHARSET_DEFAULT};
    const char *text = bytes_string(&w->value);
    size_t len = w->value.len;
    for (; len > 0 && (*text == ' ' || *text == '\t'); text++, len--)
        ;
    return words_raw(&words, (const char *)w->header.text.data + f->offset, f->name_len) &&
           words_raw(&words, ":", 1) &&
           (encodings[f->name] == ENCODING_TEXT ? words_text(&words, text, len)
                                                : write_addresses(&words, text, len, true)) &&
           bytes_text(&w->field, "\r\n");
}

/* One that cannot be written, for its size, stays as it is. */
static bool encode_fields(struct work *w)
{
    for (size_t i = 0; i < w->header.field_count; i++) {
        struct header_field *f = &w->header.fields[i];
        size_t len;
        const char *value = header_value(&w->header, f, &len);
        if (f->action != HEADER_KEEP || encodings[f->name] == ENCODING_NONE ||
            words_is_ascii(value, len))
            continue;
        if (!read_value(w, f))
            return false;
        bytes_clear(&w->field);
        if (write_encoded(w, f))
            (void)header_replace(&w->header, f, w->field.data, w->field.len);
    }
    return true;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool is_changed(const struct header *h)
{
    if (h->added.len > 0)
        return true;
    for (size_t i = 0; i < h->field_count; i++) {
        if (h->fields[i].action != HEADER_KEEP)
            return true;
    }
    return false;
}

static bool parse(struct header *h, const uint8_t *data, size_t len)
{
    while (len > 0 && h->state == HEADER_MORE) {
        size_t n = len < HEADER_CHUNK_MAX ? len : HEADER_CHUNK_MAX;
        header_feed(h, data, n);
        data += n;
        len -= n;
    }
    if (h->state == HEADER_MORE)
        header_finish(h);
    return h->state != HEADER_NO_MEMORY;
}

static bool apply(struct work *w, struct bytes *out, bool *out_changed)
{
    size_t from_count = 1;
    uint32_t size;
    struct bytes none;
    if (w->header.state != HEADER_DONE)
        return w->header.state == HEADER_TOO_LARGE;
    if (w->id->how != IDENTITY_KEEP &&
        (!apply_from(w, &from_count) || !apply_sender(w, from_count)))
        return false;
    if (w->id->ascii && !encode_fields(w))
        return false;
    if (!is_changed(&w->header))
        return true;
    bytes_init(&none, 0);
    *out_changed = header_write(&w->header, &none, out, &size);
    bytes_done(&none);
    return *out_changed;
}

bool identity_apply(const struct identity *id, const void *header, size_t len, struct bytes *out,
                    bool *out_changed)
{
    struct work w = {.id = id};
    *out_changed = false;
    header_init(&w.header);
    bytes_init(&w.value, HEADER_MAX);
    bytes_init(&w.field, 2 * HEADER_MAX);
    bool ok = parse(&w.header, header, len) && apply(&w, out, out_changed);
    bytes_done(&w.value);
    bytes_done(&w.field);
    header_done(&w.header);
    return ok;
}
