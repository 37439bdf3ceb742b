#include "optimized/sharded/sharded_engine.h"

#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/stream.h"
#include "optimized/sharded/adapter_tensors.h"
#include "optimized/sharded/device_choice.h"
#include "optimized/sharded/model_plan.h"
#include "optimized/sharded/peer_memory.h"
#include "optimized/sharded/rank_state.h"
#include "optimized/sharded/token_decoder.h"

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
        places_(plan_.layout),
        memory_plan_(fit_memory(plan_, places_, make_loader(source))),
        memory_(memory_plan_.arena_bytes, link),
        arena_(memory_.own(), memory_plan_.arena_bytes),
        resources_{&arena_, &matmul_, &linear4bit_, &attention_, stream_.get()} {
    state_.emplace(plan_, places_, memory_plan_.choice, memory_.arenas(), make_transport(), resources_);
    state_->gradients().clear_signals();
    make_loader(source).load({&memory_.arenas(), state_->region_offset(), state_->nested_constants()}, link, arena_,
                             stream_.get());
    state_->optimizer().clear(stream_.get());
    adapter_.emplace(plan_, places_, *state_, memory_.arenas());
    adapter_->initialize(plan_.options.seed);
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
      state_->optimizer().update(state_->region() + places_.trainable_begin(), gradients.own(),
                                 plan_.options.max_grad_norm, learning_rate, step, stream_.get());
      state_->gatherer().invalidate();
    }
    return result;
  }

  LossSum evaluate(const std::vector<TokenBatch>& batches) override {
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
    const bool captures = plan_.bounds.decoder.captures_tokens && shard_count(plan_.layout) == 1;
    return std::make_unique<TokenDecoder>(state_->step(), DecoderBound{rows, max_tokens}, captures);
  }

  [[nodiscard]] NamedTensors adapter() override {
    begin_reading();
    NamedTensors tensors = link_->is_first() ? adapter_->read() : NamedTensors{};
    end_reading();
    return tensors;
  }
  void load_adapter(const NamedTensors& tensors) override {
    synchronize();
    adapter_->write(tensors, *link_);
    state_->gatherer().invalidate();
  }
  [[nodiscard]] NamedTensors optimizer_state() override {
    begin_reading();
    NamedTensors tensors = link_->is_first() ? adapter_->read_optimizer() : NamedTensors{};
    end_reading();
    return tensors;
  }
  void load_optimizer_state(const NamedTensors& tensors) override {
    synchronize();
    adapter_->write_optimizer(tensors, *link_);
  }

  [[nodiscard]] std::vector<std::int64_t> peak_bytes_by_rank() override {
    return all_gather_values(*link_, memory_plan_.arena_bytes);
  }
  [[nodiscard]] const ShardLayout& layout() const override { return plan_.layout; }

 private:
  [[nodiscard]] WeightLoader make_loader(const WeightSource& source) const {
    return {plan_.layout, places_, plan_.infos, plan_.options.quantization, source};
  }

  // With one rank nothing is gathered.
  Transport* make_transport() {
    if (link_->world_size() == 1) return nullptr;
    transport_ = make_peer_transport(memory_.arenas());
    return transport_.get();
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
    if (state_->gradients().replicated()) return parts.front();
    double total = 0;
    for (const double part : parts) total += part;
    QSHARD_CUDA_CHECK(cudaMemcpyAsync(on_device, &total, sizeof total, cudaMemcpyHostToDevice, stream_.get()));
    synchronize();
    return total;
  }

  // Between these two nobody writes to shards that another rank may read.
  void begin_reading() {
    synchronize();
    link_->barrier();
  }
  void end_reading() {
    synchronize();
    link_->barrier();
  }

  RankLink* link_;
  ModelPlan plan_;
  ShardPlaces places_;
  MemoryPlan memory_plan_;
  PeerMemory memory_;
  Stream stream_;
  MatmulPlans matmul_;
  Linear4bitPlans linear4bit_;
  AttentionPlans attention_;
  Arena arena_;
  StepResources resources_;
  std::unique_ptr<Transport> transport_;
  std::optional<RankState> state_;
  std::optional<AdapterTensors> adapter_;
};

}  // namespace

std::unique_ptr<TrainingEngine> make_sharded_engine(const ModelConfig& config, const WeightSource& source,
                                                    const EngineOptions& options, const RunBounds& bounds,
                                                    RankLink& link) {
  choose_device(link);
  return std::make_unique<ShardedEngine>(make_model_plan(config, source, options, bounds, link.world_size()), source,
                                         link);
}

}  // namespace qshard::optimized
