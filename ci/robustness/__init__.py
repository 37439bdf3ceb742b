"""Tries to make the program lose something: kill -9, changed bytes, full disks."""
