"""The torch modules of the networks: ``NAME.py`` is the network that ``models/NAME.py`` declares.

Its ``NETWORK`` makes a module with untrained weights from a configuration. ``layers/`` holds
what several networks have in common.
"""
