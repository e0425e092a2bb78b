"""YAML text -> typed Recipe; every mistake is reported at once, at file:line:column."""

from clora.recipe.load import LoadedRecipe, load_recipe
from clora.recipe.problems import Problem, RecipeError

__all__ = ["LoadedRecipe", "Problem", "RecipeError", "load_recipe"]
