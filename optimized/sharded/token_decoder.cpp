#include "optimized/sharded/token_decoder.h"

#include <algorithm>
#include <cstring>

#include "core/base/error.h"
#include "core/tensor/tensor.h"
#include "core/training/sampling.h"
#include "optimized/argmax.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

// Prompt tokens that run through the layers at once, unless a single prompt has more.
constexpr std::int64_t kPrefillTokens = 2048;

BatchBound prefill_bound(const DecoderBound& bound) {
  return {std::max(bound.tokens, std::min(bound.rows * bound.tokens, kPrefillTokens)), bound.rows, bound.tokens};
}

const DecoderBound& checked(const ModelConfig& config, const DecoderBound& bound) {
  check_at_least(bound.rows, 1, "the number of rows of a decoder");
  check_at_least(bound.tokens, 1, "the number of tokens of a decoder's rows");
  if (config.rope.type == RopeType::dynamic && bound.tokens > config.rope.original_max_position_embeddings) {
    fail_input(
        "rows of {} tokens are longer than the {} that this model was trained for, and its rotary embedding (dynamic) "
        "would then change for the tokens before; generate fewer tokens, or on the CPU",
        bound.tokens, config.rope.original_max_position_embeddings);
  }
  return bound;
}

}  // namespace

TokenDecoder::State::State(std::byte* memory, std::int64_t rows)
    : tokens(reinterpret_cast<std::int32_t*>(memory)),
      positions(tokens + rows),
      lengths(positions + rows),
      last(lengths + rows) {}

TokenDecoder::TokenDecoder(ShardedStep& step, const DecoderBound& bound, bool captures)
    : step_(&step),
      captures_(captures),
      bound_(checked(*step.parts().config, bound)),
      prefill_bound_(prefill_bound(bound)),
      batch_(prefill_bound_, *resources().arena),
      rope_(*parts().config, parts().options->dtype, bound.tokens, *resources().arena) {
  const ModelConfig& config = *parts().config;
  Arena& arena = *resources().arena;
  caches_ =
      arena.take(2 * config.num_hidden_layers * cache_shape(bound.rows).elements() * element(), "keys and values");
  state_ = arena.take(State::bytes(bound.rows), "token rows");
  residual_ = arena.take(bound.rows * row_bytes(), "activations");
  branch_ = arena.take(bound.rows * row_bytes(), "activations");
  logits_ = arena.take(bound.rows * config.vocab_size * element(), "logits");
  best_ = arena.take(bound.rows * std::int64_t{sizeof(std::int32_t)}, "logits");
  device_ = State(state_.as<std::byte>(), bound.rows);
  if (dry_run()) return;
  host_state_ = std::make_unique<PinnedBuffer>(State::bytes(bound.rows));
  host_logits_ = std::make_unique<PinnedBuffer>(bound.rows * config.vocab_size * element());
  host_best_ = std::make_unique<PinnedBuffer>(bound.rows * std::int64_t{sizeof(std::int32_t)});
  std::memset(host_state_->data(), 0, static_cast<std::size_t>(State::bytes(bound.rows)));
  host_ = State(host_state_->data(), bound.rows);
}

KeyValueCacheShape TokenDecoder::cache_shape(std::int64_t rows) const {
  return {rows, bound_.tokens, parts().config->num_key_value_heads, parts().config->head_dim, dtype()};
}

LayerCache TokenDecoder::layer_cache(std::int64_t layer) const {
  if (dry_run()) return {};
  const std::int64_t bytes = cache_shape(bound_.rows).elements() * element();
  std::byte* keys = caches_.as<std::byte>() + 2 * layer * bytes;
  return {keys, keys + bytes};
}

void TokenDecoder::check_token(std::int32_t token) const {
  if (token < 0 || token >= parts().config->vocab_size) {
    fail_input("token {} is outside the model's vocabulary of {}", token, parts().config->vocab_size);
  }
}

void TokenDecoder::begin(Prompts prompts) {
  if (std::ssize(prompts) > bound_.rows) {
    fail_input("{} prompts were given to a decoder of {} rows", prompts.size(), bound_.rows);
  }
  for (const std::vector<std::int32_t>& prompt : prompts) {
    if (prompt.empty()) fail_input("there is no token to continue; give a prompt");
    for (const std::int32_t token : prompt) check_token(token);
    if (std::ssize(prompt) > bound_.tokens) {
      fail_input("a row has {} tokens, but the decoder was made for {}", prompt.size(), bound_.tokens);
    }
  }
  lengths_.clear();
  for (const std::vector<std::int32_t>& prompt : prompts) lengths_.push_back(std::ssize(prompt));
  ended_.assign(prompts.size(), false);
  resources().launch([&] { rope_.cover(bound_.tokens, resources().stream); });
  std::size_t first = 0;
  while (first < prompts.size()) {
    std::size_t end = first;
    std::int64_t tokens = 0;
    while (end < prompts.size() && (end == first || tokens + lengths_[end] <= prefill_bound_.tokens)) {
      tokens += lengths_[end++];
    }
    prefill(prompts.subspan(first, end - first), static_cast<std::int64_t>(first));
    first = end;
  }
  if (!prompts.empty()) enqueue_head(false);
}

// The layers over whole prompts, whose keys and values go to the caches and whose last tokens' activations to
// residual_.
void TokenDecoder::prefill(Prompts prompts, std::int64_t first_row) {
  const StepResources& on = resources();
  TokenBatch batch;
  for (const std::vector<std::int32_t>& prompt : prompts) {
    batch.input_ids.insert(batch.input_ids.end(), prompt.begin(), prompt.end());
    batch.offsets.push_back(batch.tokens());
    batch.row_ids.push_back(0);
  }
  batch.labels.assign(batch.input_ids.size(), kIgnoredLabel);
  batch_.upload(batch, 0.0F, on.stream);
  const TokenRows& tokens = batch_.rows();
  Arena::Piece x = on.arena->take(tokens.tokens * row_bytes(), "layer inputs");
  step_->embed_ids(tokens.input_ids, tokens.tokens, x.as());
  for (std::int64_t layer = 0; layer < parts().config->num_hidden_layers; ++layer) {
    Arena::Piece y = on.arena->take(tokens.tokens * row_bytes(), "layer inputs");
    prefill_layer(layer, tokens, first_row, x, y);
    x = std::move(y);
  }
  if (dry_run()) return;
  QSHARD_CUDA_CHECK(cudaStreamSynchronize(on.stream));  // the copy of the prompts before is done
  for (std::size_t row = 0; row < prompts.size(); ++row) {
    host_.last[row] = static_cast<std::int32_t>(batch.offsets[row + 1] - 1);
  }
  QSHARD_CUDA_CHECK(cudaMemcpyAsync(device_.last, host_.last, prompts.size() * sizeof(std::int32_t),
                                    cudaMemcpyHostToDevice, on.stream));
  ShardedTable table;
  table.shards[0] = x.as<std::byte>();
  table.shard_bytes = tokens.tokens * row_bytes();
  table.count = 1;
  embed(table, 0, dtype(), parts().config->hidden_size, device_.last, std::ssize(prompts),
        residual_.as<std::byte>() + first_row * row_bytes(), on.stream);
}

void TokenDecoder::prefill_layer(std::int64_t layer, const TokenRows& tokens, std::int64_t first_row,
                                 const Arena::Piece& x, const Arena::Piece& y) {
  const ModelConfig& config = *parts().config;
  LayerContext context;
  context.config = &config;
  context.rows = &tokens;
  context.cos = rope_.cos();
  context.sin = rope_.sin();
  context.dtype = dtype();
  context.layer = layer;
  LayerActivations activations;
  with_layer(layer, [&](const LayerWeights& weights) {
    layer_forward(resources(), context, weights, x.as(), y.as(), false, activations);
  });
  const std::int64_t query = config.num_attention_heads * config.head_dim;
  const std::int64_t key_value = config.num_key_value_heads * config.head_dim;
  const Arena::Piece& heads = config.qk_norm ? activations.rotated : activations.qkv;
  resources().launch([&] {
    const auto* keys = heads.as<std::byte>() + query * element();
    const LayerCache cache = layer_cache(layer);
    store_keys_values(cache_shape(bound_.rows), tokens, first_row, keys, keys + key_value * element(),
                      query + 2 * key_value, cache.keys, cache.values, resources().stream);
  });
}

// One stage ahead is gathered while `use` computes.
template <typename Use>
void TokenDecoder::with_layer(std::int64_t layer, const Use& use) {
  UnitGatherer& gatherer = *parts().gatherer;
  gatherer.acquire(stage_of_layer(layer));
  gatherer.prefetch(stage_of_layer(layer + 1));
  use(parts().weights->layer(layer, gatherer, nullptr));
  gatherer.release(stage_of_layer(layer));
}

// Logits and the best token of every row.
void TokenDecoder::enqueue_head(bool has_branch) {
  step_->acquire_head();
  output_logits(resources(), step_->head(), rows(), residual_.as(), has_branch ? branch_.as() : nullptr, logits_.as());
  step_->release_head();
  resources().launch([&] {
    argmax(rows(), parts().config->vocab_size, dtype(), logits_.as(), best_.as<std::int32_t>(), resources().stream);
    QSHARD_CUDA_CHECK(cudaMemcpyAsync(host_best_->data(), best_.as(), static_cast<std::size_t>(rows()) * 4,
                                      cudaMemcpyDeviceToHost, resources().stream));
  });
}

// One token of every row, from the host's state to the best next ones on the host.
void TokenDecoder::enqueue_token() {
  const StepResources& on = resources();
  on.launch([&] {
    QSHARD_CUDA_CHECK(cudaMemcpyAsync(state_.as(), host_state_->data(),
                                      static_cast<std::size_t>(State::bytes(bound_.rows)), cudaMemcpyHostToDevice,
                                      on.stream));
  });
  step_->embed_ids(device_.tokens, rows(), residual_.as());
  DecodeContext context;
  context.config = parts().config;
  context.cache = cache_shape(rows());
  context.positions = device_.positions;
  context.lengths = device_.lengths;
  context.cos = rope_.cos();
  context.sin = rope_.sin();
  DecodeActivations x{residual_.as(), branch_.as(), false};
  for (std::int64_t layer = 0; layer < parts().config->num_hidden_layers; ++layer) {
    context.layer = layer;
    with_layer(layer, [&](const LayerWeights& weights) { decode_layer(on, context, weights, layer_cache(layer), x); });
  }
  enqueue_head(true);
}

void TokenDecoder::run_token() {
  if (graph_ != nullptr && graph_rows_ == rows()) return graph_->launch(resources().stream);
  // Kernels are loaded and products planned outside of a capture.
  if (!captures_ || warm_rows_ != rows()) {
    warm_rows_ = rows();
    return enqueue_token();
  }
  graph_.reset();
  graph_ = std::make_unique<CapturedGraph>(resources().stream, [&] { enqueue_token(); });
  graph_rows_ = rows();
  graph_->launch(resources().stream);
}

void TokenDecoder::advance(std::span<const std::int32_t> tokens) {
  if (std::ssize(tokens) != rows()) {
    fail_input("{} tokens were given for {} rows of a decoder", tokens.size(), rows());
  }
  for (std::size_t row = 0; row < tokens.size(); ++row) {
    if (ended_[row] || tokens[row] == kEndedRow) continue;
    check_token(tokens[row]);
    if (lengths_[row] >= bound_.tokens) {
      fail_input("a row has {} tokens, but the decoder was made for {}", lengths_[row] + 1, bound_.tokens);
    }
  }
  for (std::size_t row = 0; row < tokens.size(); ++row) {
    ended_[row] = ended_[row] || tokens[row] == kEndedRow;
    if (!ended_[row]) ++lengths_[row];
    // An ended row goes on as a row of one token that nobody looks at.
    host_.tokens[row] = ended_[row] ? 0 : tokens[row];
    host_.lengths[row] = ended_[row] ? 1 : static_cast<std::int32_t>(lengths_[row]);
    host_.positions[row] = host_.lengths[row] - 1;
  }
  if (rows() > 0) run_token();
}

TokenLogits TokenDecoder::read_logits() {
  const std::int64_t vocab = parts().config->vocab_size;
  TokenLogits logits{vocab, {}};
  if (rows() == 0) return logits;
  const std::int64_t bytes = rows() * vocab * element();
  QSHARD_CUDA_CHECK(cudaMemcpyAsync(host_logits_->data(), logits_.as(), static_cast<std::size_t>(bytes),
                                    cudaMemcpyDeviceToHost, resources().stream));
  QSHARD_CUDA_CHECK(cudaStreamSynchronize(resources().stream));
  logits.values =
      to_floats(TensorView{dtype(), {rows(), vocab}, std::span(host_logits_->data(), static_cast<std::size_t>(bytes))});
  for (std::size_t row = 0; row < ended_.size(); ++row) {
    if (ended_[row]) std::fill_n(logits.values.begin() + static_cast<std::int64_t>(row) * vocab, vocab, 0.0F);
  }
  return logits;
}

std::vector<std::int32_t> TokenDecoder::read_best() {
  QSHARD_CUDA_CHECK(cudaStreamSynchronize(resources().stream));
  const auto* on_host = reinterpret_cast<const std::int32_t*>(host_best_->data());
  std::vector<std::int32_t> best(on_host, on_host + rows());
  for (std::size_t row = 0; row < ended_.size(); ++row) {
    if (ended_[row]) {
      best[row] = 0;
    } else if (best[row] == kNotFinite) {
      fail_not_finite_logits();
    }
  }
  return best;
}

TokenLogits TokenDecoder::start(Prompts prompts) {
  begin(prompts);
  return read_logits();
}

TokenLogits TokenDecoder::next(std::span<const std::int32_t> tokens) {
  advance(tokens);
  return read_logits();
}

std::vector<std::int32_t> TokenDecoder::start_greedily(Prompts prompts) {
  begin(prompts);
  return read_best();
}

std::vector<std::int32_t> TokenDecoder::next_greedily(std::span<const std::int32_t> tokens) {
  advance(tokens);
  return read_best();
}

void TokenDecoder::reserve() {
  const std::int64_t whole_rows =
      std::max<std::int64_t>(1, std::min(bound_.rows, prefill_bound_.tokens / bound_.tokens));
  std::vector<std::vector<std::int32_t>> prompts(static_cast<std::size_t>(whole_rows),
                                                 std::vector<std::int32_t>(static_cast<std::size_t>(bound_.tokens)));
  const std::int64_t rest = prefill_bound_.tokens - whole_rows * bound_.tokens;  // fewer than a row has
  if (rest > 0 && bound_.rows > whole_rows) prompts.emplace_back(static_cast<std::size_t>(rest));
  prefill(prompts, 0);
  lengths_.assign(static_cast<std::size_t>(bound_.rows), 1);
  enqueue_head(false);
  enqueue_token();
  lengths_.clear();
}

}  // namespace qshard::optimized
