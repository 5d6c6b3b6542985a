"""Where a lake is: a folder of this machine, or a prefix of a bucket on S3. What is in a lake it does not know.

A folder is a `Path`, and nothing of this package stands between it and its files. What is on object storage is a
`UPath`, which has the methods of a `Path` that are used here; both are written `Path`.
"""
