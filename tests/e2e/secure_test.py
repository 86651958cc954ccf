#!/usr/bin/env python3
"""A run over three hosts with mutual TLS and a token: one with learner and relay, one with replay, one
with actors and an evaluator behind the relay.

Each host is a network namespace with an address of its own on a common bridge. Certificates and token
are made by the very lines of docs/security.md. Along the way: a server that would listen to the
network without TLS, and actors without certificate, with another authority's, with a wrong token and
without a key are turned away and told why.
"""
import csv
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request

from e2e_test import BIN, CONFIG, Program, expect, programs, wait_for

ROOT = pathlib.Path(__file__).parents[2]
TOTAL = 1500
LEARNER, REPLAY, ACTORS = "10.77.0.11", "10.77.0.12", "10.77.0.13"  # As in docs/security.md.


def run(*command, **options):
    subprocess.run(command, check=True, **options)


def make_bridge():
    """What the hosts are connected by; this process is on it too."""
    run("ip", "link", "add", "bridge", "type", "bridge")
    run("ip", "address", "add", "10.77.0.1/24", "dev", "bridge")
    for device in ("lo", "bridge"):
        run("ip", "link", "set", device, "up")


class Host:
    """A network namespace, which a process keeps that ends with this one."""

    def __init__(self, address):
        self.address = address
        self.keeper = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        self.enter = ["nsenter", f"--net=/proc/{self.keeper.pid}/ns/net"]
        ours = os.readlink("/proc/self/ns/net")
        wait_for("a namespace", lambda: os.readlink(f"/proc/{self.keeper.pid}/ns/net") != ours)
        end = f"v{address.split('.')[-1]}"
        run("ip", "link", "add", end, "type", "veth", "peer", "eth0", "netns", str(self.keeper.pid))
        run("ip", "link", "set", end, "master", "bridge", "up")
        run(*self.enter, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run(*self.enter, "ip", "link", "set", device, "up")


class HostProgram(Program):
    ports = {}  # Of /metrics, next on each host.

    def __init__(self, folder, host, name, *args, environment=()):
        self.name, self.log, self.host = name, folder / f"{name}.log", host
        self.metrics_port = self.ports[host] = self.ports.get(host, 9000) + 1
        self.process = subprocess.Popen(
            [*host.enter, *map(str, args), "--metrics-listen", f"{host.address}:{self.metrics_port}"],
            stdout=self.log.open("w"), stderr=subprocess.STDOUT, env={**os.environ, **dict(environment)})

    def metrics(self):
        try:
            url = f"http://{self.host.address}:{self.metrics_port}/metrics"
            text = urllib.request.urlopen(url, timeout=5).read().decode()
        except OSError:
            return {}
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}


def make_certificates(folder):
    """Runs what docs/security.md tells to, and adds what a stranger has."""
    lines = re.search(r"```sh\n(# Certificates.*?)```", (ROOT / "docs/security.md").read_text(), re.DOTALL)[1]
    lines += ("\nmkdir ../stranger && cd ../stranger && make_authority && make_certificate actor DNS:actor"
              "\nopenssl rand -hex 32 > token\n")
    run("bash", "-euc", lines, cwd=folder, capture_output=True)
    return folder / "tls", folder / "stranger"


def main():
    make_bridge()
    hosts = [Host(address) for address in (LEARNER, REPLAY, ACTORS)]
    learner_host, replay_host, actor_host = hosts
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_secure_"))
    tls, stranger = make_certificates(folder)
    (folder / "run.textproto").write_text(CONFIG)

    def flags(name, folder=tls, token=tls, key=None):
        return ["--tls-cert", folder / f"{name}.pem", "--tls-key", key or folder / f"{name}.key",
                "--tls-ca", folder / "ca.pem", "--token-file", token / "token"]

    def refused(name, why, *args):
        """A program that has to end at once."""
        program = HostProgram(folder, actor_host, name, *args)
        code = program.process.wait(timeout=60)
        log = program.log.read_text()
        expect(code == 1 and why in log, f"{name} ends with {code}: {log}")

    refused("open-server", "--insecure", BIN / "pompc-replay", "--listen", "0.0.0.0:7201")
    replay = HostProgram(folder, replay_host, "replay", BIN / "pompc-replay", "--listen", "0.0.0.0:7201",
                         "--journal", folder / "journal", *flags("replay"))
    programs.append(replay)
    learner = HostProgram(folder, learner_host, "learner", BIN / "pompc-learner", "--config",
                          folder / "run.textproto", "--set", f"total_decisions={TOTAL}", "--run-dir", folder,
                          "--listen", f"{LEARNER}:7000", "--replay", f"{REPLAY}:7201", *flags("learner"))
    programs.append(learner)
    acts = [BIN / "pompc-actor", "--learner", f"{LEARNER}:7000"]
    wait_for("the learner serves", learner.metrics)
    refused("wrong-token", "has to be a line of the server's", *acts, *flags("actor", token=stranger))
    refused("no-key", "--tls-key: ", *acts, *flags("actor", key=folder / "absent.key"))
    refused("clear-token", "is not sent to", *acts, "--token-file", tls / "token")
    # These may only be early: they go on trying for a minute, and say why.
    for name, why, args in (("no-certificate", "asks for a certificate", ["--tls-ca", tls / "ca.pem"]),
                            ("no-tls", "speaks TLS", []),
                            ("distrusting", "is not of an authority in --tls-ca", flags("actor", stranger))):
        program = HostProgram(folder, actor_host, name, *acts, *args)
        wait_for(f"{name} is told why", lambda: why in program.log.read_text())
        program.process.send_signal(signal.SIGTERM)
        expect(program.process.wait(timeout=60) == 0, f"{name} does not leave when told to")

    by_environment = {"POMPC_TLS_CERT": tls / "actor.pem", "POMPC_TLS_KEY": tls / "actor.key",
                      "POMPC_TLS_CA": tls / "ca.pem", "POMPC_TOKEN_FILE": tls / "token"}
    actors = [HostProgram(folder, actor_host, "actor-0", *acts, *flags("actor")),
              HostProgram(folder, actor_host, "actor-1", *acts, environment=by_environment)]
    programs.extend(actors)
    programs.append(HostProgram(folder, learner_host, "relay", BIN / "pompc-relay", "--upstream", f"{LEARNER}:7000",
                                "--listen", f"{LEARNER}:7100", *flags("learner")))
    programs.append(HostProgram(folder, actor_host, "evaluator", BIN / "pompc-actor", "--learner",
                                f"{LEARNER}:7100", "--role", "evaluator", *flags("actor")))
    wait_for("the run finishes", lambda: learner.process.poll() is not None)
    for p in programs[1:]:
        wait_for(f"{p.name} exits", lambda p=p: p.process.poll() is not None)
    replay.process.send_signal(signal.SIGTERM)
    wait_for("replay exits", lambda: replay.process.poll() is not None)
    for p in programs:
        expect(p.process.returncode == 0, f"{p.name} did not exit cleanly")

    updates = int(re.search(r"^updates: (\d+)", (folder / "status.textproto").read_text(), re.MULTILINE)[1])
    expect(updates == TOTAL, f"{updates} updates for {TOTAL} decisions")
    evaluations = list(csv.DictReader((folder / "evaluations.csv").open()))
    expect(evaluations and int(evaluations[-1]["decisions"]) >= TOTAL, "the final parameters were not evaluated")
    joined = re.findall(r"joined the run as ACTOR index=(\d+)", "".join(a.log.read_text() for a in actors))
    expect(sorted(joined) == ["0", "1"], f"actors {joined} have joined")


if __name__ == "__main__":
    # A network of our own, which goes with its processes; without root, in a user namespace of our own.
    if len(sys.argv) == 1:
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        os.execvp("unshare", ["unshare", *user, "--net", sys.executable, __file__, "inside"])
    main()
