"""From the library's arrays to MRML nodes and back: used by the module and by ``--scene``; no Qt, no GUI.

Every function takes the scene from the nodes it is given, so that the same code serves desktop Slicer's one scene and
the private scene that the command line makes.
"""
