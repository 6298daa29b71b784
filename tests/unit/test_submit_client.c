#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "relay/submit/client.h"

/* ---- what stands in for streams, timers, lookups and letters --------------------------------- */

struct stream {
    const struct stream_events *on;
    void *ctx;
    struct net_address address;
    struct stream *next;
    char sent[2048];
    bool shut;
};

static struct stream *streams; /* newest first */
static unsigned refused_at_once;

struct event {
    event_callback_fn fn;
    void *ctx;
    bool set;
    uint64_t ms;
};

static struct event *timer; /* of the one client */

struct event *event_new(struct event_base *base, evutil_socket_t fd, short what,
                        event_callback_fn fn, void *ctx)
{
    (void)base;
    (void)fd;
    (void)what;
    timer = calloc(1, sizeof(*timer));
    assert_non_null(timer);
    *timer = (struct event){.fn = fn, .ctx = ctx};
    return timer;
}

int event_add(struct event *e, const struct timeval *tv)
{
    e->set = true;
    e->ms = (uint64_t)tv->tv_sec * 1000 + (uint64_t)tv->tv_usec / 1000;
    return 0;
}

int event_del(struct event *e)
{
    e->set = false;
    return 0;
}

void event_free(struct event *e)
{
    free(e);
    timer = NULL;
}

static void let_it_pass(void)
{
    assert_true(timer->set);
    timer->set = false;
    timer->fn(-1, EV_TIMEOUT, timer->ctx);
}

struct event_base *stream_loop_base(const struct stream_loop *loop)
{
    (void)loop;
    return NULL;
}

struct stream *stream_connect(struct stream_loop *loop, const struct net_address *address,
                              uint16_t port, const struct stream_events *events, void *ctx,
                              struct error *err)
{
    struct stream *s;
    (void)loop;
    (void)port;
    if (refused_at_once > 0) {
        refused_at_once--;
        error_set(err, ERROR_IO, "no way there");
        return NULL;
    }
    s = calloc(1, sizeof(*s));
    assert_non_null(s);
    *s = (struct stream){.on = events, .ctx = ctx, .address = *address, .next = streams};
    streams = s;
    return s;
}

void stream_free(struct stream *s)
{
    struct stream **at = &streams;
    if (s == NULL)
        return;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free(s);
}

bool stream_write(struct stream *s, const void *data, size_t len)
{
    size_t have = strlen(s->sent);
    assert_true(have + len < sizeof(s->sent));
    memcpy(s->sent + have, data, len);
    return true;
}

size_t stream_pending(const struct stream *s)
{
    (void)s;
    return 0;
}

void stream_set_timeout(struct stream *s, uint64_t ms)
{
    (void)s;
    (void)ms;
}

void stream_start_tls_client(struct stream *s, struct tls_context *tls, const char *host)
{
    (void)tls;
    (void)host;
    s->on->on_secure(s->ctx);
}

const char *stream_tls_text(struct stream *s)
{
    (void)s;
    return "TLS";
}

const char *stream_peer_text(const struct stream *s)
{
    (void)s;
    return "192.0.2.1";
}

void stream_shutdown(struct stream *s, uint64_t linger_ms)
{
    (void)linger_ms;
    s->shut = true;
}

static dns_answered *answered;
static void *answered_ctx;

struct dns_query *dns_lookup(struct dns *dns, const char *host, dns_answered *fn, void *ctx,
                             struct error *err)
{
    (void)dns;
    (void)host;
    (void)err;
    answered = fn;
    answered_ctx = ctx;
    return (struct dns_query *)&answered;
}

void dns_cancel(struct dns_query *q)
{
    (void)q;
}

static struct letter *read_letter; /* whose read is under way */
static queue_read_fn *read_done;
static void *read_ctx;

void letter_read(struct letter *l, queue_read_fn *done, void *ctx)
{
    assert_null(read_letter); /* one at a time */
    read_letter = l;
    read_done = done;
    read_ctx = ctx;
}

static bool converted;

void letter_convert(struct letter *l)
{
    (void)l;
    converted = true;
}

/* ---- the fixture ----------------------------------------------------------------------------- */

struct owner {
    struct client *client;
    unsigned slots_free;
    unsigned slots; /* taken, the client's own included */
    unsigned ready;
    unsigned closed;
    bool quits;              /* when it is ready again */
    void *doubted;           /* whose mark was asked for last */
    char results[1000];      /* lines */
    enum client_stage stage; /* of the failure */
    struct reply failure;
};

static bool take_slot(void *ctx, struct client *c)
{
    struct owner *o = ctx;
    (void)c;
    if (o->slots_free == 0)
        return false;
    o->slots_free--;
    o->slots++;
    return true;
}

static void give_slot(void *ctx, struct client *c)
{
    struct owner *o = ctx;
    (void)c;
    assert_true(o->slots > 1);
    o->slots--;
}

static void on_ready(void *ctx, struct client *c)
{
    struct owner *o = ctx;
    o->ready++;
    if (o->quits)
        client_quit(c);
}

static void on_recipient(void *ctx, struct client *c, void *whose, size_t index,
                         const struct reply *reply)
{
    (void)ctx;
    (void)c;
    (void)whose;
    (void)index;
    (void)reply;
}

static void on_doubt(void *ctx, struct client *c, void *whose)
{
    struct owner *o = ctx;
    (void)c;
    o->doubted = whose;
}

static void on_result(void *ctx, struct client *c, void *whose, enum client_stage stage,
                      const struct reply *reply)
{
    struct owner *o = ctx;
    char text[200];
    (void)c;
    reply_format(reply, text, sizeof(text));
    size_t have = strlen(o->results);
    snprintf(o->results + have, sizeof(o->results) - have, "%s %s %s\n",
             whose != NULL ? (const char *)whose : "-", client_stage_name(stage), text);
}

static void on_failed(void *ctx, struct client *c, enum client_stage stage,
                      const struct reply *reply)
{
    struct owner *o = ctx;
    (void)c;
    o->stage = stage;
    o->failure = *reply;
}

static void on_closed(void *ctx, struct client *c, bool peer_closed)
{
    (void)c;
    (void)peer_closed;
    ((struct owner *)ctx)->closed++;
}

static const struct client_events events = {.take_slot = take_slot,
                                            .give_slot = give_slot,
                                            .on_ready = on_ready,
                                            .on_recipient = on_recipient,
                                            .on_doubt = on_doubt,
                                            .on_result = on_result,
                                            .on_failed = on_failed,
                                            .on_closed = on_closed};
static const struct client_target target = {.mailbox = "office",
                                            .host = "smtp.example",
                                            .port = 465,
                                            .implicit_tls = true,
                                            .helo = "relay.example"};

static int set_up(void **state)
{
    struct owner *o = calloc(1, sizeof(*o));
    assert_non_null(o);
    *o = (struct owner){.slots = 1, .slots_free = 2};
    refused_at_once = 0;
    converted = false;
    read_letter = NULL;
    o->client = client_new(NULL, NULL, &target, 1, &events, o);
    assert_non_null(o->client);
    *state = o;
    return 0;
}

static int tear_down(void **state)
{
    struct owner *o = *state;
    client_free(o->client);
    assert_null(streams);
    assert_null(timer);
    free(o);
    return 0;
}

/* So many addresses, told apart by their last octet. */
static void resolve(size_t count)
{
    struct net_address list[DNS_ADDRESSES_MAX] = {{0}};
    struct error err = ERROR_INIT;
    for (size_t i = 0; i < count; i++) {
        list[i].family = i % 2 == 0 ? 6 : 4;
        list[i].bytes[0] = (uint8_t)i;
    }
    answered(answered_ctx, list, count, &err);
}

static size_t running(void)
{
    size_t n = 0;
    for (const struct stream *s = streams; s != NULL; s = s->next)
        n++;
    return n;
}

static struct stream *stream_to(uint8_t number)
{
    struct stream *s = streams;
    while (s != NULL && s->address.bytes[0] != number)
        s = s->next;
    assert_non_null(s);
    return s;
}

static void refuse(struct stream *s)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_IO, "refused");
    s->on->on_end(s->ctx, STREAM_END_REFUSED, &err);
}

static void say(const char *text)
{
    assert_int_equal(streams->on->on_data(streams->ctx, (const uint8_t *)text, strlen(text)),
                     strlen(text));
}

/* ---- addresses that race --------------------------------------------------------------------- */

static void the_next_address_starts_beside_one_that_is_silent(void **state)
{
    struct owner *o = *state;
    resolve(3);
    assert_int_equal(running(), 1);
    assert_int_equal(streams->address.bytes[0], 0);
    assert_int_equal(timer->ms, CLIENT_STAGGER_MS);
    let_it_pass();
    assert_int_equal(running(), 2);
    assert_int_equal(o->slots, 2);
    let_it_pass();
    assert_int_equal(running(), 3);
    assert_int_equal(o->slots, 3);
    assert_false(timer->set);
}

static void the_first_that_answers_wins_and_the_others_go(void **state)
{
    struct owner *o = *state;
    resolve(3);
    let_it_pass();
    let_it_pass();
    struct stream *winner = stream_to(1);
    winner->on->on_connected(winner->ctx);
    assert_int_equal(running(), 1);
    assert_int_equal(streams->address.bytes[0], 1);
    assert_int_equal(o->slots, 1);
    say("220 hello\r\n");
    assert_string_equal(streams->sent, "EHLO relay.example\r\n");
    say("250 hello\r\n");
    assert_int_equal(o->ready, 1);
}

static void one_that_fails_leaves_its_slot_to_the_next(void **state)
{
    struct owner *o = *state;
    o->slots_free = 0;
    resolve(3);
    refuse(stream_to(0));
    assert_int_equal(running(), 1);
    assert_int_equal(streams->address.bytes[0], 1);
    assert_int_equal(timer->ms, CLIENT_STAGGER_MS);
    assert_int_equal(o->slots, 1);
}

static void without_a_free_slot_the_next_waits_for_the_first_to_fail(void **state)
{
    struct owner *o = *state;
    o->slots_free = 0;
    resolve(2);
    let_it_pass();
    assert_int_equal(running(), 1);
    assert_false(timer->set);
    refuse(stream_to(0));
    assert_int_equal(streams->address.bytes[0], 1);
    assert_int_equal(o->slots, 1);
}

static void never_more_than_so_many_at_once(void **state)
{
    struct owner *o = *state;
    o->slots_free = 100;
    resolve(CLIENT_RACE_MAX + 3);
    for (size_t i = 1; i < CLIENT_RACE_MAX; i++)
        let_it_pass();
    assert_int_equal(running(), CLIENT_RACE_MAX);
    let_it_pass();
    assert_int_equal(running(), CLIENT_RACE_MAX);
    assert_int_equal(o->slots, CLIENT_RACE_MAX);
}

static void when_all_have_failed_the_upstream_is_unreachable(void **state)
{
    struct owner *o = *state;
    resolve(3);
    let_it_pass();
    refuse(stream_to(0));
    refuse(stream_to(1));
    assert_int_equal(o->closed, 0);
    refuse(stream_to(2));
    assert_int_equal(o->closed, 1);
    assert_int_equal(o->slots, 1);
    assert_int_equal(o->failure.local, LOCAL_CONNECT);
    assert_string_equal(o->failure.text, "refused");
}

static void addresses_that_cannot_be_tried_are_skipped(void **state)
{
    struct owner *o = *state;
    refused_at_once = 2;
    resolve(3);
    assert_int_equal(running(), 1);
    assert_int_equal(streams->address.bytes[0], 2);
    assert_int_equal(o->slots, 1);
}

static void a_slot_for_nothing_is_given_back(void **state)
{
    struct owner *o = *state;
    resolve(2);
    refused_at_once = 1;
    let_it_pass();
    assert_int_equal(running(), 1);
    assert_int_equal(o->slots, 1);
    assert_int_equal(o->closed, 0);
}

/* ---- replies --------------------------------------------------------------------------------- */

static void a_reply_in_drops_ends_in_time(void **state)
{
    struct owner *o = *state;
    resolve(1);
    streams->on->on_connected(streams->ctx);
    assert_int_equal(timer->ms, CLIENT_REPLY_TIMES * client_stage_timeout(STAGE_BANNER));
    timer->ms = 1; /* would be overwritten */
    say("2");
    say("2");
    assert_int_equal(timer->ms, 1);
    say("0 hello\r\n");
    assert_int_equal(timer->ms, CLIENT_REPLY_TIMES * client_stage_timeout(STAGE_EHLO));
    say("250-hel");
    let_it_pass();
    assert_int_equal(o->failure.local, LOCAL_TIMEOUT);
    assert_int_equal(o->stage, STAGE_EHLO);
    assert_true(streams->shut);
    assert_false(timer->set);
}

static void an_idle_connection_waits_for_no_reply(void **state)
{
    struct owner *o = *state;
    resolve(1);
    streams->on->on_connected(streams->ctx);
    say("220 hello\r\n");
    say("250 hello\r\n");
    assert_int_equal(o->ready, 1);
    assert_false(timer->set);
}

/* ---- 8-bit mail ------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    const char *offer;
    enum envelope_body body;
    bool converted;
    const char *mail;
} bodies[] = {
    {"8-bit mail to a server that takes it", "250-x\r\n250-8BITMIME\r\n250 SIZE\r\n",
     ENVELOPE_BODY_8BITMIME, false, "MAIL FROM:<a@b.example> SIZE=5 BODY=8BITMIME\r\n"},
    {"8-bit mail to one that does not", "250-x\r\n250 SIZE\r\n", ENVELOPE_BODY_8BITMIME, true,
     "MAIL FROM:<a@b.example>\r\n"},
    {"7-bit mail to one that does not", "250-x\r\n250 SIZE\r\n", ENVELOPE_BODY_7BIT, false,
     "MAIL FROM:<a@b.example> SIZE=5\r\n"},
    {"7-bit mail to one that would", "250-x\r\n250-8BITMIME\r\n250 SIZE\r\n", ENVELOPE_BODY_7BIT,
     false, "MAIL FROM:<a@b.example> SIZE=5\r\n"},
};

static void eight_bit_mail_is_converted_where_it_must_be(void **state)
{
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        struct recipient r = {
            .forward_path = (char[]){"c@d.example"}, .notify = (char[]){""}, .orcpt = (char[]){""}};
        struct envelope e = {.recipients = &r,
                             .recipient_count = 1,
                             .body = bodies[i].body,
                             .ret = (char[]){""},
                             .envid = (char[]){""}};
        const struct client_transaction tx = {
            .reverse_path = "a@b.example", .envelope = &e, .size = 5};
        struct owner *o = *state;
        print_message("  %s\n", bodies[i].name);
        resolve(1);
        streams->on->on_connected(streams->ctx);
        say("220 hello\r\n");
        say(bodies[i].offer);
        memset(streams->sent, 0, sizeof(streams->sent));
        client_submit(o->client, &tx, (struct letter *)&converted);
        assert_string_equal(streams->sent, bodies[i].mail);
        assert_int_equal(converted, bodies[i].converted);
        tear_down(state);
        set_up(state);
    }
}

/* ---- several at a time ----------------------------------------------------------------------- */

static const struct client_target shared_target = {.mailbox = "office",
                                                   .host = "smtp.example",
                                                   .port = 465,
                                                   .implicit_tls = true,
                                                   .in_flight = 4,
                                                   .helo = "relay.example"};

static int set_up_shared(void **state)
{
    (void)set_up(state);
    struct owner *o = *state;
    client_free(o->client);
    o->client = client_new(NULL, NULL, &shared_target, 1, &events, o);
    assert_non_null(o->client);
    resolve(1);
    streams->on->on_connected(streams->ctx);
    say("220 hello\r\n");
    say("250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
    return 0;
}

static struct recipient somebody = {
    .forward_path = (char[]){"c@d.example"}, .notify = (char[]){""}, .orcpt = (char[]){""}};
static const struct envelope envelope = {
    .recipients = &somebody, .recipient_count = 1, .ret = (char[]){""}, .envid = (char[]){""}};

/* Both the letter and its owner are the name. */
static void submit(struct owner *o, const char *name, uint64_t size)
{
    const struct client_transaction tx = {.reverse_path = name,
                                          .envelope = &envelope,
                                          .size = size,
                                          .warm = true,
                                          .owner = (void *)name};
    client_submit(o->client, &tx, (struct letter *)name);
}

static void sent(const char *text)
{
    assert_string_equal(streams->sent, text);
    memset(streams->sent, 0, sizeof(streams->sent));
}

static void give(const char *name, const char *text)
{
    assert_non_null(read_letter);
    assert_string_equal((const char *)read_letter, name);
    read_letter = NULL;
    read_done(read_ctx, (const uint8_t *)text, strlen(text), NULL);
}

/* Its body and its mark. */
static void let_leave(struct owner *o, const char *name)
{
    give(name, "hello");
    give(name, "");
    assert_string_equal(o->doubted, name);
    client_doubted(o->client, true);
}

#define TAKEN "250 ok\r\n250 ok\r\n250 taken\r\n"

/* A chunk has succeeded. */
static void warm_up(struct owner *o)
{
    memset(streams->sent, 0, sizeof(streams->sent));
    assert_false(client_has_room(o->client));
    submit(o, "first", 5);
    assert_false(client_has_room(o->client));
    say("250 ok\r\n250 ok\r\n");
    let_leave(o, "first");
    sent("MAIL FROM:<first>\r\nRCPT TO:<c@d.example>\r\nBDAT 5 LAST\r\nhello");
    say("250 taken\r\n");
    assert_string_equal(o->results, "first final-dot 250 taken\n");
    memset(o->results, 0, sizeof(o->results));
}

static void what_may_not_fly_yet_waits_in_line(void **state)
{
    struct owner *o = *state;
    warm_up(o);
    submit(o, "a", 5);
    submit(o, "b", 5);
    assert_true(client_has_room(o->client));
    submit(o, "large", CLIENT_FLIGHT_MAX + 1);
    submit(o, "c", 5);
    assert_false(client_has_room(o->client)); /* four */
    sent("");
    let_leave(o, "a");
    sent("MAIL FROM:<a>\r\nRCPT TO:<c@d.example>\r\nBDAT 5 LAST\r\nhello");
    let_leave(o, "b");
    sent("MAIL FROM:<b>\r\nRCPT TO:<c@d.example>\r\nBDAT 5 LAST\r\nhello");
    assert_null(read_letter);
    say(TAKEN);
    assert_false(client_has_room(o->client)); /* the large one is in the way */
    sent("");
    say(TAKEN);
    assert_string_equal(o->results, "a final-dot 250 taken\nb final-dot 250 taken\n");
    sent("MAIL FROM:<large>\r\nRCPT TO:<c@d.example>\r\n");
    assert_null(read_letter);
    say("250 ok\r\n550 no\r\n");
    assert_non_null(strstr(o->results, "large rcpt 550 no\n"));
    sent("RSET\r\nMAIL FROM:<c>\r\nRCPT TO:<c@d.example>\r\n");
}

static void a_session_that_ends_gives_back_what_waits(void **state)
{
    struct owner *o = *state;
    struct error err = ERROR_INIT;
    warm_up(o);
    submit(o, "a", 5);
    submit(o, "b", 5);
    submit(o, "c", 5);
    let_leave(o, "a");
    error_set(&err, ERROR_IO, "reset");
    streams->on->on_end(streams->ctx, STREAM_END_RESET, &err);
    assert_string_equal(o->results, "a final-dot (lost) reset\n"
                                    "b idle (lost) reset\n"
                                    "c idle (lost) the connection ended before it was sent\n");
    assert_int_equal(o->closed, 1);
    assert_false(client_has_room(o->client));
}

static void one_that_cannot_be_read_lets_the_next_begin(void **state)
{
    struct owner *o = *state;
    struct error err = ERROR_INIT;
    warm_up(o);
    submit(o, "a", 5);
    submit(o, "b", 5);
    error_set(&err, ERROR_IO, "damaged");
    read_letter = NULL;
    read_done(read_ctx, NULL, 0, &err);
    assert_string_equal(o->results, "a idle (spool) damaged\n");
    let_leave(o, "b");
    sent("MAIL FROM:<b>\r\nRCPT TO:<c@d.example>\r\nBDAT 5 LAST\r\nhello");
}

static void quit_gives_back_what_waits(void **state)
{
    struct owner *o = *state;
    warm_up(o);
    o->quits = true;
    submit(o, "a", 5);
    submit(o, "large", CLIENT_FLIGHT_MAX + 1);
    let_leave(o, "a");
    sent("MAIL FROM:<a>\r\nRCPT TO:<c@d.example>\r\nBDAT 5 LAST\r\nhello");
    say(TAKEN);
    assert_string_equal(o->results,
                        "a final-dot 250 taken\n"
                        "large idle (lost) the connection was closed before it was sent\n");
    sent("QUIT\r\n");
}

#define FRESH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

#define SHARED(test) cmocka_unit_test_setup_teardown(test, set_up_shared, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH(the_next_address_starts_beside_one_that_is_silent),
        FRESH(the_first_that_answers_wins_and_the_others_go),
        FRESH(one_that_fails_leaves_its_slot_to_the_next),
        FRESH(without_a_free_slot_the_next_waits_for_the_first_to_fail),
        FRESH(never_more_than_so_many_at_once),
        FRESH(when_all_have_failed_the_upstream_is_unreachable),
        FRESH(addresses_that_cannot_be_tried_are_skipped),
        FRESH(a_slot_for_nothing_is_given_back),
        FRESH(a_reply_in_drops_ends_in_time),
        FRESH(an_idle_connection_waits_for_no_reply),
        FRESH(eight_bit_mail_is_converted_where_it_must_be),
        SHARED(what_may_not_fly_yet_waits_in_line),
        SHARED(a_session_that_ends_gives_back_what_waits),
        SHARED(one_that_cannot_be_read_lets_the_next_begin),
        SHARED(quit_gives_back_what_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
