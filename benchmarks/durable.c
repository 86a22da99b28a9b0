/* The least that a clone waits for which is crash-safe and on record: no library, no inventory, no lock, no undo.
 *
 * usage: durable SOURCE TARGET RECORD
 *
 * The copy has no name until its bytes are on the disk and its format is in RECORD, a file that has its blocks already, on the
 * disk as well; then it gets the name, which is brought to the disk. So there are four waits where cp with fsync of file and
 * folder has two: what has a name must be whole, and what is found after a power failure must never have its format guessed.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static void copy(int from, int to, off_t size)
{
    off_t start = 0, end;

    if (ioctl(to, FICLONE, from) == 0)
        return;
    while ((start = lseek(from, start, SEEK_DATA)) >= 0) {
        if ((end = lseek(from, start, SEEK_HOLE)) < 0)
            err(1, "SEEK_HOLE");
        while (start < end) {
            off_t there = start;

            if (copy_file_range(from, &start, to, &there, end - start, 0) <= 0)
                err(1, "copy_file_range");
        }
    }
    if (errno != ENXIO)
        err(1, "SEEK_DATA");
    if (ftruncate(to, size))
        err(1, "ftruncate");
}

int main(int argc, char **argv)
{
    static char block[4096];
    char unnamed[64], path[PATH_MAX];
    struct stat facts;
    int from, folder, to, record;

    if (argc != 4)
        errx(2, "usage: durable SOURCE TARGET RECORD");
    snprintf(path, sizeof path, "%s", argv[2]);
    if ((from = open(argv[1], O_RDONLY)) < 0 || fstat(from, &facts))
        err(1, "%s", argv[1]);
    if ((folder = open(dirname(path), O_RDONLY | O_DIRECTORY)) < 0 || (record = open(argv[3], O_WRONLY)) < 0)
        err(1, "open");
    if ((to = openat(folder, ".", O_RDWR | O_TMPFILE, 0600)) < 0)
        err(1, "O_TMPFILE");
    copy(from, to, facts.st_size);
    if (fsync(to))
        err(1, "fsync of the file");
    snprintf(block, sizeof block, "%lu raw %s\n", (unsigned long)facts.st_ino, argv[2]);
    if (pwrite(record, block, sizeof block, 0) != sizeof block || fdatasync(record))
        err(1, "the record");
    snprintf(unnamed, sizeof unnamed, "/proc/self/fd/%d", to);
    if (linkat(AT_FDCWD, unnamed, AT_FDCWD, argv[2], AT_SYMLINK_FOLLOW) || fsync(to) || fsync(folder))
        err(1, "%s", argv[2]);
    return 0;
}
