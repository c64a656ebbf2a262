"""Work in child processes, so that whoever asked for it stays free, and can end it at any moment.

:class:`.child.ChildJob` is a job in a process of its own; :mod:`.segmentation` and :mod:`.training` state what the jobs
are. Between the two processes lie a private folder, with ``job.json`` and arrays, and one JSON line for each step
(:mod:`.events`). Nothing is pickled. The working side is ``lesiondecomp job`` (:mod:`LesionDecompLib.cli.job`).
"""
