"""Networks with random weights whose outputs depend on their inputs, for the scripts that measure speed."""

from __future__ import annotations

import torch
from torch import nn

import dfer_zoo
from dfer_zoo.models.base import DferModel
from dfer_zoo.models.shortcuts import plain


@torch.no_grad()
def random_network(name: str, device: str = "cpu") -> DferModel:
    """Create a model with seeded weights.

    Batch norms take their statistics from random inputs. With those of a new model, deep features would be nearly
    constant, and a wrong shortcut could go unnoticed.

    Args:
        name: A model of the registry, or "model.tag" for trained weights, which stay as they are.
        device: Its device.

    Returns:
        The model in eval mode.
    """
    torch.manual_seed(0)
    model = dfer_zoo.create_model(name, device=device)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if "." in name or not norms:
        return model
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    with plain():  # shortcuts fold the statistics into the weights
        model(**model.example_inputs(4))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum
    return model
