#include "ngx_http_s3_transfer_module.h"
#include "s3_hash.h"


static ngx_int_t ngx_http_s3_postconfiguration(ngx_conf_t *cf);
static char *ngx_http_s3_set_memory(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static void *ngx_http_s3_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_s3_init_main_conf(ngx_conf_t *cf, void *conf);
static void ngx_http_s3_init_ttl(ngx_s3_stores_t *stores);
static void *ngx_http_s3_create_srv_conf(ngx_conf_t *cf);
static void *ngx_http_s3_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_s3_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static void ngx_http_s3_merge_handler(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *prev, ngx_http_s3_loc_conf_t *conf);
static void ngx_http_s3_merge_transport(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *prev, ngx_http_s3_loc_conf_t *conf);
static ngx_http_s3_main_conf_t *ngx_http_s3_worker_conf(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_s3_init_process(ngx_cycle_t *cycle);
static void ngx_http_s3_exit_process(ngx_cycle_t *cycle);


#define NGX_HTTP_S3_ANY                                                      \
    (NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF)

#define NGX_HTTP_S3_CONTENT                                                  \
    (NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF|NGX_HTTP_LMT_CONF)

#define ngx_http_s3_any(name, args, set, field, post)                        \
    { ngx_string(name), NGX_HTTP_S3_ANY|args, set,                           \
      NGX_HTTP_LOC_CONF_OFFSET, offsetof(ngx_http_s3_loc_conf_t, field),     \
      post }


static ngx_conf_enum_t  ngx_http_s3_addressing[] = {
    { ngx_string("auto"), S3_ADDRESSING_AUTO },
    { ngx_string("path"), S3_ADDRESSING_PATH },
    { ngx_string("virtual"), S3_ADDRESSING_VIRTUAL },
    { ngx_null_string, 0 }
};


static ngx_conf_enum_t  ngx_http_s3_signature[] = {
    { ngx_string("auto"), NGX_HTTP_S3_AUTO },
    { ngx_string("on"), NGX_HTTP_S3_ON },
    { ngx_string("off"), NGX_HTTP_S3_OFF },
    { ngx_null_string, 0 }
};


static ngx_conf_enum_t  ngx_http_s3_checksums[] = {
    { ngx_string("off"), NGX_HTTP_S3_CHECKSUM_OFF },
    { ngx_string("crc32"), NGX_HTTP_S3_CHECKSUM_CRC32 },
    { ngx_null_string, 0 }
};


static ngx_conf_enum_t  ngx_http_s3_tee_overruns[] = {
    { ngx_string("drop"), NGX_HTTP_S3_TEE_DROP },
    { ngx_string("wait"), NGX_HTTP_S3_TEE_WAIT },
    { ngx_null_string, 0 }
};


static ngx_conf_enum_t  ngx_http_s3_tee_aborts[] = {
    { ngx_string("continue"), NGX_HTTP_S3_TEE_CONTINUE },
    { ngx_string("abort"), NGX_HTTP_S3_TEE_ABORT },
    { ngx_null_string, 0 }
};


static ngx_conf_bitmask_t  ngx_http_s3_tee_headers[] = {
    { ngx_string("Set-Cookie"), NGX_HTTP_S3_TEE_SET_COOKIE },
    { ngx_string("Cache-Control"), NGX_HTTP_S3_TEE_CACHE_CONTROL },
    { ngx_null_string, 0 }
};


static ngx_conf_bitmask_t  ngx_http_s3_ssl_protocols[] = {
    { ngx_string("SSLv2"), NGX_SSL_SSLv2 },
    { ngx_string("SSLv3"), NGX_SSL_SSLv3 },
    { ngx_string("TLSv1"), NGX_SSL_TLSv1 },
    { ngx_string("TLSv1.1"), NGX_SSL_TLSv1_1 },
    { ngx_string("TLSv1.2"), NGX_SSL_TLSv1_2 },
    { ngx_string("TLSv1.3"), NGX_SSL_TLSv1_3 },
    { ngx_null_string, 0 }
};


static ngx_conf_num_bounds_t  ngx_http_s3_concurrency_bounds = {
    ngx_conf_check_num_bounds, 1, 256
};


static ngx_conf_num_bounds_t  ngx_http_s3_tries_bounds = {
    ngx_conf_check_num_bounds, 1, 1000
};


static ngx_conf_post_t  ngx_http_s3_time_post = { ngx_http_s3_check_time };


static ngx_command_t  ngx_http_s3_commands[] = {

    { ngx_string("s3_transfer_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_s3_set_size,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_s3_main_conf_t, zone_size),
      NULL },

    { ngx_string("s3_memory"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE12,
      ngx_http_s3_set_memory,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_s3_main_conf_t, memory),
      NULL },

    { ngx_string("s3_reaper"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE12,
      ngx_http_s3_set_reaper,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("s3_progress_redis"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_http_s3_set_redis,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("s3_progress_dynamodb"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_http_s3_set_dynamodb,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("s3_progress_dynamodb_credentials"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_http_s3_set_dynamodb_credentials,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("s3_upload"),
      NGX_HTTP_S3_CONTENT|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_s3_set_upload,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("s3_ingest"),
      NGX_HTTP_S3_CONTENT|NGX_CONF_TAKE12,
      ngx_http_s3_set_ingest,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("s3_ingest_max"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_s3_main_conf_t, ingest_max),
      NULL },

    ngx_http_s3_any("s3_ingest_async", NGX_CONF_FLAG, ngx_conf_set_flag_slot,
                    ingest.async, NULL),

    ngx_http_s3_any("s3_ingest_redirects", NGX_CONF_TAKE1,
                    ngx_conf_set_num_slot, ingest.redirects, NULL),

    ngx_http_s3_any("s3_ingest_header", NGX_CONF_TAKE2,
                    ngx_http_s3_set_ingest_header, ingest.headers, NULL),

    ngx_http_s3_any("s3_ingest_allow", NGX_CONF_1MORE,
                    ngx_http_s3_set_ingest_allow, ingest.allow, NULL),

    ngx_http_s3_any("s3_ingest_close_delimited", NGX_CONF_FLAG,
                    ngx_conf_set_flag_slot, ingest.close_delimited, NULL),

    { ngx_string("s3_status"),
      NGX_HTTP_S3_CONTENT|NGX_CONF_ANY,
      ngx_http_s3_set_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    ngx_http_s3_any("s3_tee", NGX_CONF_NOARGS|NGX_CONF_TAKE1,
                    ngx_http_s3_set_tee, tee, NULL),

    ngx_http_s3_any("s3_tee_on_overrun", NGX_CONF_TAKE1,
                    ngx_conf_set_enum_slot, tee.on_overrun,
                    ngx_http_s3_tee_overruns),

    ngx_http_s3_any("s3_tee_client_abort", NGX_CONF_TAKE1,
                    ngx_conf_set_enum_slot, tee.client_abort,
                    ngx_http_s3_tee_aborts),

    ngx_http_s3_any("s3_tee_ignore_headers", NGX_CONF_1MORE,
                    ngx_conf_set_bitmask_slot, tee.ignore_headers,
                    ngx_http_s3_tee_headers),

    ngx_http_s3_any("s3_tee_close_delimited", NGX_CONF_FLAG,
                    ngx_conf_set_flag_slot, tee.close_delimited, NULL),

    ngx_http_s3_any("s3_tee_status", NGX_CONF_1MORE,
                    ngx_http_s3_set_tee_status, tee.status, NULL),

    ngx_http_s3_any("s3_tee_min_size", NGX_CONF_TAKE1, ngx_conf_set_off_slot,
                    tee.min_size, NULL),

    ngx_http_s3_any("s3_tee_max_size", NGX_CONF_TAKE1, ngx_conf_set_off_slot,
                    tee.max_size, NULL),

    ngx_http_s3_any("s3_tee_if", NGX_CONF_TAKE1,
                    ngx_http_set_complex_value_slot, tee.condition, NULL),

    ngx_http_s3_any("s3_endpoint", NGX_CONF_TAKE1, ngx_conf_set_str_slot,
                    endpoint, NULL),

    ngx_http_s3_any("s3_addressing", NGX_CONF_TAKE1, ngx_conf_set_enum_slot,
                    addressing, ngx_http_s3_addressing),

    ngx_http_s3_any("s3_region", NGX_CONF_TAKE1, ngx_conf_set_str_slot,
                    region, NULL),

    ngx_http_s3_any("s3_bucket", NGX_CONF_TAKE1,
                    ngx_http_set_complex_value_slot, bucket, NULL),

    ngx_http_s3_any("s3_credentials", NGX_CONF_1MORE,
                    ngx_http_s3_set_credentials, credentials, NULL),

    ngx_http_s3_any("s3_payload_signature", NGX_CONF_TAKE1,
                    ngx_conf_set_enum_slot, payload_signature,
                    ngx_http_s3_signature),

    ngx_http_s3_any("s3_checksum", NGX_CONF_TAKE1, ngx_conf_set_enum_slot,
                    checksum, ngx_http_s3_checksums),

    ngx_http_s3_any("s3_part_size", NGX_CONF_TAKE1, ngx_http_s3_set_size,
                    part_size, NULL),

    ngx_http_s3_any("s3_part_concurrency", NGX_CONF_TAKE1,
                    ngx_conf_set_num_slot, part_concurrency,
                    &ngx_http_s3_concurrency_bounds),

    ngx_http_s3_any("s3_window", NGX_CONF_TAKE1, ngx_http_s3_set_size,
                    window, NULL),

    ngx_http_s3_any("s3_zero_copy", NGX_CONF_FLAG, ngx_conf_set_flag_slot,
                    zero_copy, NULL),

    ngx_http_s3_any("s3_object_header", NGX_CONF_TAKE2,
                    ngx_http_s3_set_field, object_headers, NULL),

    ngx_http_s3_any("s3_metadata", NGX_CONF_TAKE2, ngx_http_s3_set_metadata,
                    metadata, NULL),

    ngx_http_s3_any("s3_overwrite", NGX_CONF_FLAG, ngx_conf_set_flag_slot,
                    overwrite, NULL),

    ngx_http_s3_any("s3_transfer_id", NGX_CONF_TAKE1,
                    ngx_http_set_complex_value_slot, transfer_id, NULL),

    ngx_http_s3_any("s3_owner", NGX_CONF_TAKE1,
                    ngx_http_set_complex_value_slot, owner, NULL),

    ngx_http_s3_any("s3_progress_step", NGX_CONF_TAKE23, ngx_http_s3_set_step,
                    gate, NULL),

    ngx_http_s3_any("s3_progress_log", NGX_CONF_TAKE1, ngx_http_s3_set_log,
                    progress_log, NULL),

    ngx_http_s3_any("s3_connect_timeout", NGX_CONF_TAKE1,
                    ngx_conf_set_msec_slot, connect_timeout,
                    &ngx_http_s3_time_post),

    ngx_http_s3_any("s3_send_timeout", NGX_CONF_TAKE1,
                    ngx_conf_set_msec_slot, send_timeout,
                    &ngx_http_s3_time_post),

    ngx_http_s3_any("s3_read_timeout", NGX_CONF_TAKE1,
                    ngx_conf_set_msec_slot, read_timeout,
                    &ngx_http_s3_time_post),

    ngx_http_s3_any("s3_queue_timeout", NGX_CONF_TAKE1,
                    ngx_conf_set_msec_slot, queue_timeout, NULL),

    ngx_http_s3_any("s3_tries", NGX_CONF_TAKE1, ngx_conf_set_num_slot,
                    tries, &ngx_http_s3_tries_bounds),

    ngx_http_s3_any("s3_retry_timeout", NGX_CONF_TAKE1,
                    ngx_conf_set_msec_slot, retry_timeout, NULL),

    ngx_http_s3_any("s3_keepalive", NGX_CONF_TAKE1, ngx_conf_set_num_slot,
                    keepalive, NULL),

    ngx_http_s3_any("s3_keepalive_timeout", NGX_CONF_TAKE1,
                    ngx_conf_set_msec_slot, keepalive_timeout, NULL),

    ngx_http_s3_any("s3_ssl_verify", NGX_CONF_FLAG, ngx_conf_set_flag_slot,
                    ssl.verify, NULL),

    ngx_http_s3_any("s3_ssl_trusted_certificate", NGX_CONF_TAKE1,
                    ngx_conf_set_str_slot, ssl.trusted_certificate, NULL),

    ngx_http_s3_any("s3_ssl_name", NGX_CONF_TAKE1, ngx_conf_set_str_slot,
                    ssl.name, NULL),

    ngx_http_s3_any("s3_ssl_protocols", NGX_CONF_1MORE,
                    ngx_conf_set_bitmask_slot, ssl.protocols,
                    ngx_http_s3_ssl_protocols),

    ngx_http_s3_any("s3_ssl_ciphers", NGX_CONF_TAKE1, ngx_conf_set_str_slot,
                    ssl.ciphers, NULL),

    ngx_http_s3_any("s3_ssl_session_reuse", NGX_CONF_FLAG,
                    ngx_conf_set_flag_slot, ssl.session_reuse, NULL),

    ngx_http_s3_any("s3_ssl_conf_command", NGX_CONF_TAKE2,
                    ngx_conf_set_keyval_slot, ssl.conf_commands, NULL),

    ngx_null_command
};


static ngx_http_module_t  ngx_http_s3_transfer_module_ctx = {
    ngx_http_s3_add_variables,             /* preconfiguration */
    ngx_http_s3_postconfiguration,         /* postconfiguration */

    ngx_http_s3_create_main_conf,          /* create main configuration */
    ngx_http_s3_init_main_conf,            /* init main configuration */

    ngx_http_s3_create_srv_conf,           /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_s3_create_loc_conf,           /* create location configuration */
    ngx_http_s3_merge_loc_conf             /* merge location configuration */
};


ngx_module_t  ngx_http_s3_transfer_module = {
    NGX_MODULE_V1,
    &ngx_http_s3_transfer_module_ctx,      /* module context */
    ngx_http_s3_commands,                  /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_s3_init_process,              /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_s3_exit_process,              /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_s3_postconfiguration(ngx_conf_t *cf)
{
    ngx_http_s3_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_s3_transfer_module);

    /* here, not in a worker: OpenSSL loses memory where a look-up fails for
       want of it, and each worker would look up again */

    if (mcf->used && s3_hash_init() != S3_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "OpenSSL has no SHA-256 or HMAC for the signatures "
                           "of requests to S3");
        return NGX_ERROR;
    }

    ngx_http_s3_place_init();

    if (ngx_http_s3_upload_init(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    return mcf->tee ? ngx_http_s3_tee_init(cf) : NGX_OK;
}


static char *
ngx_http_s3_set_memory(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_main_conf_t *mcf = conf;

    char       *rv;
    ngx_int_t   idle;
    ngx_str_t  *value, s;

    rv = ngx_http_s3_set_size(cf, cmd, conf);

    if (rv != NGX_CONF_OK || cf->args->nelts == 2) {
        return rv;
    }

    value = cf->args->elts;

    idle = (ngx_s3_store_arg(&value[2], "idle", &s) == NGX_OK)
           ? ngx_parse_time(&s, 0) : NGX_ERROR;

    if (idle == NGX_ERROR || idle == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" of \"s3_memory\", it "
                           "takes idle= and a time, as in idle=30s", &value[2]);
        return NGX_CONF_ERROR;
    }

    mcf->memory_idle = idle;

    return NGX_CONF_OK;
}


static void *
ngx_http_s3_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_s3_main_conf_t  *mcf;

    mcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_s3_main_conf_t));
    if (mcf == NULL) {
        return NULL;
    }

    mcf->zone_size = NGX_CONF_UNSET_SIZE;
    mcf->memory = NGX_CONF_UNSET_SIZE;
    mcf->memory_idle = NGX_CONF_UNSET_MSEC;
    mcf->reaper_mode = NGX_CONF_UNSET_UINT;
    mcf->ingest_max = NGX_CONF_UNSET_UINT;
    mcf->stores.redis = NGX_CONF_UNSET_PTR;
    mcf->stores.dynamodb = NGX_CONF_UNSET_PTR;

    if (ngx_array_init(&mcf->targets, cf->pool, 4, sizeof(ngx_s3_target_t *))
        != NGX_OK
        || ngx_array_init(&mcf->origins, cf->pool, 4,
                          sizeof(ngx_s3_endpoint_t *))
           != NGX_OK)
    {
        return NULL;
    }

    return mcf;
}


/* called once all of the configuration is read, before locations are merged */

static char *
ngx_http_s3_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_s3_main_conf_t *mcf = conf;

    ngx_str_t  name = ngx_string("s3_transfer");

    ngx_conf_init_size_value(mcf->zone_size, 16 * 1024 * 1024);
    ngx_conf_init_size_value(mcf->memory, 256 * 1024 * 1024);
    ngx_conf_init_uint_value(mcf->ingest_max, 100);
    ngx_conf_init_ptr_value(mcf->stores.redis, NULL);
    ngx_conf_init_ptr_value(mcf->stores.dynamodb, NULL);

    if (ngx_http_s3_init_reaper(cf, mcf) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    if (!mcf->used) {
        return NGX_CONF_OK;
    }

    mcf->stores.zone = ngx_s3_zone_create(cf, &name, mcf->zone_size,
                                          &ngx_http_s3_transfer_module);
    ngx_conf_init_msec_value(mcf->memory_idle, 30000);

    mcf->pool = ngx_s3_pool_create(cf, mcf->memory, mcf->memory_idle);

    if (mcf->stores.zone == NULL || mcf->pool == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_http_s3_init_ttl(&mcf->stores);

    return ngx_http_s3_init_stores(cf, mcf);
}


/* the zone keeps what is over as long as the store that keeps it longest */

static void
ngx_http_s3_init_ttl(ngx_s3_stores_t *stores)
{
    ngx_msec_t  ttl;

    ttl = stores->redis ? stores->redis->ttl : 0;

    if (stores->dynamodb && stores->dynamodb->ttl > ttl) {
        ttl = stores->dynamodb->ttl;
    }

    if (ttl) {
        stores->zone->ttl = ttl;
    }
}


static void *
ngx_http_s3_create_srv_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_s3_srv_conf_t));
}


static void *
ngx_http_s3_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_s3_loc_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_s3_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     endpoint, region, upload, upload_key, status, ingest.door, transfer,
     *     ssl.trusted_certificate, ssl.name, ssl.ciphers = 0 or NULL,
     *     ssl.protocols = 0
     */

    conf->addressing = NGX_CONF_UNSET_UINT;
    conf->bucket = NGX_CONF_UNSET_PTR;
    conf->credentials = NGX_CONF_UNSET_PTR;
    conf->payload_signature = NGX_CONF_UNSET_UINT;
    conf->checksum = NGX_CONF_UNSET_UINT;
    conf->part_size = NGX_CONF_UNSET_SIZE;
    conf->part_concurrency = NGX_CONF_UNSET_UINT;
    conf->window = NGX_CONF_UNSET_SIZE;
    conf->object_headers = NGX_CONF_UNSET_PTR;
    conf->metadata = NGX_CONF_UNSET_PTR;
    conf->zero_copy = NGX_CONF_UNSET;
    conf->overwrite = NGX_CONF_UNSET;
    conf->transfer_id = NGX_CONF_UNSET_PTR;
    conf->owner = NGX_CONF_UNSET_PTR;
    conf->gate_set = NGX_CONF_UNSET;
    conf->progress_log = NGX_CONF_UNSET_UINT;

    ngx_http_s3_tee_create_conf(&conf->tee);

    conf->connect_timeout = NGX_CONF_UNSET_MSEC;
    conf->send_timeout = NGX_CONF_UNSET_MSEC;
    conf->read_timeout = NGX_CONF_UNSET_MSEC;
    conf->queue_timeout = NGX_CONF_UNSET_MSEC;
    conf->tries = NGX_CONF_UNSET_UINT;
    conf->retry_timeout = NGX_CONF_UNSET_MSEC;
    conf->keepalive = NGX_CONF_UNSET_UINT;
    conf->keepalive_timeout = NGX_CONF_UNSET_MSEC;

    conf->ssl.verify = NGX_CONF_UNSET;
    conf->ssl.session_reuse = NGX_CONF_UNSET;
    conf->ssl.conf_commands = NGX_CONF_UNSET_PTR;

    ngx_http_s3_create_ingest(&conf->ingest);

    return conf;
}


static char *
ngx_http_s3_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_s3_loc_conf_t *prev = parent;
    ngx_http_s3_loc_conf_t *conf = child;

    ngx_http_s3_main_conf_t  *mcf;

    ngx_conf_merge_uint_value(conf->addressing, prev->addressing,
                              S3_ADDRESSING_AUTO);
    ngx_conf_merge_str_value(conf->region, prev->region, "");
    ngx_conf_merge_ptr_value(conf->bucket, prev->bucket, NULL);

    if (conf->credentials == NGX_CONF_UNSET_PTR) {
        conf->credentials = prev->credentials;
        conf->credentials_missing = prev->credentials_missing;
    }

    ngx_conf_merge_uint_value(conf->payload_signature,
                              prev->payload_signature, NGX_HTTP_S3_AUTO);

    if (conf->checksum == NGX_CONF_UNSET_UINT) {
        conf->checksum = prev->checksum;
    }

    ngx_conf_merge_size_value(conf->part_size, prev->part_size,
                              16 * 1024 * 1024);
    ngx_conf_merge_uint_value(conf->part_concurrency, prev->part_concurrency,
                              4);

    if (conf->window == NGX_CONF_UNSET_SIZE) {
        conf->window = prev->window;
    }

    ngx_conf_merge_value(conf->zero_copy, prev->zero_copy, 1);
    ngx_conf_merge_ptr_value(conf->object_headers, prev->object_headers, NULL);
    ngx_conf_merge_ptr_value(conf->metadata, prev->metadata, NULL);
    ngx_conf_merge_value(conf->overwrite, prev->overwrite, 1);
    ngx_conf_merge_ptr_value(conf->transfer_id, prev->transfer_id, NULL);
    ngx_conf_merge_ptr_value(conf->owner, prev->owner, NULL);

    if (conf->gate_set == NGX_CONF_UNSET && prev->gate_set == 1) {
        conf->gate_set = 1;
        conf->gate = prev->gate;
    }

    ngx_conf_merge_uint_value(conf->progress_log, prev->progress_log,
                              NGX_LOG_INFO);

    ngx_http_s3_merge_transport(cf, prev, conf);

    ngx_http_s3_merge_handler(cf, prev, conf);

    ngx_http_s3_warn_handler(cf, conf);

    ngx_http_s3_tee_merge_conf(&prev->tee, &conf->tee);

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_s3_transfer_module);

    if (conf->upload || conf->status || conf->ingest.door) {

        /* our own answers */

        conf->tee.on = 0;
    }

    if (ngx_http_s3_tee_check(cf, &conf->tee) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    if (conf->tee.on) {
        ngx_http_s3_tee_warn(cf, &conf->tee, &mcf->tee_warned);
    }

    if (ngx_http_s3_merge_ingest(cf, prev, conf) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    if (conf->upload) {
        return ngx_http_s3_init_transfer(cf, mcf, conf, "s3_upload",
                                         conf->upload_key);
    }

    if (conf->tee.on) {
        return ngx_http_s3_init_transfer(cf, mcf, conf, "s3_tee",
                                         conf->tee.key);
    }

    return NGX_CONF_OK;
}


/* "if" and limit_except have the content handler of their location */

static void
ngx_http_s3_merge_handler(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *prev,
    ngx_http_s3_loc_conf_t *conf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if ((clcf->noname || clcf->lmt_excpt) && !conf->upload && !conf->status
        && conf->ingest.door == NULL && clcf->handler == NULL)
    {
        conf->upload = prev->upload;
        conf->upload_key = prev->upload_key;
        conf->status = prev->status;
        conf->ingest.door = prev->ingest.door;

        if (clcf->lmt_excpt) {
            clcf->handler = conf->upload ? ngx_http_s3_upload_handler
                            : conf->status ? ngx_http_s3_status_content
                            : conf->ingest.door ? ngx_http_s3_ingest_handler
                            : NULL;
        }
    }
}


/* how S3 is reached */

static void
ngx_http_s3_merge_transport(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *prev,
    ngx_http_s3_loc_conf_t *conf)
{
    if (conf->endpoint.data == NULL) {
        conf->endpoint = prev->endpoint;
    }

    ngx_conf_merge_msec_value(conf->connect_timeout, prev->connect_timeout,
                              5000);
    ngx_conf_merge_msec_value(conf->send_timeout, prev->send_timeout, 30000);
    ngx_conf_merge_msec_value(conf->read_timeout, prev->read_timeout, 60000);
    ngx_conf_merge_msec_value(conf->queue_timeout, prev->queue_timeout, 75000);
    ngx_conf_merge_uint_value(conf->tries, prev->tries, 10);
    ngx_conf_merge_msec_value(conf->retry_timeout, prev->retry_timeout,
                              120000);
    ngx_conf_merge_uint_value(conf->keepalive, prev->keepalive, 32);
    ngx_conf_merge_msec_value(conf->keepalive_timeout,
                              prev->keepalive_timeout, 4000);

    ngx_conf_merge_value(conf->ssl.verify, prev->ssl.verify, 1);
    ngx_conf_merge_value(conf->ssl.session_reuse, prev->ssl.session_reuse, 1);

    if (conf->ssl.trusted_certificate.data == NULL) {
        conf->ssl.trusted_certificate = prev->ssl.trusted_certificate;
    }

    if (conf->ssl.name.data == NULL) {
        conf->ssl.name = prev->ssl.name;
    }

    ngx_conf_merge_bitmask_value(conf->ssl.protocols, prev->ssl.protocols,
                                 (NGX_CONF_BITMASK_SET
                                  |NGX_SSL_TLSv1_2|NGX_SSL_TLSv1_3));
    ngx_conf_merge_str_value(conf->ssl.ciphers, prev->ssl.ciphers, "DEFAULT");
    ngx_conf_merge_ptr_value(conf->ssl.conf_commands, prev->ssl.conf_commands,
                             NULL);
}


/* NULL: this process is no worker, or nothing here is in use */

static ngx_http_s3_main_conf_t *
ngx_http_s3_worker_conf(ngx_cycle_t *cycle)
{
    ngx_http_s3_main_conf_t  *mcf;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NULL;
    }

    if (ngx_get_conf(cycle->conf_ctx, ngx_http_module) == NULL) {
        return NULL;
    }

    mcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_s3_transfer_module);

    return (mcf && mcf->used) ? mcf : NULL;
}


static ngx_int_t
ngx_http_s3_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                i;
    ngx_s3_target_t         **target;
    ngx_s3_counters_t        *counters;
    ngx_http_s3_main_conf_t  *mcf;

    mcf = ngx_http_s3_worker_conf(cycle);

    if (mcf == NULL) {
        return NGX_OK;
    }

    ngx_s3_zone_enter(mcf->stores.zone);

    counters = mcf->stores.zone->counters;

    ngx_s3_pool_init(mcf->pool, &counters->memory_used);

    target = mcf->targets.elts;

    for (i = 0; i < mcf->targets.nelts; i++) {
        target[i]->requests = &counters->s3_requests;
        target[i]->retries = &counters->s3_retries;
        target[i]->errors = &counters->s3_errors;
    }

    if (ngx_s3_reaper_init_worker(mcf->reaper, cycle) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_s3_progress_init_worker(&mcf->stores, cycle);
}


static void
ngx_http_s3_exit_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                i;
    ngx_s3_target_t         **target;
    ngx_s3_endpoint_t       **origin;
    ngx_http_s3_main_conf_t  *mcf;

    mcf = ngx_http_s3_worker_conf(cycle);

    if (mcf == NULL) {
        return;
    }

    ngx_s3_reaper_exit_worker(mcf->reaper);

    target = mcf->targets.elts;

    for (i = 0; i < mcf->targets.nelts; i++) {
        ngx_s3_endpoint_close_idle(target[i]->endpoint);
    }

    origin = mcf->origins.elts;

    for (i = 0; i < mcf->origins.nelts; i++) {
        ngx_s3_endpoint_close_idle(origin[i]);
    }

    ngx_s3_progress_exit_worker(&mcf->stores);
}
