#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include <dlfcn.h>

#include "bench/gpu/clocks.h"
#include "bench/gpu/device.h"
#include "bench/gpu/measure.h"
#include "bench/gpu/problem.h"
#include "bench/providers/bitsandbytes_scales.h"
#include "bench/providers/dense_product.h"
#include "bench/providers/provider.h"
#include "core/base/error.h"
#include "core/tensor/weight4bit.h"

namespace qshard::bench {
namespace {

// The library's C interface (csrc/pythonInterface.cpp). It ignores `code` for 4 bits; quantization takes no stream.
using Quantize = void (*)(const float* code, const void* weight, float* absmax, std::uint8_t* codes, int blocksize,
                          int elements);
using Dequantize = void (*)(const float* code, const std::uint8_t* codes, const float* absmax, void* out, int blocksize,
                            int elements, cudaStream_t stream);
using Gemm = void (*)(const void* x, const std::uint8_t* codes, const float* absmax, const std::uint8_t* absmax_codes,
                      const float* nested_map, const float* offset, void* y, const void* bias, int rows, int n, int k,
                      int blocksize, int quant_type, cudaStream_t stream);

constexpr std::array<const char*, 3> kDTypeNames = {"fp32", "fp16", "bf16"};
constexpr std::array<const char*, 2> kQuantTypeNames = {"nf4", "fp4"};
constexpr std::int64_t kMostFusedRows = 1536;  // bitsandbytes/backends/cuda/ops.py
constexpr std::size_t kAlignment = 256;

std::size_t align(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/// bitsandbytes' kernels from its shared library, called as its Python code calls them: nested absmax is decoded by an
/// 8-bit dequantize and an addition; a linear layer is its fused kernel or dequantize and cuBLAS, whichever of the two
/// is faster here (its own choice is a table of measured sizes; ours never does worse).
class BitsandbytesProvider : public Provider {
 public:
  explicit BitsandbytesProvider(const std::string& path)
      : path_(path), library_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) fail_input("bitsandbytes library {}: cannot be loaded: {}", path, dlerror());
    for (std::size_t d = 0; d < kDTypeNames.size(); ++d) {
      for (std::size_t q = 0; q < kQuantTypeNames.size(); ++q) {
        const std::string suffix = fmt::format("{}_{}", kDTypeNames[d], kQuantTypeNames[q]);
        quantize_[d][q] = find<Quantize>("cquantize_blockwise_" + suffix);
        dequantize_[d][q] = find<Dequantize>("cdequantize_blockwise_" + suffix);
      }
      gemm_[d] = reinterpret_cast<Gemm>(dlsym(library_, fmt::format("cgemm_4bit_{}", kDTypeNames[d]).c_str()));
    }
    quantize_absmax_ = find<Quantize>("cquantize_blockwise_fp32");
    dequantize_absmax_ = find<Dequantize>("cdequantize_blockwise_fp32");
  }

  [[nodiscard]] std::string name() const override { return "bitsandbytes"; }

  [[nodiscard]] std::string unsupported(const qshard_problem& problem) const override {
    return problem.n * problem.k > 0x7FFFFFFF ? "it counts elements with 32 bits" : "";
  }

  /// Decoded absmax, the mean's, then the dequantized weight of a linear layer.
  [[nodiscard]] std::size_t workspace_bytes(const qshard_problem& problem) const override {
    return dense_offset(problem) + (is_linear(problem) ? problem.n * problem.k * size_of(dtype_of(problem)) : 0);
  }

  void prepare(const qshard_problem& problem, std::span<const qshard_buffers> buffers, cudaStream_t stream) override {
    if (!is_linear(problem)) return;
    const bool backward = problem.operation == QSHARD_LINEAR4BIT_BACKWARD;
    product_ = std::make_unique<DenseProduct>(problem.rows, problem.n, problem.k, problem.dtype, backward);
    fused_ = false;
    if (backward || gemm_[problem.dtype] == nullptr || problem.rows > kMostFusedRows ||
        problem.k % problem.blocksize != 0) {
      return;
    }
    const auto seconds = [&](bool fused) {
      fused_ = fused;
      const Clocks none("");
      const auto call = [&](int /*i*/) { run(problem, buffers.front(), stream); };
      time_calls(3, stream, none, call);
      return time_calls(20, stream, none, call).seconds;
    };
    const double split = seconds(false);
    fused_ = seconds(true) <= split;
  }

  void run(const qshard_problem& problem, const qshard_buffers& buffers, cudaStream_t stream) override {
    if (problem.operation == QSHARD_DEQUANTIZE) {
      dequantize(problem, buffers, buffers.weight, stream);
    } else if (problem.operation == QSHARD_QUANTIZE) {
      quantize(problem, buffers, stream);
    } else if (fused_) {
      const bool nested = problem.nested != 0;
      gemm_[problem.dtype](buffers.x, buffers.codes, nested ? buffers.nested_absmax : buffers.absmax,
                           buffers.absmax_codes, nested ? buffers.nested_map : nullptr, buffers.offset, buffers.y,
                           nullptr, static_cast<int>(problem.rows), static_cast<int>(problem.n),
                           static_cast<int>(problem.k), static_cast<int>(problem.blocksize),
                           problem.quant_type == QSHARD_FP4 ? 1 : 2, stream);
    } else {
      void* dense = workspace(buffers) + dense_offset(problem);
      const bool forward = problem.operation == QSHARD_LINEAR4BIT;
      dequantize(problem, buffers, dense, stream);
      product_->run(dense, forward ? buffers.x : buffers.y, forward ? buffers.y : buffers.x, stream);
    }
  }

  /// Its kernel for few rows rounds the codebook, the scale, their product and the product with x to dtype, and the
  /// reference rounds the weight: five.
  [[nodiscard]] int product_roundings(const qshard_problem& problem) const override {
    return problem.operation == QSHARD_LINEAR4BIT && problem.rows <= kMostFusedRows ? 5 : 0;
  }

 private:
  template <typename Function>
  [[nodiscard]] Function find(const std::string& symbol) const {
    const auto function = reinterpret_cast<Function>(dlsym(library_, symbol.c_str()));
    if (function == nullptr) {
      fail_input("{} is not bitsandbytes' CUDA library: it has no function {}", path_, symbol);
    }
    return function;
  }

  static char* workspace(const qshard_buffers& buffers) { return static_cast<char*>(buffers.workspace); }

  static int blocks_of(const qshard_problem& problem) {
    return static_cast<int>(block_count(problem.n * problem.k, problem.blocksize));
  }

  static std::size_t mean_offset(const qshard_problem& problem) {
    return align(sizeof(float) * static_cast<std::size_t>(blocks_of(problem)));
  }

  static std::size_t dense_offset(const qshard_problem& problem) {
    return align(mean_offset(problem) + mean_workspace_bytes(blocks_of(problem)));
  }

  void dequantize(const qshard_problem& problem, const qshard_buffers& buffers, void* out, cudaStream_t stream) const {
    const float* absmax = buffers.absmax;
    if (problem.nested != 0) {
      auto* decoded = reinterpret_cast<float*>(workspace(buffers));
      const int blocks = blocks_of(problem);
      dequantize_absmax_(buffers.nested_map, buffers.absmax_codes, buffers.nested_absmax, decoded, kNestedBlocksize,
                         blocks, stream);
      add_offset(decoded, blocks, buffers.offset, stream);
      absmax = decoded;
    }
    dequantize_[problem.dtype][problem.quant_type](nullptr, buffers.codes, absmax, out,
                                                   static_cast<int>(problem.blocksize),
                                                   static_cast<int>(problem.n * problem.k), stream);
  }

  void quantize(const qshard_problem& problem, const qshard_buffers& buffers, cudaStream_t stream) const {
    const bool nested = problem.nested != 0;
    float* absmax = nested ? reinterpret_cast<float*>(workspace(buffers)) : buffers.absmax;
    quantize_[problem.dtype][problem.quant_type](nullptr, buffers.weight, absmax, buffers.codes,
                                                 static_cast<int>(problem.blocksize),
                                                 static_cast<int>(problem.n * problem.k));
    if (!nested) return;
    const int blocks = blocks_of(problem);
    subtract_mean(absmax, blocks, buffers.offset, workspace(buffers) + mean_offset(problem), stream);
    quantize_absmax_(buffers.nested_map, absmax, buffers.nested_absmax, buffers.absmax_codes, kNestedBlocksize, blocks);
  }

  std::string path_;
  void* library_;
  std::array<std::array<Quantize, 2>, 3> quantize_{};
  std::array<std::array<Dequantize, 2>, 3> dequantize_{};
  std::array<Gemm, 3> gemm_{};
  Quantize quantize_absmax_ = nullptr;
  Dequantize dequantize_absmax_ = nullptr;
  std::unique_ptr<DenseProduct> product_;
  bool fused_ = false;
};

/// The folder of python3's bitsandbytes package, found without importing it; empty where there is none.
std::string python_package_folder() {
  constexpr const char* kCommand =
      "python3 -c \"import importlib.util as u; s = u.find_spec('bitsandbytes'); "
      "print(s.submodule_search_locations[0] if s else '')\" 2>/dev/null";
  FILE* pipe = popen(kCommand, "r");
  if (pipe == nullptr) return "";
  std::array<char, 4096> line{};
  const bool read = std::fgets(line.data(), static_cast<int>(line.size()), pipe) != nullptr;
  const bool succeeded = pclose(pipe) == 0;
  std::string folder = read && succeeded ? line.data() : "";
  while (!folder.empty() && folder.back() == '\n') folder.pop_back();
  return folder;
}

}  // namespace

std::unique_ptr<Provider> make_bitsandbytes_provider(const std::string& path) {
  return std::make_unique<BitsandbytesProvider>(path);
}

std::string find_bitsandbytes(const std::string& given) {
  if (!given.empty()) return given;
  const char* variable = std::getenv("QSHARD_BITSANDBYTES_LIBRARY");
  if (variable != nullptr && *variable != '\0') return variable;
  const std::string folder = python_package_folder();
  int version = 0;
  if (folder.empty() || cudaRuntimeGetVersion(&version) != cudaSuccess) return "";
  // The newest build for this CUDA's major version that is not newer than the runtime: ..._cuda130.so is for CUDA 13.0.
  for (int minor = version % 1000 / 10; minor >= 0; --minor) {
    const std::string path = fmt::format("{}/libbitsandbytes_cuda{}{}.so", folder, version / 1000, minor);
    if (std::filesystem::exists(path)) return path;
  }
  return "";
}

}  // namespace qshard::bench
