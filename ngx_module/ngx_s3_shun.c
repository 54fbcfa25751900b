#include "ngx_s3_shun.h"


/* longer than the wait between two tries, see s3_retry_delay() */
#define NGX_S3_SHUN_TIME  30000      /* ms */


static ngx_uint_t ngx_s3_shun_find(ngx_s3_shun_t *shun, ngx_addr_t *addr);


void
ngx_s3_shun(ngx_s3_shun_t *shun, ngx_addr_t *addr)
{
    ngx_uint_t  i;

    if (addr->socklen > sizeof(ngx_sockaddr_t)) {
        return;
    }

    i = ngx_s3_shun_find(shun, addr);

    if (i == NGX_S3_SHUNNED) {
        i = shun->next++ % NGX_S3_SHUNNED;

        ngx_memcpy(&shun->addrs[i].sa, addr->sockaddr, addr->socklen);
        shun->addrs[i].len = addr->socklen;
    }

    shun->addrs[i].since = ngx_current_msec;
}


void
ngx_s3_shun_order(ngx_s3_shun_t *shun, ngx_addr_t *addrs, ngx_uint_t n)
{
    ngx_uint_t  i, k, good;
    ngx_addr_t  addr;

    if (n < 2) {
        return;
    }

    good = 0;

    for (i = 0; i < n; i++) {
        k = ngx_s3_shun_find(shun, &addrs[i]);

        if (k < NGX_S3_SHUNNED
            && ngx_current_msec - shun->addrs[k].since < NGX_S3_SHUN_TIME)
        {
            continue;
        }

        if (i > good) {
            addr = addrs[i];
            ngx_memmove(&addrs[good + 1], &addrs[good],
                        (i - good) * sizeof(ngx_addr_t));
            addrs[good] = addr;
        }

        good++;
    }
}


/* NGX_S3_SHUNNED: it is not there */

static ngx_uint_t
ngx_s3_shun_find(ngx_s3_shun_t *shun, ngx_addr_t *addr)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_S3_SHUNNED; i++) {
        if (shun->addrs[i].len
            && ngx_cmp_sockaddr(&shun->addrs[i].sa.sockaddr,
                                shun->addrs[i].len, addr->sockaddr,
                                addr->socklen, 1)
               == NGX_OK)
        {
            break;
        }
    }

    return i;
}
