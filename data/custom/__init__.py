"""Own skeletons, as people have them, to one file that trains. ``python -m data.custom --help``.

    files  ->  readers  ->  clips (T, M, V, C)  ->  labels, splits, checks  ->  .npz, .yaml, .png

A wing: the core reads the file that comes out (``data/own.py``) and nothing here.
"""
