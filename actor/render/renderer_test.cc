#include "actor/render/renderer.h"

#include <algorithm>
#include <string>
#include <vector>

#include "actor/render/gl_context.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

const RenderOptions kSmall = {.width = 160, .height = 120};

class RendererTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto context = GlContext::Create(); !context.ok()) {
      GTEST_SKIP() << context.status();
    }
  }
};

// An episode of `task` at its start.
class Episode {
 public:
  explicit Episode(const std::string& task) {
    environment_ = CreateEnvironment({.task = task}).value();
    observation_.resize(environment_->spec().observation_dim);
    EXPECT_TRUE(environment_->Reset(absl::MakeSpan(observation_)).ok());
  }
  void Step(float action, int decisions) {
    const std::vector<float> actions(action_dim(), action);
    for (int i = 0; i < decisions; ++i) {
      ASSERT_TRUE(environment_->Step(actions, absl::MakeSpan(observation_)).ok());
    }
  }
  EnvironmentState state() const {
    EnvironmentState state;
    environment_->SaveState(&state);
    return state;
  }
  size_t action_dim() const { return environment_->spec().action_dim; }

 private:
  std::unique_ptr<Environment> environment_;
  std::vector<float> observation_;
};

std::vector<uint8_t> Picture(Renderer& renderer, const EnvironmentState& state,
                             const Candidates& candidates = {}, const ReturnPlot& plot = {}) {
  const auto picture = renderer.Draw(state, candidates, plot);
  EXPECT_TRUE(picture.ok()) << picture.status();
  return picture.ok() ? std::vector<uint8_t>(picture->begin(), picture->end())
                      : std::vector<uint8_t>();
}

// Bytes that differ, among the upper three quarters of the rows: the scene, not the plot.
int64_t Differences(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  int64_t count = 0;
  for (size_t i = 0; i < a.size() * 3 / 4; ++i) count += a[i] != b[i];
  return count;
}

TEST_F(RendererTest, EveryDomainIsToBeSeenAndMoves) {
  std::string last_domain;
  for (const std::string& task : TaskNames()) {
    const std::string domain = task.substr(0, task.find('-'));
    if (domain == last_domain) continue;
    last_domain = domain;
    SCOPED_TRACE(task);
    const auto renderer = Renderer::Create({.task = task}, kSmall);
    ASSERT_TRUE(renderer.ok()) << renderer.status();
    Episode episode(task);
    const std::vector<uint8_t> first = Picture(**renderer, episode.state());
    ASSERT_EQ(first.size(), 3 * 160 * 120);
    const auto [darkest, brightest] =
        std::minmax_element(first.begin(), first.end() - first.size() / 4);
    EXPECT_GT(*brightest - *darkest, 60);
    episode.Step(0.7f, 20);
    EXPECT_GT(Differences(first, Picture(**renderer, episode.state())), 30);
    EXPECT_EQ(Differences(first, Picture(**renderer, Episode(task).state())), 0);
  }
}

TEST_F(RendererTest, CandidatesAreDrawnAndLeaveTheStateAlone) {
  const auto renderer = Renderer::Create({.task = "walker-walk"}, kSmall);
  ASSERT_TRUE(renderer.ok()) << renderer.status();
  const Episode episode("walker-walk");
  const std::vector<uint8_t> bare = Picture(**renderer, episode.state());
  std::vector<float> actions(2 * 30 * episode.action_dim(), 0.5f);
  std::fill(actions.begin(), actions.begin() + 30 * episode.action_dim(), -0.5f);
  const float values[] = {1, 2};
  EXPECT_GT(Differences(bare, Picture(**renderer, episode.state(), {actions, values})), 30);
  EXPECT_EQ(Differences(bare, Picture(**renderer, episode.state())), 0);
  actions.pop_back();
  EXPECT_TRUE(
      absl::IsInvalidArgument((*renderer)->Draw(episode.state(), {actions, values}, {}).status()));
}

TEST_F(RendererTest, TheReturnIsPlottedBelow) {
  // In a smaller picture labels leave the plot no room.
  const auto renderer =
      Renderer::Create({.task = "cartpole-swingup"}, {.width = 480, .height = 360});
  ASSERT_TRUE(renderer.ok()) << renderer.status();
  const EnvironmentState state = Episode("cartpole-swingup").state();
  const std::vector<double> returns = {1, 2, 4, 8, 16};
  const std::vector<uint8_t> without = Picture(**renderer, state, {}, {{}, 10, 20});
  const std::vector<uint8_t> with = Picture(**renderer, state, {}, {returns, 10, 20});
  EXPECT_EQ(Differences(without, with), 0);
  EXPECT_NE(without, with);
}

TEST_F(RendererTest, ACameraIsChosenByName) {
  const EnvironmentState state = Episode("walker-walk").state();
  const auto side = Renderer::Create({.task = "walker-walk"}, kSmall);
  ASSERT_TRUE(side.ok()) << side.status();
  const std::vector<uint8_t> from_the_side = Picture(**side, state);
  RenderOptions options = kSmall;
  options.camera = "back";
  const auto back = Renderer::Create({.task = "walker-walk"}, options);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_GT(Differences(from_the_side, Picture(**back, state)), 1000);
  options.camera = "front";
  EXPECT_THAT(std::string(Renderer::Create({.task = "walker-walk"}, options).status().message()),
              ::testing::HasSubstr("side, back"));
}

TEST(RendererOptionsTest, AnOddSizeIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(
      Renderer::Create({.task = "walker-walk"}, {.width = 161, .height = 120}).status()));
}

}  // namespace
}  // namespace pompc
