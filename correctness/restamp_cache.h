#pragma once

#include <filesystem>
#include <fstream>

#include "core/base/file.h"
#include "core/base/file_stamp.h"
#include "core/base/json.h"

namespace qshard::test {

/// Makes cache.json of a cache of quantized weights say that its files were changed when they really were, as if their
/// bytes had changed behind the file system's back.
inline void restamp_cache(const std::filesystem::path& place) {
  const std::filesystem::path path = place / "cache.json";
  Json manifest = parse_json(read_file(path), path.string());
  for (Json& entry : manifest["weights"]) {
    const FileStamp stamp = file_stamp(place / entry["file"].get<std::string>()).value();
    entry["stamp"]["modified"] = stamp.modified;
    entry["stamp"]["changed"] = stamp.changed;
  }
  std::ofstream(path) << python_json(manifest, 1) << "\n";
}

}  // namespace qshard::test
