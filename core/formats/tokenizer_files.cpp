#include "core/formats/tokenizer_files.h"

#include <algorithm>
#include <array>

#include "core/base/atomic_file.h"
#include "core/base/file.h"

namespace qshard {
namespace {

constexpr std::array<std::string_view, 11> kNames{
    "added_tokens.json",       "chat_template.jinja",     "chat_template.json", "merges.txt",
    "sentencepiece.bpe.model", "special_tokens_map.json", "spiece.model",       "tokenizer.json",
    "tokenizer.model",         "tokenizer_config.json",   "vocab.json"};

}  // namespace

bool is_tokenizer_file(std::string_view name) {
  return std::ranges::find(kNames, name) != kNames.end();
}

void copy_tokenizer_files(const std::filesystem::path& from, const std::filesystem::path& to) {
  for (const std::string_view name : kNames) {
    if (!std::filesystem::is_regular_file(from / name)) continue;
    AtomicFile copy(to / name);
    copy.write(MappedFile::open(from / name).bytes());
    copy.commit();
  }
}

}  // namespace qshard
