"""Pictures of skeletons: strips, animations, pages that turn, links between joints. A wing.

``python -m data.show --help`` is the command.
"""
