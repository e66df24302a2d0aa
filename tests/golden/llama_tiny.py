"""Records what Hugging Face's Llama computes, tiny, in f64: `python llama_tiny.py`, after
`pip install torch transformers safetensors` (the versions used are in README.md). No model is downloaded."""
import json, os
import torch, transformers
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

here = os.path.dirname(os.path.abspath(__file__))
torch.manual_seed(20250817)
torch.set_default_dtype(torch.float64)

config = dict(
    hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
    head_dim=8, vocab_size=96, max_position_embeddings=64, rope_theta=10000.0, rms_norm_eps=1e-5,
    hidden_act="silu", attention_bias=False, mlp_bias=False, tie_word_embeddings=True,
)
given = dict(config)
if int(transformers.__version__.split(".")[0]) >= 5:
    given["rope_parameters"] = {"rope_type": "default", "rope_theta": given.pop("rope_theta")}
model = LlamaForCausalLM(LlamaConfig(attn_implementation="eager", use_cache=False, **given)).double().eval()

# weights that f32 holds exactly, larger than a fresh model's, so that every part matters
weights = {}
with torch.no_grad():
    for name, p in model.named_parameters():
        spread = torch.randn(p.shape) * (0.3 if p.dim() > 1 else 0.2) + (1.0 if p.dim() == 1 else 0.0)
        p.copy_(spread.float().double())
        weights[name] = p.detach().float().clone()

ids = torch.randint(0, config["vocab_size"], (2, 11))
result = model(input_ids=ids, labels=ids)
result.loss.backward()
tensors = dict(weights)
tensors["ids"] = ids.int()
tensors["logits"] = result.logits.detach().float()
tensors["loss"] = result.loss.detach().float().reshape(1)
gradients = dict(model.named_parameters())
for name in [
    "model.embed_tokens.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight",
    "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight",
    "model.layers.1.self_attn.v_proj.weight", "model.layers.1.self_attn.o_proj.weight",
    "model.layers.0.mlp.gate_proj.weight", "model.layers.1.mlp.down_proj.weight",
]:
    tensors["grad." + name] = gradients[name].grad.detach().float().clone()

# the same with an output product of its own
untied = LlamaForCausalLM(LlamaConfig(attn_implementation="eager", use_cache=False, **{**given, "tie_word_embeddings": False}))
untied = untied.double().eval()
head = (torch.randn(config["vocab_size"], config["hidden_size"]) * 0.3).float()
with torch.no_grad():
    for name, p in untied.named_parameters():
        p.copy_(head.double() if name == "lm_head.weight" else weights[name].double())
tensors["lm_head.weight"] = head
tensors["untied.logits"] = untied(input_ids=ids).logits.detach().float()

save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(here, "llama_tiny.safetensors"))
with open(os.path.join(here, "llama_tiny.json"), "w") as out:
    json.dump({"model_type": "llama", **config}, out, indent=1)
    out.write("\n")
print("torch", torch.__version__, "transformers", transformers.__version__, "loss", result.loss.item(),
      "largest logit", result.logits.abs().max().item())
