// A metrics.jsonl that a run goes on with: cut back, it holds whole lines of JSON, and cutting again changes nothing.
#include <sstream>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/training/metrics.h"
#include "correctness/fuzz/fuzzing.h"
#include "correctness/fuzz/sections.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qshard;
  constexpr std::int64_t kStep = 5;
  static const fuzz::MemoryDirectory directory;
  const std::filesystem::path path = directory.path() / "metrics.jsonl";
  directory.write("metrics.jsonl", fuzz::as_text(data, size));
  fuzz::expect_handled([&] {
    cut_back_metrics(path, kStep, 4);
    const std::string kept = read_file(path);
    fuzz::require(kept.empty() || kept.ends_with('\n'));
    std::istringstream lines(kept);
    for (std::string line; std::getline(lines, line);) {
      const Json row = Json::parse(line, nullptr, false);
      fuzz::require(row.is_object() && (row.contains("context") || row["step"].get<std::int64_t>() <= kStep));
    }
    cut_back_metrics(path, kStep, 4);
    fuzz::require(read_file(path) == kept);
  });
  return 0;
}
