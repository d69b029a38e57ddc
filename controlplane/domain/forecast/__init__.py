"""How many models will be active at once: a distribution, conditioned on what is active now. Pure.

A model is active while a request is in flight or its last one ended less than `keep_alive` ago. A(t) is the number of
active models, Y its maximum over a horizon. docs/capacity.md tells the methods apart and how they are judged.
"""
