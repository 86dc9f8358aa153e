"""The figures of single notebooks, a module each: measurements in, a figure with its text shown.

What is measured stands in the notebook; how it is drawn stands here.
"""
