"""Where batches start and stop; resident and streamed splits give the same."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roarline.training.batches import ResidentSplit, StreamedSplit, batch_bounds, in_order, passes, pinned


@given(st.integers(1, 200), st.integers(1, 64))
def test_bounds_cover_every_image_once_and_never_end_with_one_alone(count, batch_size):
    bounds = batch_bounds(count, batch_size)
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(count))
    sizes = [stop - start for start, stop in bounds]
    assert all(size == batch_size for size in sizes[:-1])
    assert sizes[-1] <= batch_size + 1
    if batch_size > 1 and count > 1:
        assert sizes[-1] > 1


@given(st.integers(2, 200), st.integers(2, 64), st.integers(1, 9), st.integers(2, 5))
def test_processes_share_each_pass_of_one_process(count, batch_size, parts, processes):
    """In order, as evenly as can be; the same steps, so that the recipe is the same."""
    bounds = batch_bounds(count, batch_size)
    of_each = [passes(bounds, parts, rank, processes) for rank in range(processes)]
    assert len({place.part for shared in zip(*of_each, strict=True) for place in shared if place.step == 0}) == (
        processes * sum(place.step == 0 for place in of_each[0])
    )
    for whole, *shared in zip(passes(bounds, parts), *of_each, strict=True):
        rows = [range(place.start, place.stop) for place in shared]
        assert all(whole.start <= row < whole.stop for of_one in rows for row in of_one)  # all have something to do
        own = [of_one if place.counted else range(0) for of_one, place in zip(rows, shared, strict=True)]
        assert [row for of_one in own for row in of_one] == list(range(whole.start, whole.stop))
        sizes = [len(of_one) for of_one in own]
        assert max(sizes) - min(sizes) <= 1
        for place, size in zip(shared, sizes, strict=True):
            assert (place.step, place.first, place.last) == (whole.step, whole.first, whole.last)
            # Of the pass's mean loss, as gradients are averaged over the processes.
            assert place.weight / processes == pytest.approx(whole.weight * size / sum(sizes))


IMAGES = torch.arange(10 * 3 * 2 * 2, dtype=torch.uint8).reshape(10, 3, 2, 2)
LABELS = torch.arange(10)


def doubled(stored: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return stored.float() * 2 + rows.reshape(-1, 1, 1, 1)


def test_resident_and_streamed_splits_give_the_same_batches():
    order, bounds = torch.randperm(10, generator=torch.Generator().manual_seed(0)), batch_bounds(10, 3)
    resident = ResidentSplit(IMAGES, LABELS, doubled)
    streamed = StreamedSplit(lambda rows: IMAGES[rows], LABELS, doubled, (2, 2))
    for (a, b), (c, d) in zip(resident.batches(order, bounds), streamed.batches(order, bounds), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
        assert torch.equal(a[:, 0, 0, 0], IMAGES[b][:, 0, 0, 0].float() * 2 + b)
    assert streamed.image_size == resident.image_size == (2, 2)


def test_the_next_batches_are_read_while_one_computes():
    """Two ahead, on another thread: whoever takes a batch finds the one after it there."""
    read: list[int] = []
    two_more = threading.Event()

    def reading(rows):
        assert threading.current_thread() is not threading.main_thread()
        read.append(int(rows[0]))
        if read == [0, 2, 4]:
            two_more.set()
        return IMAGES[rows]

    batches = StreamedSplit(reading, LABELS, doubled, (2, 2)).batches(torch.arange(10), batch_bounds(10, 2))
    next(batches)
    assert two_more.wait(10)
    assert len(list(batches)) == 4
    assert read == [0, 2, 4, 6, 8]


def test_what_a_gpu_copies_lies_in_pinned_memory(monkeypatch):
    """Else the host waits while it copies."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 1)
    assert torch.equal(pinned(IMAGES, torch.device("cuda:1")), IMAGES + 1)
    assert pinned(IMAGES, torch.device("cpu")) is IMAGES


def test_in_order_gives_every_row_once():
    split = ResidentSplit(IMAGES, LABELS)
    assert torch.equal(torch.cat([labels for _, labels in in_order(split, 4)]), LABELS)


def test_an_error_while_reading_ahead_reaches_the_loop():
    def read(rows: torch.Tensor) -> torch.Tensor:
        if 7 in rows:
            raise OSError("image 7 is gone")
        return IMAGES[rows]

    split = StreamedSplit(read, LABELS, doubled, (2, 2))
    with pytest.raises(OSError, match="image 7 is gone"):
        list(in_order(split, 3))


def test_leaving_early_ends_the_reading_thread():
    split = StreamedSplit(lambda rows: IMAGES[rows], LABELS, doubled, (2, 2))
    batches = in_order(split, 2)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
