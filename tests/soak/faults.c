/* Preloaded into poolkit and its programs: at a chosen call that touches the files under test, it kills or lets the call fail.
 *
 * Calls are counted over all processes in memory that they share (struct control; tests/soak/faults.py has the same).
 * Only files below control.place count, and what poolkit asks of /proc.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LOOK = 1, MAKE = 2, READ = 4, WRITE = 8, SYNC = 16, NAME = 32, REMOVE = 64, SIZE = 128, MAP = 256, LOCK = 512, MODE = 1024 };
enum { KILL_SELF = 1, KILL_LEADER = 2, KILL_ALL = 3, FAIL = 4, SHORT = 5 };

struct control {
    int32_t armed, action, number, leader, dead, told;
    uint32_t mask, unused;
    int64_t target, lasting, count, struck;
    char place[256], boot[256], where[512];
};

static struct control *control;
static __thread int inside;

__attribute__((constructor)) static void attach(void)
{
    const char *text = getenv("POOLKIT_FAULTS_FD");
    if (text == NULL)
        return;
    void *memory = (void *)syscall(SYS_mmap, NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(text), 0L);
    if (memory != MAP_FAILED)
        control = memory;
}

static int ours(const char *path)
{
    size_t length = strlen(control->place);
    return (strncmp(path, control->place, length) == 0 && (path[length] == '/' || path[length] == 0))
        || strcmp(path, "/proc/self/mountinfo") == 0 || strcmp(path, "/proc/sys/kernel/random/boot_id") == 0;
}

/* The file that is opened for ``path``: another one for the identity of the boot, after what counts as a power failure. */
static const char *instead(const char *path)
{
    if (control != NULL && control->boot[0] && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)
        return control->boot;
    return path;
}

static void of_descriptor(int fd, char *path, size_t size)
{
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
    path[length > 0 ? length : 0] = 0;
}

/* What is to become of a call: 0 nothing, -1 a part of it is done, otherwise the errno with which it fails. */
static int strike(unsigned kind, const char *call, int fd, const char *name)
{
    if (control == NULL || !control->armed || inside)
        return 0;
    if (control->dead)
        syscall(SYS_kill, getpid(), SIGKILL);
    if (!(control->mask & kind))
        return 0;
    int before = errno, answer = 0;
    char path[PATH_MAX + 300];
    inside = 1;
    if (name != NULL && name[0] == '/')
        snprintf(path, sizeof path, "%s", name);
    else {
        path[0] = 0;
        if (fd != AT_FDCWD)
            of_descriptor(fd, path, PATH_MAX);
        if (name != NULL && path[0])
            snprintf(path + strlen(path), sizeof path - strlen(path), "/%s", name);
    }
    if (ours(path)) {
        int64_t number = __sync_add_and_fetch(&control->count, 1);
        if (number >= control->target && number <= control->target + control->lasting) {
            control->struck = number;
            if (number == control->target)
                snprintf(control->where, sizeof control->where, "%s %s", call, path);
            switch (control->action) {
            case KILL_ALL:
                control->dead = 1; /* and the others at their next call */
                /* fall through */
            case KILL_LEADER:
                syscall(SYS_kill, control->leader, SIGKILL);
                if (control->action == KILL_LEADER)
                    break;
                /* fall through */
            case KILL_SELF:
                syscall(SYS_kill, getpid(), SIGKILL);
                break;
            case FAIL:
                answer = control->number;
                break;
            case SHORT:
                answer = -1;
            }
        }
    }
    inside = 0;
    errno = before;
    return answer;
}

#define REAL(type, name, parameters)                                                                                             \
    static type(*real) parameters;                                                                                               \
    if (real == NULL)                                                                                                            \
        real = (type(*) parameters)dlsym(RTLD_NEXT, #name);

#define FAIL_WITH(kind, fd, name)                                                                                                \
    int fate = strike(kind, __func__, fd, name);                                                                                 \
    if (fate > 0) {                                                                                                              \
        errno = fate;                                                                                                            \
        return -1;                                                                                                               \
    }

#define OPENED(flags) ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE ? MAKE : LOOK)

#define OPEN(name)                                                                                                               \
    int name(const char *path, int flags, ...)                                                                                   \
    {                                                                                                                            \
        REAL(int, name, (const char *, int, ...))                                                                                \
        va_list more;                                                                                                            \
        va_start(more, flags);                                                                                                   \
        int mode = va_arg(more, int);                                                                                            \
        va_end(more);                                                                                                            \
        FAIL_WITH(OPENED(flags), AT_FDCWD, path)                                                                                 \
        return real(instead(path), flags, mode);                                                                                 \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                             \
    int name(int folder, const char *path, int flags, ...)                                                                       \
    {                                                                                                                            \
        REAL(int, name, (int, const char *, int, ...))                                                                           \
        va_list more;                                                                                                            \
        va_start(more, flags);                                                                                                   \
        int mode = va_arg(more, int);                                                                                            \
        va_end(more);                                                                                                            \
        FAIL_WITH(OPENED(flags), folder, path)                                                                                   \
        return real(folder, path, flags, mode);                                                                                  \
    }
OPENAT(openat)
OPENAT(openat64)

#define CALL(type, name, parameters, arguments, kind, fd, path)                                                                  \
    type name parameters                                                                                                         \
    {                                                                                                                            \
        REAL(type, name, parameters)                                                                                             \
        FAIL_WITH(kind, fd, path)                                                                                                \
        return real arguments;                                                                                                   \
    }

/* A part of what was asked: half, and at least one byte. */
#define PART(name, parameters, arguments, kind, fd, length)                                                                      \
    ssize_t name parameters                                                                                                      \
    {                                                                                                                            \
        REAL(ssize_t, name, parameters)                                                                                          \
        FAIL_WITH(kind, fd, NULL)                                                                                                \
        if (fate < 0 && length > 1)                                                                                              \
            length /= 2;                                                                                                         \
        return real arguments;                                                                                                   \
    }

PART(read, (int fd, void *data, size_t length), (fd, data, length), READ, fd, length)
PART(pread, (int fd, void *data, size_t length, off_t at), (fd, data, length, at), READ, fd, length)
PART(pread64, (int fd, void *data, size_t length, off_t at), (fd, data, length, at), READ, fd, length)
PART(write, (int fd, const void *data, size_t length), (fd, data, length), WRITE, fd, length)
PART(pwrite, (int fd, const void *data, size_t length, off_t at), (fd, data, length, at), WRITE, fd, length)
PART(pwrite64, (int fd, const void *data, size_t length, off_t at), (fd, data, length, at), WRITE, fd, length)
PART(copy_file_range, (int from, off_t *a, int to, off_t *b, size_t length, unsigned flags), (from, a, to, b, length, flags),
    WRITE, to, length)
PART(sendfile, (int to, int from, off_t *at, size_t length), (to, from, at, length), WRITE, to, length)
PART(sendfile64, (int to, int from, off_t *at, size_t length), (to, from, at, length), WRITE, to, length)

struct iovec;
CALL(ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at), WRITE, fd, NULL)
CALL(ssize_t, pwritev64, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at), WRITE, fd, NULL)
CALL(ssize_t, preadv, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at), READ, fd, NULL)
CALL(ssize_t, preadv64, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at), READ, fd, NULL)
CALL(int, fsync, (int fd), (fd), SYNC, fd, NULL)
CALL(int, fdatasync, (int fd), (fd), SYNC, fd, NULL)
CALL(int, ftruncate, (int fd, off_t size), (fd, size), SIZE, fd, NULL)
CALL(int, ftruncate64, (int fd, off_t size), (fd, size), SIZE, fd, NULL)
CALL(int, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size), SIZE, fd, NULL)
CALL(int, fallocate64, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size), SIZE, fd, NULL)

/* FS_IOC_RESVSP, which reserves space as fallocate does; all other requests pass. */
int ioctl(int fd, unsigned long request, ...)
{
    REAL(int, ioctl, (int, unsigned long, ...))
    va_list more;
    va_start(more, request);
    void *argument = va_arg(more, void *);
    va_end(more);
    if (request == 0x40305828) {
        FAIL_WITH(SIZE, fd, NULL)
    }
    return real(fd, request, argument);
}

CALL(int, rename, (const char *a, const char *b), (a, b), NAME, AT_FDCWD, b)
CALL(int, renameat, (int f, const char *a, int g, const char *b), (f, a, g, b), NAME, g, b)
CALL(int, renameat2, (int f, const char *a, int g, const char *b, unsigned flags), (f, a, g, b, flags), NAME, g, b)
CALL(int, link, (const char *a, const char *b), (a, b), NAME, AT_FDCWD, b)
CALL(int, linkat, (int f, const char *a, int g, const char *b, int flags), (f, a, g, b, flags), NAME, g, b)
CALL(int, symlink, (const char *a, const char *b), (a, b), NAME, AT_FDCWD, b)
CALL(int, symlinkat, (const char *a, int g, const char *b), (a, g, b), NAME, g, b)
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), NAME, AT_FDCWD, path)
CALL(int, mkdirat, (int f, const char *path, mode_t mode), (f, path, mode), NAME, f, path)
CALL(int, unlink, (const char *path), (path), REMOVE, AT_FDCWD, path)
CALL(int, unlinkat, (int f, const char *path, int flags), (f, path, flags), REMOVE, f, path)
CALL(int, rmdir, (const char *path), (path), REMOVE, AT_FDCWD, path)
CALL(int, fchmod, (int fd, mode_t mode), (fd, mode), MODE, fd, NULL)
CALL(int, fchown, (int fd, uid_t user, gid_t group), (fd, user, group), MODE, fd, NULL)
CALL(int, flock, (int fd, int operation), (fd, operation), LOCK, fd, NULL)

int posix_fallocate64(int fd, off_t at, off_t size)
{
    REAL(int, posix_fallocate64, (int, off_t, off_t))
    int fate = strike(SIZE, __func__, fd, NULL);
    return fate > 0 ? fate : real(fd, at, size);
}

int posix_fallocate(int fd, off_t at, off_t size)
{
    return posix_fallocate64(fd, at, size);
}

#define MMAP(name)                                                                                                               \
    void *name(void *where, size_t size, int access, int flags, int fd, off_t at)                                                \
    {                                                                                                                            \
        REAL(void *, name, (void *, size_t, int, int, int, off_t))                                                               \
        int fate = fd < 0 ? 0 : strike(MAP, __func__, fd, NULL);                                                                 \
        if (fate > 0) {                                                                                                          \
            errno = fate;                                                                                                        \
            return MAP_FAILED;                                                                                                   \
        }                                                                                                                        \
        return real(where, size, access, flags, fd, at);                                                                         \
    }
MMAP(mmap)
MMAP(mmap64)
