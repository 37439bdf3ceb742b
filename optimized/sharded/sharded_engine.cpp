#include "optimized/sharded/sharded_engine.h"

#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/base/trace_range.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/device_buffer.h"
#include "optimized/device/stream.h"
#include "optimized/sharded/adapter_tensors.h"
#include "optimized/sharded/device_choice.h"
#include "optimized/sharded/exchange.h"
#include "optimized/sharded/model_plan.h"
#include "optimized/sharded/rank_state.h"
#include "optimized/sharded/token_decoder.h"
#include "optimized/sharded/transport_choice.h"

namespace qshard::optimized {

namespace {

template <typename T>
std::vector<T> all_gather_values(RankLink& link, const T& value) {
  std::vector<T> values;
  for (const std::vector<std::byte>& bytes : link.all_gather(std::as_bytes(std::span(&value, 1)))) {
    std::memcpy(&values.emplace_back(), bytes.data(), sizeof(T));
  }
  return values;
}

struct Counts {
  std::int64_t tokens = 0;
  std::int64_t loss_tokens = 0;

  void add(const TokenBatch& batch) {
    tokens += batch.tokens();
    loss_tokens += count_loss_tokens(batch);
  }
};

Counts total_counts(RankLink& link, const Counts& mine) {
  Counts total;
  for (const Counts& of_rank : all_gather_values(link, mine)) {
    total.tokens += of_rank.tokens;
    total.loss_tokens += of_rank.loss_tokens;
  }
  return total;
}

class ShardedEngine : public TrainingEngine {
 public:
  ShardedEngine(ModelPlan plan, const WeightSource& source, RankLink& link)
      : link_(&link),
        plan_(std::move(plan)),
        places_(plan_.layout, plan_.infos.size()),
        communicator_(make_communicator()),
        memory_plan_(fit_memory(plan_, places_, make_loader(source), link)),
        memory_(static_cast<std::size_t>(memory_plan_.allocation_bytes())),
        linear4bit_(work_beside_products()),
        arena_(memory_.as<std::byte>(), memory_plan_.arena_bytes),
        shards_(places_, plan_.options.offload, arena_),
        exchange_room_(take_exchange_room(plan_, arena_)),
        exchange_(make_exchange()),
        resources_{&arena_, &matmul_, &linear4bit_, stream_.get()} {
    const TraceRange range("load");
    state_.emplace(plan_, places_, shards_, memory_plan_.choice, exchange_.get(), resources_);
    make_loader(source).load(*exchange_, static_cast<std::size_t>(link.rank()), arena_, stream_.get());
    state_->optimizer().clear(stream_.get());
    synchronize();
    adapter_.emplace(plan_, places_, *state_, link);
    adapter_->initialize(plan_.options.seed);
    exchange_->publish(stream_.get());
    synchronize();
  }

  [[nodiscard]] int first_rank() const override { return link_->rank(); }
  [[nodiscard]] int local_ranks() const override { return 1; }
  [[nodiscard]] int world_size() const override { return link_->world_size(); }

  StepResult train_step(const std::vector<std::vector<TokenBatch>>& micro_batches, double learning_rate,
                        std::int64_t step) override {
    Counts mine;
    for (const std::vector<TokenBatch>& batches : micro_batches) {
      check_tokens(batches.at(0), plan_.config.vocab_size);
      mine.add(batches.at(0));
    }
    synchronize();  // the update before, which the others are about to read
    const Counts counts = total_counts(*link_, mine);
    check_loss_tokens(counts.loss_tokens);
    AdapterGradients& gradients = state_->gradients();
    gradients.zero();
    clear_loss();
    for (const std::vector<TokenBatch>& batches : micro_batches) {
      state_->batch().upload(batches[0], static_cast<float>(1.0 / static_cast<double>(counts.loss_tokens)),
                             stream_.get());
      state_->step().forward_backward(step);
    }
    StepResult result;
    result.tokens = counts.tokens;
    result.loss_tokens = counts.loss_tokens;
    result.loss = total_loss() / static_cast<double>(counts.loss_tokens);
    gradients.reduce();
    state_->optimizer().sum_squares_of(gradients.own(), stream_.get());
    const double norm_squared = total_norm_squared();
    result.grad_norm = std::sqrt(norm_squared);
    if (std::isfinite(result.loss) && std::isfinite(result.grad_norm)) {
      const TraceRange range("optimizer");
      state_->optimizer().update(state_->trainable(), gradients.own(), plan_.options.max_grad_norm, learning_rate, step,
                                 stream_.get());
      exchange_->publish(stream_.get());
      state_->gatherer().invalidate();
    }
    return result;
  }

  LossSum evaluate(const std::vector<TokenBatch>& batches) override {
    const TraceRange range("evaluation");
    check_tokens(batches.at(0), plan_.config.vocab_size);
    synchronize();
    Counts mine;
    mine.add(batches[0]);
    const Counts counts = total_counts(*link_, mine);
    clear_loss();
    state_->batch().upload(batches[0], 0.0F, stream_.get());
    state_->step().forward_loss();
    return {total_loss(), counts.loss_tokens};
  }

  std::unique_ptr<Decoder> make_decoder(std::int64_t rows, std::int64_t max_tokens) override {
    if (rows > plan_.bounds.decoder.rows || max_tokens > plan_.bounds.decoder.tokens) {
      fail_input("a decoder of {} rows of {} tokens is larger than the {} rows of {} that memory was planned for", rows,
                 max_tokens, plan_.bounds.decoder.rows, plan_.bounds.decoder.tokens);
    }
    synchronize();
    link_->barrier();  // the update before, or the adapter that was loaded, is done on every rank
    const bool captures = plan_.bounds.decoder.captures_tokens && state_->gatherer().replicated();
    return std::make_unique<TokenDecoder>(state_->step(), DecoderBound{rows, max_tokens}, captures);
  }

  [[nodiscard]] NamedTensors adapter() override {
    synchronize();
    return adapter_->read();
  }
  void load_adapter(const NamedTensors& tensors) override {
    synchronize();
    adapter_->write(tensors);
    exchange_->publish(stream_.get());
    state_->gatherer().invalidate();
  }
  [[nodiscard]] NamedTensors optimizer_state() override {
    synchronize();
    return adapter_->read_optimizer();
  }
  void load_optimizer_state(const NamedTensors& tensors) override {
    synchronize();
    adapter_->write_optimizer(tensors);
  }

  [[nodiscard]] std::vector<std::int64_t> peak_bytes_by_rank() override {
    return all_gather_values(*link_, memory_plan_.arena_bytes);
  }
  [[nodiscard]] const ShardLayout& layout() const override { return plan_.layout; }

 private:
  [[nodiscard]] WeightLoader make_loader(const WeightSource& source) const {
    return {plan_.layout, places_, plan_.infos, plan_.options.quantization, source};
  }

  /// NCCL's kernels hold multiprocessors while products run; copies do not, but are to give the same bits.
  [[nodiscard]] OtherWork work_beside_products() const {
    const int nccl = link_->world_size() > 1 ? NcclCommunicator::kChannels : 0;
    return {.busy = communicator_ == nullptr ? 0 : nccl, .at_most = nccl};
  }

  [[nodiscard]] std::unique_ptr<NcclCommunicator> make_communicator() const {
    if (plan_.options.transport != Transport::nccl || link_->world_size() == 1) return nullptr;
    return std::make_unique<NcclCommunicator>(*link_);
  }

  [[nodiscard]] std::unique_ptr<Exchange> make_exchange() {
    const ExchangeParts parts{&plan_.layout, &places_, &shards_, &exchange_room_, link_};
    switch (plan_.options.transport) {
      case Transport::nccl:
        return make_nccl_exchange(parts, *communicator_);
      case Transport::host:
        return make_host_exchange(parts, host_.emplace(HostPlaces(plan_.layout, places_), *link_));
      case Transport::automatic:
      case Transport::peer:
        break;
    }
    return make_peer_exchange(parts, peers_.emplace(memory_.as<std::byte>(), *link_));
  }

  void synchronize() const { stream_.synchronize(); }

  void clear_loss() { QSHARD_CUDA_CHECK(cudaMemsetAsync(state_->step().loss_sum(), 0, sizeof(double), stream_.get())); }

  [[nodiscard]] double read(const double* value) const {
    double read = 0;
    QSHARD_CUDA_CHECK(cudaMemcpyAsync(&read, value, sizeof read, cudaMemcpyDeviceToHost, stream_.get()));
    synchronize();
    return read;
  }

  // Waits until every rank has done all passes of the step: then its gradients are complete.
  [[nodiscard]] double total_loss() {
    double total = 0;
    for (const double sum : all_gather_values(*link_, read(state_->step().loss_sum()))) total += sum;
    return total;
  }

  // Waits until every rank has read the others' gradients.
  [[nodiscard]] double total_norm_squared() {
    double* on_device = state_->optimizer().norm_squared();
    const std::vector<double> parts = all_gather_values(*link_, read(on_device));
    double total = 0;  // of one group: every group has reduced the same
    for (int shard = 0; shard < plan_.layout.shards; ++shard) total += parts[static_cast<std::size_t>(shard)];
    QSHARD_CUDA_CHECK(cudaMemcpyAsync(on_device, &total, sizeof total, cudaMemcpyHostToDevice, stream_.get()));
    synchronize();
    return total;
  }

  RankLink* link_;
  ModelPlan plan_;
  ShardPlaces places_;
  std::unique_ptr<NcclCommunicator> communicator_;  // before the plan, which counts what is left of the device
  MemoryPlan memory_plan_;
  DeviceBuffer memory_;
  std::optional<PeerMemory> peers_;
  std::optional<SharedHostMemory> host_;
  Stream stream_;
  MatmulPlans matmul_;
  Linear4bitPlans linear4bit_;
  Arena arena_;
  ShardMemory shards_;
  Arena::Piece exchange_room_;
  std::unique_ptr<Exchange> exchange_;
  StepResources resources_;
  std::optional<RankState> state_;
  std::optional<AdapterTensors> adapter_;
};

}  // namespace

std::unique_ptr<TrainingEngine> make_sharded_engine(const ModelConfig& config, const WeightSource& source,
                                                    const EngineOptions& options, const RunBounds& bounds,
                                                    RankLink& link) {
  choose_device(link);
  EngineOptions chosen = options;
  chosen.transport = choose_transport(options.transport, options.offload, link);
  return std::make_unique<ShardedEngine>(make_model_plan(config, source, chosen, bounds, link.world_size()), source,
                                         link);
}

}  // namespace qshard::optimized
