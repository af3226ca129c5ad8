"""Lengths of files and functions of product code."""

import ast
import re

from imports import TOKEN, matching

#: Words after which a bracket of Rust opens no body.
ITEM = re.compile(r"\w+")


def numbered_tokens(code):
    """Return the tokens of Rust code, without comments, each with its line."""
    found, line, at = [], 1, 0
    for match in TOKEN.finditer(code):
        line += code.count("\n", at, match.start())
        at = match.start()
        if match["word"]:
            found.append((match["word"], line))
    return found


def rust_test_lines(tokens):
    """Return the lines of items behind `#[cfg(test)]`."""
    words = [word for word, _ in tokens]
    lines, at = set(), 0
    while at < len(words):
        if words[at : at + 4] != ["#[", "cfg", "(", "test"]:
            at += 1
            continue
        end = matching(words, at)
        while end < len(words) and words[end] not in ("{", ";"):
            end = matching(words, end) if words[end] in ("(", "[", "#[") else end + 1
        end = matching(words, end) if words[end : end + 1] == ["{"] else end + 1
        lines.update(range(tokens[at][1], tokens[min(end, len(tokens)) - 1][1] + 1))
        at = end
    return lines


def rust(code):
    """Return the number of lines of product code, and by name and line the length of each function."""
    tokens = numbered_tokens(code)
    words = [word for word, _ in tokens]
    tests = rust_test_lines(tokens)
    functions = {}
    for at, word in enumerate(words):
        if word != "fn" or tokens[at][1] in tests or not ITEM.fullmatch(words[at + 1]):
            continue
        end = at + 2
        while end < len(words) and words[end] not in ("{", ";"):
            end = matching(words, end) if words[end] in ("(", "[") else end + 1
        if words[end : end + 1] == ["{"]:
            last = tokens[matching(words, end) - 1][1]
            functions[f"{words[at + 1]}:{tokens[at][1]}"] = last - tokens[at][1] + 1
    return len(code.splitlines()) - len(tests), functions


def python(code):
    """The same for Python."""
    functions = {
        f"{node.name}:{node.lineno}": node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return len(code.splitlines()), functions
