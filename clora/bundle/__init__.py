"""What a run hands over: one LoRA in the layouts that tools read, with all it takes to use it."""
