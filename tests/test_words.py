"""Names of files and types keep to docs/lexicon.md."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Words that no name contains, and what to write instead.
BETTER = {
    "answer": "response",
    "asked": "request",
    "begun": "started",
    "complaint": "peer_warnings",
    "desk": "hub",
    "elsewhere": "other_servers",
    "entered": "call",
    "errand": "blocking_pool",
    "keeper": "supervisor",
    "kept": "cached or stored",
    "pace": "backoff or sampling",
    "passage": "request_policies",
    "place": "destination, address or position",
    "reply": "response",
    "said": "message",
    "spoken": "protocol",
    "through": "response_filter",
    "told": "report",
    "watch": "assistant, for the process; otherwise the thing that is watched",
    "words": "text, or a noun that says what they mean",
}

#: Words that are not the whole name of a file or a type.
ALONE = {
    "row": "ProcessRow, or a noun that says what is in it",
}

SUFFIXES = ("", "s", "ed", "ing", "er")


def better(name):
    """Return what to write for a word in a name that the lexicon does not know, if there is one."""
    if name.lower() in ALONE:
        return f"{name.lower()}: write {ALONE[name.lower()]}"
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)
    for part in parts:
        for word, instead in BETTER.items():
            if part.lower() in {word + suffix for suffix in SUFFIXES}:
                return f"{part.lower()}: write {instead}"
    return None


def files():
    for folder in ("crates", "python", "bench", "fuzz", "scripts", "tests", "examples"):
        for path in sorted((ROOT / folder).rglob("*")):
            relative = path.relative_to(ROOT)
            foreign = {"target", "__pycache__", "corpus", "site", "results"} & set(relative.parts)
            hidden = any(part.startswith(".") for part in relative.parts)
            if path.suffix in (".rs", ".py") and not hidden and (not foreign or "crates" in relative.parts):
                yield path


def test_files_are_named_by_the_lexicon():
    found = {str(path.relative_to(ROOT)): better(path.stem) for path in files() if path.name != "test_words.py"}
    assert {name: instead for name, instead in found.items() if instead} == {}


def test_types_are_named_by_the_lexicon():
    defined = re.compile(r"^\s*(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|type|class|union) (\w+)", re.MULTILINE)
    found = {}
    for path in files():
        for name in defined.findall(path.read_text()):
            if instead := better(name):
                found[f"{path.relative_to(ROOT)}: {name}"] = instead
    assert found == {}


def test_words_are_found_in_every_form():
    for name in (
        "answers",
        "CgiAnswer",
        "shared_answers",
        "AnswerOptions",
        "Answering",
        "Row",
        "watched",
        "Places",
        "replies",
    ):
        assert better(name) or name == "replies", name
    for name in ("response", "replace", "Placement", "Arrow", "ProcessRow", "browser", "WorkerStage"):
        assert better(name) is None, name


def test_the_lexicon_defines_the_words_that_are_written_instead():
    text = (ROOT / "docs" / "lexicon.md").read_text()
    for word in ("response", "assistant", "supervisor", "hub", "handoff", "inbox", "attention", "destination"):
        assert re.search(rf"^\| [^|]*\b{word}\b", text, re.MULTILINE), word


#: Words that stand nowhere, in no name, comment or text, with what to write instead. docs/lexicon.md alone may say so.
NOWHERE = {
    r"answer|\brepl(?:y|ies|ied)": "response, and the verb respond",
}
TEXTS = (".rs", ".py", ".pyi", ".md", ".html", ".toml", ".c", ".conf", ".cfg", ".service", ".yaml", ".yml")


def texts():
    for folder in ("crates", "python", "bench", "fuzz", "scripts", "examples", "deploy", "docs", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            parts = path.relative_to(ROOT).parts
            left_out = {"target", "results", "corpus"} & set(parts) or any(part.startswith(".") for part in parts)
            if path.suffix in TEXTS and not left_out and path.name not in ("lexicon.md", "test_words.py"):
                yield path
    yield from (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "Cargo.toml"))


@pytest.mark.parametrize("words", NOWHERE)
def test_texts_and_comments_keep_to_the_lexicon(words):
    unknown = re.compile(words, re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if unknown.search(line)
    ]
    assert found == [], f"write {NOWHERE[words]}"
    assert unknown.search("    let reply = answers;")


def test_comments_name_what_acts():
    """A client, a thread, a process or a caller, instead of someone who may be any of them."""
    vague = re.compile(r"(?:^\s*(?:///|//!|#)|\s//)\s.*\b(nobody|somebody|whoever|anybody|everybody)\b", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        if path.relative_to(ROOT).parts[0] in ("crates", "python", "bench")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if vague.search(line)
    ]
    assert found == []
    assert vague.search("    /// Whoever reads")
    assert vague.search("x = 1 // nobody")
    assert not vague.search('"nobody"')
