/*
 * torture.so, preloaded into nginx: the N-th allocation, or the N-th connect,
 * recv, send and so on of a worker fails, or comes short. t/lib/S3T/Torture.pm
 * writes what is to fail into the file that TORTURE names, and reads there how
 * many there were, whether one failed, and on which stack.
 *
 * The master is left alone, and so are workers while the file says 0: one nginx
 * serves for many N. What fails leaves the socket as it was; where it comes
 * short, or is said to be not ready, epoll is made to tell of it again, as it
 * would when that was true.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>


#define TORTURE_FDS     4096
#define TORTURE_FRAMES  64
#define TORTURE_IOVS    64
#define TORTURE_PLACES  16384        /* a power of two */
#define TORTURE_DEPTH   12           /* frames that tell a place from another */
#define TORTURE_TEXT    3968
#define TORTURE_OURS    "ngx_http_s3_transfer_module"


enum {
    TORTURE_OFF = 0,
    TORTURE_ALLOC,
    TORTURE_CONNECT,
    TORTURE_RECV,                    /* recv, readv, read of a socket */
    TORTURE_SEND,                    /* send, writev, write to a socket */
    TORTURE_SOCKET,
    TORTURE_EPOLL,
    TORTURE_MMAP,                    /* anonymous memory */
    TORTURE_FETCH                    /* EVP_MAC_fetch of OpenSSL */
};

enum {
    TORTURE_ERROR = 0,
    TORTURE_SHORT,                   /* one byte */
    TORTURE_AGAIN,
    TORTURE_EOF,
    TORTURE_PLACE,                   /* counts places, see torture_new_place */
    TORTURE_CUT                      /* of a send: half of it, and then an
                                        error: two in a row are to fail */
};


/* Torture.pm knows the places of its fields */

typedef struct {
    atomic_uint   op;
    uint32_t      mode;
    uint32_t      times;             /* how many in a row fail */
    int32_t       pid;               /* 0: any worker; -pid: any but that */
    uint64_t      n;                 /* the first that fails, 0: none */
    atomic_ulong  count;
    atomic_ulong  fired;
    atomic_long   live;              /* allocations that were not freed */
    uint32_t      ours;              /* the module is on the stack */
    uint32_t      by;                /* the worker in which it failed */
    char          text[TORTURE_TEXT];
} torture_t;


extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

/* the sanitizer's, where there is one */
extern void *__interceptor_malloc(size_t) __attribute__((weak));
extern void *__interceptor_calloc(size_t, size_t) __attribute__((weak));
extern void *__interceptor_realloc(void *, size_t) __attribute__((weak));
extern int __interceptor_posix_memalign(void **, size_t, size_t)
    __attribute__((weak));
extern void __interceptor_free(void *) __attribute__((weak));


static torture_t *torture;
static int        torture_worker;
static int        torture_busy;

static struct {
    int                 epoll;       /* -1: in none */
    struct epoll_event  event;
} torture_fds[TORTURE_FDS];


#define real(name)                                                           \
    static __typeof__(&name)  call;                                          \
    if (call == NULL) {                                                      \
        call = (__typeof__(&name)) dlsym(RTLD_NEXT, #name);                  \
    }


static void
torture_child(void)
{
    torture_worker = 1;
}


__attribute__((constructor)) static void
torture_init(void)
{
    int         fd, i;
    void       *p, *frames[1];
    const char *name;

    for (i = 0; i < TORTURE_FDS; i++) {
        torture_fds[i].epoll = -1;
    }

    name = getenv("TORTURE");
    if (name == NULL) {
        return;
    }

    fd = open(name, O_RDWR);
    if (fd == -1) {
        return;
    }

    p = mmap(NULL, sizeof(torture_t), PROT_READ|PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);

    if (p == MAP_FAILED) {
        return;
    }

    /* it loads what it needs with its first use */

    backtrace(frames, 1);

    pthread_atfork(NULL, NULL, torture_child);

    torture = p;
}


static void
torture_stack(void)
{
    int      i, n;
    void    *frames[TORTURE_FRAMES];
    char    *p, *end;
    Dl_info  info;
    const char *name;

    p = torture->text;
    end = p + TORTURE_TEXT;
    n = backtrace(frames, TORTURE_FRAMES);

    /* not this file's own frames */

    for (i = 0; i < n && end - p > 256; i++) {

        if (dladdr(frames[i], &info) == 0 || info.dli_fname == NULL) {
            continue;
        }

        if (strstr(info.dli_fname, TORTURE_OURS)) {
            torture->ours = 1;
        }

        name = strrchr(info.dli_fname, '/');
        name = name ? name + 1 : info.dli_fname;

        if (strcmp(name, "torture.so") == 0) {
            continue;
        }

        p += snprintf(p, end - p, "%s+0x%lx\n", name,
                      (unsigned long) ((char *) frames[i]
                                       - (char *) info.dli_fbase));
    }

    torture->by = (uint32_t) getpid();
}


/* whether nobody called from here since the counting began: what is done often
   is one place, what is done once is one, too */

static int
torture_new_place(void)
{
    int              i, n;
    void            *frames[TORTURE_DEPTH];
    uint64_t         hash, slot;
    static uint64_t  places[TORTURE_PLACES];

    if (torture->count == 0) {
        memset(places, 0, sizeof(places));
    }

    torture_busy = 1;
    n = backtrace(frames, TORTURE_DEPTH);
    torture_busy = 0;

    hash = 14695981039346656037UL;

    for (i = 0; i < n; i++) {
        hash = (hash ^ (uint64_t) (uintptr_t) frames[i]) * 1099511628211UL;
    }

    hash |= 1;

    for (i = 0, slot = hash >> 20; i < TORTURE_PLACES; i++, slot++) {
        slot &= TORTURE_PLACES - 1;

        if (places[slot] == hash) {
            return 0;
        }

        if (places[slot] == 0) {
            places[slot] = hash;
            return 1;
        }
    }

    return 0;
}


/* whether this one is to fail */

static int
torture_fails(unsigned op)
{
    int       saved;
    uint64_t  i;

    if (!torture_worker || torture == NULL || torture_busy
        || torture->op != op)
    {
        return 0;
    }

    if (torture->pid > 0 && torture->pid != getpid()) {
        return 0;
    }

    if (torture->pid < 0 && -torture->pid == getpid()) {
        return 0;
    }

    if (torture->mode == TORTURE_PLACE && !torture_new_place()) {
        return 0;
    }

    i = ++torture->count;

    if (torture->n == 0 || i < torture->n
        || i >= torture->n + torture->times)
    {
        return 0;
    }

    torture_busy = 1;
    saved = errno;

    if (torture->fired++ == 0) {
        torture_stack();
    }

    errno = saved;
    torture_busy = 0;

    return 1;
}


static void
torture_lives(long n)
{
    if (torture_worker && torture) {
        torture->live += n;
    }
}


/* memory */

void *
malloc(size_t size)
{
    void  *p;

    if (torture_fails(TORTURE_ALLOC)) {
        errno = ENOMEM;
        return NULL;
    }

    p = __interceptor_malloc ? __interceptor_malloc(size)
                             : __libc_malloc(size);
    torture_lives(p != NULL);

    return p;
}


void *
calloc(size_t n, size_t size)
{
    void  *p;

    if (torture_fails(TORTURE_ALLOC)) {
        errno = ENOMEM;
        return NULL;
    }

    p = __interceptor_calloc ? __interceptor_calloc(n, size)
                             : __libc_calloc(n, size);
    torture_lives(p != NULL);

    return p;
}


void *
realloc(void *old, size_t size)
{
    void  *p;

    if (size && torture_fails(TORTURE_ALLOC)) {
        errno = ENOMEM;
        return NULL;
    }

    p = __interceptor_realloc ? __interceptor_realloc(old, size)
                              : __libc_realloc(old, size);
    torture_lives((p != NULL && old == NULL) - (p == NULL && old && !size));

    return p;
}


int
posix_memalign(void **p, size_t alignment, size_t size)
{
    if (torture_fails(TORTURE_ALLOC)) {
        return ENOMEM;
    }

    if (__interceptor_posix_memalign) {
        torture_lives(1);
        return __interceptor_posix_memalign(p, alignment, size);
    }

    *p = __libc_memalign(alignment, size);
    torture_lives(*p != NULL);

    return *p ? 0 : ENOMEM;
}


void
free(void *p)
{
    torture_lives(-(p != NULL));

    if (__interceptor_free) {
        __interceptor_free(p);

    } else {
        __libc_free(p);
    }
}


void *
mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
    real(mmap);

    if ((flags & MAP_ANONYMOUS) && !(flags & MAP_SHARED)
        && torture_fails(TORTURE_MMAP))
    {
        errno = ENOMEM;
        return MAP_FAILED;
    }

    return call(addr, len, prot, flags, fd, offset);
}


/* the name that it has for 64-bit offsets */

void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
    __attribute__((alias("mmap")));


/* OpenSSL */

extern void *EVP_MAC_fetch(void *ctx, const char *name, const char *properties);


void *
EVP_MAC_fetch(void *ctx, const char *name, const char *properties)
{
    real(EVP_MAC_fetch);

    if (torture_fails(TORTURE_FETCH)) {
        return NULL;
    }

    return call(ctx, name, properties);
}


/* sockets */

static int
torture_socket(int fd)
{
    int        saved, type, is;
    socklen_t  len;

    if (!torture_worker || torture == NULL || torture->op < TORTURE_RECV) {
        return 0;
    }

    saved = errno;
    len = sizeof(type);
    is = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
    errno = saved;

    return is;
}


int
socket(int domain, int type, int protocol)
{
    real(socket);

    if (torture_fails(TORTURE_SOCKET)) {
        errno = EMFILE;
        return -1;
    }

    return call(domain, type, protocol);
}


int
connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    real(connect);

    if (torture_fails(TORTURE_CONNECT)) {
        errno = torture->mode == TORTURE_AGAIN ? EADDRNOTAVAIL : ECONNREFUSED;
        return -1;
    }

    return call(fd, addr, len);
}


int
epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    int  rc;

    real(epoll_ctl);

    if (op != EPOLL_CTL_DEL && torture_fails(TORTURE_EPOLL)) {
        errno = ENOSPC;
        return -1;
    }

    rc = call(epoll, op, fd, event);

    if (rc == 0 && fd >= 0 && fd < TORTURE_FDS) {
        torture_fds[fd].epoll = op == EPOLL_CTL_DEL ? -1 : epoll;

        if (event) {
            torture_fds[fd].event = *event;
        }
    }

    return rc;
}


/* epoll looks anew, and tells again what is still true */

static void
torture_again(int fd)
{
    int  saved;

    real(epoll_ctl);

    if (fd < TORTURE_FDS && torture_fds[fd].epoll != -1) {
        saved = errno;
        call(torture_fds[fd].epoll, EPOLL_CTL_MOD, fd, &torture_fds[fd].event);
        errno = saved;
    }
}


/* what fails at once; 1: do it with one byte, or with half of them */

static ssize_t
torture_fault(int fd, int error)
{
    switch (torture->mode) {

    case TORTURE_SHORT:
        torture_again(fd);
        return 1;

    case TORTURE_CUT:

        if (torture->fired == 1) {
            return 1;
        }

        errno = error;
        return -1;

    case TORTURE_AGAIN:
        torture_again(fd);
        errno = EAGAIN;
        return -1;

    case TORTURE_EOF:
        return 0;

    default:
        errno = error;
        return -1;
    }
}


ssize_t
recv(int fd, void *buf, size_t len, int flags)
{
    ssize_t  n;

    real(recv);

    if (!(flags & MSG_PEEK) && torture_fails(TORTURE_RECV)) {
        n = torture_fault(fd, ECONNRESET);
        return n == 1 ? call(fd, buf, len ? 1 : 0, flags) : n;
    }

    return call(fd, buf, len, flags);
}


ssize_t
readv(int fd, const struct iovec *iov, int n)
{
    ssize_t  rc;

    real(readv);

    if (torture_socket(fd) && torture_fails(TORTURE_RECV)) {
        rc = torture_fault(fd, ECONNRESET);
        return rc == 1 ? recv(fd, iov[0].iov_base, 1, 0) : rc;
    }

    return call(fd, iov, n);
}


ssize_t
read(int fd, void *buf, size_t len)
{
    ssize_t  n;

    real(read);

    if (torture_socket(fd) && torture_fails(TORTURE_RECV)) {
        n = torture_fault(fd, ECONNRESET);
        return n == 1 ? call(fd, buf, len ? 1 : 0) : n;
    }

    return call(fd, buf, len);
}


/* of len bytes those that are sent */

static size_t
torture_some(size_t len)
{
    return torture->mode == TORTURE_CUT ? (len + 1) / 2 : len != 0;
}


ssize_t
send(int fd, const void *buf, size_t len, int flags)
{
    ssize_t  n;

    real(send);

    if (torture_fails(TORTURE_SEND)) {
        n = torture_fault(fd, EPIPE);
        return n == 1 ? call(fd, buf, torture_some(len), flags) : n;
    }

    return call(fd, buf, len, flags);
}


ssize_t
writev(int fd, const struct iovec *iov, int n)
{
    int           i;
    size_t        left;
    ssize_t       rc;
    struct iovec  some[TORTURE_IOVS];

    real(writev);

    if (torture_socket(fd) && torture_fails(TORTURE_SEND)) {
        rc = torture_fault(fd, EPIPE);

        if (rc != 1) {
            return rc;
        }

        for (i = 0, left = 0; i < n; i++) {
            left += iov[i].iov_len;
        }

        left = torture_some(left);

        for (i = 0; i < n && i < TORTURE_IOVS && left; i++) {
            some[i] = iov[i];

            if (some[i].iov_len > left) {
                some[i].iov_len = left;
            }

            left -= some[i].iov_len;
        }

        return call(fd, some, i);
    }

    return call(fd, iov, n);
}


ssize_t
write(int fd, const void *buf, size_t len)
{
    ssize_t  n;

    real(write);

    if (torture_socket(fd) && torture_fails(TORTURE_SEND)) {
        n = torture_fault(fd, EPIPE);
        return n == 1 ? call(fd, buf, torture_some(len)) : n;
    }

    return call(fd, buf, len);
}
