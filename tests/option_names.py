"""Files of the product that name an option: by its key, as a text, or as a field of a plan."""

import re

import sizes

ROW = re.compile(r'^    ([A-Z0-9_]+): [^=]+ = Opt \{\s+name: "(\w+)"', re.MULTILINE)


def options(root):
    """Return the name of each option and of its key."""
    rows = {}
    for path in sorted((root / "crates/config/src/options").glob("*.rs")):
        rows |= {name: key for key, name in ROW.findall(path.read_text())}
    return rows


def product_code(root):
    """Yield the name of each file of the product, and its code without tests and comments.

    Types of options for Python are left out, since they are generated, and so are the importers, which translate names
    of other servers into names of options and use no value, and the doctor, which judges options for their users.
    """
    paths = [*root.glob("crates/*/src/**/*.rs"), *root.glob("python/anygate/**/*.py")]
    for path in paths:
        if {"migrate", "doctor"} & set(path.parts) or path.name in (
            "tests.rs",
            "testing.rs",
            "fixtures.rs",
            "options.py",
        ):
            continue
        code = path.read_text()
        if path.suffix == ".rs":
            tests = sizes.rust_test_lines(sizes.numbered_tokens(code))
            lines = (line for number, line in enumerate(code.splitlines(), 1) if number not in tests)
            code = re.sub(r"(?:^|\s)//.*$", "", "\n".join(lines), flags=re.MULTILINE)
        else:
            code = re.sub(r'""".*?"""|^\s*#.*$', "", code, flags=re.DOTALL | re.MULTILINE)
        yield str(path.relative_to(root)), code


def files_that_name(code_of, name, key):
    """Return the files, of those in `code_of`, that name an option."""
    named = re.compile(rf'\b{key}\b(?!\()|"{name}"|\.{name}\b(?!\()|\b{name}:(?!:)')
    # Most files have not even the word, which is found faster.
    return [path for path, code in code_of.items() if (name in code or key in code) and named.search(code)]
