"""Work in processes of its own, so that whoever asked for it stays free, and can end it at any moment.

:mod:`.segmentation` is the asking side of a segmentation, :mod:`.worker` the working one; between them lie a private
folder with arrays and JSON (:mod:`.job_files`) and one JSON line for each step (:mod:`.events`). Nothing is pickled.
"""
