"""Does what ansible-test expects of get-pip.py, with the pip that Python brings along, where the real one cannot be fetched."""

from __future__ import annotations

import ensurepip
import importlib.util
import runpy
import sys

NOT_FOR_PIP = {"--no-setuptools", "--no-wheel"}

if importlib.util.find_spec("pip") is None:
    ensurepip.bootstrap(default_pip=True)
sys.argv = ["pip", "install", "--upgrade", *(word for word in sys.argv[1:] if word not in NOT_FOR_PIP)]
runpy.run_module("pip", run_name="__main__")
