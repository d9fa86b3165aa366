from __future__ import annotations

import pytest

from benchmarks import speed


def test_acquisition_is_the_loop_s() -> None:
    lines = speed.measure_acquisition((48, 96), (12, 12), masks=5, repeats=1)
    assert next(line for line in lines if "difference" in line.what).reached


def test_ranking_and_correcting_run() -> None:
    assert all(line.reached for line in speed.measure_ranking(1_000, repeats=1))
    assert len(speed.measure_corrector(500, human=60)) == 3


def test_a_missed_target_fails_where_it_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed, "PARTS", {"slow": lambda: [speed.Line("work", "9 s", "< 1 s", reached=False)]})
    assert speed.main([]) == 0
    assert speed.main(["slow", "--check"]) == 1
    assert "| work | 9 s **missed** | < 1 s |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        speed.main(["swift"])
