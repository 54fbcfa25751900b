/*
 * die_at PID OBJECT ADDRESS: kills the process with SIGKILL when it comes to
 * that place, a hexadecimal address within the shared object, as nm shows it.
 * Says "ready" on stdout as soon as it lies in wait. SIGTERM ends that, and
 * leaves the process as it was. Exit status: 0 where it died there, 1
 * otherwise.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>


#if defined(__x86_64__)
#define DIE_MASK  0xffL
#define DIE_TRAP  0xccL              /* int3 */
#elif defined(__aarch64__)
#define DIE_MASK  0xffffffffL
#define DIE_TRAP  0xd4200000L        /* brk #0 */
#else
#error "no breakpoint is known for this processor"
#endif


static volatile sig_atomic_t  die_over;


static void
die_signal(int sig)
{
    (void) sig;

    die_over = 1;
}


/* where the object begins in the process, 0: it is not there */

static uint64_t
die_base(const char *pid, const char *object)
{
    char           path[64], line[4096], *name;
    FILE          *maps;
    uint64_t       base;
    unsigned long  start, offset;

    snprintf(path, sizeof(path), "/proc/%s/maps", pid);

    maps = fopen(path, "r");
    if (maps == NULL) {
        return 0;
    }

    base = 0;

    while (base == 0 && fgets(line, sizeof(line), maps)) {
        line[strcspn(line, "\n")] = '\0';
        name = strchr(line, '/');

        if (name && strcmp(name, object) == 0
            && sscanf(line, "%lx-%*x %*s %lx", &start, &offset) == 2
            && offset == 0)
        {
            base = start;
        }
    }

    fclose(maps);

    return base;
}


static int
die_leave(pid_t pid, uint64_t at, long word)
{
    int  status;

    if (kill(pid, SIGSTOP) == 0 && waitpid(pid, &status, __WALL) == pid
        && WIFSTOPPED(status))
    {
        ptrace(PTRACE_POKETEXT, pid, at, word);
        ptrace(PTRACE_DETACH, pid, 0, 0);
    }

    return 1;
}


static int
die_wait(pid_t pid, uint64_t at, long word)
{
    int    status, sig;
    pid_t  rc;

    sig = 0;

    for ( ;; ) {
        if (ptrace(PTRACE_CONT, pid, 0, sig) == -1) {
            perror("die_at: PTRACE_CONT");
            return 1;
        }

        do {
            rc = waitpid(pid, &status, __WALL);
        } while (rc == -1 && errno == EINTR && !die_over);

        if (rc == -1 && die_over) {
            return die_leave(pid, at, word);
        }

        if (rc != pid || !WIFSTOPPED(status)) {
            fprintf(stderr, "die_at: it died elsewhere\n");
            return 1;
        }

        sig = WSTOPSIG(status);

        if (sig == SIGTRAP) {
            break;
        }
    }

    kill(pid, SIGKILL);
    waitpid(pid, &status, __WALL);

    return 0;
}


int
main(int argc, char **argv)
{
    int               status;
    long              word;
    pid_t             pid;
    uint64_t          at;
    struct sigaction  sa;

    if (argc != 4) {
        fprintf(stderr, "usage: die_at PID OBJECT ADDRESS\n");
        return 2;
    }

    pid = atoi(argv[1]);
    at = die_base(argv[1], argv[2]);

    if (at == 0) {
        fprintf(stderr, "die_at: %s does not have %s\n", argv[1], argv[2]);
        return 1;
    }

    at += strtoull(argv[3], NULL, 16);

    if (ptrace(PTRACE_ATTACH, pid, 0, 0) == -1
        || waitpid(pid, &status, __WALL) != pid)
    {
        perror("die_at: PTRACE_ATTACH");
        return 1;
    }

    errno = 0;
    word = ptrace(PTRACE_PEEKTEXT, pid, at, 0);

    if (errno
        || ptrace(PTRACE_POKETEXT, pid, at, (word & ~DIE_MASK) | DIE_TRAP)
           == -1)
    {
        perror("die_at: PTRACE_POKETEXT");
        ptrace(PTRACE_DETACH, pid, 0, 0);
        return 1;
    }

    /* waitpid() is to return */

    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = die_signal;
    sigaction(SIGTERM, &sa, NULL);

    printf("ready\n");
    fflush(stdout);

    return die_wait(pid, at, word);
}
