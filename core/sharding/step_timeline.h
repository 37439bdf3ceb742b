#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace qshard {

/// What one micro-batch asks of a rank, in seconds. Index of the vectors: decoder layer.
struct MicroBatchTimes {
  std::vector<double> forward;
  std::vector<double> backward;  // recomputation included
  double head = 0;
  std::vector<double> gather;  // bringing a layer's shards together; empty: nothing is gathered
  double head_gather = 0;
  double embedding_gather = 0;  // before the first layer; 0: its rows are read where they lie
  double slowdown = 1;          // of arithmetic while the link is busy
  double gradient_sum = 0;      // of a layer's adapters, over the ranks; 0: not summed layer by layer
  double input_copy = 0;        // of a layer's input to the host, and back; 0: it stays
  bool one_link = false;        // peers' bytes and the host's come one after the other
  bool early_head = true;       // the head is gathered while the last layer computes
  std::size_t buffers = 2;      // of gathered layers
};

/// Which of a rank's resources is busy.
enum class Lane : std::uint8_t { compute, link, host };
/// "compute", "link", "host".
std::string_view to_string(Lane lane);

/// One thing that takes time.
struct Segment {
  Lane lane = Lane::compute;
  std::string_view what;    // "forward", "backward", "head", "gather", "gradient sum", "input copy"
  std::int64_t layer = -1;  // -1: the head
  double begin = 0;
  double end = 0;
};

struct Timeline {
  std::vector<Segment> segments;  // of the first micro-batch
  double end = 0;                 // of all micro-batches, the last sums of gradients included
  // How long arithmetic stood still.
  double waited_for_gathers = 0;
  double waited_for_sums = 0;
  double waited_for_inputs = 0;
  double gathering = 0;  // how long the link was busy with gathers
};

/// Plays the micro-batches of a step, layer by layer, by the rules of optimized/sharded: a layer is gathered while the
/// one before computes, into the buffer whose layer was used longest ago, as soon as nobody reads it; a buffer keeps
/// its layer, so that the turn from the forward to the backward pass gathers nothing; the head has a buffer of its own;
/// gradients of adapters are summed after each layer, two layers' at once at most; a layer's input leaves for the host
/// while the next layer computes, and comes back one ahead. What is on one link comes one after the other. With a
/// slowdown arithmetic takes so many times as long while anything moves over the link that is asked for already.
Timeline play_step(const MicroBatchTimes& times, std::int64_t micro_batches);

}  // namespace qshard
