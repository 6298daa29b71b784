/*
 * Mail data on the wire, both ways. Pure.
 *
 * In: the decoder takes the raw octets after 354, finds the end, removes dot-stuffing and makes
 * every line end CR LF. Only CR LF . CR LF ends mail data, judged on the raw octets (the CR LF
 * before the first octet counts as seen, RFC 5321 4.1.1.4; CR CR LF . CR LF contains it). Within
 * content CR* LF is one line end, and each CR of a run that no LF follows is one too. So nothing
 * that looks like an end of data to any other server can get through: what we submit is stuffed
 * again from clean lines (no SMTP smuggling, VU#302671). A dot that stands alone on a line whose
 * line ends were not both CR LF is content and stays. Behind CR LF a leading dot is always
 * stuffing. Behind any other line end it is taken for stuffing only when a second dot follows:
 * devices that end their lines in LF stuff so, and content that was never stuffed there keeps its
 * single dots.
 *
 * Out: the encoder stuffs dots and appends the final CR LF when missing. It never emits a bare CR
 * or LF, whatever it is given.
 */
#ifndef OUTTRAY_RELAY_SMTP_MAILDATA_H
#define OUTTRAY_RELAY_SMTP_MAILDATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"

#define MAILDATA_ROOM_MIN 16 /* least room for maildata_decode() */

/* What was odd in the raw octets; for the device's record and the log. */
struct maildata_quirks {
    bool bare_lf;
    bool bare_cr;
    bool cr_cr_lf;
    bool nul;
    bool eight_bit;
    size_t longest_line; /* octets without line end */
};

struct maildata_decoder {
    int state;   /* private */
    size_t line; /* octets of the current line */
    size_t crs;  /* private: CRs read whose meaning the next octet decides */
    struct maildata_quirks quirks;
};

void maildata_decoder_init(struct maildata_decoder *d);
/* Consumes octets until the input, the room in out or the mail data ends. Writes at most out_size
 * octets (at least MAILDATA_ROOM_MIN). True when the end of mail data has been consumed; octets
 * behind it are untouched. When it returns false with octets left or with out nearly full, call
 * again. */
bool maildata_decode(struct maildata_decoder *d, const uint8_t *data, size_t len, size_t *out_used,
                     uint8_t *out, size_t out_size, size_t *out_len);

struct maildata_encoder {
    bool line_start;
    bool after_cr;
};

void maildata_encoder_init(struct maildata_encoder *e);
/* Appends the stuffed form of content that is already in CR LF form. False when out is full: then
 * nothing was appended. */
bool maildata_encode(struct maildata_encoder *e, const uint8_t *data, size_t len,
                     struct bytes *out);
/* Appends what ends the mail data: CR LF if the last line lacks it, then ". CR LF". */
bool maildata_end(struct maildata_encoder *e, struct bytes *out);

#endif
