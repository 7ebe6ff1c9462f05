"""What is said of processor, memory and cache."""

from __future__ import annotations

from pathlib import Path

from srdeploy.runtime.doctor.findings import State
from srdeploy.runtime.doctor.machine import _cache, _memory, _processor


class TestMachine:
    def test_processor(self, tmp_path: Path) -> None:
        cpuinfo = tmp_path / "cpuinfo"
        flags = "sse2 avx2 avx512f avx512_vnni avx512_bf16 amx_int8"
        cpuinfo.write_text(f"model name\t: A CPU\nflags\t: {flags}\n\nmodel name\t: another\n")
        detail = _processor(cpuinfo).detail
        assert detail.startswith("A CPU, ")
        assert detail.endswith("threads: AVX2, AVX-512, VNNI, bf16, AMX int8")
        assert "unknown" in _processor(tmp_path / "absent").detail

    def test_memory_within_a_container(self, tmp_path: Path) -> None:
        meminfo = tmp_path / "meminfo"
        meminfo.write_text("MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n")
        assert [f.detail for f in _memory(meminfo, tmp_path)] == ["4.0 of 8.0 GiB free"]
        (tmp_path / "memory.max").write_text("max\n")
        (tmp_path / "memory.current").write_text(f"{1 << 30}\n")
        assert [f.detail for f in _memory(meminfo, tmp_path)] == ["4.0 of 8.0 GiB free"]
        (tmp_path / "memory.max").write_text(f"{3 << 30}\n")
        assert [f.detail for f in _memory(meminfo, tmp_path)] == ["2.0 of 3.0 GiB free"]
        assert list(_memory(tmp_path / "absent", tmp_path)) == []

    def test_cache(self, tmp_path: Path) -> None:
        folder = tmp_path / "a" / "cache"
        assert _cache(folder).state is State.OK
        assert not folder.exists()
        folder.mkdir(parents=True)
        (folder / "f").write_bytes(bytes(11 << 20))
        assert ": 0.01 GiB used" in _cache(folder).detail
        assert _cache(folder / "f").state is State.BROKEN
