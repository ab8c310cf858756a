"""fmjax beside its originals: networks that their authors' own code builds, from checkouts of it on this machine.

No line of that code is here. It is imported while one case runs, and only where a folder with it is given.
"""
