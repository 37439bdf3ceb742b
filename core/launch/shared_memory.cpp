#include "core/launch/shared_memory.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/base/processor.h"
#include "core/launch/byte_message.h"

namespace qshard {

namespace {

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  [[nodiscard]] int get() const { return value_; }

 private:
  int value_;
};

// Bytes that the kernel says it can give without swapping; all there are where it does not say.
std::int64_t available_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("MemAvailable:")) return std::stoll(line.substr(line.find(':') + 1)) * 1024;
  }
  return INT64_MAX;
}

void check_available(std::int64_t bytes, int local_ranks) {
  const std::int64_t available = available_bytes();
  if (bytes * local_ranks <= available) return;
  fail(ExitCode::out_of_resources,
       "{} ranks of this host share {} MiB of host memory each, but {} MiB are left of it; use a transport that keeps "
       "the shards on the GPUs alone, or more hosts",
       local_ranks, bytes >> 20, available >> 20);
}

void check_one_host(RankLink& link) {
  const auto own = static_cast<std::size_t>(link.rank());
  for (std::size_t rank = 0; rank < link.ranks().size(); ++rank) {
    if (link.ranks()[rank].host_id == link.ranks()[own].host_id) continue;
    fail_input(
        "rank {} is on another host than rank {}, and host memory is shared within a host only; use "
        "fsdp.transport: nccl",
        rank, own);
  }
}

std::uint64_t inode(int descriptor) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return 0;
  return status.st_ino;
}

[[noreturn]] void fail_to_get(std::int64_t bytes, int error) {
  fail(ExitCode::out_of_resources, "{} MiB of shared host memory cannot be had: {}", bytes >> 20, std::strerror(error));
}

std::span<std::byte> map(int descriptor, std::int64_t bytes) {
  const auto size = static_cast<std::size_t>(bytes);
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (memory == MAP_FAILED) fail_to_get(bytes, errno);
  return {static_cast<std::byte*>(memory), size};
}

// Finding and clearing pages is the kernel's work, on the processor that asks; the ranks of a host share its
// processors.
int populating_threads(std::int64_t bytes, int local_ranks) {
  constexpr std::int64_t kWorthAThread = std::int64_t{64} << 20;
  return static_cast<int>(std::clamp<std::int64_t>(bytes / kWorthAThread, 1, processor_share(local_ranks)));
}

// Every page of a part has memory afterwards, and a place in this process. 0, or an error of the system.
int populate(std::span<std::byte> part, int threads) {
  constexpr std::size_t kLargePage = std::size_t{2} << 20;
  ::madvise(part.data(), part.size(), MADV_HUGEPAGE);  // where the system gives large pages to those who ask
  const std::size_t share = (part.size() / static_cast<std::size_t>(threads) / kLargePage + 1) * kLargePage;
  std::atomic<int> failure = 0;
  std::vector<std::jthread> running;
  for (std::size_t begin = 0; begin < part.size(); begin += share) {
    running.emplace_back([&failure, piece = part.subspan(begin, std::min(share, part.size() - begin))] {
      if (::madvise(piece.data(), piece.size(), MADV_POPULATE_WRITE) != 0) failure = errno;
    });
  }
  running.clear();
  return failure;
}

std::span<std::byte> make_part(int descriptor, std::int64_t bytes, int threads) {
  if (::ftruncate(descriptor, bytes) != 0) fail_to_get(bytes, errno);
  const std::span<std::byte> part = map(descriptor, bytes);
  int error = populate(part, threads);
  if (error == EINVAL) error = ::posix_fallocate(descriptor, 0, bytes);  // Linux before 5.14
  if (error != 0) fail_to_get(bytes, error);
  return part;
}

// The peer keeps its descriptor open until every rank has opened it here.
std::span<std::byte> map_part_of(std::size_t rank, std::span<const std::byte> message, std::int64_t bytes) {
  ByteReader reader(message);
  const auto process = reader.number<std::int64_t>();
  const auto number = reader.number<std::int32_t>();
  const auto wanted = reader.number<std::uint64_t>();
  const auto size = reader.number<std::int64_t>();
  if (!reader.complete() || size != bytes) {
    fail(ExitCode::rank_failed, "rank {} shares {} bytes of host memory, but this rank {}", rank, size, bytes);
  }
  const std::string path = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(number);
  const Descriptor descriptor(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (descriptor.get() < 0 || inode(descriptor.get()) != wanted) {
    fail_input(
        "the host memory of rank {} cannot be opened at {} ({}): ranks that share it must run as one user and "
        "see each other's processes; use fsdp.transport: peer or nccl, or one container for all",
        rank, path, descriptor.get() < 0 ? std::strerror(errno) : "another file is there");
  }
  return map(descriptor.get(), bytes);
}

}  // namespace

SharedMemory::SharedMemory(std::int64_t bytes, RankLink& link) {
  const auto world = static_cast<std::size_t>(link.world_size());
  const auto own = static_cast<std::size_t>(link.rank());
  check_one_host(link);
  check_available(bytes, link.local_world_size());
  link.barrier();  // all have looked before any takes
  const Descriptor mine(::memfd_create("qshard", MFD_CLOEXEC));
  if (mine.get() < 0) fail_to_get(bytes, errno);
  const int threads = populating_threads(bytes, link.local_world_size());
  parts_.resize(world);
  parts_[own] = make_part(mine.get(), bytes, threads);
  ByteWriter message;
  message.number(static_cast<std::int64_t>(::getpid()));
  message.number(static_cast<std::int32_t>(mine.get()));
  message.number(inode(mine.get()));
  message.number(bytes);
  const auto messages = link.all_gather(message.bytes());
  for (std::size_t rank = 0; rank < world; ++rank) {
    if (rank == own) continue;
    parts_[rank] = map_part_of(rank, messages[rank], bytes);
    populate(parts_[rank], threads);  // all at once, which is faster than page by page where they are first used
  }
  link.barrier();
}

SharedMemory::~SharedMemory() {
  for (const std::span<std::byte> part : parts_) ::munmap(part.data(), part.size());
}

}  // namespace qshard
