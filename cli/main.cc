// pompc: the front door.
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/copy_journal.h"
#include "cli/eval.h"
#include "cli/inspect.h"
#include "cli/plot.h"
#include "cli/render.h"
#include "cli/run_dir.h"
#include "cli/train.h"
#include "cli/train_in_process.h"
#include "common/base/command_line.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/metrics/reference.h"
#include "common/rpc/security_flags.h"

namespace pompc {
namespace {

// What train and config have in common: which config.
struct ConfigFlags {
  std::string preset = "pompc";
  std::string file;
  std::vector<std::string> sets;

  void AddTo(CLI::App* app) {
    app->add_option("-p,--preset", preset,
                    absl::StrCat("One of: ", absl::StrJoin(PresetNames(), ", ")))
        ->capture_default_str();
    app->add_option("-c,--config", file, "Your own textproto, laid over the preset")
        ->check(CLI::ExistingFile);
    app->add_option("-s,--set", sets,
                    "PATH=VALUE laid over both, e.g. environment.task=walker-run; may be repeated")
        ->allow_extra_args(false)
        ->take_all();
  }
  absl::StatusOr<v1::RunConfig> Load() const { return LoadRunConfig(preset, file, sets); }
};

struct TrainFlags {
  ConfigFlags config;
  std::string task;
  std::string seed;
  std::string run_dir;
  std::string resume;
  bool in_process = false;
  bool monitor = false;
  int monitor_port = 9090;
};

absl::StatusOr<TrainOptions> MakeTrainOptions(const CLI::App& app, const TrainFlags& flags) {
  ConfigFlags config = flags.config;
  if (!flags.task.empty()) config.sets.push_back(absl::StrCat("environment.task=", flags.task));
  if (app.count("--seed") > 0) config.sets.push_back(absl::StrCat("seed=", flags.seed));
  TrainOptions options;
  if (flags.monitor) options.monitor_port = flags.monitor_port;
  if (flags.resume.empty()) {
    POMPC_ASSIGN_OR_RETURN(options.config, config.Load());
    options.run_dir = flags.run_dir.empty() ? DefaultRunDir(options.config) : flags.run_dir;
    return options;
  }
  if (app.count("--preset") + app.count("--config") + app.count("--run-dir") > 0) {
    return absl::InvalidArgumentError(
        "--resume takes the config of the run: only --set may change it");
  }
  options.resume = true;
  options.run_dir = flags.resume;
  config.file = flags.resume + "/config.textproto";
  POMPC_ASSIGN_OR_RETURN(options.config, config.Load());
  return options;
}

// Errors go to stderr, one line each, and become the exit code.
int Finish(const absl::Status& status) {
  if (absl::IsCancelled(status)) return 130;  // As shells say after Ctrl-C.
  if (!status.ok()) std::cerr << "pompc: " << status.message() << "\n";
  return ExitStatus(status);
}

int Print(const absl::StatusOr<std::string>& text) {
  if (text.ok()) std::cout << *text;
  return Finish(text.status());
}

int Main(int argc, char** argv) {
  InitLogging("pompc");
  CLI::App app(
      "pompc trains control policies with PO-MPC and its family: many actors plan with MPPI in a\n"
      "learned world model, a replay service keeps what they saw, one learner updates and\n"
      "broadcasts the parameters.",
      "pompc");
  app.require_subcommand(1);

  TrainFlags train;
  CLI::App* train_app = app.add_subcommand("train", "Train on this machine");
  train.config.AddTo(train_app);
  train_app->add_option("-t,--task", train.task, "Short for --set environment.task=TASK");
  train_app->add_option("--seed", train.seed, "Short for --set seed=SEED")->type_name("UINT");
  train_app->add_option("--run-dir", train.run_dir,
                        "Where results go (default: runs/TASK-PRESET-sSEED-TIME)");
  train_app->add_option("--resume", train.resume, "Continue the run in this folder");
  train_app->add_flag("--in-process", train.in_process,
                      "One actor and the learner in one thread, in lock-step: slower, but equal\n"
                      "seeds give equal bits");
  CLI::Option* monitor_flag =
      train_app
          ->add_flag("--monitor", train.monitor,
                     "Also run a Prometheus with dashboard and alerts for this run, in its folder")
          ->excludes("--in-process");
  train_app
      ->add_option("--monitor-port", train.monitor_port,
                   "Its port, of this machine alone; 0 takes a free one")
      ->check(CLI::Range(0, 65535))
      ->needs(monitor_flag)
      ->capture_default_str();

  EvalOptions eval;
  CLI::App* eval_app = app.add_subcommand("eval", "Evaluate a checkpoint");
  eval_app->add_option("--checkpoint", eval.checkpoint, "checkpoint.safetensors of a run")
      ->required();
  eval_app->add_option("--episodes", eval.episodes, "How many (default: the run's own number)")
      ->check(CLI::Range(1, 1000));
  eval_app
      ->add_option("--device", eval.device,
                   "Where to plan, wherever the run did: cpu, cuda or cuda:1")
      ->capture_default_str();

  RenderVideoOptions render;
  CLI::App* render_app =
      app.add_subcommand("render",
                         "Make a video of a checkpoint's episodes (takes libosmesa6 and "
                         "ffmpeg)");
  render_app->add_option("--checkpoint", render.checkpoint, "checkpoint.safetensors of a run")
      ->required();
  render_app
      ->add_option("-o,--output", render.output,
                   "A .mp4, .webm, .gif or .webp; or pictures, as frame%04d.png")
      ->capture_default_str();
  render_app->add_option("--episodes", render.episodes, "How many")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  render_app->add_flag("--candidates", render.candidates,
                       "Draw the paths that the planner weighs, the better the brighter");
  render_app->add_option("--width", render.width, "Of the picture, in pixels")
      ->capture_default_str();
  render_app->add_option("--height", render.height, "The return is plotted in its lowest quarter")
      ->capture_default_str();
  render_app->add_option("--camera", render.camera, "Of the model (default: the task's usual one)");
  render_app->footer(
      "Example:\n"
      "  pompc render --checkpoint runs/.../checkpoint.safetensors --candidates");

  PlotOptions plot;
  CLI::App* plot_app =
      app.add_subcommand("plot", "Draw learning curves of runs beside the published ones");
  plot_app
      ->add_option("paths", plot.paths,
                   "Folders of runs, or tables of runs: CSV with the columns task, variant, seed,\n"
                   "env_steps and return")
      ->required();
  plot_app->add_option("-o,--output", plot.output, "An .svg")->capture_default_str();
  plot_app->add_option("-t,--task", plot.tasks, "Only this one; may be repeated")
      ->allow_extra_args(false);
  plot_app
      ->add_option("--variant", plot.variants,
                   "Only this one, as the legend names it; may be repeated")
      ->allow_extra_args(false);
  plot_app->footer(
      "Runs of the same task and preset become one line, the mean over their seeds, with a band\n"
      "from the least to the greatest. Published: means and confidence bounds of TD-MPC2 and "
      "BMPC.\n"
      "Example:\n"
      "  pompc plot runs/walker-walk-*");

  std::string replay_address, copy_name;
  CLI::App* copy_app =
      app.add_subcommand("copy-journal", "Copy replay's journal while the run goes on");
  copy_app
      ->add_option(
          "--replay", replay_address,
          "Address of the replay server, HOST:PORT or, for one of its tables, HOST:PORT#NAME; or "
          "of the learner, if replay is in its process")
      ->required();
  copy_app->add_option("--name", copy_name, "Name of the copy: letters, digits, \"-\" and \"_\"")
      ->required();
  RpcSecurity security;
  AddSecurityFlags(copy_app, &security, /*serves=*/false);

  ConfigFlags config;
  CLI::App* config_app =
      app.add_subcommand("config", "Print the config that train would take, resolved and checked");
  config.AddTo(config_app);

  CLI::App* inspect_app = app.add_subcommand("inspect", "Show tasks and metrics");
  inspect_app->require_subcommand(1);
  CLI::App* tasks_app = inspect_app->add_subcommand("tasks", "All tasks, one a line");
  CLI::App* metrics_app =
      inspect_app->add_subcommand("metrics", "What every process serves at /metrics, as Markdown");
  std::string task;
  CLI::App* task_app = inspect_app->add_subcommand("task", "The spec of one task");
  task_app->add_option("name", task, "E.g. dog-run")->required();

  // After the subcommands, which would inherit it.
  app.footer(
      "Examples:\n"
      "  pompc train --preset quickstart            cartpole-swingup, minutes on a laptop\n"
      "  pompc train --task walker-run              the full preset\n"
      "  pompc inspect tasks                        what there is to train on");
  if (const auto done = ParseCommandLine(&app, argc, argv)) return *done;

  if (train_app->parsed()) {
    const absl::StatusOr<TrainOptions> options = MakeTrainOptions(*train_app, train);
    if (!options.ok()) return Finish(options.status());
    return Finish(train.in_process ? TrainInProcess(*options) : Train(*options));
  }
  if (eval_app->parsed()) return Finish(Evaluate(eval));
  if (render_app->parsed()) return Print(RenderVideo(render));
  if (plot_app->parsed()) return Print(PlotCurves(plot));
  if (copy_app->parsed()) return Print(CopyJournal(replay_address, copy_name, security));
  if (config_app->parsed()) {
    const absl::StatusOr<v1::RunConfig> resolved = config.Load();
    if (resolved.ok()) std::cout << ConfigToText(*resolved);
    return Finish(resolved.status());
  }
  if (tasks_app->parsed()) return Print(DescribeTasks());
  if (metrics_app->parsed()) return Print(MetricsReference());
  return Print(DescribeTask(task));
}

}  // namespace
}  // namespace pompc

int main(int argc, char** argv) { return pompc::Main(argc, argv); }
