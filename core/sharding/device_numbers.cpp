#include "core/sharding/device_numbers.h"

#include <algorithm>
#include <array>

#include <fmt/ranges.h>

#include "core/base/error.h"

namespace qshard {

namespace {

struct Gpu {
  std::string_view name;
  double product_rate;
  double memory_rate;
  double nvlink_rate;  // 0: has none
  std::string_view usual_link;
  bool is_hopper;  // products read 4-bit weights, and kernels start early
  double attention_forward;
  double attention_backward;
};

// H200: memory_rate and the shares of attention are measured (attention.json of reports/results: means of 2,048, 4,096
// and 8,192 tokens), product_rate is fitted to one recorded step (70B shape, 8 layers, with recomputation). H100:
// memory_rate is measured, product_rate fitted to the same step there (0.87 of cuBLAS' rate), and attention's shares
// are the H200's, whose multiprocessors are the same. Of the others nothing was measured here: product_rate is 0.88 of
// what cuBLAS is known to reach (A100 260, RTX 4090 155, RTX 3090 66) or 0.75 of the vendor's dense rate with float
// sums (RTX 5090 210, A6000 155), for the L40S 0.55 of it because of its 350 W; memory_rate is 0.9 of the vendor's.
constexpr std::array<Gpu, 8> kGpus{{
    {"rtx3090", 58e12, 0.86e12, 50e9, "pcie4", false, 0.6, 0.4},
    {"rtx4090", 136e12, 0.92e12, 0, "pcie4", false, 0.6, 0.4},
    {"rtx5090", 158e12, 1.6e12, 0, "pcie5", false, 0.6, 0.4},
    {"a6000", 116e12, 0.69e12, 50e9, "pcie4", false, 0.6, 0.4},
    {"l40s", 200e12, 0.78e12, 0, "pcie4", false, 0.6, 0.4},
    {"a100", 229e12, 1.8e12, 230e9, "nvlink", false, 0.6, 0.4},
    {"h100", 690e12, 3.01e12, 380e9, "nvlink", true, 0.85, 0.67},
    {"h200", 690e12, 4.27e12, 380e9, "nvlink", true, 0.85, 0.67},
}};

struct Link {
  std::string_view name;
  double peer_rate;  // 0: the GPU's NVLink
  double host_rate;
  bool shares_host;
};

// PCIe 5: host memory measured at 55 GB/s. PCIe 4 without peer access: NCCL through host memory, 20 GB/s. NVLink 4:
// copies from a peer measured at 380 GB/s; earlier ones are known from NCCL's tests.
constexpr std::array<Link, 4> kLinks{{
    {"pcie4", 20e9, 25e9, true},
    {"pcie5", 50e9, 52e9, true},
    {"nvlink", 0, 52e9, false},
    {"network", 50e9, 52e9, false},
}};

constexpr double kNetworkRate = 50e9;  // 400 Gbit/s for each GPU

/// On Hopper kernels start while the ones before them end. Without it 1.7 us were measured between two of a step, with
/// it next to nothing.
constexpr double kEarlyKernelTime = 3.3e-6;

template <typename Table>
std::vector<std::string> names_of(const Table& table) {
  std::vector<std::string> names;
  names.reserve(table.size());
  for (const auto& row : table) names.emplace_back(row.name);
  return names;
}

template <typename Table>
const auto& find_row(const Table& table, std::string_view name, const char* what) {
  const auto found = std::ranges::find(table, name, [](const auto& row) { return row.name; });
  if (found == table.end()) fail_input("{}: {} is none of {}", what, name, fmt::join(names_of(table), ", "));
  return *found;
}

}  // namespace

DeviceNumbers device_numbers(std::string_view gpu_name, std::string_view link_name) {
  const Gpu& gpu = find_row(kGpus, gpu_name, "--gpu");
  const Link& link = find_row(kLinks, link_name.empty() ? gpu.usual_link : link_name, "--link");
  if (link.peer_rate == 0 && gpu.nvlink_rate == 0) {
    fail_input("--link: {} has no NVLink; use pcie4 or pcie5, or give --peer-rate", gpu.name);
  }
  DeviceNumbers numbers;
  numbers.gpu = gpu.name;
  numbers.link = link.name;
  numbers.product_rate = gpu.product_rate;
  numbers.memory_rate = gpu.memory_rate;
  numbers.peer_rate = link.peer_rate > 0 ? link.peer_rate : gpu.nvlink_rate;
  numbers.network_rate = kNetworkRate;
  numbers.host_rate = link.host_rate;
  numbers.link_shares_host = link.shares_host;
  numbers.fused_dequantization = gpu.is_hopper;
  if (gpu.is_hopper) numbers.kernel_time = kEarlyKernelTime;
  numbers.attention_forward = gpu.attention_forward;
  numbers.attention_backward = gpu.attention_backward;
  return numbers;
}

std::vector<std::string> gpu_names() {
  return names_of(kGpus);
}

std::vector<std::string> link_names() {
  return names_of(kLinks);
}

}  // namespace qshard
