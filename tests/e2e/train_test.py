#!/usr/bin/env python3
"""What `pompc train` does when something goes wrong.

A run that fails, or is stopped, before its first checkpoint can begin anew in the same folder, and the summary
does not promise what is not there. A failure is told when the others are stopped, and at the end with its reason.
A terminal that closes does what Ctrl-C does. The only actor and the evaluator, asked to leave by somebody else, come
back. Processes that shall share GPUs do by NVIDIA's MPS if its daemon's program is there, and run without it if not.
"""
import atexit
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

from train_run import checks

BIN = pathlib.Path(os.environ["POMPC_BUILD"]) / "bin"
DEADLINE = time.monotonic() + float(os.environ.get("E2E_SECONDS", 240))

CONFIG = """
preset: "train" total_decisions: 1500
environment { task: "cartpole-swingup" episode_steps: 60 }
model { latent_dim: 16 encoder_dim: 24 mlp_dim: 24 num_value_heads: 2 }
planner { num_samples: 32 num_elites: 8 num_policy_samples: 4 iterations: 2 }
learning { batch_size: 16 seed_decisions: 100 seed_episodes: 1 reanalyze_windows: 2 }
replay { capacity_rows: 10000 rate_tolerance_updates: 60 }
learner { log_every: 20 checkpoint_every_seconds: 1 }
evaluation { every_decisions: 600 episodes: 2 }
"""
folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_train_"))
run = folder / "run"
train = None
fail, expect, wait_for = checks(DEADLINE, lambda: train, lambda: [*folder.glob("*.out"), *run.glob("logs/*.log")])


def start(name, *args, **environment):
    out, temporary = folder / f"{name}.out", folder / "tmp" / name
    temporary.mkdir(parents=True)
    environment = {**os.environ, "TMPDIR": str(temporary), **environment}
    return subprocess.Popen([BIN / "pompc", "train", *map(str, args)], stdout=out.open("w"), stderr=subprocess.STDOUT,
                            env=environment), out


def end(out, code):
    try:
        train.wait(timeout=max(1, DEADLINE - time.monotonic()))
    except subprocess.TimeoutExpired:
        fail("pompc train does not end")
    expect(train.returncode == code, f"exit code {train.returncode}, not {code}")
    return out.read_text()


def stop_before_the_first_checkpoint():
    """There never is one by a learner that cannot have its journal."""
    global train
    run.mkdir()
    (run / "journal").write_text("in its way")
    train, out = start("early", "--config", folder / "run.textproto", "--run-dir", run)
    wait_for("the learner fails", lambda: "learner ended: exit code 1;" in out.read_text())
    train.send_signal(signal.SIGINT)
    text = end(out, 130)
    (run / "journal").unlink()
    again = f"pompc train --config {run}/config.textproto --run-dir {run}\n"
    expect("Too early for a checkpoint" in text and again in text and "--resume" not in text and
           "checkpoint.safetensors" not in text and "writes a checkpoint" not in text, f"the summary: {text}")
    train, out = start("nothing", "--resume", run)
    text = end(out, 1)
    expect("nothing to resume" in text and f"--run-dir {run}" in text, f"--resume without a checkpoint: {text}")


def joined_again():
    """The actor and the evaluator, at the second learner that serves."""
    lives = (run / "logs/learner.log").read_text().split("learner ready")[1:]
    return len(lives) == 2 and all(f"joined role={role} " in lives[1] for role in ("ACTOR", "EVALUATOR"))


def children():
    """Pids of pompc train's, and their command lines."""
    pids = pathlib.Path(f"/proc/{train.pid}/task/{train.pid}/children").read_text().split()
    return {int(pid): pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in pids}


def make_daemon():
    """What stands in for the daemon of NVIDIA's MPS: says how it was started, listens, and ends when it is asked."""
    programs = folder / "programs"
    programs.mkdir()
    daemon = programs / "nvidia-cuda-mps-control"
    daemon.write_text("""#!/bin/sh
        echo "$@, devices $CUDA_VISIBLE_DEVICES, at $CUDA_MPS_PIPE_DIRECTORY"
        : > "$CUDA_MPS_PIPE_DIRECTORY/control"
        exec /bin/sleep 1000""")
    daemon.chmod(0o755)
    return programs


def expect_daemon():
    """It runs, and the learner and the actors are its clients, who see all devices that it sees."""
    said = re.search("^-f, devices 3, at (.*)$", (run / "logs/mps.log").read_text(), re.M)
    expect(said, f"the daemon says {(run / 'logs/mps.log').read_text()}")
    clients = 0
    for pid, argv in children().items():
        variables = pathlib.Path(f"/proc/{pid}/environ").read_text().split("\0")
        if "--metrics-listen" in argv:
            clients += 1
            expect(f"CUDA_MPS_PIPE_DIRECTORY={said[1]}" in variables and "CUDA_VISIBLE_DEVICES=3" not in variables,
                   f"{argv} runs with {variables}")
    expect(clients == 3, f"{clients} clients of the daemon, not learner, actor and evaluator")


def ask_to_leave(out, *names):
    """By a signal that is not from pompc train. Waits until they are back."""
    pids = {}
    for pid, argv in children().items():
        if "--role" in argv:
            role = argv[argv.index("--role") + 1]
            pids[role if role == "evaluator" else f"{role}-{argv[argv.index('--index') + 1]}"] = pid
    for name in names:
        os.kill(pids[name], signal.SIGTERM)
    for name in names:
        wait_for(f"{name} is started again", lambda name=name: f"{name} started again" in out.read_text())
        expect(f"{name} ended: exit code 130; " in out.read_text(), f"{name} was not asked to leave")


def expect_failure(failing, out):
    """Of a run whose learner cannot start: it is not tried again."""
    failing.wait(timeout=max(1, DEADLINE - time.monotonic()))
    text = out.read_text()
    told, _, reason = text.partition("Stopping: learner cannot do what it was told (exit code 2)\n")
    expect(failing.returncode == 2 and told and "pompc: learner cannot do what it was told" in reason and
           "learner.device: cannot use" in reason and "started again" not in text,
           f"a learner that fails: {failing.returncode} {text}")


def main():
    global train
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Also for those started here, whoever ignores it.
    (folder / "run.textproto").write_text(CONFIG)
    failing, failing_out = start("failing", "--config", folder / "run.textproto", "--run-dir", folder / "failing",
                                 "--set", "learner.device=cuda:99")
    atexit.register(failing.kill)
    stop_before_the_first_checkpoint()
    train, out = start("anew", "--config", folder / "run.textproto", "--run-dir", run, "--set", "share_gpus=true",
                       PATH=str(make_daemon()), CUDA_VISIBLE_DEVICES="3")
    wait_for("a checkpoint", (run / "checkpoint.safetensors").exists)
    expect_daemon()
    # The terminal closes.
    train.send_signal(signal.SIGHUP)
    text = end(out, 130)
    expect("Stopped after" in text and f"pompc train --resume {run}" in text, f"the summary: {text}")
    expect(not list((folder / "tmp/anew").iterdir()), "pompc train has left its sockets")
    expect("take turns" not in text and "mps ended" not in text, f"the daemon: {text}")
    # As long a run as the wait for both may take.
    train, out = start("again", "--resume", run, "--set", "total_decisions=4000", PATH=str(folder))
    wait_for("the actor and the evaluator join again", joined_again)
    ask_to_leave(out, "actor-0", "evaluator")
    text = end(out, 0)
    expect("take turns on a GPU, some 10 % slower: nvidia-cuda-mps-control is not on PATH" in text,
           f"without the daemon: {text}")
    expect("Restarted processes: 2 " in text and re.search(r"Evaluation return \S+ at the end", text),
           f"the actor and the evaluator were asked to leave: {text}")
    expect(f"pompc eval --checkpoint {run}/checkpoint.safetensors" in text, f"the summary: {text}")
    train, out = start("occupied", "--config", folder / "run.textproto", "--run-dir", run)
    text = end(out, 1)
    expect("holds a run already" in text, f"a second run into the same folder: {text}")
    expect_failure(failing, failing_out)


if __name__ == "__main__":
    main()
