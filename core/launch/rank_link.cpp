#include "core/launch/rank_link.h"

#include <algorithm>
#include <exception>

#include "core/launch/rank_exchange.h"
#include "core/launch/rank_mesh.h"
#include "core/launch/rank_watch.h"

namespace qshard {

struct RankLink::State {
  RankInfo info;
  std::vector<RankIdentity> ranks;
  int exceptions = std::uncaught_exceptions();
  std::unique_ptr<RankWatch> watch;  // with one rank there is none
  std::unique_ptr<RankExchange> exchange;
};

RankLink::RankLink(std::unique_ptr<State> state) : state_(std::move(state)) {}
RankLink::RankLink(RankLink&& other) noexcept = default;
RankLink& RankLink::operator=(RankLink&& other) noexcept = default;

RankLink::~RankLink() {
  if (!state_ || !state_->watch) return;
  if (std::uncaught_exceptions() > state_->exceptions) tell_failure(ExitCode::rank_failed, "it ended with an error");
}

RankLink RankLink::connect(const RankInfo& info, const RankLinkOptions& options) {
  auto state = std::make_unique<State>();
  state->info = info;
  if (info.world_size == 1) {
    state->ranks.push_back(own_identity());
    return RankLink(std::move(state));
  }
  RankMesh mesh = connect_ranks(info, options.version, std::chrono::steady_clock::now() + options.connect_timeout);
  state->ranks = mesh.ranks;
  state->watch = std::make_unique<RankWatch>(info.rank, std::move(mesh.ranks), std::move(mesh.watch), options);
  state->exchange = std::make_unique<RankExchange>(info.rank, std::move(mesh.data), *state->watch);
  return RankLink(std::move(state));
}

int RankLink::rank() const {
  return state_->info.rank;
}

int RankLink::world_size() const {
  return state_->info.world_size;
}

const std::vector<RankIdentity>& RankLink::ranks() const {
  return state_->ranks;
}

int RankLink::local_rank() const {
  if (state_->info.local_rank) return *state_->info.local_rank;
  const auto own = state_->ranks.begin() + rank();
  return static_cast<int>(
      std::count_if(state_->ranks.begin(), own, [&](const RankIdentity& one) { return one.host_id == own->host_id; }));
}

int RankLink::local_world_size() const {
  const std::string& own = state_->ranks[static_cast<std::size_t>(rank())].host_id;
  return static_cast<int>(std::ranges::count(state_->ranks, own, &RankIdentity::host_id));
}

void RankLink::barrier() {
  if (!state_->exchange) return;
  std::vector<PeerTraffic> traffic;
  for (int peer = 0; peer < world_size(); ++peer) {
    if (peer != rank()) traffic.push_back({.rank = peer, .sends = true, .receives = true});
  }
  state_->exchange->run(Collective::barrier, traffic);
}

std::vector<std::vector<std::byte>> RankLink::all_gather(std::span<const std::byte> bytes) {
  std::vector<std::vector<std::byte>> gathered(static_cast<std::size_t>(world_size()));
  gathered[static_cast<std::size_t>(rank())].assign(bytes.begin(), bytes.end());
  if (!state_->exchange) return gathered;
  std::vector<PeerTraffic> traffic;
  for (int peer = 0; peer < world_size(); ++peer) {
    if (peer == rank()) continue;
    traffic.push_back({.rank = peer,
                       .sends = true,
                       .outgoing = bytes,
                       .receives = true,
                       .growing = &gathered[static_cast<std::size_t>(peer)]});
  }
  state_->exchange->run(Collective::all_gather, traffic);
  return gathered;
}

std::vector<std::byte> RankLink::broadcast(std::span<const std::byte> bytes, int root) {
  std::vector<std::byte> result;
  if (rank() == root) result.assign(bytes.begin(), bytes.end());
  if (!state_->exchange) return result;
  std::vector<PeerTraffic> traffic;
  for (int peer = 0; peer < world_size(); ++peer) {
    if (rank() == root && peer != root) traffic.push_back({.rank = peer, .sends = true, .outgoing = bytes});
  }
  if (rank() != root) traffic.push_back({.rank = root, .receives = true, .growing = &result});
  state_->exchange->run(Collective::broadcast, traffic);
  return result;
}

void RankLink::exchange(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) {
  if (!state_->exchange) return;
  std::vector<PeerTraffic> by_rank(static_cast<std::size_t>(world_size()));
  for (const Outgoing& one : outgoing) {
    PeerTraffic& peer = by_rank[static_cast<std::size_t>(one.rank)];
    peer.sends = true;
    peer.outgoing = one.bytes;
  }
  for (const Incoming& one : incoming) {
    PeerTraffic& peer = by_rank[static_cast<std::size_t>(one.rank)];
    peer.receives = true;
    peer.incoming = one.bytes;
  }
  std::vector<PeerTraffic> traffic;
  for (int peer = 0; peer < world_size(); ++peer) {
    PeerTraffic& one = by_rank[static_cast<std::size_t>(peer)];
    one.rank = peer;
    if (peer != rank() && (one.sends || one.receives)) traffic.push_back(one);
  }
  state_->exchange->run(Collective::exchange, traffic);
}

bool RankLink::any(bool mine) {
  const std::byte flag{mine ? std::uint8_t{1} : std::uint8_t{0}};
  return std::ranges::any_of(all_gather({&flag, 1}), [](const auto& one) { return one.at(0) != std::byte{0}; });
}

void RankLink::set_activity(std::string_view activity) {
  if (state_->watch) state_->watch->set_activity(activity);
}

std::optional<RankFailure> RankLink::failure() const {
  return state_->watch ? state_->watch->failure() : std::nullopt;
}

void RankLink::check() const {
  if (const auto known = failure()) throw Error(known->code, known->message);
}

void RankLink::tell_failure(ExitCode code, std::string_view message) {
  if (state_->watch) state_->watch->tell_failure(code, message);
}

}  // namespace qshard
