"""LesionDecomp: weakly supervised lung-lesion decomposition of chest CT (the method, free of Slicer)."""

__version__ = "0.1.0"
