"""Installs a wheel into an empty environment and uses it there, where no compiler is; `make wheel` calls it.

What the wheel depends on is taken from the environment that runs this, so that nothing is downloaded again; the package
itself, its engine and its data files are the wheel's alone.
"""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

MAKE = """
import numpy as np, verydeep as vd
from PIL import Image
from verydeep.engines.library import best_processor, find
from verydeep.nets.run_info import RunInfo

net = vd.create("D", ["cat", "dog"], width=0.25, image_size=64, fc_width=64, seed=0)
net.provenance = RunInfo(train_scales=(64, 64))
vd.save(net, "net.safetensors")
Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)).save("picture.png")
print(find()._name)
print("processor:", best_processor())
"""
COMMANDS = (
    "verydeep --version",
    "verydeep predict picture.png --weights net.safetensors --engine native",
    "verydeep predict picture.png --weights net.safetensors --engine torch",
    "verydeep reproduce --preset demo --data scenes --out demo --dry-run",
)


def main(folder: Path) -> None:
    """Try the one wheel in a folder; an error where anything is missing, or the engine is not the wheel's."""
    (wheel,) = folder.glob("*.whl")
    place = folder.resolve() / "venv"
    venv.create(place, clear=True, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install", "-q", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True)
    # A plain line is a plain folder: the checkout that is installed there, too, is not seen.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    kept = {name: os.environ[name] for name in ("HOME", "OMP_NUM_THREADS") if name in os.environ}
    surroundings = {**kept, "PATH": str(place / "bin")}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=place, env=surroundings, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout

    library, processor = run(str(place / "bin" / "python"), "-c", MAKE).splitlines()
    if not Path(library).is_relative_to(packages):
        raise SystemExit(f"{library}: is not the wheel's engine")
    print(f"{wheel.name}: engine {Path(library).name}, {processor}")
    answers = []
    for command in COMMANDS:
        program, *words = command.split()
        answers.append(run(str(place / "bin" / program), *words))
        print(f"$ {command}\n{answers[-1].strip().splitlines()[0]} ...")
    native, torch = (set(answer.split()) for answer in answers[1:3])
    if native != torch:
        raise SystemExit(f"the engine answers {answers[1]}, torch {answers[2]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
