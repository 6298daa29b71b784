#include "relay/submit/flight.h"

#include <assert.h>
#include <string.h>

#include "relay/smtp/words.h"

size_t flight_pending(const struct envelope *e, size_t i)
{
    while (i < e->recipient_count && e->recipients[i].state != RECIPIENT_PENDING)
        i++;
    return i;
}

/* ---- commands -------------------------------------------------------------------------------- */

static bool is_ascii(const char *text)
{
    return words_is_ascii(text, strlen(text));
}

/* Headers alone do not ask for SMTPUTF8: servers that announce it have been seen to refuse it. */
static bool needs_smtputf8(const struct client_transaction *tx)
{
    const struct envelope *e = tx->envelope;

    if (!is_ascii(tx->reverse_path))
        return true;
    for (size_t i = flight_pending(e, 0); i < e->recipient_count; i = flight_pending(e, i + 1))
        if (!is_ascii(e->recipients[i].forward_path))
            return true;
    return false;
}

/* Paths have been checked before; this makes sure that none can ever become a second command. */
static void add_path(struct bytes *out, const char *path)
{
    for (; *path != '\0'; path++) {
        unsigned char c = (unsigned char)*path;

        bytes_byte(out, c < 0x20 || c == 0x7f ? '?' : c);
    }
}

/* What the device asked for by DSN parameters (RFC 3461), where the server knows them. A blank in
 * the value, which none has that was checked on its way in, would make two of one. */
static void add_dsn(const struct ehlo *facts, struct bytes *out, const char *name,
                    const char *value)
{
    if (!facts->dsn || *value == '\0' || strchr(value, ' ') != NULL || !is_ascii(value))
        return;
    bytes_printf(out, " %s=", name);
    add_path(out, value);
}

void flight_say_mail(const struct flight *t, const struct ehlo *facts, struct bytes *out)
{
    const struct client_transaction *tx = &t->tx;

    bytes_text(out, "MAIL FROM:<");
    add_path(out, tx->reverse_path);
    bytes_text(out, ">");
    if (facts->has_size && tx->size > 0)
        bytes_printf(out, " SIZE=%llu", (unsigned long long)tx->size);
    if (facts->eight_bit_mime && tx->envelope->body == ENVELOPE_BODY_8BITMIME)
        bytes_text(out, " BODY=8BITMIME");
    if (facts->smtputf8 && needs_smtputf8(tx))
        bytes_text(out, " SMTPUTF8");
    add_dsn(facts, out, "RET", tx->envelope->ret);
    add_dsn(facts, out, "ENVID", tx->envelope->envid);
    bytes_text(out, "\r\n");
}

void flight_say_rcpt(struct flight *t, const struct ehlo *facts, struct bytes *out)
{
    const struct envelope *e = t->tx.envelope;
    const struct recipient *r = &e->recipients[t->ask];

    bytes_text(out, "RCPT TO:<");
    add_path(out, r->forward_path);
    bytes_text(out, ">");
    add_dsn(facts, out, "NOTIFY", r->notify);
    add_dsn(facts, out, "ORCPT", r->orcpt);
    bytes_text(out, "\r\n");
    t->asked++;
    t->ask = flight_pending(e, t->ask + 1);
    if (t->ask == e->recipient_count)
        t->next = NEXT_DATA;
}

void flight_say_bdat(const struct flight *t, struct bytes *out)
{
    bytes_printf(out, "BDAT %llu LAST\r\n", (unsigned long long)t->tx.size);
}

/* ---- those under way ------------------------------------------------------------------------- */

struct flight *flights_at(struct flights *f, size_t i)
{
    assert(i < f->count);
    return &f->list[(f->first + i) % CLIENT_FLIGHTS_MAX];
}

struct flight *flights_oldest(struct flights *f)
{
    return f->count > 0 ? flights_at(f, 0) : NULL;
}

struct flight *flights_newest(struct flights *f)
{
    return f->count > 0 ? flights_at(f, f->count - 1) : NULL;
}

struct flight *flights_add(struct flights *f, const struct flight *t)
{
    assert(f->count < CLIENT_FLIGHTS_MAX);
    f->count++;
    *flights_newest(f) = *t;
    return flights_newest(f);
}

void flights_drop_oldest(struct flights *f)
{
    assert(f->count > 0);
    f->first = (f->first + 1) % CLIENT_FLIGHTS_MAX;
    f->count--;
}

void flights_drop_newest(struct flights *f)
{
    assert(f->count > 0);
    f->count--;
}
