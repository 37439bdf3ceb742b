"""Tries to make the program lose something: kill -9, two processes at once, changed bytes, full disks."""
