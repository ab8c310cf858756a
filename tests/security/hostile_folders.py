"""Folders that are not what they seem: name -> (what makes them, part of the refusal or of the lines that they get).

A layout that is refused has its sentence after "!"; otherwise the parts of what is said are given, first the sizes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.security.pictures import noise

Make = Callable[[Path], None]
ESCAPES = "\x1b]0;owned\x07\x1b[2J"
PLAIN = "4 train, 0 val, 2 classes"


def fill(folder: Path, count: int = 2, seed: int = 0) -> None:
    """Different small pictures: no two folders with other seeds share one."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(noise(4 + seed, 4 + number, "PNG"))


def two(root: Path, seed: int = 0) -> None:
    fill(root / "cat", seed=2 * seed)
    fill(root / "dog", seed=2 * seed + 1)


def split(root: Path, train: str = "train", val: str = "val") -> None:
    two(root / train)
    two(root / val, seed=5)


def link_to_parent(root: Path) -> None:
    two(root)
    (root / "cat" / "again").symlink_to("..")
    (root / "cat" / "self").symlink_to(".")


def class_is_root(root: Path) -> None:
    two(root)
    (root / "all").symlink_to(".")


def class_twice(root: Path) -> None:
    two(root)
    (root / "feline").symlink_to("cat")


def class_outside(root: Path) -> None:
    fill(root / "cat")
    fill(root.with_name(f"{root.name}-elsewhere"), seed=3)
    (root / "dog").symlink_to(root.with_name(f"{root.name}-elsewhere"))


def pipe_as_class(root: Path) -> None:
    two(root)
    os.mkfifo(root / "bird")


def pipe_as_image(root: Path) -> None:
    two(root)
    os.mkfifo(root / "cat" / "x.png")
    (root / "cat" / "zero.png").symlink_to("/dev/zero")
    (root / "dog" / "gone.png").symlink_to("nowhere.png")


def escapes(root: Path) -> None:
    two(root)
    (root / ESCAPES).mkdir()


def escaping_file(root: Path) -> None:
    two(root)
    (root / "cat" / f"{ESCAPES}.txt").touch()


def deep(root: Path) -> None:
    two(root)
    here = root / "cat"
    for _ in range(500):
        here /= "d"
        here.mkdir()
    (here / "deep.png").write_bytes(noise(9, 9, "PNG"))


def many_empty(root: Path) -> None:
    for number in range(5_000):
        (root / f"{number:04}").mkdir(parents=True)


def not_text(root: Path) -> None:
    two(root)
    os.mkdir(os.fsencode(root) + b"/\xff\xfe")
    with open(os.fsencode(root) + b"/\xff\xfe/a\xe9.png", "wb") as file:
        file.write(noise(8, 8, "PNG"))
    with open(os.fsencode(root) + b"/cat/b\xe9.tmp", "wb") as file:
        file.write(b"x")


def closed(root: Path) -> None:
    two(root)
    (root / "cat").chmod(0)


def closed_below(root: Path) -> None:
    two(root)
    (root / "cat" / "inner").mkdir(mode=0)


def long_names(root: Path) -> None:
    two(root)
    for number in range(300):
        (root / "cat" / f"{number:03}{'a' * 240}.txt").touch()


def same_file(root: Path) -> None:
    two(root)
    os.link(root / "cat" / "0.png", root / "dog" / "hard.png")
    (root / "dog" / "soft.png").symlink_to("../cat/1.png")


def case_twins(root: Path) -> None:
    two(root)
    fill(root / "Cat", seed=9)


def accent_twins(root: Path) -> None:
    fill(root / "caf\u00e9")
    fill(root / "cafe\u0301", seed=3)


def dots(root: Path) -> None:
    two(root)
    fill(root / "cat. .", seed=9)


def litter(root: Path) -> None:
    two(root)
    for name in ("__MACOSX", "@eaDir", ".thumbnails", "cat/@eaDir"):
        fill(root / name, 1)
    for name in (".DS_Store", "cat/._0.png", "Thumbs.db"):
        (root / name).write_bytes(b"x")


def strangers(root: Path) -> None:
    split(root)
    fill(root, 3)
    fill(root / "train", 2)
    fill(root / "extra", 1)
    for name in ("README", "notes.txt", "train/cat/a.heic", "train/cat/noname", "val/dog/b.HEIC"):
        (root / name).write_bytes(b"x")


def train_is_a_file(root: Path) -> None:
    two(root / "val")
    (root / "train").write_bytes(b"x")


def val_is_a_file(root: Path) -> None:
    two(root / "train")
    (root / "val").write_bytes(b"x")


def val_is_train(root: Path) -> None:
    two(root / "train")
    (root / "val").symlink_to("train")


def val_is_a_copy(root: Path) -> None:
    two(root / "train")
    shutil.copytree(root / "train", root / "val")


def val_links_into_train(root: Path) -> None:
    two(root / "train")
    fill(root / "val" / "cat", 1, seed=9)
    (root / "val" / "dog").symlink_to("../train/dog")


def three_parts(root: Path) -> None:
    split(root, "Train", "Validation")
    two(root / "TEST", seed=8)


def no_val(root: Path) -> None:
    two(root / "train")
    two(root / "test", seed=8)


def no_train(root: Path) -> None:
    two(root / "valid")
    two(root / "test", seed=8)


def flat_parts(root: Path) -> None:
    fill(root / "val")
    fill(root / "test", seed=3)


def both_cases(root: Path) -> None:
    split(root)
    two(root / "Train", seed=8)


def two_vals(root: Path) -> None:
    split(root)
    two(root / "valid", seed=8)


def vehicles(root: Path) -> None:
    for number, name in enumerate(("bus", "plane", "train")):
        fill(root / name, seed=number)


def nested(root: Path) -> None:
    fill(root / "animals" / "bird")
    fill(root / "animals" / "fish", seed=1)
    fill(root / "plants" / "rose", seed=2)


def set_in_a_set(root: Path) -> None:
    fill(root / "cat")
    split(root / "dataset")


def val_case(root: Path) -> None:
    two(root / "train")
    two(root / "val", seed=5)
    (root / "val" / "cat").rename(root / "val" / "Cat")


def empty(root: Path) -> None:
    root.mkdir(parents=True)


def is_a_file(root: Path) -> None:
    root.write_bytes(b"x")


LAYOUTS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "circle": (link_to_parent, (PLAIN, "2 links to folders (cat/again)")),
    "class-is-root": (class_is_root, ("!all and .* are one folder, by a link",)),
    "class-twice": (class_twice, ("!feline and cat are one folder, by a link",)),
    "class-outside": (class_outside, (PLAIN,)),
    "pipe-class": (pipe_as_class, (PLAIN, "1 pipes, sockets or devices (bird)")),
    "pipe-image": (
        pipe_as_image,
        (PLAIN, "2 pipes, sockets or devices (cat/x.png)", "1 links to nothing (dog/gone.png)"),
    ),
    "escapes": (escapes, (r"!classes without images: \\x1b]0;owned",)),
    "escaping-file": (
        escaping_file,
        (PLAIN, r"1 with another suffix (cat/\x1b]0;owned\x07\x1b[2J.txt)"),
    ),
    "deep": (
        deep,
        ("5 train, 0 val", "1 image in folders below a class folder, counted for the class"),
    ),
    "many-empty": (
        many_empty,
        ("!classes without images: 0000, 0001, 0002, 0003, 0004 and 4,995 more",),
    ),
    "not-text": (
        not_text,
        ("5 train, 0 val, 3 classes", r"1 with another suffix (cat/b\udce9.tmp)"),
    ),
    "closed": (closed, ("!cat cannot be opened: Permission denied",)),
    "closed-below": (closed_below, (PLAIN, "1 folders that cannot be opened (cat/inner)")),
    "long-names": (long_names, (PLAIN, "300 with another suffix (...aaa")),
    "same-file": (same_file, ("6 train", "2 images are in two classes, by links")),
    "case-twins": (case_twins, ("!the classes 'Cat' and 'cat', which differ in letter case",)),
    "accent-twins": (accent_twins, ("!which differ in letter case, accents or spaces only",)),
    "dots": (dots, ("!the classes 'cat' and 'cat. .', which differ",)),
    "litter": (litter, (PLAIN, "7 hidden or of the system (")),
    "strangers": (
        strangers,
        (
            *(
                "4 train, 4 val, 2 classes",
                "1 folders beside train/ (extra)",
                "2 without a suffix (README)",
            ),
            *("3 with another suffix (notes.txt)", "5 outside the class folders (0.png)"),
        ),
    ),
    "train-is-a-file": (
        train_is_a_file,
        ("!has val/ and no train/; name one of them, as in folder:DIR/val",),
    ),
    "val-is-a-file": (val_is_a_file, (PLAIN, "1 without a suffix (val)")),
    "val-is-train": (val_is_train, ("!val is train/ itself, by a link",)),
    "val-is-a-copy": (
        val_is_a_copy,
        ("4 train, 4 val", "4 of 4 val images are in train too, byte for byte"),
    ),
    "val-links-into-train": (
        val_links_into_train,
        ("4 train, 3 val", "2 of 3 val images are in train too"),
    ),
    "three-parts": (
        three_parts,
        ("4 train, 4 val, 2 classes", "TEST/ is left out; to score a run on it, name it"),
    ),
    "no-val": (no_val, (PLAIN, "test/ is left out")),
    "no-train": (no_train, ("!has test/, valid/ and no train/",)),
    "flat-parts": (flat_parts, ("!has test/, val/ and no train/",)),
    "both-cases": (both_cases, ("!has both Train/ and train/",)),
    "two-vals": (two_vals, ("!has both val/ and valid/",)),
    "vehicles": (vehicles, ("6 train, 0 val, 3 classes",)),
    "nested": (
        nested,
        (
            "6 train, 0 val, 2 classes",
            "6 images in folders below a class folder, counted for the class",
        ),
    ),
    "set-in-a-set": (set_in_a_set, ("!the class folder .*dataset has train/ and val/ in it",)),
    "val-case": (val_case, (r"!classes that the training set has not: Cat \(Cat for cat\?\)",)),
    "empty": (empty, ("!has no class folders",)),
    "is-a-file": (is_a_file, ("!no folder",)),
}
