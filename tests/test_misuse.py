"""Arguments of a wrong type raise an `InputError` that names the argument."""

import numpy as np
import pytest

import dfer_zoo
from dfer_zoo.errors import InputError


@pytest.fixture(scope="module")
def recognizer():
    return dfer_zoo.Recognizer("mini_xception.fer2013", faces="none")


def frames():
    return dfer_zoo.Clip.from_arrays(np.zeros((4, 64, 64, 3), np.uint8), fps=5)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: dfer_zoo.get_weights(5), "names.*5"),
        (lambda: dfer_zoo.get_weights("mma_dfer", 5), "names.*5"),
        (lambda: dfer_zoo.list_models(None), "pattern.*None"),
        (lambda: dfer_zoo.list_models("*", exclude_filters=5), "pattern.*5"),
        (lambda: dfer_zoo.list_pretrained([5]), "pattern.*5"),
        (lambda: dfer_zoo.create_transform(5), "model.*int"),
        (lambda: dfer_zoo.create_transform(None), "model.*NoneType"),
        (lambda: dfer_zoo.Recognizer(5), "model is 5"),
        (lambda: dfer_zoo.Recognizer(["mini_xception", None]), "model is None"),
        (lambda: dfer_zoo.Recognizer("mini_xception", 5), "pretrained is 5"),
    ],
)
def test_functions_refuse_arguments_of_a_wrong_type(call, named):
    with pytest.raises(InputError, match=named):
        call()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda r: r(5), "int"),
        (lambda r: list(r.many(5)), "list of sources.*int"),
        (lambda r: list(r.many([frames()], workers="x")), "'x' workers"),
        (lambda r: r.embed(5), "list of sources.*int"),
        (lambda r: r.stream("x"), "fps is x"),
        (lambda r: r(frames()).top("x"), "count is 'x'"),
    ],
)
def test_a_recognizer_refuses_arguments_of_a_wrong_type(recognizer, call, named):
    with pytest.raises(InputError, match=named):
        call(recognizer)
