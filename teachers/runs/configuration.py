"""Configuration models: frozen and validated, from TOML files and overrides by dotted key."""

import difflib
import tomllib
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import tomli_w
from etils import epath
from pydantic import BaseModel, ConfigDict, ValidationError

from teachers.runs.errors import InputError
from teachers.runs.paths import require_reachable, translate_storage_errors

ConfigType = TypeVar("ConfigType", bound="Config")


def without_engine(settings: Any) -> Any:
    """Returns the settings of a configuration as they are written, without the engine that computes the physics.

    Runs that differ in it alone are the same but for rounding.

    Args:
        settings: what `Config.model_dump` returns.
    """
    if not isinstance(settings, Mapping):
        return settings
    return {key: without_engine(value) for key, value in settings.items() if key != "physics"}


class Config(BaseModel):
    """Base class of every configuration: immutable, with an error for unknown keys.

    Attributes:
        renamed: fields that had another name in the version before, by that name; see `current_keys`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    renamed: ClassVar[Mapping[str, str]] = {}

    def to_toml(self) -> str:
        """Returns the complete configuration as TOML, which `--config` reads again."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def stored_config(model: type[ConfigType], raw: Any, source: str) -> ConfigType:
    """Returns the configuration inside an artefact.

    Args:
        model: the type of the configuration.
        raw: the configuration as the artefact stores it.
        source: the artefact's path, for warnings and errors.

    Raises:
        InputError: the configuration does not fit this version of `model`.
    """
    try:
        return model.model_validate(current_keys(model, raw, source))
    except ValidationError as error:
        raise InputError(
            f"the configuration inside {source} does not fit this crl-distill ({_describe_error(error)}); "
            "install the version that `crl-distill info` names for it"
        ) from None


def resolve_config(
    model: type[ConfigType],
    defaults: Mapping[str, Any],
    file: epath.PathLike | None,
    overrides: Mapping[str, Any] | None,
    source: str = "--set",
) -> ConfigType:
    """Returns a configuration from defaults, a TOML file and overrides; of several values for a key, the last wins.

    Args:
        model: the type of the configuration.
        defaults: values by dotted key.
        file: a TOML file.
        overrides: values by dotted key.
        source: where the overrides come from, for warnings and errors.

    Raises:
        InputError: a key is unknown or a value is invalid; the message names the key, the value and what to do.
    """
    tree: dict[str, Any] = {}
    _merge(tree, _nest(model, defaults, "the defaults"))
    if file is not None:
        content = current_keys(model, read_toml(file), str(file))
        _require_known_keys(model, content, str(file))
        _merge(tree, content)
    _merge(tree, _nest(model, overrides or {}, source))
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise InputError(_describe_error(error)) from None


def read_toml(file: epath.PathLike) -> dict[str, Any]:
    """Returns the content of a TOML file.

    Raises:
        InputError: there is no such file, or it is not TOML.
    """
    require_reachable(file)
    try:
        with translate_storage_errors(file):
            content = epath.Path(file).read_bytes()
        return tomllib.loads(content.decode())
    except OSError as error:
        reason = error.strerror or "there is no such file"  # in a cloud the error gives no reason
        raise InputError(f"cannot read configuration {file}: {reason}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not valid TOML: {error}") from None


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """Returns overrides by dotted key from `["section.key=value", ...]`.

    Raises:
        InputError: an assignment has no `=` or no key.
    """
    pairs = [assignment.partition("=") for assignment in assignments]
    for assignment, (key, equals, _) in zip(assignments, pairs, strict=True):
        if not (key and equals):
            raise InputError(f"--set {assignment!r}: write it as section.key=value")
    return {key.strip(): value.strip() for key, _, value in pairs}


def current_keys(model: type[BaseModel], tree: Any, source: str) -> Any:
    """Returns nested configuration values with every renamed key under its present name.

    Args:
        model: the configuration that the values are meant for.
        tree: tables within tables, as TOML or JSON gives them; anything else is returned unchanged.
        source: where the values come from, named in the warning and the error.

    Raises:
        InputError: a value is given under both names.
    """
    if not isinstance(tree, Mapping):
        return tree
    sections = {name: _section(field.annotation) for name, field in model.model_fields.items()}
    renamed: Mapping[str, str] = getattr(model, "renamed", {})
    current: dict[str, Any] = {}
    for name, value in tree.items():
        present = renamed.get(name, name)
        if present != name:
            warnings.warn(f"{name!r} in {source} is now called {present!r}", stacklevel=2)
        if present in current:
            raise InputError(f"{source} sets {present!r} twice, as {name!r} too; leave one out")
        section = sections.get(present)
        current[present] = current_keys(section, value, source) if section else value
    return current


def _describe_error(error: ValidationError) -> str:
    """Returns the first error of a validation in one line: key, value and reason."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"{key} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"


def _dotted_keys(model: type[BaseModel], prefix: str = "") -> dict[str, type[BaseModel] | None]:
    """Returns every dotted key of a configuration, with the model of those that are sections and None for others."""
    keys: dict[str, type[BaseModel] | None] = {}
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        keys[prefix + name] = section
        if section:
            keys |= _dotted_keys(section, f"{prefix}{name}.")
    return keys


def _section(annotation: Any) -> type[BaseModel] | None:
    """Returns the model behind a field that is a section; None for other fields."""
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_section else None


def _require_key(model: type[Config], key: str, source: str, *, leaf: bool = False) -> None:
    """Raises an error if a configuration has no such dotted key, or, with `leaf`, if the key is a section."""
    keys = _dotted_keys(model)
    if key not in keys:
        leaves = [name for name, section in keys.items() if section is None]
        near = difflib.get_close_matches(key, leaves, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(leaves)}"
        raise InputError(f"unknown key {key!r} in {source}; {hint}")
    if keys[key] is not None and leaf:
        raise InputError(
            f"{key!r} is a section; set one of its keys, such as {_first_leaf(keys, key)!r}"
        )


def _first_leaf(keys: Mapping[str, Any], section: str) -> str:
    return next(key for key in keys if key.startswith(f"{section}."))


def _require_known_keys(model: type[Config], tree: dict[str, Any], source: str) -> None:
    """Raises an error if nested values have a key that the configuration lacks, or a value in place of a section."""
    keys = _dotted_keys(model)

    def check(node: dict[str, Any], prefix: str) -> None:
        for name, value in node.items():
            _require_key(model, prefix + name, source)
            if keys[prefix + name] is not None:
                if not isinstance(value, dict):
                    raise InputError(
                        f"{prefix + name!r} in {source} is a section; write [{prefix + name}]"
                    )
                check(value, f"{prefix}{name}.")

    check(tree, "")


def _nest(model: type[Config], flat: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns values by dotted key as nested tables, with renamed keys under their present name."""
    tree: dict[str, Any] = {}
    for given, value in flat.items():
        key = _current_key(model, given, source)
        if key != given and key in flat:
            raise InputError(f"{source} sets {key!r} twice, as {given!r} too; leave one out")
        _require_key(model, key, source, leaf=True)
        *sections, leaf = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = value
    return tree


def _current_key(model: type[BaseModel], key: str, source: str) -> str:
    """Returns the present name of a dotted key, with a warning where it was renamed."""
    section: type[BaseModel] | None = model
    names = []
    for name in key.split("."):
        present = getattr(section, "renamed", {}).get(name, name)
        names.append(present)
        field = section.model_fields.get(present) if section else None
        section = _section(field.annotation) if field else None
    current = ".".join(names)
    if current != key:
        warnings.warn(f"{key!r} in {source} is now called {current!r}", stacklevel=2)
    return current


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Sets the nested values of `new` in `into`; tables are merged key by key."""
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
