"""How CA trains: a masker and a copy of the classifier step in turns, and older copies judge masks, too.

Shapes: B images, K classes, C channels, H × W px.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roarline.config.masker_params import CaMaskerLosses
from roarline.config.training import Optimizer
from roarline.models.layers import evaluating
from roarline.models.masker_explainers import CaMasker
from roarline.training.batches import Split
from roarline.training.classifier_pool import ClassifierPool
from roarline.training.evaluate import autocast
from roarline.training.explainer_task import ExplainerTask, means_over
from roarline.training.masker_objectives import MaskTerms, check_task, class_weights, play, scores
from roarline.training.objectives import Batch, Goal
from roarline.training.optimizers import make_optimizer

_EPOCHS = "epochs_trained"


class CaObjective:
    """The objective of CA, which makes its own steps.

    One step: the classifier learns from the clean images; a copy of it may go to the pool; the masker draws masks from
    what it saw; either the classifier or one drawn from the pool judges them; the classifier learns from the masked
    images, where it was the judge; the masker learns from the judgement.

    The last epoch counts as the best: a masker's loss says nothing against a classifier that has moved on.

    Args:
        network: The masker and the classifier's copy.
        task: Its images have one label each.
        losses: Of the two games, the pool and the classifier's optimiser.

    Raises:
        UserInputError: Images have several labels.

    Source: Phang et al. 2020, arXiv 2010.09750, section 3; spec S3.3.
    Differs: all gradients of a step are computed before the first of its two last updates; in the original the masker's
        are computed through weights that were already updated, an error on torch since 1.5 (spec B3.2). The judge drawn
        from the pool is asked; in the original it never is (B3.1), which ``pool.use: unused`` repeats.
    """

    goal: Goal = (_EPOCHS, "max")

    def __init__(self, network: CaMasker, task: ExplainerTask, losses: CaMaskerLosses) -> None:
        check_task(task)
        self.trained, self.task, self.settings = network, task, losses
        self.mask_terms = MaskTerms(losses, class_weights(task, losses))
        opponent, of_masker = losses.opponent, task.settings.optimizer
        self.masker_parameters = [p for p in network.masker.parameters() if p.requires_grad]
        self.classifier_parameters = list(network.classifier.parameters())
        self.masker_optimizer = make_optimizer(of_masker, self.masker_parameters)
        self.classifier_optimizer = make_optimizer(
            Optimizer(name="sgd", **opponent.model_dump()), self.classifier_parameters
        )
        self.classifier_rate = opponent.lr / of_masker.lr
        self.pool = ClassifierPool(losses.pool.size, losses.pool.every)
        self.judge = copy.deepcopy(network.classifier).requires_grad_(False).eval()
        self.steps, self.epochs = 0, 0

    def step(self, batch: Batch, rate: float) -> Mapping[str, Tensor]:
        """See ``OwnSteps``."""
        images, labels, generator = batch.images, batch.labels, batch.generator
        network, device, precision = self.trained, batch.images.device, self.task.settings.precision
        _set_rate(self.masker_optimizer, rate)
        _set_rate(self.classifier_optimizer, rate * self.classifier_rate)
        with autocast(device, precision):
            clean_BK, activations = network.read(network.classifier, images, graph=True)
            on_clean = F.cross_entropy(clean_BK, labels)
        _apply(self.classifier_optimizer, self.classifier_parameters, _gradients(on_clean, self.classifier_parameters))
        self.pool.offer(network.classifier, self.steps, generator)
        judge, learns = self._judge(generator)
        with autocast(device, precision):
            game = play(network, activations, clean_BK, images, labels, generator)
            inside, outside = self.mask_terms.masked(images, game.masks_B1HW)
            inside_BK, outside_BK = judge(inside).float(), judge(outside).float()
            terms = self.mask_terms(game, inside_BK, outside_BK)
            on_masked = F.cross_entropy(inside_BK, labels) + F.cross_entropy(outside_BK, labels)
        loss = torch.stack(list(terms.values())).sum()
        of_masker = _gradients(loss, self.masker_parameters, keep=learns)
        if learns:
            of_classifier = _gradients(on_masked, self.classifier_parameters)
            _apply(self.classifier_optimizer, self.classifier_parameters, of_classifier)
        _apply(self.masker_optimizer, self.masker_parameters, of_masker, self.task.settings.gradient_clip_norm)
        self.steps += 1
        return {name: term.detach() for name, term in terms.items()} | {
            "classifier_clean": on_clean.detach(),
            "classifier_masked": on_masked.detach(),
        }

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """The masker's terms of a batch that nothing is learned from; training calls ``step``."""
        return self._terms(batch.images, batch.labels)[0]

    def validate(self, split: Split) -> Mapping[str, float]:
        """See ``Objective``: the masker's terms against the classifier as it is now; epochs trained, the goal."""
        self.epochs += 1
        found = means_over(split, self.trained, self._terms, self.task.settings.precision)
        return found | {_EPOCHS: float(self.epochs)}

    def state_dict(self) -> dict[str, Any]:
        """See ``OwnSteps``: both optimisers, the pool, how far it is."""
        return {
            "masker": self.masker_optimizer.state_dict(),
            "classifier": self.classifier_optimizer.state_dict(),
            "pool": self.pool.state_dict(),
            "steps": self.steps,
            "epochs": self.epochs,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``OwnSteps``."""
        self.masker_optimizer.load_state_dict(state["masker"])
        self.classifier_optimizer.load_state_dict(state["classifier"])
        self.pool.load_state_dict(state["pool"])
        self.steps, self.epochs = state["steps"], state["epochs"]

    def _judge(self, generator: torch.Generator) -> tuple[nn.Module, bool]:
        """Who is asked about the masks, and whether it learns from them: the classifier, or one drawn from the pool."""
        pool, current = self.settings.pool, self.trained.classifier
        from_pool = bool(torch.rand((), generator=generator) < pool.share)
        if not from_pool or pool.use == "unused":
            return current, not from_pool
        self.pool.load_into(self.judge, generator)
        return self.judge, False

    def _terms(self, images_BCHW: Tensor, labels_B: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        network = self.trained
        with evaluating(network):
            clean_BK, activations = network.read(network.classifier, images_BCHW)
            game = play(network, activations, clean_BK, images_BCHW, labels_B, None)
            inside, outside = self.mask_terms.masked(images_BCHW, game.masks_B1HW)
            inside_BK, outside_BK = network.classifier(torch.cat([inside, outside])).float().chunk(2)
        found = scores(game, inside_BK, outside_BK)
        found["clean_accuracy"] = (clean_BK.argmax(dim=1) == labels_B).float().mean()
        return self.mask_terms(game, inside_BK, outside_BK), found


def _gradients(loss: Tensor, parameters: list[nn.Parameter], *, keep: bool = False) -> list[Tensor | None]:
    """Of some parameters alone; None for those that the loss doesn't depend on."""
    return list(torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True))


def _apply(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], gradients: list[Tensor | None],
    norm: float | None = None,
) -> None:  # fmt: skip
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    if norm is not None:
        nn.utils.clip_grad_norm_(parameters, norm)
    optimizer.step()
    for parameter in parameters:
        parameter.grad = None


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def ca_masker(network: CaMasker, classifier: nn.Module, task: ExplainerTask, **losses: Any) -> CaObjective:
    """The objective of CA, which has a classifier of its own; keywords as ``CaMaskerLosses`` has them."""
    return CaObjective(network, task, CaMaskerLosses.model_validate(losses))
