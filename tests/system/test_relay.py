# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each server reads the other one's log and is told its name, and nobody else is."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.pair import VIRTUAL_IP, Lab, eventually, refused

TRUST = "/etc/ha_manager/trust"
ADDRESSES = {"ps1": ("192.0.2.11", "198.51.100.11"), "ps2": ("192.0.2.12", "198.51.100.12")}
PORT = 19531
# Keys and certificates of a stranger: one self-made, and two that the server's own key and its own certificate have signed.
STRANGERS = f"""
mkdir -p /root/strangers && cd /root/strangers
openssl ecparam -name prime256v1 -genkey -noout -out tls.key
openssl req -new -x509 -key tls.key -subj /CN=ps1 -days 10 -out selfmade.crt
openssl req -new -key tls.key -subj /CN=ps1 -out request
openssl x509 -req -in request -CA {TRUST}/tls.crt -CAkey {TRUST}/tls.key -set_serial 7 -days 10 -out signed.crt
cat signed.crt {TRUST}/tls.crt > chain.crt
openssl req -new -key {TRUST}/tls.key -subj /CN=ps1 -out own.request
openssl x509 -req -in own.request -signkey {TRUST}/tls.key -days 10 -out again.crt
"""


def curl(lab: Lab, host: str, *arguments: str) -> tuple[str, str]:
    """The status of an answer, or 000 for none, and the answer itself."""
    words = ["curl", "--silent", "--max-time", "30", "--path-as-is", "--write-out", "\\n%{http_code}", *arguments]
    out = lab.try_run("exec", host, "--", *words).stdout
    body, _newline, status = out.rpartition("\n")
    return status, body


def entries(
    lab: Lab, key: str | None = f"{TRUST}/tls.key", certificate: str = f"{TRUST}/tls.crt", *, path: str = "/entries"
) -> tuple[str, str]:
    """Ask ps2 for its log from ps1, past the command ha."""
    shown = ["--key", key, "--cert", certificate] if key else []
    return curl(
        lab,
        "ps1",
        *shown,
        "--cacert",
        f"{TRUST}/peer.crt",
        "--header",
        "Range: entries=:-1:2",
        f"https://{ADDRESSES['ps2'][0]}:{PORT}{path}",
    )


@contextlib.contextmanager
def cable_out(lab: Lab, host: str, leg: str) -> Iterator[None]:
    lab("cable", "out", host, leg)
    try:
        yield
    finally:
        lab("cable", "in", host, leg)


@pytest.mark.parametrize(("reader", "writer"), [("ps1", "ps2"), ("ps2", "ps1")])
def test_a_line_of_a_moment_ago_is_seen_on_the_other_server(pair: Lab, reader: str, writer: str) -> None:
    said = f"said {uuid.uuid4()}"
    pair.sh(writer, f"logger --tag relaytest '{said}'")
    eventually(
        lambda: f" {writer} relaytest" in pair.sh(reader, f"ha logs --peer -n 500 | grep -F '{said}' || true"), 30, "the line is seen"
    )
    assert said in pair.sh(reader, "ha logs --peer --since 5m")
    assert said not in pair.sh(reader, "ha logs --since 5m")
    assert said in pair.sh(writer, "ha logs --since 5m")


def test_what_comes_is_followed(pair: Lab) -> None:
    said = f"said {uuid.uuid4()}"
    with pair.watching("ps1", "ha logs --peer -f -n 1") as seen:
        pair.sh("ps2", f"logger '{said}'")
        eventually(lambda: any(said in line for line in seen()), 30, "the new line is seen")
        # Its gateway starts anew; nothing that is said meanwhile is lost, and nothing comes twice.
        pair.sh("ps2", f"systemctl kill --signal=KILL logrelay_journal; logger '{said} again'")
        eventually(lambda: any(f"{said} again" in line for line in seen()), 60, "it goes on")
        assert [line.partition(": ")[2] for line in seen() if said in line] == [said, f"{said} again"]


def test_one_unit_is_what_it_says_and_what_systemd_says_of_it(pair: Lab) -> None:
    pair.sh("ps2", "systemctl restart device_uname")

    def lines() -> list[str]:
        return pair.sh("ps1", "ha logs --peer -u device_uname -n 5").splitlines()

    eventually(lambda: any("systemd[1]: Started device_uname.service" in line for line in lines()), 30, "systemd's word is seen")
    assert all("device_uname" in line or "nginx" in line for line in lines()), lines()
    ours = pair.sh("ps1", "ha logs --peer --ours -n 200")
    assert " ha_manager[" in ours and " sshd[" not in ours


def test_either_link_will_do_and_none_is_told_in_one_line(pair: Lab) -> None:
    with cable_out(pair, "ps2", "eth1"):
        assert pair.sh("ps1", "ha logs --peer -n 1")
    pair.sh("ps2", "systemctl stop logrelay")
    try:
        done = pair.try_run("exec", "ps1", "--", "ha", "logs", "--peer")
        assert (done.returncode, done.stdout) == (1, "")
        [line] = done.stderr.splitlines()
        assert line.startswith("ha: logs: ps2 cannot be asked for its log: 192.0.2.12: Connection refused; 198.51.100.12: ")
        states = "systemctl is-active logrelay_journal.socket logrelay_journal.service || true"
        eventually(lambda: pair.sh("ps2", states).split() == ["inactive"] * 2, 30, "its gateway stops with it")
    finally:
        pair.sh("ps2", "systemctl start logrelay")
    assert pair.sh("ps1", "ha logs --peer -n 1")


def test_a_stranger_is_told_nothing(pair: Lab) -> None:
    pair.sh("ps1", STRANGERS)
    try:
        status, log = entries(pair)
        assert status == "200" and " ps2 " in log
        mine = "/root/strangers"
        for key, certificate in (
            (None, ""),
            (f"{mine}/tls.key", f"{mine}/selfmade.crt"),
            (f"{mine}/tls.key", f"{mine}/signed.crt"),
            (f"{mine}/tls.key", f"{mine}/chain.crt"),
            # The right key and the right name, but not the certificate that is pinned.
            (f"{TRUST}/tls.key", f"{mine}/again.crt"),
        ):
            status, log = entries(pair, key, certificate)
            assert status in ("000", "400") and " ps2 " not in log, (certificate, status, log)
        # The server's own certificate does not open its own log.
        status, log = curl(
            pair, "ps2", "--key", f"{TRUST}/tls.key", "--cert", f"{TRUST}/tls.crt", "--insecure", f"https://192.0.2.12:{PORT}/entries"
        )
        assert status in ("000", "400") and " ps2 " not in log
        # Nor does the right certificate from another machine.
        certificate, key = (pair.sh("ps1", f"cat {TRUST}/{name}") for name in ("tls.crt", "tls.key"))
        pair.sh("client1", "umask 077; cat > /root/stolen.pem", input=f"{certificate}\n{key}\n")
        status, log = curl(pair, "client1", "--cert", "/root/stolen.pem", "--insecure", f"https://192.0.2.12:{PORT}/entries")
        assert (status, " ps2 " in log) == ("403", False)
    finally:
        pair.sh("ps1", "rm -rf /root/strangers")
        pair.sh("client1", "rm -f /root/stolen.pem")


def test_plain_http_is_refused_and_nothing_but_the_log_is_served(pair: Lab) -> None:
    status, body = curl(pair, "ps1", f"http://{ADDRESSES['ps2'][0]}:{PORT}/entries")
    assert status == "400" and " ps2 " not in body
    for path in ("/", "/browse", "/machine", "/fields/_PID", "/entries/", "/../entries"):
        assert entries(pair, path=path)[0] in ("400", "404"), path
    assert (
        curl(
            pair,
            "ps1",
            "--request",
            "POST",
            "--key",
            f"{TRUST}/tls.key",
            "--cert",
            f"{TRUST}/tls.crt",
            "--cacert",
            f"{TRUST}/peer.crt",
            f"https://192.0.2.12:{PORT}/entries",
        )[0]
        == "403"
    )


def test_no_account_may_use_the_gateway_that_may_not_read_the_journal(pair: Lab) -> None:
    assert pair.sh("ps2", "stat --format='%U:%G %a' /run/logrelay_journal.socket") == "root:systemd-journal 660"
    done = pair.try_run(
        "exec",
        "ps2",
        "--",
        "runuser",
        "--user=nobody",
        "--",
        "curl",
        "--silent",
        "--unix-socket",
        "/run/logrelay_journal.socket",
        "http://x/entries",
    )
    assert done.returncode != 0 and done.stdout == ""
    users = pair.sh(
        "ps2",
        "ps -o user= -p $(systemctl show --property=MainPID --value logrelay) -p $(systemctl show --property=MainPID --value device_uname)",
    )
    assert "root" not in users.split()


def test_more_readers_than_a_few_are_refused_and_idle_strangers_are_dropped(pair: Lab) -> None:
    idle = f"for number in $(seq 200); do exec {{fd}}<>/dev/tcp/192.0.2.12/{PORT} || true; done; echo open; sleep 300"
    with pair.watching("client1", idle):
        eventually(
            lambda: pair.try_run("exec", "ps1", "--", "ha", "logs", "--peer", "-n", "1").returncode == 0, 60, "the peer gets in again"
        )
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(pair.watching("ps1", "ha logs --peer -f -n 1")) for _ in range(8)]
        said = f"said {uuid.uuid4()}"
        pair.sh("ps2", f"logger '{said}'")
        # Whoever tells what is new has its place: one that has only begun could be refused in place of the ninth.
        eventually(lambda: all(any(said in line for line in seen()) for seen in readers), 60, "eight readers read")

        def too_many() -> bool:
            done = pair.try_run("exec", "ps1", "--", "ha", "logs", "--peer", "-n", "1")
            return done.returncode == 1 and "too many readers" in done.stderr

        eventually(too_many, 30, "the ninth is refused")


@pytest.mark.parametrize("leg", [0, 1])
def test_the_name_is_told_to_the_other_server_and_to_nobody_else(pair: Lab, leg: int) -> None:
    url = f"http://{ADDRESSES['ps2'][leg]}:5222/device_uname"
    assert curl(pair, "ps1", url) == ("200", "ps2\n")
    assert curl(pair, "client1", url) == ("403", curl(pair, "client1", url)[1])
    assert "ps2" not in curl(pair, "client1", url)[1]
    for method, status in (("POST", "405"), ("PUT", "405"), ("DELETE", "405"), ("OPTIONS", "405")):
        assert curl(pair, "ps1", "--request", method, url)[0] == status, method
    for path in ("/", "/device_uname/", "/device_unam", "/index.html", "/device_uname/../x"):
        assert curl(pair, "ps1", url.removesuffix("/device_uname") + path)[0] == "404", path


def test_nothing_listens_on_any_other_address(pair: Lab) -> None:
    for host in ("ps1", "ps2"):
        listening = {line.split()[3] for line in pair.sh(host, "ss --no-header --listening --tcp --numeric").splitlines()}
        found = {address for address in listening if address.rpartition(":")[2] in ("80", "5222", str(PORT))}
        assert found == {f"{address}:{port}" for address in ADDRESSES[host] for port in (5222, PORT)}
    assert curl(pair, "ps2", f"http://{VIRTUAL_IP}:5222/device_uname")[0] == "000"


def test_another_name_is_told_by_the_preflight_with_both(pair: Lab, inventory: Path) -> None:
    pair.sh("ps2", "hostname another; systemctl restart device_uname; hostname ps2")
    try:
        assert curl(pair, "ps1", "http://192.0.2.12:5222/device_uname") == ("200", "another\n")
        [problem] = refused("enable_ha", inventory)
        assert problem.startswith("ps2: its handler device_uname tells ps1 the name another, but its facts say ps2: ")
    finally:
        pair.sh("ps2", "systemctl restart device_uname")
    assert curl(pair, "ps1", "http://192.0.2.12:5222/device_uname") == ("200", "ps2\n")
