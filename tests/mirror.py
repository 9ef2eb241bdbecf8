"""Which test file a module has: tests mirror the tree.

The tests of `training/loss.py` are `tests/training/test_loss.py`, those of `dnnlib/page/app.py`, in a folder of its
package, `tests/dnnlib/test_page_app.py`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent

_FORMATS = "a format is tested by reading files of it, as all others are"
_LAYOUTS = "layouts are tested side by side: each must give the same pairs"
_PACK = "what packs and what reads the pack are tested on one pack"
_MEASURED = "what is measured is not asserted: it is tested that the command line works"
# Modules whose tests are in another module's file: which, and why.
ELSEWHERE = {
    "datasets/camera_files/colmap.py": ("tests/datasets/test_camera_files.py", _FORMATS),
    "datasets/camera_files/lens.py": ("tests/datasets/test_camera_files.py", _FORMATS),
    "datasets/camera_files/matrices.py": ("tests/datasets/test_trajectory_files.py", _FORMATS),
    "datasets/camera_files/nerfstudio.py": ("tests/datasets/test_camera_files.py", _FORMATS),
    "datasets/checks.py": ("tests/datasets/test_doctor.py", "its findings are what the doctor prints"),
    "datasets/chunks.py": ("tests/datasets/test_layouts.py", _LAYOUTS),
    "datasets/frame_files.py": ("tests/datasets/test_layouts.py", _LAYOUTS),
    "datasets/pack_writer.py": ("tests/datasets/test_pack.py", _PACK),
    "datasets/packed.py": ("tests/datasets/test_pack.py", _PACK),
    "datasets/path_config.py": ("tests/test_generate_images_photographs.py", "its settings are options of that script"),
    "datasets/photographs.py": ("tests/datasets/test_single_image.py", "it reads what that turns"),
    "dnnlib/page/jobs.py": ("tests/dnnlib/test_page_studio.py", "the studio is all that gives jobs out"),
    "metrics/generated.py": ("tests/test_calculate_metrics_gen.py", "it is the command `gen`"),
    "presets.py": ("tests/training/test_sampling_config.py", "it is data alone"),
    "torch_utils/pickle_check.py": ("tests/torch_utils/test_legacy_pickle.py", "one fence, before and while reading"),
    "training/model_card.py": (
        "tests/training/test_diffusers_model.py",
        "the card is part of a folder that is pushed",
    ),
    "training/page_requests.py": ("tests/training/test_viewer.py", "a request is tested by what it shows"),
    "view_images.py": ("tests/view_images/test_command_line.py", "the page has tests enough for a folder"),
    **{
        f"benchmarks/{name}.py": ("tests/benchmarks/test_command_lines.py", _MEASURED)
        for name in (
            *("ablation", "data", "demo_model", "frechet", "geometry", "loss_curve", "options", "paths", "sampling"),
            *("solvers", "training"),
        )
    },
}


def mirror_of(module: str) -> str:
    """Return the test file that a module has by its name."""
    path = PurePosixPath(module)
    if len(path.parts) == 1:
        return f"tests/test_{path.name}"
    package, *folders = path.parent.parts
    return f"tests/{package}/test_{'_'.join([*folders, path.name])}"


def find_tests(module: str) -> str | None:
    """Return the file of a module's tests, in its own name or another's; None where there is none."""
    own = mirror_of(module)
    if (ROOT / own).is_file():
        return own
    return ELSEWHERE[module][0] if module in ELSEWHERE else None
