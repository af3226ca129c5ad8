"""Jobs at given minutes: the [[cron]] tables of a file and web2py's crontabs, with real processes."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ANYGATE
from other_servers import Http, free_port, process, wait_for
from waiting import PATIENCE, wait_until

SITE = Path(__file__).parents[1] / "web2py" / "site"

APPLICATION = """
import time

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

def job():
    print("the job speaks")
    with open("ran", "a") as file:
        file.write("%d\\n" % time.time())
"""

JOB = """
[[cron]]
name = "job"
schedule = "* * * * *"
function = "app:job"
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "anygate.toml").write_text(f'app = "app"\n{JOB}')
    return tmp_path


def runs(folder, name="ran"):
    path = folder / name
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def wait_for_turn(serve, tmp_path):
    """Wait until a server that started later has run a job of its own: whatever is due elsewhere was run before."""

    def wait():
        folder = tmp_path / "later"
        folder.mkdir()
        (folder / "app.py").write_text(APPLICATION)
        (folder / "anygate.toml").write_text(f'app = "app"\n{JOB}')
        served = serve(folder=folder)
        served.wait_until(lambda: runs(folder), "the job of the later server")
        assert served.terminate() == 0

    return wait


def at_most_once_a_minute(moments, begun):
    """Whether there are no more runs than minutes that were touched since `begun`."""
    return 1 <= len(moments) <= int(time.time() // 60 - begun // 60) + 1


def test_once_runs_each_job_once(run, site):
    begun = time.time()
    for _ in range(4):
        assert run("cron", "--once").returncode == 0
    assert at_most_once_a_minute(runs(site), begun)


def test_output_failures_and_the_list(run, site):
    (site / "anygate.toml").write_text("""
app = "app"
[[cron]]
name = "bad"
schedule = "* * * * *"
command = "sh -c 'echo to stdout; echo to stderr >&2; exit 7'"
[[cron]]
name = "missing"
schedule = "* * * * *"
command = ["/nothing/here"]
[[cron]]
name = "late"
schedule = "0 0 29 2 *"
timezone = "Asia/Tokyo"
command = "true"
[[cron]]
name = "unknown"
schedule = "* * * * *"
command = "nothing-of-that-name"
[[cron]]
name = "slow"
schedule = "* * * * *"
command = "sleep 3600"
time_limit = "300ms"
""")
    ended = run("cron", "--once")
    assert ended.returncode == 1
    for line in (
        "bad: to stdout",
        "bad: to stderr",
        "bad: exit code 7",
        "missing: cannot start /nothing/here: No such file",
        "unknown: cannot start nothing-of-that-name: no folder of PATH (",
    ):
        assert line in ended.stderr
    rows = {line.split()[0]: line for line in run("cron", "list").stdout.splitlines()}
    assert re.search(r"bad +\* \* \* \* \* +\S+ \S+ \S+ +\S+ \S+ \S+ +\S+ +exit code 7 +1$", rows["bad"])
    assert re.search(r"missing .* cannot start: No such file .* 0$", rows["missing"])
    assert re.search(r"late +0 0 29 2 \* +20\d\d-02-29 00:00 JST +never", rows["late"])
    assert "signal" in rows["slow"]


def test_one_job_over_all_workers_and_servers(serve, site, wait_for_turn):
    """By the clock, at once in the minute that is going on; two trees and an outside pass share it."""
    begun = time.time()
    first = serve("-w", 2, folder=site)
    first.wait_until(lambda: runs(site), "the job")
    second = serve("-w", 2, folder=site)
    wait_for_turn()
    assert at_most_once_a_minute(runs(site), begun)
    first.wait_for_log("job: the job speaks")
    assert second.terminate() == 0
    assert first.terminate() == 0


def test_jobs_of_the_start(serve, site, wait_for_turn):
    text = '[[cron]]\nname = "boot"\nschedule = "@reboot"\ncommand = "sh -c \'date +%s >> booted\'"\n'
    (site / "anygate.toml").write_text(f'app = "app"\n{text}')
    served = serve("-w", 2, folder=site)
    served.wait_until(lambda: runs(site, "booted"), "the job")
    served.send_signal(1)
    served.wait_for_log("reloaded")
    wait_for_turn()
    assert len(runs(site, "booted")) == 1


def test_soft_cron_needs_traffic(serve, site, wait_for_turn):
    served = serve("--cron-mode", "soft", folder=site)
    wait_for_turn()
    assert runs(site) == []
    assert served.get("/").text == "ok"
    served.wait_until(lambda: runs(site), "the job")


@pytest.mark.parametrize("mode", ["none", "external"])
def test_no_jobs(serve, run, site, wait_for_turn, mode):
    served = serve("--cron-mode", mode, folder=site)
    served.get("/")
    wait_for_turn()
    assert runs(site) == []
    if mode == "external":
        run("cron", "--once", "--cron-mode", mode)
        assert len(runs(site)) == 1


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_beside_another_server(site, wait_for_turn, mode):
    port = free_port()
    begun = time.time()
    with process([ANYGATE, "-s", "waitress", "-p", port, "--cron-mode", mode], site) as served:
        client = Http(port)
        wait_for(served, lambda: client.ask("GET", "/")[0] == 200)
        served.wait_until(lambda: runs(site), "the job")
        for _ in range(5):
            client.ask("GET", "/")
        wait_for_turn()
        assert at_most_once_a_minute(runs(site), begun)
        helper = served.processes()
    assert (mode == "hard") == bool(helper)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in helper), "the end of the helper")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_jobs_have_no_more_rights_than_workers(run, site):
    """An application may write its own crontab."""
    text = '[[cron]]\nname = "who"\nschedule = "* * * * *"\ncommand = "sh -c \'id -u; id -g; id -G\'"\n'
    (site / "anygate.toml").write_text(f'app = "app"\nuser = "nobody"\n{text}')
    ended = run("cron", "--once")
    assert re.findall(r"who: ([\d ]+)$", ended.stderr, re.MULTILINE) == ["65534", "65534", "65534"]


def test_running_without_serving(site):
    with process([ANYGATE, "cron", "run"], site) as served:
        served.wait_until(lambda: runs(site), "the job")
        assert served.terminate() == 0


def test_a_job_that_goes_on_is_waited_for_and_then_ended(serve, site):
    text = '[[cron]]\nname = "long"\nschedule = "* * * * *"\ncommand = "sh -c \'echo begun > begun; sleep 3600\'"\n'
    (site / "anygate.toml").write_text(f'app = "app"\n{text}')
    served = serve("--graceful-timeout", "500ms", folder=site)
    served.wait_until((site / "begun").exists, "the job")
    begun = time.monotonic()
    assert served.terminate() == 0
    assert time.monotonic() - begun > 0.4
    served.wait_for_log("long: ")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('name = "a"\nschedule = "61 * * * *"\ncommand = "true"', "cron: "),
        ('name = "a"\nschedule = "* * * * *"\ncommand = "true"\ntimezone = "Mars/Base"', "Mars/Base"),
        ('name = "a"\nschedule = "* * * * *"', 'cron "a": needs a command or a function'),
        (
            'name = "a"\nschedule = "* * * * *"\ncommand = "x"\nfunction = "y:z"',
            "both a command and a function",
        ),
        ('schedule = "* * * * *"\ncommand = "x"', "[[cron]] number 1: name is missing"),
        ('name = "a"\nschedule = "* * * * *"\ncomand = "x"', "there is no key comand; the keys are name, schedule"),
        (
            'name = "a"\nschedule = "* * * * *"\ncommand = "x"\noverlap = "no"',
            'overlap: "no" must be skip, queue, kill',
        ),
        ('name = "a"\nschedule = "* * * * *"\ncommand = "x"\ntime_limit = "x"', 'time_limit: "x" '),
        ('name = "a"\nschedule = "* * * * *"\ncommand = "sh \'x"', "a quote is not closed"),
    ],
)
def test_wrong_tables(run, site, table, message):
    (site / "anygate.toml").write_text(f'app = "app"\n[[cron]]\n{table}\n')
    ended = run("-p", 0)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_wrong_words(run):
    for words in (["cron"], ["cron", "lst"]):
        ended = run(*words)
        assert (ended.returncode, "use list, run or --once" in ended.stderr) == (2, True)


@pytest.fixture
def web2py(tmp_path):
    folder = tmp_path / "web2py"
    shutil.copytree(SITE, folder)
    application = folder / "applications" / "guestbook"
    # The models want it; web2py makes it with the first request.
    (application / "databases").mkdir()
    (application / "cron").mkdir()
    (application / "cron" / "job.py").write_text("open('script-%s' % ('db' in globals()), 'w').close()\n")
    # The tables are made by one process, before several come at once.
    shell = [sys.executable, "-m", "anygate.web2py", "shell", "--plain", "--no_banner", "-S", "guestbook", "-M"]
    subprocess.run([*shell, "-R", "applications/guestbook/cron/job.py"], cwd=folder, check=True, timeout=PATIENCE)
    (folder / "script-True").unlink()
    (application / "cron" / "crontab").write_text(
        "# comment\n"
        "* * * * * root *default/job\n"
        "* * * * * root **applications/guestbook/cron/job.py\n"
        "* * * * * root *applications/guestbook/cron/job.py\n"
        "* * * * * root sh -c 'exit 4'\n"
        "* * * * mon-fri root touch never\n"
        "* * * * root too few\n"
    )
    return folder


def test_crontabs_of_web2py(run, web2py):
    ended = run("cron", "--once", "--web2py", web2py)
    assert (web2py / "ran-models").read_text() == "x", ended.stderr
    assert {path.name for path in web2py.glob("script-*")} == {"script-True", "script-False"}, ended.stderr
    assert not (web2py / "never").exists()
    assert "guestbook/crontab:5: exit code 4" in ended.stderr
    assert 'crontab:6: the weekday field "mon-fri" matches nothing' in ended.stderr
    assert "crontab:7: " in ended.stderr
    assert ended.returncode == 1


def test_crontabs_of_web2py_by_the_clock(serve, web2py):
    served = serve("--web2py", web2py, "--cron-mode", "hard")
    served.wait_until((web2py / "ran-models").exists, "the job")
    served = serve("--web2py", web2py)
    assert "guestbook/crontab" not in served.log()


@pytest.mark.parametrize("server", ["native", "waitress"])
def test_crontabs_run_only_when_asked_for(launch, tmp_path, web2py, wait_for_turn, server):
    """A job in the file is no reason to run the crontabs."""
    job = '[[cron]]\nname = "job"\nschedule = "* * * * *"\ncommand = "touch job-ran"\n'
    (tmp_path / "anygate.toml").write_text(job)
    served = launch("--web2py", web2py, "-s", server, "-p", free_port())
    served.wait_until((web2py / "job-ran").exists, "the job")
    wait_for_turn()
    assert "guestbook/crontab" not in served.log()
    assert not list(web2py.glob("script-*"))


def test_a_function_that_is_not_there(run, site):
    for target, code in (("app:nothing", 3), ("nothing:job", 3), ("app", 3), ("app:job", 0)):
        assert run("-m", "anygate.job", target, command=[sys.executable], folder=site).returncode == code
