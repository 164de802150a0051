"""Threads of one process do not change each other's results."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import dfer_zoo
from dfer_zoo.models.base import skip_init
from tests.tiny import TINY


@pytest.fixture
def busy_interpreter():
    """Switch threads as often as possible, to expose races."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def fresh(seed=0):
    torch.manual_seed(seed)
    return dfer_zoo.create_model("mae_face", **TINY["mae_face"]).state_dict()


def test_loading_in_threads_does_not_disable_initialisation(busy_interpreter):
    """Loading skips random initialisation; once, four threads left it switched off for the whole process."""
    expected = fresh()
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: dfer_zoo.create_model("av_fusion", "puppets"), range(16)):
            pass
    found = fresh()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_model_built_while_another_thread_loads_is_initialised():
    expected = fresh()
    with skip_init(), ThreadPoolExecutor(1) as pool:
        found = pool.submit(fresh).result()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
