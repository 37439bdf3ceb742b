#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/atomic_file.h"
#include "correctness/run_program.h"
#include "correctness/same_tensor.h"
#include "correctness/temporary_directory.h"

namespace qshard {

inline const std::filesystem::path kGolden(QSHARD_GOLDEN_DIR);

inline void run(const TemporaryDirectory& directory, std::vector<std::string> arguments) {
  RunningProgram program(std::move(arguments), directory / "log");
  ASSERT_EQ(program.wait(), 0) << program.output();
}

inline void expect_refused(const TemporaryDirectory& directory, std::vector<std::string> arguments,
                           std::string_view text) {
  RunningProgram program(std::move(arguments), directory / "log");
  EXPECT_EQ(program.wait(), 2);
  EXPECT_NE(program.output().find(text), std::string::npos) << program.output();
}

}  // namespace qshard
