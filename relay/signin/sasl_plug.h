/*
 * What our client mechanisms for libsasl2 have in common: the frame of a plug-in, and the answers
 * to what a mechanism asks of the sign-in it serves. Private to signin/sasl*.
 *
 * A mechanism is a number of steps and a function that makes the response of one step. The response
 * is the library's until the next step or the end, and is wiped then.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_SASL_PLUG_H
#define OUTTRAY_RELAY_SIGNIN_SASL_PLUG_H

#include <stddef.h>

#include <sasl/sasl.h>
#include <sasl/saslplug.h>

/* One sign-in. */
struct sasl_plug_exchange {
    unsigned step;
    char *out;
    unsigned out_size;
};

typedef int sasl_plug_step(struct sasl_plug_exchange *x, sasl_client_params_t *params,
                           sasl_out_params_t *result);

struct sasl_plug_mechanism {
    unsigned steps;
    sasl_plug_step *step;
};

/* A callback of our own: the port of the server, which the library does not know. */
#define SASL_PLUG_CB_PORT 0x6f74
typedef unsigned sasl_plug_port_fn(void *context);

/* The entries of a sasl_client_plug_t whose glob_context is a struct sasl_plug_mechanism. */
int sasl_plug_new(void *mechanism, sasl_client_params_t *params, void **out_context);
int sasl_plug_step_any(void *context, sasl_client_params_t *params, const char *challenge,
                       unsigned challenge_len, sasl_interact_t **prompts, const char **out_response,
                       unsigned *out_len, sasl_out_params_t *result);
void sasl_plug_dispose(void *context, const sasl_utils_t *utils);

/* For steps. The library takes no name for known until it is told one, and fails at the end
 * without: this tells it, so that result->authid holds it. */
int sasl_plug_tell_login(sasl_client_params_t *params, sasl_out_params_t *result);
int sasl_plug_secret(const sasl_client_params_t *params, const sasl_secret_t **out);
unsigned sasl_plug_port(const sasl_client_params_t *params); /* 0 when nobody knows */
/* Replaces the response by room for size octets, which the caller fills. NULL without memory. */
char *sasl_plug_room(struct sasl_plug_exchange *x, const sasl_utils_t *utils, size_t size);

#endif
