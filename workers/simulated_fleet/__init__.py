"""Agents that are played: one process reports for a whole fleet that does not exist, over the real uplink.

Every report is labelled simulated. What runs follows the specs that come back, by the agent's own `reconcile`; only the
processes, the devices and the load are made up.
"""
