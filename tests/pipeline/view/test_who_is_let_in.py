"""Who has no token finds nothing at the page's address, by whatever path."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from outsiders import as_another_user, beyond_this_machine, listening
from training_sets import make_store

pytestmark = pytest.mark.slow

PATHS = {
    "": 200,
    "/": 200,
    "/view.css": 200,
    "/view.js": 200,
    "/groups": 200,
    "/clip?group=0&clip=0": 200,
    "/picture?group=0&clip=0&kind=TFP&instant=9&length=33&bins=8&black=0&white=100": 200,
    "/picture?group=0&clip=0&kind=TFP&instant=999&length=33&bins=8&black=0&white=100": 400,
    "/picture": 400,
    "/clip?group=0&clip=-1": 400,
    "/clip?group=99&clip=0": 400,
    "/templates/view.js": 404,
    "/../page.py": 404,
    "/nothing": 404,
}
"""What there is below the token, and how it is answered."""


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def parts(url: str) -> tuple[str, str]:
    """Return the address without the token, and the token."""
    return url.rstrip("/").rpartition("/")[0], urlsplit(url).path.strip("/")


def other_tokens(token: str) -> list[str]:
    last = "A" if token[-1] != "A" else "B"
    return ["", "x", token[:-1], token + "A", token[:-1] + last, token.swapcase(), f"x/{token}"]


def test_every_path_needs_the_token(server):
    root, token = parts(server[1])
    assert len(token) >= 43  # 256 bits
    for path, expected in PATHS.items():
        assert status(f"{root}/{token}{path}") == expected, path
        for other in other_tokens(token):
            assert status("/".join(filter(None, (root, other))) + path) == 404, (path, other)


def test_no_page_of_another_site_can_use_it(server):
    with urllib.request.urlopen(server[1]) as answer:
        headers = answer.headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Access-Control-Allow-Origin"] is None


def test_another_user_finds_neither_page_nor_token(server):
    process, url = server
    root, token = parts(url)
    read = """
import urllib.request
print(urllib.request.urlopen(sys.argv[1]).status)
"""
    assert as_another_user(read, url, imports="import urllib.request, encodings.idna") == "200\n"
    look = """
for name in ("cmdline", "environ"):
    try:
        print(open(f"/proc/{sys.argv[1]}/{name}").read())
    except PermissionError:
        pass
try:
    urllib.request.urlopen(sys.argv[2])
except urllib.error.HTTPError as error:
    print(error.code)
"""
    said = as_another_user(
        look, str(process.pid), root, imports="import urllib.request, encodings.idna"
    )
    assert "view" in said
    assert token not in said
    assert said.endswith("404\n")
    assert beyond_this_machine(listening(process.pid)) == set()


def test_a_browser_is_opened_without_the_token_among_its_words(tmp_path):
    """All users of a machine see the words of each other's commands."""
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$1" > {tmp_path}/words\npage=${{1#file://}}\n'
        f'cp "$page" {tmp_path}/page\nstat -c %a "$(dirname "$page")" > {tmp_path}/mode\n'
        f"touch {tmp_path}/done\n"
    )
    browser.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "spikedeblur", "view", str(make_store(tmp_path / "data"))],
        env=os.environ | {"BROWSER": f"{browser} %s"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = process.stdout.readline().split(" at ")[1].split()[0]
        deadline = time.monotonic() + 60
        while not (tmp_path / "done").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(30)
    words = (tmp_path / "words").read_text().strip()
    assert parts(url)[1] not in words
    assert f"url={url}" in (tmp_path / "page").read_text()
    assert (tmp_path / "mode").read_text() == "700\n"
    assert not Path(words.removeprefix("file://")).exists()
