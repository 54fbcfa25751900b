#include "ngx_s3_resolve.h"


#define NGX_S3_HOSTS_FILE        "/etc/hosts"
#define NGX_S3_RESOLV_CONF       "/etc/resolv.conf"

#define NGX_S3_NAMES_FILE_MAX    (4 * 1024 * 1024)
#define NGX_S3_NAMESERVERS       3   /* MAXNS of resolv.conf(5) */
#define NGX_S3_HOST_MAX          255


/* a name of /etc/hosts; str.str is it, in lower case */

typedef struct {
    ngx_str_node_t   node;
    ngx_array_t      addrs;          /* of ngx_sockaddr_t, in file order */
} ngx_s3_host_t;


struct ngx_s3_names_s {
    ngx_cycle_t         *cycle;
    ngx_rbtree_t         hosts;
    ngx_rbtree_node_t    sentinel;
    ngx_resolver_t      *resolver;   /* of resolv.conf; NULL: it names none */
    ngx_uint_t           turn;       /* the worker's: where to start */
};


static void ngx_s3_names_cleanup(void *data);
static ngx_int_t ngx_s3_names_read(ngx_conf_t *cf, const char *path,
    ngx_str_t *text);
static ngx_int_t ngx_s3_names_hosts(ngx_conf_t *cf, ngx_s3_names_t *names,
    ngx_str_t *text);
static ngx_int_t ngx_s3_names_host(ngx_conf_t *cf, ngx_s3_names_t *names,
    ngx_str_t *name, ngx_sockaddr_t *sa);
static ngx_int_t ngx_s3_names_localhost(ngx_conf_t *cf, ngx_s3_names_t *names);
static ngx_int_t ngx_s3_names_servers(ngx_conf_t *cf, ngx_s3_names_t *names,
    ngx_str_t *text);
static ngx_uint_t ngx_s3_names_line(ngx_str_t *text, ngx_str_t *line);
static ngx_uint_t ngx_s3_names_word(ngx_str_t *line, ngx_str_t *word);

static ngx_s3_host_t *ngx_s3_names_find(ngx_s3_names_t *names,
    ngx_str_t *name);
static ngx_int_t ngx_s3_resolve_literal(ngx_s3_resolve_t *rs,
    ngx_sockaddr_t *sa, socklen_t socklen);
static ngx_int_t ngx_s3_resolve_host(ngx_s3_resolve_t *rs,
    ngx_s3_host_t *host);
static ngx_int_t ngx_s3_resolve_query(ngx_s3_resolve_t *rs,
    ngx_resolver_t *resolver);
static void ngx_s3_resolve_handler(ngx_resolver_ctx_t *ctx);
static ngx_int_t ngx_s3_resolve_copy(ngx_s3_resolve_t *rs,
    ngx_resolver_ctx_t *ctx);
static ngx_int_t ngx_s3_resolve_addr(ngx_s3_resolve_t *rs, ngx_addr_t *addr,
    struct sockaddr *sa, socklen_t socklen);
static socklen_t ngx_s3_socklen(ngx_sockaddr_t *sa);


/* of the cycle that is being configured; its pool's end clears it */

static ngx_s3_names_t  *ngx_s3_names_shared;


ngx_s3_names_t *
ngx_s3_names_get(ngx_conf_t *cf)
{
    ngx_str_t            text;
    ngx_s3_names_t      *names;
    ngx_pool_cleanup_t  *cln;

    names = ngx_s3_names_shared;

    if (names && names->cycle == cf->cycle) {
        return names;
    }

    names = ngx_pcalloc(cf->cycle->pool, sizeof(ngx_s3_names_t));
    if (names == NULL) {
        return NULL;
    }

    cln = ngx_pool_cleanup_add(cf->cycle->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    names->cycle = cf->cycle;

    ngx_rbtree_init(&names->hosts, &names->sentinel,
                    ngx_str_rbtree_insert_value);

    if (ngx_s3_names_read(cf, NGX_S3_HOSTS_FILE, &text) != NGX_OK
        || ngx_s3_names_hosts(cf, names, &text) != NGX_OK
        || ngx_s3_names_localhost(cf, names) != NGX_OK
        || ngx_s3_names_read(cf, NGX_S3_RESOLV_CONF, &text) != NGX_OK
        || ngx_s3_names_servers(cf, names, &text) != NGX_OK)
    {
        return NULL;
    }

    cln->handler = ngx_s3_names_cleanup;
    cln->data = names;

    ngx_s3_names_shared = names;

    return names;
}


static void
ngx_s3_names_cleanup(void *data)
{
    if (ngx_s3_names_shared == data) {
        ngx_s3_names_shared = NULL;
    }
}


/* the text lives in temp_pool */

static ngx_int_t
ngx_s3_names_read(ngx_conf_t *cf, const char *path, ngx_str_t *text)
{
    off_t            size;
    ssize_t          n;
    ngx_fd_t         fd;
    ngx_int_t        rc;
    ngx_file_info_t  fi;

    ngx_str_null(text);

    fd = ngx_open_file(path, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        return NGX_OK;
    }

    rc = NGX_OK;

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR || !ngx_is_file(&fi)) {
        goto done;
    }

    size = ngx_min(ngx_file_size(&fi), NGX_S3_NAMES_FILE_MAX);

    text->data = ngx_pnalloc(cf->temp_pool, (size_t) size + 1);
    if (text->data == NULL) {
        rc = NGX_ERROR;
        goto done;
    }

    while (text->len < (size_t) size) {
        n = ngx_read_fd(fd, text->data + text->len, (size_t) size - text->len);

        if (n <= 0) {
            break;
        }

        text->len += n;
    }

done:

    (void) ngx_close_file(fd);

    return rc;
}


/* hosts(5): address name [alias …], '#' starts a comment */

static ngx_int_t
ngx_s3_names_hosts(ngx_conf_t *cf, ngx_s3_names_t *names, ngx_str_t *text)
{
    ngx_str_t       line, word;
    ngx_sockaddr_t  sa;

    while (ngx_s3_names_line(text, &line)) {

        if (!ngx_s3_names_word(&line, &word)
            || ngx_s3_literal(&word, &sa) == 0)
        {
            continue;
        }

        while (ngx_s3_names_word(&line, &word)) {
            if (ngx_s3_names_host(cf, names, &word, &sa) != NGX_OK) {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_s3_names_host(ngx_conf_t *cf, ngx_s3_names_t *names, ngx_str_t *name,
    ngx_sockaddr_t *sa)
{
    ngx_s3_host_t   *host;
    ngx_sockaddr_t  *addr;

    if (name->len > NGX_S3_HOST_MAX) {
        return NGX_OK;
    }

    host = ngx_s3_names_find(names, name);

    if (host == NULL) {
        host = ngx_pcalloc(cf->cycle->pool, sizeof(ngx_s3_host_t));
        if (host == NULL) {
            return NGX_ERROR;
        }

        host->node.str.len = name->len;
        host->node.str.data = ngx_pnalloc(cf->cycle->pool, name->len);
        if (host->node.str.data == NULL) {
            return NGX_ERROR;
        }

        ngx_strlow(host->node.str.data, name->data, name->len);

        if (ngx_array_init(&host->addrs, cf->cycle->pool, 1,
                           sizeof(ngx_sockaddr_t))
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        host->node.node.key = ngx_crc32_long(host->node.str.data, name->len);
        ngx_rbtree_insert(&names->hosts, &host->node.node);
    }

    addr = ngx_array_push(&host->addrs);
    if (addr == NULL) {
        return NGX_ERROR;
    }

    *addr = *sa;

    return NGX_OK;
}


/* RFC 6761, 6.3: this name is loopback without asking a server */

static ngx_int_t
ngx_s3_names_localhost(ngx_conf_t *cf, ngx_s3_names_t *names)
{
    ngx_str_t       name, text;
    ngx_sockaddr_t  sa;

    ngx_str_set(&name, "localhost");

    if (ngx_s3_names_find(names, &name)) {
        return NGX_OK;
    }

    ngx_str_set(&text, "127.0.0.1");
    (void) ngx_s3_literal(&text, &sa);

    return ngx_s3_names_host(cf, names, &name, &sa);
}


static ngx_int_t
ngx_s3_names_servers(ngx_conf_t *cf, ngx_s3_names_t *names, ngx_str_t *text)
{
    u_char          *p;
    ngx_str_t        line, word, servers[NGX_S3_NAMESERVERS];
    ngx_uint_t       n;
    ngx_sockaddr_t   sa;

    n = 0;

    while (n < NGX_S3_NAMESERVERS && ngx_s3_names_line(text, &line)) {

        if (!ngx_s3_names_word(&line, &word)
            || word.len != sizeof("nameserver") - 1
            || ngx_strncmp(word.data, "nameserver", word.len) != 0
            || !ngx_s3_names_word(&line, &word)
            || ngx_s3_literal(&word, &sa) == 0)
        {
            continue;
        }

        p = ngx_pnalloc(cf->cycle->pool, word.len + sizeof("[]"));
        if (p == NULL) {
            return NGX_ERROR;
        }

        servers[n].data = p;

        if (sa.sockaddr.sa_family == AF_INET) {
            p = ngx_sprintf(p, "%V", &word);

        } else {
            p = ngx_sprintf(p, "[%V]", &word);
        }

        *p = '\0';
        servers[n].len = p - servers[n].data;
        n++;
    }

    if (n == 0) {
        return NGX_OK;
    }

    names->resolver = ngx_resolver_create(cf, servers, n);

    return names->resolver ? NGX_OK : NGX_ERROR;
}


/* cuts the next line off the text, without its comment; 0: no more */

static ngx_uint_t
ngx_s3_names_line(ngx_str_t *text, ngx_str_t *line)
{
    u_char  *p, *last;

    if (text->len == 0) {
        return 0;
    }

    last = text->data + text->len;

    line->data = text->data;

    for (p = text->data; p < last && *p != LF; p++) { /* void */ }

    line->len = p - line->data;

    if (p < last) {
        p++;
    }

    text->len = last - p;
    text->data = p;

    for (p = line->data; p < line->data + line->len; p++) {
        if (*p == '#' || *p == ';') {
            line->len = p - line->data;
            break;
        }
    }

    return 1;
}


static ngx_uint_t
ngx_s3_names_word(ngx_str_t *line, ngx_str_t *word)
{
    u_char  *p, *last;

    last = line->data + line->len;

    for (p = line->data; p < last; p++) {
        if (*p != ' ' && *p != '\t' && *p != CR) {
            break;
        }
    }

    word->data = p;

    while (p < last && *p != ' ' && *p != '\t' && *p != CR) {
        p++;
    }

    word->len = p - word->data;

    line->data = p;
    line->len = last - p;

    return word->len != 0;
}


static ngx_s3_host_t *
ngx_s3_names_find(ngx_s3_names_t *names, ngx_str_t *name)
{
    u_char     buf[NGX_S3_HOST_MAX];
    ngx_str_t  low;

    if (name->len > sizeof(buf)) {
        return NULL;
    }

    ngx_strlow(buf, name->data, name->len);

    low.len = name->len;
    low.data = buf;

    return (ngx_s3_host_t *) ngx_str_rbtree_lookup(&names->hosts, &low,
                                       ngx_crc32_long(low.data, low.len));
}


ngx_int_t
ngx_s3_resolve_start(ngx_s3_resolve_t *rs)
{
    socklen_t        socklen;
    ngx_s3_host_t   *host;
    ngx_sockaddr_t   sa;
    ngx_resolver_t  *resolver;

    rs->ctx = NULL;
    rs->addrs = NULL;
    rs->naddrs = 0;
    rs->reason[0] = '\0';

    socklen = ngx_s3_literal(&rs->name, &sa);

    if (socklen) {
        return ngx_s3_resolve_literal(rs, &sa, socklen);
    }

    if (rs->names) {
        host = ngx_s3_names_find(rs->names, &rs->name);

        if (host) {
            return ngx_s3_resolve_host(rs, host);
        }
    }

    resolver = rs->resolver;

    /* without the directive nginx gives a location one without servers */

    if (resolver == NULL || resolver->connections.nelts == 0) {
        resolver = rs->names ? rs->names->resolver : NULL;
    }

    if (resolver == NULL) {
        ngx_s3_reason(rs->reason, "no resolver to find \"%V\": it is not in "
                      NGX_S3_HOSTS_FILE " and " NGX_S3_RESOLV_CONF
                      " names no server; set the \"resolver\" directive",
                      &rs->name);
        return NGX_DECLINED;
    }

    return ngx_s3_resolve_query(rs, resolver);
}


static ngx_int_t
ngx_s3_resolve_literal(ngx_s3_resolve_t *rs, ngx_sockaddr_t *sa,
    socklen_t socklen)
{
    rs->addrs = ngx_palloc(rs->pool, sizeof(ngx_addr_t));
    if (rs->addrs == NULL) {
        return NGX_ERROR;
    }

    rs->naddrs = 1;

    return ngx_s3_resolve_addr(rs, rs->addrs, &sa->sockaddr, socklen);
}


static ngx_int_t
ngx_s3_resolve_host(ngx_s3_resolve_t *rs, ngx_s3_host_t *host)
{
    ngx_uint_t       i, n;
    ngx_sockaddr_t  *sa;

    sa = host->addrs.elts;
    n = host->addrs.nelts;

    rs->addrs = ngx_palloc(rs->pool, n * sizeof(ngx_addr_t));
    if (rs->addrs == NULL) {
        return NGX_ERROR;
    }

    /* each time another one is the first, as nginx's resolver does */

    for (i = 0; i < n; i++, sa++) {
        if (ngx_s3_resolve_addr(rs,
                                &rs->addrs[(i + rs->names->turn) % n],
                                &sa->sockaddr, ngx_s3_socklen(sa))
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    rs->names->turn++;
    rs->naddrs = n;

    return NGX_OK;
}


static ngx_int_t
ngx_s3_resolve_query(ngx_s3_resolve_t *rs, ngx_resolver_t *resolver)
{
    u_char              *name;
    ngx_resolver_ctx_t  *ctx;

    /* the resolver writes to it */

    name = ngx_pnalloc(rs->pool, rs->name.len);
    if (name == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(name, rs->name.data, rs->name.len);

    ctx = ngx_resolve_start(resolver, NULL);

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) {
        return NGX_ERROR;
    }

    ctx->name.len = rs->name.len;
    ctx->name.data = name;
    ctx->handler = ngx_s3_resolve_handler;
    ctx->data = rs;
    ctx->timeout = rs->timeout;

    /* the handler may run, and free ctx, before ngx_resolve_name() returns */

    rs->ctx = ctx;
    rs->rc = NGX_AGAIN;
    rs->waiting = 0;

    if (ngx_resolve_name(ctx) != NGX_OK) {
        rs->ctx = NULL;
        return NGX_ERROR;
    }

    if (rs->rc == NGX_AGAIN) {
        rs->waiting = 1;
    }

    return rs->rc;
}


static void
ngx_s3_resolve_handler(ngx_resolver_ctx_t *ctx)
{
    ngx_s3_resolve_t  *rs;

    rs = ctx->data;

    if (ctx->state) {
        ngx_s3_reason(rs->reason, "\"%V\" could not be resolved (%i: %s)",
                      &rs->name, ctx->state,
                      ngx_resolver_strerror(ctx->state));
        rs->rc = NGX_DECLINED;

    } else {
        rs->rc = ngx_s3_resolve_copy(rs, ctx);
    }

    rs->ctx = NULL;
    ngx_resolve_name_done(ctx);

    if (rs->waiting) {
        rs->waiting = 0;
        rs->handler(rs, rs->rc);
    }
}


/* the resolver's own addresses end with the handler */

static ngx_int_t
ngx_s3_resolve_copy(ngx_s3_resolve_t *rs, ngx_resolver_ctx_t *ctx)
{
    ngx_uint_t  i;

    rs->addrs = ngx_palloc(rs->pool, ctx->naddrs * sizeof(ngx_addr_t));
    if (rs->addrs == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < ctx->naddrs; i++) {
        if (ngx_s3_resolve_addr(rs, &rs->addrs[i], ctx->addrs[i].sockaddr,
                                ctx->addrs[i].socklen)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    rs->naddrs = ctx->naddrs;

    return NGX_OK;
}


static ngx_int_t
ngx_s3_resolve_addr(ngx_s3_resolve_t *rs, ngx_addr_t *addr,
    struct sockaddr *sa, socklen_t socklen)
{
    addr->sockaddr = ngx_palloc(rs->pool, socklen);
    if (addr->sockaddr == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(addr->sockaddr, sa, socklen);
    addr->socklen = socklen;

    ngx_inet_set_port(addr->sockaddr, rs->port);

    addr->name.data = ngx_pnalloc(rs->pool, NGX_SOCKADDR_STRLEN);
    if (addr->name.data == NULL) {
        return NGX_ERROR;
    }

    addr->name.len = ngx_sock_ntop(addr->sockaddr, socklen, addr->name.data,
                                   NGX_SOCKADDR_STRLEN, 1);

    return NGX_OK;
}


void
ngx_s3_resolve_cancel(ngx_s3_resolve_t *rs)
{
    ngx_resolver_ctx_t  *ctx;

    ctx = rs->ctx;

    if (ctx) {
        rs->ctx = NULL;
        rs->waiting = 0;
        ngx_resolve_name_done(ctx);
    }
}


socklen_t
ngx_s3_literal(ngx_str_t *text, ngx_sockaddr_t *sa)
{
    in_addr_t  addr;

    ngx_memzero(sa, sizeof(ngx_sockaddr_t));

    addr = ngx_inet_addr(text->data, text->len);

    if (addr != INADDR_NONE) {
        sa->sockaddr_in.sin_family = AF_INET;
        sa->sockaddr_in.sin_addr.s_addr = addr;

        return sizeof(struct sockaddr_in);
    }

#if (NGX_HAVE_INET6)

    if (ngx_inet6_addr(text->data, text->len,
                       sa->sockaddr_in6.sin6_addr.s6_addr)
        == NGX_OK)
    {
        sa->sockaddr_in6.sin6_family = AF_INET6;

        return sizeof(struct sockaddr_in6);
    }

#endif

    return 0;
}


static socklen_t
ngx_s3_socklen(ngx_sockaddr_t *sa)
{
#if (NGX_HAVE_INET6)

    if (sa->sockaddr.sa_family == AF_INET6) {
        return sizeof(struct sockaddr_in6);
    }

#endif

    return sizeof(struct sockaddr_in);
}
