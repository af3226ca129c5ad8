"""Where anygate listens, and what it says when it cannot."""

import os
import pwd
import socket
import stat
from pathlib import Path

import pytest
from waiting import PATIENCE

APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{environ['SERVER_NAME']} {environ['SERVER_PORT']} {environ['REMOTE_ADDR']}".encode()]
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def test_ip_and_port(launch, site):
    served = launch("app:app", "-i", "127.0.0.1", "-p", "0", folder=site).wait_ready()
    host, port = served.address
    assert served.get().text == f"{host} {port} 127.0.0.1"


@ipv6
def test_several_binds_of_all_kinds(launch, site):
    with socket.socket() as inherited:
        inherited.bind(("127.0.0.1", 0))
        inherited.listen()
        arguments = [
            "--bind",
            "127.0.0.1:0",
            "-b",
            "[::1]:0",
            "-b",
            "unix:site.sock",
            "-b",
            f"fd://{inherited.fileno()}",
        ]
        served = launch("app:app", *arguments, folder=site, pass_fds=[inherited.fileno()]).wait_ready()
        addresses = served.addresses
        assert addresses[0][0] == "127.0.0.1"
        assert addresses[1][0] == "::1"
        assert addresses[2] == str(site / "site.sock")
        assert addresses[3] == inherited.getsockname()
        texts = []
        for address in addresses:
            with served.connect(address) as connection:
                texts.append(connection.ask("GET", "/").text)
        assert texts[0].endswith(" 127.0.0.1")
        assert texts[1] == f"::1 {addresses[1][1]} ::1"
        assert texts[2] == "localhost 80 127.0.0.1"


@ipv6
def responses(host, port):
    with socket.create_connection((host, port), PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        response = b"".join(iter(lambda: connection.recv(1000), b""))
    return response.startswith(b"HTTP/1.1 200 ") and b"::ffff" not in response


@ipv6
def test_all_ipv6_addresses_are_all_ipv4_addresses_too(launch, site):
    served = launch("app", "--bind", "[::]:0", folder=site).wait_ready()
    port = served.address[1]
    assert responses("::1", port)
    # Unless this machine says that IPv6 sockets are for IPv6 only.
    if Path("/proc/sys/net/ipv6/bindv6only").read_text().strip() == "0":
        assert responses("127.0.0.1", port)


@ipv6
@pytest.mark.parametrize("order", [("0.0.0.0", "[::]"), ("[::]", "127.0.0.1")])
def test_a_port_can_be_bound_for_each_family(launch, site, order):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    launch("app", *(part for host in order for part in ("--bind", f"{host}:{port}")), folder=site).wait_ready()
    assert responses("::1", port)
    assert responses("127.0.0.1", port)


def test_localhost_is_both_families(launch, site):
    served = launch("app:app", "--bind", "localhost:0", folder=site).wait_ready()
    ports = {port for _, port in served.addresses}
    assert len(ports) == 1


class TestUnixSockets:
    def test_mode_is_set_and_the_file_goes_at_the_end(self, launch, site):
        served = launch("app:app", "--bind", "unix:a.sock", "--socket-mode", "606", folder=site).wait_ready()
        path = site / "a.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o606
        assert served.terminate() == 0
        assert not path.exists()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_owner_is_set(self, launch, site):
        nobody = pwd.getpwnam("nobody")
        launch("app:app", "--bind", "unix:a.sock", "--socket-owner", "nobody", folder=site).wait_ready()
        assert (site / "a.sock").stat().st_uid == nobody.pw_uid

    def test_a_stale_socket_is_replaced(self, launch, site):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(site / "a.sock"))
        served = launch("app:app", "--bind", "unix:a.sock", folder=site).wait_ready()
        with served.connect() as connection:
            assert connection.ask("GET", "/").status == 200

    @pytest.mark.parametrize("length", [100, 103, 107])
    def test_a_path_may_be_as_long_as_the_system_allows(self, launch, site, tmp_path_factory, length):
        base = tmp_path_factory.mktemp("long")
        folder = base / ("d" * (length - len(str(base)) - len("/") - len("/x")))
        folder.mkdir()
        path = folder / "x"
        assert len(str(path)) == length
        served = launch("app", "--bind", f"unix:{path}", folder=site).wait_ready()
        assert served.get().status == 200
        served.terminate()
        assert list(folder.iterdir()) == []

    def test_a_path_that_is_too_long_is_refused(self, run, site):
        ended = run("app", "--bind", f"unix:/{'x' * 107}", folder=site)
        assert ended.returncode == 1
        assert "the path has 108 bytes, and that of a unix socket has 107 at most; choose a shorter one" in ended.stderr

    def test_a_live_socket_is_refused_and_left_alone(self, launch, run, site):
        served = launch("app:app", "--bind", "unix:a.sock", folder=site).wait_ready()
        ended = run("app:app", "--bind", "unix:a.sock", folder=site)
        assert ended.returncode == 1
        assert "a.sock: another server is listening there; stop it or choose another path" in ended.stderr
        with served.connect() as connection:
            assert connection.ask("GET", "/").status == 200

    def test_a_file_that_is_no_socket_is_left_alone(self, run, site):
        (site / "a.sock").write_text("precious")
        ended = run("app:app", "--bind", "unix:a.sock", folder=site)
        assert ended.returncode == 1
        assert "the path exists and is not a socket" in ended.stderr
        assert (site / "a.sock").read_text() == "precious"

    def test_a_missing_folder_is_named(self, run, site):
        ended = run("app:app", "--bind", "unix:missing/a.sock", folder=site)
        assert ended.returncode == 1
        assert "missing/a.sock: the directory does not exist" in ended.stderr


class TestMistakes:
    def test_a_port_in_use(self, run, site):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            # The first bind is fine; nothing of it may be left when the second fails.
            ended = run("app:app", "--bind", "unix:first.sock", "--bind", f"127.0.0.1:{port}", folder=site)
        assert ended.returncode == 1
        expected = f"cannot listen on 127.0.0.1:{port}: the address is in use; stop what uses it or choose another"
        assert expected in ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1
        assert not (site / "first.sock").exists()

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody who may not")
    def test_a_port_without_permission(self, site):
        import subprocess
        import sys

        code = "import os, sys\nfrom anygate.cli import main\nos.setgid(65534); os.setuid(65534)\nsys.exit(main())"
        unprivileged = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
        if int(open(unprivileged).read()) <= 80:
            pytest.skip("this machine lets everybody use low ports")
        command = [sys.executable, "-c", code, "app:app", "-p", "80"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert ended.returncode == 1
        assert "permission denied; ports below 1024 need root" in ended.stderr

    def test_an_address_of_another_machine(self, run, site):
        ended = run("app:app", "--bind", "192.0.2.1:0", folder=site)
        assert ended.returncode == 1
        assert "cannot listen on 192.0.2.1:0: this machine does not have that address" in ended.stderr

    def test_a_name_that_does_not_exist(self, run, site):
        ended = run("app:app", "--bind", "no-such-host.invalid:0", folder=site)
        assert ended.returncode == 1
        assert '"no-such-host.invalid" cannot be resolved' in ended.stderr

    def test_a_descriptor_that_is_not_open(self, run, site):
        ended = run("app:app", "--bind", "fd://77", folder=site)
        assert ended.returncode == 1
        assert "cannot listen on fd://77: it is not an open, listening stream socket" in ended.stderr

    def test_a_log_that_cannot_be_opened(self, run, site):
        for option in ("--access-log", "--error-log"):
            ended = run("app:app", "--port", "0", option, "missing/log", folder=site)
            assert ended.returncode == 1
            assert "cannot open" in ended.stderr
            assert "missing/log" in ended.stderr
