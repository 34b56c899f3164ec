// Preloaded into the measured process: notes each pread, so that a plain reader can repeat them.
#define _GNU_SOURCE
#include <sched.h>
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

ssize_t pread(int file, void* to, size_t size, off_t offset) {
  const unsigned index = atomic_fetch_add(&begun, 1);
  const ssize_t got = syscall(SYS_pread64, file, to, size, offset);
  if (index < MOST_READS) reads[index] = (Read){(uint64_t)offset, got};
  atomic_fetch_add(&ended, 1);
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
