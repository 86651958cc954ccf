"""Control steps per second of CPU time of a peer's environments, beside which env_bench shows ours.

    python env_peers.py dm_control walker-run
    python env_peers.py envpool walker-run

prints one JSON line. Both peers get what env_bench gives ours: observation and reward at every
control step, the same uniform random actions, one episode of 1000 control steps after a reset that
is not timed. The time is that of the whole process, so a peer's threads count too. EnvPool steps
ENVPOOL_ENVIRONMENTS at once on one thread, which suits it best; dm_control steps one.
"""
import argparse
import json
import logging
import os
import time

os.environ.setdefault("MUJOCO_GL", "disabled")  # Nothing is rendered.

import numpy as np  # noqa: E402

STEPS = 1000
ENVPOOL_ENVIRONMENTS = 16


def random_actions(size):
    return np.random.RandomState(0).uniform(-1, 1, (STEPS, size)).astype(np.float32)


def scaled(actions, low, high):
    return low + (high - low) / 2 * (actions + 1.0)


def drop_fields_that_mujoco_no_longer_has():
    """dm_control 1.0.50 reads fields of mjModel and mjData that MuJoCo 4 has not got."""
    import mujoco
    from dm_control.mujoco.wrapper.mjbindings import sizes
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    for table, owner in (("mjmodel", model), ("mjdata", mujoco.MjData(model))):
        fields = sizes.array_sizes[table]
        for name in [name for name in fields if not hasattr(owner, name)]:
            del fields[name]


def measure_dm_control(task):
    drop_fields_that_mujoco_no_longer_has()
    from dm_control import suite
    logging.getLogger("absl").setLevel(logging.ERROR)  # A notice about the cheetah's file.
    environment = suite.load(*task.split("-", 1), task_kwargs={"random": 0})
    spec = environment.action_spec()
    actions = scaled(random_actions(spec.shape[0]), spec.minimum, spec.maximum)
    environment.reset()
    start = time.process_time()
    for action in actions:
        # What an agent is given: one flat float32 vector and a reward.
        timestep = environment.step(action)
        np.concatenate([np.ravel(part) for part in timestep.observation.values()], dtype=np.float32)
    return STEPS / (time.process_time() - start)


def measure_envpool(task):
    import envpool
    name = "".join(word.capitalize() for word in task.replace("-", "_").split("_")) + "-v1"
    environment = envpool.make_gym(name, num_envs=ENVPOOL_ENVIRONMENTS, num_threads=1, seed=0)
    space = environment.action_space
    actions = scaled(random_actions(space.shape[0]), space.low, space.high)
    actions = np.repeat(actions[:, None], ENVPOOL_ENVIRONMENTS, axis=1)
    environment.reset()
    start = time.process_time()
    for action in actions:
        environment.step(action)
    return STEPS * ENVPOOL_ENVIRONMENTS / (time.process_time() - start)


def main():
    peers = {"dm_control": measure_dm_control, "envpool": measure_envpool}
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("peer", choices=sorted(peers))
    parser.add_argument("task", help="dm_control's domain-task, e.g. walker-run")
    arguments = parser.parse_args()
    rate = peers[arguments.peer](arguments.task)
    print(json.dumps({"peer": arguments.peer, "task": arguments.task,
                      "control_steps_per_second": round(rate)}))


if __name__ == "__main__":
    main()
