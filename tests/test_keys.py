"""Names and shapes of every architecture's state dict, as published files hold them.

A change makes saved files unreadable. After a deliberate change run `python -m tests.test_keys`.
"""

from pathlib import Path

import pytest

from dfer_zoo.models.base import skip_init
from dfer_zoo.registry import MODELS, model_class

FOLDER = Path(__file__).parent / "keys"


def keys(name: str) -> str:
    """One line per entry, for the default arguments."""
    with skip_init():
        state = model_class(name)().state_dict()
    return "".join(f"{key} {tuple(tensor.shape)}\n" for key, tensor in sorted(state.items()))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_state_dict_names_and_shapes_match_the_recorded_ones(name):
    assert keys(name) == (FOLDER / f"{name}.txt").read_text(encoding="utf-8"), "run python -m tests.test_keys"


def test_every_recorded_state_dict_has_a_model():
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(MODELS)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for model in MODELS:
        (FOLDER / f"{model}.txt").write_text(keys(model), encoding="utf-8")
