"""Desktop Slicer's Python surface on top of slicer-core, so that tests run the very module file that Slicer loads.

slicer-core has the real MRML scene, nodes, readers, writers and ``slicer.util``. What it lacks is offered here:
``slicer.app``, ``slicer.mrmlScene``, ``slicer.modules``, ``slicer.ScriptedLoadableModule``, ``slicer.i18n``,
``slicer.packaging`` and ``slicer.parameterNodeWrapper``. The scene itself is booted by
``LesionDecompMrml.headless_scene``, which the product uses for ``--scene``.
"""

from .application import HeadlessSlicer, boot

__all__ = ["HeadlessSlicer", "boot"]
