#include "ngx_s3_credentials.h"


#define NGX_S3_CREDENTIALS_MAX_FILE  (1024 * 1024)

/* s; a file that does not end with a line and is younger may be half written */
#define NGX_S3_CREDENTIALS_SETTLED  2

/* as long as s3_profile_t allows; s3_sigv4 takes secrets of 512 bytes */
#define NGX_S3_CREDENTIALS_MAX_KEY   255

#define NGX_S3_CREDENTIALS_START     16


typedef struct {
    ngx_conf_t            *cf;
    ngx_str_t             *directive;
    ngx_s3_credentials_t  *credentials;
    ngx_str_t             *missing;
} ngx_s3_credentials_ctx_t;


static ngx_uint_t ngx_s3_credentials_repeats(const char *text,
    ngx_str_t *secret);
static char *ngx_s3_credentials_static(ngx_s3_credentials_ctx_t *ctx,
    ngx_str_t *args, ngx_uint_t n);
static char *ngx_s3_credentials_env(ngx_s3_credentials_ctx_t *ctx,
    ngx_str_t *args, ngx_uint_t n);
static char *ngx_s3_credentials_file(ngx_s3_credentials_ctx_t *ctx,
    ngx_str_t *args, ngx_uint_t n);
static char *ngx_s3_credentials_file_args(ngx_s3_credentials_ctx_t *ctx,
    ngx_str_t *args, ngx_uint_t n, ngx_str_t *path, ngx_str_t *name);
static char *ngx_s3_credentials_parse_file(ngx_s3_credentials_ctx_t *ctx,
    s3_profile_t *profile, ngx_str_t *path, ngx_str_t *name,
    ngx_uint_t config);
static char *ngx_s3_credentials_profile(ngx_s3_credentials_ctx_t *ctx,
    s3_profile_t *profile, ngx_str_t *path, ngx_str_t *name);
static ngx_int_t ngx_s3_credentials_default_path(ngx_s3_credentials_ctx_t *ctx,
    const char *variable, const char *name, ngx_str_t *path);
static ngx_int_t ngx_s3_credentials_text(ngx_pool_t *pool, ngx_str_t *path,
    ngx_str_t *text, time_t *changed);
static ngx_int_t ngx_s3_credentials_set(ngx_s3_credentials_ctx_t *ctx,
    const char *access_key, const char *secret_key, const char *token,
    const char **err);
static ngx_int_t ngx_s3_credentials_copy(ngx_pool_t *pool, ngx_str_t *dst,
    const char *src);
static ngx_uint_t ngx_s3_credentials_visible(const char *s);
static char *ngx_s3_credentials_error(ngx_s3_credentials_ctx_t *ctx,
    const char *reason);
static char *ngx_s3_credentials_missing(ngx_s3_credentials_ctx_t *ctx,
    const char *fmt, ...);


static const struct {
    ngx_str_t   name;
    char     *(*create)(ngx_s3_credentials_ctx_t *ctx, ngx_str_t *args,
                    ngx_uint_t n);
} ngx_s3_credentials_providers[] = {
    { ngx_string("env"), ngx_s3_credentials_env },
    { ngx_string("file"), ngx_s3_credentials_file },
    { ngx_string("static"), ngx_s3_credentials_static }
};


char *
ngx_s3_credentials_create(ngx_conf_t *cf, ngx_str_t *directive,
    ngx_str_t *args, ngx_uint_t n, ngx_s3_credentials_t **credentials,
    ngx_str_t *missing)
{
    ngx_uint_t                i;
    ngx_s3_credentials_ctx_t  ctx;

    ngx_str_null(missing);

    ctx.cf = cf;
    ctx.directive = directive;
    ctx.missing = missing;

    ctx.credentials = ngx_pcalloc(cf->pool, sizeof(ngx_s3_credentials_t));
    if (ctx.credentials == NULL) {
        return NGX_CONF_ERROR;
    }

    *credentials = ctx.credentials;

    for (i = 0; i < sizeof(ngx_s3_credentials_providers)
                    / sizeof(ngx_s3_credentials_providers[0]); i++)
    {
        if (n == 0
            || args[0].len != ngx_s3_credentials_providers[i].name.len
            || ngx_strncmp(args[0].data,
                           ngx_s3_credentials_providers[i].name.data,
                           args[0].len)
               != 0)
        {
            continue;
        }

        ctx.credentials->provider = ngx_s3_credentials_providers[i].name;

        return ngx_s3_credentials_providers[i].create(&ctx, args + 1, n - 1);
    }

    /* what stands there may be a key: it is not shown */

    return ngx_s3_credentials_error(&ctx, "must begin with \"env\", \"file\" "
                                          "or \"static\"");
}


ngx_int_t
ngx_s3_credentials_get(ngx_s3_credentials_t *credentials, s3_keys_t *keys)
{
    if (credentials->access_key.len == 0) {
        return NGX_ERROR;
    }

    keys->access_key.len = credentials->access_key.len;
    keys->access_key.data = credentials->access_key.data;

    keys->secret_key.len = credentials->secret_key.len;
    keys->secret_key.data = credentials->secret_key.data;

    keys->session_token.len = credentials->session_token.len;
    keys->session_token.data = credentials->session_token.data;

    return NGX_OK;
}


ngx_uint_t
ngx_s3_credentials_told(ngx_s3_credentials_t *credentials, const char *text)
{
    return ngx_strstr(text, "Signature=") || ngx_strstr(text, "AWS4-HMAC")
           || ngx_s3_credentials_repeats(text, &credentials->secret_key)
           || ngx_s3_credentials_repeats(text, &credentials->session_token);
}


/* the text may have been cut: the start of a secret will do */

static ngx_uint_t
ngx_s3_credentials_repeats(const char *text, ngx_str_t *secret)
{
    u_char  start[NGX_S3_CREDENTIALS_START + 1];

    if (secret->len == 0) {
        return 0;
    }

    ngx_cpystrn(start, secret->data, ngx_min(secret->len + 1, sizeof(start)));

    return ngx_strstr(text, start) != NULL;
}


static char *
ngx_s3_credentials_static(ngx_s3_credentials_ctx_t *ctx, ngx_str_t *args,
    ngx_uint_t n)
{
    ngx_int_t    rc;
    const char  *err;

    if (n != 2 && n != 3) {
        return ngx_s3_credentials_error(ctx, "needs \"static\" with an access "
                                             "key, a secret key and at most a "
                                             "session token");
    }

    /* keys are taken as they stand: such a one is what a template left */

    if (args[0].data[0] == '$') {
        return ngx_s3_credentials_error(ctx, "takes no variables, and its "
                                             "access key begins with \"$\"");
    }

    /* arguments of directives have a NUL after them */

    rc = ngx_s3_credentials_set(ctx, (char *) args[0].data,
                                (char *) args[1].data,
                                (n == 3) ? (char *) args[2].data : NULL, &err);

    if (rc == NGX_DECLINED) {
        return ngx_s3_credentials_error(ctx, err);
    }

    return (rc == NGX_OK) ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_s3_credentials_env(ngx_s3_credentials_ctx_t *ctx, ngx_str_t *args,
    ngx_uint_t n)
{
    ngx_int_t    rc;
    const char  *access_key, *secret_key, *err;

    if (n != 0) {
        return ngx_s3_credentials_error(ctx, "allows nothing after \"env\"");
    }

    access_key = getenv("AWS_ACCESS_KEY_ID");
    secret_key = getenv("AWS_SECRET_ACCESS_KEY");

    if (access_key == NULL || *access_key == '\0'
        || secret_key == NULL || *secret_key == '\0')
    {
        return ngx_s3_credentials_missing(ctx,
                   "%s not set in the environment nginx was started with; "
                   "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY there or "
                   "use another \"%V\"",
                   (access_key && *access_key)
                   ? "AWS_SECRET_ACCESS_KEY is"
                   : (secret_key && *secret_key)
                     ? "AWS_ACCESS_KEY_ID is"
                     : "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are",
                   ctx->directive);
    }

    rc = ngx_s3_credentials_set(ctx, access_key, secret_key,
                                getenv("AWS_SESSION_TOKEN"), &err);

    if (rc == NGX_DECLINED) {
        return ngx_s3_credentials_missing(ctx, "the environment's %s; correct "
                                          "AWS_ACCESS_KEY_ID, "
                                          "AWS_SECRET_ACCESS_KEY and "
                                          "AWS_SESSION_TOKEN", err);
    }

    return (rc == NGX_OK) ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_s3_credentials_file(ngx_s3_credentials_ctx_t *ctx, ngx_str_t *args,
    ngx_uint_t n)
{
    char                *rv;
    ngx_str_t            path, config, name;
    s3_profile_t        *profile;
    ngx_pool_cleanup_t  *cln;

    ngx_str_null(&config);

    rv = ngx_s3_credentials_file_args(ctx, args, n, &path, &name);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (path.len) {
        if (ngx_conf_full_name(ctx->cf->cycle, &path, 1) != NGX_OK) {
            return NGX_CONF_ERROR;
        }

    } else {
        if (ngx_s3_credentials_default_path(ctx, "AWS_SHARED_CREDENTIALS_FILE",
                                            "credentials", &path)
            != NGX_OK
            || ngx_s3_credentials_default_path(ctx, "AWS_CONFIG_FILE",
                                               "config", &config)
               != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }

        if (path.len == 0 && config.len == 0) {
            return ngx_s3_credentials_missing(ctx,
                       "neither AWS_SHARED_CREDENTIALS_FILE nor HOME is set "
                       "in the environment nginx was started with; give "
                       "\"%V file\" a path", ctx->directive);
        }
    }

    cln = ngx_pool_cleanup_add(ctx->cf->pool, 0);
    if (cln == NULL) {
        return NGX_CONF_ERROR;
    }

    cln->handler = ngx_s3_credentials_forget;
    cln->data = ctx->credentials;

    ctx->credentials->path = path;
    ctx->credentials->config = config;

    profile = ngx_pcalloc(ctx->cf->temp_pool, sizeof(s3_profile_t));

    if (profile == NULL
        || ngx_s3_credentials_copy(ctx->cf->pool, &ctx->credentials->profile,
                                   (char *) name.data)
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    rv = ngx_s3_credentials_parse_file(ctx, profile, &path, &name, 0);

    if (rv == NGX_CONF_OK && config.len) {
        rv = ngx_s3_credentials_parse_file(ctx, profile, &config, &name, 1);
    }

    if (rv == NGX_CONF_OK) {
        rv = ngx_s3_credentials_profile(ctx, profile, &path, &name);
    }

    s3_profile_wipe(profile);

    return rv;
}


static char *
ngx_s3_credentials_file_args(ngx_s3_credentials_ctx_t *ctx, ngx_str_t *args,
    ngx_uint_t n, ngx_str_t *path, ngx_str_t *name)
{
    ngx_uint_t  i;

    ngx_str_null(path);
    ngx_str_null(name);

    for (i = 0; i < n; i++) {

        if (ngx_strncmp(args[i].data, "profile=", 8) == 0) {
            if (name->len || args[i].len == 8) {
                return ngx_s3_credentials_error(ctx, "needs one name in "
                                                     "\"profile=\"");
            }

            name->len = args[i].len - 8;
            name->data = args[i].data + 8;
            continue;
        }

        if (path->len || args[i].len == 0) {
            return ngx_s3_credentials_error(ctx, "allows one path and "
                                                 "\"profile=\" after "
                                                 "\"file\"");
        }

        *path = args[i];
    }

    if (name->len == 0) {
        name->data = (u_char *) getenv("AWS_PROFILE");

        if (name->data == NULL || *name->data == '\0') {
            name->data = (u_char *) "default";
        }

        name->len = ngx_strlen(name->data);
    }

    return NGX_CONF_OK;
}


/* a file that cannot be read leaves its reason in *missing */

static char *
ngx_s3_credentials_parse_file(ngx_s3_credentials_ctx_t *ctx,
    s3_profile_t *profile, ngx_str_t *path, ngx_str_t *name,
    ngx_uint_t config)
{
    ngx_int_t    rc;
    ngx_uint_t   half;
    const char  *err;

    if (path->len == 0) {
        return NGX_CONF_OK;
    }

    rc = ngx_s3_credentials_read(ctx->cf->temp_pool, path, name, config,
                                 profile, &err, &half);

    if (rc == NGX_DECLINED && ngx_errno == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, ctx->cf, 0,
                           "\"%V\": \"%V\" is not a file, or too large",
                           ctx->directive, path);
        return NGX_CONF_ERROR;
    }

    if (rc == NGX_DECLINED) {

        if (config && ngx_errno == NGX_ENOENT) {
            return NGX_CONF_OK;
        }

        return ngx_s3_credentials_missing(ctx, "\"%V\" cannot be read (%d: "
                                          "%s); correct the path or its "
                                          "rights", path, ngx_errno,
                                          strerror(ngx_errno));
    }

    if (rc == NGX_ABORT) {
        ngx_conf_log_error(NGX_LOG_EMERG, ctx->cf, 0,
                           "\"%V\": %s in \"%V\", profile \"%V\"",
                           ctx->directive, err, path, name);
        return NGX_CONF_ERROR;
    }

    return (rc == NGX_OK) ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_s3_credentials_profile(ngx_s3_credentials_ctx_t *ctx,
    s3_profile_t *profile, ngx_str_t *path, ngx_str_t *name)
{
    ngx_int_t    rc;
    const char  *err;

    if (ngx_s3_credentials_copy(ctx->cf->pool, &ctx->credentials->region,
                                profile->region)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (profile->access_key[0] == '\0' || profile->secret_key[0] == '\0') {

        if (ctx->missing->len && !profile->found) {
            return NGX_CONF_OK;
        }

        return ngx_s3_credentials_missing(ctx,
                   profile->found
                   ? "profile \"%V\" in \"%V\" has no aws_access_key_id with "
                     "aws_secret_access_key; add them or name another profile"
                   : "no profile \"%V\" in \"%V\"; add it or name another "
                     "with \"profile=\"", name, path);
    }

    ngx_str_null(ctx->missing);

    rc = ngx_s3_credentials_set(ctx, profile->access_key, profile->secret_key,
                                profile->session_token, &err);

    if (rc == NGX_DECLINED) {
        return ngx_s3_credentials_missing(ctx, "the %s in profile \"%V\" of "
                                          "\"%V\"; correct it", err, name,
                                          path);
    }

    return (rc == NGX_OK) ? NGX_CONF_OK : NGX_CONF_ERROR;
}


/* empty: neither the variable nor HOME is set */

static ngx_int_t
ngx_s3_credentials_default_path(ngx_s3_credentials_ctx_t *ctx,
    const char *variable, const char *name, ngx_str_t *path)
{
    char    *value;
    size_t   len;
    u_char  *p;

    value = getenv(variable);

    if (value && *value) {
        return ngx_s3_credentials_copy(ctx->cf->pool, path, value);
    }

    value = getenv("HOME");

    if (value == NULL || *value == '\0') {
        return NGX_OK;
    }

    len = ngx_strlen(value) + sizeof("/.aws/") + ngx_strlen(name);

    p = ngx_pnalloc(ctx->cf->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    path->data = p;
    path->len = ngx_sprintf(p, "%s/.aws/%s%Z", value, name) - p - 1;

    return NGX_OK;
}


ngx_int_t
ngx_s3_credentials_read(ngx_pool_t *pool, ngx_str_t *path, ngx_str_t *name,
    ngx_uint_t config, s3_profile_t *profile, const char **err,
    ngx_uint_t *half)
{
    int        rc;
    time_t     changed;
    s3_str_t   wanted;
    ngx_int_t  read;
    ngx_str_t  text;

    read = ngx_s3_credentials_text(pool, path, &text, &changed);

    if (read != NGX_OK) {
        return read;
    }

    wanted.len = name->len;
    wanted.data = name->data;

    rc = s3_profile_parse(profile, (char *) text.data, text.len, wanted,
                          config, err);

    *half = (text.len == 0 || text.data[text.len - 1] != LF)
            && ngx_time() - changed < NGX_S3_CREDENTIALS_SETTLED;

    s3_wipe(text.data, text.len);

    return (rc == S3_OK) ? NGX_OK : NGX_ABORT;
}


/* NGX_DECLINED and NGX_ERROR: as above */

static ngx_int_t
ngx_s3_credentials_text(ngx_pool_t *pool, ngx_str_t *path, ngx_str_t *text,
    time_t *changed)
{
    off_t            size;
    ssize_t          n;
    ngx_fd_t         fd;
    ngx_err_t        err;
    ngx_file_info_t  fi;

    fd = ngx_open_file(path->data, NGX_FILE_RDONLY|NGX_FILE_NONBLOCK,
                       NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        return NGX_DECLINED;
    }

    n = -1;
    text->data = NULL;

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR) {
        goto done;
    }

    size = ngx_file_size(&fi);

    if (!ngx_is_file(&fi) || size > NGX_S3_CREDENTIALS_MAX_FILE) {
        ngx_set_errno(0);
        goto done;
    }

    text->data = ngx_pnalloc(pool, size + 1);

    if (text->data == NULL) {
        (void) ngx_close_file(fd);
        return NGX_ERROR;
    }

    n = ngx_read_fd(fd, text->data, size);

    *changed = ngx_file_mtime(&fi);

done:

    err = ngx_errno;

    (void) ngx_close_file(fd);

    if (n == -1) {
        ngx_set_errno(err);
        return NGX_DECLINED;
    }

    text->len = n;
    text->data[n] = '\0';

    return NGX_OK;
}


const char *
ngx_s3_credentials_check(const char *access_key, const char *secret_key,
    const char *token)
{
    if (!ngx_s3_credentials_visible(access_key)
        || ngx_strlen(access_key) > NGX_S3_CREDENTIALS_MAX_KEY)
    {
        return "access key is empty, too long, or has a space or a control "
               "character";
    }

    if (!ngx_s3_credentials_visible(secret_key)
        || ngx_strlen(secret_key) > NGX_S3_CREDENTIALS_MAX_KEY)
    {
        return "secret key is empty, too long, or has a space or a control "
               "character";
    }

    if (token && *token && !ngx_s3_credentials_visible(token)) {
        return "session token has a space or a control character";
    }

    return NULL;
}


/* NGX_DECLINED: *err tells what is wrong; NGX_ERROR: no memory */

static ngx_int_t
ngx_s3_credentials_set(ngx_s3_credentials_ctx_t *ctx, const char *access_key,
    const char *secret_key, const char *token, const char **err)
{
    ngx_pool_t            *pool;
    ngx_s3_credentials_t  *credentials;

    *err = ngx_s3_credentials_check(access_key, secret_key, token);

    if (*err) {
        return NGX_DECLINED;
    }

    pool = ctx->cf->pool;
    credentials = ctx->credentials;

    if (ngx_s3_credentials_copy(pool, &credentials->access_key, access_key)
        != NGX_OK
        || ngx_s3_credentials_copy(pool, &credentials->secret_key, secret_key)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (token) {
        return ngx_s3_credentials_copy(pool, &credentials->session_token,
                                       token);
    }

    return NGX_OK;
}


/* with a NUL after it */

static ngx_int_t
ngx_s3_credentials_copy(ngx_pool_t *pool, ngx_str_t *dst, const char *src)
{
    size_t  len;

    len = ngx_strlen(src);

    dst->data = ngx_pnalloc(pool, len + 1);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(dst->data, src, len + 1);
    dst->len = len;

    return NGX_OK;
}


static ngx_uint_t
ngx_s3_credentials_visible(const char *s)
{
    const char  *p;

    for (p = s; *p; p++) {
        if ((u_char) *p <= ' ' || (u_char) *p >= 0x7f) {
            return 0;
        }
    }

    return p != s;
}


static char *
ngx_s3_credentials_error(ngx_s3_credentials_ctx_t *ctx, const char *reason)
{
    ngx_conf_log_error(NGX_LOG_EMERG, ctx->cf, 0, "\"%V\" %s", ctx->directive,
                       reason);

    return NGX_CONF_ERROR;
}


static char *
ngx_s3_credentials_missing(ngx_s3_credentials_ctx_t *ctx, const char *fmt, ...)
{
    u_char   *p, *last;
    va_list   args;

    p = ngx_pnalloc(ctx->cf->pool, NGX_MAX_CONF_ERRSTR);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    va_start(args, fmt);
    last = ngx_vslprintf(p, p + NGX_MAX_CONF_ERRSTR - 1, fmt, args);
    va_end(args);

    *last = '\0';

    ctx->missing->data = p;
    ctx->missing->len = last - p;

    return NGX_CONF_OK;
}
