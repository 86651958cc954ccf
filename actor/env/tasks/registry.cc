#include <algorithm>
#include <iterator>

#include "actor/env/tasks/tasks.h"

namespace pompc::dmc {

const std::vector<TaskEntry>& AllTasks() {
  static const std::vector<TaskEntry>* const all = [] {
    auto* entries = new std::vector<TaskEntry>;
    for (const auto domain :
         {AcrobotTasks, BallInCupTasks, CartpoleTasks, CheetahTasks, DogTasks, FingerTasks,
          FishTasks, HopperTasks, HumanoidTasks, LqrTasks, ManipulatorTasks, PendulumTasks,
          PointMassTasks, QuadrupedTasks, ReacherTasks, StackerTasks, SwimmerTasks, WalkerTasks}) {
      std::vector<TaskEntry> tasks = domain();
      std::move(tasks.begin(), tasks.end(), std::back_inserter(*entries));
    }
    std::sort(entries->begin(), entries->end(),
              [](const TaskEntry& a, const TaskEntry& b) { return a.name < b.name; });
    return entries;
  }();
  return *all;
}

}  // namespace pompc::dmc
