"""The sections `hsm` that `keyside init` writes are right once they are filled in, and so is what they suggest."""

import re
from pathlib import Path

import pytest

from providers.registry import BUILT
from proxy.cli.init import PROVIDERS
from proxy.config import ConfigError, default_yaml, parse

BASE = Path("/etc/keyside")


def test_there_is_one_for_every_provider() -> None:
    assert set(PROVIDERS) == set(BUILT)
    for provider in BUILT:
        assert f"provider: {provider}\n" in default_yaml(1, provider=provider)


@pytest.mark.parametrize("provider", BUILT)
def test_it_has_no_problems_and_every_setting_of_it_is_acted_on(provider: str) -> None:
    written = re.sub(r"<[A-Z-]+>", "example", default_yaml(1, provider=provider))
    config = parse(written, base=BASE)
    assert config.unbuilt() == []
    assert config.hsm["provider"] == provider
    lines = [line[1:] if line.startswith("#  ") else line for line in written.splitlines()]
    suggested = parse("\n".join(line for line in lines if "rate:" not in line), base=BASE)
    assert suggested.unbuilt() == []
    assert set(suggested.hsm) > set(config.hsm)


@pytest.mark.parametrize("provider", sorted(set(BUILT) - {"LOCAL"}))
def test_what_is_not_filled_in_is_named(provider: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(default_yaml(1, provider=provider), base=BASE)
    assert refused.value.problems
    for problem in refused.value.problems:
        assert problem.path.startswith("hsm.")
        assert re.fullmatch(r"still has the placeholder <[A-Z-]+>: fill it in", problem.message)
