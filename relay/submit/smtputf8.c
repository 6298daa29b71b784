#include "relay/submit/smtputf8.h"

#include <string.h>

#include "relay/smtp/words.h"

static bool is_ascii(const char *path)
{
    return words_is_ascii(path, strlen(path));
}

bool smtputf8_leave_out(struct outcome *o, const char *reverse_path, enum client_stage *out_stage,
                        struct reply *out_reply)
{
    if (!is_ascii(reverse_path)) {
        *out_stage = STAGE_MAIL;
        reply_local(out_reply, LOCAL_ADDRESS,
                    "the sender's address needs SMTPUTF8, which the server does not offer");
        return false;
    }
    reply_local(out_reply, LOCAL_ADDRESS,
                "the recipient's address needs SMTPUTF8, which the server does not offer");
    for (size_t i = 0; i < o->envelope.recipient_count; i++) {
        const struct recipient *r = &o->envelope.recipients[i];
        if (r->state == RECIPIENT_PENDING && !is_ascii(r->forward_path))
            outcome_recipient(o, i, out_reply);
    }
    *out_stage = STAGE_RCPT;
    return envelope_count(&o->envelope, RECIPIENT_PENDING) > 0;
}
