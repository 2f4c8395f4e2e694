"""What tests of recordings share: as much of torch.cuda as they use."""

import contextlib
import itertools
import warnings
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def played_cuda(monkeypatch):
    """A torch.cuda that does nothing; what was asked of it.

    Its recordings fail as torch's do: an error within one becomes another, and the stream stays the recording's own.
    """
    asked: dict[str, object] = {"mode": 0, "streams": ["here"], "pools": [], "ended": [], "failing": 0}
    streams, handles = asked["streams"], itertools.count(1)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(device=device, wait_stream=lambda _: None))
    monkeypatch.setattr(torch.cuda, "current_stream", torch.cuda.Stream)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext(asked.update(device=device)))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, next(handles)))
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: asked["mode"])
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.setattr(
            torch._C, name, lambda *given, name=name: asked["ended"].append((name, *given)), raising=False
        )

    @contextlib.contextmanager
    def stream(taken):
        before = streams[-1]
        streams.append(taken)
        try:
            yield
        finally:
            streams.append(before)

    @contextlib.contextmanager
    def graph(_, **how):
        asked.update(how)
        asked["pools"].append(how["pool"])
        before = streams[-1]
        streams.append(how["stream"])
        try:
            yield
        except RuntimeError as error:
            asked["failing"] += 1
            raise RuntimeError("operation failed due to a previous error during capture") from error
        streams.append(before)

    def set_mode(mode):
        warnings.warn("Synchronization debug mode is a prototype feature and …", stacklevel=1)
        asked["mode"] = mode

    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    return asked
