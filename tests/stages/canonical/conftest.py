"""The stage keeps a memo below the data root: these tests have one of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTO_DATA_ROOT", str(tmp_path_factory.mktemp("data_root")))
        yield
