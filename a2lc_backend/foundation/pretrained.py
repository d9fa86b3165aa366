"""Models in folders of transformers: read without the network, and refused where they are not whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from a2lc_backend.foundation import ModelUnusableError
from a2lc_backend.foundation.files import file_digest


def weights_digest(folder: Path, name: str) -> str:
    """12 hex digits that tell the weights and settings in a folder of transformers from any other.

    Args:
        folder: as `save_pretrained` writes it.
        name: of the weights, for the error.

    Raises:
        ModelUnusableError: if there are none.
    """
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not weights:
        raise ModelUnusableError(f"there are no weights in {folder}; {_mend(name)}")
    return file_digest(*sorted(folder.glob("*config.json")), *weights)


def read_model(folder: Path, families: Mapping[str, Any], name: str, device: torch.device) -> Any:
    """A model in single precision, to be asked and not to be trained.

    Args:
        folder: as `save_pretrained` writes it; nothing is downloaded.
        families: class of transformers by the `model_type` that the folder may have.
        name: of the weights, for the error.
        device: where it goes.

    Raises:
        ModelUnusableError: if the folder does not hold all weights of such a model, or the device has no room for them.
    """
    import transformers  # noqa: PLC0415 - seconds to load

    if not folder.is_dir():
        raise ModelUnusableError(f"there is no folder {folder}; {_mend(name)}")
    transformers.utils.logging.disable_progress_bar()
    try:
        kind = transformers.AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        if kind not in families:
            raise ModelUnusableError(f"{folder} is a {kind}, not a {' or '.join(families)}; {_mend(name)}")
        model, found = families[kind].from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except ModelUnusableError:
        raise
    except Exception as error:  # files that are none fail in ways that transformers does not document
        raise ModelUnusableError(
            f"{folder} is no {' or '.join(families)} ({_first_line(error)}); {_mend(name)}"
        ) from error
    absent = sorted({key for key, _ in model.named_parameters()}.intersection(found["missing_keys"]))
    if absent:  # transformers would go on with random numbers
        raise ModelUnusableError(f"{folder} lacks {len(absent)} weights, {absent[0]} among them; {_mend(name)}")
    try:
        return model.eval().requires_grad_(requires_grad=False).to(device)
    except torch.OutOfMemoryError as error:
        raise ModelUnusableError(
            f"the device has too little memory for the weights of {folder}; set A2LC_DEVICE to cpu"
        ) from error


def read_processor(folder: Path, kind: Any, name: str) -> Any:
    """What prepares images, and words if there are any, for a model of the same folder.

    Args:
        folder: as `save_pretrained` writes it; nothing is downloaded.
        kind: class of transformers.
        name: of the weights, for the error.

    Raises:
        ModelUnusableError: if the folder holds none.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # files that are none fail in ways that transformers does not document
        raise ModelUnusableError(
            f"{folder} says not how images are prepared ({_first_line(error)}); {_mend(name)}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _mend(name: str) -> str:
    return f"look with: a2lc weights check; get it with: a2lc weights fetch {name}"
