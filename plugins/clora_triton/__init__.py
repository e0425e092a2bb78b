"""LoRA linears for mixed-adapter batches, forward and backward: `lora_linear`, and components for `kernels:`."""
