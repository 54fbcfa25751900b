/*
 * Directives of s3_ingest: what would have a pull refused, or could lead it to
 * where the client wants, is found when the configuration is read.
 */

#include "ngx_http_s3_transfer_module.h"


static char *ngx_http_s3_ingest_pull(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *conf);
static char *ngx_http_s3_ingest_template(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *conf);
static char *ngx_http_s3_ingest_door(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *conf);
static char *ngx_http_s3_ingest_literal(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *conf, size_t len);
static char *ngx_http_s3_ingest_address(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *conf, s3_origin_t *origin);
static char *ngx_http_s3_ingest_lead(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *conf);
static ngx_str_t ngx_http_s3_ingest_lead_name(ngx_str_t *source, size_t *len);
static ngx_uint_t ngx_http_s3_ingest_configured(ngx_conf_t *cf,
    ngx_str_t *name);
static ngx_http_variable_t *ngx_http_s3_ingest_variable(ngx_conf_t *cf,
    ngx_str_t *name);
#if (NGX_PCRE)
static ngx_http_variable_t *ngx_http_s3_ingest_capture(ngx_conf_t *cf);
#endif


/* what belongs to the connection, what makes a request another one, and what
   asks for less than all of the body */

const char  *ngx_http_s3_ingest_owned[] = {
    "host", "connection", "content-length", "expect", "if-match",
    "if-modified-since", "if-none-match", "if-range", "if-unmodified-since",
    "keep-alive", "proxy-authorization", "proxy-connection", "range", "te",
    "trailer", "transfer-encoding", "upgrade", NULL
};


/* nginx's own that can be set, so that their flags do not tell them from the
   configuration's: the client says what they are at first */

static ngx_str_t  ngx_http_s3_ingest_builtin[] = {
    ngx_string("args"),
    ngx_string("limit_rate"),
    ngx_null_string
};

static ngx_str_t  ngx_http_s3_ingest_prefixes[] = {
    ngx_string("arg_"),
    ngx_string("cookie_"),
    ngx_string("http_"),
    ngx_string("sent_http_"),
    ngx_string("sent_trailer_"),
    ngx_string("upstream_cookie_"),
    ngx_string("upstream_http_"),
    ngx_string("upstream_trailer_"),
    ngx_null_string
};


void
ngx_http_s3_create_ingest(ngx_http_s3_ingest_conf_t *icf)
{
    icf->async = NGX_CONF_UNSET;
    icf->close_delimited = NGX_CONF_UNSET;
    icf->redirects = NGX_CONF_UNSET_UINT;
    icf->headers = NGX_CONF_UNSET_PTR;
    icf->allow = NGX_CONF_UNSET_PTR;
}


char *
ngx_http_s3_set_ingest(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_loc_conf_t *lcf = conf;

    char                  *rv;
    ngx_str_t             *value;
    ngx_http_s3_ingest_t  *door;

    if (lcf->ingest.door) {
        return "is duplicate";
    }

    rv = ngx_http_s3_beside(cf, lcf);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    value = cf->args->elts;

    door = ngx_pcalloc(cf->pool, sizeof(ngx_http_s3_ingest_t));
    if (door == NULL) {
        return NGX_CONF_ERROR;
    }

    door->source = value[1];

    door->url = ngx_http_s3_compile(cf, &value[1]);
    if (door->url == NULL) {
        return NGX_CONF_ERROR;
    }

    if (cf->args->nelts == 3) {
        door->key = ngx_http_s3_compile(cf, &value[2]);
        if (door->key == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    lcf->ingest.door = door;

    ngx_http_s3_set_handler(cf, ngx_http_s3_ingest_handler);

    return NGX_CONF_OK;
}


char *
ngx_http_s3_set_ingest_header(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_loc_conf_t *lcf = conf;

    return ngx_http_s3_set_fields(cf, &lcf->ingest.headers, "",
                                  ngx_http_s3_ingest_owned);
}


/* s3_ingest_allow CIDR ... | all */

char *
ngx_http_s3_set_ingest_allow(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_s3_loc_conf_t *lcf = conf;

    ngx_int_t    rc;
    ngx_str_t   *value;
    ngx_cidr_t  *cidr, c;
    ngx_uint_t   i;

    if (lcf->ingest.allow == NGX_CONF_UNSET_PTR) {
        lcf->ingest.allow = ngx_array_create(cf->pool, 4, sizeof(ngx_cidr_t));
        if (lcf->ingest.allow == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "all") == 0) {
            lcf->ingest.allow_all = 1;
            continue;
        }

        rc = ngx_ptocidr(&value[i], &c);

        if (rc == NGX_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid address \"%V\" in \"%V\"", &value[i],
                               &value[0]);
            return NGX_CONF_ERROR;
        }

        if (rc == NGX_DONE) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "low address bits of \"%V\" are meaningless",
                               &value[i]);
        }

        cidr = ngx_array_push(lcf->ingest.allow);
        if (cidr == NULL) {
            return NGX_CONF_ERROR;
        }

        *cidr = c;
    }

    return NGX_CONF_OK;
}


/* the first location of a server where a record is found by what follows its
   prefix is where those who do not wait are sent */

ngx_int_t
ngx_http_s3_note_status(ngx_conf_t *cf, ngx_http_s3_status_conf_t *sc)
{
    u_char                    *p;
    ngx_http_s3_srv_conf_t    *scf;
    ngx_http_core_loc_conf_t  *clcf;

    scf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_s3_transfer_module);
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (scf->status.len || sc->id
        || sc->format == NGX_HTTP_S3_STATUS_PROMETHEUS
        || clcf->named || clcf->noname || clcf->exact_match
#if (NGX_PCRE)
        || clcf->regex
#endif
        )
    {
        return NGX_OK;
    }

    p = ngx_pnalloc(cf->pool, 3 * clcf->name.len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    scf->status.data = p;
    p = (u_char *) ngx_escape_uri(p, clcf->name.data, clcf->name.len,
                                  NGX_ESCAPE_URI);

    /* the prefix may be empty */

    if (p == scf->status.data || p[-1] != '/') {
        *p++ = '/';
    }

    scf->status.len = p - scf->status.data;

    return NGX_OK;
}


/* once conf->ingest.door is known */

char *
ngx_http_s3_merge_ingest(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *prev,
    ngx_http_s3_loc_conf_t *conf)
{
    char                       *rv;
    ngx_http_s3_ingest_conf_t  *icf, *from;

    icf = &conf->ingest;
    from = &prev->ingest;

    ngx_conf_merge_value(icf->async, from->async, 0);
    ngx_conf_merge_value(icf->close_delimited, from->close_delimited, 0);
    ngx_conf_merge_uint_value(icf->redirects, from->redirects, 0);
    ngx_conf_merge_ptr_value(icf->headers, from->headers, NULL);

    if (icf->allow == NGX_CONF_UNSET_PTR) {
        icf->allow_all = from->allow_all;
    }

    ngx_conf_merge_ptr_value(icf->allow, from->allow, NULL);

    if (icf->door == NULL) {
        return NGX_CONF_OK;
    }

    rv = ngx_http_s3_init_transfer(cf,
                 ngx_http_conf_get_module_main_conf(cf,
                                                 ngx_http_s3_transfer_module),
                 conf, "s3_ingest", icf->door->key);

    if (rv == NGX_CONF_OK) {
        rv = ngx_http_s3_ingest_pull(cf, conf);
    }

    if (rv == NGX_CONF_OK) {
        rv = ngx_http_s3_ingest_door(cf, conf);
    }

    if (rv == NGX_CONF_OK) {
        rv = ngx_http_s3_ingest_template(cf, conf);
    }

    return rv;
}


/* what pulls of the location have in common */

static char *
ngx_http_s3_ingest_pull(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf)
{
    ngx_s3_pull_conf_t         *pull;
    ngx_http_s3_main_conf_t    *mcf;
    ngx_http_s3_ingest_conf_t  *icf;

    icf = &conf->ingest;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_s3_transfer_module);

    pull = ngx_pcalloc(cf->pool, sizeof(ngx_s3_pull_conf_t));
    if (pull == NULL) {
        return NGX_CONF_ERROR;
    }

    pull->transfer = conf->transfer;
    pull->transfer->max_ingest = mcf->ingest_max;
    pull->allow = icf->allow;
    pull->allow_all = icf->allow_all;
    pull->redirects = icf->redirects;
    pull->close_delimited = icf->close_delimited;

    icf->pull = pull;

    return NGX_CONF_OK;
}


/* how origins are reached */

static char *
ngx_http_s3_ingest_template(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf)
{
    ngx_str_t                   https = ngx_string("https://origin");
    ngx_str_t                   http = ngx_string("http://origin");
    ngx_uint_t                  plain;
    const char                 *err;
    ngx_s3_ssl_conf_t           ssl;
    ngx_s3_endpoint_t          *origin, **listed;
    ngx_http_s3_ingest_t       *door;
    ngx_http_s3_main_conf_t    *mcf;
    ngx_http_s3_ingest_conf_t  *icf;

    icf = &conf->ingest;
    door = icf->door;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_s3_transfer_module);

    /* the system's certificates take time to be read */

    plain = (door->lead == NULL
             && (door->scheme == S3_ORIGIN_S3
                 || (door->scheme == S3_ORIGIN_HTTP && icf->redirects == 0)));

    origin = ngx_s3_endpoint_create(cf, plain ? &http : &https, &err);
    if (origin == NULL) {
        return NGX_CONF_ERROR;
    }

    /* s3_ssl_name is S3's */

    ssl = conf->ssl;
    ngx_str_null(&ssl.name);

    if (ngx_http_s3_set_endpoint(cf, conf, origin, &ssl) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    origin->allow = ngx_s3_pull_allow;
    origin->allow_data = icf->pull;

    listed = ngx_array_push(&mcf->origins);
    if (listed == NULL) {
        return NGX_CONF_ERROR;
    }

    *listed = origin;
    icf->pull->origin = origin;

    return NGX_CONF_OK;
}


static char *
ngx_http_s3_ingest_door(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf)
{
    u_char                     *p;
    ngx_str_t                  *source;
    ngx_http_s3_srv_conf_t     *scf;
    ngx_http_s3_ingest_conf_t  *icf;

    icf = &conf->ingest;

    scf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_s3_transfer_module);

    icf->status = scf->status;

    if (icf->async && icf->status.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"s3_ingest_async\" in location \"%V\" needs "
                           "\"s3_status\" without id= in a location with a "
                           "prefix of the same server",
                           ngx_http_s3_location(cf));
        return NGX_CONF_ERROR;
    }

    source = &icf->door->source;

    p = ngx_strlchr(source->data, source->data + source->len, '$');

    if (p == source->data) {
        return ngx_http_s3_ingest_lead(cf, conf);
    }

    return ngx_http_s3_ingest_literal(cf, conf,
                                      p ? (size_t) (p - source->data)
                                        : source->len);
}


/* the first len bytes of the URL are literal */

static char *
ngx_http_s3_ingest_literal(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf,
    size_t len)
{
    ngx_int_t              rc;
    ngx_str_t              head;
    const char            *err;
    s3_origin_t            origin;
    ngx_http_s3_ingest_t  *door;

    door = conf->ingest.door;

    head.data = door->source.data;
    head.len = len;

    if (len == door->source.len) {
        rc = s3_origin_parse(ngx_s3_to_str(head), &origin, &err);

    } else {
        rc = ngx_http_s3_ingest_origin(cf->pool, &head, &origin, &err);
    }

    if (rc != NGX_OK) {
        /* it may have a user and a password: not shown */

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid URL of \"s3_ingest\" in location \"%V\", "
                           "whose scheme and host must be literal or come "
                           "from a variable of \"map\": %s",
                           ngx_http_s3_location(cf), err);
        return NGX_CONF_ERROR;
    }

    door->scheme = origin.scheme;
    door->authority.len = origin.authority.len;
    door->authority.data = (u_char *) origin.authority.data;

    return ngx_http_s3_ingest_address(cf, conf, &origin);
}


/* an address that would be refused each time */

static char *
ngx_http_s3_ingest_address(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf,
    s3_origin_t *origin)
{
    ngx_addr_t          addr;
    const char         *special;
    s3_uri_endpoint_t  *e;

    e = &origin->endpoint;

    if (origin->scheme == S3_ORIGIN_S3 || e->type == S3_HOST_NAME
        || ngx_parse_addr(cf->pool, &addr, (u_char *) e->host.data,
                          e->host.len)
           != NGX_OK)
    {
        return NGX_CONF_OK;
    }

    special = ngx_s3_pull_special(conf->ingest.pull, addr.sockaddr);

    if (special == NULL) {
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "the address in \"s3_ingest\" in location \"%V\" is "
                       "%s: it needs \"s3_ingest_allow\"",
                       ngx_http_s3_location(cf), special);

    return NGX_CONF_ERROR;
}


/* the URL begins with a variable: it has to be one that the configuration
   itself gives its values */

static char *
ngx_http_s3_ingest_lead(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf)
{
    size_t                 len;
    ngx_str_t              name, source;
    ngx_http_s3_ingest_t  *door;

    door = conf->ingest.door;

    name = ngx_http_s3_ingest_lead_name(&door->source, &len);

    if (!ngx_http_s3_ingest_configured(cf, &name)) {

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"s3_ingest\" in location \"%V\" begins with "
                           "\"$%V\", which the configuration does not define: "
                           "put a \"map\" between that names the origins",
                           ngx_http_s3_location(cf), &name);
        return NGX_CONF_ERROR;
    }

    source.data = door->source.data;
    source.len = len;

    door->lead = ngx_http_s3_compile(cf, &source);

    return door->lead ? NGX_CONF_OK : NGX_CONF_ERROR;
}


/* of "$name..." or "${name}..."; len: of all of it */

static ngx_str_t
ngx_http_s3_ingest_lead_name(ngx_str_t *source, size_t *len)
{
    u_char     *p, *last;
    ngx_str_t   name;

    p = source->data + 1;
    last = source->data + source->len;

    if (p < last && *p == '{') {
        p++;
    }

    name.data = p;

    while (p < last
           && ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')
               || (*p >= '0' && *p <= '9') || *p == '_'))
    {
        p++;
    }

    name.len = p - name.data;

    if (p < last && *p == '}') {
        p++;
    }

    *len = p - source->data;

    return name;
}


/* by map, geo, set, split_clients ...: what can be changed, and is not
   nginx's own, nor what the client has put into a regular expression */

static ngx_uint_t
ngx_http_s3_ingest_configured(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_str_t            *s;
    ngx_http_variable_t  *v;
#if (NGX_PCRE)
    ngx_http_variable_t  *capture;
#endif

    for (s = ngx_http_s3_ingest_builtin; s->len; s++) {
        if (name->len == s->len
            && ngx_strncasecmp(name->data, s->data, s->len) == 0)
        {
            return 0;
        }
    }

    for (s = ngx_http_s3_ingest_prefixes; s->len; s++) {
        if (name->len >= s->len
            && ngx_strncasecmp(name->data, s->data, s->len) == 0)
        {
            return 0;
        }
    }

#if (NGX_PCRE)

    capture = ngx_http_s3_ingest_capture(cf);

    if (capture == NULL) {
        return 0;
    }

#endif

    v = ngx_http_s3_ingest_variable(cf, name);

    if (v == NULL || !(v->flags & NGX_HTTP_VAR_CHANGEABLE)) {
        return 0;
    }

#if (NGX_PCRE)

    if (v->get_handler == capture->get_handler) {
        return 0;
    }

#endif

    return 1;
}


static ngx_http_variable_t *
ngx_http_s3_ingest_variable(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_uint_t                  i;
    ngx_hash_key_t             *key;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    key = cmcf->variables_keys->keys.elts;

    for (i = 0; i < cmcf->variables_keys->keys.nelts; i++) {
        if (name->len == key[i].key.len
            && ngx_strncasecmp(name->data, key[i].key.data, name->len) == 0)
        {
            return key[i].value;
        }
    }

    return NULL;
}


#if (NGX_PCRE)

/* Only their handler, which is nginx's own secret, tells named captures from
   what "set" and "map" make: this is one. */

static ngx_http_variable_t *
ngx_http_s3_ingest_capture(ngx_conf_t *cf)
{
    u_char               errstr[NGX_MAX_CONF_ERRSTR];
    ngx_str_t            name = ngx_string("s3_ingest_capture");
    ngx_regex_compile_t  rc;

    if (ngx_http_s3_ingest_variable(cf, &name) == NULL) {

        ngx_memzero(&rc, sizeof(ngx_regex_compile_t));

        ngx_str_set(&rc.pattern, "(?<s3_ingest_capture>.)");
        rc.pool = cf->pool;
        rc.err.len = NGX_MAX_CONF_ERRSTR;
        rc.err.data = errstr;

        if (ngx_http_regex_compile(cf, &rc) == NULL) {
            return NULL;
        }
    }

    return ngx_http_s3_ingest_variable(cf, &name);
}

#endif


/* A URL that may go on after its authority: an S3 key may still be missing. */

ngx_int_t
ngx_http_s3_ingest_origin(ngx_pool_t *pool, ngx_str_t *url,
    s3_origin_t *origin, const char **err)
{
    u_char     *p;
    ngx_str_t   whole;

    if (s3_origin_parse(ngx_s3_to_str(*url), origin, err) == S3_OK) {
        return NGX_OK;
    }

    if (url->len < 6
        || ngx_strncasecmp(url->data, (u_char *) "s3://", 5) != 0)
    {
        return NGX_DECLINED;
    }

    whole.data = ngx_pnalloc(pool, url->len + 2);
    if (whole.data == NULL) {
        *err = "out of memory";
        return NGX_DECLINED;
    }

    p = ngx_cpymem(whole.data, url->data, url->len);

    if (p[-1] != '/') {
        *p++ = '/';
    }

    *p++ = 'x';

    whole.len = p - whole.data;

    return s3_origin_parse(ngx_s3_to_str(whole), origin, err) == S3_OK
           ? NGX_OK : NGX_DECLINED;
}
