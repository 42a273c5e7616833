"""Ceilings by hand, and a measured run."""

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from emovox.cli import main
from emovox.errors import ConfigError
from emovox.labelling import profile
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.profile import Ceilings
from emovox.testing import write_clip


def test_times_add_up_on_shared_cores() -> None:
    # A frame costs 1/600 s of a core for media and 1/1200 s for the teacher; there are two cores.
    shared = Ceilings(num_workers=2, tracks=20, frames=600, crops=2400, shared=True)
    assert shared.bound == pytest.approx(2 / (1 / 600 + 1 / 1200)) == 800
    assert shared.smaller == 1200
    assert shared.bound_by == "media takes 67% of the cores' time"
    assert shared.num_cores == 17  # for 10,000 crops per second


def test_the_slower_bounds_what_is_not_shared() -> None:
    slow_teacher = Ceilings(num_workers=16, tracks=20, frames=600, crops=5000, shared=False)
    assert slow_teacher.bound == slow_teacher.smaller == 5000
    assert slow_teacher.bound_by == "the teacher is the slower"
    assert slow_teacher.num_cores == 9  # 8.3 cores keep it busy
    slow_media = Ceilings(num_workers=4, tracks=20, frames=600, crops=5000, shared=False)
    assert slow_media.bound == 2400 and slow_media.bound_by == "media is the slower"


@pytest.mark.slow
def test_profile_of_a_run(tmp_path: Path) -> None:
    for number in range(12):
        write_clip(tmp_path / f"root/mp4/a{number}/x/1.mp4", 50)
    arguments = ["build-dataset", "--layout", "voxceleb2", "--root", str(tmp_path / "root")]
    arguments += ["--out", str(tmp_path / "out"), "--jobs", "2", "--shard-tracks", "1", "--profile"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "12 written, 0 dropped" in result.stdout
    assert "profile" not in (tmp_path / "out/provenance.json").read_text(encoding="utf-8")
    numbers = {
        name: [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.?\d*", line)]
        for name, line in re.findall(r"^(media|teacher|bound|reached) (.*)$", result.stdout, re.M)
    }
    per_core, _, total, num_workers = numbers["media"]
    crops, bound, (pace, share, of_slower, _) = (
        numbers["teacher"][0],
        numbers["bound"][0],
        numbers["reached"],
    )
    assert num_workers == 2 and total == pytest.approx(2 * per_core, rel=0.01)
    assert bound == pytest.approx(1 / (1 / total + 1 / crops), rel=0.02)
    assert share == pytest.approx(pace / bound, abs=0.02) and of_slower < share
    again = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert again.exit_code == 0 and "nothing was left to build" in again.stdout


def test_profile_is_of_one_machine(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--profile measures one machine"):
        BuildConfig("voxceleb2", tmp_path, tmp_path / "out", engine="ray", profile=True)


def test_sample_is_from_all_over() -> None:
    many: Any = list(range(100))
    few: Any = [1, 2]
    chosen: list[Any] = [*profile.choose_sample(many, 2), *profile.choose_sample(few, 4)]
    assert chosen == [0, 25, 50, 75, 1, 2]


def test_measurements_before_and_after_both_count() -> None:
    before = Ceilings(num_workers=2, tracks=20, frames=600, crops=2400, shared=True)
    after = Ceilings(num_workers=2, tracks=10, frames=300, crops=1200, shared=True)
    assert profile.mean([before, after]) == Ceilings(2, 15, 450, 1800, shared=True)
