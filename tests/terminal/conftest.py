"""What the commands of the terminal's tests work on, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from screen import runner
from srdeploy import data
from srdeploy.data.demo_clip import make_demo_clip
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder with a video, pictures, an exported network, an engine and a bundle of it."""
    folder = tmp_path_factory.mktemp("prepared")
    make_demo_clip(folder / "video.mp4", width=64, height=64, frames=6)
    for name, split in (("photos", "proof"), ("more", "calibration")):
        (folder / name).mkdir()
        picture = data.pictures(split)[0]
        shutil.copy(picture.path, folder / name / picture.file)
    torch.manual_seed(0)
    network = architecture("vapsr").build(VapSRConfig(4, 8, 1, 8, upsampler_feat=16))
    torch.save({"params": network.state_dict()}, folder / "net.pth")
    terminal = runner(folder, repository)
    for words in (
        ("export", "--weights", "net.pth", "-o", "net.onnx"),
        ("build-engine", "net.onnx", "--fp32", "--target", "onnxruntime"),
        # what it measures is kept, so that those that are tested are quick
        ("build-engine", "net.onnx", "--int8", "--calib", "more", "--target", "onnxruntime"),
        ("engines", "export", "vapsr-custom-x4_fp32.onnxruntime.onnx", "-o", "net.srbundle"),
    ):
        shown = terminal(*words)
        assert shown.code == 0, shown.text
    return folder
