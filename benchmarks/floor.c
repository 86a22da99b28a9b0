/* The floor of a refresh: what the system calls alone cost for every name in a directory, with no program around them.
 *
 * usage: floor DIRECTORY [THREADS]    prints the number of files, the nanoseconds of the whole loop, and those of reading the
 *                                     directory
 *
 * The names are read before the clock of the loop starts, so the floor is a little lower than any program can come.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1024 };

static DIR *directory;
static char **names;
static size_t count;
static atomic_size_t taken;

static void *look(void *unused)
{
    char block[4096];

    for (size_t i; (i = atomic_fetch_add_explicit(&taken, 1, memory_order_relaxed)) < count;) {
        struct stat facts;
        int fd = openat(dirfd(directory), names[i], O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

        if (fd < 0 || fstat(fd, &facts) || pread(fd, block, sizeof block, 0) < 0 || close(fd))
            err(1, "%s", names[i]);
    }
    return unused;
}

static long long now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
    static pthread_t others[MOST];
    long threads = argc == 3 ? strtol(argv[2], NULL, 10) : 1;
    size_t room = 0;
    struct dirent *entry;
    long long start, read, end;

    if (argc < 2 || argc > 3 || threads < 1 || threads > MOST)
        errx(2, "usage: floor DIRECTORY [THREADS]");
    start = now();
    if (!(directory = opendir(argv[1])))
        err(1, "%s", argv[1]);
    while ((entry = readdir(directory))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (count == room && !(names = realloc(names, (room = room ? 2 * room : 1024) * sizeof *names)))
            err(1, "realloc");
        if (!(names[count++] = strdup(entry->d_name)))
            err(1, "strdup");
    }
    read = now();
    for (long n = 1; n < threads; n++)
        if (pthread_create(&others[n], NULL, look, NULL))
            errx(1, "a thread cannot be started");
    look(NULL);
    for (long n = 1; n < threads; n++)
        pthread_join(others[n], NULL);
    end = now();
    printf("%zu %lld %lld\n", count, end - read, read - start);
    return 0;
}
