// A prepared data set: either refused, or every row is cut, packed and put into a batch within its bounds.
#include <numeric>

#include "core/training/batch_schedule.h"
#include "core/training/prepared_dataset.h"
#include "correctness/fuzz/fuzzing.h"
#include "correctness/fuzz/sections.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qshard;
  constexpr std::int64_t kMaxLength = 5;
  constexpr std::int64_t kVocabulary = 16;
  static const fuzz::MemoryDirectory directory;
  directory.write("rows.safetensors", fuzz::as_text(data, size));
  fuzz::expect_handled([&] {
    PreparedDataset dataset = load_prepared_dataset(directory.path() / "rows.safetensors");
    const std::int64_t rows = dataset.rows();
    const std::int64_t tokens = dataset.loss_tokens();
    fuzz::require(tokens <= dataset.tokens());
    fuzz::require(fingerprint(dataset) == fingerprint(load_prepared_dataset(directory.path() / "rows.safetensors")));
    const RowLimits limits = limit_rows(dataset, kMaxLength);
    fuzz::require(dataset.rows() + limits.without_label == rows && dataset.loss_tokens() <= tokens);
    const RowGroups groups = pack_rows(dataset, kMaxLength);
    fuzz::require(std::ssize(groups.rows) == dataset.rows());
    check_vocabulary(dataset, kVocabulary, "input");
    for (std::int64_t group = 0; group < groups.count(); ++group) {
      std::vector<RowChoice> choices;
      for (const std::int64_t row : groups.group(group)) choices.push_back({row, static_cast<std::uint64_t>(row)});
      const TokenBatch batch = make_batch(dataset, choices);
      fuzz::require(batch.tokens() <= kMaxLength && batch.rows() == std::ssize(choices));
      check_tokens(batch, kVocabulary);
    }
  });
  return 0;
}
