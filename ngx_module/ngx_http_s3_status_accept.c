#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_s3_status.h"


/* how well a format is accepted: RFC 9110, 12.5.1 */

typedef struct {
    ngx_uint_t  precision;           /* 0: no range matches it, 1: a range of
                                        all, 2: of its type, 3: itself */
    ngx_uint_t  q;                   /* in 1/1000 */
} ngx_http_s3_quality_t;


static void ngx_http_s3_status_ranges(ngx_str_t *value,
    ngx_http_s3_quality_t *json, ngx_http_s3_quality_t *prometheus);
static ngx_uint_t ngx_http_s3_status_q(u_char *p, u_char *last);
static void ngx_http_s3_status_quality(ngx_http_s3_quality_t *quality,
    ngx_uint_t precision, ngx_uint_t q);
static u_char *ngx_http_s3_status_skip(u_char *p, u_char *last);
static ngx_uint_t ngx_http_s3_status_is(ngx_str_t *s, const char *name);


ngx_http_s3_status_format_e
ngx_http_s3_status_accept(ngx_http_request_t *r)
{
    ngx_uint_t              i;
    ngx_list_part_t        *part;
    ngx_table_elt_t        *h;
    ngx_http_s3_quality_t   json, prometheus;

    ngx_memzero(&json, sizeof(ngx_http_s3_quality_t));
    ngx_memzero(&prometheus, sizeof(ngx_http_s3_quality_t));

    /* headers_in.accept is there only where nginx has certain modules */

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (ngx_http_s3_status_is(&h[i].key, "accept")) {
                ngx_http_s3_status_ranges(&h[i].value, &json, &prometheus);
            }
        }
    }

    if (prometheus.q > json.q
        || (prometheus.q == json.q && prometheus.q != 0
            && prometheus.precision > json.precision))
    {
        return NGX_HTTP_S3_STATUS_PROMETHEUS;
    }

    return NGX_HTTP_S3_STATUS_JSON;
}


static void
ngx_http_s3_status_ranges(ngx_str_t *value, ngx_http_s3_quality_t *json,
    ngx_http_s3_quality_t *prometheus)
{
    u_char      *p, *end, *last;
    ngx_str_t    type;
    ngx_uint_t   q;

    p = value->data;
    last = value->data + value->len;

    while (p < last) {
        p = ngx_http_s3_status_skip(p, last);

        end = ngx_strlchr(p, last, ',');
        if (end == NULL) {
            end = last;
        }

        type.data = p;

        while (p < end && *p != ';' && *p != ' ' && *p != '\t') {
            p++;
        }

        type.len = p - type.data;

        q = ngx_http_s3_status_q(p, end);

        p = end + 1;

        if (ngx_http_s3_status_is(&type, "application/json")) {
            ngx_http_s3_status_quality(json, 3, q);

        } else if (ngx_http_s3_status_is(&type, "text/plain")
                   || ngx_http_s3_status_is(&type,
                                            "application/openmetrics-text"))
        {
            ngx_http_s3_status_quality(prometheus, 3, q);

        } else if (ngx_http_s3_status_is(&type, "application/*")) {
            ngx_http_s3_status_quality(json, 2, q);

        } else if (ngx_http_s3_status_is(&type, "text/*")) {
            ngx_http_s3_status_quality(prometheus, 2, q);

        } else if (ngx_http_s3_status_is(&type, "*/*")) {
            ngx_http_s3_status_quality(json, 1, q);
            ngx_http_s3_status_quality(prometheus, 1, q);
        }
    }
}


/* the weight among a range's parameters, 1 where there is none */

static ngx_uint_t
ngx_http_s3_status_q(u_char *p, u_char *last)
{
    ngx_int_t   q;
    ngx_uint_t  n;

    for ( ;; ) {
        p = ngx_strlchr(p, last, ';');
        if (p == NULL) {
            return 1000;
        }

        p = ngx_http_s3_status_skip(p + 1, last);

        if (last - p < 3 || (p[0] != 'q' && p[0] != 'Q') || p[1] != '=') {
            continue;
        }

        p += 2;

        for (n = 1; n < (ngx_uint_t) (last - p); n++) {
            if (p[n] != '.' && (p[n] < '0' || p[n] > '9')) {
                break;
            }
        }

        q = ngx_atofp(p, n, 3);

        return (q == NGX_ERROR || q > 1000) ? 1000 : (ngx_uint_t) q;
    }
}


static void
ngx_http_s3_status_quality(ngx_http_s3_quality_t *quality,
    ngx_uint_t precision, ngx_uint_t q)
{
    if (precision > quality->precision) {
        quality->precision = precision;
        quality->q = q;

    } else if (precision == quality->precision && q > quality->q) {
        quality->q = q;
    }
}


static u_char *
ngx_http_s3_status_skip(u_char *p, u_char *last)
{
    while (p < last && (*p == ' ' || *p == '\t')) {
        p++;
    }

    return p;
}


static ngx_uint_t
ngx_http_s3_status_is(ngx_str_t *s, const char *name)
{
    return s->len == ngx_strlen(name)
           && ngx_strncasecmp(s->data, (u_char *) name, s->len) == 0;
}
