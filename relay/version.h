/* The version that every program, reply and document shows. */
#ifndef OUTTRAY_RELAY_VERSION_H
#define OUTTRAY_RELAY_VERSION_H

#define OUTTRAY_VERSION "0.1.0"

#endif
