/* What sign-ins show of themselves, and what they warn of. The face is signins.h. */
#include "relay/signin/signins_inside.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "relay/base/log.h"

#define SECONDS_A_DAY  86400
#define REFRESH_IDLE_S (90 * SECONDS_A_DAY)
#define DATE_TEXT      32

static void date_of(int64_t when_s, char out[DATE_TEXT])
{
    time_t when = (time_t)when_s;
    struct tm tm;

    if (gmtime_r(&when, &tm) == NULL || strftime(out, DATE_TEXT, "%Y-%m-%d", &tm) == 0)
        (void)snprintf(out, DATE_TEXT, "soon");
}

static const struct {
    const char *subject;
    const char *remedy;
} words[] = {
    [SIGNINS_SECRET_ENDS] = {"The client secret",
                             "make a new one, write it to the mailbox's secret file, and its end "
                             "to secret_expires"},
    [SIGNINS_CERTIFICATE_ENDS] = {"The application's certificate",
                                  "upload a new one and name its file"},
    [SIGNINS_REFRESH_UNUSED] = {"The sign-in, unused for long,", "run outtray login again"},
};

static void warn_of(const struct signin *s, enum signins_warning_kind kind, int64_t end_s,
                    struct signins_status *out)
{
    struct signins_warning *w = &out->warnings[out->warning_count];
    char date[DATE_TEXT];
    unsigned days;

    if (!token_warns(end_s, signins_now_s(s), &days))
        return;
    date_of(end_s, date);
    *w = (struct signins_warning){.kind = kind, .ends_s = end_s, .days = days};
    (void)snprintf(w->text, sizeof(w->text), "%s %s on %s: %s.", words[kind].subject,
                   end_s > (int64_t)signins_now_s(s) ? "ends" : "ended", date, words[kind].remedy);
    out->warning_count++;
}

static void find_warnings(const struct signin *s, struct signins_status *out)
{
    bool unused = s->config.grant == SIGNIN_PERSON && s->refresh != NULL && s->used_s != 0;

    warn_of(s, SIGNINS_SECRET_ENDS, (int64_t)s->config.secret_expires_s, out);
    warn_of(s, SIGNINS_CERTIFICATE_ENDS, s->certificate_ends_s, out);
    warn_of(s, SIGNINS_REFRESH_UNUSED, unused ? (int64_t)s->used_s + REFRESH_IDLE_S : 0, out);
}

void signins_warn(struct signin *s)
{
    uint64_t day = signins_now_s(s) / SECONDS_A_DAY;
    struct signins_status status = {.warning_count = 0};

    if (day == s->warned_day)
        return;
    find_warnings(s, &status);
    if (status.warning_count > 0)
        s->warned_day = day;
    for (size_t i = 0; i < status.warning_count; i++)
        log_event(LOG_LEVEL_WARN, "sign-in-ends", LOG_STR("mailbox", s->config.mailbox),
                  LOG_U64("days", status.warnings[i].days),
                  LOG_STR("reason", status.warnings[i].text), LOG_END);
}

static void show_failure(const struct signin *s, struct signins_status *out)
{
    const struct signins_failure *f = &s->failure;

    if (f->advice.name == NULL)
        return;
    out->name = f->advice.name;
    out->what = f->advice.what;
    out->who = f->advice.who;
    out->how = f->how;
    out->said = f->said;
    out->trace = f->trace;
    out->correlation = f->correlation;
}

static void show(const struct signin *s, struct signins_status *out)
{
    static const char *const grants[] = {"app", "person", "service account"};

    out->has_oauth = true;
    out->grant = grants[s->config.grant];
    out->state = s->token.state;
    out->has_token = token_is_usable(&s->token, signins_now_ms(s));
    out->ends_ms = s->token.ends_ms;
    out->next_ms = token_next_ms(&s->token);
    out->fetching = s->ask != NULL;
    out->fetched_s = s->fetched_s;
    out->login_s = s->login_s;
    out->refresh_used_s = s->config.grant == SIGNIN_PERSON ? s->used_s : 0;
    out->certificate_ends_s = s->certificate_ends_s;
    out->secret_ends_s = s->config.secret_expires_s;
    out->clock_ahead_s = s->clock.ahead_s;
    out->shared_by = s->users;
    out->stored_sealed = token_store_is_sealed(s->all->store);
    out->store_trouble = s->store_trouble[0] != '\0' ? s->store_trouble : s->all->locked;
    show_failure(s, out);
    find_warnings(s, out);
}

void signins_status(const struct signins *s, size_t mailbox, struct signins_status *out)
{
    *out = (struct signins_status){.grant = "",
                                   .store_trouble = "",
                                   .name = "",
                                   .what = "",
                                   .who = "",
                                   .how = "",
                                   .said = "",
                                   .trace = "",
                                   .correlation = ""};
    if (s->users[mailbox].signin != NULL)
        show(s->users[mailbox].signin, out);
}

bool signins_claims(const struct signins *s, size_t mailbox, struct claims *out)
{
    const struct signin *n = s->users[mailbox].signin;

    return n != NULL && n->access != NULL && claims_read(secret_text(n->access), out);
}
