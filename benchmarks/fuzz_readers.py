"""Coverage-guided fuzzing of the checkpoint readers, by hand and for as long as wanted.

    pip install atheris    # needs clang; has wheels for Linux
    python benchmarks/fuzz_readers.py zip -max_total_time=600

The first argument is the container to start from (zip, deflated, script, legacy, npz, safetensors); the others are
libFuzzer's. An input that is neither refused with CheckpointError nor gives tensors as declared is written to the
current folder as crash-*; add what it shows to tests/security/corpus.py.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main(container: str, *flags: str) -> None:
    import atheris  # pyright: ignore[reportMissingImports] - only here

    with atheris.instrument_imports(include=["weights_conversion"]):
        from tests.security import mutate

    seeds = {name: data for name, data in mutate.valid().items() if name == container}
    if not seeds:
        sys.exit(f"no container {container!r}; there are {', '.join(mutate.valid())}")
    folder = Path(tempfile.mkdtemp())
    (folder / "seeds").mkdir()
    (folder / "seeds" / container).write_bytes(seeds[container])
    target = folder / "x.pt"

    def one(data: bytes) -> None:
        target.write_bytes(data)
        mutate.read_all(target)

    atheris.Setup([sys.argv[0], *flags, str(folder / "seeds")], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
