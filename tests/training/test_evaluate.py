"""Evaluation: right numbers, eval mode, nothing left behind."""

import pytest
import torch
from torch import nn

from roarline.errors import ModelError
from roarline.training.batches import ResidentSplit
from roarline.training.evaluate import autocast, evaluate, evaluation_batch
from roarline.training.losses import make_loss


class FirstPixels(nn.Module):
    """The logits stand in the image; dropout would drown them outside eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.999)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(images[:, :, 0, 0])


@pytest.fixture
def split() -> ResidentSplit:
    generator = torch.Generator().manual_seed(0)
    return ResidentSplit(
        torch.randn(1300, 3, 2, 2, generator=generator), torch.randint(0, 3, (1300,), generator=generator)
    )


def test_numbers_are_those_of_one_pass_over_everything(split):
    model = FirstPixels()
    seen = evaluate(model, split, make_loss("cross_entropy"))
    logits = split.images[:, :, 0, 0]
    assert seen.loss == pytest.approx(float(nn.functional.cross_entropy(logits, split.labels)), rel=1e-5)
    assert torch.equal(seen.predicted_N, logits.argmax(1))
    assert seen.accuracy == pytest.approx(float((logits.argmax(1) == split.labels).double().mean()))
    assert seen.correct_N.shape == (1300,)
    assert not seen.correct_N.is_inference()


def test_the_mode_of_each_module_is_left_as_it_was(split):
    model = nn.Sequential(FirstPixels(), nn.BatchNorm1d(3))
    model.train()
    model[1].eval()
    mean = model[1].running_mean.clone()
    evaluate(model, split)
    assert model.training
    assert model[0].dropout.training
    assert not model[1].training
    assert torch.equal(model[1].running_mean, mean)


def test_a_network_that_gives_nan_is_refused(split):
    broken = ResidentSplit(split.images.clone(), split.labels)
    broken.images[700, 1, 0, 0] = torch.nan
    with pytest.raises(ModelError, match="NaN or infinite logits: its training diverged"):
        evaluate(FirstPixels(), broken)


def test_without_a_loss_there_is_none(split):
    assert evaluate(FirstPixels(), split).loss is None


@pytest.mark.parametrize(("size", "batch"), [((8, 8), 512), ((32, 32), 512), ((224, 224), 83), ((4096, 4096), 1)])
def test_batch_follows_from_the_images_size(size, batch):
    split = ResidentSplit(torch.empty(1, 3, 1, 1).expand(1, 3, *size), torch.zeros(1, dtype=torch.int64))
    assert evaluation_batch(split) == batch


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("float16", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_on_a_cpu_only_bfloat16_is_mixed(precision, dtype):
    with autocast(torch.device("cpu"), precision):
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == dtype
