// Which kernel a plan chooses, on imagined GPUs: needs none.
#include <limits>

#include <gtest/gtest.h>

#include "correctness/expect_error.h"
#include "optimized/linear4bit/cluster/cluster_cut.h"
#include "optimized/linear4bit/linear4bit_kernels.h"
#include "optimized/linear4bit/middle_rows/middle_rows_cut.h"
#include "optimized/linear4bit/wide/wide_cut.h"

namespace qshard::test {
namespace {

using optimized::Linear4bitAlignment;
using optimized::Linear4bitDevice;
using optimized::Linear4bitDirection;
using optimized::Linear4bitKernel;
using optimized::Linear4bitProblem;
using optimized::Linear4bitShape;

constexpr Linear4bitDevice kHopper{132, 227 << 10, true};
constexpr Linear4bitDevice kAmpere{108, 163 << 10, false};
constexpr Linear4bitDevice kSmallMemory{40, 64 << 10, false};
constexpr auto kForward = Linear4bitDirection::forward;
constexpr auto kGradient = Linear4bitDirection::input_gradient;

std::string chosen(const Linear4bitDevice& device, const Linear4bitShape& shape, std::int64_t rows,
                   Linear4bitDirection direction = kForward, bool aligned = true) {
  return optimized::choose_linear4bit_kernel({shape, rows, direction, device, 32 << 20}, aligned).name;
}

TEST(Linear4bitChoice, GoesByRowsOnHopper) {
  const Linear4bitShape shape{.out_features = 28672, .in_features = 8192};
  EXPECT_EQ(chosen(kHopper, shape, 1), "few_rows_tma");
  EXPECT_EQ(chosen(kHopper, shape, 4), "few_rows_tma");
  EXPECT_EQ(chosen(kHopper, shape, 5), "warpgroup");
  EXPECT_EQ(chosen(kHopper, shape, 64), "warpgroup");
  EXPECT_EQ(chosen(kHopper, shape, 65), "wide");
  EXPECT_EQ(chosen(kHopper, shape, 288), "wide");
  EXPECT_EQ(chosen(kHopper, shape, 289), "middle_rows");
  EXPECT_EQ(chosen(kHopper, shape, 1024), "middle_rows");
  EXPECT_EQ(chosen(kHopper, shape, 1025), "many_rows");
  EXPECT_EQ(chosen(kHopper, shape, 2048), "many_rows");
  EXPECT_EQ(chosen(kHopper, shape, 100'000), "many_rows");
}

// Few rows are dequantized first, since many_rows dequantizes more slowly; so are few tiles, since it leaves
// multiprocessors without any.
TEST(Linear4bitChoice, ManyRowsRunsWhereItPays) {
  EXPECT_EQ(chosen(kHopper, {.out_features = 1024, .in_features = 8192}, 512), "dequantize_first");
  EXPECT_EQ(chosen(kHopper, {.out_features = 8192, .in_features = 1024}, 512, kForward), "many_rows");
  EXPECT_EQ(chosen(kHopper, {.out_features = 8192, .in_features = 1024}, 512, kGradient), "dequantize_first");
  EXPECT_EQ(chosen(kHopper, {.out_features = 28672, .in_features = 8192}, 2048, kGradient), "many_rows");
}

// Small weights have too few steps for its fixed costs.
TEST(Linear4bitChoice, WideRunsWhereItPays) {
  EXPECT_EQ(chosen(kHopper, {.out_features = 3584, .in_features = 3584}, 100), "dequantize_first");
  EXPECT_EQ(chosen(kHopper, {.out_features = 4096, .in_features = 4096}, 192), "wide");
  EXPECT_EQ(chosen(kHopper, {.out_features = 4096, .in_features = 4096}, 193), "dequantize_first");
  EXPECT_EQ(chosen(kHopper, {.out_features = 8192, .in_features = 5120}, 160), "wide");
  EXPECT_EQ(chosen(kHopper, {.out_features = 4096, .in_features = 4096}, 100, kGradient), "wide");
  EXPECT_EQ(chosen(kHopper, {.out_features = 28672, .in_features = 8192}, 64, kGradient), "dequantize_first");
  EXPECT_EQ(chosen(kHopper, {.out_features = 28672, .in_features = 8192}, 65, kGradient), "wide");
  EXPECT_EQ(chosen(kHopper, {.out_features = 28672, .in_features = 8192}, 288, kGradient), "wide");
  EXPECT_EQ(chosen(kAmpere, {.out_features = 28672, .in_features = 8192}, 100), "dequantize_first");
}

TEST(Linear4bitChoice, MiddleRowsRunsWhereItPays) {
  EXPECT_EQ(chosen(kHopper, {.out_features = 4096, .in_features = 4096}, 300), "dequantize_first");
  EXPECT_EQ(chosen(kHopper, {.out_features = 8192, .in_features = 5120}, 161), "middle_rows");
  EXPECT_EQ(chosen(kHopper, {.out_features = 14336, .in_features = 4096}, 224), "wide");
  EXPECT_EQ(chosen(kHopper, {.out_features = 14336, .in_features = 4096}, 225), "middle_rows");
  EXPECT_EQ(chosen(kHopper, {.out_features = 28672, .in_features = 8192}, 288), "wide");
  EXPECT_EQ(chosen(kHopper, {.out_features = 8192, .in_features = 5120}, 385), "many_rows");
  EXPECT_EQ(chosen(kHopper, {.out_features = 8192, .in_features = 8192}, 896), "middle_rows");
  EXPECT_EQ(chosen(kHopper, {.out_features = 8192, .in_features = 8192}, 1024), "many_rows");
  EXPECT_EQ(chosen(kHopper, {.out_features = 5120, .in_features = 27648}, 1536), "middle_rows");
  EXPECT_EQ(chosen(kHopper, {.out_features = 5120, .in_features = 27648}, 1537), "many_rows");
  EXPECT_EQ(chosen(kHopper, {.out_features = 5120, .in_features = 27648}, 896, kGradient), "middle_rows");
  EXPECT_EQ(chosen(kHopper, {.out_features = 5120, .in_features = 27648}, 897, kGradient), "many_rows");
  EXPECT_EQ(chosen(kHopper, {.out_features = 27648, .in_features = 5120}, 1024, kGradient), "middle_rows");
  EXPECT_EQ(chosen(kHopper, {.out_features = 5120, .in_features = 5120}, 200, kGradient), "middle_rows");
  EXPECT_EQ(chosen(kHopper, {.out_features = 28672, .in_features = 8192}, 289, kGradient), "middle_rows");
  EXPECT_EQ(chosen(kAmpere, {.out_features = 28672, .in_features = 8192}, 300), "dequantize_first");
}

// A kernel that takes addends is preferred where some are wanted.
TEST(Linear4bitChoice, GoesByAddends) {
  Linear4bitProblem problem{{.out_features = 28672, .in_features = 8192}, 1024, kForward, kHopper, 32 << 20};
  problem.with_addends = true;
  EXPECT_STREQ(optimized::choose_linear4bit_kernel(problem, true).name, "many_rows");
  problem.rows = 896;
  EXPECT_STREQ(optimized::choose_linear4bit_kernel(problem, true).name, "middle_rows") << "much faster there";
}

// A small weight has too few steps for a second launch and shared tiles.
TEST(Linear4bitChoice, WarpgroupRunsWhereItPays) {
  EXPECT_EQ(chosen(kHopper, {.out_features = 1024, .in_features = 8192}, 16), "fused");
  EXPECT_EQ(chosen(kHopper, {.out_features = 3584, .in_features = 3584}, 33), "warpgroup");
}

TEST(Linear4bitChoice, FusedRunsWhereItPays) {
  EXPECT_EQ(chosen(kHopper, {.out_features = 1024, .in_features = 8192}, 17), "dequantize_first");
  EXPECT_EQ(chosen(kHopper, {.out_features = 1024, .in_features = 8192}, 64), "dequantize_first");
  EXPECT_EQ(chosen(kAmpere, {.out_features = 1024, .in_features = 8192}, 17), "dequantize_first");
  EXPECT_EQ(chosen(kAmpere, {.out_features = 3584, .in_features = 3584}, 17), "fused");
}

TEST(Linear4bitChoice, GradientsAreNeverFused) {
  EXPECT_EQ(chosen(kHopper, {.out_features = 4096, .in_features = 4096}, 1, kGradient), "dequantize_first");
  EXPECT_EQ(chosen(kAmpere, {.out_features = 4096, .in_features = 4096}, 16, kGradient), "dequantize_first");
}

TEST(Linear4bitChoice, OlderGpusHaveTheirOwnKernels) {
  const Linear4bitShape shape{.out_features = 4096, .in_features = 4096};
  EXPECT_EQ(chosen(kAmpere, shape, 4), "few_rows");
  EXPECT_EQ(chosen(kAmpere, shape, 5), "fused");
  EXPECT_EQ(chosen(kAmpere, shape, 48), "fused");
  EXPECT_EQ(chosen(kAmpere, shape, 49), "dequantize_first");
  EXPECT_EQ(chosen(kAmpere, shape, 4096), "dequantize_first");
  EXPECT_EQ(chosen(kSmallMemory, shape, 1), "fused") << "72 KiB of shared memory are too much for it";
}

TEST(Linear4bitChoice, GoesByTheShape) {
  EXPECT_EQ(chosen(kHopper, {.out_features = 64, .in_features = 320}, 1), "few_rows_tma");
  EXPECT_EQ(chosen(kHopper, {.out_features = 64, .in_features = 320, .blocksize = 32}, 1), "fused");
  EXPECT_EQ(chosen(kHopper, {.out_features = 64, .in_features = 320, .blocksize = 32}, 16), "fused");
  EXPECT_EQ(chosen(kHopper, {.out_features = 4096, .in_features = 4096, .blocksize = 32}, 9000), "dequantize_first");
  EXPECT_EQ(chosen(kHopper, {.out_features = 4096, .in_features = 4096, .dtype = DType::f32}, 1), "dequantize_first");
  const std::int64_t huge = std::int64_t{1} << 30;
  EXPECT_EQ(chosen(kHopper, {.out_features = huge, .in_features = 256}, 1), "few_rows") << "rows must fit an int";
  EXPECT_EQ(chosen(kHopper, {.out_features = huge, .in_features = 256}, 32), "fused");
  EXPECT_EQ(chosen(kHopper, {.out_features = huge, .in_features = 256}, 4096), "dequantize_first");
}

TEST(Linear4bitChoice, RowsThatEndInsideABlockAreDequantizedFirst) {
  for (const std::int64_t in_features : {688, 352}) {
    for (const std::int64_t rows : {1, 5, 64, 2048, 100'000}) {
      const Linear4bitShape shape{.out_features = 4096, .in_features = in_features};
      EXPECT_EQ(chosen(kHopper, shape, rows), "dequantize_first");
      EXPECT_EQ(chosen(kHopper, shape, rows, kGradient), "dequantize_first");
      EXPECT_EQ(chosen(kAmpere, shape, rows), "dequantize_first");
    }
  }
}

TEST(Linear4bitChoice, LeavesOutWhatNeedsAnAlignedOutput) {
  const Linear4bitShape shape{.out_features = 28672, .in_features = 8192};
  EXPECT_EQ(chosen(kHopper, shape, 4096, kForward, false), "dequantize_first");
  EXPECT_EQ(chosen(kHopper, shape, 1, kForward, false), "few_rows_tma") << "its input is copied";
}

TEST(Linear4bitChoice, TheLastKernelTakesEverything) {
  const auto kernels = optimized::linear4bit_kernels();
  const Linear4bitKernel& last = kernels.back();
  const Linear4bitProblem odd{
      {.out_features = 3, .in_features = 7, .dtype = DType::f32}, 1, kGradient, kSmallMemory, 0};
  EXPECT_TRUE(last.supports(odd));
  EXPECT_TRUE(last.pays(odd));
  EXPECT_EQ(last.alignment, Linear4bitAlignment::none);
  EXPECT_EQ(last.workspace_bytes(odd), 3 * 7 * sizeof(float));
}

// The workspace of the dequantizing kernels holds the weight; the fused ones never have one for it.
TEST(Linear4bitChoice, WorkspacesAreWhatTheKernelsNeed) {
  const Linear4bitShape shape{.out_features = 28672, .in_features = 8192};
  const auto bytes = [&](std::int64_t rows) {
    const Linear4bitProblem problem{shape, rows, kForward, kHopper, 4 << 20};
    return optimized::choose_linear4bit_kernel(problem, true).workspace_bytes(problem);
  };
  const std::size_t weight = std::size_t{28672} * 8192 * 2;
  EXPECT_EQ(bytes(1), 0U);
  EXPECT_LT(bytes(64), weight / 4);
  EXPECT_LT(bytes(200), weight / 4) << "sums of shared tiles alone";
  EXPECT_LT(bytes(600), weight / 4) << "the same";
  constexpr std::size_t kCounts = 32 + 28672 / 256 * 8192 / 256;
  const auto with_sums_of = [&](std::size_t parts) {  // of shared tiles
    return weight + parts * 256 * 256 * sizeof(float) + (kCounts + parts * 4) * sizeof(unsigned);
  };
  EXPECT_EQ(bytes(2048), with_sums_of(38 * 2)) << "of 896 tiles for 66 clusters 38 have two parts";
  EXPECT_EQ(bytes(4096), with_sums_of(10 * 6)) << "of 1,792 ten have six";
}

// Whatever the transport leaves of the GPU, tiles are shared by the same clusters.
TEST(Linear4bitChoice, TheCutDoesNotDependOnWhatIsBusy) {
  for (const optimized::cluster::TileShape& tiles : {optimized::wide::kTileShape, optimized::middle_rows::kTileShape}) {
    for (const std::int64_t rows : {100, 300, 777}) {
      const auto order = [&](const optimized::OtherWork& other) {
        Linear4bitDevice device = kHopper;
        device.other = other;
        const Linear4bitShape shape{.out_features = 5120, .in_features = 27648};
        return optimized::cluster::ClusterCut({shape, rows, kForward, device, 0}, tiles).order;
      };
      EXPECT_EQ(order({}).clusters, 66);
      EXPECT_EQ(order({.busy = 4}).clusters, 64);
      for (const int busy : {0, 2, 4}) {
        EXPECT_EQ(order({.busy = busy, .at_most = 4}).clusters, 64);
        EXPECT_EQ(order({.busy = busy, .at_most = 4}).whole, order({.at_most = 4}).whole);
      }
    }
  }
}

TEST(Linear4bitChoice, RefusesProblemsOfNoKernel) {
  const Linear4bitProblem good{{.out_features = 64, .in_features = 128}, 1, kForward, kHopper, 0};
  EXPECT_NO_THROW(check_problem(good));
  const auto refused = [&](std::string_view what, const auto& spoil) {
    Linear4bitProblem problem = good;
    spoil(problem);
    expect_bad_input({what}, [&] { check_problem(problem); });
  };
  refused("number of rows", [](Linear4bitProblem& p) { p.rows = 0; });
  refused("out_features", [](Linear4bitProblem& p) { p.shape.out_features = 0; });
  refused("in_features", [](Linear4bitProblem& p) { p.shape.in_features = -1; });
  refused("block size 48", [](Linear4bitProblem& p) { p.shape.blocksize = 48; });
  refused("overflows", [](Linear4bitProblem& p) { p.rows = std::int64_t{1} << 60; });
  refused("overflows", [](Linear4bitProblem& p) { p.shape.out_features = std::int64_t{1} << 57; });
  refused("dtype", [](Linear4bitProblem& p) { p.shape.dtype = DType::u8; });
}

}  // namespace
}  // namespace qshard::test
