"""Change the core in small ways, and see whether the tests of its folder notice.

    python -m tests.mutation                    420 mutants, drawn by a fixed seed
    python -m tests.mutation --only counts.py   those of them whose names hold this

A mutant is one change: a comparison, a plus or minus, a number by one, `and` for `or`, a negated
condition, a statement left out, None returned. It is killed if a test fails, or takes ten times as
long as it does. Tests are those of the folder that run the changed lines, the quickest first; where
the change is outside functions, those that run any line of the file and those of its test file.
They run in a process that is forked from one which has imported and collected everything, with the
changed function's code put in place of the other's, so that a mutant costs its tests only; a change
outside functions needs a process that imports it anew.

`mutation.toml` lists, with reasons, changes that change nothing, which are not drawn, and
survivors. The exit code is 1 if less than `BAR` are killed or a survivor has no reason.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import faulthandler
import functools
import gc
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "mutation"
CORE = {
    "pipeline/spikes": "tests/pipeline/spikes",
    "pipeline/align": "tests/pipeline/align",
    "pipeline/train/data/order.py": "tests/pipeline/train/data/test_order.py "
    "tests/pipeline/train/data/test_mixture.py",
    "pipeline/train/run/records.py": "tests/pipeline/train/run",
    "pipeline/store/records.py": "tests/pipeline/store",
    "model/inputs.py": "tests/model/test_inputs.py",
}
"""Tests of each part of the core: a folder, or files."""
SEED, BAR = 29, 0.85
SCREEN = os.dup(1)
"""Where results are told, also by processes that are silent."""
MEMORY = 8 << 30
"""Most bytes that a mutant may take."""

OPPOSITE = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
}


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    name: str
    file: str
    lines: tuple[int, ...]
    """Lines of the changed statement, and none where it is outside functions."""
    start: int
    """Bytes [start, stop) of the file become `text`."""
    stop: int
    text: str

    def applied(self, source: bytes) -> bytes:
        """Return the source with the change."""
        return source[: self.start] + self.text.encode() + source[self.stop :]


class Mutants(ast.NodeVisitor):
    """Collects the changes that one file offers."""

    def __init__(self, file: str, source: bytes) -> None:
        self.file, self.source = file, source
        self.offsets = [0]
        for line in source.splitlines(keepends=True):
            self.offsets.append(self.offsets[-1] + len(line))
        self.mutants: list[Mutant] = []
        self.where: list[str] = []
        self.lines: tuple[int, ...] = ()
        self.depth = 0
        self.names: Counter[str] = Counter()

    def span(self, node: Any) -> tuple[int, int]:
        """Return the bytes of a node."""
        start = self.offsets[node.lineno - 1] + node.col_offset
        return start, self.offsets[node.end_lineno - 1] + node.end_col_offset

    def add(self, node: ast.AST, start: int, stop: int, text: str) -> None:
        """Offer a change inside of a node."""
        first, last = self.span(node)
        before = self.source[first:last].decode()
        after = (self.source[first:start] + text.encode() + self.source[stop:last]).decode()
        change = " -> ".join(" ".join(words.split()) for words in (before, after))
        name = f"{self.file} {'.'.join(self.where) or 'module'}: {change}"
        self.names[name] += 1
        if self.names[name] > 1:
            name += f" #{self.names[name]}"
        lines = self.lines if self.depth else ()
        self.mutants.append(Mutant(name, self.file, lines, start, stop, text))

    def replace(self, node: ast.AST, text: str) -> None:
        """Offer another text for a whole node; a statement keeps its number of lines."""
        start, stop = self.span(node)
        gone = self.source[start:stop].count(b"\n") - text.count("\n")
        self.add(node, start, stop, text + "\n" * gone * isinstance(node, ast.stmt))

    def operator(self, node: ast.AST, left: ast.AST, right: ast.AST, kind: ast.AST) -> None:
        """Offer the opposite of an operator between two operands."""
        if type(kind) in OPPOSITE:
            old, new = OPPOSITE[type(kind)]
            start, stop = self.span(left)[1], self.span(right)[0]
            at = self.source.index(old.encode(), start, stop)
            self.add(node, at, at + len(old), new)

    def condition(self, test: ast.expr) -> None:
        """Offer the negation of a condition."""
        start, stop = self.span(test)
        self.replace(test, f"not ({self.source[start:stop].decode()})")

    def visit(self, node: ast.AST) -> None:
        """Visit a node; a statement first says which lines are its own."""
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno
            self.lines = tuple(range(node.lineno, max(last, node.lineno) + 1))
        super().visit(node)

    def _inside(self, node: Any) -> None:
        function = not isinstance(node, ast.ClassDef)
        if function:  # default values are evaluated where the function is defined
            for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
                self.visit(default)
        self.where.append(node.name)
        self.depth += function
        for statement in node.body:
            self.visit(statement)
        self.depth -= function
        self.where.pop()

    visit_FunctionDef = visit_ClassDef = _inside

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave messages as they are."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Leave types as they are."""
        if node.value is not None:
            self.visit(node.value)

    def visit_arg(self, node: ast.arg) -> None:
        """Leave types as they are."""

    def visit_Raise(self, node: ast.Raise) -> None:
        """Leave messages as they are."""
        self.replace(node, "pass")

    def visit_If(self, node: ast.If) -> None:
        """Leave imports for type checkers as they are."""
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self._negate(node)

    def _negate(self, node: Any) -> None:
        lines = self.lines
        self.condition(node.test)
        self.generic_visit(node)
        self.lines = lines

    visit_While = visit_IfExp = _negate

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Negate what is left out."""
        for test in node.ifs:
            self.condition(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Turn a comparison."""
        operands = [node.left, *node.comparators]
        for left, right, kind in zip(operands, operands[1:], node.ops, strict=False):
            self.operator(node, left, right, kind)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Turn the first `and` or `or` of a chain."""
        self.operator(node, node.values[0], node.values[1], node.op)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Turn a plus or minus, if not between strings."""
        texts = (ast.JoinedStr, ast.Constant)
        if not any(
            isinstance(side, texts) and isinstance(getattr(side, "value", ""), str)
            for side in (node.left, node.right)
        ):
            self.operator(node, node.left, node.right, node.op)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Change a number by one."""
        if type(node.value) in (int, float):
            self.replace(node, str(node.value + 1))

    def visit_Return(self, node: ast.Return) -> None:
        """Return None."""
        if node.value is not None and ast.unparse(node.value) != "None":
            self.replace(node, "return None")
        self.generic_visit(node)

    def _dropped(self, node: Any) -> None:
        self.replace(node, "pass")
        self.generic_visit(node)

    visit_AugAssign = visit_Continue = visit_Break = visit_Delete = _dropped

    def visit_Expr(self, node: ast.Expr) -> None:
        """Leave out a call."""
        if isinstance(node.value, ast.Call):
            self.replace(node, "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Leave out what is stored in an object."""
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self.replace(node, "pass")
        self.generic_visit(node)


def mutants_of(part: str) -> list[Mutant]:
    """Return all changes that a part of the core offers."""
    place = ROOT / part
    found: list[Mutant] = []
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        source = path.read_bytes()
        one = Mutants(path.relative_to(ROOT).as_posix(), source)
        one.visit(ast.parse(source))
        found += one.mutants
    return found


class Checkout:
    """A copy of the checkout, in which files may be changed."""

    def __init__(self, above: Path) -> None:
        self.above, self.root = above, above / "spikedeblur"
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        if (ROOT.parent / "shared").is_dir():
            (above / "shared").symlink_to(ROOT.parent / "shared")
        compileall.compile_dir(self.root, quiet=2, maxlevels=20)

    @contextlib.contextmanager
    def changed(self, mutant: Mutant) -> Iterator[bytes]:
        """Hold a mutant, and yield the file's source without it.

        The changed file has another time, so that no compiled one is taken for it.
        """
        path = self.root / mutant.file
        source, status = path.read_bytes(), path.stat()
        path.write_bytes(mutant.applied(source))
        os.utime(path, (status.st_atime, status.st_mtime + 1000))
        try:
            yield source
        finally:
            path.write_bytes(source)
            os.utime(path, (status.st_atime, status.st_mtime))

    def run(self, work: Callable[[], int]) -> int:
        """Do something in a process of its own that imports the package from here."""

        def there() -> int:
            os.chdir(self.root)
            os.environ["PYTHONPATH"] = os.environ["PYTEST_DEBUG_TEMPROOT"] = str(self.above)
            sys.path[:] = [str(self.above), *(p for p in sys.path if Path(p).resolve() != ROOT)]
            for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
                del sys.modules[name]
            return work()

        return in_fork(there)


def in_fork(work: Callable[[], int]) -> int:
    """Return what a silent fork of this process makes of something, without what it leaves."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.setsid()
            silent = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silent, stream)
            code = work()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # workers that tests left behind
    return os.waitstatus_to_exitcode(status)


def run_pytest(arguments: list[str], plugin: object) -> int:
    """Run pytest here, with the same random examples each time, and without shrinking them."""
    hypothesis.settings.register_profile(
        "mutation",
        deadline=None,
        derandomize=True,
        database=None,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    )
    quiet = ["-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    every = ["-m", "not slow", "--hypothesis-profile=mutation", "-s"]
    return int(pytest.main([*quiet, *every, *arguments], plugins=[plugin]))


class Watched:
    """Records which lines each test runs, and how long it takes."""

    def __init__(self, checkout: Path, part: str) -> None:
        import coverage

        include = [f"{checkout / part}/*"] if (checkout / part).is_dir() else [str(checkout / part)]
        self.coverage = coverage.Coverage(data_file=None, include=include, config_file=False)
        self.root = checkout
        self.seconds: dict[str, float] = {}
        self.shared: dict[str, set[str]] = {}
        self.failed: set[str] = set()
        self.context = ["outside"]

    def _switch(self, name: str) -> None:
        self.context.append(name)
        self.coverage.switch_context(name)

    def _back(self) -> None:
        self.context.pop()
        self.coverage.switch_context(self.context[-1])

    @staticmethod
    def _name(fixture: Any) -> str:
        return f"fixture {fixture.baseid} {fixture.argname}"

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> Any:
        fixtures = [f for them in item._fixtureinfo.name2fixturedefs.values() for f in them]
        self.shared[item.nodeid] = {self._name(f) for f in fixtures if f.scope != "function"}
        self._switch(item.nodeid)
        began = time.monotonic()
        yield
        self.seconds[item.nodeid] = time.monotonic() - began
        self._back()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Any:
        """Count the lines of a shared fixture for all tests that use it."""
        if fixturedef.scope == "function":
            yield
            return
        self._switch(self._name(fixturedef))
        yield
        self._back()

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.outcome != "passed":
            self.failed.add(report.nodeid)

    def result(self) -> dict[str, Any]:
        """Return seconds by test, and tests by file and line."""
        data = self.coverage.get_data()
        users: defaultdict[str, set[str]] = defaultdict(set)
        for test, fixtures in self.shared.items():
            for name in (test, *fixtures):
                users[name].add(test)
        lines: dict[str, dict[int, list[str]]] = {}
        for path in data.measured_files():
            contexts = data.contexts_by_lineno(path)
            lines[Path(path).relative_to(self.root).as_posix()] = {
                line: sorted(
                    {t for name in names for t in users.get(name, ()) if t not in self.failed}
                )
                for line, names in contexts.items()
            }
        passed = {t: s for t, s in self.seconds.items() if t not in self.failed}
        return {"seconds": passed, "lines": lines}


def watch(checkout: Checkout, part: str, tests: str) -> dict[str, Any]:
    """Run the tests of a part once; returns what `Watched` saw, kept while both stay the same."""
    digest = hashlib.sha256()
    for place in (ROOT / part, *map(ROOT.joinpath, tests.split()), ROOT / "tests" / "support"):
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.read_bytes())
    kept = KEPT / f"{digest.hexdigest()[:32]}.json"
    if not kept.exists():
        print(f"Running {tests} once, to see which lines each test runs", flush=True)
        KEPT.mkdir(parents=True, exist_ok=True)

        def work() -> int:
            watched = Watched(checkout.root, part)
            watched.coverage.start()
            run_pytest(tests.split(), watched)
            watched.coverage.stop()
            kept.write_text(json.dumps(watched.result()), encoding="utf-8")
            return 0

        code = checkout.run(work)
        if not kept.exists():
            raise SystemExit(f"the tests of {tests} could not be run: exit code {code}")
    return json.loads(kept.read_text(encoding="utf-8"))


def tests_for(mutant: Mutant, seen: dict[str, Any]) -> list[str]:
    """Return the tests that may notice a mutant, the quickest first."""
    seconds, by_line = seen["seconds"], seen["lines"].get(mutant.file, {})
    own = f"/test_{Path(mutant.file).stem}.py::"  # bounds of a class's fields are no lines that run
    of_file = {test for tests in by_line.values() for test in tests}
    of_file |= {test for test in seconds if own in test}
    of_lines = {test for line in mutant.lines for test in by_line.get(str(line), ())}
    chosen = of_lines if mutant.lines else of_file or seconds
    return sorted(chosen, key=seconds.__getitem__)


def run_tests(items: list[Any], seconds: dict[str, float]) -> int:
    """Run tests until one fails; returns 1 then, and 0 if none does."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        # Ends the process, with 1 as well, where a test takes far too long.
        faulthandler.dump_traceback_later(20 + 10 * seconds[item.nodeid], exit=True)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if item.session.testsfailed:
            break
    faulthandler.cancel_dump_traceback_later()
    return int(items[0].session.testsfailed > 0)


def put_in_place(mutant: Mutant, path: Path, source: bytes) -> None:
    """Give all functions of a file the code that they have in a mutant.

    Raises:
        ValueError: the change takes a name from an enclosing function, or gives it one.
    """
    codes: dict[tuple[str, int], types.CodeType] = {}
    compiled = [compile(mutant.applied(source), str(path), "exec")]
    while compiled:
        code = compiled.pop()
        codes[code.co_qualname, code.co_firstlineno] = code
        compiled += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    for thing in gc.get_objects():
        if isinstance(thing, types.FunctionType) and thing.__code__.co_filename == str(path):
            key = thing.__code__.co_qualname, thing.__code__.co_firstlineno
            if key in codes:  # else it is below the change, in another function
                thing.__code__ = codes[key]
        elif isinstance(thing, functools._lru_cache_wrapper):
            thing.cache_clear()


class Collected:
    """Tries mutants in forks of this process, in which a part's tests are collected."""

    def __init__(self, checkout: Checkout, mutants: list[Mutant], seen: dict[str, Any]) -> None:
        self.checkout, self.mutants, self.seen = checkout, mutants, seen
        self.alone: Mutant | None = None
        """Mutant that this process has imported."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: Any) -> bool:
        """Try all, instead of running tests once."""
        items = {item.nodeid: item for item in session.items}
        if self.alone is not None:
            os._exit(self._try(self.alone, b"", items))
        for mutant in self.mutants:
            began = time.monotonic()
            with self.checkout.changed(mutant) as source:  # for processes that tests start
                code = in_fork(functools.partial(self._try, mutant, source, items))
            note(self.checkout, mutant, code, began)
        return True

    def _try(self, mutant: Mutant, source: bytes, items: dict[str, Any]) -> int:
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        if mutant.lines:
            put_in_place(mutant, self.checkout.root / mutant.file, source)
        tests = [items[test] for test in tests_for(mutant, self.seen)]
        return run_tests(tests, self.seen["seconds"])


def note(checkout: Checkout, mutant: Mutant, code: int, began: float) -> None:
    """Write down how a mutant ended."""
    if code == 70:
        raise RuntimeError(f"no test could be run on {mutant.name}")
    end = "killed" if code else "survived"
    with (checkout.above / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps([mutant.name, end]) + "\n")
    os.write(SCREEN, f"{end:8} {time.monotonic() - began:6.1f} s  {mutant.name}\n".encode())


def try_part(checkout: Checkout, tests: str, mutants: list[Mutant], seen: dict[str, Any]) -> None:
    """Try the mutants of a part, those outside functions in processes that import them anew."""
    inside = [mutant for mutant in mutants if mutant.lines]
    if inside:
        checkout.run(lambda: run_pytest(tests.split(), Collected(checkout, inside, seen)))
    for mutant in mutants:
        if not mutant.lines:
            began = time.monotonic()
            with checkout.changed(mutant):
                one = Collected(checkout, [], seen)
                one.alone = mutant
                code = checkout.run(functools.partial(run_pytest, tests.split(), one))
            note(checkout, mutant, code, began)


def report(results: dict[str, str], reasons: dict[str, str]) -> bool:
    """Print killed and survived by file, and survivors with their reasons; whether all is well."""
    files = sorted({name.split(" ")[0] for name in results})
    print(f"\n{'file':48} tried  killed  survived")
    for file in [*files, ""]:
        ends = [end for name, end in results.items() if file in ("", name.split(" ")[0])]
        killed = ends.count("killed")
        print(f"{file or 'all':48} {len(ends):5}  {killed:6}  {len(ends) - killed:8}")
    print(f"\nKilled: {killed / max(len(results), 1):.1%}\n\nSurvivors")
    survivors = sorted(name for name, end in results.items() if end != "killed")
    for name in survivors:
        print(f"- {name}\n  {reasons.get(name, 'NO REASON GIVEN')} ({results[name]})")
    return killed >= BAR * len(results) and all(name in reasons for name in survivors)


def place(seed: int, name: str) -> bytes:
    """Return what orders mutants at random; others that come or go leave the order as it is."""
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def main() -> int:
    """Draw mutants, try them and tell the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--mutants", type=int, default=420)
    parser.add_argument("--first", type=int, help="try the first of those drawn only")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="try those whose names hold this")
    parser.add_argument("--names", type=Path, help="try those that this file names, one a line")
    options = parser.parse_args()
    listed = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    offered = {mutant.name: (mutant, part) for part in CORE for mutant in mutants_of(part)}
    gone = [name for names in listed.values() for name in names if name not in offered]
    if gone:
        print("mutation.toml lists changes that are no longer possible:", *gone, sep="\n- ")
        return 1
    possible = [name for name in offered if name not in listed["equivalent"]]
    drawn = sorted(possible, key=lambda name: place(options.seed, name))[: options.mutants]
    if options.names:
        drawn = options.names.read_text(encoding="utf-8").splitlines()
    drawn = [name for name in drawn[: options.first] if options.only in name]
    print(f"{len(offered)} changes are possible; {len(drawn)} are tried", flush=True)
    results: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as above:
        checkouts = [Checkout(Path(above) / str(i)) for i in range(options.jobs)]
        for part, tests in CORE.items():
            mutants = [offered[name][0] for name in drawn if offered[name][1] == part]
            if not mutants:
                continue
            seen = watch(checkouts[0], part, tests)
            results |= {m.name: "no test runs it" for m in mutants if not tests_for(m, seen)}
            mutants = [mutant for mutant in mutants if mutant.name not in results]
            with ThreadPoolExecutor(options.jobs) as pool:
                shares = [mutants[i :: options.jobs] for i in range(options.jobs)]
                for done in [
                    pool.submit(try_part, checkout, tests, share, seen)
                    for checkout, share in zip(checkouts, shares, strict=True)
                ]:
                    done.result()
            for checkout in checkouts:
                path = checkout.above / "results.jsonl"
                lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
                results |= dict(json.loads(line) for line in lines)
            lost = [mutant.name for mutant in mutants if mutant.name not in results]
            if lost:
                raise SystemExit(f"not tried, because the tests could not be run: {lost}")
    return 0 if report(results, listed["survivors"]) else 1


if __name__ == "__main__":
    sys.exit(main())
