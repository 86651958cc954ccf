// Every task against what dm_control gives for it, bit by bit: compiled model, observation and
// reward in chosen states, seeded resets, rollouts.
//
// One fixture is one case of each test. Fixtures come from dm_control 1.0.50 on MuJoCo 4.0.0; to
// check more, point $POMPC_FIXTURES at folders with further .dmcref files.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "actor/env/dmcref.h"
#include "actor/env/numerics.h"
#include "actor/env/suite_environment.h"
#include "common/base/check.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mujoco/mjxmacro.h"

namespace pompc::dmc {
namespace {

// Unpacked archives live as long as the process.
class ScratchFolder {
 public:
  ScratchFolder()
      : path_(std::filesystem::temp_directory_path() / absl::StrCat("pompc_fixtures_", getpid())) {
    std::filesystem::create_directories(path_);
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  std::string path() const { return path_.string(); }

 private:
  const std::filesystem::path path_;
};

const std::vector<std::string>& Fixtures() {
  static const ScratchFolder* const scratch = new ScratchFolder;
  static const std::vector<std::string>* const fixtures = [] {
    std::atexit([] { delete scratch; });
    return new std::vector<std::string>(FindFixtures(scratch->path()));
  }();
  return *fixtures;
}

// Compares bit by bit, but for the sign of zero; says where and by how much they differ.
::testing::AssertionResult Same(absl::Span<const double> actual,
                                const std::vector<double>& expected) {
  if (actual.size() != expected.size()) {
    return ::testing::AssertionFailure() << actual.size() << " values, not " << expected.size();
  }
  size_t different = 0, first = 0;
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (actual[i] == expected[i]) continue;
    if (different++ == 0) first = i;
    worst = std::max(worst, std::abs(actual[i] - expected[i]) / (1 + std::abs(expected[i])));
  }
  if (different == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << different << " of " << expected.size() << " values differ, from index " << first
         << ", relative difference up to " << worst;
}

// numpy's sum() of any number of elements.
double PairwiseSum(absl::Span<const double> a) {
  if (a.size() <= 128) return Sum(a);
  const size_t half = a.size() / 2 - a.size() / 2 % 8;
  return PairwiseSum(a.subspan(0, half)) + PairwiseSum(a.subspan(half));
}

// All array fields of a model, as doubles.
std::map<std::string, std::vector<double>> ModelFields(const mjModel* m) {
  std::map<std::string, std::vector<double>> fields;
#undef MJ_M
#define MJ_M(n) m->n
#define X(type, name, rows, columns) \
  fields[#name] = std::vector<double>(m->name, m->name + static_cast<size_t>(m->rows) * (columns));
#define XNV X
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-variable"  // Of the sizes that only some fields need.
  MJMODEL_POINTERS_PREAMBLE(m)
#pragma GCC diagnostic pop
  MJMODEL_POINTERS
#undef XNV
#undef X
#undef MJ_M
  return fields;
}

// The editable model field of this name, for fixtures that list entries of it.
mjtNum* EditedField(mjModel& m, const std::string& name) {
  const std::map<std::string, mjtNum*> fields = {
      {"geom_pos", m.geom_pos},          {"geom_size", m.geom_size},
      {"site_pos", m.site_pos},          {"site_size", m.site_size},
      {"body_pos", m.body_pos},          {"body_quat", m.body_quat},
      {"wrap_prm", m.wrap_prm},          {"dof_damping", m.dof_damping},
      {"jnt_stiffness", m.jnt_stiffness}};
  const auto it = fields.find(name);
  return it == fields.end() ? nullptr : it->second;
}

uint64_t Hash(absl::Span<const double> values, uint64_t hash) {
  for (const double value : values) {
    uint64_t word;
    std::memcpy(&word, &value, sizeof(word));
    hash = (hash ^ word) * 0x100000001b3u;
  }
  return hash;
}

class SuiteFixtureTest : public ::testing::TestWithParam<std::string> {
 protected:
  SuiteFixtureTest() : ref_(*Dmcref::Read(GetParam())), environment_(Environment(ref_)) {
    environment_->Seed(0);
    observation_.resize(environment_->spec().observation_dim);
  }

  // One environment per task for the whole program, because compiling a dog takes a second.
  static SuiteEnvironment* Environment(const Dmcref& ref) {
    static auto* const environments = new std::map<std::string, std::unique_ptr<SuiteEnvironment>>;
    EnvironmentOptions options;
    options.task = ref.Value("task");
    std::unique_ptr<SuiteEnvironment>& environment = (*environments)[options.task];
    if (environment == nullptr) {
      auto created = SuiteEnvironment::Create(options);
      POMPC_CHECK_OK(created.status());
      environment = *std::move(created);
    }
    return environment.get();
  }

  absl::Status Reset() { return environment_->Reset(absl::MakeSpan(observation_)); }
  Physics& physics() { return environment_->physics(); }
  absl::Span<const double> Warmstart() {
    return {physics().data().qacc_warmstart, static_cast<size_t>(physics().model().nv)};
  }
  std::vector<double> State() {
    std::vector<double> state;
    for (const absl::Span<const double> part :
         {absl::Span<const double>(physics().qpos()), absl::Span<const double>(physics().qvel()),
          absl::Span<const double>(physics().act()), Warmstart()}) {
      state.insert(state.end(), part.begin(), part.end());
    }
    return state;
  }
  // Fields that resets change, with the entries concerned.
  std::map<std::string, std::vector<double>> EditedEntries() const {
    std::map<std::string, std::vector<double>> entries;
    for (const std::string& array : ref_.ArraysWithPrefix("edit_idx.")) {
      std::vector<double>& indices = entries[array.substr(strlen("edit_idx."))];
      for (size_t i = 0; i < ref_.Rows(array); ++i) indices.push_back(ref_.Row(array, i)[0]);
    }
    return entries;
  }
  // Present values of those entries.
  std::vector<double> Edits(const std::string& field, const std::vector<double>& indices) {
    mjModel& m = physics().editable_model();
    std::vector<double> values;
    for (const double index : indices) {
      const size_t i = static_cast<size_t>(index);
      values.push_back(field == "hfield_data" ? m.hfield_data[i] : EditedField(m, field)[i]);
    }
    return values;
  }

  // The present observation against dm_control's.
  ::testing::AssertionResult SameObservation(std::vector<double> expected) {
    const std::vector<double>& actual = environment_->ObservePrecisely();
    // numpy has a tanh of its own, a little different from libm's; it is used here alone.
    constexpr double kTanhTolerance = 4 * std::numeric_limits<double>::epsilon();
    for (const ObservationSlice& slice : environment_->spec().observation) {
      if (slice.name != "rangefinder") continue;
      for (int64_t i = slice.offset; i < slice.offset + slice.size; ++i) {
        if (std::abs(actual[i] - expected[i]) <= kTanhTolerance) expected[i] = actual[i];
      }
    }
    return Same(actual, expected);
  }

  const Dmcref ref_;
  SuiteEnvironment* const environment_;
  std::vector<float> observation_;
};

TEST_P(SuiteFixtureTest, CompiledModelIsDmControls) {
  const mjModel& m = physics().model();
  const std::map<std::string, std::vector<double>> fields = ModelFields(&m);
  ASSERT_GT(ref_.Meta("model").size(), 80u);
  for (const std::string& line : ref_.Meta("model")) {
    std::istringstream words(line);
    std::string name;
    size_t size;
    double sum, absolute_sum, square_sum;
    words >> name >> size >> sum >> absolute_sum >> square_sum;
    ASSERT_EQ(fields.count(name), 1u) << name;
    std::vector<double> values = fields.at(name);
    ASSERT_EQ(values.size(), size) << name;
    EXPECT_EQ(PairwiseSum(values), sum) << name;
    std::vector<double> squares;
    for (double& value : values) {
      value = std::abs(value);
      squares.push_back(value * value);
    }
    EXPECT_EQ(PairwiseSum(values), absolute_sum) << name;
    EXPECT_EQ(PairwiseSum(squares), square_sum) << name;
  }
}

TEST_P(SuiteFixtureTest, OptionsAreDmControls) {
  const mjOption& o = physics().model().opt;
  const std::map<std::string, double> options = {{"timestep", o.timestep},
                                                 {"integrator", o.integrator},
                                                 {"cone", o.cone},
                                                 {"solver", o.solver},
                                                 {"iterations", o.iterations},
                                                 {"ls_iterations", o.ls_iterations},
                                                 {"tolerance", o.tolerance},
                                                 {"noslip_iterations", o.noslip_iterations},
                                                 {"density", o.density},
                                                 {"viscosity", o.viscosity},
                                                 {"impratio", o.impratio},
                                                 {"gravity_z", o.gravity[2]},
                                                 {"disableflags", o.disableflags},
                                                 {"enableflags", o.enableflags}};
  ASSERT_EQ(ref_.Meta("opt").size(), options.size());
  for (const std::string& line : ref_.Meta("opt")) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    EXPECT_EQ(options.at(words[0]), std::stod(words[1])) << words[0];
  }
}

TEST_P(SuiteFixtureTest, SpecIsDmControls) {
  const EnvironmentSpec& spec = environment_->spec();
  std::vector<std::string> slices;
  int64_t offset = 0;
  for (const ObservationSlice& slice : spec.observation) {
    EXPECT_EQ(slice.offset, offset);
    offset += slice.size;
    slices.push_back(absl::StrCat(slice.name, " ", slice.size));
  }
  EXPECT_EQ(offset, spec.observation_dim);
  EXPECT_EQ(slices, ref_.Meta("obs"));
  EXPECT_EQ(spec.observation_dim, ref_.Int("nobs"));
  EXPECT_EQ(spec.action_dim, ref_.Int("nu"));
  EXPECT_EQ(spec.control_timestep_seconds, std::stod(ref_.Value("control_timestep")));
  EXPECT_EQ(environment_->substeps(), ref_.Int("n_sub_steps"));
  for (int i = 0; i < spec.action_dim; ++i) {
    const double low = ref_.Row("action_min", i)[0];
    EXPECT_EQ(spec.action_min[i], low <= -1e9 ? -1 : low);
    const double high = ref_.Row("action_max", i)[0];
    EXPECT_EQ(spec.action_max[i], high >= 1e9 ? 1 : high);
  }
  if (ref_.Value("step_limit") != "inf") {
    EXPECT_EQ(spec.episode_steps, std::stod(ref_.Value("step_limit")));
  }
}

TEST_P(SuiteFixtureTest, ObservationAndRewardOfStatesAreExact) {
  ASSERT_TRUE(Reset().ok());
  const auto edited = EditedEntries();
  if (edited.count("hfield_data") != 0) {
    const std::vector<double> heights = ref_.Row("reset.edit.hfield_data", 0);
    for (size_t i = 0; i < heights.size(); ++i) {
      physics().editable_model().hfield_data[static_cast<int>(edited.at("hfield_data")[i])] =
          static_cast<float>(heights[i]);
    }
  }
  ASSERT_GT(ref_.Rows("probe.obs"), 0u);
  for (size_t row = 0; row < ref_.Rows("probe.obs"); ++row) {
    for (const auto& [field, indices] : edited) {
      if (!ref_.Has("probe.edit." + field)) continue;
      const std::vector<double> values = ref_.Row("probe.edit." + field, row);
      for (size_t i = 0; i < values.size(); ++i) {
        EditedField(physics().editable_model(), field)[static_cast<int>(indices[i])] = values[i];
      }
    }
    mjData* d = &physics().data();
    mj_resetData(&physics().model(), d);
    const auto set = [this, row](const std::string& name, mjtNum* to) {
      const std::vector<double> values = ref_.Row("probe." + name, row);
      std::copy(values.begin(), values.end(), to);
    };
    set("qpos", d->qpos);
    set("qvel", d->qvel);
    set("act", d->act);
    set("ctrl", d->ctrl);
    mj_forward(&physics().model(), d);
    EXPECT_TRUE(SameObservation(ref_.Row("probe.obs", row))) << row;
    EXPECT_TRUE(Same({environment_->Reward()}, ref_.Row("probe.reward", row))) << row;
  }
}

TEST_P(SuiteFixtureTest, SeededResetsAreExact) {
  constexpr size_t kEpisodes = 2;
  const auto edited = EditedEntries();
  const size_t rows = ref_.Rows("reset.obs");
  ASSERT_GT(rows, 0u);
  for (size_t row = 0; row < rows; ++row) {
    SCOPED_TRACE(absl::StrCat("seed ", row / kEpisodes, ", episode ", row % kEpisodes));
    if (row % kEpisodes == 0) environment_->Seed(static_cast<uint32_t>(row / kEpisodes));
    ASSERT_TRUE(Reset().ok());
    EXPECT_TRUE(Same(physics().qpos(), ref_.Row("reset.qpos", row)));
    EXPECT_TRUE(Same(physics().qvel(), ref_.Row("reset.qvel", row)));
    EXPECT_TRUE(Same(physics().act(), ref_.Row("reset.act", row)));
    EXPECT_TRUE(Same(Warmstart(), ref_.Row("reset.warm", row)));
    const std::vector<double> expected = ref_.Row("reset.obs", row);
    EXPECT_TRUE(SameObservation(expected));
    EXPECT_EQ(observation_, std::vector<float>(expected.begin(), expected.end()));
    RandomState next = environment_->random();
    EXPECT_EQ(next.NextWord(), ref_.Row("reset.next_u32", row)[0]);
    for (const auto& [field, indices] : edited) {
      if (row >= ref_.Rows("reset.edit." + field)) continue;  // Heightfields: seed 0 only.
      EXPECT_TRUE(Same(Edits(field, indices), ref_.Row("reset.edit." + field, row))) << field;
    }
  }
}

TEST_P(SuiteFixtureTest, RolloutsAreExact) {
  const size_t state_every = ref_.Int("state_every");
  ASSERT_TRUE(ref_.Has("roll0.obs"));
  for (uint32_t seed = 0; ref_.Has(absl::StrCat("roll", seed, ".obs")); ++seed) {
    const std::string roll = absl::StrCat("roll", seed, ".");
    environment_->Seed(seed);
    ASSERT_TRUE(Reset().ok());
    ASSERT_TRUE(Same(State(), ref_.Row(roll + "state", 0)));
    for (size_t step = 0; step < ref_.Rows(roll + "obs"); ++step) {
      SCOPED_TRACE(absl::StrCat("seed ", seed, ", step ", step));
      const StepResult result = environment_->ControlStep(ref_.Row(roll + "action", step));
      ASSERT_EQ(Hash(physics().act(),
                     Hash(physics().qvel(), Hash(physics().qpos(), 0xcbf29ce484222325u))),
                ref_.Bits(roll + "state_hash", step));
      EXPECT_TRUE(SameObservation(ref_.Row(roll + "obs", step)));
      EXPECT_TRUE(Same({result.reward}, ref_.Row(roll + "reward", step)));
      EXPECT_EQ(result.terminated, ref_.Row(roll + "discount", step)[0] == 0);
      EXPECT_EQ(result.terminated || result.truncated, ref_.Row(roll + "step_type", step)[0] == 2);
      if ((step + 1) % state_every == 0) {
        EXPECT_TRUE(Same(State(), ref_.Row(roll + "state", (step + 1) / state_every)));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tasks, SuiteFixtureTest, ::testing::ValuesIn(Fixtures()),
                         [](const ::testing::TestParamInfo<std::string>& info) {
                           std::string name = std::filesystem::path(info.param).stem().string();
                           std::replace(name.begin(), name.end(), '-', '_');
                           return absl::StrCat(name, "_", info.index);
                         });

TEST(SuiteFixtureCoverageTest, EveryTaskHasAFixture) {
  if (std::getenv("POMPC_FIXTURES") != nullptr) GTEST_SKIP() << "fixtures chosen by the caller";
  std::vector<std::string> tasks;
  for (const std::string& path : Fixtures()) tasks.push_back(Dmcref::Read(path)->Value("task"));
  EXPECT_THAT(tasks, ::testing::IsSupersetOf(TaskNames()));
}

}  // namespace
}  // namespace pompc::dmc
