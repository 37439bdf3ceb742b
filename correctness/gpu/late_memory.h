#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"
#include "correctness/gpu/gpu_testing.h"
#include "optimized/device/stream.h"
#include "optimized/device_weight4bit.h"

namespace qshard::test {

/// An operation's call, which may be enqueued again and again.
using Enqueue = std::function<void(cudaStream_t)>;

/// The memory of one operation: buffers one after the other, which every run fills anew. Until what comes before the
/// operation is done, they hold bytes that it must not see, and whatever it writes too early is overwritten.
class LateMemory {
 public:
  static constexpr int kNaN = 0xFF;    // every byte of a NaN of any dtype
  static constexpr int kIndex = 0x00;  // of an index that a kernel may follow to where it should not

  LateMemory();

  /// What the operation only reads. `early`: every byte of it until it comes.
  template <typename Values>
  typename Values::value_type* late(const Values& values, int early = kNaN) {
    return add(values, early, Use::late);
  }
  /// What it may read at once, for it was written long ago.
  template <typename Values>
  typename Values::value_type* ready(const Values& values) {
    return add(values, kNaN, Use::ready);
  }
  /// What it reads and changes.
  template <typename Values>
  typename Values::value_type* updated(const Values& values, int early = kNaN) {
    return add(values, early, Use::updated);
  }
  /// What it only writes.
  void* result(std::int64_t count, DType dtype = DType::bf16);
  /// Of no importance before and after.
  void* workspace(std::size_t bytes);

  /// Normal deviates that are late or updated, and bytes.
  void* late_normal(std::int64_t count, DType dtype = DType::bf16);
  void* updated_normal(std::int64_t count, DType dtype = DType::bf16);
  std::uint8_t* late_bytes(std::int64_t count) { return late(random_bytes(count)); }
  std::uint8_t* updated_bytes(std::int64_t count) { return updated(random_bytes(count)); }
  std::vector<std::uint8_t> random_bytes(std::int64_t count);
  std::vector<float> random_floats(std::int64_t count);

  /// Runs the operation between a kernel that writes everything late and one that reads everything. The numbers of the
  /// buffers, workspaces left out, in which that finds other bits than the operation leaves when it runs alone.
  [[nodiscard]] std::string wrong_when_late(const Enqueue& enqueue) const;

  /// Fails the test unless each late input matters to the results and each of these is changed.
  void expect_that_all_matters(const Enqueue& enqueue) const;

 private:
  using Bytes = std::vector<std::byte>;
  enum class Use { late, ready, updated, result, workspace };
  struct Buffer {
    std::size_t first;
    std::size_t bytes;
    Use use;
  };

  template <typename Values>
  typename Values::value_type* add(const Values& values, int early, Use use) {
    return reinterpret_cast<typename Values::value_type*>(append(std::as_bytes(std::span(values)), early, use));
  }
  std::byte* append(std::span<const std::byte> values, int early, Use use);
  [[nodiscard]] Bytes run_alone(const Enqueue& enqueue, const Bytes& before) const;
  [[nodiscard]] Bytes run_late(const Enqueue& enqueue) const;
  [[nodiscard]] static bool same(const Buffer& buffer, const Bytes& a, const Bytes& b);
  [[nodiscard]] std::string differing(const Bytes& a, const Bytes& b) const;

  DeviceBuffer memory_;
  std::vector<Buffer> buffers_;
  Bytes values_, early_;
  std::uint64_t seed_ = 0;
  optimized::Stream stream_;
};

/// An NF4 weight in blocks of 64 of random bytes. resident: ready, not late.
optimized::DeviceWeight4bit weight4bit(LateMemory& memory, std::int64_t elements, bool nested, bool resident = false);

/// A row of a table of tests.
struct LateOperation {
  std::string name;
  std::function<Enqueue(LateMemory&)> prepare;

  friend void PrintTo(const LateOperation& operation, std::ostream* out) { *out << operation.name; }
};

/// GPUs before Hopper begin no kernel early.
class EarlyLaunchTest : public GpuTest {
 protected:
  void SetUp() override;
};

/// A test of each row of a table.
class LateInputsTest : public EarlyLaunchTest, public testing::WithParamInterface<LateOperation> {
 public:
  static std::string name_of(const testing::TestParamInfo<LateOperation>& row) { return row.param.name; }

 protected:
  static void expect_waits() {
    LateMemory memory;
    const Enqueue enqueue = GetParam().prepare(memory);
    memory.expect_that_all_matters(enqueue);
    EXPECT_EQ(memory.wrong_when_late(enqueue), "") << "these buffers are wrong where the inputs come late";
  }
};

}  // namespace qshard::test
