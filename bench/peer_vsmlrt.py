"""vs-mlrt on a clip: decode, upscale, encode with x264 veryfast; prints frames per second.

    PYTHON peer_vsmlrt.py ov|ort MODEL.onnx CLIP OUTPUT

Runs in a Python of its own (VapourSynth needs 3.12 or newer); see bench/video.py.
"""

from __future__ import annotations

import sys
import time

import av
import numpy as np
import vapoursynth as vs


def main() -> None:
    """Upscale the clip and print the speed of everything from the first frame on."""
    backend, model, clip, output = sys.argv[1:]
    core = vs.core
    source = core.bs.VideoSource(clip, cachemode=0)
    rgb = core.resize.Bicubic(source, format=vs.RGBS, matrix_in_s="709")
    upscaled = (core.ov if backend == "ov" else core.ort).Model(rgb, model)
    yuv = core.resize.Bicubic(upscaled, format=vs.YUV420P8, matrix_s="709")
    with av.open(output, "w") as target:
        stream = target.add_stream("libx264", rate=round(float(source.fps)))
        stream.width, stream.height, stream.pix_fmt = yuv.width, yuv.height, "yuv420p"
        stream.options = {"preset": "veryfast"}
        yuv.get_frame(0)  # the engine compiles on the first frame
        started = time.perf_counter()
        for frame in yuv.frames(prefetch=4):
            picture = av.VideoFrame(yuv.width, yuv.height, "yuv420p")
            for plane, values in zip(picture.planes, frame, strict=True):
                rows = np.frombuffer(memoryview(plane), np.uint8).reshape(
                    plane.height, plane.line_size
                )
                rows[:, : plane.width] = np.asarray(values)
            target.mux(stream.encode(picture))
        target.mux(stream.encode())
        print(len(yuv) / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
