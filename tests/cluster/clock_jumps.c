/* Puts the host's clock off by the seconds (a 64-bit number in the machine's own order) that the
 * file named by CLOCK_OFF_BY holds at that moment. CLOCK_MONOTONIC and CLOCK_BOOTTIME stay what
 * they are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *off_by;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void open_file(void)
{
    const char *path = getenv("CLOCK_OFF_BY");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    void *mapped = MAP_FAILED;
    if (file >= 0) {
        mapped = mmap(NULL, sizeof *off_by, PROT_READ, MAP_SHARED, file, 0);
        close(file);
    }
    if (mapped == MAP_FAILED)
        abort(); /* a clock that is right would prove nothing */
    off_by = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (real_clock_gettime == NULL)
        real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock_gettime(clock, now);
    if (result == 0 && off_by != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *off_by;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec found;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now != NULL)
        *now = found.tv_sec;
    return found.tv_sec;
}

/* Who waits until a time of this clock tells the kernel of it, which goes by another one. */

static const struct timespec *as_the_kernel_has_it(const struct timespec *time, struct timespec *copy)
{
    copy->tv_sec = time->tv_sec - *off_by;
    copy->tv_nsec = time->tv_nsec;
    return copy;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    int (*next)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec copy;
    next = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    if (until->tv_sec > 1000000000) /* or else it is of a clock that counts from the boot */
        until = as_the_kernel_has_it(until, &copy);
    return next(condition, mutex, until);
}

long syscall(long number, ...)
{
    long (*next)(long, ...) = dlsym(RTLD_NEXT, "syscall");
    struct timespec copy;
    long given[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        given[i] = va_arg(arguments, long);
    va_end(arguments);
    if (number == SYS_futex && given[1] & FUTEX_CLOCK_REALTIME && given[3] != 0)
        given[3] = (long)as_the_kernel_has_it((const struct timespec *)given[3], &copy);
    return next(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}
