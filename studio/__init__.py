"""The studio: a web application on this machine that turns a generator into a labeled stream.

A generator and a project folder enter, the folder that `training sample` writes. A browser picks
and paints its images, an ensemble learns from them, and a bundle leaves.
"""
