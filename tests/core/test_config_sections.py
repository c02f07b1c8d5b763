from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from quanto.core.config import Section, load_section, read_yaml
from quanto.core.errors import ConfigError, MissingDataError


class Inner(Section):
    rate: float


class Example(Section):
    seed: int
    start: date
    names: tuple[str, ...]
    inner: Inner


GOOD = {"seed": 1, "start": "2001-02-03", "names": ["a"], "inner": {"rate": 0.5}}


def test_iso_text_is_a_date_and_a_list_is_a_tuple() -> None:
    section = load_section("train", GOOD, Example)
    assert section.start == date(2001, 2, 3)
    assert section.names == ("a",)


def test_all_faults_come_in_one_message_with_path_and_value() -> None:
    with pytest.raises(ConfigError) as caught:
        load_section("train", {"seed": "1", "start": "2001-02-30", "names": ["a"], "inner": {"rate": True, "extra": 5}}, Example)
    message = str(caught.value)
    for part in ("train.seed", "(found '1')", "train.start", "train.inner.rate", "train.inner.extra: unknown key (found 5)"):
        assert part in message


def test_a_missing_key_and_a_missing_section_are_named() -> None:
    with pytest.raises(ConfigError, match=r"train\.seed: Field required"):
        load_section("train", {key: value for key, value in GOOD.items() if key != "seed"}, Example)
    with pytest.raises(ConfigError, match="train: expected a section"):
        load_section("train", None, Example)


def test_not_a_number_is_no_setting() -> None:
    with pytest.raises(ConfigError, match="finite"):
        load_section("train", GOOD | {"inner": {"rate": float("nan")}}, Example)


def test_sections_are_frozen() -> None:
    section = load_section("train", GOOD, Example)
    with pytest.raises(ValueError, match="frozen"):
        section.seed = 2  # type: ignore[misc]  # the point of the test


def test_yaml_is_loaded_safely(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("a: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError, match="no YAML"):
        read_yaml(tmp_path / "p.yaml")
    with pytest.raises(MissingDataError, match="make params"):
        read_yaml(tmp_path / "none.yaml")
