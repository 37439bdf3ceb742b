#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "core/base/error.h"

namespace qshard {

/// Runs `action` and fails the test unless it throws Error with this code and each of the texts in its message.
template <typename Action>
void expect_error(ExitCode code, std::initializer_list<std::string_view> texts, Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string_view text : texts) {
      EXPECT_NE(std::string_view(error.what()).find(text), std::string_view::npos)
          << "the message lacks \"" << text << "\": " << error.what();
    }
    return;
  }
  ADD_FAILURE() << "nothing was thrown";
}

template <typename Action>
void expect_bad_input(std::initializer_list<std::string_view> texts, Action&& action) {
  expect_error(ExitCode::bad_input, texts, action);
}

}  // namespace qshard
