"""A regression gate for Google Benchmark programs: fresh processes, paired rounds, three verdicts.

Needs Python 3.11 and NumPy, nothing else. `python3 -m gate --help` lists the commands.
"""

__version__ = "1.0.0"
