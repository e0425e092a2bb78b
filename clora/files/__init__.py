"""Files that anybody may have written or that a kill may tear: bounded reads, atomic writes."""
