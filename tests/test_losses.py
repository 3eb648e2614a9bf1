"""Losses: hand-worked values, gradients of every registered loss, masks and class weights."""

import math

import numpy as np
import pytest
import torch

from conftest import Toy
from shelfwise.data.mixing import Mixed
from shelfwise.errors import UsageError
from shelfwise.models.distil import Teacher
from shelfwise.models.losses import (
    Objective,
    class_weights,
    cross_entropy,
    focal,
    log_prior,
    padded_columns,
    value_counts,
)
from shelfwise.registry import REGISTRIES, Spec
from shelfwise.taxonomy import Choice, Taxonomy
from shelfwise.testing import check_loss

TAXONOMY = Taxonomy(
    {
        "k": (Choice("a", ("p", "q")), Choice("b", ("r", "s", "t"))),
        "m": (Choice("c", ("x", "y")),),
        "empty": (),
    }
)
INF = float("inf")


@pytest.mark.parametrize("name", REGISTRIES["loss"].names())
def test_every_registered_loss_teaches(name: str):
    check_loss(name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cross_entropy", {"label_smoothing": 0.1}),
        ("focal", {"gamma": 0.0}),
        ("focal", {"gamma": 1.5}),
        ("poly1", {"epsilon": -0.5}),
        ("generalized_cross_entropy", {"q": 0.9}),
    ],
)
def test_losses_teach_with_options(name: str, options: dict[str, float]):
    check_loss(name, **options)


def test_the_check_can_fail():
    from shelfwise.registry import register

    @register.loss("lazy")
    def lazy(logits_MC: torch.Tensor, target_M: torch.Tensor) -> torch.Tensor:
        """Says the same whatever it is given."""
        return logits_MC.masked_fill(logits_MC.isinf(), 0).sum(dim=1) * 0 + 1

    try:
        with pytest.raises(AssertionError, match="lazy: a labelled cell has the gradient"):
            check_loss("lazy")
    finally:
        del REGISTRIES["loss"].entries["lazy"]


def test_cross_entropy_by_hand():
    logits = torch.log(torch.tensor([[0.25, 0.75, 0.0], [0.2, 0.3, 0.5]]))
    assert cross_entropy(logits, torch.tensor([0, 2])).tolist() == pytest.approx([math.log(4), math.log(2)])
    smooth = cross_entropy(logits, torch.tensor([0, 2]), label_smoothing=0.3)
    first = 0.7 * math.log(4) + 0.3 * (math.log(4) + math.log(4 / 3)) / 2
    second = 0.7 * math.log(2) - 0.3 * (math.log(0.2) + math.log(0.3) + math.log(0.5)) / 3
    assert smooth.tolist() == pytest.approx([first, second])


def test_focal_by_hand():
    logits = torch.log(torch.tensor([[0.25, 0.75], [0.9, 0.1]]))
    got = focal(logits, torch.tensor([0, 0]), gamma=2.0).tolist()
    assert got == pytest.approx([0.75**2 * math.log(4), 0.1**2 * -math.log(0.9)], rel=1e-5)
    assert focal(logits, torch.tensor([0, 0]), gamma=0.0).tolist() == pytest.approx(
        [math.log(4), -math.log(0.9)]
    )


def test_a_sure_answer_has_a_finite_gradient():
    for name in REGISTRIES["loss"]:
        logits = torch.tensor([[60.0, -60.0, -INF], [-60.0, 60.0, -INF]], requires_grad=True)
        REGISTRIES["loss"].get(name)(logits, torch.tensor([0, 0])).sum().backward()
        assert logits.grad is not None
        assert torch.isfinite(logits.grad[:, :2]).all(), name


def test_class_weights_have_mean_one_over_labels():
    counts = np.array([90, 9, 1, 0])
    assert class_weights(counts, 0).tolist() == [1, 1, 1, 0]
    for power in (0.5, 0.75, 1.0):
        weight = class_weights(counts, power)
        assert (weight * counts).sum() / counts.sum() == pytest.approx(1)
        assert weight[1] / weight[0] == pytest.approx(10**power)
    assert class_weights([30, 10], 1).tolist() == pytest.approx([2 / 3, 2])
    assert class_weights([0, 0], 1).tolist() == [0, 0]


def test_the_objective_is_the_mean_over_labelled_cells():
    objective = Objective(TAXONOMY, Spec("loss", "cross_entropy"))
    k = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    m = torch.randn(2, 2, generator=torch.Generator().manual_seed(2))
    labels_k, labels_m = torch.tensor([[1, -1], [-1, -1], [0, 2]]), torch.tensor([[-1], [1]])
    got = float(objective([("k", k, labels_k), ("m", m, labels_m)]))
    parts = [
        -k[0, :2].log_softmax(0)[1],
        -k[2, :2].log_softmax(0)[0],
        -k[2, 2:].log_softmax(0)[2],
        -m[1].log_softmax(0)[1],
    ]
    assert got == pytest.approx(float(torch.stack(parts).mean()), rel=1e-6)
    nothing = objective([("k", k, torch.full((3, 2), -1))])
    assert float(nothing) == 0


def test_the_objective_weighs_classes():
    counts = {"k": np.array([30, 10, 5, 5, 0]), "m": np.array([4, 4]), "empty": np.zeros(0, np.int64)}
    objective = Objective(TAXONOMY, Spec("loss", "cross_entropy"), counts=counts, power=1.0)
    logits = torch.zeros(1, 5)
    rare = float(objective([("k", logits, torch.tensor([[1, -1]]))]))
    often = float(objective([("k", logits, torch.tensor([[0, -1]]))]))
    assert rare == pytest.approx(2 * math.log(2))
    assert often == pytest.approx(2 / 3 * math.log(2))


def test_an_unknown_option_is_refused_before_training():
    from shelfwise.errors import UsageError

    with pytest.raises(UsageError, match="no option 'gama'"):
        REGISTRIES["loss"].spec("focal", gama=2.0)


def test_padded_columns():
    gather, real = padded_columns(TAXONOMY.slices("k"))
    assert gather.tolist() == [[0, 1, 0], [2, 3, 4]]
    assert real.tolist() == [[True, True, False], [True, True, True]]


def test_value_counts(toy: Toy):
    counts = value_counts(toy.catalog, "Plates")
    frame = toy.catalog.frame.filter(toy.catalog.frame["category"] == "Plates")
    by_hand = [
        (frame[choice.name] == value).sum()
        for choice in toy.catalog.taxonomy.choices("Plates")
        for value in choice.values
    ]
    assert counts.tolist() == by_hand


K = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
M = torch.randn(2, 2, generator=torch.Generator().manual_seed(2))
OUTPUTS = [("k", torch.tensor([0, 2, 4]), K), ("m", torch.tensor([1, 3]), M)]
LABELS = torch.tensor([[1, -1], [-1, -1], [-1, -1], [1, -1], [0, 2]])


def entropy(logits: torch.Tensor, label: int) -> float:
    return -float(logits.log_softmax(0)[label])


def test_sums_are_those_of_the_labelled_cells():
    objective = Objective(TAXONOMY, Spec("loss", "cross_entropy"))
    assert objective.pairs == (("k", "a"), ("k", "b"), ("m", "c"))
    sums = objective.sums(OUTPUTS, LABELS)
    parts = [entropy(K[0, :2], 1), entropy(K[2, :2], 0), entropy(K[2, 2:], 2), entropy(M[1], 1)]
    assert float(sums.loss) == pytest.approx(sum(parts), rel=1e-6)
    assert float(sums.labels) == 4
    assert sums.pair_loss.tolist() == pytest.approx([parts[0] + parts[1], parts[2], parts[3]], rel=1e-6)
    assert sums.pair_labels.tolist() == [2, 1, 1]
    assert not sums.pair_loss.requires_grad
    mean = objective([("k", K, LABELS[[0, 2, 4]]), ("m", M, LABELS[[1, 3]][:, :1])])
    assert float(sums.loss / sums.labels) == pytest.approx(float(mean), rel=1e-6)


def test_sums_of_parts_add_up_to_those_of_the_whole():
    objective = Objective(TAXONOMY, Spec("loss", "focal"))
    whole = objective.sums(OUTPUTS, LABELS)
    first = objective.sums([("k", torch.tensor([0, 1]), K[:2])], LABELS[[0, 2]])
    second = objective.sums(
        [("k", torch.tensor([1]), K[2:]), ("m", torch.tensor([0, 2]), M)], LABELS[[1, 4, 3]]
    )
    assert float(first.loss + second.loss) == pytest.approx(float(whole.loss), rel=1e-6)
    assert (first.pair_labels + second.pair_labels).tolist() == whole.pair_labels.tolist()


def test_a_batch_without_labels_or_heads_can_be_stepped_on():
    objective = Objective(TAXONOMY, Spec("loss", "cross_entropy"))
    given = K.clone().requires_grad_()
    nothing = objective.sums([("k", torch.arange(3), given)], torch.full((3, 2), -1))
    nothing.loss.backward()
    assert nothing.loss.item() == nothing.labels.item() == 0
    assert given.grad is not None
    assert bool((given.grad == 0).all())
    empty = objective.sums([], torch.full((3, 2), -1))
    empty.loss.backward()
    assert empty.loss.item() == empty.labels.item() == 0


def test_a_mixed_picture_pays_for_both_labels_each_masked_by_itself():
    objective = Objective(TAXONOMY, Spec("loss", "cross_entropy"))
    mixed = Mixed(torch.tensor([4, 1, 2, 3, 4]), torch.tensor([0.75, 1.0, 1.0, 1.0, 1.0]))
    sums = objective.sums(OUTPUTS, LABELS, mixed=mixed)
    alone = objective.sums(OUTPUTS, LABELS)
    # Row 0 is 3/4 itself (a = q) and 1/4 row 4 (a = p, b = t); its own b is missing.
    own = 0.75 * entropy(K[0, :2], 1) + 0.25 * entropy(K[0, :2], 0)
    more = own - entropy(K[0, :2], 1) + 0.25 * entropy(K[0, 2:], 2)
    assert float(sums.loss) == pytest.approx(float(alone.loss) + more, rel=1e-6)
    assert float(sums.labels) == pytest.approx(4.25)
    assert sums.pair_labels.tolist() == pytest.approx([2, 1.25, 1])
    itself = Mixed(torch.arange(5), torch.full((5,), 0.3))
    assert float(objective.sums(OUTPUTS, LABELS, mixed=itself).loss) == pytest.approx(
        float(alone.loss), rel=1e-6
    )


def test_logit_adjustment_shifts_by_the_prior_in_training_only():
    counts = {"k": np.array([30, 10, 6, 4, 0]), "m": np.array([4, 4]), "empty": np.zeros(0, np.int64)}
    objective = Objective(
        TAXONOMY, Spec("loss", "cross_entropy"), counts=counts, power=0, logit_adjustment=1.5
    )
    got = objective.sums(OUTPUTS, LABELS)
    adjusted = [
        entropy(K[0, :2] + 1.5 * torch.tensor([30 / 40, 10 / 40]).log(), 1),
        entropy(M[1] + 1.5 * torch.tensor([0.5, 0.5]).log(), 1),
    ]
    assert float(got.pair_loss[2]) == pytest.approx(adjusted[1], rel=1e-6)
    one = objective.sums([("k", torch.tensor([0]), K[:1])], LABELS[:1])
    assert float(one.loss) == pytest.approx(adjusted[0], rel=1e-6)
    rare = objective.sums([("k", torch.tensor([0]), K[:1])], torch.tensor([[-1, 0]]))
    assert math.isfinite(float(rare.loss)), "a value without labels is held back, not ruled out"
    objective.eval()
    assert float(objective.sums(OUTPUTS, LABELS).pair_loss[2]) == pytest.approx(entropy(M[1], 1), rel=1e-6)
    with pytest.raises(UsageError, match="logit_adjustment needs the labels"):
        Objective(TAXONOMY, Spec("loss", "cross_entropy"), logit_adjustment=1.0)


def test_logit_adjustment_of_one_is_the_balanced_softmax():
    prior = log_prior([30, 10, 6, 4, 0], TAXONOMY.slices("k"))
    assert np.exp(prior).tolist() == pytest.approx([0.75, 0.25, 6 / 11, 4 / 11, 1 / 11])


def test_alpha_weighs_values_and_leaves_probabilities_alone():
    alpha = {"a": {"p": 3.0}, "k/b": {"t": 0.5}}
    plain = Objective(TAXONOMY, Spec("loss", "focal"))
    weighed = Objective(TAXONOMY, REGISTRIES["loss"].spec("focal", alpha=alpha))
    for labels, factor in ([[0, -1]], 3.0), ([[1, -1]], 1.0), ([[-1, 2]], 0.5), ([[-1, 0]], 1.0):
        given = [("k", torch.tensor([0]), K[:1])]
        before, after = (o.sums(given, torch.tensor(labels)).loss for o in (plain, weighed))
        assert float(after) == pytest.approx(factor * float(before), rel=1e-6)
    for wrong, message in (
        ({"z": {"p": 1.0}}, "no category has the attribute 'z'"),
        ({"a": {"z": 1.0}}, "'a' has no value 'z'"),
        ({"a": {"p": 0.0}}, "the weight of 'a' = 'p' is above 0"),
    ):
        with pytest.raises(UsageError, match=message):
            Objective(TAXONOMY, REGISTRIES["loss"].spec("focal", alpha=wrong))
    with pytest.raises(UsageError, match="an Objective applies it"):
        focal(K, torch.zeros(3, dtype=torch.long), alpha=alpha)


def packed(*cells: list[float] | None) -> torch.Tensor:
    """Teacher's rows: a table of k's five packed probabilities; NaN where it has nothing."""
    return torch.tensor([[math.nan] * 5 if cell is None else cell for cell in cells])


def divergence(logits: torch.Tensor, probs: list[float], temperature: float) -> float:
    p = (torch.tensor(probs).log() / temperature).softmax(0)
    q = (logits / temperature).log_softmax(0)
    return float((p * (p.log() - q)).sum()) * temperature**2


def test_a_teacher_teaches_where_it_has_something_to_say():
    objective = Objective(TAXONOMY, Spec("loss", "cross_entropy"))
    given = [("k", torch.tensor([0, 1, 2]), K)]
    labels = torch.tensor([[1, -1], [0, -1], [-1, -1]])
    probs = packed([0.9, 0.1, 0.2, 0.3, 0.5], None, [0.0, 0.0, 0.6, 0.3, 0.1])
    sums = objective.sums(given, labels, teacher=Teacher(probs, temperature=3.0, weight=0.25))
    both = 0.75 * entropy(K[0, :2], 1) + 0.25 * divergence(K[0, :2], [0.9, 0.1], 3.0)
    only = [
        0.25 * divergence(K[0, 2:], [0.2, 0.3, 0.5], 3.0),
        0.25 * divergence(K[2, 2:], [0.6, 0.3, 0.1], 3.0),
    ]
    assert sums.pair_loss.tolist() == pytest.approx([both + entropy(K[1, :2], 0), sum(only), 0], rel=1e-5)
    assert sums.pair_labels.tolist() == [2, 0.5, 0]
    none = objective.sums(given, labels, teacher=Teacher(packed(None, None, None)))
    assert float(none.loss) == pytest.approx(float(objective.sums(given, labels).loss), rel=1e-6)


def test_a_student_that_agrees_with_its_teacher_pays_nothing():
    objective = Objective(TAXONOMY, Spec("loss", "cross_entropy"))
    given = K.clone().requires_grad_()
    probs = torch.cat([K[:, :2].softmax(1), K[:, 2:].softmax(1)], dim=1)
    sums = objective.sums(
        [("k", torch.arange(3), given)], torch.full((3, 2), -1), teacher=Teacher(probs, 1.0, 1.0)
    )
    sums.loss.backward()
    assert sums.loss.item() == pytest.approx(0, abs=1e-6)
    assert float(sums.labels) == 6
    assert given.grad is not None
    assert float(given.grad.abs().max()) < 1e-6
    off = objective.sums(
        [("k", torch.arange(3), given)], torch.full((3, 2), -1), teacher=Teacher(probs.flip(0), 1.0, 1.0)
    )
    off.loss.backward()
    assert float(given.grad.abs().max()) > 1e-3


def test_a_teacher_of_sure_answers_gives_a_finite_gradient():
    objective = Objective(TAXONOMY, Spec("loss", "cross_entropy"))
    given = (K * 50).requires_grad_()
    teacher = Teacher(packed([1, 0, 0, 0, 1], [0, 1, 1, 0, 0], [1, 0, 0, 1, 0]), 2.0, 0.5)
    objective.sums([("k", torch.arange(3), given)], LABELS[:3], teacher=teacher).loss.backward()
    assert given.grad is not None
    assert bool(torch.isfinite(given.grad).all())


def test_a_mixed_picture_is_taught_the_mixture():
    objective = Objective(TAXONOMY, Spec("loss", "cross_entropy"))
    labels, share = torch.full((3, 2), -1), torch.tensor([0.6, 1.0, 0.6])
    mixed = Mixed(torch.tensor([1, 1, 1]), share)
    probs = packed([0.9, 0.1, 0, 0, 0], [0.3, 0.7, 0.2, 0.3, 0.5], None)
    sums = objective.sums([("k", torch.arange(3), K)], labels, mixed=mixed, teacher=Teacher(probs, 1.0, 1.0))
    blended = divergence(K[0, :2], [0.6 * 0.9 + 0.4 * 0.3, 0.6 * 0.1 + 0.4 * 0.7], 1.0)
    itself = divergence(K[1, :2], [0.3, 0.7], 1.0)
    assert sums.pair_loss.tolist()[:2] == pytest.approx(
        [blended + itself, divergence(K[1, 2:], [0.2, 0.3, 0.5], 1.0)], rel=1e-5
    )
    assert sums.pair_labels.tolist() == [2, 1, 0]


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"weight": 1.5}])
def test_a_teacher_without_sense_is_refused(wrong: dict[str, float]):
    with pytest.raises(UsageError, match="a teacher's"):
        Teacher(K, **wrong)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_is_float32_whatever_the_logits_are(dtype: torch.dtype):
    objective = Objective(TAXONOMY, Spec("loss", "cross_entropy", (("label_smoothing", 0.1),)))
    low = [(name, rows, logits.to(dtype)) for name, rows, logits in OUTPUTS]
    same = [(name, rows, logits.float()) for name, rows, logits in low]
    teacher = Teacher(torch.cat([K.softmax(1), K.softmax(1)])[:5], 2.0, 0.5)
    expected = objective.sums(same, LABELS, teacher=teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = objective.sums(low, LABELS, teacher=teacher)
        assert objective([("k", low[0][2], LABELS[[0, 2, 4]])]).dtype == torch.float32
    assert got.loss.dtype == torch.float32
    assert float(got.loss) == float(expected.loss)


def test_poly1_and_generalized_cross_entropy_by_hand():
    logits = torch.log(torch.tensor([[0.25, 0.75], [0.9, 0.1]]))
    poly = REGISTRIES["loss"].get("poly1")(logits, torch.tensor([0, 0]), epsilon=2.0)
    assert poly.tolist() == pytest.approx([math.log(4) + 2 * 0.75, -math.log(0.9) + 2 * 0.1], rel=1e-5)
    mild = REGISTRIES["loss"].get("generalized_cross_entropy")(logits, torch.tensor([0, 0]), q=0.5)
    assert mild.tolist() == pytest.approx([(1 - 0.5) / 0.5, (1 - 0.9**0.5) / 0.5], rel=1e-5)


def test_an_objective_moves_with_its_buffers_and_is_not_saved():
    counts = {"k": np.array([30, 10, 6, 4, 0]), "m": np.array([4, 1]), "empty": np.zeros(0, np.int64)}
    objective = Objective(TAXONOMY, Spec("loss", "cross_entropy"), counts=counts, logit_adjustment=1.0)
    assert not objective.state_dict()
    moved = objective.to("meta")
    assert {buffer.device.type for buffer in moved.buffers()} == {"meta"}
    assert len(list(moved.buffers())) == 2 * 4


def test_a_category_costs_what_its_own_attributes_cost():
    large = Taxonomy({"k": TAXONOMY.choices("k"), "huge": (Choice("v", tuple(map(str, range(3000)))),)})
    objective = Objective(large, Spec("loss", "cross_entropy"))
    part = objective.of["0"]
    assert sum(buffer.numel() for buffer in part.buffers()) == 2 * 2 * 3
    sums = objective.sums(OUTPUTS[:1], LABELS)
    assert sums.pair_labels.tolist() == [2, 1, 0]


@pytest.mark.parametrize("name", REGISTRIES["loss"].names())
def test_an_attribute_of_one_value_is_known_and_harms_nothing(name: str):
    single = Taxonomy({"k": (Choice("only", ("p",)), Choice("b", ("r", "s", "t")))})
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    sums = Objective(single, Spec("loss", name)).sums(
        [("k", torch.arange(3), logits)], torch.tensor([[0, 1], [0, -1], [-1, 2]])
    )
    sums.loss.backward()
    assert math.isfinite(sums.loss.item())
    assert float(sums.pair_loss[0]) == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())
    assert bool((logits.grad[:, 0] == 0).all())
