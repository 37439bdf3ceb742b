#pragma once

#include <cstdint>

#include <cuda.h>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Hopper's tensor memory accelerator (TMA), the mbarriers in shared memory that count what it has copied, and
// programmatic dependent launches: one function an instruction.
namespace qshard::optimized {

/// A barrier in shared memory at `address` that `arrivals` arrivals and the bytes they announced complete.
__device__ __forceinline__ void mbarrier_init(std::uint32_t address, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(address), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void mbarrier_arrive(std::uint32_t address) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(address) : "memory");
}

/// The same by those threads that `does` holds for, without a branch.
__device__ __forceinline__ void mbarrier_arrive_if(std::uint32_t address, bool does) {
  asm volatile(
      "{.reg .pred does; setp.ne.b32 does, %1, 0;\n"
      "@does mbarrier.arrive.shared.b64 _, [%0];}" ::"r"(address),
      "r"(does ? 1 : 0)
      : "memory");
}

/// Waits for the end of the phase of this parity.
__device__ __forceinline__ void mbarrier_wait(std::uint32_t address, int parity) {
  asm volatile(
      "{.reg .pred done;\n"
      "again%=: mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
      "@!done bra again%=;}" ::"r"(address),
      "r"(parity)
      : "memory");
}

/// Makes mbarrier_init() known to the copies.
__device__ __forceinline__ void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/// Counts one arrival at the barrier, whose phase then also waits for this many bytes of copies.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/// Copies `bytes` from device to shared memory, both aligned to 16 bytes; `barrier` counts what has arrived.
__device__ __forceinline__ void bulk_copy(std::uint32_t to, const void* from, std::uint32_t bytes,
                                          std::uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}

/// Copies `bytes` of this thread block's shared memory to the same place of the cluster's thread block `rank`, whose
/// barrier at the same address as `barrier` counts what has arrived.
__device__ __forceinline__ void bulk_copy_to_cluster(std::uint32_t address, std::uint32_t bytes, std::uint32_t barrier,
                                                     int rank) {
  asm volatile(
      "{.reg .b32 to, counting;\n"
      "mapa.shared::cluster.u32 to, %0, %3;\n"
      "mapa.shared::cluster.u32 counting, %2, %3;\n"
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [to], [%0], %1, [counting];}" ::"r"(
          address),
      "r"(bytes), "r"(barrier), "r"(rank)
      : "memory");
}

/// Brings a map closer, for tma_load().
__device__ __forceinline__ void prefetch_tensor_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

/// Brings the box at (x, y) of a tensor of two dimensions to the L2 cache; for when, see prefetch_to_l2().
__device__ __forceinline__ void tma_prefetch(const CUtensorMap& map, int x, int y) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];" ::"l"(&map), "r"(x), "r"(y)
               : "memory");
}

/// Copies the box at (x, y) of a tensor of two dimensions to shared memory; `barrier` counts its bytes.
__device__ __forceinline__ void tma_load(std::uint32_t to, const CUtensorMap& map, int x, int y,
                                         std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::
          "r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(barrier)
      : "memory");
}

/// The same of a tensor of three dimensions.
__device__ __forceinline__ void tma_load(std::uint32_t to, const CUtensorMap& map, int x, int y, int z,
                                         std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];" ::"r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(barrier)
      : "memory");
}

/// The same of a tensor of two dimensions, to the same place of all thread blocks of the cluster that `mask` names,
/// each of whose barriers counts the bytes.
__device__ __forceinline__ void tma_load_multicast(std::uint32_t to, const CUtensorMap& map, int x, int y,
                                                   std::uint32_t barrier, int mask) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
      "{%2, %3}], [%4], %5;" ::"r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(barrier), "h"(static_cast<std::uint16_t>(mask))
      : "memory");
}

/// Makes this thread's writes to shared memory known to the copies that are started after it.
__device__ __forceinline__ void fence_proxy_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Copies a box from shared memory to (x, y) of a tensor of two dimensions, a group of its own.
__device__ __forceinline__ void tma_store(const CUtensorMap& map, int x, int y, std::uint32_t from) {
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];\n"
      "cp.async.bulk.commit_group;" ::"l"(&map),
      "r"(x), "r"(y), "r"(from)
      : "memory");
}

/// Adds a box from shared memory to one of a tensor of two dimensions at (x, y), element by element in the tensor's
/// type, each sum rounded to nearest; a group of its own.
__device__ __forceinline__ void tma_reduce_add(const CUtensorMap& map, int x, int y, std::uint32_t from) {
  asm volatile(
      "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%1, %2}], [%3];\n"
      "cp.async.bulk.commit_group;" ::"l"(&map),
      "r"(x), "r"(y), "r"(from)
      : "memory");
}

/// Waits until this thread's stores have read shared memory.
__device__ __forceinline__ void tma_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

/// Waits until this thread's stores are done.
__device__ __forceinline__ void tma_store_wait() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

/// Which thread block of its cluster this is.
__device__ __forceinline__ int cluster_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

/// All threads of the cluster.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

/// Arrives at a barrier of the cluster's thread block `rank`, at the same address there. Orders what this thread has
/// read before; its writes are not made known to that block: release at the scope of the cluster would wait for all of
/// them.
__device__ __forceinline__ void mbarrier_arrive_cluster(std::uint32_t address, int rank) {
  asm volatile(
      "{.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];}" ::"r"(address),
      "r"(rank)
      : "memory");
}

}  // namespace qshard::optimized

#endif
