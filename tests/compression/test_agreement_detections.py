"""Detections: boxes matched one to one, whatever their order, number and layout."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression import agreement
from compression.alike import matching, rows
from compression.errors import BadInputs
from compression.findings import Agreement
from compression.job import OutputSpec

SEPARATE = [
    OutputSpec(name=name, kind="detections", role=name) for name in ("boxes", "scores", "classes")
]
A, B, C = (0, 0, 10, 10), (20, 20, 40, 40), (50, 0, 60, 30)


def seen(*found: tuple[tuple[float, ...], float, int]) -> dict[str, np.ndarray]:
    """Outputs of a detector: (box, score, class) each."""
    return {
        "boxes": np.array([one[0] for one in found], np.float32).reshape(-1, 4),
        "scores": np.array([one[1] for one in found], np.float32),
        "classes": np.array([one[2] for one in found], np.int64),
    }


def judged(*pairs, outputs=SEPARATE) -> Agreement:
    judge = agreement.Judge(outputs)
    for a, b in pairs:
        judge.add(a, b)
    return judge.agreement("held-out")


def test_f1_counts_hits_of_both_sides_by_hand() -> None:
    # Of 3 and 2 detections, one pair overlaps and is of one class: 2 * 1 / 5.
    ours = seen((A, 0.9, 1), (B, 0.8, 2), (C, 0.7, 1))
    theirs = seen(((1, 0, 10, 10), 0.9, 1), (B, 0.8, 3))
    found = judged((ours, theirs))
    assert found.value == pytest.approx(0.4)
    assert found.also == {"images": 0.0, "precision": 0.5, "recall": pytest.approx(1 / 3)}
    assert (found.kind, found.output) == ("detections", "boxes")


@pytest.mark.parametrize(
    ("other", "iou"),
    [((0, 0, 10, 10), 1.0), ((0, 0, 10, 5), 0.5), ((5, 0, 15, 10), 1 / 3), ((10, 0, 20, 10), 0.0)],
)
def test_overlap_is_intersection_over_union(other, iou: float) -> None:
    one, two = (np.array([box], np.float64) for box in (A, other))
    assert matching.iou(one, two)[0, 0] == pytest.approx(iou)
    for threshold in (0.3, 0.5, 0.9):
        outputs = [spec.model_copy(update={"iou_threshold": threshold}) for spec in SEPARATE]
        found = judged((seen((A, 0.9, 1)), seen((other, 0.9, 1))), outputs=outputs)
        assert found.value == float(iou >= threshold)


def test_each_box_is_hit_once() -> None:
    twice = seen((A, 0.9, 1), (A, 0.8, 1))
    assert judged((seen((A, 0.9, 1)), twice)).value == pytest.approx(2 / 3)


def test_no_hit_is_lost_to_a_greedy_choice() -> None:
    # The middle one overlaps both of theirs, the left one only the left: greedily by overlap
    # the middle would take the left, and one hit would be lost.
    ours = seen(((0, 0, 10, 10), 0.9, 1), ((-3, 0, 7, 10), 0.9, 1))
    theirs = seen(((1, 0, 11, 10), 0.9, 1), ((4, 0, 14, 10), 0.9, 1))
    outputs = [spec.model_copy(update={"iou_threshold": 0.4}) for spec in SEPARATE]
    assert judged((ours, theirs), outputs=outputs).value == 1.0


def test_nothing_found_by_both_agrees_and_adds_nothing() -> None:
    nothing, one = seen(), seen((A, 0.9, 1))
    assert judged((nothing, nothing)).value == 1.0
    assert judged((nothing, nothing)).low < 0.5  # one sample is no proof
    assert judged((nothing, one)).value == 0.0
    assert judged((one, nothing)).value == 0.0
    # However many empty frames there are, what is missed is missed.
    found = judged(*[(nothing, nothing)] * 95, *[(one, nothing)] * 5)
    assert (found.value, found.also["images"], found.samples) == (0.0, 0.95, 100)


def test_what_is_below_the_threshold_is_not_there() -> None:
    sure, both = seen((A, 0.9, 1)), seen((A, 0.9, 1), (B, 0.3, 1))
    assert judged((sure, both)).value == pytest.approx(2 / 3)  # 0.25 where none is given
    outputs = [spec.model_copy(update={"threshold": 0.4}) for spec in SEPARATE]
    assert judged((sure, both), outputs=outputs).value == 1.0


def test_padding_is_not_there() -> None:
    plain = seen((A, 0.9, 1))
    for padding in (((-1, -1, -1, -1), 0.9, 1), (B, -1, 1), (B, 0.9, -1)):
        assert judged((plain, seen((A, 0.9, 1), padding))).value == 1.0


def test_what_lies_beyond_the_count_is_not_there() -> None:
    outputs = [*SEPARATE, OutputSpec(name="num", kind="detections", role="count")]
    stale = seen((A, 0.9, 1), (B, 0.9, 1)) | {"num": np.array([1])}
    fresh = seen((A, 0.9, 1), (C, 0.9, 2)) | {"num": np.array([[1]])}
    assert judged((stale, fresh), outputs=outputs).value == 1.0


def test_nan_finds_nothing_and_that_is_wrong() -> None:
    good = seen((A, 0.9, 1), (B, 0.9, 1))
    broken = seen((A, math.nan, 1), (B, 0.9, 1))
    assert judged((good, broken)).value == 0.0
    assert judged((broken, broken)).value == 0.0
    nothing = seen()
    assert judged((nothing, seen((A, math.nan, 1)))).value == 0.0
    # It weighs as much as what it should have found.
    assert judged((good, good), (good, broken)).value == pytest.approx(4 / 6)


def table(*columns: str) -> OutputSpec:
    return OutputSpec(name="y", kind="detections", columns=columns)


@pytest.mark.parametrize(
    ("spec", "one"),
    [
        (table("box", "score", "class"), (*B, 0.8, 3)),
        (table("class", "score", "box"), (3, 0.8, *B)),
        (table("image", "box", "class", "score"), (0, *B, 3, 0.8)),
        (table("-", "class", "score", "box", "-"), (9, 3, 0.8, *B, 9)),
        (table("box", "objectness", "classes"), (*B, 0.8, 0, 0, 0.1, 1.0)),
        (table("box", "classes"), (*B, 0, 0.1, 0.2, 0.8)),
        (OutputSpec(name="y", kind="detections"), (*B, 0.8, 3)),
    ],
)  # fmt: skip
def test_rows_are_read_by_their_columns(spec: OutputSpec, one: tuple[float, ...]) -> None:
    array = np.array([[one]], np.float32)
    found = rows.read({"rows": spec}, {"y": array})
    assert found.boxes.tolist() == [list(B)]
    assert (found.classes.tolist(), found.scores.round(6).tolist()) == ([3], [0.8])
    # [M, columns], and [1, 1, M, columns] as of SSD
    for shape in ((1, -1), (1, 1, 1, -1)):
        again = rows.read({"rows": spec}, {"y": array.reshape(shape)})
        assert again.boxes.tolist() == found.boxes.tolist()


def test_columns_may_come_first() -> None:
    spec = OutputSpec(name="y", kind="detections", columns=("box", "classes"), axis=1)
    head = np.zeros((1, 6, 50), np.float32)
    head[0, :, 7] = (*B, 0.1, 0.9)
    found = rows.read({"rows": spec}, {"y": head})
    assert (found.boxes.tolist(), found.classes.tolist()) == ([list(B)], [1])


@pytest.mark.parametrize(
    ("box_format", "box"),
    [("xyxy", B), ("yxyx", (20, 20, 40, 40)), ("xywh", (20, 20, 20, 20)),
     ("cxcywh", (30, 30, 20, 20))],
)  # fmt: skip
def test_boxes_come_in_four_formats(box_format: str, box: tuple[float, ...]) -> None:
    spec = OutputSpec(name="boxes", kind="detections", box_format=box_format)
    found = rows.read({"boxes": spec}, {"boxes": np.array([box], np.float32)})
    assert found.boxes.tolist() == [list(B)]


def test_rows_and_columns_of_an_image_are_not_mixed_up() -> None:
    spec = OutputSpec(name="boxes", kind="detections", box_format="yxyx")
    found = rows.read({"boxes": spec}, {"boxes": np.array([[1, 2, 3, 4]], np.float32)})
    assert found.boxes.tolist() == [[2, 1, 4, 3]]


@pytest.mark.parametrize("turned", [False, True])
def test_scores_may_be_per_class_with_one_class_for_nothing(turned: bool) -> None:
    outputs = [
        OutputSpec(name="boxes", kind="detections"),
        OutputSpec(name="scores", kind="detections", blank=0),
    ]
    scores = np.array([[[0.9, 0.1, 0], [0.1, 0.2, 0.7], [0, 0.6, 0.4]]], np.float32)
    answer = {
        "boxes": np.array([[A, B, C]], np.float32),
        "scores": scores.transpose(0, 2, 1) if turned else scores,
    }
    # Three boxes, three classes: the order is [boxes, classes] where it cannot be told.
    if turned:
        answer["boxes"] = np.concatenate([answer["boxes"], [[A]]], axis=1)
        answer["scores"] = np.concatenate([answer["scores"], [[[0.9], [0], [0]]]], axis=2)
    found = rows.read({"boxes": outputs[0], "scores": outputs[1]}, answer)
    assert found.classes.tolist() == [2, 1]
    assert found.boxes.tolist() == [list(B), list(C)]


def test_images_of_a_batch_are_matched_apart() -> None:
    one = {"boxes": np.array([[A], [B]], np.float32), "scores": np.ones((2, 1), np.float32)}
    other = {"boxes": np.array([[B], [A]], np.float32), "scores": np.ones((2, 1), np.float32)}
    outputs = SEPARATE[:2]
    assert judged((one, one), outputs=outputs).value == 1.0
    assert judged((one, other), outputs=outputs).value == 0.0


def test_roles_are_found_by_names_and_shapes() -> None:
    nameless = [OutputSpec(name=name, kind="detections") for name in ("a", "b", "c")]
    answer = dict(zip("abc", seen((A, 0.9, 1)).values(), strict=True))
    other = dict(zip("abc", seen((A, 0.9, 2)).values(), strict=True))
    assert judged((answer, answer), outputs=nameless).value == 1.0
    assert judged((answer, other), outputs=nameless).value == 0.0


def test_outputs_in_which_no_boxes_are_seen_are_plain_tensors() -> None:
    found = judged(
        ({"y": np.array([10.0])}, {"y": np.array([9.0])}),
        outputs=[OutputSpec(name="y", kind="detections")],
    )
    assert (found.kind, found.value) == ("tensor", pytest.approx(100 / 101))


@pytest.mark.parametrize(
    ("outputs", "answer", "message"),
    [
        ([table("box", "score", "class")], {"y": np.zeros((1, 5))}, "box.score.class do not fit 5"),
        ([table("score", "class")], {"y": np.zeros((1, 6))}, "do not fit 6"),
        ([table("box", "classes")], {"y": np.zeros((1, 4))}, "do not fit 4"),
        ([table("box", "score")], {"y": np.zeros(5)}, "rows of columns are needed"),
        (SEPARATE[1:], seen(), "no output has the role boxes or rows"),
        ([SEPARATE[0], SEPARATE[0].model_copy(update={"name": "scores"})], seen(), "both boxes"),
        (SEPARATE, seen((A, 1, 1)) | {"boxes": np.zeros((1, 5))}, "boxes need four numbers each"),
        (SEPARATE, seen((A, 1, 1)) | {"scores": np.zeros(3)}, "there are 1 boxes"),
        (SEPARATE, seen((A, 1, 1)) | {"classes": np.zeros(3)}, "there are 1 boxes"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_clear_line(outputs, answer, message: str) -> None:
    with pytest.raises(BadInputs, match=message) as caught:
        judged((answer, answer), outputs=outputs)
    assert str(caught.value).startswith("cannot ")


COORDINATE = st.integers(0, 6).map(float)
BOX = st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE)
FOUND = st.lists(st.tuples(BOX, st.sampled_from([0.1, 0.5, 0.9]), st.integers(-1, 2)), max_size=7)


@given(ours=FOUND, theirs=FOUND, data=st.data())
def test_the_order_of_rows_changes_nothing(ours, theirs, data) -> None:
    found = judged((seen(*ours), seen(*theirs)))
    shuffled = [data.draw(st.permutations(side)) for side in (ours, theirs)]
    assert judged((seen(*shuffled[0]), seen(*shuffled[1]))) == found
    assert judged((seen(*ours), seen(*shuffled[0]))).value == 1.0


@given(ours=FOUND, theirs=FOUND)
def test_hits_are_the_most_that_any_pairing_has(ours, theirs) -> None:
    roles = {spec.role: spec for spec in SEPARATE}
    a, b = rows.read(roles, seen(*ours)), rows.read(roles, seen(*theirs))
    near = matching.iou(a.boxes, b.boxes) >= 0.5
    near &= a.classes[:, None] == b.classes[None]
    few, many = (near, near.T)[len(a) > len(b)], max(len(a), len(b))
    best = (
        max(
            sum(bool(few[at, to]) for at, to in enumerate(order))
            for order in itertools.permutations(range(many), len(few))
        )
        if len(few) <= 4
        else None
    )
    hits = matching.hits(a, b, iou_threshold=0.5)
    assert hits == matching.hits(b, a, iou_threshold=0.5)
    assert best is None or hits == best


def test_the_surest_of_thousands_are_judged_whatever_their_order() -> None:
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 900, (5000, 2)).astype(np.float32)
    table = np.hstack([corner, corner + 20, np.round(rng.random((5000, 1)), 2), corner[:, :1] % 3])
    spec = OutputSpec(name="y", kind="detections")
    one = rows.read({"rows": spec}, {"y": table})
    other = rows.read({"rows": spec}, {"y": rng.permutation(table)})
    assert len(one) == rows.MOST
    assert one.scores.tolist() == other.scores.tolist()
    assert matching.hits(one, other, iou_threshold=0.5) == rows.MOST


def test_infinite_coordinates_overlap_with_nothing_but_themselves() -> None:
    wild = seen(((-math.inf, 0, math.inf, 10), 0.9, 1))
    assert judged((wild, wild)).value == 1.0
    assert judged((wild, seen((A, 0.9, 1)))).value == 0.0
