"""The step in PyTorch, eager or compiled.

The one product for query, key and value, the fused attention and the fused Adam are what PyTorch's own
documentation recommends. Weights lie as [out, in] there, so the files' [in, out] are transposed.
"""

import os

import common

arguments = common.arguments()
os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
common.keep_to(arguments.threads)
settings = arguments.setting.split(",")

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

D, T = common.D_MODEL, common.T


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_norm = nn.LayerNorm(D, eps=common.NORM_EPSILON)
        self.qkv = nn.Linear(D, 3 * D, bias=False)
        self.output = nn.Linear(D, D, bias=False)
        self.mlp_norm = nn.LayerNorm(D, eps=common.NORM_EPSILON)
        self.up = nn.Linear(D, 4 * D)
        self.down = nn.Linear(4 * D, D)

    def forward(self, x):
        heads = (x.shape[0], T, common.N_HEADS, D // common.N_HEADS)
        q, k, v = (y.view(heads).transpose(1, 2) for y in self.qkv(self.attention_norm(x)).split(D, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(y.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x)), approximate="tanh"))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(common.VOCABULARY, D)
        self.position_embedding = nn.Parameter(torch.zeros(common.MAX_LEN, D))
        self.blocks = nn.ModuleList(Block() for _ in range(common.N_LAYERS))
        self.final_norm = nn.LayerNorm(D, eps=common.NORM_EPSILON)
        self.head = nn.Linear(D, common.VOCABULARY, bias=False)

    def forward(self, inputs, targets):
        """Mean cross-entropy."""
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in settings):
            x = self.token_embedding(inputs) + self.position_embedding[:T]
            for block in self.blocks:
                x = block(x)
            logits = self.head(self.final_norm(x))
        return F.cross_entropy(logits.float().view(-1, common.VOCABULARY), targets.reshape(-1))


def from_file(named):
    """The names and layouts of this module from those of the file."""
    state = {}
    for name, x in named.items():
        name = name.replace("scale", "weight").replace("mlp.", "").replace("up_bias", "up.bias")
        name = name.replace("down_bias", "down.bias").replace("attention.output", "output")
        if name.split(".")[-1] in ("output", "up", "down", "head"):
            name, x = name + ".weight", x.T
        if name == "token_embedding":
            name += ".weight"
        state[name] = torch.tensor(np.ascontiguousarray(x))
    for i in range(common.N_LAYERS):
        parts = [state.pop(f"blocks.{i}.attention.{part}").T for part in ("query", "key", "value")]
        state[f"blocks.{i}.qkv.weight"] = torch.cat(parts).contiguous()
    return state


class Torch:
    versions = {"torch": torch.__version__}

    def __init__(self, weights):
        torch.set_num_threads(arguments.threads)
        self.model = Transformer()
        self.model.load_state_dict(from_file(weights))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.loss = self.model
        if "compile" in settings:
            mode = "max-autotune" if "max-autotune" in settings else "default"
            self.loss = torch.compile(self.model, fullgraph=True, dynamic=False, mode=mode)

    def step(self, batch):
        loss = self.loss(*(torch.from_numpy(x) for x in batch))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def parameters(self):
        return {name: x.detach().numpy().copy() for name, x in self.model.named_parameters()}

    def gradients(self, batch):
        self.loss(*(torch.from_numpy(x) for x in batch)).backward()
        found = {name: x.grad.numpy().copy() for name, x in self.model.named_parameters() if x.grad is not None}
        self.optimizer.zero_grad(set_to_none=True)
        return found


data = common.Data(arguments.data)
common.serve(Torch(data.weights), data, arguments.check)
