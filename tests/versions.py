"""An application that says which version of its code responds."""

import shutil

from conftest import APPS

#: A file of the same size in the same second is the same to the cache of byte code.
UNCACHED = {"PYTHONDONTWRITEBYTECODE": "1"}


def write(folder, version, extra=""):
    """Write that version of the application, which begins with `extra`. A request of `/slow?GATE` waits at the gate."""
    (folder / "app.py").write_text(
        f"{extra}\nfrom gates import wait_at\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/slow': wait_at(environ['QUERY_STRING'])\n"
        f"    start_response('200 OK', [])\n    return [b'version {version}']\n"
    )


def first_version(folder):
    """Make a folder that of an application, and return it."""
    shutil.copy(APPS / "gates.py", folder)
    write(folder, 1)
    return folder
