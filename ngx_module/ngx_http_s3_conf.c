#include "ngx_http_s3_transfer_module.h"


static ngx_uint_t ngx_http_s3_field_name(u_char *p);
static ngx_uint_t ngx_http_s3_owned_field(ngx_str_t *name, const char **owned);
static ngx_int_t ngx_http_s3_parse_percent(ngx_str_t *value,
    uint32_t *percent);
static char *ngx_http_s3_init_target(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *conf, ngx_s3_target_t *target);
static char *ngx_http_s3_init_credentials(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *conf, const char *directive);
static void ngx_http_s3_init_resolver(ngx_conf_t *cf, ngx_s3_store_t *store);
static char *ngx_http_s3_init_endpoint(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *conf, ngx_s3_target_t *target);
static char *ngx_http_s3_init_sizes(ngx_conf_t *cf,
    ngx_http_s3_main_conf_t *mcf, ngx_http_s3_loc_conf_t *conf,
    const s3_limits_t *limits);


static ngx_conf_enum_t  ngx_http_s3_log_levels[] = {
    { ngx_string("off"), NGX_S3_PROGRESS_LOG_OFF },
    { ngx_string("debug"), NGX_LOG_DEBUG },
    { ngx_string("info"), NGX_LOG_INFO },
    { ngx_string("notice"), NGX_LOG_NOTICE },
    { ngx_string("warn"), NGX_LOG_WARN },
    { ngx_string("error"), NGX_LOG_ERR },
    { ngx_null_string, 0 }
};


/* what the module itself sends, or what would change what a request means */

static const char  *ngx_http_s3_owned_fields[] = {
    "host", "authorization", "connection", "content-length", "content-md5",
    "content-range", "date", "expect", "if-match", "if-none-match",
    "keep-alive", "proxy-authorization", "proxy-connection", "range", "te",
    "trailer", "transfer-encoding", "upgrade", "user-agent",
    "x-amz-content-sha256", "x-amz-date", "x-amz-decoded-content-length",
    "x-amz-meta-transfer-id", "x-amz-mp-object-size", "x-amz-security-token",
    "x-amz-sdk-checksum-algorithm", "x-amz-trailer",
    "x-amz-write-offset-bytes", NULL
};


char *
ngx_http_s3_set_upload(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_loc_conf_t *lcf = conf;

    char       *rv;
    ngx_str_t  *value;

    if (lcf->upload) {
        return "is duplicate";
    }

    rv = ngx_http_s3_beside(cf, lcf);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2) {
        lcf->upload_key = ngx_http_s3_compile(cf, &value[1]);
        if (lcf->upload_key == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    lcf->upload = 1;

    ngx_http_s3_set_handler(cf, ngx_http_s3_upload_handler);

    return NGX_CONF_OK;
}


/* the location's content handler, which needs what its module shares */

void
ngx_http_s3_set_handler(ngx_conf_t *cf, ngx_http_handler_pt handler)
{
    ngx_http_s3_main_conf_t   *mcf;
    ngx_http_core_loc_conf_t  *clcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_s3_transfer_module);
    mcf->used = 1;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = handler;
}


/* a value with variables, NULL: it was logged what is wrong */

ngx_http_complex_value_t *
ngx_http_s3_compile(ngx_conf_t *cf, ngx_str_t *value)
{
    ngx_http_compile_complex_value_t   ccv;

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = value;
    ccv.complex_value = ngx_pcalloc(cf->pool,
                                    sizeof(ngx_http_complex_value_t));

    if (ccv.complex_value == NULL
        || ngx_http_compile_complex_value(&ccv) != NGX_OK)
    {
        return NULL;
    }

    return ccv.complex_value;
}


/* ngx_conf_set_size_slot() knows no "g" */

char *
ngx_http_s3_set_size(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char *p = conf;

    off_t       size;
    size_t     *field;
    ngx_str_t  *value;

    field = (size_t *) (p + cmd->offset);

    if (*field != NGX_CONF_UNSET_SIZE) {
        return "is duplicate";
    }

    value = cf->args->elts;

    size = ngx_parse_offset(&value[1]);

    if (size == NGX_ERROR) {
        return "invalid value";
    }

    *field = size;

    return NGX_CONF_OK;
}


char *
ngx_http_s3_set_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_loc_conf_t *lcf = conf;

    char  *rv;

    if (lcf->status) {
        return "is duplicate";
    }

    rv = ngx_http_s3_beside(cf, lcf);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    lcf->status = ngx_pcalloc(cf->pool, sizeof(ngx_http_s3_status_conf_t));
    if (lcf->status == NULL) {
        return NGX_CONF_ERROR;
    }

    rv = ngx_http_s3_status_parse(cf, lcf->status);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (ngx_http_s3_note_status(cf, lcf->status) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    ngx_http_s3_set_handler(cf, ngx_http_s3_status_content);

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_s3_status_content(ngx_http_request_t *r)
{
    ngx_http_s3_loc_conf_t   *lcf;
    ngx_http_s3_main_conf_t  *mcf;

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_s3_transfer_module);
    mcf = ngx_http_get_module_main_conf(r, ngx_http_s3_transfer_module);

    return ngx_http_s3_status_handle(r, lcf->status, &mcf->stores,
                                     lcf->owner);
}


char *
ngx_http_s3_set_redis(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_main_conf_t *mcf = conf;

    ngx_str_t  *value;

    if (mcf->stores.redis != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        mcf->stores.redis = NULL;
        return NGX_CONF_OK;
    }

    mcf->stores.redis = ngx_s3_redis_create(cf, &value[1],
                                            cf->args->nelts - 1);

    return mcf->stores.redis ? NGX_CONF_OK : NGX_CONF_ERROR;
}


char *
ngx_http_s3_set_dynamodb(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_main_conf_t *mcf = conf;

    ngx_str_t  *value;

    if (mcf->stores.dynamodb != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        mcf->stores.dynamodb = NULL;
        return NGX_CONF_OK;
    }

    mcf->stores.dynamodb = ngx_s3_dynamodb_create(cf, &value[1],
                                                  cf->args->nelts - 1);

    return mcf->stores.dynamodb ? NGX_CONF_OK : NGX_CONF_ERROR;
}


char *
ngx_http_s3_set_dynamodb_credentials(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_s3_main_conf_t *mcf = conf;

    ngx_str_t  *value;

    if (mcf->dynamodb_credentials) {
        return "is duplicate";
    }

    value = cf->args->elts;

    return ngx_s3_credentials_create(cf, &value[0], &value[1],
                                     cf->args->nelts - 1,
                                     &mcf->dynamodb_credentials,
                                     &mcf->dynamodb_credentials_missing);
}


char *
ngx_http_s3_set_credentials(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_loc_conf_t *lcf = conf;

    ngx_str_t  *value;

    if (lcf->credentials != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    return ngx_s3_credentials_create(cf, &value[0], &value[1],
                                     cf->args->nelts - 1, &lcf->credentials,
                                     &lcf->credentials_missing);
}


char *
ngx_http_s3_set_field(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_loc_conf_t *lcf = conf;

    return ngx_http_s3_set_fields(cf, &lcf->object_headers, "",
                                  ngx_http_s3_owned_fields);
}


char *
ngx_http_s3_set_metadata(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_loc_conf_t *lcf = conf;

    return ngx_http_s3_set_fields(cf, &lcf->metadata, "x-amz-meta-",
                                  ngx_http_s3_owned_fields);
}


char *
ngx_http_s3_set_fields(ngx_conf_t *cf, ngx_array_t **fields,
    const char *prefix, const char **owned)
{
    u_char                            *p;
    size_t                             n;
    ngx_str_t                         *value;
    ngx_http_s3_field_t               *f;
    ngx_http_compile_complex_value_t   ccv;

    value = cf->args->elts;

    if (*fields == NGX_CONF_UNSET_PTR) {
        *fields = ngx_array_create(cf->pool, 4, sizeof(ngx_http_s3_field_t));
        if (*fields == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    f = ngx_array_push(*fields);
    if (f == NULL) {
        return NGX_CONF_ERROR;
    }

    n = ngx_strlen(prefix);

    f->name.len = n + value[1].len;
    f->name.data = ngx_pnalloc(cf->pool, f->name.len + 1);
    if (f->name.data == NULL) {
        return NGX_CONF_ERROR;
    }

    p = ngx_cpymem(f->name.data, prefix, n);
    ngx_strlow(p, value[1].data, value[1].len);
    p[value[1].len] = '\0';

    if (!ngx_http_s3_field_name(p)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid header name \"%V\" in \"%V\"",
                           &value[1], &value[0]);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_s3_owned_field(&f->name, owned)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" cannot set \"%V\": the module sends it "
                           "itself", &value[0], &f->name);
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));
    ccv.cf = cf;
    ccv.value = &value[2];
    ccv.complex_value = &f->value;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_uint_t
ngx_http_s3_field_name(u_char *p)
{
    if (*p == '\0') {
        return 0;
    }

    for ( /* void */ ; *p; p++) {
        if ((*p < 'a' || *p > 'z') && (*p < '0' || *p > '9')
            && *p != '-' && *p != '_' && *p != '.')
        {
            return 0;
        }
    }

    return 1;
}


static ngx_uint_t
ngx_http_s3_owned_field(ngx_str_t *name, const char **owned)
{
    ngx_uint_t  i;

    for (i = 0; owned[i]; i++) {
        if (ngx_strcmp(name->data, owned[i]) == 0) {
            return 1;
        }
    }

    return ngx_strncmp(name->data, "x-amz-checksum-", 15) == 0
           || ngx_strncmp(name->data, "x-amz-copy-source", 17) == 0;
}


/* s3_progress_step 1% 100m [64k] */

char *
ngx_http_s3_set_step(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_loc_conf_t *lcf = conf;

    off_t       bytes, min;
    ngx_str_t  *value;

    if (lcf->gate_set != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_http_s3_parse_percent(&value[1], &lcf->gate.percent) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid percentage \"%V\" in \"%V\", it must be "
                           "between 0.01%% and 100%%", &value[1], &value[0]);
        return NGX_CONF_ERROR;
    }

    bytes = ngx_parse_offset(&value[2]);
    min = 64 * 1024;

    if (cf->args->nelts == 4) {
        min = ngx_parse_offset(&value[3]);
    }

    if (bytes <= 0 || min <= 0) {
        return "has an invalid size";
    }

    lcf->gate.bytes = bytes;
    lcf->gate.min = min;
    lcf->gate_set = 1;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_s3_parse_percent(ngx_str_t *value, uint32_t *percent)
{
    ngx_int_t  n;

    if (value->len < 2 || value->data[value->len - 1] != '%') {
        return NGX_ERROR;
    }

    n = ngx_atofp(value->data, value->len - 1, 2);

    if (n < 1 || n > 10000) {
        return NGX_ERROR;
    }

    *percent = n;

    return NGX_OK;
}


char *
ngx_http_s3_set_log(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_command_t  enumerated;

    enumerated = *cmd;
    enumerated.post = ngx_http_s3_log_levels;

    return ngx_conf_set_enum_slot(cf, &enumerated, conf);
}


char *
ngx_http_s3_init_stores(ngx_conf_t *cf, ngx_http_s3_main_conf_t *mcf)
{
    char                    *rv;
    ngx_str_t               *missing;
    ngx_str_t                name = ngx_string("s3_credentials");
    ngx_str_t                env = ngx_string("env");
    ngx_s3_credentials_t    *credentials;
    ngx_http_s3_loc_conf_t  *lcf;

    ngx_http_s3_init_resolver(cf, mcf->stores.redis);
    ngx_http_s3_init_resolver(cf, mcf->stores.dynamodb);

    if (mcf->stores.dynamodb == NULL) {
        return NGX_CONF_OK;
    }

    credentials = mcf->dynamodb_credentials;
    missing = &mcf->dynamodb_credentials_missing;

    if (credentials == NULL) {

        /* those of the http level, else the environment's */

        lcf = ngx_http_conf_get_module_loc_conf(cf,
                                                ngx_http_s3_transfer_module);

        if (lcf->credentials != NGX_CONF_UNSET_PTR) {
            credentials = lcf->credentials;
            missing = &lcf->credentials_missing;

        } else {
            rv = ngx_s3_credentials_create(cf, &name, &env, 1, &credentials,
                                           missing);
            if (rv != NGX_CONF_OK) {
                return rv;
            }
        }
    }

    if (ngx_s3_dynamodb_set(cf, mcf->stores.dynamodb, credentials, missing,
                            NULL)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* names of stores are asked for as the http level says */

static void
ngx_http_s3_init_resolver(ngx_conf_t *cf, ngx_s3_store_t *store)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (store == NULL || clcf->resolver == NULL
        || clcf->resolver->connections.nelts == 0)
    {
        return;
    }

    store->endpoint->resolver = clcf->resolver;

    if (clcf->resolver_timeout != NGX_CONF_UNSET_MSEC) {
        store->endpoint->resolver_timeout = clcf->resolver_timeout;
    }
}


/* all that a location with a door needs, once its settings are merged */

char *
ngx_http_s3_init_transfer(ngx_conf_t *cf, ngx_http_s3_main_conf_t *mcf,
    ngx_http_s3_loc_conf_t *conf, const char *directive,
    ngx_http_complex_value_t *key)
{
    char                    *rv;
    ngx_s3_target_t         *target, **listed;
    ngx_s3_transfer_conf_t  *transfer;

    if (conf->endpoint.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%s\" in location \"%V\" needs "
                           "\"s3_endpoint\"", directive,
                           ngx_http_s3_location(cf));
        return NGX_CONF_ERROR;
    }

    if (conf->bucket == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%s\" in location \"%V\" needs "
                           "\"s3_bucket\"", directive,
                           ngx_http_s3_location(cf));
        return NGX_CONF_ERROR;
    }

    if (ngx_http_s3_check_transfer(cf, conf, directive, key) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    transfer = ngx_pcalloc(cf->pool, sizeof(ngx_s3_transfer_conf_t));
    target = ngx_pcalloc(cf->pool, sizeof(ngx_s3_target_t));
    listed = ngx_array_push(&mcf->targets);

    if (transfer == NULL || target == NULL || listed == NULL) {
        return NGX_CONF_ERROR;
    }

    *listed = target;

    rv = ngx_http_s3_init_credentials(cf, conf, directive);

    if (rv == NGX_CONF_OK) {
        rv = ngx_http_s3_init_target(cf, conf, target);
    }

    if (rv == NGX_CONF_OK) {
        rv = ngx_http_s3_init_sizes(cf, mcf, conf, target->limits);
    }

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (conf->gate_set != 1) {
        conf->gate.percent = 100;
        conf->gate.bytes = 100 * 1024 * 1024;
        conf->gate.min = 64 * 1024;
    }

    transfer->target = target;
    transfer->pool = mcf->pool;
    transfer->reaper = mcf->reaper;
    transfer->progress.stores = &mcf->stores;
    transfer->progress.gate = conf->gate;
    transfer->progress.log_level = conf->progress_log;
    transfer->part_size = conf->part_size;
    transfer->window = conf->window;
    transfer->concurrency = conf->part_concurrency;
    transfer->zero_copy = conf->zero_copy;
    transfer->queue_timeout = conf->queue_timeout;

    conf->transfer = transfer;

    return NGX_CONF_OK;
}


static char *
ngx_http_s3_init_credentials(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf,
    const char *directive)
{
    char      *rv;
    ngx_str_t  name = ngx_string("s3_credentials");
    ngx_str_t  env = ngx_string("env");

    if (conf->credentials == NGX_CONF_UNSET_PTR) {
        rv = ngx_s3_credentials_create(cf, &name, &env, 1, &conf->credentials,
                                       &conf->credentials_missing);
        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (conf->credentials->access_key.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%s\" in location \"%V\" has no credentials: "
                           "%V", directive, ngx_http_s3_location(cf),
                           &conf->credentials_missing);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_s3_init_target(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf,
    ngx_s3_target_t *target)
{
    char        *rv;
    s3_str_t     region;
    ngx_uint_t   aws;
    const char  *err;

    rv = ngx_http_s3_init_endpoint(cf, conf, target);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    aws = s3_uri_is_aws(ngx_s3_to_str(target->endpoint->host));

    target->limits = aws ? &s3_limits_aws : &s3_limits_default;

    if (conf->checksum == NGX_CONF_UNSET_UINT) {
        conf->checksum = aws ? NGX_HTTP_S3_CHECKSUM_CRC32
                             : NGX_HTTP_S3_CHECKSUM_OFF;
    }

    if (conf->bucket->lengths == NULL) {
        target->bucket = conf->bucket->value;
    }

    target->credentials = conf->credentials;
    target->addressing = conf->addressing;
    target->tries = conf->tries;
    target->retry_timeout = conf->retry_timeout;
    target->crc32 = (conf->checksum == NGX_HTTP_S3_CHECKSUM_CRC32);

    target->sign_payload =
        (conf->payload_signature == NGX_HTTP_S3_ON
         || (conf->payload_signature == NGX_HTTP_S3_AUTO
             && !target->endpoint->tls));

    if (conf->region.len) {
        target->region = conf->region;

    } else if (!aws && conf->credentials->region.len) {
        target->region = conf->credentials->region;

    } else {
        region = s3_uri_region(ngx_s3_to_str(target->endpoint->host));
        target->region.len = region.len;
        target->region.data = (u_char *) region.data;
    }

    if (s3_uri_check_region(ngx_s3_to_str(target->region), &err) != S3_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid \"s3_region\" \"%V\" in location "
                           "\"%V\": %s", &target->region,
                           ngx_http_s3_location(cf), err);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_s3_init_endpoint(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf,
    ngx_s3_target_t *target)
{
    ngx_str_t           hidden = ngx_string("...");
    const char         *err;
    ngx_s3_endpoint_t  *endpoint;

    endpoint = ngx_s3_endpoint_create(cf, &conf->endpoint, &err);

    if (endpoint == NULL) {

        /* it may have a user and a password */

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid \"s3_endpoint\" \"%V\" in location "
                           "\"%V\": %s",
                           ngx_strlchr(conf->endpoint.data,
                                       conf->endpoint.data
                                       + conf->endpoint.len, '@')
                           ? &hidden : &conf->endpoint,
                           ngx_http_s3_location(cf), err);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_s3_check_endpoint(cf, conf, endpoint) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_s3_set_endpoint(cf, conf, endpoint, &conf->ssl) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    target->endpoint = endpoint;

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_s3_set_endpoint(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf,
    ngx_s3_endpoint_t *endpoint, ngx_s3_ssl_conf_t *ssl)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    /* core's stand-in for no resolver has no server */

    if (clcf->resolver && clcf->resolver->connections.nelts) {
        endpoint->resolver = clcf->resolver;
        endpoint->resolver_timeout = clcf->resolver_timeout;
    }

    endpoint->connect_timeout = conf->connect_timeout;
    endpoint->send_timeout = conf->send_timeout;
    endpoint->read_timeout = conf->read_timeout;
    endpoint->keepalive = conf->keepalive;
    endpoint->keepalive_timeout = conf->keepalive_timeout;

    return ngx_s3_endpoint_ssl(cf, endpoint, ssl);
}


static char *
ngx_http_s3_init_sizes(ngx_conf_t *cf, ngx_http_s3_main_conf_t *mcf,
    ngx_http_s3_loc_conf_t *conf, const s3_limits_t *limits)
{
    ngx_str_t  *location;
    ngx_uint_t  derived;

    location = ngx_http_s3_location(cf);

    if (conf->part_size < limits->min_part
        || conf->part_size > limits->max_part)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"s3_part_size\" %uz is outside of S3's limits, "
                           "5m to 5g, in location \"%V\"", conf->part_size,
                           location);
        return NGX_CONF_ERROR;
    }

    derived = (conf->window == NGX_CONF_UNSET_SIZE);

    if (derived) {
        conf->window = conf->part_size * (conf->part_concurrency + 1);
    }

    if (conf->window / 2 < conf->part_size) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"s3_window\" %uz is smaller than two parts of "
                           "\"s3_part_size\" %uz in location \"%V\"",
                           conf->window, conf->part_size, location);
        return NGX_CONF_ERROR;
    }

    if (mcf->memory < conf->window + limits->min_part) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"s3_memory\" %uz is smaller than \"s3_window\" "
                           "%uz + 5m in location \"%V\"%s", mcf->memory,
                           conf->window, location,
                           derived ? ", where it is by default s3_part_size "
                                     "times (s3_part_concurrency + 1)"
                                   : "");
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}
