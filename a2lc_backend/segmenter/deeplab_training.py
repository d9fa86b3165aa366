"""One training of DeepLabV3+, step by step; it may be cut off and resumed, and shrinks to the memory there is."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import structlog
import torch
from torch.nn import functional

from a2lc_backend.masks import IGNORE
from a2lc_backend.segmenter import Checkpoint, Progress, Samples, SegmenterError, Training
from a2lc_backend.segmenter.crops import Batch, Place, batches, made_ahead
from a2lc_backend.segmenter.deeplab_net import build_network, half_type, logits, network_input, pooled_norm

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
POWER = 0.9
ENCODER_RATE = 0.1
"""The encoder learns at this share of the decoder's rate."""

REPORT_EVERY = 5
CHECKPOINT_EVERY = 500
"""Steps; a checkpoint of the paper's network takes 470 MB."""

log = structlog.get_logger()


class Descent:
    """One training; its random draws follow from the seed and the step, so that a checkpoint needs no other state.

    Args:
        classes: C.
        device: to train on.
        training: how.
        backbone: weights that the encoder starts from, None for random ones.
        seed: of weights, crops and dropout.
        progress: told of steps; when it raises, the training is kept before it ends.
        checkpoint: where the training is kept, None for nowhere.
    """

    def __init__(
        self,
        classes: int,
        device: torch.device,
        training: Training,
        backbone: Path | None,
        seed: int,
        progress: Progress,
        checkpoint: Checkpoint | None,
    ) -> None:
        self._classes, self._device, self._training, self._seed = classes, device, training, seed
        self._progress, self._checkpoint = progress, checkpoint
        self._about = f"{training} of {classes} classes, seed {seed}, encoder from {backbone}"
        self._network = build_network(training.encoder, classes, backbone, seed).train()
        self._network.to(device, memory_format=torch.channels_last)
        encoder = list(self._network.encoder.parameters())
        known = {id(parameter) for parameter in encoder}
        rest = [parameter for parameter in self._network.parameters() if id(parameter) not in known]
        rates = (training.learning_rate * ENCODER_RATE, training.learning_rate)
        self._optimizer = torch.optim.SGD(
            [{"params": part, "initial_lr": rate} for part, rate in zip((encoder, rest), rates, strict=True)],
            lr=training.learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY,
        )  # fmt: skip
        self._scaler = torch.amp.GradScaler(device.type, enabled=half_type(device) == torch.float16)
        self._step, self._place, self._kept = 0, Place(), 0
        self._at_once = training.batch
        self._resume()
        if self._step == 0 and backbone is None:
            log.warning(
                "the encoder begins from random weights; set A2LC_BACKBONE to a state dict of torchvision to begin "
                "from ImageNet's",
                encoder=training.encoder,
            )

    def run(self, samples: Samples) -> Any:
        """Train to the end.

        Args:
            samples: the images.

        Returns:
            The network, ready to score; None if no image has a label.

        Raises:
            SegmenterError: for a label that is no class, an array that is no image, or a device with too little memory
                for a single crop.
        """
        self._tell()
        steps = self._training.iterations
        crops = batches(samples, self._classes, self._training, self._seed, self._place)
        own_rng = torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else [])
        with own_rng, closing(made_ahead(crops, self._tell)) as ahead:
            while self._step < steps and (batch := next(ahead, None)) is not None:
                self._learn(batch)
                if self._step % REPORT_EVERY == 0 or self._step == steps:
                    self._tell()
                if self._step % CHECKPOINT_EVERY == 0:
                    self._keep()
        return None if self._step == 0 else self._network.eval()

    def _learn(self, batch: Batch) -> None:
        """One step; with too little memory it is taken again with fewer crops at once, and so are all that follow."""
        rate = poly(self._step, self._training.iterations)
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
        while True:
            torch.manual_seed(int(np.random.SeedSequence((self._seed, self._step)).generate_state(1)[0]))
            self._optimizer.zero_grad()
            try:
                add_gradients(self._network, batch, self._at_once, self._device, self._scaler)
                break
            except torch.OutOfMemoryError as error:
                if self._at_once == 1:
                    raise SegmenterError(
                        f"the device has too little memory to train on one crop of {self._training.crop} pixels; set "
                        "A2LC_CROP lower, A2LC_ENCODER to a smaller network, or A2LC_DEVICE to cpu"
                    ) from error
                self._at_once //= 2
                log.warning("out of memory; gradients are added up over parts of a batch", crops=self._at_once)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # after the exception, whose frames hold what filled the memory
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._step, self._place = self._step + 1, batch.end

    def _tell(self) -> None:
        """Report; called between steps only, so that what is kept when the work is given back is whole."""
        try:
            self._progress(self._step, self._training.iterations)
        except BaseException:
            self._keep()
            raise

    def _keep(self) -> None:
        if self._checkpoint is None or self._step == self._kept:
            return
        buffer = io.BytesIO()
        torch.save(
            {
                "about": self._about, "step": self._step, "epoch": self._place.epoch, "done": self._place.done,
                "network": self._network.state_dict(), "optimizer": self._optimizer.state_dict(),
                "scaler": self._scaler.state_dict(),
            },
            buffer,
        )  # fmt: skip
        try:
            self._checkpoint.write(buffer.getvalue())
            self._kept = self._step
        except Exception as error:  # a training of hours is not lost because a disk is full
            log.warning("the training could not be kept; if it is cut off it repeats more", error=str(error))

    def _resume(self) -> None:
        state = None if self._checkpoint is None else self._checkpoint.read()
        if state is None:
            return
        try:
            content = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
            about = content["about"]
        except (RuntimeError, UnpicklingError, EOFError, KeyError, TypeError) as error:
            log.warning("a training that was cut off cannot be read; it begins anew", error=str(error))
            return
        if about != self._about:
            log.warning("settings have changed since a training was cut off; it begins anew", was=about)
            return
        self._network.load_state_dict(content["network"])
        self._optimizer.load_state_dict(content["optimizer"])
        self._scaler.load_state_dict(content["scaler"])
        self._step = self._kept = content["step"]
        self._place = Place(content["epoch"], content["done"])
        log.info("training is resumed", step=self._step, steps=self._training.iterations)


def poly(step: int, steps: int) -> float:
    """Share of the first learning rate at a step, counted from 0: (1 − step/steps)^0.9."""
    return float((1 - step / steps) ** POWER)


def add_gradients(network: Any, batch: Batch, at_once: int, device: torch.device, scaler: torch.amp.GradScaler) -> None:
    """Add the gradients of a batch's mean cross-entropy to those of the network.

    Args:
        network: in training mode.
        batch: the crops.
        at_once: crops that go through the network together. With fewer than the batch has the sum of gradients is the
            same, but for what each part's own batch statistics change.
        device: of the network.
        scaler: of the loss.
    """
    known = max(int((batch.labels != IGNORE).sum()), 1)
    for start in range(0, len(batch.labels), at_once):
        part = slice(start, start + at_once)
        targets = torch.from_numpy(batch.labels[part]).to(device).long()
        pooled_norm(network).train(network.training and len(targets) > 1)
        small = logits(network, network_input(batch.images[part], device, batch.jitter[part]))
        large = functional.interpolate(small, targets.shape[1:], mode="bilinear", align_corners=False)
        loss = functional.cross_entropy(large, targets, ignore_index=IGNORE, reduction="sum") / known
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
