"""Named LoRA adapters on one frozen base: student, critic, moving average and teachers; which row uses which."""
