from __future__ import annotations

from pathlib import Path

import numpy as np

from a2lc_backend.masks import MaskSet
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.store import Artifacts


def test_masks_come_back_as_written_and_take_little_room(tmp_path: Path) -> None:
    workspace = Workspace(Artifacts(f"file://{tmp_path}"), 1)
    ids = np.zeros((256, 256), np.uint16)
    ids[10:90, 20:200], ids[120:240, 5:70] = 1, 2
    ring = np.array([[20.0, 10.0], [200.0, 10.0], [200.0, 90.5]])
    masks = MaskSet(ids, ("a", "b"), np.array([4, 255]), {"a": ring})
    features = np.random.default_rng(0).random((2, 16)).astype(np.float32)
    workspace.write_masks("one", masks, features, imported=True)
    found, catalog = workspace.masks("one"), workspace.catalog("one")
    np.testing.assert_array_equal(found.mask_ids, ids)
    assert found.mask_ids.dtype == np.uint16
    assert found.region_ids == catalog.region_ids == ("a", "b")
    np.testing.assert_array_equal(found.rings["a"], ring)
    np.testing.assert_array_equal(catalog.features, features)
    assert catalog.areas.tolist() == [80 * 180, 120 * 65]
    assert catalog.imported
    assert (tmp_path / "one").stat().st_size < ids.nbytes / 50


def test_masks_written_before_they_were_compressed_are_read(tmp_path: Path) -> None:
    artifacts = Artifacts(f"file://{tmp_path}")
    ids = np.ones((4, 4), np.uint16)
    artifacts.write_arrays("one", {"mask_ids": ids, "region_ids": np.array(["a"]), "first_labels": np.array([2])})
    np.testing.assert_array_equal(Workspace(artifacts, 1).masks("one").mask_ids, ids)
