"""Training of the networks: pictures in, a checkpoint and its PSNR out."""

from importlib.util import find_spec

from ..errors import TrainingError

for _package in ("torch", "lightning_fabric"):
    if find_spec(_package) is None:
        raise TrainingError(
            f"training needs {_package.replace('_', '-')}, which is not installed",
            "pip install 'srdeploy[train]'",
        )
