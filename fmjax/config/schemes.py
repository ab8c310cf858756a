"""The kinds of data that `--data.source` names, and where the function lives that opens each."""

from __future__ import annotations

from dataclasses import dataclass

from fmjax.errors import UsageError


@dataclass(frozen=True)
class Scheme:
    """A kind of data. home: "module:function" of open_examples(place, config, *, classes) -> Splits."""

    home: str
    place: str = ""  # what follows the colon; "" where nothing does

    @property
    def is_path(self) -> bool:
        """Whether the place is one on this machine, which may be spelled in several ways, and may move."""
        return self.place in ("DIR", "FILE", "PATH")


SCHEMES = {
    "digits": Scheme("fmjax.data.sources.digits:open_examples"),
    "folder": Scheme("fmjax.data.sources.folder:open_examples", place="DIR"),
    "images": Scheme("fmjax.data.sources.images:open_examples", place="PATH"),
    "masks": Scheme("fmjax.data.sources.masks:open_examples", place="DIR"),
    "csv": Scheme("fmjax.data.sources.csv:open_examples", place="FILE"),
    "arrayrecord": Scheme("fmjax.data.sources.arrayrecord:open_examples", place="DIR"),
    "parquet": Scheme("fmjax.data.sources.parquet:open_examples", place="PATH"),
    "wds": Scheme("fmjax.data.sources.wds:open_examples", place="PATH"),
    "hf": Scheme("fmjax.data.sources.hf:open_examples", place="NAME"),
    "tfds": Scheme("fmjax.data.sources.tfds:open_examples", place="NAME"),
}


def scheme_of(source: str) -> tuple[Scheme, str]:
    """(scheme, place) of a `--data.source`. Raises UsageError for what names no kind of data."""
    name, colon, place = source.partition(":")
    scheme = SCHEMES.get(name)
    # what has a place needs one, and what has none takes none
    if scheme is None or bool(scheme.place) != bool(place) or bool(scheme.place) != bool(colon):
        raise UsageError(f"--data.source is {source!r}; it must be {_spellings()}")
    return scheme, place


def _spellings() -> str:
    """All that there are, as a sentence lists them."""
    spelled = [f"{name}:{scheme.place}".rstrip(":") for name, scheme in SCHEMES.items()]
    *most, last = [f'"{each}"' for each in spelled]
    return f"{', '.join(most)} or {last}"
