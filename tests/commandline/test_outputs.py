"""What outputs mean, as the operator writes it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import outputs
from agent.errors import BadInput
from compression.job import OutputSpec


def test_outputs_are_read_with_their_numbers() -> None:
    read = outputs.read(["a:0=logits:-1", "x/y=score:0.5", "s=steps:0", "t=tensor", "m=mask:"])
    assert [(o.name, o.kind, o.axis, o.blank, o.threshold) for o in read] == [
        ("a:0", "logits", -1, None, None),
        ("x/y", "score", None, None, 0.5),
        ("s", "steps", None, 0, None),
        ("t", "tensor", None, None, None),
        ("m", "mask", None, None, None),
    ]
    assert not any(o.guessed for o in read)


def test_detections_say_what_they_hold() -> None:
    boxes, rows = outputs.read([
        "boxes=detections:0.4,role=boxes,box_format=cxcywh,iou_threshold=0.6",
        "a=b=detections,columns=box+objectness+classes,axis=1",
    ])  # fmt: skip
    assert boxes == OutputSpec(
        name="boxes", kind="detections", threshold=0.4, role="boxes", box_format="cxcywh",
        iou_threshold=0.6,
    )  # fmt: skip
    assert (rows.name, rows.axis, rows.columns) == ("a=b", 1, ("box", "objectness", "classes"))


def test_names_of_classes_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\na\nb\n \n")
    (read,) = outputs.read([f"y=steps:0,classes={tmp_path / 'names.txt'}"])
    assert read.classes == ("", "a", "b", " ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("y", "write NAME=KIND"),
        ("=logits", "write NAME=KIND"),
        ("y=logit", "kinds: logits, steps"),
        ("y=tensor:3", "kind 'tensor' takes no number"),
        ("y=logits:many", "axis: input should be a valid integer"),
        ("y=logits:1,2", "axis is given twice"),
        ("y=logits,blanc=1", "unknown field 'blanc'; known: axis, blank"),
        ("y=logits,role=boxes", "kind 'logits' has no role"),
        ("y=detections,role=box", "role: input should be"),
        ("y=detections,columns=box+colour", "columns.1: input should be"),
        ("y=detections,iou_threshold=2", "iou_threshold: input should be less than"),
        ("y=steps,classes=/nowhere", "cannot read /nowhere"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        outputs.read([text])
    assert str(caught.value).startswith(f"cannot read output {text!r}: ")
    assert says in str(caught.value)


def test_an_output_is_described_as_it_is_given() -> None:
    text = "y=detections,axis=1,blank=0,threshold=0.4,role=rows,columns=box+classes,box_format=xywh"
    assert outputs.describe(outputs.read([text])[0]) == text
    guessed = OutputSpec(name="y", kind="logits", axis=-1, guessed=True)
    assert outputs.describe(guessed) == "y=logits,axis=-1 (guessed; name it with --outputs)"


@given(
    st.builds(
        OutputSpec,
        name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        kind=st.sampled_from(["steps", "detections"]),
        axis=st.none() | st.integers(-4, 4),
        blank=st.none() | st.integers(0, 99),
    )
)
def test_what_is_described_can_be_read_again(spec: OutputSpec) -> None:
    assert outputs.read([outputs.describe(spec)]) == (spec,)
