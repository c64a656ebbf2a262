"""A segmentation in a process of its own, so that whoever asked for it stays free, and can end it at any moment.

``job`` is the asking side; ``python -m LesionDecompLib.worker FOLDER`` the working one. Between them lie a private
folder with arrays and JSON (``files``) and one JSON line for each step (``events``). Nothing is pickled.
"""
