"""Measure SAM, Grounding DINO and DINOv2 as rounds and clicks use them, at real sizes with random weights.

Run with `python -m benchmarks.foundation [--device cpu] [--sam vit_b]` on what device is there; the table is Markdown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from a2lc_backend.foundation import Boxes, Prompts
from a2lc_backend.foundation.dinov2 import DinoV2
from a2lc_backend.foundation.grounding import GroundingDino
from a2lc_backend.foundation.sam import Sam
from a2lc_backend.proposals import Foundation, NothingFoundError, Picture
from a2lc_backend.proposals.grounded import GroundedMasks
from a2lc_backend.segmenter.state import choose_device
from benchmarks.training import device_name, seconds
from tests.tiny_sam import write_sam
from tests.tiny_text import vocabulary, write_dinov2, write_grounding_dino

SIZE = (1024, 2048)
PHRASES = ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "tree", "grass",
           "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")  # fmt: skip
BOXES = 16


def write_real_sam(path: Path, kind: str) -> Path:
    """A checkpoint of SAM at its real size with random weights."""
    from segment_anything import sam_model_registry  # noqa: PLC0415 - seconds to load

    torch.manual_seed(0)
    torch.save(sam_model_registry[kind]().state_dict(), path)
    return path


def write_real_grounding_dino(folder: Path) -> Path:
    """Grounding DINO with Swin-T and BERT at their real sizes, random weights, and a small vocabulary."""
    from transformers import (  # noqa: PLC0415 - seconds to load
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    torch.manual_seed(0)
    swin = SwinConfig(embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, out_indices=[2, 3, 4])
    model = GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=swin, text_config=BertConfig()))
    model.save_pretrained(folder)
    GroundingDinoProcessor(GroundingDinoImageProcessor(), BertTokenizer(vocab=vocabulary())).save_pretrained(folder)
    return folder


def write_real_dinov2(folder: Path) -> Path:
    """DINOv2 of the small size with random weights."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model  # noqa: PLC0415 - seconds to load

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=384, num_attention_heads=6, num_hidden_layers=12, patch_size=14, image_size=518)
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor().save_pretrained(folder)
    return folder


def quickest(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the quickest of some repeats."""
    return min(seconds(work) for _ in range(repeats))


class Few:
    """A detector whose surest boxes count alone: random weights find 900, real ones some twenty in a street."""

    def __init__(self, detector: GroundingDino) -> None:
        self._detector = detector
        self.fingerprint = detector.fingerprint

    def detect(self, image: NDArray[np.uint8], phrases: Sequence[str], threshold: float) -> Boxes:
        """See `Detector.detect`."""
        found = self._detector.detect(image, phrases, threshold)
        kept = np.argsort(-found.scores, kind="stable")[:BOXES]
        return Boxes(found.boxes[kept], found.scores[kept], found.phrases[kept])


def measure_sam(sam: Sam, image: NDArray[np.uint8]) -> Iterator[tuple[str, float]]:
    """What reading the weights, the encoder and the decoder take, in seconds."""
    yield "SAM: read the weights", seconds(sam.warm)
    yield "SAM: encoder, first image", seconds(lambda: sam.embed(image))
    yield "SAM: encoder, later images", seconds(lambda: sam.embed(image))
    seen, (height, width) = sam.embed(image), image.shape[:2]
    point = Prompts(np.array([[width / 2, height / 2]]), np.array([True]))
    three = Prompts(np.array([[0.5, 0.5], [0.4, 0.4], [0.1, 0.1]]) * (width, height), np.array([True, True, False]))
    box = np.array([width * 0.2, height * 0.2, width * 0.6, height * 0.6])
    boxes = np.tile(box, (BOXES, 1)) + np.arange(BOXES)[:, None]
    for what, prompts in (("one point", point), ("three points", three), ("a box", Prompts(box=box))):
        took = [seconds(lambda asked=prompts: sam.mask(seen, asked)) for _ in range(20)]  # type: ignore[misc]
        yield f"SAM: mask of {what}, 95th percentile", float(np.percentile(took, 95))
    yield f"SAM: masks of {BOXES} boxes", quickest(lambda: sam.box_masks(seen, boxes), 3)


def measure_grounded(make: Callable[[], Foundation], image: NDArray[np.uint8]) -> Iterator[tuple[str, float]]:
    """What `grounded-sam` takes an image: the first, with reading the weights, and the later ones."""
    picture = Picture("image", 1, image, (), PHRASES, tuple((phrase,) for phrase in PHRASES))
    source = GroundedMasks("grounded-sam", make(), 0.0)

    def propose() -> None:
        with suppress(NothingFoundError):  # random weights need not find anything; the work was done all the same
            source.propose(picture)

    yield f"grounded-sam with {BOXES} boxes: first image, cold worker", seconds(propose)
    yield f"grounded-sam with {BOXES} boxes: later images, warm worker", seconds(propose)


def measure_dinov2(model: DinoV2, image: NDArray[np.uint8]) -> Iterator[tuple[str, float]]:
    """What features by patch take an image, with reading the weights and without."""
    yield "DINOv2 small: first image", seconds(lambda: model.dense(image))
    yield "DINOv2 small: later images", quickest(lambda: model.dense(image), 3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="cpu, cuda or cuda:1; CUDA if there is any when not set")
    parser.add_argument("--sam", choices=["vit_b", "vit_l", "vit_h"], default="vit_b", help="size of SAM")
    parser.add_argument("--small", action="store_true", help="tiny models and a small image: to try the command")
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    size = (96, 192) if options.small else SIZE
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if options.small:
            sam_path = write_sam(root / "sam.pth")
            dino, dense = write_grounding_dino(root / "dino"), write_dinov2(root / "dinov2")
        else:
            sam_path = write_real_sam(root / "sam.pth", options.sam)
            dino, dense = write_real_grounding_dino(root / "dino"), write_real_dinov2(root / "dinov2")

        def foundation() -> Foundation:
            detector, sam = Few(GroundingDino(dino, device)), Sam(sam_path, device)
            return Foundation(lambda: detector, lambda: sam, lambda model, picture: model.embed(picture.image))

        print(f"| {device_name(device)}, SAM {options.sam}, {size[1]}×{size[0]} | seconds | a second |")  # noqa: T201
        print("| --- | --- | --- |")  # noqa: T201
        for what, took in chain(
            measure_sam(Sam(sam_path, device), image),
            measure_grounded(foundation, image),
            measure_dinov2(DinoV2(dense, device), image),
        ):
            print(f"| {what} | {took:.3f} | {1 / took:.2f} |", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
