// The tables of all domains.
#ifndef POMPC_ACTOR_ENV_TASKS_TASKS_H_
#define POMPC_ACTOR_ENV_TASKS_TASKS_H_

#include <vector>

#include "actor/env/task.h"

namespace pompc::dmc {

std::vector<TaskEntry> AcrobotTasks();
std::vector<TaskEntry> BallInCupTasks();
std::vector<TaskEntry> CartpoleTasks();
std::vector<TaskEntry> CheetahTasks();
std::vector<TaskEntry> DogTasks();
std::vector<TaskEntry> FingerTasks();
std::vector<TaskEntry> FishTasks();
std::vector<TaskEntry> HopperTasks();
std::vector<TaskEntry> HumanoidTasks();
std::vector<TaskEntry> LqrTasks();
std::vector<TaskEntry> ManipulatorTasks();
std::vector<TaskEntry> PendulumTasks();
std::vector<TaskEntry> PointMassTasks();
std::vector<TaskEntry> QuadrupedTasks();
std::vector<TaskEntry> ReacherTasks();
std::vector<TaskEntry> StackerTasks();
std::vector<TaskEntry> SwimmerTasks();
std::vector<TaskEntry> WalkerTasks();

// All of them, sorted by name.
const std::vector<TaskEntry>& AllTasks();

}  // namespace pompc::dmc

#endif  // POMPC_ACTOR_ENV_TASKS_TASKS_H_
