/*
 * What the API says of signing in: tokens, a person's sign-in, and who still depends on a password.
 *
 *   GET  /v1/mailbox/NAME/token           what the mailbox's token says, and whether it fits
 *   POST /v1/mailbox/NAME/login           a person signs in with a device code
 *   POST /v1/mailbox/NAME/login/browser?redirect=URI   the same in a browser: "url" is to be opened
 *   POST /v1/mailbox/NAME/login/redirect?QUERY         what came back to that URI
 *   GET  /v1/mailbox/NAME/login           how far it is
 *   GET  /v1/sign-in                      every mailbox, and the devices behind it
 *
 * No answer ever holds a token, a secret or a password.
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_SIGNIN_H
#define OUTTRAY_RELAY_ADMIN_API_SIGNIN_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "relay/admin/api.h"

struct api_call;

void api_signin_token(struct api_call *c);
void api_signin_login_device(struct api_call *c);
void api_signin_login_browser(struct api_call *c);
void api_signin_login_redirect(struct api_call *c);
void api_signin_login(struct api_call *c);
void api_signin_report(struct api_call *c);

/* Adds what should be known of signing in to the answer of /v1/status: to its problems, and to each
 * mailbox "sign_in". False without memory. */
bool api_signin_add(const struct api_settings *api, cJSON *status);

#endif
