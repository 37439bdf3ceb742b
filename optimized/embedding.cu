#include <algorithm>

#include "core/tensor/weight4bit.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/element_vector.cuh"
#include "optimized/embedding.h"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;

/// A thread copies one Piece: 16 bytes, or one element. Thread block (t, b) has pieces of token t.
template <typename Piece>
__global__ void __launch_bounds__(kThreads)
    embed_kernel(const __grid_constant__ ShardedTable table, std::int64_t offset_bytes, std::int64_t row_bytes,
                 const std::int32_t* ids, Piece* out) {
  begin_early_kernel();
  const std::int64_t in_row = static_cast<std::int64_t>(blockIdx.y * kThreads + threadIdx.x) * sizeof(Piece);
  if (in_row >= row_bytes) return;
  const std::int64_t token = blockIdx.x;
  const std::int64_t row = offset_bytes + ids[token] * row_bytes;
  Piece piece;
  if (row >= offset_bytes && row + row_bytes <= table.count * table.shard_bytes) {
    const std::int64_t shard = (row + in_row) / table.shard_bytes;
    const std::byte* bytes = table.shards[shard] + (row + in_row - shard * table.shard_bytes);
    piece = *reinterpret_cast<const Piece*>(bytes);
  } else {
    memset(&piece, 0xFF, sizeof(piece));  // NaN in every floating dtype
  }
  out[(token * row_bytes + in_row) / static_cast<std::int64_t>(sizeof(Piece))] = piece;
}

void check(const ShardedTable& table, std::int64_t offset_bytes, DType dtype, std::int64_t hidden,
           std::int64_t tokens) {
  check_floating(dtype, "the dtype of the embedding table");
  check_at_least(table.count, 1, "the number of shards of the embedding table");
  check_at_most(table.count, kMostShards, "the number of shards of the embedding table");
  check_at_least(table.shard_bytes, 1, "the bytes of a shard of the embedding table");
  check_at_least(offset_bytes, 0, "the offset of the embedding table");
  check_at_least(hidden, 1, "the hidden size of the embedding table");
  check_at_least(tokens, 0, "the number of tokens");
  const auto itemsize = static_cast<std::int64_t>(size_of(dtype));
  check_multiple(table.shard_bytes, itemsize, "the bytes of a shard of the embedding table");
  check_multiple(offset_bytes, itemsize, "the offset of the embedding table");
}

}  // namespace

void embed(const ShardedTable& table, std::int64_t offset_bytes, DType dtype, std::int64_t hidden,
           const std::int32_t* ids, std::int64_t tokens, void* out, cudaStream_t stream) {
  check(table, offset_bytes, dtype, hidden, tokens);
  if (tokens == 0) return;
  const auto itemsize = static_cast<std::int64_t>(size_of(dtype));
  const std::int64_t row_bytes = hidden * itemsize;
  bool wide = fits_wide_access(DType::u8, {out}, {table.shard_bytes, offset_bytes, row_bytes});
  for (int i = 0; i < table.count; ++i) {
    check_pointer(table.shards[i], itemsize, "a shard of the embedding table");
    wide = wide && fits_wide_access(DType::u8, {table.shards[i]}, {});
  }
  check_pointer(ids, sizeof(*ids), "the token ids");
  check_pointer(out, itemsize, "the embedded tokens");
  const auto launch = [&]<typename Piece>() {
    const auto pieces = row_bytes / static_cast<std::int64_t>(sizeof(Piece));
    const dim3 grid(tokens, block_count(pieces, kThreads));
    launch_early(embed_kernel<Piece>, grid, kThreads, 0, stream, table, offset_bytes, row_bytes, ids,
                 static_cast<Piece*>(out));
  };
  if (wide) return launch.template operator()<uint4>();
  if (itemsize == 4) return launch.template operator()<std::uint32_t>();
  return launch.template operator()<std::uint16_t>();
}

}  // namespace qshard::optimized
