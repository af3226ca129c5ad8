"""Finding the application that a target names.

A target is ``module``, ``module:name``, ``module:name.of.attribute``, ``module:factory("argument")``, or a path to a
file in place of the module. Without a name, ``application`` and then ``app`` is looked for.
"""

from __future__ import annotations

import ast
import difflib
import glob
import importlib
import importlib.util
import inspect
import os
import shutil
import site
import sys
import traceback
from collections.abc import Callable, Iterable
from importlib.machinery import SourceFileLoader
from types import FunctionType, ModuleType
from typing import Any

DEFAULT_NAMES = ("application", "app")
INNER_NAMES = ("server", "wsgi_app", "wsgi")
FACTORY_NAMES = ("create_app", "make_app", "create_application", "make_application", "default_app")
#: Modules of a package in which its application is looked for first.
INNER_MODULES = ("wsgi", "app", "application", "main")
#: Words that are commands, where a target without a name stands.
COMMANDS = (
    "cert",
    "cgi",
    "compare",
    "completions",
    "config",
    "cron",
    "ctl",
    "doctor",
    "import",
    "servers",
    "top",
    "web2py",
)


class LoadError(Exception):
    """The application cannot be found or used; the message says what the user typed and what to do."""


def load(target: str, pythonpath: Iterable[str | os.PathLike[str]] = ()) -> Callable[..., Any]:
    """Return the application that ``target`` names.

    The current folder and ``pythonpath`` become importable, as for ``python -m``.

    Raises LoadError when there is no such module or attribute, or it is no WSGI application, and whatever the
    application's own code raises while it is imported.
    """
    source, _, expression = target.partition(":")
    if not source:
        raise LoadError(f"{target!r} names no module; write it as module:name, for example myapp:app")
    module = named_module(source, pythonpath, () if expression else COMMANDS)
    found = _evaluate(module, source, expression) if expression else _default(module, source)
    return _checked(found, target, module)


def prepare(env: Iterable[tuple[str, str]] = (), virtualenv: str | os.PathLike[str] | None = None) -> None:
    """Set variables of the environment, and make the packages of a virtual environment importable before all others.

    Raises LoadError when there is no virtual environment of this version of Python.
    """
    os.environ.update(env)
    if virtualenv is None:
        return
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = os.path.join(virtualenv, "lib", version, "site-packages")
    if not os.path.isdir(packages):
        raise LoadError(f"{os.fspath(virtualenv)!r} is no virtual environment of {version}: it has no {packages}")
    before = list(sys.path)
    # Also what its .pth files name.
    site.addsitedir(packages)
    added = [path for path in sys.path if path not in before]
    sys.path[:] = added + before


def hook(
    option: str, target: str, pythonpath: Iterable[str | os.PathLike[str]] = (), arguments: tuple[str, ...] = ()
) -> Callable[..., Any]:
    """Return the function that ``target`` (``module:function``) names for an option, to be called with ``arguments``.

    Raises ValueError, which says everything, when there is no such function, or importing it fails.
    """
    try:
        return _function(target, pythonpath, arguments)
    except Exception as error:
        raise ValueError(explain(f"{option} {target}", error)) from error


def python() -> str:
    """Return the path of this Python's program, also where ``sys.executable`` is a server that embeds it."""
    if os.path.basename(sys.executable or "").startswith("python"):
        return sys.executable
    beside = [os.path.join(sys.prefix, "bin", name) for name in ("python3", "python")]
    return next((path for path in beside if os.access(path, os.X_OK)), shutil.which("python3") or "python3")


def call(target: str) -> Any:
    """Call the function that ``target`` names, without arguments unless it has them: ``module:function("text")``.

    Raises LoadError when there is no such function, and whatever it raises itself.
    """
    source, _, expression = target.partition(":")
    if not source or not expression:
        raise LoadError(f"{target!r} names no function; write it as module:function")
    _make_importable(os.getcwd())
    module = _import_module(source)
    found = _evaluate(module, source, expression)
    if expression.endswith(")"):
        return found
    if not callable(found):
        raise LoadError(f"{expression!r} in {source!r} is a {type(found).__name__}, which cannot be called")
    return found()


def explain(target: str, error: BaseException) -> str:
    """Say why ``target`` was not loaded: in one line, or with the traceback of the application's own code."""
    done = "called" if target.endswith(")") else "imported"
    if target.startswith("anygate.mounts:"):
        target = "the applications of [[mount]]"
    if target.startswith("anygate.web2py:"):
        target, done = f"the web2py site {os.getcwd()}", "imported"
    if isinstance(error, LoadError):
        return f"cannot load {target}: {error}"
    frames = traceback.TracebackException.from_exception(error)
    own = [
        frame
        for frame in frames.stack
        if frame.filename not in (__file__, importlib.__file__) and not frame.filename.startswith("<frozen importlib")
    ]
    frames.stack = traceback.StackSummary.from_list(own)
    text = "".join(frames.format() if own else frames.format_exception_only()).rstrip()
    return f"cannot load {target}: it raised {type(error).__name__} while it was {done}\n{text}{_not_installed(error)}"


def _not_installed(error: BaseException) -> str:
    """Return what to do about a package that this Python does not have."""
    if not isinstance(error, ModuleNotFoundError) or not error.name or "." in error.name:
        return ""
    return (
        f"\n{python()} finds no module {error.name!r}: install its package there, or name the virtual environment that "
        "has it with --virtualenv, or its folder with --pythonpath"
    )


def _function(
    target: str, pythonpath: Iterable[str | os.PathLike[str]], arguments: tuple[str, ...]
) -> Callable[..., Any]:
    source, _, expression = target.partition(":")
    if not source or not expression or expression.endswith(")"):
        raise LoadError("it names no function; write it as module:function")
    function: Callable[..., Any] = _evaluate(named_module(source, pythonpath), source, expression)
    if not callable(function):
        raise LoadError(f"it is a {type(function).__name__}, not a function")
    if _is_coroutine_function(function):
        raise LoadError("it is asynchronous, and nothing would await it")
    if inspect.isfunction(function):
        try:
            signature_of(function).bind(*arguments)
        except TypeError:
            takes = f"the arguments {' and '.join(arguments)}" if arguments else "no arguments"
            raise LoadError(f"it is called with {takes}, which it does not accept") from None
    return function


def make_importable(pythonpath: Iterable[str | os.PathLike[str]]) -> None:
    """Make modules of the current folder and of ``pythonpath`` importable, as for an application that is named."""
    for folder in reversed([os.fspath(path) for path in pythonpath]):
        _make_importable(folder)
    _make_importable(os.getcwd())


def named_module(
    source: str, pythonpath: Iterable[str | os.PathLike[str]] = (), others: Iterable[str] = ()
) -> ModuleType:
    """Return the module that ``source`` names, or the path of its file. ``others`` are words that may have been meant.

    Raises LoadError when there is none, and whatever its code raises.
    """
    for folder in reversed([os.fspath(path) for path in pythonpath]):
        _make_importable(folder)
    # The command line is UTF-8 whatever the locale says; a name of a file is what has the same bytes.
    path = os.fsdecode(source.encode("utf-8", "surrogateescape"))
    if source.endswith(".py") or os.sep in source or os.path.isfile(path):
        return _import_file(path)
    _make_importable(os.getcwd())
    return _import_module(source, others)


def _make_importable(folder: str) -> None:
    folder = os.path.abspath(folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _import_module(name: str, others: Iterable[str] = ()) -> ModuleType:
    missing = name
    if all(name.split(".")) and "\0" not in name:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # Only the target itself is the user's typing error; what it imports in turn is a fault of its code.
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise
            missing = error.name
    _refuse_unreadable(os.getcwd())
    hint = _in_parent(missing) or _in_folder(name) or _nearest(missing, [*_modules_in(os.getcwd()), *others])
    hint = hint or _beside(name.rpartition(".")[2])
    raise LoadError(f"there is no module {missing!r} in {os.getcwd()} or on the Python path{hint}")


def _in_parent(name: str) -> str:
    """Return what may have been meant with a module that its package does not have."""
    holder, _, last = name.rpartition(".")
    parent = sys.modules.get(holder)
    if parent is None:
        return ""
    if callable(getattr(parent, last, None)):
        return f"; did you mean '{holder}:{last}'?"
    inner = [module for folder in getattr(parent, "__path__", ()) for module in _modules_in(folder)]
    near = difflib.get_close_matches(last, inner, n=1)
    return f"; did you mean '{holder}.{near[0]}'?" if near else ""


def _in_folder(name: str) -> str:
    """Return what to write if a folder of the current one has the module."""
    path = name.replace(".", os.sep)
    for entry in sorted(glob.glob("*/")):
        folder = entry.rstrip(os.sep)
        if any(os.path.isfile(os.path.join(folder, path + end)) for end in (".py", f"{os.sep}__init__.py")):
            return f"; there is one in {folder}: add --chdir {folder}"
    return ""


def _beside(last: str) -> str:
    """Return what may have been meant if a package of the current folder has a module that is called ``last``."""
    found = sorted(glob.glob(f"*/{glob.escape(last)}.py"))
    return f"; did you mean '{os.path.dirname(found[0])}.{last}'?" if found else ""


def _refuse_unreadable(folder: str) -> None:
    """Raise LoadError if the modules of a folder are not for this user."""
    try:
        os.scandir(folder).close()
    except PermissionError:
        raise LoadError(f"user {os.geteuid()} may not read {os.path.abspath(folder)}") from None
    except OSError:
        # The import names other errors.
        pass


def _modules_in(folder: str) -> list[str]:
    names = []
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        stem, extension = os.path.splitext(entry.name)
        if extension == ".py" or (entry.is_dir() and os.path.exists(os.path.join(entry.path, "__init__.py"))):
            names.append(stem)
    return names


def _import_file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        _refuse_unreadable(os.path.dirname(path) or ".")
        raise LoadError(f"there is no file {path!r} in {os.getcwd()}")
    path = os.path.abspath(path)
    folder, file = os.path.split(path)
    stem = os.path.splitext(file)[0]
    if os.path.isfile(os.path.join(folder, "__init__.py")):
        return _import_from_package(path, folder, stem)
    _make_importable(folder)
    # A file may be called like a module that is in use, such as site.py.
    for name in (stem, f"anygate_application_{stem}"):
        known = sys.modules.get(name)
        if known is None:
            break
        if getattr(known, "__file__", None) == path:
            return known
    # Scripts of mod_wsgi end in .wsgi.
    spec = importlib.util.spec_from_file_location(name, path, loader=SourceFileLoader(name, path))
    if spec is None or spec.loader is None:
        raise LoadError(f"{path!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_from_package(path: str, folder: str, stem: str) -> ModuleType:
    """Import a file of a package by its full name, as its own package and Django's settings name it."""
    parts = [] if stem == "__init__" else [stem]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    _make_importable(folder)
    name = ".".join(parts)
    top = importlib.import_module(parts[0])
    if os.path.realpath(folder) not in (os.path.realpath(os.path.dirname(path)) for path in top.__path__):
        raise LoadError(
            f"{path!r} is in a package {parts[0]!r}, but another one of that name comes first: {top.__file__}"
        )
    return importlib.import_module(name)


def _default(module: ModuleType, source: str) -> Any:
    for name in DEFAULT_NAMES:
        if hasattr(module, name):
            return getattr(module, name)
    hint = _other_name(module, source) or f"; name the one it has: {source}:NAME"
    raise LoadError(f"{source!r} has neither 'application' nor 'app'{hint}{_hidden(module, source)}")


def _other_name(module: ModuleType, source: str) -> str:
    """Return what the user may have meant with a module that has neither of the default names."""
    if os.path.basename(getattr(module, "__file__", None) or "") == "manage.py":
        project = next(
            iter(sorted(glob.glob("*/wsgi.py", root_dir=os.path.dirname(module.__file__ or "")))), "project/"
        )
        return (
            f"; manage.py is Django's command: name the project's wsgi module, for example {project.split('/')[0]}.wsgi"
        )
    callables = {name: value for name, value in vars(module).items() if callable(value) and not name.startswith("_")}
    for name in FACTORY_NAMES:
        if name in callables:
            return f"; it has a factory: write '{source}:{name}()'"
    # An object that can be called is more likely meant than a function, and what is made here than a module beside it.
    made = [name for name, value in callables.items() if not inspect.isroutine(value) and not inspect.isclass(value)]
    own = [name for name, value in callables.items() if getattr(value, "__module__", None) == module.__name__]
    if likely := [*made, *own]:
        return f"; name one, for example {source}:{likely[0]}"
    inner = _inner_module(module)
    return f"; did you mean {inner!r}?" if inner else ""


def _inner_module(module: ModuleType) -> str:
    """Return the module that likely has the application of the package that ``module`` is, or is in."""
    package = module.__name__ if hasattr(module, "__path__") else getattr(module, "__package__", None)
    folders = getattr(sys.modules.get(package or ""), "__path__", ())
    modules = [name for folder in folders for name in _modules_in(folder)]
    return next((f"{package}.{name}" for name in INNER_MODULES if name in modules), "")


def _evaluate(module: ModuleType, source: str, expression: str) -> Any:
    try:
        node = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise LoadError(f"{expression!r} is neither a name nor a call such as create_app()") from None
    if not isinstance(node, ast.Call):
        return _attribute(module, source, node, expression)
    factory = _attribute(module, source, node.func, expression)
    try:
        arguments = [ast.literal_eval(argument) for argument in node.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
    except ValueError:
        raise LoadError(f"the arguments in {expression!r} must be literals, such as 'text', 1 or True") from None
    if not callable(factory):
        raise LoadError(
            f"{ast.unparse(node.func)!r} in {source!r} is a {type(factory).__name__}, which cannot be called"
        )
    return factory(*arguments, **keywords)


def _attribute(module: ModuleType, source: str, node: ast.expr, expression: str) -> Any:
    if isinstance(node, ast.Name):
        holder, name = module, node.id
    elif isinstance(node, ast.Attribute):
        holder, name = _attribute(module, source, node.value, expression), node.attr
    else:
        raise LoadError(f"{expression!r} is neither a name nor a call such as create_app()")
    try:
        return getattr(holder, name)
    except AttributeError:
        hint = _nearest(name, [other for other in dir(holder) if not other.startswith("_")])
        if not hint and holder is module:
            hint = _instead(module, source, name)
        raise LoadError(f"{source!r} has no attribute {name!r}{hint}{_hidden(module, source)}") from None


def _instead(module: ModuleType, source: str, name: str) -> str:
    """Return what may have been meant with a name that a module does not have."""
    if any(name in _modules_in(folder) for folder in getattr(module, "__path__", ())):
        return f"; did you mean '{source}.{name}'?"
    known = next((other for other in DEFAULT_NAMES if callable(getattr(module, other, None))), "")
    return f"; did you mean {known!r}?" if known else _other_name(module, source)


def _hidden(module: ModuleType, source: str) -> str:
    """Return what to do if a module of another place has come before the one here."""
    here = os.path.abspath(source.replace(".", os.sep) + ".py")
    found = getattr(module, "__file__", None) or "part of Python"
    if not os.path.isfile(here) or (os.path.exists(found) and os.path.samefile(here, found)):
        return ""
    return f"; it is {found}, not the {source}.py here: rename that file, or write {source}.py"


def _nearest(name: str, others: list[str]) -> str:
    near = difflib.get_close_matches(name, others, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _checked(application: Any, target: str, module: ModuleType) -> Callable[..., Any]:
    if not callable(application):
        # Dash and its like hold an application.
        inner = next((name for name in INNER_NAMES if callable(getattr(application, name, None))), None)
        source, _, expression = target.partition(":")
        known = next((name for name in DEFAULT_NAMES if callable(getattr(module, name, None))), "")
        hint = f"; did you mean {source}:{known}?" if known else ""
        if inner:
            hint = f"; it holds one: write {source}:{expression or 'app'}.{inner}"
        raise LoadError(f"it is a {type(application).__name__}, not a WSGI application, which can be called{hint}")
    if _is_coroutine_function(application):
        hint = _as_wsgi(target, module)
        raise LoadError(f"it is an asynchronous (ASGI) application, and anygate serves WSGI applications; {hint}")
    if inspect.isfunction(application):
        signature = signature_of(application)
        try:
            signature.bind({}, None)
        except TypeError:
            hint = ""
            if not [p for p in signature.parameters.values() if p.default is p.empty]:
                hint = f"; if it is a factory, call it: {target}()"
            raise LoadError(f"it does not take the two arguments of a WSGI application{hint}") from None
    return application  # type: ignore[no-any-return]


def _as_wsgi(target: str, module: ModuleType) -> str:
    """Return what to do with an application of ASGI."""
    inner = _inner_module(module)
    if inner.endswith(".wsgi"):
        return f"did you mean {inner}?"
    source, _, expression = target.partition(":")
    name = expression or next(name for name in DEFAULT_NAMES if hasattr(module, name))
    return f"make it one in {source} (pip install a2wsgi): wsgi = a2wsgi.ASGIMiddleware({name}), and name {source}:wsgi"


def signature_of(function: FunctionType) -> inspect.Signature:
    """Return the signature that a call of ``function`` meets.

    Decorators copy ``__wrapped__`` and ``__signature__`` from the function inside, which may take something else.
    """
    bare = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    bare.__kwdefaults__ = function.__kwdefaults__
    return inspect.signature(bare)


def _is_coroutine_function(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
