#include "ngx_s3_log.h"

#include "ngx_s3_conn.h"


static void ngx_s3_log_writer(ngx_log_t *log, ngx_uint_t level, u_char *buf,
    size_t len);
static void ngx_s3_log_keep(ngx_s3_catcher_t *catcher, u_char *buf,
    size_t len);


void
ngx_s3_catcher_init(ngx_s3_catcher_t *catcher, ngx_log_t *real, char *reason)
{
    catcher->log = *real;
    catcher->log.next = NULL;
    catcher->log.handler = NULL;
    catcher->log.writer = ngx_s3_log_writer;
    catcher->log.wdata = catcher;

    /* what is not worth a line of the real log may still be the reason */

    if (catcher->log.log_level < NGX_LOG_INFO) {
        catcher->log.log_level = NGX_LOG_INFO;
    }

    catcher->real = real;
    catcher->reason = reason;
}


static void
ngx_s3_log_writer(ngx_log_t *log, ngx_uint_t level, u_char *buf, size_t len)
{
    ngx_log_t         *real;
    ngx_s3_catcher_t  *catcher;

    catcher = log->wdata;
    real = catcher->real;

    if (level > NGX_LOG_ALERT && level != NGX_LOG_DEBUG) {
        ngx_s3_log_keep(catcher, buf, len);
        return;
    }

    if (real->log_level < level) {
        return;
    }

    if (real->writer) {
        real->writer(real, level, buf, len);

    } else if (real->file) {
        (void) ngx_write_fd(real->file->fd, buf, len);
    }
}


/* the line is "date time [level] pid#tid: *connection message LF" */

static void
ngx_s3_log_keep(ngx_s3_catcher_t *catcher, u_char *buf, size_t len)
{
    u_char  *p, *last;

    if (catcher->reason == NULL || catcher->reason[0] != '\0') {
        return;
    }

    last = buf + len;

    p = ngx_strlchr(buf, last, '#');
    p = p ? ngx_strlchr(p, last, ' ') : NULL;

    if (p == NULL) {
        return;
    }

    p++;

    if (p < last && *p == '*') {
        p = ngx_strlchr(p, last, ' ');
        p = p ? p + 1 : last;
    }

    while (last > p && (last[-1] == LF || last[-1] == CR)) {
        last--;
    }

    ngx_s3_reason(catcher->reason, "%*s", (size_t) (last - p), p);
}


void ngx_cdecl
ngx_s3_reason(char *reason, const char *fmt, ...)
{
    u_char   *p, *last, *start;
    va_list   args;

    start = (u_char *) reason;

    va_start(args, fmt);
    last = ngx_vslprintf(start, start + NGX_S3_REASON - 1, fmt, args);
    va_end(args);

    *last = '\0';

    for (p = start; p < last; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            *p = ' ';
        }
    }
}


void
ngx_s3_log_own(ngx_log_t *log, ngx_log_t *from, ngx_log_handler_pt handler,
    void *data)
{
    *log = *from;

    log->handler = handler;
    log->data = data;
    log->action = NULL;
}


u_char *
ngx_s3_log_object(ngx_log_t *log, u_char *buf, size_t len, ngx_str_t *id,
    ngx_str_t *bucket, ngx_str_t *key)
{
    u_char  *p;

    if (log->action) {
        p = ngx_snprintf(buf, len, " while %s", log->action);
        len -= p - buf;
        buf = p;
    }

    return ngx_snprintf(buf, len, ", transfer: %V, bucket: \"%V\", key: \"%V\"",
                        id, bucket, key);
}
