/* Make one system call below a directory fail, or kill the process at it.

   Loaded by LD_PRELOAD and inactive until fault_arm is called, or from the start with its arguments
   in the environment. The calls of a process and of its children are counted together, in a shared
   file. */
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
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL = -1, SHORT = -2, COUNT = 0 };
enum { NAMES = 1 << 16, NAME = 16 };

struct record {
  uint64_t calls;
  uint64_t fired;
  char names[NAMES][NAME];
};

static struct record *record;
static char under[PATH_MAX];
static uint64_t at;
static int kind, lasting;

int fault_arm(const char *counter, const char *directory, uint64_t number, int what, int lasts) {
  int fd = syscall(SYS_openat, AT_FDCWD, counter, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || syscall(SYS_ftruncate, fd, sizeof(struct record))) return -1;
  record = (void *)syscall(SYS_mmap, NULL, sizeof(struct record), PROT_READ | PROT_WRITE, MAP_SHARED,
                           fd, 0);
  syscall(SYS_close, fd);
  snprintf(under, sizeof under, "%s", directory);
  at = number;
  kind = what;
  lasting = lasts;
  return record == MAP_FAILED ? -1 : 0;
}

/* The arguments of fault_arm, each on a line of its own. */
__attribute__((constructor)) static void arm_as_the_parent(void) {
  char counter[PATH_MAX], directory[PATH_MAX];
  unsigned long number;
  int what, lasts;
  const char *given = getenv("FAULT_SHIM");
  if (given && sscanf(given, "%4095[^\n]\n%4095[^\n]\n%lu\n%d\n%d", counter, directory, &number, &what,
                      &lasts) == 5)
    fault_arm(counter, directory, number, what, lasts);
}

static int is_below(const char *path) {
  size_t length = strlen(under);
  return !strncmp(path, under, length) && (path[length] == '/' || !path[length]);
}

static int of_descriptor(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
  path[size < 0 ? 0 : size] = 0;
  return size > 0;
}

static int concerns_descriptor(int fd) {
  char path[PATH_MAX];
  return record && fd > 2 && of_descriptor(fd, path) && is_below(path);
}

static int concerns_path(int directory, const char *name) {
  char path[2 * PATH_MAX];
  if (!record || !name) return 0;
  if (name[0] == '/') return is_below(name);
  if (directory != AT_FDCWD) {
    if (!of_descriptor(directory, path)) return 0;
  } else if (syscall(SYS_getcwd, path, PATH_MAX) < 0)
    return 0;
  size_t length = strlen(path);
  snprintf(path + length, sizeof path - length, "/%s", name);
  return is_below(path);
}

enum { ONCE_ONLY = 0, TAKES_SPACE = 1, IS_WRITE = 2, INTERRUPTIBLE = 4, CHANGES = 8 };

/* Count a call. Return 0, the errno with which it fails, or SHORT. */
static int fault(const char *name, int properties) {
  uint64_t number = __atomic_add_fetch(&record->calls, 1, __ATOMIC_SEQ_CST);
  if (number <= NAMES) snprintf(record->names[number - 1], NAME, "%s", name);
  if (kind == COUNT || number < at) return 0;
  if (number > at && !(lasting && __atomic_load_n(&record->fired, __ATOMIC_SEQ_CST) &&
                       (properties & (kind == EROFS ? CHANGES : TAKES_SPACE))))
    return 0;
  if (kind == SHORT && !(properties & IS_WRITE)) return 0;
  if (kind == EINTR && !(properties & INTERRUPTIBLE)) return 0;
  if ((kind == ENOSPC || kind == EDQUOT || kind == EROFS) && !(properties & CHANGES)) return 0;
  __atomic_store_n(&record->fired, 1, __ATOMIC_SEQ_CST);
  if (kind == KILL) syscall(SYS_kill, getpid(), SIGKILL);
  return kind;
}

#define REAL(name)                   \
  static __typeof__(name) *real;     \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define FAILING(condition, label, properties, result)   \
  int found = (condition) ? fault(label, properties) : 0; \
  if (found > 0) {                                      \
    errno = found;                                      \
    return result;                                      \
  }

#define HALF(size) (found == SHORT && (size) > 1 ? (size) / 2 : (size))

static int of_open(int flags) {
  return INTERRUPTIBLE | (flags & (O_CREAT | O_TRUNC) ? TAKES_SPACE | CHANGES : 0) |
         (flags & (O_WRONLY | O_RDWR) ? CHANGES : 0);
}

#define MODE                              \
  mode_t mode = 0;                        \
  if (flags & (O_CREAT | O_TMPFILE)) {    \
    va_list rest;                         \
    va_start(rest, flags);                \
    mode = va_arg(rest, mode_t);          \
    va_end(rest);                         \
  }

#define OPEN(name)                                                                   \
  int name(const char *path, int flags, ...) {                                       \
    MODE REAL(name);                                \
    FAILING(concerns_path(AT_FDCWD, path), "open", of_open(flags), -1)               \
    return real(path, flags, mode);                                                  \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                 \
  int name(int directory, const char *path, int flags, ...) {                        \
    MODE REAL(name);                           \
    FAILING(concerns_path(directory, path), "open", of_open(flags), -1)              \
    return real(directory, path, flags, mode);                                       \
  }
OPENAT(openat)
OPENAT(openat64)

#define WRITES (TAKES_SPACE | IS_WRITE | INTERRUPTIBLE | CHANGES)

ssize_t write(int fd, const void *data, size_t size) {
  REAL(write);
  FAILING(concerns_descriptor(fd), "write", WRITES, -1)
  return real(fd, data, HALF(size));
}

#define PWRITE(name, offset_type)                                                    \
  ssize_t name(int fd, const void *data, size_t size, offset_type offset) {          \
    REAL(name);                  \
    FAILING(concerns_descriptor(fd), "pwrite", WRITES, -1)                           \
    return real(fd, data, HALF(size), offset);                                       \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(writev);
  FAILING(concerns_descriptor(fd), "writev", WRITES, -1)
  return real(fd, parts, HALF(count));
}

#define FTRUNCATE(name, size_type)                                                   \
  int name(int fd, size_type size) {                                                 \
    REAL(name);                                             \
    FAILING(concerns_descriptor(fd), "ftruncate", INTERRUPTIBLE | CHANGES, -1)       \
    return real(fd, size);                                                           \
  }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

/* This one returns the error. */
#define POSIX_FALLOCATE(name, size_type)                                             \
  int name(int fd, size_type start, size_type size) {                                \
    REAL(name);                                  \
    FAILING(concerns_descriptor(fd), "fallocate", TAKES_SPACE | INTERRUPTIBLE | CHANGES, found) \
    return real(fd, start, size);                                                    \
  }
POSIX_FALLOCATE(posix_fallocate, off_t)
POSIX_FALLOCATE(posix_fallocate64, off64_t)

#define FALLOCATE(name, size_type)                                                   \
  int name(int fd, int mode, size_type start, size_type size) {                      \
    REAL(name);                             \
    FAILING(concerns_descriptor(fd), "fallocate", TAKES_SPACE | INTERRUPTIBLE | CHANGES, -1) \
    return real(fd, mode, start, size);                                              \
  }
FALLOCATE(fallocate, off_t)
FALLOCATE(fallocate64, off64_t)

#define FSYNC(name)                                                                  \
  int name(int fd) {                                                                 \
    REAL(name);                                                        \
    FAILING(concerns_descriptor(fd), "fsync", INTERRUPTIBLE | CHANGES, -1)           \
    return real(fd);                                                                 \
  }
FSYNC(fsync)
FSYNC(fdatasync)

#define TWO_PATHS(name)                                                              \
  int name(const char *from, const char *to) {                                       \
    REAL(name);                                 \
    FAILING(concerns_path(AT_FDCWD, to), #name, CHANGES, -1)                         \
    return real(from, to);                                                           \
  }
TWO_PATHS(rename)
TWO_PATHS(link)

int renameat(int d, const char *from, int e, const char *to) {
  REAL(renameat);
  FAILING(concerns_path(e, to), "rename", CHANGES, -1)
  return real(d, from, e, to);
}

int renameat2(int d, const char *from, int e, const char *to, unsigned flags) {
  REAL(renameat2);
  FAILING(concerns_path(e, to), "rename", CHANGES, -1)
  return real(d, from, e, to, flags);
}

int linkat(int d, const char *from, int e, const char *to, int flags) {
  REAL(linkat);
  FAILING(concerns_path(e, to), "link", CHANGES, -1)
  return real(d, from, e, to, flags);
}

#define ONE_PATH(name)                                                               \
  int name(const char *path) {                                                       \
    REAL(name);                                               \
    FAILING(concerns_path(AT_FDCWD, path), #name, CHANGES, -1)                       \
    return real(path);                                                               \
  }
ONE_PATH(unlink)
ONE_PATH(rmdir)

int unlinkat(int directory, const char *path, int flags) {
  REAL(unlinkat);
  FAILING(concerns_path(directory, path), "unlink", CHANGES, -1)
  return real(directory, path, flags);
}

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  FAILING(concerns_path(AT_FDCWD, path), "mkdir", TAKES_SPACE | CHANGES, -1)
  return real(path, mode);
}

#define MMAP(name, offset_type)                                                      \
  void *name(void *place, size_t size, int access, int flags, int fd, offset_type offset) { \
    REAL(name);               \
    FAILING(fd >= 0 && concerns_descriptor(fd), "mmap", 0, MAP_FAILED)               \
    return real(place, size, access, flags, fd, offset);                             \
  }
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)
