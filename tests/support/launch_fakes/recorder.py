"""Writes down how a program was called: recorder.py PROGRAM ARGUMENT..."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _fake import record

record(sys.argv[1], sys.argv[2:])
