"""Rollouts: a new version beside the old one, compared on live traffic, then made full or rolled
back.

`plan.py` decides and does nothing; `controller.py` does what it decides, against a target that
runs versions (`target.py`) and a registry that keeps the record (`record.py`).
"""
