/*
 * Dates in header fields: is it one that mail programs can read? Pure.
 *
 * RFC 5322 3.3 with the obsolete forms of 4.3 and comments; also an hour of one digit. A wrong day
 * of the week or a year long past is readable: a device's clock may be wrong, and says so.
 */
#ifndef OUTTRAY_RELAY_SMTP_DATE_H
#define OUTTRAY_RELAY_SMTP_DATE_H

#include <stdbool.h>
#include <stddef.h>

/* The value of a Date field, folds and spaces around it included. */
bool date_is_readable(const char *text, size_t len);

#endif
