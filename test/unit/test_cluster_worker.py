"""What a worker process checks and keeps; the cluster itself is tested end to end."""

from pathlib import Path

import pytest

from mitosis.cluster import process_on_cluster, tile_sum
from mitosis.cluster_worker import Process, Recipe, seldom
from mitosis.config import Config
from mitosis.errors import BundleError, OutputError, RuntimeUnavailableError
from mitosis.gpu import Device
from mitosis.results import Options


def test_a_process_loads_a_model_once(root: Path) -> None:
    process, recipe = Process(), Recipe.of(root / "model", Device.CPU, None)
    model = process.model(recipe, threads=1)
    assert process.model(Recipe.of(root / "model", Device.CPU, None), threads=1) is model
    stricter = Recipe.of(root / "model", Device.CPU, Config(classifier_threshold=0.9))
    assert process.model(stricter, threads=1).config.classifier_threshold == 0.9


def test_another_version_or_bundle_is_refused(root: Path) -> None:
    here = Recipe.of(root / "model", Device.CPU, None)
    with pytest.raises(RuntimeUnavailableError, match=r"not 0\.0\.1"):
        Recipe(here.folder, here.description, here.device, None, version="0.0.1").load(threads=1)
    other = here.description.model_copy(update={"version": "9"})
    with pytest.raises(BundleError, match="another bundle"):
        Recipe(here.folder, other, here.device, None).load(threads=1)
    with pytest.raises(BundleError, match="no model bundle"):
        Recipe(root / "nowhere", other, here.device, None).load(threads=1)


def test_an_unusable_output_is_noticed_before_the_cluster_is_asked(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    recipe = Recipe.of(root / "model", Device.CPU, None)
    with pytest.raises(OutputError, match="choose a writable --output"):
        process_on_cluster("tcp://127.0.0.1:1", [tmp_path / "a.tiff"], tmp_path / "file", recipe, Options())


def test_tiles_of_all_slides_are_summed() -> None:
    told: list[tuple[int, int]] = []
    handle = tile_sum(lambda done, total: told.append((done, total)))
    for slide, done, total in (("a", 1, 10), ("b", 2, 30), ("a", 10, 10)):
        handle((0.0, {"slide": slide, "done": done, "total": total}))
    assert told == [(1, 10), (3, 40), (12, 40)]


def test_reports_are_seldom_but_the_last_is_made() -> None:
    told: list[int] = []
    tell = seldom(lambda done, _: told.append(done))
    for done in range(1, 101):
        tell(done, 100)
    assert told[0] == 1
    assert told[-1] == 100
    assert len(told) < 10
