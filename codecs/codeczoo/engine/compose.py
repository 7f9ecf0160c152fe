"""Recipe name or file, plus overrides, to a checked configuration tree."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from typing import Any

from codeczoo.core.config import check_arguments, plain, repeats, resolve
from codeczoo.core.errors import ConfigError, MissingError, nearest

ALLOW = ("codeczoo.", "torch.optim.", "lightning.")
MARKS = ("_target_", "_partial_", "_repeat_")  # keys that are no arguments
GIVEN = {  # what `engine.run` itself passes to these parts of the tree
    "task": {"codec", "objective", "optimizer", "schedule", "validation", "adversaries", "seed"},
    "trainer": {"callbacks", "logger", "default_root_dir"},
    "logger": {"save_dir"},
}
SECTIONS = (
    "name", "seed", "card", "codec", "objective", "adversaries", "optimizer", "schedule", "task", "validation",
    "data", "trainer", "logger", "run",
)


def compose(recipe: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The whole configuration of a run, checked: every key is an argument of its `_target_`.

    Args:
        recipe: name below codeczoo.recipes ("image/titok_tiny"), or path of a YAML file like those.
        overrides: Hydra overrides, "group=option" or "some.key=value". A key that the recipe leaves at its default may
            be set without Hydra's "+".

    Raises:
        ConfigError: one line with the nearest valid names.
        MissingError: Hydra is not installed.
    """
    base = _hydra(recipe, [o for o in overrides if _is_group(o)])
    tree = _hydra(recipe, [_added(o, base) for o in overrides]) if overrides else base
    tree.setdefault("name", Path(recipe).stem)
    check(tree)
    return tree


def recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(f"{media}/{name}" for media, names in _yaml_below("codeczoo.recipes") for name in names)


def _yaml_below(package: str) -> Iterator[tuple[str, list[str]]]:
    """Folders of a package, each with the names of its YAML files."""
    for folder in files(package).iterdir():
        if folder.is_dir() and not folder.name.startswith("_"):
            yield folder.name, [f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")]


def _hydra(recipe: str, overrides: list[str]) -> dict[str, Any]:
    try:
        from hydra import compose as hydra_compose
        from hydra import initialize_config_dir, initialize_config_module
        from hydra.core.global_hydra import GlobalHydra
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
    except ImportError:
        raise MissingError('training needs Hydra and Lightning: pip install "codeczoo[train]"') from None
    path = Path(recipe)
    where: AbstractContextManager[None]
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"no recipe file {recipe}")
        where = initialize_config_dir(str(path.resolve().parent), version_base="1.3")
        name, search = path.stem, "[pkg://codeczoo.conf,pkg://codeczoo.recipes]"
    else:
        if recipe not in recipes():
            raise ConfigError(f"no recipe '{recipe}'; {nearest(recipe, recipes())}")
        where = initialize_config_module("codeczoo.recipes", version_base="1.3")
        name, search = recipe, "[pkg://codeczoo.conf]"
    try:
        with where:
            composed = hydra_compose(name, overrides=[*overrides, f"hydra.searchpath={search}"])
            return dict(plain(OmegaConf.to_container(composed, resolve=True)))
    except (HydraException, OmegaConfBaseException) as error:
        changes = f" with {' '.join(overrides)}" if overrides else ""
        raise ConfigError(f"recipe {recipe}{changes}: {_one_line(error)}") from None
    finally:
        GlobalHydra.instance().clear()


def _one_line(error: Exception) -> str:
    """Hydra's message and that of its cause, the first lines, without its advice on Hydra's own syntax."""
    lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines()]
    dull = "To append", "Set the environment", "See https", "full_key", "object_type", "Config search path", "provider="
    return " ".join(dict.fromkeys(line for line in lines if line and not line.startswith(dull)))


def missing(tree: Any, where: str = "") -> list[str]:
    """Dotted names of the values that the recipe leaves to be set ("???")."""
    if isinstance(tree, Mapping):
        return [m for key, value in tree.items() for m in missing(value, f"{where}.{key}" if where else str(key))]
    return [where] if tree == "???" else []


# --- overrides -------------------------------------------------------------------------------------------------------


def _groups() -> dict[str, list[str]]:
    return {folder: sorted(names) for folder, names in _yaml_below("codeczoo.conf")}


def _is_group(override: str) -> bool:
    """Whether it chooses an option of a group. Raises ConfigError for an option that the group does not have."""
    key, _, value = override.lstrip("+~").partition("=")
    group, groups = key.partition("@")[0], _groups()
    if group not in groups or "{" in value:
        return False
    if value and value != "null" and value not in groups[group]:
        raise ConfigError(f"{override}: {group} has no '{value}'; {nearest(value, groups[group])}")
    return True


def _added(override: str, tree: Mapping[str, Any]) -> str:
    """The override as Hydra wants it: with ++ when the key is valid but the recipe does not name it.

    Raises:
        ConfigError: not key=value, or a key that is neither in the tree nor an argument of the class there.
    """
    if _is_group(override) or override.startswith(("+", "~")):
        return override
    key, equals, _ = override.partition("=")
    if not equals:
        raise ConfigError(f"'{override}' is no override; write key=value or group=option")
    node: Any = tree
    for depth, part in enumerate(key.split(".")):
        where = ".".join(key.split(".")[:depth])
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
            continue
        if not isinstance(node, Mapping):
            raise ConfigError(f"{override}: {where} has no keys, it is {node!r}")
        allowed = _arguments(node, where)
        if part not in node and part not in allowed:
            names = {*node, *allowed} - set(MARKS)
            raise ConfigError(f"{override}: no key '{part}' in {where or 'the recipe'}; {nearest(part, names)}")
        if part not in node:
            return f"++{override}"
        node = node[part]
    return override


def _arguments(node: Mapping[str, Any], where: str) -> set[str]:
    if not where:
        return {*SECTIONS, *_groups()}
    if "_target_" not in node:
        return set()
    return set(inspect.signature(resolve(node["_target_"], ALLOW, where)).parameters) - GIVEN.get(where, set())


# --- checking --------------------------------------------------------------------------------------------------------


def check(tree: Mapping[str, Any]) -> None:
    """Raises ConfigError unless every section is known and every key an argument of the class above it."""
    for key in tree:
        if key not in SECTIONS:
            raise ConfigError(f"recipe: no section '{key}'; {nearest(key, SECTIONS)}")
    for key in ("codec", "objective", "optimizer", "schedule", "task", "validation", "data", "trainer"):
        if not isinstance(tree.get(key), Mapping):
            raise ConfigError(f"recipe: section '{key}' is missing")
    _check_node({key: value for key, value in tree.items() if key != "card"}, "")


def _check_node(node: Any, where: str) -> None:
    if isinstance(node, list):
        for i, value in enumerate(node):
            _check_node(value, f"{where}[{i}]")
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        _check_node(value, f"{where}.{key}" if where else str(key))
    repeats(node, where)
    if "_target_" in node:
        arguments = {key: value for key, value in node.items() if key not in MARKS}
        factory = resolve(node["_target_"], ALLOW, where)
        check_arguments(factory, arguments, where, bool(node.get("_partial_")))
