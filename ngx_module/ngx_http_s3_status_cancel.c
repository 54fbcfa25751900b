#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_s3_reply.h"
#include "ngx_http_s3_status.h"


static ngx_int_t ngx_http_s3_status_over(ngx_http_request_t *r,
    s3_record_t *record, ngx_str_t *owner);


/*
 * The zone alone can be told. What it does not know, or knows as final, is
 * looked at as GET does, since it may have begun anew at another instance.
 */

ngx_int_t
ngx_http_s3_status_cancel(ngx_http_request_t *r, ngx_s3_stores_t *stores,
    ngx_str_t *id, ngx_str_t *owner)
{
    s3_record_t  record, *known;

    if (id->len == 0) {
        return ngx_http_s3_send_allow(r, "GET, HEAD, OPTIONS");
    }

    if (s3_uri_check_id(ngx_s3_to_str(*id)) != S3_OK) {
        return ngx_http_s3_status_unknown(r, NULL);
    }

    known = NULL;

    switch (ngx_s3_zone_cancel(stores->zone, id, owner, &record)) {

    case NGX_OK:

        /* the others' look for themselves */

        ngx_s3_progress_cancel(stores);

        return ngx_http_s3_status_json(r, NGX_HTTP_ACCEPTED, &record);

    case NGX_BUSY:
        return ngx_http_s3_send_error(r, NGX_HTTP_CONFLICT,
                                      "TransferCompleting",
                                      "the body is whole, the transfer is "
                                      "being completed", id);

    case NGX_ABORT:
        return ngx_http_s3_status_unknown(r, id);

    case NGX_DONE:
        known = &record;
        break;

    default: /* NGX_DECLINED */
        break;
    }

    return ngx_http_s3_status_read(r, stores, id, owner, known,
                                   ngx_http_s3_status_over);
}


static ngx_int_t
ngx_http_s3_status_over(ngx_http_request_t *r, s3_record_t *record,
    ngx_str_t *owner)
{
    ngx_str_t  id;

    id.data = (u_char *) record->id;
    id.len = ngx_strlen(record->id);

    if (!ngx_http_s3_status_shown(record, owner)) {
        return ngx_http_s3_status_unknown(r, &id);
    }

    if (s3_state_final(record->state)) {
        return ngx_http_s3_send_error(r, NGX_HTTP_CONFLICT, "TransferEnded",
                                      "the transfer has ended", &id);
    }

    return ngx_http_s3_send_error(r, NGX_HTTP_CONFLICT, "TransferElsewhere",
                                  "the transfer runs at another instance of "
                                  "nginx, or found no room in the zone of "
                                  "this one", &id);
}
