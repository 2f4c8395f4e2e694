"""Greedy deletion: optimal where the score is additive, near the best of all orders elsewhere, below other methods."""

import itertools

import pytest
import torch

from roarline.attribution.controls import random
from roarline.attribution.global_sensitivity import hsic, sobol
from roarline.attribution.gradient import gradient
from roarline.attribution.greedy import greedy_deletion
from roarline.attribution.integrated import integrated_gradients
from roarline.attribution.occlusion import occlusion
from roarline.attribution.rise import rise
from roarline.attribution.superpixel_surrogates import kernel_shap, lime
from roarline.imaging.superpixels import grid_cells, spread


def order_of(maps, cells):
    """Cells in the order in which they were taken, [B, F]."""
    labels = grid_cells(*maps.shape[1:], cells)[0].flatten()
    first_pixel = torch.stack([(labels == cell).nonzero()[0, 0] for cell in range(int(labels.max()) + 1)])
    return maps.flatten(1)[:, first_pixel].argsort(dim=1, descending=True)


def curve(model, image, target, order, cells, *, inserts=False, score="softmax"):
    """The target's score as cells go, or come, one after the other: [F + 1]."""
    count = len(order)
    shown = torch.ones(count + 1, count, dtype=image.dtype)
    for step, cell in enumerate(order):
        shown[step + 1 :, cell] = 0
    masks = spread((1 - shown if inserts else shown)[None], grid_cells(*image.shape[1:], cells))[0]
    with torch.no_grad():
        logits = model(masks[:, None] * image)
    return (logits.softmax(dim=1) if score == "softmax" else logits)[:, target]


def areas(model, image, target, orders, cells, **settings):
    return torch.stack([curve(model, image, target, order, cells, **settings).mean() for order in orders])


@pytest.mark.parametrize(("order", "sign"), [("deletion", 1), ("insertion", 1)])
def test_an_additive_networks_cells_are_taken_in_the_order_of_their_contributions(linear, images, targets, order, sign):
    maps = greedy_deletion(linear, images, targets, cells=3, order=order, score="logit")
    weights = linear.layer.weight.detach().reshape(5, 3, 8, 8)[targets]
    products = (weights * images).sum(dim=1).flatten(1)
    labels = grid_cells(8, 8, 3).flatten()
    contributions = torch.zeros(4, 9, dtype=torch.float64).index_add_(1, labels, products)
    assert torch.equal(order_of(maps, 3), contributions.argsort(dim=1, descending=True))


def test_an_additive_networks_deletion_curve_is_the_lowest_of_all_orders(linear, images, targets):
    found = order_of(greedy_deletion(linear, images, targets, cells=2, score="logit"), 2)
    every = list(itertools.permutations(range(4)))
    for image, target, order in zip(images, targets, found.tolist(), strict=True):
        best = areas(linear, image, target, every, 2, score="logit").min()
        torch.testing.assert_close(areas(linear, image, target, [order], 2, score="logit")[0], best)


def written_out(model, image, target, order, candidates):
    """The order of 3 × 3 cells, one candidate a pass; gains are remembered from when a cell was last tried."""
    labels, start = grid_cells(8, 8, 3), 1.0 if order == "deletion" else 0.0
    sign = -1 if order == "deletion" else 1

    def log_odds(state):
        with torch.no_grad():
            logits = model(spread(state[None, None], labels)[0, 0] * image[None])
        return float(torch.logit(logits.softmax(dim=1))[0, target])

    state = torch.full((9,), start, dtype=torch.float64)
    gains, taken = dict.fromkeys(range(9), 0.0), []
    for step in range(9):
        tried = sorted(gains, key=gains.get, reverse=True)[: 9 if step == 0 else candidates]
        now = log_odds(state)
        for cell in tried:
            trial = state.clone()
            trial[cell] = 1 - start
            gains[cell] = sign * (log_odds(trial) - now)
        taken.append(max(tried, key=gains.get))
        state[taken[-1]] = 1 - start
        del gains[taken[-1]]
    return taken


@pytest.mark.parametrize("order", ["deletion", "insertion"])
@pytest.mark.parametrize("candidates", [None, 2, 4])
def test_each_step_takes_the_cell_that_gains_most(convnet, images, targets, order, candidates):
    convnet.eval()
    found = order_of(greedy_deletion(convnet, images, targets, cells=3, order=order, candidates=candidates), 3)
    for image, target, taken in zip(images, targets, found.tolist(), strict=True):
        assert taken == written_out(convnet, image, target, order, candidates or 9)


@pytest.mark.parametrize(("cells", "count"), [(2, 24), (3, 200)])
def test_hardly_any_order_reaches_a_lower_deletion_curve(convnet, images, targets, cells, count):
    """All 24 orders of 2 × 2 cells; of 3 × 3, 200 drawn ones: at most one of them does better."""
    convnet.eval()
    found = order_of(greedy_deletion(convnet, images, targets, cells=cells), cells)
    if cells == 2:
        orders = list(itertools.permutations(range(4)))
    else:
        generator = torch.Generator().manual_seed(0)
        orders = [torch.randperm(9, generator=generator).tolist() for _ in range(count)]
    assert len(orders) == count
    for image, target, order in zip(images, targets, found.tolist(), strict=True):
        mine = areas(convnet, image, target, [order], cells)[0]
        others = areas(convnet, image, target, orders, cells)
        assert (others < mine - 1e-9).sum() <= 1


def other_methods(model, images, targets):
    """Maps of other methods by name; 4 × 4 cells of 2 × 2 px, so that none is at a disadvantage."""
    with torch.no_grad():
        logits = model(images)
    regions = {
        "segments": 16,
        "superpixels": "grid",
        "seeds": range(4),
        "mean": [0.0],
        "std": [1.0],
        "score": "softmax",
    }
    return {
        "occlusion": occlusion(model, images, targets, window_px=2, stride_px=2, score="softmax", logits_BK=logits),
        "rise": rise(model, images, targets, masks=1000, cells=4, shared_seed=0),
        "lime": lime(model, images, targets, samples=300, baseline=0.0, **regions),
        "kernel_shap": kernel_shap(model, images, targets, samples=300, logits_BK=logits, **regions),
        "sobol": sobol(model, images, targets, designs=32, cells=4, score="softmax", shared_seed=0),
        "hsic": hsic(model, images, targets, samples=300, cells=4, score="softmax", shared_seed=0),
        "gradient": gradient(model, images, targets).abs().sum(dim=1),
        "integrated_gradients": integrated_gradients(model, images, targets).sum(dim=1),
        "random": random(model, images, targets, seeds=range(4)),
    }


def test_its_deletion_curve_lies_below_every_other_methods(convnet, images, targets):
    convnet.eval()
    mine = order_of(greedy_deletion(convnet, images, targets, cells=4), 4).tolist()
    for name, maps in other_methods(convnet, images, targets).items():
        means = maps.reshape(4, 4, 2, 4, 2).mean(dim=(2, 4)).flatten(1)
        theirs = means.argsort(dim=1, descending=True).tolist()
        for image, target, *orders in zip(images, targets, mine, theirs, strict=True):
            lowest, other = areas(convnet, image, target, orders, 4)
            assert lowest <= other + 1e-12, name


def test_insertion_rises_above_deletions_order_played_forward(convnet, images, targets):
    convnet.eval()
    insertion = order_of(greedy_deletion(convnet, images, targets, cells=3, order="insertion"), 3)
    deletion = order_of(greedy_deletion(convnet, images, targets, cells=3, order="deletion"), 3)
    mine, others = (
        sum(
            areas(convnet, image, target, [order], 3, inserts=True)[0]
            for image, target, order in zip(images, targets, orders.tolist(), strict=True)
        )
        for orders in (insertion, deletion)
    )
    assert mine > others


def test_a_map_ranks_every_cell_once(convnet, images, targets):
    convnet.eval()
    maps = greedy_deletion(convnet, images, targets, cells=3)
    expected = torch.arange(1, 10, dtype=torch.float64) / 9
    for map_ in maps:
        torch.testing.assert_close(map_.unique(), expected)


def count_passes(model, *args, **params):
    passes = []
    handle = model.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    maps = greedy_deletion(model, *args, **params)
    handle.remove()
    return maps, sum(passes)


def test_cost_is_what_the_table_says(convnet, images, targets):
    convnet.eval()
    assert count_passes(convnet, images, targets, cells=3)[1] == 4 * 9 * 10 // 2
    assert count_passes(convnet, images, targets, cells=3, candidates=2)[1] <= 4 * (9 + 1 + 7 * 2)
    assert count_passes(convnet, images, targets, cells=1)[1] == 4


def test_few_candidates_take_the_same_order_where_gains_never_change(linear, images, targets):
    """On an additive score what a cell gained when it was last tried is what it gains now."""
    every = greedy_deletion(linear, images, targets, cells=3, score="logit")
    for candidates in (1, 3, 100):
        few = greedy_deletion(linear, images, targets, cells=3, score="logit", candidates=candidates)
        assert torch.equal(order_of(few, 3), order_of(every, 3))


def test_a_saturated_probability_ranks_cells_as_it_would_otherwise(linear, images, targets):
    """A bias adds to the log odds the same everywhere; the probability itself would round to 1 and tie in float32."""
    single, image, target = linear.float(), images[:1].float(), targets[:1]
    plain = order_of(greedy_deletion(single, image, target, cells=3), 3)
    with torch.no_grad():
        linear.layer.bias[target] += 200
        assert single(image).softmax(dim=1)[0, target] == 1
    assert torch.equal(order_of(greedy_deletion(single, image, target, cells=3), 3), plain)
    assert plain[0].tolist() != list(range(9))  # which is what ties would give
