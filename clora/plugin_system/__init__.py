"""Finds the installed plugins, keeps what they offer by kind and name, and names the plugin of whatever fails."""
