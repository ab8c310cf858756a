"""No source of ours loads what could run code: checked on the syntax, not by searching text."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "fmjax").rglob("*.py"), *(ROOT / "weights_conversion").rglob("*.py")])
MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "torch",
    "runpy",
}
# what a run sends to processes that it has started itself, over their own pipes: no file is ever read so
OWN_PROCESSES = {"fmjax/data/workers.py": {"import cloudpickle"}}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {"yaml.load", "yaml.unsafe_load", "os.system", "os.popen", "pty.spawn"}


def findings(tree: ast.AST) -> list[str]:
    """The lines that import an unpickler, evaluate text, unpack a tar or allow pickles."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [f"import {a.name}" for a in node.names if a.name.split(".")[0] in MODULES]
        elif (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] in MODULES
            and not node.level
        ):
            found.append(f"from {node.module}")
        elif isinstance(node, ast.Call):
            found += _call(node)
    return found


def _call(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    bad = name in BUILTINS | CALLS or name.split(".")[-1] == "extractall"
    pickles = [
        k for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"
    ]
    shells = [k for k in node.keywords if k.arg == "shell" and ast.unparse(k.value) != "False"]
    return (
        [name] * bad
        + [f"{name}(allow_pickle)" for _ in pickles]
        + [f"{name}(shell)" for _ in shells]
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_can_load_code(path):
    allowed = OWN_PROCESSES.get(str(path.relative_to(ROOT)), set())
    assert set(findings(ast.parse(path.read_text()))) == allowed


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import torch.serialization",
        "eval('1')",
        "exec(code)",
        "__import__('os')",
        "yaml.load(f)",
        "np.load(p, allow_pickle=True)",
        "np.load(p, allow_pickle=flag)",
        "tarfile.open(p).extractall()",
        "os.system('ls')",
        "subprocess.run(c, shell=True)",
    ],
)
def test_the_rule_sees_each_of_them(text):
    assert findings(ast.parse(text))
