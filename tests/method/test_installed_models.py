"""Models in packages of their own, which an extra installs."""

import shutil
from pathlib import Path

import pytest

from knife.core.errors import UserError
from knife.models.source import EMBEDDED, INSTALLED, find_model


def test_a_model_of_a_package_is_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, inside = INSTALLED["minilm"]
    shutil.copytree(EMBEDDED["tiny-bert"], tmp_path / package / inside)
    (tmp_path / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_model("minilm", "model.student")
    assert found.name == "minilm"
    assert found.folder == tmp_path / package / inside
    assert found.identity == find_model("tiny-bert", "model.student").identity


def test_a_missing_package_is_named_with_the_extra_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(INSTALLED, "minilm", ("no_such_package_of_models", "model"))
    with pytest.raises(UserError) as caught:
        find_model("minilm", "model.student")
    assert caught.value.errors == [
        "model.student: 'minilm' is a model in a package of its own, which is not installed here; "
        "run pip install 'knife[minilm]'"
    ]
