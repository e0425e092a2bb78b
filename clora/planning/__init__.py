"""Recipe and installed plugins -> Plan: every check, the cost and the memory of a run, before a model is loaded."""
