/*
 * A segment's bytes: header block, records, index and footer. Pure: encoding only, no files.
 *
 *   0        header block, 4096 octets: two copies of the header, at 0 and 2048
 *   4096     records, each starting at a multiple of 8
 *   end      the index and, in the last 64 octets of the segment, the footer: only when sealed
 *
 * All numbers are little-endian. Each segment has a random salt, which every record of it carries
 * as its tag: neither what a recycled segment still holds nor mail crafted to look like a record
 * can pass for one. A record's header checksum also covers its offset, so that a record is valid
 * in one place only. Head and body have checksums of their own: of a message whose body is damaged
 * the head still says where it was going.
 */
#ifndef OUTTRAY_QUEUE_SEGMENT_H
#define OUTTRAY_QUEUE_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEGMENT_BLOCK         4096u
#define SEGMENT_ALIGN         8u
#define SEGMENT_RECORD_HEADER 48u
#define SEGMENT_FOOTER        64u
#define SEGMENT_ENTRY         32u             /* of the index, before the record's head */
#define SEGMENT_HEAD_MAX      1024u           /* of a record */
#define SEGMENT_BODY_MAX      (768u * 1024u)  /* of a record */
#define SEGMENT_SIZE_MIN      (1536u * 1024u) /* holds a START and the largest record */
#define SEGMENT_SIZE_MAX      (1024u * 1024u * 1024u)
#define SEGMENT_VERSION       1u

enum segment_type {
    SEGMENT_START = 1,   /* first record of a segment: what is known of the ones before it */
    SEGMENT_MESSAGE = 2, /* envelope and, of small mail, the mail data */
    SEGMENT_STATE = 3,   /* state, times and every recipient's outcome */
    SEGMENT_DOUBT = 4,   /* the last octet of the mail data may leave after this */
    SEGMENT_GONE = 5,    /* nothing is left to do */
    SEGMENT_MARK = 6     /* says only that what lies before it is durable */
};

struct segment_header {
    uint64_t number; /* rising; also the file's name */
    uint64_t salt;
    uint32_t size; /* of the file */
};

struct segment_record {
    uint64_t seq;  /* rising over all segments */
    uint64_t id;   /* of the message, or 0 */
    uint32_t base; /* every octet of this segment below it was durable when this was written */
    uint16_t type;
    uint16_t head_len;
    uint32_t body_len;
    uint32_t head_crc;
    uint32_t body_crc;
};

struct segment_footer {
    uint32_t end; /* of the records; where the index begins */
    uint32_t index_len;
    uint32_t index_crc;
};

void segment_encode_header(const struct segment_header *h, uint8_t out[SEGMENT_BLOCK]);
/* Reads either copy. False when neither verifies. */
bool segment_decode_header(const uint8_t block[SEGMENT_BLOCK], struct segment_header *out);

void segment_encode_record(const struct segment_record *r, uint64_t salt, uint32_t offset,
                           uint8_t out[SEGMENT_RECORD_HEADER]);
/* False unless the header verifies for this salt and offset and its lengths are possible. */
bool segment_decode_record(const uint8_t p[SEGMENT_RECORD_HEADER], uint64_t salt, uint32_t offset,
                           struct segment_record *out);
/* Octets that a record takes, padding included. */
uint32_t segment_span(size_t head_len, size_t body_len);

void segment_encode_footer(const struct segment_footer *f, const struct segment_header *h,
                           uint8_t out[SEGMENT_FOOTER]);
bool segment_decode_footer(const uint8_t p[SEGMENT_FOOTER], const struct segment_header *h,
                           struct segment_footer *out);

/* An entry of the index: where a record is and its header; the record's head follows. */
void segment_encode_entry(const struct segment_record *r, uint32_t offset,
                          uint8_t out[SEGMENT_ENTRY]);
void segment_decode_entry(const uint8_t p[SEGMENT_ENTRY], struct segment_record *out_record,
                          uint32_t *out_offset);

#endif
