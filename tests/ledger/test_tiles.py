"""Trees on disk: the names of C2SP tlog-tiles, growth in steps, and every subtree out of few stored nodes."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import merkle_naive as naive
from tutelage.ledger import merkle, tiles, verify

SIZES = (1, 2, 255, 256, 257, 511, 512, 513, 1000)
leaves_1000 = [merkle.leaf_hash(at.to_bytes(2, "big")) for at in range(1000)]


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("level", "number", "count", "name"), [
    (0, 0, 256, "0/000"), (0, 0, 1, "0/000.p/1"), (1, 7, 255, "1/007.p/255"), (0, 999, 256, "0/999"),
    (0, 1000, 256, "0/x001/000"), (0, 1234067, 256, "0/x001/x234/067"), (2, 1234067, 8, "2/x001/x234/067.p/8"),
])  # fmt: skip
def test_names_are_those_of_the_specification(level: int, number: int, count: int, name: str) -> None:
    assert tiles.tile_name(level, number, count) == name


@pytest.mark.parametrize("size", SIZES)
def test_the_verifier_expects_the_very_tiles_that_are_written(tmp_path: Path, size: int) -> None:
    tiles.write_tiles(tmp_path, leaves_1000[:size], 0)
    assert {name for _, _, name, _ in verify._tile_names(size)} == names_in(tmp_path)


def test_the_verifiers_names_reach_past_a_thousand_tiles() -> None:
    names = [name for _, _, name, _ in verify._tile_names(256 * 1001 + 5)]
    assert names[999:1002] == ["0/999", "0/x001/000", "0/x001/001.p/5"]
    assert names[1002:] == ["1/000", "1/001", "1/002", "1/003.p/233", "2/000.p/3"]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6, unique=True))
@settings(max_examples=20, deadline=None)
def test_growing_in_steps_gives_what_building_at_once_gives(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int]
) -> None:
    """Outgrown partial tiles are gone, and a whole tile that was written is never touched again."""
    grown, once = tmp_path_factory.mktemp("grown"), tmp_path_factory.mktemp("once")
    kept, written = 0, {}
    for size in sorted(steps):
        tiles.write_tiles(grown, leaves_1000[:size], kept)
        whole = {path: path.stat().st_mtime_ns for path in grown.rglob("*") if path.is_file() and ".p" not in str(path)}
        assert all(whole[path] == stamp for path, stamp in written.items())
        kept, written = size, whole
    tiles.write_tiles(once, leaves_1000[:kept], 0)
    assert names_in(grown) == names_in(once)
    assert all((grown / name).read_bytes() == (once / name).read_bytes() for name in names_in(once))


def test_a_log_read_from_its_tiles_gives_every_proof(tmp_path: Path) -> None:
    data = [at.to_bytes(2, "big") for at in range(1000)]
    tiles.write_tiles(tmp_path, leaves_1000, 0)
    stored = tiles.Tiles(tmp_path, 1000)
    assert stored.read(0, 0, 1000) == leaves_1000
    for index in (0, 255, 256, 700, 999):
        made = merkle.inclusion_proof(index, 1000, lambda a, b: tiles.subtree(stored, a, b))
        assert made == naive.path(index, data)
    for old in (1, 255, 256, 257, 768, 999):
        made = merkle.consistency_proof(old, 1000, lambda a, b: tiles.subtree(stored, a, b))
        assert made == naive.proof(old, data)


@pytest.mark.parametrize("size", SIZES)
def test_a_tree_in_level_files(tmp_path: Path, size: int) -> None:
    with tiles.LevelWriter(tmp_path / "tree") as writer:
        for leaf in leaves_1000[:size]:
            writer.append(leaf)
    assert writer.root == merkle.root(leaves_1000[:size])
    tree = tiles.Levels(tmp_path / "tree")
    assert tree.size == size
    for index in random.Random(size).sample(range(size), min(size, 8)):
        path = merkle.inclusion_proof(index, size, lambda a, b: tiles.subtree(tree, a, b))
        assert verify.root_from_inclusion(leaves_1000[index], index, size, path) == writer.root


def test_the_third_level(tmp_path: Path) -> None:
    """65,537 leaves: whole tiles two levels up, and one leaf beside them."""
    leaves = [leaf for _ in range(66) for leaf in leaves_1000][:65_537]
    with tiles.LevelWriter(tmp_path / "tree") as writer:
        for leaf in leaves:
            writer.append(leaf)
    assert writer.root == merkle.root(leaves) == verify.root_of(leaves)
    assert sorted(path.name for path in (tmp_path / "tree").iterdir()) == ["0", "1", "2"]
    tree = tiles.Levels(tmp_path / "tree")
    path = merkle.inclusion_proof(65_536, 65_537, lambda a, b: tiles.subtree(tree, a, b))
    assert path == [verify.root_of(leaves[:65_536])]


def test_an_empty_tree_and_one_that_replaces_another(tmp_path: Path) -> None:
    for size in (300, 0):
        with tiles.LevelWriter(tmp_path / "tree") as writer:
            for leaf in leaves_1000[:size]:
                writer.append(leaf)
    assert writer.root == merkle.EMPTY_ROOT
    assert tiles.Levels(tmp_path / "tree").size == 0
    assert not list((tmp_path / "tree").iterdir()), "nothing of the larger tree is left"
