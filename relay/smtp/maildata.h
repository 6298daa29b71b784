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
 * A device that ends all its lines in LF may end its mail data in LF . LF and wait. Such a line is
 * held back until the next octet proves that it was content; when none comes for long, whoever owns
 * the clock may take it for the end (maildata_is_lf_dot_lf()).
 *
 * In chunks (BDAT, RFC 3030) only the line ends are made CR LF: no dot means anything, and
 * maildata_finish() ends it.
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
    size_t longest_line;  /* octets without line end */
    size_t first_bare_cr; /* lines before the first lone CR, when there is one */
    size_t first_lf;      /* ... before the first line that ended in LF; SIZE_MAX = none */
};

struct maildata_decoder {
    int state;    /* private */
    size_t line;  /* octets of the current line */
    size_t lines; /* private: ended so far */
    size_t crs;   /* private: CRs read whose meaning the next octet decides */
    bool crlf;    /* private: a CR LF has been read */
    bool chunks;
    struct maildata_quirks quirks;
};

void maildata_decoder_init(struct maildata_decoder *d);
void maildata_decoder_init_chunks(struct maildata_decoder *d);
/* Consumes octets until the input, the room in out or the mail data ends. Writes at most out_size
 * octets (at least MAILDATA_ROOM_MIN). True when the end of mail data has been consumed; octets
 * behind it are untouched. When it returns false with octets left or with out nearly full, call
 * again. */
bool maildata_decode(struct maildata_decoder *d, const uint8_t *data, size_t len, size_t *out_used,
                     uint8_t *out, size_t out_size, size_t *out_len);
/* The end of the last chunk: writes the line ends that are still due, and the one that the last
 * line lacks. False when the room (at least MAILDATA_ROOM_MIN) was too small: call again. */
bool maildata_finish(struct maildata_decoder *d, uint8_t *out, size_t out_size, size_t *out_len);
/* True when the mail data so far has no CR LF and no lone CR and ends in LF . LF. The line with
 * that dot has not been handed out. */
bool maildata_is_lf_dot_lf(const struct maildata_decoder *d);

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
