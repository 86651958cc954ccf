#!/usr/bin/env python3
"""`cmake --install` gives a tree that works wherever it is moved: its programs load the wheels'
libraries and read the task models from the tree, not from this checkout, and train to the end."""
import os
import pathlib
import subprocess
import sys
import tempfile

BUILD = pathlib.Path(os.environ["POMPC_BUILD"])
CONFIG = """
preset: "install" total_decisions: 3000
environment { task: "cartpole-swingup" episode_steps: 60 }
model { latent_dim: 16 encoder_dim: 24 mlp_dim: 24 num_value_heads: 2 }
planner { num_samples: 32 num_elites: 8 num_policy_samples: 4 iterations: 2 }
learning { batch_size: 16 seed_decisions: 100 seed_episodes: 1 reanalyze_windows: 2 }
replay { capacity_rows: 10000 rate_tolerance_updates: 60 }
actor { num_actors: 1 }
evaluation { every_decisions: 1500 episodes: 1 }
"""


def run(*command, succeeds=True):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=100)
    if (done.returncode == 0) != succeeds:
        print("FAILED:", *command, "\nexit code", done.returncode, "\n" + done.stdout[-4000:])
        sys.exit(1)
    return done.stdout


def main():
    with tempfile.TemporaryDirectory(prefix="pompc_install_") as folder:
        folder = pathlib.Path(folder)
        run("cmake", "--install", BUILD, "--prefix", folder / "installed")
        tree = (folder / "installed").rename(folder / "moved")

        programs = sorted((tree / "bin").iterdir())
        assert {"pompc", "pompc-actor", "pompc-learner", "pompc-relay",
                "pompc-replay"} <= {p.name for p in programs}
        for program in programs:
            for line in run("ldd", program).splitlines():
                library = line.partition(" => ")[2].partition(" (")[0]
                if library and not library.startswith((str(tree), "/lib/", "/usr/lib/")):
                    sys.exit(f"FAILED: {program.name} loads {line.strip()}")

        (folder / "tiny.textproto").write_text(CONFIG)
        run(tree / "bin/pompc", "train", "--config", folder / "tiny.textproto",
            "--run-dir", folder / "run")
        evaluate = [tree / "bin/pompc", "eval", "--checkpoint", folder / "run/checkpoint.safetensors"]
        run(*evaluate)
        plot = [tree / "bin/pompc", "plot", folder / "run", "-o", folder / "curves.svg"]
        if "published curves are left out, their first point is at 100k" not in run(*plot):
            sys.exit("FAILED: pompc plot does not know the published curves")
        (tree / "share/pompc/published-returns.csv").write_text("task\n")
        if "moved/share/pompc/published-returns.csv:1: no column" not in run(*plot, succeeds=False):
            sys.exit("FAILED: pompc plot reads other published curves than the tree's")
        # With the tree's own model gone bad nothing works: no other is used in its place.
        (tree / "share/pompc/dm_control/suite/cartpole.xml").write_text("<mujoco>")
        if "cartpole.xml" not in run(*evaluate, succeeds=False):
            sys.exit("FAILED: the error does not name the model file")


main()
