"""Recorded steps: the same numbers as steps that are run, nothing read from the device within an epoch.

There is a recorder for CPUs here which, as a CUDA graph does, gives its outputs in the same memory again and again.
"""

import contextlib
import copy
import random
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from roarline.config.training import TrainCls
from roarline.errors import JobError, ModelError
from roarline.models.stacking import StackedNetworks
from roarline.training import choice_of_steps, loop, stacked, steps
from roarline.training.batches import ResidentSplit, StreamedSplit
from roarline.training.captured import _USUAL_STEPS, CapturedSteps, RecordingWarning, can_be_recorded
from roarline.training.checkpoint import Checkpoint
from roarline.training.classification import Classification, train
from roarline.training.cuda_graphs import CudaGraphs
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

    waited, drew = False, False

    def __init__(self, device: torch.device | None = None) -> None:
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


def recording_by(kind, monkeypatch) -> list:
    """Trainings take recorded steps on a CPU; the recorders of this kind, one a training."""
    made: list = []

    def recorder(device):
        made.append(kind(device))
        return made[-1]

    def recording(objective, settings, device, *, record):
        return CapturedSteps(objective, settings, device, recorder)

    for module in (loop, stacked):
        monkeypatch.setattr(module, "make_steps", recording)
    return made


@pytest.fixture
def recorded(monkeypatch) -> list[Replaying]:
    return recording_by(Replaying, monkeypatch)


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
    run.steps = CapturedSteps(objective, how, torch.device("meta"), Replaying)
    meter = loop.Meter(1, 0.01)
    monkeypatch.setattr(loop.Meter, "read", lambda *_: None)
    model.train()
    run._train(1, meter)
    assert len(meter._waiting) == 3


def test_what_watches_for_copies_finds_one():
    with pytest.raises(AssertionError, match="to meta waits"), Unread():
        torch.zeros(3).to("meta")


@pytest.mark.parametrize("told", ["waited", "drew"])
def test_a_network_that_chooses_its_way_on_the_host_is_never_recorded(monkeypatch, told):
    """The recorder tells; the numbers are those of steps that are run."""
    plain, _ = trained(settings())
    recorders = recording_by(Replaying, monkeypatch)
    monkeypatch.setattr(Replaying, told, True)
    model, _ = trained(settings())
    assert recorders[0].recorded == 0
    assert recorders[0].run_as_usual == _USUAL_STEPS + 1  # of two shapes; from then on nothing is watched any more
    for value, wanted in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)  # the rate, see above


class Refusing(Replaying):
    """Records some shapes of a batch and then fails, as the driver does: the body has run, and did nothing."""

    willing = 0

    def record(self, body):
        if self.recorded >= self.willing:
            raise torch.AcceleratorError("operation not permitted when stream is capturing\nand more of this")
        return super().record(body)


@pytest.mark.parametrize("willing", [0, 1])
def test_what_fails_to_be_recorded_runs_as_usual_and_says_so_once(monkeypatch, willing):
    plain, expected = trained(settings())
    recorders = recording_by(Refusing, monkeypatch)
    monkeypatch.setattr(Refusing, "willing", willing)
    with pytest.warns(RecordingWarning) as said:
        model, found = trained(settings())
    assert len(said) == 1
    assert "(operation not permitted when stream is capturing); runtime.record_steps" in str(said[0].message)
    assert recorders[0].recorded == willing
    # Shapes take turns: three batches of one, then one of the other, four epochs long.
    assert recorders[0].replayed == (0 if willing == 0 else 4 * 3 - _USUAL_STEPS)
    assert recorders[0].run_as_usual == (_USUAL_STEPS + 1 if willing == 0 else 2 * _USUAL_STEPS)
    for value, wanted in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)
    for row, wanted in zip(found.curve, expected.curve, strict=True):
        assert row == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("error", [None, RuntimeError, ValueError])
def test_adam_is_told_that_it_is_recorded_then_and_only_then(error):
    told = []

    class Asking(Replaying):
        def record(self, body):
            told.extend(group["capturable"] for group in captured.optimizer.param_groups)
            if error is not None:
                raise error
            return super().record(body)

    model = network()
    captured = CapturedSteps(
        Classification(model, settings(), multi_label=False), settings(), torch.device("cpu"), Asking
    )
    captured.device = torch.device("cuda")  # what is told depends on it alone; in float32 a step doesn't
    data, place = split(16, 0), loop.passes([(0, 16)])[0]
    batch = loop.Batch(data.images, data.labels, torch.arange(16), (0,))
    for _ in range(_USUAL_STEPS):
        captured.make(batch, place, 0.01)
    expected = {RuntimeError: pytest.warns(RecordingWarning), ValueError: pytest.raises(ValueError)}  # noqa: PT011
    with expected.get(error, contextlib.nullcontext()):
        captured._recorded(captured._of_shape(batch))
    assert told == [True]
    assert not any(group["capturable"] for group in captured.optimizer.param_groups)


class Trying(Replaying):
    """Runs the network where it is recorded, whose errors come out of the recording then."""

    def record(self, body):
        body()
        return super().record(body)


class Failing(nn.Module):
    """Passes images on, some times."""

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__()
        self.error, self.left = error, times

    def forward(self, images):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return images


@pytest.mark.parametrize("stack", [False, True])
def test_a_device_that_is_too_small_is_still_said(monkeypatch, stack):
    recording_by(Trying, monkeypatch)
    tried = 1 if stack else 0  # a stack is tried out first
    model = nn.Sequential(Failing(torch.OutOfMemoryError("CUDA out of memory"), _USUAL_STEPS + tried), network())
    data, how = split(48, 0), settings()

    def run():
        if stack:
            fit_stack(StackedNetworks([model], (SIDE, SIDE)), [Member(data, None, seed=0)], how)
        else:
            train(model, data, None, how, seed=0)

    with pytest.warns(RecordingWarning, match="CUDA out of memory"), pytest.raises(JobError, match="too little memory"):
        run()


def test_an_error_of_the_networks_own_is_still_said(monkeypatch):
    recording_by(Trying, monkeypatch)
    model = nn.Sequential(Failing(ModelError("a word of its own"), _USUAL_STEPS), network())
    with pytest.raises(ModelError, match="a word of its own"):
        train(model, split(48, 0), None, settings(), seed=0)


class Freezing(CudaGraphs):
    """Its recordings do as a graph does: what the host drew when they were made is drawn each time."""

    def record(self, body):
        drawn = generators()

        def replay():
            going_on = generators()
            put_back(drawn)
            outputs = body()
            put_back(going_on)
            return outputs

        return replay


def generators():
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - networks draw from it


def put_back(states):
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002 - as above
    torch.set_rng_state(states[2])


class Skipping(nn.Module):
    """A layer that is left out at half of the steps, as LayerDrop does."""

    def __init__(self, draw) -> None:
        super().__init__()
        self.layer, self.draw, self.chosen = nn.Conv2d(3, 3, 3, padding=1), draw, []

    def forward(self, images):
        if self.training:
            self.chosen.append(float(self.draw()) < 0.5)
            return self.layer(images) if self.chosen[-1] else images
        return self.layer(images)


@pytest.mark.parametrize(
    "draw",
    [random.random, np.random.random, lambda: torch.rand(())],
    ids=["random", "numpy", "torch"],
)
def test_a_network_that_skips_a_layer_by_a_draw_on_the_cpu_trains_as_it_does_without_recordings(
    monkeypatch, played_cuda, draw
):
    before = generators()

    def skipping():
        put_back(before)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = nn.Sequential(Skipping(draw), network())
        model[1][3].p = 0.0
        train(model, split(48, 0), None, settings(epochs=6), seed=3)
        return model

    plain = skipping()
    recorders = recording_by(Freezing, monkeypatch)
    model = skipping()
    put_back(before)
    assert recorders[0].drew
    assert model[0].chosen == plain[0].chosen
    assert 0 < sum(plain[0].chosen[_USUAL_STEPS:]) < len(plain[0].chosen) - _USUAL_STEPS
    for value, wanted in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)


def test_a_network_that_draws_nothing_on_the_cpu_is_recorded(monkeypatch, played_cuda):
    """What the test above would not tell from a recorder that never records."""
    recorders = recording_by(Freezing, monkeypatch)
    monkeypatch.setattr(Freezing, "record", Replaying.record)
    for name in ("recorded", "replayed"):
        monkeypatch.setattr(Freezing, name, 0, raising=False)
    model = network()
    model[3] = nn.Identity()  # on a CPU dropout draws there
    train(model, split(48, 0), None, settings(), seed=3)
    assert not recorders[0].drew
    assert recorders[0].recorded == 1


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
    assert len(recorded) == 4  # the last two of the resumed one, as a pool of memory ends with its recordings
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
    assert not can_be_recorded(objective, how, torch.device(device), known=False)
    altering = Classification(network(), how, multi_label=False, alter=lambda images, generator: images)
    assert not can_be_recorded(altering, how, torch.device(device))


@pytest.mark.parametrize("record", [True, False])
def test_a_network_of_which_nothing_is_known_takes_usual_steps(monkeypatch, record):
    for name in ("CapturedSteps", "OptimizerSteps"):
        monkeypatch.setattr(choice_of_steps, name, lambda *_, name=name: name)
    objective = Classification(network(), settings(), multi_label=False)
    found = choice_of_steps.make_steps(objective, settings(), torch.device("cuda"), record=record)
    assert found == ("CapturedSteps" if record else "OptimizerSteps")


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
            patch.setattr(loop, "make_steps", lambda *given, record, way=way: way(*given))
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
    captured = CapturedSteps(objective, how, device)
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


class Synchronising(nn.Module):
    """Waits in a way of which torch doesn't warn, and which no recording may."""

    def forward(self, images):
        torch.cuda.synchronize()
        return images


def on_device(data: ResidentSplit, device: str) -> ResidentSplit:
    return ResidentSplit(data.images.to(device), data.labels.to(device))


@on_gpu
def test_after_a_recording_that_failed_this_training_and_the_next_go_on():
    """With dropout, whose generator some versions of torch leave unusable."""
    data, stream = on_device(split(57, 0), "cuda"), torch.cuda.current_stream()
    refused = nn.Sequential(Synchronising(), network()).to("cuda")
    with pytest.warns(RecordingWarning):
        found = train(refused, data, None, settings(epochs=8), seed=3)
    assert found.curve[-1]["train_loss"] < found.curve[0]["train_loss"]
    assert torch.cuda.current_stream() == stream
    kept: list[CapturedSteps] = []

    def recording(*given, record):
        kept.append(CapturedSteps(*given))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_steps", recording)
        found = train(network().to("cuda"), data, None, settings(epochs=8), seed=3)
    assert found.curve[-1]["train_loss"] < found.curve[0]["train_loss"]
    assert not kept[0].as_usual
    assert all(one.replay for one in kept[0]._shapes.values())


@on_gpu
def test_a_skipped_layer_is_skipped_by_each_steps_own_draw_on_a_gpu():
    model = nn.Sequential(Skipping(random.random), network()).to("cuda")
    train(model, on_device(split(57, 0), "cuda"), None, settings(epochs=8), seed=3)
    assert len(model[0].chosen) == 8 * 4


@on_gpu
@pytest.mark.parametrize("changes", [{}, {"precision": "float16"}])
@pytest.mark.parametrize(("first", "then"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_training_begun_on_one_device_is_gone_on_with_on_another(tmp_path, monkeypatch, first, then, changes):
    monkeypatch.setattr("roarline.training.meter._PASSES_BETWEEN_READS", {"cpu": 3, "cuda": 3})
    how, begun, resumed = settings(batch_size=4, **changes), network().to(first), network(5).to(then)

    def kill(done: int, total: int) -> None:
        if done > 16:  # in the second epoch of 12 steps, after it was saved
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            begun, on_device(split(48, 0), first), None, how, seed=3, checkpoint=Checkpoint(tmp_path, every_s=0),
            progress=kill,
        )  # fmt: skip
    found = train(resumed, on_device(split(48, 0), then), None, how, seed=3, checkpoint=Checkpoint(tmp_path, every_s=0))
    assert found.curve[-1]["train_loss"] < found.curve[0]["train_loss"]


@on_gpu
def test_recordings_of_two_shapes_take_the_memory_of_the_larger():
    """Of the activations that is: 48 channels at 64 px, forward and backward, outweigh weights by far."""
    taken = []
    for sizes in ((64,), (64, 60)):
        model = nn.Sequential(*[nn.Conv2d(3 if k == 0 else 48, 48, 3, padding=1) for k in range(8)], nn.Flatten())
        model = nn.Sequential(model, nn.Linear(48 * 64 * 64, 3)).to("cuda")
        captured = CapturedSteps(Classification(model, settings(), multi_label=False), settings(), torch.device("cuda"))
        for _ in range(_USUAL_STEPS + 2):
            for size in sizes:
                images, labels = torch.randn(size, 3, 64, 64, device="cuda"), torch.arange(size, device="cuda") % 3
                place = loop.passes([(0, size)])[0]
                captured.make(loop.Batch(images, labels, torch.arange(size), (0,)), place, 0.01)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        taken.append(torch.cuda.memory_reserved())
        del captured, model
        torch.cuda.empty_cache()
    assert taken[1] < 1.3 * taken[0]


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
