/* A file system that is far away: COUNT raw images of 1 MiB in one directory, and every answer comes DELAY microseconds late.
 *
 *     far DIRECTORY COUNT DELAY
 *
 * It speaks the kernel's protocol of FUSE itself (linux/fuse.h), since libfuse is not everywhere, and answers any number of
 * requests at the same time, as servers do. A line on standard input is answered by "REQUESTS DIRECTORY-READS" since the line
 * before; the end of standard input unmounts. Attributes that came with a directory are good for three seconds, as those of an
 * NFS client are at the least (acregmin).
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { VALID = 3, SIZE = 1 << 20, BUFFER = 1 << 20, QUEUE = 4096 };

struct answer {
    long long due;
    size_t size;
    char *bytes;
};

static int fuse;
static unsigned long count, requests, reads;
static long long delay;
static struct answer queue[QUEUE];  /* the delay is the same for all: the first in is the first out */
static unsigned first, last;

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void deliver(void)
{
    for (; first != last && queue[first % QUEUE].due <= now(); first++) {
        struct answer *one = &queue[first % QUEUE];
        if (write(fuse, one->bytes, one->size) < 0 && errno != ENOENT) /* ENOENT: who asked has gone */
            err(1, "answer");
        free(one->bytes);
    }
}

static void reply(uint64_t unique, int error, const void *data, size_t size, long long after)
{
    struct fuse_out_header head = {sizeof head + size, error, unique};
    struct answer *one = &queue[last++ % QUEUE];
    if (last - first > QUEUE)
        errx(1, "too many requests at a time");
    if (!(one->bytes = malloc(head.len)))
        err(1, "malloc");
    memcpy(one->bytes, &head, sizeof head);
    if (size)
        memcpy(one->bytes + sizeof head, data, size);
    one->size = head.len;
    one->due = now() + after;
}

static struct fuse_attr attributes(uint64_t node)
{
    struct fuse_attr facts = {.ino = node, .nlink = 1, .blksize = 4096, .mtime = 1, .ctime = 1, .atime = 1};
    facts.mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0600;
    if (node != FUSE_ROOT_ID)
        facts.size = SIZE, facts.blocks = 8;
    return facts;
}

static struct fuse_entry_out entry(uint64_t node)
{
    struct fuse_entry_out out = {.nodeid = node, .entry_valid = VALID, .attr_valid = VALID, .attr = attributes(node)};
    return out;
}

static size_t directory(const struct fuse_read_in *in, int plus, char *out)
{
    size_t used = 0, head = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
    for (uint64_t n = in->offset; n < count; n++) {
        struct fuse_direntplus full = {.entry_out = entry(n + 2)};
        char name[32];
        int length = snprintf(name, sizeof name, "disk%06lu.img", (unsigned long)n);
        size_t size = FUSE_DIRENT_ALIGN(head + length);
        if (used + size > in->size)
            break;
        full.dirent = (struct fuse_dirent){.ino = n + 2, .off = n + 1, .namelen = length, .type = S_IFREG >> 12};
        memset(out + used, 0, size);
        memcpy(out + used, plus ? (void *)&full : (void *)&full.dirent, head);
        memcpy(out + used + head, name, length);
        used += size;
    }
    return used;
}

static size_t content(const struct fuse_read_in *in, char *out)
{
    size_t size = in->offset >= SIZE ? 0 : in->offset + in->size > SIZE ? SIZE - in->offset : in->size;
    for (size_t n = 0; n < size; n++)
        out[n] = in->offset + n < 4096 ? 1 + (in->offset + n) % 128 : 0;
    return size;
}

static void serve(char *bytes, char *out)
{
    struct fuse_in_header *head = (void *)bytes;
    void *in = bytes + sizeof *head;
    struct fuse_open_out opened = {0};
    struct fuse_attr_out facts = {.attr_valid = VALID, .attr = attributes(head->nodeid)};
    struct fuse_statfs_out sizes = {.st = {.blocks = 1 << 20, .bfree = 1 << 19, .bavail = 1 << 19, .bsize = 4096, .frsize = 4096}};
    struct fuse_init_out init = {.major = FUSE_KERNEL_VERSION, .minor = 31, .max_readahead = 1 << 17, .max_background = 64,
        .congestion_threshold = 48, .max_write = 1 << 16, .time_gran = 1, .flags = FUSE_ASYNC_READ | FUSE_DO_READDIRPLUS};
    struct fuse_entry_out found;
    unsigned long number;

    requests += head->opcode != FUSE_INIT && head->opcode != FUSE_FORGET && head->opcode != FUSE_BATCH_FORGET
        && head->opcode != FUSE_RELEASE && head->opcode != FUSE_RELEASEDIR; /* for those nobody waits */
    switch (head->opcode) {
    case FUSE_INIT:
        reply(head->unique, 0, &init, sizeof init, 0);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break;
    case FUSE_LOOKUP:
        if (sscanf(in, "disk%6lu.img", &number) == 1 && number < count) {
            found = entry(number + 2);
            reply(head->unique, 0, &found, sizeof found, delay);
        } else
            reply(head->unique, -ENOENT, NULL, 0, delay);
        break;
    case FUSE_GETATTR:
        reply(head->unique, 0, &facts, sizeof facts, delay);
        break;
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        reply(head->unique, 0, &opened, sizeof opened, delay);
        break;
    case FUSE_READ:
        reply(head->unique, 0, out, content(in, out), delay);
        break;
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
        reads++;
        reply(head->unique, 0, out, directory(in, head->opcode == FUSE_READDIRPLUS, out), delay);
        break;
    case FUSE_STATFS:
        reply(head->unique, 0, &sizes, sizeof sizes, delay);
        break;
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
        reply(head->unique, 0, NULL, 0, delay);
        break;
    default:
        reply(head->unique, -ENOSYS, NULL, 0, 0);
    }
}

int main(int argc, char **argv)
{
    static char bytes[BUFFER], out[BUFFER], line[80];
    char options[80];

    if (argc != 4)
        errx(2, "usage: far DIRECTORY COUNT DELAY");
    count = strtoul(argv[2], NULL, 10);
    delay = strtoll(argv[3], NULL, 10) * 1000;
    if ((fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC)) < 0)
        err(1, "/dev/fuse");
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
    if (mount("far", argv[1], "fuse.far", MS_NOSUID | MS_NODEV, options))
        err(1, "mount");
    for (;;) {
        struct pollfd ready[] = {{fuse, POLLIN, 0}, {0, POLLIN, 0}};
        long long left = first == last ? 3600000000000LL : queue[first % QUEUE].due - now();
        struct timespec wait = {left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0};

        if (ppoll(ready, 2, &wait, NULL) < 0 && errno != EINTR)
            err(1, "poll");
        deliver();
        if (ready[0].revents & POLLERR)
            return 0; /* unmounted */
        if (ready[0].revents & POLLIN) {
            if (read(fuse, bytes, sizeof bytes) < 0) {
                if (errno == ENODEV)
                    return 0;
                if (errno != EINTR && errno != EAGAIN && errno != ENOENT)
                    err(1, "read");
            } else
                serve(bytes, out);
        }
        if (ready[1].revents & (POLLIN | POLLHUP)) {
            if (read(0, line, sizeof line) <= 0) {
                umount2(argv[1], MNT_DETACH);
                return 0;
            }
            printf("%lu %lu\n", requests, reads);
            fflush(stdout);
            requests = reads = 0;
        }
    }
}
