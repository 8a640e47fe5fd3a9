"""Write golden values anew, or say how far this machine's are from them: see README.md beside this file.

python tests/golden/make.py [CASE ...]            # writes values/: all cases, or those named
python tests/golden/make.py --check [CASE ...]    # writes nothing; exit status 1 where a value is too far off
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.golden import cases, comparing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="one of: " + ", ".join(cases.CASES))
    parser.add_argument("--check", action="store_true", help="compare only, to the last bit")
    words = parser.parse_args()
    if unknown := set(words.cases) - set(cases.CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(cases.CASES)}")
    return max(_do(name, words.check) for name in words.cases or cases.CASES)


def _do(name: str, check: bool) -> int:
    """Do one case; return 1 where it is too far off."""
    begun = time.monotonic()
    try:
        values = cases.run(name)
    except cases.NotHereError as error:
        print(f"{name:28} left out: {error}")
        return 0
    seconds = time.monotonic() - begun
    if not check:
        comparing.write(name, values)
        size = sum(file.stat().st_size for file in comparing.VALUES.glob(f"{name}.*"))
        print(f"{name:28} {seconds:5.1f} s  {size / 1000:6.1f} kB")
        return 0
    found = sorted(comparing.differences(comparing.read(name), values), key=lambda one: -one.size)
    bad = [one for one in found if one.size > comparing.tolerance(cases.CASES[name].tolerance)]
    verdict = f"off by at most {found[0].size:.1e}" if found else "the same to the last bit"
    print(f"{name:28} {seconds:5.1f} s  {verdict}{'  TOO FAR' if bad else ''}")
    for one in bad[:8]:
        print(f"    {one.place}: {one.words}")
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main())
