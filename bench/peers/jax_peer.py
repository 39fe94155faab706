"""The step in JAX, Flax and Optax: the model and the step of reference/jax_reference.py, which is the notebook's engine."""

import pathlib
import sys

import common

arguments = common.arguments()
common.keep_to(arguments.threads)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "reference"))
import jax_reference as reference

reference.define()
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax


class Rounded:
    """The model with weights, and so everything but sums and statistics, in bfloat16: what mixed precision is in Flax."""

    def __init__(self, model):
        self.model, self.parts = model, model.parts

    def apply(self, variables, inputs):
        rounded = jax.tree_util.tree_map(lambda x: x.astype(jnp.bfloat16), variables)
        return self.model.apply(rounded, inputs).astype(jnp.float32)


class Jax:
    versions = {module.__name__: module.__version__ for module in (jax, flax, optax)}

    def __init__(self, weights):
        sizes = dict(vocabulary=common.VOCABULARY, d_model=common.D_MODEL, n_heads=common.N_HEADS,
                     n_layers=common.N_LAYERS, mlp_ratio=4.0, max_len=common.MAX_LEN, tie_embeddings=False)
        self.model = reference.make_model(sizes)
        optimizer = reference.with_ngrams(self.model, optax.adam(reference.LEARNING_RATE))
        shapes = jax.eval_shape(self.model.init, jax.random.key(0), np.zeros((1, common.T), np.int32))["params"]

        def named(path, leaf):
            return jnp.asarray(weights[reference.name_in_checkpoints([key.key for key in path])].reshape(leaf.shape))

        self.weights = jax.tree_util.tree_map_with_path(named, shapes)
        self.state = optimizer.init(self.weights)
        if "bf16" in arguments.setting.split(","):
            self.model = Rounded(self.model)
        self.update = reference.make_step(self.model, optimizer)  # compiled, its arguments donated

    def step(self, batch):
        inputs, targets = (x.astype(np.int32) for x in batch)
        self.weights, self.state, loss = self.update(self.weights, self.state, inputs, targets)
        return float(loss)  # waits for the step

    def parameters(self):
        return {name: x.copy() for name, x in reference.flat(self.weights, common.D_MODEL).items()}

    def gradients(self, batch):
        inputs, targets = (x.astype(np.int32) for x in batch)
        gradient = jax.grad(lambda w: reference.loss_and_logits(self.model, w, inputs, targets)[0])(self.weights)
        return reference.flat(gradient, common.D_MODEL)


data = common.Data(arguments.data)
common.serve(Jax(data.weights), data, arguments.check)
