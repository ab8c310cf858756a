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

from tests.security import mutate


def main(container: str, *flags: str) -> None:
    import atheris  # pyright: ignore[reportMissingImports] - only here

    folder = Path(tempfile.mkdtemp())
    (folder / "seeds").mkdir()
    for name, data in mutate.valid().items():
        if name == container:
            (folder / "seeds" / name).write_bytes(data)
    target = folder / "x.pt"

    def one(data: bytes) -> None:
        target.write_bytes(data)
        mutate.read_all(target)

    with atheris.instrument_imports(include=["weights_conversion"]):
        import weights_conversion.readers  # noqa: F401
    atheris.Setup([sys.argv[0], *flags, str(folder / "seeds")], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
