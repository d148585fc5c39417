"""Import every module of the installed package; run by itself, with nothing else installed."""

import importlib
import pkgutil

import accumulator

assert "site-packages" in accumulator.__file__, accumulator.__file__
for module in pkgutil.walk_packages(accumulator.__path__, "accumulator."):
    if not module.name.endswith(".__main__"):
        importlib.import_module(module.name)
