#include "correctness/gpu/late_memory.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <stdexcept>

#include <fmt/format.h>

#include "core/tensor/codebook.h"
#include "core/tensor/tensor.h"
#include "core/tensor/weight4bit.h"
#include "correctness/gpu/late_copy.h"
#include "correctness/gpu/matrix_gpu_testing.h"

namespace qshard::test {

namespace {

constexpr std::size_t kBytes = std::size_t{16} << 20;
constexpr std::size_t kAlignment = 256;
constexpr int kRuns = 3;  // in which the host is hardly ever too late for the operation to begin early

}  // namespace

LateMemory::LateMemory() : memory_(kBytes) {}

void* LateMemory::result(std::int64_t count, DType dtype) {
  const Bytes before(count * size_of(dtype), std::byte{DeviceBuffer::kPoison});
  return append(before, kNaN, Use::result);
}

void* LateMemory::workspace(std::size_t bytes) {
  return append(Bytes(bytes, std::byte{DeviceBuffer::kPoison}), kNaN, Use::workspace);
}

void* LateMemory::late_normal(std::int64_t count, DType dtype) {
  return append(from_floats(random_floats(count), dtype, {count}).bytes(), kNaN, Use::late);
}

void* LateMemory::updated_normal(std::int64_t count, DType dtype) {
  return append(from_floats(random_floats(count), dtype, {count}).bytes(), kNaN, Use::updated);
}

std::vector<std::uint8_t> LateMemory::random_bytes(std::int64_t count) {
  std::mt19937_64 generator(++seed_);
  std::vector<std::uint8_t> bytes(count);
  std::ranges::generate(bytes, [&] { return static_cast<std::uint8_t>(generator()); });
  return bytes;
}

std::vector<float> LateMemory::random_floats(std::int64_t count) {
  return random_vector(count, DType::f32, ++seed_, 1.0F);
}

std::byte* LateMemory::append(std::span<const std::byte> values, int early, Use use) {
  const std::size_t first = values_.size();
  const std::size_t end = first + (values.size() + kAlignment - 1) / kAlignment * kAlignment;
  if (end > kBytes) throw std::length_error("the memory of the operation is too small");
  values_.insert(values_.end(), values.begin(), values.end());
  values_.resize(end, std::byte{DeviceBuffer::kPoison});
  early_.resize(end, static_cast<std::byte>(early));
  if (use == Use::ready) std::ranges::copy(values, early_.begin() + static_cast<std::ptrdiff_t>(first));
  buffers_.push_back({first, values.size(), use});
  return memory_.as<std::byte>(first);
}

std::string LateMemory::wrong_when_late(const Enqueue& enqueue) const {
  const Bytes expected = run_alone(enqueue, values_);
  std::string wrong;
  for (int run = 0; run < kRuns && wrong.empty(); ++run) wrong = differing(expected, run_late(enqueue));
  return wrong;
}

void LateMemory::expect_that_all_matters(const Enqueue& enqueue) const {
  const Bytes expected = run_alone(enqueue, values_);
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    const Buffer& buffer = buffers_[i];
    if (buffer.use == Use::updated || buffer.use == Use::result) {
      EXPECT_FALSE(same(buffer, values_, expected)) << "buffer " << i << " is not changed";
    }
    if (buffer.use != Use::late) continue;
    Bytes before = values_;
    std::memcpy(before.data() + buffer.first, early_.data() + buffer.first, buffer.bytes);
    const Bytes without = run_alone(enqueue, before);
    const bool matters = std::ranges::any_of(buffers_, [&](const Buffer& other) {
      return (other.use == Use::updated || other.use == Use::result) && !same(other, expected, without);
    });
    EXPECT_TRUE(matters) << "buffer " << i << " is not read";
  }
}

LateMemory::Bytes LateMemory::run_alone(const Enqueue& enqueue, const Bytes& before) const {
  optimized::upload(memory_.as(), before.data(), before.size());
  enqueue(stream_.get());
  stream_.synchronize();
  Bytes after(before.size());
  memory_.download(after.data(), after.size());
  return after;
}

LateMemory::Bytes LateMemory::run_late(const Enqueue& enqueue) const {
  const DeviceBuffer values(values_);
  const DeviceBuffer after(values_.size());
  optimized::upload(memory_.as(), early_.data(), early_.size());
  launch_copy(values.as(), memory_.as(), values_.size(), CopyTime::late, stream_.get());
  enqueue(stream_.get());
  launch_copy(memory_.as(), after.as(), values_.size(), CopyTime::in_order, stream_.get());
  stream_.synchronize();
  return after.download<std::byte>();
}

bool LateMemory::same(const Buffer& buffer, const Bytes& a, const Bytes& b) {
  return std::memcmp(a.data() + buffer.first, b.data() + buffer.first, buffer.bytes) == 0;
}

std::string LateMemory::differing(const Bytes& a, const Bytes& b) const {
  std::string numbers;
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    if (buffers_[i].use != Use::workspace && !same(buffers_[i], a, b)) numbers += fmt::format(" {}", i);
  }
  return numbers;
}

optimized::DeviceWeight4bit weight4bit(LateMemory& memory, std::int64_t elements, bool nested, bool resident) {
  const auto put = [&](const auto& values) { return resident ? memory.ready(values) : memory.late(values); };
  const std::int64_t blocks = elements / 64;
  optimized::DeviceWeight4bit weight{QuantType::nf4, 64, elements, put(memory.random_bytes(elements / 2))};
  weight.resident = resident;
  if (!nested) {
    weight.absmax = put(memory.random_floats(blocks));
    return weight;
  }
  weight.absmax_codes = put(memory.random_bytes(blocks));
  weight.nested_absmax = put(memory.random_floats(block_count(blocks, kNestedBlocksize)));
  weight.nested_map = put(dynamic_map());
  weight.offset = put(std::vector<float>{0.5F});
  return weight;
}

void EarlyLaunchTest::SetUp() {
  GpuTest::SetUp();
  if (!IsSkipped() && optimized::device_attribute(cudaDevAttrComputeCapabilityMajor) < 9) {
    GTEST_SKIP() << "not run: GPUs before Hopper begin no kernel early";
  }
}

}  // namespace qshard::test
