// A sharded step of 2 ranks x 2 layers and its time line, under both strategies: gather a layer's 4-bit weight on both
// ranks, compute with it, release it. What a rank holds is counted on the way.
#include <fmt/core.h>

#include "core/sharding/shard_layout.h"
#include "core/sharding/sharding_strategy.h"
#include "reference/collectives.h"
#include "reference/linear4bit.h"
#include "reference/quantize.h"
#include "reference/sharded_unit.h"

namespace {

using namespace qshard;
using reference::Matrix;

constexpr int kRanks = 2;
const reference::ProcessGroup kGroup = reference::make_process_group(kRanks, nullptr);
constexpr int kLayers = 2;
constexpr int kSize = 64;  // features in and out
constexpr std::int64_t kCodeBytes = kSize * kSize / 2;

// A layer: y = W x with W in 4 bits. The codes are sharded; scales are small and stay on every rank in this program.
struct Layer {
  Weight4bit weight;
  reference::ShardedUnit unit;
};

class Program {
 public:
  explicit Program(ShardingStrategy strategy) : strategy_(strategy), ledgers_(kRanks) {
    std::vector<ModelStage> stages;
    for (int layer = 0; layer < kLayers; ++layer) {
      const std::string name = fmt::format("layer{}", layer);
      stages.push_back({name, {{name + ".weight", ParameterKind::codes, DType::u8, {kCodeBytes, 1}}}});
    }
    layout_ = plan_shards(stages, kRanks, strategy);
    for (int layer = 0; layer < kLayers; ++layer) {
      Matrix<float> dense(kSize, kSize);
      for (int i = 0; i < dense.size(); ++i) dense.data()[i] = static_cast<float>((i * 37 + layer) % 19 - 9) / 90.0F;
      const Tensor tensor =
          from_floats({dense.data(), static_cast<std::size_t>(dense.size())}, DType::f32, {kSize, kSize});
      layers_.push_back({reference::quantize(tensor.view(), {.double_quant = false}, "W"),
                         reference::ShardedUnit(layout_.units[layer], layout_.shards, kGroup, ledgers_)});
      layers_.back().unit.store(0, layout_.units[layer].flats[0].slots[0],
                                std::as_bytes(std::span(layers_[layer].weight.codes)));
    }
  }

  void run() {
    fmt::print("{}\n  forward\n", to_string(strategy_));
    std::vector<Matrix<float>> x(kRanks);  // every rank has tokens of its own
    for (int rank = 0; rank < kRanks; ++rank)
      x[rank] = Matrix<float>::Constant(2, kSize, 0.1F * static_cast<float>(rank + 1));
    for (int layer = 0; layer < kLayers; ++layer) {
      gather(layer);
      for (int rank = 0; rank < kRanks; ++rank)
        x[rank] = reference::linear4bit_forward(weights(layer, rank), DType::f32, x[rank]);
      show("compute", layer);
      if (strategy_ == ShardingStrategy::full_shard) release(layer);
    }
    fmt::print("  backward\n");
    std::vector<Matrix<float>> dy = x;  // the loss is half the squared output
    for (int layer = kLayers - 1; layer >= 0; --layer) {
      gather(layer);
      for (int rank = 0; rank < kRanks; ++rank)
        dy[rank] = reference::linear4bit_backward(weights(layer, rank), DType::f32, dy[rank]);
      show("compute", layer);
      release(layer);
    }
    std::vector<float> norms(kRanks);
    for (int rank = 0; rank < kRanks; ++rank) norms[rank] = dy[rank].squaredNorm();
    fmt::print("  all-reduce of the squared gradient norms: {:.5f} + {:.5f}", norms[0], norms[1]);
    reference::all_reduce(kGroup, reference::RankBuffers<float>{{&norms[0], 1}, {&norms[1], 1}});
    fmt::print(" = {:.5f} on rank 0, {:.5f} on rank 1\n\n", norms[0], norms[1]);
  }

 private:
  void gather(int layer) {
    if (is_gathered_[layer]) return;
    layers_[layer].unit.gather();
    is_gathered_[layer] = true;
    show("gather", layer);
  }

  void release(int layer) {
    layers_[layer].unit.release();
    is_gathered_[layer] = false;
    show("release", layer);
  }

  // The layer's weight as one rank sees it while it is gathered.
  reference::LinearWeights<float> weights(int layer, int rank) {
    const std::span<const std::byte> bytes = layers_[layer].unit.gathered(rank)[0].first(kCodeBytes);
    Weight4bitView view = layers_[layer].weight.view();
    view.codes = {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
    reference::LinearWeights<float> result;
    result.quantized = view;
    return result;
  }

  // One line of the time line: # where a layer is whole on a rank, . where it is a shard.
  void show(const char* what, int layer) {
    std::int64_t held = 0;
    for (int i = 0; i < kLayers; ++i) held += is_gathered_[i] ? kCodeBytes : 0;
    held += kLayers * layout_.units[0].flats[0].shard_bytes;
    fmt::print("    {:<8} layer {}   layers {}{}   each rank holds {:5} bytes of codes\n", what, layer,
               is_gathered_[0] ? '#' : '.', is_gathered_[1] ? '#' : '.', held);
  }

  ShardingStrategy strategy_;
  std::vector<reference::MemoryLedger> ledgers_;
  ShardLayout layout_;
  std::vector<Layer> layers_;
  bool is_gathered_[kLayers] = {};
};

}  // namespace

int main() {
  fmt::print(
      "# whole on every rank, . only the own shard. FULL_SHARD holds one layer at a time and gathers each twice;\n");
  fmt::print("SHARD_GRAD_OP keeps what the forward pass gathered until the backward pass has used it.\n\n");
  for (const ShardingStrategy strategy : {ShardingStrategy::full_shard, ShardingStrategy::shard_grad_op}) {
    Program(strategy).run();
  }
}
