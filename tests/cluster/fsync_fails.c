/* Makes every fsync and fdatasync fail with EIO while the file named by FSYNC_FAILS is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int fails(void)
{
    const char *path = getenv("FSYNC_FAILS");
    if (path == NULL || access(path, F_OK) != 0)
        return 0;
    errno = EIO;
    return 1;
}

int fsync(int file)
{
    int (*next)(int) = dlsym(RTLD_NEXT, "fsync");
    return fails() ? -1 : next(file);
}

int fdatasync(int file)
{
    int (*next)(int) = dlsym(RTLD_NEXT, "fdatasync");
    return fails() ? -1 : next(file);
}
