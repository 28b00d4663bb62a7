# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Steps that work with files and programs, tried with real ones."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swg_ha import health, processes
from swg_ha.installing import Stopped
from swg_ha.installs import Installs
from swg_ha.plan import Skip, Step, StepFailed
from swg_ha.record import Record, Store, newest
from swg_ha.settings import Commands, Limits, Paths
from swg_ha.shared import module_xml
from swg_ha.shared.heartbeat import RC_TIMEOUT
from swg_ha.steps import claim, conf_ready, hand_over, policy_server, staged_files, stop_database
from swg_ha.steps.world import command

GO = threading.Event()


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_configuration_that_is_ready_becomes_the_base(tmp_path: Path) -> None:
    ready, base = tmp_path / "conf_ready", tmp_path / "policy" / "base"
    (ready / "global").mkdir(parents=True)
    (ready / "global/a.xml").write_text("new")
    (ready / "link").symlink_to("global/a.xml")
    conf_ready.install(ready, base, GO)
    assert tree(base) == {"global/a.xml": "new", "link": "new"}
    assert (base / "link").is_symlink()

    (ready / "global/a.xml").write_text("newer")
    (base / "left over").write_text("of the old base")
    conf_ready.install(ready, base, GO)
    assert tree(base) == {"global/a.xml": "newer", "link": "newer"}
    assert [path.name for path in base.parent.iterdir()] == ["base"]


def test_a_copy_that_was_cut_off_does_no_harm(tmp_path: Path) -> None:
    ready, base = tmp_path / "conf_ready", tmp_path / "base"
    ready.mkdir()
    (ready / "a").write_text("new")
    (tmp_path / ".base.new").mkdir()
    (tmp_path / ".base.new/half").write_text("of an earlier one")
    conf_ready.install(ready, base, GO)
    assert tree(base) == {"a": "new"}


def test_a_base_that_is_like_it_is_left_alone(tmp_path: Path) -> None:
    ready, base = tmp_path / "conf_ready", tmp_path / "base"
    (ready / "global").mkdir(parents=True)
    (ready / "global/a.xml").write_text("new")
    (ready / "link").symlink_to("/etc")
    os.chown(ready / "global/a.xml", 1234, 1234)
    assert conf_ready.install(ready, base, GO)
    assert (base / "global/a.xml").stat().st_uid == 1234 and os.readlink(base / "link") == "/etc"
    before = base.stat().st_ino
    assert not conf_ready.install(ready, base, GO)
    assert base.stat().st_ino == before
    (ready / "global/b.xml").write_text("more")
    same = (base / "global/a.xml").stat().st_ino
    assert conf_ready.install(ready, base, GO)
    # Not copied again, and in one tree alone.
    assert ((base / "global/a.xml").stat().st_ino, (base / "global/a.xml").stat().st_nlink) == (same, 1)
    assert tree(base) == {"global/a.xml": "new", "global/b.xml": "more"}
    before = base.stat().st_ino
    (ready / "global/a.xml").chmod(0o600)
    assert conf_ready.install(ready, base, GO)
    assert base.stat().st_ino != before


def test_a_base_that_root_has_moved_by_a_link_stays_there(tmp_path: Path) -> None:
    ready, base = tmp_path / "conf_ready", tmp_path / "base"
    (tmp_path / "big/base").mkdir(parents=True)
    base.symlink_to("big/base")
    ready.mkdir()
    (ready / "a").write_text("new")
    conf_ready.install(ready, base, GO)
    assert base.is_symlink() and tree(tmp_path / "big/base") == {"a": "new"}


def test_what_is_ready_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "conf_ready").symlink_to("secret")
    with pytest.raises(OSError, match="a folder is expected"):
        conf_ready.install(tmp_path / "conf_ready", tmp_path / "base", GO)


def test_a_copy_that_is_not_wanted_any_more_leaves_the_base_as_it_was(tmp_path: Path) -> None:
    ready = tmp_path / "conf_ready"
    ready.mkdir()
    (ready / "a").write_text("new")
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        conf_ready.install(ready, tmp_path / "base", stop)
    assert [path.name for path in tmp_path.iterdir()] == ["conf_ready"]


def world(tmp_path: Path, *, record: Record | None, due: bool = False) -> SimpleNamespace:
    """As much of it as these steps work with."""
    store, installs = Store(tmp_path / "state/record.json"), Installs(tmp_path / "state/staged.json")
    if record:
        store.update(record, lambda before: before)
    if due:
        installs.begin()
    paths = Paths(conf_ready=str(tmp_path / "conf_ready"), base=str(tmp_path / "base"), staged=str(tmp_path / "ha"))
    return SimpleNamespace(
        store=store, installs=installs, previous=None, forced=False, settings=SimpleNamespace(node="ps1", peer_node="ps2", paths=paths)
    )


def test_what_is_to_be_installed_is_on_the_disk_before_the_claim_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = world(tmp_path, record=Record(4, "ps2"))
    due: list[frozenset[str]] = []
    update = there.store.update

    def look(of: Record, change: Callable[[Record], Record]) -> Record:
        again = Installs(there.installs.path)
        again.load()
        due.append(again.due)
        return update(of, change)

    monkeypatch.setattr(there.store, "update", look)
    asyncio.run(claim.STEP.run(there))
    assert due == [{"conf_ready", "staged_files"}]
    assert there.store.record.active == "ps1"
    # Run again, as after a power cut, it stays due.
    asyncio.run(claim.STEP.run(there))
    assert there.installs.due == {"conf_ready", "staged_files"}


@pytest.mark.parametrize(
    "known", [Record(4, "ps1"), Record(4, "ps1", doubtful=True), Record(4, "ps1", given=True), Record(4, "ps2"), None], ids=str
)
def test_a_forced_claim_is_newer_than_what_the_other_server_may_have_done_since(tmp_path: Path, known: Record | None) -> None:
    there = world(tmp_path, record=known)
    there.forced = True
    asyncio.run(claim.STEP.run(there))
    theirs = Record(9, "ps2", timeline=9)
    assert newest(there.store.record, theirs) == there.store.record
    assert (there.store.record.active, there.store.record.given, there.store.record.doubtful) == ("ps1", False, False)


def test_a_forced_claim_of_a_hand_over_that_never_ended_can_be_given_back(tmp_path: Path) -> None:
    there = world(tmp_path, record=Record(4, "ps1", switch_lsn="0/42"))
    there.forced = True
    asyncio.run(claim.STEP.run(there))
    assert there.previous is not None and there.previous.given


@pytest.mark.parametrize("step", [conf_ready.STEP, staged_files.STEP])
def test_a_server_that_was_active_last_keeps_its_own_files(tmp_path: Path, step: Step[Any]) -> None:
    there = world(tmp_path, record=Record(4, "ps1"))
    asyncio.run(claim.STEP.run(there))
    with pytest.raises(Skip, match="the other server was not active since"):
        asyncio.run(step.run(there))


def test_the_step_installs_once_and_tells_what_it_refused_until_it_goes_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    license, status = tmp_path / "etc/.license", tmp_path / "etc/status.conf"
    for path in (license, status):
        staged = tmp_path / "ha" / path.relative_to("/")
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text("new")
    (tmp_path / "module.xml").write_bytes(listing({str(license): "nobody-here:root", str(status): "root:root"}))
    monkeypatch.setattr(staged_files, "MODULE_XML", tmp_path / "module.xml")
    there = world(tmp_path, record=Record(4, "ps2"), due=True)
    with pytest.raises(StepFailed, match="1 installed, 0 removed; .*nobody-here"):
        asyncio.run(staged_files.STEP.run(there))
    assert status.read_text() == "new" and not license.exists()
    assert [code for code, _text in there.installs.problems] == ["STAGED_FILE_REFUSED"]
    with pytest.raises(Skip):
        asyncio.run(staged_files.STEP.run(there))

    (tmp_path / "module.xml").write_bytes(listing({str(license): "root:root", str(status): "root:root"}))
    there.installs.begin()
    assert asyncio.run(staged_files.STEP.run(there)) == "1 installed, 0 removed"
    assert license.read_text() == "new" and there.installs.problems == ()
    there.installs.begin()
    assert asyncio.run(staged_files.STEP.run(there)) == "everything is in its place"


def listing(files: dict[str, str]) -> bytes:
    return module_xml.render(
        module_xml.Settings(files_to_replicate=tuple(module_xml.ReplicatedFile(name, True, None, owner) for name, owner in files.items()))
    )


@pytest.mark.parametrize("step", [conf_ready.STEP, staged_files.STEP])
def test_nothing_that_is_staged_is_done_at_once(tmp_path: Path, step: Step[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module.xml").write_bytes(listing({"/etc/shadow": "root:shadow"}))
    monkeypatch.setattr(staged_files, "MODULE_XML", tmp_path / "module.xml")
    there = world(tmp_path, record=Record(4, "ps2"), due=True)
    with pytest.raises(Skip, match="there is no"):
        asyncio.run(step.run(there))
    assert step.name not in there.installs.due


def test_a_step_that_is_cut_off_stops_its_thread() -> None:
    async def cut_off() -> bool:
        ended = threading.Event()

        def work(stop: threading.Event) -> None:
            if stop.wait(10):
                ended.set()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await staged_files.in_thread(work)
        return await asyncio.to_thread(ended.wait, 10)

    assert asyncio.run(cut_off())


def run(*argv: str, timeout: float = 5) -> str:
    return asyncio.run(command(argv, timeout))


def test_a_command_is_run_to_its_end(tmp_path: Path) -> None:
    assert "was run" in run(sys.executable, "-c", f"open({str(tmp_path / 'there')!r}, 'w')")
    assert (tmp_path / "there").exists()


@pytest.mark.parametrize("work", [command, lambda argv, timeout: processes.run(argv, timeout)])
def test_a_program_has_ended_though_what_it_began_holds_its_output(work: Callable[..., Any]) -> None:
    began = time.monotonic()
    said = asyncio.run(work(("/bin/sh", "-c", "echo began; sleep 30 & exit 0"), 20))
    assert said == "/bin/sh was run" or said == (0, "began\n", "")
    assert time.monotonic() - began < 10


def test_one_that_takes_too_long_is_killed_with_what_it_began(tmp_path: Path) -> None:
    began = time.monotonic()
    script = f"sleep 300 & echo $! > {tmp_path}/pid; wait"
    assert asyncio.run(processes.run(("/bin/sh", "-c", script), 1))[0] == RC_TIMEOUT
    assert time.monotonic() - began < 15
    state = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    end = time.monotonic() + 10
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] not in "ZX" and time.monotonic() < end:
        time.sleep(0.01)
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX", "it still runs"


@pytest.mark.parametrize("trouble", [OSError(5, "Input/output error"), "hangs"])
def test_a_database_that_cannot_be_looked_at_is_killed_at_a_fence(trouble: OSError | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the disk hangs as well: it would go on when that does."""
    monkeypatch.setattr(stop_database, "LOOK", 0.3)
    killed, released = [], threading.Event()

    def observe() -> None:
        if isinstance(trouble, OSError):
            raise trouble
        released.wait(20)

    async def fence() -> str:
        try:
            return await stop_database.run(SimpleNamespace(postgres=SimpleNamespace(observe=observe, kill=lambda: killed.append(1))))  # type: ignore[arg-type]
        finally:
            released.set()

    assert "killed" in asyncio.run(fence()) and killed == [1]


def test_no_command_is_a_reason_to_skip() -> None:
    with pytest.raises(Skip, match="no command is configured"):
        run()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((sys.executable, "-c", "import sys; print('first'); print('no room'); sys.exit(3)"), "exited with 3: no room"),
        ((sys.executable, "-c", "import sys; sys.exit(4)"), "exited with 4: it printed nothing"),
        (("/etc/passwd",), "/etc/passwd: Permission denied"),
    ],
)
def test_a_command_that_fails_says_why(argv: tuple[str, ...], words: str) -> None:
    with pytest.raises(StepFailed, match=words):
        run(*argv)


def test_a_program_that_is_not_installed_is_a_reason_to_skip() -> None:
    with pytest.raises(Skip, match="/nonexistent/program is not installed"):
        run("/nonexistent/program", "start")


def test_a_script_without_its_interpreter_has_failed(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/nonexistent/shell\n")
    (tmp_path / "script").chmod(0o755)
    with pytest.raises(StepFailed, match="script: No such file"):
        run(str(tmp_path / "script"))


def test_a_command_that_hangs_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(StepFailed, match=r"did not end within 2 s, and was killed"):
        run("/bin/sh", "-c", f"echo $$ > {pid_file}; exec sleep 60", timeout=2)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


@dataclass
class Page:
    """A page over HTTP that answers what it is told to, and counts."""

    answers: list[bytes]
    asked: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"GET /health?deep=1 HTTP/1.1\r\nHost: 127.0.0.1:")
        said = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if said:
            writer.write(said)
            writer.close()


def asked(page: Page, limit: float) -> float:
    async def run() -> float:
        listening = await asyncio.start_server(page.answer, "127.0.0.1", 0)
        async with listening:
            return await health.wait([f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/health?deep=1"], limit)

    return asyncio.run(run())


def test_a_page_is_asked_until_it_is_good() -> None:
    page = Page([b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"HTTP/1.0 404 No\r\n", b"HTTP/1.1 204\r\n\r\n"])
    assert asked(page, 5) < 5
    assert page.asked == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", "answers with 500"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"x" * 10_000, "http://"),
        (b"", "has not answered within"),
    ],
)
def test_a_page_that_never_is_good_is_told_of_in_time(answer: bytes, words: str) -> None:
    with pytest.raises(health.NotHealthy, match=words):
        asked(Page([answer]), 0.4)


def test_nobody_listens() -> None:
    with pytest.raises(health.NotHealthy, match="http://127.0.0.1:1/: .*Connect call failed"):
        asyncio.run(health.wait(["http://127.0.0.1:1/"], 0.2))


def test_a_program_may_tell_as_well(tmp_path: Path) -> None:
    """It is asked again and again, so that one that takes its time is waited for."""
    flag = tmp_path / "up"
    check = ["/bin/sh", "-c", f"test -e {flag}.3 || {{ touch {flag}.$(ls {tmp_path} | wc -l); echo not yet; exit 1; }}"]
    asyncio.run(health.wait(check, 10))
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(health.NotHealthy, match="/bin/false ended with 1: it printed nothing"):
        asyncio.run(health.wait(["/bin/false"], 0.2))


def commanding(**commands: tuple[str, ...]) -> Any:
    """What the step reads of the world."""
    return SimpleNamespace(settings=SimpleNamespace(commands=Commands(**commands), limits=Limits(health_timeout=1)))


def test_the_policy_server_counts_as_started_when_it_is_up(tmp_path: Path) -> None:
    flag = tmp_path / "up"
    said = asyncio.run(
        policy_server.start(commanding(policy_server_start=("/bin/touch", str(flag)), policy_server_health=("/bin/test", "-e", str(flag))))
    )
    assert re.match(r"/bin/touch was run, up after \d+\.\d", said)
    assert asyncio.run(policy_server.start(commanding(policy_server_start=("/bin/true",)))) == "/bin/true was run"
    with pytest.raises(StepFailed, match="is not up after 1 s: /bin/false ended with 1"):
        asyncio.run(policy_server.start(commanding(policy_server_start=("/bin/true",), policy_server_health=("/bin/false",))))
    with pytest.raises(Skip):
        asyncio.run(policy_server.start(commanding(policy_server_health=("/bin/false",))))


@pytest.mark.parametrize("state, ended, forgiven", [("primary", None, False), ("primary", "0/42", True), ("stopped", None, True)])
def test_a_planned_hand_over_needs_a_clean_end_of_what_took_writes(state: str, ended: str | None, forgiven: bool) -> None:
    database = SimpleNamespace(observe=lambda: SimpleNamespace(state=state), stop=lambda deadline: ended)
    there: Any = SimpleNamespace(postgres=database, lsn=None, settings=SimpleNamespace(peer_node="ps2"))
    if forgiven:
        asyncio.run(stop_database.PLANNED.run(there))
    else:
        with pytest.raises(StepFailed, match="did not end cleanly .*ps2 may not have everything; '--force'"):
            asyncio.run(stop_database.PLANNED.run(there))
    # One that must leave leaves.
    asyncio.run(stop_database.STEP.run(there))


@pytest.mark.parametrize(
    ("synchronous", "in_sync", "lsn", "forced", "given"),
    [
        (True, True, None, False, True),
        (True, False, "0/42", False, True),
        (True, False, None, False, False),
        (True, False, None, True, True),
        (False, False, None, False, True),
    ],
)
def test_no_commit_that_was_acknowledged_alone_is_given_up(
    tmp_path: Path, synchronous: bool, in_sync: bool, lsn: str | None, forced: bool, given: bool
) -> None:
    """In synchronous mode; without a clean end nobody knows whether the other server has everything."""
    store = Store(tmp_path / "record.json")
    store.update(Record(3, "ps1", in_sync=in_sync), lambda record: record)
    asked: list[str] = []

    async def request(kind: str, body: dict[str, Any], timeout: float) -> None:
        asked.append(kind)

    settings = SimpleNamespace(node="ps1", peer_node="ps2", synchronous=synchronous)
    world: Any = SimpleNamespace(settings=settings, store=store, lsn=lsn, forced=forced, link=SimpleNamespace(request=request))
    if given:
        assert asyncio.run(hand_over.run(world)) == "ps2 serves"
    else:
        with pytest.raises(StepFailed, match="'--force' hands over all the same"):
            asyncio.run(hand_over.run(world))
    assert store.record is not None
    assert (store.record.active, asked) == (("ps2", ["take_over"]) if given else ("ps1", []))
