"""Install the Debian packages that the tests need: front servers, clients, Redis, and what others are built with.

packages.py --bench installs those of the measurements (bench/) too.
"""

import os
import shutil
import subprocess
import sys

PROGRAMS = {
    "nginx": "nginx-light",
    "lighttpd": "lighttpd",
    "apache2": "apache2-bin",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "chromium": "chromium",
    "/etc/mime.types": "media-types",
    # What is wrong with our TLS.
    "testssl": "testssl.sh",
    # Shells that complete command lines.
    "zsh": "zsh",
    "fish": "fish",
    # Clients.
    "curl": "curl",
    "h2load": "nghttp2-client",
    # Checks units.
    "systemd-analyze": "systemd",
    # What servers of one site share.
    "redis-server": "redis-server",
    # Networks between them.
    "ip": "iproute2",
    # What is wrong with our metrics.
    "promtool": "prometheus",
    # A tool that applications are run inside of.
    "valgrind": "valgrind",
    # To build other servers from their packages, and to run them.
    "gcc": "gcc",
    "apxs": "apache2-dev",
    "/usr/include/ev.h": "libev-dev",
    "/usr/share/doc/libuv1": "libuv1",
}

# What puts load on servers.
BENCH = {
    "wrk": "wrk",
    "/usr/include/stdio.h": "libc6-dev",
}


def main() -> int:
    """Install what is missing; return the exit code."""
    programs = {**PROGRAMS, **(BENCH if sys.argv[1:] == ["--bench"] else {})}
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [
        package
        for program, package in programs.items()
        if not (os.path.exists(program) or shutil.which(program, path=path))
    ]
    if not missing:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"these packages are needed: {' '.join(missing)}", file=sys.stderr)
        return 1
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    policy = "/usr/sbin/policy-rc.d"
    # Servers that are only installed to be started by tests must not be started by their installation.
    ours = not os.path.exists(policy)
    if ours:
        with open(policy, "w") as file:
            file.write("#!/bin/sh\nexit 101\n")
        os.chmod(policy, 0o755)
    try:
        install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing]
        if subprocess.run(install, env=environment, stdout=subprocess.DEVNULL, check=False).returncode != 0:
            subprocess.run(["apt-get", "update", "--quiet"], env=environment, stdout=subprocess.DEVNULL, check=True)
            subprocess.run(install, env=environment, stdout=subprocess.DEVNULL, check=True)
    finally:
        if ours:
            os.unlink(policy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
