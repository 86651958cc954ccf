#include "common/model/parameters.h"

#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

constexpr int64_t kAlignment = 16;  // Elements: a cache line of float32.

// Bytes as they lie in memory: little-endian, like all machines that this runs on.
struct SnapshotHeader {
  char magic[4] = {'P', 'M', 'P', 'C'};
  uint16_t format_version = 1;
  uint16_t dtype = 0;  // LearnerConfig.PublishDtype.
  uint64_t num_elements = 0;
};
static_assert(sizeof(SnapshotHeader) == 16);

struct NetworkShape {
  ParameterGroup group;
  std::string name;
  std::vector<int64_t> widths;  // Input, hidden layers, output.
  bool last_normalised = false;
  int64_t heads = 0;  // 0: not an ensemble.
};

std::vector<NetworkShape> Networks(const ModelSpec& spec) {
  const v1::ModelConfig& c = spec.config;
  const int64_t latent = c.latent_dim(), action = spec.action_dim, mlp = c.mlp_dim();
  std::vector<int64_t> encoder = {spec.obs_dim};
  encoder.resize(1 + std::max(c.encoder_layers() - 1, 1), c.encoder_dim());
  encoder.push_back(latent);
  const int64_t value_input = latent + (c.value_kind() == v1::ModelConfig::Q ? action : 0);

  using Group = ParameterGroup;
  std::vector<NetworkShape> networks = {
      {Group::kEncoder, "encoder", encoder, true},
      {Group::kDynamics, "dynamics", {latent + action, mlp, mlp, latent}, true},
      {Group::kReward, "reward", {latent + action, mlp, mlp, c.num_bins()}}};
  if (c.predict_termination()) {
    networks.push_back({Group::kTermination, "termination", {latent, mlp, mlp, 1}});
  }
  networks.push_back(
      {Group::kValue, "value", {value_input, mlp, mlp, c.num_bins()}, false, c.num_value_heads()});
  networks.push_back({Group::kPolicy, "policy", {latent, mlp, mlp, 2 * action}});
  if (spec.intermediate_prior) {
    networks.push_back({Group::kPrior, "prior", {latent, mlp, mlp, 2 * action}});
  }
  return networks;
}

// The last layer of a network without a normalised one.
bool IsLastLayer(const ParameterLayout& layout, const NamedParameter& p) {
  const std::string prefix = p.name.substr(0, p.name.rfind('.'));
  return !layout.Contains(prefix + ".ln.weight");
}

}  // namespace

bool IsRegularised(const v1::LearningConfig& config) {
  if (config.policy_objective() != v1::LearningConfig::REGULARISED) return false;
  return config.kl_weight() > 0 || config.kl_weight_final() > 0 || config.has_target_kl();
}

ModelSpec ModelSpec::FromConfig(const v1::RunConfig& config, int64_t obs_dim, int64_t action_dim) {
  const bool learned = IsRegularised(config.learning()) &&
                       config.learning().prior_source() == v1::LearningConfig::LEARNED;
  return {config.model(), obs_dim, action_dim, learned || config.planner().proposal_mix() > 0};
}

void ParameterLayout::Add(ParameterGroup group, std::string name, std::vector<int64_t> shape) {
  NamedParameter p = {std::move(name), std::move(shape), size_, 1, group};
  for (const int64_t n : p.shape) p.size *= n;
  size_ += (p.size + kAlignment - 1) / kAlignment * kAlignment;
  index_.emplace(p.name, parameters_.size());
  parameters_.push_back(std::move(p));
}

absl::StatusOr<ParameterLayout> ParameterLayout::Create(const ModelSpec& spec) {
  const v1::ModelConfig& c = spec.config;
  if (spec.obs_dim < 1 || spec.action_dim < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("obs_dim=", spec.obs_dim, " action_dim=", spec.action_dim, " must be >= 1"));
  }
  if (c.simnorm_dim() < 1 || c.latent_dim() < 1 || c.latent_dim() % c.simnorm_dim() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.latent_dim=", c.latent_dim(),
                     " is no multiple of model.simnorm_dim=", c.simnorm_dim()));
  }
  ParameterLayout layout;
  for (const NetworkShape& network : Networks(spec)) {
    ParameterRange& range = layout.ranges_[static_cast<int>(network.group)];
    range.begin = layout.size_;
    const int last = static_cast<int>(network.widths.size()) - 2;
    for (int i = 0; i <= last; ++i) {
      const int64_t in = network.widths[i], out = network.widths[i + 1];
      const auto add = [&](const char* suffix, std::vector<int64_t> shape) {
        if (network.heads > 0) shape.insert(shape.begin(), network.heads);
        layout.Add(network.group, absl::StrCat(network.name, ".", i, ".", suffix),
                   std::move(shape));
      };
      add("weight", {out, in});
      add("bias", {out});
      if (i < last || network.last_normalised) {
        add("ln.weight", {out});
        add("ln.bias", {out});
      }
    }
    range.end = layout.size_;
  }
  return layout;
}

const NamedParameter& ParameterLayout::Find(std::string_view name) const {
  const auto it = index_.find(name);
  POMPC_CHECK(it != index_.end()) << "no parameter named " << name;
  return parameters_[it->second];
}

absl::StatusOr<std::shared_ptr<Parameters>> Parameters::Create(const ModelSpec& spec,
                                                               ParameterUse use,
                                                               const at::TensorOptions& options) {
  POMPC_ASSIGN_OR_RETURN(ParameterLayout layout, ParameterLayout::Create(spec));
  std::shared_ptr<Parameters> p(new Parameters(spec, std::move(layout)));
  p->flat_ = at::zeros({p->layout_.size()}, options);
  if (use == ParameterUse::kActing) return p;
  p->grad_ = at::zeros_like(p->flat_);
  p->target_ = at::zeros({p->layout_.range(ParameterGroup::kValue).size()}, options);
  for (const NamedParameter& named : p->layout_.parameters()) {
    // A tensor of its own over the same memory: autograd must not see it as a view of the buffer.
    at::Tensor leaf = p->View(named.name).variable_data();
    leaf.set_requires_grad(true);
    leaf.mutable_grad() = p->grad_.narrow(0, named.offset, named.size).view(named.shape);
    p->leaves_.push_back(std::move(leaf));
  }
  return p;
}

at::Tensor Parameters::View(std::string_view name) const {
  const NamedParameter& p = layout_.Find(name);
  return flat_.narrow(0, p.offset, p.size).view(p.shape);
}

at::Tensor Parameters::TargetView(std::string_view name) const {
  const NamedParameter& p = layout_.Find(name);
  POMPC_CHECK(p.group == ParameterGroup::kValue && target_.defined()) << name << " has no target";
  return target_.narrow(0, p.offset - layout_.range(ParameterGroup::kValue).begin, p.size)
      .view(p.shape);
}

at::Tensor Parameters::Leaf(std::string_view name) const {
  POMPC_CHECK(!leaves_.empty()) << "gradients exist only in training";
  return leaves_[&layout_.Find(name) - layout_.parameters().data()];
}

void Parameters::Initialise(uint64_t seed) {
  const at::NoGradGuard no_grad;
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const bool uniform = spec_.config.value_init() == v1::ModelConfig::UNIFORM_FAN_IN;
  // On the CPU in float32 whatever the buffer is, so that one seed gives one network.
  for (const NamedParameter& p : layout_.parameters()) {
    at::Tensor values = at::zeros(p.shape, at::kFloat);
    const bool is_weight = absl::EndsWith(p.name, ".weight");
    const bool is_norm = absl::StrContains(p.name, ".ln.");
    const bool head = p.group == ParameterGroup::kReward || p.group == ParameterGroup::kValue;
    const bool zero = is_weight && !is_norm && head && IsLastLayer(layout_, p);
    if (is_norm) {
      values.fill_(is_weight ? 1 : 0);
    } else if (p.group == ParameterGroup::kValue && uniform && !zero) {
      const std::string weight = p.name.substr(0, p.name.rfind('.')) + ".weight";
      const double bound = 1 / std::sqrt(static_cast<double>(layout_.Find(weight).shape.back()));
      values.uniform_(-bound, bound, generator);
    } else if (is_weight && !zero) {
      values.normal_(0, 0.02, generator);
    }
    View(p.name).copy_(values);
  }
  if (target_.defined()) target_.copy_(layout_.range(ParameterGroup::kValue).Of(flat_));
}

PendingSnapshot Parameters::StartSnapshot(v1::LearnerConfig::PublishDtype dtype) const {
  const at::ScalarType type = dtype == v1::LearnerConfig::BFLOAT16 ? at::kBFloat16 : at::kFloat;
  // One copy from a GPU, at full speed only into pinned memory.
  const at::TensorOptions host = at::TensorOptions(type).pinned_memory(flat_.is_cuda());
  PendingSnapshot snapshot;
  snapshot.values_ = at::empty({layout_.size()}, host);
  snapshot.values_.copy_(flat_.to(type), /*non_blocking=*/true);
  if (flat_.is_cuda()) {
    const c10::impl::VirtualGuardImpl guard(flat_.device().type());
    snapshot.copied_.emplace(flat_.device().type());
    snapshot.copied_->record(guard.getStream(flat_.device()));
  }
  return snapshot;
}

bool AllFinite(const at::Tensor& values) {
  // A sum is finite only if all terms are. In their own type it takes a fraction of the time, but
  // may overflow; finite float32 terms cannot overflow a double.
  return std::isfinite(values.sum().item<double>()) ||
         std::isfinite(values.sum(at::kDouble).item<double>());
}

bool PendingSnapshot::Finite() const {
  if (copied_.has_value()) copied_->synchronize();
  return AllFinite(values_);
}

std::string PendingSnapshot::Bytes() const {
  if (copied_.has_value()) copied_->synchronize();
  const bool bfloat16 = values_.scalar_type() == at::kBFloat16;
  const SnapshotHeader header = {
      .dtype = static_cast<uint16_t>(bfloat16 ? v1::LearnerConfig::BFLOAT16
                                              : v1::LearnerConfig::FLOAT32),
      .num_elements = static_cast<uint64_t>(values_.numel())};
  std::string bytes(sizeof(header) + values_.nbytes(), '\0');
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::memcpy(bytes.data() + sizeof(header), values_.const_data_ptr(), values_.nbytes());
  return bytes;
}

absl::Status Parameters::LoadSnapshot(std::string_view bytes) {
  SnapshotHeader header;
  if (bytes.size() < sizeof(header)) return absl::InvalidArgumentError("no parameter snapshot");
  std::memcpy(&header, bytes.data(), sizeof(header));
  const std::string_view content = bytes.substr(sizeof(header));
  const SnapshotHeader expected = {.dtype = header.dtype,
                                   .num_elements = static_cast<uint64_t>(layout_.size())};
  if (std::memcmp(header.magic, expected.magic, sizeof(header.magic)) != 0) {
    return absl::InvalidArgumentError("no parameter snapshot");
  }
  if (header.format_version != expected.format_version) {
    return absl::InvalidArgumentError(absl::StrCat("parameter snapshot has format version ",
                                                   header.format_version, ", this program reads ",
                                                   expected.format_version));
  }
  at::ScalarType type;
  switch (header.dtype) {
    case v1::LearnerConfig::FLOAT32:
      type = at::kFloat;
      break;
    case v1::LearnerConfig::BFLOAT16:
      type = at::kBFloat16;
      break;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("parameter snapshot has the unknown dtype ", header.dtype));
  }
  const size_t size = static_cast<size_t>(layout_.size()) * at::elementSize(type);
  if (header.num_elements != expected.num_elements || content.size() != size) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter snapshot holds ", header.num_elements, " elements in ",
                     content.size(), " bytes, this model needs ", layout_.size(), " in ", size));
  }
  at::Tensor values =
      at::empty({layout_.size()}, at::TensorOptions(type).pinned_memory(flat_.is_cuda()));
  std::memcpy(values.data_ptr(), content.data(), content.size());
  values = values.to(flat_.device()).to(at::kFloat);
  if (!AllFinite(values)) {
    return absl::InvalidArgumentError("parameter snapshot holds values that are not finite");
  }
  flat_.copy_(values);
  return absl::OkStatus();
}

}  // namespace pompc
