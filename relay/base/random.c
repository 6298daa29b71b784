#include "relay/base/random.h"

#include <sys/random.h>

uint32_t random_draw(void)
{
    uint32_t value = 0;
    if (getrandom(&value, sizeof value, 0) != sizeof value)
        return 0;
    return value;
}
