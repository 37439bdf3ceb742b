// Files of many tensors: the time grows with their number, not with its square.
#include <algorithm>
#include <filesystem>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "core/formats/safetensors.h"
#include "correctness/run_program.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

// Four times as much takes four times as long, and with a square in it sixteen times. Other work on a busy machine
// makes single runs slower, so that the fastest of three counts, and the limit lies between the two.
constexpr double kMost = 9;

/// User time of the program in seconds, the fastest of three.
double user_seconds(const std::vector<std::string>& arguments, const std::filesystem::path& log,
                    const std::filesystem::path& output) {
  double fastest = 1e9;
  for (int i = 0; i < 3; ++i) {
    std::filesystem::remove_all(output);
    const auto used = [] {
      rusage usage{};
      ::getrusage(RUSAGE_CHILDREN, &usage);
      return static_cast<double>(usage.ru_utime.tv_sec) + static_cast<double>(usage.ru_utime.tv_usec) * 1e-6;
    };
    const double before = used();
    RunningProgram program(arguments, log);
    EXPECT_EQ(program.wait(), 0) << program.output();
    fastest = std::min(fastest, used() - before);
  }
  return fastest;
}

TEST(ManyTensors, DequantizeTakesTimeLinearInTheirNumber) {
  const TemporaryDirectory directory;
  const auto seconds = [&](int tensors) {
    const Tensor values(DType::f32, {8, 8});
    std::vector<std::pair<std::string, TensorView>> views;
    for (int i = 0; i < tensors; ++i) views.emplace_back("model.t" + std::to_string(i) + ".weight", values.view());
    write_safetensors(directory / "float", views);
    std::filesystem::remove(directory / "4bit");
    RunningProgram quantize({"quantize", "--input", directory / "float", "--output", directory / "4bit"},
                            directory / "log");
    EXPECT_EQ(quantize.wait(), 0) << quantize.output();
    return user_seconds({"dequantize", "--input", directory / "4bit", "--output", directory / "out"}, directory / "log",
                        directory / "out");
  };
  const double few = seconds(1500);
  EXPECT_LT(seconds(6000), kMost * few) << few;
}

}  // namespace
}  // namespace qshard
