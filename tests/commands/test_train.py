"""The command: a run from pictures to weights, log and page, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from srdeploy import data
from srdeploy.cli import main
from srdeploy.commands.train import train_model, validation_pairs
from srdeploy.errors import TrainingError
from srdeploy.models.weights.checkpoint import load_network

PICTURES = data.weights_folder().parent / "pictures"


def train(folder: Path, *words: str) -> Result:
    command = ["train", "--model", "vapsr-tiny", "--data", str(PICTURES), "-o", str(folder)]
    short = ["--quick", "--batch", "1", "--json", str(folder.parent / "result.json")]
    return CliRunner().invoke(main, [*command, *short, *words])


def test_a_run_ends_with_weights_a_log_a_page_and_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    weights = str(data.bundled_weights("vapsr-tiny-x4"))
    learning = ("--weights", weights, "--teacher", weights, "--rate", "1e-6")
    done = train(folder, "--steps", "2", *learning)
    assert done.exit_code == 0, done.output
    assert "learns from vapsr-tiny-x4, 50% of the loss" in done.output
    assert "starts from" in done.output
    assert "all 68 tensors" in done.output
    table = done.output.splitlines()
    at = next(i for i, line in enumerate(table) if line.startswith("PSNR, dB"))
    assert table[at].split()[-2:] == ["vapsr-tiny-x4", "bicubic"]
    proof = sorted(picture.name for picture in data.pictures("proof"))
    assert sorted(line.split()[0] for line in table[at + 1 : at + 13]) == proof
    assert table[at + 13].split()[0] == "mean"
    ours, bicubic = map(float, table[at + 13].split()[1:])
    assert ours > bicubic + 0.3
    result = json.loads((tmp_path / "result.json").read_text())
    assert load_network(Path(result["weights"]), "")[1].variant == "vapsr-tiny-x4"
    assert Path(result["log"]).read_text().splitlines()[-1].startswith("2,")
    assert "<svg" not in Path(result["page"]).read_text(), "two rows, one validation"
    assert result["bicubic"]["mean"] == pytest.approx(bicubic, abs=1e-3)
    # longer, with the same options; without the teacher it is another run
    assert train(folder, "--steps", "4", *learning).exit_code == 0
    other = train(folder, "--steps", "4", "--rate", "1e-6")
    assert other.exit_code == 1
    assert "has teacher_share 0.5, and now it is 0" in other.output


def test_another_run_is_refused_before_pictures_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert train(folder, "--steps", "1").exit_code == 0

    def decode(*_: object) -> None:
        raise AssertionError("pictures were decoded")

    monkeypatch.setattr("srdeploy.commands.train.open_sampler", decode)
    for words, said in (
        (["--batch", "3"], "and now it is 3"),
        (["--recipe", "vapsr"], "and now it is"),
        (["--model", "attentionsr-tiny", "--scale", "2"], "those of another network"),
        (["--recipe", "enlcn"], "non-local attention"),
        (["--validation", "absent"], "absent"),
    ):
        done = train(folder if "enlcn" not in words else tmp_path / "new", *words)
        assert done.exit_code == 1, done.output
        assert said in done.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--recipe", "vapr"], 1, "no recipe is called 'vapr'"),
        (["--recipe", "absent.toml"], 1, "absent.toml"),
        (["--teacher-share", "0.5"], 2, "--teacher"),
        (["--teacher-share", "0"], 2, "--teacher-share"),
        (["--teacher", "absent.pth"], 1, "absent.pth"),
        (["--weights", "absent.pth"], 1, "absent.pth"),
        (["--steps", "0"], 2, "--steps"),
        (["--devices", "0"], 2, "--devices"),
        (["--patience", "-1"], 2, "--patience"),
        (["--recipe", "enlcn"], 1, "non-local attention"),
    ],
)
def test_bad_input(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    done = train(tmp_path / "run", *words)
    assert done.exit_code == code, done.output
    assert said in done.output
    assert not (tmp_path / "run").exists()


def test_a_recipe_with_a_teacher_wants_one(tmp_path: Path) -> None:
    path = tmp_path / "taught.toml"
    path.write_text("[recipe]\nteacher_share = 0.3\n")
    with pytest.raises(TrainingError, match=r"share of the loss is 0.3, and there is no teacher"):
        train_model(
            "vapsr-tiny", 4, [PICTURES], None, tmp_path, False, None, None, print, str(path)
        )


def test_validation_sets_keep_their_names_apart(tmp_path: Path) -> None:
    for name, colour in (("one", "red"), ("two", "blue")):
        for kind, edge, file in (("HR", 48, "same.png"), ("LR_bicubic/X4", 12, "samex4.png")):
            (tmp_path / name / kind).mkdir(parents=True)
            Image.new("RGB", (edge, edge), colour).save(tmp_path / name / kind / file)
    assert [name for name, *_ in validation_pairs(tmp_path, 4)] == ["one/same", "two/same"]
    assert [name for name, *_ in validation_pairs(tmp_path / "one", 4)] == ["same"]
