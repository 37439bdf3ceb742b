// Operations behind a kernel that lets them begin at once and writes their inputs late: none of them may read or write
// before it waits. The products are in early_launch_products_gpu_test.cpp.
#include <array>
#include <cmath>

#include "core/tensor/codebook.h"
#include "core/tensor/weight4bit.h"
#include "correctness/gpu/late_copy.h"
#include "correctness/gpu/late_memory.h"
#include "optimized/adamw.h"
#include "optimized/adamw8bit.h"
#include "optimized/add.h"
#include "optimized/argmax.h"
#include "optimized/cross_entropy.h"
#include "optimized/dequantize.h"
#include "optimized/double_quant.h"
#include "optimized/dropout.h"
#include "optimized/dropout_masks.h"
#include "optimized/embedding.h"
#include "optimized/key_value_cache.h"
#include "optimized/quantize.h"
#include "optimized/random_values.h"
#include "optimized/rank_sum.h"
#include "optimized/rmsnorm.h"
#include "optimized/rope.h"
#include "optimized/sum.h"
#include "optimized/swiglu.h"

namespace qshard::test {
namespace {

class EarlyLaunchGpu : public LateInputsTest {};

constexpr DType kDType = DType::bf16;
constexpr std::int64_t kTokens = 256;  // of activations, in three rows
constexpr std::int64_t kFeatures = 512;
constexpr std::int64_t kElements = kTokens * kFeatures;

std::vector<float> magnitudes(LateMemory& memory, std::int64_t count) {
  std::vector<float> values = memory.random_floats(count);
  for (float& value : values) value = std::fabs(value);
  return values;
}

/// 0 to limit - 1, scattered.
std::vector<std::int32_t> scattered(std::int64_t count, int limit) {
  std::vector<std::int32_t> values(count);
  for (std::int64_t i = 0; i < count; ++i) values[i] = static_cast<std::int32_t>((i * 37 + 5) % limit);
  return values;
}

/// Where each token is in which row.
optimized::TokenRows places(LateMemory& memory) {
  std::vector<std::int32_t> positions;
  std::vector<std::int32_t> row_of;
  for (const auto& [row, length] : {std::pair{0, 100}, {1, 37}, {2, 119}}) {
    for (int position = 0; position < length; ++position) {
      positions.push_back(position);
      row_of.push_back(row);
    }
  }
  optimized::TokenRows rows;
  rows.tokens = static_cast<std::int32_t>(kTokens);
  rows.rows = 3;
  rows.longest = 119;
  rows.positions = memory.late(positions, LateMemory::kIndex);
  rows.row_of = memory.late(row_of, LateMemory::kIndex);
  return rows;
}

optimized::TokenRows keyed_places(LateMemory& memory) {
  optimized::TokenRows rows = places(memory);
  rows.row_ids = memory.late(std::vector<std::uint32_t>{7, 1000, 123456});
  return rows;
}

Enqueue embed(LateMemory& memory) {
  constexpr int kVocabulary = 64;
  optimized::ShardedTable table;
  table.count = 2;
  table.shard_bytes = kVocabulary * kFeatures;
  for (int i = 0; i < table.count; ++i) {
    table.shards[i] = static_cast<std::byte*>(memory.late_normal(kVocabulary / 2 * kFeatures));
  }
  const std::int32_t* ids = memory.late(scattered(kTokens, kVocabulary), LateMemory::kIndex);
  void* out = memory.result(kElements);
  return [=](cudaStream_t stream) { optimized::embed(table, 0, kDType, kFeatures, ids, kTokens, out, stream); };
}

constexpr optimized::NormShape kNorm{kTokens, 1, kFeatures, kFeatures, kFeatures, 1e-5, kDType};

Enqueue rmsnorm_forward(LateMemory& memory) {
  const void* x = memory.late_normal(kElements);
  const void* weight = memory.late_normal(kFeatures);
  void* y = memory.result(kElements);
  return [=](cudaStream_t stream) { optimized::rmsnorm_forward(kNorm, x, weight, y, stream); };
}

Enqueue add_rmsnorm_forward(LateMemory& memory) {
  const void* addend = memory.late_normal(kElements);
  const void* weight = memory.late_normal(kFeatures);
  void* x = memory.updated_normal(kElements);
  void* y = memory.result(kElements);
  return [=](cudaStream_t stream) { optimized::add_rmsnorm_forward(kNorm, addend, weight, x, y, stream); };
}

Enqueue rmsnorm_backward(LateMemory& memory) {
  const void* x = memory.late_normal(kElements);
  const void* weight = memory.late_normal(kFeatures);
  const void* dy = memory.late_normal(kElements);
  const void* addend = memory.late_normal(kElements);
  void* dx = memory.result(kElements);
  void* y = memory.result(kElements);
  return [=](cudaStream_t stream) { optimized::rmsnorm_backward(kNorm, x, weight, dy, addend, dx, y, stream); };
}

Enqueue rope_forward(LateMemory& memory) {
  const optimized::RopeShape shape{kTokens, 8, kFeatures / 8, kFeatures, kDType};
  const std::int32_t* positions = memory.late(scattered(kTokens, 128), LateMemory::kIndex);
  const float* cos = memory.late(memory.random_floats(128 * shape.head_dim / 2));
  const float* sin = memory.late(memory.random_floats(128 * shape.head_dim / 2));
  void* x = memory.updated_normal(kElements);
  return [=](cudaStream_t stream) { optimized::rope_forward(shape, positions, cos, sin, x, stream); };
}

constexpr optimized::SwigluShape kSwiglu{kTokens, kFeatures, kFeatures, kFeatures, kFeatures, kDType};

Enqueue swiglu_forward(LateMemory& memory) {
  const void* gate = memory.late_normal(kElements);
  const void* up = memory.late_normal(kElements);
  void* out = memory.result(kElements);
  return [=](cudaStream_t stream) { optimized::swiglu_forward(kSwiglu, gate, up, out, stream); };
}

Enqueue swiglu_backward(LateMemory& memory) {
  const void* gate = memory.late_normal(kElements);
  const void* up = memory.late_normal(kElements);
  const void* dout = memory.late_normal(kElements);
  void* dgate = memory.result(kElements);
  void* dup = memory.result(kElements);
  void* out = memory.result(kElements);
  return [=](cudaStream_t stream) { optimized::swiglu_backward(kSwiglu, gate, up, dout, dgate, dup, out, stream); };
}

constexpr optimized::DropoutMask kMask{17, 3, 2, 1, 0.5};

Enqueue dropout(LateMemory& memory) {
  const optimized::TokenRows rows = keyed_places(memory);
  const void* x = memory.late_normal(kElements);
  void* out = memory.result(kElements);
  return [=](cudaStream_t stream) {
    optimized::dropout(kMask, rows, kFeatures, kDType, x, kFeatures, out, kFeatures, stream);
  };
}

Enqueue dropout_masks(LateMemory& memory) {
  const optimized::TokenRows rows = keyed_places(memory);
  const std::int64_t bytes = kTokens * optimized::dropout_mask_stride(kFeatures);
  const optimized::DropoutMaskBits mask{1, kFeatures, static_cast<std::uint8_t*>(memory.result(bytes, DType::u8))};
  return [=](cudaStream_t stream) { optimized::dropout_masks(kMask, rows, {&mask, 1}, stream); };
}

Enqueue cross_entropy(LateMemory& memory) {
  void* logits = memory.updated_normal(kElements);
  const std::int32_t* targets = memory.late(scattered(kTokens, kFeatures), LateMemory::kIndex);
  const float* scale = memory.late(std::vector<float>{0.25F});
  auto* losses = static_cast<float*>(memory.result(kTokens, DType::f32));
  return [=](cudaStream_t stream) {
    optimized::cross_entropy(kTokens, kFeatures, kFeatures, kDType, logits, targets, scale, true, losses, stream);
  };
}

Enqueue cross_entropy_without_gradient(LateMemory& memory) {
  // It only reads the logits, though they are not const.
  auto* logits = memory.late_normal(kElements);
  const std::int32_t* targets = memory.late(scattered(kTokens, kFeatures), LateMemory::kIndex);
  auto* losses = static_cast<float*>(memory.result(kTokens, DType::f32));
  return [=](cudaStream_t stream) {
    optimized::cross_entropy(kTokens, kFeatures, kFeatures, kDType, logits, targets, nullptr, false, losses, stream);
  };
}

Enqueue adamw_update(LateMemory& memory) {
  const optimized::AdamWStep step{{}, 1e-3, 3, DType::f32, DType::f32};
  void* parameter = memory.updated_normal(kElements, DType::f32);
  const float* gradient = memory.late(memory.random_floats(kElements));
  const float* factor = memory.late(std::vector<float>{0.5F});
  void* exp_avg = memory.updated_normal(kElements, DType::f32);
  void* exp_avg_sq = memory.updated(magnitudes(memory, kElements));
  return [=](cudaStream_t stream) {
    optimized::adamw_update(step, kElements, parameter, gradient, factor, exp_avg, exp_avg_sq, stream);
  };
}

optimized::Moment8bit moment(LateMemory& memory, const std::array<float, 256>& map) {
  std::uint8_t* codes = memory.updated_bytes(kElements);
  float* absmax = memory.updated(magnitudes(memory, kElements / kMomentBlocksize));
  return {codes, absmax, memory.late(map)};
}

Enqueue adamw8bit_update(LateMemory& memory) {
  const optimized::AdamWStep step{{}, 1e-3, 3, kDType};
  void* parameter = memory.updated_normal(kElements);
  const float* gradient = memory.late(memory.random_floats(kElements));
  const float* factor = memory.late(std::vector<float>{0.5F});
  const optimized::Moment8bit exp_avg = moment(memory, dynamic_map());
  const optimized::Moment8bit exp_avg_sq = moment(memory, unsigned_dynamic_map());
  return [=](cudaStream_t stream) {
    optimized::adamw8bit_update(step, kElements, parameter, gradient, factor, exp_avg, exp_avg_sq, stream);
  };
}

Enqueue clip_factor(LateMemory& memory) {
  const double* norm_squared = memory.late(std::vector<double>{7});
  auto* factor = static_cast<float*>(memory.result(1, DType::f32));
  return [=](cudaStream_t stream) { optimized::clip_factor(norm_squared, 1, factor, stream); };
}

Enqueue sum_losses(LateMemory& memory) {
  const float* losses = memory.late(memory.random_floats(kTokens));
  double* sum = memory.updated(std::vector<double>{1.5});
  return [=](cudaStream_t stream) { optimized::sum_losses(losses, kTokens, sum, stream); };
}

Enqueue sum_squares(LateMemory& memory) {
  const float* values = memory.late(memory.random_floats(kElements));
  auto* partials = static_cast<double*>(memory.workspace(optimized::kSumPartials * sizeof(double)));
  double* sum = memory.updated(std::vector<double>{1.5});
  return [=](cudaStream_t stream) { optimized::sum_squares(values, kElements, partials, sum, stream); };
}

optimized::RankArrays rank_arrays(LateMemory& memory, std::int64_t count) {
  optimized::RankArrays arrays;
  arrays.ranks = 3;
  for (int rank = 0; rank < arrays.ranks; ++rank) arrays.of_rank[rank] = memory.late(memory.random_floats(count));
  return arrays;
}

Enqueue sum_in_rank_order(LateMemory& memory) {
  const optimized::RankArrays arrays = rank_arrays(memory, kElements);
  auto* out = static_cast<float*>(memory.result(kElements, DType::f32));
  return [=](cudaStream_t stream) { optimized::sum_in_rank_order(arrays, kElements, out, stream); };
}

Enqueue add_sum_in_rank_order(LateMemory& memory) {
  constexpr std::int64_t kOdd = kElements - 1;  // so that elements are added one by one
  const optimized::RankArrays arrays = rank_arrays(memory, kOdd);
  float* out = memory.updated(memory.random_floats(kOdd));
  return [=](cudaStream_t stream) { optimized::add_sum_in_rank_order(arrays, kOdd, out, stream); };
}

Enqueue argmax(LateMemory& memory) {
  const void* values = memory.late_normal(kElements);
  auto* out = static_cast<std::int32_t*>(memory.result(kTokens, DType::i32));
  return [=](cudaStream_t stream) { optimized::argmax(kTokens, kFeatures, kDType, values, out, stream); };
}

constexpr optimized::KeyValueCacheShape kCache{4, 128, 2, 64, kDType};

Enqueue store_keys_values(LateMemory& memory) {
  const std::int64_t width = kCache.token_elements();
  const optimized::TokenRows rows = places(memory);
  const void* keys = memory.late_normal(kTokens * width);
  const void* values = memory.late_normal(kTokens * width);
  void* key_cache = memory.result(kCache.elements());
  void* value_cache = memory.result(kCache.elements());
  return [=](cudaStream_t stream) {
    optimized::store_keys_values(kCache, rows, 1, keys, values, width, key_cache, value_cache, stream);
  };
}

Enqueue rotate_and_store(LateMemory& memory) {
  constexpr std::int64_t kHeads = 6;
  const std::int64_t width = (kHeads + 2 * kCache.kv_heads) * kCache.head_dim;
  const std::int32_t* positions = memory.late(std::vector<std::int32_t>{3, 127, 64, 9}, LateMemory::kIndex);
  const float* cos = memory.late(memory.random_floats(kCache.capacity * kCache.head_dim / 2));
  const float* sin = memory.late(memory.random_floats(kCache.capacity * kCache.head_dim / 2));
  void* qkv = memory.updated_normal(kCache.rows * width);
  void* key_cache = memory.result(kCache.elements());
  void* value_cache = memory.result(kCache.elements());
  return [=](cudaStream_t stream) {
    optimized::rotate_and_store(kCache, kHeads, positions, cos, sin, qkv, width, key_cache, value_cache, stream);
  };
}

constexpr optimized::RowsShape kRows{kTokens, kFeatures, kFeatures, kDType};

Enqueue add(LateMemory& memory) {
  const void* addend = memory.late_normal(kElements);
  void* values = memory.updated_normal(kElements);
  return [=](cudaStream_t stream) { optimized::add(kElements, kDType, addend, values, stream); };
}

Enqueue add_bias(LateMemory& memory) {
  const void* bias = memory.late_normal(kFeatures);
  void* values = memory.updated_normal(kElements);
  return [=](cudaStream_t stream) { optimized::add_bias(kRows, bias, values, stream); };
}

Enqueue copy_rows(LateMemory& memory) {
  const void* from = memory.late_normal(kElements);
  void* to = memory.result(kElements);
  return [=](cudaStream_t stream) { optimized::copy_rows(kRows, from, to, stream); };
}

constexpr int kBlocksize = 64;
constexpr std::int64_t kBlocks = kElements / kBlocksize;

Enqueue dequantize_of(LateMemory& memory, bool nested) {
  const optimized::DeviceWeight4bit weight = weight4bit(memory, kElements, nested);
  void* out = memory.result(kElements);
  return [=](cudaStream_t stream) { optimized::dequantize(weight, kDType, out, stream); };
}

Enqueue dequantize(LateMemory& memory) {
  return dequantize_of(memory, false);
}

Enqueue dequantize_nested(LateMemory& memory) {
  return dequantize_of(memory, true);
}

Enqueue quantize(LateMemory& memory) {
  const void* weight = memory.late_normal(kElements);
  auto* codes = static_cast<std::uint8_t*>(memory.result(kElements / 2, DType::u8));
  auto* absmax = static_cast<float*>(memory.result(kBlocks, DType::f32));
  return [=](cudaStream_t stream) {
    optimized::quantize(weight, kDType, kElements, QuantType::nf4, kBlocksize, codes, absmax, stream);
  };
}

struct Nested {
  const float* map;
  optimized::NestedOutput output;
  std::size_t bytes = optimized::nested_workspace_bytes(kBlocks);
  void* workspace;

  explicit Nested(LateMemory& memory)
      : map(memory.late(dynamic_map())),
        output{static_cast<std::uint8_t*>(memory.result(kBlocks, DType::u8)),
               static_cast<float*>(memory.result(kBlocks / kNestedBlocksize, DType::f32)),
               static_cast<float*>(memory.result(1, DType::f32))},
        workspace(memory.workspace(bytes)) {}
};

Enqueue quantize_nested(LateMemory& memory) {
  const void* weight = memory.late_normal(kElements);
  auto* codes = static_cast<std::uint8_t*>(memory.result(kElements / 2, DType::u8));
  const Nested nested(memory);
  return [=](cudaStream_t stream) {
    optimized::quantize_nested(weight, kDType, kElements, QuantType::nf4, kBlocksize, codes, nested.map, nullptr,
                               nested.output, nested.workspace, nested.bytes, stream);
  };
}

Enqueue nest_absmax(LateMemory& memory) {
  const float* absmax = memory.late(magnitudes(memory, kBlocks));
  const Nested nested(memory);
  return [=](cudaStream_t stream) {
    optimized::nest_absmax(absmax, kBlocks, nested.map, nullptr, nested.output, nested.workspace, nested.bytes, stream);
  };
}

Enqueue nest_absmax_around_an_offset(LateMemory& memory) {
  const float* absmax = memory.late(magnitudes(memory, kBlocks));
  const float* offset = memory.late(std::vector<float>{0.5F});
  const Nested nested(memory);
  return [=](cudaStream_t stream) {
    optimized::nest_absmax(absmax, kBlocks, nested.map, offset, nested.output, nested.workspace, nested.bytes, stream);
  };
}

Enqueue random_values(LateMemory& memory) {
  void* values = memory.result(kElements);
  return [=](cudaStream_t stream) { optimized::random_values(1, 0, 1, kElements, kDType, values, stream); };
}

TEST_P(EarlyLaunchGpu, WaitsForLateInputs) {
  expect_waits();
}

INSTANTIATE_TEST_SUITE_P(Operations, EarlyLaunchGpu,
                         testing::ValuesIn(std::vector<LateOperation>{
                             {"embed", embed},
                             {"rmsnorm_forward", rmsnorm_forward},
                             {"add_rmsnorm_forward", add_rmsnorm_forward},
                             {"rmsnorm_backward", rmsnorm_backward},
                             {"rope_forward", rope_forward},
                             {"swiglu_forward", swiglu_forward},
                             {"swiglu_backward", swiglu_backward},
                             {"dropout", dropout},
                             {"dropout_masks", dropout_masks},
                             {"cross_entropy", cross_entropy},
                             {"cross_entropy_without_gradient", cross_entropy_without_gradient},
                             {"adamw_update", adamw_update},
                             {"adamw8bit_update", adamw8bit_update},
                             {"clip_factor", clip_factor},
                             {"sum_losses", sum_losses},
                             {"sum_squares", sum_squares},
                             {"sum_in_rank_order", sum_in_rank_order},
                             {"add_sum_in_rank_order", add_sum_in_rank_order},
                             {"argmax", argmax},
                             {"store_keys_values", store_keys_values},
                             {"rotate_and_store", rotate_and_store},
                             {"add", add},
                             {"add_bias", add_bias},
                             {"copy_rows", copy_rows},
                             {"dequantize", dequantize},
                             {"dequantize_nested", dequantize_nested},
                             {"quantize", quantize},
                             {"quantize_nested", quantize_nested},
                             {"nest_absmax", nest_absmax},
                             {"nest_absmax_around_an_offset", nest_absmax_around_an_offset},
                             {"random_values", random_values}}),
                         EarlyLaunchGpu::name_of);

class TooEarlyGpu : public EarlyLaunchTest {};

TEST_F(TooEarlyGpu, AKernelThatDoesNotWaitIsFound) {
  LateMemory memory;
  const void* from = memory.late_normal(kElements);
  void* to = memory.result(kElements);
  const auto copy = [=](cudaStream_t stream) {
    launch_copy(from, to, kElements * size_of(kDType), CopyTime::too_early, stream);
  };
  memory.expect_that_all_matters(copy);
  EXPECT_NE(memory.wrong_when_late(copy), "");
}

}  // namespace
}  // namespace qshard::test
