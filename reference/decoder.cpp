#include "reference/decoder.h"

#include <algorithm>

#include "core/base/error.h"

namespace qshard::reference {
namespace {

class CachingDecoder : public Decoder {
 public:
  CachingDecoder(ShardedStep& step, const ModelConfig& config, std::int64_t rows, std::int64_t max_tokens)
      : step_(&step), config_(config), most_rows_(rows), max_tokens_(max_tokens) {}

  TokenLogits start(std::span<const std::vector<std::int32_t>> prompts) override {
    if (std::ssize(prompts) > most_rows_) {
      fail_input("{} prompts were given to a decoder of {} rows", prompts.size(), most_rows_);
    }
    rows_.clear();
    running_.clear();
    for (const std::vector<std::int32_t>& prompt : prompts) {
      if (prompt.empty()) fail_input("there is no token to continue; give a prompt");
      for (const std::int32_t token : prompt) check_token(token);
      check_length(std::ssize(prompt));
      running_.push_back(rows_.size());
      rows_.push_back(prompt);
    }
    forget();
    beyond_original_ = is_beyond_original();
    return logits();
  }

  TokenLogits next(std::span<const std::int32_t> tokens) override {
    if (tokens.size() != rows_.size()) {
      fail_input("{} tokens were given for {} rows of a decoder", tokens.size(), rows_.size());
    }
    for (const std::size_t row : running_) {
      if (tokens[row] == kEndedRow) continue;
      check_token(tokens[row]);
      check_length(std::ssize(rows_[row]) + 1);
    }
    for (std::size_t i = running_.size(); i-- > 0;) {
      const std::size_t row = running_[i];
      if (tokens[row] == kEndedRow) {
        end(i);
      } else {
        rows_[row].push_back(tokens[row]);
      }
    }
    const bool turned_otherwise = beyond_original_;
    beyond_original_ = is_beyond_original();
    if (beyond_original_ || turned_otherwise) forget();
    return logits();
  }

 private:
  void check_token(std::int32_t token) const {
    if (token < 0 || token >= config_.vocab_size) {
      fail_input("token {} is outside the model's vocabulary of {}", token, config_.vocab_size);
    }
  }

  void check_length(std::int64_t tokens) const {
    if (tokens > max_tokens_) {
      fail_input("a row has {} tokens, but the decoder was made for {}", tokens, max_tokens_);
    }
  }

  /// Whether angles depend on the length of the longest row now.
  [[nodiscard]] bool is_beyond_original() const {
    if (config_.rope.type != RopeType::dynamic) return false;
    return std::ranges::any_of(running_, [&](std::size_t row) {
      return std::ssize(rows_[row]) > config_.rope.original_max_position_embeddings;
    });
  }

  void forget() {
    caches_.assign(static_cast<std::size_t>(config_.num_hidden_layers), KeyValueCache<float>(std::ssize(running_)));
  }

  void end(std::size_t running) {
    for (KeyValueCache<float>& cache : caches_) cache.remove_row(static_cast<std::int64_t>(running));
    running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(running));
  }

  /// Runs the tokens that are not in the caches yet.
  TokenLogits logits() {
    TokenLogits result{config_.vocab_size,
                       std::vector<float>(rows_.size() * static_cast<std::size_t>(config_.vocab_size))};
    if (running_.empty()) return result;
    const std::vector<std::int64_t> cached = caches_.front().lengths();
    TokenBatch batch;
    for (std::size_t i = 0; i < running_.size(); ++i) {
      const std::vector<std::int32_t>& row = rows_[running_[i]];
      batch.input_ids.insert(batch.input_ids.end(), row.begin() + cached[i], row.end());
      batch.offsets.push_back(batch.tokens());
      batch.row_ids.push_back(running_[i]);
    }
    batch.labels.assign(batch.input_ids.size(), kIgnoredLabel);
    const Matrix<float> values = step_->forward_logits(batch, caches_);
    for (std::size_t i = 0; i < running_.size(); ++i) {
      std::copy_n(values.data() + static_cast<std::int64_t>(i) * config_.vocab_size, config_.vocab_size,
                  result.values.begin() + static_cast<std::int64_t>(running_[i]) * config_.vocab_size);
    }
    return result;
  }

  ShardedStep* step_;
  ModelConfig config_;
  std::int64_t most_rows_;
  std::int64_t max_tokens_;
  std::vector<std::vector<std::int32_t>> rows_;
  std::vector<std::size_t> running_;          // rows that have not ended
  bool beyond_original_ = false;              // in the last pass: see is_beyond_original()
  std::vector<KeyValueCache<float>> caches_;  // of each decoder layer, over the running rows
};

}  // namespace

std::unique_ptr<Decoder> make_decoder(ShardedStep& step, const ModelConfig& config, std::int64_t rows,
                                      std::int64_t max_tokens) {
  return std::make_unique<CachingDecoder>(step, config, rows, max_tokens);
}

}  // namespace qshard::reference
