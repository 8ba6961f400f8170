"""From a file to a Config, collecting every problem: YAML, then types and ranges, then the provider's settings."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from pydantic import ValidationError

from proxy.config.model import Config
from proxy.config.problems import ConfigError, Problem
from proxy.config.sections import Admin, Socket

MAX_FILE_BYTES: Final = 1 << 20

_MESSAGES: Final = {
    "dict_type": "must be settings, such as `name: value` on lines of their own",
    "model_type": "must be settings, such as `name: value` on lines of their own",
    "tuple_type": "must be a list",
    "extra_forbidden": "unknown setting: remove it, or correct its spelling",
    "invalid_key": "unknown setting: names are text",
    "missing": "is required",
    "too_short": "needs at least one entry",
    "too_long": "has more entries than the data plane takes (4096)",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "string_type": "must be text: put it in quotes",
    "path_type": "must be a path: put it in quotes",
}


class Sockets(NamedTuple):
    """Where a sidecar is. `problems`: how many the file has elsewhere."""

    data: Path
    admin: Path
    max_frame: int | None  # bytes; None when the file has problems
    problems: int


def load(path: Path) -> Config:
    """Read the configuration file at `path`. Raises ConfigError with all problems at once."""
    path = Path(path).absolute()
    return parse(_text(path), base=path.parent, source=str(path))


def load_sockets(path: Path) -> Sockets:
    """Read what it takes to talk to a running sidecar, which serves on while its file has problems elsewhere.

    Raises ConfigError when the file cannot be read, or when a problem is in `socket` or `admin`.
    """
    path = Path(path).absolute()
    text = _text(path)
    try:
        config = parse(text, base=path.parent, source=str(path))
    except ConfigError as error:
        if any(re.match(r"((socket|admin)\b|$)", problem.path) for problem in error.problems):
            raise
        raw, _ = _mapping(text, str(path))
        context = {"base": path.parent}
        data = Socket.model_validate(raw.get("socket") or {}, context=context)
        admin = Admin.model_validate(raw.get("admin") or {}, context=context)
        return Sockets(data.path, admin.path, None, len(error.problems))
    return Sockets(config.socket.path, config.admin.path, config.limits.max_frame, 0)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(str(path), [Problem("", "no such file: write one with `keyside init`")]) from error
    except OSError as error:
        raise ConfigError(str(path), [Problem("", f"cannot be read: {error.strerror}")]) from error
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(str(path), [Problem("", f"is longer than {MAX_FILE_BYTES} bytes: is it the right file?")])
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [Problem("", f"is not UTF-8 text (at byte {error.start})")]) from error


def parse(text: str, *, base: Path, source: str = "configuration") -> Config:
    """Read a configuration from YAML `text`; relative paths start from `base`. Raises ConfigError."""
    raw, problems = _mapping(text, source)
    config: Config | None = None
    try:
        config = Config.model_validate(raw, context={"base": base})
    except ValidationError as error:
        problems += _problems(error)
    hsm = raw.get("hsm") or (config.hsm if config else None)
    if isinstance(hsm, Mapping) and all(isinstance(key, str) for key in hsm):
        problems += _provider_problems(hsm, base)
    if config is None or problems:
        raise ConfigError(source, problems)
    return config


def _provider_problems(hsm: Mapping[str, object], base: Path) -> Iterator[Problem]:
    from providers import options_problems

    return (Problem(path, message) for path, message in options_problems(hsm, base))


def _mapping(text: str, source: str) -> tuple[dict[str, Any], list[Problem]]:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        what = getattr(error, "problem", None) or "cannot be read"
        raise ConfigError(source, [Problem("", f"is not YAML: {what}{where}")]) from None
    if raw is None:
        return {}, []
    if not isinstance(raw, dict):
        raise ConfigError(source, [Problem("", "must be sections with settings, such as `cache: {ttl: 1h}`")])
    return raw, list(_repeated(node, ""))


def _repeated(node: yaml.Node | None, path: str) -> Iterator[Problem]:
    """Settings given twice: YAML keeps the last one silently, and the reader of the file believes the first."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, f"{path}[{index}]")
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        place = f"{path}.{key.value}" if path else str(key.value)
        if key.value in seen:
            yield Problem(place, f"is given a second time in line {key.start_mark.line + 1}: keep one of them")
        seen.add(key.value)
        yield from _repeated(value, place)


def _problems(error: ValidationError) -> Iterator[Problem]:
    items = error.errors(include_url=False, include_context=False, include_input=False)
    locations = [item["loc"] for item in items]
    for item in items:
        # what is left of a list once a wrong entry is taken out is not too short by the operator's doing
        if item["type"] == "too_short" and any(_within(other, item["loc"]) for other in locations):
            continue
        yield Problem(_path(item["loc"]), _MESSAGES.get(item["type"]) or _words(item["msg"]))


def _within(inner: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _words(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should be", "must be")


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) and path else f".{step}" if path else str(step)
    return path
