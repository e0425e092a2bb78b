"""YAML text -> typed Recipe; every mistake is reported at once, at file:line:column."""

from clora.config.load import LoadedRecipe, load_recipe
from clora.config.problems import Problem, RecipeError

__all__ = ["LoadedRecipe", "Problem", "RecipeError", "load_recipe"]
