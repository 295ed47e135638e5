"""Stage 2's training: a run that was cut is taken up as if it had not been, and knows when to stop."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

from training import train_classifier, train_detector
from training.networks.convnext import MitosisClassifier
from training.profiles import CPU_CLASSIFIER
from training.schedule import load_checkpoint, save_checkpoint, take_up
from training.train_classifier import Training

PROFILE = replace(CPU_CLASSIFIER, batch=4, epochs=2, epoch_samples=12, warm_up_steps=2)
FOREVER = float("inf")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sum in one order: Adam makes steps of the last bits of small gradients."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batches() -> list[tuple[Tensor, Tensor]]:
    """Return one batch for each step of the profile."""
    random = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 3, 64, 64, generator=random), torch.tensor([0, 1, 0, 1])) for _ in range(6)]


def learn(run: Training, chosen: list[tuple[Tensor, Tensor]]) -> None:
    """Take one step a batch; what the network drops at random depends on the step alone."""
    for x, target in chosen:
        torch.manual_seed(run.step)
        run.learn(x, target, np.random.default_rng(0))


def network() -> MitosisClassifier:
    torch.manual_seed(0)
    return MitosisClassifier("convnext_atto_ols")


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = Training(network(), PROFILE, FOREVER, None)
    learn(whole, batches())
    assert whole.progress == 1.0

    cut = Training(network(), PROFILE, FOREVER, None)
    learn(cut, batches()[:3])
    cut.judge(0.5)
    save_checkpoint(tmp_path / "classifier.pt", cut.state())
    resumed = Training(network(), PROFILE, FOREVER, load_checkpoint(tmp_path / "classifier.pt"))
    assert (resumed.step, resumed.best, resumed.best_epoch, resumed.progress) == (3, 0.5, 1, 0.5)
    learn(resumed, batches()[3:])
    for name, value in whole.average.state.items():
        torch.testing.assert_close(resumed.average.state[name], value)
    for mine, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_it_keeps_the_best_epoch_or_the_last_and_stops_when_none_is_better() -> None:
    for keep_last, scores in itertools.product((False, True), ((0.6, 0.4, 0.3), (0.6, 0.6, 0.6))):
        run = Training(network(), replace(PROFILE, keep_last=keep_last, patience=2, epochs=9), FOREVER, None)
        first = None
        for f1 in scores:
            for batch in batches()[:3]:
                assert run.progress < 1  # an epoch that is begun is finished
                learn(run, [batch])
            run.judge(f1)
            first = first or {name: value.clone() for name, value in run.average.state.items()}
        assert run.progress == 1.0
        assert (run.best, run.best_epoch) == (0.6, 1)
        kept_first = all(torch.equal(run.kept[name], value) for name, value in first.items())
        assert kept_first is not keep_last


def test_a_run_goes_on_as_it_was_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another profile or network is refused; what may change, and a bundle to start from, is spoken of."""
    path, asked = tmp_path / "classifier.pt", {"architecture": "convnext_atto_ols", "profile": "cpu", "seed": 0}
    assert take_up(path, asked, tmp_path) is None
    save_checkpoint(path, asked | Training(network(), PROFILE, FOREVER, None).state())
    assert take_up(path, asked, None)
    assert not capsys.readouterr().out
    assert take_up(path, asked | {"seed": 1}, tmp_path)
    said = capsys.readouterr().out
    assert "seed 1, 0 until now" in said and "--start is ignored" in said
    with pytest.raises(typer.BadParameter, match="begun with --profile cpu, not paper"):
        train_classifier.main(tmp_path, tmp_path, architecture="convnext_atto_ols")
    with pytest.raises(typer.BadParameter, match="begun with --architecture convnext_atto_ols, not convnext_tiny"):
        train_classifier.main(tmp_path, tmp_path, profile="cpu")


def test_a_checkpoint_that_names_no_profile_is_taken_up(tmp_path: Path) -> None:
    asked = {"architecture": "convnext_atto_ols", "seed": 0}
    save_checkpoint(tmp_path / "classifier.pt", asked | Training(network(), PROFILE, FOREVER, None).state())
    assert take_up(tmp_path / "classifier.pt", asked | {"profile": "cpu"}, None)


@pytest.mark.parametrize("main", [train_detector.main, train_classifier.main])
@pytest.mark.parametrize("hours", ["0", "-1", "nan"])
def test_no_time_is_refused(main: Callable[..., None], hours: str, tmp_path: Path) -> None:
    (app := typer.Typer()).command()(main)
    done = CliRunner().invoke(app, ["--data", str(tmp_path), "--run", str(tmp_path), "--hours", hours])
    assert done.exit_code == 2
    assert "no time to train in" in done.output
