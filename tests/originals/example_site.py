"""The site that the examples of the documents are tried with, and what becomes of their addresses."""

import contextlib
import shlex
import subprocess
import sys
from pathlib import Path

from conftest import ANYGATE
from other_servers import Http, free_port, process, wait_for

BIN = Path(sys.executable).parent
PAGE = "/guestbook/default/client"


def with_handlers(folder, **settings):
    """Write the handler files into a site; LOGGING and SOFTCRON as told."""
    subprocess.run([ANYGATE, "web2py", "init", folder], check=True, capture_output=True)
    for path in folder.glob("*handler.py"):
        text = path.read_text()
        for name, value in settings.items():
            text = text.replace(f"{name} = False", f"{name} = {value}")
        path.write_text(text)
    return folder


@contextlib.contextmanager
def commanded(line, folder, port=None, **options):
    """Run a command line of a document in a folder; with `port` given instead of its own, and only on this machine."""
    port = port or free_port()
    words = shlex.split(line.replace("\\\n", " "))
    program = words[0]
    if program == "python":
        words[0] = sys.executable
    elif (BIN / program).exists():
        words[0] = str(BIN / program)
    words = local(words, port)
    with process(words, folder, **options) as served:
        served.port = port
        yield served


def local(words, port):
    """Command line words with this port, and with this machine only, in place of what they say."""
    changed = []
    for before, word in zip(["", *words], words, strict=False):
        if before in ("-p", "--port"):
            word = str(port)
        elif before in ("-i", "--ip"):
            word = "127.0.0.1"
        elif before == "--bind":
            word = f"127.0.0.1:{port}"
        changed.append(word)
    return changed


def page(port, target=PAGE):
    """A page of the site as text; a failed assertion until it is there."""
    status, _, body = Http(port).ask("GET", target)
    assert status == 200, (status, body)
    return body.decode()


def wait_for_page(served, target=PAGE):
    return wait_for(served, lambda: page(served.port, target))
