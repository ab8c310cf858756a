"""Image folders: which folder is a part, which a class, what is an image, and what is left out.

Nothing is taken or dropped in silence: a layout that has two readings is refused in one sentence, and all that is not
used is counted with its reason and an example. Nothing is opened here, and links never lead in circles.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fmjax.data.images import SUFFIXES
from fmjax.errors import DataError, escaped

ROLES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
SYSTEM = frozenset(
    {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbs.db"}
)
# why something is left out
HIDDEN, DEAD, SPECIAL = "hidden or of the system", "links to nothing", "pipes, sockets or devices"
NO_SUFFIX, SUFFIX, OUTSIDE = (
    "without a suffix",
    "with another suffix",
    "outside the class folders",
)
LINKED, CLOSED, BESIDE = (
    "links to folders",
    "folders that cannot be opened",
    "folders beside train/",
)


@dataclass(frozen=True)
class LeftOut:
    """How many entries of a folder are not used for one reason, and the first of them."""

    reason: str
    count: int
    example: str


@dataclass
class Found:
    """What a folder holds, as it is being collected."""

    root: Path
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    nested: list[str] = field(default_factory=list)  # images below a folder in a class folder

    def skip(self, reason: str, path: str | Path) -> None:
        self.counts[reason] += 1
        self.examples.setdefault(reason, os.path.relpath(path, self.root))

    def left_out(self) -> tuple[LeftOut, ...]:
        return tuple(
            LeftOut(reason, count, self.examples[reason]) for reason, count in self.counts.items()
        )


def few(names: Iterable[str], limit: int = 5) -> str:
    """The first names, as they may be printed, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(escaped(name, 60) for name in names[:limit]) + more


def part_asked_for(place: str) -> tuple[Path, str]:
    """(path, part) of a place: DIR#test asks for the part "test" alone; "" is none."""
    path, mark, name = place.rpartition("#")
    role = ROLES.get(name.lower(), "")
    # a file may be called so itself
    if not mark or not role or Path(place).expanduser().exists():
        return Path(place).expanduser(), ""
    return Path(path).expanduser(), role


def parts(
    root: Path, found: Found, *, scheme: str = "folder", used: Sequence[str] = ()
) -> dict[str, Path]:
    """The folders of a set by their part: train, val and test where it is split, else {"": root}.

    used: names beside the parts that are not left out. Raises DataError where the parts cannot be told.
    """
    if not root.is_dir():
        raise DataError(
            f"no folder {escaped(str(root))}; pass folder:DIR with a folder for each class in DIR, or in DIR/train "
            f"and DIR/val"
        )
    folders = subfolders(root, Found(root))
    named = [folder for folder in folders if folder.name.lower() in ROLES]
    by_role = {ROLES[folder.name.lower()]: folder for folder in named}
    # the name alone makes no part: train/ may be a class, beside car/ and ship/
    if not named or not _are_parts(folders, named, by_role):
        return {"": root}
    # train/ and training/: whichever were taken, the other's images would be gone in silence
    for folder in named:
        other = by_role[ROLES[folder.name.lower()]]
        if other != folder:
            raise DataError(
                f"{escaped(str(root))} has both {folder.name}/ and {other.name}/; join them, or rename one"
            )
    if "train" not in by_role:
        raise DataError(
            f"{escaped(str(root))} has {few(f'{folder.name}/' for folder in named)} and no train/; name one of them, "
            f"as in {scheme}:DIR/{named[0].name}, or add train/"
        )
    # what lies beside the parts is nobody's: it is counted, so that a person sees what was not read
    for entry in entries(root):
        if root / entry.name not in named and entry.name not in used:
            found.skip(_beside(entry), entry.path)
    return by_role


def _are_parts(folders: list[Path], named: list[Path], by_role: dict[str, Path]) -> bool:
    """Whether folders called train, val or test are parts. They may be classes: a train is a vehicle, too."""
    # two parts; or nothing else; or one that holds folders, as a part has those of its classes and a class has images
    if "train" in by_role and len(by_role) > 1:
        return True
    if len(named) == len(folders) > 1:
        return True
    return any(_holds_folders(folder) for folder in named)


def _holds_folders(folder: Path) -> bool:
    return bool(subfolders(folder, Found(folder)))


def _beside(entry: os.DirEntry[str]) -> str:
    reason = left_out(entry)
    return {"": OUTSIDE, "folder": BESIDE, LINKED: BESIDE}.get(reason, reason)


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name."""
    with os.scandir(folder) as rows:
        return sorted(rows, key=lambda entry: entry.name)


def left_out(entry: os.DirEntry[str]) -> str:
    """Why an entry is no image: "" for an image, "folder" for a folder."""
    # by the name first: an archiver's ._cat.jpg ends like an image and is none
    if entry.name.startswith(".") or entry.name in SYSTEM:
        return HIDDEN
    if entry.is_symlink():
        try:
            # a link to a file is that file; one to a folder is not gone into, as it may lead in a circle
            mode = entry.stat().st_mode
        except OSError:
            return DEAD
        if stat.S_ISDIR(mode):
            return LINKED
    elif entry.is_dir():
        return "folder"
    if not entry.is_file():
        return SPECIAL
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in SUFFIXES:
        return ""
    return SUFFIX if suffix else NO_SUFFIX


def subfolders(root: Path, found: Found) -> list[Path]:
    """The folders in a folder, links to folders too; all else that is there is left out."""
    folders = []
    try:
        rows = entries(root)
    except OSError as error:
        raise DataError(f"{escaped(str(root))} cannot be opened: {error.strerror}") from error
    for entry in rows:
        reason = left_out(entry)
        if reason in ("folder", LINKED):
            folders.append(root / entry.name)
        else:
            found.skip(reason or OUTSIDE, entry.path)
    return folders


def class_folders(root: Path, found: Found) -> list[Path]:
    """The class folders of one part. Raises DataError where two of them are one class."""
    folders = subfolders(root, found)
    if not folders:
        raise DataError(
            f"{escaped(str(root))} has no class folders; put the images of each class into a folder of its own, or "
            f"pass images:DIR where no labels are needed"
        )
    _check_places(root, folders)
    check_names(escaped(str(root)), (folder.name for folder in folders))
    return folders


def _check_places(root: Path, folders: Sequence[Path]) -> None:
    """Links make one folder two classes, or a class of all the others."""
    # with the folders above: a link back to one of them would take in every other class
    above = (root, *root.absolute().parents)
    seen = {_place(folder): folder.name for folder in above}
    for folder in folders:
        place = _place(folder)
        if place in seen:
            raise DataError(
                f"in {escaped(str(root))}, {escaped(folder.name)} and {escaped(seen[place]) or '/'} are one folder, by "
                f"a link; remove the link"
            )
        seen[place] = folder.name


def _place(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def check_apart(train: Path, val: Path) -> None:
    """Raises DataError where two parts are one folder."""
    if _place(train) == _place(val):
        raise DataError(f"{escaped(str(val))} is {train.name}/ itself, by a link; remove it")


def test_note(test: Path, *, scheme: str) -> str:
    """What is said of a part that no run may look at by accident. scheme: of the `--data.source`."""
    where = f"{scheme}:{escaped(str(test))}"
    return f"{escaped(test.name)}/ is left out; to score a run on it, name it: {where}"


def folded(name: str) -> str:
    """What of a name other systems tell apart: no letter case, no kind of accent, no spaces or dots at its end."""
    return unicodedata.normalize("NFC", name).casefold().rstrip(". ")


def check_names(where: str, names: Iterable[str]) -> None:
    """Raises DataError for two classes that a person takes for one. where: what has them, as it may be printed."""
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(folded(name), name)
        if twin != name:
            raise DataError(
                f"{where} has the classes {twin!r} and {name!r}, which differ in letter case, "
                f"accents or spaces only; join them, or rename one"
            )


def images(
    folder: Path, found: Found, *, check: Callable[[Path, Sequence[str]], None] | None = None
) -> list[Path]:
    """The images of a class, those in folders below it too, in the order of paths.

    check: gets the folder and those in it. Raises DataError where it is a whole set of its own.
    """
    return [Path(path) for path in image_paths(folder, found, check=check)]


def image_paths(
    folder: Path, found: Found, *, check: Callable[[Path, Sequence[str]], None] | None = None
) -> list[str]:
    """The same as strings, of which a million take a quarter of the time and of the memory."""
    # a list of folders in the place of recursion: how deep they lie is up to the user
    paths, waiting = [], [str(folder)]
    while waiting:
        here = waiting.pop()
        try:
            # the class itself has to open; a folder below it is counted and left out
            rows = entries(here)
        except OSError as error:
            if here == str(folder):
                raise DataError(f"{escaped(here)} cannot be opened: {error.strerror}") from error
            found.skip(CLOSED, here)
            continue
        below = here != str(folder)
        for entry in rows:
            reason = left_out(entry)
            if not reason:
                paths.append(entry.path)
                if below:
                    found.nested.append(entry.path)
            elif reason == "folder":
                waiting.append(entry.path)
            else:
                found.skip(reason, entry.path)
        # only the folders right inside have been met by now, and they tell a set that was put into a class
        if not below:
            (check or _check_level)(folder, waiting)
    # as paths are ordered, by one folder after the other: no letter comes before the end of a folder's name
    return sorted(paths, key=lambda path: path.replace(os.sep, "\0"))


def roles_of(folders: Sequence[str]) -> set[str]:
    """The parts that folders are named as."""
    names = [os.path.basename(folder).lower() for folder in folders]
    return {ROLES[name] for name in names if name in ROLES}


def _check_level(folder: Path, inside: Sequence[str]) -> None:
    roles = roles_of(inside)
    if "train" in roles and len(roles) > 1:
        raise DataError(
            f"the class folder {escaped(str(folder))} has train/ and {few(roles - {'train'})}/ in it; pass it as "
            f"folder:DIR itself, or put the parts above the classes"
        )
