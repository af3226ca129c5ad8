"""Install a wheel into an environment of its own, without compiler or Rust, and ask the server that it brings.

try_wheel.py DIST   takes the wheel of the folder DIST that this Python can have
"""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'it works']\n"
#: From the command to the first response, in seconds.
FIRST_RESPONSE_MAX = 30
SIZE_MAX_BYTES = 8 * 1024 * 1024


def main() -> int:
    """Return the exit code."""
    dist = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        environment = Path(folder) / "environment"
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        # Nothing but the environment is on the path, so nothing can be built.
        clean = {"PATH": str(environment / "bin"), "HOME": folder}
        install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", dist, "--no-cache-dir"]
        subprocess.run([*install, "--only-binary", ":all:", "anygate"], env=clean, check=True)
        (Path(folder) / "app.py").write_text(APP)
        port = 8000 + os.getpid() % 1000
        command = [environment / "bin" / "anygate", "app:app", "--port", str(port)]
        server = subprocess.Popen(command, cwd=folder, env=clean)
        try:
            body = ask(f"http://127.0.0.1:{port}/", begun + FIRST_RESPONSE_MAX)
        finally:
            server.terminate()
            code = server.wait()
    took = time.monotonic() - begun
    wheels = [path for path in dist.glob("*.whl") if path.stat().st_size > SIZE_MAX_BYTES]
    print(f"{body!r} after {took:.1f} s, exit code {code}; too large: {[path.name for path in wheels]}")
    return 0 if (body, code, wheels) == (b"it works", 0, []) else 1


def ask(url: str, until: float) -> bytes:
    """Return the body of a page as soon as there is one; OSError if there is none in time."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return bytes(response.read())
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
