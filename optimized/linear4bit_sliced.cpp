#include "optimized/linear4bit_sliced.h"

#include <algorithm>
#include <vector>

#include "optimized/cuda_check.h"
#include "optimized/dequantize_slice.h"
#include "optimized/linear4bit_fused.h"

namespace qshard::optimized {

namespace {

/// A panel of the weight: what columns [first_column, + columns) of the output need. Dequantized panels lie one after
/// another in the workspace; the first `rows_up_front` rows of each are written before the first product.
struct Panel {
  std::int64_t first_column;
  std::int64_t columns;
  WeightSlice weight;
  std::int64_t rows_up_front;
  std::byte* dequantized;

  [[nodiscard]] bool whole_up_front() const { return rows_up_front == weight.rows; }
};

std::int64_t bytes_of(std::int64_t elements, DType dtype) {
  return elements * static_cast<std::int64_t>(size_of(dtype));
}

/// The weight's rows that make output columns [first, first + columns) of the forward product, or its columns.
WeightSlice weight_slice(const Linear4bit& layer, bool forward, std::int64_t first, std::int64_t columns) {
  if (forward) return {layer.in_features, first, columns, 0, layer.in_features};
  return {layer.in_features, 0, layer.out_features, first, columns};
}

std::vector<Panel> cut(const Linear4bit& layer, const MatmulShape& shape, const Slicing& slicing,
                       std::byte* dequantized) {
  std::vector<Panel> panels;
  std::int64_t up_front = slicing.up_front;
  for (std::int64_t first = 0; first < shape.columns;) {
    const std::int64_t wanted = first == 0 ? slicing.first_columns : slicing.columns;
    const std::int64_t columns = std::min(wanted, shape.columns - first);
    const WeightSlice weight = weight_slice(layer, shape.b_transposed, first, columns);
    const std::int64_t share = std::clamp<std::int64_t>(up_front / weight.columns, 0, weight.rows);
    const std::int64_t rows = first == 0 ? weight.rows : share / kSliceGranularity * kSliceGranularity;
    panels.push_back({first, columns, weight, rows, dequantized});
    up_front -= weight.elements();
    dequantized += bytes_of(weight.elements(), layer.dtype);
    first += columns;
  }
  return panels;
}

void dequantize_up_front(const Linear4bit& layer, const Panel& panel, cudaStream_t stream) {
  WeightSlice part = panel.weight;
  part.rows = panel.rows_up_front;
  if (part.rows > 0) dequantize_slice(layer.weight, part, layer.dtype, panel.dequantized, stream);
}

void dequantize_rest(const Linear4bit& layer, const Panel& panel, int multiprocessors, cudaStream_t stream) {
  WeightSlice part = panel.weight;
  part.first_row += panel.rows_up_front;
  part.rows -= panel.rows_up_front;
  std::byte* out = panel.dequantized + bytes_of(panel.rows_up_front * part.columns, layer.dtype);
  dequantize_beside(layer.weight, part, layer.dtype, out, multiprocessors, stream);
}

std::int64_t divide_up(std::int64_t value, std::int64_t by) {
  return (value + by - 1) / by;
}

// Measured on an H200 (132 multiprocessors), nested NF4 to bf16. cuBLAS' tiles of 128 by 256 make whole waves of 128
// there, so that a product lacks nothing when 4 multiprocessors do something else; with 6 or 8 it takes a wave more.
constexpr int kBeside = 4;
constexpr std::int64_t kTileRows = 128;
constexpr std::int64_t kTileColumns = 256;
// Fewer rows leave too little time: at 2,048 the 4 multiprocessors get through less than half of the weight.
constexpr std::int64_t kLeastRows = 2048;
// Smaller slices cost more launches than the earlier start saves.
constexpr std::int64_t kLeastColumns = 2048;
constexpr std::int64_t kLeastSlices = 4;
// 28672 x 8192 gains 2 to 4 % of the time; 14336 x 4096 loses 1 % at 2,048 rows and gains nothing at 4,096.
constexpr std::int64_t kLeastElements = std::int64_t{1} << 27;
// While a product with the whole weight runs, they dequantize rows / kRowsToHideAll of it. A high value leaves more to
// do up front: 0.6 % of the time at 2,048 rows for 5 % of the weight. With a low value products wait: 5 % of the time.
constexpr double kRowsToHideAll = 5200;

/// Columns of the output that make whole waves of tiles on so many multiprocessors, kLeastColumns at least; 0 where
/// none does.
std::int64_t wave_columns(std::int64_t rows, int multiprocessors) {
  const std::int64_t tiles = divide_up(rows, kTileRows);
  if (multiprocessors <= 0 || multiprocessors % tiles != 0) return 0;
  const std::int64_t wave = multiprocessors / tiles * kTileColumns;
  return divide_up(kLeastColumns, wave) * wave;
}

}  // namespace

std::optional<Slicing> slicing_of(const Linear4bit& layer, const MatmulShape& shape) {
  if (layer.dtype == DType::f32 || shape.rows < kLeastRows || shape.columns % kSliceGranularity != 0 ||
      layer.weight.elements < kLeastElements || !has_warpgroups()) {
    return {};
  }
  const std::int64_t columns = wave_columns(shape.rows, device_attribute(cudaDevAttrMultiProcessorCount) - kBeside);
  if (columns == 0 || shape.columns < kLeastSlices * columns) return {};
  const auto all = static_cast<double>(shape.columns);
  // Nothing is dequantized beside the last slice.
  const double hidden = static_cast<double>(shape.rows) / kRowsToHideAll * (all - static_cast<double>(columns));
  const double first = std::max(all - hidden, static_cast<double>(columns));
  const std::int64_t first_columns = static_cast<std::int64_t>(first) / columns * columns;
  if ((shape.columns - first_columns) / columns + 2 > SideStream::kMarks) return {};
  return Slicing{first_columns, columns, static_cast<std::int64_t>(first * static_cast<double>(shape.inner)), kBeside};
}

void multiply_sliced(MatmulPlans& plans, const Linear4bit& layer, const MatmulShape& shape, const Slicing& slicing,
                     const void* in, void* out, void* workspace, cudaStream_t stream) {
  SideStream& side = plans.side_stream();
  const auto panels = cut(layer, shape, slicing, static_cast<std::byte*>(workspace) + kMatmulWorkspaceBytes);
  const auto count = static_cast<int>(panels.size());
  if (!panels.back().whole_up_front()) side.fork(stream);  // the last: then all of them are
  for (int i = 0; i < count; ++i) {
    dequantize_up_front(layer, panels[i], stream);
    if (panels[i].whole_up_front()) continue;
    dequantize_rest(layer, panels[i], slicing.multiprocessors, side.stream());
    side.mark(i);
  }
  MatmulShape product = shape;
  product.multiprocessors = device_attribute(cudaDevAttrMultiProcessorCount) - slicing.multiprocessors;
  for (int i = 0; i < count; ++i) {
    if (!panels[i].whole_up_front()) side.wait(i, stream);
    product.columns = panels[i].columns;
    product.b_stride = panels[i].weight.columns;
    matmul(plans, product, in, panels[i].dequantized,
           static_cast<std::byte*>(out) + bytes_of(panels[i].first_column, layer.dtype), workspace,
           kMatmulWorkspaceBytes, stream);
  }
}

}  // namespace qshard::optimized
