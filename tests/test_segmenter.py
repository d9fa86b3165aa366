import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from a2lc_backend.bench.world import load_world
from a2lc_backend.masks import IGNORE, label_map
from a2lc_backend.segmenter import SegmenterError, enlarge, head, make_segmenter, unet
from a2lc_backend.segmenter.backbones import MAX_CELLS, ResNetBackbone, open_backbone
from a2lc_backend.segmenter.state import grid_labels

CAMVID = Path(__file__).parents[2] / "shared" / "camvid"
CPU = torch.device("cpu")
COLOURS = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200)], np.uint8)


class TinyBackbone(nn.Module):
    def forward(self, x):
        blurred = functional.avg_pool2d(x, 3, stride=1, padding=1)
        features = torch.cat([x, blurred, x[:, :1] * 0], dim=1)  # the last channel never varies
        return features, features[:, :2]


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "tiny.pt2"
    torch.export.save(torch.export.export(TinyBackbone().eval(), (torch.zeros(1, 3, 24, 32),)), path)
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few steps, and one thread: on arrays this small, several wait for each other."""
    monkeypatch.setattr(unet, "MIN_STEPS", 40)
    monkeypatch.setattr(head, "MIN_STEPS", 80)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["head", "unet"])
def build(request, tiny_backbone):
    def build(classes=3, seed=0):
        return make_segmenter(request.param, classes=classes, device="cpu", backbone=tiny_backbone, seed=seed)

    return build


def scenes(sizes=((48, 64), (48, 64), (60, 40)), classes=3):
    """Noisy blocks of colour with the truth of each pixel."""
    rng = np.random.default_rng(0)
    for height, width in sizes:
        blocks = rng.integers(0, classes, (3, 4)).astype(np.uint8)
        rows, columns = np.arange(height) * 3 // height, np.arange(width) * 4 // width
        labels = blocks[rows[:, None], columns[None, :]]
        noise = rng.integers(-20, 20, (height, width, 3))
        yield (COLOURS[labels] + noise).astype(np.uint8), labels


def samples_for(segmenter, pairs):
    prepared = [(segmenter.prepare(image), labels) for image, labels in pairs]
    return lambda: iter(prepared)


def test_importing_the_room_does_not_import_torch():
    code = "import sys, a2lc_backend.segmenter; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "sam", "classes": 3}, "choose one of head, unet"),
        ({"name": "unet", "classes": 0}, "1 to 255 labels"),
        ({"name": "unet", "classes": 256}, "1 to 255 labels"),
        ({"name": "head", "classes": 3}, "set A2LC_BACKBONE to its file or choose `unet`"),
        ({"name": "head", "classes": 3, "backbone": Path("/no/such.pth")}, "no backbone /no/such.pth"),
        ({"name": "unet", "classes": 3, "device": "toaster"}, "set A2LC_DEVICE to cpu or cuda"),
    ],
)
def test_what_cannot_be_built_names_the_mend(arguments, message):
    with pytest.raises(SegmenterError, match=message):
        make_segmenter(**arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_that_is_not_there():
    with pytest.raises(SegmenterError, match="set A2LC_DEVICE to cpu"):
        make_segmenter("unet", classes=3, device="cuda")


class TestEnlarge:
    @pytest.mark.parametrize("size", [(11, 17), (3, 2), (5, 4), (1, 1)])
    def test_is_bilinear_and_sums_to_1(self, size):
        soft = np.random.default_rng(0).dirichlet(np.ones(6), (5, 4)).transpose(2, 0, 1).astype(np.float32)
        large = enlarge(soft, size)
        expected = functional.interpolate(torch.from_numpy(soft)[None], size, mode="bilinear", align_corners=False)[0]
        assert large.dtype == np.float32
        np.testing.assert_allclose(large, expected.numpy(), atol=1e-5)
        np.testing.assert_allclose(large.sum(axis=0), 1, atol=1e-6)


class TestGridLabels:
    def test_takes_the_label_under_the_centre(self):
        labels = np.arange(16, dtype=np.uint8).reshape(4, 4)
        assert grid_labels(labels, (2, 2), 16).tolist() == [[5, 7], [13, 15]]
        assert grid_labels(labels[:1, :1], (2, 3), 16).tolist() == [[0, 0, 0], [0, 0, 0]]

    def test_a_label_that_is_no_class(self):
        with pytest.raises(SegmenterError, match="label 3, but there are 3 classes; use 0 to 2, or 255"):
            grid_labels(np.full((2, 2), 3, np.uint8), (2, 2), 3)


class TestEverySegmenter:
    def test_learns_colours_of_images_of_several_sizes(self, build):
        segmenter = build()
        pairs = list(scenes())
        segmenter.fit(samples_for(segmenter, pairs))
        for image, labels in pairs:
            soft = segmenter.soft_labels(segmenter.prepare(image))
            assert soft.dtype == np.float32
            np.testing.assert_allclose(soft.sum(axis=0), 1, atol=1e-5)
            assert (enlarge(soft, labels.shape).argmax(axis=0) == labels).mean() > 0.85

    def test_the_same_seed_gives_the_same_bytes(self, build):
        outputs = []
        for seed in (0, 0, 1):
            segmenter = build(seed=seed)
            samples = samples_for(segmenter, scenes())
            segmenter.fit(samples)
            outputs.append(segmenter.soft_labels(next(samples())[0]).tobytes())
        assert outputs[0] == outputs[1] != outputs[2]

    def test_state_restores_exactly(self, build):
        first, second = build(), build(seed=5)
        samples = samples_for(first, scenes())
        first.fit(samples)
        second.load(first.state())
        prepared = next(samples())[0]
        assert second.soft_labels(prepared).tobytes() == first.soft_labels(prepared).tobytes()
        assert second.state() == first.state()

    def test_a_new_class_has_probability_0_in_an_older_state(self, build):
        first, second = build(3), build(5)
        samples = samples_for(first, scenes())
        first.fit(samples)
        second.load(first.state())
        prepared = next(samples())[0]
        np.testing.assert_array_equal(second.soft_labels(prepared)[:3], first.soft_labels(prepared))
        assert (second.soft_labels(prepared)[3:] == 0).all()
        second.fit(samples)
        assert len(second.soft_labels(prepared)) == 5

    def test_an_untrained_state_is_restored_too(self, build):
        first, second = build(), build()
        second.load(first.state())
        prepared = first.prepare(next(scenes())[0])
        np.testing.assert_allclose(second.soft_labels(prepared), 1 / 3)

    def test_a_state_that_is_none(self, build):
        segmenter = build()
        for state in (b"", b"nonsense", segmenter.state()[:-100]):
            with pytest.raises(SegmenterError, match="run the round's training again"):
                segmenter.load(state)

    def test_a_state_of_more_classes(self, build):
        with pytest.raises(SegmenterError, match="start a new round"):
            build(3).load(build(4).state())

    def test_without_labels_the_soft_labels_are_uniform(self, build):
        segmenter = build(4)
        samples = samples_for(segmenter, scenes())
        segmenter.fit(samples)
        nothing = [(prepared, np.full_like(labels, IGNORE)) for prepared, labels in samples()]
        segmenter.fit(lambda: iter(nothing))
        np.testing.assert_allclose(segmenter.soft_labels(nothing[0][0]), 0.25)
        segmenter.fit(lambda: iter([]))
        np.testing.assert_allclose(segmenter.soft_labels(nothing[0][0]), 0.25)

    def test_one_class(self, build):
        segmenter = build(1)
        pairs = [(image, np.zeros_like(labels)) for image, labels in scenes()]
        samples = samples_for(segmenter, pairs)
        segmenter.fit(samples)
        np.testing.assert_allclose(segmenter.soft_labels(next(samples())[0]), 1)

    def test_a_class_that_is_never_seen_is_unlikely(self, build):
        segmenter = build(4)
        samples = samples_for(segmenter, scenes())
        segmenter.fit(samples)
        soft = segmenter.soft_labels(next(samples())[0])
        assert np.isfinite(soft).all()
        assert soft[3].mean() < 0.2

    @pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (5, 300)])
    def test_tiny_images(self, build, size):
        segmenter = build()
        image, labels = np.full((*size, 3), 90, np.uint8), np.ones(size, np.uint8)
        samples = samples_for(segmenter, [(image, labels)])
        segmenter.fit(samples)
        soft = enlarge(segmenter.soft_labels(next(samples())[0]), size)
        assert soft.shape == (3, *size)
        assert np.isfinite(soft).all()
        assert (soft.argmax(axis=0) == 1).all()

    def test_a_label_that_is_no_class(self, build):
        segmenter = build(2)
        with pytest.raises(SegmenterError, match="there are 2 classes; use 0 to 1"):
            segmenter.fit(samples_for(segmenter, scenes()))

    def test_an_array_of_another_kind(self, build):
        segmenter = build()
        with pytest.raises(SegmenterError, match="prepare the images again"):
            segmenter.soft_labels(np.zeros((4, 5), np.float32))

    def test_progress_is_told_and_may_stop_the_training(self, build):
        segmenter = build()
        samples = samples_for(segmenter, scenes())
        calls = []
        segmenter.fit(samples, lambda done, total: calls.append((done, total)))
        assert calls[0][0] == 0
        assert calls[-1][0] == calls[-1][1] > 0
        assert [done for done, _ in calls] == sorted(done for done, _ in calls)
        before = segmenter.state()

        def stop(done, total):
            if done > 10:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            segmenter.fit(samples, stop)
        assert segmenter.state() == before

    def test_read_only_arrays_will_do(self, build):
        segmenter = build()
        image, labels = next(scenes())
        for array in (image, labels):
            array.flags.writeable = False
        prepared = segmenter.prepare(image)
        prepared.flags.writeable = False
        segmenter.fit(lambda: iter([(prepared, labels)]))
        segmenter.soft_labels(prepared)


class TestHead:
    def test_features_have_the_size_of_the_file(self, tiny_backbone):
        segmenter = make_segmenter("head", classes=3, device="cpu", backbone=tiny_backbone)
        image = np.full((100, 90, 3), 51, np.uint8)
        features = segmenter.prepare(image)
        assert features.shape == (7, 24, 32)
        assert features.dtype == np.float16
        np.testing.assert_allclose(features[0], 0.2, atol=1e-3)

    def test_memory_is_bounded(self, monkeypatch):
        monkeypatch.setattr(head, "MAX_PIXELS", 500)
        sample = head.PixelSample(2, seed=0)
        rng = np.random.default_rng(0)
        for _ in range(50):
            labels = rng.integers(0, 2, (20, 20)).astype(np.uint8)
            sample.add(labels[None].astype(np.float16), labels)
        rows, labels = sample.rows()
        assert 200 < len(rows) == len(labels) <= 500
        np.testing.assert_array_equal(rows[:, 0], labels)  # features stay with their labels
        assert abs(labels.mean() - 0.5) < 0.1

    def test_more_images_than_pixels_are_drawn_from_alike(self, monkeypatch):
        monkeypatch.setattr(head, "MAX_PIXELS", 100)
        sample = head.PixelSample(2, seed=0)
        labels, thinned = np.zeros((4, 4), np.uint8), 0
        for image in range(2_000):
            before = sample._count
            sample.add(np.full((1, 4, 4), image, np.float16), labels)
            thinned += sample._count < before
        rows = sample.rows()[0][:, 0]
        assert 25 <= len(rows) == len(set(rows.tolist())) <= 100
        assert 500 < rows.astype(float).mean() < 1_500  # early ones and late ones
        assert thinned < 20, "memory is tidied when it has doubled, not with every image"

    def test_rare_classes_are_drawn_more_often(self):
        labels = np.zeros((100, 100), np.uint8)
        labels[:5] = 1
        sample = head.PixelSample(2, seed=0)
        sample.add(labels[None].astype(np.float16), labels)
        assert 0.07 < sample.rows()[1].mean() < 0.13  # 0.05 of the pixels

    def test_features_of_another_backbone(self, tiny_backbone):
        segmenter = make_segmenter("head", classes=3, device="cpu", backbone=tiny_backbone)
        segmenter.fit(samples_for(segmenter, scenes()))
        other = np.zeros((5, 24, 32), np.float16)
        with pytest.raises(SegmenterError, match="the backbone changed"):
            segmenter.soft_labels(other)
        image, labels = next(scenes())
        with pytest.raises(SegmenterError, match="the backbone changed"):
            segmenter.fit(lambda: iter([(segmenter.prepare(image), labels), (other, labels)]))

    @pytest.mark.skipif(not CAMVID.is_dir(), reason="shared/camvid is not here")
    def test_camvid(self):
        world = load_world(CAMVID, limit=6)
        segmenter = make_segmenter("head", classes=11, device="cpu", backbone=world.backbone_path)
        masks = [world.mask_set(name) for name in world.names]
        pairs = [
            (world.image(name), label_map(item.mask_ids, item.first_labels))
            for name, item in zip(world.names, masks, strict=True)
        ]
        samples = samples_for(segmenter, pairs)
        assert next(samples())[0].shape == (128, 90, 120)
        segmenter.fit(samples)
        right = known = 0
        for name, (prepared, _) in zip(world.names, samples(), strict=True):
            truth = world.truth(name)
            guess = enlarge(segmenter.soft_labels(prepared), truth.shape).argmax(axis=0)
            right += ((guess == truth) & (truth != IGNORE)).sum()
            known += (truth != IGNORE).sum()
        assert right / known > 0.75


class TestBackbones:
    def test_a_file_that_is_no_program(self, tmp_path):
        path = tmp_path / "broken.pt2"
        path.write_bytes(b"nothing")
        with pytest.raises(SegmenterError, match=r"write it with torch\.export\.save"):
            open_backbone(path, CPU).features(np.zeros((4, 4, 3), np.uint8))

    def test_a_program_without_a_fixed_size(self, tmp_path):
        sides = {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
        exported = torch.export.export(TinyBackbone().eval(), (torch.zeros(1, 3, 24, 32),), dynamic_shapes={"x": sides})
        torch.export.save(exported, tmp_path / "free.pt2")
        with pytest.raises(SegmenterError, match="of fixed height and width"):
            open_backbone(tmp_path / "free.pt2", CPU).features(np.zeros((4, 4, 3), np.uint8))

    def test_the_fingerprint_follows_the_file(self, tmp_path):
        names = set()
        for content in (b"a", b"b"):
            (tmp_path / "x.pt2").write_bytes(content)
            names.add(open_backbone(tmp_path / "x.pt2", CPU).fingerprint)
        assert len(names) == 2

    @pytest.mark.parametrize("size", [(120, 200), (900, 600), (2, 3)])
    def test_resnet18(self, resnet18, size):
        image = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
        features = ResNetBackbone(resnet18, CPU).features(image)
        assert features.shape[0] == 128
        assert max(features.shape[1:]) <= MAX_CELLS
        assert np.isfinite(features).all()
        np.testing.assert_array_equal(features, ResNetBackbone(resnet18, CPU).features(image))

    def test_resnet18_under_a_head(self, resnet18):
        segmenter = make_segmenter("head", classes=3, device="cpu", backbone=resnet18)
        pairs = list(scenes(sizes=((96, 128),)))
        samples = samples_for(segmenter, pairs)
        segmenter.fit(samples)
        soft = enlarge(segmenter.soft_labels(next(samples())[0]), (96, 128))
        assert (soft.argmax(axis=0) == pairs[0][1]).mean() > 0.8

    def test_the_state_dict_tells_the_architecture(self, tmp_path):
        from torchvision.models.resnet import Bottleneck, ResNet

        torch.manual_seed(0)
        model = ResNet(Bottleneck, [1, 2, 1, 1], groups=4, width_per_group=8).eval()
        state = {f"module.{name}": value for name, value in model.state_dict().items()}
        torch.save({"state_dict": state}, tmp_path / "resnext.pth")
        features = ResNetBackbone(tmp_path / "resnext.pth", CPU).features(np.zeros((64, 64, 3), np.uint8))
        assert features.shape == (128, 16, 16)

    @pytest.mark.parametrize("content", [b"nothing", None])
    def test_weights_of_something_else(self, tmp_path, content):
        path = tmp_path / "weights.pth"
        if content is None:
            torch.save({"weight": torch.zeros(3)}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(SegmenterError, match="no state dict of a torchvision ResNet"):
            ResNetBackbone(path, CPU).features(np.zeros((4, 4, 3), np.uint8))


@pytest.fixture(scope="session")
def resnet18(tmp_path_factory):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet18(weights=None).state_dict(), path)
    return path


class TestUNet:
    def test_large_images_are_shrunk_and_small_ones_kept(self):
        segmenter = make_segmenter("unet", classes=3, device="cpu")
        assert segmenter.prepare(np.zeros((300, 400, 3), np.uint8)).shape == (192, 256, 3)
        assert segmenter.prepare(np.zeros((3, 4000, 3), np.uint8)).shape == (1, 256, 3)
        assert segmenter.prepare(np.zeros((7, 9, 3), np.uint8)).shape == (7, 9, 3)

    def test_a_warm_start_takes_half_the_steps(self):
        segmenter = make_segmenter("unet", classes=3, device="cpu")
        samples = samples_for(segmenter, scenes())
        totals = []
        for _ in range(2):
            segmenter.fit(samples, lambda done, total: totals.append(total) if done == total else None)
        assert totals == [40, 20]

    def test_memory_is_bounded(self, monkeypatch):
        monkeypatch.setattr(unet, "MAX_IMAGES", 2)
        segmenter = make_segmenter("unet", classes=3, device="cpu")
        segmenter.fit(samples_for(segmenter, list(scenes()) * 3))
        assert np.isfinite(segmenter.soft_labels(segmenter.prepare(next(scenes())[0]))).all()
