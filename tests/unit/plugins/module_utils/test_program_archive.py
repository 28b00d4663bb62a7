# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.swg.ha.plugins.module_utils.program_archive import collected, packed, unpacked


def test_files_come_out_as_they_went_in(tmp_path):
    (tmp_path / "steps").mkdir()
    for name in ("daemon.py", "steps/promote.py", "steps/notes.txt", "other.txt"):
        (tmp_path / name).write_text(f"# {name} ä\n", encoding="utf-8")
    files = collected(tmp_path, ["*.py", "steps/*.py", "other.txt"])
    assert list(files) == ["daemon.py", "steps/promote.py", "other.txt"]
    assert unpacked(packed(files)) == {name: f"# {name} ä\n".encode() for name in files}


def test_a_pattern_that_fits_nothing_is_told(tmp_path):
    with pytest.raises(ValueError, match="no file fits shared/arp.py below"):
        collected(tmp_path, ["shared/arp.py"])


@pytest.mark.parametrize("name", ["/etc/passwd", "../other.py", "steps/../../other.py", "..", "./daemon.py"])
def test_no_file_leaves_its_folder(name):
    with pytest.raises(ValueError, match="no path below the folder"):
        unpacked(packed({name: ""}))


@pytest.mark.parametrize("archive", ["", "!", "bm8=", packed({})[:-4]])
def test_what_is_no_archive_is_told(archive):
    with pytest.raises(ValueError, match="the archive cannot be read"):
        unpacked(archive)
