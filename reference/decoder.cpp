#include "reference/decoder.h"

#include <algorithm>

#include "core/base/error.h"

namespace qshard::reference {
namespace {

class RecomputingDecoder : public Decoder {
 public:
  RecomputingDecoder(ShardedStep& step, std::int64_t vocab_size, std::int64_t rows, std::int64_t max_tokens)
      : step_(&step), vocab_size_(vocab_size), most_rows_(rows), max_tokens_(max_tokens) {}

  TokenLogits start(std::span<const std::vector<std::int32_t>> prompts) override {
    if (std::ssize(prompts) > most_rows_) {
      fail_input("{} prompts were given to a decoder of {} rows", prompts.size(), most_rows_);
    }
    rows_.assign(prompts.begin(), prompts.end());
    ended_.assign(rows_.size(), false);
    for (const std::vector<std::int32_t>& row : rows_) {
      if (row.empty()) fail_input("there is no token to continue; give a prompt");
      for (const std::int32_t token : row) check_token(token);
      check_length(row);
    }
    return logits();
  }

  TokenLogits next(std::span<const std::int32_t> tokens) override {
    if (tokens.size() != rows_.size()) {
      fail_input("{} tokens were given for {} rows of a decoder", tokens.size(), rows_.size());
    }
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      ended_[row] = ended_[row] || tokens[row] == kEndedRow;
      if (ended_[row]) continue;
      check_token(tokens[row]);
      rows_[row].push_back(tokens[row]);
      check_length(rows_[row]);
    }
    return logits();
  }

 private:
  void check_token(std::int32_t token) const {
    if (token < 0 || token >= vocab_size_) {
      fail_input("token {} is outside the model's vocabulary of {}", token, vocab_size_);
    }
  }

  void check_length(const std::vector<std::int32_t>& row) const {
    if (std::ssize(row) > max_tokens_) {
      fail_input("a row has {} tokens, but the decoder was made for {}", row.size(), max_tokens_);
    }
  }

  TokenLogits logits() {
    TokenBatch batch;
    std::vector<std::size_t> running;
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      if (ended_[row]) continue;
      running.push_back(row);
      batch.input_ids.insert(batch.input_ids.end(), rows_[row].begin(), rows_[row].end());
      batch.offsets.push_back(batch.tokens());
      batch.row_ids.push_back(row);
    }
    batch.labels.assign(batch.input_ids.size(), kIgnoredLabel);
    TokenLogits result{vocab_size_, std::vector<float>(rows_.size() * static_cast<std::size_t>(vocab_size_))};
    if (running.empty()) return result;
    const Matrix<float> values = step_->forward_logits(batch);
    for (std::size_t i = 0; i < running.size(); ++i) {
      std::copy_n(values.data() + static_cast<std::int64_t>(i) * vocab_size_, vocab_size_,
                  result.values.begin() + static_cast<std::int64_t>(running[i]) * vocab_size_);
    }
    return result;
  }

  ShardedStep* step_;
  std::int64_t vocab_size_;
  std::int64_t most_rows_;
  std::int64_t max_tokens_;
  std::vector<std::vector<std::int32_t>> rows_;
  std::vector<bool> ended_;
};

}  // namespace

std::unique_ptr<Decoder> make_decoder(ShardedStep& step, std::int64_t vocab_size, std::int64_t rows,
                                      std::int64_t max_tokens) {
  return std::make_unique<RecomputingDecoder>(step, vocab_size, rows, max_tokens);
}

}  // namespace qshard::reference
