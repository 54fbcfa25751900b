#include "ngx_http_s3_transfer_module.h"


static ngx_http_upstream_conf_t *ngx_http_s3_tee_upstream(ngx_conf_t *cf,
    const char *module);


/* s3_tee [key] | off */

char *
ngx_http_s3_set_tee(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_loc_conf_t *lcf = conf;

    ngx_str_t                *value;
    ngx_http_s3_main_conf_t  *mcf;

    if (lcf->tee.on != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;

    lcf->tee.on = 1;
    lcf->tee.key = NULL;

    if (cf->args->nelts == 2) {

        if (ngx_strcmp(value[1].data, "off") == 0) {
            lcf->tee.on = 0;
            return NGX_CONF_OK;
        }

        lcf->tee.key = ngx_http_s3_compile(cf, &value[1]);
        if (lcf->tee.key == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_s3_transfer_module);

    mcf->used = 1;
    mcf->tee = 1;

    return NGX_CONF_OK;
}


/* s3_tee_status code … */

char *
ngx_http_s3_set_tee_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_loc_conf_t *lcf = conf;

    ngx_int_t    code;
    ngx_str_t   *value;
    ngx_uint_t   i, *status;

    if (lcf->tee.status != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    lcf->tee.status = ngx_array_create(cf->pool, 2, sizeof(ngx_uint_t));
    if (lcf->tee.status == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        code = ngx_atoi(value[i].data, value[i].len);

        /* these have no body, or a part of one */

        if (code < 200 || code > 599 || code == NGX_HTTP_NO_CONTENT
            || code == NGX_HTTP_PARTIAL_CONTENT
            || code == NGX_HTTP_NOT_MODIFIED)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" cannot be \"%V\": it takes the status "
                               "of answers that have a whole body",
                               &value[0], &value[i]);
            return NGX_CONF_ERROR;
        }

        status = ngx_array_push(lcf->tee.status);
        if (status == NULL) {
            return NGX_CONF_ERROR;
        }

        *status = code;
    }

    return NGX_CONF_OK;
}


void
ngx_http_s3_tee_create_conf(ngx_http_s3_tee_conf_t *conf)
{
    conf->on = NGX_CONF_UNSET;
    conf->on_overrun = NGX_CONF_UNSET_UINT;
    conf->client_abort = NGX_CONF_UNSET_UINT;
    conf->ignore_headers = 0;
    conf->close_delimited = NGX_CONF_UNSET;
    conf->status = NGX_CONF_UNSET_PTR;
    conf->min_size = NGX_CONF_UNSET;
    conf->max_size = NGX_CONF_UNSET;
    conf->condition = NGX_CONF_UNSET_PTR;
}


void
ngx_http_s3_tee_merge_conf(ngx_http_s3_tee_conf_t *prev,
    ngx_http_s3_tee_conf_t *conf)
{
    if (conf->on == NGX_CONF_UNSET) {
        conf->on = (prev->on == NGX_CONF_UNSET) ? 0 : prev->on;
        conf->key = prev->key;
    }

    ngx_conf_merge_uint_value(conf->on_overrun, prev->on_overrun,
                              NGX_HTTP_S3_TEE_DROP);
    ngx_conf_merge_uint_value(conf->client_abort, prev->client_abort,
                              NGX_HTTP_S3_TEE_CONTINUE);
    ngx_conf_merge_bitmask_value(conf->ignore_headers, prev->ignore_headers,
                                 NGX_CONF_BITMASK_SET);
    ngx_conf_merge_value(conf->close_delimited, prev->close_delimited, 0);
    ngx_conf_merge_ptr_value(conf->status, prev->status, NULL);
    ngx_conf_merge_off_value(conf->min_size, prev->min_size, 0);
    ngx_conf_merge_off_value(conf->max_size, prev->max_size, 0);
    ngx_conf_merge_ptr_value(conf->condition, prev->condition, NULL);
}


char *
ngx_http_s3_tee_check(ngx_conf_t *cf, ngx_http_s3_tee_conf_t *conf)
{
    if (!conf->on || conf->max_size == 0 || conf->min_size <= conf->max_size) {
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"s3_tee_min_size\" %O is larger than "
                       "\"s3_tee_max_size\" %O in location \"%V\"",
                       conf->min_size, conf->max_size,
                       ngx_http_s3_location(cf));

    return NGX_CONF_ERROR;
}


void
ngx_http_s3_tee_warn(ngx_conf_t *cf, ngx_http_s3_tee_conf_t *conf,
    ngx_uint_t *warned)
{
    ngx_uint_t                 i;
    ngx_http_upstream_conf_t  *ucf;

    static const char  *names[] = { "proxy", "fastcgi", "uwsgi", "scgi" };

    if (!conf->on || conf->on_overrun != NGX_HTTP_S3_TEE_WAIT || *warned) {
        return;
    }

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {

        ucf = ngx_http_s3_tee_upstream(cf, names[i]);

        if (ucf == NULL || ucf->upstream == NULL || !ucf->buffering
            || ucf->max_temp_file_size == 0)
        {
            continue;
        }

        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"s3_tee_on_overrun wait\" in location \"%V\" "
                           "needs \"%s_buffering off\" or "
                           "\"%s_max_temp_file_size 0\": what waits goes to a "
                           "temporary file", ngx_http_s3_location(cf), names[i],
                           names[i]);

        *warned = 1;
        return;
    }
}


/* the modules are found by name, as nginx can be built without each of them;
   their configurations begin with that of the upstream */

static ngx_http_upstream_conf_t *
ngx_http_s3_tee_upstream(ngx_conf_t *cf, const char *module)
{
    u_char                name[64];
    ngx_uint_t            i;
    ngx_module_t         *m;
    ngx_http_conf_ctx_t  *ctx;

    (void) ngx_sprintf(name, "ngx_http_%s_module%Z", module);

    ctx = cf->ctx;

    for (i = 0; cf->cycle->modules[i]; i++) {
        m = cf->cycle->modules[i];

        if (m->type == NGX_HTTP_MODULE && m->name
            && ngx_strcmp(m->name, name) == 0)
        {
            return ctx->loc_conf[m->ctx_index];
        }
    }

    return NULL;
}
