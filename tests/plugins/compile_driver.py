"""Compiles the kernels for every GPU; run by test_compile.py where Triton does not interpret."""

import json
import sys
from dataclasses import asdict

from srdeploy.plugins.compile import compile_kernel
from srdeploy.plugins.enla import kernel as enla
from srdeploy.plugins.enla.contract import EnlaShape
from srdeploy.plugins.oca import kernel as oca
from srdeploy.plugins.oca.contract import OcaShape

SHAPES = {
    "small": (OcaShape(1, 64, 64, 60, 16, 8, 2), EnlaShape(1, 16, 16, 4096, 32)),
    "published": (OcaShape(1, 192, 320, 180, 16, 8, 6), EnlaShape(1, 64, 256, 57600, 128)),
    "widest": (OcaShape(1, 64, 64, 128, 16, 8, 2), EnlaShape(1, 64, 320, 4096, 256)),
}
attention, linear = SHAPES[sys.argv[1]]
dtype = sys.argv[2]
made = []
for capability in sys.argv[3:]:
    for source in (
        oca.source(attention, dtype),
        enla.context_source(linear, 1e-4, dtype),
        enla.apply_source(linear, 1e-4, dtype, capability),
    ):
        kernel = asdict(compile_kernel(source, capability))
        kernel["cubin"] = kernel["cubin"].hex()
        made.append(kernel | {"dtype": dtype, "arguments": list(source.arguments.values())})
json.dump(made, sys.stdout)
