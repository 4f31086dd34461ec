"""The section [model] of a recipe for a model that trains in seconds."""

MODEL = """\
hidden_size = 16
intermediate_size = 24
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 8
full_every = 2
sliding_window = 32
num_experts = 1
top_k_experts = 1
moe_intermediate_size = 8
noise = "hybrid"
uniform_share = 0.1
"""
