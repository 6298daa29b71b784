/*
 * What only shows once all sections of a configuration are read: names that refer to sections, the
 * default route and listener, defaults that come from other keys, and things that cannot both be.
 */
#ifndef OUTTRAY_RELAY_BASE_CONFIG_CHECK_H
#define OUTTRAY_RELAY_BASE_CONFIG_CHECK_H

#include "relay/base/config_build.h"

/* Completes b->c. Not to be called when memory ran out before. */
void config_check(struct config_builder *b);

#endif
