// Preloaded into the measured process: notes each pread and each read that the kernel is asked to do by itself (Linux
// AIO), so that a plain reader can repeat them.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

// More than twice the records of the model: each is read in two parts.
#define MOST_READS (1 << 16)

typedef struct {
  uint64_t offset;
  int64_t bytes;  // what it returned
} Read;

static Read reads[MOST_READS];
static atomic_uint begun, ended;

// Reads of the kernel that are under way.
#define MOST_UNDER_WAY 256
static struct {
  const struct iocb* block;
  unsigned index;
} under_way[MOST_UNDER_WAY];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static unsigned begin(uint64_t offset) {
  const unsigned index = atomic_fetch_add(&begun, 1);
  if (index < MOST_READS) reads[index].offset = offset;
  return index;
}

static void end(unsigned index, int64_t bytes) {
  if (index < MOST_READS) reads[index].bytes = bytes;
  atomic_fetch_add(&ended, 1);
}

static void note_begin(const struct iocb* block) {
  unsigned place = 0;
  pthread_mutex_lock(&mutex);
  while (place < MOST_UNDER_WAY && under_way[place].block) ++place;
  if (place < MOST_UNDER_WAY) {
    under_way[place].block = block;
    under_way[place].index = begin(block->aio_offset);
  }
  pthread_mutex_unlock(&mutex);
}

static void note_end(const struct iocb* block, int64_t bytes) {
  pthread_mutex_lock(&mutex);
  for (unsigned place = 0; place < MOST_UNDER_WAY; ++place) {
    if (under_way[place].block != block) continue;
    under_way[place].block = NULL;
    end(under_way[place].index, bytes);
    break;
  }
  pthread_mutex_unlock(&mutex);
}

// The functions of Linux AIO have no other names.
long syscall(long number, ...) {
  static long (*real)(long, ...);
  if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  long a[6];
  va_list arguments;
  va_start(arguments, number);
  for (int i = 0; i < 6; ++i) a[i] = va_arg(arguments, long);
  va_end(arguments);
  if (number == SYS_io_submit) {
    for (long i = 0; i < a[1]; ++i) note_begin(((struct iocb**)a[2])[i]);
  }
  const long result = real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  if (number == SYS_io_getevents) {
    const struct io_event* events = (const struct io_event*)a[3];
    for (long i = 0; i < result; ++i) note_end((const struct iocb*)events[i].obj, events[i].res);
  }
  return result;
}

ssize_t pread(int file, void* to, size_t size, off_t offset) {
  const unsigned index = begin((uint64_t)offset);
  const ssize_t got = syscall(SYS_pread64, file, to, size, offset);
  end(index, got);
  return got;
}

// What C++ calls pread, Python calls pread64.
ssize_t pread64(int file, void* to, size_t size, off64_t offset) __attribute__((alias("pread")));

// Waits for the reads under way, copies those since the last call in the order in which they began, and forgets them.
// Returns how many there were: more than `most` if not all were noted.
unsigned take_reads(Read* to, unsigned most) {
  while (atomic_load(&ended) != atomic_load(&begun)) sched_yield();
  const unsigned count = atomic_load(&begun);
  const unsigned noted = count < MOST_READS ? count : MOST_READS;
  memcpy(to, reads, (noted < most ? noted : most) * sizeof(Read));
  atomic_store(&begun, 0);
  atomic_store(&ended, 0);
  return count;
}
