"""fmjax.store.locate in a process of its own: `python -m tests.support.locate '{"sources": [...], "offline": false}'`.

huggingface_hub reads its settings when it is imported, so that another endpoint or cache needs another process.
"""

from __future__ import annotations

import json
import sys
import time

from fmjax.errors import CheckpointError
from fmjax.specs import Source, Weights
from fmjax.store import locate, network
from weights_conversion.readers import sniff


def weights(
    *sources: Source, name: str = "ViT-B-16.test", licence: str = "CC-BY-NC-4.0"
) -> Weights:
    """A row with those sources."""
    model, tag = name.split(".")
    same = (0.5, 0.5, 0.5)
    return Weights(
        model=model,
        tag=tag,
        sources=sources,
        mean=same,
        std=same,
        image_size=(224, 224),
        licence=licence,
    )


def legacy(body: bytes) -> bytes:
    """Bytes that begin as torch's older files do."""
    return b"\x80\x02\x8a\n" + sniff.LEGACY_MAGIC + b"." + body


def main(asked: dict) -> dict:
    """What obtain returns, or its error, and how long it took."""
    row = weights(*(Source(**source) for source in asked["sources"]))
    start = time.monotonic()
    try:
        found = locate.obtain(
            row, offline=asked.get("offline", False), accept_new=asked.get("accept_new", False)
        )
        answer = {"path": str(found.path), "sha256": found.sha256, "revision": found.revision}
    except CheckpointError as error:
        answer = {"error": str(error)}
    return answer | {"seconds": time.monotonic() - start}


if __name__ == "__main__":
    network.BACKOFF_S = 0.01
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))))
