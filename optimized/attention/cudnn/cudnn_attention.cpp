#include "optimized/attention/cudnn/cudnn_attention.h"

#include <array>
#include <cmath>
#include <cstdlib>
#include <unordered_map>
#include <vector>

#include <dlfcn.h>
#include <fmt/format.h>

// The only file that includes cudnn-frontend: it takes half a minute to compile. cuDNN is opened when it is first
// needed, so that this program starts, and uses its own kernels, where there is none.
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#include <cudnn_frontend.h>

#include "core/base/error.h"
#include "optimized/attention/cudnn/statistics_by_row.h"
#include "optimized/device/cuda_check.h"

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace qshard::optimized {

namespace {

namespace graph = cudnn_frontend::graph;
using cudnn_frontend::DataType_t;

/// Below 9.18 backward passes on Hopper are known to give NaN in places.
constexpr std::size_t kOldestCudnn = 91801;

enum Tensor : std::int64_t {
  kQuery = 1,
  kKey,
  kValue,
  kOutput,
  kStatistics,
  kOutputGradient,
  kQueryGradient,
  kKeyGradient,
  kValueGradient
};

using Pointers = std::unordered_map<std::int64_t, void*>;

/// Opens the library; returns why it cannot be opened. Its frontend would rather take the runtime of CUDA 12 where
/// both are installed.
std::string open_cudnn() {
  if (cudnn_frontend::cudnn_dlhandle != nullptr) return "";
  const std::string runtime = fmt::format("libcudart.so.{}", CUDART_VERSION / 1000);
  ::setenv("CUDNN_FRONTEND_CUDART_LIB_NAME", runtime.c_str(), 0);
  for (const char* name : {"libcudnn.so.9", QSHARD_CUDNN_LIBRARY}) {
    cudnn_frontend::cudnn_dlhandle = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (cudnn_frontend::cudnn_dlhandle != nullptr) return "";
  }
  return fmt::format("libcudnn.so.9 cannot be opened ({})", ::dlerror());
}

void check_cudnn(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS) {
    fail(ExitCode::rank_failed, "cuDNN: {}: {}", what, cudnn_frontend::detail::get_error_string(status));
  }
}

/// Heads of a tensor as cuDNN wants them, [rows, heads, length, head_dim], where tokens are `stride` apart.
graph::Tensor_attributes tensor_of(Tensor id, std::int64_t rows, std::int64_t heads, std::int64_t length,
                                   std::int64_t head_dim, std::int64_t stride) {
  return graph::Tensor_attributes()
      .set_uid(id)
      .set_name(fmt::format("tensor{}", static_cast<std::int64_t>(id)))
      .set_dim({rows, heads, length, head_dim})
      .set_stride({length * stride, head_dim, stride, 1});
}

graph::Tensor_attributes statistics_of(std::int64_t rows, std::int64_t heads, std::int64_t length) {
  return graph::Tensor_attributes()
      .set_uid(kStatistics)
      .set_name("statistics")
      .set_data_type(DataType_t::FLOAT)
      .set_dim({rows, heads, length, 1})
      .set_stride({heads * length, length, 1, 1});
}

/// Gives a result of the graph the place that `like` describes.
void set_output(const std::shared_ptr<graph::Tensor_attributes>& result, const graph::Tensor_attributes& like) {
  result->set_output(true).set_uid(like.get_uid()).set_dim(like.get_dim()).set_stride(like.get_stride());
}

std::shared_ptr<graph::Graph> new_graph(DType dtype) {
  auto result = std::make_shared<graph::Graph>();
  result->set_io_data_type(dtype == DType::bf16 ? DataType_t::BFLOAT16 : DataType_t::HALF)
      .set_intermediate_data_type(DataType_t::FLOAT)
      .set_compute_data_type(DataType_t::FLOAT);
  return result;
}

float score_scale(const AttentionShape& shape) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
}

std::shared_ptr<graph::Graph> forward_graph(const AttentionShape& shape, const AttentionSizes& sizes) {
  const std::int64_t rows = sizes.rows;
  const std::int64_t length = sizes.longest;
  auto result = new_graph(shape.dtype);
  const auto q = result->tensor(tensor_of(kQuery, rows, shape.heads, length, shape.head_dim, shape.q_stride));
  const auto k = result->tensor(tensor_of(kKey, rows, shape.kv_heads, length, shape.head_dim, shape.kv_stride));
  const auto v = result->tensor(tensor_of(kValue, rows, shape.kv_heads, length, shape.head_dim, shape.kv_stride));
  const auto [o, statistics] = result->sdpa(q, k, v,
                                            graph::SDPA_attributes()
                                                .set_name("attention")
                                                .set_generate_stats(true)
                                                .set_causal_mask(true)
                                                .set_attn_scale(score_scale(shape)));
  set_output(o, tensor_of(kOutput, rows, shape.heads, length, shape.head_dim, shape.o_stride));
  set_output(statistics, statistics_of(rows, shape.heads, length));
  statistics->set_data_type(DataType_t::FLOAT);
  return result;
}

std::shared_ptr<graph::Graph> backward_graph(const AttentionShape& shape, const AttentionSizes& sizes) {
  const CudnnCut cut = cut_for_cudnn(shape, sizes);
  const std::int64_t heads = cut.kv_heads * (shape.heads / shape.kv_heads);
  const std::int64_t length = sizes.longest;
  auto result = new_graph(shape.dtype);
  const auto queries = [&](Tensor id, std::int64_t stride) {
    return tensor_of(id, cut.rows, heads, length, shape.head_dim, stride);
  };
  const auto keys = [&](Tensor id) {
    return tensor_of(id, cut.rows, cut.kv_heads, length, shape.head_dim, shape.kv_stride);
  };
  const auto q = result->tensor(queries(kQuery, shape.q_stride));
  const auto k = result->tensor(keys(kKey));
  const auto v = result->tensor(keys(kValue));
  const auto o = result->tensor(queries(kOutput, shape.o_stride));
  const auto dout = result->tensor(queries(kOutputGradient, shape.o_stride));
  const auto statistics = result->tensor(statistics_of(cut.rows, heads, length));
  const auto [dq, dk, dv] = result->sdpa_backward(q, k, v, o, dout, statistics,
                                                  graph::SDPA_backward_attributes()
                                                      .set_name("attention_backward")
                                                      .set_causal_mask(true)
                                                      .set_attn_scale(score_scale(shape))
                                                      .set_deterministic_algorithm(true));
  set_output(dq, queries(kQueryGradient, shape.q_stride));
  set_output(dk, keys(kKeyGradient));
  set_output(dv, keys(kValueGradient));
  return result;
}

struct Plan {
  AttentionShape shape;
  AttentionSizes sizes;
  std::string refusal;  // why there are no graphs; empty: there are
  std::shared_ptr<graph::Graph> forward;
  std::shared_ptr<graph::Graph> backward;
};

/// Builds a graph; returns why cuDNN cannot run it in `bytes` of workspace.
std::string build(cudnnHandle_t handle, graph::Graph& what, std::size_t bytes) {
  auto status = what.build(handle, {cudnn_frontend::HeurMode_t::A});
  if (status.is_bad()) return status.get_message();
  std::int64_t needed = 0;
  auto size_status = what.get_workspace_size(needed);
  if (size_status.is_bad()) return size_status.get_message();
  if (static_cast<std::size_t>(needed) > bytes)
    return fmt::format("cuDNN wants {} bytes of workspace, more than the {} planned", needed, bytes);
  return "";
}

void run(cudnnHandle_t handle, const graph::Graph& what, Pointers& pointers, void* workspace) {
  auto status = what.execute(handle, pointers, workspace);
  if (status.is_bad()) fail(ExitCode::rank_failed, "cuDNN's attention: {}", status.get_message());
}

void* offset(const void* base, std::int64_t elements, DType dtype) {
  return const_cast<std::byte*>(static_cast<const std::byte*>(base) +
                                elements * static_cast<std::int64_t>(size_of(dtype)));
}

AttentionSizes sizes_of(const TokenRows& rows) {
  return {rows.tokens, rows.rows, rows.longest};
}

}  // namespace

struct AttentionPlans::State {
  cudnnHandle_t handle = nullptr;  // made with the first plan
  std::vector<Plan> plans;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    plans.clear();
    if (handle != nullptr) cudnn_frontend::detail::destroy_handle(handle);
  }

  const Plan& find(const AttentionShape& shape, const AttentionSizes& sizes) {
    for (const Plan& plan : plans) {
      if (plan.shape == shape && plan.sizes == sizes) return plan;
    }
    Plan plan{shape, sizes, "", nullptr, nullptr};
    plan.refusal = make(plan);
    return plans.emplace_back(std::move(plan));
  }

 private:
  /// Fills in the graphs; returns why it cannot.
  std::string make(Plan& plan) {
    if (const int major = device_attribute(cudaDevAttrComputeCapabilityMajor); major != 9) {
      return fmt::format("the GPU has compute capability {}.x, and cuDNN is the fastest on 9.x only", major);
    }
    if (std::string reason = open_cudnn(); !reason.empty()) return reason;
    if (const std::size_t version = cudnn_frontend::detail::get_backend_version(); version < kOldestCudnn) {
      return fmt::format("cuDNN {} is older than {}", version, kOldestCudnn);
    }
    if (handle == nullptr) check_cudnn(cudnn_frontend::detail::create_handle(&handle), "cudnnCreate");
    plan.forward = forward_graph(plan.shape, plan.sizes);
    plan.backward = backward_graph(plan.shape, plan.sizes);
    const std::size_t bytes = cudnn_graph_bytes(plan.shape, plan.sizes);
    std::string reason = build(handle, *plan.forward, bytes);
    return reason.empty() ? build(handle, *plan.backward, bytes) : reason;
  }
};

AttentionPlans::AttentionPlans() : state_(std::make_unique<State>()) {}
AttentionPlans::~AttentionPlans() = default;

std::string cudnn_attention_refuses_device(AttentionPlans& plans, const AttentionShape& shape,
                                           const AttentionSizes& sizes) {
  return plans.state().find(shape, sizes).refusal;
}

void cudnn_attention_forward(AttentionPlans& plans, const AttentionShape& shape, const TokenRows& rows,
                             const AttentionTensors& tensors, void* workspace, cudaStream_t stream) {
  AttentionPlans::State& state = plans.state();
  const AttentionSizes sizes = sizes_of(rows);
  const Plan& plan = state.find(shape, sizes);
  check_cudnn(cudnn_frontend::detail::set_stream(state.handle, stream), "cudnnSetStream");
  // Of one row, [heads, tokens] and [rows, heads, length] are the same.
  auto* by_row = rows.rows == 1 ? tensors.lse : static_cast<float*>(workspace);
  Pointers pointers{{kQuery, const_cast<void*>(tensors.q)},
                    {kKey, const_cast<void*>(tensors.k)},
                    {kValue, const_cast<void*>(tensors.v)},
                    {kOutput, tensors.o},
                    {kStatistics, by_row}};
  run(state.handle, *plan.forward, pointers, static_cast<std::byte*>(workspace) + cudnn_statistics_bytes(shape, sizes));
  if (rows.rows > 1) scatter_statistics({rows.rows, shape.heads, rows.longest}, by_row, tensors.lse, stream);
}

void cudnn_attention_backward(AttentionPlans& plans, const AttentionShape& shape, const TokenRows& rows,
                              const AttentionTensors& tensors, void* workspace, cudaStream_t stream) {
  AttentionPlans::State& state = plans.state();
  const AttentionSizes sizes = sizes_of(rows);
  const Plan& plan = state.find(shape, sizes);
  check_cudnn(cudnn_frontend::detail::set_stream(state.handle, stream), "cudnnSetStream");
  float* by_row = tensors.lse;
  if (rows.rows > 1) {
    by_row = static_cast<float*>(workspace);
    gather_statistics({rows.rows, shape.heads, rows.longest}, tensors.lse, by_row, stream);
  }
  const CudnnCut cut = cut_for_cudnn(shape, sizes);
  const std::int64_t group = shape.heads / shape.kv_heads;
  for (std::int64_t row = 0; row < rows.rows; row += cut.rows) {
    for (std::int64_t kv_head = 0; kv_head < shape.kv_heads; kv_head += cut.kv_heads) {
      const std::int64_t token = row * rows.longest;
      const auto queries = [&](const void* base, std::int64_t stride) {
        return offset(base, token * stride + kv_head * group * shape.head_dim, shape.dtype);
      };
      const auto keys = [&](const void* base) {
        return offset(base, token * shape.kv_stride + kv_head * shape.head_dim, shape.dtype);
      };
      Pointers pointers{{kQuery, queries(tensors.q, shape.q_stride)},
                        {kKey, keys(tensors.k)},
                        {kValue, keys(tensors.v)},
                        {kOutput, queries(tensors.o, shape.o_stride)},
                        {kOutputGradient, queries(tensors.dout, shape.o_stride)},
                        {kStatistics, by_row + (row * shape.heads + kv_head * group) * rows.longest},
                        {kQueryGradient, queries(tensors.dq, shape.q_stride)},
                        {kKeyGradient, keys(tensors.dk)},
                        {kValueGradient, keys(tensors.dv)}};
      run(state.handle, *plan.backward, pointers,
          static_cast<std::byte*>(workspace) + cudnn_statistics_bytes(shape, sizes));
    }
  }
}

}  // namespace qshard::optimized
