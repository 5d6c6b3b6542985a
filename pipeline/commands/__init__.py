"""The commands of `callfold`: each reads its options, calls one function of the package and prints what it says.

No rule lives here. Modules import only what is light; the work is imported inside the command that needs it.
"""
