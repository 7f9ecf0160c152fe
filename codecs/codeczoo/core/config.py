"""Configuration tree to object: a mapping with `_target_` becomes that class, called with the other keys.

Only classes below an allowed package are ever imported, so a tree out of a file can do no more than build codecs.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from codeczoo.core.errors import ConfigError, nearest

OWN = ("codeczoo.",)


def build(tree: Any, allow: tuple[str, ...] = OWN, where: str = "") -> Any:
    """Builds `tree`, innermost first. `_partial_: true` gives a function that still wants its first arguments.

    `_repeat_: n` gives a list of n, each built anew.

    Args:
        tree: mappings, lists and plain values.
        allow: prefixes of the dotted names that may be imported.
        where: dotted place of the tree, for messages.

    Raises:
        ConfigError: a class outside `allow` or that does not exist, an unknown or a missing argument.
    """
    if isinstance(tree, Mapping) and "_repeat_" in tree:
        once = {key: value for key, value in tree.items() if key != "_repeat_"}
        return [build(once, allow, f"{where}[{i}]") for i in range(repeats(tree, where))]
    if isinstance(tree, Mapping):
        built = {key: build(value, allow, f"{where}.{key}" if where else str(key)) for key, value in tree.items()}
        if "_target_" not in tree:
            return built
        factory, is_partial = resolve(built.pop("_target_"), allow, where), built.pop("_partial_", False)
        check_arguments(factory, built, where, is_partial)
        if is_partial:
            return partial(factory, **built)
        result = factory(**built)
        if hasattr(type(result), "config"):
            result.config = plain(tree)
        return result
    if isinstance(tree, list | tuple):
        return [build(value, allow, f"{where}[{i}]") for i, value in enumerate(tree)]
    return tree


def repeats(tree: Mapping[str, Any], where: str = "") -> int:
    """How many times a tree is to be built. Raises ConfigError unless that is a whole number of at least 1."""
    n = tree.get("_repeat_", 1)
    if type(n) is not int or n < 1:
        raise ConfigError(f"{where or 'tree'}: _repeat_ must be a whole number of at least 1, got {n!r}")
    return n


def resolve(name: Any, allow: tuple[str, ...] = OWN, where: str = "") -> Callable[..., Any]:
    """The class or function that a dotted name means. Raises ConfigError."""
    if not isinstance(name, str) or not name.startswith(allow):
        raise ConfigError(f"{where or 'tree'}: _target_ must begin with {' or '.join(allow)}, got {name!r}")
    module_name, _, attribute = name.rpartition(".")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{where or 'tree'}: no module for _target_ {name} ({error})") from None
    found = getattr(module, attribute, None)
    if not callable(found):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ConfigError(f"{where or 'tree'}: {module_name} has no {attribute}; {nearest(attribute, public)}")
    if not f"{found.__module__}.".startswith(allow):  # what a module merely imported is not its to give
        raise ConfigError(f"{where or 'tree'}: {name} is {found.__module__}.{attribute}, not of {' or '.join(allow)}")
    return found


def check_arguments(factory: Callable[..., Any], arguments: Mapping[str, Any], where: str, is_partial: bool) -> None:
    """Raises ConfigError for arguments that `factory` does not take, or wants and does not get."""
    parameters = inspect.signature(factory).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    name = getattr(factory, "__name__", str(factory))
    for key in arguments:
        if key not in parameters:
            raise ConfigError(f"{where or 'tree'}: {name} takes no '{key}'; {nearest(key, parameters)}")
    missing = [
        p.name for p in parameters.values()
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and p.name not in arguments
    ]
    if missing and not is_partial:
        raise ConfigError(f"{where or 'tree'}: {name} wants {', '.join(missing)}")


def plain(tree: Any) -> Any:
    """The same tree as dicts, lists and plain values."""
    if isinstance(tree, Mapping):
        return {str(key): plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain(value) for value in tree]
    return tree
