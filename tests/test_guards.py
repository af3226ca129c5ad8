"""Rules of the house that no compiler checks."""

import re
import statistics
from pathlib import Path

import imports
import option_names
import pytest
import sizes
import tomllib

ROOT = Path(__file__).parents[1]
CRATES = ROOT / "crates"

#: What each room may know of the others (docs/architecture.md).
ALLOWED = {
    "lock": set(),
    "proto": set(),
    "sys": set(),
    "config": {"proto"},
    "policy": {"lock", "proto", "config"},
    "admin": {"lock", "proto", "config", "policy"},
    "otlp": {"lock", "proto", "config", "policy"},
    "server": {"lock", "proto", "config", "sys", "policy"},
    "cron": {"config", "sys"},
    "doctor": {"config", "sys"},
    "migrate": {"config"},
    "load": {"sys"},
    "logs": {"lock", "config", "sys"},
    "supervisor": {"config", "sys", "cron"},
    "wsgi": {"lock", "proto"},
    "router": {"lock", "proto"},
    "py": {
        "lock",
        "proto",
        "config",
        "sys",
        "policy",
        "admin",
        "otlp",
        "router",
        "server",
        "cron",
        "doctor",
        "logs",
        "supervisor",
        "wsgi",
        "migrate",
        "load",
    },
}


def manifest(room):
    return tomllib.loads((CRATES / room / "Cargo.toml").read_text())


def test_rooms_know_only_the_rooms_below_them():
    rooms = {path.name for path in CRATES.iterdir()}
    assert rooms == set(ALLOWED)
    for room in rooms:
        known = {
            name.removeprefix("anygate-") for name in manifest(room)["dependencies"] if name.startswith("anygate-")
        }
        assert known <= ALLOWED[room], room


def test_only_the_bridge_knows_python_and_only_sys_knows_libc():
    for room in ALLOWED:
        dependencies = manifest(room)["dependencies"]
        assert ("pyo3" in dependencies) == (room in ("wsgi", "py")), room
        assert ("libc" in dependencies) == (room == "sys"), room


def test_unsafe_code_is_only_where_it_may_be():
    for path in CRATES.rglob("*.rs"):
        code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("//"))
        if re.search(r"\bunsafe\b(?!_code|-inline)", code):
            relative = path.relative_to(CRATES)
            assert relative.parts[0] == "sys" or str(relative) == "wsgi/src/ffi.rs", relative


def test_every_room_that_may_not_is_forbidden_unsafe_code():
    for room in set(ALLOWED) - {"sys", "wsgi"}:
        assert "#![forbid(unsafe_code)]" in (CRATES / room / "src" / "lib.rs").read_text(), room


def test_only_lock_knows_that_a_lock_can_be_poisoned():
    for path in CRATES.rglob("*.rs"):
        assert "PoisonError" not in path.read_text() or path.relative_to(CRATES).parts[0] == "lock", path


def test_every_file_says_what_it_is():
    for path in CRATES.rglob("*.rs"):
        assert path.read_text().startswith("//!"), path


def test_the_architecture_names_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for room in ALLOWED:
        assert re.search(rf"^  {room}\s", text, re.MULTILINE), room
    named = set(re.findall(r"[a-z_0-9]+\.rs", text))
    for name in named:
        assert list(CRATES.rglob(name)), f"{name} is named and does not exist"
    files = {path for path in CRATES.glob("*/src/*.rs") if path.name not in ("lib.rs", "tests.rs", "testing.rs")}
    assert {str(path.relative_to(CRATES)) for path in files if path.name not in named} == {"policy/src/fixtures.rs"}


def test_errors_have_types():
    """A text alone does not say whose fault it is, and whoever reads it cannot tell one error from another."""
    error = re.compile(
        r"Result<(?:[^<>;{}]|<(?:[^<>]|<[^<>]*>)*>)*,\s*(?:String|&'static str|Box<dyn [^>]*Error[^>]*>)>"
    )
    found = []
    for path in CRATES.glob("*/src/**/*.rs"):
        lines = path.read_text().splitlines()
        tests = sizes.rust_test_lines(sizes.numbered_tokens(path.read_text()))
        product = "\n".join("" if number in tests else line for number, line in enumerate(lines, 1))
        if "tests" not in path.stem:
            found += [f"{path.relative_to(CRATES)}: {match[0]}" for match in error.finditer(product)]
    assert found == []
    assert error.search("Result<Option<Vec<u8>>, String>")
    assert not error.search("Result<String, Error> { let a: HashMap<u8, String>")


#: The steps of a call, by what code names them, and the files beside it that may: those which define the step, or keep
#: for it what they do not look into. No other file knows that a call has such a step.
CALL = "server/src/threads/call.rs"
STEPS = {
    "the policies of its request": (r"\bRequestPolicies\b", {"server/src/exchange/mod.rs"}),
    "whether the policies admit it": (r"\bAdmission\b", {"server/src/exchange/admission.rs"}),
    "its limit": (r"\.watch\(&connection|limits\.release\(", {"server/src/call_records.rs"}),
    "its place in flight": (r"\bin_flight\(\)|\b(show|hide)\(row", {"server/src/accounting.rs"}),
    "its start": (r"\bbegin_response\(", {"server/src/exchange/mod.rs", "server/src/threads/call_limits.rs"}),
    "files in the application's place": (r"\bfiles\.respond\(", set()),
    "the application": (r"\bapplication\.call\(", set()),
    "its end": (r"\bwriter\.finish\(", {"server/src/threads/call_limits.rs"}),
    "its counts and its line in the log": (
        r"\baccount\(|\bcounts\(\)\.request\(|\blog\.record\(",
        {"server/src/accounting.rs"},
    ),
    "its connection": (r"\bconnection\.end_exchange\(", set()),
}


def code_of(path):
    """A file without comments, in one line, so that a call is found however it is broken."""
    lines = (line for line in path.read_text().splitlines() if not line.lstrip().startswith("//"))
    return re.sub(r"\s+(?=\.)|\s{2,}", "", " ".join(lines))


@pytest.mark.parametrize("step", STEPS)
def test_the_steps_of_a_call_are_written_once(step):
    pattern, others = STEPS[step]
    files = [path for room in ("server", "py") for path in (CRATES / room / "src").rglob("*.rs")]
    found = {str(path.relative_to(CRATES)) for path in files if re.search(pattern, code_of(path))}
    assert found - {CALL} == others, (
        "a new place goes through server/src/threads/call.rs; one that is gone leaves the list"
    )
    assert CALL in found or step == "its line in the access log", f"{CALL} has this step under another name"


@pytest.mark.parametrize("room", [*sorted(ALLOWED), "python/anygate", "bench"])
def test_no_files_import_each_other_in_a_circle(room):
    if room in ALLOWED:
        graph = imports.rust_graph(CRATES / room / "src")
    else:
        graph = imports.python_graph(ROOT / room, "anygate" if room == "python/anygate" else "")
    circles = imports.circles(graph)
    assert not circles, "\n".join(circles)


def test_circles_are_found_by_what_a_name_is_defined_in(tmp_path):
    files = {
        "lib.rs": "mod a; mod b; mod room; pub use room::Thing;",
        "a.rs": 'use crate::{b::f, Thing}; const TEXT: &str = "use crate::room;"; // crate::room::inner::g()',
        "b.rs": "pub fn f() { crate::room::made() } #[cfg(test)] mod tests { use crate::a; fn t() { a::g() } }",
        "room/mod.rs": "mod inner; pub(crate) use inner::*; pub fn made() {}",
        "room/inner.rs": "pub struct Thing;",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    graph = {file: set(edges) for file, edges in imports.rust_graph(tmp_path).items()}
    assert graph == {
        "lib.rs": set(),
        "a.rs": {"b.rs", "room/inner.rs"},
        "b.rs": {"room/mod.rs"},
        "room/mod.rs": set(),
        "room/inner.rs": set(),
    }
    (tmp_path / "room" / "inner.rs").write_text("pub struct Thing; fn f() { super::super::a::g() }")
    assert imports.circles(imports.rust_graph(tmp_path)) == [
        "2 files: a.rs -> room/inner.rs (crate::Thing) -> a.rs (super::super::a::g)"
    ]


def test_circles_are_found_in_python_too(tmp_path):
    for name, text in {
        "__init__.py": "from package.b import thing",
        "a.py": "from package import thing\nfrom . import b",
        "b.py": "def thing():\n    import package.a",
        "c.py": "from .a import thing",
    }.items():
        (tmp_path / name).write_text(text)
    circles = imports.circles(imports.python_graph(tmp_path, "package"))
    assert circles == ["2 files: a.py -> b.py (package thing) -> a.py (package.a)"]


#: Most files of the product that name an option, in the median: its row, the plan that its user takes, and the user.
NAMED_IN = 3


def test_an_option_is_named_in_few_files():
    code_of = dict(option_names.product_code(ROOT))
    files = {name: option_names.files_that_name(code_of, name, key) for name, key in option_names.options(ROOT).items()}
    assert len(files) > 100
    assert all(any("/options/" in path for path in found) for found in files.values())
    assert statistics.median(map(len, files.values())) <= NAMED_IN, (
        "an option is copied from its plan: take the plan as it is"
    )


def test_names_of_options_are_found_as_keys_texts_and_fields():
    for code in ("read.get(options::BODY_MAX)", '["body_max"]', "plan.body_max", "Plan { body_max: 1 }"):
        assert option_names.files_that_name({"file": code}, "body_max", "BODY_MAX") == ["file"], code
    for code in ("body_max()", "my_body_max", "body_max::new"):
        assert option_names.files_that_name({"file": code}, "body_max", "BODY_MAX") == [], code


#: Most lines of a file and of a function of product code.
FILE_LINES, FUNCTION_LINES = 600, 80

#: Files that may be longer, each with the reason. No function may.
LONG = {
    "python/anygate/adapters.py": "a table: one short function for each other server",
}


def product_files():
    for folder in ("crates", "python/anygate", "bench", "scripts"):
        for path in sorted((ROOT / folder).rglob("*")):
            parts = path.relative_to(ROOT / folder).parts
            if any(part.startswith(".") or part in ("tests", "tests.rs", "target", "results") for part in parts):
                continue
            if path.suffix in (".rs", ".py"):
                yield path


def test_files_and_functions_are_short_enough_to_be_read_at_once():
    long_files, long_functions = set(), []
    for path in product_files():
        name = str(path.relative_to(ROOT))
        lines, functions = (sizes.rust if path.suffix == ".rs" else sizes.python)(path.read_text())
        if lines > FILE_LINES:
            long_files.add(name)
        long_functions += [f"{name}: {where}" for where, length in functions.items() if length > FUNCTION_LINES]
    assert not long_functions
    assert long_files == set(LONG), "split what is too long; what is short by now leaves the list"


def test_lengths_are_measured_without_test_code():
    code = """//! A file.

    #[inline]
    fn short(text: &'static [u8; 2]) -> &str {
        "} // no end"
    }

    trait Declares {
        fn nothing(&self);
    }

    #[cfg(test)]
    mod tests {
        fn left_out() {}
    }

    fn last<const N: usize>(
        a: usize,
    ) where usize: Copy {
        let pointer: fn(usize) = |_| {};
    }
    """
    assert sizes.rust(code) == (22 - 4, {"short:4": 3, "last:17": 5})
    assert sizes.python("def f():\n    def g():\n        pass\n    g()\n") == (4, {"f:1": 4, "g:2": 2})


#: Files of the tests that sleep, with how often and why. Others wait for a state with tests/waiting.py.
SLEEPS = {
    "waiting.py": (2, "`wait_until` looks again; `let_pass` lets time pass that is what a test is about"),
    "apps/gates.py": (1, "looks again for a file, under every server and every kind of concurrency"),
    "apps/contract.py": (
        3,
        "calls of a given length are measured; front servers pass on after a while; empty blocks have a pace",
    ),
    "apps/around.py": (1, "other servers notice only between two blocks, some time later, that a client is gone"),
    "apps/six.py": (1, "other servers have no way to tell that another process is about to take a request"),
    "python/test_health.py": (2, "a program of its own looks again; a check uses what gevent has patched"),
    "python/test_profiler.py": (1, "what the profiler measures is a function that takes time"),
}


def test_tests_wait_for_states_and_do_not_sleep():
    tests = ROOT / "tests"
    found = {}
    for path in tests.rglob("*.py"):
        if count := len(re.findall(r"\btime\.sleep\(|\bfrom time import .*\bsleep\b", path.read_text())):
            found[str(path.relative_to(tests))] = count
    assert found == {name: count for name, (count, reason) in SLEEPS.items() if reason}
