#!/usr/bin/env python3
"""The images hold what `cmake --install` gives, run without rights and answer their health check; and
`podman kube play` of the one-machine file trains, through a crash of the learner as well.

Needs root and the Debian packages of tests/deploy/packages.txt."""
import csv
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
import waiting  # noqa: E402

BUILD = pathlib.Path(os.environ.get("POMPC_BUILD", ROOT / "build/release"))
FILE = ROOT / "deploy/kubernetes/one-machine.yaml"
VERSION, POD, PATIENCE = "0.1.0", "pompc-one-machine", 240
# Refused capabilities, a file system that cannot be written: as in the manifests.
LOCKED = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges")
os.environ.update(CONTAINERS_CONF=str(HERE / "containers.conf"), POMPC_BUILD=str(BUILD))


def run(*command, code=0):
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != code:
        print("FAILED:", *command, f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
        for container in ("learner", "actor", "evaluator"):
            subprocess.run(["podman", "logs", "--tail=20", f"{POD}-{container}"])
        clean_up()
        sys.exit(1)
    return done.stdout


def expect(condition, message):
    if not condition:
        run("sh", "-c", f"echo '{message}' >&2; false")


def wait_for(what, condition):
    waiting.wait_for(what, condition, time.monotonic() + PATIENCE, expect, pause=0.5)


def clean_up():
    subprocess.run(["podman", "kube", "down", FILE], capture_output=True)
    subprocess.run(["podman", "volume", "rm", "--force", POD], capture_output=True)


def check_image(image, install_arguments, programs):
    with tempfile.TemporaryDirectory() as folder:
        run("cmake", "--install", BUILD, "--prefix", folder, *install_arguments)
        installed = {str(f.relative_to(folder)) for f in pathlib.Path(folder).rglob("*") if f.is_file()}
    there = set(run("podman", "run", "--rm", image, "sh", "-c",
                    "cd /opt/pompc && find . -type f -printf '%P\\n'").split())
    expect(there == installed, f"{image} differs from the installed tree: {there ^ installed}")
    expect(programs == {f.removeprefix("bin/") for f in there if f.startswith("bin/")},
           f"{image} has other programs than {programs}")
    script = "id -u; for p in /opt/pompc/bin/*; do $p --help > /dev/null || exit; done; ldd /opt/pompc/bin/*"
    uid, _, libraries = run("podman", "run", "--rm", *LOCKED, image, "sh", "-c", script).partition("\n")
    expect(uid == "10001" and "not found" not in libraries, f"{image}: user {uid}; {libraries}")
    return int(run("podman", "image", "inspect", "-f", "{{.Size}}", image)) // 1_000_000


def check_health(image):
    name = "pompc-health"
    run("podman", "run", "--rm", "-d", "--network=none", *LOCKED, "--name", name, image, "pompc-replay",
        "--metrics-listen=:7300")
    try:
        wait_for("it is healthy", lambda: subprocess.run(
            ["podman", "healthcheck", "run", name], capture_output=True).returncode == 0)
        run("podman", "exec", name, "healthcheck", "7399", code=1)  # Nobody there.
        run("podman", "exec", name, "healthcheck", "7201", code=1)  # There, but no HTTP.
    finally:
        run("podman", "stop", name)


def check_one_machine():
    clean_up()
    run("podman", "kube", "play", "--network=none", FILE)
    folder = pathlib.Path(run("podman", "volume", "inspect", "-f", "{{.Mountpoint}}", POD).strip()) / "run"

    def decisions():
        try:
            return max((int(row["decisions"]) for row in csv.DictReader((folder / "losses.csv").open())),
                       default=0)
        except OSError:
            return 0
    wait_for("it trains", lambda: decisions() > 1000 and (folder / "checkpoint.safetensors").exists())
    for container in ("learner", "actor", "evaluator"):
        run("podman", "healthcheck", "run", f"{POD}-{container}")
    before = decisions()
    os.kill(int(run("podman", "inspect", "-f", "{{.State.Pid}}", f"{POD}-learner")), signal.SIGKILL)
    wait_for("it trains again", lambda: decisions() > before + 300)
    log = subprocess.run(["podman", "logs", f"{POD}-learner"], capture_output=True, text=True)
    expect("decisions_elsewhere=0" in log.stdout + log.stderr, "the learner has not resumed with all rows")
    clean_up()


def main():
    run(HERE.parent / "packages.sh")
    run(HERE / "images.sh", VERSION)
    every = {"pompc", "pompc-actor", "pompc-learner", "pompc-relay", "pompc-replay"}
    servers = {"pompc-relay", "pompc-replay"}
    sizes = {"pompc": check_image(f"localhost/pompc:{VERSION}", [], every),
             "pompc-servers": check_image(f"localhost/pompc-servers:{VERSION}",
                                          ["--component", "servers"], servers)}
    check_health(f"localhost/pompc-servers:{VERSION}")
    check_one_machine()
    print("images, MB:", sizes)


main()
