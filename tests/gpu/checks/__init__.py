"""The phases of check.py, a module each with run(setting, report), and what they share."""
