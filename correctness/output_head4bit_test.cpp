// A checkpoint whose output head is held in 4 bits, as skip lists without lm_head make them: run from outside.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/atomic_file.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/hf_checkpoint.h"
#include "correctness/run_program.h"
#include "correctness/temporary_directory.h"
#include "correctness/tiny_run.h"
#include "reference/dequantize.h"
#include "reference/quantize.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;
constexpr const char* kHead = "lm_head.weight";

class OutputHead4bit : public testing::Test {
 protected:
  OutputHead4bit() {
    QuantizationOptions options;
    options.quant_type = QuantType::fp4;
    options.blocksize = 128;
    options.quant_storage = DType::bf16;
    head_ = reference::quantize(golden_.tensor(kHead), options, kHead);
    write_random_dataset(directory_ / "data", 6, 4);
    write_file(directory_ / "eval.yaml",
               "dtype: float32\ndataset: {format: prepared, eval_path: " + (directory_ / "data").string() + "}\n");
  }

  /// The golden 4-bit model with another output head.
  std::string model(const std::string& name, const std::vector<std::pair<std::string, TensorView>>& head) {
    std::vector<std::pair<std::string, TensorView>> views = head;
    for (const std::string& other : golden_.names()) {
      if (other != kHead) views.emplace_back(other, golden_.tensor(other));
    }
    fs::create_directory(directory_ / name);
    write_safetensors(directory_ / name / "model.safetensors", std::move(views));
    write_file(directory_ / name / "config.json", golden_.config().text);
    return directory_ / name;
  }

  std::string in_4_bits() {
    std::vector<std::pair<std::string, TensorView>> parts;
    append_weight4bit(kHead, head_.view(), parts, kept_);
    return model("in_4_bits", parts);
  }

  /// The line with the loss, of every digit that is printed.
  std::string loss_of(const std::string& model) {
    RunningProgram program({"eval", directory_ / "eval.yaml", "--model_name_or_path", model}, directory_ / "log");
    EXPECT_EQ(program.wait(), 0) << program.output();
    const std::string output = program.output();
    const std::size_t begin = output.find("Loss");
    EXPECT_NE(begin, std::string::npos) << output;
    return output.substr(begin, output.find('\n', begin) - begin);
  }

  TemporaryDirectory directory_;
  HfCheckpoint golden_ = HfCheckpoint::open(fs::path(QSHARD_GOLDEN_DIR) / "llama" / "bnb4bit");
  Weight4bit head_;
  std::vector<Tensor> kept_;
};

TEST_F(OutputHead4bit, IsUsedAsItIsDequantized) {
  const Tensor dequantized = reference::dequantize(head_.view(), DType::f32);  // the run's dtype
  const std::string loss = loss_of(in_4_bits());
  EXPECT_EQ(loss, loss_of(model("dense", {{kHead, dequantized.view()}})));
  EXPECT_NE(loss, loss_of(model("before", {{kHead, golden_.tensor(kHead)}})));
}

TEST_F(OutputHead4bit, IsDequantizedByTheCommand) {
  RunningProgram program({"dequantize", "--model", in_4_bits(), "--output", directory_ / "d"}, directory_ / "log");
  ASSERT_EQ(program.wait(), 0) << program.output();
  const HfCheckpoint written = HfCheckpoint::open(directory_ / "d");
  const Tensor wanted = reference::dequantize(head_.view(), head_.info.dtype);
  EXPECT_TRUE(std::ranges::equal(written.tensor(kHead).bytes, wanted.bytes()));
  EXPECT_EQ(written.names().size(), HfCheckpoint::open(fs::path(QSHARD_GOLDEN_DIR) / "llama" / "base").names().size());
}

}  // namespace
}  // namespace qshard
