#include "ngx_s3_conn.h"

#include "ngx_s3_resolve.h"
#include "ngx_s3_tls.h"


#define NGX_S3_TLS_PROTOCOLS  (NGX_SSL_TLSv1_2|NGX_SSL_TLSv1_3)

#define NGX_S3_TLS_DEPTH      100    /* OpenSSL's own default */


static ngx_int_t ngx_s3_endpoint_address(ngx_pool_t *pool,
    ngx_s3_endpoint_t *endpoint, const s3_uri_endpoint_t *uri);
static ngx_int_t ngx_s3_endpoint_store(ngx_conf_t *cf, ngx_ssl_t *ssl,
    ngx_s3_ssl_conf_t *conf);


ngx_s3_endpoint_t *
ngx_s3_endpoint_create(ngx_conf_t *cf, ngx_str_t *url, const char **err)
{
    s3_uri_endpoint_t   uri;
    ngx_s3_endpoint_t  *endpoint;

    if (s3_uri_parse_endpoint(ngx_s3_to_str(*url), &uri, err) != S3_OK) {
        return NULL;
    }

    *err = "no memory";

    endpoint = ngx_pcalloc(cf->pool, sizeof(ngx_s3_endpoint_t));
    if (endpoint == NULL) {
        return NULL;
    }

    if (ngx_s3_endpoint_init(cf, endpoint) != NGX_OK
        || ngx_s3_endpoint_address(cf->pool, endpoint, &uri) != NGX_OK)
    {
        return NULL;
    }

    endpoint->ssl_verify = 1;

    return endpoint;
}


ngx_s3_endpoint_t *
ngx_s3_endpoint_derive(ngx_pool_t *pool, ngx_s3_endpoint_t *template,
    const s3_uri_endpoint_t *uri)
{
    ngx_s3_endpoint_t  *endpoint;

    if (uri->tls && template->ssl == NULL) {
        return NULL;
    }

    endpoint = ngx_palloc(pool, sizeof(ngx_s3_endpoint_t));
    if (endpoint == NULL) {
        return NULL;
    }

    *endpoint = *template;

    endpoint->sockaddr = NULL;
    endpoint->socklen = 0;

    /* an idle connection would outlive the pool */

    endpoint->keepalive = 0;
    endpoint->nidle = 0;
    ngx_queue_init(&endpoint->idle);

    if (ngx_s3_endpoint_address(pool, endpoint, uri) != NGX_OK) {
        return NULL;
    }

    return endpoint;
}


ngx_int_t
ngx_s3_endpoint_init(ngx_conf_t *cf, ngx_s3_endpoint_t *endpoint)
{
    ngx_s3_endpoint_state_t  *state;

    state = ngx_pcalloc(cf->pool, sizeof(ngx_s3_endpoint_state_t));
    if (state == NULL) {
        return NGX_ERROR;
    }

    state->names = ngx_s3_names_get(cf);
    if (state->names == NULL) {
        return NGX_ERROR;
    }

    ngx_queue_init(&state->sessions);
    ngx_queue_init(&endpoint->idle);

    endpoint->state = state;

    endpoint->resolver_timeout = 30000;
    endpoint->connect_timeout = 5000;
    endpoint->send_timeout = 30000;
    endpoint->read_timeout = 60000;
    endpoint->keepalive_timeout = 4000;
    endpoint->keepalive = 32;

    return NGX_OK;
}


static ngx_int_t
ngx_s3_endpoint_address(ngx_pool_t *pool, ngx_s3_endpoint_t *endpoint,
    const s3_uri_endpoint_t *uri)
{
    u_char      *p, *start;
    size_t       len;
    const char  *scheme, *open, *close;

    scheme = uri->tls ? "https://" : "http://";
    open = uri->type == S3_HOST_IPV6 ? "[" : "";
    close = uri->type == S3_HOST_IPV6 ? "]" : "";

    len = sizeof("https://[]:65535") + uri->host.len;

    p = ngx_pnalloc(pool, uri->host.len + 1 + len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    endpoint->port = (in_port_t) uri->port;
    endpoint->type = uri->type;
    endpoint->tls = uri->tls;

    endpoint->host.len = uri->host.len;
    endpoint->host.data = p;
    ngx_strlow(p, (u_char *) uri->host.data, uri->host.len);
    p += uri->host.len;
    *p++ = '\0';

    start = p;
    p = ngx_sprintf(p, "%s", scheme);

    endpoint->authority.data = p;
    p = ngx_sprintf(p, "%s%V%s", open, &endpoint->host, close);

    if (uri->port != (uri->tls ? 443 : 80)) {
        p = ngx_sprintf(p, ":%ui", (ngx_uint_t) uri->port);
    }

    endpoint->authority.len = p - endpoint->authority.data;
    endpoint->name.data = start;
    endpoint->name.len = p - start;

    return NGX_OK;
}


ngx_int_t
ngx_s3_endpoint_ssl(ngx_conf_t *cf, ngx_s3_endpoint_t *endpoint,
    ngx_s3_ssl_conf_t *conf)
{
    ngx_str_t            ciphers;
    ngx_ssl_t           *ssl;
    ngx_uint_t           protocols;
    ngx_pool_cleanup_t  *cln;

    if (!endpoint->tls) {
        return NGX_OK;
    }

    ssl = ngx_pcalloc(cf->pool, sizeof(ngx_ssl_t));
    if (ssl == NULL) {
        return NGX_ERROR;
    }

    ssl->log = cf->log;

    protocols = conf->protocols ? conf->protocols : NGX_S3_TLS_PROTOCOLS;

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    if (ngx_ssl_create(ssl, protocols, NULL) != NGX_OK) {
        return NGX_ERROR;
    }

    cln->handler = ngx_ssl_cleanup_ctx;
    cln->data = ssl;

    ciphers = conf->ciphers;

    if (ciphers.len == 0) {
        ngx_str_set(&ciphers, "DEFAULT");
    }

    if (ngx_ssl_ciphers(cf, ssl, &ciphers, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    if (conf->verify && ngx_s3_endpoint_store(cf, ssl, conf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_ssl_client_session_cache(cf, ssl, conf->session_reuse) != NGX_OK
        || ngx_ssl_conf_commands(cf, ssl, conf->conf_commands) != NGX_OK)
    {
        return NGX_ERROR;
    }

    endpoint->ssl = ssl;
    endpoint->ssl_name = conf->name;
    endpoint->ssl_verify = conf->verify;
    endpoint->ssl_session_reuse = conf->session_reuse;

    return NGX_OK;
}


static ngx_int_t
ngx_s3_endpoint_store(ngx_conf_t *cf, ngx_ssl_t *ssl, ngx_s3_ssl_conf_t *conf)
{
    if (ngx_ssl_trusted_certificate(cf, ssl, &conf->trusted_certificate,
                                    NGX_S3_TLS_DEPTH)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (conf->trusted_certificate.len) {
        return NGX_OK;
    }

    /* nginx itself never loads the system's store */

    if (SSL_CTX_set_default_verify_paths(ssl->ctx) == 0) {
        ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0,
                      "SSL_CTX_set_default_verify_paths() failed");
        return NGX_ERROR;
    }

    ERR_clear_error();

    return NGX_OK;
}
