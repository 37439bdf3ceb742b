#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "core/formats/bnb_checkpoint.h"
#include "core/formats/hf_checkpoint.h"
#include "core/formats/safetensors.h"
#include "correctness/matrix_testing.h"
#include "reference/llama_ends.h"
#include "reference/llama_layer.h"

// Holds the model to a recorded run of transformers, PEFT and bitsandbytes on a GPU: two layers, NF4 with double
// quantization read from bitsandbytes' own checkpoint, r 8, alpha 16, no dropout, fp32.
namespace qshard::reference {
namespace {

const std::filesystem::path kGolden = std::filesystem::path(QSHARD_GOLDEN_DIR) / "llama";

Matrix<float> matrix(const SafetensorsFile& file, const std::string& name) {
  return to_matrix<float>(file.tensor(name), DType::f32);
}

class GoldenLlama : public ::testing::Test {
 protected:
  void SetUp() override {
    rope_ = make_rope_table<float>(checkpoint_.config(), checkpoint_.config().max_position_embeddings, DType::f32);
    ends_ = {checkpoint_.tensor("model.embed_tokens.weight"), vector("model.norm.weight"),
             checkpoint_.tensor("lm_head.weight")};
    context_ = {.config = &checkpoint_.config(), .rope = &rope_, .batch = &batch_, .lora_scaling = 16.0 / 8};
    stored_.reserve(2 * kProjections);
    for (std::size_t layer = 0; layer < 2; ++layer) layers_.push_back(read_layer(layer));
    read_batch();
  }

  Vector<float> vector(const std::string& name) const {
    const std::vector<float> values = to_floats(checkpoint_.tensor(name));
    return Eigen::Map<const Vector<float>>(values.data(), static_cast<Eigen::Index>(values.size()));
  }

  static std::string module(std::size_t layer, std::size_t projection) {
    return "model.layers." + std::to_string(layer) + "." +
           std::string(module_name(static_cast<Projection>(projection)));
  }

  LayerWeights<float> read_layer(std::size_t layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    LayerWeights<float> weights;
    weights.input_norm = vector(prefix + "input_layernorm.weight");
    weights.post_attention_norm = vector(prefix + "post_attention_layernorm.weight");
    for (std::size_t i = 0; i < kProjections; ++i) {
      stored_.push_back(read_weight4bit(checkpoint_, module(layer, i) + ".weight"));
      const std::string adapter = "base_model.model." + module(layer, i);
      weights.projections[i] = {
          stored_.back().view(),
          {},
          Lora<float>{matrix(adapter_, adapter + ".lora_A.weight"), matrix(adapter_, adapter + ".lora_B.weight")}};
    }
    return weights;
  }

  void read_batch() {
    const TensorView ids = trajectory_.tensor("input_ids");
    const auto elements = static_cast<std::size_t>(element_count(ids.shape));
    batch_.input_ids.resize(elements);
    batch_.labels.resize(elements);
    std::memcpy(batch_.input_ids.data(), ids.bytes.data(), ids.bytes.size());
    std::memcpy(batch_.labels.data(), trajectory_.tensor("labels").bytes.data(), ids.bytes.size());
    for (std::int64_t row = 0; row < ids.shape[0]; ++row) {
      batch_.offsets.push_back((row + 1) * ids.shape[1]);
      batch_.row_ids.push_back(static_cast<std::uint64_t>(row));
    }
  }

  /// Inputs of the two layers and the output of the last.
  std::vector<Matrix<float>> forward(std::vector<LayerActivations<float>>& kept) const {
    std::vector<Matrix<float>> x{embed(ends_, batch_)};
    for (std::size_t layer = 0; layer < 2; ++layer) {
      x.push_back(layer_forward(context_, layers_[layer], x[layer], &kept[layer]));
    }
    return x;
  }

  HfCheckpoint checkpoint_ = HfCheckpoint::open(kGolden / "bnb4bit");
  SafetensorsFile adapter_ = SafetensorsFile::open(kGolden / "adapter_init" / "adapter_model.safetensors");
  SafetensorsFile trajectory_ = SafetensorsFile::open(kGolden / "trajectory.safetensors");
  RopeTable<float> rope_;
  TokenBatch batch_;
  EndWeights<float> ends_;
  LayerContext<float> context_;
  std::vector<Weight4bit> stored_;
  std::vector<LayerWeights<float>> layers_;
};

// Both sides sum in float, in different orders: some hundred roundings of 2^-24 on the way to a logit.
TEST_F(GoldenLlama, FirstLogits) {
  std::vector<LayerActivations<float>> kept(2);
  const Matrix<float> logits = output_logits(context_, ends_, forward(kept).back());
  const std::vector<float> recorded = to_floats(trajectory_.tensor("fp32.logits0"));
  const Matrix<float> expected = Eigen::Map<const Matrix<float>>(recorded.data(), logits.rows(), logits.cols());
  const float greatest = expected.cwiseAbs().maxCoeff();
  RecordProperty("relative_difference", std::to_string((logits - expected).cwiseAbs().maxCoeff() / greatest));
  expect_near(expected, logits, 2e-4 * greatest, "logits");
}

// Bounds: the recorded loss has seven digits; gradients differ as the logits do, by sums in another order.
TEST_F(GoldenLlama, FirstLossAndGradients) {
  std::ifstream file(kGolden / "trajectory.json");
  const double recorded_loss = nlohmann::json::parse(file)["runs"]["fp32"]["losses"][0];
  std::vector<LayerActivations<float>> kept(2);
  const std::vector<Matrix<float>> x = forward(kept);
  const auto tokens = static_cast<double>(count_loss_tokens(batch_));
  Matrix<float> dx;
  EXPECT_NEAR(output_loss(context_, ends_, x[2], 1 / tokens, &dx) / tokens, recorded_loss, 1e-5 * recorded_loss);

  for (std::size_t layer = 2; layer-- > 0;) {
    LayerGradients<float> gradients;
    for (std::size_t i = 0; i < kProjections; ++i) {
      const Lora<float>& lora = *layers_[layer].projections[i].lora;
      gradients[i] = {Matrix<float>::Zero(lora.a.rows(), lora.a.cols()),
                      Matrix<float>::Zero(lora.b.rows(), lora.b.cols())};
    }
    dx = layer_backward(context_, layers_[layer], x[layer], kept[layer], dx, gradients);
    for (std::size_t i = 0; i < kProjections; ++i) {
      SCOPED_TRACE(module(layer, i));
      EXPECT_TRUE((gradients[i].a.array() == 0).all());  // B = 0 at the start
      const Matrix<float> expected =
          matrix(trajectory_, "grad0.base_model.model." + module(layer, i) + ".lora_B.default.weight");
      const float difference = (gradients[i].b - expected).norm() / expected.norm();
      RecordProperty(module(layer, i), std::to_string(difference));
      EXPECT_TRUE(difference <= 1e-4F) << difference;
    }
  }
}

}  // namespace
}  // namespace qshard::reference
