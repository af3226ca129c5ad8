"""Machines of their own, as far as their network goes: network namespaces, and cables between them that can be cut."""

import shutil
import subprocess

import pytest


def need_machines():
    """Skip the test where namespaces cannot be made."""
    if (
        not shutil.which("ip")
        or subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this user may not make network namespaces")


class Machine:
    """A network namespace, which lives as long as a process that does nothing."""

    def __init__(self):
        command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"

    def command(self, *words):
        """The command that runs another one there."""
        return ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", *map(str, words)]

    def run(self, *words):
        subprocess.run(self.command(*words), check=True)

    def end(self):
        self.process.communicate()


class Cable:
    """The one cable of a machine, to a machine that may have several: its addresses are `near` and `far`."""

    def __init__(self, far, near, number):
        self.machine, self.name = far, f"to{number}"
        self.far, self.near = (f"192.0.2.{4 * number + place}" for place in (1, 2))
        ends = ["name", self.name, "netns", far.process.pid, "type", "veth", "peer", "name", "eth0"]
        subprocess.run(["ip", "link", "add", *map(str, ends), "netns", str(near.process.pid)], check=True)
        for machine, name, address in ((far, self.name, self.far), (near, "eth0", self.near)):
            machine.run("ip", "address", "add", f"{address}/30", "dev", name)
            machine.run("ip", "link", "set", name, "up")

    def cut(self):
        self.machine.run("ip", "link", "set", self.name, "down")

    def mend(self):
        self.machine.run("ip", "link", "set", self.name, "up")
