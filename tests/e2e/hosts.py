"""Several hosts on one machine: network namespaces on a bridge, in a namespace of the test's own. All
of them end with the processes in them.

A test calls inside_its_network(__file__) first, then makes its hosts and starts programs there with
host.start(...).
"""
import os
import subprocess
import sys

from e2e_test import Program, wait_for

BRIDGE_ADDRESS = "10.77.0.1/24"
SKIPPED = 77  # What ctest is told to take for "skipped".


def run(*command, **options):
    subprocess.run([*map(str, command)], check=True, **options)


def make_bridge():
    """What the hosts are connected by; this process is on it too."""
    run("ip", "link", "add", "bridge", "type", "bridge")
    run("ip", "address", "add", BRIDGE_ADDRESS, "dev", "bridge")
    for device in ("lo", "bridge"):
        run("ip", "link", "set", device, "up")


def inside_its_network(script):
    """Runs `script` again in a new network with a bridge; returns there. Without root that takes a user
    namespace. Exits with SKIPPED, saying why, where neither can be made."""
    if "POMPC_TEST_NETWORK" not in os.environ:
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        enter = ["unshare", *user, "--net"]
        probe = subprocess.run([*enter, "ip", "link", "add", "bridge", "type", "bridge"],
                               capture_output=True, text=True)
        if probe.returncode != 0:
            print(f"skipped: no network namespaces and bridges here: {probe.stderr}")
            sys.exit(SKIPPED)
        os.environ["POMPC_TEST_NETWORK"] = "1"
        os.execvp("unshare", [*enter, sys.executable, script])
    make_bridge()


class Host:
    def __init__(self, address):
        self.address, self.link = address, f"host{address.rsplit('.', 1)[1]}"
        # Keeps the namespace, and ends with this process.
        self.keeper = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        namespace = f"/proc/{self.keeper.pid}/ns/net"
        self.enter = ["nsenter", f"--net={namespace}"]
        ours = os.readlink("/proc/self/ns/net")
        wait_for("a namespace", lambda: os.readlink(namespace) != ours)
        run("ip", "link", "add", self.link, "type", "veth", "peer", "eth0", "netns", self.keeper.pid)
        run("ip", "link", "set", self.link, "master", "bridge", "up")
        run(*self.enter, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run(*self.enter, "ip", "link", "set", device, "up")

    def set_link(self, state):
        run("ip", "link", "set", self.link, state)

    def start(self, folder, name, *args, environment=()):
        return Program(folder, name, *args, address=self.address, enter=self.enter,
                       environment=environment)
