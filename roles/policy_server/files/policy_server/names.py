# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Which devices and configurations there may be. Both become names of folders and files, so both are narrow."""

from __future__ import annotations

import json
import re

from .shared.xml_document import Document, InvalidXml

# What holds for every device.
GLOBAL = "global"
# Of one configuration, in bytes: what an XML document may have.
MAX_CONTENT = 1024 * 1024
KINDS = {".json": "application/json", ".xml": "application/xml"}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def device_problem(device: str) -> str | None:
    """Why this cannot be a device id, or None."""
    if _NAME.fullmatch(device):
        return None
    return f"{device!r} is no device id: up to 63 letters, digits, '.', '_' and '-', a letter or a digit first"


def configuration_problem(name: str) -> str | None:
    """Why this cannot be the name of a configuration, or None."""
    if _NAME.fullmatch(name) and name.endswith(tuple(KINDS)):
        return None
    return f"{name!r} is no name of a configuration: as a device id, with {' or '.join(KINDS)} at its end"


def kind(name: str) -> str:
    """The media type of a configuration."""
    return KINDS[name[name.rindex(".") :]]


def content_problem(name: str, content: bytes) -> str | None:
    """Why this is no document of the kind that its name says, or None."""
    try:
        if name.endswith(".xml"):
            Document(content)
        else:
            json.loads(content)
    except InvalidXml as error:
        return f"{name} is no XML that can be used: {error}"
    except RecursionError:
        return f"{name} is nested too deeply"
    except ValueError as error:
        return f"{name} is no JSON: {error}"
    return None
