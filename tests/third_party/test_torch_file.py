"""Torch files of anybody's: read if they hold what they say, refused if they only say it."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spikedeblur.third_party.VRT import WeightsError, load_pretrained, load_torch_file


def rewritten(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """Change the pickle of a torch file."""
    with zipfile.ZipFile(path) as parts:
        content = {name: parts.read(name) for name in parts.namelist()}
    with zipfile.ZipFile(path, "w") as out:
        for name, part in content.items():
            out.writestr(name, change(part) if name.endswith("data.pkl") else part)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save({"a": torch.arange(4.0)}, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_tensors_and_plain_values_are_read(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    content = {
        "model": layer.state_dict(),
        "parameters": OrderedDict(layer.named_parameters()),
        "optimizer": optimizer.state_dict(),
        "view": torch.arange(12.0).view(3, 4)[:, 1:3],
        "plain": [1, 2.5, None, True, ("x", 2**70)],
    }
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pt"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        found = load_torch_file(path)
        assert found.keys() == content.keys()
        assert found["plain"] == content["plain"]
        assert torch.equal(found["view"], content["view"])
        assert torch.equal(found["model"]["weight"], layer.weight)
        assert found["optimizer"]["state"][0].keys() == optimizer.state_dict()["state"][0].keys()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


@pytest.mark.parametrize(
    "call", [b"c__builtin__\nbytearray\n", b"ctorch\nFloatTensor\n", b"ccollections\nCounter\n"]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_call_that_makes_something_of_a_size_is_refused(tmp_path, call, zipped) -> None:
    path = tmp_path / "w.pt"
    torch.save({"a": 1}, path, _use_new_zipfile_serialization=zipped)
    bomb = b"\x80\x02" + call + number(2 * 10**9) + b"\x85R."
    if zipped:
        rewritten(path, lambda _: bomb)
    else:
        whole = path.read_bytes()
        path.write_bytes(whole.replace(pickle.dumps({"a": 1}, 2), bomb))
        assert path.read_bytes() != whole
    with pytest.raises(pickle.UnpicklingError, match="it names"):
        load_torch_file(path)


def test_a_storage_or_tensor_larger_than_its_bytes_is_refused(file: Path) -> None:
    before = file.read_bytes()
    for old, new in (
        (b"K\x04tq", number(10**9) + b"tq"),  # numbers in the storage
        (b"K\x00K\x04\x85", b"K\x00" + number(10**9) + b"\x85"),  # and in the tensor
    ):
        file.write_bytes(before)
        rewritten(file, lambda pickled, old=old, new=new: pickled.replace(old, new))
        with pytest.raises((RuntimeError, ValueError)):
            load_torch_file(file)


def test_one_number_in_the_place_of_many_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"a": torch.zeros(1).expand(10**5, 10**5)}, path)
    with pytest.raises(ValueError, match="stand for more than 4 times"):
        load_torch_file(path)
    with pytest.raises(WeightsError, match=r"w\.pt: not a readable torch file"):
        load_pretrained(torch.nn.Linear(1, 1), path)


def test_lists_of_the_same_lists_and_of_themselves_are_refused(tmp_path: Path) -> None:
    tree: list[object] = ["x" * 20]
    for _ in range(30):
        tree = [tree] * 10
    path = tmp_path / "w.pt"
    torch.save({"a": tree}, path)
    with pytest.raises(ValueError, match="stand for more"):
        load_torch_file(path)
    tree.append(tree)
    torch.save({"a": tree}, path)
    with pytest.raises(ValueError, match="stand for more"):
        load_torch_file(path)
    deep = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    with pytest.raises(ValueError, match="nested too deeply"):
        load_torch_file(rewritten(path, lambda _: deep))


def test_a_directory_that_lies_before_the_file_is_refused(file: Path) -> None:
    content = bytearray(file.read_bytes())
    end = content.rindex(b"PK\6\6")
    struct.pack_into("<Q", content, end + 48, 2**40)  # where the directory begins
    file.write_bytes(content)
    with pytest.raises(ValueError, match="cut or damaged"):
        load_torch_file(file)


def test_parts_that_lie_upon_each_other_are_refused(file: Path) -> None:
    with zipfile.ZipFile(file, "a") as parts:
        data = next(info for info in parts.infolist() if info.filename.endswith("data/0"))
        for i in range(1000):
            copy = zipfile.ZipInfo(f"w/data/{i + 1}")
            copy.file_size, copy.compress_size, copy.CRC = 10**6, 10**6, data.CRC
            copy.header_offset = data.header_offset
            parts.filelist.append(copy)
        parts._didModify = True
    with pytest.raises(ValueError, match="larger than the file"):
        load_torch_file(file)
