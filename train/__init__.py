"""Training of the networks: pictures in, a checkpoint and its PSNR out."""

from importlib.util import find_spec

from ..errors import TrainingError
from ..installation import install_extra

for _package in ("torch", "lightning_fabric"):
    if find_spec(_package) is None:
        raise TrainingError(
            f"training needs {_package.replace('_', '-')}, which is not installed",
            install_extra("train"),
        )
