"""Stands before the real pandas for the programs under test: as installed in production, Callfold has none.

pyarrow would import it with its first array, which takes a third of a second and 44 MiB in each process.
"""

raise ImportError("no pandas here")
