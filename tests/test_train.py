"""The training loop: what is trained, at which rate, by which gradient, and what is kept."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from shelfwise.errors import TrainingError, UsageError
from shelfwise.train.anatomy import Anatomy, trained
from shelfwise.train.best import mean_score
from shelfwise.train.events import Event
from shelfwise.train.loop import train
from shelfwise.train.optim import (
    ModelEma,
    Optimiser,
    Phase,
    Rates,
    parameter_groups,
    plateaus,
    schedule,
    torch_optimiser,
)
from tiny_training import PAIRS, VALUES, Batch, Data, Step, Sums, Tiny, anatomy, data

pytestmark = pytest.mark.usefixtures("one_thread")

CONSTANT = Optimiser(schedule="constant")


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(before: Mapping[str, torch.Tensor], network: nn.Module) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(before[name], tensor)}


def run(
    network: nn.Module,
    *phases: Phase,
    optimiser: Optimiser = CONSTANT,
    batches: Data | None = None,
    **more: object,
) -> list[Event]:
    more.setdefault("anatomy", anatomy())
    return list(train(network, Step(network), batches or data(), phases, optimiser, **more))  # type: ignore[arg-type]


def scored(*by_epoch: Sequence[float]):
    """Scores that are the same whatever the network says, one sequence an epoch."""
    rows = iter(by_epoch)
    return lambda network: dict(zip(PAIRS, next(rows), strict=True))


# Groups


def test_groups_decay_matrices_only_and_rates_fall_from_the_heads_to_the_stem():
    network = Tiny()
    groups = parameter_groups(
        network.named_parameters(),
        network.layer_groups,
        Phase(lr=Rates(backbone=0.1, heads=1.0)),
        Optimiser(weight_decay=0.3, layer_decay=0.5),
    )
    found = {n: (g["lr"], g["weight_decay"]) for g in groups for n in g["names"]}
    assert found == {
        "tower.stem.weight": (0.025, 0.3),
        "tower.stem.bias": (0.025, 0.0),
        "tower.norm.weight": (0.025, 0.0),
        "tower.norm.bias": (0.025, 0.0),
        "tower.last.weight": (0.05, 0.3),
        "tower.last.bias": (0.05, 0.0),
        "heads.weights": (1.0, 0.3),
        "heads.biases": (1.0, 0.0),
        "heads.last": (1.0, 0.3),
    }
    assert [len(g["names"]) for g in groups] == [len(g["params"]) for g in groups]


def test_without_layer_decay_there_are_four_groups():
    network = Tiny()
    groups = parameter_groups(network.named_parameters(), network.layer_groups, Phase(), Optimiser())
    assert sorted((g["name"], g["weight_decay"] > 0) for g in groups) == [
        ("backbone", False),
        ("backbone", True),
        ("heads", False),
        ("heads", True),
    ]


def test_a_packed_layer_of_a_single_attribute_is_no_bias():
    heads = [
        ("heads.weights.0", nn.Parameter(torch.zeros(8, 1, 4))),
        ("heads.biases.0", nn.Parameter(torch.zeros(1, 1, 4))),
    ]
    groups = parameter_groups(heads, [("heads", [n for n, _ in heads])], Phase(), Optimiser())
    assert [(g["names"], g["weight_decay"] > 0) for g in groups] == [
        (["heads.weights.0"], True),
        (["heads.biases.0"], False),
    ]


def test_weight_decay_shrinks_by_rate_times_decay():
    weight = nn.Parameter(torch.ones(2, 2))
    groups = parameter_groups(
        [("heads.weight", weight)], [("heads", ["heads.weight"])], Phase(lr=0.1), Optimiser(weight_decay=0.5)
    )
    optimiser = torch_optimiser(groups, Optimiser())
    assert isinstance(optimiser, torch.optim.AdamW)
    weight.grad = torch.zeros_like(weight)
    optimiser.step()
    torch.testing.assert_close(weight.data, torch.full((2, 2), 1 - 0.1 * 0.5))


# Schedules


def test_cosine_with_warm_up_against_values_by_hand():
    options = Optimiser(warm_up=0.2, floor=0.1)
    found = [schedule(options, step, 10, 5) for step in range(10)]
    by_hand = [1 / 3, 2 / 3, *(0.1 + 0.9 * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(8))]
    assert found == pytest.approx(by_hand)
    assert found[2] == 1.0
    assert found[6] == pytest.approx(0.55)


def test_multistep_acts_after_finished_epochs():
    options = Optimiser(schedule="multistep", milestones=(4, 6, 10), gamma=0.1)
    by_epoch = [schedule(options, 3 * epoch + 2, 30, 3) for epoch in range(10)]
    assert by_epoch == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01])


def test_plateau_falls_as_torch_does_it():
    scores = [0.1, 0.2, 0.2, 0.2, 0.19, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, mode="max", factor=0.5, patience=2, threshold=0.0
    )
    options = Optimiser(schedule="plateau", gamma=0.5, plateau_patience=2)
    for end in range(1, len(scores) + 1):
        reference.step(scores[end - 1])
        assert schedule(options, 0, 1, 1, scores[:end]) == optimiser.param_groups[0]["lr"]
    assert plateaus(scores, 2) == 3


def test_rates_in_events_follow_the_schedule():
    network = Tiny()
    events = run(network, Phase(epochs=2, lr=Rates(backbone=0.1, heads=0.4)), optimiser=Optimiser())
    steps = [event for event in events if event.kind == "step"]
    factors = [(1 + math.cos(math.pi * t / 6)) / 2 for t in range(6)]
    assert [e.rates["heads"] for e in steps] == pytest.approx([0.4 * f for f in factors])
    assert [e.rates["backbone"] for e in steps] == pytest.approx([0.1 * f for f in factors])


def test_multistep_needs_milestones():
    with pytest.raises(ValueError, match="need each other"):
        Optimiser(schedule="multistep")
    with pytest.raises(ValueError, match="need each other"):
        Optimiser(milestones=(2,))


# What is trained


def test_phases_train_what_they_say_and_frozen_statistics_stay():
    network = Tiny()
    before = weights(network)
    run(network, Phase(train="heads"))
    assert changed(before, network) == {"heads.weights", "heads.biases", "heads.last"}
    before = weights(network)
    run(network, Phase(train=1))
    names = {"tower.last.weight", "tower.last.bias", "heads.weights", "heads.biases", "heads.last"}
    assert changed(before, network) == names
    before = weights(network)
    run(network, Phase(train="all"))
    assert changed(before, network) == set(before)
    before = weights(network)
    run(network, Phase(train=("stem",)))
    assert {n.rpartition(".")[0] for n in changed(before, network)} == {"tower.stem", "tower.norm"}


def test_dropout_of_frozen_parts_is_off_and_of_trained_parts_on():
    seen = []

    class Watched(Tiny):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append((self.tower["norm"].training, self.heads.dropout.training))
            return super().forward(images)

    network = Watched()
    events = train(network, Step(network), data(), [Phase(train="heads"), Phase(train=("last",))], CONSTANT)
    for _ in events:
        pass
    assert seen == [(False, True)] * 3 + [(False, False)] * 3
    assert not network.training


def test_one_head_is_trained_and_the_rest_of_its_tensors_stays():
    network = Tiny()
    before = weights(network)
    run(
        network,
        Phase(epochs=2, train=("Shirts/sleeve",), lr=0.1),
        optimiser=Optimiser(weight_decay=0.5, ema=0.9),
    )
    after = network.state_dict()
    assert changed(before, network) == {"heads.weights", "heads.biases", "heads.last"}
    moved = (before["heads.last"] != after["heads.last"]).view(4, len(PAIRS), VALUES).any(0).all(1)
    assert moved.tolist() == [False, True, False]
    assert (before["heads.weights"] != after["heads.weights"]).flatten(2).any(2).any(0).tolist() == [
        False,
        True,
        False,
    ]


def test_each_head_learns_as_if_it_were_alone():
    optimiser = Optimiser(schedule="constant", clip=0.3, weight_decay=0.1)
    together = Tiny(dropout=0.0)
    run(together, Phase(epochs=3, train="each head", lr=0.05), optimiser=optimiser)
    for a, pair in enumerate(PAIRS):
        alone = Tiny(dropout=0.0)
        only = data()
        only.labels[:, [b for b in range(len(PAIRS)) if b != a]] = -1
        run(alone, Phase(epochs=3, train=("/".join(pair),), lr=0.05), optimiser=optimiser, batches=only)
        for name, index in anatomy().heads[pair]:
            torch.testing.assert_close(together.state_dict()[name][index], alone.state_dict()[name][index])


@pytest.mark.parametrize(
    ("train_", "message"),
    [
        (("stam",), "'stam' is neither a layer group nor a head. Did you mean 'stem'?"),
        (("Shirts/color",), "Did you mean 'Shirts/colour'?"),
        (3, "the backbone has 2 layer groups"),
    ],
)
def test_what_cannot_be_trained_is_said(train_: object, message: str):
    network = Tiny()
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        run(network, Phase(train=train_))


def test_heads_that_share_parameters_cannot_be_trained_each():
    network = Tiny()
    with pytest.raises(UsageError, match="share parameters"):
        run(network, Phase(train="each head"), anatomy=Anatomy(pairs=PAIRS))


def test_the_heads_alone_are_the_heads_of_all():
    whole = anatomy().complete(Tiny())
    names, some = trained(whole, Phase(train=("heads",)))
    assert names == trained(whole, Phase(train="heads"))[0]
    assert some is None


# Gradients


class Plain(nn.Module):
    """A linear classifier that is its own heads."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({"one": nn.Linear(3, 3)})
        with torch.no_grad():
            self.heads["one"].weight.copy_(torch.arange(9.0).view(3, 3) / 10)
            self.heads["one"].bias.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.heads["one"](images.mean((2, 3)))[:, None, :]


def plain(size: int) -> Data:
    given = data(20, size)
    return replace(given, labels=given.labels[:, 1:2].contiguous())


@pytest.mark.parametrize("optimiser", [Optimiser(name="sgd"), Optimiser(clip=0.2)])
def test_accumulated_batches_are_one_big_batch_the_tail_too(optimiser: Optimiser):
    # 20 products: big batches of 16 and 4, small ones of 8 twice and 4. Labels are missing unevenly.
    big, small = Plain(), Plain()
    phase = Phase(epochs=2, lr=0.5)
    a = run(big, phase, optimiser=optimiser, batches=plain(16), anatomy=None)
    b = run(small, phase, optimiser=replace_(optimiser, accumulate=2), batches=plain(8), anatomy=None)
    assert [e.kind for e in a] == [e.kind for e in b] == ["step", "step", "epoch"] * 2 + ["phase"]
    assert [e.loss for e in a] == pytest.approx([e.loss for e in b], rel=1e-6)
    for name, tensor in big.state_dict().items():
        torch.testing.assert_close(tensor, small.state_dict()[name])
    assert changed(weights(Plain()), small)


def replace_(optimiser: Optimiser, **options: object) -> Optimiser:
    return optimiser.model_copy(update=options)


def test_one_step_of_sgd_by_hand():
    network, reference = Plain(), Plain()
    batches = plain(20)
    run(
        network,
        Phase(lr=0.5),
        optimiser=Optimiser(name="sgd", momentum=0, weight_decay=0, schedule="constant"),
        batches=batches,
        anatomy=None,
    )
    labels = batches.labels[:, 0]
    logits = reference(batches.images)[:, 0]
    nn.functional.cross_entropy(logits, labels, ignore_index=-1).backward()
    expected = reference.heads["one"].weight - 0.5 * reference.heads["one"].weight.grad
    torch.testing.assert_close(network.heads["one"].weight.data, expected.data)


def test_clipping_bounds_the_norm_of_the_mean_gradient():
    network, reference = Plain(), Plain()
    options = Optimiser(name="sgd", momentum=0, weight_decay=0, schedule="constant", clip=0.01)
    run(network, Phase(lr=1.0), optimiser=options, batches=plain(20), anatomy=None)
    moved = [(a - b).flatten() for a, b in zip(network.parameters(), reference.parameters(), strict=True)]
    assert torch.cat(moved).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_a_batch_without_labels_changes_nothing_and_is_no_error():
    network = Tiny()
    batches = data()
    batches.labels.fill_(-1)
    before = weights(network)
    events = run(network, Phase(train="heads"), optimiser=Optimiser(weight_decay=0.0), batches=batches)
    assert not changed(before, network)
    assert [event.loss for event in events] == [0.0] * 5


def test_bf16_learns_nearly_the_same():
    exact, rough = Tiny(dropout=0.0), Tiny(dropout=0.0)
    phase = Phase(epochs=2, lr=0.01)
    a = run(exact, phase)
    b = run(rough, phase, precision="bf16")
    assert [e.loss for e in a] != [e.loss for e in b]
    assert [e.loss for e in a] == pytest.approx([e.loss for e in b], rel=0.05)
    assert {tensor.dtype for tensor in rough.parameters()} == {torch.float32}


def test_what_this_machine_cannot_do_is_said():
    with pytest.raises(UsageError, match="'fp16' needs a GPU"):
        run(Tiny(), Phase(), precision="fp16")
    with pytest.raises(UsageError, match="no precision 'int8'"):
        run(Tiny(), Phase(), precision="int8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said():
    with pytest.raises(UsageError, match="has no GPU"):
        run(Tiny(), Phase(), device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_learns_nearly_the_same(precision: str):
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    here, there = Tiny(dropout=0.0), Tiny(dropout=0.0)
    phase = Phase(epochs=6, lr=0.01)
    a, b = run(here, phase), run(there, phase, precision=precision, device="cuda")
    assert [(e.kind, e.step) for e in a] == [(e.kind, e.step) for e in b]
    assert [e.loss for e in a] == pytest.approx([e.loss for e in b], rel=0.05)


# Averages


def test_the_moving_average_warms_up():
    weight = torch.zeros(2)
    ema = ModelEma(["w"], [weight], decay=0.9)
    weight += 1.0
    ema.update(1)
    by_hand = 1 - 2 / 11
    assert ema.averages[0].tolist() == pytest.approx([by_hand] * 2)
    weight += 1.0
    ema.update(1000)
    assert ema.averages[0].tolist() == pytest.approx([0.9 * by_hand + 0.1 * 2] * 2)


def test_the_average_is_what_is_scored_and_kept():
    network, plain_network = Tiny(), Tiny()
    seen = []

    def validate(scored_network: nn.Module) -> dict[tuple[str, str], float]:
        seen.append(weights(scored_network))
        return dict.fromkeys(PAIRS, 0.5)

    phase = Phase(epochs=1, lr=0.05)
    run(network, phase, optimiser=Optimiser(ema=0.99), validate=validate)
    run(plain_network, phase, optimiser=Optimiser())
    assert changed(seen[0], network) == set()
    different = changed(seen[0], plain_network)
    assert {"tower.stem.weight", "heads.last"} <= different
    assert "tower.norm.running_mean" not in different


def test_wise_ft_mixes_with_the_weights_the_phase_began_with():
    phases = [Phase(train="heads", lr=0.05), Phase(epochs=2, lr=0.05)]
    first = Tiny()
    run(first, phases[0])
    full = Tiny()
    run(full, *phases)
    mixed = Tiny()
    run(mixed, phases[0], phases[1].model_copy(update={"wise_ft": 0.7}))
    for name, tensor in mixed.named_parameters():
        expected = 0.3 * first.get_parameter(name) + 0.7 * full.get_parameter(name)
        torch.testing.assert_close(tensor, expected)


# Scores


def test_mean_score_weighs_categories_alike_and_passes_over_what_has_none():
    scores = {("a", "x"): 0.2, ("a", "y"): 0.4, ("b", "x"): 0.9, ("b", "z"): math.nan}
    assert mean_score(scores) == pytest.approx((0.3 + 0.9) / 2)
    assert math.isnan(mean_score({}))


def keeping(network: nn.Module, scores: Sequence[Sequence[float]], seen: list[dict[str, torch.Tensor]]):
    rows = iter(scores)

    def validate(scored_network: nn.Module) -> dict[tuple[str, str], float]:
        assert scored_network is network
        assert not network.training
        seen.append(weights(network))
        return dict(zip(PAIRS, next(rows), strict=True))

    return validate


def test_each_head_keeps_its_own_best_epoch():
    network = Tiny()
    seen: list[dict[str, torch.Tensor]] = []
    scores = [(0.5, 0.1, 0.3), (0.6, 0.3, 0.3), (0.4, 0.9, 0.2)]
    events = run(network, Phase(epochs=3, train="heads", lr=0.1), validate=keeping(network, scores, seen))
    for pair, epoch in zip(PAIRS, [1, 2, 0], strict=True):
        for name, index in anatomy().heads[pair]:
            assert torch.equal(network.state_dict()[name][index], seen[epoch][name][index])
    assert events[-1].kind == "phase"
    assert events[-1].scores == dict(zip(PAIRS, (0.6, 0.9, 0.3), strict=True))
    assert [event.best for event in events if event.kind == "epoch"] == [True, True, True]


def test_heads_behind_moving_statistics_are_kept_together():
    class Standardised(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3, affine=False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(self.norm(images))

    network = Standardised()
    seen: list[dict[str, torch.Tensor]] = []
    scores = [(0.5, 0.1, 0.3), (0.6, 0.3, 0.3), (0.4, 0.2, 0.2)]
    run(network, Phase(epochs=3, train="heads", lr=0.1), validate=keeping(network, scores, seen))
    assert not torch.equal(seen[0]["norm.running_mean"], seen[1]["norm.running_mean"])
    assert changed(seen[1], network) == set()


def test_a_trained_tower_keeps_the_best_epoch_of_all():
    network = Tiny()
    seen: list[dict[str, torch.Tensor]] = []
    scores = [(0.5, 0.1, 0.3), (0.6, 0.3, 0.9), (0.4, 0.9, 0.2)]
    events = run(network, Phase(epochs=3, lr=0.1), validate=keeping(network, scores, seen))
    assert changed(seen[1], network) == set()
    epochs = [event for event in events if event.kind == "epoch"]
    assert [event.score for event in epochs] == pytest.approx([0.3, 0.675, 0.425])
    assert [event.best for event in epochs] == [True, True, False]
    assert events[-1].score == pytest.approx(0.675)


def test_keep_last_keeps_the_last():
    network = Tiny()
    seen: list[dict[str, torch.Tensor]] = []
    scores = [(0.5, 0.5, 0.5), (0.4, 0.4, 0.4)]
    run(
        network,
        Phase(epochs=2, lr=0.1),
        optimiser=Optimiser(keep="last"),
        validate=keeping(network, scores, seen),
    )
    assert changed(seen[1], network) == set()


def test_early_stopping_goes_on_with_the_next_phase_from_the_best():
    network = Tiny()
    seen: list[dict[str, torch.Tensor]] = []
    scores = [(0.5, 0.5, 0.5), (0.4, 0.4, 0.4), (0.5, 0.5, 0.5), (0.1, 0.1, 0.1)]
    events = run(
        network,
        Phase(epochs=9, lr=0.1),
        Phase(epochs=1, train="heads", lr=0.1),
        optimiser=Optimiser(patience=2, schedule="constant"),
        validate=keeping(network, scores, seen),
    )
    assert [(e.kind, e.phase) for e in events if e.kind != "step"] == [
        *[("epoch", 0)] * 3,
        ("phase", 0),
        ("epoch", 1),
        ("phase", 1),
    ]
    assert torch.equal(network.state_dict()["tower.stem.weight"], seen[0]["tower.stem.weight"])
    assert [e.of for e in events if e.kind == "step"] == [30] * 9 + [12] * 3
    assert [e.epoch for e in events if e.kind == "epoch"] == [0, 1, 2, 3]


def test_stopping_and_plateau_need_scores():
    for options in (Optimiser(patience=1), Optimiser(schedule="plateau")):
        with pytest.raises(UsageError, match="need scores"):
            run(Tiny(), Phase(), optimiser=options)


def test_steps_end_a_phase_early_and_the_schedule_spans_them():
    events = run(Tiny(), Phase(epochs=5, steps=4, lr=1.0), optimiser=Optimiser(floor=0.2))
    assert [e.kind for e in events] == ["step"] * 3 + ["epoch", "step", "epoch", "phase"]
    assert events[4].rates["heads"] == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * 3 / 4)) / 2)


def test_a_caller_who_stops_has_the_best_weights_so_far():
    network = Tiny()
    seen: list[dict[str, torch.Tensor]] = []
    scores = [(0.5, 0.5, 0.5), (0.4, 0.4, 0.4)]
    events = train(
        network,
        Step(network),
        data(),
        [Phase(epochs=5, lr=0.1)],
        CONSTANT,
        validate=keeping(network, scores, seen),
        anatomy=anatomy(),
    )
    for event in events:
        if event.kind == "step" and event.epoch == 2:
            break
    events.close()
    assert changed(seen[0], network) == set()
    assert not network.training


# Events and errors


def test_events_say_loss_speed_and_time_left():
    network = Tiny()
    events = run(network, Phase(epochs=2, lr=0.01), validate=scored((0.1, 0.2, 0.3), (0.2, 0.3, 0.4)))
    steps = [event for event in events if event.kind == "step"]
    assert [event.step for event in steps] == [1, 2, 3, 4, 5, 6]
    assert all(event.of == 6 and event.main for event in events)
    assert all(event.pictures_per_second > 0 for event in events[:-1])
    assert all(event.seconds_left > 0 for event in steps[:-1])
    assert events[-1].seconds_left == 0
    assert [event.score for event in steps] == [None] * 3 + [pytest.approx(0.225)] * 3
    epoch = events[3]
    assert epoch.kind == "epoch"
    assert set(epoch.pair_loss) == set(PAIRS)
    labels = (data().labels >= 0).sum(0).tolist()
    by_hand = sum(epoch.pair_loss[pair] * count for pair, count in zip(PAIRS, labels, strict=True)) / sum(
        labels
    )
    assert epoch.loss == pytest.approx(by_hand)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_the_products(value: float):
    network = Tiny()
    step = Step(network)

    def poisoned(batch: Batch) -> Sums:
        sums = step(batch)
        return replace(sums, loss=sums.loss * value) if "p3" in batch.ids else sums

    order = data()(0).order.tolist()
    at = order.index(3) // 8
    before: list[int] = []
    events = train(network, poisoned, data(), [Phase()], CONSTANT)
    with pytest.raises(TrainingError, match=rf"loss is (nan|inf) in epoch 1, step {at + 1}, .*'p3'"):
        before.extend(event.step for event in events)
    assert before == list(range(1, at + 1))
    assert all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values())


def test_batches_that_run_out_are_an_error():
    network = Tiny()
    whole = data()

    class Short:
        def __len__(self) -> int:
            return 4

        def __iter__(self):
            return iter(whole(0))

    with pytest.raises(TrainingError, match="ended after 3 of 4 batches"):
        list(train(network, Step(network), lambda epoch: Short(), [Phase()], CONSTANT))


def test_what_others_draw_does_not_change_what_is_learnt():
    one, two = Tiny(), Tiny()
    run(one, Phase(epochs=2))
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    for _ in train(two, Step(two), data(), [Phase(epochs=2)], CONSTANT, anatomy=anatomy()):
        torch.rand(7)
    assert changed(weights(one), two) == set()
    three = Tiny()
    torch.random.set_rng_state(state)
    run(three, Phase(epochs=2), seed=1)
    assert changed(weights(one), three)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_reference_has_the_options_and_their_defaults():
    text = (Path(__file__).parent.parent / "docs" / "reference.md").read_text(encoding="utf-8")
    for options, table in ((Phase(), "[[recipe.phases]]"), (Optimiser(), "[recipe.optimiser]")):
        section = text[text.index(f"`{table}`") :]
        for key, value in options:
            found = re.search(rf"^\| `{key}` \| `?(.*?)`? \|", section, re.MULTILINE)
            assert found, f"{table} {key}"
            stated = found.group(1)
            if isinstance(value, tuple):
                assert stated == str(list(value)), key
            else:
                assert stated == ("none" if value is None else str(value)), key
