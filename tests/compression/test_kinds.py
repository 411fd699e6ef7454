"""What outputs seem to mean: from names and shapes, and from the ends of real graphs."""

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.job import InputSpec, OutputSpec
from compression.meaning import heads, kinds, tails
from compression.meaning.seen import Seen
from deploy import onnx_facts

TRAINED = Path(__file__).parents[1] / "fixtures" / "trained"
IMAGE = (64, 64)


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (Seen("y", (-1, 10), ("Softmax",)), "logits"),
        (Seen("y", (-1, 10), ("Div", "Exp", "ReduceSum", "Sub")), "logits"),
        (Seen("fc", (-1, 10), ("Gemm",)), "logits"),
        (Seen("label", (-1,), ("ArgMax",), integers=True), "logits"),
        (Seen("softmax_0", (-1, -1, 97), ("Softmax",)), "steps"),
        (Seen("y", (-1, -1, 97), ("LogSoftmax",), axis=-1), "steps"),
        (Seen("prob", (-1, 1), ("Sigmoid",)), "score"),
        (Seen("y", (-1,), ("Sigmoid",)), "score"),
        (Seen("anomaly", (-1,), ("ReduceMean",)), "score"),
        (Seen("hn", (2, 1, 64), ("LSTM",)), "state"),
        (Seen("stateN", (2, -1, 128), ("Concat",)), "state"),
        (Seen("y2", (2, 1, 64), ("LSTM",), like=("h0",)), "state"),
        (Seen("y", (-1, 1, 512), ("Conv",), like=("signal",)), "tensor"),
        (Seen("boxes", (-1, 100, 4), ("Concat",)), "detections"),
        (Seen("y", (-1, 3), ("GatherND", "Transpose", "NonMaxSuppression")), "detections"),
        (Seen("y", (-1, 100, 6), ("Gather", "Concat", "TopK")), "detections"),
        (Seen("y", (-1, 5), ("TopK", "Softmax")), "tensor"),
        (Seen("output0", (1, 84, 8400), ("Concat",), image=(640, 640)), "detections"),
        (Seen("output", (1, 25200, 85), ("Concat",), image=(640, 640)), "detections"),
        (Seen("sentence_embedding", (-1, 384), ("Div",)), "embedding"),
        (Seen("y", (-1, 64), ("Div", "Gemm", "Clip", "ReduceL2")), "embedding"),
        (Seen("683", (1, 512), ("BatchNormalization",)), "embedding"),
        (Seen("last_hidden_state", (-1, -1, 384), ("Add",)), "embedding"),
        (Seen("out", (-1, 1, 64, 64), ("Sigmoid",)), "mask"),
        (Seen("out", (-1, 21, 64, 64), ("Resize",), image=IMAGE), "mask"),
        (Seen("out", (-1, 64, 64), ("ArgMax",), integers=True, image=IMAGE), "mask"),
        (Seen("out", (-1, 3, 64, 64), ("Conv",), image=IMAGE), "tensor"),
        (Seen("landmarks", (-1, 136), ("Gemm",)), "tensor"),
        (Seen("y", ()), "tensor"),
    ],
)  # fmt: skip
def test_guesses(seen: Seen, kind: str) -> None:
    found = kinds.guess(seen)
    assert (found.kind, found.name, found.guessed) == (kind, seen.name, True)


def test_the_class_axis_is_where_the_softmax_is() -> None:
    assert kinds.guess(Seen("y", (-1, 97, -1), ("Softmax",), axis=1)).axis == 1
    assert kinds.guess(Seen("y", (-1, 97), ("Softmax",), axis=-1)).axis == -1
    assert kinds.guess(Seen("y", (-1, 21, 8, 8), ("Softmax",), axis=1)).axis == 1
    assert kinds.guess(Seen("m", (-1, 8, 8), ("ArgMax",), integers=True, image=IMAGE)).axis is None


def test_only_probabilities_have_a_threshold() -> None:
    assert kinds.guess(Seen("y", (-1, 1), ("Sigmoid",))).threshold == 0.5
    assert kinds.guess(Seen("score", (-1, 1), ("Gemm",))).threshold is None


def test_what_stands_beside_boxes_is_theirs() -> None:
    seen = [
        Seen("boxes", (1, 3000, 4)),
        Seen("scores", (1, 3000, 2)),
        Seen("labels", (1, 3000), integers=True),
        Seen("num_valid", (1,), integers=True),
        Seen("landmarks", (1, 3000, 10)),
    ]
    found = kinds.guess_all(seen)
    assert [spec.role for spec in found] == ["boxes", "scores", "classes", "count", None]
    assert [spec.kind for spec in found] == ["detections"] * 4 + ["tensor"]
    assert [spec.kind for spec in kinds.guess_all(seen[1:3])] == ["score", "logits"]


def test_raw_heads_name_their_columns() -> None:
    found = kinds.guess(Seen("output0", (1, 84, 8400), image=(640, 640)))
    assert (found.role, found.axis, found.columns) == ("rows", 1, ("box", "classes"))
    found = kinds.guess(Seen("output", (1, 25200, 85), image=(640, 640)))
    assert (found.axis, found.columns) == (None, ("box", "objectness", "classes"))
    assert found.box_format == "cxcywh"
    assert heads.raw_columns(Seen("output", (1, 25200, 85))) == ()


TRAINED_KINDS = {
    "autoencoder": {"reconstruction": "tensor", "anomaly": "score"},
    "detector": dict.fromkeys(("boxes", "scores", "classes"), "detections"),
    "keywords": {"logits": "logits"},
    "sentences": {"embedding": "embedding"},
}


@pytest.mark.parametrize("nameless", [False, True])
@pytest.mark.parametrize("name", TRAINED_KINDS)
def test_the_ends_of_trained_models_tell_their_meaning(
    name: str, nameless: bool, tmp_path: Path
) -> None:
    model = onnx.load(TRAINED / f"{name}.onnx")
    if nameless:
        _forget_names(model)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    found = [spec.kind for spec in onnx_facts.read(path).outputs]
    wanted = list(TRAINED_KINDS[name].values())
    if nameless and name == "autoencoder":
        wanted = ["tensor", "tensor"]  # a mean of squares may be anything
    assert found == wanted


def _forget_names(model: onnx.ModelProto) -> None:
    for at, output in enumerate(model.graph.output):
        for node in model.graph.node:
            node.output[:] = [f"o{at}" if each == output.name else each for each in node.output]
            node.input[:] = [f"o{at}" if each == output.name else each for each in node.input]
        output.name = f"o{at}"


def test_a_graph_without_end_is_looked_at_only_so_far() -> None:
    nodes = [onnx.helper.make_node("Relu", [f"t{at}"], [f"t{at + 1}"]) for at in range(500)]
    graph = onnx.helper.make_graph(nodes, "g", [], [])
    nodes[0].input[0] = "t500"  # and around
    found = tails.read(
        graph, inputs=(), outputs=[InputSpec(name="t500", dtype="float32", shape=())]
    )
    assert [spec.kind for spec in found] == ["tensor"]


SEEN = st.builds(
    Seen,
    st.sampled_from(["boxes", "scores", "h", "y", "mask", "embedding", "logits", ""]),
    st.lists(st.sampled_from([-1, 0, 1, 2, 4, 6, 84, 8400]), max_size=5).map(tuple),
    st.lists(
        st.sampled_from(["Softmax", "Sigmoid", "ArgMax", "Gemm", "TopK", "Div", "ReduceL2"]),
        max_size=3,
    ).map(tuple),
    axis=st.none() | st.integers(-1, 3),
    integers=st.booleans(),
    image=st.none() | st.just(IMAGE),
)


@given(seen=SEEN)
def test_any_output_gets_a_meaning_with_an_axis_that_it_has(seen: Seen) -> None:
    found = kinds.guess(seen)
    assert isinstance(found, OutputSpec)
    assert found.axis is None or not seen.shape or found.axis < len(seen.shape)
