"""The module's panel: one class for each of its sections, around the controls of ``Resources/UI/LesionDecomp.ui``.

Qt is used through the module's ``qt`` only; texts a user sees go through ``_()``.
"""
