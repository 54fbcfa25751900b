#include "ngx_s3_redis.h"


#define NGX_S3_REDIS_PORT      6379
#define NGX_S3_REDIS_TIMEOUT   5000  /* ms: to resolve, to connect */
#define NGX_S3_REDIS_PASSWORD  4096  /* bytes of the file */


static ngx_int_t ngx_s3_redis_url(ngx_conf_t *cf, ngx_s3_redis_conf_t *conf,
    ngx_str_t url, const char **err);
static ngx_int_t ngx_s3_redis_userinfo(ngx_conf_t *cf,
    ngx_s3_redis_conf_t *conf, ngx_str_t *authority, const char **err);
static ngx_int_t ngx_s3_redis_decode(ngx_conf_t *cf, ngx_str_t s,
    ngx_str_t *out);
static ngx_int_t ngx_s3_redis_db(ngx_s3_redis_conf_t *conf, ngx_str_t s,
    const char **err);
static ngx_int_t ngx_s3_redis_inet(ngx_conf_t *cf, ngx_s3_redis_conf_t *conf,
    ngx_str_t host, ngx_uint_t tls, const char **err);
static ngx_int_t ngx_s3_redis_unix(ngx_conf_t *cf, ngx_s3_redis_conf_t *conf,
    ngx_str_t path, const char **err);
static ngx_int_t ngx_s3_redis_password(ngx_conf_t *cf,
    ngx_s3_redis_conf_t *conf, ngx_str_t *file);
static ngx_int_t ngx_s3_redis_ssl(ngx_conf_t *cf, ngx_s3_redis_conf_t *conf,
    ngx_str_t *ca);


#define ngx_s3_redis_split(s, p)                                             \
    { (s).len -= (p) + 1 - (s).data; (s).data = (p) + 1; }


ngx_s3_redis_conf_t *
ngx_s3_redis_configure(ngx_conf_t *cf, ngx_s3_store_t *store, ngx_str_t *args,
    ngx_uint_t n)
{
    ngx_str_t             file, ttl, ca;
    ngx_uint_t            i;
    const char           *err;
    ngx_s3_redis_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_s3_redis_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    ngx_str_set(&conf->prefix, "transfer:");
    ngx_str_null(&file);
    ngx_str_null(&ttl);
    ngx_str_null(&ca);

    err = "no memory";

    /* the URL may hold a password: it is not shown */

    if (ngx_s3_redis_url(cf, conf, args[0], &err) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid URL in \"s3_progress_redis\": %s", err);
        return NULL;
    }

    for (i = 1; i < n; i++) {

        if (ngx_s3_store_arg(&args[i], "prefix", &conf->prefix) == NGX_OK
            || ngx_s3_store_arg(&args[i], "channel", &conf->channel) == NGX_OK
            || ngx_s3_store_arg(&args[i], "password_file", &file) == NGX_OK
            || ngx_s3_store_arg(&args[i], "ttl", &ttl) == NGX_OK
            || ngx_s3_store_arg(&args[i], "ca", &ca) == NGX_OK)
        {
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter %ui of \"s3_progress_redis\", "
                           "it takes prefix=, ttl=, channel=, password_file= "
                           "and ca=", i + 1);
        return NULL;
    }

    if (conf->prefix.len > 256) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "prefix of \"s3_progress_redis\" is too long");
        return NULL;
    }

    if ((ttl.data && ngx_s3_store_ttl(cf, store, &ttl) != NGX_OK)
        || (file.data && ngx_s3_redis_password(cf, conf, &file) != NGX_OK)
        || ngx_s3_redis_ssl(cf, conf, &ca) != NGX_OK)
    {
        return NULL;
    }

    if (conf->user.len && conf->password.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"s3_progress_redis\" names a user without a "
                           "password");
        return NULL;
    }

    store->endpoint = conf->endpoint;
    store->where = conf->endpoint->name;

    return conf;
}


/*
 * redis[s]://[user[:password]@]host[:port][/db]
 * unix://[user[:password]@]/path[?db=db], also unix:/path
 */

static ngx_int_t
ngx_s3_redis_url(ngx_conf_t *cf, ngx_s3_redis_conf_t *conf, ngx_str_t url,
    const char **err)
{
    u_char      *slash;
    ngx_str_t    authority;
    ngx_uint_t   tls, local;

    tls = 0;
    local = 0;

    if (ngx_strncmp(url.data, "redis://", 8) == 0) {
        url.data += 8;
        url.len -= 8;

    } else if (ngx_strncmp(url.data, "rediss://", 9) == 0) {
        tls = 1;
        url.data += 9;
        url.len -= 9;

    } else if (ngx_strncmp(url.data, "unix:", 5) == 0) {
        local = 1;
        url.data += 5;
        url.len -= 5;

        if (ngx_strncmp(url.data, "//", 2) == 0) {
            url.data += 2;
            url.len -= 2;
        }

    } else {
        *err = "it begins with redis://, rediss:// or unix://";
        return NGX_ERROR;
    }

    slash = ngx_strlchr(url.data, url.data + url.len, '/');

    authority = url;

    if (slash) {
        authority.len = slash - url.data;
    }

    if (ngx_s3_redis_userinfo(cf, conf, &authority, err) != NGX_OK) {
        return NGX_ERROR;
    }

    if (local) {
        if (slash == NULL || authority.len) {
            *err = "the path of a socket begins with a slash";
            return NGX_ERROR;
        }

        url.len -= slash - url.data;
        url.data = slash;

        return ngx_s3_redis_unix(cf, conf, url, err);
    }

    if (slash) {
        ngx_s3_redis_split(url, slash);

        if (ngx_s3_redis_db(conf, url, err) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return ngx_s3_redis_inet(cf, conf, authority, tls, err);
}


/* takes user and password off the authority: up to the last "@", since a
   password may have been written as it is */

static ngx_int_t
ngx_s3_redis_userinfo(ngx_conf_t *cf, ngx_s3_redis_conf_t *conf,
    ngx_str_t *authority, const char **err)
{
    u_char     *p, *colon;
    ngx_str_t   user, password;

    for (p = authority->data + authority->len; p > authority->data; p--) {
        if (p[-1] == '@') {
            break;
        }
    }

    if (p == authority->data) {
        return NGX_OK;
    }

    user.data = authority->data;
    user.len = p - 1 - authority->data;

    authority->len -= p - authority->data;
    authority->data = p;

    ngx_str_null(&password);
    colon = ngx_strlchr(user.data, user.data + user.len, ':');

    if (colon) {
        password = user;
        ngx_s3_redis_split(password, colon);
        user.len = colon - user.data;
    }

    if (ngx_s3_redis_decode(cf, user, &conf->user) != NGX_OK
        || ngx_s3_redis_decode(cf, password, &conf->password) != NGX_OK)
    {
        *err = "malformed percent-encoding";
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_s3_redis_decode(ngx_conf_t *cf, ngx_str_t s, ngx_str_t *out)
{
    u_char     *p;
    size_t      i;
    ngx_int_t   n;

    p = ngx_pnalloc(cf->pool, s.len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    out->data = p;

    for (i = 0; i < s.len; i++) {

        if (s.data[i] != '%') {
            *p++ = s.data[i];
            continue;
        }

        if (s.len - i < 3) {
            return NGX_ERROR;
        }

        n = ngx_hextoi(&s.data[i + 1], 2);

        if (n == NGX_ERROR) {
            return NGX_ERROR;
        }

        *p++ = (u_char) n;
        i += 2;
    }

    out->len = p - out->data;

    return NGX_OK;
}


static ngx_int_t
ngx_s3_redis_db(ngx_s3_redis_conf_t *conf, ngx_str_t s, const char **err)
{
    ngx_int_t  n;

    if (s.len == 0) {
        return NGX_OK;
    }

    n = ngx_atoi(s.data, s.len);

    if (n == NGX_ERROR) {
        *err = "the database is not a number";
        return NGX_ERROR;
    }

    conf->db = n;

    return NGX_OK;
}


static ngx_int_t
ngx_s3_redis_inet(ngx_conf_t *cf, ngx_s3_redis_conf_t *conf, ngx_str_t host,
    ngx_uint_t tls, const char **err)
{
    u_char             *p, *last;
    ngx_str_t           url, name;
    ngx_s3_endpoint_t  *ep;

    last = host.data + host.len;

    /* a colon within brackets is no port's */

    p = ngx_strlchr(host.data, last, ']');
    p = ngx_strlchr(p ? p : host.data, last, ':');

    /* an endpoint is made of a URL of HTTP's */

    url.data = ngx_pnalloc(cf->pool, host.len + sizeof("https://:65535"));
    name.data = ngx_pnalloc(cf->pool, host.len + sizeof("rediss://:65535"));

    if (url.data == NULL || name.data == NULL) {
        return NGX_ERROR;
    }

    last = ngx_sprintf(url.data, "%s%V", tls ? "https://" : "http://", &host);

    if (p == NULL) {
        last = ngx_sprintf(last, ":%d", NGX_S3_REDIS_PORT);
    }

    url.len = last - url.data;

    ep = ngx_s3_endpoint_create(cf, &url, err);
    if (ep == NULL) {
        return NGX_ERROR;
    }

    ep->connect_timeout = NGX_S3_REDIS_TIMEOUT;
    ep->resolver_timeout = NGX_S3_REDIS_TIMEOUT;
    ep->keepalive = 0;

    last = ngx_sprintf(name.data, "%s%V", tls ? "rediss://" : "redis://",
                       &host);
    name.len = last - name.data;
    ep->name = name;

    conf->endpoint = ep;

    return NGX_OK;
}


static ngx_int_t
ngx_s3_redis_unix(ngx_conf_t *cf, ngx_s3_redis_conf_t *conf, ngx_str_t path,
    const char **err)
{
    u_char              *p;
    ngx_str_t            query;
    ngx_s3_endpoint_t   *ep;
    struct sockaddr_un  *saun;

    p = ngx_strlchr(path.data, path.data + path.len, '?');

    if (p) {
        query = path;
        path.len = p - path.data;
        ngx_s3_redis_split(query, p);

        if (query.len < 4 || ngx_strncmp(query.data, "db=", 3) != 0) {
            *err = "after the path comes ?db= and a number";
            return NGX_ERROR;
        }

        query.data += 3;
        query.len -= 3;

        if (ngx_s3_redis_db(conf, query, err) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (path.len >= sizeof(saun->sun_path)) {
        *err = "the path of the socket is too long";
        return NGX_ERROR;
    }

    ep = ngx_pcalloc(cf->pool, sizeof(ngx_s3_endpoint_t));
    saun = ngx_pcalloc(cf->pool, sizeof(struct sockaddr_un));
    p = ngx_pnalloc(cf->pool, path.len + sizeof("unix:"));

    if (ep == NULL || saun == NULL || p == NULL
        || ngx_s3_endpoint_init(cf, ep) != NGX_OK)
    {
        return NGX_ERROR;
    }

    saun->sun_family = AF_UNIX;
    ngx_memcpy(saun->sun_path, path.data, path.len);

    ep->name.data = p;
    ep->name.len = ngx_sprintf(p, "unix:%V", &path) - p;

    ngx_str_set(&ep->host, "localhost");
    ep->authority = ep->host;
    ep->type = S3_HOST_NAME;
    ep->sockaddr = (struct sockaddr *) saun;
    ep->socklen = sizeof(struct sockaddr_un);
    ep->connect_timeout = NGX_S3_REDIS_TIMEOUT;
    ep->keepalive = 0;

    conf->endpoint = ep;

    return NGX_OK;
}


/* the first line of the file; read by the master, who may */

static ngx_int_t
ngx_s3_redis_password(ngx_conf_t *cf, ngx_s3_redis_conf_t *conf,
    ngx_str_t *file)
{
    u_char     *buf;
    ssize_t     n;
    ngx_fd_t    fd;
    ngx_str_t   name;

    if (conf->password.len) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"s3_progress_redis\" has a password in its URL "
                           "and a password_file");
        return NGX_ERROR;
    }

    name = *file;
    buf = ngx_pnalloc(cf->pool, NGX_S3_REDIS_PASSWORD);

    if (buf == NULL || ngx_conf_full_name(cf->cycle, &name, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    fd = ngx_open_file(name.data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_open_file_n " \"%s\" failed", name.data);
        return NGX_ERROR;
    }

    n = ngx_read_fd(fd, buf, NGX_S3_REDIS_PASSWORD);

    if (n == -1) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_read_fd_n " \"%s\" failed", name.data);
        n = 0;
    }

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, ngx_errno,
                           ngx_close_file_n " \"%s\" failed", name.data);
    }

    conf->password.data = buf;

    while (conf->password.len < (size_t) n
           && buf[conf->password.len] != LF && buf[conf->password.len] != CR)
    {
        conf->password.len++;
    }

    if (conf->password.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no password in the first line of \"%s\"",
                           name.data);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_s3_redis_ssl(ngx_conf_t *cf, ngx_s3_redis_conf_t *conf, ngx_str_t *ca)
{
    ngx_s3_ssl_conf_t  ssl;

    if (!conf->endpoint->tls) {

        if (ca->len) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "ca= of \"s3_progress_redis\" is for "
                               "rediss:// alone");
            return NGX_ERROR;
        }

        return NGX_OK;
    }

    ngx_memzero(&ssl, sizeof(ngx_s3_ssl_conf_t));

    ssl.verify = 1;
    ssl.session_reuse = 1;
    ssl.trusted_certificate = *ca;

    return ngx_s3_endpoint_ssl(cf, conf->endpoint, &ssl);
}
