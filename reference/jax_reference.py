"""The model, with every part that a configuration can choose, in JAX, Flax and Optax: an independent reference.

Nothing here is shared with the Rust code but the definition of the model and the names of the tensors. What
both compute, both were told in words.

    python reference/jax_reference.py fixture     writes crates/engine/tests/fixture/*.safetensors
    python reference/jax_reference.py check       computes them again and compares
    python reference/jax_reference.py train TEXT  trains on a text, to compare losses and times

A fixture has one small model with every tensor random (biases and scales too, so that every gradient is put to
work), twenty batches, the logits and all gradients of the first batch, and the losses of twenty Adam steps. It
is computed in float64 and rounded once to float32, so that another processor finds the same numbers to about
1e-7; `check` also runs float32, which has to stay within the bounds that the engine is held to. `optimizers.safetensors` has
the losses of twenty steps of every other optimizer on the same models and batches.
"""

import argparse
import json
import os
import pathlib
import statistics
import struct
import sys
import time

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "crates" / "engine" / "tests" / "fixture"

# The parts that a model is put together from; the defaults are those of the notebook.
PARTS = dict(norm="layer_norm", positions="learned", activation="gelu", mlp_bias=True, qk_norm=False,
             logit_softcap=0.0, embedding_norm=False, ngram_table=0, ngram_rows=32768, value_residual=False,
             embedding_residual=False, loss_positions="all", tie_embeddings=False)

# Small models that differ in everything. The first two are the notebook's; the others have each value of each part at least once.
FIXTURES = {
    "untied": dict(vocabulary=27, d_model=32, n_heads=4, n_layers=2, mlp_ratio=4.0, max_len=16,
                   windows=4, sequence_length=12, seed=1),
    "tied": dict(vocabulary=11, d_model=20, n_heads=2, n_layers=1, mlp_ratio=2.5, max_len=10,
                 tie_embeddings=True, windows=3, sequence_length=10, seed=2),
    "fast": dict(vocabulary=7, d_model=24, n_heads=3, n_layers=3, mlp_ratio=2.0, max_len=12,
                 windows=4, sequence_length=11, seed=3, norm="rms_norm", positions="rotary",
                 activation="relu_squared", mlp_bias=False, qk_norm=True, logit_softcap=5.0,
                 embedding_norm=True, ngram_table=5, ngram_rows=60, value_residual=True),
    "gated": dict(vocabulary=4, d_model=20, n_heads=2, n_layers=2, mlp_ratio=1.5, max_len=9,
                  windows=6, sequence_length=9, seed=4, positions="sinusoidal", activation="swiglu",
                  ngram_table=3, embedding_residual=True, loss_positions="last"),
    "plain": dict(vocabulary=9, d_model=16, n_heads=2, n_layers=2, mlp_ratio=2.0, max_len=8,
                  windows=4, sequence_length=7, seed=5, norm="rms_norm", positions="none",
                  activation="silu", embedding_residual=True, embedding_norm=True),
    "turned": dict(vocabulary=9, d_model=15, n_heads=3, n_layers=2, mlp_ratio=2.0, max_len=8,
                   windows=4, sequence_length=8, seed=6, positions="rotary", activation="relu",
                   value_residual=True, tie_embeddings=True),
}
FIXTURE_STEPS = 20
LEARNING_RATE = 1e-3
NGRAM_LEARNING_RATE = 2e-3
ALPHABET = "abcdefghijklmnopqrstuvwxyz "


def limit_threads(threads):
    """XLA starts as many threads as the process has processors, so this must happen before JAX is loaded."""
    if threads and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def define():
    """Loads JAX and defines the model; the import takes seconds, which `--help` should not."""
    global flax, jax, jnp, nn, np, optax, Transformer
    import flax
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from flax import linen as nn

    jax.config.update("jax_default_matmul_precision", "highest")

    def rms(x):
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)

    def norm(parts, name):
        return nn.LayerNorm(name=name) if parts["norm"] == "layer_norm" else rms

    def turn(x):
        """Rotary positions: x [B, T, H, d] as complex numbers, channel i with channel i + d/2."""
        half = x.shape[-1] // 2
        angles = jnp.arange(x.shape[1])[:, None] * 10000.0 ** (-jnp.arange(half) / half)
        z = jax.lax.complex(x[..., :half], x[..., half : 2 * half])
        z = z * jnp.exp(1j * angles)[None, :, None, :]
        return jnp.concatenate([z.real, z.imag, x[..., 2 * half :]], axis=-1).astype(x.dtype)

    class Attention(nn.Module):
        n_heads: int
        parts: dict

        @nn.compact
        def __call__(self, x, mask, first_value):
            """Output and values."""
            d = x.shape[-1]
            query, key, value = (
                nn.DenseGeneral((self.n_heads, d // self.n_heads), use_bias=False, name=name)(x)
                for name in ("query", "key", "value"))
            if self.parts["value_residual"] and first_value is not None:
                w = self.param("value_residual", nn.initializers.constant(0.5), (1,))
                value = (1 - w) * value + w * first_value
            if self.parts["qk_norm"]:
                query, key = rms(query), rms(key)
            if self.parts["positions"] == "rotary":
                query, key = turn(query), turn(key)
            y = nn.dot_product_attention(query, key, value, mask=mask)
            return nn.DenseGeneral(d, axis=(-2, -1), use_bias=False, name="out")(y), value

    class Block(nn.Module):
        n_heads: int
        mlp_width: int
        parts: dict

        @nn.compact
        def __call__(self, x, mask, embedded, first_value):
            p = self.parts
            if p["embedding_residual"] and first_value is not None:
                w = self.param("embedding_residual", lambda key, shape: jnp.array([1.0, 0.0]), (2,))
                x = w[0] * x + w[1] * embedded
            y = norm(p, "attention_norm")(x)
            y, value = Attention(self.n_heads, p, name="attention")(y, mask, first_value)
            x = x + y
            y = norm(p, "mlp_norm")(x)
            activation = {
                "gelu": lambda y: nn.gelu(y, approximate=True), "relu": nn.relu, "silu": nn.silu,
                "relu_squared": lambda y: jnp.square(nn.relu(y)), "swiglu": nn.silu,
            }[p["activation"]]
            up = nn.Dense(self.mlp_width, use_bias=p["mlp_bias"], name="up")(y)
            if p["activation"] == "swiglu":
                y = activation(nn.Dense(self.mlp_width, use_bias=p["mlp_bias"], name="gate")(y)) * up
            else:
                y = activation(up)
            return x + nn.Dense(x.shape[-1], use_bias=p["mlp_bias"], name="down")(y), value

    class Transformer(nn.Module):
        vocabulary: int
        d_model: int
        n_heads: int
        n_layers: int
        mlp_ratio: float
        max_len: int
        parts: dict

        @nn.compact
        def __call__(self, tokens):
            """tokens [B, T] to logits [B, T, V]"""
            p, (_, t) = self.parts, tokens.shape
            embedding = nn.Embed(self.vocabulary, self.d_model, name="token_embedding")
            x = embedding(tokens)
            if p["positions"] == "learned":
                x = x + self.param("position_embedding", nn.initializers.normal(0.02),
                                   (self.max_len, self.d_model))[:t]
            if p["positions"] == "sinusoidal":
                angles = np.arange(t)[:, None] / 10000.0 ** (np.arange(0, self.d_model, 2) / self.d_model)
                table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(t, -1)
                x = x + table[:, : self.d_model].astype(x.dtype)
            if p["ngram_table"]:
                rows, total = ngram_rows(tokens, self.vocabulary, p["ngram_table"], p["ngram_rows"])
                table = nn.Embed(total, self.d_model, name="ngram_embedding",
                                 embedding_init=nn.initializers.zeros_init())
                x = x + sum(table(row) for row in rows)
            if p["embedding_norm"]:
                x = rms(x)
            embedded, first_value = x, None
            mask = nn.make_causal_mask(tokens)
            for i in range(self.n_layers):
                block = Block(self.n_heads, round(self.mlp_ratio * self.d_model), p, name=f"blocks_{i}")
                x, value = block(x, mask, embedded, first_value)
                first_value = value if first_value is None else first_value
            x = norm(p, "final_norm")(x)
            if p["tie_embeddings"]:
                logits = embedding.attend(x)
            else:
                logits = nn.Dense(self.vocabulary, use_bias=False, name="head")(x)
            cap = p["logit_softcap"]
            return cap * jnp.tanh(logits / cap) if cap else logits


def ngram_rows(tokens, vocabulary, longest, most):
    """For n = 2 .. longest the row [B, T] of each position's n-gram, and the rows of all tables, which lie one behind the other."""
    t, total, rows = tokens.shape[1], 0, []
    for n in range(2, longest + 1):
        # The last symbol first; V stands for what lies before the window.
        symbols = [jnp.pad(tokens, ((0, 0), (back, 0)), constant_values=vocabulary)[:, :t] for back in range(n)]
        count = vocabulary * (vocabulary + 1) ** (n - 1)
        if count <= most:
            # A number whose digits are the symbols.
            row = sum(s * (vocabulary * (vocabulary + 1) ** (back - 1) if back else 1)
                      for back, s in enumerate(symbols))
        else:
            count, h = most, jnp.zeros_like(tokens, jnp.uint64)
            for s in symbols:
                h = (h + s.astype(jnp.uint64) + jnp.uint64(1)) * jnp.uint64(0x9E3779B97F4A7C15)
                h = h ^ (h >> 32)
            row = ((h >> 32) * jnp.uint64(most) >> 32).astype(jnp.int32)
        rows.append(total + row)
        total += count
    return rows, total


def with_ngrams(model, optimizer):
    """`optimizer` with update(gradient, state, params, tokens=), in which the tables of n-grams have Adam without momentum, and the rows that no token
    reads stay as they are, as do their moments."""
    if not model.parts["ngram_table"]:
        return optax.with_extra_args_support(optimizer)

    def labels(tree):
        return jax.tree_util.tree_map_with_path(
            lambda path, x: "ngrams" if path[0].key == "ngram_embedding" else "others", tree)

    optimizer = optax.multi_transform(
        {"ngrams": optax.adam(NGRAM_LEARNING_RATE, b1=0.0, b2=0.999), "others": optimizer}, labels)

    def update(gradient, state, params, *, tokens):
        rows, total = ngram_rows(tokens, model.vocabulary, model.parts["ngram_table"], model.parts["ngram_rows"])
        read = jnp.zeros(total, bool).at[jnp.stack(rows)].set(True)[:, None]
        updates, new = optimizer.update(gradient, state, params)

        def keep(path, new, old):
            return jnp.where(read, new, old) if any(getattr(k, "key", "") == "ngram_embedding" for k in path) else new

        nothing = jax.tree_util.tree_map(jnp.zeros_like, updates)
        at = jax.tree_util.tree_map_with_path
        return at(keep, updates, nothing), at(keep, new, state)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def make_model(sizes):
    names = ["vocabulary", "d_model", "n_heads", "n_layers", "mlp_ratio", "max_len"]
    parts = flax.core.freeze({name: sizes.get(name, default) for name, default in PARTS.items()})
    return Transformer(parts=parts, **{name: sizes[name] for name in names})


def loss_and_logits(model, params, inputs, targets):
    """Mean cross-entropy over all positions, or over the last of each window, nats."""
    logits = model.apply({"params": params}, inputs)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return (losses[:, -1] if model.parts["loss_positions"] == "last" else losses).mean(), logits


def make_step(model, optimizer):
    """One update; the loss is that before it. `optimizer`: of `with_ngrams`."""

    def step(params, state, inputs, targets):
        def loss_of(params):
            return loss_and_logits(model, params, inputs, targets)[0]

        loss, gradient = jax.value_and_grad(loss_of)(params)
        updates, state = optimizer.update(gradient, state, params, tokens=inputs)
        return optax.apply_updates(params, updates), state, loss

    return jax.jit(step, donate_argnums=(0, 1))


# ---------------------------------------------------------------------------------------------------------
# Names and shapes: Flax has a tree and keeps heads apart; checkpoints have flat names and [in, out] matrices.

def name_in_checkpoints(path):
    """`blocks_0/attention/query/kernel` becomes `blocks.0.attention.query`."""
    name = ".".join(path).replace("blocks_", "blocks.")
    for ours, theirs in [
        ("token_embedding", "token_embedding.embedding"), ("ngram_embedding", "ngram_embedding.embedding"),
        ("head", "head.kernel"), ("mlp.gate_bias", ".gate.bias"), ("mlp.gate", ".gate.kernel"),
        ("attention.query", "attention.query.kernel"), ("attention.key", "attention.key.kernel"),
        ("attention.value", "attention.value.kernel"), ("attention.output", "attention.out.kernel"),
        ("mlp.up_bias", ".up.bias"), ("mlp.up", ".up.kernel"),
        ("mlp.down_bias", ".down.bias"), ("mlp.down", ".down.kernel"),
    ]:
        if name.endswith(theirs):
            dot = "." if theirs.startswith(".") else ""
            return name[: -len(theirs)] + dot + ours
    return name


def flat(tree, d_model):
    """{name in checkpoints: array}; query, key and value [D, H, D/H] and output [H, D/H, D] become [D, D]."""
    named = {}
    for path, array in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(array)
        named[name_in_checkpoints([key.key for key in path])] = (
            array.reshape(d_model, d_model) if array.ndim == 3 else array)
    return named


# ---------------------------------------------------------------------------------------------------------
# Optimizers

# On these models.
OPTIMIZED = ["untied", "tied"]
# No number that is usual, so that each of them shows.
OPTIMIZERS = dict(learning_rate=0.003, adam_learning_rate=0.002, momentum=0.8, beta1=0.85, beta2=0.97, epsilon=1e-6,
                  weight_decay=0.2, gradient_clip=0.2, adaptive_clip=0.02)
# Of each step on singular values: x (a + b x^2 + c x^4 + d x^6 + e x^8).
MUON_STEPS = [(14.9372621, -146.24937, 486.66111, -625.530256, 272.15138),
              (6.7596159, -16.3497373, 13.8420811, -4.55616151, 0.508881892),
              (4.18823538, -8.77687795, 7.94461408, -2.95882844, 0.382719708)]


def orthogonalised(u):
    """A matrix with its singular values brought near to 1, by the singular values themselves."""
    left, values, right = jnp.linalg.svd(u, full_matrices=False)
    values = values / (1.01 * (values ** 8).sum() ** 0.125)
    for step in MUON_STEPS:
        values = sum(coefficient * values ** (2 * i + 1) for i, coefficient in enumerate(step))
    return (left * values) @ right


def muon(learning_rate, momentum, weight_decay):
    """For trees of matrices [in, out]."""

    def update(gradient, m, params):
        m = jax.tree_util.tree_map(lambda m, g: momentum * m + (1 - momentum) * g, m, gradient)

        def step(g, m, p):
            o = orthogonalised((1 - momentum) * g + momentum * m)
            return -learning_rate * (max(1.0, p.shape[1] / p.shape[0]) ** 0.5 * o + weight_decay * p)

        return jax.tree_util.tree_map(step, gradient, m, params), m

    return optax.GradientTransformation(lambda params: jax.tree_util.tree_map(jnp.zeros_like, params), update)


def on_matrices(inner, d_model):
    """`inner` on the tree in which attention's matrices are [D, D], as everywhere but in Flax."""

    def flat_tree(tree):
        return jax.tree_util.tree_map(lambda x: x.reshape(d_model, d_model) if x.ndim == 3 else x, tree)

    def update(gradient, state, params):
        updates, state = inner.update(flat_tree(gradient), state, flat_tree(params))
        return jax.tree_util.tree_map(lambda u, p: u.reshape(p.shape), updates, params), state

    return optax.GradientTransformation(lambda params: inner.init(flat_tree(params)), update)


def optimizers():
    o = OPTIMIZERS
    betas = dict(b1=o["beta1"], b2=o["beta2"])
    rate, decay = o["learning_rate"], o["weight_decay"]
    adam = optax.adam(rate, eps=o["epsilon"], **betas)

    def decaying(tree):
        return jax.tree_util.tree_map(lambda x: x.ndim == 2, tree)

    def labels(tree):
        return jax.tree_util.tree_map_with_path(
            lambda path, x: "muon" if x.ndim == 2 and path[0].key.startswith("blocks_") else "adam", tree)

    return {
        "adamw": optax.adamw(rate, eps=o["epsilon"], weight_decay=decay, mask=decaying, **betas),
        "lion": optax.lion(rate, weight_decay=decay, mask=decaying, **betas),
        "muon": optax.multi_transform({
            "muon": muon(rate, o["momentum"], decay),
            "adam": optax.adam(o["adam_learning_rate"], eps=o["epsilon"], **betas)}, labels),
        "clipped": optax.chain(optax.clip_by_global_norm(o["gradient_clip"]), adam),
        "clipped by unit": optax.chain(optax.adaptive_grad_clip(o["adaptive_clip"]), adam),
    }


# ---------------------------------------------------------------------------------------------------------
# Fixtures

def random_parameters(template, rng):
    """Every tensor random, at the size it has in a trained model: (path, shape) decides."""

    def draw(path, leaf):
        kind, x = path[-1].key, rng.standard_normal(leaf.shape)
        if kind == "scale":
            x = 1.0 + 0.2 * x
        elif kind == "bias":
            x = 0.2 * x
        elif kind.endswith("_residual"):
            x = 0.6 + 0.2 * x
        elif kind == "kernel":
            fan_in = np.prod(leaf.shape[:-1]) if path[-2].key == "out" else leaf.shape[0]
            x = x / np.sqrt(fan_in)
        else:
            x = 0.5 * x
        return x.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, template)


def random_text(rng, vocabulary, length):
    """A Markov chain in which each symbol has three successors: something to learn in twenty steps."""
    successors = rng.integers(vocabulary, size=(vocabulary, 3))
    text = [int(rng.integers(vocabulary))]
    for _ in range(length - 1):
        text.append(int(successors[text[-1], rng.integers(3)]))
    return np.array(text, dtype=np.uint8)


def start_of(sizes):
    """The model of a fixture, its weights, inputs and targets [steps, B, T]."""
    rng = np.random.default_rng(sizes["seed"])
    model = make_model(sizes)
    windows, t = sizes["windows"], sizes["sequence_length"]
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, t), np.int32))["params"]
    weights = random_parameters(shapes, rng)
    text = random_text(rng, sizes["vocabulary"], FIXTURE_STEPS * windows * (t + 1))
    text = text.reshape(FIXTURE_STEPS, windows, t + 1)
    return model, weights, text[:, :, :-1], text[:, :, 1:]


def losses_of(model, params, optimizer, inputs, targets):
    """Before each update."""
    optimizer = with_ngrams(model, optimizer)
    step, state, losses = make_step(model, optimizer), optimizer.init(params), []
    for x, y in zip(inputs, targets):
        params, state, loss = step(params, state, jnp.asarray(x, jnp.int32), jnp.asarray(y, jnp.int32))
        losses.append(loss)
    return np.asarray(losses)


def compute_optimizers(dtype):
    """{model/optimizer: losses}"""
    tensors = {}
    for name in OPTIMIZED:
        sizes = FIXTURES[name]
        model, weights, inputs, targets = start_of(sizes)
        for kind, optimizer in optimizers().items():
            params = jax.tree_util.tree_map(lambda x: jnp.asarray(x, dtype), weights)
            losses = losses_of(model, params, on_matrices(optimizer, sizes["d_model"]), inputs, targets)
            tensors[f"{name}/{kind}"] = losses.astype(np.float32)
    return dict(sorted(tensors.items()))


def compute_fixture(sizes, dtype):
    """{tensor name: array}, all arithmetic in `dtype`."""
    model, weights, inputs, targets = start_of(sizes)
    params = jax.tree_util.tree_map(lambda x: jnp.asarray(x, dtype), weights)
    batch = (jnp.asarray(inputs[0], jnp.int32), jnp.asarray(targets[0], jnp.int32))
    (_, logits), gradient = jax.jit(jax.value_and_grad(
        lambda p: loss_and_logits(model, p, *batch), has_aux=True))(params)
    assert logits.dtype == dtype, logits.dtype

    losses = losses_of(model, params, optax.adam(LEARNING_RATE), inputs, targets)
    d_model = sizes["d_model"]
    tensors = {f"weight/{name}": x for name, x in flat(weights, d_model).items()}
    tensors |= {f"gradient/{name}": x for name, x in flat(gradient, d_model).items()}
    tensors |= {"logits": np.asarray(logits), "losses": losses}
    tensors = {name: x.astype(np.float32) for name, x in sorted(tensors.items())}
    return tensors | {"inputs": np.ascontiguousarray(inputs), "targets": np.ascontiguousarray(targets)}


def write_safetensors(path, tensors, metadata):
    """The format: length of the header (8 bytes), the header in JSON, then the numbers, little-endian."""
    kinds = {"float32": "F32", "uint8": "U8"}
    header, offset = {"__metadata__": metadata}, 0
    for name, x in tensors.items():
        header[name] = {"dtype": kinds[x.dtype.name], "shape": list(x.shape),
                        "data_offsets": [offset, offset + x.nbytes]}
        offset += x.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(x.tobytes() for x in tensors.values()))
    temporary.replace(path)


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, data = json.loads(data[8 : 8 + length]), data[8 + length :]
    kinds = {"F32": np.float32, "U8": np.uint8}
    metadata = header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[start:end], kinds[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata


def metadata_of(sizes):
    metadata = {key: json.dumps(value) for key, value in (PARTS | sizes).items()}
    return metadata | {"learning_rate": json.dumps(LEARNING_RATE), "steps": json.dumps(FIXTURE_STEPS)}


def difference(a, b):
    """Largest difference, relative to the largest magnitude of `b`; 0 and infinity when that has no meaning."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    a, b = a.astype(np.float64), b.astype(np.float64)
    largest, apart = np.abs(b).max(), np.abs(a - b).max()
    return 0.0 if apart == 0.0 else float(apart / largest) if largest > 0.0 else float("inf")


def write_fixtures(_):
    define()
    jax.config.update("jax_enable_x64", True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, sizes in FIXTURES.items():
        path = FOLDER / f"{name}.safetensors"
        write_safetensors(path, compute_fixture(sizes, jnp.float64), metadata_of(sizes))
        print(f"{path}: {path.stat().st_size} bytes", file=sys.stderr)
    path = FOLDER / "optimizers.safetensors"
    metadata = {key: json.dumps(value) for key, value in OPTIMIZERS.items()}
    write_safetensors(path, compute_optimizers(jnp.float64), metadata)
    print(f"{path}: {path.stat().st_size} bytes", file=sys.stderr)
    return 0


def check_fixtures(arguments):
    define()
    jax.config.update("jax_enable_x64", True)
    failed = False
    for name, sizes in FIXTURES.items():
        kept, metadata = read_safetensors(FOLDER / f"{name}.safetensors")
        if metadata != metadata_of(sizes):
            print(f"{name}: the file was made for {metadata}, the script has {metadata_of(sizes)}")
            failed = True
            continue
        for dtype, what in [(jnp.float64, "float64"), (jnp.float32, "float32")]:
            fresh = compute_fixture(sizes, dtype)
            if fresh.keys() != kept.keys():
                print(f"{name}: other tensors: {sorted(fresh.keys() ^ kept.keys())}")
                failed = True
                continue
            worst = {}
            for tensor in kept:
                kind = tensor.split("/")[0]
                if dtype == jnp.float64:
                    bound = arguments.tolerance
                else:
                    bound = {"gradient": 1e-3, "logits": 1e-4, "losses": 1e-4}.get(kind, 0.0)
                apart = difference(fresh[tensor], kept[tensor])
                worst[kind] = max(worst.get(kind, 0.0), apart)
                if not apart <= bound:  # so that NaN fails
                    print(f"{name}, {what}: {tensor} differs by {apart:.1e}, more than {bound:.0e}")
                    failed = True
            print(f"{name}, {what}: " + ", ".join(f"{kind} {apart:.1e}" for kind, apart in worst.items()))
    kept, metadata = read_safetensors(FOLDER / "optimizers.safetensors")
    for dtype, what, bound in [(jnp.float64, "float64", arguments.tolerance), (jnp.float32, "float32", 1e-3)]:
        fresh = compute_optimizers(dtype)
        same = fresh.keys() == kept.keys() and metadata == {key: json.dumps(x) for key, x in OPTIMIZERS.items()}
        apart = {name: difference(fresh[name], kept[name]) for name in kept} if same else {"other numbers": float("inf")}
        failed |= not all(x <= bound for x in apart.values())
        print(f"optimizers, {what}: " + ", ".join(f"{name} {x:.1e}" for name, x in apart.items()))
    print("FAILED" if failed else "ok")
    return int(failed)


# ---------------------------------------------------------------------------------------------------------
# Training, for parity of losses and times

def read_text(path):
    """The characters a-z and space as 0-26."""
    table = np.full(256, 255, np.uint8)
    table[np.frombuffer(ALPHABET.encode(), np.uint8)] = np.arange(len(ALPHABET))
    raw = np.fromfile(path, np.uint8)
    if raw.size and raw[-1] == ord("\n"):
        raw = raw[:-1]
    ids = table[raw]
    if (ids == 255).any():
        at = int(np.argmax(ids == 255))
        raise SystemExit(f"{path}: byte {at} is {bytes(raw[at : at + 1])!r}, which is not among a-z and space")
    return ids


def windows_of(text, starts, t):
    """[B, T] inputs and the characters one further."""
    rows = text[starts[:, None] + np.arange(t + 1)[None, :]].astype(np.int32)
    return rows[:, :-1], rows[:, 1:]


def train(arguments):
    limit_threads(arguments.threads)
    define()
    a, t = arguments, arguments.sequence_length
    text = read_text(a.text)
    first, second = len(text) * 8 // 10, len(text) * 8 // 10 + len(text) // 10
    training, validation = text[:first], text[first:second]
    sizes = dict(vocabulary=len(ALPHABET), d_model=a.d_model, n_heads=a.n_heads, n_layers=a.n_layers,
                 mlp_ratio=a.mlp_ratio, max_len=a.max_len, tie_embeddings=a.tie_embeddings)
    model, optimizer = make_model(sizes), optax.adam(a.learning_rate)
    params = model.init(jax.random.key(a.seed), np.zeros((1, t), np.int32))["params"]
    optimizer = with_ngrams(model, optimizer)
    state, step = optimizer.init(params), make_step(model, optimizer)
    count = sum(x.size for x in jax.tree_util.tree_leaves(params))

    # The windows of validation are the same for every seed; those of training are not.
    fixed = np.random.default_rng(12345).integers(len(validation) - t, size=a.validation_windows)
    rng = np.random.default_rng([a.seed, 1])

    @jax.jit
    def score(params, inputs, targets):
        logits = model.apply({"params": params}, inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        hits = logits.argmax(-1) == targets
        return losses.sum(), hits.sum(), hits[:, -1].sum()

    def evaluate(params):
        sums = np.zeros(3)
        for chunk in np.array_split(fixed, -(-len(fixed) // 512)):
            sums += [float(x) for x in score(params, *windows_of(validation, chunk, t))]
        positions = len(fixed) * t
        return dict(validation_loss=sums[0] / positions, accuracy=sums[1] / positions,
                    accuracy_last=sums[2] / len(fixed))

    def log(**line):
        print(json.dumps(line), flush=True)

    log(event="start", parameters=count, versions={m.__name__: m.__version__ for m in (jax, np, optax)},
        processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **{key: value for key, value in vars(a).items() if key != "run"})
    seconds, times, losses = 0.0, [], []
    for number in range(1, a.steps + 1):
        start = time.perf_counter()
        batch = windows_of(training, rng.integers(len(training) - t, size=a.batch_size), t)
        params, state, loss = step(params, state, *batch)
        losses.append(float(loss))  # waits for the step
        times.append(time.perf_counter() - start)
        seconds += times[-1]
        if number == a.steps or (a.eval_every and number % a.eval_every == 0):
            log(event="evaluated", step=number, train_loss=sum(losses) / len(losses),
                **evaluate(params), train_seconds=seconds)
            losses = []
    # The first steps compile.
    settled = times[2:] or times
    log(event="end", ms_per_step=1e3 * statistics.median(settled), steps_timed=len(settled), train_seconds=seconds)
    return 0


def main():
    parser = argparse.ArgumentParser(description="The model in JAX, Flax and Optax.")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("fixture", help="write the fixtures of the engine's tests")
    command.set_defaults(run=write_fixtures)
    command = commands.add_parser("check", help="compute the fixtures again; exit code 1 when they differ")
    command.add_argument("--tolerance", type=float, default=1e-6,
                         help="relative to each tensor's largest magnitude (default 1e-6)")
    command.set_defaults(run=check_fixtures)
    command = commands.add_parser("train", help="train on a text over a-z and space; JSON lines on stdout",
                                  formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    command.add_argument("text", help="first 80 %% train, next 10 %% validate")
    for flag, kind, default, text in [
        ("d-model", int, 256, "width D"), ("n-heads", int, 8, "attention heads"),
        ("n-layers", int, 4, "blocks"), ("mlp-ratio", float, 4.0, "width of the MLP in units of D"),
        ("max-len", int, 128, "rows of the position table"), ("steps", int, 1000, "updates"),
        ("batch-size", int, 64, "windows in a batch"), ("sequence-length", int, 32, "characters in a window"),
        ("learning-rate", float, LEARNING_RATE, "of Adam, constant"),
        ("seed", int, 0, "of the initial weights and the training windows"),
        ("eval-every", int, 0, "steps between evaluations; 0 for the end only"),
        ("validation-windows", int, 4096, "fixed windows, the same for every seed"),
        ("threads", int, 0, "processors to use; 0 for all"),
    ]:
        command.add_argument(f"--{flag}", type=kind, default=default, help=text)
    command.add_argument("--tie-embeddings", action="store_true", help="the output matrix is the embedding")
    command.set_defaults(run=train)
    arguments = parser.parse_args()
    sys.exit(arguments.run(arguments))


if __name__ == "__main__":
    main()
