// The parts of the GPU table that need no GPU: the axes on its command line, row names and the traffic model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/gpu/options.h"
#include "core/base/error.h"

namespace qshard::bench {
namespace {

Options parse(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "qshard_gpu_bench");
  return parse_options(arguments).value();
}

std::string error_of(const std::vector<std::string>& arguments) {
  try {
    parse(arguments);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_input);
    return error.what();
  }
  return "no error";
}

std::vector<std::string> names(const std::vector<std::string>& arguments) {
  std::vector<std::string> result;
  for (const qshard_problem& problem : problems_of(parse(arguments))) result.push_back(problem_name(problem));
  return result;
}

TEST(BenchAxes, KernelsOfTheStepStandBesideTheOthers) {
  const Options options = parse({"--operation", "rmsnorm,quantize,adamw"});
  EXPECT_THAT(options.step_kernels, testing::ElementsAre("rmsnorm", "adamw"));
  EXPECT_THAT(options.operations, testing::ElementsAre(QSHARD_QUANTIZE));
  EXPECT_TRUE(parse({}).step_kernels.empty());
  EXPECT_THAT(error_of({"--operation", "rmsnrom"}), testing::HasSubstr("rmsnrom"));
}

TEST(BenchAxes, AreCrossed) {
  EXPECT_THAT(names({"--operation", "dequantize,linear4bit", "--shape", "64x128", "--nested", "0,1", "--rows", "1,16"}),
              testing::ElementsAre("dequantize/n:64/k:128/blocksize:64/dtype:bf16/nested:0",
                                   "dequantize/n:64/k:128/blocksize:64/dtype:bf16/nested:1",
                                   "linear4bit/rows:1/n:64/k:128/blocksize:64/dtype:bf16/nested:0",
                                   "linear4bit/rows:16/n:64/k:128/blocksize:64/dtype:bf16/nested:0",
                                   "linear4bit/rows:1/n:64/k:128/blocksize:64/dtype:bf16/nested:1",
                                   "linear4bit/rows:16/n:64/k:128/blocksize:64/dtype:bf16/nested:1"));
}

TEST(BenchAxes, NameEveryDtypeAndType) {
  EXPECT_THAT(names({"--operation", "quantize", "--shape", "64x64", "--dtype", "f32,f16", "--quant-type", "fp4,nf4"}),
              testing::ElementsAre("quantize/n:64/k:64/blocksize:64/dtype:f32/nested:1/type:fp4",
                                   "quantize/n:64/k:64/blocksize:64/dtype:f32/nested:1",
                                   "quantize/n:64/k:64/blocksize:64/dtype:f16/nested:1/type:fp4",
                                   "quantize/n:64/k:64/blocksize:64/dtype:f16/nested:1"));
}

TEST(BenchAxes, AModelNamesItsShapesOnce) {
  EXPECT_EQ(names({"--operation", "dequantize", "--shape", "llama-2-7b"}).size(), 3);  // q = o = k = v
  EXPECT_EQ(names({"--operation", "dequantize", "--shape", "llama-2-7b,4096x4096"}).size(), 3);
  EXPECT_EQ(names({"--operation", "dequantize", "--shape", "all"}).size(), 28);
  EXPECT_EQ(names({"--operation", "dequantize", "--shape", "qwen3-32b"}).size(), 5);  // q and o are not square
}

// A cold cache wants copies; tiny weights get no more than can be made and checked in seconds, and the row says so.
TEST(BenchAxes, CopiesFillTheCacheOrAreLimited) {
  constexpr std::size_t kL2 = 50 << 20;
  const CopyCount large(kL2, kL2);
  EXPECT_EQ(large.copies, 6U);
  EXPECT_TRUE(large.cold);
  EXPECT_EQ(CopyCount(100 * kL2, kL2).copies, 2U);
  const CopyCount tiny(3 * 64 * 3, kL2);
  EXPECT_EQ(tiny.copies, CopyCount::kMostCopies);
  EXPECT_FALSE(tiny.cold);
  const CopyCount just(6 * kL2 / CopyCount::kMostCopies, kL2);
  EXPECT_EQ(just.copies, CopyCount::kMostCopies);
  EXPECT_TRUE(just.cold);
  EXPECT_EQ(CopyCount(0, 0).copies, 2U);
}

TEST(BenchAxes, RejectWhatTheyDoNotKnow) {
  EXPECT_THAT(error_of({"--shape", "64"}), testing::HasSubstr("--shape 64"));
  EXPECT_THAT(error_of({"--shape", "64x"}), testing::HasSubstr("--shape 64x"));
  EXPECT_THAT(error_of({"--shape", "-4x64"}), testing::HasSubstr("--shape"));
  EXPECT_THAT(error_of({"--shape", "99999999999999999999x64"}), testing::HasSubstr("--shape"));
  EXPECT_THAT(error_of({"--blocksize", "48"}), testing::HasSubstr("--blocksize 48"));
  EXPECT_THAT(error_of({"--dtype", "fp8"}), testing::HasSubstr("--dtype"));
  EXPECT_THAT(error_of({"--operation", "sort"}), testing::HasSubstr("--operation"));
  EXPECT_THAT(error_of({"--rows", "0"}), testing::HasSubstr("--rows"));
  EXPECT_THAT(error_of({"--plugin", "/nowhere.so"}), testing::HasSubstr("--plugin"));
  EXPECT_THAT(error_of({"--unknown"}), testing::HasSubstr("--unknown"));
}

TEST(BenchAxes, LeaveGoogleBenchmarksArguments) {
  std::vector<std::string> arguments = {"program", "--benchmark_out=file.json", "--warm", "--benchmark_filter=x"};
  EXPECT_TRUE(parse_options(arguments).value().manner.warm);
  EXPECT_THAT(arguments, testing::ElementsAre("program", "--benchmark_out=file.json", "--benchmark_filter=x"));
}

TEST(BenchTraffic, CountsEachByteOnce) {
  qshard_problem problem{QSHARD_DEQUANTIZE, QSHARD_BF16, QSHARD_NF4, 1, 4096, 4096, 0, 64};
  const double elements = 4096.0 * 4096.0;
  const double nested = elements / 2 + elements / 64 + 4 * elements / 64 / 256 + 4;
  EXPECT_EQ(traffic_of(problem, false).bytes_read, nested);
  EXPECT_EQ(traffic_of(problem, false).bytes_written, 2 * elements);
  problem.nested = 0;
  EXPECT_EQ(traffic_of(problem, false).weight_bytes, elements / 2 + 4 * elements / 64);
  problem.operation = QSHARD_QUANTIZE;
  problem.dtype = QSHARD_F32;
  EXPECT_EQ(traffic_of(problem, false).bytes_read, 4 * elements);
  EXPECT_EQ(traffic_of(problem, false).flops, 0);
}

TEST(BenchTraffic, CountsAProductAndASumAsTwo) {
  const qshard_problem forward{QSHARD_LINEAR4BIT, QSHARD_F16, QSHARD_NF4, 0, 96, 64, 3, 32};
  const qshard_problem backward{QSHARD_LINEAR4BIT_BACKWARD, QSHARD_F16, QSHARD_NF4, 0, 96, 64, 3, 32};
  EXPECT_EQ(traffic_of(forward, false).flops, 2.0 * 3 * 96 * 64);
  EXPECT_EQ(traffic_of(forward, false).bytes_written, 2.0 * 3 * 96);
  EXPECT_EQ(traffic_of(backward, false).bytes_written, 2.0 * 3 * 64);
  EXPECT_EQ(traffic_of(forward, true).weight_bytes, 2.0 * 96 * 64);
  EXPECT_EQ(row_name(forward, "cublas", {.warm = true}),
            "linear4bit/provider:cublas/rows:3/n:96/k:64/blocksize:32/dtype:f16/nested:0/warm:1");
  EXPECT_EQ(row_name(forward, "cublas", {.sustained_seconds = 2}),
            "linear4bit/provider:cublas/rows:3/n:96/k:64/blocksize:32/dtype:f16/nested:0/sustained:2");
}

}  // namespace
}  // namespace qshard::bench
