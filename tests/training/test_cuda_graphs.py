"""CUDA graphs, as far as can be tested without a GPU: what is asked of torch.cuda, and what a step is seen to do."""

import random
import warnings

import numpy as np
import pytest
import torch

from roarline.training.cuda_graphs import CudaGraphs


def ones():
    return (torch.ones(()),)


def test_recordings_are_made_on_a_stream_of_the_jobs_own_gpu(played_cuda):
    """Without a stream torch takes one of the current device, which is the first GPU."""
    device = torch.device("cuda:1")
    assert CudaGraphs(device).record(ones)() == ones()
    assert played_cuda["device"] == device
    assert played_cuda["stream"].device == device
    assert played_cuda["capture_error_mode"] == "thread_local"  # a thread that reads ahead pins memory meanwhile


def test_the_recordings_of_a_training_share_one_pool_of_memory_and_trainings_do_not(played_cuda):
    """A pool each would hold the activations of a batch once more for every other shape."""
    first, other = CudaGraphs(torch.device("cuda:1")), CudaGraphs(torch.device("cuda:1"))
    for graphs in (first, first, other):
        graphs.record(ones)
    one, again, another = played_cuda["pools"]
    assert one is not None
    assert one == again != another


def test_a_recording_that_fails_leaves_nothing_half_done(played_cuda):
    graphs = CudaGraphs(torch.device("cpu"))  # the second GPU is the current one there

    def body():
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="previous error during capture"):
        graphs.record(body)
    assert played_cuda["streams"][-1] == "here"  # torch.cuda.graph itself stays aside
    failed, after = played_cuda["pools"]
    assert played_cuda["ended"] == [("_cuda_endAllocateToPool", 1, failed), ("_cuda_releasePool", 1, failed)]
    assert after != failed  # a recording that ends well, for the generator; not in a pool that has ended
    assert played_cuda["failing"] == 1


def test_a_recording_that_failed_once_it_had_ended_gives_its_pool_back_once(played_cuda, monkeypatch):
    """torch says so where the allocator isn't recording; the graph itself releases the pool then."""

    def end(*given):
        raise RuntimeError("not currently recording")

    def body():
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end)
    with pytest.raises(RuntimeError):
        CudaGraphs(torch.device("cpu")).record(body)
    assert played_cuda["ended"] == []


def test_a_wait_within_a_step_is_noticed_and_other_warnings_pass(played_cuda):
    graphs = CudaGraphs(torch.device("cuda:0"))

    def body(said):
        assert played_cuda["mode"] == "warn"
        if said:
            warnings.warn(said, stacklevel=1)
        return ()

    graphs.run(lambda: body(""))
    assert not graphs.waited
    graphs.run(lambda: body("called a synchronizing CUDA operation (Triggered internally …)"))
    assert graphs.waited
    with pytest.warns(UserWarning, match="of something else"):
        graphs.run(lambda: body("of something else"))
    assert not graphs.waited
    assert played_cuda["mode"] == 0


@pytest.mark.parametrize(
    "draw",
    [random.random, np.random.random, lambda: np.random.normal(), lambda: torch.rand(())],  # noqa: NPY002 - as networks do
    ids=["random", "numpy", "normal", "torch"],
)
def test_a_draw_on_the_cpu_is_noticed_and_not_forgotten(played_cuda, draw):
    graphs = CudaGraphs(torch.device("cuda:0"))
    graphs.run(lambda: ())
    assert not graphs.drew
    graphs.run(lambda: (draw(),)[:0])
    assert graphs.drew
    graphs.run(lambda: ())
    assert graphs.drew


def test_a_generator_of_a_networks_own_draws_nothing_that_is_noticed(played_cuda):
    """The loop draws batches and crops from its own."""
    graphs, own = CudaGraphs(torch.device("cuda:0")), torch.Generator().manual_seed(0)
    graphs.run(lambda: (torch.rand((), generator=own),))
    assert not graphs.drew
