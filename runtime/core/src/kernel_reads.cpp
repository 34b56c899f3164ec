#include "kernel_reads.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace moedge {
namespace {

// glibc has no names for these.
long io_setup(unsigned reads, aio_context_t* context) { return syscall(SYS_io_setup, reads, context); }
long io_destroy(aio_context_t context) { return syscall(SYS_io_destroy, context); }
long io_submit(aio_context_t context, long reads, iocb** blocks) {
  return syscall(SYS_io_submit, context, reads, blocks);
}
long io_getevents(aio_context_t context, long least, long most, io_event* events, timespec* limit) {
  return syscall(SYS_io_getevents, context, least, most, events, limit);
}

}  // namespace

std::unique_ptr<KernelReads> KernelReads::open(std::unique_ptr<FileSource>& source, uint32_t most) {
  aio_context_t context = 0;
  if (!source->direct() || io_setup(most, &context) != 0) return nullptr;
  return std::unique_ptr<KernelReads>(new KernelReads(std::move(source), context, most));
}

KernelReads::KernelReads(std::unique_ptr<FileSource> source, aio_context_t context, uint32_t most)
    : source_(std::move(source)), context_(context), places_(most) {
  for (Place& place : places_) free_.push_back(&place);
}

KernelReads::~KernelReads() { io_destroy(context_); }

void KernelReads::begin(const Read& read) {
  const std::lock_guard lock(mutex_);
  Place* place = free_.back();
  free_.pop_back();
  place->read = read;
  iocb& block = place->block;
  block = {};
  block.aio_lio_opcode = IOCB_CMD_PREAD;
  block.aio_fildes = static_cast<uint32_t>(source_->direct_file());
  block.aio_buf = reinterpret_cast<uint64_t>(read.to);
  block.aio_nbytes = read.size;
  block.aio_offset = static_cast<int64_t>(read.offset);
  block.aio_data = reinterpret_cast<uint64_t>(place);
  iocb* blocks = &block;
  if (io_submit(context_, 1, &blocks) != 1) {
    block.aio_data = static_cast<uint64_t>(errno);
    refused_.push_back(place);
  }
}

std::optional<ReadResult> KernelReads::wait(std::chrono::milliseconds limit) {
  if (Place* place = take_refused()) return end(*place, -static_cast<int64_t>(place->block.aio_data));
  timespec left{limit.count() / 1000, limit.count() % 1000 * 1000000};
  io_event event;
  if (io_getevents(context_, 1, 1, &event, &left) != 1) return std::nullopt;
  return end(*reinterpret_cast<Place*>(event.data), event.res);
}

KernelReads::Place* KernelReads::take_refused() {
  const std::lock_guard lock(mutex_);
  if (refused_.empty()) return nullptr;
  Place* place = refused_.front();
  refused_.pop_front();
  return place;
}

ReadResult KernelReads::end(Place& place, int64_t got) {
  const Read read = place.read;
  {
    const std::lock_guard lock(mutex_);
    free_.push_back(&place);
  }
  // The file system refuses direct reads here, or the kernel has no room for one more.
  if (got == -EINVAL || got == -EAGAIN) got = source_->read(read.offset, read.to, read.size);
  return {read.tag, got, {}};
}

}  // namespace moedge
