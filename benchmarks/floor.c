/* The floor of a refresh: what the system calls alone cost for every name in a directory, with no program around them.
 *
 * usage: floor DIRECTORY    prints the number of files and the nanoseconds of the whole loop
 *
 * The names are read before the clock starts, so the floor is a little lower than any program can come.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char block[4096];
    char **names = NULL;
    size_t count = 0, room = 0;
    struct dirent *entry;
    struct timespec start, end;
    DIR *directory;

    if (argc != 2)
        errx(2, "usage: floor DIRECTORY");
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
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (size_t i = 0; i < count; i++) {
        struct stat facts;
        int fd = openat(dirfd(directory), names[i], O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

        if (fd < 0 || fstat(fd, &facts) || pread(fd, block, sizeof block, 0) < 0 || close(fd))
            err(1, "%s", names[i]);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%zu %lld\n", count, (end.tv_sec - start.tv_sec) * 1000000000LL + (end.tv_nsec - start.tv_nsec));
    return 0;
}
