/*
 * etc.so, preloaded: /etc/hosts and /etc/resolv.conf are the files that
 * ETC_HOSTS and ETC_RESOLV_CONF name, for whoever opens them with open(). With
 * ETC_NO_IPV6 the kernel has no IPv6, as one with ipv6.disable=1.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

typedef int (*etc_open_t)(const char *path, int flags, ...);

typedef int (*etc_socket_t)(int domain, int type, int protocol);

int open64(const char *path, int flags, ...);

/* a worker has another environment than its master */
static int  etc_no_ipv6;


__attribute__((constructor))
static void
etc_init(void)
{
    etc_no_ipv6 = (getenv("ETC_NO_IPV6") != NULL);
}


static const char *
etc_path(const char *path)
{
    const char  *other;

    other = NULL;

    if (strcmp(path, "/etc/hosts") == 0) {
        other = getenv("ETC_HOSTS");

    } else if (strcmp(path, "/etc/resolv.conf") == 0) {
        other = getenv("ETC_RESOLV_CONF");
    }

    return other ? other : path;
}


#define ETC_OPEN(name)                                                       \
                                                                             \
int                                                                          \
name(const char *path, int flags, ...)                                       \
{                                                                            \
    va_list            args;                                                 \
    mode_t             mode;                                                 \
    static etc_open_t  next;                                                 \
                                                                             \
    if (next == NULL) {                                                      \
        next = (etc_open_t) dlsym(RTLD_NEXT, #name);                         \
    }                                                                        \
                                                                             \
    va_start(args, flags);                                                   \
    mode = (flags & (O_CREAT|O_TMPFILE)) ? va_arg(args, mode_t) : 0;         \
    va_end(args);                                                            \
                                                                             \
    return next(etc_path(path), flags, mode);                                \
}


ETC_OPEN(open)
ETC_OPEN(open64)


int
socket(int domain, int type, int protocol)
{
    static etc_socket_t  next;

    if (domain == AF_INET6 && etc_no_ipv6) {
        errno = EAFNOSUPPORT;
        return -1;
    }

    if (next == NULL) {
        next = (etc_socket_t) dlsym(RTLD_NEXT, "socket");
    }

    return next(domain, type, protocol);
}
