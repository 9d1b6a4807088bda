"""Damaging files: as disks and networks do, as careless tools do, and as somebody would on purpose.

Every function takes a random generator, so that a case is known by its number.
"""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import yaml

Mutate = Callable[[bytes, random.Random], bytes]

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    -(10**18),
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "../../../../etc/passwd",
    "/etc/passwd",
    "a/../../b",
    "\u0000",
    "a\nb",
    "\ud800",
    "\u202ename",
    "-rf",
    "9" * 5000,
    "x" * 100_000,
    [],
    {},
    [[[[]]]],
    [10**9, 10**9, 10**9],
    [-1, 2, 3],
    {"a": {"b": 1}},
    "99999999x99999999,bottom-up",
    "999999x999999,bottom-up",
    "20x36",
    "!!python/object/apply:os.system ['true']",
    "${HOME}",
    "s3://nowhere/x",
    "file:///etc",
)
"""Values that a field of JSON or YAML might be given."""


def bytewise(content: bytes, rng: random.Random) -> bytes:
    """Damage that knows nothing of the format."""
    how = rng.randrange(9)
    size = len(content)
    at = rng.randrange(size + 1)
    if how == 0:
        return content[:at]
    if how == 1:
        return b""
    if how == 2 and size:
        flipped = bytearray(content)
        for _ in range(rng.choice((1, 1, 3, 40))):
            flipped[rng.randrange(size)] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if how == 3:
        return content[:at] + rng.randbytes(rng.choice((1, 7, 4096))) + content[at:]
    if how == 4:
        stop = min(size, at + rng.choice((1, 16, 512)))
        return content[:at] + content[stop:]
    if how == 5:
        stop = min(size, at + rng.choice((8, 4096)))
        return content[:at] + bytes(stop - at) + content[stop:]
    if how == 6:
        return rng.randbytes(min(size, 4096))
    if how == 7:
        return content + content[at:]
    return content + bytes(rng.choice((1, 511, 70_000)))


def spikes(content: bytes, rng: random.Random) -> bytes:
    """A `.dat`: mostly other sizes, some other formats of that name."""
    how = rng.randrange(6)
    if how == 0:
        return content[: rng.randrange(len(content))]
    if how == 1:
        return content * rng.randrange(2, 4) + content[: rng.randrange(200)]
    if how == 2:
        return b"% Date 2020-01-01 00:00:00\n% Version 2\n" + content
    if how == 3:
        return bytes(rng.choice((0, 1, 89, 90, 91, 90 * 8)))
    if how == 4:
        return bytes(rng.randrange(2) for _ in range(rng.choice((720, 7200, 7201))))
    return bytewise(content, rng)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(content: bytes, rng: random.Random) -> bytes:
    """A PNG: other headers with right checksums, bombs, other modes and formats."""
    from PIL import Image

    how = rng.randrange(10)
    if how == 0:  # any size that a header can claim, with the pixels of a small one
        sides = [rng.choice((1, 40, 72, 2**15, 2**20, 2**31 - 1, 0)) for _ in range(2)]
        header = struct.pack(
            ">2I5B", *sides, rng.choice((1, 2, 8, 16)), rng.choice((0, 2, 3, 6)), 0, 0, 0
        )
        return content[:8] + _chunk(b"IHDR", header) + content[33:]
    if how == 1:  # a bomb: 30,000 x 30,000 pixels that compress to nothing
        header = struct.pack(">2I5B", 30_000, 30_000, 1, 0, 0, 0, 0)
        pixels = zlib.compress(bytes(3751) * 2000)
        return (
            content[:8] + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
        )
    if how == 2:  # text that decompresses to much
        text = b"Comment\0\0" + zlib.compress(bytes(40_000_000), 9)
        return content[:33] + _chunk(b"zTXt", text) + content[33:]
    if how in (3, 4, 5):
        mode = rng.choice(("1", "L", "P", "LA", "RGBA", "I;16", "RGB"))
        with Image.open(io.BytesIO(content)) as image:
            converted = image.convert("L").convert(mode) if mode != "RGBA" else image.convert(mode)
            if mode == "RGBA" and rng.random() < 0.5:
                converted.putalpha(128)
            out = io.BytesIO()
            converted.save(out, "PNG")
        return out.getvalue()
    if how == 6:  # another format under the same name
        kind = rng.choice(("JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"))
        with Image.open(io.BytesIO(content)) as image:
            out = io.BytesIO()
            mode = "CMYK" if kind in ("JPEG", "TIFF") and rng.random() < 0.5 else "RGB"
            image.convert(mode).save(out, kind)
        return out.getvalue()
    if how == 7:  # turned by EXIF
        with Image.open(io.BytesIO(content)) as image:
            exif = image.getexif()
            exif[0x0112] = rng.randrange(2, 9)
            out = io.BytesIO()
            image.save(out, rng.choice(("PNG", "JPEG")), exif=exif)
        return out.getvalue()
    return bytewise(content, rng)


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(tree, dict):
        for key, value in tree.items():
            found += _places(value, (*path, key))
    elif isinstance(tree, list):
        for i, value in enumerate(tree[:50]):
            found += _places(value, (*path, i))
    return found


def _changed(tree: Any, rng: random.Random) -> Any:
    """Return a tree with one to three values changed, lost, doubled or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 3))):
        places = [place for place in _places(tree) if place]
        if not places:
            break
        *above, last = rng.choice(places)
        parent = tree
        for key in above:
            parent = parent[key]
        how = rng.randrange(8)
        if how == 0 and isinstance(parent, dict):
            del parent[last]
        elif how == 1 and isinstance(parent, dict):
            parent[rng.choice(("surprise", "x" * 300, "a.b", "../x", ""))] = parent.pop(last)
        elif how == 2 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        elif how == 3 and isinstance(parent[last], (int, float)):
            parent[last] = parent[last] * rng.choice((-1, 2, 1000, 10**9))
        else:
            parent[last] = copy.deepcopy(rng.choice(HOSTILE))
    return tree


def json_text(content: bytes, rng: random.Random) -> bytes:
    """JSON: mostly well-formed with one wrong value."""
    how = rng.randrange(10)
    if how == 0:
        return bytewise(content, rng)
    if how == 1:
        depth = rng.choice((50, 100_000))
        return b"[" * depth + b"]" * depth
    if how == 2:
        return rng.choice((b"null", b"1", b'"x"', b"[]", b"{}", b"\xef\xbb\xbf{}", b"{", b"NaN"))
    if how == 3:
        key = rng.choice(list(json.loads(content) or {"x": 1}))
        return b'{"' + key.encode() + b'": 1, ' + content.lstrip()[1:]
    return json.dumps(_changed(json.loads(content), rng)).encode("utf-8", "surrogatepass")


def json_lines(content: bytes, rng: random.Random) -> bytes:
    """Lines of JSON, the last of which is as of `json_text`."""
    *lines, last = content.splitlines()
    return b"\n".join([*lines, json_text(last, rng), b""])


def yaml_text(content: bytes, rng: random.Random) -> bytes:
    """YAML: mostly well-formed with one wrong value; bombs and object tags."""
    how = rng.randrange(12)
    if how == 0:
        return bytewise(content, rng)
    if how == 1:  # ten to the ninth strings from ten lines
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
        if rng.random() < 0.5:  # printing it would take 10 GB
            return "\n".join([*lines, "DATA: {ROOT: *a8}", "MODEL: *a8", ""]).encode()
        return "\n".join(lines).encode() + b"\n" + content
    if how == 2:
        tag = rng.choice(
            (
                "!!python/object/apply:os.system ['touch owned']",
                "!!python/name:os.system",
                "!!python/module:os",
                "!!python/tuple [1]",
                "!!binary aGk=",
                "!unknown x",
                "!!timestamp 2001-01-01",
                "&a [*a]",
                "!!set {a}",
            )
        )
        return content + f"\nMODEL: {tag}\n".encode()
    if how == 3:
        depth = rng.choice((100, 20_000))
        return b"[" * depth + b"]" * depth
    if how == 4:
        return rng.choice(
            (b"", b"x", b"- 1", b"a: b: c", b"\t", b"%YAML 9.9\n---\nx", b"? [a]\n: b")
        )
    text = yaml.safe_dump(_changed(yaml.safe_load(content), rng), allow_unicode=True)
    return text.encode("utf-8", "surrogatepass")


def log_text(content: bytes, rng: random.Random) -> bytes:
    """An alignment log: rows with other fields."""
    lines = content.decode().split("\n")
    how = rng.randrange(8)
    if how == 0:
        return bytewise(content, rng)
    row = rng.randrange(1, max(len(lines) - 1, 2))
    if how == 1:
        lines.insert(row, lines[row])
    elif how == 2:
        lines[0] = rng.choice(("", "a,b", lines[0].upper(), '"' + lines[0]))
    elif how == 3:
        lines.append(lines[row] * 20_000)
    else:
        fields = lines[row].split(",")
        value = rng.choice(HOSTILE)
        fields[rng.randrange(len(fields))] = "" if value is None else str(value)
        lines[row] = ",".join(fields)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


LARGE = (48, 1000, 8192, 20_000, 10**6, 10**9, 2**40)
"""Numbers that may be sizes, of a network that is not the file's."""


def sizes(text: str, rng: random.Random) -> str:
    """A configuration of a network of another size: large, or of a size that nothing has."""
    config = yaml.safe_load(text)
    model, data = config["MODEL"], config["DATA"]
    vrt, number = model["VRT"], rng.choice(LARGE)
    how = rng.randrange(6)
    if how == 0:
        vrt["window_size"] = rng.choice(([6, number, number], [1, 1, number], [8, 32, 32]))
    elif how == 1:
        vrt["depths"] = [number] * len(vrt["depths"])
    elif how == 2:
        vrt["embed_dims"] = [number] * len(vrt["embed_dims"])
        model["CHANNELS_PER_SCALE"] = [number] * 4
    elif how == 3:
        data["K"] = data["NUM_VOXEL_BINS"] = number
    elif how == 4:
        vrt["mlp_ratio"] = number
    else:
        data["CLIP_LEN"] = number
    return yaml.safe_dump(config)


def checkpoint(content: bytes, rng: random.Random) -> bytes:
    """A checkpoint (zip of a pickle and tensors): other entries, other sizes, bombs, code."""
    how = rng.randrange(9)
    if how == 0:
        return pickle_bomb(rng)
    if how in (6, 7):
        return _with_pickle(content, lambda pickled: _resized(pickled, rng))
    if how == 8:  # two gigabytes of zeros, from a call that unpicklers allow
        call = b"\x80\x02c__builtin__\nbytearray\nJ" + struct.pack("<i", 2 * 10**9) + b"\x85R."
        return _with_pickle(content, lambda pickled: call)
    if how in (1, 2):
        source = zipfile.ZipFile(io.BytesIO(content))
        names = source.namelist()
        chosen = rng.choice([n for n in names if "data" in n])
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as target:
            for name in names:
                entry = source.read(name)
                if name == chosen:
                    if how == 2:
                        continue
                    entry = bytewise(entry, rng)
                target.writestr(name, entry)
        return out.getvalue()
    if how == 3:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
            target.writestr("archive/data.pkl", bytes(60_000_000))
            target.writestr("archive/version", b"3\n")
        return out.getvalue()
    return bytewise(content, rng)


def _with_pickle(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return a checkpoint with another pickle, and the same tensors beside it."""
    source, out = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            entry = source.read(name)
            target.writestr(name, change(entry) if name.endswith("data.pkl") else entry)
    return out.getvalue()


def _resized(pickled: bytes, rng: random.Random) -> bytes:
    """Return a checkpoint's pickle with other sizes in its configuration, a text after a length."""
    start = pickled.index(b"DATA:\n")
    (length,) = struct.unpack("<I", pickled[start - 4 : start])
    text = sizes(pickled[start : start + length].decode(), rng).encode()
    return pickled[: start - 4] + struct.pack("<I", len(text)) + text + pickled[start + length :]


def pickle_bomb(rng: random.Random) -> bytes:
    """A pickle that would run a command, bare or inside of what torch writes."""
    bomb = b"cos\nsystem\n(S'touch owned'\ntR."
    if rng.random() < 0.5:
        return bomb
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        target.writestr("archive/data.pkl", b"\x80\x02" + bomb)
        target.writestr("archive/byteorder", b"little")
        target.writestr("archive/version", b"3\n")
    return out.getvalue()


def safetensors(content: bytes, rng: random.Random) -> bytes:
    """An exported model: another header before the same weights, or other sizes in it."""
    how = rng.randrange(7)
    (size,) = struct.unpack("<Q", content[:8])
    if how == 0:
        return bytewise(content, rng)
    if how == 1:
        return struct.pack("<Q", rng.choice((0, 1, size - 1, size + 1, 2**40, 2**63))) + content[8:]
    header = json.loads(content[8 : 8 + size])
    if how == 2 and "__metadata__" in header:
        key = next(iter(header["__metadata__"]))
        inner = json.loads(header["__metadata__"][key])
        header["__metadata__"][key] = json.dumps(_changed(inner, rng))
    elif how >= 5:
        inner = json.loads(header["__metadata__"]["spikedeblur"])
        inner["config"] = sizes(inner["config"], rng)
        header["__metadata__"]["spikedeblur"] = json.dumps(inner)
    else:
        header = _changed(header, rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + content[8 + size :]
