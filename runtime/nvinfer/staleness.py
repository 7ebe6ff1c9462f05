"""What keeps an engine of TensorRT from running on a machine, judged from its manifest alone."""

from __future__ import annotations

from ...spec import BuildConfig, Compatibility, Gpu

AMPERE = (8, 0)


def numbers(version: str) -> tuple[int, ...]:
    """``8.6`` as numbers that compare."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def version_mismatch(build: BuildConfig, here: str) -> str | None:
    """Why this version of TensorRT does not run an engine, or None."""
    if here == build.target_version:
        return None
    built = numbers(build.target_version)
    later = numbers(here)[:1] == built[:1] and numbers(here) >= built
    if build.tensorrt.version_compatible and later:
        return None
    since = " from" if build.tensorrt.version_compatible else ""
    return f"was built for TensorRT{since} {build.target_version}, here is {here}"


def gpu_mismatch(build: BuildConfig, here: Gpu) -> str | None:
    """Why this GPU or its driver does not run an engine, or None."""
    built = build.gpu
    if built is None:
        return "does not say which GPU it was built on"
    level = build.tensorrt.compatibility
    if level is Compatibility.SAME_GPU:
        fits = here == built
    else:
        same_cc = here.capability == built.capability
        ampere = numbers(here.capability) >= AMPERE
        fits = same_cc if level is Compatibility.SAME_CC else ampere
        fits = fits and numbers(here.driver) >= numbers(built.driver)
    if fits:
        return None
    others = "" if level is Compatibility.SAME_GPU else f" with --compat {level}"
    return f"was built on {built}{others}, here is {here}"
