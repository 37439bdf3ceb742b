#include "optimized/sharded/weight_cache.h"

#include <chrono>
#include <set>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/file.h"

namespace qshard::optimized {

namespace fs = std::filesystem;

/// The checkpoint, with the weights of a cache in their place; or one whose quantized weights are written down.
class WeightCache::Source : public WeightSource {
 public:
  Source(const HfCheckpoint& checkpoint, const EngineOptions& options, const QuantizedCache* cache)
      : checkpoint_(&checkpoint), options_(&options), inner_(make_checkpoint_source(checkpoint)), cache_(cache) {}

  /// Compares every cached weight with the first load; those that differ are not used.
  void leave_out_changed() {
    for (const std::string& name : checkpoint_->names()) {
      if (cache_->contains(name) && !cache_->is_unchanged(name, checkpoint_->tensor(name))) changed_.insert(name);
    }
  }
  void leave_out(std::set<std::string> changed) { changed_ = std::move(changed); }
  [[nodiscard]] const std::set<std::string>& changed() const { return changed_; }

  void write_to(const fs::path& directory) { writer_.emplace(directory); }
  [[nodiscard]] const std::optional<QuantizedCacheWriter>& writer() const { return writer_; }
  [[nodiscard]] const std::string& failure() const { return failure_; }

  [[nodiscard]] std::optional<Weight4bitInfo> prequantized(const std::string& name) const override {
    if (!is_cached(name)) return inner_->prequantized(name);
    return of_this_run(cache_->info(name));
  }

  [[nodiscard]] Weight4bit read_4bit(const std::string& name) const override {
    if (!is_cached(name)) return inner_->read_4bit(name);
    Weight4bit weight = cache_->read(name);
    weight.info = of_this_run(weight.info);
    return weight;
  }

  void read_ahead(const std::string& name) const override {
    if (is_cached(name)) {
      cache_->read_ahead(name);
    } else {
      inner_->read_ahead(name);
    }
  }

  void check_quantizable(const std::string& name) const override { inner_->check_quantizable(name); }

  [[nodiscard]] bool wants_quantized() const override { return writer_.has_value() && failure_.empty(); }

  void quantized(const std::string& name, const Weight4bit& weight) const override {
    try {
      writer_->add(name, weight, checkpoint_->tensor(name));
    } catch (const Error& error) {
      failure_ = error.what();
    }
  }

  [[nodiscard]] DType written_dtype(const std::string& name, DType wanted) const override {
    return inner_->written_dtype(name, wanted);
  }
  void write(const std::string& name, const Shape& shape, DType wanted, bool exactly, void* out,
             cudaStream_t stream) const override {
    inner_->write(name, shape, wanted, exactly, out, stream);
  }

 private:
  [[nodiscard]] bool is_cached(const std::string& name) const {
    return cache_ != nullptr && cache_->contains(name) && !changed_.contains(name);
  }

  [[nodiscard]] Weight4bitInfo of_this_run(Weight4bitInfo info) const {
    info.dtype = options_->dtype;
    info.storage = options_->quantization.quant_storage;
    return info;
  }

  const HfCheckpoint* checkpoint_;
  const EngineOptions* options_;
  std::unique_ptr<WeightSource> inner_;
  const QuantizedCache* cache_;  // null: there is none
  std::set<std::string> changed_;
  // Changed while the loader tells what it quantized.
  mutable std::optional<QuantizedCacheWriter> writer_;
  mutable std::string failure_;  // why nothing is written any more
};

namespace {

std::string to_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string broadcast(RankLink& link, const std::string& text) {
  return to_text(link.broadcast(std::as_bytes(std::span(text)), 0));
}

std::vector<std::string> all_gather(RankLink& link, const std::string& text) {
  std::vector<std::string> texts;
  for (const auto& bytes : link.all_gather(std::as_bytes(std::span(text)))) texts.push_back(to_text(bytes));
  return texts;
}

}  // namespace

WeightCache::WeightCache(const HfCheckpoint& checkpoint, const EngineOptions& options, const fs::path& root,
                         bool checks, RankLink& link)
    : checkpoint_(&checkpoint),
      options_(options),
      place_(quantized_cache_place(root, checkpoint, options.quantization)),
      link_(&link) {
  const bool wanted = is_wanted();
  if (wanted) {
    identity_ = quantized_cache_identity(checkpoint, options.quantization);
    cache_ = QuantizedCache::open(place_, identity_);
  }
  const bool usable = !link.any(!cache_.has_value());
  if (!usable) cache_.reset();
  source_ = std::make_unique<Source>(checkpoint, options_, usable ? &*cache_ : nullptr);
  if (!usable) {
    if (wanted) begin_writing();
    return;
  }
  if (!checks) return;
  if (link.is_first()) source_->leave_out_changed();
  std::set<std::string> changed;
  const std::string told = broadcast(link, Json(source_->changed()).dump());
  for (const Json& name : parse_json(told, "rank 0")) changed.insert(name.get<std::string>());
  source_->leave_out(std::move(changed));
}

WeightCache::~WeightCache() = default;

const WeightSource& WeightCache::source() const {
  return *source_;
}

bool WeightCache::is_wanted() const {
  return options_.quantization.load_in_4bit && !checkpoint_->config().prequantized_4bit;
}

void WeightCache::begin_writing() {
  if (link_->local_world_size() != link_->world_size()) return;
  std::string path;
  if (link_->is_first()) {
    try {
      make_directories(place_.parent_path());
      remove_leftovers_of(place_);
      path = directory_.emplace(place_).path().string();
    } catch (const Error& error) {
      path = fmt::format("\n{}", error.what());
    }
  }
  path = broadcast(*link_, path);
  if (!path.starts_with('\n')) source_->write_to(path);
}

std::string WeightCache::finish() {
  if (!is_wanted()) return {};
  if (cache_) {
    const std::size_t changed = source_->changed().size();
    if (changed == 0) return fmt::format("quantized weights from {}", place_.string());
    return fmt::format(
        "{} of the weights in {} are not those of the first load, or were made from other bytes; they were "
        "quantized again: remove that directory",
        changed, place_.string());
  }
  return commit();
}

std::string WeightCache::commit() {
  if (link_->local_world_size() != link_->world_size()) return "quantized weights are not cached over several hosts";
  const bool writes = source_->writer().has_value();
  const Json mine = writes ? source_->writer()->entries() : Json::object();
  const std::string failure = writes ? source_->failure() : fmt::format("{} cannot be written", place_.string());
  std::string failed;
  for (const std::string& text : all_gather(*link_, failure)) {
    if (failed.empty()) failed = text;
  }
  Json entries = Json::object();
  for (const std::string& text : all_gather(*link_, mine.dump())) entries.update(parse_json(text, "another rank"));
  if (link_->is_first() && failed.empty()) {
    try {
      const bool settled = is_settled(*checkpoint_, std::chrono::system_clock::now());
      if (!settled || quantized_cache_identity(*checkpoint_, options_.quantization) != identity_) {
        failed = "the checkpoint's files have just been changed";
      } else {
        QuantizedCacheWriter::write_manifest(directory_->path(), identity_, entries);
        directory_->commit();
      }
    } catch (const Error& error) {
      failed = error.what();
    }
  }
  directory_.reset();
  failed = broadcast(*link_, failed);
  if (!failed.empty()) return fmt::format("quantized weights were not cached: {}", failed);
  return fmt::format("wrote quantized weights to {}", place_.string());
}

}  // namespace qshard::optimized
