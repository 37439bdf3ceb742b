#include "bench/gpu/workload.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "bench/gpu/device_check.h"
#include "bench/gpu/random_data.h"
#include "optimized/device/cuda_check.h"

namespace qshard::bench {
namespace {

constexpr std::uint64_t kActivationSeed = 20240502;

}  // namespace

std::array<Workload::Role, Workload::kFields> Workload::roles() const {
  using enum Role;
  std::array<Role, kFields> roles{};
  const Role quantized = problem_.operation == QSHARD_QUANTIZE ? output : dense_ ? unused : input;
  roles[kCodes] = quantized;
  roles[kAbsmax] = problem_.nested != 0 ? unused : quantized;
  roles[kAbsmaxCodes] = roles[kNestedAbsmax] = roles[kOffset] = problem_.nested != 0 ? quantized : unused;
  if (problem_.operation == QSHARD_DEQUANTIZE) roles[kWeight] = output;
  if (problem_.operation == QSHARD_QUANTIZE || dense_) roles[kWeight] = input;
  if (is_linear(problem_)) {
    const bool forward = problem_.operation == QSHARD_LINEAR4BIT;
    roles[kX] = forward ? input : output;
    roles[kY] = forward ? output : input;
  }
  return roles;
}

std::array<std::size_t, Workload::kFields> Workload::sizes() const {
  const std::int64_t elements = problem_.n * problem_.k;
  const std::int64_t blocks = block_count(elements, problem_.blocksize);
  const auto itemsize = static_cast<std::int64_t>(size_of(dtype_of(problem_)));
  std::array<std::size_t, kFields> sizes{};
  sizes[kWeight] = elements * itemsize;
  sizes[kCodes] = packed_bytes(elements);
  sizes[kAbsmax] = blocks * 4;
  sizes[kAbsmaxCodes] = blocks;
  sizes[kNestedAbsmax] = block_count(blocks, kNestedBlocksize) * 4;
  sizes[kOffset] = 4;
  sizes[kX] = problem_.rows * problem_.k * itemsize;
  sizes[kY] = problem_.rows * problem_.n * itemsize;
  const auto role = roles();
  for (int field = 0; field < kFields; ++field) {
    if (role[field] == Role::unused) sizes[field] = 0;
  }
  return sizes;
}

const void* Workload::host_input(Field field) {
  const bool nested = problem_.nested != 0;
  const bool linear = is_linear(problem_);
  switch (field) {
    case kWeight:
      return linear ? weight_.dequantized(nested).bytes().data() : weight_.dense().bytes().data();
    case kCodes:
      return weight_.quantized(nested).codes.data();
    case kAbsmax:
      return weight_.quantized(nested).absmax.data();
    case kAbsmaxCodes:
      return weight_.quantized(nested).absmax_codes.data();
    case kNestedAbsmax:
      return weight_.quantized(nested).nested_absmax.data();
    case kOffset:
      return &weight_.quantized(nested).info.offset;
    case kX:
      if (x_.bytes().empty()) x_ = random_tensor(dtype_of(problem_), {problem_.rows, problem_.k}, 1.0, kActivationSeed);
      return x_.bytes().data();
    default:
      if (y_.bytes().empty()) y_ = random_tensor(dtype_of(problem_), {problem_.rows, problem_.n}, 1.0, kActivationSeed);
      return y_.bytes().data();
  }
}

Workload::Workload(const qshard_problem& problem, const Provider& provider, HostWeight& weight, std::size_t l2_bytes,
                   bool warm)
    : problem_(problem),
      weight_(weight),
      dense_(is_linear(problem) && provider.reads_dense_weight()),
      product_roundings_(provider.product_roundings(problem)) {
  const auto size = sizes();
  const auto role = roles();
  const CopyCount count(std::accumulate(size.begin(), size.end(), std::size_t{0}), l2_bytes);
  copies_.resize(warm || provider.on_host() ? 1 : count.copies);
  fills_cache_ = warm || provider.on_host() || count.cold;
  nested_map_ = DeviceBuffer(dynamic_map().size() * sizeof(float));
  nested_map_.upload(dynamic_map().data(), nested_map_.bytes());
  workspace_ = DeviceBuffer(provider.workspace_bytes(problem));
  for (Copy& copy : copies_) {
    for (int field = 0; field < kFields; ++field) {
      copy.memory[field] = DeviceBuffer(size[field]);
      if (role[field] != Role::input) continue;
      if (&copy == &copies_.front()) {
        copy.memory[field].upload(host_input(static_cast<Field>(field)), size[field]);
      } else {
        copy.memory[field].copy_from(copies_.front().memory[field]);
      }
    }
    make_pointers(copy);
  }
  if (is_linear(problem_)) {
    const Tensor& dequantized = weight_.dequantized(problem_.nested != 0);
    dequantized_ = DeviceBuffer(dequantized.bytes().size());
    dequantized_.upload(dequantized.bytes().data(), dequantized_.bytes());
  }
}

void Workload::make_pointers(Copy& copy) {
  copy.pointers.weight = copy.memory[kWeight].as();
  copy.pointers.codes = copy.memory[kCodes].as<std::uint8_t>();
  copy.pointers.absmax = copy.memory[kAbsmax].as<float>();
  copy.pointers.absmax_codes = copy.memory[kAbsmaxCodes].as<std::uint8_t>();
  copy.pointers.nested_absmax = copy.memory[kNestedAbsmax].as<float>();
  copy.pointers.nested_map = problem_.nested != 0 ? nested_map_.as<float>() : nullptr;
  copy.pointers.offset = copy.memory[kOffset].as<float>();
  copy.pointers.x = copy.memory[kX].as();
  copy.pointers.y = copy.memory[kY].as();
  copy.pointers.workspace = workspace_.as();
}

void Workload::poison() {
  const auto role = roles();
  for (Copy& copy : copies_) {
    for (int field = 0; field < kFields; ++field) {
      if (role[field] == Role::output) bench::poison(copy.memory[field]);
    }
  }
  bench::poison(workspace_);
}

std::uint64_t Workload::hash_inputs() const {
  const auto role = roles();
  std::uint64_t hash = hash_of(nested_map_.as(), nested_map_.bytes());
  for (const Copy& copy : copies_) {
    for (int field = 0; field < kFields; ++field) {
      if (role[field] != Role::input) continue;
      hash = hash * 0x9E3779B97F4A7C15ULL + hash_of(copy.memory[field].as(), copy.memory[field].bytes());
    }
  }
  return hash;
}

std::string Workload::check() {
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  for (const Copy& copy : copies_) {
    std::string wrong;
    if (is_linear(problem_)) {
      wrong = check_linear(copy);
    } else if (problem_.operation == QSHARD_DEQUANTIZE) {
      const Tensor& expected = weight_.dequantized(problem_.nested != 0);
      wrong = check_bits(copy, kWeight, expected.bytes().data(), "weight");
    } else {
      wrong = check_quantized(copy);
    }
    if (!wrong.empty()) return wrong;
  }
  return "";
}

std::string Workload::check_bits(const Copy& copy, Field field, const void* expected, const char* what) {
  const std::size_t bytes = copy.memory[field].bytes();
  if (expected_[field].bytes() == 0) {
    expected_[field] = DeviceBuffer(bytes);
    expected_[field].upload(expected, bytes);
  }
  const std::uint64_t different = count_differences(copy.memory[field].as(), expected_[field].as(), bytes);
  return different == 0 ? "" : fmt::format("{}: {} of {} bytes differ from the reference", what, different, bytes);
}

std::string Workload::check_quantized(const Copy& copy) {
  const Weight4bit& plain = weight_.quantized(false);
  std::string wrong = check_bits(copy, kCodes, plain.codes.data(), "codes");
  if (!wrong.empty()) return wrong;
  if (problem_.nested == 0) return check_bits(copy, kAbsmax, plain.absmax.data(), "absmax");

  float offset = 0;
  copy.memory[kOffset].download(&offset, sizeof(offset));
  const MeanBound mean = mean_of_absmax(plain);
  if (!(std::abs(static_cast<double>(offset) - mean.mean) <= mean.bound)) {
    return fmt::format("offset {} is not within {} of the mean of absmax, {}", offset, mean.bound, mean.mean);
  }
  const Weight4bit& nested = weight_.nested_with_offset(offset);
  if (expected_offset_ != offset) {
    expected_[kAbsmaxCodes] = DeviceBuffer();
    expected_[kNestedAbsmax] = DeviceBuffer();
  }
  expected_offset_ = offset;
  wrong = check_bits(copy, kAbsmaxCodes, nested.absmax_codes.data(), "absmax_codes");
  return wrong.empty() ? check_bits(copy, kNestedAbsmax, nested.nested_absmax.data(), "nested_absmax") : wrong;
}

std::string Workload::check_linear(const Copy& copy) {
  const ProductCheck result = check_product(problem_, copy.pointers, dequantized_.as(), product_roundings_);
  worst_ = std::max(worst_, result.worst);
  if (result.poisoned != 0) return fmt::format("{} outputs are NaN: not written, or wrong", result.poisoned);
  if (result.outside == 0) return "";
  return fmt::format("{} of {} outputs are outside the bound; the worst is {:.3g} times it", result.outside,
                     result.checked, result.worst);
}

qshard_buffers Workload::host_buffers() {
  const auto size = sizes();
  const auto role = roles();
  const auto pointer = [&](Field field) -> void* {
    if (role[field] == Role::unused) return nullptr;
    if (role[field] == Role::input) return const_cast<void*>(host_input(field));
    host_outputs_[field].assign(size[field], std::byte{0xFF});
    return host_outputs_[field].data();
  };
  qshard_buffers host{};
  host.weight = pointer(kWeight);
  host.codes = static_cast<std::uint8_t*>(pointer(kCodes));
  host.absmax = static_cast<float*>(pointer(kAbsmax));
  host.absmax_codes = static_cast<std::uint8_t*>(pointer(kAbsmaxCodes));
  host.nested_absmax = static_cast<float*>(pointer(kNestedAbsmax));
  host.nested_map = dynamic_map().data();
  host.offset = static_cast<float*>(pointer(kOffset));
  host.x = pointer(kX);
  host.y = pointer(kY);
  return host;
}

void Workload::upload_host_outputs() {
  for (int field = 0; field < kFields; ++field) {
    const auto& bytes = host_outputs_[field];
    if (!bytes.empty()) copies_.front().memory[field].upload(bytes.data(), bytes.size());
  }
}

}  // namespace qshard::bench
