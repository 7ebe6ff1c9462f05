"""Downloads official weights to the cache: resumed, checked, and named only when whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...errors import FetchError
from ...files import cache_folder, digest_file
from .. import PublishedWeights

BLOCK = 1 << 18
TIMEOUT_SECONDS = 30
LARGEST_BYTES = 1 << 30


def cached(weights: PublishedWeights) -> Path | None:
    """The file in the cache if it is there and whole.

    Raises:
        FetchError: A file of that name is there with another digest.
    """
    path = cache_folder() / "weights" / weights.file_name
    if not path.is_file():
        return None
    found = digest_file(path)
    if found != weights.sha256:
        raise FetchError(
            f"{path} is not the official file (SHA-256 {found[:12]}…,"
            f" expected {weights.sha256[:12]}…)",
            "remove it, then srdeploy fetch downloads it again",
        )
    return path


def fetch(weights: PublishedWeights, progress: Callable[[int, int], None] | None = None) -> Path:
    """Download official weights unless they are cached; goes on where an earlier try broke off.

    Args:
        weights: What to fetch.
        progress: Takes bytes done and bytes in all (0 where the server does not say).

    Raises:
        FetchError: The address cannot be reached, or what came has another digest.
    """
    if here := cached(weights):
        return here
    path = cache_folder() / "weights" / weights.file_name
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(weights.url, partial, progress)
    except (OSError, ValueError) as exc:  # urllib's errors are OSErrors
        raise FetchError(
            f"{weights.url} could not be fetched: {exc}",
            f"fetch it by hand to {path}, or try again: it goes on where it stopped",
        ) from exc
    found = digest_file(partial)
    if found != weights.sha256:
        partial.unlink()
        raise FetchError(
            f"{weights.url} gave another file (SHA-256 {found[:12]}…,"
            f" expected {weights.sha256[:12]}…)",
            "it was not kept; try again, or report it if it stays so",
        )
    partial.replace(path)
    return path


def _download(url: str, partial: Path, progress: Callable[[int, int], None] | None) -> None:
    import urllib.error  # here, because they take longer than all that ``srdeploy models`` does
    import urllib.request

    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as exc:
        if exc.code == 416:  # nothing is left to send: the digest decides
            return
        raise
    with response:
        resumed = response.status == 206
        total = int(response.headers.get("Content-Length", 0)) + (have if resumed else 0)
        done = have if resumed else 0
        with partial.open("ab" if resumed else "wb") as file:
            while block := response.read(BLOCK):
                done += len(block)
                if done > LARGEST_BYTES:
                    raise ValueError(f"more than {LARGEST_BYTES >> 20} MiB came")
                file.write(block)
                if progress:
                    progress(done, total)
