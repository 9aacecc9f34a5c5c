"""What installed packages add: their modules, imported once in every process, register what they bring.

A package names them in its pyproject.toml::

    [project.entry-points."evolve.plugins"]
    mine = "my_package.my_module"
"""

from __future__ import annotations

import functools
from importlib.metadata import entry_points

GROUP = "evolve.plugins"


class PluginError(RuntimeError):
    """A module of an installed package cannot be imported."""


@functools.cache
def load_plugins() -> None:
    """Import the modules of all installed packages that name some.

    Raises:
        PluginError: one of them cannot be imported.
    """
    for plugin in entry_points(group=GROUP):
        try:
            plugin.load()
        except (Exception, SystemExit) as error:  # importing runs code that is not ours, which can raise anything
            package = plugin.dist.name if plugin.dist is not None else plugin.name
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(f"{package}: its plugin {plugin.value} cannot be imported: {reason}") from error
