#include "ngx_s3_credentials.h"


static const char *ngx_s3_credentials_load(ngx_s3_credentials_t *credentials,
    ngx_pool_t *pool, s3_profile_t *profile, ngx_str_t **shown);
static const char *ngx_s3_credentials_load_file(ngx_pool_t *pool,
    ngx_str_t *path, ngx_str_t *name, ngx_uint_t config,
    s3_profile_t *profile, ngx_uint_t *there);
static ngx_uint_t ngx_s3_credentials_same(ngx_s3_credentials_t *credentials,
    s3_profile_t *profile);
static void ngx_s3_credentials_use(ngx_s3_credentials_t *credentials,
    s3_profile_t *profile);


void
ngx_s3_credentials_refresh(ngx_s3_credentials_t *credentials, ngx_log_t *log)
{
    ngx_str_t     *shown;
    ngx_pool_t    *pool;
    const char    *err;
    s3_profile_t  *profile;

    if ((credentials->path.len == 0 && credentials->config.len == 0)
        || credentials->looked == ngx_time())
    {
        return;
    }

    credentials->looked = ngx_time();

    profile = ngx_calloc(sizeof(s3_profile_t), log);
    if (profile == NULL) {
        return;
    }

    pool = ngx_create_pool(NGX_MIN_POOL_SIZE, log);
    if (pool == NULL) {
        ngx_free(profile);
        return;
    }

    err = ngx_s3_credentials_load(credentials, pool, profile, &shown);

    ngx_destroy_pool(pool);

    if (err == NULL && !ngx_s3_credentials_same(credentials, profile)) {
        ngx_s3_credentials_use(credentials, profile);

        ngx_log_error(NGX_LOG_NOTICE, log, 0,
                      "s3 keys are refused, there are others in \"%V\"", shown);
        return;
    }

    s3_profile_wipe(profile);
    ngx_free(profile);

    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "s3 keys are refused, and there are no others in \"%V\""
                  "%s%s%s", shown, err ? " (" : "", err ? err : "",
                  err ? ")" : "");
}


/* As ngx_s3_credentials_create() does; what is wrong, or NULL. shown: the file
   that has them, or in which that is wrong. */

static const char *
ngx_s3_credentials_load(ngx_s3_credentials_t *credentials, ngx_pool_t *pool,
    s3_profile_t *profile, ngx_str_t **shown)
{
    ngx_uint_t   there;
    const char  *err;

    *shown = &credentials->path;
    there = 0;

    err = ngx_s3_credentials_load_file(pool, &credentials->path,
                                       &credentials->profile, 0, profile,
                                       &there);
    if (err) {
        return err;
    }

    if (!there && credentials->config.len) {
        *shown = &credentials->config;
    }

    err = ngx_s3_credentials_load_file(pool, &credentials->config,
                                       &credentials->profile, 1, profile,
                                       &there);
    if (err) {
        *shown = &credentials->config;
        return err;
    }

    return ngx_s3_credentials_check(profile->access_key, profile->secret_key,
                                    profile->session_token);
}


/* there: set where it is; it is for the other one to have them where it is
   not */

static const char *
ngx_s3_credentials_load_file(ngx_pool_t *pool, ngx_str_t *path,
    ngx_str_t *name, ngx_uint_t config, s3_profile_t *profile,
    ngx_uint_t *there)
{
    ngx_int_t    rc;
    ngx_uint_t   half;
    const char  *err;

    if (path->len == 0) {
        return NULL;
    }

    rc = ngx_s3_credentials_read(pool, path, name, config, profile, &err,
                                 &half);

    if (rc == NGX_DECLINED && ngx_errno == NGX_ENOENT) {
        return NULL;
    }

    if (rc == NGX_ABORT) {
        return err;
    }

    if (rc != NGX_OK) {
        return "the worker cannot read it";
    }

    *there = 1;

    return half ? "it is being written" : NULL;
}


static ngx_uint_t
ngx_s3_credentials_same(ngx_s3_credentials_t *credentials,
    s3_profile_t *profile)
{
    s3_keys_t  keys;

    return ngx_s3_credentials_get(credentials, &keys) == NGX_OK
           && s3_str_eqs(keys.access_key, profile->access_key)
           && s3_str_eqs(keys.secret_key, profile->secret_key)
           && s3_str_eqs(keys.session_token, profile->session_token);
}


/* the worker's from now on: nobody holds keys from one event to another */

static void
ngx_s3_credentials_use(ngx_s3_credentials_t *credentials,
    s3_profile_t *profile)
{
    credentials->access_key.data = (u_char *) profile->access_key;
    credentials->access_key.len = ngx_strlen(profile->access_key);

    credentials->secret_key.data = (u_char *) profile->secret_key;
    credentials->secret_key.len = ngx_strlen(profile->secret_key);

    credentials->session_token.data = (u_char *) profile->session_token;
    credentials->session_token.len = ngx_strlen(profile->session_token);

    ngx_s3_credentials_forget(credentials);

    credentials->own = profile;
    credentials->generation++;
}


void
ngx_s3_credentials_forget(void *data)
{
    ngx_s3_credentials_t *credentials = data;

    if (credentials->own) {
        s3_profile_wipe(credentials->own);
        ngx_free(credentials->own);
        credentials->own = NULL;
    }
}
