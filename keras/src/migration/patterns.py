"""The patterns that are looked for: what each is, and what to write instead."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A way to handle masks that has a replacement.

    Attributes:
        name: What it is called in the output and by `--ignore`.
        what: What was found; names in braces are filled in for each finding.
        replacement: What to write instead, likewise.
    """

    name: str
    what: str
    replacement: str


PATTERNS = {
    pattern.name: pattern
    for pattern in (
        Pattern(
            "supports_masking",
            "`{code}` in layer `{layer}`: Keras does not read this flag",
            "Delete it and use `keras.ops` in `call`: a mask is part of its "
            "tensor and comes along. A class that must also run on upstream "
            "Keras keeps it",
        ),
        Pattern(
            "compute_mask",
            "`{layer}` overrides `compute_mask`",
            "Return `keras.MaskedTensor(values, mask)` from `call`, with the "
            "mask that is computed here, and delete it",
        ),
        Pattern(
            "compute_mask_identity",
            "`compute_mask` of `{layer}` returns the mask as it came",
            "Delete it: `keras.ops` carry the mask through `call`. A class "
            "that must also run on upstream Keras keeps it",
        ),
        Pattern(
            "compute_mask_none",
            "`compute_mask` of `{layer}` ends the mask",
            "Delete it: a reduction over the masked axis ends the mask. If "
            "there is none, return `keras.ops.filled(x)` from `call`",
        ),
        Pattern(
            "compute_mask_call",
            "`{code}()` in layer `{layer}`: masks are not computed apart",
            "Call the layer itself, and read the mask of what it returns with "
            "`keras.ops.get_mask()`",
        ),
        Pattern(
            "mask_argument",
            "`{layer}.call` asks for `{argument}`, which goes on working: it "
            "gets plain values with it. The mask ends here",
            "Return `keras.MaskedTensor(values, mask)` if it is to go on; or "
            "delete the argument and let `call` take the masked tensor",
        ),
        Pattern(
            "unused_mask_argument",
            "`{layer}.call` does not read its argument `{argument}`, but gets "
            "plain values for having it: the mask ends here",
            "Delete the argument, and `call` takes the masked tensor",
        ),
        Pattern(
            "keras_mask",
            "`{code}` reads the mask off a tensor's old attribute",
            'Write `getattr(x, "mask", None)` or `keras.ops.get_mask(x)`. In '
            "a layer with `supports_masking` or `compute_mask`, do so when "
            "these are gone",
        ),
        Pattern(
            "keras_mask_set",
            "`{code}` hangs a mask on a tensor, or takes it off",
            "Make a masked tensor, `keras.MaskedTensor(values, mask)`; "
            "without its mask it is `x.values`",
        ),
        Pattern(
            "raw_backend_call",
            "`{code}` in `{layer}.call` knows no masks and raises on a masked "
            "tensor",
            "Use `{op}`",
        ),
        Pattern(
            "raw_backend_call_without_op",
            "`{code}` in `{layer}.call` knows no masks and raises on a masked "
            "tensor; no function of `keras.ops` has its name",
            "Build it from `keras.ops`; or give it `x.values` and return "
            "`keras.MaskedTensor(values, x.mask)`",
        ),
        Pattern(
            "last_step",
            "`{code}` is the last step of a sequence, which is padding where "
            "the sequence is shorter than others",
            "Write `keras.ops.last({tensor})`, which is the last valid one. "
            "Where a tensor has no mask it is the same",
        ),
        Pattern(
            "metric_mask",
            "`{code}` in `{owner}`: losses and metrics see no mask",
            "Let `sample_weight` say what counts; "
            "`keras.utils.sample_weight_from_mask()` makes one",
        ),
        Pattern(
            "unweighted_metrics",
            "`{code}(metrics=...)` of a model with masks: these metrics count "
            "masked entries",
            "Pass them as `weighted_metrics=`, and `sample_weight` to `fit` "
            "and `evaluate`",
        ),
        Pattern(
            "unweighted_fit",
            "`{code}` of a model with masks has no `sample_weight`: the loss "
            "counts masked entries",
            "Pass `sample_weight=keras.utils.sample_weight_from_mask(...)`, or "
            "data that gives `(x, y, sample_weight)`",
        ),
    )
}
