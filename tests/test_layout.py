"""The house keeps its shape: import direction, no cycles, sizes, light modules, and a README tree that is true."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("curation", "training", "pipelines")
MAY_IMPORT = {"curation": {"curation"}, "training": {"curation", "training"}, "pipelines": set(FOLDERS)}
HEAVY = {"torch", "vllm", "ray", "transformers", "datasets", "math_verify", "httpx", "matplotlib"}
FILES = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Modules a file imports; with `top_level_only` those that run when it is imported (not under TYPE_CHECKING)."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_imports_follow_curation_training_pipelines():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in FILES
        for name in imports(path)
        if name.split(".")[0] in FOLDERS and name.split(".")[0] not in MAY_IMPORT[path.relative_to(ROOT).parts[0]]
    ]
    assert not wrong


def test_curation_loads_nothing_heavy_at_import():
    wrong = [
        f"{path.name}: {name}"
        for path in FILES
        if path.relative_to(ROOT).parts[0] == "curation" and path.name != "sampler.py"  # inside an engine, loaded by it
        for name in imports(path, top_level_only=True)
        if name.split(".")[0] in HEAVY
    ]
    assert not wrong


def test_there_are_no_import_cycles():
    modules = {module_of(p): p for p in FILES}
    edges = {m: {i for i in imports(p, top_level_only=True) if i in modules and i != m} for m, p in modules.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"cycle: {' -> '.join((*path, module))}"
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, (*path, module))
            done.add(module)

    for module in modules:
        visit(module, ())


def test_files_and_functions_stay_short():
    long_files = [f"{p.relative_to(ROOT)}: {n} lines" for p in FILES if (n := len(p.read_text().splitlines())) > 320]
    long_functions = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno + 1 > 55
    ]
    assert not long_files + long_functions


def test_no_error_is_caught_wholesale():
    wrong = [p.name for p in FILES if re.search(r"except\s*(Exception|BaseException)?\s*:", p.read_text())]
    assert not wrong


def test_the_tree_in_the_readme_is_the_tree_on_disk():
    block = re.search(r"<!-- tree -->\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block, "README.md has no <!-- tree --> block"
    listed: set[str] = set()
    folder = ""
    for line in block.group(1).splitlines():
        name = line.split()[0] if line.split() else ""
        if name.endswith("/") and not line.startswith(" "):
            folder = name
        elif name.endswith(".py"):
            listed.add(folder + name)
    on_disk = {str(p.relative_to(ROOT)) for p in FILES if p.name != "__init__.py"}
    assert listed == on_disk, f"missing {sorted(on_disk - listed)}, gone {sorted(listed - on_disk)}"


def test_help_imports_nothing_heavy():
    code = f"import sys, pipelines.cli as c; assert c.main([]) == 0; print(sorted(set(sys.modules) & {HEAVY}))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip().splitlines()[-1] == "[]"
