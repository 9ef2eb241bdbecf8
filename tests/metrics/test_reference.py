"""Statistics of targets in a file, in place of the targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dnnlib import UserError
from metrics import Evaluation
from metrics.definitions import FEATURE_METRICS
from metrics.detectors import load_detectors
from metrics.reference import Reference, build_reference, load_reference
from metrics.views import Views


def test_reference_stands_for_the_targets(views: Views, dinov2: Path, tmp_path: Path) -> None:
    names = ("fd_dinov2", "joint_fd_dinov2")
    detector = load_detectors(["dinov2"], weights={"dinov2": dinov2})["dinov2"]
    saved = build_reference(
        [(views.target[:4], views.source[:4]), (views.target[4:], views.source[4:])],
        {FEATURE_METRICS[name].reference_name: detector for name in names},
    )
    saved.save(tmp_path / "ref.npz")
    reference = load_reference(tmp_path / "ref.npz")
    assert reference.detectors == saved.detectors
    options = {"weights": {"dinov2": dinov2}, "allow_few": True}
    reports = []
    for chosen in (None, reference):
        evaluation = Evaluation(names, reference=chosen, **options)
        evaluation.update(views)
        reports.append(evaluation.compute())
    for own, other in zip(reports[0].scores, reports[1].scores, strict=True):
        assert other.generated == pytest.approx(own.generated, rel=1e-6)
        assert other.value("copy_source") == pytest.approx(own.value("copy_source"), rel=1e-6)

    with pytest.raises(UserError, match="all features of the targets"):
        Evaluation(["kid_dinov2"], reference=reference, **options)
    altered = Reference(reference.moments, {"dinov2": replace(detector.info, sha256="0" * 64)})
    with pytest.raises(UserError, match="another detector"):
        Evaluation(["fd_dinov2"], reference=altered, **options)
    joint = Reference({"joint_dinov2": reference.moments["joint_dinov2"]}, reference.detectors)
    with pytest.raises(UserError, match="no statistics of dinov2 features, only of joint_dinov2"):
        Evaluation(["fd_dinov2"], reference=joint, **options)


@pytest.mark.parametrize("content", [b"", b"no file of numpy", b"PK\x03\x04 no zip file"])
def test_reference_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ref.npz"
    with pytest.raises(UserError, match="there is no reference file"):
        load_reference(path)
    path.write_bytes(content)
    with pytest.raises(UserError, match="is no reference file"):
        load_reference(path)
    np.savez(path, mean=np.zeros(3))
    with pytest.raises(UserError, match="is no reference file"):
        load_reference(path)


def test_a_reference_of_a_later_zip_is_none(tmp_path: Path) -> None:
    """What zipfile does not know is no BadZipFile."""
    np.savez(tmp_path / "ref.npz", about=np.array("{}"))
    content = bytearray((tmp_path / "ref.npz").read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 101  # the version of ZIP that is needed, times ten
    (tmp_path / "ref.npz").write_bytes(content)
    with pytest.raises(UserError, match="no reference file"):
        load_reference(tmp_path / "ref.npz")
