"""One Protocol for every kind of component: what the training loop calls, with the shapes.

A component is a frozen attrs object made from its YAML keys. Whatever costs time or memory happens in the calls below,
never in the constructor, so that `clora validate` can build every component without loading a model.
"""
