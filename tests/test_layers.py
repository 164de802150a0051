"""Layers that several models share."""

import pytest

from dfer_zoo.models.layers import TemporalTransformer


@pytest.mark.parametrize(("width", "mlp_width"), [(88, 120), (448, 488), (64, None)])
def test_the_hidden_layer_has_the_requested_width(width, mlp_width):
    net = TemporalTransformer(width, mlp_width=mlp_width)
    assert net.blocks[0].mlp.fc1.out_features == (mlp_width or 2 * width)
