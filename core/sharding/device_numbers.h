#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qshard {

/// What the time of a step depends on, of a GPU and of what connects it. Rates are bytes or operations a second.
struct DeviceNumbers {
  std::string gpu;
  std::string link;
  double product_rate = 0;        // operations of large 16-bit matrix products, as a step sustains them: below a short
                                  // benchmark's, since the clock falls under load
  double memory_rate = 0;         // of a copy in the GPU's memory, bytes read plus bytes written
  double peer_rate = 0;           // received from GPUs of the same machine
  double network_rate = 0;        // received by each GPU from other machines
  double host_rate = 0;           // from pinned host memory, and to it
  bool link_shares_host = false;  // peers' bytes come over the same wires as those of the host
  bool fused_dequantization = false;  // products read 4-bit weights; otherwise these are first written as 16 bits
  // Shares of product_rate that kernels reach which are not plain products.
  double attention_forward = 0;
  double attention_backward = 0;
  double adapter_products = 0.5;
  double kernel_time = 5e-6;    // of a kernel without work: start and last thread blocks
  double launch_time = 2.5e-6;  // host time of a kernel
  double message_time = 1e-5;   // of a message without bytes
  double nccl_rate = 41e9;      // received by NCCL, whose few channels keep its memory small; no more than peer_rate
  double nccl_slowdown = 1.1;   // of arithmetic while NCCL's kernels run, as of cuBLAS' products on H100
  double slowest_rank = 1.03;   // what each rank's arithmetic costs once several wait for one another
};

/// A preset: the numbers of one of gpu_names() over one of link_names(), or over the link that the GPU usually has
/// where `link` is empty. Each number's source stands beside it in device_numbers.cpp. Throws Error(bad_input) for
/// names that are not there, and for NVLink on a GPU that has none.
DeviceNumbers device_numbers(std::string_view gpu, std::string_view link);

/// "rtx3090", "rtx4090", "rtx5090", "a6000", "l40s", "a100", "h100", "h200".
std::vector<std::string> gpu_names();
/// "pcie4", "pcie5", "nvlink", "network": what connects the ranks. network: each GPU is in a machine of its own.
std::vector<std::string> link_names();

}  // namespace qshard
