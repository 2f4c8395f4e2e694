"""Recorded steps: the same numbers as steps that are run, nothing read from the device within an epoch.

There is a recorder for CPUs here which, as a CUDA graph does, gives its outputs in the same memory again and again.
"""

import contextlib
import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from roarline.config.training import TrainCls
from roarline.models.stacking import StackedNetworks
from roarline.training import choice_of_steps, loop, stacked, steps
from roarline.training.batches import ResidentSplit, StreamedSplit
from roarline.training.captured import _USUAL_STEPS, CapturedSteps, CudaGraphs, can_be_recorded
from roarline.training.checkpoint import Checkpoint
from roarline.training.classification import Classification, train
from roarline.training.stacked import Member, fit_stack
from roarline.training.steps import OptimizerSteps
from tests.training.unread import Unread

SIDE = 6


def on_gpu(test):
    """Ready to run, where there is one."""
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    return pytest.mark.gpu(skip(test))


class Replaying:
    """Runs the body at each replay, into the memory of the first one's outputs."""

    waited = False

    def __init__(self) -> None:
        self.run_as_usual, self.recorded, self.replayed = 0, 0, 0

    def run(self, body):
        self.run_as_usual += 1
        return body()

    def record(self, body):
        self.recorded += 1
        fixed: list[Tensor] = []

        def replay():
            self.replayed += 1
            outputs = body()
            if not fixed:
                fixed.extend(output.clone() for output in outputs)
            for place, output in zip(fixed, outputs, strict=True):
                place.copy_(output)
            return tuple(fixed)

        return replay


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def recorded(monkeypatch) -> list[Replaying]:
    """Trainings take recorded steps on a CPU; the recorders, one a training."""
    made: list[Replaying] = []

    def recording(objective, settings, device):
        made.append(Replaying())
        return CapturedSteps(objective, settings, device, made[-1])

    for module in (loop, stacked):
        monkeypatch.setattr(module, "make_steps", recording)
    return made


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(),
            nn.Linear(6 * SIDE**2, 3),
        )  # fmt: skip


def split(count: int, seed: int) -> ResidentSplit:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randn(count, 3, SIDE, SIDE, generator=generator) * 0.5
    images[torch.arange(count), labels] += 1.0
    return ResidentSplit(images, labels)


def settings(**changes: object) -> TrainCls:
    words = {"epochs": 4, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.01}, **changes}
    return TrainCls.model_validate(words)


def trained(how: TrainCls):
    model = network()
    return model, train(model, split(57, 0), split(30, 1), how, seed=3)


HOW = {
    "adam, one cycle": {"scheduler": {"name": "one_cycle"}},
    "adamw, clipped": {"optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}, "gradient_clip_norm": 0.3},
    "sgd, augmented": {
        "optimizer": {"name": "sgd", "lr": 0.05},
        "augmentation": {"crop_padding_px": 1, "horizontal_flip": True},
        "channels_last": True,
    },
    "bfloat16": {"precision": "bfloat16"},
}


@pytest.mark.parametrize("name", HOW)
def test_recorded_steps_give_the_numbers_of_steps_that_are_run(name, request):
    how = settings(**HOW[name])
    plain, expected = trained(how)
    recorders = request.getfixturevalue("recorded")
    model, found = trained(how)
    # The rate is a float32 tensor there and a float64 number here.
    for value, wanted in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)
    for row, wanted in zip(found.curve, expected.curve, strict=True):
        assert row == pytest.approx(wanted, rel=1e-3)
    count = 4 * 4  # 57 images in batches of 16: the last has 9
    assert recorders[0].run_as_usual == 2 * _USUAL_STEPS  # two shapes of a batch
    assert recorders[0].recorded == 2
    assert recorders[0].replayed == count - 2 * _USUAL_STEPS


def test_a_stack_takes_recorded_steps_too(recorded):
    def members():
        return [Member(split(48, seed), split(30, 9 + seed), seed=seed) for seed in range(3)]

    def run(how):
        models = [network(seed) for seed in range(3)]
        for model in models:
            model[3].p = 0.0
        group, networks = members(), StackedNetworks(models, (SIDE, SIDE))
        fit_stack(networks, group, how)
        return group

    how = settings(gradient_clip_norm=0.5)
    found = run(how)
    assert recorded[0].replayed == 4 * 3 - _USUAL_STEPS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacked, "make_steps", choice_of_steps.make_steps)
        expected = run(how)
    for member, wanted in zip(found, expected, strict=True):
        for ours, theirs in zip(member.curve, wanted.curve, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("stack", [False, True])
def test_within_an_epoch_nothing_is_read_from_the_device(recorded, monkeypatch, stack):
    """Until the meter reads at the epoch's end; a read in the middle of a training loop is what it would find."""
    seen = []

    def watched(inner):
        def make(self, batch, place, rate):
            with Unread():
                seen.append(place.step)
                return inner(self, batch, place, rate)

        return make

    monkeypatch.setattr(CapturedSteps, "make", watched(CapturedSteps.make))
    how = settings(augmentation={"horizontal_flip": True}, gradient_clip_norm=0.5)
    if stack:
        fit_stack(StackedNetworks([network(k) for k in range(2)], (SIDE, SIDE)), [
            Member(split(48, k), None, seed=k) for k in range(2)
        ], how)  # fmt: skip
    else:
        train(network(), split(48, 0), None, how, seed=0)
    assert len(seen) == 4 * 3


def test_what_watches_for_reads_finds_one():
    with pytest.raises(AssertionError, match="waits"), Unread():
        torch.ones(()).item()


def test_an_epoch_on_a_device_that_can_not_be_read(monkeypatch):
    """On the meta device every read fails: batches, augmentation, steps and notes of an epoch must do without.

    The fused update has no form there; it is left out.
    """
    still = SimpleNamespace(param_groups=[], step=lambda: None)
    monkeypatch.setattr(steps, "make_optimizer", lambda *_: still)
    how = settings(epochs=1, augmentation={"crop_padding_px": 1, "horizontal_flip": True})
    real = split(48, 0)
    images = ResidentSplit(real.images.to("meta"), real.labels.to("meta"))
    model = network().to("meta")
    objective = Classification(model, how, multi_label=False)
    run = loop._Run(objective, images, how, 0, None, lambda done, total: None)
    run.steps = CapturedSteps(objective, how, torch.device("meta"), Replaying())
    meter = loop.Meter(1, 0.01)
    monkeypatch.setattr(loop.Meter, "read", lambda *_: None)
    model.train()
    run._train(1, meter)
    assert len(meter._waiting) == 3


def test_what_watches_for_copies_finds_one():
    with pytest.raises(AssertionError, match="to meta waits"), Unread():
        torch.zeros(3).to("meta")


def test_a_network_that_waits_for_the_device_is_never_recorded(recorded):
    """The recorder tells; the numbers are those of steps that are run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replaying, "waited", True)
        trained(settings())
    assert recorded[0].recorded == 0
    assert recorded[0].run_as_usual == 4 * 4


@pytest.fixture
def played_cuda(monkeypatch):
    """As much of torch.cuda as recordings use; what was asked of it."""
    asked: dict[str, object] = {"mode": 0}
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(device=device, wait_stream=lambda _: None))
    monkeypatch.setattr(torch.cuda, "current_stream", torch.cuda.Stream)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext(asked.update(device=device)))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr(torch.cuda, "graph", lambda _, **how: contextlib.nullcontext(asked.update(how)))
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: asked["mode"])

    def set_mode(mode):
        warnings.warn("Synchronization debug mode is a prototype feature and …", stacklevel=1)
        asked["mode"] = mode

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    return asked


def test_recordings_are_made_on_a_stream_of_the_jobs_own_gpu(played_cuda):
    """Without a stream torch takes one of the current device, which is the first GPU."""
    device = torch.device("cuda:1")
    assert CudaGraphs(device).record(lambda: (torch.ones(()),))() == (torch.ones(()),)
    assert played_cuda["device"] == device
    assert played_cuda["stream"].device == device
    assert played_cuda["capture_error_mode"] == "thread_local"  # a thread that reads ahead pins memory meanwhile


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


def test_a_resumed_training_records_anew_and_ends_the_same(recorded, tmp_path):
    how = settings(epochs=6)
    model, expected = trained(how)

    class KilledError(Exception):
        pass

    def die(row) -> None:
        if row["epoch"] == 4:
            raise KilledError

    broken = network()
    with pytest.raises(KilledError):
        train(broken, split(57, 0), split(30, 1), how, seed=3, checkpoint=Checkpoint(tmp_path, every_s=0), told=die)
    again = network(5)
    resumed = train(again, split(57, 0), split(30, 1), how, seed=3, checkpoint=Checkpoint(tmp_path, every_s=0))
    # Two epochs were left, with three batches of one shape and one of another in each.
    assert recorded[-1].run_as_usual == _USUAL_STEPS + 2
    for value, wanted in zip(again.state_dict().values(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)
    assert [row["epoch"] for row in resumed.curve] == [row["epoch"] for row in expected.curve]


@pytest.mark.parametrize(
    ("expected", "device", "changes"),
    [
        (True, "cuda", {}),
        (True, "cuda:1", {"precision": "bfloat16"}),
        (False, "cpu", {}),
        (False, "cuda", {"precision": "float16"}),
        (False, "cuda", {"gradient_accumulation": 2}),
    ],
)
def test_which_steps_are_recorded(expected, device, changes):
    how = settings(**changes)
    objective = Classification(network(), how, multi_label=False)
    assert can_be_recorded(objective, how, torch.device(device)) is expected
    altering = Classification(network(), how, multi_label=False, alter=lambda images, generator: images)
    assert not can_be_recorded(altering, how, torch.device(device))


@on_gpu
@pytest.mark.parametrize("name", HOW)
def test_cuda_graphs_give_the_numbers_of_steps_that_are_run(name):
    """Kernels may be chosen otherwise once they are recorded, and some add in any order."""
    how = settings(**HOW[name])
    device = torch.device("cuda")
    curves = []
    for way in (OptimizerSteps, CapturedSteps):
        model = network().to(device)
        model[3].p = 0.0
        real, test = split(57, 0), split(30, 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "make_steps", way)
            images, labels = real.images.to(device), real.labels.to(device)
            seen = train(
                model, ResidentSplit(images, labels), ResidentSplit(test.images.to(device), test.labels.to(device)),
                how, seed=3,
            )  # fmt: skip
        curves.append(seen.curve)
    for row, wanted in zip(*curves, strict=True):
        assert row == pytest.approx(wanted, rel=0.05, abs=0.02)


@on_gpu
def test_a_cuda_graph_replays_with_new_inputs_rates_and_dropout():
    device = torch.device("cuda")
    model = network().to(device)
    model[3].p = 0.5
    how = settings()
    objective = Classification(model, how, multi_label=False)
    captured = CapturedSteps(objective, how, device, CudaGraphs(device))
    data = split(16, 0)
    place = loop.passes([(0, 16)])[0]
    seen = []
    for rate in [0.01] * 6 + [0.0] * 2:
        batch = loop.Batch(data.images.to(device), data.labels.to(device), torch.arange(16), (0,))
        before = copy.deepcopy(model.state_dict())
        loss = captured.make(batch, place, rate)["loss"]
        moved = any(not torch.equal(v, before[k]) for k, v in model.state_dict().items() if k.startswith("5."))
        assert moved == (rate > 0)
        seen.append(float(loss))
    assert len(set(seen)) == len(seen)  # dropout draws anew, and the network learns


@contextlib.contextmanager
def no_waits():
    """On a GPU, an error where the host waits for it."""

    def set_mode(mode):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it finds most of them, not all
            torch.cuda.set_sync_debug_mode(mode)

    set_mode("error")
    try:
        yield
    finally:
        set_mode("default")


@on_gpu
@pytest.mark.parametrize("streamed", [False, True])
def test_no_host_sync_within_an_epoch_on_a_gpu(streamed):
    device = torch.device("cuda:0")
    how = settings(epochs=1, batch_size=8, augmentation={"crop_padding_px": 1, "horizontal_flip": True})
    real = split(96, 0)
    images, labels = ResidentSplit(real.images.to(device), real.labels.to(device)), real.labels.to(device)
    if streamed:
        images = StreamedSplit(lambda rows: real.images[rows], labels, lambda stored, rows: stored * 2, (SIDE, SIDE))
    model = network().to(device)
    objective = Classification(model, how, multi_label=False)
    run = loop._Run(objective, images, how, 0, None, print)
    warm, batches = loop.Meter(1, 0.01), run._batches(1)
    with contextlib.ExitStack() as refused:
        for place, batch in zip(run.passes, batches(run.passes), strict=True):
            if place.step == 6:  # recorded by now
                refused.enter_context(no_waits())
            warm.add(place.step, 8, run.steps.make(batch, place, 0.01))
    warm.read(objective.take_scores)
    assert not run.steps.recorder.waited


class Choosing(nn.Module):
    """Goes its way by a value, which only the host can."""

    def forward(self, images):
        return images if images.sum().item() > 0 else -images


@on_gpu
def test_a_network_that_reads_its_device_trains_on_a_gpu():
    device = torch.device("cuda:0")
    model = nn.Sequential(network(), Choosing()).to(device)
    images, labels = split(57, 0).images.to(device), split(57, 0).labels.to(device)
    found = train(model, ResidentSplit(images, labels), None, settings(), seed=3)
    assert found.curve[-1]["train_loss"] < found.curve[0]["train_loss"]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_steps_of_a_second_gpu_are_recorded_there():
    device = torch.device("cuda:1")
    model = network().to(device)
    steps_of_it = CapturedSteps(Classification(model, settings(), multi_label=False), settings(), device)
    data, place = split(16, 0), loop.passes([(0, 16)])[0]
    for _ in range(_USUAL_STEPS + 3):
        before = copy.deepcopy(model.state_dict())
        batch = loop.Batch(data.images.to(device), data.labels.to(device), torch.arange(16), (0,))
        steps_of_it.make(batch, place, 0.01)
        assert not torch.equal(model.state_dict()["5.weight"], before["5.weight"])
