"""look.py ACTIVE PASSIVE: owner, mode and digest of each file that a takeover must not lose, with the devices named by their roles."""

import hashlib
import os
import sys

PLACES = (
    "/etc/policyserver/.license",
    "/etc/shadow",
    "/etc/logserver/status.conf",
    "/var/logserver/archive",
    "/var/policyserver/configuration/base",
)
active, passive = sys.argv[1:]
for place in PLACES:
    found = [place] if os.path.isfile(place) else [os.path.join(top, name) for top, _folders, names in os.walk(place) for name in names]
    for path in found:
        if path != place and os.path.basename(path).startswith("."):
            continue
        status = os.stat(path)
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        name = path.replace(f"/base/{active}/", "/base/ACTIVE/").replace(f"/base/{passive}/", "/base/PASSIVE/")
        print(name, f"{status.st_uid}:{status.st_gid}", oct(status.st_mode & 0o7777), digest)
