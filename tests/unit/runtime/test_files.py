# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The units of the replicated files, and how their copies are told; ha_manager's part with a systemd that is made up."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swg_ha import copying, files, units
from swg_ha.control import Refused
from swg_ha.files import Files, describe, difference, entries, identify, retry_after, unit_texts
from swg_ha.peer import PeerError, PeerRefused
from swg_ha.plan import Skip
from swg_ha.role import ACTIVE, PASSIVE
from swg_ha.shared import module_xml
from swg_ha.shared.module_xml import ReplicatedFile
from swg_ha.steps import files as step
from swg_ha.steps import graphs

SHADOW = ReplicatedFile("/etc/shadow", True, None, "root:shadow")
ARCHIVE = ReplicatedFile("/var/logserver/archive", False, 60, "root:root")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/shadow",
        "/etc/policyserver/.license",
        "/.hidden",
        "/a b",
        "/a-b/c",
        "/ä/ö",
        "/a\\b",
        "/a%b",
        "/a\"b'c",
        "/-x",
        "/a:b_c.d",
        "/x ",
    ],
)
def test_an_id_is_what_systemd_makes_of_a_path(name: str) -> None:
    try:
        said = subprocess.run(["systemd-escape", "--path", "--", name], capture_output=True, text=True, check=True, timeout=10)
    except FileNotFoundError:
        pytest.skip("there is no systemd-escape here")
    assert identify(name) == said.stdout.strip()


def test_a_long_name_has_a_short_id_of_its_own() -> None:
    one, other = "/" + "a/" * 300 + "x", "/" + "a/" * 300 + "y"
    assert identify(one) != identify(other)
    assert len(f"ha_changed@{identify(one)}.service") <= 255
    [path] = [text for unit, text in unit_texts(entries([ReplicatedFile(one + "%", True, None, "a:b")])).items() if unit.endswith(".path")]
    assert f"PathModified={one}%%\n" in path


def test_what_is_watched_has_a_path_unit_and_what_is_not_a_timer_at_its_interval() -> None:
    texts = unit_texts(entries([SHADOW, ARCHIVE]))
    assert set(texts) == {
        "ha_file@etc-shadow.path",
        "ha_file@etc-shadow.timer",
        "ha_file@var-logserver-archive.timer",
        "ha_files.target.d/entries.conf",
    }
    assert "PathModified=%f\nUnit=ha_changed@etc-shadow.service\n" in texts["ha_file@etc-shadow.path"]
    assert "OnUnitActiveSec=60\nAccuracySec=6\nUnit=ha_copy@var-logserver-archive.service\n" in texts["ha_file@var-logserver-archive.timer"]
    assert "OnUnitActiveSec=3600\n" in texts["ha_file@etc-shadow.timer"]
    assert texts["ha_files.target.d/entries.conf"].count("Wants=") == 5


def test_a_list_that_is_the_same_makes_no_difference() -> None:
    wanted = entries([SHADOW, ARCHIVE])
    assert not difference(unit_texts(wanted), wanted)


def test_a_change_of_the_list_is_a_change_of_its_units_alone() -> None:
    before = unit_texts(entries([SHADOW, ARCHIVE]))
    quicker = ReplicatedFile("/var/logserver/archive", False, 5, "root:root")
    change = difference(before, entries([SHADOW, quicker]))
    assert (list(change.write), change.remove, change.stop) == (["ha_file@var-logserver-archive.timer"], [], [])
    assert change.restart == ["ha_file@var-logserver-archive.timer"]

    change = difference(before, entries([ARCHIVE, ReplicatedFile("/new", True, None, "a:b")]))
    assert set(change.write) == {"ha_file@new.path", "ha_file@new.timer", "ha_files.target.d/entries.conf"}
    assert set(change.remove) == {"ha_file@etc-shadow.path", "ha_file@etc-shadow.timer"}
    assert change.stop == files.units_of("etc-shadow")

    watched = ReplicatedFile("/var/logserver/archive", True, None, "root:root")
    change = difference(unit_texts(entries([watched])), entries([ARCHIVE]))
    assert "ha_file@var-logserver-archive.path" in change.remove
    assert {"ha_file@var-logserver-archive.path", "ha_tree@var-logserver-archive.service"} <= set(change.stop)


GOOD = {"good_at": ["1000"], "good_seconds": ["0.5"], "good_bytes": ["10"], "good_size": ["20"], "good_entries": ["1"], "failures": ["2"]}


def described(file: ReplicatedFile, state: copying.Fields, *, waiting: float | None = None, now: float = 1010) -> dict[str, Any]:
    [entry] = entries([file]).values()
    return describe(entry, state, waiting, {}, now)


def test_a_good_copy() -> None:
    one = described(SHADOW, GOOD)
    assert (one["age_seconds"], one["bytes"], one["size"], one["seconds"], one["failures"]) == (10, 10, 20, 0.5, 2)
    assert (one["code"], one["error"], one["absent"]) == (None, None, False)
    assert one["last_good"] == "1970-01-01T00:16:40.000+00:00"


@pytest.mark.parametrize(
    ("file", "state", "waiting", "now", "code"),
    [
        (SHADOW, GOOD, None, 9e9, None),
        (SHADOW, GOOD, 30.0, 1010, None),
        (SHADOW, GOOD, 70.0, 1010, "FILE_STALE"),
        (ARCHIVE, GOOD, None, 1230, None),
        (ARCHIVE, GOOD, None, 1250, "FILE_STALE"),
        (ARCHIVE, GOOD | {"seconds": ["600"]}, None, 1250, None),
        (ARCHIVE, GOOD | {"code": ["FILE_SOURCE_EMPTY"], "error": ["it is empty"]}, None, 1250, "FILE_SOURCE_EMPTY"),
        (SHADOW, {"good_absent": ["1"], "good_at": ["1000"]}, None, 1010, None),
        (SHADOW, {}, None, 1010, None),
    ],
)
def test_older_than_it_should_be(file: ReplicatedFile, state: copying.Fields, waiting: float | None, now: float, code: str | None) -> None:
    assert described(file, state, waiting=waiting, now=now)["code"] == code


def test_what_fails_is_tried_again_less_and_less_often() -> None:
    assert retry_after(GOOD) is None
    after = [retry_after({"code": ["FILE_FAILED"], "in_a_row": [str(times)]}) for times in (1, 2, 3, 6, 50)]
    assert after == [2, 4, 8, 60, 60]


# With a systemd that is made up


class Systemd:
    """Keeps what was asked of it; the target runs when it was started."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.running = False

    async def start(self, unit: str, timeout: float = 60) -> None:
        self.asked.append(("start", unit))
        self.running |= unit == files.TARGET

    async def stop(self, unit: str, timeout: float = 60) -> None:
        self.asked.append(("stop", unit))
        self.running &= unit != files.TARGET

    async def restart(self, unit: str, timeout: float = 60) -> None:
        self.asked.append(("restart", unit))

    async def daemon_reload(self) -> None:
        self.asked.append(("daemon-reload", ""))

    async def is_active(self, unit: str) -> bool:
        return self.running


class Link:
    """The peer link: what the other server was asked."""

    connected = True

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.error: PeerError | None = None

    async def request(self, kind: str, body: Any, timeout: float) -> dict[str, Any]:
        self.requests.append((kind, body))
        if self.error:
            raise self.error
        return {}


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Systemd:
    made_up = Systemd()
    for name in ("start", "stop", "restart", "daemon_reload", "is_active"):
        monkeypatch.setattr(units, name, getattr(made_up, name))
    return made_up


def make(tmp_path: Path, link: Link, *listed: ReplicatedFile) -> Files:
    for folder in ("units", "etc"):
        (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "etc/ha_files.target").touch()
    return Files(
        settings(*listed),
        link,  # type: ignore[arg-type]
        lambda: None,
        run=tmp_path / "run",
        state=tmp_path / "state",
        folder=tmp_path / "units",
        installed=tmp_path / "etc/ha_files.target",
        module=tmp_path / "module.xml",
    )


def settings(*listed: ReplicatedFile) -> Any:
    return SimpleNamespace(peer_node="ps2", links=("first", "second"), files=listed)


def test_the_active_server_copies_and_the_passive_one_does_not(tmp_path: Path, systemd: Systemd) -> None:
    async def scenario() -> None:
        link = Link()
        mine = make(tmp_path, link, SHADOW)
        mine.follow(ACTIVE)
        await mine._settle()
        assert systemd.asked == [("daemon-reload", ""), ("start", files.TARGET)]
        assert (tmp_path / "run/etc-shadow.changed").exists()
        entry = copying.read(str(tmp_path / "run/etc-shadow.entry"))
        assert (entry["name"], entry["link"]) == (["/etc/shadow"], ["link1", "link0"])
        assert link.requests == [("files", {"files": [asdict(SHADOW)], "written": 0.0})]
        await mine._settle()
        assert len(systemd.asked) == 2 and len(link.requests) == 1
        mine.follow(None)
        mine.follow(PASSIVE)
        await mine._settle()
        assert systemd.asked[2:] == [("stop", files.TARGET)]

    asyncio.run(scenario())


def test_a_new_list_is_made_and_told_and_what_went_is_forgotten(tmp_path: Path, systemd: Systemd) -> None:
    async def scenario() -> None:
        link = Link()
        mine = make(tmp_path, link, SHADOW)
        mine.follow(ACTIVE)
        await mine._settle()
        copying.write(str(tmp_path / "state/etc-shadow"), GOOD)
        systemd.asked.clear()
        mine.take(settings(ARCHIVE))
        await mine._settle()
        assert systemd.asked == [*(("stop", unit) for unit in files.units_of("etc-shadow")), ("daemon-reload", ""), ("start", files.TARGET)]
        assert sorted(path.name for path in (tmp_path / "units").rglob("*") if path.is_file()) == [
            "entries.conf",
            "ha_file@var-logserver-archive.timer",
        ]
        assert not [path for folder in ("run", "state") for path in (tmp_path / folder).iterdir() if "shadow" in path.name]
        assert link.requests[1:] == [("files", {"files": [asdict(ARCHIVE)], "written": 0.0})]

    asyncio.run(scenario())


def test_a_new_list_that_came_to_nothing_half_way_is_made_whole(tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        mine = make(tmp_path, Link(), ARCHIVE)
        mine.follow(ACTIVE)
        await mine._settle()
        mine.take(settings(replace(ARCHIVE, interval=90)))

        async def refused(unit: str, timeout: float = 60) -> None:
            raise units.UnitError(f"{unit} cannot be restarted")

        with monkeypatch.context() as patch:
            patch.setattr(units, "restart", refused)
            await mine._settle()
        assert mine.problem is not None
        systemd.asked.clear()
        await mine._settle()
        assert ("restart", "ha_file@var-logserver-archive.timer") in systemd.asked and mine.problem is None
        systemd.asked.clear()
        mine._outdated = True
        await mine._settle()
        assert systemd.asked == []

    asyncio.run(scenario())


def test_the_other_server_is_told_again_when_it_comes_back(tmp_path: Path, systemd: Systemd) -> None:
    async def scenario() -> None:
        link = Link()
        link.error = PeerError("LOST", "it went away")
        mine = make(tmp_path, link, SHADOW)
        mine.follow(ACTIVE)
        await mine._settle()
        await mine._settle()
        assert len(link.requests) == 2
        link.error = None
        await mine._settle()
        (tmp_path / "run/etc-shadow.changed").unlink()
        mine.peer_changed(True)
        assert (tmp_path / "run/etc-shadow.changed").exists()
        await mine._settle()
        assert len(link.requests) == 4

    asyncio.run(scenario())


def test_what_failed_is_asked_for_again(tmp_path: Path, systemd: Systemd) -> None:
    async def scenario() -> None:
        mine = make(tmp_path, Link(), SHADOW)
        mine.follow(ACTIVE)
        await mine._settle()
        flag = tmp_path / "run/etc-shadow.changed"
        flag.unlink()
        copying.write(str(tmp_path / "state/etc-shadow"), {"code": ["FILE_FAILED"], "error": ["no way"], "in_a_row": ["1"], "ended": ["1"]})
        await mine._settle()
        assert flag.exists()
        assert list(mine.problems()) == [("FILE_FAILED", "/etc/shadow: no way")]

    asyncio.run(scenario())


def test_the_passive_server_puts_the_list_into_its_configuration(tmp_path: Path, systemd: Systemd) -> None:
    async def scenario() -> None:
        module = tmp_path / "module.xml"
        module.write_bytes(module_xml.edit(module_xml.SKELETON, {"files_to_replicate": [asdict(SHADOW)]}))
        mine = make(tmp_path, Link(), SHADOW)
        mine.follow(PASSIVE)
        before, newer = module.read_bytes(), module.stat().st_mtime + 1
        assert await mine.listen({"files": [asdict(SHADOW)], "written": newer}) is False
        # A playbook has written this server's list after that of the active one was read.
        with pytest.raises(PeerRefused, match="was written later, and lists other files"):
            await mine.listen({"files": [asdict(ARCHIVE)], "written": newer - 2})
        assert await mine.listen({"files": [asdict(SHADOW)], "written": newer - 2}) is False
        assert module.read_bytes() == before
        assert await mine.listen({"files": [asdict(ARCHIVE)], "written": newer}) is True
        assert module_xml.parse(module.read_bytes()).files_to_replicate == (ARCHIVE,)
        for wrong in ([{"name": "/../x", "inotify": True, "permissions": "a:b"}], [{"name": "/x", "colour": 1}], ["/x"], 7, None):
            with pytest.raises(PeerRefused) as refused:
                await mine.listen({"files": wrong, "written": newer + 1e6})
            assert refused.value.code == "INVALID"
        assert module_xml.parse(module.read_bytes()).files_to_replicate == (ARCHIVE,)
        mine.follow(ACTIVE)
        with pytest.raises(PeerRefused):
            await mine.listen({"files": [asdict(SHADOW)], "written": newer + 1e6})

    asyncio.run(scenario())


def test_on_demand(tmp_path: Path, systemd: Systemd) -> None:
    async def scenario() -> None:
        mine = make(tmp_path, Link(), SHADOW, ARCHIVE)
        with pytest.raises(Refused, match="run it on ps2"):
            await mine.replicate(None, False, print)
        mine.follow(ACTIVE)
        await mine._settle()
        with pytest.raises(Refused, match="/etc/shadow, /var/logserver/archive"):
            await mine.replicate("/etc/passwd", False, print)
        (tmp_path / "run/etc-shadow.changed").unlink()
        said: list[str] = []
        asked = asyncio.create_task(mine.replicate("/etc/shadow", True, said.append))
        while not (tmp_path / "run/etc-shadow.changed").exists():
            await asyncio.sleep(0.01)
        copying.write(str(tmp_path / "state/etc-shadow"), GOOD | {"attempt": ["9000000000"], "good_seconds": ["0.25"]})
        await asyncio.sleep(0.5)
        assert not asked.done(), "a copy that does not know yet what is accepted is no answer"
        (tmp_path / "run/etc-shadow.accept").unlink()
        answer = await asked
        assert said == ["/etc/shadow: 10 B in 0.2 s"] and answer["files"][0]["name"] == "/etc/shadow"
        copying.write(
            str(tmp_path / "state/etc-shadow"), {"attempt": ["9000000000"], "code": ["FILE_FAILED"], "error": ["the disk is full"]}
        )
        with pytest.raises(Refused, match="/etc/shadow: the disk is full"):
            await mine.replicate("/etc/shadow", False, said.append)

    asyncio.run(scenario())


def test_before_a_hand_over_what_has_changed_is_waited_for(tmp_path: Path, systemd: Systemd) -> None:
    async def scenario() -> None:
        mine = make(tmp_path, Link(), SHADOW)
        await mine.start()
        assert not await mine.drain(0.1)
        (tmp_path / "run/etc-shadow.changed").unlink()
        assert await mine.drain(0.1)
        with copying._Slot(str(tmp_path / "run"), "etc-shadow"):
            assert not await mine.drain(0.1)

    asyncio.run(scenario())


def test_without_the_role_nothing_is_done(tmp_path: Path, systemd: Systemd) -> None:
    async def scenario() -> None:
        mine = make(tmp_path, Link(), SHADOW)
        (tmp_path / "etc/ha_files.target").unlink()
        mine.follow(ACTIVE)
        await mine._settle()
        assert systemd.asked == [] and not (tmp_path / "run").exists()
        with pytest.raises(Refused, match="enable_ha"):
            await mine.replicate(None, False, print)

    asyncio.run(scenario())


def test_the_steps_say_what_they_did(tmp_path: Path, systemd: Systemd) -> None:
    async def scenario() -> None:
        mine = make(tmp_path, Link(), SHADOW, ARCHIVE)
        world: Any = SimpleNamespace(files=mine, settings=settings())
        assert await step.start(world) == "2 are copied to ps2 when they change"
        for flag in (tmp_path / "run").glob("*.changed"):
            flag.unlink()
        assert await step.finish(world) == "stopped, with everything copied"
        assert await step.stop(world) == "it did not run"
        (tmp_path / "etc/ha_files.target").unlink()
        for run in (step.start, step.finish, step.stop):
            with pytest.raises(Skip):
                await run(world)

    asyncio.run(scenario())


def test_files_are_copied_after_what_was_staged_is_installed() -> None:
    names = [each.name for each in graphs.BECOME_ACTIVE]
    assert names.index("files") > names.index("staged_files")
    assert "staged_files" in step.START.needs and not step.START.essential
    for graph in (graphs.FENCE, graphs.ABANDON, graphs.HAND_OVER):
        [first] = [each for each in graph if each.name == "files"]
        # Nobody waits for it.
        assert first.needs == () and not [each for each in graph if "files" in each.needs]
    [last] = [each for each in graphs.PLANNED if "files" in each.needs]
    assert last.name == "release_address"
