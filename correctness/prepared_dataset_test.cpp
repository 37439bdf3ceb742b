#include "core/training/prepared_dataset.h"

#include <gtest/gtest.h>

#include "core/formats/safetensors.h"
#include "correctness/expect_error.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

struct Columns {
  std::vector<std::int32_t> ids{5, 6, 7, 8, 9};
  std::vector<std::int32_t> labels{kIgnoredLabel, 6, kIgnoredLabel, 8, 9};
  std::vector<std::int64_t> offsets{0, 2, 5};
};

class PreparedData : public testing::Test {
 protected:
  PreparedDataset load(const Columns& columns) {
    const auto i32 = [](const std::vector<std::int32_t>& values) {
      return TensorView{DType::i32, {static_cast<std::int64_t>(values.size())}, std::as_bytes(std::span(values))};
    };
    const TensorView offsets{
        DType::i64, {static_cast<std::int64_t>(columns.offsets.size())}, std::as_bytes(std::span(columns.offsets))};
    write_safetensors(path_, {{"input_ids", i32(columns.ids)}, {"labels", i32(columns.labels)}, {"offsets", offsets}});
    return load_prepared_dataset(path_);
  }

  TemporaryDirectory directory_;
  std::filesystem::path path_ = directory_ / "rows.safetensors";
};

TEST_F(PreparedData, ReadsRows) {
  const PreparedDataset dataset = load({});
  EXPECT_EQ(dataset.rows(), 2);
  EXPECT_EQ(dataset.row_tokens(1), 3);
  EXPECT_EQ(dataset.loss_tokens(), 3);  // 6; 8 and 9: the first position of a row predicts nothing
  const TokenBatch batch = make_batch(dataset, std::vector<RowChoice>{{1, 40}, {0, 41}});
  EXPECT_EQ(batch.input_ids, (std::vector<std::int32_t>{7, 8, 9, 5, 6}));
  EXPECT_EQ(batch.labels, (std::vector<std::int32_t>{kIgnoredLabel, 8, 9, kIgnoredLabel, 6}));
  EXPECT_EQ(batch.offsets, (std::vector<std::int64_t>{0, 3, 5}));
  EXPECT_EQ(batch.row_ids, (std::vector<std::uint64_t>{40, 41}));
}

TEST_F(PreparedData, RefusesWhatDoesNotFitTogether) {
  const std::string file = path_.filename().string();
  Columns columns;
  columns.labels.pop_back();
  expect_bad_input({file, "4 labels for 5 input_ids"}, [&] { load(columns); });
  for (const auto& [offsets, message] :
       std::vector<std::pair<std::vector<std::int64_t>, std::string_view>>{{{}, "no row"},
                                                                           {{0}, "no row"},
                                                                           {{1, 5}, "offsets[0] is 1"},
                                                                           {{0, 3, 2, 5}, "offsets[2]"},
                                                                           {{0, 6}, "end at 6"},
                                                                           {{0, -1, 5}, "offsets[1]"}}) {
    columns = {};
    columns.offsets = offsets;
    expect_bad_input({file, message}, [&] { load(columns); });
  }
}

TEST_F(PreparedData, RefusesMissingAndMistypedColumns) {
  const Tensor one(DType::i64, {1});
  write_safetensors(path_, {{"input_ids", one.view()}});
  expect_bad_input({"input_ids", "I32", "I64"}, [&] { load_prepared_dataset(path_); });
  const Tensor matrix(DType::i32, {1, 1});
  write_safetensors(path_, {{"input_ids", matrix.view()}});
  expect_bad_input({"input_ids", "[1, 1]"}, [&] { load_prepared_dataset(path_); });
  const Tensor ids(DType::i32, {1});
  write_safetensors(path_, {{"input_ids", ids.view()}});
  expect_bad_input({"labels is missing"}, [&] { load_prepared_dataset(path_); });
  expect_bad_input({"none"}, [&] { load_prepared_dataset(directory_ / "none"); });
}

TEST_F(PreparedData, TokensOutsideTheVocabularyAreNamed) {
  const PreparedDataset dataset = load({});
  EXPECT_NO_THROW(check_vocabulary(dataset, 10, "data"));
  expect_bad_input({"data", "token 9", "row 1", "position 2"}, [&] { check_vocabulary(dataset, 9, "data"); });
  Columns columns;
  columns.ids[1] = -1;
  expect_bad_input({"token -1", "row 0", "position 1"}, [&] { check_vocabulary(load(columns), 10, "data"); });
  columns = {};
  columns.labels[0] = -99;
  expect_bad_input({"label -99"}, [&] { check_vocabulary(load(columns), 10, "data"); });
}

TEST_F(PreparedData, LongRowsAreCutAndCounted) {
  PreparedDataset dataset = load({});
  RowLimits limits = limit_rows(dataset, 5);
  EXPECT_EQ(limits.truncated + limits.without_label, 0);
  limits = limit_rows(dataset, 2);
  EXPECT_EQ(limits.truncated, 1);
  EXPECT_EQ(limits.without_label, 0);
  EXPECT_EQ(dataset.input_ids, (std::vector<std::int32_t>{5, 6, 7, 8}));
  EXPECT_EQ(dataset.offsets, (std::vector<std::int64_t>{0, 2, 4}));
}

TEST_F(PreparedData, RowsWithNothingLeftToLearnAreLeftOut) {
  Columns columns;
  columns.labels = {5, kIgnoredLabel, kIgnoredLabel, kIgnoredLabel,
                    9};  // a label at a row's first place counts nothing
  PreparedDataset dataset = load(columns);
  const RowLimits limits = limit_rows(dataset, 2);
  EXPECT_EQ(limits.without_label, 2);
  EXPECT_EQ(dataset.rows(), 0);
}

TEST_F(PreparedData, FingerprintSeesEveryChange) {
  const std::uint64_t original = fingerprint(load({}));
  EXPECT_EQ(fingerprint(load({})), original);
  Columns columns;
  columns.labels[3] = 7;
  EXPECT_NE(fingerprint(load(columns)), original);
  columns = {};
  columns.offsets[1] = 3;
  EXPECT_NE(fingerprint(load(columns)), original);
}

}  // namespace
}  // namespace qshard
