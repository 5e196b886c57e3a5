"""The drop-in: unchanged programs find tensorhold under the name `safetensors`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import tensorhold

VERSION = f"0.8.0+tensorhold.{tensorhold.__version__}"


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=120,
    )


def run(*arguments: str, **environment: str) -> str:
    """What a program run by the drop-in prints."""
    done = python("-m", "tensorhold.dropin", *arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def script(text: str, path: str = "program.py") -> str:
    Path(path).write_text(textwrap.dedent(text))
    return path


SAME = """
    import safetensors, safetensors.numpy, sys
    from safetensors import safe_open
    from safetensors._safetensors_rust import SafetensorError
    import tensorhold, tensorhold.numpy
    assert safetensors is tensorhold and safetensors.numpy is tensorhold.numpy
    assert safe_open is tensorhold.safe_open and SafetensorError is tensorhold.SafetensorError
    assert tensorhold.__spec__.name == tensorhold.__name__ == "tensorhold"
    assert tensorhold.numpy.__spec__.name == "tensorhold.numpy"
    print(safetensors.__version__, sys.argv[1:])
"""


def test_a_script_finds_our_very_modules() -> None:
    assert run(script(SAME), "a", "-b") == f"{VERSION} ['a', '-b']"


def test_code_finds_our_very_modules() -> None:
    assert run("-c", textwrap.dedent(SAME), "a", "-b") == f"{VERSION} ['a', '-b']"


def test_a_module_finds_our_very_modules() -> None:
    assert run("-m", script(SAME).removesuffix(".py"), "a", "-b") == f"{VERSION} ['a', '-b']"


@pytest.mark.parametrize("form", ["script", "code", "module", "folder"])
def test_a_program_sees_what_python_itself_would_show_it(form: str) -> None:
    os.mkdir("sub")
    os.mkdir("app")
    text = """
        import sys, os
        main = sys.modules["__main__"]
        names = ["__name__", "__file__", "__package__", "__doc__"]
        print([globals().get(name) for name in names], sys.argv, sys.path[0])
        print(main.__dict__ is globals(), type(__builtins__).__name__, __spec__ and __spec__.name)
    """
    script(text, "sub/program.py")
    script(text, "app/__main__.py")
    arguments = {
        "script": ["sub/program.py", "x"],
        "code": ["-c", Path("sub/program.py").read_text(), "x"],
        "module": ["-m", "sub.program", "x"],
        "folder": ["app", "x"],
    }[form]
    plain = python(*arguments)
    assert plain.returncode == 0, plain.stderr
    assert run(*arguments) == plain.stdout.strip()


def test_exit_codes_and_tracebacks_are_the_program_s() -> None:
    assert python("-m", "tensorhold.dropin", "-c", "raise SystemExit(7)").returncode == 7
    failed = python("-m", "tensorhold.dropin", script("1/0"))
    assert failed.returncode == 1 and "ZeroDivisionError" in failed.stderr
    assert "program.py" in failed.stderr
    assert python("-m", "tensorhold.dropin", "missing.py").returncode == 1


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["-m"], 2), (["-c"], 2), (["-h"], 0)])
def test_without_a_program_the_usage_is_shown(arguments: list[str], code: int) -> None:
    done = python("-m", "tensorhold.dropin", *arguments)
    assert done.returncode == code
    assert (done.stdout if code == 0 else done.stderr).startswith("usage: python -m tensorhold")


def test_install_takes_over_what_was_imported_before_and_uninstall_gives_it_back() -> None:
    if importlib.util.find_spec("safetensors") is None:
        pytest.skip("safetensors is not installed")
    code = """
        import safetensors as real, safetensors.numpy as real_numpy
        import tensorhold, tensorhold.dropin as dropin
        ours = tensorhold.__version__
        dropin.install(); dropin.install()
        import safetensors, safetensors.numpy
        assert safetensors is tensorhold and safetensors.numpy is tensorhold.numpy is not real_numpy
        dropin.uninstall(); dropin.uninstall()
        import safetensors, safetensors.numpy
        assert safetensors is real and safetensors.numpy is real_numpy
        assert tensorhold.__version__ == ours
    """
    done = python("-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr


def test_modules_are_found_without_being_imported() -> None:
    code = """
        import importlib.util, sys
        assert importlib.util.find_spec("safetensors").origin.endswith("tensorhold/__init__.py")
        assert importlib.util.find_spec("safetensors.torch").origin.endswith("tensorhold/torch.py")
        assert importlib.util.find_spec("safetensors.abacus") is None
        assert "torch" not in sys.modules
        try:
            import safetensors.abacus
        except ModuleNotFoundError as error:
            print(error)
    """
    assert "safetensors.abacus" in run("-c", textwrap.dedent(code))


METADATA = """
    import importlib.metadata as metadata
    print(metadata.version("safetensors"))
    print(metadata.packages_distributions()["safetensors"] if {listed} else "safetensors")
    found = [d for d in metadata.distributions() if d.metadata["Name"] == "safetensors"]
    assert len(found) == 1, found
    metadata.entry_points(group="console_scripts")
"""


def test_the_installed_version_is_told_where_the_peer_is_installed() -> None:
    peer = pytest.importorskip("importlib.metadata")
    try:
        version = peer.version("safetensors")
    except peer.PackageNotFoundError:
        pytest.skip("safetensors is not installed")
    assert run("-c", textwrap.dedent(METADATA.format(listed=False))).splitlines()[0] == version


def test_the_interface_s_version_is_told_where_the_peer_is_absent() -> None:
    hide = """
        import importlib.metadata, sys
        class Without(importlib.metadata.MetadataPathFinder):
            @classmethod
            def find_distributions(cls, context=importlib.metadata.DistributionFinder.Context()):
                for found in super().find_distributions(context):
                    if found.metadata["Name"] != "safetensors":
                        yield found
        for finder in sys.meta_path:
            if hasattr(finder, "find_distributions") and "hold" not in type(finder).__module__:
                finder.find_distributions = Without.find_distributions
    """
    out = run("-c", textwrap.dedent(hide) + textwrap.dedent(METADATA.format(listed=True)))
    assert out.splitlines() == [VERSION, "['safetensors']"]


def test_processes_that_the_program_starts_are_reached() -> None:
    program = """
        import multiprocessing, subprocess, sys
        import safetensors

        def name(_):
            import safetensors
            return safetensors.__name__

        if __name__ == "__main__":
            for method in ("spawn", "fork"):
                with multiprocessing.get_context(method).Pool(1) as pool:
                    print(pool.map(name, [0])[0])
            code = "import safetensors; print(safetensors.__name__)"
            print(subprocess.check_output([sys.executable, "-c", code], text=True).strip())
    """
    assert run(script(program)).split() == ["tensorhold"] * 3


def test_a_sitecustomize_of_the_user_s_is_run_as_well() -> None:
    os.mkdir("site")
    Path("site/sitecustomize.py").write_text("import os; os.environ['SEEN'] = 'yes'\n")
    code = """
        import subprocess, sys
        code = "import os, safetensors; print(os.environ['SEEN'], safetensors.__name__)"
        print(subprocess.check_output([sys.executable, "-c", code], text=True).strip())
    """
    paths = os.pathsep.join(filter(None, ["site", os.environ.get("PYTHONPATH")]))
    assert run("-c", textwrap.dedent(code), PYTHONPATH=paths) == "yes tensorhold"


def test_a_star_import_gives_the_names_of_the_peer() -> None:
    code = "from safetensors import *; f = open('a', 'w'); print(safe_open.__module__, f.mode)"
    assert run("-c", code).endswith(" w")


def test_torch_loads_by_suffix_through_the_alias() -> None:
    torch = pytest.importorskip("torch")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 13):
        pytest.skip("torch.load knows the suffix from a later version on")
    program = """
        import torch
        from safetensors.torch import save_file
        save_file({"a": torch.arange(3)}, "a.safetensors")
        print(torch.load("a.safetensors")["a"].tolist(), save_file.__module__)
    """
    assert run(script(program)) == "[0, 1, 2] tensorhold.torch"


def test_torch_s_checkpoints_are_written_and_read_through_the_alias() -> None:
    pytest.importorskip("torch.distributed.checkpoint.hf_storage")
    program = """
        import torch
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint import HuggingFaceStorageReader as Reader
        from torch.distributed.checkpoint import HuggingFaceStorageWriter as Writer
        import safetensors
        state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
        dcp.save(state, storage_writer=Writer("out"), no_dist=True)
        target = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        dcp.load(target, storage_reader=Reader("out"), no_dist=True)
        print(all(torch.equal(target[k], state[k]) for k in state), safetensors.__name__)
    """
    assert run(script(program)).splitlines()[-1] == "True tensorhold"


def test_hugging_face_libraries_accept_the_alias() -> None:
    pytest.importorskip("huggingface_hub")
    pytest.importorskip("torch")
    program = """
        import os, torch, safetensors
        os.mkdir("out")
        from huggingface_hub import save_torch_model, load_torch_model
        model = torch.nn.Linear(2, 3)
        save_torch_model(model, "out", safe_serialization=True)
        other = torch.nn.Linear(2, 3)
        load_torch_model(other, "out")
        print(torch.equal(model.weight, other.weight), safetensors.__name__)
    """
    assert run(script(program)).splitlines()[-1] == "True tensorhold"


def test_transformers_saves_and_loads_through_the_alias() -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    program = """
        import torch, safetensors
        from transformers import BertConfig, BertModel
        config = BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1,
                            num_attention_heads=2, intermediate_size=8)
        model = BertModel(config)
        model.save_pretrained("out", max_shard_size="2KB")
        other = BertModel.from_pretrained("out")
        state = other.state_dict()
        print(all(torch.equal(state[k], v) for k, v in model.state_dict().items()))
        print(safetensors.__name__)
    """
    assert run(script(program), HF_HUB_OFFLINE="1").split()[-2:] == ["True", "tensorhold"]
