"""YAML text -> typed Recipe; every mistake is reported at once, at file:line:column."""
