# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds for whatever is staged, and whatever is in its place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.runtime.staged import House, house, inodes, say, tree

thorough = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

names = st.sampled_from([b"a", b"b", b"-c", b"d e", b"new\nline", b"\xff\xfe", "\u00e4".encode(), b"%s", b"'", b".h"])
modes = st.sampled_from([0o600, 0o640, 0o644, 0o755, 0o4755, 0o400, 0o000])
folder_modes = st.sampled_from([0o700, 0o755, 0o2775, 0o1777, 0o500])
times = st.integers(10**18, 10**18 + 3)
files = st.tuples(st.just("file"), modes, st.binary(max_size=3), times)
links = st.tuples(st.just("link"), st.sampled_from([b"a", b"b/a", b"-c"]))
trees = st.recursive(
    files | links,
    lambda inner: st.tuples(st.just("folder"), folder_modes, st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)
# A link of root's in the place of the entry itself would be followed.
nothing_or_something = st.none() | trees.filter(lambda wanted: wanted[0] != "link")
folders = st.tuples(st.just("folder"), folder_modes, st.dictionaries(names, trees, max_size=5))


def make(path: bytes, wanted, *, staged: bool) -> None:
    """As it is at the other server, or as rsync --fake-super stages it."""
    kind = wanted[0]
    if kind == "link" and not staged:
        os.symlink(wanted[1], path)
    elif kind == "folder":
        os.mkdir(path)
        for name, inner in wanted[2].items():
            make(os.path.join(path, name), inner, staged=staged)
        os.chmod(path, 0o700 | wanted[1] & 0o777 if staged else wanted[1])
        if staged:
            say(Path(os.fsdecode(path)), f"{0o040000 | wanted[1]:o} 0,0 12:34")
    else:
        with open(path, "wb") as file:
            file.write(wanted[1] if kind == "link" else wanted[2])
        if kind == "file":
            os.chmod(path, 0o600 if staged else wanted[1])
            os.utime(path, ns=(wanted[3], wanted[3]))
        if staged:
            say(Path(os.fsdecode(path)), "120777 0,0 12:34" if kind == "link" else f"{0o100000 | wanted[1]:o} 0,0 12:34")


def set_up(home: House, archive: Path, wanted, there) -> None:
    for folder in (home.stage, home.other, home.place, home.replaced.parent):
        shutil.rmtree(folder, ignore_errors=True)
    for path in (archive, home.staged(archive), home.there(archive)):
        path.parent.mkdir(parents=True)
    if there is not None:
        make(os.fsencode(archive), there, staged=False)
    make(os.fsencode(home.staged(archive)), wanted, staged=True)
    make(os.fsencode(home.there(archive)), wanted, staged=False)


@thorough
@given(st.lists(st.tuples(folders, nothing_or_something), min_size=1, max_size=3))
def test_a_place_becomes_what_is_staged_and_then_rests(rounds):
    with house() as home:
        archive = home.place / "archive"
        for wanted, there in rounds:
            set_up(home, archive, wanted, there)
            outcome = home.install(archive)
            assert outcome.problems() == []
            assert tree(home.place) == tree(home.there(home.place))
            # Twice is as good as once.
            before = inodes(home.folder)
            again = home.install(archive)
            assert (again.installed, again.removed, again.problems()) == (0, 0, [])
            assert inodes(home.folder) == before


@thorough
@given(folders, nothing_or_something)
def test_what_was_there_can_be_had_back(wanted, there):
    with house() as home:
        archive = home.place / "archive"
        set_up(home, archive, wanted, there)
        before = tree(home.place)
        home.install(archive)
        after, kept = tree(home.place), tree(home.replaced / home.place.relative_to("/"))
        for name, said in before.items():
            if after.get(name) != said and said[0] != 0o040000:
                assert kept[name] == said
