"""Parameters with which every method of the table is cheap enough for a test: METHODS' own defaults where absent."""

from typing import Any

CHEAP: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 3},
    "score_cam": {"max_channels": 6},
    "rise": {"masks": 20},
    "lime": {"samples": 20, "segments": 4},
    "kernel_shap": {"samples": 20, "segments": 9},
    "sobol": {"designs": 4, "cells": 3},
    "hsic": {"samples": 20, "cells": 3},
    "greedy_deletion": {"cells": 3},
    "meaningful_perturbation": {"iterations": 4, "mask_size": 4},
    "extremal_perturbation": {"iterations": 4, "areas": [0.1, 0.3], "step_px": 4},
    **{name: {"iterations": 2, "integration_steps": 2, "mask_size": 4} for name in ("igos", "igos_plus_plus")},
    **{name: {"samples": 3} for name in ("smoothgrad", "smoothgrad_squared", "vargrad", "gradient_shap")},
}


def cheap_params(method: str, layer: str) -> dict[str, Any]:
    """Parameters of a method for a small network.

    Args:
        layer: A spatial layer of the network, for methods that must be told one.
    """
    params = dict(CHEAP.get(method, {}))
    if method == "gradcam":
        params["layer"] = layer
    return params
