#include "optimized/sharded/nccl_communicator.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <thread>

#include <dlfcn.h>
#include <nccl.h>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/device_buffer.h"
#include "optimized/device/stream.h"

namespace qshard::optimized {

namespace {

constexpr auto kDeadline = std::chrono::seconds(60);
constexpr int kOldestVersion = 21800;  // the first whose communicators take the configuration below

/// The functions of NCCL that are used here.
struct Nccl {
  decltype(&ncclGetVersion) get_version;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRankConfig) init;
  decltype(&ncclCommGetAsyncError) get_async_error;
  decltype(&ncclCommAbort) abort;
  decltype(&ncclGetErrorString) error_string;
  decltype(&ncclGetLastError) last_error;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;
  decltype(&ncclAllGather) all_gather;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) receive;
};

// What keeps NCCL small: rings alone, with buffers of 1 MiB and less; a value that the user has set stays.
void set_defaults() {
  ::setenv("NCCL_ALGO", "Ring", 0);
  ::setenv("NCCL_NVLS_ENABLE", "0", 0);
  ::setenv("NCCL_BUFFSIZE", "1048576", 0);
  ::setenv("NCCL_LL128_BUFFSIZE", "262144", 0);
  ::setenv("NCCL_RAS_ENABLE", "0", 0);
}

Nccl open_nccl() {
  void* library = nullptr;
  for (const char* name : {"libnccl.so.2", QSHARD_NCCL_LIBRARY}) {
    if (library == nullptr) library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) {
    fail_input(
        "fsdp.transport: nccl needs NCCL, but libnccl.so.2 cannot be opened ({}); install it, or use "
        "fsdp.transport: peer or host",
        ::dlerror());
  }
  const auto find = [library]<typename Function>(Function& function, const char* name) {
    function = reinterpret_cast<Function>(::dlsym(library, name));
    if (function == nullptr) fail_input("libnccl.so.2 has no {}; NCCL 2.18 or newer is needed", name);
  };
  set_defaults();
  Nccl nccl{};
  find(nccl.get_version, "ncclGetVersion");
  find(nccl.get_unique_id, "ncclGetUniqueId");
  find(nccl.init, "ncclCommInitRankConfig");
  find(nccl.get_async_error, "ncclCommGetAsyncError");
  find(nccl.abort, "ncclCommAbort");
  find(nccl.error_string, "ncclGetErrorString");
  find(nccl.last_error, "ncclGetLastError");
  find(nccl.group_start, "ncclGroupStart");
  find(nccl.group_end, "ncclGroupEnd");
  find(nccl.all_gather, "ncclAllGather");
  find(nccl.send, "ncclSend");
  find(nccl.receive, "ncclRecv");
  return nccl;
}

const Nccl& nccl() {
  static const Nccl functions = open_nccl();
  return functions;
}

ncclComm_t handle(void* communicator) {
  return static_cast<ncclComm_t>(communicator);
}

/// What must fit together before NCCL is asked, which would hang.
struct RankDevice {
  int version = 0;
  cudaUUID_t uuid{};
};

RankDevice own_device() {
  RankDevice own;
  if (nccl().get_version(&own.version) != ncclSuccess) fail(ExitCode::rank_failed, "NCCL does not tell its version");
  if (own.version < kOldestVersion) {
    fail_input("libnccl.so.2 is NCCL {}, and fsdp.transport: nccl needs 2.18 or newer; install it, or use peer or host",
               own.version);
  }
  int device = 0;
  QSHARD_CUDA_CHECK(cudaGetDevice(&device));
  cudaDeviceProp properties{};
  QSHARD_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  own.uuid = properties.uuid;
  return own;
}

void check_devices(const std::vector<RankDevice>& devices) {
  for (std::size_t rank = 0; rank < devices.size(); ++rank) {
    if (devices[rank].version != devices[0].version) {
      fail_input("rank {} has NCCL {}, but rank 0 {}; give all ranks the same", rank, devices[rank].version,
                 devices[0].version);
    }
    for (std::size_t before = 0; before < rank; ++before) {
      if (std::memcmp(&devices[before].uuid, &devices[rank].uuid, sizeof(cudaUUID_t)) != 0) continue;
      fail_input(
          "ranks {} and {} have the same GPU, which NCCL cannot do; start a rank a GPU, or use fsdp.transport: "
          "peer or host",
          before, rank);
    }
  }
}

}  // namespace

NcclCommunicator::NcclCommunicator(RankLink& link) : link_(&link) {
  const RankDevice own = own_device();
  std::vector<RankDevice> devices;
  for (const std::vector<std::byte>& bytes : link.all_gather(std::as_bytes(std::span(&own, 1)))) {
    std::memcpy(&devices.emplace_back(), bytes.data(), sizeof(RankDevice));
  }
  check_devices(devices);
  ncclUniqueId id{};
  if (link.is_first()) check(nccl().get_unique_id(&id), "making an id");
  const std::vector<std::byte> sent = link.broadcast(std::as_bytes(std::span(&id, 1)), 0);
  std::memcpy(&id, sent.data(), sizeof id);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  config.maxCTAs = kChannels;
  ncclComm_t made = nullptr;
  const ncclResult_t result = nccl().init(&made, link.world_size(), id, link.rank(), &config);
  communicator_ = made;
  check(result, "connecting");
  wait_until_ready("connecting");
  connect_all();
}

// Kernels that are still enqueued were waited for; without a peer's help, so that its death stops nothing.
NcclCommunicator::~NcclCommunicator() {
  if (communicator_ != nullptr) nccl().abort(handle(communicator_));
}

void NcclCommunicator::check(int result, const char* what) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  link_->check();
  fail(ExitCode::rank_failed, "NCCL: {}: {} ({})", what, nccl().error_string(static_cast<ncclResult_t>(result)),
       communicator_ == nullptr ? "no communicator" : nccl().last_error(handle(communicator_)));
}

void NcclCommunicator::wait_until_ready(const char* what) {
  const auto deadline = std::chrono::steady_clock::now() + kDeadline;
  while (true) {
    ncclResult_t state = ncclSuccess;
    check(nccl().get_async_error(handle(communicator_), &state), what);
    check(state, what);
    if (state == ncclSuccess) return;
    link_->check();
    if (std::chrono::steady_clock::now() > deadline) {
      fail(ExitCode::rank_failed, "NCCL: {} was not done after {} s; NCCL_DEBUG=INFO tells what it waits for", what,
           kDeadline.count());
    }
    std::this_thread::yield();
  }
}

// NCCL connects, and takes its buffers, when a way of moving bytes is first used.
void NcclCommunicator::connect_all() {
  constexpr std::size_t kBytes = 1024;
  const auto world = static_cast<std::size_t>(link_->world_size());
  const DeviceBuffer memory((world + 1) * kBytes);
  const Stream stream;
  begin();
  all_gather(memory.as<std::byte>(), kBytes, memory.as<std::byte>(kBytes), stream.get());
  end();
  begin();
  for (std::size_t rank = 0; rank < world; ++rank) {
    if (rank == static_cast<std::size_t>(link_->rank())) continue;
    send(memory.as<std::byte>(), kBytes, rank, stream.get());
    receive(memory.as<std::byte>((rank + 1) * kBytes), kBytes, rank, stream.get());
  }
  end();
  stream.synchronize();
  link_->barrier();
}

void NcclCommunicator::begin() {
  check(nccl().group_start(), "beginning a group");
}

void NcclCommunicator::all_gather(const std::byte* own, std::size_t bytes, std::byte* gathered, cudaStream_t stream) {
  check(nccl().all_gather(own, gathered, bytes, ncclInt8, handle(communicator_), stream), "all-gather");
}

void NcclCommunicator::send(const std::byte* from, std::size_t bytes, std::size_t to_rank, cudaStream_t stream) {
  check(nccl().send(from, bytes, ncclInt8, static_cast<int>(to_rank), handle(communicator_), stream), "send");
}

void NcclCommunicator::receive(std::byte* to, std::size_t bytes, std::size_t from_rank, cudaStream_t stream) {
  check(nccl().receive(to, bytes, ncclInt8, static_cast<int>(from_rank), handle(communicator_), stream), "receive");
}

void NcclCommunicator::end() {
  check(nccl().group_end(), "enqueueing");
  wait_until_ready("enqueueing");
}

}  // namespace qshard::optimized
