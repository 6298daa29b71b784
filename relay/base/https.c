#include "relay/base/https.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>
#include <event2/event.h>

#include "queue/bytes.h"
#include "relay/base/tls.h"
#include "relay/version.h"

#define LIBRARY      "libcurl.so.4"
#define URL_SHOWN    200 /* octets of a URL in messages */
#define LINE_MAX_LEN 256 /* of a header field that we read */

/* ---- The library ---- */

struct curl_calls {
    CURLcode (*global_init)(long flags);
    void (*global_cleanup)(void);
    CURL *(*easy_init)(void);
    void (*easy_cleanup)(CURL *easy);
    CURLcode (*easy_setopt)(CURL *easy, CURLoption option, ...);
    CURLcode (*easy_getinfo)(CURL *easy, CURLINFO info, ...);
    const char *(*easy_strerror)(CURLcode code);
    struct curl_slist *(*slist_append)(struct curl_slist *list, const char *text);
    void (*slist_free_all)(struct curl_slist *list);
    CURLM *(*multi_init)(void);
    CURLMcode (*multi_cleanup)(CURLM *multi);
    CURLMcode (*multi_add_handle)(CURLM *multi, CURL *easy);
    CURLMcode (*multi_remove_handle)(CURLM *multi, CURL *easy);
    CURLMcode (*multi_setopt)(CURLM *multi, CURLMoption option, ...);
    CURLMcode (*multi_socket_action)(CURLM *multi, curl_socket_t fd, int what, int *running);
    CURLMsg *(*multi_info_read)(CURLM *multi, int *left);
    CURLMcode (*multi_assign)(CURLM *multi, curl_socket_t fd, void *ctx);
    time_t (*getdate)(const char *text, const time_t *unused);
};

#define CALL(member)                                                                               \
    {                                                                                              \
        "curl_" #member, offsetof(struct curl_calls, member)                                       \
    }

static const struct {
    const char *symbol;
    size_t offset;
} symbols[] = {
    CALL(global_init),         CALL(global_cleanup), CALL(easy_init),
    CALL(easy_cleanup),        CALL(easy_setopt),    CALL(easy_getinfo),
    CALL(easy_strerror),       CALL(slist_append),   CALL(slist_free_all),
    CALL(multi_init),          CALL(multi_cleanup),  CALL(multi_add_handle),
    CALL(multi_remove_handle), CALL(multi_setopt),   CALL(multi_socket_action),
    CALL(multi_info_read),     CALL(multi_assign),   CALL(getdate),
};

struct https {
    struct event_base *base;
    void *library;
    struct curl_calls curl;
    bool initialised;
    CURLM *multi; /* NULL until the first request */
    struct event *timer;
    struct https_call *calls;
    struct watch *watches;
};

/* A socket of the library's that the loop watches. */
struct watch {
    struct https *client;
    struct watch *next;
    struct event *event;
};

struct https_call {
    struct https *client;
    struct https_call *next;
    https_answered *answered;
    void *ctx;
    CURL *easy;
    struct curl_slist *headers;
    struct bytes request;
    struct bytes body;
    bool too_large;
    char content_type[HTTPS_TYPE_MAX];
    char retry_after[LINE_MAX_LEN];
    uint64_t date_s;
    char url[URL_SHOWN + 1]; /* without its query */
    char trouble[CURL_ERROR_SIZE];
};

static bool load(struct https *h, struct error *err)
{
    if (h->library != NULL)
        return true;
    h->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (h->library == NULL)
        return error_set(err, ERROR_MISSING,
                         "the HTTPS library cannot be loaded (%s); install it: apt-get install "
                         "libcurl4",
                         dlerror());
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *found = dlsym(h->library, symbols[i].symbol);

        if (found == NULL) {
            (void)dlclose(h->library);
            h->library = NULL;
            return error_set(err, ERROR_MISSING, LIBRARY " is too old: it has no %s",
                             symbols[i].symbol);
        }
        memcpy((char *)&h->curl + symbols[i].offset, &found, sizeof(found));
    }
    return true;
}

/* ---- What the library asks of the loop ---- */

static void on_ready(evutil_socket_t fd, short what, void *ctx);

static void watch_free(struct watch *w)
{
    struct watch **at = &w->client->watches;

    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    event_free(w->event);
    free(w);
}

static struct watch *watch_new(struct https *h)
{
    struct watch *w = calloc(1, sizeof(*w));

    if (w == NULL)
        return NULL;
    w->event = event_new(h->base, -1, 0, on_ready, h);
    if (w->event == NULL) {
        free(w);
        return NULL;
    }
    w->client = h;
    w->next = h->watches;
    h->watches = w;
    return w;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
    struct https *h = ctx;
    struct watch *w = socket_ctx;
    short flags = EV_PERSIST;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (w != NULL)
            watch_free(w);
        return 0;
    }
    if (w == NULL)
        w = watch_new(h);
    if (w == NULL)
        return -1;
    if ((what & CURL_POLL_IN) != 0)
        flags |= EV_READ;
    if ((what & CURL_POLL_OUT) != 0)
        flags |= EV_WRITE;
    (void)event_del(w->event);
    (void)event_assign(w->event, h->base, fd, flags, on_ready, h);
    (void)event_add(w->event, NULL); /* if that fails the request times out */
    (void)h->curl.multi_assign(h->multi, fd, w);
    return 0;
}

static int on_timeout_wanted(CURLM *multi, long ms, void *ctx)
{
    struct https *h = ctx;
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    (void)multi;
    if (ms < 0)
        (void)event_del(h->timer);
    else
        (void)event_add(h->timer, &tv);
    return 0;
}

/* ---- What arrives ---- */

static size_t on_body(char *data, size_t one, size_t len, void *ctx)
{
    struct https_call *c = ctx;

    c->too_large = c->body.len + one * len > HTTPS_ANSWER_MAX;
    return !c->too_large && bytes_append(&c->body, data, one * len) ? one * len : 0;
}

/* Copies the value of the field into out when the line is that field. */
static bool take_field(const char *line, size_t len, const char *name, char *out, size_t size)
{
    size_t n = strlen(name);

    if (len <= n || strncasecmp(line, name, n) != 0 || line[n] != ':')
        return false;
    line += n + 1;
    len -= n + 1;
    while (len > 0 && (*line == ' ' || *line == '\t')) {
        line++;
        len--;
    }
    while (len > 0 && strchr(" \t\r\n", line[len - 1]) != NULL)
        len--;
    if (len < size)
        (void)snprintf(out, size, "%.*s", (int)len, line);
    return true;
}

static size_t on_header(char *line, size_t one, size_t count, void *ctx)
{
    struct https_call *c = ctx;
    size_t len = one * count;
    char date[LINE_MAX_LEN] = "";
    time_t when;

    if (take_field(line, len, "Date", date, sizeof(date))) {
        when = c->client->curl.getdate(date, NULL);
        c->date_s = when > 0 ? (uint64_t)when : 0;
    } else if (!take_field(line, len, "Retry-After", c->retry_after, sizeof(c->retry_after))) {
        (void)take_field(line, len, "Content-Type", c->content_type, sizeof(c->content_type));
    }
    return len;
}

/* Seconds, or a date, which is compared with the server's own clock. */
static uint64_t retry_after(const struct https_call *c)
{
    char *end = NULL;
    uint64_t seconds = 0;
    time_t when;

    if (c->retry_after[0] >= '0' && c->retry_after[0] <= '9') {
        errno = 0;
        seconds = strtoull(c->retry_after, &end, 10);
        if (*end != '\0')
            seconds = 0;
    } else if (c->retry_after[0] != '\0' && c->date_s != 0) {
        when = c->client->curl.getdate(c->retry_after, NULL);
        if (when > 0 && (uint64_t)when > c->date_s)
            seconds = (uint64_t)when - c->date_s;
    }
    return seconds < HTTPS_RETRY_MAX_S ? seconds : HTTPS_RETRY_MAX_S;
}

/* ---- Words ---- */

static const struct {
    CURLcode code;
    enum error_kind kind;
    const char *advice;
} advices[] = {
    {CURLE_COULDNT_RESOLVE_HOST, ERROR_IO,
     "check the network and the nameserver lines in /etc/resolv.conf; behind a proxy, name it"},
    {CURLE_COULDNT_RESOLVE_PROXY, ERROR_IO, "check the name of the proxy"},
    {CURLE_COULDNT_CONNECT, ERROR_IO,
     "check that a firewall lets us out to it; behind a proxy, name it"},
    {CURLE_OPERATION_TIMEDOUT, ERROR_IO,
     "check that a firewall lets us out to it; behind a proxy, name it"},
    {CURLE_PEER_FAILED_VERIFICATION, ERROR_UNTRUSTED,
     "check this machine's clock; where a firewall or proxy opens TLS, or the service has a "
     "private authority, name that authority's certificate as the ca_file"},
    {CURLE_SSL_CACERT_BADFILE, ERROR_INVALID,
     "the file of the authorities to trust (ca_file) must be there, readable and in PEM format; "
     "without that setting they come with the package ca-certificates"},
    {CURLE_SSL_CONNECT_ERROR, ERROR_IO, "it must speak TLS 1.2 or newer"},
    {CURLE_RECV_ERROR, ERROR_IO, "the connection was lost"},
    {CURLE_SEND_ERROR, ERROR_IO, "the connection was lost"},
    {CURLE_GOT_NOTHING, ERROR_IO, "it closed the connection without an answer"},
    {CURLE_OUT_OF_MEMORY, ERROR_NO_ROOM, "out of memory"},
};

static const char *proxy_advice(long code)
{
    return code == 407 ? "the proxy wants a login: name it as http://USER:PASSWORD@HOST:PORT"
                       : "the proxy refuses to connect us; ask who runs it";
}

static void explain(const struct https_call *c, CURLcode code, struct error *err)
{
    const struct curl_calls *curl = &c->client->curl;
    const char *what = c->trouble[0] != '\0' ? c->trouble : curl->easy_strerror(code);
    long connect_code = 0;

    if (c->too_large) {
        (void)error_set(err, ERROR_LIMIT,
                        "%s: its answer is longer than %d octets; is this the right URL?", c->url,
                        HTTPS_ANSWER_MAX);
        return;
    }
    (void)curl->easy_getinfo(c->easy, CURLINFO_HTTP_CONNECTCODE, &connect_code);
    if (connect_code >= 300) {
        (void)error_set(err, ERROR_IO, "%s: %s; %s", c->url, what, proxy_advice(connect_code));
        return;
    }
    for (size_t i = 0; i < sizeof(advices) / sizeof(advices[0]); i++) {
        if (advices[i].code == code) {
            (void)error_set(err, advices[i].kind, "%s: %s; %s", c->url, what, advices[i].advice);
            return;
        }
    }
    (void)error_set(err, ERROR_IO, "%s: %s", c->url, what);
}

/* ---- The life of a call ---- */

static void unlink_call(struct https_call *c)
{
    struct https_call **at = &c->client->calls;

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
}

static void wipe(struct bytes *b)
{
    if (b->data != NULL)
        explicit_bzero(b->data, b->cap);
    bytes_done(b);
}

/* Not linked any more. */
static void dispose(struct https_call *c)
{
    const struct curl_calls *curl = &c->client->curl;

    if (c->easy != NULL) {
        (void)curl->multi_remove_handle(c->client->multi, c->easy);
        curl->easy_cleanup(c->easy);
    }
    curl->slist_free_all(c->headers);
    wipe(&c->request);
    wipe(&c->body);
    free(c);
}

static void finish(struct https_call *c, CURLcode code)
{
    struct https_answer answer = {.content_type = c->content_type, .error = ERROR_INIT};
    long status = 0;

    unlink_call(c);
    if (code == CURLE_OK)
        (void)c->client->curl.easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    else
        explain(c, code, &answer.error);
    answer.status = (unsigned)status;
    answer.body = bytes_string(&c->body);
    answer.len = c->body.len;
    answer.retry_after_s = retry_after(c);
    answer.date_s = c->date_s;
    c->answered(c->ctx, &answer);
    dispose(c);
}

static struct https_call *call_of(struct https *h, const CURL *easy)
{
    struct https_call *c = h->calls;

    while (c != NULL && c->easy != easy)
        c = c->next;
    return c;
}

static void finish_what_ended(struct https *h)
{
    CURLMsg *m;
    int left;

    while ((m = h->curl.multi_info_read(h->multi, &left)) != NULL) {
        struct https_call *c = m->msg == CURLMSG_DONE ? call_of(h, m->easy_handle) : NULL;

        if (c != NULL)
            finish(c, m->data.result);
    }
}

static void on_ready(evutil_socket_t fd, short what, void *ctx)
{
    struct https *h = ctx;
    int actions = 0;
    int running;

    if ((what & EV_READ) != 0)
        actions |= CURL_CSELECT_IN;
    if ((what & EV_WRITE) != 0)
        actions |= CURL_CSELECT_OUT;
    (void)h->curl.multi_socket_action(h->multi, fd, actions, &running);
    finish_what_ended(h);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct https *h = ctx;
    int running;

    (void)fd;
    (void)what;
    (void)h->curl.multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    finish_what_ended(h);
}

/* ---- Beginning ---- */

static bool begin(struct https *h, struct error *err)
{
    const struct curl_calls *curl = &h->curl;

    if (h->multi != NULL)
        return true;
    if (!load(h, err))
        return false;
    h->initialised = h->initialised || curl->global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    if (h->timer == NULL)
        h->timer = evtimer_new(h->base, on_timer, h);
    if (h->initialised && h->timer != NULL)
        h->multi = curl->multi_init();
    if (h->multi == NULL)
        return error_set(err, ERROR_NO_ROOM, "begin a request: out of memory");
    (void)curl->multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    (void)curl->multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    (void)curl->multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_timeout_wanted);
    (void)curl->multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    return true;
}

static bool set_text(const struct https_call *c, CURLoption option, const char *text)
{
    return c->client->curl.easy_setopt(c->easy, option, text) == CURLE_OK;
}

static bool set_number(const struct https_call *c, CURLoption option, long number)
{
    return c->client->curl.easy_setopt(c->easy, option, number) == CURLE_OK;
}

/* The proxy's certificate is judged as the server's is. */
static bool set_trust(const struct https_call *c, const struct https_request *r)
{
    const char *directory = r->ca_file[0] == '\0' ? tls_system_directory() : NULL;
    bool by_file = r->ca_file[0] != '\0';

    if (!by_file && directory == NULL)
        return true; /* the library's own places */
    return set_text(c, CURLOPT_CAINFO, by_file ? r->ca_file : NULL) &&
           set_text(c, CURLOPT_CAPATH, directory) &&
           set_text(c, CURLOPT_PROXY_CAINFO, by_file ? r->ca_file : NULL) &&
           set_text(c, CURLOPT_PROXY_CAPATH, directory);
}

static bool set_limits(const struct https_call *c, const struct https_request *r)
{
    /* So that a name that is still looked up when a request ends does not stop the loop. */
    (void)set_number(c, CURLOPT_QUICK_EXIT, 1);
    (void)set_number(c, CURLOPT_CA_CACHE_TIMEOUT, 0); /* megabytes, for hours */
    return set_text(c, CURLOPT_PROTOCOLS_STR, "https,http") &&
           set_number(c, CURLOPT_FOLLOWLOCATION, 0) &&
           set_number(c, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2) &&
           set_number(c, CURLOPT_PROXY_SSLVERSION, CURL_SSLVERSION_TLSv1_2) &&
           set_number(c, CURLOPT_SSL_VERIFYPEER, 1) && set_number(c, CURLOPT_SSL_VERIFYHOST, 2) &&
           set_number(c, CURLOPT_NOSIGNAL, 1) && set_number(c, CURLOPT_FORBID_REUSE, 1) &&
           set_number(c, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1) &&
           set_number(c, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1) &&
           set_number(c, CURLOPT_CONNECTTIMEOUT_MS,
                      r->connect_ms != 0 ? r->connect_ms : HTTPS_CONNECT_MS) &&
           set_number(c, CURLOPT_TIMEOUT_MS, r->total_ms != 0 ? r->total_ms : HTTPS_TOTAL_MS);
}

static bool set_receivers(struct https_call *c)
{
    const struct curl_calls *curl = &c->client->curl;

    return curl->easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
           curl->easy_setopt(c->easy, CURLOPT_WRITEDATA, c) == CURLE_OK &&
           curl->easy_setopt(c->easy, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK &&
           curl->easy_setopt(c->easy, CURLOPT_HEADERDATA, c) == CURLE_OK &&
           curl->easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->trouble) == CURLE_OK;
}

static bool add_header(struct https_call *c, const char *text)
{
    struct curl_slist *longer = c->client->curl.slist_append(c->headers, text);

    if (longer != NULL)
        c->headers = longer;
    return longer != NULL;
}

static bool set_body(struct https_call *c, const struct https_request *r)
{
    char type[HTTPS_TYPE_MAX + 16];

    if (r->body == NULL)
        return true;
    (void)snprintf(type, sizeof(type), "Content-Type: %s",
                   r->content_type != NULL ? r->content_type : "application/x-www-form-urlencoded");
    bytes_init(&c->request, r->body_len + 1);
    return bytes_append(&c->request, r->body, r->body_len) && add_header(c, type) &&
           add_header(c, "Expect:") && set_number(c, CURLOPT_POST, 1) &&
           set_number(c, CURLOPT_POSTFIELDSIZE, (long)r->body_len) &&
           set_text(c, CURLOPT_POSTFIELDS, bytes_string(&c->request));
}

static bool set_proxy(const struct https_call *c, const struct https_request *r)
{
    if (r->proxy[0] == '\0')
        return true;
    return set_text(c, CURLOPT_PROXY, strcmp(r->proxy, HTTPS_PROXY_NONE) == 0 ? "" : r->proxy);
}

static bool set_up(struct https_call *c, const struct https_request *r)
{
    return set_text(c, CURLOPT_URL, r->url) && set_limits(c, r) && set_trust(c, r) &&
           set_proxy(c, r) && set_receivers(c) && set_body(c, r) &&
           add_header(c, "Accept: application/json") &&
           c->client->curl.easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->headers) == CURLE_OK &&
           set_text(c, CURLOPT_USERAGENT, "outtray/" OUTTRAY_VERSION);
}

static struct https_call *call_new(struct https *h, const struct https_request *r)
{
    struct https_call *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->client = h;
    bytes_init(&c->request, 1);
    bytes_init(&c->body, HTTPS_ANSWER_MAX + 1);
    (void)snprintf(c->url, sizeof(c->url), "%.*s", (int)strcspn(r->url, "?#"), r->url);
    c->easy = h->curl.easy_init();
    /* All at once, so that growing leaves no copies of a token behind. */
    if (c->easy != NULL && bytes_reserve(&c->body, HTTPS_ANSWER_MAX) != NULL && set_up(c, r) &&
        h->curl.multi_add_handle(h->multi, c->easy) == CURLM_OK)
        return c;
    dispose(c);
    return NULL;
}

struct https_call *https_send(struct https *h, const struct https_request *request,
                              https_answered *answered, void *ctx, struct error *err)
{
    struct https_call *c;

    if (!https_check_url(request->url, err) || !begin(h, err))
        return NULL;
    c = call_new(h, request);
    if (c == NULL) {
        (void)error_set(err, ERROR_NO_ROOM, "request %.*s: it cannot be made", URL_SHOWN,
                        request->url);
        return NULL;
    }
    c->answered = answered;
    c->ctx = ctx;
    c->next = h->calls;
    h->calls = c;
    return c;
}

void https_cancel(struct https_call *call)
{
    if (call == NULL)
        return;
    unlink_call(call);
    dispose(call);
}

/* ---- The client ---- */

struct https *https_new(struct event_base *base)
{
    struct https *h = calloc(1, sizeof(*h));

    if (h != NULL)
        h->base = base;
    return h;
}

void https_free(struct https *h)
{
    if (h == NULL)
        return;
    while (h->calls != NULL)
        https_cancel(h->calls);
    if (h->multi != NULL)
        (void)h->curl.multi_cleanup(h->multi);
    while (h->watches != NULL)
        watch_free(h->watches);
    if (h->timer != NULL)
        event_free(h->timer);
    if (h->initialised)
        h->curl.global_cleanup();
    /* The library stays in memory: a thread of it may still be looking up a name. */
    free(h);
}

static const char *after(const char *text, const char *start)
{
    size_t len = strlen(start);

    return strncasecmp(text, start, len) == 0 ? text + len : NULL;
}

static bool is_loopback(const char *authority)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *rest = after(authority, names[i]);

        if (rest != NULL && (*rest == ':' || *rest == '/' || *rest == '\0'))
            return true;
    }
    return false;
}

bool https_check_url(const char *url, struct error *err)
{
    const char *plain = after(url, "http://");
    const char *authority = after(url, "https://");

    if (plain != NULL && is_loopback(plain))
        return true;
    if (plain != NULL)
        return error_set(err, ERROR_INVALID, "%.*s: it would be sent in the clear; write https://",
                         URL_SHOWN, url);
    if (authority == NULL || *authority == '\0' || *authority == '/')
        return error_set(err, ERROR_INVALID, "\"%.*s\" is no https:// URL", URL_SHOWN, url);
    if (strcspn(authority, "@ \t\r\n") < strcspn(authority, "/?#") || strpbrk(url, " \t\r\n"))
        return error_set(err, ERROR_INVALID, "\"%.*s\" holds a space or a login", URL_SHOWN, url);
    return true;
}
