"""Drawn street scenes: a world folder for machines without data, different in light, layout and noise by seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from a2lc_backend.bench.proposal_noise import guess_labels, propose_masks
from a2lc_backend.bench.scene_canvas import CLASSES, DUSK, GOLDEN, MORNING, NOON, OVERCAST
from a2lc_backend.bench.scene_street import draw_scene
from a2lc_backend.bench.world import World, load_world

IGNORE_ID = len(CLASSES)
LIGHTS = (NOON, NOON, MORNING, OVERCAST, GOLDEN, GOLDEN, DUSK)
PALETTE: tuple[tuple[int, int, int], ...] = (
    (128, 178, 230),
    (128, 64, 64),
    (192, 192, 128),
    (112, 72, 128),
    (208, 120, 190),
    (96, 140, 48),
    (232, 170, 40),
    (240, 88, 48),
    (150, 120, 100),
    (56, 72, 176),
    (214, 40, 84),
    (0, 0, 0),
)
"""One colour a class for the label files, the last for "no class"."""


def draw_world(
    root: Path,
    images: int = 48,
    val_images: int = 12,
    size: tuple[int, int] = (240, 320),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> World:
    """Draw street scenes and write them as a world folder, without a backbone.

    The same arguments write the same bytes; scene i does not depend on how many scenes are drawn.

    Args:
        root: the folder; made if it is not there, files of the same names are overwritten.
        images: scenes for the pool.
        val_images: scenes for validation; they get no masks.
        size: height and width of an image in pixels.
        seed: 0 or more; another seed gives another town.
        progress: called with scenes done and scenes in all.

    Returns:
        The world, read back from the folder.

    Raises:
        ValueError: for less than one image, a size below 96×128, a negative seed, or a folder that already holds other
            images.
    """
    if images < 1 or val_images < 0:
        raise ValueError(f"{images} images and {val_images} for validation; ask for 1 or more and 0 or more")
    if size[0] < 96 or size[1] < 128:
        raise ValueError(f"scenes of {size[0]}×{size[1]} pixels show nothing; ask for 96×128 or more (height, width)")
    if seed < 0:
        raise ValueError(f"the seed is {seed}; use 0 or more")
    root = Path(root)
    _check_folder(root / "pool" / "images", {f"{_name(True, number)}.jpg" for number in range(images)})
    _check_folder(root / "val" / "images", {f"{_name(False, number)}.jpg" for number in range(val_images)})
    labels: dict[str, list[int]] = {}
    for index in range(images + val_images):
        pool = index < images
        number = index if pool else index - images
        rng = np.random.default_rng([seed, 0 if pool else 1, number])
        image, truth, objects = draw_scene(rng, size, LIGHTS[(number * 3 + seed) % len(LIGHTS)])
        folder, name = root / ("pool" if pool else "val"), _name(pool, number)
        _save(folder / "images" / f"{name}.jpg", Image.fromarray(image))
        _save(folder / "labels" / f"{name}.png", _palette_image(truth))
        if pool:
            masks = propose_masks(rng, image, objects, truth)
            _save(folder / "masks" / f"{name}.png", Image.fromarray(masks))
            labels[name] = guess_labels(rng, image, masks, truth)
        if progress is not None:
            progress(index + 1, images + val_images)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in labels.items())
    (root / "pool" / "pseudo_labels.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    classes = {"names": list(CLASSES), "ignore": IGNORE_ID}
    (root / "classes.json").write_text(json.dumps(classes) + "\n", encoding="utf-8")
    return load_world(root)


def _name(pool: bool, number: int) -> str:
    return f"{'street' if pool else 'val'}-{number + 1:03d}"


def _check_folder(folder: Path, names: set[str]) -> None:
    """Refuse a folder with images that would not be drawn over: they would belong to the world without labels."""
    others = sorted(path.name for path in folder.iterdir() if path.name not in names) if folder.is_dir() else []
    if others:
        raise ValueError(f"{folder} holds {len(others)} other files ({others[0]}, …); draw into an empty folder")


def _palette_image(truth: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(truth)
    image.putpalette([value for colour in PALETTE for value in colour])
    return image


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        image.save(path, quality=93, subsampling=0)
    else:
        image.save(path, optimize=False)
