"""The reference: what the objectives share that compare the model with what it was before."""

from __future__ import annotations

from typing import Any

from torch import nn
from trl.models.utils import _ForwardRedirection  # pyright: ignore[reportPrivateUsage]

from ....recipes.model import LoraMethod, Preference, Recipe
from ...plan import Plan
from ...runs.events import Phase
from ..arguments import moves_activations

REFERENCE = "ref"
"""The name under which TRL keeps a copy of the adapters as they were."""


def comparing(trainer: type[Any], plan: Plan, telemetry: Any) -> type[Any]:
    """Return TRL's `trainer` as one that takes rows as our own rendering made them, and asks its reference as itself."""

    class Comparing(trainer):
        def _prepare_dataset(self, dataset: Any, *arguments: Any, **options: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *arguments: Any, **options: Any) -> Any:
            take_parts(self, plan)
            return super()._precompute_ref_logps(*arguments, **options)

        def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
            if (
                self.use_liger_kernel and model.training
            ):  # that goes past the model's own forward, where tokens are counted
                telemetry.tally.add(inputs["input_ids"], inputs["attention_mask"])
            return super().compute_loss(model, inputs, *arguments, **options)

    return Comparing


def preference_of(recipe: Recipe) -> Preference:
    """Return how the recipe weighs preferences."""
    weighed = recipe.training.preference
    assert weighed is not None, "the recipe's schema resolves it"
    return weighed


def reference_arguments(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """Return the arguments that objectives with a reference share.

    Fresh adapters are switched off to ask the model as it was. Where that is not the model as it was (full
    fine-tuning, adapters that are gone on from), it is asked about every row before the first step.
    """
    return {
        "precompute_ref_log_probs": asked_before(recipe),
        "precompute_ref_batch_size": plan.micro_batch,
        "sync_ref_model": False,
        "ref_model_mixup_alpha": 0.6,
        "ref_model_sync_steps": 512,
        "disable_dropout": True,  # the model and its reference are compared like with like
        "max_length": recipe.data.max_length,
        "pad_to_multiple_of": None,
        "activation_offloading": moves_activations(plan),
        "router_aux_loss_coef": None,
        "remove_unused_columns": False,  # our own collators read them
    }


def asked_before(recipe: Recipe) -> bool:
    """Tell whether the reference is asked about every row before the first step."""
    return not isinstance(recipe.method, LoraMethod) or recipe.base.adapter is not None


def tell_asking(recipe: Recipe, telemetry: Any) -> None:
    """Tell that the reference is about to be asked, if it is: that is a forward pass over all rows."""
    if asked_before(recipe):
        telemetry.log.append(Phase(name="loading", detail="what the model makes of the answers as it is"))


def finish(trainer: Any, plan: Plan) -> Any:
    """Return `trainer` as it trains from here on, once TRL has built it.

    TRL's copy of the adapters is taken away: no step needs it, and it would be saved with them.
    """
    if REFERENCE in getattr(trainer.model, "peft_config", {}):
        trainer.model.delete_adapter(REFERENCE)
    take_parts(trainer, plan)
    return trainer


def take_parts(trainer: Any, plan: Plan) -> None:
    """Let `trainer` take the likelihood of answers from the hidden states, in parts, where the output layer is a plain one.

    Otherwise all logits of both answers are held, and the reference's beside them. TRL has this way itself, but lets
    only those take it who have Liger's kernels installed, of which it uses none.
    """
    plain = type(trainer.model.get_output_embeddings()) is nn.Linear  # neither adapted nor trained beside adapters
    if plain and plan.backend == "transformers" and not trainer.aux_loss_enabled:
        trainer.use_liger_kernel = True
        trainer._forward_redirection = _ForwardRedirection()
