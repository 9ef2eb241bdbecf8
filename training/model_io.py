"""Network files. Ours are safetensors with the constructor arguments as metadata; released pickles are read inertly."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from dnnlib.text_files import parse_json, read_json
from dnnlib.util import UserError, atomic_path, check_regular, file_sha256, one_line
from presets import MODELS
from torch_utils.legacy_pickle import LegacyObject, read_legacy_pickle
from training.network_config import NetworkConfig
from training.precond import NVPrecond
from training.sampling_config import Role

_FORMAT = "vivid-1"
_FOLDER_CONFIG, _FOLDER_WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"  # see `diffusers_model`
_MOST_CONFIG_BYTES = 1 << 20
_log = logging.getLogger(__name__)


def resolve_network(name: str | Path, role: Role = "net") -> Path:
    """The local file of a path, an http(s) address (downloaded once) or a name in `presets.MODELS`.

    Of a folder as diffusers keeps them, here or on the Hub (``owner/repository``, ``owner/repository@revision``), the
    file of its weights: those in the folder named as the `role`, where there is one, as in a pipeline's.

    Raises UserError where there is none.
    """
    location = str(name)
    if location in MODELS:
        location = MODELS[location]["location"]
    if location.startswith(("http://", "https://")):
        from dnnlib.download import download

        if str(name) in MODELS:
            _log.info("%s: %s", name, MODELS[str(name)]["licence"])
        return download(location)
    path = Path(location)
    if path.is_file():
        return path
    for folder in (path / role, path):
        if _is_of_folder(folder / _FOLDER_WEIGHTS):
            return folder / _FOLDER_WEIGHTS
    if not path.exists():
        from dnnlib.hub import MOST_BYTES, hub_folder, is_hub_name

        if is_hub_name(location):
            most = {_FOLDER_CONFIG: _MOST_CONFIG_BYTES, _FOLDER_WEIGHTS: MOST_BYTES}
            return hub_folder(location, (role, ""), most) / _FOLDER_WEIGHTS
    what = f"is a folder without {_FOLDER_CONFIG} and {_FOLDER_WEIGHTS}" if path.is_dir() else "does not exist"
    known = f"one of {', '.join(MODELS)}"
    raise UserError(f"network {location} {what}: give a file, an http(s) address, OWNER/NAME on the Hub, or {known}")


def load_network(name: str | Path, device: torch.device | str = "cpu") -> NVPrecond:
    """A network in evaluation mode, float32, from what `resolve_network` takes.

    Reads our safetensors, the folders of `training.diffusers_model` and the released pickle layout, by content, not
    by the file's name. Nothing that a file carries is executed. Raises UserError, in one line, for anything else.
    """
    path = resolve_network(name)
    with open(path, "rb") as file:
        head = file.read(16)
    if head.lstrip()[:1] == b"<":
        raise UserError(f"{path} is a web page, not weights: open its address in a browser to see what it says")
    typical_depth: float | None = None
    heads: dict[str, int] = {}
    if _is_of_folder(path):
        init_kwargs, state, typical_depth = _read_folder(path.parent)
    elif head[:1] == b"\x80" and head[8:9] != b"{":  # safetensors: eight bytes of length, any of them, then JSON
        init_kwargs, state, heads = _read_released(path)
    else:
        init_kwargs, state, typical_depth = _read_safetensors(path)
    net = _build(path, init_kwargs, state)
    net.typical_depth = typical_depth
    for part, channels in heads.items():
        ours = net.get_submodule(part).channels_per_head
        if ours != channels:
            raise UserError(f"{path}: {part} has heads of {channels} channels, its constructor arguments give {ours}")
    net.load_state_dict(state)
    broken = [name for name, tensor in net.state_dict().items() if not bool(tensor.isfinite().all())]
    if broken:
        raise UserError(f"{path}: weights that are not finite, in {len(broken)} tensors, first {broken[0]}")
    return net.eval().requires_grad_(False).to(device)


def network_sha256(path: Path) -> str:
    """Return what tells a resolved network from others: the hash of its file, or of the two of a folder."""
    digest = file_sha256(path)
    if not _is_of_folder(path):
        return digest
    return hashlib.sha256(f"{digest} {file_sha256(path.with_name(_FOLDER_CONFIG))}".encode()).hexdigest()


def read_provenance(path: Path) -> dict[str, Any]:
    """Return what the files of a resolved network tell of its training; nothing of a released one."""
    if _is_of_folder(path):
        config = read_json(path.with_name(_FOLDER_CONFIG))
        found = config.get("provenance") if isinstance(config, dict) else None
    else:
        with open(path, "rb") as file:
            ours = file.read(9)[8:] == b"{"
        found = read_metadata(path)[1] if ours else None
    return found if isinstance(found, dict) else {}


def copy_weights(name: str | Path, net: NVPrecond) -> None:
    """Give `net` the weights of a network file; see `load_network`. Raises UserError for another architecture."""
    state = load_network(name).state_dict()
    try:
        _check_shapes(net, state)
    except UserError as error:
        raise UserError(f"{one_line(name)}: {error}") from None
    net.load_state_dict(state)


def save_network(
    path: str | Path, net: NVPrecond, provenance: dict[str, Any] | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write weights (in `dtype`, default as they are), constructor arguments and provenance; atomic, durable.

    Buffers stay float32: Fourier features amplify the rounding of their frequencies.
    """
    if net.frozen:
        raise ValueError("a frozen network no longer has the weights that were trained: save it before")
    state = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
    if dtype is not None:
        state.update({name: state[name].to(dtype) for name, _ in net.named_parameters()})
    provenance = dict(provenance or {})
    if net.typical_depth is not None:
        provenance["typical_depth"] = net.typical_depth
    metadata = {
        "format": _FORMAT,
        "init_kwargs": json.dumps(net.init_kwargs),
        "provenance": json.dumps(provenance),
    }
    content = save({name: tensor.contiguous() for name, tensor in state.items()}, metadata)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)  # save_file would make it readable by nobody else


def read_metadata(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(constructor arguments, provenance) of one of our files, without its weights."""
    check_regular(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged, or neither safetensors nor a released pickle ({one_line(error)})") from None
    if metadata.get("format") != _FORMAT:
        found = one_line(repr(metadata.get("format")), 50)
        raise UserError(f"{path}: safetensors without this project's metadata; format is {found}")
    try:
        return parse_json(metadata["init_kwargs"], "init_kwargs"), parse_json(metadata["provenance"], "provenance")
    except (KeyError, UserError) as error:
        raise UserError(f"{path}: its metadata is damaged ({one_line(error)})") from None


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], float | None]:
    init_kwargs, provenance = read_metadata(path)
    return init_kwargs, load_file(path), _typical_depth(path, provenance)


def _is_of_folder(path: Path) -> bool:
    """Whether a file is the weights of a network in diffusers' layout."""
    return path.name == _FOLDER_WEIGHTS and path.is_file() and path.with_name(_FOLDER_CONFIG).is_file()


def _read_folder(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], float | None]:
    try:
        check_regular(path / _FOLDER_WEIGHTS)
        config = read_json(path / _FOLDER_CONFIG)
        return config["init_kwargs"], load_file(path / _FOLDER_WEIGHTS), _typical_depth(path, config)
    except (SafetensorError, OSError, KeyError, TypeError, UserError) as error:
        reason = f"{type(error).__name__} {one_line(error)}"
        raise UserError(f"{path}: damaged, or the folder of another model ({reason})") from None


def _typical_depth(path: Path, metadata: dict[str, Any]) -> float | None:
    """See `NVPrecond.typical_depth`; files written before it was known have none."""
    found = metadata.get("typical_depth") if isinstance(metadata, dict) else "no mapping"
    if found is not None and not (isinstance(found, (int, float)) and 0 < found < 1e300):
        raise UserError(f"{path}: its typical_depth is {one_line(repr(found), 50)}; it is a distance, or absent")
    return found


def _read_released(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, int]]:
    """Constructor arguments, weights, and the head width that each nested U-Net says it was built with."""
    content = read_legacy_pickle(path)
    network = content.get("ema") or content.get("net")
    if not isinstance(network, LegacyObject) or network.class_name != "NVPrecond":
        found = getattr(network, "class_name", None) or ", ".join(map(str, content)) or "nothing"
        raise UserError(f"{path}: no novel-view network under 'ema' or 'net' (found {one_line(found, 100)})")
    try:
        positional = dict(zip(("img_resolution", "img_channels", "label_dim"), network.init_args, strict=False))
        init_kwargs, state = {**positional, **network.init_kwargs}, network.state_dict()
        nested: dict[str, dict[str, Any]] = {
            part: network.modules[part].init_kwargs for part in ("encoder", "unet") if part in network.modules
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: its network cannot be read ({one_line(error)})") from None
    heads: dict[str, int] = {
        part: kwargs["channels_per_head"] for part, kwargs in nested.items() if kwargs.get("channels_per_head")
    }
    return init_kwargs, state, heads


def _build(path: Path, init_kwargs: dict[str, Any], state: dict[str, torch.Tensor]) -> NVPrecond:
    """A network for the weights of a file, once it is known that they are its own."""
    try:
        config = NetworkConfig.of(init_kwargs)
        if config.architecture == "unet" and config.num_blocks * len(config.channel_mult) > len(state):
            raise UserError(f"more blocks than the file has tensors, {len(state)}")
        with torch.device("meta"):  # takes no memory, whatever the file says
            _check_shapes(NVPrecond(**config.to_dict()), state)
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: {one_line(error)}") from None
    return NVPrecond(**config.to_dict())


def _check_shapes(net: NVPrecond, state: dict[str, torch.Tensor]) -> None:
    """Raise UserError unless tensors are the weights of a network, which may be without memory of its own."""
    wanted = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    found = {name: tuple(x.shape) if x.is_floating_point() else x.dtype for name, x in state.items()}
    wrong = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    if wrong:
        name = wrong[0]
        raise UserError(
            f"weights of another architecture: {len(wrong)} tensors differ, "
            f"first {one_line(name, 100)}: file {found.get(name, 'has none')}, network {wanted.get(name, 'has none')}"
        )
