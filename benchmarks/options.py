"""The options that benchmarks which sample share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from datasets.config import DataConfig
from dnnlib.cli import preset_option, settings_options
from presets import SAMPLING
from training.sampling_config import NETWORKS, NetworkFiles, SamplingConfig

_Function = TypeVar("_Function", bound=Callable[..., Any])


def sampling_options(function: _Function) -> _Function:
    """Decorator: `--preset`, which networks, how to sample, of which data."""
    for decorate in (
        settings_options(DataConfig, only=("data", "split", "range_selection")),
        settings_options(SamplingConfig),
        settings_options(NetworkFiles),
        preset_option(SAMPLING, section=NETWORKS),
    ):
        function = decorate(function)
    return function
