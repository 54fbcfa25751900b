/*
 * The null S3: see s3_null.c for what it is. s3_null_http.c reads requests,
 * s3_null_ops.c carries out S3's operations on s3_null_store.c,
 * s3_null_dynamodb.c DynamoDB's, s3_null_origin.c is the null origin.
 */

#ifndef S3_NULL_H
#define S3_NULL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <openssl/ssl.h>

#include "pattern.h"

#define NULL_HEAD_MAX    16384
#define NULL_FIELDS_MAX  100
#define NULL_BODY_MAX    (8 * 1024 * 1024)   /* of XML and JSON requests */
#define NULL_BUF         131072
#define NULL_PART_MIN    (5 * 1024 * 1024)   /* all parts but the last */
#define NULL_PARTS_MAX   10000
#define NULL_NO_LENGTH   ((size_t) -1)       /* no Content-Length */
#define NULL_ORIGIN_PATH "/__body/"


/* what GET /__stats shows, in this order */

#define NULL_COUNTERS(X)                                                     \
    X(create) X(part) X(complete) X(abort) X(list_parts) X(list_uploads)     \
    X(put) X(head) X(delete)                                                 \
    X(dynamodb_put) X(dynamodb_get) X(dynamodb_refused) X(dynamodb_throttled)\
    X(origin)           /* answers of the null origin */                     \
    X(origin_ranges)    /* 206 among them */                                 \
    X(origin_bytes) X(origin_cut)                                            \
    X(other)                                                                 \
    X(bytes)            /* of parts and objects, received */                 \
    X(cut)              /* bodies that ended early */                        \
    X(stalled)          /* bodies that the server lost patience with */      \
    X(faults)           /* given as the options ask */                       \
    X(bad)              /* refused: checksum, pattern, part list */          \
    X(duplicate_parts)  /* a number that was there already */                \
    X(rekeyed)                                                               \
    X(open_uploads) X(objects)                                               \
    X(bodies) X(bodies_peak)     /* parts and objects in receipt */          \
    X(connections) X(live) X(peak)

typedef struct {
#define X(name)  atomic_ulong name;
    NULL_COUNTERS(X)
#undef X
} null_counters_t;


typedef struct {
    int   crc32;                     /* checks of bodies */
    int   sha256;
    int   verify;
    int   chunked;
    long  rate;                      /* bytes a second a connection */
    long  latency;                   /* ms before each answer */
    long  every;                     /* faults: each Nth; 0: never */
    long  slowdown;
    long  reset;
    long  hang;
    long  early;
    long  complete_error;
    long  complete_lost;
    long  complete_space;            /* ms of white space before the answer */
    long  stall;                     /* ms without a byte of a body */
    long  idle_close;
    long  throttle;
    long  rekey;                     /* bytes received over TLS */
} null_options_t;


typedef struct {
    int             fd;
    SSL            *ssl;             /* NULL: plain */
    uint64_t        received;        /* over TLS, with --rekey */
    unsigned char  *buf;             /* NULL_BUF bytes, pos to last unread */
    size_t          pos;
    size_t          last;
    unsigned        close:1;         /* announced in the next answer */
} null_conn_t;


typedef struct {
    char  *name;                     /* lower case */
    char  *value;
} null_field_t;


typedef struct {
    char          head[NULL_HEAD_MAX];       /* the others point into it */
    char         *method;
    char         *path;              /* as sent, percent-encoded */
    char         *query;             /* as sent, "": none */
    null_field_t  fields[NULL_FIELDS_MAX];
    unsigned      nfields;
    uint64_t      length;
} null_req_t;


/* what is known of a body that was dropped */

typedef struct {
    uint64_t       size;
    uint32_t       crc32;            /* --crc32 */
    char           sha256[65];       /* --sha256, where the field has digits */
    unsigned char  probe[PATTERN_PROBE];     /* --verify: its first bytes */
    uint64_t       start;            /* where it is in the pattern, known when
                                        size >= PATTERN_PROBE */
    unsigned       foreign:1;        /* not of the pattern */
} null_body_t;


extern null_options_t   null_options;
extern null_counters_t  null_counters;
extern pthread_mutex_t  null_lock;   /* of all that is stored */


/* Functions that answer return 0, or -1: the connection is to be closed. */

/* body NULL: the head alone, which announces len bytes or NULL_NO_LENGTH */
int null_reply(null_conn_t *c, int status, const char *fields,
    const char *body, size_t len);
int null_error(null_conn_t *c, int status, const char *code,
    const char *message);
int null_write(null_conn_t *c, const void *data, size_t len);
/* some bytes; 0 or less: there are no more */
ssize_t null_recv(null_conn_t *c, void *p, size_t len);
/* how long null_recv() waits, 0: for ever; whether it gave up, returning n */
void null_patience(null_conn_t *c, long ms);
int null_impatient(null_conn_t *c, ssize_t n);
/* more bytes behind those that are unread in c->buf */
int null_fill(null_conn_t *c);
void null_sleep(long ms);
double null_clock(void);             /* seconds, monotonic */
/* sleeps where size bytes since then are more than rate bytes a second */
void null_pace(double from, uint64_t size, long rate);
/* closing will reset the connection */
void null_reset(null_conn_t *c);
/* until the peer closes, at most so long */
void null_linger(null_conn_t *c, int ms);

int null_read_head(null_conn_t *c, null_req_t *r);
/* NULL: absent */
const char *null_field(const null_req_t *r, const char *name);
/* decoded into out, size bytes with the NUL; 0, or -1: absent, too long */
int null_arg(const null_req_t *r, const char *name, char *out, size_t size);
void null_decode(char *s);

/* reads a body and drops it; stop > 0: resets the connection there */
int null_take(null_conn_t *c, const null_req_t *r, null_body_t *b,
    uint64_t stop);
/* reads a small body; NUL-terminated, the caller's; NULL: close */
char *null_slurp(null_conn_t *c, const null_req_t *r);
/* whether x-amz-content-sha256, where it is a digest, is that of p */
int null_digest_ok(const null_req_t *r, const char *p, size_t len);

/* the counter's next value is an Nth */
int null_fault(atomic_ulong *sequence, long n);
void null_peak(atomic_ulong *peak, unsigned long now);

int null_s3(null_conn_t *c, null_req_t *r);
int null_dynamodb(null_conn_t *c, null_req_t *r, const char *target);
int null_origin(null_conn_t *c, const null_req_t *r);


#endif /* S3_NULL_H */
