#include "cli/progress.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace pompc {
namespace {

std::string Percent(int64_t part, int64_t whole) {
  return absl::StrFormat("%.0f%%", whole > 0 ? 100.0 * part / whole : 0.0);
}

std::string EvaluationText(const v1::RunStatus& s) {
  if (s.evaluation_decisions() < 0) return "none yet";
  return absl::StrFormat("%.1f (at %s decisions, best %.1f)", s.evaluation_return(),
                         WithThousands(s.evaluation_decisions()), s.best_evaluation_return());
}

std::string EtaText(const v1::RunStatus& s) {
  const double remaining = RemainingSeconds(s);
  return remaining < 0 ? "-" : ShortDuration(remaining);
}

std::string Bar(double fraction, int width) {
  const int filled = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * width);
  return absl::StrCat("[", std::string(filled, '#'), std::string(width - filled, '.'), "]");
}

}  // namespace

std::string WithThousands(int64_t number) {
  std::string digits = absl::StrCat(std::abs(number));
  for (int i = static_cast<int>(digits.size()) - 3; i > 0; i -= 3)
    digits.insert(static_cast<size_t>(i), 1, ',');
  return number < 0 ? absl::StrCat("-", digits) : digits;
}

std::string ShortDuration(double seconds) {
  const int64_t s = std::llround(seconds);
  if (s >= 3600) return absl::StrFormat("%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
  return absl::StrFormat("%d:%02d", s / 60, s % 60);
}

double RemainingSeconds(const v1::RunStatus& status) {
  if (status.phase() != "training" || status.decisions_per_second() <= 0) return -1;
  return static_cast<double>(status.total_decisions() - status.decisions()) /
         status.decisions_per_second();
}

std::string ProgressLine(const v1::RunStatus& s) {
  std::string line = absl::StrFormat(
      "%7s %-11s decisions %s (%s) env steps %s updates %s", ShortDuration(s.seconds()), s.phase(),
      WithThousands(s.decisions()), Percent(s.decisions(), s.total_decisions()),
      WithThousands(s.env_steps()), WithThousands(s.updates()));
  if (s.phase() == "training") {
    absl::StrAppendFormat(
        &line, " | %.1f dec/s %.1f upd/s UTD %.2f parameter lag %d sample age %.0f",
        s.decisions_per_second(), s.updates_per_second(), s.updates_per_decision(),
        s.parameter_lag_updates(), s.sample_age_updates());
  }
  if (s.episodes() > 0) absl::StrAppendFormat(&line, " | train %.1f", s.training_return());
  if (s.evaluation_decisions() >= 0)
    absl::StrAppendFormat(&line, " eval %.1f", s.evaluation_return());
  absl::StrAppend(&line, " | ETA ", EtaText(s));
  return line;
}

std::string ProgressPanel(std::string_view title, const v1::RunStatus& s, int columns) {
  std::vector<std::string> lines;
  lines.push_back(absl::StrFormat("pompc  %s", title));
  lines.push_back(absl::StrFormat(
      "%s %s %s of %s decisions   %s   ETA %s",
      Bar(static_cast<double>(s.decisions()) / std::max<int64_t>(1, s.total_decisions()), 24),
      Percent(s.decisions(), s.total_decisions()), WithThousands(s.decisions()),
      WithThousands(s.total_decisions()), ShortDuration(s.seconds()), EtaText(s)));
  lines.push_back(absl::StrFormat("phase        %s, %s environment steps, %s episodes", s.phase(),
                                  WithThousands(s.env_steps()), WithThousands(s.episodes())));
  lines.push_back(absl::StrCat("evaluation   ", EvaluationText(s)));
  lines.push_back(
      s.episodes() > 0
          ? absl::StrFormat("training     %.1f (mean of the last 10 episodes)", s.training_return())
          : "training     no episode yet");
  lines.push_back(absl::StrFormat("speed        %.1f decisions/s, %.1f plans/s, %.1f updates/s",
                                  s.decisions_per_second(), s.plans_per_second(),
                                  s.updates_per_second()));
  lines.push_back(
      absl::StrFormat("learner      %s updates, UTD %.2f, parameters v%d, parameter lag %d updates",
                      WithThousands(s.updates()), s.updates_per_decision(), s.parameter_version(),
                      s.parameter_lag_updates()));
  lines.push_back(absl::StrFormat("replay       %s rows stored, sample age %.0f updates",
                                  WithThousands(s.replay_rows()), s.sample_age_updates()));
  std::string losses = "losses      ";
  for (const char* name : {"consistency_loss", "reward_loss", "value_loss", "policy_kl"}) {
    const auto it = s.losses().find(name);
    if (it != s.losses().end()) absl::StrAppendFormat(&losses, " %s %.4g", name, it->second);
  }
  lines.push_back(losses);
  std::string panel;
  for (const std::string& line : lines) absl::StrAppend(&panel, line.substr(0, columns), "\n");
  return panel;
}

}  // namespace pompc
