from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs
from torch.nn import functional

from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.heartbeat import RoundStoppedError
from a2lc_backend.rounds.runner import run_round
from a2lc_backend.segmenter import SegmenterError, Training, deeplab_net, deeplab_training, enlarge
from a2lc_backend.segmenter.crops import Place, batches
from a2lc_backend.segmenter.deeplab_net import build_network, network_input
from tests.tiny_deeplab import CPU, LONG, PAIRS, SHORT, OutOfMemory, build, samples, small_scale
from tests.world_run import Run


@pytest.fixture(scope="module", autouse=True)
def quick():
    with small_scale():
        yield


@pytest.fixture(scope="module")
def calm():
    """The state after a short training that nothing disturbed."""
    segmenter = build()
    segmenter.fit(samples)
    return segmenter.state()


class Kept:
    """A checkpoint in memory."""

    def __init__(self):
        self.states = []

    def read(self):
        return self.states[-1] if self.states else None

    def write(self, state):
        self.states.append(state)


class TestTraining:
    def test_the_rate_falls_as_a_polynomial_and_the_encoder_has_a_tenth(self, monkeypatch):
        rates = []
        step = torch.optim.SGD.step

        def spy(optimizer, *args, **kwargs):
            rates.append([group["lr"] for group in optimizer.param_groups])
            assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.9]
            assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4, 1e-4]
            return step(optimizer, *args, **kwargs)

        monkeypatch.setattr(torch.optim.SGD, "step", spy)
        build().fit(samples)
        expected = [0.05 * (1 - step / 6) ** 0.9 for step in range(6)]
        np.testing.assert_allclose(np.array(rates)[:, 1], expected)
        np.testing.assert_allclose(np.array(rates)[:, 0], np.array(expected) / 10)

    def test_the_loss_is_the_mean_over_known_pixels(self):
        network = build_network("resnet18", 2, None, 0).eval()  # what each part normalises by is then the same
        batch = next(batches(samples, 2, Training(crop=50, batch=3), 0, Place()))
        batch.labels[1, :40] = IGNORE
        x = network_input(batch.images, CPU, batch.jitter)
        large = functional.interpolate(network(x), (64, 64), mode="bilinear", align_corners=False)
        functional.cross_entropy(large, torch.from_numpy(batch.labels).long(), ignore_index=IGNORE).backward()
        expected = [parameter.grad.clone() for parameter in network.parameters()]
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        for at_once in (3, 2, 1):
            network.zero_grad()
            deeplab_training.add_gradients(network, batch, at_once, CPU, scaler)
            for parameter, gradient in zip(network.parameters(), expected, strict=True):
                torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-3)

    def test_out_of_memory_halves_the_batch_and_training_goes_on(self, monkeypatch):
        hungry = OutOfMemory(monkeypatch, most=64 * 64)
        segmenter = build(LONG)
        done = []
        with capture_logs() as logs:
            segmenter.fit(samples, lambda step, steps: done.append(step))
        assert hungry.asked == [2 * 64 * 64] + [64 * 64] * 48, "it fails once, and is not tried again"
        assert done[-1] == 24
        assert [entry["crops"] for entry in logs if "out of memory" in entry["event"]] == [1]
        for image, labels in PAIRS:
            soft = segmenter.soft_labels(image[:64, :64])
            assert (enlarge(soft, (64, 64)).argmax(axis=0) == labels[:64, :64]).mean() > 0.8

    def test_a_step_is_taken_again_from_its_beginning(self, monkeypatch):
        """What had been added up when the memory ran out does not count twice, and dropout is drawn the same."""
        learn, add, step = deeplab_training.Descent._learn, deeplab_training.add_gradients, torch.optim.SGD.step
        seen, failures = [], []

        def spy(optimizer, *args, **kwargs):
            seen.append([p.grad.clone() for group in optimizer.param_groups for p in group["params"]])
            return step(optimizer, *args, **kwargs)

        def run_out(*args):
            add(*args)
            if failures:
                raise failures.pop()

        def learn_with_room(descent, batch):
            descent._at_once = 4  # halved to the 2 crops that the batch has
            learn(descent, batch)

        monkeypatch.setattr(torch.optim.SGD, "step", spy)
        monkeypatch.setattr(deeplab_training, "add_gradients", run_out)
        monkeypatch.setattr(deeplab_training.Descent, "_learn", learn_with_room)
        for failure in ([], [torch.OutOfMemoryError("CUDA out of memory")]):
            failures[:] = failure
            build(replace(SHORT, iterations=1)).fit(samples)
        assert not failures
        assert all(map(torch.equal, *seen))

    def test_a_crop_that_does_not_fit_names_the_mend(self, monkeypatch):
        OutOfMemory(monkeypatch, most=100)
        segmenter = build()
        with pytest.raises(SegmenterError, match=r"one crop of 32 pixels; set A2LC_CROP lower"):
            segmenter.fit(samples)

    @pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
    def test_mixed_precision_trains(self, monkeypatch, calm, half):
        for room in (deeplab_net, deeplab_training):
            monkeypatch.setattr(room, "half_type", lambda device: half)
        segmenter = build()
        segmenter.fit(samples)
        assert segmenter.state() != calm
        assert all(parameter.isfinite().all() for parameter in segmenter._net.parameters())


class TestResuming:
    @pytest.mark.parametrize("last", [1, 5, 6])
    def test_a_training_that_is_given_back_ends_as_an_undisturbed_one(self, monkeypatch, calm, last):
        monkeypatch.setattr(deeplab_training, "REPORT_EVERY", 1)
        kept = Kept()

        def stop(done, total):
            if done == last:
                raise InterruptedError

        segmenter = build()
        before = segmenter.state()
        with pytest.raises(InterruptedError):
            segmenter.fit(samples, stop, kept)
        assert segmenter.state() == before
        assert len(kept.states) == 1
        steps = []
        resumed = build()
        resumed.fit(samples, lambda done, total: steps.append((done, total)), kept)
        assert steps[0] == (last, 6)
        assert steps[-1] == (6, 6)
        assert resumed.state() == calm

    def test_a_process_that_is_killed_repeats_the_steps_since_the_last_checkpoint(self, monkeypatch, calm):
        monkeypatch.setattr(deeplab_training, "CHECKPOINT_EVERY", 2)
        kept, taken = Kept(), []
        learn = deeplab_training.Descent._learn

        def die_at_5(descent, batch):
            taken.append(descent._step)
            if taken == [0, 1, 2, 3, 4]:
                raise KeyboardInterrupt
            learn(descent, batch)

        monkeypatch.setattr(deeplab_training.Descent, "_learn", die_at_5)
        with pytest.raises(KeyboardInterrupt):
            build().fit(samples, None, kept)
        resumed = build()
        resumed.fit(samples, None, kept)
        assert taken == [0, 1, 2, 3, 4, 4, 5]
        assert resumed.state() == calm

    @pytest.mark.parametrize("broken", ["bytes", "settings"])
    def test_a_checkpoint_of_no_use_begins_anew(self, monkeypatch, calm, broken):
        kept = Kept()
        if broken == "bytes":
            kept.write(b"nonsense")
        else:
            monkeypatch.setattr(deeplab_training, "CHECKPOINT_EVERY", 1)
            build(replace(SHORT, iterations=1)).fit(samples, None, kept)
        segmenter = build()
        monkeypatch.undo()
        with capture_logs() as logs:
            segmenter.fit(samples, None, kept)
        assert any("begins anew" in entry["event"] for entry in logs)
        assert segmenter.state() == calm

    def test_a_checkpoint_that_cannot_be_written_costs_nothing(self, monkeypatch, calm):
        monkeypatch.setattr(deeplab_training, "CHECKPOINT_EVERY", 3)

        class Full(Kept):
            def write(self, state):
                raise OSError("no space left on device")

        segmenter = build()
        with capture_logs() as logs:
            segmenter.fit(samples, None, Full())
        assert any("could not be kept" in entry["event"] for entry in logs)
        assert segmenter.state() == calm

    def test_a_round_that_is_stopped_goes_on_where_its_training_was(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr(deeplab_training, "REPORT_EVERY", 1)
        monkeypatch.setattr("tests.world_run.make_segmenter", lambda name, classes: build(classes=classes))
        calm, run = Run(world, tmp_path / "calm"), Run(world, tmp_path / "stopped")
        calm.round()
        stop, trained = threading.Event(), []
        learn = deeplab_training.Descent._learn

        def count(descent, batch):
            trained.append(descent._step)
            learn(descent, batch)
            if len(trained) == 3:
                stop.set()

        monkeypatch.setattr(deeplab_training.Descent, "_learn", count)
        with pytest.raises(RoundStoppedError):
            run_round(run.begin(), "the process that ends", stop=stop)
        folder = run.folder / "artifacts" / "project-1" / "rounds" / "0" / "training"
        assert len(list(folder.iterdir())) == 1
        run.round()
        assert trained == [0, 1, 2, 3, 4, 5]
        assert run.workspace.segmenter(0) == calm.workspace.segmenter(0)
        assert not folder.exists(), "what the training was resumed from is forgotten"
