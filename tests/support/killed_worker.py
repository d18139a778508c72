"""A study whose reading ends the process, as a system without memory would; imports little, as workers import it."""

import os
import signal


class Kill:
    """Reads as `tiny_source.study` does, but in no other process."""

    def __init__(self, name: str):
        self.name, self.parent = name, os.getpid()

    def __call__(self):
        if os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        from tiny_source import study

        return study(self.name, None).read()
