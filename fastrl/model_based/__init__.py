"""Learners with a model of the world: it is learned from what happens, and planned with.

`losse` is a sparse linear model that is exact online, `mlp_model` a network with or without
replay; both are a `model.Model`.  `dyna` learns values of actions from what a model imagines.
"""
