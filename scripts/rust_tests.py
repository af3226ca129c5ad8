"""Run the Rust tests with the interpreter that runs this.

The bridge's unit tests start an interpreter inside the test program. Where Python has no shared library to link (a
static build) they are left out, which is said; the Python tests go through the same code. Those that need a Redis are
run where one is installed.
"""

import os
import shutil
import subprocess
import sys
import sysconfig

environment = dict(os.environ, PYO3_PYTHON=sys.executable)
# Examples stand in guides, where they are tested; looking for others in comments takes a minute. Only those of options
# are run: they show what does not compile.
command = ["cargo", "test", "--quiet", "--workspace", "--lib", "--tests"]
if sysconfig.get_config_var("Py_ENABLE_SHARED"):
    folders = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(folder for folder in folders if folder)
    # The interpreter inside the test program finds its standard library by this.
    environment["PYTHONHOME"] = sys.base_prefix
else:
    print("rust tests: this Python has no shared library; the unit tests of anygate-wsgi are left out", file=sys.stderr)
    command += ["--exclude", "anygate-wsgi", "--exclude", "anygate-py"]
code = subprocess.run(command, env=environment, check=False).returncode
if code == 0:
    examples = ["cargo", "test", "--quiet", "--doc", "--package", "anygate-config"]
    code = subprocess.run(examples, env=environment, check=False).returncode
if code == 0 and (redis := shutil.which("redis-server")):
    environment["ANYGATE_REDIS_SERVER"] = redis
    # Selected from the whole workspace, so that nothing is built anew.
    command += ["--test", "redis", "--", "--ignored"]
    code = subprocess.run(command, env=environment, check=False).returncode
sys.exit(code)
