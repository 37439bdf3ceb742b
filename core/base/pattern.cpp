#define PCRE2_CODE_UNIT_WIDTH 8

#include "core/base/pattern.h"

#include <array>

#include <pcre2.h>

#include "core/base/error.h"

namespace qshard {
namespace {

constexpr std::size_t kLongestPattern = 1000;
constexpr std::uint32_t kMostSteps = 1'000'000;

std::string message_of(int code) {
  constexpr std::size_t kLongestMessage = 256;
  std::array<PCRE2_UCHAR, kLongestMessage> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

}  // namespace

Pattern::Pattern(std::string_view text, std::string_view where) : text_(text), where_(where) {
  if (text.size() > kLongestPattern) {
    fail_input("{}: a pattern of {} characters is too long; use at most {}", where, text.size(), kLongestPattern);
  }
  int error = 0;
  std::size_t place = 0;
  const std::uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_NEVER_BACKSLASH_C;
  pcre2_code* code = pcre2_compile(units(text), text.size(), options, &error, &place, nullptr);
  if (code == nullptr) {
    fail_input("{}: \"{}\" is not a regular expression: {} at character {}", where, text, message_of(error), place);
  }
  code_ = std::shared_ptr<void>(code, [](void* held) { pcre2_code_free(static_cast<pcre2_code*>(held)); });
}

bool Pattern::matches_whole(std::string_view subject) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::shared_ptr<pcre2_match_data> data(pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  const std::shared_ptr<pcre2_match_context> context(pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(context.get(), kMostSteps);
  const int result = pcre2_match(code, units(subject), subject.size(), 0, 0, data.get(), context.get());
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) {
    fail_input("{}: \"{}\" cannot be matched with \"{}\": {}; write it simpler", where_, text_, subject,
               message_of(result));
  }
  return true;
}

}  // namespace qshard
