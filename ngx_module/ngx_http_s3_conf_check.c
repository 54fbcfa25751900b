/*
 * What nginx would take, and what would have each transfer refused or lost: it
 * is found when the configuration is read.
 */

#include "ngx_http_s3_transfer_module.h"


static ngx_int_t ngx_http_s3_check_key(ngx_conf_t *cf, const char *directive,
    ngx_http_complex_value_t *key, ngx_str_t *location);


#define ngx_http_s3_count(fields)  ((fields) ? (fields)->nelts : 0)

/* what a signature takes, S3_SIGV4_MAX_FIELDS, less what the module and the
   client add */
#define NGX_HTTP_S3_MAX_FIELDS  48


ngx_str_t *
ngx_http_s3_location(ngx_conf_t *cf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    return &clcf->name;
}


/* a time-out that passes at once lets nothing through */

char *
ngx_http_s3_check_time(ngx_conf_t *cf, void *post, void *data)
{
    ngx_msec_t *msp = data;

    return *msp ? NGX_CONF_OK : "cannot be 0";
}


/* a location has one content handler, nginx takes the last one */

char *
ngx_http_s3_beside(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *lcf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    return lcf->upload ? "cannot stand beside \"s3_upload\" in one location"
         : lcf->status ? "cannot stand beside \"s3_status\" in one location"
         : lcf->ingest.door
           ? "cannot stand beside \"s3_ingest\" in one location"
         : clcf->handler
           ? "cannot stand beside another content handler in one location"
         : NGX_CONF_OK;
}


/* likewise, of one that comes after ours; but there are such as call the one
   that they found */

void
ngx_http_s3_warn_handler(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf)
{
    const char                *directive;
    ngx_http_handler_pt        handler;
    ngx_http_core_loc_conf_t  *clcf;

    if (conf->upload) {
        directive = "s3_upload";
        handler = ngx_http_s3_upload_handler;

    } else if (conf->status) {
        directive = "s3_status";
        handler = ngx_http_s3_status_content;

    } else if (conf->ingest.door) {
        directive = "s3_ingest";
        handler = ngx_http_s3_ingest_handler;

    } else {
        return;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    /* NULL: an "if", which has that of its location */

    if (clcf->handler == NULL || clcf->handler == handler) {
        return;
    }

    ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                       "\"%s\" in location \"%V\" does nothing, unless the "
                       "content handler that follows it calls it", directive,
                       &clcf->name);
}


/* what would have each transfer refused */

ngx_int_t
ngx_http_s3_check_transfer(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf,
    const char *directive, ngx_http_complex_value_t *key)
{
    ngx_str_t   *location;
    const char  *err;

    location = ngx_http_s3_location(cf);

    if (conf->bucket->lengths == NULL
        && s3_uri_check_bucket(ngx_s3_to_str(conf->bucket->value), &err)
           != S3_OK)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid \"s3_bucket\" \"%V\" in location \"%V\": "
                           "%s", &conf->bucket->value, location, err);
        return NGX_ERROR;
    }

    if (key && key->lengths == NULL
        && ngx_http_s3_check_key(cf, directive, key, location) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (conf->transfer_id && conf->transfer_id->lengths == NULL
        && conf->transfer_id->value.len
        && s3_uri_check_id(ngx_s3_to_str(conf->transfer_id->value)) != S3_OK)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid \"s3_transfer_id\" \"%V\" in location "
                           "\"%V\", it is 16 to 64 characters of A-Z, a-z, "
                           "0-9, \"_\" and \"-\"", &conf->transfer_id->value,
                           location);
        return NGX_ERROR;
    }

    if (ngx_http_s3_count(conf->object_headers)
        + ngx_http_s3_count(conf->metadata) > NGX_HTTP_S3_MAX_FIELDS)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "more than %d \"s3_object_header\" and "
                           "\"s3_metadata\" in location \"%V\"",
                           NGX_HTTP_S3_MAX_FIELDS, location);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_s3_check_key(ngx_conf_t *cf, const char *directive,
    ngx_http_complex_value_t *key, ngx_str_t *location)
{
    s3_str_t     s;
    const char  *err;

    s = ngx_s3_to_str(key->value);

    /* whoever writes this does not mean one object of that name */

    if (s3_str_eqs(s, "on") || s3_str_eqs(s, "off")) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is no key of \"%s\" in location \"%V\"",
                           &key->value, directive, location);
        return NGX_ERROR;
    }

    if (s3_uri_check_key(s, &err) != S3_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid key of \"%s\" in location \"%V\": "
                           "%s", directive, location, err);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* the bucket goes before Amazon's names, s3.<region> and the like, once, and not
   by hand; "bucket.vpce-…" is no bucket's name but an interface endpoint's */

ngx_int_t
ngx_http_s3_check_endpoint(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf,
    ngx_s3_endpoint_t *endpoint)
{
    ngx_str_t  *bucket, *host;

    bucket = &conf->bucket->value;
    host = &endpoint->host;

    if (conf->bucket->lengths
        || !s3_uri_is_aws(ngx_s3_to_str(*host))
        || host->len <= bucket->len + 3
        || ngx_strncmp(&host->data[bucket->len], ".s3", 3) != 0
        || ngx_strncmp(host->data, bucket->data, bucket->len) != 0)
    {
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid \"s3_endpoint\" \"%V\" in location \"%V\": "
                       "it begins with the bucket, which \"s3_bucket\" names "
                       "already", &conf->endpoint, ngx_http_s3_location(cf));

    return NGX_ERROR;
}
