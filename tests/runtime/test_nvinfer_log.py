"""What the library says is kept: all of a build, the end of a session."""

from __future__ import annotations

import tensorrt_rtx as trt
from srdeploy.runtime.nvinfer.log import KEPT_WHILE_RUNNING, Log


def test_a_build_keeps_every_line() -> None:
    log = Log(trt)
    for index in range(3 * KEPT_WHILE_RUNNING):
        log.sink.log(trt.ILogger.VERBOSE, f"line {index}")
    assert log.text().count("\n") == 3 * KEPT_WHILE_RUNNING
    assert log.text().startswith("[VERBOSE] line 0\n")
    assert log.last("line 2") == f"line {3 * KEPT_WHILE_RUNNING - 1}"
    assert log.errors() == ""


def test_a_session_of_days_keeps_its_last_warnings_and_errors() -> None:
    log = Log(trt, everything=False)
    for index in range(3 * KEPT_WHILE_RUNNING):
        log.sink.log(trt.ILogger.WARNING, f"warning {index}")
        log.sink.log(trt.ILogger.VERBOSE, "a word")
    position = log.position()
    assert not log.since(position)
    log.sink.log(trt.ILogger.INTERNAL_ERROR, "first")
    log.sink.log(trt.ILogger.ERROR, "Error Code 2: OutOfMemory")
    log.sink.log(trt.ILogger.ERROR, "first")
    assert log.errors(position) == "first; Error Code 2: OutOfMemory"
    assert log.out_of_memory(position)
    assert not log.out_of_memory(log.position())
    assert len(log.since()) == KEPT_WHILE_RUNNING
