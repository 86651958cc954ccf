#!/usr/bin/env python3
"""A command line that is wrong ends every program with 2 and says on stderr what is wrong, as does a config, a
device or a certificate that cannot be. --help and --version end with 0 and answer on stdout.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

BIN = pathlib.Path(os.environ["POMPC_BUILD"]) / "bin"
PROGRAMS = {"pompc": [["train"], ["eval"], ["render"], ["plot"], ["copy-journal"], ["config"], ["inspect"],
                      ["inspect", "tasks"], ["inspect", "task"], ["inspect", "metrics"]],
            "pompc-learner": [], "pompc-actor": [], "pompc-replay": [], "pompc-relay": []}


def run(*command):
    return subprocess.run([BIN / command[0], *command[1:]], capture_output=True, text=True, timeout=100)


def expect(condition, message):
    if not condition:
        print("FAILED:", message)
        sys.exit(1)


def expect_answer(text, *command):
    done = run(*command)
    expect(done.returncode == 0 and text in done.stdout and not done.stderr, f"{command} without {text!r}: {done}")


def expect_refusal(named, *command):
    done = run(*command)
    expect(done.returncode == 2 and named in done.stderr and not done.stdout, f"{command} without {named!r}: {done}")


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_command_lines_"))
    for program, subcommands in PROGRAMS.items():
        version = run(program, "--version")
        expect(version.returncode == 0 and version.stdout.split()[0] == program and len(version.stdout.split()) == 2,
               f"{program} --version: {version}")
        for subcommand in [[], *subcommands]:
            expect_answer(f"Usage: {' '.join([program, *subcommand])} ", program, *subcommand, "--help")
    for program in PROGRAMS:
        if program != "pompc-replay":  # It needs to be told nothing.
            expect_refusal("required", program)
    expect_refusal("--nonsense", "pompc-replay", "--nonsense")
    expect_refusal("--nonsense", "pompc-relay", "--upstream", "a:1", "--listen", "127.0.0.1:0", "--nonsense")
    expect_refusal("--nonsense", "pompc-learner", "--run-dir", folder / "run", "--nonsense")
    expect_refusal("--role", "pompc-actor", "--learner", "a:1", "--role", "spectator")
    expect_refusal("--monitor-port", "pompc", "train", "--monitor", "--monitor-port", "65536")
    expect_refusal("seed=-1", "pompc", "train", "--seed", "-1")
    expect_refusal("seed=", "pompc", "train", "--seed", "")
    expect_refusal("--index", "pompc-actor", "--learner", "a:1", "--index", "-1")
    # What is misspelt, not what is missing.
    expect_refusal("trian", "pompc", "trian")
    expect_refusal("--lerner a:1", "pompc-actor", "--lerner", "a:1")
    expect_refusal("--name", "pompc", "copy-journal", "--replay", "a:1")
    expect_refusal("--nam copy", "pompc", "copy-journal", "--replay", "a:1", "--nam", "copy")
    expect_refusal("--checkpoint", "pompc", "eval")
    expect_refusal("learning.batch_size", "pompc", "config", "--set", "learning.batch_sise=12")
    expect_refusal("--resume", "pompc", "train", "--resume", folder, "--preset", "pompc")
    expect_refusal("learning.batch_size", "pompc-learner", "--run-dir", folder / "run", "--set",
                   "learning.batch_sise=12")
    expect_refusal("learner.device", "pompc-learner", "--run-dir", folder / "run", "--set", "learner.device=cuda:99")
    for command in [["pompc-actor", "--learner", "nowhere"], ["pompc-relay", "--upstream", "nowhere", "--listen", ":0"],
                    ["pompc-actor", "--learner", "localhost:1", "--metrics-listen", "nowhere"],
                    ["pompc-replay", "--listen", "nowhere", "--metrics-listen", ":0"],
                    ["pompc-replay", "--metrics-listen", "nowhere"],
                    ["pompc-learner", "--run-dir", folder / "run", "--listen", "nowhere"],
                    ["pompc-learner", "--run-dir", folder / "run", "--replay", "localhost:1,nowhere"],
                    ["pompc", "copy-journal", "--replay", "nowhere", "--name", "copy"]]:
        expect_refusal('"nowhere" is no address', *command)
    expect_refusal("0 to 65535", "pompc-replay", "--listen", "127.0.0.1:99999", "--metrics-listen", "127.0.0.1:0")
    certificate = ["--tls-cert", folder / "missing.pem", "--tls-key", folder / "missing.pem"]
    expect_refusal("missing.pem", "pompc-replay", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
                   *certificate)
    expect_refusal("missing.pem", "pompc-relay", "--upstream", "127.0.0.1:1", "--listen", "127.0.0.1:0",
                   "--tls-ca", folder / "missing.pem", *certificate)
    expect_refusal("--tls-ca", "pompc-actor", "--learner", "127.0.0.1:1", *certificate)


if __name__ == "__main__":
    main()
