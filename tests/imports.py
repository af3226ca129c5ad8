"""Which files of a crate or of a Python package import which, and the circles among them.

Rust's are read token by token: `use` trees and the paths that stand in the code. A name that a file only passes on
(`pub use`) counts as imported from the file that defines it, and a `mod` declaration as no import at all. Test code is
left out.
"""

import ast
import re
from pathlib import Path

TOKEN = re.compile(
    r"""
    //[^\n]* | /\*.*?\*/                              # comments
  | b?r(?P<hashes>\#*)".*?"(?P=hashes) | b?"(?:\\.|[^"\\])*"    # strings
  | b?'(?:\\[^\n]+?|[^\\'\n])'                        # characters
  | '\w+                                              # lifetimes
  | (?P<word>\#!?\[ | [A-Za-z_]\w* | :: | \S)
    """,
    re.VERBOSE | re.DOTALL,
)


def tokens(code):
    """What the compiler would read, as far as paths and brackets go."""
    return [match["word"] for match in TOKEN.finditer(code) if match["word"]]


def matching(words, at):
    """The place behind the bracket that closes the one at `at`."""
    depth = 0
    for place in range(at, len(words)):
        if words[place] in ("(", "[", "{", "#[", "#!["):
            depth += 1
        elif words[place] in (")", "]", "}"):
            depth -= 1
            if depth == 0:
                return place + 1
    return len(words)


def without_tests(words):
    """Leaves out every item behind `#[cfg(test)]` and its like."""
    kept, at = [], 0
    while at < len(words):
        if words[at] != "#[":
            kept.append(words[at])
            at += 1
            continue
        end = matching(words, at)
        attribute = words[at:end]
        if attribute[1] == "cfg" and "test" in attribute and "not" not in attribute:
            at = end
            while at < len(words) and words[at] == "#[":
                at = matching(words, at)
            while at < len(words) and words[at] not in ("{", ";"):
                at = matching(words, at) if words[at] in ("(", "[") else at + 1
            at = matching(words, at) if at < len(words) and words[at] == "{" else at + 1
        else:
            at = end
    return kept


def use_tree(words, at, prefix=()):
    """Yields the place behind one tree of `use`, and what it names: (path, the name here or `*`)."""
    path, found = list(prefix), []
    while at < len(words):
        word = words[at]
        if word == "{":
            at += 1
            while words[at] != "}":
                at, inner = use_tree(words, at, path)
                found += inner
                at += words[at] == ","
            return at + 1, found
        if word == "*":
            return at + 1, [(tuple(path), "*")]
        if word == "::":
            at += 1
            continue
        if word == "self" and path:
            at += 1
        else:
            path.append(word)
            at += 1
        if at < len(words) and words[at] == "as":
            return at + 2, [(tuple(path), words[at + 1])]
        if at >= len(words) or words[at] != "::":
            return at, [(tuple(path), path[-1])]
    return at, found


class Module:
    """One module: the file that it stands in, and what its code names."""

    def __init__(self, file):
        self.file = file
        self.aliases = {}
        self.globs = []
        self.imports = []
        self.inline = []
        self.defines = set()


class Crate:
    """The modules of a crate, by path."""

    def __init__(self, folder):
        self.folder = folder
        self.modules = {}
        for file in sorted(folder.rglob("*.rs")):
            relative = file.relative_to(folder)
            parts = relative.with_suffix("").parts
            if "tests" in parts or parts[0] == "bin":
                continue
            path = parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts
            self.read(path, str(relative), without_tests(tokens(file.read_text())))

    def read(self, path, file, words):
        module = self.modules[path] = Module(file)
        at = 0
        while at < len(words):
            word = words[at]
            before = words[at - 1] if at else ""
            if word == "mod" and words[at + 2 : at + 3] == ["{"]:
                end = matching(words, at + 2)
                self.read((*path, words[at + 1]), file, words[at + 3 : end - 1])
                at = end
            elif word == "use" and before != "::":
                at, named = use_tree(words, at + 1)
                passed_on = before in ("pub", ")")
                for target, name in named:
                    if name == "*":
                        module.globs.append(target)
                    elif name != "_":
                        module.aliases[name] = target
                    if not passed_on:
                        module.imports.append(target)
            elif words[at + 1 : at + 2] == ["::"] and re.match(r"\w", word) and before != "::":
                named = [word]
                at += 1
                while words[at : at + 1] == ["::"] and re.match(r"[A-Za-z_]", words[at + 1]):
                    named.append(words[at + 1])
                    at += 2
                at += words[at : at + 1] == ["::"]
                module.inline.append(tuple(named))
            else:
                if before in ("fn", "struct", "enum", "trait", "type", "const", "static", "union", "macro_rules"):
                    module.defines.add(word)
                at += 1

    def absolute(self, path, named):
        """A path as it is written in a module, from the root; `None` for one that leads out of the crate."""
        module, first = self.modules[path], named[0]
        if first == "crate":
            return named[1:]
        if first == "self":
            return (*path, *named[1:])
        if first == "super":
            while named and named[0] == "super":
                path, named = path[:-1], named[1:]
            return (*path, *named)
        if first in module.aliases and module.aliases[first] != named[: len(module.aliases[first])]:
            target = self.absolute(path, module.aliases[first])
            return target and (*target, *named[1:])
        if (*path, first) in self.modules:
            return (*path, *named)
        return None

    def definition(self, named, seen=()):
        """The file that defines what is at a path from the root; `None` for a module as a whole."""
        path = ()
        for at, name in enumerate(named):
            if (*path, name) in self.modules:
                path = (*path, name)
                continue
            module = self.modules[path]
            if (path, name) in seen or name in module.defines:
                return module.file
            seen = (*seen, (path, name))
            targets = [module.aliases[name]] if name in module.aliases else [(*glob, name) for glob in module.globs]
            for target in targets:
                target = self.absolute(path, target)
                if target is None and name in module.aliases:
                    return None
                file = target and self.definition((*target, *named[at + 1 :]), seen)
                if file and (name in module.aliases or self.has(target, seen)):
                    return file
            return module.file
        return None

    def has(self, named, seen):
        """Whether a glob finds a name there."""
        module = self.modules.get(named[:-1])
        return module is not None and (named[-1] in module.defines or named[-1] in module.aliases)

    def graph(self):
        """By file, what it imports, each with one path that says so."""
        edges = {module.file: {} for module in self.modules.values()}
        for path, module in self.modules.items():
            for named in module.imports + module.inline:
                target = self.absolute(path, named)
                file = target and self.definition(target)
                if file and file != module.file:
                    edges[module.file].setdefault(file, "::".join(named))
        return edges


def python_graph(folder, package=""):
    """The same for the modules of a Python package, or for programs in a folder (`package` is then empty)."""
    files = {}
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder).with_suffix("").parts
        # What is installed for the measurements is not ours.
        if any(part.startswith(".") for part in parts):
            continue
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        files[".".join(filter(None, (package, *parts)))] = file
    trees = {name: ast.parse(file.read_text()) for name, file in files.items()}
    edges = {str(file.relative_to(folder)): {} for file in files.values()}

    def imported(name, tree):
        is_package = files[name].name == "__init__.py"
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, None
            elif isinstance(node, ast.ImportFrom):
                base = name.split(".") if name else []
                base = base[: len(base) - node.level + is_package] if node.level else []
                base = ".".join([*base, *filter(None, [node.module])])
                for alias in node.names:
                    yield base, alias.name

    def definition(module, name, seen=()):
        """The module that defines a name which another may only pass on."""
        inner = f"{module}.{name}" if module else name
        if inner in files:
            return inner
        if module not in files or module in seen:
            return module
        for node in trees[module].body:
            if isinstance(node, ast.ImportFrom):
                for target, found in imported(module, ast.Module([node], [])):
                    if found == name and target in files:
                        return definition(target, name, (*seen, module))
        return module

    for name, tree in trees.items():
        here = str(files[name].relative_to(folder))
        # A package's own file passes names on.
        if files[name].name == "__init__.py":
            continue
        for module, wanted in imported(name, tree):
            target = definition(module, wanted) if wanted else module
            if target in files and target != name:
                edges[here].setdefault(str(files[target].relative_to(folder)), f"{module} {wanted or ''}".strip())
    return edges


def circles(edges):
    """The groups of files that import each other in a circle, each as one such circle: `a -> b (what) -> a (what)`."""
    reached = {start: reachable(edges, start) for start in edges}
    groups = {frozenset(file for file in reached[start] if start in reached[file]) for start in edges}
    found = []
    for group in sorted(groups, key=sorted):
        if group:
            found.append(f"{len(group)} files: " + shortest(edges, group))
    return found


def reachable(edges, start):
    seen, waiting = set(), list(edges[start])
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += edges[file]
    return seen


def shortest(edges, group):
    """The shortest circle in a group."""
    best = None
    for start in sorted(group):
        paths, seen = [[start]], set()
        while paths:
            path = paths.pop(0)
            for file in sorted(set(edges[path[-1]]) & group):
                if file == start and (best is None or len(path) < len(best)):
                    best = path
                if file not in seen:
                    seen.add(file)
                    paths.append([*path, file])
    steps = [best[0]]
    for here, there in zip(best, [*best[1:], best[0]], strict=True):
        steps.append(f"{there} ({edges[here][there]})")
    return " -> ".join(steps)


def rust_graph(folder: Path):
    return Crate(folder).graph()
