/*
 * s3_reaper off | zone | redis [lease=time]
 */

#include "ngx_http_s3_transfer_module.h"


char *
ngx_http_s3_set_reaper(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_main_conf_t *mcf = conf;

    ngx_int_t   lease;
    ngx_str_t  *value, s;

    if (mcf->reaper_mode != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        mcf->reaper_mode = NGX_S3_REAPER_OFF;

    } else if (ngx_strcmp(value[1].data, "zone") == 0) {
        mcf->reaper_mode = NGX_S3_REAPER_ZONE;

    } else if (ngx_strcmp(value[1].data, "redis") == 0) {
        mcf->reaper_mode = NGX_S3_REAPER_REDIS;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"s3_reaper\", it must "
                           "be \"off\", \"zone\" or \"redis\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    mcf->reaper_lease = NGX_S3_REAPER_LEASE;

    if (cf->args->nelts == 2) {
        return NGX_CONF_OK;
    }

    if (mcf->reaper_mode != NGX_S3_REAPER_REDIS
        || ngx_s3_store_arg(&value[2], "lease", &s) != NGX_OK)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" of \"s3_reaper\", "
                           "\"redis\" takes lease=", &value[2]);
        return NGX_CONF_ERROR;
    }

    lease = ngx_parse_time(&s, 0);

    if (lease == NGX_ERROR || lease < NGX_S3_REAPER_LEASE_MIN
        || lease > NGX_S3_REAPER_LEASE_MAX)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid lease \"%V\" of \"s3_reaper\", it is a "
                           "time from 1s to 1d", &s);
        return NGX_CONF_ERROR;
    }

    mcf->reaper_lease = lease;

    return NGX_CONF_OK;
}


char *
ngx_http_s3_init_reaper(ngx_conf_t *cf, ngx_http_s3_main_conf_t *mcf)
{
    ngx_conf_init_uint_value(mcf->reaper_mode, NGX_S3_REAPER_ZONE);

    if (mcf->reaper_mode == NGX_S3_REAPER_REDIS && mcf->stores.redis == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"s3_reaper redis\" needs \"s3_progress_redis\"");
        return NGX_CONF_ERROR;
    }

    mcf->reaper = ngx_s3_reaper_create(cf, mcf->reaper_mode,
                                       mcf->reaper_lease, &mcf->stores,
                                       &mcf->targets);

    return mcf->reaper ? NGX_CONF_OK : NGX_CONF_ERROR;
}
