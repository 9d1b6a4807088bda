"""Who is not to be let in: another user of this machine, another machine, a peer without a key."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys

import psutil
import pytest

NOBODY = 65534
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def listening(*pids: int) -> set[tuple[str, int]]:
    """Return where these processes and all that they started wait for connections."""
    found = set()
    for pid in pids:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                connections = process.net_connections()
            except psutil.NoSuchProcess:
                continue
            found |= {tuple(c.laddr) for c in connections if c.status == psutil.CONN_LISTEN}
    return found


def beyond_this_machine(addresses: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """Return those that another machine may reach."""
    return {address for address in addresses if address[0] not in LOOPBACK}


def wants_certificate(address: tuple[str, int]) -> bool:
    """Whether what listens there speaks TLS, and drops who has no certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(address[:2], timeout=10) as plain:
        try:
            with context.wrap_socket(plain) as secured:
                secured.recv(1)
        except ssl.SSLError as error:
            return error.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    return False


def by_http(address: tuple[str, int], path: str) -> int:
    """Return the status of an answer to a plain GET; 0: there is none."""
    with socket.create_connection(address[:2], timeout=10) as link:
        link.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        try:
            answer = link.recv(4096)
        except ConnectionResetError:
            return 0
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else 0


def as_another_user(code: str, *words: str, imports: str = "") -> str:
    """Run Python code as a user who has nothing here; returns what it prints.

    Args:
        code: after the imports, which need this user's files.
        words: `sys.argv[1:]`.
        imports: statements.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    become = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(["import sys", imports, become, code]), *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
