#pragma once

#include <filesystem>
#include <string_view>

namespace qshard {

/// True for the names under which transformers keeps a tokenizer in a directory.
bool is_tokenizer_file(std::string_view name);

/// Copies the tokenizer's files that are in `from` into `to`, each beside and renamed; none need be there. Errors as
/// those of AtomicFile.
void copy_tokenizer_files(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace qshard
