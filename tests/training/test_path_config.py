"""How a path is rendered: what each setting may be."""

from __future__ import annotations

import pytest

from datasets.trajectory_files import FORMATS
from dnnlib.util import UserError
from training.path_config import RenderConfig


def test_by_default_frames_follow_from_the_photograph_and_keep_what_it_shows() -> None:
    config = RenderConfig()
    assert (config.condition, config.samples, config.fresh_noise, config.known_pixels) == ("first", 1, False, True)
    assert (config.baseline, config.export, config.fps) == (None, (), 12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"condition": "last"}, "`condition` is one of first, chain, stochastic, not 'last'"),
        ({"key_every": 0}, "`key_every` must be in"),
        ({"samples": 0}, "`samples` must be in"),
        ({"fps": 0.0}, "`fps` must be in"),
        ({"fps": float("inf")}, "`fps` must be in"),
        ({"fps": float("nan")}, "`fps` must be in"),
        ({"baseline": "warp"}, "`baseline` is one of homography"),
        ({"export": ("colmap", "obj")}, "`export` is one of .*, not 'obj'"),
    ],
)
def test_what_cannot_be_rendered_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RenderConfig(**settings)


def test_formats_to_export_are_those_that_are_written() -> None:
    """All but the one that every path is written in."""
    RenderConfig(export=tuple(kind for kind in FORMATS if kind != "nerfstudio"))
