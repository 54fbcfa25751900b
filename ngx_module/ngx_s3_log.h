/*
 * What lines of the log say of a transfer; and a log that holds nginx's own
 * lines back where a failure is no error yet, and keeps the first of them as
 * the reason.
 */

#ifndef NGX_S3_LOG_H
#define NGX_S3_LOG_H

#include <ngx_config.h>
#include <ngx_core.h>


typedef struct {
    ngx_log_t   log;                 /* hand out its address */
    ngx_log_t  *real;
    char       *reason;              /* NGX_S3_REASON bytes, or NULL */
} ngx_s3_catcher_t;


/* Debug lines, alerts and worse go to real at once; reason, where it is empty,
   takes the text of another line. The catcher must not move. */
void ngx_s3_catcher_init(ngx_s3_catcher_t *catcher, ngx_log_t *real,
    char *reason);


/* a log of one's own that writes to where another does; handler and data are
   its own */
void ngx_s3_log_own(ngx_log_t *log, ngx_log_t *from,
    ngx_log_handler_pt handler, void *data);

/* what a log's handler adds to a line: what is being done, and for which
   transfer */
u_char *ngx_s3_log_object(ngx_log_t *log, u_char *buf, size_t len,
    ngx_str_t *id, ngx_str_t *bucket, ngx_str_t *key);


#endif /* NGX_S3_LOG_H */
