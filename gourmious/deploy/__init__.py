"""The command of the host, `gourmious`: it installs, changes and upgrades a site.

The system's Python runs it as root, without Django: it must work when no release does.
"""
