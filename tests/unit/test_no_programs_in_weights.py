"""What is read never brings a program along: no pickle, no code of a model's own.

Held against the sources, as a single call in a corner would be enough.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [
    file
    for folder in ("operator", "trainer_image", "examples")
    for file in sorted((ROOT / folder).rglob("*.py"))
]
#: Modules whose files are programs to whoever reads them.
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def found(rule: str) -> list[str]:
    """Where the sources break a rule."""
    return [
        f"{file.relative_to(ROOT)}:{line}"
        for file in SOURCES
        for line in breaches(rule, ast.parse(file.read_text(encoding="utf-8")))
    ]


def breaches(rule: str, tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        match rule, node:
            case "pickles", ast.Import(names=names) if PICKLES & {each.name for each in names}:
                yield node.lineno
            case "pickles", ast.ImportFrom(module=str(module)) if module in PICKLES:
                yield node.lineno
            case "loads", ast.Call() if is_unsafe_load(node):
                yield node.lineno
            case "remote code", ast.Call() if may_run_remote_code(node):
                yield node.lineno
            case "weights", ast.Call() if may_open_pickled_weights(node):
                yield node.lineno


def called(call: ast.Call) -> str:
    """Such as "torch.load"."""
    return ast.unparse(call.func)


def constant(call: ast.Call, name: str) -> object:
    """What a keyword is set to; None where it is not, or not to a constant."""
    value = next((each.value for each in call.keywords if each.arg == name), None)
    return value.value if isinstance(value, ast.Constant) else None


def is_unsafe_load(call: ast.Call) -> bool:
    match called(call):
        case "torch.load":
            return constant(call, "weights_only") is not True
        case "np.load" | "numpy.load":
            return constant(call, "allow_pickle") is True
        case _:
            return False


def may_run_remote_code(call: ast.Call) -> bool:
    """transformers would ask on the terminal where nothing is said."""
    said = [each for each in call.keywords if each.arg == "trust_remote_code"]
    owner, _, method = called(call).rpartition(".")
    is_open = owner.rpartition(".")[2].startswith(("Auto", "FastLanguageModel")) and method in (
        "from_pretrained",
        "from_config",
    )
    is_said = bool(said) and constant(call, "trust_remote_code") is False
    return (bool(said) and not is_said) or (is_open and not is_said)


def may_open_pickled_weights(call: ast.Call) -> bool:
    is_model = "AutoModel" in called(call) and called(call).endswith(".from_pretrained")
    return is_model and constant(call, "use_safetensors") is not True


def test_nothing_reads_or_writes_a_pickle_of_pythons_own() -> None:
    assert found("pickles") == []


def test_what_torch_and_numpy_load_are_numbers_and_no_programs() -> None:
    assert found("loads") == []


def test_no_code_of_a_model_is_ever_trusted() -> None:
    assert found("remote code") == []


def test_models_are_loaded_from_safetensors_alone() -> None:
    """The demonstration unpacks a GGUF file of a Python package, which holds numbers only."""
    assert [each for each in found("weights") if "make_base_model" not in each] == []


def test_a_breach_of_each_rule_is_noticed() -> None:
    written = {
        "pickles": "import pickle\nfrom joblib import load",
        "loads": "torch.load(file)\nnp.load(file, allow_pickle=True)",
        "remote code": "AutoTokenizer.from_pretrained(x)\nload(x, trust_remote_code=True)",
        "weights": "AutoModelForCausalLM.from_pretrained(x)\nAutoModel.from_pretrained(y)",
    }
    for rule, text in written.items():
        assert sorted(breaches(rule, ast.parse(text))) == [1, 2], rule
