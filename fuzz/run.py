"""Build the fuzz targets and run each for a while, from the corpus.

A crash leaves its input in fuzz/artifacts and ends this with 1. Needs a C++ compiler for libFuzzer, which is installed
on Debian when this runs as root.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / "tests"))

import gateways  # noqa: E402

CORPUS = FOLDER.parent / "tests" / "corpus"
FLAGS = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
]
RESPONSES = [
    b"\x04|200 OK|Content-Type|text/plain",
    b"\x05|404 Not Found|Content-Length|7|Connection|close",
    b"\x08|200|X|a\r\nY: b|Transfer-Encoding|chunked",
]
REQUESTS = [
    b"\x09GET|https://h:8/a%20b?x=1|host|h:8|content-length|3|cookie|a=b",
    b"\x04POST|/|host|a|expect|100-continue|x-a|",
    b"\x18PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x08\x06\0\0\0\0\0" + bytes(8) + b"\0\0\0\x09\x04\0\0\0\1",
]
#: What a router says: facts, then pairs of variables.
ROUTED = [
    (b"192.0.2.1", b"5000", b"example.org", b"443", b"", b"1", b"", b"HTTP/2.0", b"/outer/shop", b"6", b"/a b", b"x=1"),
    (b"", b"", b"", b"", b"1", b"", b"1", b"HTTP/1.1", b"", b"0", b"/", b"", b"REMOTE_USER", b"ann"),
]
SETTINGS = [
    b"app:app\n--bind\n[::1]:8000\n-b\nunix:/x",
    b"config\n--print\n--workers\n3",
    b"%(h)s %({X}i)s",
    b"a\n--body-max-bytes\n10M\n--header-timeout\n5s",
    b"*/5 1-9/2 * * mon root *default/job\n@daily root sh -c 'a b'\n",
]


def seeds(target):
    """Yield the inputs that a target starts from."""
    if target == "http1_request":
        for table in sorted((CORPUS / "http1").glob("*.json")):
            for case in json.loads(table.read_text()):
                wire = case["wire"].encode("latin-1")
                if len(wire) < 4096:
                    yield bytes([len(wire) // 2 % 256]) + wire
    elif target == "gateways":
        cases = json.loads((CORPUS / "gateways" / "valid.json").read_text())
        for case in cases:
            yield from (bytes([number, 40]) + wire for number, wire in enumerate(gateways.pack_all(case)))
        for case in json.loads((CORPUS / "gateways" / "invalid.json").read_text()):
            number = ["scgi", "uwsgi", "fastcgi", "proxy"].index(case["codec"])
            yield bytes([number, 10]) + case["wire"].encode("latin-1")
    elif target == "http1_response":
        yield from RESPONSES
    elif target == "http2":
        yield from REQUESTS
    elif target == "routed":
        for texts in ROUTED:
            content = b"".join(len(text).to_bytes(4, "big") + text for text in texts)
            yield b"\x20ANYGATE/1 %d\n%b" % (len(content), content)
    elif target == "websocket":
        for table in sorted((CORPUS / "websocket").glob("*.json")):
            for case in json.loads(table.read_text()):
                yield bytes([0xF0 | case.get("deflate", False), 10]) + case["wire"].encode("latin-1")
    else:
        yield from SETTINGS


def need_compiler():
    """Install a C++ compiler if there is none."""
    if shutil.which("c++") is None:
        subprocess.run(["apt-get", "install", "--yes", "--quiet", "g++"], check=True)


def fuzz(target, host, seconds):
    """Run one target; return whether no input failed."""
    corpus = FOLDER / "corpus" / target
    artifacts = FOLDER / "artifacts" / target
    corpus.mkdir(parents=True, exist_ok=True)
    artifacts.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    command = [
        FOLDER / "target" / host / "release" / target,
        f"-max_total_time={seconds}",
        f"-artifact_prefix={artifacts}/",
        "-max_len=8192",
        "-timeout=10",
        corpus,
    ]
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    runs = [line for line in ended.stderr.splitlines() if line.startswith("Done ")]
    if ended.returncode == 0:
        print(f"fuzz {target}: {runs[-1] if runs else 'no input failed'}")
        return True
    print(ended.stderr[-4000:], file=sys.stderr)
    print(f"fuzz {target}: failed; the input is in {artifacts}", file=sys.stderr)
    return False


def main():
    """Run all targets; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="time for each target")
    parser.add_argument("targets", nargs="*")
    arguments = parser.parse_args()
    targets = arguments.targets or sorted(path.stem for path in (FOLDER / "targets").glob("*.rs"))
    need_compiler()
    environment = dict(os.environ, RUSTFLAGS=" ".join(FLAGS))
    # Naming the host keeps the flags off build scripts, which are not to be instrumented.
    host = subprocess.run(["rustc", "--print", "host-tuple"], capture_output=True, text=True, check=True).stdout.strip()
    build = ["cargo", "build", "--release", "--quiet", "--target", host]
    subprocess.run(build, cwd=FOLDER, env=environment, check=True)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        fine = list(pool.map(lambda target: fuzz(target, host, arguments.seconds), targets))
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
