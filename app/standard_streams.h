#pragma once

namespace qshard {

/// Gives closed standard descriptors /dev/null, so that no file of the program gets their numbers, and makes a write
/// beyond the limit on a file's size an error instead of a signal. Before anything is opened.
void prepare_standard_streams();

/// Throws Error as fail_to_write does where what was printed could not be written.
void flush_standard_output();

}  // namespace qshard
