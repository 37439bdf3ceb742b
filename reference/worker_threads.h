#pragma once

namespace qshard::reference {

/// Starts the threads that OpenMP shares its loops among, so that no later loop has to. OpenMP itself would end the
/// process with a code of its own where one cannot be started. Throws Error(out_of_resources) there, and
/// Error(bad_input) where OMP_NUM_THREADS asks for more than 4,096.
void start_worker_threads();

}  // namespace qshard::reference
