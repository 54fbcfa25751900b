/*
 * Access keys for the signatures of requests: where they come from.
 */

#ifndef NGX_S3_CREDENTIALS_H
#define NGX_S3_CREDENTIALS_H

#include <ngx_config.h>
#include <ngx_core.h>

#include "s3_profile.h"
#include "s3_sigv4.h"


/* One provider, shared by all who name it; made when the configuration is
   read (by the master: workers have neither HOME nor root's rights). */

typedef struct {
    ngx_str_t         provider;      /* "static", "env", "file" */
    ngx_str_t         access_key;
    ngx_str_t         secret_key;
    ngx_str_t         session_token;
    ngx_str_t         region;        /* of the file's profile, may be empty */
    s3_sigv4_cache_t  cache;         /* the worker's */

    /* "file": where they came from, each with a NUL after it */
    ngx_str_t         path;
    ngx_str_t         config;        /* empty: none */
    ngx_str_t         profile;

    /* the worker's, once it has read them itself */
    s3_profile_t     *own;
    ngx_uint_t        generation;    /* so many times others were found */
    time_t            looked;
} ngx_s3_credentials_t;


/*
 * args[0..n-1]: env | file [path] [profile=name] | static KEY SECRET [TOKEN].
 * Returns NGX_CONF_OK or NGX_CONF_ERROR after logging with the directive's
 * name (never a secret). Keys that are not there (environment, file, profile)
 * or cannot be keys leave access_key empty, with the reason in *missing (a
 * message for nginx -t, to be used by who needs the keys); a file that cannot
 * be understood is an error.
 *
 * env: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN. file: a
 * path is relative to nginx's configuration and then the only file; without
 * it AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials, then AWS_CONFIG_FILE
 * or ~/.aws/config. The profile is the argument, AWS_PROFILE, or "default".
 * (AWS SDKs and Tools Reference Guide "Shared config and credentials files".)
 */
char *ngx_s3_credentials_create(ngx_conf_t *cf, ngx_str_t *directive,
    ngx_str_t *args, ngx_uint_t n, ngx_s3_credentials_t **credentials,
    ngx_str_t *missing);

/* keys to sign with now: slices that live until the next event; NGX_ERROR:
   there are none */
ngx_int_t ngx_s3_credentials_get(ngx_s3_credentials_t *credentials,
    s3_keys_t *keys);

/*
 * S3 does not take the keys (any more): those of a file are read again, as far
 * as this process may, at most once a second; keys that are whole and others
 * than before are used from now on, which is logged. An upload may last longer
 * than a session token, and its worker keeps its configuration over a reload.
 */
void ngx_s3_credentials_refresh(ngx_s3_credentials_t *credentials,
    ngx_log_t *log);

/* a pool's cleanup: wipes and frees what was read again, data is the
   credentials */
void ngx_s3_credentials_forget(void *data);

/* NULL: they can be keys; else what is wrong with them, a constant string.
   token: NULL or empty, there is none */
const char *ngx_s3_credentials_check(const char *access_key,
    const char *secret_key, const char *token);

/*
 * What the profile called name has in a file of at most 1 MiB goes into
 * profile, as s3_profile_parse() does it, with memory of pool for a while.
 * half: the file may be half written. NGX_ABORT: *err tells what is wrong in
 * it, a constant string; NGX_DECLINED: it cannot be read, see ngx_errno, or (0)
 * is none or too large; NGX_ERROR: no memory.
 */
ngx_int_t ngx_s3_credentials_read(ngx_pool_t *pool, ngx_str_t *path,
    ngx_str_t *name, ngx_uint_t config, s3_profile_t *profile,
    const char **err, ngx_uint_t *half);

/* whether a text from outside repeats a secret of these, or a signature: an
   endpoint that is not S3, or a chatty one, may send back what it got */
ngx_uint_t ngx_s3_credentials_told(ngx_s3_credentials_t *credentials,
    const char *text);


#endif /* NGX_S3_CREDENTIALS_H */
