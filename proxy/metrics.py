"""Prometheus text exposition format 0.0.4, written out: it is a dozen lines, and the client library costs memory.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Labels = Mapping[str, str]
Kind = Literal["counter", "gauge", "histogram"]


@dataclass
class Family:
    """One metric and its samples: (suffix of the name, labels, value)."""

    name: str
    kind: Kind
    meaning: str
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> "Family":
        self.samples.append(("", labels, value))
        return self


def render(families: Iterable[Family]) -> str:
    """The text of all families that have samples."""
    return "".join(line + "\n" for family in families if family.samples for line in _lines(family))


def histogram(name: str, meaning: str, buckets: Sequence[tuple[float, int]], total: int) -> Family:
    """A histogram of (upper bound, observations at or below it) and all observations.

    It has no sum, which the format leaves optional: where only buckets are counted, a guessed sum would look measured.
    """
    family = Family(name, "histogram", meaning)
    family.samples = [("_bucket", {"le": repr(bound)}, reached) for bound, reached in buckets]
    family.samples += [("_bucket", {"le": "+Inf"}, total), ("_count", {}, total)]
    return family


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {_escaped(family.meaning, quote=False)}"
    yield f"# TYPE {family.name} {family.kind}"
    for suffix, labels, value in family.samples:
        inner = ",".join(f'{key}="{_escaped(text, quote=True)}"' for key, text in labels.items())
        yield f"{family.name}{suffix}{'{' + inner + '}' if inner else ''} {_number(value)}"


def _escaped(text: str, *, quote: bool) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
